//! Drives the replication core of one process over its real journal, manifest and metrics engine: a faithful, thin copy
//! of `node/src/data_plane`, with tasks in the place of threads.
//!
//! All actions of a step are carried out, or at least begun, before the next step, under one mutex; what waits for the
//! disk happens later, after a pause that the dice choose, and answers by an event.

mod applier;
mod damage;
mod exports;
mod flusher;
mod recovery;

use crate::{
    bugs::Bug,
    coverage::Seen,
    member::{MetadataWish, StorePolicy},
    network::Class,
    process::Process,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, oneshot};
use trefoil_model::{ShardId, ShardSet, Signal, TenantId, TimeRange, Window};
use trefoil_shard::{
    Action, Alarm, Event, FetchedParcel, JournalPort, Message, Offset, QueryId, QueryReady,
    QueryRequest, Record, Replication, ReplicationStatus, RequestId, Routing, ShardDigest, Span,
    WriteOutcome, WriteRequest, decode_message, encode_message,
};
use trefoil_store_blocks::{BlocksError, Manifest};
use trefoil_store_journal::{Journal, JournalError};
use trefoil_store_metrics::{MetricsEngine, MetricsError, View};

pub(crate) use recovery::{PlaneParts, prepare};

/// The key of the digests that nodes compare.
const DIGEST_KEY: u64 = 0x7472_6566_6f69_6c31;
/// Wishes that wait for the metadata plane.
pub(crate) const WISHES_WAITING_MAX: usize = 64;

/// A part that can be evaluated, with the view that was pinned for it.
pub(crate) struct ReadyPart {
    pub(crate) view: View,
    pub(crate) complete: ShardSet,
    pub(crate) gaps: ShardSet,
}

/// Canonical labels with their samples: times, and values as bits.
pub(crate) type Series = (Vec<u8>, Vec<(i64, u64)>);

/// What of a part an evaluator could promise, and all that it found of that.
pub(crate) struct Part {
    pub(crate) complete: ShardSet,
    pub(crate) gaps: ShardSet,
    /// All series that it found.
    pub(crate) series: Vec<Series>,
}

struct Core {
    replication: Replication,
    port: Port,
}

/// The core's records on their way into the journal.
struct Port {
    journal: Arc<Journal>,
    queue: Arc<applier::Queue>,
    encoded: Vec<u8>,
    failed: bool,
}

impl JournalPort for Port {
    fn append(&mut self, record: Record) -> Span {
        self.encoded.clear();
        record.encode(&mut self.encoded);
        let end = self.queue.appended();
        let span = match self.journal.append(&[&self.encoded]) {
            Ok(appended) => Span {
                start: Offset(appended.start),
                end: Offset(appended.end),
            },
            Err(_) => {
                // The process ends before anything can follow from this.
                self.failed = true;
                Span {
                    start: Offset(end),
                    end: Offset(end + 1),
                }
            }
        };
        self.queue.push(span, record);
        span
    }
}

/// The data plane of one run.
pub(crate) struct Plane {
    process: Arc<Process>,
    core: Mutex<Core>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) engine: Arc<MetricsEngine>,
    pub(crate) manifest: Arc<Manifest>,
    writes: Mutex<BTreeMap<RequestId, oneshot::Sender<WriteOutcome>>>,
    queries: Mutex<BTreeMap<QueryId, oneshot::Sender<ReadyPart>>>,
    exports: exports::Exports,
    queue: Arc<applier::Queue>,
    routing: Mutex<Arc<Routing>>,
    wishes: tokio::sync::mpsc::Sender<MetadataWish>,
    next_id: AtomicU64,
    damages: damage::Damages,
    /// Where the last place ends that the start could not read.
    journal_lost_to: u64,
    /// Up to here the blocks and the checkpoint have what the journal has.
    flushed_to: AtomicU64,
    policy_epoch: Mutex<u64>,
    tick_at: Mutex<Duration>,
    tick_sooner: Notify,
    this: OnceLock<std::sync::Weak<Plane>>,
}

