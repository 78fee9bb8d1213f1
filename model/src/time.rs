//! Time as the data sees it: milliseconds of UTC, and the fixed windows that blocks are cut to.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC; negative before it.
pub type Millis = i64;

/// Length of the smallest window: two hours, as Prometheus' blocks.
pub const WINDOW_MILLIS: Millis = 2 * 60 * 60 * 1000;

/// A range of time: `start` inclusive, `end` exclusive, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    /// First millisecond inside.
    pub start: Millis,
    /// First millisecond behind.
    pub end: Millis,
}

impl TimeRange {
    /// Whether the two ranges share a millisecond.
    #[must_use]
    pub fn overlaps(&self, other: &TimeRange) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `at` is inside.
    #[must_use]
    pub fn contains(&self, at: Millis) -> bool {
        self.start <= at && at < self.end
    }
}

/// A fixed slice of UTC time, the same on all nodes: `start` is a multiple of [`WINDOW_MILLIS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window(Millis);

impl Window {
    /// The window that contains `at`.
    #[must_use]
    pub fn containing(at: Millis) -> Self {
        Self(at.div_euclid(WINDOW_MILLIS).saturating_mul(WINDOW_MILLIS))
    }

    /// The first millisecond of the window.
    #[must_use]
    pub fn start(self) -> Millis {
        self.0
    }

    /// The time that the window covers.
    #[must_use]
    pub fn range(self) -> TimeRange {
        TimeRange {
            start: self.0,
            end: self.0.saturating_add(WINDOW_MILLIS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_negative_time() {
        assert_eq!(Window::containing(0).start(), 0);
        assert_eq!(Window::containing(WINDOW_MILLIS - 1).start(), 0);
        assert_eq!(Window::containing(-1).start(), -WINDOW_MILLIS);
        assert!(Window::containing(-1).range().contains(-1));
    }
}
