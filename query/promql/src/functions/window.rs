//! Functions of a range of samples.
//!
//! Formulas and edge cases follow Prometheus' documentation ("functions", "extrapolated rate"). Sums
//! are compensated. A window is two slices of equal length; it is never empty.

use super::quantile::quantile;
use crate::{
    function::WindowFunction,
    partial::{MeanState, keep_max, keep_min},
};
use trefoil_model::{Millis, add_compensated};

/// The samples of a range and where the range lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// Milliseconds, ascending, all in `(start, end]`.
    pub(crate) timestamps: &'a [Millis],
    /// As many values.
    pub(crate) values: &'a [f64],
    /// The left end, exclusive.
    pub(crate) start: Millis,
    /// The right end, inclusive.
    pub(crate) end: Millis,
    /// The time of evaluation, which `@` and `offset` take away from the range.
    pub(crate) time: Millis,
    /// The scalar arguments.
    pub(crate) parameters: [f64; 2],
    /// For counters: the values in front of resets inside the window, in order.
    pub(crate) before_resets: &'a [f64],
    /// When the samples' counters began, 0 where that is not known; as many as samples, or none.
    pub(crate) start_timestamps: &'a [Millis],
}

impl Window<'_> {
    /// When the first sample's counter began, if that is inside the range: there it was zero.
    pub(crate) fn first_start(&self) -> Option<Millis> {
        let start = self.start_timestamps.first().copied();
        start.filter(|start| *start != 0 && *start > self.start && *start < self.timestamps[0])
    }
}

/// Whether the counter of the sample `at`, which is not the first, began behind the sample in front of it.
///
/// One that began at that very sample is a delta if that sample's own beginning was known and lay before it; else
/// it is a counter of which the beginning is not known.
#[inline]
pub(crate) fn starts_anew(window: &Window<'_>, at: usize) -> bool {
    begins_anew(window.timestamps, window.start_timestamps, at)
}

fn begins_anew(timestamps: &[Millis], starts: &[Millis], at: usize) -> bool {
    if starts.is_empty() {
        return false;
    }
    let (start, before, start_before) = (starts[at], timestamps[at - 1], starts[at - 1]);
    let is_delta = start == before && start_before != 0 && start_before < before;
    start != 0 && start < timestamps[at] && (start > before || is_delta)
}

/// Whether the counter of the sample `at`, which is not the first, began before the sample in front of it, which had begun at
/// another time.
pub(crate) fn start_overlaps(window: &Window<'_>, at: usize) -> bool {
    let starts = window.start_timestamps;
    !starts.is_empty()
        && starts[at] != 0
        && starts[at] < window.timestamps[at - 1]
        && starts[at] != starts[at - 1]
}

/// The resets of a counter, found once for all windows over it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resets {
    /// Indexes of the first samples after a reset, ascending.
    after: Vec<usize>,
    /// The values in front of them.
    before: Vec<f64>,
}

impl Resets {
    /// The resets that show in the values or in the start timestamps, which may be empty.
    pub(crate) fn of(timestamps: &[Millis], values: &[f64], starts: &[Millis]) -> Self {
        let mut resets = Self::default();
        if starts.is_empty() {
            for (at, pair) in values.windows(2).enumerate() {
                if pair[1] < pair[0] {
                    resets.push(at + 1, pair[0]);
                }
            }
            return resets;
        }
        for (at, pair) in values.windows(2).enumerate() {
            if pair[1] < pair[0] || begins_anew(timestamps, starts, at + 1) {
                resets.push(at + 1, pair[0]);
            }
        }
        resets
    }

    #[cold]
    fn push(&mut self, after: usize, before: f64) {
        self.after.push(after);
        self.before.push(before);
    }

    /// The values in front of the resets between the samples `from..to`.
    #[inline]
    pub(crate) fn between(&self, from: usize, to: usize) -> &[f64] {
        if self.after.is_empty() {
            return &[];
        }
        let first = self.after.partition_point(|at| *at <= from);
        let behind = self.after.partition_point(|at| *at < to);
        &self.before[first..behind.max(first)]
    }
}

/// Whether any value is below the one in front of it. No early end: so it is worked out for several at once.
pub(crate) fn falls(values: &[f64]) -> bool {
    let pairs = values.iter().zip(values.get(1..).unwrap_or_default());
    pairs.fold(false, |falls, (before, value)| falls | (value < before))
}

