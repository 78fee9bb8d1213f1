//! Partial aggregates: what an evaluator has of each group, in a form that can be merged.
//!
//! Sums are kept with their rounding errors (Neumaier), about twice the precision of a float, so that
//! the merged result does not show how the series were spread over evaluators.

use crate::{
    Annotations, Span,
    note::{Note, Notes},
    pace::{LOOKS_OF_HISTOGRAM, LOOKS_OF_ROW},
    partial_histograms::GroupHistograms,
    row::{ABSENT, Cells, is_absent, is_histogram},
};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use trefoil_model::{Labels, add_compensated};

/// One group of an aggregation over the times of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPartial {
    /// The group's labels.
    #[serde(with = "crate::row::labels_as_bytes")]
    pub labels: Labels,
    /// Some member's name is to be removed at the end of the query.
    pub drop_name: bool,
    /// Its state.
    pub column: GroupColumn,
    /// The state of its native histograms, for `sum` and `avg`.
    pub histograms: GroupHistograms,
}

impl GroupPartial {
    /// A group without members yet.
    #[must_use]
    pub fn new(labels: Labels, column: GroupColumn) -> Self {
        Self {
            labels,
            drop_name: false,
            column,
            histograms: GroupHistograms::default(),
        }
    }

    /// Adds a series of a metric; `span` is where it comes from in the query. Histograms are added or left out, as the
    /// aggregation wants it.
    pub(crate) fn add(&mut self, cells: &Cells, metric: &str, span: Span, notes: &mut Notes) {
        if cells.histograms.is_empty() {
            return self.column.add(&cells.values);
        }
        match &self.column {
            GroupColumn::Count(_) | GroupColumn::Group(_) => return self.column.add(&cells.values),
            GroupColumn::Sum(..) => self.histograms.add(cells, metric, false),
            GroupColumn::Avg(_) => self.histograms.add(cells, metric, true),
            GroupColumn::Min(_) => notes.add(Note::IgnoredInAggregation("min"), span),
            GroupColumn::Max(_) => notes.add(Note::IgnoredInAggregation("max"), span),
        }
        let float = |value: &f64| if is_histogram(*value) { ABSENT } else { *value };
        let floats: Vec<f64> = cells.values.iter().map(float).collect();
        self.column.add(&floats);
    }

    /// What working on all times takes, in [looks](crate::pace::Pace::look).
    pub(crate) fn looks(&self) -> usize {
        let of_time = match self.histograms.is_empty() {
            true => 1,
            false => LOOKS_OF_HISTOGRAM,
        };
        self.column.len() * of_time + LOOKS_OF_ROW
    }

    /// Adds the members of the same group elsewhere. `false`: it is of another aggregation or grid.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        self.drop_name |= other.drop_name;
        self.column.merge(&other.column) && self.histograms.merge(&other.histograms)
    }

    /// Labels, whether the name is to go, and values.
    pub(crate) fn finish(self, span: Span, annotations: &mut Annotations) -> (Labels, bool, Cells) {
        let mean = matches!(self.column, GroupColumn::Avg(_));
        let floats = self.column.finish();
        let cells = match self.histograms.is_empty() {
            true => Cells {
                values: floats,
                ..Cells::default()
            },
            false => self.histograms.finish(floats, mean, span, annotations),
        };
        (self.labels, self.drop_name, cells)
    }
}

/// The state of a group at each time of the grid; all columns are as long as the grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GroupColumn {
    /// `sum`: the sum ([`ABSENT`] without member) and its compensation.
    Sum(Vec<f64>, Vec<f64>),
    /// `avg`
    Avg(Vec<MeanState>),
    /// `min`
    Min(Vec<f64>),
    /// `max`
    Max(Vec<f64>),
    /// `count` and `count_values`
    Count(Vec<f64>),
    /// `group`
    Group(Vec<f64>),
}

/// A mean in the making: a compensated sum, or, once that would overflow, a running mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanState {
    sum: f64,
    compensation: f64,
    count: f64,
    running: bool,
}

