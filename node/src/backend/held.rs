//! The way of what senders of pairs sent that do not count: held, compared when they count, and stored.
//!
//! Two tasks of their own, beside the requests of clients: one follows who counts and has comparisons made, the other one
//! stores, one body at a time and at most half of the time. Everything is tried until it is done. When is decided in
//! `crate::held`.

use super::{NodeBackend, Origin, deltas::checked_limits, unavailable};
use crate::{
    cluster::known_deletions::Since,
    config::Settings,
    held::{Held, Job, JobKey, Request, Rules, Sender, compare::Comparison},
    ingest::{
        held::{times_of, unpack},
        pairs::Filter,
    },
    query::select::Select,
};
use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use trefoil_api::{ApiError, Backend, TenantName, limit_refusals, remote_write::WriteRequest};
use trefoil_model::{DeletionVersion, Millis, SeriesHash, TenantId, key_hash};
use trefoil_query_promql::{Budget, MatchOp, Matcher, QueryError};
use trefoil_store_metrics::{BodyReader, MetricsError};

/// Between two looks at who counts and what is due.
const TICK: Duration = Duration::from_millis(250);
/// Beside the time that a request may take: that its verdict may be older than an election, and that clocks differ.
const SETTLE_MARGIN: Duration = Duration::from_secs(1);
/// Samples whose times and series are in memory for comparisons at once: some 160 MB when each is of another series. The series of
/// a sender with more are compared part by part.
const COMPARED_SAMPLES_MAX: u64 = 2_000_000;
/// Samples for which one permit stands.
const SAMPLES_PER_PERMIT: u64 = 1000;

/// What is held of a request: a body, and how it came.
#[derive(Clone, Debug)]
pub(super) struct Content {
    tenant: TenantName,
    body: Bytes,
    /// The newest deletion when it came.
    deletion: DeletionVersion,
    /// Whether its samples were taken out of the tenant's rate.
    is_charged: bool,
}

/// The requests whose samples were taken out of the rate and are not stored yet, by their digests.
type Charged = HashMap<JobKey, u64>;

pub(super) fn rules(settings: &Settings) -> Rules {
    Rules {
        apart: settings.pairs.apart(),
        failover_timeout: settings.pairs.failover_timeout,
        settle: settings.write_timeout + SETTLE_MARGIN,
        bytes_max: settings.pairs.held_bytes_max,
    }
}

impl NodeBackend {
    /// Holds what a filter keeps back of a request. What does not fit into any body is dropped.
    pub(super) fn hold(
        &self,
        (name, tenant): (&TenantName, TenantId),
        request: &WriteRequest,
        filter: &Filter<'_>,
        (origin, deletion): (Origin, DeletionVersion),
    ) {
        if self.cluster.settings.pairs.held_bytes_max == 0 {
            return;
        }
        let packed = match self.encoder.pack_held(request, filter) {
            Ok(packed) => packed,
            Err(error) => return tracing::warn!(%error, "cannot hold a request of a pair back"),
        };
        let arrived = self.cluster.now();
        let mut held = self.held.lock();
        for (place, packed) in packed {
            let (pair, replica) = filter.sender(place).clone();
            let sender = Sender {
                tenant,
                pair,
                replica,
            };
            let content = Content {
                tenant: name.clone(),
                body: packed.body,
                deletion,
                is_charged: matches!(origin, Origin::Deltas),
            };
            held.hold(&sender, content.into_request(arrived, packed.samples));
        }
        self.show_held(&mut held);
    }

    /// Starts the tasks that compare and store what is held; they end with the runtime.
    pub(crate) fn release_held(self: &Arc<Self>) {
        tokio::spawn(self.clone().compare_held());
        tokio::spawn(self.clone().store_held());
    }

