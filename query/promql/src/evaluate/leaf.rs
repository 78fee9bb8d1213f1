//! From samples to the values at the times of a grid: instant selectors and functions of ranges.

use super::{
    context::{Context, Reference, Scalars},
    row_op::matrix_argument,
};
use crate::{
    Grid, QueryError, SampleColumns, Span,
    ast::{Call, Expr, ExprKind, Extension, ValueType, VectorSelector},
    function::WindowFunction,
    functions::{
        extended::{self, ExtendedWindow, interpolate},
        native_window::{self, MixedWindow},
        window::{self, Resets, Window},
    },
    note::{Note, Notes},
    row::{ABSENT, Cell, Cells, cell, is_histogram},
    storage::is_stale,
};
use std::sync::Arc;
use trefoil_model::{Histogram, Millis, ResetHint};

/// What of an instant selector's sample is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstantValue {
    Value,
    /// The sample's time in seconds.
    Timestamp,
    /// The start timestamp in seconds.
    StartTimestamp,
    /// The value on the line to the next sample within the look-back.
    Smoothed,
}

/// The value of an instant selector: the newest sample that is not older than the look-back.
#[derive(Clone, Debug)]
pub(crate) struct Instant {
    pub(crate) reference: Reference,
    pub(crate) look_back_ms: Millis,
    pub(crate) wanted: InstantValue,
    /// Where the selector stands.
    pub(crate) span: Span,
}

impl Instant {
    /// The values of a selector that stands at `span`, or what else of its samples is wanted.
    ///
    /// # Errors
    /// For durations that are out of range.
    pub(crate) fn of(
        selector: &VectorSelector,
        span: Span,
        context: &Context,
        wanted: InstantValue,
    ) -> Result<Self, QueryError> {
        let smoothed = selector.extension.is_some() && wanted == InstantValue::Value;
        Ok(Self {
            reference: context.reference(&selector.time)?,
            look_back_ms: context.options.look_back_ms,
            wanted: if smoothed {
                InstantValue::Smoothed
            } else {
                wanted
            },
            span,
        })
    }

    /// First and last millisecond that matter, both inclusive.
    pub(crate) fn bounds(&self, grid: Grid) -> (Millis, Millis) {
        let (first, last) = ends(&self.reference, grid);
        let ahead = match self.wanted {
            InstantValue::Smoothed => self.look_back_ms,
            _ => 0,
        };
        let first = first.saturating_sub(self.look_back_ms).saturating_add(1);
        (first, last.saturating_add(ahead))
    }

    pub(crate) fn apply(
        &self,
        columns: &SampleColumns,
        grid: Grid,
        into: &mut Cells,
        notes: &mut Notes,
    ) {
        into.clear();
        let mut behind = 0;
        if !columns.histograms.is_empty() {
            for time in grid.times() {
                let time = self.reference.time(time);
                let found = self.find(columns, time, &mut behind);
                let cell = found.map_or(Cell::Absent, |at| self.cell(columns, at, time, notes));
                into.push(cell);
            }
            return;
        }
        let values = &mut into.values;
        if self.reference.at.is_some() {
            let time = self.reference.time(grid.start);
            let found = self.find(columns, time, &mut behind);
            let value = found.map_or(ABSENT, |at| self.value(columns, at, time));
            values.resize(grid.steps(), value);
            return;
        }
        for time in grid.times() {
            let time = self.reference.time(time);
            let found = self.find(columns, time, &mut behind);
            values.push(found.map_or(ABSENT, |at| self.value(columns, at, time)));
        }
    }

    /// Which sample stands for `time`; `behind` is the index of the first sample behind the previous time.
    #[inline]
    fn find(&self, columns: &SampleColumns, time: Millis, behind: &mut usize) -> Option<usize> {
        let timestamps = &columns.timestamps;
        while timestamps.get(*behind).is_some_and(|t| *t <= time) {
            *behind += 1;
        }
        let at = behind.checked_sub(1)?;
        let too_old = timestamps[at] <= time.saturating_sub(self.look_back_ms);
        (!too_old && !is_stale(columns.values[at])).then_some(at)
    }

