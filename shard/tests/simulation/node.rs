//! One simulated node: its disk, and what a driver does around the replication core.
//!
//! The disk is a journal (with a tail that may be lost), a manifest and its blocks. A power cut loses a part of
//! the tail that was not synced; killing the process loses none of it.

use crate::{
    dice::Dice,
    store::{Block, Item, Lost, Store, encode},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use trefoil_model::{
    ClusterId, DeletionVersion, Incarnation, LineageId, NodeId, PlacementTable, ShardId, ShardSet,
    Signal, TenantId, TimeRange,
};
use trefoil_shard::{
    Action, Event, ExportId, ExportedItems, Faults, FetchedParcel, Identity, JournalPort, Loss,
    Offset, Record, RecoveredJournal, Recovery, Replication, Settings, Span,
};

/// The only tenant.
pub(crate) const TENANT: TenantId = TenantId(1);
/// The only cluster.
pub(crate) const CLUSTER: ClusterId = ClusterId(77);
/// All times.
pub(crate) const EVER: TimeRange = TimeRange {
    start: 0,
    end: i64::MAX,
};

/// A journal in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) records: VecDeque<(Span, Record)>,
    pub(crate) floor: Offset,
    pub(crate) end: Offset,
    pub(crate) durable: Offset,
    /// The end of the last place that cannot be read.
    pub(crate) lost_to: Offset,
}

impl JournalPort for Journal {
    fn append(&mut self, record: Record) -> Span {
        let start = self.end;
        self.end = Offset(start.0 + 10);
        let span = Span {
            start,
            end: self.end,
        };
        self.records.push_back((span, record));
        span
    }
}

impl Journal {
    fn cut(&mut self, at: Offset) {
        while self.records.back().is_some_and(|(span, _)| span.end > at) {
            self.records.pop_back();
        }
        self.end = self
            .records
            .back()
            .map_or(self.floor, |(span, _)| span.end)
            .max(self.floor);
    }
}

/// What a flush made durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) blocks: Vec<Block>,
    /// Blocks that turned out to be unreadable and are not known to be repaired.
    pub(crate) damaged: Vec<Lost>,
    pub(crate) checkpoint: Option<Bytes>,
    pub(crate) flushed: Offset,
    /// What the checkpoint covers.
    pub(crate) covers: Offset,
}

/// A copy of a node's disk.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) journal: Journal,
    pub(crate) manifest: Manifest,
    /// Who owned what then.
    pub(crate) table: Arc<PlacementTable>,
}

/// A node.
#[derive(Debug)]
pub(crate) struct SimNode {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    /// None while the process is not running.
    pub(crate) core: Option<Replication>,
    /// Events that wait because the process is stopped.
    pub(crate) paused: Option<Vec<Event>>,
    pub(crate) journal: Journal,
    pub(crate) manifest: Manifest,
    pub(crate) store: Store,
    pub(crate) applied: Offset,
    pub(crate) exports: BTreeMap<ExportId, Vec<ExportedItems>>,
    pub(crate) syncing: Option<Offset>,
    pub(crate) loss: Loss,
    pub(crate) backup: Option<Backup>,
    /// When the core is told that time passed.
    pub(crate) tick_at: Option<Duration>,
    /// How often replicas of this node ended.
    pub(crate) ended: u64,
    /// The newest deletion that this run has learnt.
    pub(crate) known_deletion: DeletionVersion,
    /// Whether this run knows what the node has confirmed of deletions: before, it takes no items.
    pub(crate) takes_items: bool,
}

