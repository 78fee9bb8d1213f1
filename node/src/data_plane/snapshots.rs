//! This node's part of a snapshot: what is in the head becomes blocks, and blocks get a second name.

use super::DataPlane;
use crate::snapshot::{about::About, folder};
use anyhow::bail;
use std::{io, time::Duration};
use trefoil_model::{NodeId, ShardSet};
use trefoil_store_blocks::{LinkedBlocks, PinnedVersion};

/// Blocks for a snapshot.
pub(crate) struct Pinned {
    pub(crate) pin: PinnedVersion,
    /// The shards of which all that was applied before is in them.
    pub(crate) shards: ShardSet,
    /// Others, that damage hit since the generation: what was fetched again meanwhile may be in the head alone.
    pub(crate) hit: ShardSet,
}

impl DataPlane {
    /// What [`Self::pin_for_snapshot`] is told: taken before the proof of what is complete.
    pub(crate) fn damage_generation(&self) -> u64 {
        self.damages.generation()
    }

    /// The blocks as they are now; with `with_head` the head becomes blocks first. `generation`: from before the proof of what
    /// is complete. Waits for a disk.
    ///
    /// # Errors
    /// When the flush does not end in time, or the disk refuses.
    pub(crate) fn pin_for_snapshot(
        &self,
        with_head: bool,
        generation: u64,
        patience: Duration,
    ) -> anyhow::Result<Pinned> {
        if with_head {
            self.flush_within(patience)?;
        }
        // A block that cannot be read and is repaired already would only make the part unreadable.
        self.settle_damages();
        let pin = self.manifest.pin();
        let lost = pin
            .damaged()
            .fold(ShardSet::new(), |all, block| all.union(&block.shards));
        let serving = self.core.lock().replication.status().serving;
        let hit = self.damages.since(generation);
        Ok(Pinned {
            pin,
            shards: serving.difference(&lost).difference(&hit),
            hit,
        })
    }

    /// Makes the folder of a snapshot under its temporary name.
    ///
    /// # Errors
    /// When the disk refuses; what was begun is removed.
    pub(crate) fn prepare_snapshot(
        &self,
        pin: &PinnedVersion,
        about: About,
        node: NodeId,
        patience: Duration,
    ) -> anyhow::Result<LinkedBlocks> {
        let Some(_alone) = self.snapshots.try_lock_for(patience) else {
            bail!("another snapshot is being made");
        };
        folder::prepare(&self.directory, &self.manifest, pin, about, node)
    }

    /// Gives a prepared snapshot its name.
    ///
    /// # Errors
    /// When it is not there, or the disk refuses.
    pub(crate) fn keep_snapshot(&self, name: &str) -> io::Result<()> {
        let _alone = self.snapshots.lock();
        folder::keep(&self.directory, name)
    }

    /// Removes a snapshot that has come to nothing; only a part that nobody has kept, where `kept_too` does not say more.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn discard_snapshot(&self, name: &str, kept_too: bool) -> io::Result<()> {
        let _alone = self.snapshots.lock();
        match kept_too {
            true => folder::discard(&self.directory, name),
            false => folder::discard_part(&self.directory, name),
        }
    }
}
