//! One data plane on a simulated disk: the only owner of its shards, so that nothing needs a peer.

mod admission;
mod aggregates;
mod allowance;
mod copies;
mod deletions;
mod dropping;
mod exemplars;
mod formats;
pub(super) mod history;
mod lost_end;

use super::*;
use crate::ingest::{Acceptance, Admission, Encoder, pairs::HeldTimes};
use crate::query::{
    answering,
    evaluator::Evaluator,
    pins::QueryKey,
    question::{Answer, Answered, Ask, Question},
};
use crate::transport::{
    client::Connections, directory::Directory, identity::LocalIdentity, key::PeerKey,
};
use std::{ops::ControlFlow, path::Path, time::Instant};
use tokio::sync::mpsc::Receiver;
use trefoil_api::{ApiLimits, remote_write};
use trefoil_model::{
    ClusterId, Configuration, ConfigurationNumber, DeletionVersion, Incarnation, Labels, LineageId,
    NodeId, OwnerRecord, OwnerSet, PlacementTable, ShardEntry, Signal,
};
use trefoil_query_promql::{EvalOptions, Grid, Part, PartBody, PartOutput, Span};
use trefoil_shard::{Identity, Proposal};
use trefoil_store_blocks::BlockId;
use trefoil_store_journal::{CommitMode, JournalOptions};
use trefoil_store_metrics::{BodyReader, BodyWriter};
use trefoil_store_pages::{CrashLoss, PAGE_BYTES, SimulatedDisk, is_full_disk};

const NODE: NodeId = NodeId(1);
const TENANT: TenantId = TenantId(1);
const SHARDS: u16 = 4;
const LINEAGE: LineageId = LineageId(7);
/// Small, so that a full disk is soon noticed.
const SEGMENT_BYTES: u64 = 256 << 10;
/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(20);
const ALL_TIME: TimeRange = TimeRange {
    start: i64::MIN,
    end: i64::MAX,
};

/// The disk and the metadata plane of a node; both outlive its processes.
struct Machine {
    node: NodeId,
    disk: SimulatedDisk,
    table: PlacementTable,
    deletions: BTreeMap<TenantId, DeletionVersion>,
    /// What a start knows of the metadata plane.
    policy_at_start: StorePolicy,
    journal_bytes_max: u64,
    replication: trefoil_shard::Settings,
    /// Who commits what is journalled; by hand: nobody.
    commit: CommitMode,
    runs: u128,
}

/// A process on it.
struct Run {
    plane: Arc<DataPlane>,
    local: Arc<LocalIdentity>,
    directory: Arc<Directory>,
    wishes: Receiver<MetadataWish>,
    applier: Option<std::thread::JoinHandle<()>>,
}

impl Machine {
    fn new() -> Self {
        Self::with_owners(&[NODE])
    }

    /// A node whose shards have these owners; the others are never there.
    fn with_owners(owners: &[NodeId]) -> Self {
        let record = |node: &NodeId| {
            let record = OwnerRecord {
                lineage: LINEAGE,
                counts_from: ConfigurationNumber(1),
                born_serving: true,
            };
            (*node, record)
        };
        let set: OwnerSet = owners.iter().copied().collect();
        let entry = ShardEntry {
            configuration: Configuration {
                number: ConfigurationNumber(1),
                old: set.clone(),
                new: set,
            },
            owners: owners.iter().map(record).collect(),
        };
        Self {
            node: NODE,
            disk: SimulatedDisk::new(1),
            table: PlacementTable {
                shards: vec![entry; usize::from(SHARDS)],
            },
            deletions: BTreeMap::new(),
            policy_at_start: StorePolicy::default(),
            journal_bytes_max: 8 << 30,
            replication: trefoil_shard::Settings::default(),
            commit: CommitMode::Thread,
            runs: 0,
        }
    }

    fn start(&mut self) -> Run {
        self.try_start().expect("the data plane recovers")
    }