impl Plane {
    fn boot(&self) -> Duration {
        self.process.world.boot(self.process.machine)
    }

    /// Feeds one event and carries out what follows from it.
    pub(crate) fn feed(&self, event: Event) {
        if !self.process.is_alive() {
            return;
        }
        let mut core = self.core.lock();
        let Core { replication, port } = &mut *core;
        let mut actions = Vec::new();
        replication.step(self.boot(), event, port, &mut actions);
        self.wake_at(replication.next_tick());
        let failed = port.failed;
        for action in actions {
            if !failed {
                self.carry_out(action);
            }
        }
        drop(core);
        if failed {
            self.process.end("the journal takes no more records", false);
        }
    }

    fn carry_out(&self, action: Action) {
        match action {
            Action::Send(envelope, message) => self.send(&envelope, &message),
            Action::FinishWrite { request, outcome } => {
                if let Some(sender) = self.writes.lock().remove(&request) {
                    // A client that went away does not want the answer.
                    sender.send(outcome).ok();
                }
            }
            Action::QueryReady(ready) => self.finish_query(ready),
            Action::Read { read, records } => self.later(move |plane| {
                let records = plane.read_records(&records);
                plane.feed(Event::JournalRead { read, records });
            }),
            Action::OpenExport {
                export,
                shards,
                range,
            } => {
                let event = self.exports.open(&self.engine, export, shards, range);
                self.process.world.saw(Seen::ExportOpened);
                self.later(move |plane| plane.feed(event));
            }
            Action::Export {
                export,
                cursor,
                bytes_max,
            } => self.later(move |plane| {
                let read = plane.exports.read(export, cursor, bytes_max);
                let answer = read.unwrap_or_else(|error| {
                    plane.store_failed(&error, "read a view for a peer");
                    Some(Event::ExportFailed { export })
                });
                if let Some(answer) = answer {
                    plane.feed(answer);
                }
            }),
            Action::CloseExport { export } => self.exports.close(export),
            Action::Propose(proposal) => self.wish(MetadataWish::Propose(proposal)),
            Action::Report(report) => self.wish(MetadataWish::Report(report)),
            Action::RefreshMetadata => self.wish(MetadataWish::Refresh),
            Action::Trim { below } => self.later(move |plane| {
                plane.process.world.saw(Seen::Trim);
                plane.journal.trim(below.0).ok();
            }),
            Action::RoutingChanged(routing) => *self.routing.lock() = routing,
            Action::Digest { id, shards, window } => self.later(move |plane| {
                let digests = plane.window_digests(&shards, window);
                plane.process.world.saw(Seen::WindowScrubbed);
                plane.feed(Event::Digests { id, digests });
            }),
            Action::Repaired { .. } => self.process.world.saw(Seen::DamageRepaired),
            Action::Alarm(alarm) => self.alarm(&alarm),
        }
    }

    fn send(&self, envelope: &trefoil_shard::Envelope, message: &Message) {
        let mut bytes = Vec::new();
        encode_message(envelope, message, &mut bytes);
        let bytes = Bytes::from(bytes);
        let world = &self.process.world;
        let Some(to) = self.process.machine_of(envelope.to) else {
            return;
        };
        world.send(
            (self.process.machine, to, Class::Replication),
            move |process| {
                process.world.trace(format_args!(
                    "{} takes {} bytes {:016x}",
                    process.name(),
                    bytes.len(),
                    xxhash_rust::xxh3::xxh3_64(&bytes)
                ));
                if let Some(plane) = process.plane.get() {
                    plane.receive(&bytes);
                }
            },
        );
    }

