//! Answers in pieces: what is cut is whole again when it is put together, and pieces that were worked out apart are the whole, too.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{ops::Range, sync::Arc};
use trefoil_model::{Histogram, Labels, ResetHint};
use trefoil_query_promql::{
    Budget, Divided, EvalOptions, Grid, MemoryStorage, Part, PartOutput, PartResult, Piece,
    STALE_MARKER_BITS, Sample, Span, Value, Worked, evaluate_part_in, join,
};

const STEPS: usize = 60;

/// Queries whose whole is a part, with what is wanted of them.
const QUERIES: &[(&str, PartOutput)] = &[
    ("a_total", PartOutput::Rows),
    ("-a_total", PartOutput::Rows),
    ("a_total > 30", PartOutput::Rows),
    ("gauge * 2 > bool time()", PartOutput::Rows),
    ("time() - gauge", PartOutput::Rows),
    ("a_total offset 3m", PartOutput::Rows),
    ("a_total offset -3m", PartOutput::Rows),
    ("timestamp(gauge)", PartOutput::Rows),
    ("rate(a_total[5m])", PartOutput::Rows),
    ("rate(gauge[5m])", PartOutput::Rows),
    ("rate(gauge[5m]) > 0", PartOutput::Rows),
    ("rate({__name__=~\"gauge|a_total\"}[5m])", PartOutput::Rows),
    ("increase(histogram[4m])", PartOutput::Rows),
    (
        "sum_over_time({__name__=~\"histogram|gauge\"}[4m])",
        PartOutput::Rows,
    ),
    ("quantile_over_time(0.4, gauge[6m])", PartOutput::Rows),
    ("quantile_over_time(1.5, gauge[6m])", PartOutput::Rows),
    ("predict_linear(gauge[6m], 60)", PartOutput::Rows),
    ("max_over_time(rate(a_total[3m])[10m:1m])", PartOutput::Rows),
    ("rate(gauge[7m:90s])", PartOutput::Rows),
    ("histogram", PartOutput::Rows),
    ("histogram * 2", PartOutput::Rows),
    ("sum(a_total)", PartOutput::Groups),
    ("sum by (x) (rate(gauge[5m]))", PartOutput::Groups),
    ("avg by (x) (a_total)", PartOutput::Groups),
    ("sum(histogram)", PartOutput::Groups),
    ("avg by (x) (rate(histogram[4m]))", PartOutput::Groups),
    ("min(gauge)", PartOutput::Groups),
    ("max by (x, y) (a_total)", PartOutput::Groups),
    ("min(histogram)", PartOutput::Groups),
    ("count by (x) (gauge > 5)", PartOutput::Groups),
    ("count({__name__=~\".+\"})", PartOutput::Groups),
    ("group(histogram)", PartOutput::Groups),
    ("count_values(\"v\", gauge)", PartOutput::Groups),
    ("topk(2, gauge)", PartOutput::Groups),
    ("bottomk(1, rate(gauge[5m]))", PartOutput::Groups),
    ("limitk(2, a_total)", PartOutput::Groups),
    ("limit_ratio(0.5, a_total)", PartOutput::Groups),
    ("gauge{x=\"1\"}", PartOutput::Presence),
    ("gauge{x=\"none\"}", PartOutput::Presence),
    ("gauge[2m]", PartOutput::Presence),
];

fn part(query: &str, output: PartOutput, start: i64) -> Part {
    let grid = Grid {
        start,
        end: start + (STEPS as i64 - 1) * 60_000,
        step: 60_000,
    };
    Part {
        query: query.into(),
        node: Span::new(0, query.len()),
        output,
        grid,
        query_grid: grid,
        bindings: Vec::new(),
        options: EvalOptions {
            experimental_functions: true,
            ..EvalOptions::default()
        },
        samples_max: 1_000_000,
    }
}

