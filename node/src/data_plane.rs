//! Drives the replication core (crate trefoil-shard): the one place where its events come together and
//! its actions are carried out.
//!
//! ```text
//!   clients, peers, clock, metadata          journal thread          applier thread
//!            | events                             | Durable               | Applied
//!            v                                    v                       v
//!   +----------------------------- mutex: Replication::step -----------------------------+
//!   | records -> journal buffer   actions: messages, answers, pinned views, reads, exports |
//!   +--------------------------------------------------------------------------------------+
//! ```
//! All actions of a step are carried out, or at least begun, before the next step: that is what the core
//! asks for. Nothing under the mutex waits for a disk or a peer.

mod aggregator;
mod applier;
mod damage;
mod deletions;
mod exemplars;
mod exports;
mod flusher;
mod panics;
mod port;
mod recovery;
mod snapshots;
#[cfg(test)]
mod tests;
mod ticker;
mod verifier;
mod waits;

use crate::{
    clock::{self, ClusterClock},
    cluster::admin::WindowDigest,
    config::Settings,
    data_dir::DataDir,
    formats,
    transport::replication::ReplicationSender,
};
use bytes::Bytes;
use damage::Damages;
use exports::Exports;
use flusher::end_with_the_manifest;
use panics::EndsWithProcess;
use parking_lot::Mutex;
use port::Port;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use trefoil_model::{DeletionVersion, ShardId, ShardSet, TenantId, TimeRange, Window};
use trefoil_shard::{
    Action, Alarm, CopyAnswerStep, Event, FetchedParcel, Message, Offset, QueryId, QueryRequest,
    Record, Replication, ReplicationStatus, RequestId, Routing, ShardDigest, Span, WriteOutcome,
    WriteRequest, decode_message, encode_message,
};
use trefoil_store_blocks::Manifest;
use trefoil_store_journal::{Journal, JournalError};
use trefoil_store_metrics::{Digest, DigestKey, MetricsEngine, MetricsError, View};
use waits::Waits;

pub(crate) use damage::damaged_block;
pub(crate) use recovery::{Parts, StorePolicy};
pub(crate) use snapshots::Pinned;

/// The key of the digests that nodes compare. Part of the protocol: all nodes use the same.
const DIGEST_KEY: u64 = 0x7472_6566_6f69_6c31;
/// Bytes that may wait for the journal's disk; beyond them nothing is taken in and writes are refused.
const JOURNAL_PENDING_BYTES_MAX: u64 = 256 << 20;
/// Unreadable places of the journal that are told apart; more are only left out.
const UNREADABLE_NOTED_MAX: usize = 1024;
/// How long a part waits at a node with a full disk, which can only promise what it has already.
const FULL_DISK_PATIENCE: Duration = Duration::from_millis(500);

/// Wishes that wait for the metadata plane.
pub(crate) const WISHES_WAITING_MAX: usize = 64;
/// Why a data directory that is an old copy is not used again.
const RESTORED_COPY: &str = "its peers know more of its journal than it does: it is an old copy of the \
    node's data, which may have forgotten promises and votes";

/// What the core wants from the metadata plane; carried out by the cluster's own task.
#[derive(Debug)]
pub(crate) enum MetadataWish {
    /// Propose this.
    Propose(trefoil_shard::Proposal),
    /// Bring the state up to date soon.
    Refresh,
    /// Tell the leader how far the replicas are.
    Report(trefoil_shard::ReplicaReport),
    /// This node has applied a tenant's deletions up to this one to everything that it stores.
    ConfirmDeletions(TenantId, DeletionVersion),
}

/// A part that can be evaluated, with the view that was pinned for it.
pub(crate) struct ReadyPart {
    pub(crate) view: View,
    pub(crate) complete: ShardSet,
    pub(crate) gaps: ShardSet,
    /// The times for which it was asked whether the shards are complete.
    pub(crate) range: TimeRange,
}

impl ReadyPart {
    /// Whether the promise of completeness holds for these times.
    pub(crate) fn covers(&self, range: TimeRange) -> bool {
        self.range.start <= range.start && range.end <= self.range.end
    }
}

struct Core {
    /// The journal is being closed: what happens from now on happens to nobody, as after a crash.
    closed: bool,
    replication: Replication,
    port: Port,
    actions: Vec<Action>,
}

