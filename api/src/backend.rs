//! The seam through which the outside protocols reach the node.

use crate::{
    ApiError, LimitValues, TenantLimits, TenantName, admin,
    remote_write::{Exemplar, MetricKind, Refusals, WriteRequest},
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};
use trefoil_model::{Labels, Millis, TimeRange};
use trefoil_query_promql::{
    EvalOptions, Listing, Matcher, QueryError, QueryResult, RawSeries, SeriesFilter,
};

/// What the node does for the protocols. Every method may be called many times at once; a future is
/// dropped when its client goes away, which must stop its work.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The cluster's present time, for requests that name none.
    fn now(&self) -> Millis;

    /// The times of samples that are stored at present; [`Backend::write`] refuses all others.
    fn accepted_times(&self, tenant: &TenantName) -> RangeInclusive<Millis>;

    /// Stores the series of a request and returns when a majority of owners has them on disk.
    ///
    /// The request was checked for its form; limits of the tenant and the age of samples are checked
    /// here, and series refused for them are reported in the outcome while all others are stored.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] without a majority before `deadline` (never [`ApiError::Internal`]);
    /// part of the request may have been stored, and sending it again is harmless.
    /// [`ApiError::TooManyRequests`] over a rate limit, with nothing stored.
    async fn write(
        &self,
        tenant: &TenantName,
        request: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError>;

    /// Adds up the series of a request, whose samples are deltas: each counts from its start to its time. Returns when a
    /// majority of owners has the totals on disk. Deltas that cannot be added are reported as refused.
    ///
    /// # Errors
    /// As [`Backend::write`]; sending the same again is harmless, because an interval counts once.
    async fn accumulate(
        &self,
        tenant: &TenantName,
        deltas: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError>;

    /// Evaluates an expression at one time.
    ///
    /// # Errors
    /// As the engine says.
    async fn query_instant(
        &self,
        tenant: &TenantName,
        query: InstantQuery,
    ) -> Result<QueryResult, QueryError>;

    /// Evaluates an expression at many times.
    ///
    /// # Errors
    /// As the engine says.
    async fn query_range(
        &self,
        tenant: &TenantName,
        query: RangeQuery,
    ) -> Result<QueryResult, QueryError>;

    /// The samples of the series that fit, as they were stored, stale markers included. Nothing is read before the
    /// stream is polled; it ends behind its first error.
    ///
    /// # Errors
    /// As the engine says.
    async fn select(
        &self,
        tenant: &TenantName,
        query: SelectQuery,
    ) -> Result<SeriesPages, QueryError>;

    /// The label sets of the series that fit, ascending.
    ///
    /// # Errors
    /// As the engine says.
    async fn series(
        &self,
        tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<Labels>, QueryError>;

    /// The label names of the series that fit, ascending.
    ///
    /// # Errors
    /// As the engine says.
    async fn label_names(
        &self,
        tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<String>, QueryError>;

    /// The values of the label `name` of the series that fit, ascending.
    ///
    /// # Errors
    /// As the engine says.
    async fn label_values(
        &self,
        tenant: &TenantName,
        name: &str,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<String>, QueryError>;

    /// What metric families are declared as; ascending by metric, several entries for one metric
    /// where its targets disagree.
    ///
    /// # Errors
    /// As the engine says.
    async fn metadata(
        &self,
        tenant: &TenantName,
        query: MetadataQuery,
        deadline: Instant,
    ) -> Result<Vec<MetricMetadata>, QueryError>;

    /// The exemplars of series that fit: series ascending, each with its exemplars in order of time.
    ///
    /// # Errors
    /// As the engine says.
    async fn exemplars(
        &self,
        tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<SeriesExemplars>, QueryError>;

    /// How many series the labels and values of the tenant's series have, each series counted once in the cluster.
    ///
    /// # Errors
    /// As the engine says.
    async fn count_series(
        &self,
        tenant: &TenantName,
        query: CountQuery,
    ) -> Result<SeriesCounts, QueryError>;

    /// The tenant's limits that are in effect now. Called for every request.
    fn limits(&self, tenant: &TenantName) -> Arc<TenantLimits>;

    /// Takes a write request out of the tenant's rate of requests, whatever becomes of it.
    ///
    /// # Errors
    /// [`ApiError::TooManyRequests`] over the rate.
    fn admit_request(&self, tenant: &TenantName, limits: &TenantLimits) -> Result<(), ApiError>;

    /// What was set for a tenant, or for all of them (`None`), and what is in effect.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the node cannot know it now.
    async fn limits_set(&self, tenant: Option<&TenantName>) -> Result<admin::Limits, ApiError>;

    /// Replaces what was set for a tenant, or for all of them.
    ///
    /// # Errors
    /// [`ApiError::BadData`] for what is no limit, [`ApiError::Unavailable`] when it cannot be recorded now,
    /// [`ApiError::PreconditionFailed`] when something else than `expected` is set: nothing changed.
    async fn set_limits(
        &self,
        tenant: Option<&TenantName>,
        values: LimitValues,
        expected: Option<LimitValues>,
    ) -> Result<admin::Accepted, ApiError>;

    /// The settings in effect, as YAML.
    fn config_text(&self) -> String;

    /// What the node runs with.
    fn node_info(&self) -> NodeInfo;

    /// Deletes what a tenant's series have in a range of times: everything that was acknowledged before. What is written
    /// later stays, through whichever node. Returns when all live nodes have heard of it.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when it is not allowed here, cannot be recorded now, or was recorded but a live node has
    /// not heard of it: some of the selectors may have been deleted by, and deleting again is harmless.
    /// [`ApiError::Conflict`] when too many deletions are pending.
    async fn delete_series(
        &self,
        tenant: &TenantName,
        deletion: SeriesDeletion,
    ) -> Result<(), ApiError>;

    /// Rewrites, on all live nodes, the blocks that still have what was deleted. Returns when that is done.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when it is not allowed here or a live node cannot do it now. It happens by itself later.
    async fn clean_tombstones(&self) -> Result<(), ApiError>;

    /// Has the nodes put what they have into a snapshot in their data directories, which together has everything that was
    /// acknowledged before; with `skip_head`, only what they had in blocks already. Goes on when the client goes away.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when it is not allowed here, or nodes that are needed could not make their part; what was
    /// made is removed again where it can be.
    async fn snapshot(&self, skip_head: bool) -> Result<Snapshot, ApiError>;

    /// What program this is.
    fn build_info(&self) -> BuildInfo;

    /// Whether the node's replicas serve; the reason when they do not.
    fn readiness(&self) -> Result<(), String>;

    /// This node's metrics in the text format of Prometheus (0.0.4).
    fn metrics_text(&self) -> String;

    /// The state of the cluster as this node knows it.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the node cannot know it now.
    async fn cluster(&self) -> Result<admin::Cluster, ApiError>;

    /// Digests of the windows of all replicas. Expensive.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the node cannot know them now.
    async fn digests(&self, request: admin::DigestsRequest) -> Result<admin::Digests, ApiError>;

    /// Changes of owners that are under way.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the node cannot know them now.
    async fn movements(&self) -> Result<admin::Movements, ApiError>;

    /// Changes how long the cluster keeps metrics, in hours; 0 for ever.
    ///
    /// # Errors
    /// [`ApiError::BadData`] for too many hours, [`ApiError::Unavailable`] when it cannot be recorded now.
    async fn set_retention(
        &self,
        wanted: admin::RetentionRequest,
    ) -> Result<admin::Accepted, ApiError>;

    /// How long metrics are kept, by everything that was acknowledged before.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the node cannot know it now.
    async fn retention(&self) -> Result<admin::Retention, ApiError>;

    /// What a key of the metadata plane holds, read linearizably.
    ///
    /// # Errors
    /// [`ApiError::BadData`] for a key that cannot be, [`ApiError::Unavailable`] when no leader answers.
    async fn value(&self, key: &str) -> Result<admin::KeyValue, ApiError>;

    /// Puts or deletes a value, if its condition holds.
    ///
    /// # Errors
    /// [`ApiError::PreconditionFailed`] when it does not hold: nothing changed. [`ApiError::Unavailable`] when no leader
    /// answered: it may have happened, once. [`ApiError::BadData`] and [`ApiError::Conflict`] for what cannot be kept.
    async fn put_value(&self, put: admin::PutValue) -> Result<admin::WrittenValue, ApiError>;

    /// Makes ready to stop: waits, at most so long, until the other owners of this node's shards can go on without it
    /// and no node is before it, and takes it out of readiness then.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] when that did not come within the time: nothing has changed.
    async fn prepare_stop(&self, wait: Duration) -> Result<admin::Accepted, ApiError>;

    /// Begins to move all replicas off a node.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] for an unknown node, [`ApiError::Conflict`] when it cannot be done now.
    async fn drain(&self, node: &str) -> Result<admin::Accepted, ApiError>;

    /// Lets a node that is being drained take replicas again.
    ///
    /// # Errors
    /// As for [`Backend::drain`].
    async fn undrain(&self, node: &str) -> Result<admin::Accepted, ApiError>;

    /// Takes a node that is empty or gone for good out of the cluster.
    ///
    /// # Errors
    /// As for [`Backend::drain`].
    async fn remove(&self, node: &str) -> Result<admin::Accepted, ApiError>;
}

/// Which samples are to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesDeletion {
    /// Series selectors that were parsed and are right; what any of them selects goes.
    pub selectors: Vec<String>,
    /// Samples inside go; `end` is exclusive.
    pub range: TimeRange,
}

/// A snapshot that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The name of its folder in the data directory of each node.
    pub name: String,
    /// Which nodes have no part of it, and why. It is whole without them.
    pub warnings: Vec<String>,
}

/// What became of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Series that were refused for limits or age, beside those refused for their form.
    pub refusals: Refusals,
    /// Samples left out because another sender of their pair counts.
    pub deduplicated: u64,
    /// How many of the samples in `refusals` are histograms.
    pub refused_histograms: u64,
    /// Exemplars left out because of their age, or because their series was refused.
    pub skipped_exemplars: u64,
}

/// The exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The series.
    pub labels: Labels,
    /// At least one, in order of time.
    pub exemplars: Vec<Exemplar>,
}

/// An expression at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantQuery {
    /// The PromQL text.
    pub query: String,
    /// When.
    pub time: Millis,
    /// How far back a sample counts, when the client says.
    pub look_back: Option<Duration>,
    /// The longest buckets whose aggregates may stand for samples where that is exact, in milliseconds; 0: samples only.
    pub source_resolution_max_ms: Millis,
    /// When the answer is worthless.
    pub deadline: Instant,
    /// An answer that may lack items, and says so in its warnings, is better than none.
    pub partial: bool,
    /// No earlier answer may be used.
    pub anew: bool,
    /// Series wanted at most; 0: all. The API cuts the answer; the engine may stop early.
    pub limit: usize,
    /// It counts the samples of another query. It is none of the user's, so the node's metrics leave it out, and its
    /// warnings say only what data the counts may lack. Evaluated under [`trefoil_query_promql::EvalOptions::for_counts`].
    pub counts_samples: bool,
}

