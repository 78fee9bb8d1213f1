//! Stamps: what tells the content of a window in one view from its content in any other view of this process.
//!
//! A stamp is made of what a view reads: the blocks of the window with their visible shards, the generations of the head with how
//! many records they had when they last got some of the window, the deletions and the cut-offs that reach into it. So whatever
//! changes an answer about the window changes its stamp: samples in order or late, deletions, retention, copies from other owners,
//! damage, shards that go and come. Flushes and merges change it as well, though they keep the content. A stamp says nothing in
//! another process.

use super::View;
use crate::head::{HeadPart, HeadWindows, InHead};
use trefoil_model::{TenantId, Window};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// What a window, or several, had in a view. Equal stamps mean equal samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    identity: u128,
    is_in_blocks: bool,
}

impl Stamp {
    /// Whether all of it is in blocks; what is not may grow at any time.
    #[must_use]
    pub fn is_in_blocks(self) -> bool {
        self.is_in_blocks
    }

    /// The stamp of several windows, given in order of time.
    #[must_use]
    pub fn of_all(stamps: impl IntoIterator<Item = Stamp>) -> Self {
        let mut all = Vec::new();
        let mut is_in_blocks = true;
        for stamp in stamps {
            all.extend_from_slice(&stamp.identity.to_le_bytes());
            is_in_blocks &= stamp.is_in_blocks;
        }
        Self {
            identity: xxh3_128(&all),
            is_in_blocks,
        }
    }
}

/// The stamps of a tenant's windows in one view.
pub struct Stamps<'a> {
    view: &'a View,
    tenant: TenantId,
    heads: Vec<HeadWindows>,
}

impl Stamps<'_> {
    /// The stamp of what the view has in a window. `None` when the window had got more than that when these stamps were begun, so
    /// that what the view has cannot be told from it.
    #[must_use]
    pub fn of(&self, window: Window) -> Option<Stamp> {
        let mut identity = self.view.identity_in_blocks(self.tenant, window);
        let mut is_in_blocks = true;
        // Behind all else of the identity, whose length says where they begin.
        identity.push(identity.len() as u64);
        for head in &self.heads {
            match head.of(window) {
                None => {}
                Some(InHead::Records(records)) => {
                    is_in_blocks = false;
                    identity.extend([head.generation, u64::from(records)]);
                }
                Some(InHead::Unknown) => return None,
            }
        }
        let bytes: Vec<u8> = identity.into_iter().flat_map(u64::to_le_bytes).collect();
        Some(Stamp {
            identity: xxh3_128(&bytes),
            is_in_blocks,
        })
    }
}

impl View {
    /// The stamps of a tenant's windows. Waits for the head once, and for each window no more.
    #[must_use]
    pub fn stamps(&self, tenant: TenantId) -> Stamps<'_> {
        let heads = self.heads.get(&tenant).into_iter().flatten();
        Stamps {
            view: self,
            tenant,
            heads: heads.map(HeadPart::noted_windows).collect(),
        }
    }

    /// What the content of a window depends on beside the head.
    pub(super) fn identity_in_blocks(&self, tenant: TenantId, window: Window) -> Vec<u64> {
        let range = window.range();
        let cut_off = self.policy.cut_off(tenant).clamp(range.start, range.end);
        let mut identity = vec![u64::from(tenant.0), window.start() as u64, cut_off as u64];
        let deletions = self.policy.deletions(tenant).iter();
        let mut versions: Vec<u64> = deletions
            .filter(|deletion| deletion.range.overlaps(&range))
            .map(|deletion| deletion.version.0)
            .collect();
        versions.sort_unstable();
        identity.push(versions.len() as u64);
        identity.extend(versions);
        let selected = self.policy.selected(tenant).iter();
        for cut_off in selected.filter(|cut_off| cut_off.before > range.start) {
            identity.push(xxh3_64(cut_off.selector.as_bytes()));
            identity.push(cut_off.before.min(range.end) as u64);
        }
        // They are in order of time, and none is longer than its window.
        let first = self
            .blocks
            .partition_point(|block| block.meta.window.end <= range.start);
        let blocks = self.blocks[first..].iter();
        for block in blocks.take_while(|block| block.meta.window.start < range.end) {
            identity.push(block.meta.id.0);
            identity.push(block.shards.words().len() as u64);
            identity.extend_from_slice(block.shards.words());
        }
        identity
    }
}
