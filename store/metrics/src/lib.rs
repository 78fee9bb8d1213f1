//! The metrics engine: parcel bodies, head, blocks, and views over both.

mod body;
mod error;
mod rows;

pub use body::{
    BODY_CONTENT_BYTES_MAX, BODY_VERSION, Body, BodyReader, BodySeries, BodyWriter, MetricMetadata,
    MetricType, Samples, metadata_shard,
};
pub use error::MetricsError;
pub use rows::{LABEL_BYTES_PER_SERIES_MAX, LABELS_PER_SERIES_MAX};
