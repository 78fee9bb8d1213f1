//! Which deltas count, and what is stored of them.

use super::*;

const BOUNDS: Bounds = Bounds {
    doubtful_until: Millis::MIN,
};

fn delta(start: Millis, time: Millis, value: f64) -> Sample {
    Sample {
        start,
        ..Sample::float(time, value)
    }
}

/// A counter of numbers, and what it stores: (time, value).
struct Bench {
    counter: Counter,
    bounds: Bounds,
}

impl Bench {
    fn new() -> Self {
        Self {
            counter: Counter::default(),
            bounds: BOUNDS,
        }
    }

    /// A counter of which this is stored, behind another total, for these deltas.
    fn after((time, value): (Millis, f64), deltas: &[(Millis, Millis, f64)]) -> Self {
        Self::behind(None, (time, value), deltas)
    }

    /// The same behind another sample.
    fn behind(
        before: Option<(Millis, f64)>,
        (time, value): (Millis, f64),
        deltas: &[(Millis, Millis, f64)],
    ) -> Self {
        let deltas = deltas
            .iter()
            .map(|(start, time, value)| delta(*start, *time, *value));
        let deltas: Vec<Sample> = deltas.collect();
        let samples = before.into_iter().chain([(time, value)]);
        let samples = samples.map(|(time, value)| Sample::float(time, value));
        let stored = Stored::of(samples.collect()).expect("there is one");
        Self {
            counter: Counter::read_back(stored, &deltas),
            bounds: BOUNDS,
        }
    }

    /// What a majority may not have, which has it then.
    fn store(&mut self) -> Vec<(Millis, f64)> {
        let number = |sample: &Sample| match &sample.value {
            SampleValue::Float(value) => (sample.time, *value),
            SampleValue::Histogram(histogram) => panic!("{histogram:?} of numbers"),
        };
        let unstored = self.counter.unstored().iter().map(number).collect();
        self.counter.stored();
        unstored
    }

    fn check(&mut self, (start, time, value): (Millis, Millis, f64), stored: &[(Millis, f64)]) {
        let taken = self.counter.take(&delta(start, time, value), self.bounds);
        assert_eq!(taken, Ok(()), "{start} to {time}");
        assert_eq!(self.store(), stored, "{start} to {time}");
    }

    fn refuse(&mut self, (start, time, value): (Millis, Millis, f64), reason: Refusal) {
        let taken = self.counter.take(&delta(start, time, value), self.bounds);
        assert_eq!(taken, Err(reason), "{start} to {time}");
        assert_eq!(self.store(), [], "{start} to {time}");
    }
}

#[test]
fn deltas_add_up_from_a_zero_behind_their_start() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 5.0), &[(1001, 0.0), (2000, 5.0)]);
    // Who reads the first of them back may begin anew here.
    bench.check((2000, 3000, 3.0), &[(2001, 5.0), (3000, 8.0)]);
    bench.check((3000, 4000, 1.0), &[(4000, 9.0)]);
    // What is between may be stored and not be visible yet.
    bench.check((7000, 8000, 2.0), &[(7001, 0.0), (8000, 2.0)]);
    bench.check((8000, 9000, 2.0), &[(8001, 2.0), (9000, 4.0)]);
    // There is room in front of short ones, too, unless the total is there.
    bench.check((9500, 9501, 1.0), &[(9500, 0.0), (9501, 1.0)]);
    bench.check((9600, 9600, 1.0), &[(9599, 0.0), (9600, 1.0)]);
    bench.check((9601, 9601, 1.0), &[(9601, 2.0)]);
    // Nobody looks for a zero long ago.
    bench.check((9700, 999_000, 1.0), &[(699_000, 0.0), (999_000, 1.0)]);
}

#[test]
fn deltas_without_a_start_count_for_themselves() {
    let mut bench = Bench::new();
    bench.check((0, 2000, 5.0), &[(1999, 0.0), (2000, 5.0)]);
    bench.check((0, 3000, 3.0), &[(2999, 0.0), (3000, 3.0)]);
    bench.check((0, 3000, 3.0), &[]);
    bench.refuse((0, 2500, 3.0), TOO_OLD);
}