    fn try_start(&mut self) -> anyhow::Result<Run> {
        self.runs += 1;
        let incarnation = Incarnation(u128::from(self.node.0) << 64 | self.runs);
        let cluster = Some(ClusterId(1));
        let local = Arc::new(LocalIdentity::new(self.node, incarnation, cluster));
        let key = PeerKey::new(None, local.clone());
        let directory = Arc::new(Directory::default());
        let connections = Connections::new(local.clone(), directory.clone(), key);
        let runtime = tokio::runtime::Handle::current();
        let (wishes, wanted) = tokio::sync::mpsc::channel(WISHES_WAITING_MAX);
        let args = crate::config::ServeArgs {
            node_name: Some("alone".into()),
            ..Default::default()
        };
        let plane = DataPlane::recover(Parts {
            disk: Arc::new(self.disk.clone()),
            directory: "/data".into(),
            identity: Identity {
                cluster: ClusterId(1),
                node: self.node,
                incarnation,
            },
            lineage: LINEAGE,
            fresh: self.runs == 1,
            clock: Arc::default(),
            settings: Settings {
                journal_bytes_max: self.journal_bytes_max,
                down_sampling: true,
                ..Settings::load(&args).expect("the defaults are possible")
            },
            journal: JournalOptions {
                segment_bytes: SEGMENT_BYTES,
                mode: self.commit,
                ..JournalOptions::default()
            },
            replication: self.replication.clone(),
            policy: self.policy_at_start.clone(),
            sender: Arc::new(ReplicationSender::new(connections.into(), runtime.clone())),
            wishes,
            runtime,
        })?;
        let applying = plane.clone();
        let applier =
            std::thread::spawn(move || applier::run(&applying, &applying.applier.clone()));
        let mut run = Run {
            plane,
            local,
            directory,
            wishes: wanted,
            applier: Some(applier),
        };
        run.learn(self);
        Ok(run)
    }
}

impl Run {
    /// Carries out what the core wants of the metadata plane, and tells it the outcome.
    fn learn(&mut self, machine: &mut Machine) {
        while let Ok(wish) = self.wishes.try_recv() {
            let MetadataWish::Propose(Proposal::RecordAmnesia { shards, lineage }) = wish else {
                continue;
            };
            let shards = shards.unwrap_or_else(|| ShardSet::all(SHARDS));
            for shard in shards.iter() {
                let entry = &mut machine.table.shards[usize::from(shard.0)];
                let owner = entry.owners.get_mut(&machine.node).expect("the owner");
                if owner.lineage != lineage {
                    owner.lineage = lineage;
                    entry.configuration.number.0 += 1;
                }
            }
        }
        let deletions = machine.deletions.iter();
        self.plane.set_policy(StorePolicy {
            deletions: deletions
                .map(|(t, newest)| (*t, *newest, Vec::new()))
                .collect(),
            ..StorePolicy::default()
        });
        self.plane.feed(Event::Metadata {
            table: Arc::new(machine.table.clone()),
            deletions: Arc::new(machine.deletions.clone()),
        });
        self.plane.take_items();
    }

    async fn write(&self, shard: u16, at: i64, value: f64) -> WriteOutcome {
        self.write_within(shard, at, value, DEADLINE).await
    }

    async fn write_within(
        &self,
        shard: u16,
        at: i64,
        value: f64,
        timeout: Duration,
    ) -> WriteOutcome {
        let labels = Labels::from_pairs([("__name__", "m"), ("shard", &shard.to_string())]);
        self.write_series(&[(labels, value)], ShardId(shard), at, timeout)
            .await
    }

    /// So many series whose labels and values compress badly.
    async fn write_many(&self, at: i64, count: u64, timeout: Duration) -> WriteOutcome {
        let mixed = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let series = |number: u64| {
            let random = mixed(number + count * at.unsigned_abs());
            let id = format!("{random:016x}{:016x}", mixed(random));
            let labels = Labels::from_pairs([("__name__", "m"), ("id", id.as_str())]);
            (labels, f64::from_bits(random >> 2))
        };
        let mut all: Vec<_> = (0..count).map(series).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        self.write_series(&all, ShardId(0), at, timeout).await
    }