/// The function's value, or `None` when the window has too few samples.
#[inline]
pub(crate) fn apply(function: WindowFunction, window: &Window<'_>) -> Option<f64> {
    use WindowFunction as F;
    let values = window.values;
    let last = values.len() - 1;
    Some(match function {
        F::Rate => return extrapolated(window, true, true),
        F::Increase => return extrapolated(window, true, false),
        F::Delta => return extrapolated(window, false, false),
        F::Irate => return of_last_two(window, true),
        F::Idelta => return of_last_two(window, false),
        F::AvgOverTime => {
            let mut mean = MeanState::default();
            values.iter().for_each(|value| mean.add(*value));
            mean.finish()
        }
        F::SumOverTime => sum(values),
        F::CountOverTime => values.len() as f64,
        F::MinOverTime => fold(values, keep_min),
        F::MaxOverTime => fold(values, keep_max),
        F::PresentOverTime => 1.0,
        F::FirstOverTime => values[0],
        F::LastOverTime => values[last],
        F::StddevOverTime => variance(values).sqrt(),
        F::StdvarOverTime => variance(values),
        F::QuantileOverTime => quantile(window.parameters[0], &mut values.to_vec()),
        F::MadOverTime => {
            let mut scratch = values.to_vec();
            let median = quantile(0.5, &mut scratch);
            scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
            quantile(0.5, &mut scratch)
        }
        F::Changes => count_pairs(values, |a, b| a != b && !(a.is_nan() && b.is_nan())),
        F::Resets if !window.start_timestamps.is_empty() => window.before_resets.len() as f64,
        F::Resets => count_pairs(values, |a, b| b < a),
        F::Deriv if last > 0 => regression(window, window.timestamps[0]).0,
        F::PredictLinear if last > 0 => {
            let (slope, intercept) = regression(window, window.time);
            slope * window.parameters[0] + intercept
        }
        F::DoubleExponentialSmoothing if last > 0 => smooth(values, window.parameters),
        F::Deriv | F::PredictLinear | F::DoubleExponentialSmoothing => return None,
        F::TsOfFirstOverTime => seconds(window, 0),
        F::TsOfLastOverTime => seconds(window, last),
        F::TsOfMaxOverTime => seconds(window, extreme(values, |new, best| new >= best)),
        F::TsOfMinOverTime => seconds(window, extreme(values, |new, best| new <= best)),
    })
}

fn seconds(window: &Window<'_>, at: usize) -> f64 {
    window.timestamps[at] as f64 / 1000.0
}

/// Where the last of the best values is.
fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> usize {
    let mut best = 0;
    for at in 1..values.len() {
        if better(values[at], values[best]) || values[best].is_nan() {
            best = at;
        }
    }
    best
}

fn fold(values: &[f64], keep: impl Fn(&mut f64, f64)) -> f64 {
    let mut kept = values[0];
    values[1..].iter().for_each(|value| keep(&mut kept, *value));
    kept
}

fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut compensation) = (0.0, 0.0);
    for value in values {
        add_compensated(&mut sum, &mut compensation, *value);
    }
    sum + compensation
}

/// Population variance (Welford), compensated.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut mean_lost) = (0.0, 0.0, 0.0);
    let (mut squares, mut squares_lost) = (0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean + mean_lost);
        add_compensated(&mut mean, &mut mean_lost, delta / count);
        let square = delta * (value - (mean + mean_lost));
        add_compensated(&mut squares, &mut squares_lost, square);
    }
    (squares + squares_lost) / count
}

fn count_pairs(values: &[f64], counts: impl Fn(f64, f64) -> bool) -> f64 {
    let pairs = values.windows(2);
    pairs.filter(|pair| counts(pair[0], pair[1])).count() as f64
}

/// The increase over the samples, extrapolated to the ends of the range where samples reach near them.
#[inline]
pub(crate) fn extrapolated(window: &Window<'_>, counter: bool, per_second: bool) -> Option<f64> {
    let values = window.values;
    let last = values.len() - 1;
    let start = if counter { window.first_start() } else { None };
    if last == 0 && start.is_none() {
        return None;
    }
    let mut increase = match start {
        Some(_) => values[last],
        None => values[last] - values[0],
    };
    if counter {
        window.before_resets.iter().for_each(|v| increase += v);
    }
    let of_counter = counter.then_some((values[0], increase));
    Some(increase * extrapolation(window, of_counter, start, per_second))
}

