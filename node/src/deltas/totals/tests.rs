//! What is remembered, for how long, and within which bounds.

use super::*;
use std::sync::Arc;
use trefoil_api::remote_write::SampleValue;
use trefoil_model::{Histogram, histogram::Buckets};

const A: SeriesHash = SeriesHash(1);
const B: SeriesHash = SeriesHash(2);

fn at(seconds: u64) -> Now {
    Now {
        boot: Duration::from_secs(seconds),
        time: seconds as Millis * 1000,
        oldest: Millis::MIN,
    }
}

fn delta(start: i64, time: i64, value: f64) -> Sample {
    Sample {
        start,
        ..Sample::float(time, value)
    }
}

/// A sample that was found without one in front of it.
fn alone(newest: &Sample) -> Stored {
    Stored::of(vec![newest.clone()]).expect("there is one")
}

/// Remembers a series of which nothing is stored.
fn recall(
    totals: &mut Totals,
    series: SeriesHash,
    deltas: &[Sample],
    now: Now,
) -> Result<(), NoRoom> {
    totals.keep_found(series, None, 0, DeletionVersion(0), now)?;
    totals.recall(series, deltas, now)
}

/// Takes deltas of a series of which nothing is stored; how many samples are to be stored, and the refusals.
fn take(totals: &mut Totals, series: SeriesHash, deltas: &[Sample]) -> (usize, Vec<Refusal>) {
    let ticket = totals.ask(&[series]);
    if !totals.remembers(series)
        && let Err(reason) = recall(totals, series, deltas, at(1))
    {
        let NoRoom::Series(reason) = reason else {
            panic!("memory is short");
        };
        totals.end(ticket, &[series]);
        return (0, vec![reason]);
    }
    let mut refused = Vec::new();
    let taken = totals.take(series, deltas, at(1), &mut Step::default(), &mut refused);
    assert_eq!(taken, Some(deltas.len()));
    let samples = totals.unstored(series).len();
    totals.stored(series);
    totals.end(ticket, &[series]);
    (samples, refused)
}

#[test]
fn further_series_are_refused_until_idle_ones_are_forgotten() {
    let mut totals = Totals::new(1);
    assert!(totals.begin(1, at(0)));
    assert_eq!(take(&mut totals, A, &[delta(5, 10, 1.0)]), (2, vec![]));
    assert_eq!(take(&mut totals, B, &[delta(5, 10, 1.0)]), (0, vec![FULL]));
    assert_eq!(take(&mut totals, A, &[delta(20, 30, 1.0)]), (2, vec![]));
    assert!(totals.begin(1, at(300)));
    assert!(totals.remembers(A));
    let ticket = totals.ask(&[A]);
    assert!(totals.begin(1, at(331)));
    assert!(totals.remembers(A), "a request works on it");
    totals.end(ticket, &[A]);
    assert!(totals.begin(1, at(362)));
    assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
    assert_eq!(take(&mut totals, B, &[delta(5, 10, 1.0)]), (2, vec![]));
    totals.forget(B);
    assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
}

#[test]
fn what_may_not_be_stored_is_kept_while_it_can_be() {
    let mut totals = Totals::new(2);
    assert!(totals.begin(1, at(0)));
    let ticket = totals.ask(&[A, B]);
    for series in [A, B] {
        let deltas = [delta(5, if series == A { 10 } else { 20 }, 1.0)];
        assert_eq!(recall(&mut totals, series, &deltas, at(1)), Ok(()));
        let mut step = Step::default();
        totals.take(series, &deltas, at(1), &mut step, &mut vec![]);
    }
    totals.end(ticket, &[A, B]);
    assert!(totals.begin(1, at(400)));
    assert_eq!((totals.counters.len(), totals.waiting), (2, 2));
    let with = |seconds, oldest| Now {
        oldest,
        ..at(seconds)
    };
    assert!(totals.begin(1, with(500, 11)));
    assert!(!totals.remembers(A), "nobody writes it any more");
    assert_eq!((totals.counters.len(), totals.waiting), (1, 1));
    // Who comes again finds it, however old it is.
    let ticket = totals.ask(&[B]);
    assert!(totals.begin(1, with(600, 21)) && totals.remembers(B));
    totals.end(ticket, &[B]);
    assert!(totals.begin(1, at(6 * 3600)) && totals.remembers(B));
    assert!(totals.begin(1, at(6 * 3600 + 31)));
    assert_eq!(
        (totals.counters.len(), totals.bytes, totals.waiting),
        (0, 0, 0)
    );
}

