//! The node's clocks. Nothing else in the node reads time for a decision.

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trefoil_model::Millis;

/// Time since the machine started, suspended time included. Never goes back.
pub(crate) fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// The wall clock, in milliseconds of UTC.
pub(crate) fn wall() -> Millis {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as Millis,
        Err(before) => -(before.duration().as_millis() as Millis),
    }
}

/// The cluster's time: this node's wall clock, corrected by how far the median of all clocks is ahead of it.
#[derive(Default)]
pub(crate) struct ClusterClock {
    offset: Mutex<Option<Millis>>,
}

impl ClusterClock {
    /// Notes by how much the median is ahead, in milliseconds; returns what was known before.
    pub(crate) fn correct(&self, offset: Millis) -> Option<Millis> {
        self.offset.lock().replace(offset)
    }

    /// By how much the median is ahead of this node's clock, milliseconds; none before most members have
    /// answered for the first time.
    pub(crate) fn offset(&self) -> Option<Millis> {
        *self.offset.lock()
    }

    /// The cluster's time in milliseconds of UTC; none while it is not known.
    pub(crate) fn now(&self) -> Option<Millis> {
        self.offset().map(|offset| wall() + offset)
    }
}