/// Series that come and go, with resets and stale markers, and some that change their kind.
fn storage(random: &mut StdRng) -> MemoryStorage {
    let mut storage = MemoryStorage::default();
    for (name, is_histogram) in [("a_total", false), ("gauge", false), ("histogram", true)] {
        for series in 0..5 {
            let (x, y) = ((series % 2).to_string(), series.to_string());
            let labels = Labels::from_pairs(vec![("__name__", name), ("x", &x), ("y", &y)]);
            let begin = random.random_range(0..40 * 60_000);
            let end = begin + random.random_range(0..80 * 60_000);
            let changes_at = match random.random_range(0..6) {
                0 => random.random_range(begin..=end),
                _ => i64::MAX,
            };
            let mut value = 0.0;
            for time in (begin..end).step_by(15_000 + 1_000 * series) {
                value = match random.random_range(0..20) {
                    0 => 0.0,
                    _ => value + random.random::<f64>() * 3.0,
                };
                let is_histogram = is_histogram != (time > changes_at);
                let value = match (random.random_range(0..30), is_histogram) {
                    (0, _) => Value::Float(f64::from_bits(STALE_MARKER_BITS)),
                    (_, false) => Value::Float(value),
                    (_, true) => Value::Histogram(Arc::new(histogram(value))),
                };
                storage.append(
                    &labels,
                    &Sample {
                        time,
                        start: 0,
                        value,
                    },
                );
            }
        }
    }
    storage
}

fn histogram(value: f64) -> Histogram {
    Histogram {
        count: value,
        sum: value * 2.0,
        zero_count: value,
        reset_hint: ResetHint::Unknown,
        ..Histogram::default()
    }
}

fn work(part: &Part, ends: &[usize], storage: &MemoryStorage) -> Worked {
    evaluate_part_in(part, ends, storage, &Budget::default()).expect(&part.query)
}

/// Bytes, because a value that is absent does not equal itself; without groups that have nothing at any time.
fn bytes(result: &PartResult) -> Vec<u8> {
    bincode::serialize(result).expect("it serialises")
}

/// Some places where an answer is cut; the last one is its end.
fn ends(random: &mut StdRng) -> Vec<usize> {
    let count = random.random_range(0..5);
    let mut ends: Vec<usize> = (0..count).map(|_| random.random_range(1..STEPS)).collect();
    ends.push(STEPS);
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn ranges(ends: &[usize]) -> impl Iterator<Item = Range<usize>> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| start..*end)
}

fn whole<'a>(
    pieces: impl IntoIterator<Item = &'a Piece>,
    output: PartOutput,
) -> Option<PartResult> {
    let pieces = pieces.into_iter().map(|piece| (piece, 0..piece.steps()));
    let pieces: Vec<_> = pieces.collect();
    let joined = join(&pieces, STEPS, output, &Budget::default()).expect("no limit");
    // What grows holds its bytes before it has them all.
    let little = Budget::with_deadline(u64::MAX, 1, || false);
    let bytes = Budget::default().branch();
    if let Some(joined) = &joined {
        joined.hold(output, &bytes).expect("no limit");
    }
    if bytes.held_here().1 > 1 && output != PartOutput::Presence {
        assert!(join(&pieces, STEPS, output, &little).is_err());
    }
    joined
}

#[test]
fn pieces_of_an_answer_are_the_answer() {
    let (mut divisible, mut remarked, mut rest) = (0, 0, 0);
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let storage = storage(&mut random);
        for (query, output) in QUERIES {
            let part = part(query, *output, 1_000 * random.random_range(0..2_000_i64));
            let divided = Divided::of(&part).expect(query).expect(query);
            let ends = ends(&mut random);
            let worked = work(&part, &ends, &storage);
            let expected = bytes(&worked.result);
            assert_eq!(expected, bytes(&work(&part, &[], &storage).result));
            if !worked.is_divisible() {
                rest += 1;
                continue;
            }
            divisible += 1;
            remarked += usize::from(!worked.result.annotations.is_empty());
            // What is cut is whole again.
            let pieces: Vec<Piece> = ranges(&ends)
                .enumerate()
                .map(|(at, steps)| worked.piece(at, steps))
                .collect();
            let joined = whole(&pieces, *output).expect(query);
            assert_eq!(bytes(&joined), expected, "{query} under seed {seed}");
            // What was worked out for some times is what the whole has there.
            let apart: Option<Vec<Piece>> = ranges(&ends)
                .map(|steps| {
                    let worked = work(&divided.at(steps.clone()), &[steps.len()], &storage);
                    let is_divisible = worked.is_divisible();
                    is_divisible.then(|| worked.into_piece(steps.len()))
                })
                .collect();
            let apart = apart.expect("a part of what is divisible is divisible");
            let joined = whole(&apart, *output).expect(query);
            assert_eq!(bytes(&joined), expected, "{query} apart under seed {seed}");
            // Some of the times of a piece.
            let from = random.random_range(0..STEPS - 1);
            let to = random.random_range(from + 1..=STEPS);
            let one = worked.into_piece(STEPS);
            let pieces = [(&one, from..to)];
            let some = join(&pieces, to - from, *output, &Budget::default()).expect(query);
            let is_whole_only = one.is_remarked_upon() && to - from < STEPS;
            assert_eq!(some.is_none(), is_whole_only, "{query}");
            if let Some(some) = some {
                let expected = work(&divided.at(from..to), &[], &storage).result;
                assert_eq!(bytes(&some), bytes(&expected), "{query} in {from}..{to}");
            }
        }
    }
    assert!(
        divisible > 200 && remarked > 20 && rest > 20,
        "{divisible} {remarked} {rest}"
    );
}