/// The data plane of one node.
pub(crate) struct DataPlane {
    core: Mutex<Core>,
    journal: Arc<Journal>,
    engine: Arc<MetricsEngine>,
    sender: Arc<ReplicationSender>,
    waits: Waits,
    exports: Exports,
    applier: applier::Queue,
    routing: arc_swap::ArcSwap<Routing>,
    wishes: tokio::sync::mpsc::Sender<MetadataWish>,
    directory: PathBuf,
    runtime: tokio::runtime::Handle,
    next_id: AtomicU64,
    settings: Settings,
    /// What the cluster's time is here; the member's tasks correct it.
    pub(crate) clock: Arc<ClusterClock>,
    closed: AtomicBool,
    manifest: Arc<Manifest>,
    damages: Damages,
    /// Whether this node knows what it has confirmed of deletions.
    takes_items: AtomicBool,
    /// Places of the journal that the start could not read.
    journal_damages: u64,
    /// Where the last of them ends.
    journal_lost_to: u64,
    /// Up to here the blocks and the checkpoint have what the journal has.
    flushed_to: AtomicU64,
    /// Those that were found since, by offset.
    journal_unreadable: Mutex<BTreeSet<u64>>,
    /// Stands for the deletions and cut-offs that the store applies: digests compare only when it is equal.
    policy_epoch: Mutex<u64>,
    ticker: Arc<ticker::Ticker>,
    /// Held by a flush, from its checkpoint to its end.
    flushing: Mutex<()>,
    /// Held by who changes a folder of a snapshot.
    snapshots: Mutex<()>,
    this: Weak<DataPlane>,
}

impl DataPlane {
    /// Feeds one event and carries out what follows from it.
    pub(crate) fn feed(&self, event: Event) {
        let mut core = self.core.lock();
        // Half a step is no state that anybody has thought about.
        let _ends = EndsWithProcess::new("the replication core");
        let Core {
            closed,
            replication,
            port,
            actions,
        } = &mut *core;
        if *closed {
            return;
        }
        replication.step(clock::boot(), event, port, actions);
        self.ticker.wake_at(replication.next_tick());
        let mut actions: VecDeque<Action> = actions.drain(..).collect();
        while let Some(action) = actions.pop_front() {
            self.carry_out(action);
        }
    }

    fn carry_out(&self, action: Action) {
        match action {
            Action::Send(envelope, message) => {
                let target = envelope.to;
                let mut bytes = Vec::with_capacity(encoded_bytes(&message));
                encode_message(&envelope, &message, &mut bytes);
                self.sender.send(target, Bytes::from(bytes));
            }
            Action::FinishWrite { request, outcome } => self.waits.finish_write(request, outcome),
            Action::QueryReady(ready) => self.waits.finish_query(ready, self.engine.view()),
            Action::Read { read, records } => self.spawn(move |plane| {
                let records = plane.read_records(&records);
                plane.feed(Event::JournalRead { read, records });
            }),
            Action::OpenExport {
                export,
                shards,
                range,
            } => {
                let event = self.exports.open(&self.engine, export, shards, range);
                self.spawn(move |plane| plane.feed(event));
            }
            Action::Export {
                export,
                cursor,
                bytes_max,
            } => self.spawn(move |plane| {
                let read = plane.exports.read(export, cursor, bytes_max);
                let answer = read.unwrap_or_else(|error| {
                    plane.store_failed(&error, "read a view for a peer");
                    Some(Event::ExportFailed { export })
                });
                if let Some(answer) = answer {
                    plane.feed(answer);
                }
            }),
            Action::CloseExport { export } => {
                let unpinned = self.exports.close(export);
                self.spawn(move |_| drop(unpinned));
            }
            Action::Propose(proposal) => self.wish(MetadataWish::Propose(proposal)),
            Action::Report(report) => self.wish(MetadataWish::Report(report)),
            Action::RefreshMetadata => self.wish(MetadataWish::Refresh),
            Action::Trim { below } => self.spawn(move |plane| {
                if let Err(error) = plane.journal.trim(below.0) {
                    tracing::warn!(%error, "trim the journal");
                }
            }),
            Action::RoutingChanged(routing) => self.routing.store(routing),
            Action::Digest { id, shards, window } => self.spawn(move |plane| {
                let digests = plane.window_digests(&shards, window);
                plane.feed(Event::Digests { id, digests });
            }),
            Action::Repaired { shards, range } => {
                // At once: a start that still finds the marks takes them for a new loss, and asks for all owners again.
                self.spawn(|plane| plane.settle_damages());
                let (start, end) = (range.start, range.end);
                tracing::info!(
                    shards = shards.len(),
                    start,
                    end,
                    "what was damaged is here again"
                );
            }
            Action::Alarm(alarm) => self.alarm(&alarm),
        }
    }

