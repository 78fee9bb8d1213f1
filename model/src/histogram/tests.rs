//! Bounds, layouts, sums and resets of histograms, each against values worked out by hand.

use super::*;

fn buckets(spans: &[(i32, u32)], counts: &[f64]) -> Buckets {
    Buckets::from_spans(spans, counts.to_vec()).expect("lengths agree")
}

/// Positive buckets from an index on.
fn exponential(schema: i8, first: i32, counts: &[f64]) -> Histogram {
    Histogram {
        schema,
        count: counts.iter().sum(),
        sum: counts.len() as f64,
        positive: buckets(&[(first, counts.len() as u32)], counts),
        ..Histogram::default()
    }
}

fn custom(bounds: &[f64], counts: &[f64]) -> Histogram {
    Histogram {
        custom_bounds: bounds.into(),
        ..exponential(SCHEMA_CUSTOM, 0, counts)
    }
}

#[test]
fn bounds_are_powers() {
    assert_eq!(bound_of(0, 0), 1.0);
    assert_eq!(bound_of(0, 3), 8.0);
    assert_eq!(bound_of(-1, 2), 16.0);
    assert_eq!(bound_of(-4, 1), 65_536.0);
    assert_eq!(bound_of(1, 1), 2f64.sqrt());
    assert_eq!(bound_of(8, 256), 2.0);
    assert_eq!(bound_of(0, 1024), f64::MAX);
    assert_eq!(bound_of(0, 1025), f64::INFINITY);
    assert_eq!(bound_of(0, -1074), f64::from_bits(1));
}

#[test]
fn spans_come_back() {
    let spans = [(-2, 2), (3, 1)];
    let buckets = buckets(&spans, &[1.0, 2.0, 3.0]);
    assert_eq!(buckets.indexes(), [-2, -1, 3]);
    assert_eq!(buckets.spans(), spans);
    assert!(Buckets::from_spans(&spans, vec![1.0]).is_err());
    assert!(Buckets::from_spans(&[(0, 1), (-1, 1)], vec![1.0, 1.0]).is_err());
    assert!(Buckets::from_spans(&[(i32::MAX, 2)], vec![1.0, 1.0]).is_err());
}

#[test]
fn buckets_ascend_around_zero() {
    let mut histogram = exponential(0, 0, &[1.0, 0.0, 2.0]);
    histogram.negative = buckets(&[(1, 1)], &[4.0]);
    histogram.zero_threshold = 0.75;
    histogram.zero_count = 3.0;
    let found: Vec<_> = histogram
        .buckets()
        .iter()
        .map(|b| (b.lower, b.upper, b.count))
        .collect();
    let expected = [
        (-2.0, -1.0, 4.0),
        (-0.75, 0.75, 3.0),
        (0.75, 1.0, 1.0),
        (1.0, 2.0, 0.0),
        (2.0, 4.0, 2.0),
    ];
    assert_eq!(found, expected);
    let ends: Vec<_> = custom(&[5.0], &[1.0, 2.0])
        .buckets()
        .iter()
        .map(|b| (b.lower, b.upper))
        .collect();
    assert_eq!(ends, [(f64::NEG_INFINITY, 5.0), (5.0, f64::INFINITY)]);
}

#[test]
fn bounds_belong_to_buckets_as_in_prometheus() {
    let ends = |histogram: &Histogram| -> Vec<(bool, bool)> {
        let all = histogram.buckets();
        all.iter().map(|b| histogram.includes(b)).collect()
    };
    let mut histogram = exponential(0, 0, &[1.0]);
    histogram.negative = buckets(&[(0, 1)], &[1.0]);
    histogram.zero_count = 1.0;
    for threshold in [0.0, 0.25, 0.75] {
        histogram.zero_threshold = threshold;
        let expected = [(true, false), (true, true), (false, true)];
        assert_eq!(ends(&histogram), expected, "{threshold}");
    }
    let expected = [(true, true), (false, true), (false, true)];
    assert_eq!(ends(&custom(&[-1.0, 5.0], &[1.0; 3])), expected);
    assert_eq!(ends(&custom(&[], &[1.0])), [(true, true)]);
}

