//! Functions of ranges: from the samples of a series to the functions' values at the times of a grid.

use super::{
    context::{Context, Reference, Scalars},
    placements::{Placements, Wanted},
    row_op::matrix_argument,
};
use crate::{
    Budget, Grid, QueryError, SampleColumns, Span,
    ast::{Call, Expr, ExprKind, Extension, ValueType},
    function::WindowFunction,
    functions::{
        bucketed,
        extended::{self, ExtendedWindow},
        native_window::{self, MixedWindow},
        window::{self, Resets, Window, extrapolated},
    },
    note::{Note, Notes},
    row::{ABSENT, Cell, Cells, is_histogram},
};
use trefoil_model::{Aggregate, Millis};

/// Samples that windows show to a function before the budget is asked again: a few milliseconds.
const SAMPLES_UNCHECKED_MAX: usize = 1 << 20;

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
        let (first, last) = self.reference.ends(grid);
        let (before, ahead) = match self.extension {
            None => (0, 0),
            Some(Extension::Anchored) => (self.look_back_ms, 0),
            Some(Extension::Smoothed) => (self.look_back_ms, self.look_back_ms),
        };
        let start = first.saturating_sub(self.range_ms).saturating_sub(before);
        (start.saturating_add(1), last.saturating_add(ahead))
    }

    /// Puts the function's value at every time of `grid` into `into`. `columns` has no stale markers; `placements` are of the
    /// series before, if there was one.
    ///
    /// # Errors
    /// Those of [`Budget::check`]: windows of a sub-query can be so many and so long that one series takes minutes.
    pub(crate) fn apply(
        &self,
        columns: &SampleColumns,
        grid: Grid,
        into: &mut Cells,
        placements: &mut Placements,
        notes: &mut Notes,
        budget: &Budget,
    ) -> Result<(), QueryError> {
        into.clear();
        if columns.timestamps.is_empty() {
            into.values.resize(grid.steps(), ABSENT);
        } else if let Some(extension) = self.extension {
            for time in grid.times() {
                into.push(self.extended(columns, time, extension, notes));
            }
            budget.check()?;
        } else if columns.histograms.is_empty() && columns.start_timestamps.is_empty() {
            if !self.rates(columns, grid, placements, &mut into.values) {
                self.floats(columns, grid, budget, &mut into.values)?;
            }
        } else {
            self.each_window(columns, grid, budget, |window, first| {
                let cell = window.and_then(|window| self.mixed(columns, window, first, notes));
                into.push(cell.unwrap_or(Cell::Absent));
            })?;
        }
        Ok(())
    }

    /// Whether aggregates of buckets of this length give the same as samples.
    pub(crate) fn is_exact_at(&self, grid: Grid, length: Millis) -> bool {
        self.extension.is_none()
            && bucketed::is_exact(self.function)
            && self.range_ms % length == 0
            && self.reference.is_aligned(grid, length)
    }

    /// [`Windows::apply`] with aggregates for which it [is exact](Self::is_exact_at).
    ///
    /// # Errors
    /// As for [`Windows::apply`].
    pub(crate) fn apply_buckets(
        &self,
        buckets: &[Aggregate],
        grid: Grid,
        into: &mut Cells,
        budget: &Budget,
    ) -> Result<(), QueryError> {
        into.clear();
        let mut seen = 0;
        for time in grid.times() {
            let end = self.reference.time(time);
            let start = end.saturating_sub(self.range_ms);
            let from = buckets.partition_point(|bucket| bucket.end <= start);
            let to = buckets.partition_point(|bucket| bucket.end <= end);
            let value = bucketed::apply(self.function, &buckets[from..to], (start, end));
            into.values.push(value.unwrap_or(ABSENT));
            seen += to - from;
            if seen > SAMPLES_UNCHECKED_MAX {
                seen = 0;
                budget.check()?;
            }
        }
        Ok(())
    }

    /// Where the function's first argument stands.
    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// The rates or increases of a series of floats that never falls. `false`: it does, or is very long, or another function is
    /// wanted.
    fn rates(
        &self,
        columns: &SampleColumns,
        grid: Grid,
        placements: &mut Placements,
        values: &mut Vec<f64>,
    ) -> bool {
        let per_second = match self.function {
            WindowFunction::Rate => true,
            WindowFunction::Increase => false,
            _ => return false,
        };
        if !Placements::take(grid, columns.values.len()) || window::falls(&columns.values) {
            return false;
        }
        let wanted = Wanted {
            grid,
            reference: self.reference,
            range_ms: self.range_ms,
            per_second,
        };
        placements.rates(wanted, &columns.timestamps, &columns.values, values);
        true
    }

    /// The function's values over a series of floats. The most usual functions have loops of their own.
    fn floats(
        &self,
        columns: &SampleColumns,
        grid: Grid,
        budget: &Budget,
        values: &mut Vec<f64>,
    ) -> Result<(), QueryError> {
        let fill = (columns, grid, budget, values);
        match self.function {
            WindowFunction::Rate => self.fill(fill, |window| extrapolated(window, true, true)),
            WindowFunction::Increase => self.fill(fill, |window| extrapolated(window, true, false)),
            function => self.fill(fill, |window| window::apply(function, window)),
        }
    }

    #[inline]
    fn fill(
        &self,
        (columns, grid, budget, values): (&SampleColumns, Grid, &Budget, &mut Vec<f64>),
        apply: impl Fn(&Window<'_>) -> Option<f64>,
    ) -> Result<(), QueryError> {
        self.each_window(columns, grid, budget, |window, _| {
            values.push(window.and_then(&apply).unwrap_or(ABSENT));
        })
    }

    /// Calls `each` for every time of `grid` with its window, if it has samples, and the index of its first sample.
    #[inline]
    fn each_window(
        &self,
        columns: &SampleColumns,
        grid: Grid,
        budget: &Budget,
        mut each: impl FnMut(Option<&Window<'_>>, usize),
    ) -> Result<(), QueryError> {
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
        let (mut from, mut to, mut seen) = (0, 0, 0);
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
            seen += to - from;
            if seen > SAMPLES_UNCHECKED_MAX {
                seen = 0;
                budget.check()?;
            }
        }
        Ok(())
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
