//! What can be said about the observations in one native histogram.
//!
//! Inside a bucket observations are taken to be spread evenly: on a logarithmic scale in exponential buckets, on a linear one in
//! custom buckets and the zero bucket (Prometheus, `docs/querying/functions.md`, "histogram_quantile").

use trefoil_model::{
    Histogram, add_compensated,
    histogram::{Bucket, Buckets},
};

/// What a quantile is, and what to say about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Quantile {
    Value(f64),
    /// Observations of NaN made it larger.
    Skewed(f64),
    /// It lies among observations of NaN.
    Nan,
}

/// Where the zero bucket ends, seen from the side without any buckets.
fn bias_zero(histogram: &Histogram, bucket: &mut Bucket) {
    let (positive, negative) = (
        !histogram.positive.is_empty(),
        !histogram.negative.is_empty(),
    );
    if positive && !negative {
        bucket.lower = 0.0;
    } else if negative && !positive {
        bucket.upper = 0.0;
    }
}

fn contains_zero(bucket: &Bucket) -> bool {
    bucket.lower <= 0.0 && bucket.upper >= 0.0
}

/// The `q`-quantile.
pub(crate) fn quantile(q: f64, histogram: &Histogram) -> Quantile {
    if q < 0.0 {
        return Quantile::Value(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Quantile::Value(f64::INFINITY);
    }
    if histogram.count == 0.0 || q.is_nan() {
        return Quantile::Value(f64::NAN);
    }
    let has_nan = histogram.sum.is_nan();
    // Counting from the nearer end loses less precision. NaN observations are behind all buckets.
    let from_below = has_nan || q < 0.5;
    let rank = histogram.count * if from_below { q } else { 1.0 - q };
    let mut buckets = histogram.buckets();
    if !from_below {
        buckets.reverse();
    }
    let mut reached = 0.0;
    let mut found = None;
    for bucket in buckets.into_iter().filter(|b| b.count != 0.0) {
        reached += bucket.count;
        found = Some(bucket);
        if reached >= rank {
            break;
        }
    }
    let Some(mut bucket) = found else {
        return if has_nan {
            Quantile::Nan
        } else {
            Quantile::Value(f64::NAN)
        };
    };
    let tell = |value| match has_nan {
        true => Quantile::Skewed(value),
        false => Quantile::Value(value),
    };
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return tell(bucket.upper);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return tell(bucket.lower);
        }
    } else if contains_zero(&bucket) {
        bias_zero(histogram, &mut bucket);
    }
    reached = reached.min(histogram.count);
    if reached < rank {
        return if has_nan {
            Quantile::Nan
        } else {
            Quantile::Value(bucket.upper)
        };
    }
    let inside = if from_below {
        rank - (reached - bucket.count)
    } else {
        reached - rank
    };
    tell(at_share(histogram, &bucket, inside / bucket.count))
}

/// The value below which this share of a bucket's observations is.
fn at_share(histogram: &Histogram, bucket: &Bucket, share: f64) -> f64 {
    if histogram.is_custom() || contains_zero(bucket) {
        return bucket.lower + (bucket.upper - bucket.lower) * share;
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        return (lower + (upper - lower) * share).exp2();
    }
    -(upper + (lower - upper) * (1.0 - share)).exp2()
}

/// Which share of a bucket's observations is below `value`, which lies inside.
fn share_below(histogram: &Histogram, bucket: &Bucket, value: f64) -> f64 {
    if histogram.is_custom() || contains_zero(bucket) {
        // Nothing is known about where observations are in a bucket without end: all count as far out.
        if bucket.lower == f64::NEG_INFINITY {
            return 1.0;
        }
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let value = value.abs().log2();
    if bucket.lower > 0.0 {
        return (value - lower) / (upper - lower);
    }
    1.0 - (value - upper) / (lower - upper)
}

/// The bucket where observations are assumed: at zero where nothing else speaks for the other side.
fn assumed(histogram: &Histogram, mut bucket: Bucket) -> Bucket {
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 && bucket.upper.is_finite() {
            bucket.lower = 0.0;
        }
    } else if contains_zero(&bucket) {
        bias_zero(histogram, &mut bucket);
    }
    bucket
}

/// The share of observations between `lower` and `upper`, and whether observations of NaN had to be left out.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &Histogram) -> (f64, bool) {
    let has_nan = histogram.sum.is_nan() && histogram.count > 0.0;
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, has_nan);
    }
    if lower >= upper {
        return (0.0, has_nan);
    }
    let buckets = histogram.buckets();
    let in_buckets = match has_nan {
        true => buckets.iter().map(|bucket| bucket.count).sum(),
        false => histogram.count,
    };
    let rank_of = |value: f64| {
        let mut rank = 0.0;
        for bucket in &buckets {
            let bucket = assumed(histogram, *bucket);
            if bucket.lower >= value {
                return rank;
            }
            if bucket.upper > value {
                return rank + bucket.count * share_below(histogram, &bucket, value);
            }
            rank += bucket.count;
        }
        in_buckets
    };
    let (below, above) = (
        rank_of(lower).min(in_buckets),
        rank_of(upper).min(in_buckets),
    );
    ((above - below) / histogram.count, has_nan)
}

