//! Blocks that cannot be read: the core is told first, the manifest marks them when that is durable, and the mark goes
//! when their items are here again. As `node/src/data_plane/damage.rs`.

use super::Plane;
use crate::coverage::Seen;
use parking_lot::Mutex;
use std::collections::{BTreeMap, btree_map::Entry};
use trefoil_shard::Event;
use trefoil_store_blocks::{BlockId, BlocksError, DamagedBlock, ManifestEdit};
use trefoil_store_metrics::MetricsError;

/// Blocks that were found unreadable and are still in the manifest.
#[derive(Default)]
pub(super) struct Damages {
    leaving: Mutex<BTreeMap<BlockId, Leaving>>,
}

struct Leaving {
    piece: String,
    /// The end that the journal had when the core knew of it; none while the core is being told.
    recorded_to: Option<u64>,
}

/// The block that an error of the store is about, with what of it cannot be read.
pub(super) fn damaged_block(error: &MetricsError) -> Option<(BlockId, &'static str)> {
    match error {
        MetricsError::DamagedBlock { block, piece } => Some((*block, piece)),
        MetricsError::Blocks(BlocksError::DamagedFile { block, what, .. }) => Some((*block, what)),
        _ => None,
    }
}

impl Plane {
    /// Tells the core what is lost with a block that cannot be read, and has the block leave the store.
    pub(super) fn damaged(&self, block: BlockId, piece: &str) {
        let Some(visible) = self.manifest.pin().block(block) else {
            return;
        };
        match self.damages.leaving.lock().entry(block) {
            Entry::Occupied(_) => return,
            Entry::Vacant(slot) => drop(slot.insert(Leaving {
                piece: piece.to_owned(),
                recorded_to: None,
            })),
        }
        let (shards, range) = (visible.shards, visible.meta.window);
        let world = &self.process.world;
        world.tell(format_args!(
            "{} has a damaged block {block}: {piece}",
            self.process.name()
        ));
        world.saw(Seen::DamageNoticed);
        world.machine(self.process.machine).damages_noticed += 1;
        self.feed(Event::Damaged { shards, range });
        let end = self.queue.appended();
        if let Some(leaving) = self.damages.leaving.lock().get_mut(&block) {
            leaving.recorded_to = Some(end);
        }
    }

    /// Tells the core of the blocks that a start found unreadable, and of those with a mark that it does not remember.
    pub(super) fn recall_damages(&self, found: &[DamagedBlock]) {
        let found_now: Vec<BlockId> = found.iter().map(|damaged| damaged.meta.id).collect();
        for damaged in self.manifest.pin().damaged() {
            let (block, range) = (damaged.meta.id, damaged.meta.window);
            let remembered = self.core.lock().replication.damaged(range);
            let shards = match found_now.contains(&block) {
                true => damaged.shards.clone(),
                false => damaged.shards.difference(&remembered),
            };
            if !shards.is_empty() {
                let world = &self.process.world;
                world.saw(Seen::DamageNoticed);
                world.machine(self.process.machine).damages_noticed += 1;
                self.feed(Event::Damaged { shards, range });
            }
        }
    }

    /// Marks the blocks whose loss is durably recorded, and takes the marks of those away whose items are here again.
    pub(super) fn settle_damages(&self) {
        let durable = self.journal.durable_end();
        let recorded: Vec<(BlockId, String)> = self
            .damages
            .leaving
            .lock()
            .iter()
            .filter(|(_, leaving)| leaving.recorded_to.is_some_and(|end| end <= durable))
            .map(|(block, leaving)| (*block, leaving.piece.clone()))
            .collect();
        for (block, piece) in recorded {
            if self.manifest.mark_damaged(block, &piece).is_ok() {
                self.damages.leaving.lock().remove(&block);
            }
        }
        self.resolve_repaired();
    }

    fn resolve_repaired(&self) {
        let pin = self.manifest.pin();
        let repaired = |damaged: &&DamagedBlock| {
            let lacking = self.core.lock().replication.damaged(damaged.meta.window);
            lacking.intersection(&damaged.shards).is_empty()
        };
        let repaired = pin.damaged().filter(repaired);
        let resolve_damaged: Vec<BlockId> = repaired.map(|damaged| damaged.meta.id).collect();
        if resolve_damaged.is_empty() {
            return;
        }
        let edit = ManifestEdit {
            resolve_damaged,
            ..ManifestEdit::default()
        };
        // Tried again with the next look.
        self.manifest.commit(edit).ok();
    }
}