#[test]
fn a_repeated_delta_counts_once() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 5.0), &[(1001, 0.0), (2000, 5.0)]);
    for turn in 2..=RECENT as Millis {
        let (time, total) = (1000 + turn * 1000, 5.0 + (turn - 1) as f64);
        let cover = (turn == 2).then_some((2001, 5.0));
        let stored: Vec<_> = cover.into_iter().chain([(time, total)]).collect();
        bench.check((time - 1000, time, 1.0), &stored);
    }
    bench.check((1000, 2000, 5.0), &[]);
    bench.check((9000, 10000, 1.0), &[(10000, 13.0)]);
    bench.refuse((1000, 2000, 5.0), TOO_OLD);
}

#[test]
fn as_many_deltas_are_known_again_as_a_request_has() {
    let of = |turn: Millis| (turn * 1000, turn * 1000 + 1000, 1.0);
    let mut bench = Bench::new();
    bench.counter.expect(30);
    bench.check(of(1), &[(1001, 0.0), (2000, 1.0)]);
    bench.check(of(2), &[(2001, 1.0), (3000, 2.0)]);
    for turn in 3..=30 {
        bench.check(of(turn), &[(turn * 1000 + 1000, turn as f64)]);
    }
    bench.counter.expect(30);
    for turn in 1..=30 {
        bench.check(of(turn), &[]);
    }
    bench.check(of(31), &[(32000, 31.0)]);
    bench.refuse(of(1), TOO_OLD);
    bench.check(of(2), &[]);
    let many = bench.counter.bytes();
    (0..40).for_each(|_| bench.counter.expect(1));
    assert!(bench.counter.bytes() < many && bench.counter.earlier_max == 0);
    bench.refuse(of(23), TOO_OLD);
    bench.check(of(24), &[]);
    bench.counter.expect(1_000_000);
    assert_eq!(bench.counter.earlier_max, RECENT_MAX - RECENT);
}

#[test]
fn what_was_not_stored_is_stored_with_the_next() {
    let mut bench = Bench::new();
    let first = delta(1000, 2000, 5.0);
    assert_eq!(bench.counter.take(&first, BOUNDS), Ok(()));
    // The write failed, and the delta is repeated: with the zero in front of it.
    bench.check((1000, 2000, 5.0), &[(1001, 0.0), (2000, 5.0)]);
    bench.check((1000, 2000, 5.0), &[]);
}

#[test]
fn what_comes_late_or_overlaps_is_refused() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 1.0), &[(1001, 0.0), (2000, 1.0)]);
    bench.check((3000, 4000, 4.0), &[(3001, 0.0), (4000, 4.0)]);
    bench.refuse((2000, 3000, 2.0), TOO_OLD);
    bench.refuse((3500, 4500, 1.0), TWO_SENDERS);
    bench.refuse((3000, 4000, 2.0), TWO_SENDERS);
    bench.refuse((1000, 2000, 2.0), TOO_OLD);
    bench.check((4000, 5000, 1.0), &[(4001, 4.0), (5000, 5.0)]);
}