impl MeanState {
    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.sum = value;
            return;
        }
        if !self.running {
            let (mut sum, mut compensation) = (self.sum, self.compensation);
            add_compensated(&mut sum, &mut compensation, value);
            if !sum.is_infinite() {
                (self.sum, self.compensation) = (sum, compensation);
                return;
            }
            // The sum overflows (or a value is infinite): go on with a mean that cannot.
            self.become_running(self.count - 1.0);
        }
        self.add_to_running(value, 1.0);
    }

    /// Adds the values of another state.
    pub(crate) fn merge(&mut self, other: &MeanState) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = *other;
            return;
        }
        if !self.running && !other.running {
            let (mut sum, mut compensation) = (self.sum, self.compensation + other.compensation);
            add_compensated(&mut sum, &mut compensation, other.sum);
            if !sum.is_infinite() {
                (self.sum, self.compensation) = (sum, compensation);
                self.count += other.count;
                return;
            }
        }
        let mut other = *other;
        if !other.running {
            other.become_running(other.count);
        }
        if !self.running {
            self.become_running(self.count);
        }
        self.count += other.count;
        self.add_to_running(other.sum + other.compensation, other.count);
    }

    /// The mean; [`ABSENT`] without values.
    pub(crate) fn finish(&self) -> f64 {
        if self.count == 0.0 {
            return ABSENT;
        }
        if self.running {
            return self.sum + self.compensation;
        }
        self.sum / self.count + self.compensation / self.count
    }

    fn become_running(&mut self, count: f64) {
        self.running = true;
        self.sum /= count;
        self.compensation /= count;
    }

    /// `self.count` already includes the `weight` values whose mean is `value`.
    fn add_to_running(&mut self, value: f64, weight: f64) {
        if self.sum.is_infinite() && (value.is_infinite() || value.is_nan()) {
            if value.is_nan() || value.signum() != self.sum.signum() {
                self.sum = f64::NAN;
            }
            return;
        }
        if self.sum.is_infinite() {
            return;
        }
        let share = weight / self.count;
        let (mut sum, mut compensation) = (self.sum, self.compensation);
        let leaves = -share * sum;
        add_compensated(&mut sum, &mut compensation, leaves);
        compensation -= share * self.compensation;
        add_compensated(&mut sum, &mut compensation, share * value);
        (self.sum, self.compensation) = (sum, compensation);
    }
}

/// Keeps the smaller of two values; a number beats NaN; `current` may be [`ABSENT`].
#[inline]
pub(crate) fn keep_min(current: &mut f64, value: f64) {
    if is_absent(*current) || value < *current || current.is_nan() {
        *current = value;
    }
}

/// Keeps the larger of two values; a number beats NaN; `current` may be [`ABSENT`].
#[inline]
pub(crate) fn keep_max(current: &mut f64, value: f64) {
    if is_absent(*current) || value > *current || current.is_nan() {
        *current = value;
    }
}

#[inline]
fn keep_count(current: &mut f64, count: f64) {
    *current = if is_absent(*current) {
        count
    } else {
        *current + count
    };
}

#[inline]
fn keep_sum(sum: &mut f64, compensation: &mut f64, value: f64) {
    if is_absent(*sum) {
        *sum = value;
    } else {
        add_compensated(sum, compensation, value);
    }
}

impl GroupColumn {
    /// Adds a series' values; `values` is as long as the column, [`ABSENT`] where it has no sample.
    pub(crate) fn add(&mut self, values: &[f64]) {
        let present = |(_, value): &(usize, &f64)| !is_absent(**value);
        let samples = values.iter().enumerate().filter(present);
        match self {
            Self::Sum(sums, compensations) => {
                for (at, value) in samples {
                    keep_sum(&mut sums[at], &mut compensations[at], *value);
                }
            }
            Self::Avg(means) => samples.for_each(|(at, value)| means[at].add(*value)),
            Self::Min(column) => samples.for_each(|(at, value)| keep_min(&mut column[at], *value)),
            Self::Max(column) => samples.for_each(|(at, value)| keep_max(&mut column[at], *value)),
            Self::Count(column) => samples.for_each(|(at, _)| keep_count(&mut column[at], 1.0)),
            Self::Group(column) => samples.for_each(|(at, _)| column[at] = 1.0),
        }
    }

    /// Adds the members of a group of the same aggregation and grid.
    ///
    /// Returns `false`, and changes nothing, if `other` belongs to another one.
    pub(crate) fn merge(&mut self, other: &GroupColumn) -> bool {
        if self.len() != other.len() {
            return false;
        }
        match (self, other) {
            (Self::Sum(sums, compensations), Self::Sum(other, other_compensations)) => {
                for at in (0..other.len()).filter(|at| !is_absent(other[*at])) {
                    keep_sum(&mut sums[at], &mut compensations[at], other[at]);
                    compensations[at] += other_compensations[at];
                }
            }
            (Self::Avg(means), Self::Avg(other)) => {
                let pairs = means.iter_mut().zip(other);
                pairs.for_each(|(mean, other)| mean.merge(other));
            }
            (Self::Min(column), Self::Min(other)) => merge_with(column, other, keep_min),
            (Self::Max(column), Self::Max(other)) => merge_with(column, other, keep_max),
            (Self::Count(column), Self::Count(other)) => merge_with(column, other, keep_count),
            (Self::Group(column), Self::Group(other)) => {
                merge_with(column, other, |current, value| *current = value);
            }
            _ => return false,
        }
        true
    }

    /// The aggregated values.
    #[must_use]
    pub(crate) fn finish(self) -> Vec<f64> {
        match self {
            Self::Sum(sums, compensations) => {
                let pairs = sums.into_iter().zip(compensations);
                pairs
                    .map(|(sum, lost)| if is_absent(sum) { sum } else { sum + lost })
                    .collect()
            }
            Self::Avg(means) => means.iter().map(MeanState::finish).collect(),
            Self::Min(column) | Self::Max(column) | Self::Count(column) | Self::Group(column) => {
                column
            }
        }
    }