    async fn write_series(
        &self,
        series: &[(Labels, f64)],
        shard: ShardId,
        at: i64,
        timeout: Duration,
    ) -> WriteOutcome {
        let mut body = BodyWriter::new().expect("a writer");
        for (labels, value) in series {
            body.add_series(shard, labels.canonical(), [(at, *value)])
                .expect("one sample fits");
        }
        let shards: ShardSet = [shard].into_iter().collect();
        let write = NewWrite {
            tenant: TENANT,
            signal: Signal::Metrics,
            deletion: DeletionVersion(0),
            parcels: vec![(shards, body.finish().expect("a body").into())],
            timeout,
        };
        let written = self.plane.write(write);
        self.ticking(written).await
    }

    /// The shards that can be evaluated now, and how many samples are there.
    async fn read(&self, patience: Duration) -> (ShardSet, usize) {
        let asked = self.plane.query(ShardSet::all(SHARDS), ALL_TIME, patience);
        let Some(ready) = self.ticking(asked).await else {
            return (ShardSet::new(), 0);
        };
        let mut samples = 0;
        let count = |series: trefoil_store_metrics::SeriesSamples<'_>| {
            samples += series.timestamps.len();
            ControlFlow::Continue(())
        };
        ready
            .view
            .select(TENANT, &[], ALL_TIME, &ready.complete, count)
            .expect("the view can be read");
        (ready.complete, samples)
    }

    /// Lets time pass for the core until the work is done.
    async fn ticking<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            self.plane.feed(Event::Tick);
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(2), &mut work).await {
                return done;
            }
        }
    }

    /// Lets time pass until a state is reached.
    async fn until(
        &mut self,
        machine: &mut Machine,
        what: &str,
        holds: impl Fn(&DataPlane) -> bool,
    ) {
        let begun = Instant::now();
        while !holds(&self.plane) {
            assert!(begun.elapsed() < DEADLINE, "{what}");
            self.learn(machine);
            self.ticking(std::future::ready(())).await;
            self.ticking(tokio::task::yield_now()).await;
        }
    }

    /// Ends the process without a goodbye. What nobody commits is lost. Where a thread does, it has nothing
    /// left to do: it would end this process, and all tests with it, if it met the dead disk.
    fn kill(mut self, machine: &Machine) {
        self.plane.applier.stop();
        if let Some(applier) = self.applier.take() {
            applier.join().expect("the applier ends");
        }
        if machine.commit == CommitMode::Thread {
            // On a full disk there is nothing that could be committed.
            self.plane.journal.commit_now().ok();
        }
        machine.disk.crash(CrashLoss::Everything);
    }
}

fn everything() -> ShardSet {
    ShardSet::all(SHARDS)
}

