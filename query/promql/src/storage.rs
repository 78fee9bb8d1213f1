//! What the engine asks of the place where the samples are.
//!
//! The storage hands over one series at a time, in an order that only their labels make, and decodes its
//! columns only when they are wanted. Aggregations do not depend on the order beyond rounding, which is compensated.

use crate::{
    Matcher, QueryError,
    row::{HISTOGRAM, Histograms, samples_of},
};
use std::sync::Arc;
pub use trefoil_model::STALE_MARKER_BITS;
use trefoil_model::{Aggregate, Histogram, Labels, Millis, Resolution};

/// Whether `value` is the stale marker; other NaNs are ordinary values.
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_MARKER_BITS
}

/// Which series and which of their samples are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// All must fit.
    pub matchers: Vec<Matcher>,
    /// First millisecond of interest, inclusive.
    pub start: Millis,
    /// Last millisecond of interest, inclusive.
    pub end: Millis,
    /// Aggregates of buckets of this length are welcome instead of samples. Buckets that have a part in the range count whole.
    pub resolution: Option<Resolution>,
}

/// The decoded samples of one series, reused from series to series.
///
/// Timestamps and values have equal length; timestamps ascend strictly. Stale markers are included. The other columns are
/// empty for series that have no such samples, which costs them nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleColumns {
    /// Milliseconds.
    pub timestamps: Vec<Millis>,
    /// Values, bit for bit as they were written; [`HISTOGRAM`] where the sample is a histogram.
    pub values: Vec<f64>,
    /// Native histograms. Their reset hints compare them with the sample in front of them in the series, if the storage
    /// knows: [`trefoil_model::ResetHint::Unknown`] is always right.
    pub histograms: Histograms,
    /// When each sample's counter began, or 0 where that is not known: empty or as long as the other columns.
    /// Milliseconds.
    pub start_timestamps: Vec<Millis>,
}

impl SampleColumns {
    /// Forgets the samples and keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.start_timestamps.clear();
    }

    /// Appends a sample without start timestamp; `timestamp` lies behind the last one.
    pub fn push(&mut self, timestamp: Millis, value: f64) {
        self.timestamps.push(timestamp);
        self.values.push(value);
        if !self.start_timestamps.is_empty() {
            self.start_timestamps.push(0);
        }
    }

    /// Appends a histogram without start timestamp.
    pub fn push_histogram(&mut self, timestamp: Millis, histogram: Arc<Histogram>) {
        self.histograms.put(self.values.len(), histogram);
        self.push(timestamp, HISTOGRAM);
    }

    /// How many samples there are, as the budget counts them.
    pub(crate) fn samples(&self) -> usize {
        if self.histograms.is_empty() {
            return self.values.len();
        }
        samples_of(&self.values, &self.histograms)
    }

    /// Says when the counter of the last sample began.
    pub fn set_last_start(&mut self, start: Millis) {
        if start == 0 && self.start_timestamps.is_empty() {
            return;
        }
        self.start_timestamps.resize(self.timestamps.len(), 0);
        if let Some(last) = self.start_timestamps.last_mut() {
            *last = start;
        }
    }
}

/// One series whose samples can be decoded.
pub trait SampleSource {
    /// Appends the samples with `start <= timestamp <= end` of the selector to the empty `into`.
    ///
    /// # Errors
    /// [`QueryError::Damaged`] for unreadable bytes; `into` then holds anything.
    fn read(&mut self, into: &mut SampleColumns) -> Result<(), QueryError>;

    /// Appends the aggregates of the selector's resolution to the empty `into`, in order of time, one per bucket, and says whether
    /// the series has them. If not, its samples must be [read](Self::read); else they must not.
    ///
    /// # Errors
    /// As for [`SampleSource::read`].
    fn aggregates(&mut self, into: &mut Vec<Aggregate>) -> Result<bool, QueryError> {
        let _ = into;
        Ok(false)
    }
}

/// The caller's side of [`SeriesStorage::select`]: gets a series, may read it, may end the walk.
pub type SeriesVisitor<'a> =
    dyn FnMut(&Labels, &mut dyn SampleSource) -> Result<(), QueryError> + 'a;

/// The samples of the shards that an evaluator answers for, under one pinned view.
pub trait SeriesStorage {
    /// Calls `each` once for every series that fits and may have samples in the range, in an order that depends on their
    /// labels alone. Samples of one series come in one call.
    ///
    /// # Errors
    /// The first error of `each`, or the storage's own; the walk ends there.
    fn select(&self, selector: &Selector, each: &mut SeriesVisitor<'_>) -> Result<(), QueryError>;
}
