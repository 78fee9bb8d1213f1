//! The open blocks: footers and directories are read once and shared by all views, and so is what queries keep.

use super::spoilt::Spoilt;
use crate::MetricsError;
use crate::block::{AggregatesReader, BlockReader, KeptPieces};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trefoil_store_blocks::{BlockId, BlockMeta, Manifest};

/// The name of the file that every metrics block has.
pub(super) const BLOCK_FILE: &str = "data";

/// The name of the file with the aggregates of a merged block of a closed window.
pub(super) const AGGREGATES_FILE: &str = "aggregates";

/// Files of blocks that are made from the samples: a block without them is whole.
pub const DERIVED_FILES: &[&str] = &[AGGREGATES_FILE];

/// Bounded by the blocks that the manifest names and views hold.
pub(crate) struct BlockReaders {
    manifest: Arc<Manifest>,
    open: Mutex<BTreeMap<BlockId, Arc<BlockReader>>>,
    kept: Arc<KeptPieces>,
    aggregates: Mutex<BTreeMap<BlockId, Arc<AggregatesReader>>>,
    spoilt: Spoilt,
    aggregated: AtomicU64,
}

impl BlockReaders {
    pub(super) fn new(manifest: Arc<Manifest>) -> Self {
        Self {
            manifest,
            open: Mutex::default(),
            kept: Arc::default(),
            aggregates: Mutex::default(),
            spoilt: Spoilt::default(),
            aggregated: AtomicU64::new(0),
        }
    }

    /// Counts a selector that aggregates of blocks answer.
    pub(crate) fn count_aggregated(&self) {
        self.aggregated.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(super) fn aggregated(&self) -> u64 {
        self.aggregated.load(Ordering::Relaxed)
    }

    /// The same, if the block was opened before.
    pub(crate) fn opened(&self, meta: &BlockMeta) -> Option<Arc<BlockReader>> {
        self.open.lock().get(&meta.id).map(Arc::clone)
    }

    /// The reader of a block whose metadata the caller holds, and with it the files.
    pub(crate) fn get(&self, meta: &BlockMeta) -> Result<Arc<BlockReader>, MetricsError> {
        if let Some(reader) = self.open.lock().get(&meta.id) {
            return Ok(Arc::clone(reader));
        }
        let file = self.manifest.open_file(meta, BLOCK_FILE)?;
        let reader = Arc::new(BlockReader::open(meta.id, file)?);
        self.open.lock().insert(meta.id, Arc::clone(&reader));
        Ok(reader)
    }

    /// What queries keep of the blocks.
    pub(crate) fn kept(&self) -> &Arc<KeptPieces> {
        &self.kept
    }

    /// The blocks whose aggregates cannot be read.
    pub(super) fn spoilt(&self) -> &Spoilt {
        &self.spoilt
    }

    /// The aggregates of such a block, if it has them and nobody found them unreadable yet.
    pub(crate) fn aggregates(
        &self,
        meta: &BlockMeta,
    ) -> Result<Option<Arc<AggregatesReader>>, MetricsError> {
        if !self.has_aggregates(meta) {
            return Ok(None);
        }
        if let Some(reader) = self.aggregates.lock().get(&meta.id) {
            return Ok(Some(Arc::clone(reader)));
        }
        let file = self.manifest.open_file(meta, AGGREGATES_FILE)?;
        let reader = Arc::new(AggregatesReader::open(meta.id, file, meta.window.start)?);
        self.aggregates.lock().insert(meta.id, Arc::clone(&reader));
        Ok(Some(reader))
    }

    /// Whether a block has aggregates that nobody found unreadable yet.
    pub(super) fn has_aggregates(&self, meta: &BlockMeta) -> bool {
        meta.file(AGGREGATES_FILE).is_some() && !self.spoilt.has(meta.id)
    }

    /// Closes the blocks that are not in `ids`.
    pub(super) fn retain(&self, ids: &BTreeSet<BlockId>) {
        self.kept.retain(ids);
        self.spoilt.retain(ids);
        self.aggregates.lock().retain(|id, _| ids.contains(id));
        self.open.lock().retain(|id, _| ids.contains(id));
    }
}