/// The only block of a run, whose file begins to differ from what was written.
fn damage_the_block(machine: &Machine, run: &Run) -> BlockId {
    let pin = run.plane.manifest.pin();
    let block = pin.all_blocks().next().expect("one block").meta.id;
    let files = machine.disk.files();
    let name = format!("{block}-");
    let of_block = |path: &Path| path.to_string_lossy().contains(&name);
    let (path, length) = files
        .iter()
        .find(|(path, _)| of_block(path))
        .expect("the block's file");
    for byte in 0..length / 2 {
        assert!(machine.disk.flip_bit(path, byte, 3));
    }
    block
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_is_refused_and_loses_nothing() {
    let mut machine = Machine::new();
    let run = machine.start();
    for at in 0..3 {
        assert_eq!(run.write(0, at, 1.0).await, WriteOutcome::Held);
    }
    run.plane.flush().expect("a flush");
    run.kill(&machine);
    let used: u64 = machine.disk.files().iter().map(|(_, bytes)| bytes).sum();
    machine.disk.set_capacity(used);
    for _ in 0..2 {
        let refused = machine.try_start().err().expect("there is no space");
        assert!(is_full_disk(refused.as_ref()), "{refused:#}");
    }
    machine.disk.set_capacity(u64::MAX);
    let run = machine.start();
    assert_eq!(run.read(DEADLINE).await, (everything(), 3));
    assert_eq!(machine.table.shards[0].configuration.number.0, 1);
    run.kill(&machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_prepared_and_ended_before_its_first_record_has_lost_nothing() {
    let mut machine = Machine::new();
    let disk: Arc<dyn trefoil_store_pages::Disk> = Arc::new(machine.disk.clone());
    DataPlane::prepare(&disk, "/data".as_ref(), LINEAGE).expect("it is prepared");
    machine.disk.crash(CrashLoss::Everything);
    // Not the first run of this identity.
    machine.runs = 1;
    let run = machine.start();
    assert_eq!(run.plane.status().serving, everything());
    assert_eq!(machine.table.shards[0].configuration.number.0, 1);
    run.kill(&machine);
}

/// The core must know of a loss before the first view lacks the block, and the block must stay in the manifest until
/// the loss is durable: a crash in between finds it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_stays_until_its_loss_is_recorded() {
    let mut machine = Machine::new();
    let mut run = machine.start();
    for shard in 0..SHARDS {
        assert_eq!(run.write(shard, 1_000, 1.0).await, WriteOutcome::Held);
    }
    run.plane.flush().expect("a flush");
    assert_eq!(run.read(DEADLINE).await, (everything(), 4));
    let block = damage_the_block(&machine, &run);

    run.plane.damaged(block, "a test");
    let unusable = |plane: &DataPlane| {
        let status = plane.status();
        status.damaged.union(&status.filling)
    };
    assert_eq!(unusable(&run.plane), everything());
    assert!(run.plane.manifest.pin().block(block).is_some());

    let gone = |plane: &DataPlane| {
        plane.settle_damages();
        plane.manifest.pin().block(block).is_none()
    };
    run.until(&mut machine, "the block leaves", gone).await;
    run.kill(&machine);
}

/// A question about the rows of all series of `m`.
fn question(query: &str, at: i64, bytes_max: u64) -> Ask {
    let part = Part {
        query: query.to_owned(),
        node: Span::new(0, query.len()),
        output: PartOutput::Rows,
        grid: Grid::instant(at),
        query_grid: Grid::instant(at),
        bindings: Vec::new(),
        options: EvalOptions::default(),
        samples_max: 1_000,
    };
    Ask {
        tenant: TENANT,
        shards: everything(),
        timeout_ms: DEADLINE.as_millis() as u64,
        samples_max: 1_000,
        bytes_max,
        query: None,
        unproven: false,
        allowance: None,
        anew: false,
        question: Question::Part(Box::new(part)),
    }
}

async fn answer(run: &Run, evaluator: &Evaluator, ask: Ask) -> Answered {
    let answered = run.ticking(answering::answer(&run.plane, evaluator, ask));
    answered.await.expect("nobody else asks")
}

/// How many rows an answer has.
fn rows(answered: Answered) -> usize {
    match answered.answer {
        Some(Ok(Answer::Part(part))) => match part.body {
            PartBody::Rows(rows) => rows.len(),
            _ => 0,
        },
        _ => 0,
    }
}

/// An answer that would be larger than its query allows is an error of the query, not of the evaluator.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_stays_within_the_bytes_of_its_query() {
    let mut machine = Machine::new();
    let run = machine.start();
    for shard in 0..SHARDS {
        assert_eq!(run.write(shard, 1_000, 1.0).await, WriteOutcome::Held);
    }
    let evaluator = Evaluator::new(1);
    let answered = answer(&run, &evaluator, question("m", 1_000, 800)).await;
    assert_eq!(rows(answered), 4);
    let answered = answer(&run, &evaluator, question("m", 1_000, 300)).await;
    assert!(answered.refused.is_empty(), "nobody else needs to be asked");
    let Some(Err(error)) = answered.answer else {
        panic!("{:?}", answered.answer);
    };
    assert_eq!(error.error_type(), "execution");
    run.kill(&machine);
}

/// The parts of one query see one state, whatever is written meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn all_parts_of_a_query_are_answered_on_one_view() {
    let mut machine = Machine::new();
    let run = machine.start();
    let evaluator = Evaluator::new(1);
    let part = |number, node| {
        let mut ask = question("m or m", 1_000, u64::MAX);
        ask.query = ask.question.is_one_of_several().then_some(QueryKey {
            coordinator: Incarnation(1),
            number,
        });
        if let Question::Part(part) = &mut ask.question {
            part.node = node;
        }
        ask
    };
    let (left, right) = (Span::new(0, 1), Span::new(5, 6));
    assert_eq!(run.write(0, 1_000, 1.0).await, WriteOutcome::Held);
    let answered = answer(&run, &evaluator, part(1, left)).await;
    assert_eq!(rows(answered), 1);
    assert_eq!(run.write(1, 1_000, 1.0).await, WriteOutcome::Held);
    let answered = answer(&run, &evaluator, part(1, right)).await;
    assert_eq!(
        rows(answered),
        1,
        "without what was written behind the first part"
    );
    let answered = answer(&run, &evaluator, part(2, right)).await;
    assert_eq!(rows(answered), 2, "the next query");
    assert_eq!(evaluator.statistics().views, 2);
    run.kill(&machine);
}