/// What the samples of the pieces' reaches determine: nothing else is read.
#[test]
fn a_reach_is_what_is_read() {
    let check = |query: &str, steps: Range<usize>, expected: (i64, i64)| {
        let part = part(query, PartOutput::Rows, 600_000);
        let divided = Divided::of(&part).expect(query).expect(query);
        let reach = divided.reach(steps).expect(query);
        assert_eq!((reach.start, reach.end), expected, "{query}");
    };
    check("a_total", 0..1, (300_001, 600_001));
    check("a_total", 1..3, (360_001, 720_001));
    check("rate(a_total[1m] offset 1m)", 2..4, (600_001, 720_001));
    check("rate(a_total[1m] offset -1m)", 0..2, (600_001, 720_001));
    check("max_over_time(a_total[10m:7m])", 0..1, (120_001, 420_001));
}

#[test]
fn what_depends_on_other_times_is_not_divided() {
    let options = EvalOptions {
        extended_range_selectors: true,
        experimental_functions: true,
        ..EvalOptions::default()
    };
    let divides = |query: &str, output| {
        let part = Part {
            options,
            ..part(query, output, 0)
        };
        Divided::of(&part).expect(query).is_some()
    };
    for query in [
        "x @ 60",
        "x @ end()",
        "rate(x[5m] @ start())",
        "max_over_time(x[5m:1m] @ 60)",
        "x * start()",
        "x * range()",
        "rate(x[step()])",
        "x offset range()",
        "max_over_time(x[1h:step()])",
        "quantile_over_time(time() / 1000, x[5m])",
        "histogram_count(rate(x[5m]))",
    ] {
        assert!(!divides(query, PartOutput::Rows), "{query}");
    }
    assert!(!divides("x[5m]", PartOutput::Samples));
    assert!(!divides("info(x)", PartOutput::Info));
    for query in ["x", "rate(x[5m] smoothed)", "x * pi() + time()"] {
        assert!(divides(query, PartOutput::Rows), "{query}");
    }
    let mut single = part("x", PartOutput::Rows, 0);
    single.grid.end = single.grid.start;
    assert!(Divided::of(&single).expect("a query").is_none());
}

#[test]
fn keys_tell_parts_apart_but_for_their_times() {
    let key = |change: &dyn Fn(&mut Part)| {
        let mut part = part("x", PartOutput::Rows, 60_000);
        change(&mut part);
        Divided::of(&part)
            .expect("a query")
            .expect("it divides")
            .key()
    };
    let same = key(&|_| {});
    let moved = key(&|part| (part.grid.start, part.grid.end) = (600_000, 1_200_000));
    assert_eq!(same, moved);
    assert_ne!(same, key(&|part| part.grid.start += 1));
    assert_ne!(same, key(&|part| part.grid.step *= 2));
    assert_ne!(same, key(&|part| part.options.look_back_ms += 1));
    assert_ne!(same, key(&|part| part.output = PartOutput::Presence));
    let fine = key(&|part| part.options.source_resolution_max_ms = 60_000);
    assert_eq!(same, fine, "no buckets are that short");
    let coarse = key(&|part| {
        part.options.source_resolution_max_ms = 300_000;
        (part.grid.start, part.grid.step) = (300_000, 300_000);
    });
    assert_ne!(same, coarse);
}

#[test]
fn an_answer_holds_what_it_held_when_it_was_worked_out() {
    let mut random = StdRng::seed_from_u64(1);
    let storage = storage(&mut random);
    for (query, output) in QUERIES {
        let part = part(query, *output, 0);
        let (held, again) = (Budget::default().branch(), Budget::default().branch());
        let worked = evaluate_part_in(&part, &[], &storage, &held).expect(query);
        worked.result.hold(*output, &again).expect("room");
        let (samples, bytes) = held.held_here();
        assert_eq!(again.held_here().0, samples, "samples of {query}");
        // The states of histograms shrink and grow while they are added up.
        let apart = again.held_here().1.abs_diff(bytes);
        assert!(
            apart <= bytes / 8,
            "bytes of {query}: {bytes}, {apart} apart"
        );
    }
}
