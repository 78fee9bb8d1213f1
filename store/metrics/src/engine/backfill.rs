//! Aggregates for blocks of closed windows that have none, or none that can be read, beside everything else that is done.
//!
//! A block gets them by being rewritten, as by a merge of it alone. But nothing waits meanwhile: only the new record takes the lock
//! under which blocks are replaced, and it is not written if the block has changed since.

use super::MetricsEngine;
use super::merge::{Chosen, Windows, windows_of};
use super::readers::AGGREGATES_FILE;
use crate::MetricsError;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use trefoil_model::Millis;
use trefoil_store_blocks::{PinnedVersion, VisibleBlock};

/// Blocks of closed windows that wait for aggregates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregatesBacklog {
    /// How many there are.
    pub blocks: u64,
    /// Bytes of all their files.
    pub bytes: u64,
}

/// What [`MetricsEngine::aggregate_once`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateOutcome {
    /// No block of a closed window lacks aggregates.
    Nothing,
    /// A block has them now, or there is no block any more that could.
    Made,
    /// A block was left as it was: something has changed it meanwhile, or the work was to end.
    Left,
}

impl MetricsEngine {
    /// Makes the aggregates of the newest block that lacks them; windows that end at or before `closed_before` are closed. `go_on`
    /// is asked again and again with the bytes of the block that have been written; it may take its time, and ends the work.
    ///
    /// # Errors
    /// As [`MetricsEngine::merge_once`].
    pub fn aggregate_once(
        &self,
        closed_before: Millis,
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<AggregateOutcome, MetricsError> {
        let pin = self.manifest.pin();
        let policy = self.policy();
        let Some(chosen) = self.choose_lacking(&pin, closed_before) else {
            return Ok(AggregateOutcome::Nothing);
        };
        let block = chosen.inputs[0].meta.id;
        let mut go_on = |bytes| match self.manifest.pin().block(block) {
            Some(_) => go_on(bytes),
            None => ControlFlow::Break(()),
        };
        let Some(written) = self.write_replacement(&chosen, &policy, &mut go_on)? else {
            return Ok(AggregateOutcome::Left);
        };
        let _merging = self.merging.lock();
        Ok(match self.put_in_place(&pin, &chosen, written)? {
            Some(_) => {
                self.aggregates_made.fetch_add(1, Ordering::Relaxed);
                AggregateOutcome::Made
            }
            None => AggregateOutcome::Left,
        })
    }

    /// Whether something replaces or removes blocks at the moment.
    #[must_use]
    pub fn is_merging(&self) -> bool {
        self.merging.is_locked()
    }

    /// The newest of the blocks that wait; counts all.
    fn choose_lacking(&self, pin: &PinnedVersion, closed_before: Millis) -> Option<Chosen> {
        let windows: Windows = windows_of(pin);
        let unmerged = self.unmerged.lock().clone();
        let only = |(window, blocks): (&(Millis, Millis), &Vec<VisibleBlock>)| {
            let is_closed = window.1 <= closed_before && !unmerged.contains(window);
            let only = blocks.first().filter(|_| is_closed && blocks.len() == 1)?;
            self.lacks_aggregates(only).then(|| only.clone())
        };
        let waiting: Vec<VisibleBlock> = windows.iter().rev().filter_map(only).collect();
        *self.backlog.lock() = AggregatesBacklog {
            blocks: waiting.len() as u64,
            bytes: waiting.iter().map(|block| block.meta.bytes()).sum(),
        };
        let newest = waiting.into_iter().next()?;
        Some(Chosen {
            inputs: vec![newest],
            completes: true,
        })
    }

    fn lacks_aggregates(&self, block: &VisibleBlock) -> bool {
        let is_wanted = self.options.down_sampling && block.meta.items > 0;
        let is_named = block.meta.file(AGGREGATES_FILE).is_some();
        (is_wanted || is_named) && !self.readers.has_aggregates(&block.meta)
    }
}