/// Damage is found though nobody asks for what it hit.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_before_somebody_needs_the_block() {
    let mut machine = Machine::new();
    let run = machine.start();
    assert_eq!(run.write(2, 1_000, 1.0).await, WriteOutcome::Held);
    run.plane.flush().expect("a flush");
    let mut verifier = verifier::Verifier::default();
    verifier.run(&run.plane);
    assert_eq!(run.read(DEADLINE).await.0, everything());
    damage_the_block(&machine, &run);
    verifier.run(&run.plane);
    assert_eq!(
        run.plane.status().serving,
        everything(),
        "it was read just now"
    );
    verifier::Verifier::default().run(&run.plane);
    let status = run.plane.status();
    let lost = status.damaged.union(&status.filling);
    assert!(lost.contains(ShardId(2)) && !lost.contains(ShardId(1)));
    run.kill(&machine);
}

/// A repaired block's mark goes; the next start has nothing to repair. One that was not repaired stays known.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_is_remembered_and_so_is_damage() {
    let mut machine = Machine::new();
    let run = machine.start();
    assert_eq!(run.write(0, 1_000, 1.0).await, WriteOutcome::Held);
    run.plane.flush().expect("a flush");
    let block = damage_the_block(&machine, &run);
    run.plane.damaged(block, "a test");
    let marked = |plane: &DataPlane| {
        plane.settle_damages();
        plane.manifest.pin().damaged().count() == 1
    };
    let begun = Instant::now();
    while !marked(&run.plane) {
        assert!(begun.elapsed() < DEADLINE, "the block is marked");
        run.ticking(tokio::task::yield_now()).await;
    }
    run.kill(&machine);

    let mut run = machine.start();
    assert_eq!(run.plane.blocks_repaired(), 0);
    let repaired = |plane: &DataPlane| {
        plane.settle_damages();
        plane.blocks_repaired() == 1
    };
    run.until(&mut machine, "the damage is repaired", repaired)
        .await;
    assert_eq!(run.plane.manifest.pin().damaged().count(), 0);
    let number = machine.table.shards[0].configuration.number;
    run.kill(&machine);

    let mut run = machine.start();
    run.ticking(tokio::task::yield_now()).await;
    run.learn(&mut machine);
    assert_eq!(machine.table.shards[0].configuration.number, number);
    assert_eq!(run.read(DEADLINE).await.0, everything());
    run.kill(&machine);
}

/// A full disk makes the owner refuse, not end; it goes on by itself, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let mut machine = Machine::new();
    let run = machine.start();
    assert_eq!(run.write(0, 0, 0.0).await, WriteOutcome::Held);
    machine
        .disk
        .set_capacity(machine.disk.files().iter().map(|(_, bytes)| bytes).sum());
    let patience = Duration::from_millis(300);
    let mut held = 1;
    while run.write_within(0, held, 1.0, patience).await == WriteOutcome::Held {
        held += 1;
    }
    let why = run.plane.refuses_items().expect("the owner refuses");
    assert!(why.contains("full"), "{why}");
    let begun = Instant::now();
    assert_eq!(run.write(0, -1, 1.0).await, WriteOutcome::Unavailable);
    assert!(begun.elapsed() < DEADLINE / 2, "it is refused at once");
    assert_eq!(run.read(DEADLINE).await, (everything(), held as usize));
    assert!(run.plane.flush().is_err(), "a flush does not wait for ever");

    machine.disk.set_capacity(u64::MAX);
    let begun = Instant::now();
    while run.plane.refuses_items().is_some() {
        assert!(begun.elapsed() < DEADLINE, "it goes on by itself");
        tokio::task::yield_now().await;
    }
    // The one that nobody answered for was stored after all: it is the same item.
    for at in held..held + 10 {
        assert_eq!(run.write(0, at, 1.0).await, WriteOutcome::Held);
    }
    run.kill(&machine);
    let run = machine.start();
    let all = held as usize + 10;
    assert_eq!(run.read(DEADLINE).await, (everything(), all));
    run.kill(&machine);
}

