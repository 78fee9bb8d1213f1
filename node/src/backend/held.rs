//! The way of what senders of pairs sent that do not count: held, compared when they count, and stored.
//!
//! Beside the requests of clients, on their threads: one task follows who counts and starts what is due. Comparing and storing are
//! tasks of their own, a few at a time; each one that stores does so half of the time. When something is done, how often it is
//! tried, and how much of it at once, is decided in `crate::held`.

mod compare;
mod ended;

use super::{NodeBackend, Origin, deltas::checked_limits, unavailable};
use crate::{
    cluster::known_deletions::Since,
    config::Settings,
    held::{Held, Job, JobKey, LATE_SHARE, Loss, Others, Request, Rules, Sender, Uncompared},
    ingest::{
        held::{Packed, unpack},
        pairs::Filter,
    },
    telemetry::Reason,
};
use bytes::Bytes;
use ended::Unended;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;
use trefoil_api::{ApiError, TenantName, remote_write::WriteRequest};
use trefoil_model::{DeletionVersion, Millis, TenantId, key_hash};
use trefoil_store_metrics::{BodyReader, MetricsError};

/// Between two looks at who counts and what is due.
const TICK: Duration = Duration::from_millis(250);
/// Beside the time that a request may take: that its verdict may be older than an election, and that clocks differ.
const SETTLE_MARGIN: Duration = Duration::from_secs(1);
/// How long what is owed may take into the store when the node stops.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How much of that may be spent on telling the others first.
const STOP_FORGO_MAX: Duration = Duration::from_secs(2);
/// Longest rest behind storing a body: one that took long has waited, not worked.
const REST_MAX: Duration = Duration::from_secs(1);

/// What is held of a request: a body, and how it came.
#[derive(Clone, Debug)]
pub(super) struct Content {
    tenant: TenantName,
    body: Bytes,
    /// The newest deletion when it came.
    deletion: DeletionVersion,
}

/// Whose a request is, and how it came.
#[derive(Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) name: &'a TenantName,
    pub(super) tenant: TenantId,
    pub(super) filter: &'a Filter<'a>,
    pub(super) deletion: DeletionVersion,
}

/// What is to be held of senders that count when the rest of their request is stored.
pub(super) struct Late<'a> {
    /// With the places of their senders.
    parts: Vec<(usize, Packed)>,
    room: Room<'a>,
}

/// Room that is kept; it is given back by dropping it.
struct Room<'a> {
    held: &'a Mutex<Held<Content>>,
    reserved: usize,
}

impl Room<'_> {
    /// The bytes, to be given back by who takes them.
    fn take(mut self) -> usize {
        std::mem::take(&mut self.reserved)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.reserved > 0 {
            self.held.lock().free(self.reserved);
        }
    }
}

pub(super) fn rules(settings: &Settings) -> Rules {
    Rules {
        apart: settings.pairs.apart(),
        kept: settings.pairs.kept(),
        failover_timeout: settings.pairs.failover_timeout,
        settle: settings.write_timeout + SETTLE_MARGIN,
        bytes_max: settings.pairs.held_bytes_max,
        late_bytes_max: match settings.pairs.holds_late {
            true => settings.pairs.held_bytes_max / LATE_SHARE,
            false => 0,
        },
    }
}

