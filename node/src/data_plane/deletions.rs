//! Has the metadata plane note which deletions are applied to everything that this node stores.
//!
//! The core knows when nothing older is left in the journal and none comes any more; what is left to look at are the
//! blocks, which are rewritten without what was deleted.

use super::{DataPlane, MetadataWish};
use anyhow::Context;
use std::sync::atomic::Ordering;
use trefoil_model::{DeletionVersion, Millis, TenantId};
use trefoil_store_blocks::VisibleBlock;

impl DataPlane {
    /// Confirms what is applied. Said again until it is noted.
    pub(super) fn confirm_deletions(&self) {
        let to_confirm = self.core.lock().replication.deletions_to_confirm();
        if to_confirm.is_empty() {
            return;
        }
        let pin = self.manifest.pin();
        let is_applied = |(tenant, version): &(TenantId, DeletionVersion)| {
            let of_tenant = |block: VisibleBlock| block.meta.tenant(*tenant).copied();
            let mut summaries = pin.all_blocks().filter_map(of_tenant);
            summaries.all(|summary| summary.deletion_version >= *version)
        };
        let applied: Vec<_> = to_confirm.into_iter().filter(is_applied).collect();
        if applied.is_empty() {
            return;
        }
        // What was erased of them must not come back with a start that has not heard of the deletion.
        if let Err(error) = self.engine.save_exemplars() {
            self.store_failed(&error, "save exemplars");
            return;
        }
        for (tenant, version) in applied {
            self.wish(MetadataWish::ConfirmDeletions(tenant, version));
        }
    }

    /// Rewrites all blocks that still have what was deleted, and what the head has becomes blocks without it. What nobody
    /// else does at the moment is done here, on the caller's thread.
    ///
    /// # Errors
    /// When the store refuses, or deletions are not known again yet.
    pub(crate) fn rewrite_blocks(&self) -> anyhow::Result<()> {
        self.flush()?;
        while !self.is_closed() {
            // No window counts as closed: that merge is worth more work than is asked for.
            let merged = self.engine.merge_once(Millis::MIN);
            let merged = merged.inspect_err(|error| self.store_failed(error, "rewrite blocks"));
            if merged.context("rewrite blocks")?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Says that this node knows what it had confirmed before it started: from now on it takes items from peers.
    /// Before, one could be older than a deletion that nobody waits for any more.
    pub(crate) fn take_items(&self) {
        self.takes_items.store(true, Ordering::Relaxed);
    }
}
