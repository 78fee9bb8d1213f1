//! A part: the piece of a query that one evaluator works out on its own samples.
//!
//! A part names a sub-expression by the query's text and the bytes that it spans. The evaluator
//! parses the same text again: that is cheap, keeps positions for messages, and frees the wire from
//! the shape of the syntax tree. Everything below the node is per series, or one aggregation over
//! such an expression that can be merged. Scalars that need other data are bound by the coordinator.

use crate::{
    Annotations, EvalOptions, Grid,
    ast::Span,
    partial::GroupPartial,
    row::{Histograms, Row},
};
use serde::{Deserialize, Serialize};
use trefoil_model::{Labels, Millis};

/// What an evaluator is asked. Serialisable; the format is that of the peer envelope around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The whole query.
    pub query: String,
    /// The sub-expression that is wanted.
    pub node: Span,
    /// What of it is wanted.
    pub output: PartOutput,
    /// The times at which it is wanted.
    pub grid: Grid,
    /// The times of the whole query, for `@ start()`, `@ end()`, `range()` and `step()`.
    pub query_grid: Grid,
    /// Scalars below the node that the coordinator has worked out.
    pub bindings: Vec<Binding>,
    /// The engine's settings.
    pub options: EvalOptions,
    /// The limit of samples that one evaluator holds at once, for its [`crate::Budget`].
    pub samples_max: u64,
}

/// The form of a part's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PartOutput {
    /// One row for every series of the node.
    Rows,
    /// The node is an aggregation; its partial result per group.
    Groups,
    /// Which times have any sample at all (for `absent`): one group without labels. The node may be a
    /// range vector too.
    Presence,
    /// The node is a range selector; its samples as they are.
    Samples,
    /// The node is a call of `info`; a row for every info series with the times of its samples in seconds.
    Info,
}

/// A scalar's values at the times of the grid that applies to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The scalar expression.
    pub node: Span,
    /// One value per time.
    pub values: Vec<f64>,
}

/// An evaluator's answer to a [`Part`]; answers of disjoint series can be [merged](crate::merge).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartResult {
    /// The answer in the wanted form.
    pub body: PartBody,
    /// Remarks about it.
    pub annotations: Annotations,
}

/// The data of a [`PartResult`], each in ascending order of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PartBody {
    /// For [`PartOutput::Rows`]: ascending by the labels of the selected series.
    Rows(Vec<Row>),
    /// For [`PartOutput::Groups`] and [`PartOutput::Presence`].
    Groups(Vec<GroupPartial>),
    /// For [`PartOutput::Samples`].
    Samples(Vec<RawSeries>),
}

impl PartBody {
    /// How many rows, groups or series there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Groups(groups) => groups.len(),
            Self::Samples(series) => series.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The samples of a series in a range, without stale markers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawSeries {
    /// The series.
    #[serde(with = "crate::row::labels_as_bytes")]
    pub labels: Labels,
    /// Milliseconds, ascending.
    pub timestamps: Vec<Millis>,
    /// As many values.
    pub values: Vec<f64>,
    /// The native histograms among them.
    pub histograms: Histograms,
}
