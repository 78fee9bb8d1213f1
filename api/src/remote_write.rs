//! Prometheus remote write: 1.0 (`prometheus.WriteRequest` in snappy) in and out, 2.0 in (`symbols`).
//!
//! ```text
//! WriteRequest    repeated TimeSeries = 1, repeated MetricMetadata = 3
//! TimeSeries      repeated Label = 1, repeated Sample = 2, repeated Exemplar = 3, repeated Histogram = 4
//! Label           string name = 1, string value = 2
//! Sample          double value = 1, int64 timestamp = 2 (milliseconds)
//! MetricMetadata  enum type = 1, string metric_family_name = 2, string help = 4, string unit = 5
//! ```
//! The reader is written by hand, because it is the hottest code of the program: it turns the
//! decompressed bytes into flat, reused buffers, with every series' labels as the canonical bytes that
//! are hashed and stored, and checks them on the way. Native histograms are drawn in `histogram`, exemplars in `exemplar`.
//!
//! Source: the remote write 1.0 specification and `prompb/types.proto` of Prometheus.

mod decode;
mod encode;
mod exemplar;
mod extras;
mod histogram;
mod request;
mod sample;
mod series;
mod short_copy;
mod snappy;
mod symbols;
mod type_and_unit;

pub use decode::Decoder;
pub use encode::encode;
#[cfg(test)]
pub(crate) use histogram::read_sample as read_histogram;
pub(crate) use histogram::{HistogramParts, SideParts, check_count, double, signed};
pub use request::{MetadataRef, MetricKind, Refusals, SeriesRef, WriteRequest, refused_of_series};
pub(crate) use sample::EXEMPLAR_CHARACTERS_MAX;
pub use sample::{Exemplar, Sample, SampleValue};
pub(crate) use snappy::decompress as decompress_snappy;
pub(crate) use type_and_unit::Declarations;
