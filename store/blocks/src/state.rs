//! The manifest's state at one version, and the view of it that queries pin.
//!
//! Pure: operations in, state out. A state is immutable once published; a commit clones it (entries
//! are shared) and publishes the changed clone.

use crate::codec::Operation;
use crate::{BlockId, BlockMeta, DamagedBlock};
use std::collections::BTreeMap;
use std::sync::Arc;
use trefoil_model::{LineageId, ShardSet, Signal, TimeRange};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ManifestState {
    /// Counts commits since the manifest was opened; tells views apart.
    pub(crate) version: u64,
    pub(crate) lineage: LineageId,
    pub(crate) flushed_to: u64,
    pub(crate) checkpoint: Arc<Vec<u8>>,
    pub(crate) next_block: u64,
    pub(crate) blocks: BTreeMap<BlockId, Arc<BlockMeta>>,
    /// Per block with tombstones: the invisible shards. Only of blocks that exist.
    pub(crate) tombstones: BTreeMap<BlockId, ShardSet>,
    pub(crate) damaged: BTreeMap<BlockId, DamagedBlock>,
    /// Version at which a block's tombstones last changed. In memory only: no view outlives a restart.
    pub(crate) changed_at: BTreeMap<BlockId, u64>,
}

impl ManifestState {
    pub(crate) fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Reset => {
                *self = Self {
                    version: self.version,
                    ..Self::default()
                };
            }
            Operation::Lineage(lineage) => self.lineage = lineage,
            Operation::FlushedTo(offset) => self.flushed_to = offset,
            Operation::Checkpoint(bytes) => self.checkpoint = Arc::new(bytes),
            Operation::NextBlock(next) => self.next_block = self.next_block.max(next),
            Operation::Add(meta) => {
                self.next_block = self.next_block.max(meta.id.0.saturating_add(1));
                self.blocks.insert(meta.id, meta);
            }
            Operation::Remove(block) => self.forget(block),
            Operation::Tombstone(block, shards) => {
                if self.blocks.contains_key(&block) {
                    let all = self.tombstones.entry(block).or_default();
                    let union = all.union(&shards);
                    if union != *all {
                        *all = union;
                        self.changed_at.insert(block, self.version);
                    }
                }
            }
            Operation::Damaged(damaged) => {
                self.forget(damaged.meta.id);
                self.damaged.insert(damaged.meta.id, damaged);
            }
            Operation::Resolved(block) => {
                self.damaged.remove(&block);
            }
        }
    }

    fn forget(&mut self, block: BlockId) {
        self.blocks.remove(&block);
        self.tombstones.remove(&block);
        self.changed_at.remove(&block);
    }

    /// Operations that rebuild this state from nothing.
    pub(crate) fn snapshot(&self) -> Vec<Operation> {
        let mut operations = vec![
            Operation::Reset,
            Operation::Lineage(self.lineage),
            Operation::FlushedTo(self.flushed_to),
            Operation::Checkpoint(self.checkpoint.to_vec()),
            Operation::NextBlock(self.next_block),
        ];
        operations.extend(self.blocks.values().cloned().map(Operation::Add));
        let tombstones = self.tombstones.iter();
        operations.extend(tombstones.map(|(&block, s)| Operation::Tombstone(block, s.clone())));
        operations.extend(self.damaged.values().cloned().map(Operation::Damaged));
        operations
    }

    pub(crate) fn visible_shards(&self, meta: &BlockMeta) -> ShardSet {
        match self.tombstones.get(&meta.id) {
            Some(invisible) => meta.shards.difference(invisible),
            None => meta.shards.clone(),
        }
    }
}

/// A block as a view shows it.
#[derive(Clone, Debug)]
pub struct VisibleBlock {
    /// The block.
    pub meta: Arc<BlockMeta>,
    /// Its shards without the tombstones; items of other shards in its files do not exist.
    pub shards: ShardSet,
}

/// One consistent view of the blocks. Its blocks' files stay on disk as long as it lives (or any
/// `Arc<BlockMeta>` taken from it). Cheap to clone.
#[derive(Clone, Debug)]
pub struct PinnedVersion {
    pub(crate) state: Arc<ManifestState>,
}

impl PinnedVersion {
    /// The number of this view; grows with every commit, starts again when the manifest is opened.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.state.version
    }

    /// The history that the node's data belongs to.
    #[must_use]
    pub fn lineage(&self) -> LineageId {
        self.state.lineage
    }

    /// Journal offset below which everything is in blocks: a restart replays from here.
    #[must_use]
    pub fn flushed_to(&self) -> u64 {
        self.state.flushed_to
    }

    /// The replication protocol's bytes, as of the same commit.
    #[must_use]
    pub fn checkpoint(&self) -> &[u8] {
        &self.state.checkpoint
    }

    /// The blocks of a signal that overlap `range` and have a visible shard, by ascending id.
    pub fn blocks(&self, signal: Signal, range: TimeRange) -> impl Iterator<Item = VisibleBlock> {
        self.all_blocks()
            .filter(move |block| block.meta.signal == signal && block.meta.window.overlaps(&range))
            .filter(|block| !block.shards.is_empty())
    }

    /// Every block, also those without a visible shard, by ascending id.
    pub fn all_blocks(&self) -> impl Iterator<Item = VisibleBlock> {
        self.state.blocks.values().map(|meta| VisibleBlock {
            shards: self.state.visible_shards(meta),
            meta: meta.clone(),
        })
    }

    /// The block with this id, if this view has it.
    #[must_use]
    pub fn block(&self, block: BlockId) -> Option<VisibleBlock> {
        let meta = self.state.blocks.get(&block)?;
        Some(VisibleBlock {
            shards: self.state.visible_shards(meta),
            meta: meta.clone(),
        })
    }

    /// Blocks that were lost and not fetched again yet, by ascending id.
    pub fn damaged(&self) -> impl Iterator<Item = &DamagedBlock> {
        self.state.damaged.values()
    }
}
