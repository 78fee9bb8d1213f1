//! Time as the state machine knows it: how long leaders have certainly let pass.

use serde::{Deserialize, Serialize};

/// Time that has certainly passed, in milliseconds, as far as applied commands prove it.
///
/// A leader stamps every proposal with its monotonic clock. Between two stamps of one term at least
/// their difference has passed; between two terms nothing is assumed. So this clock never runs
/// faster than any real one, whatever the leaders' wall clocks show, and whoever waits for a term
/// by it waits at least that long. After a change of leader it stands still until the new leader's
/// second stamp.
///
/// A leader that restarts within its term starts its clock anew, at a smaller stamp: the clock
/// follows without advancing. Should the stamp be larger than the last one, then at least that long
/// has passed since the restart, which came after the last stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaderClock {
    /// The term of the newest stamp.
    term: u64,
    /// The newest stamp.
    stamp_ms: u64,
    /// What has passed since the cluster began.
    passed_ms: u64,
}

impl LeaderClock {
    /// Milliseconds that have certainly passed since the cluster began.
    #[must_use]
    pub fn passed_ms(&self) -> u64 {
        self.passed_ms
    }

    pub(crate) fn advance(&mut self, term: u64, stamp_ms: u64) {
        if term == self.term {
            let passed = stamp_ms.saturating_sub(self.stamp_ms);
            self.passed_ms = self.passed_ms.saturating_add(passed);
        }
        self.term = term;
        self.stamp_ms = stamp_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_leaders_stamps_advance_it() {
        let mut clock = LeaderClock::default();
        clock.advance(1, 500);
        assert_eq!(clock.passed_ms(), 0, "a new term proves nothing");
        clock.advance(1, 800);
        clock.advance(1, 800);
        assert_eq!(clock.passed_ms(), 300);
        clock.advance(2, 90_000);
        assert_eq!(
            clock.passed_ms(),
            300,
            "another leader's clock cannot be compared"
        );
        clock.advance(2, 90_100);
        assert_eq!(clock.passed_ms(), 400);
        clock.advance(2, 10);
        assert_eq!(
            clock.passed_ms(),
            400,
            "the leader restarted within its term"
        );
        clock.advance(2, 60);
        assert_eq!(clock.passed_ms(), 450);
    }
}