    fn alarm(&self, alarm: &Alarm) {
        match alarm {
            Alarm::RestoredCopy { peer } => {
                tracing::error!(%peer, "a peer knows more of this node's journal: the data is an old copy");
                // An old copy must not vote: it may have forgotten a vote that it gave. So it ends here, and
                // never starts again.
                if let Err(error) = DataDir::condemn(&self.directory, RESTORED_COPY) {
                    tracing::error!(%error, "mark the data directory as unusable");
                }
                std::process::exit(1);
            }
            Alarm::Amnesia { shards } => {
                tracing::warn!(
                    shards = shards.len(),
                    "replicas lost data and are being filled again"
                );
            }
            Alarm::Gap { shards } => {
                tracing::error!(
                    shards = shards.len(),
                    "data is lost for good: there is no other replica"
                );
            }
        }
    }

    fn wish(&self, wish: MetadataWish) {
        // The core repeats what has had no effect, so a wish that finds the queue full is not missed; and
        // the receiver only goes away when the process stops.
        self.wishes.try_send(wish).ok();
    }

    /// Runs work that reads disks on a thread that may wait.
    fn spawn(&self, work: impl FnOnce(Arc<DataPlane>) + Send + 'static) {
        if let Some(plane) = self.this.upgrade() {
            self.runtime.spawn_blocking(move || work(plane));
        }
    }

    /// Takes the bytes of a message from a peer. Never waits.
    pub(crate) fn receive(&self, bytes: &Bytes) {
        match decode_message(bytes) {
            Ok((envelope, message)) => {
                let takes_items =
                    || self.takes_items.load(Ordering::Relaxed) && self.refuses_items().is_none();
                if brings_items(&message) && !takes_items() {
                    // Whoever sent it goes on without this owner, or is asked again later.
                    return;
                }
                if let Some(version) = formats::unreadable_version(&message) {
                    let from = envelope.from;
                    tracing::warn!(%from, version, "items of an unknown format were refused");
                    return;
                }
                self.feed(Event::Message(envelope, message));
            }
            Err(error) => tracing::warn!(%error, "a replication message was refused"),
        }
    }

    /// Reads parcels of the own journal for a peer. What cannot be read any more is left out.
    fn read_records(&self, spans: &[Span]) -> Vec<FetchedParcel> {
        let mut found = Vec::with_capacity(spans.len());
        for span in spans {
            let record = match self.journal.read(span.start.0, 1) {
                Ok(records) => records.into_iter().next(),
                Err(JournalError::BelowFloor { .. }) => None,
                Err(error) => {
                    self.note_unreadable(span.start.0, &error.to_string());
                    None
                }
            };
            let Some(record) = record.filter(|record| record.end == span.end.0) else {
                continue;
            };
            match Record::decode(&Bytes::from(record.bytes)) {
                Ok(Record::Parcel {
                    accepted, parcel, ..
                }) => {
                    found.push(FetchedParcel {
                        end: span.end,
                        accepted,
                        parcel,
                    });
                }
                Ok(_) => {}
                Err(error) => self.note_unreadable(span.start.0, &error.to_string()),
            }
        }
        found
    }

    /// Reports a place of the journal that could be read once and cannot be any more. The peer that asked has the
    /// third owner; this node's own items are in the head or in blocks.
    fn note_unreadable(&self, offset: u64, why: &str) {
        let mut known = self.journal_unreadable.lock();
        if known.len() < UNREADABLE_NOTED_MAX && known.insert(offset) {
            tracing::error!(
                offset,
                why,
                "the journal is damaged; a peer fetches this elsewhere"
            );
        }
    }

