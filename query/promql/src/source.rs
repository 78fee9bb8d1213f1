//! What the coordinator's side of the engine asks of the cluster.

use crate::{Matcher, Part, PartResult, QueryError};
use async_trait::async_trait;
use trefoil_model::{Labels, Millis};

/// Which series a question about labels is confined to.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesFilter {
    /// Alternatives; a series fits one when it fits all its matchers. Empty: every series.
    pub alternatives: Vec<Vec<Matcher>>,
    /// First millisecond of interest, inclusive.
    pub start: Millis,
    /// Last millisecond of interest, inclusive.
    pub end: Millis,
    /// Most answers wanted; 0: all.
    pub limit: usize,
}

/// A list with the warnings that belong to it (limit reached, shards missing).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing<T> {
    /// Ascending, without duplicates.
    pub items: Vec<T>,
    /// Texts for the API's `warnings`.
    pub warnings: Vec<String>,
}

/// The data of one tenant, wherever it is. A source serves one query under one pinned view.
#[async_trait]
pub trait Source: Send + Sync {
    /// Has every shard's evaluator work out `part`, and [merges](crate::merge) their answers.
    ///
    /// # Errors
    /// What the evaluators say; [`QueryError::Unavailable`] when a shard has none.
    async fn evaluate(&self, part: Part) -> Result<PartResult, QueryError>;

    /// The label sets of the series that fit.
    ///
    /// # Errors
    /// As for [`Source::evaluate`].
    async fn series(&self, filter: SeriesFilter) -> Result<Listing<Labels>, QueryError>;

    /// The names of their labels.
    ///
    /// # Errors
    /// As for [`Source::evaluate`].
    async fn label_names(&self, filter: SeriesFilter) -> Result<Listing<String>, QueryError>;

    /// The values of their label `name`.
    ///
    /// # Errors
    /// As for [`Source::evaluate`].
    async fn label_values(
        &self,
        name: &str,
        filter: SeriesFilter,
    ) -> Result<Listing<String>, QueryError>;

    /// Does work that keeps its thread for more than half of a millisecond, once. Whoever has other things to do on the thread lets them go on elsewhere.
    fn work_long(&self, work: &mut dyn FnMut()) {
        work();
    }
}