    fn alarm(&self, alarm: &Alarm) {
        let (world, name) = (&self.process.world, self.process.name());
        world.tell(format_args!("{name} alarms: {alarm:?}"));
        match alarm {
            Alarm::RestoredCopy { .. } => {
                world.saw(Seen::OldCopyNoticed);
                let process = self.process.clone();
                // Not under the core's mutex.
                tokio::spawn(async move {
                    process.end("its data is an old copy", true);
                });
            }
            Alarm::Amnesia { .. } => world.saw(Seen::AmnesiaRecorded),
            Alarm::Gap { .. } => {}
        }
    }

    fn wish(&self, wish: MetadataWish) {
        // The core repeats what has had no effect.
        self.wishes.try_send(wish).ok();
    }

    /// Does work that reads the disk, after a pause.
    fn later(&self, work: impl FnOnce(&Arc<Plane>) + Send + 'static) {
        let Some(plane) = self.this.get().and_then(std::sync::Weak::upgrade) else {
            return;
        };
        let pause = self.process.world.roll(|dice| dice.millis(0, 6));
        self.process.spawn(async move {
            tokio::time::sleep(pause).await;
            work(&plane);
        });
    }

    fn receive(&self, bytes: &Bytes) {
        match decode_message(bytes) {
            Ok((envelope, message)) => self.feed(Event::Message(envelope, message)),
            Err(error) => self.process.world.broken(format!(
                "a message between equal programs is refused: {error}"
            )),
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
                    let name = self.process.name();
                    let world = &self.process.world;
                    world.tell(format_args!("{name} cannot read its journal: {error}"));
                    None
                }
            };
            let Some(record) = record.filter(|record| record.end == span.end.0) else {
                continue;
            };
            if let Ok(Record::Parcel {
                accepted, parcel, ..
            }) = Record::decode(&Bytes::from(record.bytes))
            {
                found.push(FetchedParcel {
                    end: span.end,
                    accepted,
                    parcel,
                });
            }
        }
        found
    }

    fn finish_query(&self, ready: QueryReady) {
        if let Some(sender) = self.queries.lock().remove(&ready.query) {
            let ready = ReadyPart {
                view: self.engine.view(),
                complete: ready.complete,
                gaps: ready.gaps,
            };
            sender.send(ready).ok();
        }
    }

    fn window_digests(&self, shards: &ShardSet, window: Window) -> Vec<ShardDigest> {
        let epoch = *self.policy_epoch.lock();
        let Some(sums) = self.digests_between(shards, window.range()) else {
            return Vec::new();
        };
        let mut by_shard: BTreeMap<ShardId, u128> = BTreeMap::new();
        for ((shard, _), (sum, _)) in sums {
            let all = by_shard.entry(shard).or_default();
            *all = all.wrapping_add(sum);
        }
        let digest = |shard| ShardDigest {
            shard,
            digest: by_shard.get(&shard).copied().unwrap_or_default(),
            epoch,
        };
        shards.iter().map(digest).collect()
    }

    /// Sums and numbers of the items in the windows that begin in a range, by shard and window; none when a block turns
    /// out to be damaged.
    pub(crate) fn digests_between(
        &self,
        shards: &ShardSet,
        range: TimeRange,
    ) -> Option<BTreeMap<(ShardId, i64), (u128, u64)>> {
        match self
            .engine
            .view()
            .digests(None, range, shards, DIGEST_KEY, 0)
        {
            Ok(digests) => {
                let digests = digests.into_iter();
                let one = digests.map(|(key, digest)| {
                    ((key.shard, key.window.start()), (digest.sum, digest.items))
                });
                Some(one.collect())
            }
            Err(error) => {
                self.store_failed(&error, "compute digests");
                None
            }
        }
    }

    /// Gives the store what the metadata plane says of deletions and retention.
    pub(crate) fn set_policy(&self, policy: StorePolicy) {
        recovery::set_policy(&self.engine, &policy);
        *self.policy_epoch.lock() = policy.epoch;
    }

    /// Writes a client's items; resolves when a majority of all owners holds them or it cannot be had.
    pub(crate) async fn write(
        &self,
        tenant: TenantId,
        parcels: Vec<(ShardSet, Bytes)>,
        timeout: Duration,
    ) -> WriteOutcome {
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.writes.lock().insert(id, sender);
        self.feed(Event::Write(WriteRequest {
            request: id,
            tenant,
            signal: Signal::Metrics,
            deletion: trefoil_model::DeletionVersion(0),
            parcels,
            deadline: self.boot() + timeout,
        }));
        receiver.await.unwrap_or(WriteOutcome::Unavailable)
    }

    /// Evaluates a part: waits until it can be promised, and reads it from the view that was pinned then.
    pub(crate) async fn evaluate(
        &self,
        tenant: TenantId,
        shards: ShardSet,
        range: TimeRange,
        timeout: Duration,
    ) -> Part {
        let query = QueryId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.queries.lock().insert(query, sender);
        self.feed(Event::Query(QueryRequest {
            query,
            shards,
            range,
            deadline: self.boot() + timeout,
        }));
        let nothing = Part {
            complete: ShardSet::new(),
            gaps: ShardSet::new(),
            series: Vec::new(),
        };
        let Ok(ready) = receiver.await else {
            return nothing;
        };
        let pause = self.process.world.roll(|dice| dice.millis(0, 6));
        tokio::time::sleep(pause).await;
        let mut series = Vec::new();
        let read = ready
            .view
            .select(tenant, &[], range, &ready.complete, |found| {
                let bits = found.values.iter().map(|value| value.to_bits());
                let samples = found.timestamps.iter().copied().zip(bits).collect();
                series.push((found.canonical.to_vec(), samples));
                std::ops::ControlFlow::Continue(())
            });
        match read {
            Ok(()) => Part {
                complete: ready.complete,
                gaps: ready.gaps,
                series,
            },
            Err(error) => {
                self.store_failed(&error, "evaluate a part");
                nothing
            }
        }
    }

    /// Where shards are, as this node follows it.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.routing.lock().clone()
    }

    /// How far this node's replicas are.
    pub(crate) fn status(&self) -> ReplicationStatus {
        self.core.lock().replication.status()
    }

    /// How far this node knows a peer's journal to reach for a shard.
    pub(crate) fn position_at(
        &self,
        peer: trefoil_model::NodeId,
        shard: ShardId,
    ) -> Option<Offset> {
        let core = self.core.lock();
        let position = core.replication.position_at(peer, shard)?;
        Some(position.offset)
    }

    /// Reports an error of the store; a block that it names is taken out of use, and with a manifest that takes nothing
    /// more the process ends.
    fn store_failed(&self, error: &MetricsError, doing: &str) {
        if let Some((block, piece)) = damage::damaged_block(error) {
            return self.damaged(block, piece);
        }
        let name = self.process.name();
        let world = &self.process.world;
        world.tell(format_args!("{name} cannot {doing}: {error}"));
        if matches!(error, MetricsError::Blocks(BlocksError::Ended)) {
            self.process
                .end("the manifest takes no more changes", false);
        }
    }

    fn wake_at(&self, at: Duration) {
        let mut tick_at = self.tick_at.lock();
        if at < *tick_at {
            *tick_at = at;
            self.tick_sooner.notify_one();
        }
    }

    /// The clock of the core: tells it that time passed at its next deadline.
    async fn tick(&self) {
        loop {
            let at = *self.tick_at.lock();
            if at > self.boot() {
                let world = &self.process.world;
                let deadline = world.at_boot(self.process.machine, at);
                tokio::select! {
                    biased;
                    () = self.tick_sooner.notified() => {}
                    () = tokio::time::sleep_until(deadline) => {}
                }
                continue;
            }
            *self.tick_at.lock() = Duration::MAX;
            self.feed(Event::Tick);
            tokio::task::yield_now().await;
        }
    }
}

/// The mistakes in the core that a planted bug stands for.
pub(crate) fn faults_of(bug: Option<Bug>) -> trefoil_shard::Faults {
    bug.map(Bug::in_the_core).unwrap_or_default()
}
