//! `anchored` and `smoothed`: values at the ends of a range instead of extrapolation (PROM-52).
//!
//! An anchored range begins with the last sample in front of it. At the ends of a smoothed one the
//! value lies on the line between the samples around it. A counter's reset between them counts from zero.

use crate::{ast::Extension, function::WindowFunction};
use trefoil_model::Millis;

/// The samples in and around a range: from the last one in front of it, if any, to the last one inside, or
/// for smoothed ranges to the first one behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExtendedWindow<'a> {
    pub(crate) timestamps: &'a [Millis],
    pub(crate) values: &'a [f64],
    /// The left end, exclusive.
    pub(crate) start: Millis,
    /// The right end, inclusive.
    pub(crate) end: Millis,
    pub(crate) extension: Extension,
}

/// The function's value; `None` when no sample is near enough, or the function has no such form.
pub(crate) fn apply(function: WindowFunction, window: &ExtendedWindow<'_>) -> Option<f64> {
    use WindowFunction::{Changes, Delta, Increase, Rate, Resets};
    let last = window.timestamps.len().checked_sub(1)?;
    // Samples on one side of the range only say nothing about it.
    if window.timestamps[last] <= window.start || window.timestamps[0] > window.end {
        return None;
    }
    match function {
        Changes => Some(count(window.values, |a, b| {
            a != b && !(a.is_nan() && b.is_nan())
        })),
        Resets => Some(count(window.values, |a, b| b < a)),
        Delta => Some(window.change(false)),
        Increase => Some(window.change(true)),
        Rate => Some(window.change(true) / ((window.end - window.start) as f64 / 1000.0)),
        _ => None,
    }
}

fn count(values: &[f64], counts: impl Fn(f64, f64) -> bool) -> f64 {
    let pairs = values.windows(2);
    pairs.filter(|pair| counts(pair[0], pair[1])).count() as f64
}

impl ExtendedWindow<'_> {
    fn change(&self, counter: bool) -> f64 {
        let (timestamps, values) = (self.timestamps, self.values);
        let last = values.len() - 1;
        let smoothed = self.extension == Extension::Smoothed;
        let left = if smoothed && timestamps[0] < self.start && last > 0 {
            self.between(0, self.start, counter, true)
        } else {
            values[0]
        };
        let right = if smoothed && timestamps[last] > self.end && last > 0 {
            self.between(last - 1, self.end, counter, false)
        } else {
            values[last]
        };
        let mut change = right - left;
        if counter {
            let mut before = left;
            let inside = timestamps
                .iter()
                .zip(values)
                .filter(|(t, _)| **t > self.start && **t < self.end)
                .map(|(_, value)| *value);
            for value in inside.chain([right]) {
                if value < before {
                    change += before;
                }
                before = value;
            }
        }
        change
    }

    /// The value at `time` between the samples `at` and `at + 1`.
    fn between(&self, at: usize, time: Millis, counter: bool, left_end: bool) -> f64 {
        let (mut from, mut to) = (self.values[at], self.values[at + 1]);
        if counter && to < from {
            if left_end {
                from = 0.0;
            } else {
                to += from;
            }
        }
        let (first, second) = (self.timestamps[at], self.timestamps[at + 1]);
        interpolate((first, from), (second, to), time)
    }
}

/// The value at `time` on the line through two samples.
pub(crate) fn interpolate(first: (Millis, f64), second: (Millis, f64), time: Millis) -> f64 {
    let share = (time - first.0) as f64 / (second.0 - first.0) as f64;
    first.1 + (second.1 - first.1) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_anchored_or_interpolated() {
        let check = |function, extension, expected: Option<f64>| {
            let smoothed = extension == Extension::Smoothed;
            let to = if smoothed { 4 } else { 3 };
            let window = ExtendedWindow {
                timestamps: &[0, 20_000, 40_000, 60_000][..to],
                values: &[1.0, 3.0, 2.0, 4.0][..to],
                start: 10_000,
                end: 50_000,
                extension,
            };
            assert_eq!(
                apply(function, &window),
                expected,
                "{function:?} {extension:?}"
            );
        };
        check(WindowFunction::Increase, Extension::Anchored, Some(4.0));
        check(WindowFunction::Delta, Extension::Anchored, Some(1.0));
        check(WindowFunction::Resets, Extension::Anchored, Some(1.0));
        check(WindowFunction::Increase, Extension::Smoothed, Some(4.0));
        check(WindowFunction::Delta, Extension::Smoothed, Some(1.0));
        check(WindowFunction::SumOverTime, Extension::Smoothed, None);
    }
}