impl NodeBackend {
    /// Packs what a filter keeps back of senders that count, and keeps room for it. It is held when the rest is stored. What there is
    /// no room for is stored as it comes from now on, at all nodes, and the filter says so.
    pub(super) async fn pack_late(
        &self,
        name: &TenantName,
        tenant: TenantId,
        request: &WriteRequest,
        filter: &mut Filter<'_>,
    ) -> Option<Late<'_>> {
        if !filter.has_late(request) {
            return None;
        }
        let now = self.cluster.now();
        let packed = self.encoder.pack_held(request, filter, (true, now));
        let late = packed.ok().and_then(|parts| {
            let sizes = parts
                .iter()
                .map(|(_, packed)| Content::bytes(name, &packed.body));
            let reserved = self.held.lock().reserve(sizes)?;
            let held = &self.held;
            let room = Room { held, reserved };
            Some(Late { parts, room })
        });
        if late.is_some() {
            return late;
        }
        let samples = filter.samples_late(request);
        self.leave_uncompared(Uncompared::Memory, samples);
        for (pair, replica) in filter.late_senders() {
            self.forgo_comparison(tenant, pair, replica).await;
        }
        filter.store_late();
        None
    }

    /// Has all nodes store what a sender that counts sends from before its election as it comes: a node that compared what it holds
    /// itself would take it for another sender's.
    async fn forgo_comparison(&self, tenant: TenantId, pair: &str, replica: &str) {
        let forgone = self.cluster.forgo_comparison(tenant, pair, replica).await;
        if let Err(error) = forgone {
            // It is stored all the same: who sends it would stand still.
            tracing::debug!(%error, pair, "other nodes go on comparing what the sender of a pair sends late");
        }
    }

    /// Holds what was packed before, in the room that was kept for it.
    pub(super) fn hold_late(&self, of: Whose<'_>, late: Late<'_>) {
        let mut held = self.held.lock();
        held.free(late.room.take());
        self.hold_parts(of, late.parts, &mut held);
    }

    /// Holds what a filter keeps back of senders that do not count: `samples`. What does not fit into any body is lost.
    pub(super) fn hold(&self, of: Whose<'_>, request: &WriteRequest, samples: u64) {
        if !self.cluster.settings.pairs.holds() {
            return;
        }
        let now = self.cluster.now();
        let packed = match self.encoder.pack_held(request, of.filter, (false, now)) {
            Ok(packed) => packed,
            Err(error) => {
                tracing::warn!(%error, "cannot hold a request of a pair back");
                return self.lose_held(Loss::Unreadable, samples);
            }
        };
        self.hold_parts(of, packed, &mut self.held.lock());
    }

    fn hold_parts(&self, of: Whose<'_>, parts: Vec<(usize, Packed)>, held: &mut Held<Content>) {
        let arrived = self.cluster.now();
        for (place, packed) in parts {
            let (pair, replica) = of.filter.sender(place).clone();
            let sender = Sender {
                tenant: of.tenant,
                pair,
                replica,
            };
            let content = Content {
                tenant: of.name.clone(),
                body: packed.body,
                deletion: of.deletion,
            };
            let came = (arrived, of.filter.others_until(place));
            held.hold(&sender, content.into_request(came, packed.samples));
        }
        self.show_held(held);
    }

    /// Starts what compares and stores what is held, on threads that serve no peers; it ends with them.
    pub(crate) fn release_held(self: &Arc<Self>, runtime: &Handle) {
        if self.cluster.settings.pairs.holds() {
            runtime.spawn(self.clone().follow_pairs());
        }
    }

    /// Stores what was acknowledged of senders that count, as it came: the memory goes with the node. For [`STOP_MAX`] at most.
    pub(crate) async fn store_late_before_stop(&self) {
        let late = {
            let mut held = self.held.lock();
            let late = held.take_late();
            self.show_held(&mut held);
            late
        };
        if late.is_empty() {
            return;
        }
        let deadline = Instant::now() + STOP_MAX;
        let stored = tokio::time::timeout_at(deadline.into(), async {
            let senders: BTreeSet<&Sender> = late.iter().map(|(sender, _)| sender).collect();
            let forgone = tokio::time::timeout(STOP_FORGO_MAX, async {
                for sender in senders {
                    self.forgo_comparison(sender.tenant, &sender.pair, &sender.replica)
                        .await;
                }
            });
            if forgone.await.is_err() {
                tracing::debug!(
                    "that late samples are stored at a stop cannot be recorded in time"
                );
            }
            let mut failed = None;
            for (sender, request) in &late {
                let stored = self.store_content(sender.tenant, request, deadline);
                failed = stored.await.err().or(failed);
            }
            failed.map_or(Ok(()), |error| Err(error.to_string()))
        });
        let ended = stored.await.unwrap_or_else(|late| Err(late.to_string()));
        if let Err(error) = ended {
            tracing::error!(%error, "samples that a sender of a pair sent late go with this node's memory");
        }
    }

    async fn follow_pairs(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            {
                let mut held = self.held.lock();
                let elected = |tenant, pair: &str| self.cluster.elected(tenant, pair);
                held.follow(self.cluster.now(), elected);
                self.show_held(&mut held);
            }
            while let Some((key, requests, others)) = self.next_comparison() {
                let backend = self.clone();
                tokio::spawn(async move {
                    let unended = backend.unended(&key);
                    let compared = backend.compare_job(&key, &requests, others).await;
                    backend.end_comparison(&key, compared);
                    unended.end();
                });
            }
            while let Some(first) = self.next_to_store() {
                tokio::spawn(self.clone().store_held(first));
            }
        }
    }

    /// Has a job fail that does not come to its end: its place would be taken for ever.
    fn unended(self: &Arc<Self>, key: &JobKey) -> Unended<impl FnOnce()> {
        let (backend, key) = (self.clone(), key.clone());
        Unended::new(move || {
            tracing::error!("what is held of a pair was given up in the middle of a job");
            let now = backend.cluster.now();
            backend.held.lock().failed(&key, now);
        })
    }

    fn next_comparison(&self) -> Option<(JobKey, Vec<Request<Content>>, Others)> {
        let now = self.cluster.now();
        match self.held.lock().next_comparison(now)? {
            (key, Job::Compare(requests, others)) => Some((key, requests, others)),
            (_, Job::Store(_)) => None,
        }
    }

    fn next_to_store(&self) -> Option<(JobKey, Request<Content>)> {
        let now = self.cluster.now();
        match self.held.lock().next_to_store(now)? {
            (key, Job::Store(request)) => Some((key, request)),
            (_, Job::Compare(..)) => None,
        }
    }

    /// What is left of requests when they are compared. It counts only if their sender counted by the same election behind it: before
    /// anything of the sender is stored as it comes at times of others, that is recorded.
    async fn compare_job(
        &self,
        key: &JobKey,
        requests: &[Request<Content>],
        others: Others,
    ) -> Result<Vec<Request<Content>>, ApiError> {
        let left = self.compare(&key.sender, requests, others).await?;
        self.check_counts(key).await?;
        Ok(left)
    }

    fn end_comparison(&self, key: &JobKey, compared: Result<Vec<Request<Content>>, ApiError>) {
        let now = self.cluster.now();
        let mut held = self.held.lock();
        match compared {
            Ok(left) => held.compared(key, left, now),
            Err(error) if is_later(&error) => {
                tracing::debug!(%error, "what is held of a pair cannot be compared yet");
                held.failed(key, now);
            }
            Err(error) => {
                tracing::error!(%error, "what is held of a pair cannot be read");
                held.give_up(key, Loss::Unreadable, now);
            }
        }
        self.show_held(&mut held);
    }

    /// Stores one request after the other, as long as one is due.
    async fn store_held(self: Arc<Self>, first: (JobKey, Request<Content>)) {
        let mut next = Some(first);
        while let Some((key, request)) = next {
            let unended = self.unended(&key);
            let begun = Instant::now();
            let stored = self.store_one(&key, &request).await;
            // Clients' requests have the other half of the time.
            tokio::time::sleep(begun.elapsed().min(REST_MAX)).await;
            self.end_storing(&key, &request, stored);
            unended.end();
            next = self.next_to_store();
        }
    }

    fn end_storing(&self, key: &JobKey, request: &Request<Content>, stored: Result<(), ApiError>) {
        let now = self.cluster.now();
        let mut held = self.held.lock();
        match stored {
            Err(error) if is_later(&error) => {
                tracing::debug!(%error, "what is held of a pair cannot be stored yet");
                held.failed(key, now);
            }
            done => {
                if let Err(error) = done {
                    tracing::error!(%error, "what is held of a pair cannot be stored");
                    self.lose_held(Loss::Refused, request.samples);
                }
                held.stored(key, request.digest);
            }
        }
        self.show_held(&mut held);
    }

    /// Stores what was held of a request, or finds that nothing of it may be.
    async fn store_one(&self, key: &JobKey, request: &Request<Content>) -> Result<(), ApiError> {
        // It has ended when another sender that is elected from now on has settled.
        let deadline = Instant::now() + self.cluster.settings.write_timeout;
        if !key.is_owed() {
            self.check_counts(key).await?;
        }
        self.store_content(key.sender.tenant, request, deadline)
            .await
    }

    async fn store_content(
        &self,
        tenant: TenantId,
        request: &Request<Content>,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let content = &request.content;
        let since = self.cluster.deletions_since(tenant, content.deletion);
        let Since::Known(deletion, erasing) = since else {
            self.lose_held(Loss::Deletion, request.samples);
            return Ok(());
        };
        let keep = |canonical: &[u8], time| {
            let mut erasing = erasing.iter();
            !erasing.any(|one| one.range.contains(time) && one.selects(canonical))
        };
        let mut reader = BodyReader::new().map_err(unreadable)?;
        let unpacked = unpack(&mut reader, &content.body, &checked_limits(), keep)?;
        if unpacked.is_empty() {
            return Ok(());
        }
        let samples = unpacked.sample_count() as u64;
        self.cluster.check_clock().map_err(unavailable)?;
        let arrived = request.arrived;
        let origin = Origin::Held { deletion, arrived };
        let stored = self.store(&content.tenant, &unpacked, origin, deadline);
        let outcome = stored.await?;
        let refused = outcome.refusals.samples;
        self.lose_held(Loss::Refused, refused);
        let stored = samples.saturating_sub(refused);
        self.telemetry.stored_held_samples.inc_by(stored);
        Ok(())
    }

    /// Checks that a sender still counts by the same election, by what is known to the cluster now: a node that is cut off must not
    /// add to what another sender has been compared with. What does not is superseded at the next look at who counts.
    async fn check_counts(&self, key: &JobKey) -> Result<(), ApiError> {
        let caught_up = self.cluster.metadata.read_linearizable().await;
        caught_up.map_err(|error| unavailable(error.to_string()))?;
        let elected = self.cluster.elected(key.sender.tenant, &key.sender.pair);
        match key.is_of(elected.as_ref()) {
            true => Ok(()),
            false => Err(unavailable(
                "the sender of the pair was not elected last".to_owned(),
            )),
        }
    }

    /// Shows what is held in the node's own metrics.
    fn show_held(&self, held: &mut Held<Content>) {
        self.telemetry.held_bytes.set(held.bytes() as i64);
        let tally = held.take_tally();
        for (loss, samples) in tally.lost {
            self.lose_held(loss, samples);
        }
        for (reason, samples) in tally.uncompared {
            self.leave_uncompared(reason, samples);
        }
    }

    /// Counts samples that are not held any more, and not stored.
    fn lose_held(&self, loss: Loss, samples: u64) {
        let reason = loss.as_str();
        let lost = &self.telemetry.dropped_held_samples;
        lost.get_or_create(&Reason { reason }).inc_by(samples);
    }

    /// Counts samples of senders that count which are stored without being compared.
    fn leave_uncompared(&self, reason: Uncompared, samples: u64) {
        let reason = reason.as_str();
        let uncompared = &self.telemetry.uncompared_samples;
        uncompared.get_or_create(&Reason { reason }).inc_by(samples);
    }
}

impl Content {
    fn bytes(tenant: &TenantName, body: &Bytes) -> usize {
        body.len() + tenant.as_str().len()
    }

    fn into_request(
        self,
        (arrived, late): (Millis, Option<Millis>),
        samples: u64,
    ) -> Request<Self> {
        Request {
            arrived,
            late,
            bytes: Self::bytes(&self.tenant, &self.body),
            samples,
            // What came again behind a deletion is another item.
            digest: key_hash(TenantId(self.deletion.0 as u32), &self.body),
            content: self,
        }
    }
}

/// Whether it is worth another try.
fn is_later(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::Unavailable { .. } | ApiError::TooManyRequests { .. }
    )
}

/// A body of this node's own making, or memory is short.
fn unreadable(error: MetricsError) -> ApiError {
    ApiError::BadData(error.to_string())
}