/// Population variance, every observation being taken for the middle of its bucket.
pub(crate) fn variance(histogram: &Histogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let (mut sum, mut lost) = (0.0, 0.0);
    for bucket in histogram.buckets().iter().filter(|b| b.count != 0.0) {
        let middle = if histogram.is_custom() {
            f64::midpoint(bucket.lower, bucket.upper)
        } else if contains_zero(bucket) {
            0.0
        } else {
            middle(histogram, bucket, false)
        };
        let delta = middle - mean;
        add_compensated(&mut sum, &mut lost, bucket.count * delta * delta);
    }
    (sum + lost) / histogram.count
}

/// Where the observations of a bucket, or of what is left of it, are on average. `linear`: it is or was the zero bucket.
fn middle(histogram: &Histogram, bucket: &Bucket, linear: bool) -> f64 {
    if linear || histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY {
            return bucket.upper;
        }
        if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
        return f64::midpoint(bucket.lower, bucket.upper);
    }
    (bucket.lower * bucket.upper).sqrt().copysign(bucket.upper)
}

/// What of a bucket is on the wanted side of `limit`.
fn kept(histogram: &Histogram, bucket: Bucket, limit: f64, below: bool) -> Bucket {
    let mut bucket = assumed(histogram, bucket);
    let (inside, outside) = match below {
        true => (bucket.upper <= limit, bucket.lower >= limit),
        false => (bucket.lower >= limit, bucket.upper <= limit),
    };
    if inside {
        return bucket;
    }
    let endless = match below {
        // Observations above all bounds may be anywhere above; they go, and those below all bounds stay.
        true => bucket.upper == f64::INFINITY,
        false => bucket.lower == f64::NEG_INFINITY,
    };
    if outside || endless {
        bucket.count = 0.0;
        return bucket;
    }
    let is_last = histogram.is_custom()
        && match below {
            true => bucket.lower == f64::NEG_INFINITY,
            false => bucket.upper == f64::INFINITY,
        };
    let share = if is_last {
        1.0
    } else {
        share_below(histogram, &bucket, limit)
    };
    if below {
        bucket.count *= share;
        bucket.upper = limit;
    } else {
        bucket.count *= if is_last { 1.0 } else { 1.0 - share };
        bucket.lower = limit;
    }
    bucket
}

/// The histogram of those observations that are below (or else above) `limit`, count and sum being estimated anew.
pub(crate) fn trim(histogram: &Histogram, limit: f64, below: bool) -> Histogram {
    let mut trimmed = histogram.clone();
    let (mut count, mut count_lost) = (0.0, 0.0);
    let (mut sum, mut sum_lost) = (0.0, 0.0);
    let mut changed = false;
    let mut keep = |bucket: Bucket| {
        let before = bucket.count;
        let linear = contains_zero(&bucket);
        let bucket = kept(histogram, bucket, limit, below);
        changed |= bucket.count != before;
        // Zero times an infinite middle is no number.
        if bucket.count != 0.0 {
            add_compensated(&mut count, &mut count_lost, bucket.count);
            let part = bucket.count * middle(histogram, &bucket, linear);
            add_compensated(&mut sum, &mut sum_lost, part);
        }
        bucket.count
    };
    let zero = histogram.zero_threshold;
    if histogram.is_custom() {
        trimmed.positive = map(&histogram.positive, |index, count| {
            keep(histogram.custom_bucket(index, count))
        });
    } else {
        trimmed.negative = map(&histogram.negative, |index, count| {
            let bucket = histogram.exponential(index, count);
            keep(Bucket {
                lower: -bucket.upper,
                upper: -bucket.lower.max(zero.min(bucket.upper)),
                count,
            })
        });
        if histogram.zero_count != 0.0 {
            trimmed.zero_count = keep(Bucket {
                lower: -zero,
                upper: zero,
                count: histogram.zero_count,
            });
        }
        trimmed.positive = map(&histogram.positive, |index, count| {
            let bucket = histogram.exponential(index, count);
            keep(Bucket {
                lower: bucket.lower.max(zero.min(bucket.upper)),
                ..bucket
            })
        });
    }
    if !changed {
        return histogram.clone();
    }
    trimmed.count = count + count_lost;
    trimmed.sum = sum + sum_lost;
    trimmed
}

fn map(buckets: &Buckets, mut keep: impl FnMut(i32, f64) -> f64) -> Buckets {
    buckets.map(|index, count| {
        if count == 0.0 {
            0.0
        } else {
            keep(index, count)
        }
    })
}

/// The histogram as text, for `count_values`: counts, sum and buckets with their bounds.
pub(crate) fn text(histogram: &Histogram) -> String {
    use crate::format::general;
    let mut text = format!(
        "{{count:{}, sum:{}",
        general(histogram.count),
        general(histogram.sum)
    );
    for bucket in histogram.buckets().iter().filter(|b| b.count != 0.0) {
        let (lower, upper) = histogram.includes(bucket);
        let left = if lower { '[' } else { '(' };
        let right = if upper { ']' } else { ')' };
        text.push_str(&format!(
            ", {left}{},{}{right}:{}",
            general(bucket.lower),
            general(bucket.upper),
            general(bucket.count)
        ));
    }
    text.push('}');
    text
}
