//! The open blocks: footers and directories are read once and shared by all views, and so is what queries keep.

use crate::MetricsError;
use crate::block::{BlockReader, KeptPieces};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trefoil_store_blocks::{BlockId, BlockMeta, Manifest};

/// The name of a metrics block's only file.
pub(super) const BLOCK_FILE: &str = "data";

/// Bounded by the blocks that the manifest names and views hold.
pub(crate) struct BlockReaders {
    manifest: Arc<Manifest>,
    open: Mutex<BTreeMap<BlockId, Arc<BlockReader>>>,
    kept: Arc<KeptPieces>,
}

impl BlockReaders {
    pub(super) fn new(manifest: Arc<Manifest>) -> Self {
        Self {
            manifest,
            open: Mutex::default(),
            kept: Arc::default(),
        }
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

    /// Closes the blocks that are not in `ids`.
    pub(super) fn retain(&self, ids: &BTreeSet<BlockId>) {
        self.kept.retain(ids);
        self.open.lock().retain(|id, _| ids.contains(id));
    }
}