    async fn compare_held(self: Arc<Self>) {
        let permits_max = (COMPARED_SAMPLES_MAX / SAMPLES_PER_PERMIT) as u32;
        let turns = Arc::new(Semaphore::new(permits_max as usize));
        loop {
            tokio::time::sleep(TICK).await;
            {
                let mut held = self.held.lock();
                let elected = |tenant, pair: &str| self.cluster.elected(tenant, pair);
                held.follow(self.cluster.now(), elected);
                self.show_held(&mut held);
            }
            while let Some((key, requests, others_until)) = self.next_comparison() {
                let samples: u64 = requests.iter().map(|request| request.samples).sum();
                let permits = (samples / SAMPLES_PER_PERMIT + 1).min(u64::from(permits_max));
                let turn = turns.clone().acquire_many_owned(permits as u32).await;
                let backend = self.clone();
                tokio::spawn(async move {
                    let compared = backend.compare(&key.sender, &requests, others_until);
                    let compared = compared.await;
                    backend.end_comparison(&key, samples, compared);
                    drop(turn);
                });
            }
        }
    }

    fn next_comparison(&self) -> Option<(JobKey, Vec<Request<Content>>, Millis)> {
        let now = self.cluster.now();
        match self.held.lock().next_comparison(now)? {
            (key, Job::Compare(requests, others_until)) => Some((key, requests, others_until)),
            (_, Job::Store(_)) => None,
        }
    }

