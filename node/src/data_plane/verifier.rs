//! Reads every block now and then, so that damage is found while other owners still have the items, and not when
//! somebody asks for them.
//!
//! A file that is made from the samples of its block is made again; all others take their block out of use.
//!
//! One block at a time, new ones first, at a pace that leaves the disk to queries. What was verified is known in
//! memory only: a restart begins anew, because a disk is most likely to have changed while nobody looked.

use super::{DataPlane, damaged_block};
use crate::clock;
use std::{collections::BTreeMap, time::Duration};
use trefoil_store_blocks::{BlockId, VisibleBlock};
use trefoil_store_metrics::{DERIVED_FILES, MetricsError};

/// A block is read again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Bytes per second that are read at most; a block is read at once, and then there is a pause.
const PACE_BYTES_PER_SECOND: u64 = 32 << 20;

/// When blocks were read last.
#[derive(Default)]
pub(super) struct Verifier {
    /// Bounded by the blocks of the manifest.
    verified: BTreeMap<BlockId, Duration>,
    not_before: Duration,
}

impl Verifier {
    /// Reads the next block, if it is time for one.
    pub(super) fn run(&mut self, plane: &DataPlane) {
        let now = clock::boot();
        if now < self.not_before {
            return;
        }
        let pin = plane.manifest.pin();
        self.verified.retain(|block, _| pin.block(*block).is_some());
        let read_at = |block: &VisibleBlock| self.verified.get(&block.meta.id).copied();
        let due = |at: Option<Duration>| at.is_none_or(|at| now.saturating_sub(at) >= AGAIN_AFTER);
        let Some(block) = pin
            .all_blocks()
            .filter(|block| due(read_at(block)))
            .min_by_key(|block| read_at(block))
        else {
            return;
        };
        self.verified.insert(block.meta.id, now);
        let pause = block.meta.bytes().saturating_mul(1000) / PACE_BYTES_PER_SECOND;
        self.not_before = now + Duration::from_millis(pause);
        plane.verify(&block);
    }
}

impl DataPlane {
    /// Reads all files of a block against their checksums.
    fn verify(&self, block: &VisibleBlock) {
        for file in &block.meta.files {
            let opened = self.manifest.open_file(&block.meta, &file.name);
            let read = opened.and_then(|file| file.verify());
            let Err(error) = read.map_err(MetricsError::from) else {
                continue;
            };
            match damaged_block(&error) {
                Some((block, _)) if DERIVED_FILES.contains(&file.name.as_str()) => {
                    self.engine.lose_aggregates(block, &error.to_string());
                }
                // A block that was merged away meanwhile takes its files along.
                Some((block, piece)) => return self.damaged(block, piece),
                None => tracing::warn!(%error, "verify a block"),
            }
        }
    }
}
