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

/// [`boot`] in milliseconds.
pub(crate) fn boot_millis() -> Millis {
    boot().as_millis() as Millis
}

/// The wall clock, in milliseconds of UTC.
pub(crate) fn wall() -> Millis {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as Millis,
        Err(before) => -(before.duration().as_millis() as Millis),
    }
}

/// The cluster's time: the median of all clocks when it was last measured, carried on by the boot clock. A wall clock
/// that is set wrong meanwhile moves nothing, and is seen at once.
#[derive(Default)]
pub(crate) struct ClusterClock {
    /// The cluster's time when the boot clock began, milliseconds of UTC.
    begin: Mutex<Option<Millis>>,
}

impl ClusterClock {
    /// Notes what the cluster's time was when the boot clock began, milliseconds of UTC: the median of what all clocks say.
    pub(crate) fn set_begin(&self, begin: Millis) {
        *self.begin.lock() = Some(begin);
    }

    /// By how much the cluster's time is ahead of this node's wall clock, milliseconds; none before most members have
    /// answered for the first time.
    pub(crate) fn offset(&self) -> Option<Millis> {
        self.now().map(|now| now - wall())
    }

    /// The cluster's time in milliseconds of UTC; none while it is not known.
    pub(crate) fn now(&self) -> Option<Millis> {
        let begin = *self.begin.lock();
        begin.map(|begin| begin + boot_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_time_is_the_wall_clock_corrected_and_unknown_before() {
        let clock = ClusterClock::default();
        assert_eq!((clock.now(), clock.offset()), (None, None));
        for offset in [5_000, -90_000] {
            clock.set_begin(wall() + offset - boot_millis());
            let (now, measured) = (clock.now(), clock.offset());
            let near = |value: Option<Millis>, wanted: Millis| {
                value.is_some_and(|value| (value - wanted).abs() <= 1_000)
            };
            assert!(near(now, wall() + offset), "{now:?}");
            assert!(near(measured, offset), "{measured:?}");
        }
    }
}
