//! Native histograms: sparse counts of observations in buckets, with float counts.
//!
//! Two kinds of buckets. *Exponential* ones have bounds at powers of `2^(2^-schema)` on both sides of a bucket around
//! zero; *custom* ones have bounds of their own, as classic histograms do. Buckets are kept as two columns, indexes and
//! counts, so that histograms of one series can be stored column by column. A bucket that is listed with a count of
//! zero differs from one that is not listed until [`Histogram::compact`] removes it.
//!
//! Source: Prometheus, specification of native histograms (`docs/specs/native_histograms`).

mod bounds;
mod buckets;
mod combine;
mod layout;
mod sum;
#[cfg(test)]
mod tests;

use crate::ModelError;
pub use bounds::{Bucket, bound_of};
pub use buckets::Buckets;
pub use combine::Combined;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
pub use sum::HistogramSum;

/// The schema of custom buckets.
pub const SCHEMA_CUSTOM: i8 = -53;
/// The coarsest schema of exponential buckets: each bound is 65,536 times the one below.
pub const SCHEMA_MIN: i8 = -4;
/// The finest schema of exponential buckets: 256 buckets for each power of two.
pub const SCHEMA_MAX: i8 = 8;

/// Most buckets of a histogram on disk and on the wire, both sides together, and most custom bounds: what readers of
/// stored bytes take. Never to be lowered, because what is stored would be damaged then.
pub const BUCKETS_STORED_MAX: usize = 16_384;
/// Most buckets, and most custom bounds, of a histogram that comes in: ten times what clients make.
pub const BUCKETS_INGESTED_MAX: usize = 2_048;
/// The largest count up to which floats hold all integers.
const WHOLE_COUNT_MAX: u64 = 1 << 53;
/// Furthest index of an exponential bucket from zero: far behind all finite numbers in every schema, and the distance
/// of two indexes fits the 32 bits that a span has for it.
const INDEX_MAX: i32 = 1 << 30;

/// What is known about a counter reset between the histogram in front of a histogram and the histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResetHint {
    /// Nothing: compare the two.
    #[default]
    Unknown,
    /// There was a reset.
    Reset,
    /// There was none.
    NotReset,
    /// The histogram is no counter.
    Gauge,
}

/// A native histogram.
///
/// Shape: see [`Histogram::check`]. With custom buckets `negative` is empty and the zero bucket unused. `count` may be
/// above the sum of all buckets: observations of NaN are in no bucket, and make `sum` NaN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "HistogramFields", into = "HistogramFields")]
pub struct Histogram {
    /// The resolution: [`SCHEMA_MIN`] to [`SCHEMA_MAX`], or [`SCHEMA_CUSTOM`].
    pub schema: i8,
    /// What is known about a counter reset in front of it.
    pub reset_hint: ResetHint,
    /// Observations that are not further from zero than this are in the zero bucket.
    pub zero_threshold: f64,
    /// The count of the zero bucket.
    pub zero_count: f64,
    /// The number of all observations.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Buckets of positive observations, or all custom ones; custom buckets are counted from zero.
    pub positive: Buckets,
    /// Buckets of negative observations, by the absolute value.
    pub negative: Buckets,
    /// The upper bounds of custom buckets without the last one, which is infinite; ascending. Empty for exponential ones.
    pub custom_bounds: Arc<[f64]>,
}

/// The fields of a histogram as they travel; checked when they arrive.
#[derive(Clone, Serialize, Deserialize)]
struct HistogramFields {
    schema: i8,
    reset_hint: ResetHint,
    zero_threshold: f64,
    zero_count: f64,
    count: f64,
    sum: f64,
    positive: Buckets,
    negative: Buckets,
    custom_bounds: Vec<f64>,
}

impl From<Histogram> for HistogramFields {
    fn from(histogram: Histogram) -> Self {
        Self {
            schema: histogram.schema,
            reset_hint: histogram.reset_hint,
            zero_threshold: histogram.zero_threshold,
            zero_count: histogram.zero_count,
            count: histogram.count,
            sum: histogram.sum,
            positive: histogram.positive,
            negative: histogram.negative,
            custom_bounds: histogram.custom_bounds.to_vec(),
        }
    }
}

impl TryFrom<HistogramFields> for Histogram {
    type Error = ModelError;

    fn try_from(fields: HistogramFields) -> Result<Self, ModelError> {
        let histogram = Self {
            schema: fields.schema,
            reset_hint: fields.reset_hint,
            zero_threshold: fields.zero_threshold,
            zero_count: fields.zero_count,
            count: fields.count,
            sum: fields.sum,
            positive: fields.positive,
            negative: fields.negative,
            custom_bounds: fields.custom_bounds.into(),
        };
        histogram.check()?;
        Ok(histogram)
    }
}