impl SimNode {
    pub(crate) fn new(id: NodeId, lineage: LineageId) -> Self {
        Self {
            id,
            incarnation: Incarnation(0),
            core: None,
            paused: None,
            journal: Journal::default(),
            manifest: Manifest::default(),
            store: Store::default(),
            applied: Offset(0),
            exports: BTreeMap::new(),
            syncing: None,
            loss: Loss::Fresh(lineage),
            backup: None,
            tick_at: None,
            ended: 0,
            known_deletion: DeletionVersion(0),
            takes_items: false,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.core.is_some()
    }

    pub(crate) fn start(
        &mut self,
        now: Duration,
        incarnation: Incarnation,
        settings: &Settings,
        faults: Faults,
    ) -> Vec<Action> {
        self.incarnation = incarnation;
        self.store = Store::with_blocks(self.manifest.blocks.clone());
        self.applied = self.manifest.flushed;
        // A journal that lost its end goes on behind what the manifest speaks of.
        let known_end = self.manifest.flushed.max(self.manifest.covers);
        if self.journal.end < known_end {
            self.journal.lost_to = Offset(known_end.0 + 10);
            self.journal.end = self.journal.lost_to;
        }
        self.journal.durable = self.journal.end;
        self.exports.clear();
        self.known_deletion = DeletionVersion(0);
        self.takes_items = false;
        self.syncing = None;
        self.apply_durable();
        let mut loss = std::mem::replace(&mut self.loss, Loss::None);
        if loss == Loss::None && self.would_lose_again() {
            loss = Loss::Possible;
        }
        let mut journal = std::mem::take(&mut self.journal);
        let (core, out) = self.recover(now, &mut journal, loss, settings, faults);
        self.journal = journal;
        self.core = Some(core);
        out
    }

    /// Whether a start would take what is unreadable for a loss: what is in blocks and in the checkpoint was not
    /// lost with its page.
    pub(crate) fn would_lose_again(&self) -> bool {
        self.journal.lost_to > self.manifest.flushed.min(self.manifest.covers)
    }

    /// The core that a restart would make of this journal.
    fn recover(
        &self,
        now: Duration,
        journal: &mut Journal,
        loss: Loss,
        settings: &Settings,
        faults: Faults,
    ) -> (Replication, Vec<Action>) {
        let checkpoint = self.manifest.checkpoint.as_ref();
        let recovery = Recovery::new(settings.clone(), faults, self.id, checkpoint);
        let mut recovery = recovery.expect("a checkpoint of the same program is readable");
        for (span, record) in &journal.records {
            recovery.replay(*span, record);
        }
        let identity = Identity {
            cluster: CLUSTER,
            node: self.id,
            incarnation: self.incarnation,
        };
        let found = RecoveredJournal {
            // Peers must not take a list of what is left for all that there was.
            floor: journal.floor.max(journal.lost_to),
            end: journal.end,
            flushed: self.manifest.flushed,
        };
        let mut out = Vec::new();
        let core = recovery.finish(now, identity, found, loss, journal, &mut out);
        (core, out)
    }

    /// How far this node knows a peer's journal to reach, for a shard, even after a power cut.
    pub(crate) fn durable_position(&self, peer: NodeId, shard: ShardId) -> Option<Offset> {
        let mut journal = self.journal.clone();
        journal.cut(journal.durable);
        let (settings, faults) = (Settings::default(), Faults::default());
        let (core, _) = self.recover(Duration::ZERO, &mut journal, Loss::None, &settings, faults);
        core.position_at(peer, shard)
            .map(|position| position.offset)
    }

    /// The process ends. `dice`: with the power, so that some of the unsynced tail is lost.
    pub(crate) fn stop(&mut self, dice: Option<&mut Dice>) {
        self.core = None;
        self.paused = None;
        if let Some(dice) = dice {
            // A page that was lost may have been the last one.
            let unsynced = self.journal.end.0.saturating_sub(self.journal.durable.0);
            let records = unsynced / 10;
            let kept = Offset(self.journal.durable.0 + 10 * dice.below(records + 1));
            self.journal.cut(kept);
        }
    }

    /// The process ends with the power, and all that was not synced is lost.
    pub(crate) fn lose_tail(&mut self) {
        self.stop(None);
        let durable = self.journal.durable;
        self.journal.cut(durable);
    }

    /// Everything on the disk is gone; the process does not run.
    pub(crate) fn wipe(&mut self, lineage: LineageId) {
        let backup = self.backup.take();
        *self = Self::new(self.id, lineage);
        self.backup = backup;
    }

    /// A record's page is unreadable; the process does not run.
    pub(crate) fn lose_page(&mut self, record: usize) {
        if let Some((span, _)) = self.journal.records.remove(record) {
            self.journal.lost_to = self.journal.lost_to.max(span.end);
        }
    }

    /// The last pages are unreadable, which looks like a torn end; the process does not run. Says whether
    /// anything that the manifest speaks of is gone, so that a start can notice it.
    pub(crate) fn lose_end(&mut self, dice: &mut Dice) -> bool {
        let known_end = self.manifest.flushed.max(self.manifest.covers);
        let records = known_end.0.saturating_sub(self.journal.floor.0) / 10;
        if records == 0 {
            return false;
        }
        let kept = Offset(self.journal.floor.0 + 10 * dice.below(records));
        self.journal.cut(kept);
        self.journal.durable = self.journal.end;
        true
    }

    pub(crate) fn take_backup(&mut self, table: Arc<PlacementTable>) {
        let mut journal = self.journal.clone();
        journal.cut(journal.durable);
        self.backup = Some(Backup {
            journal,
            manifest: self.manifest.clone(),
            table,
        });
    }

    /// Applies what is durable.
    pub(crate) fn apply_durable(&mut self) {
        for (span, record) in &self.journal.records {
            if span.end <= self.applied || span.end > self.journal.durable {
                continue;
            }
            match record {
                Record::Parcel {
                    accepted, parcel, ..
                } => {
                    let version = parcel.header().deletion;
                    self.store.apply(accepted, version, parcel.body());
                }
                Record::Drop { shards } => {
                    self.ended += 1;
                    self.store.drop_shards(shards);
                    for block in &mut self.manifest.blocks {
                        block.drop_shards(shards);
                    }
                }
                _ => {}
            }
        }
        self.applied = self.applied.max(self.journal.durable);
    }

    /// Makes a block unreadable, in the store and on the disk. Says whether there was one that held something.
    pub(crate) fn damage_block(&mut self, which: usize) -> bool {
        let Some(id) = self.store.damage(which) else {
            return false;
        };
        let blocks = self.manifest.blocks.iter_mut();
        blocks.filter(|b| b.id() == id).for_each(Block::break_it);
        true
    }

    /// Notes in the manifest that a block is unreadable: it is out of all views from now on.
    pub(crate) fn mark(&mut self, lost: Lost) {
        self.manifest.blocks.retain(|b| b.id() != lost.block);
        self.manifest.damaged.push(lost);
    }

    /// Takes the marks away whose damage is repaired.
    pub(crate) fn resolve(&mut self) {
        if let Some(core) = &self.core {
            let is_repaired = |lost: &Lost| {
                lost.shards
                    .intersection(&core.damaged(lost.range))
                    .is_empty()
            };
            self.manifest.damaged.retain(|lost| !is_repaired(lost));
        }
    }

    /// Everything applied becomes blocks. The journal is synced first, so that the checkpoint may be written.
    pub(crate) fn flush(&mut self) -> Option<Event> {
        let (checkpoint, covers) = self.core.as_ref()?.checkpoint()?;
        self.journal.durable = self.journal.durable.max(covers);
        self.apply_durable();
        self.store.rewrite();
        self.store.flush();
        self.manifest = Manifest {
            blocks: self.store.blocks.clone(),
            damaged: std::mem::take(&mut self.manifest.damaged),
            checkpoint: Some(Bytes::from(checkpoint)),
            flushed: self.applied,
            covers,
        };
        Some(Event::Flushed {
            through: self.applied,
        })
    }

    pub(crate) fn trim(&mut self, below: Offset) {
        self.journal.floor = self.journal.floor.max(below);
        while self
            .journal
            .records
            .front()
            .is_some_and(|(span, _)| span.end <= below)
        {
            self.journal.records.pop_front();
        }
    }

    pub(crate) fn read_journal(&self, spans: &[Span]) -> Vec<FetchedParcel> {
        let mut records = Vec::new();
        for span in spans {
            let at = self
                .journal
                .records
                .partition_point(|(s, _)| s.end < span.end);
            if let Some((
                found,
                Record::Parcel {
                    accepted, parcel, ..
                },
            )) = self.journal.records.get(at)
                && found == span
            {
                records.push(FetchedParcel {
                    end: span.end,
                    accepted: accepted.clone(),
                    parcel: parcel.clone(),
                });
            }
        }
        records
    }

    /// The deletions that everything on this node's disk has applied, of those that the core would confirm.
    pub(crate) fn applied_deletion(&self) -> Option<DeletionVersion> {
        let to_confirm = self.core.as_ref()?.deletions_to_confirm();
        let (_, version) = to_confirm.into_iter().next()?;
        let mut blocks = self.manifest.blocks.iter();
        blocks
            .all(|block| block.version() >= version)
            .then_some(version)
    }

    /// Pins a view: few items to a piece. It has applied all deletions that the store knows.
    pub(crate) fn pin(&mut self, export: ExportId, shards: &ShardSet, range: Option<TimeRange>) {
        let items: Vec<Item> = self.store.read(shards, range.unwrap_or(EVER)).collect();
        let piece = |items: &[Item]| ExportedItems {
            tenant: TENANT,
            signal: Signal::Metrics,
            deletion: self.store.newest(),
            shards: items.iter().map(|item| item.shard).collect(),
            body: Bytes::from(encode(items)),
        };
        let pieces = items.chunks(4).map(piece).collect();
        self.exports.insert(export, pieces);
    }
}