#[test]
fn idle_ones_are_kept_for_longer_while_there_is_room() {
    let mut totals = Totals::new(4);
    assert!(totals.begin(1, at(0)));
    let series = |number| SeriesHash(number);
    take(&mut totals, series(1), &[delta(5, 10, 1.0)]);
    assert!(totals.begin(1, at(3600)) && totals.remembers(series(1)));
    assert!(totals.begin(1, at(3631)) && !totals.remembers(series(1)));
    for number in 1..=4 {
        take(&mut totals, series(number), &[delta(5, 10, 1.0)]);
    }
    // Those that are too many at once find no room, but for that of idle ones.
    assert_eq!(
        recall(&mut totals, series(5), &[], at(290)),
        Err(NoRoom::Series(FULL))
    );
    assert_eq!(recall(&mut totals, series(5), &[], at(3700)), Ok(()));
    assert_eq!(totals.counters.len(), 1);
}

/// A delta of a histogram with buckets of its own.
fn large(number: i64) -> Sample {
    let buckets = Buckets::from_spans(&[(number as i32 * 100, 100)], vec![1.0; 100]);
    let histogram = Histogram {
        schema: 3,
        count: 100.0,
        positive: buckets.expect("one span"),
        ..Histogram::default()
    };
    Sample {
        value: SampleValue::Histogram(Arc::new(histogram)),
        ..delta(number * 10, number * 10 + 10, 0.0)
    }
}

#[test]
fn a_step_is_bounded() {
    let mut totals = Totals::new(2);
    totals.begin(1, at(0));
    let deltas: Vec<Sample> = (1..=600).map(|n| delta(n * 10, n * 10 + 10, 1.0)).collect();
    assert_eq!(recall(&mut totals, A, &deltas, at(1)), Ok(()));
    let (mut taken, mut refused) = (0, Vec::new());
    for expected in [256, 512, 600] {
        let left = &deltas[taken..];
        taken += totals
            .take(A, left, at(1), &mut Step::default(), &mut refused)
            .expect("remembered");
        assert_eq!(taken, expected);
        totals.stored(A);
    }
    assert_eq!(refused, [] as [Refusal; 0]);
    assert_eq!(recall(&mut totals, B, &[], at(1)), Ok(()));
    let deltas: Vec<Sample> = (1..=600).map(large).collect();
    let mut step = Step {
        bytes: 100_000,
        ..Step::default()
    };
    let taken = totals.take(B, &deltas, at(1), &mut step, &mut refused);
    assert!(
        taken.is_some_and(|taken| (2..100).contains(&taken)),
        "{taken:?}"
    );
    assert!(!step.is_full && totals.bytes < 200_000, "{}", totals.bytes);
}

#[test]
fn what_memory_has_no_room_for_comes_again() {
    let mut totals = Totals::new(99);
    totals.begin(1, at(0));
    totals.bytes_max = 200_000;
    let series = |number| SeriesHash(number);
    let ticket = totals.ask(&[series(1)]);
    let (mut step, mut refused) = (Step::default(), Vec::new());
    let deltas: Vec<Sample> = (1..=200).map(large).collect();
    assert_eq!(recall(&mut totals, series(1), &deltas, at(1)), Ok(()));
    let taken = totals.take(series(1), &deltas, at(1), &mut step, &mut refused);
    let taken = taken.expect("remembered");
    assert!(step.is_full && (2..150).contains(&taken), "{taken}");
    assert!((200_000..300_000).contains(&totals.bytes));
    assert_eq!(
        recall(&mut totals, series(2), &[], at(1)),
        Err(NoRoom::Bytes)
    );
    // It may not be stored: it is kept, however long.
    totals.end(ticket, &[series(1)]);
    assert_eq!(
        recall(&mut totals, series(2), &[], at(999)),
        Err(NoRoom::Bytes)
    );
    assert!(totals.remembers(series(1)));
    totals.stored(series(1));
    let mut step = Step::default();
    let next = totals.take(
        series(1),
        &deltas[taken..],
        at(999),
        &mut step,
        &mut refused,
    );
    assert!(
        next.is_some_and(|next| next > 0),
        "it goes on once that is stored"
    );
    assert!(refused.is_empty());
    totals.stored(series(1));
    assert_eq!(recall(&mut totals, series(2), &[], at(999)), Ok(()));
    // Many totals fill it as well, until those are forgotten that were not used just now.
    let mut number = 3;
    while totals.bytes < totals.series_bytes_max() {
        assert_eq!(recall(&mut totals, series(number), &[], at(1005)), Ok(()));
        let mut step = Step::default();
        totals.take(
            series(number),
            &deltas[..1],
            at(1005),
            &mut step,
            &mut refused,
        );
        totals.stored(series(number));
        number += 1;
    }
    assert_eq!(
        recall(&mut totals, series(98), &[], at(1006)),
        Err(NoRoom::Bytes)
    );
    assert_eq!(recall(&mut totals, series(98), &[], at(1016)), Ok(()));
    assert_eq!(totals.counters.len(), 1);
}