impl Histogram {
    /// Whether the buckets have bounds of their own.
    #[must_use]
    pub fn is_custom(&self) -> bool {
        self.schema == SCHEMA_CUSTOM
    }

    /// Refuses a histogram that no operation here could work with.
    ///
    /// # Errors
    /// [`ModelError::Histogram`] for an unknown schema, a threshold that is negative or no number, columns of different lengths,
    /// indexes that do not ascend or lie outside of their range or (custom) the bounds, and bounds that do not ascend or are
    /// infinite.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |text| Err(ModelError::Histogram(text));
        if !self.is_custom() && !(SCHEMA_MIN..=SCHEMA_MAX).contains(&self.schema) {
            return fail("a histogram has an unknown schema");
        }
        if !(0.0..f64::INFINITY).contains(&self.zero_threshold) {
            return fail("a histogram has an invalid zero threshold");
        }
        self.positive.check()?;
        self.negative.check()?;
        if !self.is_custom() {
            let ends = [&self.positive, &self.negative].map(|side| {
                let indexes = side.indexes();
                [indexes.first(), indexes.last()]
            });
            let far = |index: &&i32| !(-INDEX_MAX..INDEX_MAX).contains(*index);
            if ends.iter().flatten().flatten().any(far) {
                return fail("a bucket of a histogram is out of range");
            }
            return match self.custom_bounds.is_empty() {
                true => Ok(()),
                false => fail("a histogram with exponential buckets has custom bounds"),
            };
        }
        if !self.custom_bounds.is_sorted_by(|a, b| a < b)
            || self.custom_bounds.iter().any(|bound| !bound.is_finite())
        {
            return fail("a histogram has custom bounds that do not ascend");
        }
        let (first, last) = (
            self.positive.indexes().first(),
            self.positive.indexes().last(),
        );
        let outside = |index: &i32| {
            usize::try_from(*index).map_or(true, |index| index > self.custom_bounds.len())
        };
        if first.is_some_and(outside) || last.is_some_and(outside) || !self.negative.is_empty() {
            return fail("a histogram has custom buckets outside of its bounds");
        }
        Ok(())
    }

    /// The memory that the histogram takes, about. Bounds count in full, though histograms of one series may share them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bounds = size_of_val(&*self.custom_bounds);
        size_of::<Self>() + bounds + self.positive.bytes() + self.negative.bytes()
    }

    /// Whether both say the same in all but the reset hint, bit for bit; buckets that are listed with a count of zero
    /// count as well.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        let bits = |h: &Self| [h.count, h.sum, h.zero_count].map(f64::to_bits);
        self.schema == other.schema
            && bits(self) == bits(other)
            && (self.is_custom() || self.zero_threshold == other.zero_threshold)
            && self.custom_bounds == other.custom_bounds
            && self.positive.same_content(&other.positive)
            && self.negative.same_content(&other.negative)
    }

    /// Whether all counts are whole numbers up to 2^53, and the buckets have as many observations as there are (or fewer, when
    /// some were NaN): what the protocols demand of a histogram that they carry with integers. Both kinds are kept
    /// as floats, so this is all that tells them apart, and neither form loses anything then.
    #[must_use]
    pub fn has_whole_counts(&self) -> bool {
        let whole = |count: f64| {
            let number = count as u64;
            let is_whole =
                number <= WHOLE_COUNT_MAX && (number as f64).to_bits() == count.to_bits();
            is_whole.then_some(number)
        };
        let sides = self.positive.counts().iter().chain(self.negative.counts());
        let in_buckets = sides
            .chain([&self.zero_count])
            .try_fold(0u64, |sum, count| Some(sum.saturating_add(whole(*count)?)));
        match (whole(self.count), in_buckets) {
            (Some(count), Some(in_buckets)) if self.sum.is_nan() => in_buckets <= count,
            (count, in_buckets) => count.is_some() && count == in_buckets,
        }
    }

    /// Removes buckets without observations.
    pub fn compact(&mut self) {
        self.positive.compact();
        self.negative.compact();
    }

    /// Multiplies all counts and the sum. By a negative factor a histogram becomes a gauge.
    pub fn multiply(&mut self, factor: f64) {
        self.each_value(|value| value * factor);
        if factor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum. By zero, all buckets but the zero bucket go: they would all be infinite.
    pub fn divide(&mut self, divisor: f64) {
        if divisor == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
        }
        self.each_value(|value| value / divisor);
        if divisor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    fn each_value(&mut self, f: impl Fn(f64) -> f64) {
        self.zero_count = f(self.zero_count);
        self.count = f(self.count);
        self.sum = f(self.sum);
        let counts = self.positive.counts_mut().iter_mut();
        for count in counts.chain(self.negative.counts_mut()) {
            *count = f(*count);
        }
    }
}
