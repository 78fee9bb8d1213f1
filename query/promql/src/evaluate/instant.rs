//! Instant selectors: from the samples of a series to its values at the times of a grid.

use super::context::{Context, Reference};
use crate::{
    Grid, QueryError, SampleColumns, Span,
    ast::VectorSelector,
    functions::{extended::interpolate, native_window},
    note::{Note, Notes},
    row::{ABSENT, Cell, Cells, cell},
    storage::is_stale,
};
use std::sync::Arc;
use trefoil_model::{Aggregate, Millis, ResetHint};

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
        let (first, last) = self.reference.ends(grid);
        let ahead = match self.wanted {
            InstantValue::Smoothed => self.look_back_ms,
            _ => 0,
        };
        let first = first.saturating_sub(self.look_back_ms).saturating_add(1);
        (first, last.saturating_add(ahead))
    }

    /// Whether aggregates of buckets of this length give the same as samples.
    pub(crate) fn is_exact_at(&self, grid: Grid, length: Millis) -> bool {
        let of_sample = matches!(self.wanted, InstantValue::Value | InstantValue::Timestamp);
        of_sample && self.reference.is_aligned(grid, length)
    }

    /// [`Instant::apply`] with aggregates for which it [is exact](Self::is_exact_at).
    pub(crate) fn apply_buckets(&self, buckets: &[Aggregate], grid: Grid, into: &mut Cells) {
        into.clear();
        for time in grid.times() {
            let time = self.reference.time(time);
            let behind = buckets.partition_point(|bucket| bucket.end <= time);
            // A marker hides what is before it, also in earlier buckets.
            let is_found = |bucket: &&Aggregate| {
                !bucket.ends_stale && bucket.last_time > time.saturating_sub(self.look_back_ms)
            };
            let last = behind.checked_sub(1).map(|at| &buckets[at]);
            let value = last.filter(is_found).map(|bucket| match self.wanted {
                InstantValue::Timestamp => bucket.last_time as f64 / 1000.0,
                _ => bucket.last,
            });
            into.values.push(value.unwrap_or(ABSENT));
        }
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
        if self.wanted == InstantValue::Value {
            return self.values(columns, grid, values);
        }
        for time in grid.times() {
            let time = self.reference.time(time);
            let found = self.find(columns, time, &mut behind);
            values.push(found.map_or(ABSENT, |at| self.value(columns, at, time)));
        }
    }

    /// The values of a series of floats, which is what is wanted nearly always.
    fn values(&self, columns: &SampleColumns, grid: Grid, into: &mut Vec<f64>) {
        let (timestamps, values) = (&columns.timestamps, &columns.values[..]);
        let mut behind = 0;
        into.extend(grid.times().map(|time| {
            let time = self.reference.time(time);
            while timestamps.get(behind).is_some_and(|t| *t <= time) {
                behind += 1;
            }
            match behind.checked_sub(1) {
                // A stale marker is the sign for nothing, too.
                Some(at) if timestamps[at] > time.saturating_sub(self.look_back_ms) => values[at],
                _ => ABSENT,
            }
        }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::STALE_MARKER_BITS;

    #[test]
    fn look_back_is_left_open_and_ends_at_stale_markers() {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        let mut columns = SampleColumns::default();
        for (time, value) in [(10, 1.0), (20, 2.0), (30, stale)] {
            columns.push(time, value);
        }
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
}