/// A page of the journal that cannot be read costs its records, not those behind it.
#[tokio::test(flavor = "multi_thread")]
async fn replay_goes_on_behind_an_unreadable_page() {
    let mut machine = Machine::new();
    let run = machine.start();
    let mut pages = Vec::new();
    for at in 0..4 {
        assert_eq!(run.write(0, at, 1.0).await, WriteOutcome::Held);
        // Every write is a group, every group begins a page, and the header is the first page.
        pages.push(run.plane.journal.statistics().groups);
    }
    run.kill(&machine);
    let files = machine.disk.files();
    let (segment, _) = files
        .iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "segment"))
        .expect("the segment");
    for byte in 0..64 {
        let at = pages[1] * PAGE_BYTES as u64 + 100 + byte;
        assert!(machine.disk.flip_bit(segment, at, 0));
    }

    let mut run = machine.start();
    assert_eq!(run.plane.journal_damages(), 1);
    let number = |machine: &Machine| machine.table.shards[0].configuration.number.0;
    run.until(&mut machine, "the loss is recorded", |plane| {
        plane.status().serving == everything()
    })
    .await;
    assert_eq!(number(&machine), 2);
    assert_eq!(run.read(DEADLINE).await, (everything(), 3));
    run.plane.flush().expect("a flush");
    run.kill(&machine);

    // What is in blocks and in the checkpoint is not lost once more.
    let mut run = machine.start();
    run.learn(&mut machine);
    assert_eq!(number(&machine), 2);
    assert_eq!(run.read(DEADLINE).await, (everything(), 3));
    run.kill(&machine);
}

/// A block claims all deletions that the core knows of, so none is made before the store knows them too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_flushed_before_the_deletions_are_known() {
    let mut machine = Machine::new();
    machine.deletions.insert(TENANT, DeletionVersion(1));
    let run = machine.start();
    assert_eq!(run.write(0, 0, 1.0).await, WriteOutcome::Held);
    run.kill(&machine);

    let known = std::mem::take(&mut machine.deletions);
    let mut run = machine.start();
    assert!(run.plane.flush().is_err());
    assert_eq!(run.plane.manifest.pin().all_blocks().count(), 0);
    machine.deletions = known;
    run.learn(&mut machine);
    run.plane.flush().expect("a flush");
    assert_eq!(run.plane.manifest.pin().all_blocks().count(), 1);
    run.kill(&machine);
}

/// What is older than the cut-off is not shown, whether it is in the head or in a block, and its blocks go.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_hides_what_is_in_heads_and_removes_what_is_in_blocks() {
    let mut machine = Machine::new();
    let run = machine.start();
    let day = 24 * 3_600_000;
    for at in [0, day] {
        assert_eq!(run.write(0, at, 1.0).await, WriteOutcome::Held);
    }
    run.plane.flush().expect("a flush");
    assert_eq!(run.write(1, 5, 1.0).await, WriteOutcome::Held);
    assert_eq!(run.read(DEADLINE).await.1, 3);
    run.plane.set_policy(StorePolicy {
        cut_offs: vec![(TENANT, day / 2)],
        ..StorePolicy::default()
    });
    assert_eq!(run.read(DEADLINE).await.1, 1);
    run.plane.flush().expect("a flush");
    run.plane.engine.enforce_retention().expect("blocks go");
    let blocks: Vec<_> = run.plane.manifest.pin().all_blocks().collect();
    assert_eq!(blocks.len(), 1, "the one of the newer day");
    assert_eq!(blocks[0].meta.time_min, day);
    assert_eq!(run.read(DEADLINE).await.1, 1);
    run.kill(&machine);
}

