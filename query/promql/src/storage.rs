//! What the engine asks of the place where the samples are.
//!
//! The storage hands over one series at a time, in ascending order of [`Labels`], and decodes its
//! columns only when they are wanted. That order is what makes answers bit-identical on every node.

use crate::{Matcher, QueryError};
use trefoil_model::{Labels, Millis};

/// The bits of the value that marks a series as ended (Prometheus' stale marker).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether `value` is the stale marker; other NaNs are ordinary values.
#[must_use]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
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
}

/// The decoded samples of one series, reused from series to series.
///
/// The columns have equal length; timestamps ascend strictly. Stale markers are included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleColumns {
    /// Milliseconds.
    pub timestamps: Vec<Millis>,
    /// Values, bit for bit as they were written.
    pub values: Vec<f64>,
}

impl SampleColumns {
    /// Forgets the samples and keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }

    /// Appends a sample; `timestamp` lies behind the last one.
    pub fn push(&mut self, timestamp: Millis, value: f64) {
        self.timestamps.push(timestamp);
        self.values.push(value);
    }
}

/// One series whose samples can be decoded.
pub trait SampleSource {
    /// Appends the samples with `start <= timestamp <= end` of the selector to the empty `into`.
    ///
    /// # Errors
    /// [`QueryError::Damaged`] for unreadable bytes; `into` then holds anything.
    fn read(&mut self, into: &mut SampleColumns) -> Result<(), QueryError>;
}

/// The caller's side of [`SeriesStorage::select`]: gets a series, may read it, may end the walk.
pub type SeriesVisitor<'a> =
    dyn FnMut(&Labels, &mut dyn SampleSource) -> Result<(), QueryError> + 'a;

/// The samples of the shards that an evaluator answers for, under one pinned view.
pub trait SeriesStorage {
    /// Calls `each` once for every series that fits and may have samples in the range, in ascending
    /// order of labels. Samples of one series come in one call.
    ///
    /// # Errors
    /// The first error of `each`, or the storage's own; the walk ends there.
    fn select(&self, selector: &Selector, each: &mut SeriesVisitor<'_>) -> Result<(), QueryError>;
}
