//! Remembers which blocks have no series that a cut-off's selector selects: they need not be looked through again, and need
//! not be rewritten for it. Blocks never change, so what was found stays right. In memory only; a start looks again.

use super::MetricsEngine;
use crate::MetricsError;
use crate::block::Pieces;
use crate::deletion::SelectedCutOff;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use trefoil_model::TenantId;
use trefoil_store_blocks::{BlockId, VisibleBlock};

/// Most triples that are remembered, about 100 bytes each. Beyond them blocks are looked through again whenever there is nothing
/// else to merge, and queries compare their series with selectors that select none.
const KNOWN_MAX: usize = 1 << 18;

/// Blocks, tenants and selectors.
#[derive(Default)]
pub(crate) struct Unselected {
    known: Mutex<BTreeSet<(BlockId, TenantId, Arc<str>)>>,
}

impl Unselected {
    /// Whether a block is known to have no series that the cut-off selects.
    pub(crate) fn has(&self, block: BlockId, tenant: TenantId, cut_off: &SelectedCutOff) -> bool {
        let key = (block, tenant, Arc::clone(&cut_off.selector));
        self.known.lock().contains(&key)
    }

    fn note(&self, block: BlockId, tenant: TenantId, cut_off: &SelectedCutOff) {
        let key = (block, tenant, Arc::clone(&cut_off.selector));
        let mut known = self.known.lock();
        if known.len() < KNOWN_MAX {
            known.insert(key);
        }
    }

    /// Forgets blocks that are not in `ids`.
    pub(super) fn retain(&self, ids: &BTreeSet<BlockId>) {
        self.known.lock().retain(|(block, ..)| ids.contains(block));
    }
}

impl MetricsEngine {
    /// Whether a block lies wholly before the cut-off of a selector and has series that it selects.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub(super) fn has_cut_off_series(
        &self,
        block: &VisibleBlock,
        policy: &super::Policy,
    ) -> Result<bool, MetricsError> {
        for summary in &block.meta.tenants {
            let tenant = summary.tenant;
            let whole = |cut_off: &&SelectedCutOff| {
                cut_off.before > block.meta.time_max
                    && !self.unselected.has(block.meta.id, tenant, cut_off)
            };
            for cut_off in policy.selected(tenant).iter().filter(whole) {
                let reader = self
                    .readers
                    .get(&block.meta)?
                    .tenant(tenant, Pieces::Read)?;
                let found = match reader {
                    Some(reader) => !reader
                        .find(&cut_off.matchers, &block.meta.shards)?
                        .is_empty(),
                    None => false,
                };
                if found {
                    return Ok(true);
                }
                self.unselected.note(block.meta.id, tenant, cut_off);
            }
        }
        Ok(false)
    }
}