    /// The value of the float sample that stands for `time`.
    #[inline]
    fn value(&self, columns: &SampleColumns, at: usize, time: Millis) -> f64 {
        match self.wanted {
            InstantValue::Value => columns.values[at],
            InstantValue::Timestamp => columns.timestamps[at] as f64 / 1000.0,
            InstantValue::StartTimestamp => {
                let start = columns.start_timestamps.get(at).copied();
                start.unwrap_or(0) as f64 / 1000.0
            }
            InstantValue::Smoothed => match self.next(columns, at, time) {
                Some(next) => {
                    let sample = |at: usize| (columns.timestamps[at], columns.values[at]);
                    interpolate(sample(at), sample(next), time)
                }
                None => columns.values[at],
            },
        }
    }

    /// The sample behind `at` to which a smoothed value leads, unless `at` is at `time` itself.
    fn next(&self, columns: &SampleColumns, at: usize, time: Millis) -> Option<usize> {
        let limit = time.saturating_add(self.look_back_ms);
        let next = columns.timestamps.get(at + 1).filter(|t| **t <= limit)?;
        let is_between = columns.timestamps[at] < time && time < *next;
        (is_between && !is_stale(columns.values[at + 1])).then_some(at + 1)
    }

    /// What a series with histograms has at `time`.
    fn cell(&self, columns: &SampleColumns, at: usize, time: Millis, notes: &mut Notes) -> Cell {
        let sample = |at| cell(&columns.values, &columns.histograms, at);
        let next = match self.wanted {
            InstantValue::Value => return sample(at),
            InstantValue::Smoothed => self.next(columns, at, time),
            _ => return Cell::Float(self.value(columns, at, time)),
        };
        let Some(next) = next else {
            return sample(at);
        };
        let times = (columns.timestamps[at], columns.timestamps[next]);
        match (sample(at), sample(next)) {
            (Cell::Float(_), Cell::Float(_)) => Cell::Float(self.value(columns, at, time)),
            (Cell::Histogram(first), Cell::Histogram(second)) => {
                let counter = first.reset_hint != ResetHint::Gauge;
                let (first, second) = ((times.0, &*first), (times.1, &*second));
                match native_window::interpolate(first, second, time, counter) {
                    Ok(between) => Cell::Histogram(Arc::new(between)),
                    Err(_) => {
                        notes.add(Note::MixedKinds, self.span);
                        Cell::Absent
                    }
                }
            }
            _ => {
                notes.add(Note::MixedTypes, self.span);
                Cell::Absent
            }
        }
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
    use_start_timestamps: bool,
    /// Where the function's first argument stands.
    span: Span,
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
        windows.span = call
            .arguments
            .first()
            .map_or(matrix.span, |first| first.span);
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
            use_start_timestamps: context.options.use_start_timestamps,
            span: matrix.span,
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
    pub(crate) fn apply(
        &self,
        columns: &SampleColumns,
        grid: Grid,
        into: &mut Cells,
        notes: &mut Notes,
    ) {
        into.clear();
        if columns.timestamps.is_empty() {
            into.values.resize(grid.steps(), ABSENT);
        } else if let Some(extension) = self.extension {
            for time in grid.times() {
                into.push(self.extended(columns, time, extension, notes));
            }
        } else if columns.histograms.is_empty() && columns.start_timestamps.is_empty() {
            let values = &mut into.values;
            self.each_window(columns, grid, |window, _| {
                let value = window.and_then(|window| window::apply(self.function, window));
                values.push(value.unwrap_or(ABSENT));
            });
        } else {
            self.each_window(columns, grid, |window, first| {
                let cell = window.and_then(|window| self.mixed(columns, window, first, notes));
                into.push(cell.unwrap_or(Cell::Absent));
            });
        }
    }

    /// Calls `each` for every time of `grid` with its window, if it has samples, and the index of its first sample.
    #[inline]
    fn each_window(
        &self,
        columns: &SampleColumns,
        grid: Grid,
        mut each: impl FnMut(Option<&Window<'_>>, usize),
    ) {
        let timestamps = &columns.timestamps;
        let starts: &[Millis] = match self.use_start_timestamps {
            true => &columns.start_timestamps,
            false => &[],
        };
        let counts_resets = matches!(
            self.function,
            WindowFunction::Rate | WindowFunction::Increase
        ) || !starts.is_empty();
        let resets = if counts_resets {
            Resets::of(timestamps, &columns.values, starts)
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
                each(None, from);
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
                start_timestamps: starts.get(from..to).unwrap_or(&[]),
            };
            each(Some(&window), from);
        }
    }

    /// The function's value over a window of a series that has histograms or start timestamps.
    fn mixed(
        &self,
        columns: &SampleColumns,
        window: &Window<'_>,
        first: usize,
        notes: &mut Notes,
    ) -> Option<Cell> {
        if window.values.iter().any(|value| is_histogram(*value)) {
            let mixed = MixedWindow {
                window: *window,
                histograms: &columns.histograms,
                first,
                span: self.span,
            };
            return native_window::apply(self.function, &mixed, notes);
        }
        let counter = matches!(
            self.function,
            WindowFunction::Rate | WindowFunction::Increase
        );
        let overlaps = |at: usize| window::start_overlaps(window, at);
        if counter && (1..window.values.len()).any(overlaps) {
            notes.add(Note::StartOverlaps, self.span);
        }
        window::apply(self.function, window).map(Cell::Float)
    }

    /// The function's value at one time over a range that looks beyond its ends.
    fn extended(
        &self,
        columns: &SampleColumns,
        time: Millis,
        extension: Extension,
        notes: &mut Notes,
    ) -> Cell {
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
            return Cell::Absent;
        }
        let window = ExtendedWindow {
            timestamps: &timestamps[from..to],
            values: &columns.values[from..to],
            start,
            end,
            extension,
        };
        let value = match window.values.iter().any(|value| is_histogram(*value)) {
            true => {
                let histograms = (&columns.histograms, from);
                native_window::apply_extended(self.function, &window, histograms, self.span, notes)
            }
            false => extended::apply(self.function, &window).map(Cell::Float),
        };
        value.unwrap_or(Cell::Absent)
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
    if !columns.histograms.is_empty() || !columns.start_timestamps.is_empty() {
        return drop_stale_of_all(columns);
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

/// The same for series with histograms or start timestamps.
fn drop_stale_of_all(columns: &mut SampleColumns) {
    let mut kept = SampleColumns::default();
    for at in 0..columns.values.len() {
        let time = columns.timestamps[at];
        match cell(&columns.values, &columns.histograms, at) {
            Cell::Absent => continue,
            Cell::Float(value) => kept.push(time, value),
            Cell::Histogram(histogram) => kept.push_histogram(time, histogram),
        }
        let start = columns.start_timestamps.get(at).copied();
        kept.set_last_start(start.unwrap_or(0));
    }
    *columns = kept;
}

/// Compares histograms of which nothing is known with the ones in front of them, and says in their hints what is found.
///
/// Prometheus does so where a query wants only counts and sums, so that its remarks about resets that collide depend on it.
pub(crate) fn detect_resets(columns: &mut SampleColumns) {
    let mut before: Option<Arc<Histogram>> = None;
    for at in 0..columns.values.len() {
        let Cell::Histogram(histogram) = cell(&columns.values, &columns.histograms, at) else {
            continue;
        };
        if let (ResetHint::Unknown, Some(before)) = (histogram.reset_hint, &before) {
            let mut hinted = Histogram::clone(&histogram);
            hinted.reset_hint = match histogram.is_below(before) {
                true => ResetHint::Reset,
                false => ResetHint::NotReset,
            };
            columns.histograms.put(at, Arc::new(hinted));
        }
        before = Some(histogram);
    }
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
            wanted: InstantValue::Value,
            span: Span::default(),
        };
        let mut cells = Cells::default();
        let grid = Grid {
            start: 5,
            end: 35,
            step: 5,
        };
        assert_eq!(instant.bounds(grid), (-4, 35));
        instant.apply(&columns, grid, &mut cells, &mut Notes::default());
        let values = cells.values;
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
