//! Explicit histograms as native histograms with custom buckets.
//!
//! Both have the same bounds: upper ones, inclusive, and the last bucket without one.
//!
//! Source: `convert_histograms_to_nhcb` of Prometheus' OTLP receiver.

use crate::remote_write::check_count;
use std::sync::Arc;
use trefoil_model::{
    Histogram,
    histogram::{Buckets, SCHEMA_CUSTOM},
};

/// The native histogram of a point with so many observations in buckets; `bounds` are one less. A point without buckets has
/// everything in the one that has no bound.
///
/// # Errors
/// In words, when there is none.
pub(super) fn to_native(
    count: u64,
    sum: f64,
    counts: &[u64],
    bounds: &[f64],
) -> Result<Histogram, String> {
    let all = [count];
    let counts = match (counts, bounds) {
        ([], []) => &all,
        _ => counts,
    };
    if counts.len() != bounds.len() + 1 {
        let (buckets, bounds) = (counts.len(), bounds.len());
        return Err(format!(
            "has a histogram of {buckets} buckets with {bounds} bounds, which must be one less"
        ));
    }
    // An index fits, because the buckets of a point are bounded.
    let filled = (0i32..).zip(counts).filter(|(_, count)| **count > 0);
    let mut next = 0;
    let (spans, counts): (Vec<_>, Vec<_>) = filled
        .map(|(index, count)| {
            let distance = index - next;
            next = index + 1;
            ((distance, 1), *count as f64)
        })
        .unzip();
    let histogram = Histogram {
        schema: SCHEMA_CUSTOM,
        count: count as f64,
        sum,
        positive: Buckets::from_spans(&spans, counts).map_err(|error| error.to_string())?,
        custom_bounds: Arc::from(bounds),
        ..Histogram::default()
    };
    match check_count(&histogram) {
        Ok(()) => Ok(histogram),
        Err(reason) => Err(format!("has a wrong histogram: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_keep_their_bounds() {
        let histogram = to_native(6, 7.5, &[1, 0, 5], &[0.005, 1.0]).unwrap();
        histogram.check().unwrap();
        assert_eq!(histogram.custom_bounds[..], [0.005, 1.0]);
        let buckets: Vec<_> = histogram.positive.iter().collect();
        assert_eq!(buckets, [(0, 1.0), (2, 5.0)]);
        assert_eq!((histogram.count, histogram.sum), (6.0, 7.5));
    }

    #[test]
    fn a_point_without_buckets_has_one() {
        let histogram = to_native(6, 7.5, &[], &[]).unwrap();
        histogram.check().unwrap();
        assert_eq!(histogram.positive.iter().collect::<Vec<_>>(), [(0, 6.0)]);
        let empty = to_native(0, 0.0, &[], &[]).unwrap();
        assert!(empty.positive.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (counts, bounds, expected) in [
            (&[1, 2][..], &[][..], "2 buckets with 0 bounds"),
            (&[], &[1.0], "0 buckets with 1 bounds"),
            (&[1, 2], &[1.0], "3 observations found in buckets"),
        ] {
            let error = to_native(6, 7.5, counts, bounds).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
