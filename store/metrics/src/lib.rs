//! The metrics engine of a node: parcel bodies, head, blocks, and views over both.
//!
//! * [`BodyWriter`] and [`BodyReader`] code the samples of one request for one owner.
//! * [`MetricsEngine`] applies bodies to its head, flushes the head to blocks, merges blocks, and forgets what retention,
//!   deletions and dropped shards say.
//! * [`View`] is what the engine held at one moment: streams of series, label questions, exports and digests.
//!
//! A sample is (series, timestamp, value, start timestamp if known), and a value a number or a native histogram; the engine
//! keeps a set of them. Applying the same twice changes nothing; of two values for one series and timestamp [`prefer`] chooses, whatever their order of arrival. Values are
//! kept to the bit. Everything that is durable here is in blocks and the manifest; the head is rebuilt from the journal.
//!
//! This crate knows nothing of journals, requests, placement and clocks, and starts no thread: the node calls
//! `flush` and `merge_once`. Formats are drawn in `docs/formats/metrics-body.md` and `metrics-block.md`.

mod active;
mod block;
mod body;
mod columns;
mod deletion;
mod dense;
mod engine;
mod error;
mod exemplars;
mod head;
mod histogram;
mod known;
mod matcher;
mod order;
mod packed;
mod postings;
mod rows;
mod value;
mod view;

pub use active::ACTIVE_FOR;
#[doc(hidden)]
pub use block::read_block_piece;
pub use body::{
    BODY_CONTENT_BYTES_MAX, BODY_VERSION, Body, BodyReader, BodySample, BodySeries, BodyWriter,
    MetricMetadata, MetricType, Samples, metadata_shard,
};
pub use columns::{SampleRef, SampleSlice};
pub use deletion::{Deletion, SelectedCutOff};
pub use engine::{
    AggregateOutcome, AggregatesBacklog, Applied, DERIVED_FILES, ExemplarsFile, FlushOutcome,
    MergeOutcome, MetricsEngine, MetricsOptions, MetricsStatistics, SavedExemplars,
};
pub use error::MetricsError;
pub use exemplars::{Exemplar, FoundExemplar};
pub use known::{KnownSeries, metric_of};
pub use matcher::Matcher;
pub use rows::{LABEL_BYTES_PER_SERIES_MAX, LABELS_PER_SERIES_MAX};
pub use value::{HISTOGRAM_BITS, STALE_MARKER_BITS, prefer};
pub use view::{
    COMPARED_WITHIN, Digest, DigestKey, Export, ExportCursor, ExportedBody, SeriesCursor,
    SeriesSamples, Stamp, Stamps, View,
};