#[test]
fn a_counter_goes_on_from_what_is_stored() {
    let mut next = Bench::after((2000, 7.0), &[(2000, 3000, 1.0)]);
    // Only a minority may have it.
    assert_eq!(next.store(), [(2000, 7.0)]);
    next.check((2000, 3000, 1.0), &[(3000, 8.0)]);
    next.check((3000, 4000, 1.0), &[(4000, 9.0)]);
    // Its sender was not answered by the holder before.
    let mut repeated = Bench::after((2000, 7.0), &[(1000, 2000, 3.0), (2000, 3000, 1.0)]);
    repeated.check((1000, 2000, 3.0), &[(2000, 7.0)]);
    repeated.check((2000, 3000, 1.0), &[(3000, 8.0)]);
    // The counter began with it.
    let mut begun = Bench::after((2000, 3.0), &[(1000, 2000, 3.0)]);
    begun.check((1000, 2000, 3.0), &[(1001, 0.0), (2000, 3.0)]);
    // With two of them, behind a gap: each began anew, as long as the other may not have been stored.
    let request = [(100, 200, 9.0), (1000, 1500, 1.0), (1500, 2000, 2.0)];
    let mut begun = Bench::behind(Some((1501, 0.0)), (2000, 2.0), &request);
    begun.refuse(request[0], TOO_OLD);
    begun.check(request[1], &[(1001, 0.0), (1500, 1.0)]);
    begun.check(request[2], &[(1501, 0.0), (2000, 2.0)]);
    begun.refuse(request[0], TOO_OLD);
    begun.check((3000, 4000, 4.0), &[(3001, 0.0), (4000, 4.0)]);
    // Only the first of them is counted again.
    let mut begun = Bench::behind(Some((1501, 0.0)), (2000, 2.0), &request);
    begun.check(request[1], &[(1001, 0.0), (1500, 1.0)]);
    begun.counter.settle();
    assert_eq!(begun.store(), [(1501, 0.0), (2000, 2.0)]);
    begun.refuse(request[2], TWO_SENDERS);
    begun.check((3000, 4000, 4.0), &[(3001, 0.0), (4000, 4.0)]);
    let mut behind = Bench::after((2000, 7.0), &[]);
    behind.store();
    behind.refuse((1000, 2000, 3.0), TWO_SENDERS);
    behind.refuse((1000, 1999, 1.0), TOO_OLD);
    behind.refuse((1999, 3000, 1.0), TWO_SENDERS);
    behind.check((3000, 4000, 9.0), &[(3001, 0.0), (4000, 9.0)]);
}

#[test]
fn a_first_that_was_read_back_is_not_gone_on_from() {
    let first = (Some((1001, 0.0)), (2000, 5.0));
    let mut bench = Bench::behind(first.0, first.1, &[]);
    bench.bounds.doubtful_until = 4001;
    // Only a minority may have it.
    assert_eq!(bench.store(), [(1001, 0.0), (2000, 5.0)]);
    // Its holder may have gone on, and so may another one that saw where it had to be added.
    bench.check((2000, 3000, 1.0), &[(2001, 0.0), (3000, 1.0)]);
    bench.check((3000, 4000, 2.0), &[(3001, 0.0), (4000, 2.0)]);
    // Nobody else has tried what ends later.
    bench.check((4000, 5000, 4.0), &[(4001, 0.0), (5000, 4.0)]);
    bench.check((5000, 6000, 1.0), &[(5001, 4.0), (6000, 5.0)]);
    bench.check((6000, 7000, 1.0), &[(7000, 6.0)]);
    // A gap is a begin anyway, and the total behind it is certain.
    let mut bench = Bench::behind(first.0, first.1, &[]);
    bench.bounds.doubtful_until = 9001;
    bench.store();
    bench.check((3000, 4000, 1.0), &[(3001, 0.0), (4000, 1.0)]);
    bench.check((4000, 5000, 1.0), &[(4001, 1.0), (5000, 2.0)]);
    // What is counted again of a request is not certain either.
    let request = (1000, 2000, 5.0);
    let mut bench = Bench::behind(first.0, first.1, &[request]);
    bench.check(request, &[(1001, 0.0), (2000, 5.0)]);
    bench.check((2000, 3000, 1.0), &[(2001, 0.0), (3000, 1.0)]);
}

#[test]
fn a_first_is_gone_on_from_once_it_is_stored() {
    let mut bench = Bench::new();
    for one in [delta(1000, 2000, 5.0), delta(2000, 3000, 1.0)] {
        assert_eq!(bench.counter.take(&one, BOUNDS), Ok(()));
    }
    let begun = [(1001, 0.0), (2000, 5.0), (2001, 0.0), (3000, 1.0)];
    assert_eq!(bench.store(), begun);
    for one in [delta(3000, 4000, 1.0), delta(4000, 5000, 1.0)] {
        assert_eq!(bench.counter.take(&one, BOUNDS), Ok(()));
    }
    let gone_on = [(3001, 1.0), (4000, 2.0), (4001, 2.0), (5000, 3.0)];
    assert_eq!(bench.store(), gone_on);
    bench.check((5000, 6000, 1.0), &[(6000, 4.0)]);
}

