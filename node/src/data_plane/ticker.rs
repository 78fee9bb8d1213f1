//! The clock of the core: sleeps until the core's next deadline, and less when an event brings it nearer.

use super::DataPlane;
use crate::clock;
use parking_lot::{Condvar, Mutex};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use trefoil_shard::Event;

/// When the core is told again that time passed.
pub(super) struct Ticker {
    /// On the boot clock.
    until: Mutex<Duration>,
    nearer: Condvar,
}

impl Default for Ticker {
    fn default() -> Self {
        Self {
            until: Mutex::new(Duration::MAX),
            nearer: Condvar::new(),
        }
    }
}

impl Ticker {
    /// Wakes the thread then, if not sooner.
    pub(super) fn wake_at(&self, at: Duration) {
        let mut until = self.until.lock();
        if at < *until {
            *until = at;
            self.nearer.notify_one();
        }
    }

    /// Waits for the deadline and forgets it: the tick that follows sets the next.
    fn wait(&self) {
        let mut until = self.until.lock();
        loop {
            let left = until.saturating_sub(clock::boot());
            if left.is_zero() {
                break;
            }
            self.nearer.wait_for(&mut until, left);
        }
        *until = Duration::MAX;
    }
}

/// Runs until the data plane is closed.
pub(super) fn run(plane: &Weak<DataPlane>, ticker: &Arc<Ticker>) {
    ticker.wake_at(Duration::ZERO);
    loop {
        ticker.wait();
        let Some(plane) = plane.upgrade() else { return };
        if plane.is_closed() {
            return;
        }
        plane.feed(Event::Tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_nearer_deadline_wakes_the_sleeper_and_a_farther_one_does_not() {
        let ticker = Arc::new(Ticker::default());
        let sleeper = ticker.clone();
        let begun = clock::boot();
        ticker.wake_at(begun + Duration::from_secs(3600));
        let waits = thread::spawn(move || {
            sleeper.wait();
            clock::boot()
        });
        // Late enough for this thread to say the rest before.
        let soon = begun + Duration::from_secs(1);
        ticker.wake_at(soon);
        ticker.wake_at(begun + Duration::from_secs(60));
        let woken = waits.join().expect("it wakes");
        assert!(woken >= soon);
        assert_eq!(*ticker.until.lock(), Duration::MAX, "a tick sets the next");
    }
}
