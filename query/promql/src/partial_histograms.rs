//! The native histograms of a partial aggregate: sums and means in a form that can be merged.

use crate::{
    Annotations, Span,
    functions::native_window::MEAN_SCALE,
    note::{AGGREGATION, Note},
    row::{ABSENT, Cell, Cells, is_absent},
};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use trefoil_model::{
    Histogram, ResetHint,
    histogram::{Combined, HistogramSum},
};

/// Exponential and custom buckets met: there is no sum.
const MIXED_KINDS: u8 = 1;
/// Custom bounds differed.
const RECONCILED: u8 = 2;
/// Some histogram was reset.
const RESET: u8 = 4;
/// Some histogram was not reset.
const NOT_RESET: u8 = 8;

/// The histograms of a group: nothing, or a state for each time of the grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupHistograms {
    states: Vec<State>,
    /// The metric's name of some member, for messages.
    metric: String,
}

/// The histograms of a group at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    count: f64,
    flags: u8,
    sum: Option<HistogramSum>,
}

impl State {
    fn note(&mut self, combined: Option<Combined>) {
        match combined {
            Some(combined) if combined.bounds_reconciled => self.flags |= RECONCILED,
            Some(_) => {}
            None => {
                self.flags |= MIXED_KINDS;
                self.sum = None;
            }
        }
    }
}

impl GroupHistograms {
    /// Whether the group has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The memory that the states take, about.
    pub(crate) fn bytes(&self) -> usize {
        let sums = self.states.iter().filter_map(|state| state.sum.as_ref());
        size_of_val(self.states.as_slice()) + sums.map(HistogramSum::bytes).sum::<usize>()
    }

    /// The states at some of the times; none when there is no histogram then.
    pub(crate) fn slice(&self, steps: Range<usize>) -> Self {
        let states = self.states.get(steps).unwrap_or_default();
        match states.iter().all(|state| state.count == 0.0) {
            true => Self::default(),
            false => Self {
                states: states.to_vec(),
                metric: self.metric.clone(),
            },
        }
    }

    /// Copies what another part of the group has at `steps` to the times from `at` on, of `length` in all.
    pub(crate) fn copy(&mut self, at: usize, other: &Self, steps: Range<usize>, length: usize) {
        let Some(states) = other.states.get(steps) else {
            return;
        };
        if self.states.is_empty() {
            self.states.resize(length, State::default());
            self.metric.clone_from(&other.metric);
        }
        self.states[at..at + states.len()].clone_from_slice(states);
    }

    /// Adds the histograms of a series; for a mean they are scaled, so that their sum does not overflow.
    pub(crate) fn add(&mut self, cells: &Cells, metric: &str, mean: bool) {
        self.states.resize(cells.values.len(), State::default());
        if self.metric.is_empty() {
            self.metric = metric.to_owned();
        }
        for (at, state) in self.states.iter_mut().enumerate() {
            let Cell::Histogram(histogram) = cells.at(at) else {
                continue;
            };
            state.count += 1.0;
            state.flags |= match histogram.reset_hint {
                ResetHint::Reset => RESET,
                ResetHint::NotReset => NOT_RESET,
                ResetHint::Unknown | ResetHint::Gauge => 0,
            };
            let mut scaled = Histogram::clone(&histogram);
            if mean {
                scaled.multiply(1.0 / MEAN_SCALE);
            }
            match &mut state.sum {
                Some(sum) => {
                    let combined = sum.add(&scaled).ok();
                    state.note(combined);
                }
                None if state.flags & MIXED_KINDS == 0 => {
                    state.sum = Some(HistogramSum::new(scaled));
                }
                None => {}
            }
        }
    }

    /// Adds the histograms of another part of the group. `false`: they are of another grid.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        if other.is_empty() {
            return true;
        }
        if self.is_empty() {
            *self = other.clone();
            return true;
        }
        if self.states.len() != other.states.len() {
            return false;
        }
        if self.metric > other.metric {
            self.metric.clone_from(&other.metric);
        }
        for (state, other) in self.states.iter_mut().zip(&other.states) {
            state.count += other.count;
            state.flags |= other.flags;
            if state.flags & MIXED_KINDS != 0 {
                state.sum = None;
                continue;
            }
            match (&mut state.sum, &other.sum) {
                (Some(sum), Some(other)) => {
                    let combined = sum.merge(other).ok();
                    state.note(combined);
                }
                (None, Some(other)) => state.sum = Some(other.clone()),
                (_, None) => {}
            }
        }
        true
    }

    /// The group's values from its floats and its histograms, and what is to be said about them.
    pub(crate) fn finish(
        self,
        floats: Vec<f64>,
        mean: bool,
        span: Span,
        annotations: &mut Annotations,
    ) -> Cells {
        let mut cells = Cells {
            values: floats,
            ..Cells::default()
        };
        if cells.values.len() != self.states.len() {
            return cells;
        }
        for (at, state) in self.states.into_iter().enumerate() {
            if state.count == 0.0 {
                continue;
            }
            let mut tell = |note: Note| note.tell(span, &self.metric, annotations);
            let has = |flag| state.flags & flag != 0;
            if has(MIXED_KINDS) {
                tell(Note::MixedKinds);
            }
            if has(RECONCILED) {
                tell(Note::BoundsReconciled(AGGREGATION));
            }
            if has(RESET) && has(NOT_RESET) {
                tell(Note::ResetsCollide(AGGREGATION));
            }
            if !is_absent(cells.values[at]) {
                tell(Note::MixedTypesInAggregation);
                cells.values[at] = ABSENT;
                continue;
            }
            let Some(sum) = state.sum else {
                continue;
            };
            let mut sum = sum.finish();
            if mean {
                sum.divide(state.count);
                sum.multiply(MEAN_SCALE);
            }
            cells.put(at, Cell::Histogram(Arc::new(sum)));
        }
        cells
    }
}