    /// The state of a group without members at so many times.
    pub(crate) fn without_members(&self, steps: usize) -> Self {
        let absent = || vec![ABSENT; steps];
        match self {
            Self::Sum(..) => Self::Sum(absent(), vec![0.0; steps]),
            Self::Avg(_) => Self::Avg(vec![MeanState::default(); steps]),
            Self::Min(_) => Self::Min(absent()),
            Self::Max(_) => Self::Max(absent()),
            Self::Count(_) => Self::Count(absent()),
            Self::Group(_) => Self::Group(absent()),
        }
    }

    /// Whether there is no member at these times.
    pub(crate) fn has_no_member(&self, steps: Range<usize>) -> bool {
        match self {
            Self::Sum(column, _)
            | Self::Min(column)
            | Self::Max(column)
            | Self::Count(column)
            | Self::Group(column) => column[steps].iter().all(|value| is_absent(*value)),
            Self::Avg(means) => means[steps].iter().all(|mean| mean.count == 0.0),
        }
    }

    /// The column at some of its times.
    pub(crate) fn slice(&self, steps: Range<usize>) -> Self {
        match self {
            Self::Sum(sums, compensations) => {
                Self::Sum(sums[steps.clone()].to_vec(), compensations[steps].to_vec())
            }
            Self::Avg(means) => Self::Avg(means[steps].to_vec()),
            Self::Min(column) => Self::Min(column[steps].to_vec()),
            Self::Max(column) => Self::Max(column[steps].to_vec()),
            Self::Count(column) => Self::Count(column[steps].to_vec()),
            Self::Group(column) => Self::Group(column[steps].to_vec()),
        }
    }

    /// Copies what another column of the same aggregation has at `steps` to the times from `at` on. `false`: it is of another
    /// one.
    pub(crate) fn copy(&mut self, at: usize, other: &Self, steps: Range<usize>) -> bool {
        let to = at..at + steps.len();
        match (self, other) {
            (Self::Sum(sums, compensations), Self::Sum(other, other_compensations)) => {
                sums[to.clone()].copy_from_slice(&other[steps.clone()]);
                compensations[to].copy_from_slice(&other_compensations[steps]);
            }
            (Self::Avg(means), Self::Avg(other)) => {
                means[to].copy_from_slice(&other[steps]);
            }
            (Self::Min(column), Self::Min(other))
            | (Self::Max(column), Self::Max(other))
            | (Self::Count(column), Self::Count(other))
            | (Self::Group(column), Self::Group(other)) => {
                column[to].copy_from_slice(&other[steps]);
            }
            _ => return false,
        }
        true
    }

    /// How many times of the grid the column covers.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Sum(column, _)
            | Self::Min(column)
            | Self::Max(column)
            | Self::Count(column)
            | Self::Group(column) => column.len(),
            Self::Avg(means) => means.len(),
        }
    }

    /// Whether the column covers no time; that of a valid part never does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn merge_with(column: &mut [f64], other: &[f64], keep: impl Fn(&mut f64, f64)) {
    for (current, value) in column.iter_mut().zip(other) {
        if !is_absent(*value) {
            keep(current, *value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> MeanState {
        let mut state = MeanState::default();
        values.iter().for_each(|value| state.add(*value));
        state
    }

    #[test]
    fn means_do_not_overflow() {
        assert_eq!(mean(&[f64::MAX, f64::MAX]).finish(), f64::MAX);
        let mut left = mean(&[f64::MAX]);
        left.merge(&mean(&[f64::MAX, f64::MAX]));
        assert!((left.finish() / f64::MAX - 1.0).abs() < 1e-12);
        assert!(mean(&[f64::INFINITY, f64::NEG_INFINITY]).finish().is_nan());
        assert_eq!(mean(&[1.0, f64::INFINITY, 3.0]).finish(), f64::INFINITY);
        assert!(is_absent(mean(&[]).finish()));
    }

    #[test]
    fn sums_do_not_depend_on_the_split() {
        let values: Vec<f64> = (0..1000)
            .map(|i| 0.1 * f64::from(i) * 1e10f64.powi(i % 3))
            .collect();
        let column = || GroupColumn::Sum(vec![ABSENT], vec![0.0]);
        let mut whole = column();
        values.iter().for_each(|v| whole.add(&[*v]));
        for split in [1, 17, 500, 999] {
            let (mut left, mut right) = (column(), column());
            values[..split].iter().for_each(|v| left.add(&[*v]));
            values[split..].iter().for_each(|v| right.add(&[*v]));
            assert!(left.merge(&right));
            assert_eq!(left.finish(), whole.clone().finish(), "split at {split}");
        }
        assert!(!column().merge(&GroupColumn::Min(vec![ABSENT])));
    }
}
