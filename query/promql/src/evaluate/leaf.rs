//! From samples to the values at the times of a grid: instant selectors and functions of ranges.

use super::{
    context::{Context, Reference, Scalars},
    row_op::matrix_argument,
};
use crate::{
    Grid, QueryError, SampleColumns,
    ast::{Call, Expr, ExprKind, Extension, ValueType, VectorSelector},
    function::WindowFunction,
    functions::{
        extended::{self, ExtendedWindow, interpolate},
        window::{self, Resets, Window},
    },
    row::ABSENT,
    storage::is_stale,
};
use trefoil_model::Millis;

/// The value of an instant selector: the newest sample that is not older than the look-back.
#[derive(Clone, Debug)]
pub(crate) struct Instant {
    pub(crate) reference: Reference,
    pub(crate) look_back_ms: Millis,
    /// Yield the sample's time in seconds instead of its value.
    pub(crate) timestamp: bool,
    /// Yield the value on the line to the next sample within the look-back.
    pub(crate) smoothed: bool,
}

impl Instant {
    /// The values of a selector, or with `timestamp` the times of its samples.
    ///
    /// # Errors
    /// For durations that are out of range.
    pub(crate) fn of(
        selector: &VectorSelector,
        context: &Context,
        timestamp: bool,
    ) -> Result<Self, QueryError> {
        Ok(Self {
            reference: context.reference(&selector.time)?,
            look_back_ms: context.options.look_back_ms,
            timestamp,
            smoothed: selector.extension.is_some(),
        })
    }

    /// First and last millisecond that matter, both inclusive.
    pub(crate) fn bounds(&self, grid: Grid) -> (Millis, Millis) {
        let (first, last) = ends(&self.reference, grid);
        let ahead = if self.smoothed { self.look_back_ms } else { 0 };
        let first = first.saturating_sub(self.look_back_ms).saturating_add(1);
        (first, last.saturating_add(ahead))
    }

    pub(crate) fn apply(&self, columns: &SampleColumns, grid: Grid, into: &mut Vec<f64>) {
        into.clear();
        let mut behind = 0;
        if self.reference.at.is_some() {
            let value = self.at(columns, self.reference.time(grid.start), &mut behind);
            into.resize(grid.steps(), value);
            return;
        }
        for time in grid.times() {
            into.push(self.at(columns, self.reference.time(time), &mut behind));
        }
    }

    /// The value at `time`; `behind` is the index of the first sample behind the previous time.
    #[inline]
    fn at(&self, columns: &SampleColumns, time: Millis, behind: &mut usize) -> f64 {
        let timestamps = &columns.timestamps;
        while timestamps.get(*behind).is_some_and(|t| *t <= time) {
            *behind += 1;
        }
        let Some(at) = behind.checked_sub(1) else {
            return ABSENT;
        };
        if timestamps[at] <= time.saturating_sub(self.look_back_ms) || is_stale(columns.values[at])
        {
            return ABSENT;
        }
        if self.timestamp {
            return timestamps[at] as f64 / 1000.0;
        }
        if self.smoothed && timestamps[at] < time {
            return self.interpolated(columns, at, time);
        }
        columns.values[at]
    }

    fn interpolated(&self, columns: &SampleColumns, at: usize, time: Millis) -> f64 {
        let sample = |at: usize| (columns.timestamps[at], columns.values[at]);
        let limit = time.saturating_add(self.look_back_ms);
        let next = columns.timestamps.get(at + 1).filter(|t| **t <= limit);
        if next.is_none() || is_stale(columns.values[at + 1]) {
            return columns.values[at];
        }
        interpolate(sample(at), sample(at + 1), time)
    }
}

fn ends(reference: &Reference, grid: Grid) -> (Millis, Millis) {
    let last = grid.at(grid.steps() - 1);
    (reference.time(grid.start), reference.time(last))
}

/// A function over the ranges that end at the times of a grid.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    pub(crate) function: WindowFunction,
    pub(crate) reference: Reference,
    pub(crate) range_ms: Millis,
    pub(crate) parameters: [Scalars; 2],
    pub(crate) extension: Option<Extension>,
    look_back_ms: Millis,
}

