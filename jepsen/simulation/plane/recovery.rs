//! Brings the data plane up: blocks, checkpoint, journal, and the state machine made of them. As
//! `node/src/data_plane/recovery.rs`.

use super::{Core, Plane, Port, applier, damage::Damages, exports::Exports};
use crate::{
    bugs::Bug,
    coverage::Seen,
    member::{MetadataWish, StorePolicy},
    process::{DIRECTORY, Process, Who},
};
use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    path::Path,
    sync::{Arc, OnceLock, Weak, atomic::AtomicU64},
    time::Duration,
};
use tokio::sync::Notify;
use trefoil_model::{ClusterId, LineageId};
use trefoil_shard::{Event, Identity, Loss, Offset, Record, RecoveredJournal, Recovery, Span};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_journal::{
    CommitMode, DamagedRange, DurableEvent, Journal, JournalError, JournalFaults, JournalOptions,
    OnDurable,
};
use trefoil_store_metrics::{DERIVED_FILES, MetricsEngine, MetricsOptions};
use trefoil_store_pages::Disk;

/// Bytes of records that are read from the journal at once.
const REPLAY_BYTES: usize = 1 << 20;
/// Small segments, so that trimming has something to do.
const SEGMENT_BYTES: u64 = 32 << 10;

/// What a data plane is made of.
pub(crate) struct PlaneParts {
    pub(crate) process: Arc<Process>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) cluster: ClusterId,
    pub(crate) who: Who,
    pub(crate) policy: StorePolicy,
    pub(crate) wishes: tokio::sync::mpsc::Sender<MetadataWish>,
}

/// What a replay found.
struct Replayed {
    end: u64,
    unreadable: Vec<DamagedRange>,
}

/// Makes an empty manifest and an empty journal where there are none, before the node belongs to a cluster.
pub(crate) fn prepare(disk: &Arc<dyn Disk>, lineage: LineageId) -> anyhow::Result<()> {
    let directory = Path::new(DIRECTORY);
    let options = ManifestOptions {
        lineage_if_new: lineage,
        ..ManifestOptions::default()
    };
    Manifest::open(disk.clone(), &directory.join("blocks"), options)?;
    let options = JournalOptions {
        lineage_if_new: lineage,
        segment_bytes: SEGMENT_BYTES,
        mode: CommitMode::Manual,
        ..JournalOptions::default()
    };
    Journal::open(
        disk.clone(),
        &directory.join("journal"),
        options,
        Arc::new(|_| ()),
    )?;
    Ok(())
}

