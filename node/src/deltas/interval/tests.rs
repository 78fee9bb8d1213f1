//! Which deltas count, and what is stored of them.

use super::*;

fn delta(start: Millis, time: Millis, value: f64) -> Sample {
    Sample {
        start,
        ..Sample::float(time, value)
    }
}

/// A counter of numbers that goes on from a stored sample, and what it stores: (time, value).
struct Bench {
    counter: Option<Counter>,
    known: Option<Sample>,
}

impl Bench {
    fn new() -> Self {
        Self::after(None)
    }

    fn after(known: Option<(Millis, f64)>) -> Self {
        Self {
            counter: None,
            known: known.map(|(time, value)| Sample::float(time, value)),
        }
    }

    fn take(&mut self, delta: &Sample) -> Result<Vec<(Millis, f64)>, Refusal> {
        let mut out = Vec::new();
        match &mut self.counter {
            Some(counter) => counter.take(delta, &mut out)?,
            None => self.counter = Some(Counter::begin(delta, self.known.as_ref(), &mut out)?),
        }
        let number = |sample: &Sample| match &sample.value {
            SampleValue::Float(value) => (sample.time, *value),
            SampleValue::Histogram(histogram) => panic!("{histogram:?} of numbers"),
        };
        Ok(out.iter().map(number).collect())
    }

    fn check(&mut self, (start, time, value): (Millis, Millis, f64), stored: &[(Millis, f64)]) {
        let taken = self.take(&delta(start, time, value));
        assert_eq!(taken.as_deref(), Ok(stored), "{start} to {time}");
    }

    fn refuse(&mut self, (start, time, value): (Millis, Millis, f64), reason: Refusal) {
        let taken = self.take(&delta(start, time, value));
        assert_eq!(taken, Err(reason), "{start} to {time}");
    }
}

#[test]
fn deltas_add_up_from_a_zero_behind_their_start() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 5.0), &[(1001, 0.0), (2000, 5.0)]);
    bench.check((2000, 3000, 3.0), &[(3000, 8.0)]);
    // The sender was silent, or has begun anew.
    bench.check((7000, 8000, 2.0), &[(8000, 10.0)]);
    let mut unknown = Bench::new();
    unknown.check((0, 2000, 5.0), &[(2000, 5.0)]);
    unknown.check((0, 3000, 3.0), &[(3000, 8.0)]);
    unknown.refuse((0, 2500, 3.0), TOO_OLD);
    let mut short = Bench::new();
    short.check((1999, 2000, 5.0), &[(2000, 5.0)]);
}

#[test]
fn a_repeated_delta_stores_the_same_again() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 5.0), &[(1001, 0.0), (2000, 5.0)]);
    bench.check((1000, 2000, 5.0), &[(2000, 5.0)]);
    bench.check((2000, 3000, 3.0), &[(3000, 8.0)]);
    bench.check((2000, 3000, 3.0), &[(3000, 8.0)]);
    // Of an older one it is known that it was counted.
    bench.check((1000, 2000, 5.0), &[(3000, 8.0)]);
    bench.refuse((0, 1000, 1.0), TOO_OLD);
    bench.refuse((500, 1000, 1.0), TOO_OLD);
}

#[test]
fn what_comes_late_is_added_behind_the_newest_total() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 1.0), &[(1001, 0.0), (2000, 1.0)]);
    bench.check((4000, 5000, 4.0), &[(5000, 5.0)]);
    bench.check((3000, 4000, 3.0), &[(5001, 8.0)]);
    bench.check((3000, 4000, 3.0), &[(5001, 8.0)]);
    bench.check((2000, 3000, 2.0), &[(5002, 10.0)]);
    bench.check((5000, 5002, 1.0), &[(5003, 11.0)]);
    bench.check((5002, 6000, 1.0), &[(6000, 12.0)]);
}

#[test]
fn gaps_are_remembered_up_to_a_number() {
    let mut bench = Bench::new();
    let mut total = 0.0;
    for turn in 0..=5 {
        let start = 1000 + turn * 100;
        total += 1.0;
        let stored = [(start + 1, 0.0), (start + 10, total)];
        bench.check((start, start + 10, 1.0), &stored[usize::from(turn > 0)..]);
    }
    // The first of five gaps is forgotten: whether something was counted there is not known.
    bench.refuse((1010, 1020, 1.0), TOO_OLD);
    bench.check((1150, 1160, 1.0), &[(1511, 7.0)]);
    // Its two sides are one more.
    bench.refuse((1110, 1120, 1.0), TOO_OLD);
    bench.check((1210, 1300, 1.0), &[(1512, 8.0)]);
}