    fn end_comparison(
        &self,
        key: &JobKey,
        samples: u64,
        compared: Result<Vec<Request<Content>>, ApiError>,
    ) {
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
                self.telemetry.dropped_held_samples.inc_by(samples);
                held.compared(key, Vec::new(), now);
            }
        }
        self.show_held(&mut held);
    }

    /// What is left of requests behind what other senders of the pair have stored.
    async fn compare(
        &self,
        sender: &Sender,
        requests: &[Request<Content>],
        others_until: Millis,
    ) -> Result<Vec<Request<Content>>, ApiError> {
        let samples: u64 = requests.iter().map(|request| request.samples).sum();
        let parts = samples.div_ceil(COMPARED_SAMPLES_MAX).max(1);
        let mut left = Vec::new();
        let mut reader = BodyReader::new().map_err(unreadable)?;
        for part in 0..parts {
            let hash_of = |canonical: &[u8]| {
                let hash = SeriesHash::of(sender.tenant, canonical);
                (hash.0 % u128::from(parts) == u128::from(part)).then_some(hash)
            };
            let mut comparison = Comparison::new(others_until);
            for request in requests {
                let add = |canonical: &[u8], times: &mut dyn Iterator<Item = _>| {
                    if let Some(hash) = hash_of(canonical) {
                        comparison.add(hash, times);
                    }
                };
                times_of(&mut reader, &request.content.body, add).map_err(unreadable)?;
                tokio::task::yield_now().await;
            }
            let found = self.find_stored(sender, &mut comparison).await;
            found.map_err(|error| unavailable(error.to_string()))?;
            for request in requests {
                let keep = |canonical: &[u8], time| {
                    let hash = hash_of(canonical);
                    hash.is_some_and(|hash| comparison.may_store(hash, time).unwrap_or(true))
                };
                let body = &request.content.body;
                let kept = unpack(&mut reader, body, &checked_limits(), keep)?;
                let packed = self.encoder.pack_all(&kept).map_err(unreadable)?;
                left.extend(packed.into_iter().map(|packed| {
                    let content = Content {
                        body: packed.body,
                        ..request.content.clone()
                    };
                    content.into_request(request.arrived, packed.samples)
                }));
                tokio::task::yield_now().await;
            }
        }
        Ok(left)
    }

    /// Asks the store what it has of the series of a pair at the times of what is held. Complete, as every query is.
    async fn find_stored(
        &self,
        sender: &Sender,
        comparison: &mut Comparison,
    ) -> Result<(), QueryError> {
        let Some((start, end)) = comparison.span() else {
            return Ok(());
        };
        let settings = &self.cluster.settings;
        let of_pair = Matcher::new(&settings.pairs.cluster_label, MatchOp::Equal, &sender.pair)?;
        let deadline = Instant::now() + settings.query_timeout;
        let is_late = move || Instant::now() >= deadline;
        // It is no query of the tenant's, so its limits of queries are not meant.
        let budget = Budget::with_deadline(settings.query_samples, settings.query_bytes, is_late);
        let source = self.source(sender.tenant, deadline, budget);
        let pages = source.accepting_loss(true).select(Select {
            alternatives: vec![vec![of_pair]],
            start,
            end,
            newest_only: false,
            after: None,
            bytes_max: 0,
        });
        pin_mut!(pages);
        while let Some(page) = pages.next().await {
            for series in page? {
                let hash = SeriesHash::of(sender.tenant, series.labels.canonical());
                comparison.found(hash, &series.timestamps);
            }
        }
        Ok(())
    }

    async fn store_held(self: Arc<Self>) {
        let mut charged = Charged::new();
        loop {
            let due = self.held.lock().next_to_store(self.cluster.now());
            let Some((key, Job::Store(request))) = due else {
                if self.held.lock().bytes() == 0 {
                    charged.clear();
                }
                tokio::time::sleep(TICK).await;
                continue;
            };
            let begun = Instant::now();
            let stored = self.store_one(&key, &request, &mut charged).await;
            let now = self.cluster.now();
            {
                let mut held = self.held.lock();
                match stored {
                    Err(error) if is_later(&error) => {
                        tracing::debug!(%error, "what is held of a pair cannot be stored yet");
                        held.failed(&key, now);
                    }
                    done => {
                        if let Err(error) = done {
                            tracing::error!(%error, "what is held of a pair cannot be stored");
                            self.telemetry.dropped_held_samples.inc_by(request.samples);
                        }
                        charged.remove(&key);
                        held.stored(&key, request.digest);
                    }
                }
                self.show_held(&mut held);
            }
            // Clients' requests have the other half of the time.
            tokio::time::sleep(begun.elapsed()).await;
        }
    }

    /// Stores what was held of a request, or finds that nothing of it may be.
    async fn store_one(
        &self,
        key: &JobKey,
        request: &Request<Content>,
        charged: &mut Charged,
    ) -> Result<(), ApiError> {
        let content = &request.content;
        let since = self
            .cluster
            .deletions_since(key.sender.tenant, content.deletion);
        let Since::Known(deletion, erasing) = since else {
            self.telemetry.dropped_held_samples.inc_by(request.samples);
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
        if !content.is_charged && charged.get(key) != Some(&request.digest) {
            self.charge_held(&content.tenant, samples)?;
            charged.insert(key.clone(), request.digest);
        }
        self.cluster.check_clock().map_err(unavailable)?;
        let deadline = Instant::now() + self.cluster.settings.write_timeout;
        let stored = self.store(&content.tenant, &unpacked, Origin::Held(deletion), deadline);
        let outcome = stored.await?;
        let stored = samples.saturating_sub(outcome.refusals.samples);
        self.telemetry.stored_held_samples.inc_by(stored);
        Ok(())
    }

    /// Takes samples out of the tenant's rate. More than a whole burst counts as one: what was cut to fit the usual one may not
    /// fit a small one.
    fn charge_held(&self, tenant: &TenantName, samples: u64) -> Result<(), ApiError> {
        let limits = self.limits(tenant);
        let samples = match limits.ingestion_burst_size {
            0 => samples,
            burst => samples.min(burst),
        };
        let (parts, now) = (self.cluster.nodes_that_write(), Instant::now());
        let admitted = (self.gates).admit(tenant.as_str(), &limits, samples, parts, now);
        admitted.map_err(|retry_after| ApiError::TooManyRequests {
            message: limit_refusals::too_fast(&limits),
            retry_after,
        })
    }

    /// Shows what is held in the node's own metrics.
    fn show_held(&self, held: &mut Held<Content>) {
        self.telemetry.held_bytes.set(held.bytes() as i64);
        let dropped = &self.telemetry.dropped_held_samples;
        dropped.inc_by(held.take_dropped());
    }
}

impl Content {
    fn into_request(self, arrived: Millis, samples: u64) -> Request<Self> {
        Request {
            arrived,
            bytes: self.body.len() + self.tenant.as_str().len(),
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
