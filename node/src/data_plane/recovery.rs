//! Brings the data plane up: blocks, checkpoint, journal, and the state machine made of them.

use super::{
    Core, DataPlane, MetadataWish, applier, exemplars, exports::Exports, port::Port, waits::Waits,
};
use crate::{
    clock::{self, ClusterClock},
    config::Settings,
    transport::replication::ReplicationSender,
};
use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64},
    },
};
use tokio::sync::mpsc::Sender;
use trefoil_model::{DeletionVersion, LineageId, Millis, TenantId};
use trefoil_shard::{
    Action, Event, Faults, Identity, Loss, Offset, Record, RecoveredJournal, Recovery, Span,
};
use trefoil_store_blocks::{Manifest, ManifestOptions, ManifestRecovery};
use trefoil_store_journal::{
    DamagedRange, DurableEvent, Journal, JournalError, JournalOptions, OnDurable,
    Recovery as JournalRecovery,
};
use trefoil_store_metrics::{
    DERIVED_FILES, Deletion, MetricsEngine, MetricsOptions, SelectedCutOff,
};
use trefoil_store_pages::Disk;

/// Bytes of records that are read from the journal at once.
const REPLAY_BYTES: usize = 4 << 20;
/// Bytes that may wait for the disk before the journal refuses; far above what is let in.
const PENDING_BYTES_MAX: usize = 1 << 30;

/// What a data plane is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) disk: Arc<dyn Disk>,
    /// The node's data directory.
    pub(crate) directory: PathBuf,
    pub(crate) identity: Identity,
    /// The lineage of the data directory.
    pub(crate) lineage: LineageId,
    /// Whether the data directory was made in this run.
    pub(crate) fresh: bool,
    pub(crate) clock: Arc<ClusterClock>,
    pub(crate) settings: Settings,
    /// How the journal works; tests make it smaller. Its lineage and its bound are set here.
    pub(crate) journal: JournalOptions,
    /// How the replication works; tests make its pieces smaller. What `settings` name is set here.
    pub(crate) replication: trefoil_shard::Settings,
    /// Deletions and cut-offs as the metadata plane on this node knows them.
    pub(crate) policy: StorePolicy,
    pub(crate) sender: Arc<ReplicationSender>,
    pub(crate) wishes: Sender<MetadataWish>,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// What the metadata plane says to the store: above all what it must not show.
#[derive(Clone, Default)]
pub(crate) struct StorePolicy {
    /// Whether new blocks have packed values.
    pub(crate) packs_blocks: bool,
    /// By tenant, the newest deletion and those that are not forgotten.
    pub(crate) deletions: Vec<(TenantId, DeletionVersion, Vec<Deletion>)>,
    pub(crate) cut_offs: Vec<(TenantId, Millis)>,
    /// By tenant, the cut-offs of selectors.
    pub(crate) selected: Vec<(TenantId, Vec<SelectedCutOff>)>,
    /// Equal on two nodes only when all of this is.
    pub(crate) epoch: u64,
    /// By tenant, up to where this node has confirmed deletions, or all owners have.
    pub(crate) confirmed: BTreeMap<TenantId, DeletionVersion>,
    /// Whether any deletion waits for owners that have not confirmed it.
    pub(crate) pending: bool,
}