/// An expression at `start`, `start + step`, ... up to `end`.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeQuery {
    /// The PromQL text.
    pub query: String,
    /// The first time.
    pub start: Millis,
    /// The last time, inclusive; not before `start`.
    pub end: Millis,
    /// The distance in milliseconds, positive; at most 11,000 of them fit.
    pub step: Millis,
    /// How far back a sample counts, when the client says.
    pub look_back: Option<Duration>,
    /// The longest buckets whose aggregates may stand for samples where that is exact, in milliseconds; 0: samples only.
    pub source_resolution_max_ms: Millis,
    /// When the answer is worthless.
    pub deadline: Instant,
    /// An answer that may lack items, and says so in its warnings, is better than none.
    pub partial: bool,
    /// No earlier answer may be used.
    pub anew: bool,
    /// Series wanted at most; 0: all. The API cuts the answer; the engine may stop early.
    pub limit: usize,
    /// It counts the samples of another query. It is none of the user's, so the node's metrics leave it out, and its
    /// warnings say only what data the counts may lack. Evaluated under [`trefoil_query_promql::EvalOptions::for_counts`].
    pub counts_samples: bool,
}

/// Which series are wanted with their samples.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectQuery {
    /// A series fits when it fits all matchers of one of these. Not empty.
    pub alternatives: Vec<Vec<Matcher>>,
    /// First time, inclusive.
    pub start: Millis,
    /// Last time, inclusive.
    pub end: Millis,
    /// Of each series only the newest sample in the range.
    pub newest_only: bool,
    /// When the answer is worthless.
    pub deadline: Instant,
    /// Whether data may be missing that is lost for good; otherwise the answer is an error then.
    pub accepts_loss: bool,
    /// Whether it sees and fetches only what the tenant's limits of queries allow.
    pub is_limited: bool,
}