/// What an increase over the samples is multiplied by. `of_counter`: its first value and its increase, which limit how
/// far back it can have grown. `start`: when it was zero, instead.
pub(crate) fn extrapolation(
    window: &Window<'_>,
    of_counter: Option<(f64, f64)>,
    start: Option<Millis>,
    per_second: bool,
) -> f64 {
    let last = window.timestamps.len() - 1;
    let extent = Extent {
        first: window.timestamps[0],
        last: window.timestamps[last],
        gaps: last,
        start: window.start,
        end: window.end,
    };
    extrapolation_of(&extent, of_counter, start, per_second)
}

/// Where the samples of a range lie.
pub(crate) struct Extent {
    /// Time of the first sample.
    pub(crate) first: Millis,
    /// Time of the last sample.
    pub(crate) last: Millis,
    /// How many gaps are between the samples.
    pub(crate) gaps: usize,
    /// The range's left end, exclusive.
    pub(crate) start: Millis,
    /// The range's right end, inclusive.
    pub(crate) end: Millis,
}

/// [`extrapolation`] by what it asks of the window.
#[inline]
pub(crate) fn extrapolation_of(
    extent: &Extent,
    of_counter: Option<(f64, f64)>,
    start: Option<Millis>,
    per_second: bool,
) -> f64 {
    let mut reach = Reach::of(extent);
    if let Some((first, increase)) = of_counter
        && reach.is_limited_by(first, increase)
    {
        reach = reach.limited_by(first, increase);
    }
    if let Some(start) = start {
        reach.to_start = 0.0;
        reach.sampled = distance(start, extent.last);
    }
    reach.factor(per_second)
}

/// How far the samples of a range, and the extrapolation from them, reach. Milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    /// From the first to the last sample.
    sampled: f64,
    /// To the left of the first sample.
    to_start: f64,
    /// To the right of the last sample.
    to_end: f64,
    /// The length of the range.
    range: f64,
}

impl Reach {
    #[inline]
    pub(crate) fn of(extent: &Extent) -> Self {
        let last = extent.gaps;
        let sampled = distance(extent.first, extent.last);
        // Samples further from an end than a usual gap mean that the series starts or ends there.
        let usual_gap = |gap: f64| match is_far(gap, sampled, last) {
            true if last == 0 => 0.0,
            true => sampled / last as f64 / 2.0,
            false => gap,
        };
        Self {
            sampled,
            to_start: usual_gap(distance(extent.start, extent.first)),
            to_end: usual_gap(distance(extent.last, extent.end)),
            range: distance(extent.start, extent.end),
        }
    }

    /// Whether a counter with this first value and this increase may have been at zero within the reach: it cannot have been
    /// below. Most were at zero long ago, and need no division.
    #[inline]
    pub(crate) fn is_limited_by(&self, first: f64, increase: f64) -> bool {
        increase > 0.0
            && first >= 0.0
            && self.sampled * first <= self.to_start * increase * ABOUT_EQUAL
    }

    /// The reach back to where that counter was at zero, if that is nearer.
    pub(crate) fn limited_by(self, first: f64, increase: f64) -> Self {
        let to_zero = self.sampled * (first / increase);
        Self {
            to_start: self.to_start.min(to_zero),
            ..self
        }
    }

    /// What the increase over the samples is multiplied by.
    #[inline]
    pub(crate) fn factor(&self, per_second: bool) -> f64 {
        let factor = (self.sampled + self.to_start + self.to_end) / self.sampled;
        match per_second {
            true => factor / (self.range / 1000.0),
            false => factor,
        }
    }
}

fn distance(from: Millis, to: Millis) -> f64 {
    (to - from) as f64
}

/// More than what rounding does to a product.
const ABOUT_EQUAL: f64 = 1.000_001;

/// Whether a gap at an end of the range, in milliseconds, is longer than 1.1 usual gaps. Equal ones are decided as
/// Prometheus' rounding does, in seconds, which takes divisions; most gaps are far from that.
#[inline]
fn is_far(gap: f64, sampled: f64, gaps: usize) -> bool {
    if gaps == 0 {
        return gap >= 0.0;
    }
    if gap * (gaps as f64) * ABOUT_EQUAL < sampled * 1.1 {
        return false;
    }
    gap / 1000.0 >= sampled / 1000.0 / gaps as f64 * 1.1
}

