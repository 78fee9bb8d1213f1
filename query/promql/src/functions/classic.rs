//! Classic histograms: series with a `le` label that count observations up to a bound.

use std::cmp::Ordering;

/// A bucket: how many observations are not above `bound`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) bound: f64,
    pub(crate) count: f64,
}

/// Differences below this share are taken for rounding errors, not for counts that decrease.
const TOLERANCE: f64 = 1e-12;

/// The `q`-quantile, interpolated inside its bucket, and whether counts had to be made monotonic.
pub(crate) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    if !normalize(buckets) {
        return (f64::NAN, false);
    }
    let forced = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let found = buckets[..last].partition_point(|b| b.count < rank);
    if found == last {
        return (buckets[last - 1].bound, forced);
    }
    let Bucket { bound, mut count } = buckets[found];
    if found == 0 && bound <= 0.0 {
        return (bound, forced);
    }
    let mut start = 0.0;
    if found > 0 {
        let before = buckets[found - 1];
        start = before.bound;
        count -= before.count;
        rank -= before.count;
    }
    (start + (bound - start) * (rank / count), forced)
}

/// The share of observations between `lower` and `upper`.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !normalize(buckets) {
        return f64::NAN;
    }
    let count = buckets[buckets.len() - 1].count;
    if count == 0.0 || count.is_nan() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets).min(count) - rank_of(lower, buckets).min(count)) / count
}

/// How many observations are below `value`, interpolated.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    let mut rank = 0.0;
    let mut start = if buckets[0].bound > 0.0 {
        0.0
    } else {
        f64::NEG_INFINITY
    };
    for bucket in buckets {
        if start >= value {
            return rank;
        }
        if bucket.bound > value {
            if start.is_infinite() || bucket.bound.is_infinite() {
                // Nothing is known about where observations lie in an unbounded bucket.
                return if start.is_infinite() {
                    bucket.count
                } else {
                    rank
                };
            }
            let share = (value - start) / (bucket.bound - start);
            return rank + (bucket.count - rank) * share;
        }
        rank = bucket.count;
        start = bucket.bound;
    }
    rank
}

/// Sorts, adds up buckets of equal bound; `false` when the last one is not that of everything.
fn normalize(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.bound.partial_cmp(&b.bound).unwrap_or(Ordering::Equal));
    if buckets.last().is_none_or(|b| b.bound != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        if nearly_equal(previous, bucket.count) {
            bucket.count = previous;
        } else if bucket.count < previous {
            bucket.count = previous;
            forced = true;
        } else {
            previous = bucket.count;
        }
    }
    forced
}

fn nearly_equal(a: f64, b: f64) -> bool {
    if a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        let bucket = |(bound, count): &(f64, f64)| Bucket {
            bound: *bound,
            count: *count,
        };
        pairs.iter().map(bucket).collect()
    }

    #[test]
    fn quantiles_are_interpolated() {
        let check = |q: f64, pairs: &[(f64, f64)], expected: (f64, bool)| {
            assert_eq!(
                quantile(q, &mut buckets(pairs)),
                expected,
                "{q} of {pairs:?}"
            );
        };
        let usual = [(1.0, 2.0), (f64::INFINITY, 4.0), (2.0, 4.0)];
        check(0.25, &usual, (0.5, false));
        check(0.75, &usual, (1.5, false));
        check(0.9, &[(1.0, 1.0), (f64::INFINITY, 9.0)], (1.0, false));
        check(
            0.5,
            &[(1.0, 4.0), (2.0, 2.0), (f64::INFINITY, 4.0)],
            (0.5, true),
        );
        assert!(quantile(0.5, &mut buckets(&[(1.0, 4.0)])).0.is_nan());
    }

    #[test]
    fn fractions_are_shares() {
        let usual = [(1.0, 2.0), (2.0, 4.0), (f64::INFINITY, 4.0)];
        assert_eq!(fraction(0.5, 1.5, &mut buckets(&usual)), 0.5);
        assert_eq!(fraction(2.0, 1.0, &mut buckets(&usual)), 0.0);
        assert_eq!(
            fraction(f64::NEG_INFINITY, f64::INFINITY, &mut buckets(&usual)),
            1.0
        );
    }
}