#[test]
fn two_senders_with_the_same_labels_are_told() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 1.0), &[(1001, 0.0), (2000, 1.0)]);
    bench.refuse((1500, 2500, 1.0), TWO_SENDERS);
    bench.refuse((1000, 2000, 2.0), TWO_SENDERS);
    bench.check((3000, 4000, 1.0), &[(4000, 2.0)]);
    bench.refuse((1500, 2500, 1.0), TWO_SENDERS);
    bench.check((4000, 5000, 1.0), &[(5000, 3.0)]);
}

#[test]
fn a_counter_goes_on_from_what_is_stored() {
    let mut next = Bench::after(Some((2000, 7.0)));
    next.check((2000, 3000, 1.0), &[(3000, 8.0)]);
    next.check((3000, 4000, 1.0), &[(4000, 9.0)]);
    // Its sender was not answered by the holder before.
    let mut repeated = Bench::after(Some((2000, 7.0)));
    repeated.check((1000, 2000, 3.0), &[(2000, 7.0)]);
    repeated.check((2000, 3000, 1.0), &[(3000, 8.0)]);
    // Some came late.
    Bench::after(Some((2004, 7.0))).check((2000, 3000, 1.0), &[(3000, 8.0)]);
    Bench::after(Some((2005, 7.0))).refuse((2000, 3000, 1.0), TWO_SENDERS);
    Bench::after(Some((2000, 7.0))).check((0, 3000, 1.0), &[(3000, 8.0)]);
    Bench::after(Some((2000, 7.0))).refuse((1000, 1999, 1.0), TOO_OLD);
    // What is between may be stored and not be visible yet.
    let mut gap = Bench::after(Some((2000, 7.0)));
    gap.check((3000, 4000, 9.0), &[(3001, 0.0), (4000, 9.0)]);
    Bench::after(Some((2000, f64::NAN))).refuse((1000, 2000, 1.0), TOO_OLD);
    Bench::after(Some((2001, f64::NAN))).refuse((1000, 2000, 1.0), TOO_OLD);
    let mut paused = Bench::after(Some((2000, f64::NAN)));
    paused.check((2000, 3000, 1.0), &[(2001, 0.0), (3000, 1.0)]);
}

#[test]
fn wrong_deltas_change_nothing() {
    Bench::new().refuse((2000, 1000, 1.0), ENDS_BEFORE_IT_BEGINS);
    let mut bench = Bench::new();
    bench.refuse((1000, 2000, f64::NAN), NOT_FINITE);
    bench.check((1000, 2000, 1.0), &[(1001, 0.0), (2000, 1.0)]);
    bench.refuse((2000, 3000, f64::INFINITY), NOT_FINITE);
    let mut histogram = delta(2000, 3000, 1.0);
    histogram.value = SampleValue::Histogram(Arc::default());
    assert_eq!(bench.take(&histogram), Err(OTHER_KIND));
    bench.check((2000, 3000, 1.0), &[(3000, 2.0)]);
}

#[test]
fn histograms_add_up_at_the_coarser_of_their_schemas() {
    let histogram = |schema: i8, at: i32, count: f64| Histogram {
        schema,
        count,
        sum: count * 2.0,
        positive: Buckets::from_spans(&[(at, 1)], vec![count]).expect("one bucket"),
        ..Histogram::default()
    };
    let delta = |start, time, histogram| Sample {
        time,
        start,
        value: SampleValue::Histogram(Arc::new(histogram)),
    };
    let mut out = Vec::new();
    let first = delta(1000, 2000, histogram(1, 3, 5.0));
    let mut counter = Counter::begin(&first, None, &mut out).expect("the first");
    let second = delta(2000, 3000, histogram(0, 2, 4.0));
    counter.take(&second, &mut out).expect("the second");
    let expected = [
        delta(1000, 1001, {
            let mut zero = histogram(1, 3, 0.0);
            zero.compact();
            zero
        }),
        first,
        delta(1000, 3000, histogram(0, 2, 9.0)),
    ];
    assert_eq!(out, expected);
    assert!(counter.bytes() > 0);
}

#[test]
fn a_total_never_has_more_buckets_than_may_come_in() {
    let spread = |from: i32| {
        let count = BUCKETS_INGESTED_MAX;
        let buckets = Buckets::from_spans(&[(from, count as u32)], vec![1.0; count]);
        let histogram = Histogram {
            schema: 3,
            count: count as f64,
            positive: buckets.expect("one span"),
            ..Histogram::default()
        };
        SampleValue::Histogram(Arc::new(histogram))
    };
    let mut total = spread(0);
    add(&mut total, &spread(5000)).expect("the same kind");
    let SampleValue::Histogram(total) = total else {
        panic!("it is a number");
    };
    // At schema 2 there are two buckets too many, because bounds fall between the pairs.
    assert_eq!(
        (total.schema, total.count),
        (1, 2.0 * BUCKETS_INGESTED_MAX as f64)
    );
    assert!(total.positive.len() <= BUCKETS_INGESTED_MAX);
}
