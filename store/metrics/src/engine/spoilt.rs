//! Blocks whose aggregates cannot be read. Their samples answer until the blocks are rewritten, which makes the aggregates anew.
//!
//! Known in memory only: a start finds files that are missing or cut short, and whoever reads the others finds the rest again.

use super::readers::BlockReaders;
use crate::MetricsError;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use trefoil_store_blocks::BlockId;

/// Bounded by the blocks of the manifest and those that views still hold.
#[derive(Default)]
pub(crate) struct Spoilt {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is wrong, while nobody has been told.
    blocks: BTreeMap<BlockId, Option<String>>,
    found: u64,
    settled: u64,
}

impl Spoilt {
    /// Notes a block whose aggregates cannot be read, once.
    pub(super) fn note(&self, block: BlockId, why: &str) {
        let mut state = self.state.lock();
        let before = state.blocks.len();
        let known = state.blocks.entry(block);
        known.or_insert_with(|| Some(why.to_owned()));
        state.found += (state.blocks.len() - before) as u64;
    }

    pub(super) fn has(&self, block: BlockId) -> bool {
        self.state.lock().blocks.contains_key(&block)
    }

    /// Those that were noted since the last call, with what is wrong.
    pub(super) fn take_news(&self) -> Vec<(BlockId, String)> {
        let mut state = self.state.lock();
        let all = state.blocks.iter_mut();
        all.filter_map(|(block, why)| Some((*block, why.take()?)))
            .collect()
    }

    /// Forgets blocks that are not in `ids`: others have come in their place, or retention took them.
    pub(super) fn retain(&self, ids: &BTreeSet<BlockId>) {
        let mut state = self.state.lock();
        let before = state.blocks.len();
        state.blocks.retain(|block, _| ids.contains(block));
        state.settled += (before - state.blocks.len()) as u64;
    }

    /// How many were found since the start, and how many of them are gone again.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.found, state.settled)
    }
}

impl BlockReaders {
    /// What was read of a block's aggregates, or nothing when they cannot be read: then the samples answer. A file that a newer
    /// program wrote is none that is spoilt; others are noted.
    ///
    /// # Errors
    /// Those that are not about the file.
    pub(crate) fn or_samples<T>(
        &self,
        block: BlockId,
        read: Result<Option<T>, MetricsError>,
    ) -> Result<Option<T>, MetricsError> {
        match read {
            Err(MetricsError::UnknownBlockVersion { .. }) => Ok(None),
            Err(error @ (MetricsError::DamagedBlock { .. } | MetricsError::Blocks(_))) => {
                self.spoilt().note(block, &error.to_string());
                Ok(None)
            }
            other => other,
        }
    }
}