/// Series with their samples, some MiB at a time: ascending by labels, each series once, none without samples. All
/// shards are in it, or it ends with an error.
pub type SeriesPages = BoxStream<'static, Result<Vec<RawSeries>, QueryError>>;

/// Which series are to be counted.
#[derive(Clone, Debug, PartialEq)]
pub struct CountQuery {
    /// A series counts when it fits all matchers of one of these; all series when there is none.
    pub alternatives: Vec<Vec<Matcher>>,
    /// First time, inclusive.
    pub start: Millis,
    /// Last time, inclusive.
    pub end: Millis,
    /// The labels of interest; all when there is none.
    pub names: Vec<String>,
    /// Whether a series must have a sample in the range, for which its samples are read. Otherwise the windows of
    /// the storage that the range touches decide.
    pub is_exact: bool,
    /// When the answer is worthless.
    pub deadline: Instant,
    /// Whether data may be missing that is lost for good; otherwise the answer is an error then.
    pub accepts_loss: bool,
}

/// How many series there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesCounts {
    /// Series that fit.
    pub series: u64,
    /// For each label of interest that one of them has: how many of them have each value.
    pub labels: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What a node runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name in the cluster.
    pub name: String,
    /// When the process began to serve.
    pub started: Millis,
    /// How long metrics are kept; 0 for ever, nothing when the cluster has not decided yet.
    pub retention_hours: Option<u64>,
    /// Samples that a query may hold at once.
    pub query_samples_max: u64,
    /// Experimental features that are enabled, by Prometheus' names.
    pub features: Vec<String>,
    /// How queries are read and evaluated if they do not say otherwise.
    pub eval: EvalOptions,
    /// Whether series can be deleted through this node.
    pub admin_api: bool,
}

/// How a question about series or labels is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListingOptions {
    /// When the answer is worthless.
    pub deadline: Instant,
    /// An answer that may lack items, and says so in its warnings, is better than none.
    pub partial: bool,
}

/// Which declarations of metric families are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataQuery {
    /// Only this family.
    pub metric: Option<String>,
    /// Families at most; `None`: all.
    pub limit: Option<usize>,
    /// Entries for one family at most; `None`: all.
    pub limit_per_metric: Option<usize>,
}

/// What a metric family is declared as.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricMetadata {
    /// Name of the family.
    pub metric: String,
    /// Declared kind.
    pub kind: MetricKind,
    /// One sentence for people; may be empty.
    pub help: String,
    /// Base unit; may be empty.
    pub unit: String,
}

/// What `/api/v1/status/buildinfo` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// The program's version.
    pub version: String,
    /// The commit it was built from, or empty.
    pub revision: String,
    /// The branch it was built from, or empty.
    pub branch: String,
    /// When it was built, or empty.
    pub build_date: String,
}