    /// Digests of shards in one window, as the scrub compares them; none when a block is damaged.
    fn window_digests(&self, shards: &ShardSet, window: Window) -> Vec<ShardDigest> {
        let epoch = *self.policy_epoch.lock();
        let Some(digests) = self.digests_between(shards, window.range()) else {
            return Vec::new();
        };
        let mut by_shard: BTreeMap<ShardId, u128> = BTreeMap::new();
        for (key, digest) in digests {
            // Tenants are told apart by what is hashed, so their sums may be added.
            let sum = by_shard.entry(key.shard).or_default();
            *sum = sum.wrapping_add(digest.sum);
        }
        shards
            .iter()
            .map(|shard| ShardDigest {
                shard,
                digest: by_shard.get(&shard).copied().unwrap_or_default(),
                epoch,
            })
            .collect()
    }

    /// Digests of everything that this node's own replicas hold in a range of time; none when a block
    /// turns out to be damaged meanwhile.
    pub(crate) fn all_digests(&self, start: i64, end: i64) -> Option<Vec<WindowDigest>> {
        let owned = self.core.lock().replication.status();
        let shards = owned.serving.union(&owned.filling).union(&owned.damaged);
        let digests = self.digests_between(&shards, TimeRange { start, end })?;
        let digests = digests.into_iter().map(|(key, digest)| WindowDigest {
            tenant: key.tenant,
            shard: key.shard,
            window: key.window.start(),
            items: digest.items,
            digest: digest.sum,
        });
        Some(digests.collect())
    }

    /// Digests of the windows that begin in a range; none when a block turns out to be damaged.
    fn digests_between(
        &self,
        shards: &ShardSet,
        range: TimeRange,
    ) -> Option<BTreeMap<DigestKey, Digest>> {
        let view = self.engine.view();
        match view.digests(None, range, shards, DIGEST_KEY, 0) {
            Ok(digests) => Some(digests),
            Err(error) => {
                self.store_failed(&error, "compute digests");
                None
            }
        }
    }

    /// Reports an error of the store; a block that it names is taken out of use.
    fn store_failed(&self, error: &MetricsError, doing: &str) {
        match damaged_block(error) {
            Some((block, piece)) => self.damaged(block, piece),
            None => {
                tracing::error!(%error, "{doing}");
                end_with_the_manifest(error);
            }
        }
    }

    /// Gives the store what the metadata plane says of deletions and retention.
    pub(crate) fn set_policy(&self, policy: StorePolicy) {
        give_policy(&self.engine, &policy);
        *self.policy_epoch.lock() = policy.epoch;
        self.feed(Event::Confirmed {
            deletions: policy.confirmed,
            pending: policy.pending,
        });
    }

    /// Why this owner takes no items at present: its disk is full, or too far behind.
    pub(crate) fn refuses_items(&self) -> Option<String> {
        if let Some(why) = self.journal.stalled_by() {
            return Some(format!("the disk of the journal is full: {why}"));
        }
        let waiting = self.applier.pending_bytes();
        (waiting > JOURNAL_PENDING_BYTES_MAX)
            .then(|| format!("{waiting} bytes wait for the disk of the journal"))
    }

    /// Writes a client's items; resolves when a majority of all owners holds them or it cannot be had.
    pub(crate) async fn write(&self, request: NewWrite) -> WriteOutcome {
        if self.refuses_items().is_some() {
            return WriteOutcome::Unavailable;
        }
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let wait = self.waits.begin_write(id);
        self.feed(Event::Write(WriteRequest {
            request: id,
            tenant: request.tenant,
            signal: request.signal,
            deletion: request.deletion,
            parcels: request.parcels,
            deadline: clock::boot() + request.timeout,
        }));
        wait.await.unwrap_or(WriteOutcome::Unavailable)
    }

    /// Waits until a part can be evaluated here, completely for these times, and pins the view for it.
    /// Dropping the future cancels the part.
    pub(crate) async fn query(
        &self,
        shards: ShardSet,
        range: TimeRange,
        timeout: Duration,
    ) -> Option<ReadyPart> {
        let query = QueryId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let wait = self.waits.begin_query(query, range);
        let guard = CancelGuard {
            plane: self,
            query,
            done: false,
        };
        let patience = match self.journal.stalled_by() {
            Some(_) => timeout.min(FULL_DISK_PATIENCE),
            None => timeout,
        };
        let deadline = clock::boot() + patience;
        self.feed(Event::Query(QueryRequest {
            query,
            shards,
            range,
            deadline,
        }));
        let ready = wait.await.ok();
        guard.finish();
        ready
    }