impl DataPlane {
    /// Makes an empty manifest and an empty journal where there are none, durably. Done before the node belongs to a
    /// cluster: from then on a journal that is missing was lost, and one that is empty was never written to.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn prepare(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        lineage: LineageId,
    ) -> anyhow::Result<()> {
        let options = ManifestOptions {
            lineage_if_new: lineage,
            ..ManifestOptions::default()
        };
        Manifest::open(disk.clone(), &directory.join("blocks"), options)
            .context("make the manifest")?;
        let options = JournalOptions {
            lineage_if_new: lineage,
            ..JournalOptions::default()
        };
        let unheard: OnDurable = Arc::new(|_| ());
        Journal::open(disk.clone(), &directory.join("journal"), options, unheard)
            .context("make the journal")?;
        Ok(())
    }

    /// Recovers from what the data directory holds. Blocks while it reads.
    ///
    /// # Errors
    /// When the disk refuses, or when the manifest or the checkpoint is of an unknown version or damaged. When the disk
    /// is full: nothing is lost, try again when there is space.
    pub(crate) fn recover(parts: Parts) -> anyhow::Result<Arc<Self>> {
        let begun = clock::boot();
        let (manifest, blocks) = open_manifest(&parts)?;
        let engine = open_engine(&parts, &manifest)?;
        let pin = manifest.pin();
        let flushed_to = pin.flushed_to();
        let mut recovery = begin_recovery(&parts, pin.checkpoint())?;
        let target: Arc<OnceLock<Weak<DataPlane>>> = Arc::default();
        // Its blocks and its checkpoint name offsets up to here.
        let known_end = flushed_to.max(recovery.covers().0);
        let (journal, found) = open_journal(&parts, known_end, on_durable(target.clone()))?;
        let replayed = replay(&journal, &engine, flushed_to, found.floor, &mut recovery)?;
        let harmless = flushed_to.min(recovery.covers().0);
        let lost_to = lost_to(&parts, &found, &replayed);
        let loss = match () {
            () if parts.fresh => Loss::Fresh(parts.lineage),
            () if is_untouched(&parts, &found, &replayed, known_end, pin.lineage()) => {
                Loss::Fresh(parts.lineage)
            }
            // A node that ran before had a journal; where it is gone, so is what it acknowledged.
            () if found.fresh || found.lineage != pin.lineage() => Loss::Possible,
            // What is in blocks and in the checkpoint was not lost with its page.
            () if lost_to > harmless => Loss::Possible,
            () => Loss::None,
        };
        let journal = Arc::new(journal);
        let queue = applier::Queue::default();
        let mut port = Port::new(journal.clone(), queue.clone());
        let mut actions = Vec::new();
        let left = RecoveredJournal {
            // Peers must not take a list of what is left for all that there was.
            floor: Offset(found.floor.max(lost_to)),
            end: Offset(replayed.end.max(found.end)),
            flushed: Offset(flushed_to),
        };
        let now = clock::boot();
        let replication = recovery.finish(now, parts.identity, left, loss, &mut port, &mut actions);
        let routing = replication.routing().clone();
        let plane = Arc::new_cyclic(|this| Self {
            core: Mutex::new(Core {
                closed: false,
                replication,
                port,
                actions: Vec::new(),
            }),
            journal,
            engine: Arc::new(engine),
            sender: parts.sender,
            waits: Waits::default(),
            exports: Exports::default(),
            applier: queue,
            routing: arc_swap::ArcSwap::new(routing),
            wishes: parts.wishes,
            directory: parts.directory,
            runtime: parts.runtime,
            next_id: AtomicU64::new(1),
            settings: parts.settings,
            clock: parts.clock,
            closed: AtomicBool::new(false),
            manifest,
            damages: super::Damages::default(),
            takes_items: AtomicBool::new(false),
            // The same places, seen twice: by the journal as it opened, and on the way through the records.
            journal_damages: found.damage.len().max(replayed.unreadable.len()) as u64,
            journal_lost_to: lost_to,
            flushed_to: AtomicU64::new(harmless),
            journal_unreadable: Mutex::default(),
            policy_epoch: Mutex::new(parts.policy.epoch),
            ticker: Arc::default(),
            flushing: Mutex::new(()),
            snapshots: Mutex::new(()),
            this: this.clone(),
        });
        target.set(Arc::downgrade(&plane)).ok();
        plane.begin(actions, blocks);
        tracing::info!(
            seconds = (clock::boot() - begun).as_secs_f64(),
            loss = loss_in_words(loss),
            "recovered"
        );
        Ok(plane)
    }

    /// Does what the recovery left to do, and remembers what it found to be damaged.
    fn begin(&self, actions: Vec<Action>, blocks: ManifestRecovery) {
        for action in actions {
            self.carry_out(action);
        }
        self.durable(self.journal.durable_end());
        self.feed(Event::Tick);
        self.recall_damages(blocks.damaged);
        for (block, why) in blocks.derived_lost {
            self.engine.lose_aggregates(block, &why);
        }
    }
}

fn open_manifest(parts: &Parts) -> anyhow::Result<(Arc<Manifest>, ManifestRecovery)> {
    let options = ManifestOptions {
        lineage_if_new: parts.lineage,
        derived_files: DERIVED_FILES,
        ..ManifestOptions::default()
    };
    let directory = parts.directory.join("blocks");
    let (manifest, found) =
        Manifest::open(parts.disk.clone(), &directory, options).context("open the blocks")?;
    Ok((Arc::new(manifest), found))
}

fn open_engine(parts: &Parts, manifest: &Arc<Manifest>) -> anyhow::Result<MetricsEngine> {
    let options = MetricsOptions {
        down_sampling: parts.settings.down_sampling,
        ..MetricsOptions::default()
    };
    let engine =
        MetricsEngine::open(manifest.clone(), options).context("open the metrics engine")?;
    // Before deletions, which erase what came before them.
    exemplars::keep(&engine, &parts.disk, &parts.directory);
    super::give_policy(&engine, &parts.policy);
    Ok(engine)
}

/// `known_end`: where the journal has been at least.
fn open_journal(
    parts: &Parts,
    known_end: u64,
    on_durable: OnDurable,
) -> anyhow::Result<(Journal, JournalRecovery)> {
    let options = JournalOptions {
        lineage_if_new: parts.lineage,
        known_end,
        // Were a journal that replaces a lost one to begin at 0, the next start would take it for one that was
        // never written to, should this process end before its first record.
        begin_if_new: u64::from(!parts.fresh),
        pending_bytes_max: PENDING_BYTES_MAX,
        ..parts.journal.clone()
    };
    let directory = parts.directory.join("journal");
    let (journal, found) = Journal::open(parts.disk.clone(), &directory, options, on_durable)
        .context("open the journal")?;
    if found.torn_bytes_cut > 0 {
        tracing::info!(
            bytes = found.torn_bytes_cut,
            "cut the torn end of the journal"
        );
    }
    Ok((journal, found))
}