#[test]
fn the_coarser_schema_wins() {
    let mut sum = exponential(-1, 1, &[1.0]);
    let combined = sum.add(&exponential(0, 1, &[2.0, 2.0])).expect("one kind");
    assert_eq!(combined, Combined::default());
    assert_eq!(sum.positive, buckets(&[(1, 1)], &[5.0]));
    let mut difference = exponential(0, 1, &[2.0, 2.0]);
    difference
        .subtract(&exponential(-1, 1, &[1.0]))
        .expect("one kind");
    assert_eq!((difference.schema, difference.count), (-1, 3.0));
    assert_eq!(difference.positive, buckets(&[(1, 1)], &[3.0]));
}

#[test]
fn the_wider_zero_bucket_wins_and_cuts_no_bucket() {
    let mut wide = exponential(0, 2, &[1.0]);
    (wide.zero_threshold, wide.zero_count) = (0.75, 1.0);
    // The threshold lies in a bucket from 0.5 to 1 that has observations.
    let narrow = exponential(0, -1, &[1.0, 2.0, 4.0]);
    wide.add(&narrow).expect("one kind");
    assert_eq!((wide.zero_threshold, wide.zero_count), (1.0, 4.0));
    assert_eq!(wide.positive, buckets(&[(1, 2)], &[4.0, 1.0]));
}

#[test]
fn custom_bounds_are_reconciled() {
    let mut sum = custom(&[2.0, 4.0, 6.0], &[1.0, 2.0, 5.0, 7.0]);
    let other = custom(&[1.0, 2.0, 6.0, 8.0], &[1.0; 5]);
    let combined = sum.add(&other).expect("one kind");
    assert!(combined.bounds_reconciled);
    assert_eq!(*sum.custom_bounds, [2.0, 6.0]);
    assert_eq!(sum.positive.counts(), [3.0, 8.0, 9.0]);
    let before = sum.clone();
    assert_eq!(
        sum.add(&exponential(0, 0, &[1.0])),
        Err(crate::ModelError::HistogramKinds)
    );
    assert_eq!(sum, before);
}

#[test]
fn hints_are_combined() {
    use ResetHint::{Gauge, NotReset, Reset, Unknown};
    for (left, right, expected, collide) in [
        (NotReset, NotReset, NotReset, false),
        (NotReset, Gauge, Gauge, false),
        (Unknown, Reset, Unknown, false),
        (NotReset, Unknown, Unknown, false),
        (NotReset, Reset, Unknown, true),
    ] {
        let hinted = |reset_hint| Histogram {
            reset_hint,
            ..Histogram::default()
        };
        let mut sum = hinted(left);
        let combined = sum.add(&hinted(right)).expect("one kind");
        assert_eq!(
            (sum.reset_hint, combined.resets_collide),
            (expected, collide)
        );
    }
}

#[test]
fn resets_show_in_any_bucket() {
    let check = |current: &Histogram, previous: &Histogram, expected: bool| {
        assert_eq!(current.is_reset_after(previous), expected, "{current:?}");
    };
    let before = exponential(0, 0, &[1.0, 2.0]);
    check(&exponential(0, 0, &[1.0, 3.0]), &before, false);
    check(&exponential(0, 0, &[0.0, 9.0]), &before, true);
    check(&exponential(0, 1, &[9.0]), &before, true);
    check(&exponential(-1, 0, &[1.0, 2.0]), &before, false);
    check(&exponential(1, 0, &[1.0, 9.0, 9.0]), &before, true);
    check(&custom(&[1.0], &[9.0, 9.0]), &before, true);
    let hinted = Histogram {
        reset_hint: ResetHint::NotReset,
        ..exponential(0, 0, &[0.0, 9.0])
    };
    check(&hinted, &before, false);
    let bounds = custom(&[2.0, 4.0, 6.0], &[1.0, 2.0, 5.0, 7.0]);
    check(
        &custom(&[2.0, 3.0, 4.0, 6.0], &[1.0, 0.0, 1.0, 5.0, 8.0]),
        &bounds,
        true,
    );
    check(
        &custom(&[2.0, 3.0, 4.0, 6.0], &[1.0, 1.0, 1.0, 5.0, 8.0]),
        &bounds,
        false,
    );
}