    /// What is stored here of these shards, whether or not it is complete: for an answer that says so. Nothing while
    /// deletions are unknown, for what was deleted must not come back.
    pub(crate) fn unproven(&self, shards: &ShardSet, range: TimeRange) -> ReadyPart {
        let core = self.core.lock();
        let status = core.replication.status();
        let stored = match core.replication.deletions_are_known() {
            true => status.serving.union(&status.filling).union(&status.damaged),
            false => ShardSet::new(),
        };
        ReadyPart {
            view: self.engine.view(),
            complete: stored.intersection(shards),
            gaps: ShardSet::new(),
            range,
        }
    }

    /// Where shards are, as this node follows it.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.routing.load_full()
    }

    /// How far this node's replicas are.
    pub(crate) fn status(&self) -> ReplicationStatus {
        self.core.lock().replication.status()
    }

    /// The shards here that lost data for good.
    pub(crate) fn gaps(&self) -> ShardSet {
        self.core.lock().replication.gaps()
    }

    /// The storage engine, for questions that need no barrier.
    pub(crate) fn engine(&self) -> &Arc<MetricsEngine> {
        &self.engine
    }

    /// The journal, for its numbers.
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Messages to peers that were dropped since the start.
    pub(crate) fn messages_dropped(&self) -> u64 {
        self.sender.dropped()
    }

    /// Places of the journal that could not be read, at the start or since.
    pub(crate) fn journal_damages(&self) -> u64 {
        self.journal_damages + self.journal_unreadable.lock().len() as u64
    }

    /// Blocks found unreadable since the start.
    pub(crate) fn blocks_damaged(&self) -> u64 {
        self.manifest.statistics().blocks_damaged
    }

    /// Blocks whose content is here again since the start.
    pub(crate) fn blocks_repaired(&self) -> u64 {
        self.damages.repaired()
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn durable(&self, end: u64) {
        self.feed(Event::Durable { end: Offset(end) });
        self.applier.wake(end);
    }
}

fn give_policy(engine: &MetricsEngine, policy: &StorePolicy) {
    if policy.packs_blocks {
        engine.pack_blocks();
    }
    for (tenant, newest, pending) in &policy.deletions {
        engine.set_deletions(*tenant, *newest, pending.clone());
    }
    for (tenant, cut_off) in &policy.cut_offs {
        engine.set_cut_off(*tenant, *cut_off);
    }
    for (tenant, selected) in &policy.selected {
        engine.set_selected_cut_offs(*tenant, selected.clone());
    }
}

/// A client's write, cut into parcels.
pub(crate) struct NewWrite {
    pub(crate) tenant: trefoil_model::TenantId,
    pub(crate) signal: trefoil_model::Signal,
    pub(crate) deletion: trefoil_model::DeletionVersion,
    pub(crate) parcels: Vec<(ShardSet, Bytes)>,
    pub(crate) timeout: Duration,
}

struct CancelGuard<'a> {
    plane: &'a DataPlane,
    query: QueryId,
    done: bool,
}

impl CancelGuard<'_> {
    fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for CancelGuard<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.plane.waits.forget_query(self.query);
            self.plane.feed(Event::CancelQuery(self.query));
        }
    }
}

/// Whether taking the message would put items into the journal.
fn brings_items(message: &Message) -> bool {
    match message {
        Message::Push(_) | Message::FetchAnswer { .. } => true,
        Message::CopyAnswer { step, .. } => matches!(step, CopyAnswerStep::Chunk { .. }),
        _ => false,
    }
}

/// About how many bytes a message will have, so that the buffer grows once.
fn encoded_bytes(message: &Message) -> usize {
    let body = match message {
        Message::Push(push) => push
            .parcels
            .iter()
            .map(|(_, parcel)| parcel.len_bytes())
            .sum(),
        Message::FetchAnswer { records, .. } => {
            records.iter().map(|record| record.parcel.len_bytes()).sum()
        }
        _ => 0,
    };
    body + 512
}