/// Up to where records of the journal are missing; 0 when all are there.
fn lost_to(parts: &Parts, found: &JournalRecovery, replayed: &Replayed) -> u64 {
    let lost = found.damage.iter().chain(&replayed.unreadable);
    let lost_to = lost.map(|range| range.end).max().unwrap_or(0);
    // A journal that is gone has no damage, only a later beginning.
    let is_gone = found.fresh && !parts.fresh;
    if is_gone {
        lost_to.max(found.floor)
    } else {
        lost_to
    }
}

/// Whether the journal was prepared before the node belonged to a cluster, and never written to: nothing was ever acknowledged. So
/// a process that ended before its first record lost nothing.
fn is_untouched(
    parts: &Parts,
    found: &JournalRecovery,
    replayed: &Replayed,
    known_end: u64,
    of_blocks: LineageId,
) -> bool {
    !found.fresh
        && (replayed.end.max(found.end), known_end) == (0, 0)
        && found.damage.is_empty()
        && [found.lineage, of_blocks] == [parts.lineage; 2]
}

/// A recovery from the checkpoint, or from nothing when there is none.
fn begin_recovery(parts: &Parts, checkpoint: &[u8]) -> anyhow::Result<Recovery> {
    let settings = trefoil_shard::Settings {
        copy_bytes_per_second: parts.settings.movement_bytes_per_second,
        journal_bytes_max: parts.settings.journal_bytes_max,
        ..parts.replication.clone()
    };
    let checkpoint = (!checkpoint.is_empty()).then(|| Bytes::copy_from_slice(checkpoint));
    Recovery::new(
        settings,
        Faults::default(),
        parts.identity.node,
        checkpoint.as_ref(),
    )
    .context("read the checkpoint of the replication")
}

/// What a replay found.
struct Replayed {
    /// Where the records end.
    end: u64,
    /// What could not be read between them.
    unreadable: Vec<DamagedRange>,
}

/// Feeds all records to the recovery, and those behind the blocks to the store. What cannot be read is skipped: the
/// records behind it are as good as ever.
fn replay(
    journal: &Journal,
    engine: &MetricsEngine,
    flushed_to: u64,
    floor: u64,
    recovery: &mut Recovery,
) -> anyhow::Result<Replayed> {
    let mut unreadable = Vec::new();
    let mut at = floor;
    loop {
        let records = match journal.read(at, REPLAY_BYTES) {
            Ok(records) => records,
            Err(JournalError::Unreadable { offset }) => {
                let end = journal
                    .next_readable(offset)
                    .context("find what can be read of the journal")?;
                tracing::error!(
                    start = offset,
                    end,
                    "the journal is damaged; these records are lost here"
                );
                unreadable.push(DamagedRange { start: offset, end });
                at = end;
                continue;
            }
            Err(error) => return Err(error).context("read the journal"),
        };
        let Some(last) = records.last() else {
            return Ok(Replayed {
                end: at,
                unreadable,
            });
        };
        at = last.end;
        for record in &records {
            let span = Span {
                start: Offset(record.start),
                end: Offset(record.end),
            };
            let decoded = Record::decode(&Bytes::copy_from_slice(&record.bytes))
                .with_context(|| format!("read the journal's record at {}", record.start))?;
            recovery.replay(span, &decoded);
            if record.end > flushed_to {
                applier::apply(engine, span, &decoded).context(
                    "drop the replicas of shards that have left, which takes space on the disk",
                )?;
            }
        }
    }
}

/// Passes the journal's news on to the data plane, once there is one.
fn on_durable(target: Arc<OnceLock<Weak<DataPlane>>>) -> OnDurable {
    Arc::new(move |event| match event {
        DurableEvent::Advanced { end } => {
            if let Some(plane) = target.get().and_then(Weak::upgrade) {
                plane.durable(end);
            }
        }
        DurableEvent::Stalled { why } => {
            tracing::error!(
                why,
                "the journal has no space; this node takes no writes until there is"
            );
        }
        DurableEvent::Ended { why } => {
            // The page cache may lie after a failed fsync: only a restart, which replays
            // what the disk really has, is safe.
            tracing::error!(why, "the journal has ended; this process ends");
            std::process::abort();
        }
    })
}

/// For the log.
fn loss_in_words(loss: Loss) -> String {
    match loss {
        Loss::None => "none".to_owned(),
        Loss::Fresh(lineage) => format!("new directory of {lineage}"),
        Loss::Possible => "possible".to_owned(),
    }
}