#[test]
fn nothing_is_remembered_under_another_fencing_number() {
    let mut totals = Totals::new(9);
    totals.begin(3, at(0));
    take(&mut totals, A, &[delta(5, 10, 1.0)]);
    assert!(!totals.begin(2, at(0)), "an old holder");
    assert!(totals.remembers(A));
    assert!(totals.begin(4, at(0)));
    assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
    let mut refused = Vec::new();
    let deltas = [delta(10, 20, 1.0)];
    let mut step = Step::default();
    let taken = totals.take(A, &deltas, at(0), &mut step, &mut refused);
    assert_eq!(taken, None);
    assert!(refused.is_empty());
}

#[test]
fn a_refused_first_delta_leaves_room_for_the_next() {
    let mut totals = Totals::new(1);
    totals.begin(1, at(0));
    let (stored, refused) = take(&mut totals, A, &[delta(30, 20, 1.0)]);
    assert_eq!((stored, refused.len(), totals.counters.len()), (0, 1, 0));
    let deltas = [delta(30, 20, 1.0), delta(20, 30, 2.0)];
    let (stored, refused) = take(&mut totals, B, &deltas);
    assert_eq!((stored, refused.len()), (2, 1));
}

#[test]
fn one_request_works_on_a_series() {
    let mut totals = Totals::new(9);
    let first = totals.ask(&[A]);
    let second = totals.ask(&[B, A]);
    assert!(totals.has_turn(first, &[A]));
    assert!(totals.begin(1, at(0)), "which does not change that");
    assert!(!totals.has_turn(second, &[B, A]));
    assert_eq!(recall(&mut totals, A, &[], at(0)), Ok(()));
    totals.end(second, &[B, A]);
    assert!(totals.remembers(A), "who waited changes nothing");
    totals.end(first, &[A]);
    assert!(!totals.remembers(A), "nothing is in it");
}

#[test]
fn what_was_found_is_there_for_the_next_try() {
    let mut totals = Totals::new(9);
    totals.begin(1, at(0));
    let ticket = totals.ask(&[A, B]);
    let (stored, known) = (Sample::float(20, 7.0), DeletionVersion(2));
    assert!(totals.lacks(A, 20) && totals.lacks(B, 20));
    let kept = totals.keep_found(A, Some(alone(&stored)), 20, known, at(1));
    assert_eq!(kept, Ok(()));
    // The rest could not be read.
    totals.end(ticket, &[A, B]);
    assert!(!totals.lacks(A, 20) && !totals.remembers(A) && totals.lacks(B, 20));
    assert_eq!(totals.recall(B, &[], at(2)), Err(NoRoom::Bytes));
    let delta = delta(20, 30, 1.0);
    let deltas = std::slice::from_ref(&delta);
    assert_eq!(totals.recall(A, deltas, at(2)), Ok(()));
    assert_eq!(totals.unstored(A), [stored]);
    totals.forget(A);
    assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
    // Not for ever, and not under another fencing number.
    assert_eq!(totals.keep_found(A, None, 20, known, at(3)), Ok(()));
    assert!(totals.begin(1, at(303)) && totals.lacks(A, 20));
    assert_eq!(totals.bytes, 0);
    assert_eq!(totals.keep_found(A, None, 20, known, at(304)), Ok(()));
    assert!(totals.begin(2, at(305)) && totals.lacks(A, 20));
    assert_eq!(totals.bytes, 0);
}

