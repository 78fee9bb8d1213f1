//! Every outside protocol, in and out: today Prometheus' (remote write 1.0, the query API), the
//! administration API and the node's own endpoints.
//!
//! The crate reaches the node only through [`Backend`]. It knows HTTP, the protocols' formats and
//! their limits; it does not know shards, replication, files or other nodes.
//!
//! Nothing outlives a request here, so a crash loses nothing.

pub mod admin;
mod backend;
mod error;
pub mod exposition;
mod http;
mod json;
mod limits;
mod number;
pub mod remote_write;
mod tenant;
mod wire;

pub use backend::{
    Backend, BuildInfo, InstantQuery, ListingOptions, MetadataQuery, MetricMetadata, RangeQuery,
    WriteOutcome,
};
pub use error::ApiError;
pub use http::{HEALTHY_PATH, METRICS_PATH, READY_PATH, StartingReason, router, starting_router};
pub use limits::{ApiLimits, WriteLimits};
pub use tenant::{TENANT_DEFAULT, TenantName};
