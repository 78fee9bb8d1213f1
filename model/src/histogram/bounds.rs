//! Where buckets lie.

use super::{Histogram, SCHEMA_MAX};

/// A bucket as an interval. Which of its bounds belong to it, [`Histogram::includes`] says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The lower bound; may be negative infinity.
    pub lower: f64,
    /// The upper bound; may be infinity.
    pub upper: f64,
    /// How many observations are inside.
    pub count: f64,
}

/// The upper bound of the exponential bucket with this index among positive ones.
///
/// Exact for powers of two. The bucket behind the largest finite number ends at that number, and the next one is
/// infinite, for what has overflowed.
#[must_use]
pub fn bound_of(schema: i8, index: i32) -> f64 {
    let (whole, part) = if schema <= 0 {
        let whole = i64::from(index) << u32::from(schema.unsigned_abs());
        (whole, 0.0)
    } else {
        let schema = schema.min(SCHEMA_MAX);
        let per_power = 1i32 << schema;
        let part = f64::from(index.rem_euclid(per_power)) / f64::from(per_power);
        (i64::from(index.div_euclid(per_power)), part)
    };
    if whole == 1024 && part == 0.0 {
        return f64::MAX;
    }
    if whole >= 1024 {
        return f64::INFINITY;
    }
    // Two steps reach bounds below the smallest normal number.
    let half = (whole / 2) as i32;
    part.exp2() * f64::from(half).exp2() * f64::from(whole as i32 - half).exp2()
}

impl Histogram {
    /// All buckets, ascending: negative, zero (if it has observations), positive. Where a bucket overlaps the zero
    /// bucket, it begins where that ends.
    #[must_use]
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut all = Vec::with_capacity(self.positive.len() + self.negative.len() + 1);
        if self.is_custom() {
            let custom = self.positive.iter();
            all.extend(custom.map(|(index, count)| self.custom_bucket(index, count)));
            return all;
        }
        let zero = self.zero_threshold;
        for (index, count) in self.negative.iter().rev() {
            let mut bucket = self.exponential(index, count);
            (bucket.lower, bucket.upper) = (-bucket.upper, -bucket.lower);
            if bucket.lower < -zero && bucket.upper > -zero {
                bucket.upper = -zero;
            }
            all.push(bucket);
        }
        if self.zero_count > 0.0 {
            all.push(Bucket {
                lower: -zero,
                upper: zero,
                count: self.zero_count,
            });
        }
        for (index, count) in self.positive.iter() {
            let mut bucket = self.exponential(index, count);
            if bucket.lower < zero && bucket.upper > zero {
                bucket.lower = zero;
            }
            all.push(bucket);
        }
        all
    }

    /// Whether the lower and the upper bound of one of [`Histogram::buckets`] belong to it, as Prometheus says: positive and custom
    /// buckets include the upper one, the first custom one both, negative ones the lower one, the zero bucket both.
    #[must_use]
    pub fn includes(&self, bucket: &Bucket) -> (bool, bool) {
        let first_end = self.custom_bounds.first().copied().unwrap_or(f64::INFINITY);
        match self.is_custom() {
            true => (
                bucket.lower == f64::NEG_INFINITY && bucket.upper == first_end,
                true,
            ),
            // No other bucket lies around zero; with a threshold of 0 it has no width.
            false if bucket.lower == -bucket.upper => (true, true),
            false => (bucket.lower < 0.0, bucket.upper > 0.0),
        }
    }

    /// The interval of a positive bucket.
    #[must_use]
    pub fn exponential(&self, index: i32, count: f64) -> Bucket {
        Bucket {
            lower: bound_of(self.schema, index.saturating_sub(1)),
            upper: bound_of(self.schema, index),
            count,
        }
    }

    /// The interval of a custom bucket.
    #[must_use]
    pub fn custom_bucket(&self, index: i32, count: f64) -> Bucket {
        let bound = |at: i32| {
            usize::try_from(at)
                .ok()
                .map(|at| self.custom_bounds.get(at))
        };
        Bucket {
            lower: match bound(index - 1) {
                Some(bound) => bound.copied().unwrap_or(f64::INFINITY),
                None => f64::NEG_INFINITY,
            },
            upper: bound(index).flatten().copied().unwrap_or(f64::INFINITY),
            count,
        }
    }
}