impl Windows {
    /// The function of `call` over its range vector.
    ///
    /// # Errors
    /// For durations and parameters that are out of range, and scalars that are not bound.
    pub(crate) fn of_call(
        call: &Call,
        function: WindowFunction,
        grid: Grid,
        context: &Context,
    ) -> Result<Self, QueryError> {
        let matrix = matrix_argument(call)
            .ok_or_else(|| QueryError::Internal("a range vector is missing".into()))?;
        let mut scalars = call
            .arguments
            .iter()
            .filter(|a| a.value_type() == ValueType::Scalar)
            .map(|argument| context.scalars(argument, grid));
        let mut parameter = || scalars.next().unwrap_or(Ok(Scalars::Constant(0.0)));
        let parameters = [parameter()?, parameter()?];
        if function == WindowFunction::DoubleExponentialSmoothing {
            check_smoothing(&parameters, grid)?;
        }
        let mut windows = Self::over(matrix, function, context)?;
        windows.parameters = parameters;
        Ok(windows)
    }

    /// A function without parameters over a range vector.
    ///
    /// # Errors
    /// For durations that are out of range.
    pub(crate) fn over(
        matrix: &Expr,
        function: WindowFunction,
        context: &Context,
    ) -> Result<Self, QueryError> {
        let mut extension = None;
        let (range, time) = match &matrix.kind {
            ExprKind::Range(range) => {
                extension = range.selector.extension;
                (&range.range, &range.selector.time)
            }
            ExprKind::SubQuery(sub_query) => (&sub_query.range, &sub_query.time),
            _ => return Err(QueryError::Internal("not a range vector".into())),
        };
        Ok(Self {
            function,
            reference: context.reference(time)?,
            range_ms: context.positive(range)?,
            parameters: [Scalars::Constant(0.0), Scalars::Constant(0.0)],
            extension,
            look_back_ms: context.options.look_back_ms,
        })
    }

    pub(crate) fn drops_name(&self) -> bool {
        !matches!(
            self.function,
            WindowFunction::FirstOverTime | WindowFunction::LastOverTime
        )
    }

    /// First and last millisecond that matter, both inclusive.
    pub(crate) fn bounds(&self, grid: Grid) -> (Millis, Millis) {
        let (first, last) = ends(&self.reference, grid);
        let (before, ahead) = match self.extension {
            None => (0, 0),
            Some(Extension::Anchored) => (self.look_back_ms, 0),
            Some(Extension::Smoothed) => (self.look_back_ms, self.look_back_ms),
        };
        let start = first.saturating_sub(self.range_ms).saturating_sub(before);
        (start.saturating_add(1), last.saturating_add(ahead))
    }

    /// Puts the function's value at every time of `grid` into `into`. `columns` has no stale markers.
    pub(crate) fn apply(&self, columns: &SampleColumns, grid: Grid, into: &mut Vec<f64>) {
        into.clear();
        let timestamps = &columns.timestamps;
        if timestamps.is_empty() {
            into.resize(grid.steps(), ABSENT);
            return;
        }
        if let Some(extension) = self.extension {
            let times = grid.times();
            into.extend(times.map(|time| self.extended(columns, time, extension)));
            return;
        }
        let counts_resets = matches!(
            self.function,
            WindowFunction::Rate | WindowFunction::Increase
        );
        let resets = if counts_resets {
            Resets::of(&columns.values)
        } else {
            Resets::default()
        };
        let (mut from, mut to) = (0, 0);
        for (index, time) in grid.times().enumerate() {
            let end = self.reference.time(time);
            let start = end.saturating_sub(self.range_ms);
            while timestamps.get(to).is_some_and(|t| *t <= end) {
                to += 1;
            }
            while from < to && timestamps[from] <= start {
                from += 1;
            }
            if from == to {
                into.push(ABSENT);
                continue;
            }
            let window = Window {
                timestamps: &timestamps[from..to],
                values: &columns.values[from..to],
                start,
                end,
                time,
                parameters: [self.parameters[0].at(index), self.parameters[1].at(index)],
                before_resets: resets.between(from, to),
            };
            into.push(window::apply(self.function, &window).unwrap_or(ABSENT));
        }
    }
}