#[test]
fn the_cover_of_a_total_is_written_again() {
    let mut next = Bench::behind(Some((1001, 7.0)), (2000, 8.0), &[]);
    assert_eq!(next.store(), [(1001, 7.0), (2000, 8.0)]);
    next.check((2000, 3000, 1.0), &[(3000, 9.0)]);
}

/// What is in front of that may be a late total, whose cover is further in front.
#[test]
fn no_more_is_written_again_than_covers_and_what_they_come_from() {
    let number = |(time, value): (Millis, f64)| Sample::float(time, value);
    let stored = |before: &[(Millis, f64)]| {
        let samples = before.iter().copied().chain([(3000, 8.0)]);
        Stored::of(samples.map(number).collect()).expect("there is one")
    };
    let late = (1000, 9.0);
    let begun = Counter::read_back(stored(&[late, (1001, 0.0), (2000, 7.0), (2001, 7.0)]), &[]);
    let expected = [(1001, 0.0), (2000, 7.0), (2001, 7.0), (3000, 8.0)];
    assert_eq!(begun.unstored(), expected.map(number));
    let counter = Counter::read_back(stored(&[late, (2000, 7.0)]), &[]);
    assert_eq!(counter.unstored(), [number((3000, 8.0))]);
    let covered = [late, (1500, 6.0), (2000, 7.0), (2001, 7.0)];
    let counter = Counter::read_back(stored(&covered), &[]);
    let expected = [(2000, 7.0), (2001, 7.0), (3000, 8.0)];
    assert_eq!(counter.unstored(), expected.map(number));
}

#[test]
fn totals_of_an_idle_counter_are_no_covers() {
    let unstored = |times: &[Millis]| {
        let samples = times.iter().map(|time| Sample::float(*time, 7.0));
        let stored = Stored::of(samples.collect()).expect("there is one");
        let counter = Counter::read_back(stored, &[]);
        let times = counter.unstored().iter().map(|sample| sample.time);
        times.collect::<Vec<Millis>>()
    };
    assert_eq!(unstored(&[1000, 2000, 3000, 4000, 5000]), [5000]);
    assert_eq!(
        unstored(&[1000, 2000, 3000, 3001, 4000]),
        [3000, 3001, 4000]
    );
    let covered = [2000, 2001, 3000, 3001, 4000];
    assert_eq!(unstored(&[&[500, 1000], &covered[..]].concat()), covered);
    // The cover of a delta of ten minutes stands five in front of its end.
    let (long, next) = ([2000, 302_000, 602_000], 602_001);
    assert_eq!(unstored(&[&[500, 1000], &long[..]].concat()), long);
    let both = [&[500, 1000], &long[..], &[next, 603_000]].concat();
    assert_eq!(unstored(&both), both[2..]);
    assert_eq!(unstored(&[1000, 2000, 302_001, 602_000]), [602_000]);
}

/// The price of a begin is paid once.
#[test]
fn a_total_of_zero_needs_no_cover() {
    let mut bench = Bench::new();
    bench.check((1000, 2000, 0.0), &[(1001, 0.0), (2000, 0.0)]);
    bench.bounds.doubtful_until = 10_001;
    for turn in 2..=31 {
        let time = turn * 1000;
        bench.check((time, time + 1000, 0.0), &[(time + 1000, 0.0)]);
    }
    bench.check((32_000, 33_000, 5.0), &[(33_000, 5.0)]);
    // The zero in front tells that it is the first.
    let mut next = Bench::behind(Some((32_000, 0.0)), (33_000, 5.0), &[]);
    assert_eq!(next.store(), [(32_000, 0.0), (33_000, 5.0)]);
    next.check((33_000, 34_000, 1.0), &[(33_001, 0.0), (34_000, 1.0)]);
    bench.check((33_000, 34_000, 1.0), &[(33_001, 5.0), (34_000, 6.0)]);
    bench.check((34_000, 35_000, 1.0), &[(35_000, 7.0)]);
    // Who reads back what goes on from a total with a long delta looks for its zero no further in front than that.
    let mut bench = Bench::new();
    bench.check((1000, 2000, 0.0), &[(1001, 0.0), (2000, 0.0)]);
    bench.check((2000, 302_000, 0.0), &[(302_000, 0.0)]);
    let long = [(302_002, 0.0), (602_002, 1.0)];
    bench.check((302_000, 602_002, 1.0), &long);
}