#[test]
fn division_by_zero_leaves_no_buckets() {
    let mut histogram = exponential(0, 0, &[1.0, 2.0]);
    histogram.divide(0.0);
    assert!(histogram.positive.is_empty() && histogram.count.is_infinite());
    let mut histogram = exponential(0, 0, &[1.0, 2.0]);
    histogram.multiply(-2.0);
    assert_eq!(histogram.positive.counts(), [-2.0, -4.0]);
    assert_eq!(histogram.reset_hint, ResetHint::Gauge);
}

#[test]
fn sums_keep_what_rounding_takes_however_they_are_split() {
    let part = |schema: i8, first: i32, value: f64| exponential(schema, first, &[value, 1.0]);
    let parts = [
        part(0, 0, 1.0),
        part(1, 0, 1e100),
        part(0, 5, 1.0),
        part(1, 0, -1e100),
    ];
    let whole = |parts: &[Histogram]| {
        let mut sum = HistogramSum::new(parts[0].clone());
        for part in &parts[1..] {
            sum.add(part).expect("one kind");
        }
        sum
    };
    let expected = whole(&parts).finish();
    // The counts of two parts have lost their ones already.
    assert_eq!(expected.count, 4.0);
    assert_eq!(expected.positive.counts(), [1.0, 3.0, 1.0, 1.0]);
    for split in 1..parts.len() {
        let mut left = whole(&parts[..split]);
        left.merge(&whole(&parts[split..])).expect("one kind");
        assert_eq!(left.finish(), expected, "split at {split}");
    }
}

#[test]
fn malformed_histograms_are_refused() {
    assert_eq!(exponential(0, 0, &[1.0]).check(), Ok(()));
    assert!(exponential(9, 0, &[1.0]).check().is_err());
    assert!(exponential(0, 1 << 30, &[1.0]).check().is_err());
    assert!(custom(&[1.0], &[1.0; 3]).check().is_err());
    assert!(custom(&[2.0, 1.0], &[1.0]).check().is_err());
    assert!(custom(&[f64::INFINITY], &[1.0]).check().is_err());
    let threshold = Histogram {
        zero_threshold: f64::NAN,
        ..Histogram::default()
    };
    assert!(threshold.check().is_err());
}

#[test]
fn bounds_are_part_of_the_memory() {
    let plain = Histogram::default().bytes();
    let histogram = Histogram {
        schema: SCHEMA_CUSTOM,
        custom_bounds: (0..1_000).map(f64::from).collect(),
        ..Histogram::default()
    };
    assert_eq!(histogram.bytes(), plain + 8_000);
}

#[test]
fn whole_counts_are_told_from_others() {
    let whole = Histogram {
        count: 9.0,
        sum: 2.5,
        zero_count: 2.0,
        positive: Buckets::from_spans(&[(0, 2)], vec![4.0, 1.0]).unwrap(),
        negative: Buckets::from_spans(&[(3, 1)], vec![2.0]).unwrap(),
        ..Histogram::default()
    };
    assert!(whole.has_whole_counts());
    assert_eq!(whole.positive.deltas().collect::<Vec<_>>(), [4, -3]);
    assert!(Histogram::default().has_whole_counts());
    let largest = Histogram {
        count: 9_007_199_254_740_992.0,
        zero_count: 9_007_199_254_740_992.0,
        ..Histogram::default()
    };
    assert!(largest.has_whole_counts());
    let changes: [fn(&mut Histogram); 7] = [
        |h| h.count = 9.5,
        |h| h.count = 10.0,
        |h| h.zero_count = -2.0,
        |h| (h.count, h.zero_count) = (7.0, -0.0),
        |h| (h.count, h.zero_count) = (f64::NAN, f64::NAN),
        |h| (h.count, h.zero_count) = (9_007_199_254_740_994.0, 9_007_199_254_740_987.0),
        |h| h.positive = Buckets::from_spans(&[(0, 2)], vec![4.5, 0.5]).unwrap(),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut other = whole.clone();
        change(&mut other);
        assert!(!other.has_whole_counts(), "change {at}");
    }
    let with_nan = Histogram {
        count: 10.0,
        sum: f64::NAN,
        ..whole.clone()
    };
    assert!(with_nan.has_whole_counts());
    let too_many = Histogram {
        count: 8.0,
        ..with_nan
    };
    assert!(!too_many.has_whole_counts());
}
