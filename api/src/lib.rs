//! Every outside protocol, in and out: Prometheus' (remote write 1.0, the text formats, the query API),
//! InfluxDB's line protocol, OpenTelemetry's metrics, the administration API and the node's own endpoints.
//!
//! The crate reaches the node only through [`Backend`]. It knows HTTP, the protocols' formats and
//! their limits; it does not know shards, replication, files or other nodes.
//!
//! Nothing outlives a request here, so a crash loses nothing.

pub mod admin;
mod backend;
mod error;
pub mod exposition;
mod federation;
mod http;
pub mod influx;
mod json;
pub mod json_lines;
mod json_reader;
pub mod limit_refusals;
mod limits;
mod number;
pub mod otlp;
mod remote_read;
pub mod remote_write;
mod syntax_tree;
mod tenant;
mod tenant_limits;
mod wire;

pub use backend::{
    Backend, BuildInfo, CountQuery, InstantQuery, ListingOptions, MetadataQuery, MetricMetadata,
    NodeInfo, RangeQuery, SelectQuery, SeriesCounts, SeriesDeletion, SeriesExemplars, SeriesPages,
    Snapshot, WriteOutcome,
};
pub use error::ApiError;
pub use http::{
    Api, HEALTHY_PATH, METRICS_PATH, READY_PATH, StartingReason, grpc_starting_router, router,
    starting_router,
};
pub use limits::{ApiLimits, WriteLimits};
pub use number::format_rfc3339;
pub use tenant::{TENANT_DEFAULT, TenantName};
pub use tenant_limits::{LimitValues, Span, TenantLimits};

/// The same memory for pairs of another life. Empty vectors are collected in place, without a copy.
pub(crate) fn recycle<'b>(mut pairs: Vec<(&str, &str)>) -> Vec<(&'b str, &'b str)> {
    pairs.clear();
    pairs.into_iter().map(|_| ("", "")).collect()
}