impl Windows {
    /// The function's value at one time over a range that looks beyond its ends.
    fn extended(&self, columns: &SampleColumns, time: Millis, extension: Extension) -> f64 {
        let timestamps = &columns.timestamps;
        let end = self.reference.time(time);
        let start = end.saturating_sub(self.range_ms);
        let mut from = timestamps.partition_point(|t| *t <= start);
        let mut to = timestamps.partition_point(|t| *t <= end);
        let oldest = start.saturating_sub(self.look_back_ms);
        if from > 0 && timestamps[from - 1] > oldest {
            from -= 1;
        }
        let newest = end.saturating_add(self.look_back_ms);
        let ends_inside = to > 0 && timestamps[to - 1] == end;
        if extension == Extension::Smoothed
            && !ends_inside
            && timestamps.get(to).is_some_and(|t| *t <= newest)
        {
            to += 1;
        }
        if from >= to {
            return ABSENT;
        }
        let window = ExtendedWindow {
            timestamps: &timestamps[from..to],
            values: &columns.values[from..to],
            start,
            end,
            extension,
        };
        extended::apply(self.function, &window).unwrap_or(ABSENT)
    }
}

fn check_smoothing(parameters: &[Scalars; 2], grid: Grid) -> Result<(), QueryError> {
    for index in 0..grid.steps() {
        for (scalars, name, letter) in [
            (&parameters[0], "smoothing", 's'),
            (&parameters[1], "trend", 't'),
        ] {
            let factor = scalars.at(index);
            if factor <= 0.0 || factor >= 1.0 {
                return Err(QueryError::execution(format!(
                    "invalid {name} factor. Expected: 0 < {letter}f < 1, got: {factor:.6}"
                )));
            }
        }
    }
    Ok(())
}

/// Removes stale markers, which ranges do not contain.
pub(crate) fn drop_stale(columns: &mut SampleColumns) {
    if !columns.values.iter().any(|value| is_stale(*value)) {
        return;
    }
    let mut kept = 0;
    for at in 0..columns.values.len() {
        if !is_stale(columns.values[at]) {
            columns.values[kept] = columns.values[at];
            columns.timestamps[kept] = columns.timestamps[at];
            kept += 1;
        }
    }
    columns.values.truncate(kept);
    columns.timestamps.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::STALE_NAN_BITS;

    fn columns(samples: &[(Millis, f64)]) -> SampleColumns {
        let mut columns = SampleColumns::default();
        samples.iter().for_each(|(t, v)| columns.push(*t, *v));
        columns
    }

    #[test]
    fn look_back_is_left_open_and_ends_at_stale_markers() {
        let stale = f64::from_bits(STALE_NAN_BITS);
        let columns = columns(&[(10, 1.0), (20, 2.0), (30, stale)]);
        let instant = Instant {
            reference: Reference {
                at: None,
                offset: 0,
            },
            look_back_ms: 10,
            timestamp: false,
            smoothed: false,
        };
        let mut values = Vec::new();
        let grid = Grid {
            start: 5,
            end: 35,
            step: 5,
        };
        assert_eq!(instant.bounds(grid), (-4, 35));
        instant.apply(&columns, grid, &mut values);
        let shown: Vec<String> = values.iter().map(|v| v.to_string()).collect();
        assert_eq!(shown, ["NaN", "1", "1", "2", "2", "NaN", "NaN"]);
        assert!(is_stale(values[0]) && is_stale(values[5]));
    }

    #[test]
    fn stale_markers_are_dropped_from_ranges() {
        let stale = f64::from_bits(STALE_NAN_BITS);
        let mut samples = columns(&[(1, 1.0), (2, stale), (3, 3.0)]);
        drop_stale(&mut samples);
        assert_eq!(samples, columns(&[(1, 1.0), (3, 3.0)]));
    }
}