fn of_last_two(window: &Window<'_>, rate: bool) -> Option<f64> {
    let last = window.values.len() - 1;
    if last == 0 {
        return None;
    }
    let (before, value) = (window.values[last - 1], window.values[last]);
    let reset = rate && (value < before || starts_anew(window, last));
    let change = if reset { value } else { value - before };
    if !rate {
        return Some(change);
    }
    let milliseconds = window.timestamps[last] - window.timestamps[last - 1];
    Some(change / (milliseconds as f64 / 1000.0))
}

/// Slope per second and value at `origin` of the least-squares line.
fn regression(window: &Window<'_>, origin: Millis) -> (f64, f64) {
    let values = window.values;
    if values.iter().all(|value| *value == values[0]) {
        return if values[0].is_infinite() {
            (f64::NAN, f64::NAN)
        } else {
            (0.0, values[0])
        };
    }
    // Sums of x, y, x*y, x*x and what rounding took from each.
    let mut sums = [(0.0, 0.0); 4];
    for (timestamp, y) in window.timestamps.iter().zip(values) {
        let x = (timestamp - origin) as f64 / 1000.0;
        for ((sum, lost), term) in sums.iter_mut().zip([x, *y, x * y, x * x]) {
            add_compensated(sum, lost, term);
        }
    }
    let [x, y, xy, xx] = sums.map(|(sum, lost)| sum + lost);
    let count = values.len() as f64;
    let slope = (xy - x * y / count) / (xx - x * x / count);
    (slope, y / count - slope * x / count)
}

/// Holt's double exponential smoothing; the parameters are the smoothing and the trend factor.
fn smooth(values: &[f64], [smoothing, trend_factor]: [f64; 2]) -> f64 {
    let mut before = 0.0;
    let mut level = values[0];
    let mut trend = values[1] - values[0];
    for (index, value) in values[1..].iter().enumerate() {
        if index > 0 {
            trend = trend_factor * (level - before) + (1.0 - trend_factor) * trend;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + trend);
        (before, level) = (level, next);
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(function: WindowFunction, samples: &[(Millis, f64)], expected: Option<f64>) {
        let timestamps: Vec<_> = samples.iter().map(|s| s.0).collect();
        let values: Vec<_> = samples.iter().map(|s| s.1).collect();
        let resets = Resets::of(&timestamps, &values, &[]);
        let window = Window {
            start_timestamps: &[],
            before_resets: resets.between(0, values.len()),
            timestamps: &timestamps,
            values: &values,
            start: 0,
            end: 60_000,
            time: 60_000,
            parameters: [10.0, 0.0],
        };
        assert_eq!(apply(function, &window), expected, "{function:?}");
    }

    #[test]
    fn rates_are_extrapolated() {
        let steady = [
            (15_000, 10.0),
            (30_000, 20.0),
            (45_000, 30.0),
            (60_000, 40.0),
        ];
        check(WindowFunction::Increase, &steady, Some(40.0));
        check(WindowFunction::Rate, &steady, Some(40.0 / 60.0));
        // A reset counts what was there before it; zero limits the extrapolation to the left.
        let reset = [
            (15_000, 10.0),
            (30_000, 5.0),
            (45_000, 10.0),
            (60_000, 15.0),
        ];
        check(WindowFunction::Increase, &reset, Some(15.0 * (60.0 / 45.0)));
        check(WindowFunction::Delta, &reset, Some(5.0 * (60.0 / 45.0)));
        check(WindowFunction::Rate, &steady[..1], None);
        check(WindowFunction::Irate, &reset[..2], Some(5.0 / 15.0));
    }

    #[test]
    fn lines_are_fitted() {
        let line = [(0, 0.0), (10_000, 10.0), (20_000, 20.0)];
        check(WindowFunction::Deriv, &line, Some(1.0));
        check(WindowFunction::PredictLinear, &line, Some(70.0));
        check(WindowFunction::Deriv, &[(0, 5.0), (1, 5.0)], Some(0.0));
    }

    #[test]
    fn nan_loses_against_numbers() {
        let samples = [(1_000, f64::NAN), (2_000, 3.0), (3_000, 2.0)];
        check(WindowFunction::MaxOverTime, &samples, Some(3.0));
        check(WindowFunction::MinOverTime, &samples, Some(2.0));
        check(WindowFunction::TsOfMaxOverTime, &samples, Some(2.0));
        check(WindowFunction::Changes, &samples, Some(2.0));
    }
}