#[test]
fn a_total_covers_the_zero_of_another_holder() {
    let mut bench = Bench::after((2000, 7.0), &[]);
    bench.store();
    bench.bounds.doubtful_until = 3001;
    bench.check((2000, 3000, 1.0), &[(2001, 7.0), (3000, 8.0)]);
    bench.check((3000, 4000, 1.0), &[(4000, 9.0)]);
}

#[test]
fn a_pause_ends_a_counter() {
    let stale = f64::from_bits(STALE_MARKER_BITS);
    let mut bench = Bench::new();
    bench.check((1000, 2000, 5.0), &[(1001, 0.0), (2000, 5.0)]);
    let pause = delta(1000, 3000, stale);
    assert_eq!(bench.counter.take(&pause, BOUNDS), Ok(()));
    let [marker] = bench.counter.unstored() else {
        panic!("{:?}", bench.counter);
    };
    assert!(marker.time == 3000 && is_pause(&marker.value));
    bench.counter.stored();
    assert_eq!(bench.counter.take(&pause, BOUNDS), Ok(()), "repeated");
    bench.refuse((2000, 2500, 1.0), TOO_OLD);
    bench.check((3000, 4000, 1.0), &[(3001, 0.0), (4000, 1.0)]);
    let mut stored = Bench::after((2000, stale), &[(1000, 2000, 1.0)]);
    stored.counter.stored();
    stored.refuse((1000, 2000, 1.0), TWO_SENDERS);
    stored.check((2000, 3000, 1.0), &[(2001, 0.0), (3000, 1.0)]);
    let mut paused = Bench::behind(Some((1000, 7.0)), (2000, stale), &[]);
    paused.counter.stored();
    paused.check((2000, 3000, 1.0), &[(2001, 0.0), (3000, 1.0)]);
    let repeated = Bench::after((2000, stale), &[(1000, 2000, stale)]);
    let mut counter = repeated.counter;
    assert_eq!(counter.take(&delta(1000, 2000, stale), BOUNDS), Ok(()));
    assert_eq!(counter.unstored().len(), 1);
}

#[test]
fn wrong_deltas_change_nothing() {
    Bench::new().refuse((2000, 1000, 1.0), ENDS_BEFORE_IT_BEGINS);
    let mut bench = Bench::new();
    bench.refuse((1000, 2000, f64::NAN), NOT_FINITE);
    bench.refuse((1000, 2000, -1.0), NEGATIVE);
    assert!(bench.counter.is_empty());
    bench.check((1000, 2000, 1.0), &[(1001, 0.0), (2000, 1.0)]);
    bench.refuse((2000, 3000, f64::INFINITY), NOT_FINITE);
    bench.refuse((2000, 3000, -0.5), NEGATIVE);
    bench.check((2000, 3000, 1.0), &[(2001, 1.0), (3000, 2.0)]);
    let mut histogram = delta(3000, 4000, 1.0);
    histogram.value = SampleValue::Histogram(Arc::default());
    // A metric of another kind under the same name.
    assert_eq!(bench.counter.take(&histogram, BOUNDS), Ok(()));
    assert_eq!(bench.counter.unstored().len(), 2);
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
    let mut counter = Counter::default();
    let first = delta(1000, 2000, histogram(1, 3, 5.0));
    let second = delta(2000, 3000, histogram(0, 2, 4.0));
    counter.take(&first, BOUNDS).expect("it counts");
    let zero = delta(1000, 1001, {
        let mut zero = histogram(1, 3, 0.0);
        zero.compact();
        zero
    });
    assert_eq!(counter.unstored(), [zero, first.clone()]);
    counter.stored();
    counter.take(&second, BOUNDS).expect("it counts");
    let cover = Sample {
        time: 2001,
        ..first
    };
    let total = delta(1000, 3000, histogram(0, 2, 9.0));
    assert_eq!(counter.unstored(), [cover, total]);
    let unstored = counter.bytes();
    counter.stored();
    assert!((1..unstored).contains(&counter.bytes()));
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
    let total = sum(&spread(0), &spread(5000)).expect("the same kind");
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
