//! How long somebody saw nothing but errors.

use std::time::{Duration, Instant};

/// One try of a request.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// When it was sent.
    pub begun: Instant,
    /// When it was answered or given up.
    pub ended: Instant,
    /// Whether it succeeded.
    pub success: bool,
}

/// The longest time from the begin of a failed attempt to the end of the next successful one, over
/// the attempts that began in `from..to`, in order. Failures that no success follows last to the end
/// of the last attempt.
#[must_use]
pub fn longest_error_window(attempts: &[Attempt], from: Instant, to: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    let mut failing_since: Option<Instant> = None;
    for attempt in attempts {
        if attempt.begun < from || attempt.begun >= to {
            continue;
        }
        if !attempt.success {
            failing_since.get_or_insert(attempt.begun);
        }
        if let Some(since) = failing_since {
            longest = longest.max(attempt.ended - since);
        }
        if attempt.success {
            failing_since = None;
        }
    }
    longest
}

#[test]
fn windows_reach_from_the_first_failure_to_the_next_success() {
    let zero = Instant::now();
    let at = |ms: u64| zero + Duration::from_millis(ms);
    let attempt = |begun: u64, ended: u64, success: bool| Attempt {
        begun: at(begun),
        ended: at(ended),
        success,
    };
    let attempts = [
        attempt(0, 10, true),
        attempt(100, 300, false),
        attempt(300, 350, false),
        attempt(400, 420, true),
        attempt(500, 900, true),
        attempt(900, 930, false),
    ];
    let all = longest_error_window(&attempts, zero, at(10_000));
    assert_eq!(all, Duration::from_millis(320));
    let late = longest_error_window(&attempts, at(500), at(10_000));
    assert_eq!(late, Duration::from_millis(30));
    assert_eq!(
        longest_error_window(&attempts[..1], zero, at(10)),
        Duration::ZERO
    );
}