/// A request with many series has a place for each of them.
#[test]
fn where_memory_is_short_less_is_kept_of_what_was_found() {
    let mut totals = Totals::new(9999);
    totals.begin(1, at(0));
    totals.bytes_max = 2_000_000;
    let series: Vec<SeriesHash> = (0..2000).map(SeriesHash).collect();
    let ticket = totals.ask(&series);
    // Totals and their covers in turn.
    let samples = (1..=200).map(|at| Sample::float(at / 2 * 1000 + at % 2, (at / 2) as f64));
    let stored = Stored::of(samples.collect()).expect("there is one");
    assert!(stored.bytes() * series.len() > 5 * totals.bytes_max);
    let none = DeletionVersion(0);
    for one in &series {
        let kept = totals.keep_found(*one, Some(stored.clone()), 20, none, at(1));
        assert_eq!(kept, Ok(()));
    }
    for one in &series {
        assert_eq!(totals.recall(*one, &[], at(1)), Ok(()));
    }
    let times = |series: SeriesHash| -> Vec<Millis> {
        let unstored = totals.unstored(series).iter();
        unstored.map(|one| one.time).collect()
    };
    assert_eq!(times(series[0]).len(), 200);
    // The newest one and its cover.
    let newest = Sample::float(100_000, 100.0);
    assert_eq!(totals.unstored(series[1999]).last(), Some(&newest));
    assert_eq!(times(series[1999]), [99_001, 100_000]);
    totals.end(ticket, &series);
    series.iter().for_each(|one| totals.forget(*one));
    assert_eq!(totals.bytes, 0);
}

#[test]
fn what_was_found_without_what_is_in_front_is_looked_for_again() {
    let mut totals = Totals::new(9);
    totals.begin(1, at(0));
    let stored = alone(&Sample::float(20, 7.0));
    for has_before in [false, true] {
        totals.ask_for_before(has_before);
        assert!(totals.lacks(A, 20) && totals.bytes == 0);
        let (stored, none) = (Some(stored.clone()), DeletionVersion(0));
        assert_eq!(totals.keep_found(A, stored, 20, none, at(1)), Ok(()));
        totals.ask_for_before(has_before);
        assert!(!totals.lacks(A, 20));
    }
}

#[test]
fn nothing_found_says_nothing_of_what_is_in_front() {
    let mut totals = Totals::new(9);
    totals.begin(1, at(0));
    let none = DeletionVersion(0);
    let ticket = totals.ask(&[A, B]);
    assert_eq!(totals.keep_found(A, None, 70, none, at(1)), Ok(()));
    let total = Sample::float(80, 7.0);
    let kept = totals.keep_found(B, Some(alone(&total)), 70, none, at(1));
    assert_eq!(kept, Ok(()));
    totals.end(ticket, &[A, B]);
    // Of the next request: deltas in front of those that were looked for.
    assert!(totals.lacks(A, 50) && !totals.lacks(A, 70) && !totals.lacks(A, 90));
    assert!(!totals.lacks(B, 50), "the newest one is there");
    let total = Sample::float(60, 6.0);
    let kept = totals.keep_found(A, Some(alone(&total)), 50, none, at(2));
    assert_eq!(kept, Ok(()));
    assert_eq!(totals.recall(A, &[delta(50, 60, 1.0)], at(2)), Ok(()));
    assert_eq!(totals.unstored(A), [total]);
}

#[test]
fn what_a_deletion_erases_is_forgotten() {
    let mut totals = Totals::new(9);
    totals.begin(1, at(0));
    let of = DeletionVersion;
    for series in [A, B] {
        take(&mut totals, series, &[delta(5, 10, 1.0)]);
    }
    totals.heed(A, of(0), |_, _| panic!("there is none"));
    totals.heed(A, of(2), |known, at| (known, at) != (of(0), 10));
    assert!(totals.remembers(A), "it is another one's");
    totals.heed(A, of(2), |_, _| panic!("that is known"));
    totals.heed(B, of(2), |known, at| (known, at) == (of(0), 10));
    assert!(totals.lacks(B, 20));
    // What was read back before it may be erased by it.
    assert_eq!(totals.keep_found(B, None, 20, of(2), at(1)), Ok(()));
    totals.heed(B, of(2), |_, _| panic!("nothing is remembered"));
    assert!(!totals.lacks(B, 20));
    totals.heed(B, of(3), |_, _| panic!("nothing is remembered"));
    // What may not be stored of one that goes on is erased where the deletion reaches.
    let deltas = [delta(10, 20, 1.0), delta(20, 30, 2.0)];
    let mut step = Step::default();
    totals.take(A, &deltas, at(1), &mut step, &mut vec![]);
    let times = |totals: &Totals| -> Vec<Millis> {
        totals.unstored(A).iter().map(|one| one.time).collect()
    };
    assert!(times(&totals).contains(&20));
    totals.heed(A, of(4), |known, at| known == of(2) && at < 30);
    assert_eq!(times(&totals), [30]);
    assert!(totals.remembers(A));
    assert!(totals.lacks(B, 20));
}
