//! The body of a metrics parcel: the samples of one request for one owner, compressed once. In this form
//! they travel, are journalled and are fetched again; the envelope around it carries the checksum.
//!
//! ```text
//! body    = version u8 (1, or 2 with a section behind 9) | content length u32 LE | zstd frame of the content
//! content = section*, kinds ascending;  section = kind u8 | varint length | bytes
//!   1 shapes      label names, see `rows`
//!   2 values      label values, see `rows`
//!   3 rows        one label set per series, see `rows`
//!   4 shards      u16 LE per series
//!   5 counts      varint per series: its samples, at least 1
//!   6 timestamps  zigzag varint per sample: milliseconds behind the previous sample of the body
//!                 (the first: behind 0), wrapping
//!   7 lengths     u8 per sample: length of its value, 0 to 8; 9 for a native histogram, which has no number
//!   8 numbers     per sample: the value's IEEE 754 bits, most significant byte first, without the zero
//!                 bytes at the end
//!   9 metadata    varint count | per entry: shard u16 LE | type u8 | text metric | text help | text unit
//!  10 histograms  per native histogram: varint length | the histogram packed, as in `histogram`
//!  11 starts      zigzag varint per sample: start timestamp (0: not known) behind that of the previous sample (the
//!                 first: behind 0), wrapping
//!  12 exemplars   varint count | entries, as in `exemplars`
//! ```
//! An absent section is empty. A reader refuses kinds that it does not know: dropping them would lose
//! acknowledged data. Series stand in the order of the request, so that neighbours share label values;
//! the shard is a column, and an owner skips what it does not accept while it decodes.

mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{Body, BodyReader, BodySample, BodySeries, Samples};
pub use writer::BodyWriter;

pub(crate) use reader::read_metadata;
pub(crate) use writer::write_metadata_entry;

use std::collections::BTreeSet;
use trefoil_model::ShardId;

/// The newest version that this program reads and writes.
pub const BODY_VERSION: u8 = 2;

/// The version of a body that holds nothing but floats: what programs before native histograms read.
const BODY_VERSION_PLAIN: u8 = 1;

/// Most uncompressed bytes of a body. A coordinator splits a request that would pass it; a reader
/// refuses more before it allocates.
pub const BODY_CONTENT_BYTES_MAX: usize = 64 << 20;

const SECTION_SHAPES: u8 = 1;
const SECTION_VALUES: u8 = 2;
const SECTION_ROWS: u8 = 3;
const SECTION_SHARDS: u8 = 4;
const SECTION_COUNTS: u8 = 5;
const SECTION_TIMESTAMPS: u8 = 6;
const SECTION_LENGTHS: u8 = 7;
const SECTION_NUMBERS: u8 = 8;
const SECTION_METADATA: u8 = 9;
const SECTION_HISTOGRAMS: u8 = 10;
const SECTION_STARTS: u8 = 11;
const SECTION_EXEMPLARS: u8 = 12;

/// The length of a value that is a histogram.
const LENGTH_HISTOGRAM: u8 = 9;

/// The type that a metric was declared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MetricType {
    /// Not declared, or `untyped`.
    Unknown = 0,
    /// Only rises, but for resets.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Buckets, count and sum.
    Histogram = 3,
    /// Buckets of a gauge.
    GaugeHistogram = 4,
    /// Quantiles, count and sum.
    Summary = 5,
    /// A constant 1 whose labels inform.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

impl MetricType {
    /// The type that this byte names, if it names one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Unknown,
            1 => Self::Counter,
            2 => Self::Gauge,
            3 => Self::Histogram,
            4 => Self::GaugeHistogram,
            5 => Self::Summary,
            6 => Self::Info,
            7 => Self::StateSet,
            _ => return None,
        })
    }

    /// The name in Prometheus' metadata API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// What is known of a metric family beside its samples.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricMetadata {
    /// Name of the family.
    pub metric: String,
    /// Declared type.
    pub metric_type: MetricType,
    /// One sentence for people; may be empty.
    pub help: String,
    /// Base unit; may be empty.
    pub unit: String,
}

/// What is declared of a tenant's metrics takes at most about so much memory in a generation of the head, in a block and in an
/// answer; what is beyond is dropped. Some hundred bytes each, it is enough for some hundred thousand metrics.
const METADATA_BYTES_MAX: usize = 32 << 20;

/// Room for what is declared of one tenant's metrics.
pub(crate) struct MetadataRoom {
    bytes: usize,
}

impl MetadataRoom {
    pub(crate) fn new() -> Self {
        Self {
            bytes: METADATA_BYTES_MAX,
        }
    }

    /// Takes the room of a declaration. Whether there was some.
    pub(crate) fn take(&mut self, entry: &MetricMetadata) -> bool {
        let texts = entry.metric.len() + entry.help.len() + entry.unit.len();
        let rest = self.bytes.checked_sub(texts + size_of::<MetricMetadata>());
        self.bytes = rest.unwrap_or(self.bytes);
        rest.is_some()
    }

    /// Adds what is not there yet, as far as there is room. How many found none.
    pub(crate) fn extend<'e>(
        &mut self,
        entries: &mut BTreeSet<(ShardId, MetricMetadata)>,
        more: impl IntoIterator<Item = &'e (ShardId, MetricMetadata)>,
    ) -> u64 {
        let mut dropped = 0;
        for entry in more {
            if entries.contains(entry) {
                continue;
            }
            match self.take(&entry.1) {
                true => {
                    entries.insert(entry.clone());
                }
                false => dropped += 1,
            }
        }
        dropped
    }
}

/// The shard in which a metric's metadata lives: that of the series that has only this name.
#[must_use]
pub fn metadata_shard(tenant: trefoil_model::TenantId, metric: &str, shards: u16) -> ShardId {
    let labels = trefoil_model::Labels::from_pairs([(trefoil_model::LABEL_NAME_METRIC, metric)]);
    trefoil_model::shard_of(trefoil_model::key_hash(tenant, labels.canonical()), shards)
}

/// Small differences of either sign become small numbers.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Reverses [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
