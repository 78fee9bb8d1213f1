//! Makes aggregates for blocks that have none, as after down-sampling was switched on, or whose aggregates cannot be read: one block
//! at a time, the newest window first, at a pace that leaves disk and processor to everything else.
//!
//! It holds no lock while it works, and stands still while a flush or a merge is at work. What is done is in the manifest, so
//! after a restart it goes on with the next block.

use super::DataPlane;
use crate::clock;
use std::{ops::ControlFlow, thread, time::Duration};
use trefoil_store_metrics::MetricsError;

/// Bytes of blocks that are rewritten per second at most: a long history takes days rather than the disk.
const PACE_BYTES_PER_SECOND: u64 = 2 << 20;
/// How long it waits after a failure. On a full disk every attempt takes space that others wait for.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(600);
/// How often it looks whether the process ends, and whether the others are done.
const NAP: Duration = Duration::from_millis(100);

/// When the next block may be begun.
#[derive(Default)]
pub(super) struct Aggregator {
    not_before: Duration,
}

impl Aggregator {
    /// Makes the aggregates of one block, if some lack them.
    pub(super) fn run(&mut self, plane: &DataPlane) {
        if clock::boot() < self.not_before {
            return;
        }
        let mut pace = Pace::begin(clock::boot());
        let mut go_on = |bytes| pace.wait(plane, bytes);
        let made = plane
            .engine
            .aggregate_once(plane.closed_before(), &mut go_on);
        match made {
            // A deletion is told soon, unless this node cannot reach the metadata plane.
            Ok(_) | Err(MetricsError::UnknownDeletion { .. }) => {}
            Err(error) => {
                self.not_before = clock::boot() + PAUSE_AFTER_FAILURE;
                plane.store_failed(&error, "make aggregates");
            }
        }
    }
}

/// How far a block is.
struct Pace {
    at: Duration,
    bytes: u64,
}

impl Pace {
    fn begin(now: Duration) -> Self {
        Self { at: now, bytes: 0 }
    }

    fn wait(&mut self, plane: &DataPlane, bytes: u64) -> ControlFlow<()> {
        while !plane.is_closed() {
            let is_busy = plane.flushing.is_locked() || plane.engine.is_merging();
            match self.nap(clock::boot(), bytes, is_busy) {
                Some(nap) => thread::sleep(nap),
                None => return ControlFlow::Continue(()),
            }
        }
        ControlFlow::Break(())
    }

    /// How long to sleep before it is asked again; `None` when work may go on with so many bytes done. Time in which others are busy
    /// is not made up for.
    fn nap(&mut self, now: Duration, bytes: u64, is_busy: bool) -> Option<Duration> {
        if is_busy {
            self.at = now;
            return Some(NAP);
        }
        let micros = (bytes - self.bytes).saturating_mul(1_000_000) / PACE_BYTES_PER_SECOND;
        let left = (self.at + Duration::from_micros(micros)).saturating_sub(now);
        if !left.is_zero() {
            return Some(left.min(NAP));
        }
        (self.at, self.bytes) = (now, bytes);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_keeps_its_pace_and_makes_up_for_nothing() {
        let milli = Duration::from_millis;
        let mut pace = Pace::begin(milli(1_000));
        let eighth = PACE_BYTES_PER_SECOND / 8;
        let mut nap = |at, eighths, is_busy| pace.nap(milli(at), eighths * eighth, is_busy);
        assert_eq!(nap(1_000, 1, false), Some(NAP));
        assert_eq!(nap(1_100, 1, false), Some(milli(25)));
        assert_eq!(nap(1_125, 1, false), None);
        // A flush comes in between: what could have been done meanwhile is not done all at once.
        assert_eq!(nap(5_000, 2, true), Some(NAP));
        assert_eq!(nap(5_100, 2, false), Some(milli(25)));
        assert_eq!(nap(5_125, 2, false), None);
        assert_eq!(nap(5_125, 10, false), Some(NAP), "naps are short");
        assert_eq!(nap(6_125, 10, false), None);
    }
}
