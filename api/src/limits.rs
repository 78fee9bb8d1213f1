//! Bounds of what a client may send and of how much is served at once.

use std::time::Duration;

/// Bounds of one write request. The label limits have Mimir's defaults and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// Bytes of a request body as it arrives; more is 413.
    pub compressed_bytes_max: usize,
    /// Bytes that a body may declare to decompress to; more is 413, before anything is allocated.
    pub decompressed_bytes_max: usize,
    /// Samples in one request; more is 413. Senders use some thousands.
    pub samples_max: usize,
    /// Labels of a series (`max_label_names_per_series`); a series with more is left out.
    pub label_names_max: usize,
    /// Labels of a series whose metric's name ends in `_info`, if that is more (`max_label_names_per_info_series`).
    pub info_label_names_max: usize,
    /// Bytes of a label's name (`max_label_name_length`).
    pub label_name_bytes_max: usize,
    /// Bytes of a label's value (`max_label_value_length`).
    pub label_value_bytes_max: usize,
    /// Bytes of a help text or unit (`max_metadata_length`); longer ones are cut.
    pub metadata_bytes_max: usize,
    /// Whether native histograms are taken (`native_histograms_ingestion_enabled`).
    pub native_histograms: bool,
    /// Buckets of a native histogram (`max_native_histogram_buckets`), beside what any may have; 0: no limit of the tenant.
    pub native_buckets_max: usize,
    /// Whether one with more gets a coarser resolution (`reduce_native_histogram_over_max_buckets`), or else is refused.
    pub reduces_native_buckets: bool,
    /// Whether series get labels `__type__` and `__unit__` of what the request declares.
    pub type_and_unit_labels: bool,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self {
            compressed_bytes_max: 32 << 20,
            decompressed_bytes_max: 128 << 20,
            samples_max: 4 << 20,
            label_names_max: 30,
            info_label_names_max: 80,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 2048,
            metadata_bytes_max: 1024,
            native_histograms: true,
            native_buckets_max: 0,
            reduces_native_buckets: true,
            type_and_unit_labels: false,
        }
    }
}

impl WriteLimits {
    /// Labels that a series may have; one that informs may have more, because it is there for its labels.
    pub(crate) fn label_names_max_of(&self, is_info: bool) -> usize {
        match is_info {
            true => self.label_names_max.max(self.info_label_names_max),
            false => self.label_names_max,
        }
    }

    /// Labels of which a series has too many, whatever its name is.
    pub(crate) fn label_names_most(&self) -> usize {
        self.label_names_max_of(true)
    }
}

/// Whether series of the metric inform, by its name, which is all that every protocol has.
pub(crate) fn is_info(metric: &[u8]) -> bool {
    metric.ends_with(b"_info")
}

/// Bounds of the HTTP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiLimits {
    /// Bounds of one write request.
    pub write: WriteLimits,
    /// Write requests served at once; more are 503 with `Retry-After`.
    pub writes_at_once_max: usize,
    /// Bytes of write bodies, compressed and decompressed, held at once; more is 503.
    pub write_bytes_at_once_max: usize,
    /// How long a write may take before it is 503.
    pub write_timeout: Duration,
    /// Queries evaluated at once; further ones wait.
    pub queries_at_once_max: usize,
    /// Queries that wait for their turn; more are 503.
    pub queries_waiting_max: usize,
    /// Longest time for a query, waiting included; `timeout=` can only shorten it.
    pub query_timeout: Duration,
    /// Bytes of a form body of a query.
    pub form_bytes_max: usize,
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            write: WriteLimits::default(),
            writes_at_once_max: 256,
            write_bytes_at_once_max: 512 << 20,
            write_timeout: Duration::from_secs(20),
            queries_at_once_max: 20,
            queries_waiting_max: 200,
            query_timeout: Duration::from_secs(120),
            form_bytes_max: 4 << 20,
        }
    }
}
