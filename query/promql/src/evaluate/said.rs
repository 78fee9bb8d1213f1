//! What is said about stretches of a grid, so that an answer can be kept in pieces, each with its own remarks.
//!
//! Remarks come up per series, over all times of the grid. Where it is known at which times a series gives rise to one, it is said of
//! the stretches with these times. Where it is not, the answer cannot be taken apart.

use super::pipeline::{Pipeline, PipelineScratch};
use crate::{
    Annotations,
    row::{Cells, is_absent},
};

/// When more series than this say something new of each stretch, nothing is told apart any more: it would take more time and memory
/// than the answer is worth.
const MERGES_PER_STRETCH_MAX: usize = 64;

/// What was said about each stretch of a grid.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Where the stretches end, ascending; the first begins at the first time. None: nobody asks.
    ends: Vec<usize>,
    of_stretches: Vec<Annotations>,
    pub(crate) kinds: Kinds,
    /// Something was said that belongs to no stretch.
    pub(crate) is_blurred: bool,
    /// How often something was added to what was said.
    merges: usize,
}

/// Kinds of series on which it depends what is said about other times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// Floats of which it may be said that they are no counters.
    pub(crate) floats: bool,
    /// Histograms, of which it is not said, nor of the floats of their series.
    pub(crate) histograms: bool,
}

impl Kinds {
    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            floats: self.floats || other.floats,
            histograms: self.histograms || other.histograms,
        }
    }

    /// Whether a series may have both, so that what is said about it at one time depends on other times.
    pub(crate) fn are_mixed(self) -> bool {
        self.floats && self.histograms
    }
}

impl Said {
    /// About stretches that end there.
    pub(crate) fn about(ends: &[usize]) -> Self {
        Self {
            ends: ends.to_vec(),
            of_stretches: vec![Annotations::default(); ends.len()],
            ..Self::default()
        }
    }

    /// Notes what kind of series was worked on, from its samples or from aggregates, whether or not it has a result.
    pub(super) fn see(&mut self, pipeline: &Pipeline, scratch: &PipelineScratch, is_raw: bool) {
        if self.ends.is_empty() {
            return;
        }
        if pipeline.remarks_on_counters() {
            self.kinds.floats |= scratch.has_floats;
            self.kinds.histograms |= scratch.has_histograms;
        }
        // Whether a series is given as aggregates depends on all blocks that are read.
        let wants_buckets = pipeline.selector.resolution.is_some();
        self.is_blurred |= wants_buckets && is_raw;
    }

    /// Says of a series with this result what is said wherever it has one.
    pub(super) fn place(&mut self, remarks: &Annotations, cells: &Cells) {
        if self.is_blurred {
            return;
        }
        let mut start = 0;
        for (end, said) in self.ends.iter().zip(&mut self.of_stretches) {
            let stretch = &cells.values[start..*end];
            start = *end;
            if !said.has_all(remarks) && stretch.iter().any(|value| !is_absent(*value)) {
                said.merge(remarks.clone());
                self.merges += 1;
            }
        }
        if self.merges > MERGES_PER_STRETCH_MAX * self.ends.len() {
            self.is_blurred = true;
            self.of_stretches
                .iter_mut()
                .for_each(|said| *said = Annotations::default());
        }
    }

    /// Compares with all that was said.
    pub(super) fn finish(mut self, all: &Annotations) -> Self {
        if self.ends.is_empty() {
            return self;
        }
        let mut placed = Annotations::default();
        for said in &self.of_stretches {
            if !placed.has_all(said) {
                placed.merge(said.clone());
            }
        }
        self.is_blurred |= placed != *all;
        self
    }

    /// Adds what was said about other series at the same times.
    pub(crate) fn merge(&mut self, other: Self) {
        for (said, others) in self.of_stretches.iter_mut().zip(other.of_stretches) {
            said.merge(others);
        }
        self.kinds = self.kinds.union(other.kinds);
        self.is_blurred |= other.is_blurred;
    }

    /// What was said about each stretch.
    pub(crate) fn of_stretches(&self) -> &[Annotations] {
        &self.of_stretches
    }
}
