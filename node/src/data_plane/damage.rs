//! Blocks that cannot be read: taken out of use in an order in which no answer can lack their items unnoticed.
//!
//! ```text
//! a read fails -> the core is told: it journals the loss, and evaluations go to other owners
//!              -> that is durable: the block is marked in the manifest (a crash before finds it again)
//!              -> the core has fetched its items again, durably: the mark goes
//! ```
//! Between the first two steps every view has the block, so a read of it fails and its part is evaluated
//! elsewhere; behind the second the core refuses what would need it. At a start the core is told of every block
//! that still has its mark, unless it remembers.

use super::DataPlane;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::atomic::{AtomicU64, Ordering},
};
use trefoil_model::{ShardId, ShardSet};
use trefoil_shard::Event;
use trefoil_store_blocks::{BlockId, BlocksError, DamagedBlock, ManifestEdit};
use trefoil_store_metrics::MetricsError;

/// Blocks that were found unreadable and are still in the manifest.
#[derive(Default)]
pub(super) struct Damages {
    /// Held while marks are set and taken away.
    settling: Mutex<()>,
    /// Bounded by the blocks of the manifest.
    leaving: Mutex<BTreeMap<BlockId, Leaving>>,
    repaired: AtomicU64,
    found: Mutex<Found>,
}

/// Which damage was found when, in an order.
#[derive(Default)]
struct Found {
    generation: u64,
    /// The generation at which a shard was last hit. Bounded by the shards.
    last: BTreeMap<ShardId, u64>,
}

impl Found {
    fn add(&mut self, shards: &ShardSet) {
        self.generation += 1;
        let generation = self.generation;
        self.last
            .extend(shards.iter().map(|shard| (shard, generation)));
    }

    fn since(&self, generation: u64) -> ShardSet {
        let last = self.last.iter();
        let later = last.filter(|(_, found)| **found > generation);
        later.map(|(shard, _)| *shard).collect()
    }
}

impl Damages {
    /// Counts the damages found since the start.
    pub(super) fn generation(&self) -> u64 {
        self.found.lock().generation
    }

    /// The shards that damage hit after a generation. A block leaves the views only after its damage is counted, and who asks
    /// the core after that hears of the loss; so blocks that are pinned have whatever was here at a proof that began after the
    /// generation, but for these shards, repaired or not.
    pub(super) fn since(&self, generation: u64) -> ShardSet {
        self.found.lock().since(generation)
    }

    /// Blocks whose content is here again since the start.
    pub(super) fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }
}

struct Leaving {
    piece: String,
    /// The end that the journal had when the core knew of it; none while the core is being told.
    recorded_to: Option<u64>,
}

/// The block that an error of the store is about, with what of it cannot be read.
pub(crate) fn damaged_block(error: &MetricsError) -> Option<(BlockId, &'static str)> {
    match error {
        MetricsError::DamagedBlock { block, piece } => Some((*block, piece)),
        MetricsError::Blocks(BlocksError::DamagedFile { block, what, .. }) => Some((*block, what)),
        _ => None,
    }
}

impl DataPlane {
    /// Tells the core what is lost with a block that cannot be read, and has the block leave the store.
    pub(crate) fn damaged(&self, block: BlockId, piece: &str) {
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
        tracing::error!(%block, piece, shards = shards.len(), "a block is damaged");
        self.feed(Event::Damaged {
            shards: shards.clone(),
            range,
        });
        // Behind the core: a proof that began after this count knows of the loss. Before the mark can be set.
        self.damages.found.lock().add(&shards);
        let end = self.applier.appended();
        if let Some(leaving) = self.damages.leaving.lock().get_mut(&block) {
            leaving.recorded_to = Some(end);
        }
    }

    /// Tells the core of the blocks that a start found unreadable, and of those with a mark that it does not
    /// remember: it was either never told, or the mark outlived the repair; then another repair does no harm.
    pub(super) fn recall_damages(&self, found: Vec<DamagedBlock>) {
        let found_now: Vec<BlockId> = found.iter().map(|damaged| damaged.meta.id).collect();
        for damaged in self.manifest.pin().damaged() {
            let (block, why, range) = (damaged.meta.id, &damaged.why, damaged.meta.window);
            let remembered = self.core.lock().replication.damaged(range);
            let shards = match found_now.contains(&block) {
                true => damaged.shards.clone(),
                false => damaged.shards.difference(&remembered),
            };
            tracing::error!(%block, why, shards = damaged.shards.len(), "a block is damaged");
            if !shards.is_empty() {
                self.feed(Event::Damaged { shards, range });
            }
        }
    }

    /// Marks the blocks in the manifest whose loss is durably recorded, and takes the marks of those away whose
    /// items are here again. Waits for the disk.
    pub(super) fn settle_damages(&self) {
        // One at a time: two would both resolve, and count, the same blocks.
        let _settling = self.damages.settling.lock();
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
            match self.manifest.mark_damaged(block, &piece) {
                // Without an entry the block was merged away meanwhile, so it could be read after all.
                Ok(_) => drop(self.damages.leaving.lock().remove(&block)),
                Err(error) => tracing::error!(%error, %block, "mark a damaged block"),
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
        let blocks = resolve_damaged.len();
        let edit = ManifestEdit {
            resolve_damaged,
            ..ManifestEdit::default()
        };
        match self.manifest.commit(edit) {
            Ok(_) => {
                self.damages
                    .repaired
                    .fetch_add(blocks as u64, Ordering::Relaxed);
                tracing::info!(blocks, "damaged blocks are repaired");
            }
            Err(error) => tracing::error!(%error, "take the marks of repaired blocks away"),
        }
    }
}