/// Owners that are away cost the journal's budget and no more.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_stays_within_its_budget_while_owners_are_away() {
    let mut machine = Machine::with_owners(&[NODE, NodeId(2), NodeId(3)]);
    machine.journal_bytes_max = 2 * SEGMENT_BYTES;
    let mut run = machine.start();
    // The part that is written, the spares, and a segment that is only partly beyond the budget.
    let most = machine.journal_bytes_max + 4 * SEGMENT_BYTES;
    let mut at = 0;
    while run.plane.journal.durable_end() < 4 * most {
        // Stored here, though never by a majority.
        let patience = Duration::from_millis(5);
        let outcome = run.write_many(at, 2_000, patience).await;
        assert_eq!(outcome, WriteOutcome::Unavailable);
        at += 1;
        if at % 8 == 0 {
            run.plane.flush().expect("a flush");
        }
    }
    run.plane.flush().expect("a flush");
    assert!(run.plane.journal.durable_end() > 2 * most);
    run.until(&mut machine, "the journal is trimmed", |plane| {
        plane.journal.bytes_on_disk() <= most
    })
    .await;
    run.kill(&machine);
}

/// A request that is too large for one journal record goes in several rounds, a long series over all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_is_cut_into_rounds() {
    let mut machine = Machine::new();
    let run = machine.start();
    let (long, short) = (
        Labels::from_pairs([("__name__", "long")]),
        Labels::from_pairs([("__name__", "short")]),
    );
    let samples: Vec<(i64, f64)> = (0..2_000_000).map(|at| (at, (at as f64).sqrt())).collect();
    let body = remote_write::encode([(&long, samples.as_slice()), (&short, &samples[..1])]);
    let mut request = remote_write::WriteRequest::default();
    let limits = ApiLimits::default().write;
    let decoded = remote_write::Decoder::default().decode(&body, &limits, &mut request);
    decoded.expect("it is within the limits of the protocol");
    let acceptance = Acceptance {
        oldest: 10,
        past: 0,
        newest: i64::MAX,
        held: HeldTimes::NONE,
    };
    let admission = Admission {
        acceptance,
        filter: None,
        takes_exemplars: true,
        gate: &mut |_| Ok(()),
    };
    let encoder = Encoder::default();
    let encoded = encoder
        .encode(TENANT, &request, &run.plane.routing(), admission)
        .expect("every piece fits");

    assert!(encoded.rounds.len() > 1);
    assert_eq!((encoded.samples, encoded.out_of_bounds), (1_999_990, 11));
    let mut reader = BodyReader::new().expect("a reader");
    let mut found = Vec::new();
    for (shards, body) in encoded.rounds.iter().flatten() {
        let mut body = reader.open(body).expect("a body");
        while let Some(series) = body.next_series(&everything()).expect("sound") {
            assert_eq!(series.canonical, long.canonical());
            assert!(shards.contains(series.shard));
            found.extend(series.samples);
        }
    }
    assert_eq!(found, samples[10..]);
    run.kill(&machine);
}

/// What a repair has fetched again is in no block: a proof from before the damage says nothing of what is pinned then.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_is_repaired_before_the_pin_is_not_in_a_snapshot() {
    let mut machine = Machine::new();
    let mut run = machine.start();
    assert_eq!(run.write(0, 1_000, 1.0).await, WriteOutcome::Held);
    let before = run.plane.damage_generation();
    let pin = |plane: &DataPlane, generation| {
        let pinned = plane.pin_for_snapshot(true, generation, DEADLINE);
        pinned.expect("a disk")
    };
    let pinned = pin(&run.plane, before);
    assert_eq!((pinned.shards, pinned.hit), (everything(), ShardSet::new()));
    let block = damage_the_block(&machine, &run);
    run.plane.damaged(block, "a test");
    let repaired = |plane: &DataPlane| {
        plane.settle_damages();
        plane.blocks_repaired() == 1 && plane.status().serving == everything()
    };
    run.until(&mut machine, "the damage is repaired", repaired)
        .await;

    let pinned = pin(&run.plane, before);
    assert_eq!(pinned.pin.damaged().count(), 0, "its mark is gone");
    assert_eq!(pinned.hit, [ShardId(0)].into_iter().collect());
    assert_eq!(pinned.shards, everything().difference(&pinned.hit));
    let again = pin(&run.plane, run.plane.damage_generation());
    assert_eq!((again.shards, again.hit), (everything(), ShardSet::new()));
    run.kill(&machine);
}