impl Plane {
    /// Recovers from what the data directory holds.
    pub(crate) fn recover(parts: PlaneParts) -> anyhow::Result<Arc<Self>> {
        let world = parts.process.world.clone();
        let directory = Path::new(DIRECTORY);
        let options = ManifestOptions {
            lineage_if_new: parts.who.lineage,
            rewrite_above_bytes: 64 << 10,
            derived_files: DERIVED_FILES,
        };
        let (manifest, blocks) =
            Manifest::open(parts.disk.clone(), &directory.join("blocks"), options)
                .context("open the blocks")?;
        let manifest = Arc::new(manifest);
        let pin = manifest.pin();
        let flushed_to = pin.flushed_to();
        let options = MetricsOptions {
            down_sampling: true,
            ..MetricsOptions::default()
        };
        let engine =
            MetricsEngine::open(manifest.clone(), options).context("open the metrics engine")?;
        // As if the level had been raised between two starts.
        if parts.who.incarnation.0 % 2 == 1 {
            engine.pack_blocks();
        }
        set_policy(&engine, &parts.policy);
        let checkpoint = pin.checkpoint();
        let checkpoint = (!checkpoint.is_empty()).then(|| Bytes::copy_from_slice(checkpoint));
        let mut recovery = Recovery::new(
            world.setup.replication.clone(),
            super::faults_of(world.setup.bug),
            parts.who.node,
            checkpoint.as_ref(),
        )
        .context("read the checkpoint of the replication")?;
        let target: Arc<OnceLock<Weak<Plane>>> = Arc::default();
        let known_end = flushed_to.max(recovery.covers().0);
        let options = JournalOptions {
            lineage_if_new: parts.who.lineage,
            known_end,
            begin_if_new: u64::from(!parts.who.fresh),
            segment_bytes: SEGMENT_BYTES,
            mode: CommitMode::Manual,
            faults: JournalFaults {
                torn_pages_applied: world.has_bug(Bug::ApplyTornPage),
            },
            ..JournalOptions::default()
        };
        let (journal, found) = Journal::open(
            parts.disk.clone(),
            &directory.join("journal"),
            options,
            on_durable(target.clone()),
        )
        .context("open the journal")?;
        let (journal, engine) = (Arc::new(journal), Arc::new(engine));
        let replayed = replay(&journal, &engine, flushed_to, found.floor, &mut recovery)?;
        let harmless = flushed_to.min(recovery.covers().0);
        let lost = found.damage.iter().chain(&replayed.unreadable);
        let lost_to = lost.map(|range| range.end).max().unwrap_or(0);
        let gone = found.fresh && !parts.who.fresh;
        let lost_to = if gone {
            lost_to.max(found.floor)
        } else {
            lost_to
        };
        let untouched = !found.fresh
            && (replayed.end.max(found.end), known_end) == (0, 0)
            && found.damage.is_empty()
            && [found.lineage, pin.lineage()] == [parts.who.lineage; 2];
        let loss = match () {
            () if parts.who.fresh || untouched => Loss::Fresh(parts.who.lineage),
            () if found.fresh || found.lineage != pin.lineage() => Loss::Possible,
            () if lost_to > harmless => Loss::Possible,
            () => Loss::None,
        };
        world.tell(format_args!(
            "{} recovers: {loss:?}, journal {}..{}, flushed to {flushed_to}, {} torn bytes",
            parts.process.name(),
            found.floor,
            found.end,
            found.torn_bytes_cut
        ));
        if loss == Loss::Possible {
            world.saw(Seen::LossNoticed);
        }
        let queue = Arc::new(applier::Queue::default());
        let mut port = Port {
            journal: journal.clone(),
            queue: queue.clone(),
            encoded: Vec::new(),
            failed: false,
        };
        let found = RecoveredJournal {
            floor: Offset(found.floor.max(lost_to)),
            end: Offset(replayed.end.max(found.end)),
            flushed: Offset(flushed_to),
        };
        let identity = Identity {
            cluster: parts.cluster,
            node: parts.who.node,
            incarnation: parts.who.incarnation,
        };
        let now = world.boot(parts.process.machine);
        let mut actions = Vec::new();
        let replication = recovery.finish(now, identity, found, loss, &mut port, &mut actions);
        let routing = replication.routing().clone();
        let plane = Arc::new(Self {
            process: parts.process,
            core: Mutex::new(Core { replication, port }),
            journal,
            engine,
            manifest,
            writes: Mutex::default(),
            queries: Mutex::default(),
            exports: Exports::default(),
            queue,
            routing: Mutex::new(routing),
            wishes: parts.wishes,
            next_id: AtomicU64::new(1),
            damages: Damages::default(),
            journal_lost_to: lost_to,
            flushed_to: AtomicU64::new(harmless),
            policy_epoch: Mutex::new(parts.policy.epoch),
            tick_at: Mutex::new(Duration::ZERO),
            tick_sooner: Notify::new(),
            this: OnceLock::new(),
        });
        plane.this.set(Arc::downgrade(&plane)).ok();
        target.set(Arc::downgrade(&plane)).ok();
        for action in actions {
            plane.carry_out(action);
        }
        plane.durable(plane.journal.durable_end());
        plane.feed(Event::Tick);
        plane.recall_damages(&blocks.damaged);
        for (block, why) in blocks.derived_lost {
            plane.engine.lose_aggregates(block, &why);
        }
        Ok(plane)
    }
}

/// Feeds all records to the recovery, and those behind the blocks to the store. What cannot be read is skipped.
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
                applier::apply(engine, span, &decoded).context("apply a record again")?;
            }
        }
    }
}

/// Passes the journal's news on to the data plane, once there is one. Its end is seen by whoever commits.
fn on_durable(target: Arc<OnceLock<Weak<Plane>>>) -> OnDurable {
    Arc::new(move |event| {
        if let DurableEvent::Advanced { end } = event
            && let Some(plane) = target.get().and_then(Weak::upgrade)
        {
            plane.durable(end);
        }
    })
}

/// Gives the store what the metadata plane says of deletions and retention.
pub(super) fn set_policy(engine: &MetricsEngine, policy: &StorePolicy) {
    for (tenant, newest, pending) in &policy.deletions {
        engine.set_deletions(*tenant, *newest, pending.clone());
    }
}
