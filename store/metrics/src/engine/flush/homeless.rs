//! Metadata that came without samples: agents send it in requests of its own.
//!
//! A flush moves the journal position behind it, so a block must take it: the one of the tenant's newest window, else of
//! the newest window that anything is in. The next merge brings it together with what else is in the window, and it
//! is kept as long as the window. What a block of that window declares already is left out, or every flush of a
//! tenant that only declares would have its newest window merged anew.

use super::{ByTenant, Entries, Frozen, declared};
use crate::block::Pieces;
use crate::engine::{MetricsEngine, Policy};
use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{TenantId, Window};
use trefoil_store_blocks::VisibleBlock;

impl MetricsEngine {
    /// What tenants without samples in the frozen generations declare and blocks do not have, by the window that takes
    /// it. `windows` are those in which other tenants have samples.
    pub(super) fn homeless_metadata(
        &self,
        frozen: &Frozen,
        windows: &BTreeSet<Window>,
        policy: &Policy,
    ) -> BTreeMap<Window, ByTenant> {
        let mut homeless: BTreeMap<Window, ByTenant> = BTreeMap::new();
        let mut blocks = None;
        for (tenant, parts) in frozen {
            if parts
                .iter()
                .any(|part| part.generation().read().has_samples())
            {
                continue;
            }
            let mut entries = declared(parts);
            if entries.is_empty() {
                continue;
            }
            let blocks: &Vec<VisibleBlock> = blocks.get_or_insert_with(|| self.blocks());
            let cut_off = policy.cut_off(*tenant);
            let stays = |block: &&VisibleBlock| {
                block.meta.tenant(*tenant).is_some() && block.meta.window.end > cut_off
            };
            // Blocks are in order of time.
            let newest = blocks.iter().rfind(stays).map(window_of);
            let newest = newest.or_else(|| windows.last().copied());
            let newest = newest.or_else(|| blocks.last().map(window_of));
            let window = newest.unwrap_or_else(|| Window::containing(cut_off.max(0)));
            for block in blocks.iter().filter(|block| window_of(block) == window) {
                self.leave_out_known(block, *tenant, &mut entries);
            }
            if !entries.is_empty() {
                let of_window = homeless.entry(window).or_default();
                of_window.insert(*tenant, entries);
            }
        }
        homeless
    }

    /// Leaves out what a block declares. A block that cannot be read may not declare anything soon.
    fn leave_out_known(&self, block: &VisibleBlock, tenant: TenantId, entries: &mut Entries) {
        let reader = self
            .readers
            .get(&block.meta)
            .and_then(|r| r.tenant(tenant, Pieces::Read));
        let Ok(Some(reader)) = reader else { return };
        for known in reader.metadata(&block.shards).unwrap_or_default() {
            entries.remove(&known);
        }
    }
}

fn window_of(block: &VisibleBlock) -> Window {
    Window::containing(block.meta.window.start)
}
