//! How long somebody saw nothing but errors.

use std::time::{Duration, Instant};

/// One try of a request; `T` is a moment.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<T = Instant> {
    /// When it was sent.
    pub begun: T,
    /// When it was answered or given up.
    pub ended: T,
    /// Whether it succeeded.
    pub success: bool,
}

/// The error windows of somebody's attempts, which are in order: each from the begin of a failed attempt to the end of
/// the next successful one. A window that no success closes lasts to the end of the last attempt.
pub fn error_windows<T: Copy + Ord>(
    attempts: impl IntoIterator<Item = Attempt<T>>,
) -> impl Iterator<Item = (T, T)> {
    let mut open: Option<(T, T)> = None;
    let attempts = attempts.into_iter().map(Some).chain([None]);
    attempts.filter_map(move |attempt| {
        let Some(attempt) = attempt else {
            return open.take();
        };
        if let Some((_, end)) = &mut open {
            *end = attempt.ended.max(*end);
        }
        if attempt.success {
            return open.take();
        }
        open.get_or_insert((attempt.begun, attempt.ended));
        None
    })
}

/// The longest of the [`error_windows`] of the attempts that began in `from..to`.
#[must_use]
pub fn longest_error_window(attempts: &[Attempt], from: Instant, to: Instant) -> Duration {
    let attempts = attempts.iter().copied();
    let within = attempts.filter(|attempt| from <= attempt.begun && attempt.begun < to);
    let lengths = error_windows(within).map(|(begin, end)| end - begin);
    lengths.max().unwrap_or(Duration::ZERO)
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
    let windows: Vec<_> = error_windows(attempts).collect();
    assert_eq!(windows, [(at(100), at(420)), (at(900), at(930))]);
    let all = longest_error_window(&attempts, zero, at(10_000));
    assert_eq!(all, Duration::from_millis(320));
    let late = longest_error_window(&attempts, at(500), at(10_000));
    assert_eq!(late, Duration::from_millis(30));
    assert_eq!(
        longest_error_window(&attempts[..1], zero, at(10)),
        Duration::ZERO
    );
}
