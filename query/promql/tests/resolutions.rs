//! Answers from aggregates against answers from samples: random series and aligned queries, under seeds.

use futures::executor::block_on;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use trefoil_model::{Labels, Millis};
use trefoil_query_promql::{
    Budget, EvalOptions, Grid, MemorySource, QueryData, QueryOptions, QueryResult,
    STALE_MARKER_BITS, Value, query_range,
};

const HOUR: Millis = 3_600_000;

fn labels(number: usize) -> Labels {
    let number = number.to_string();
    Labels::from_pairs(vec![("__name__", "x_total"), ("n", number.as_str())])
}

/// Counters with resets, gauges, constants; gaps, markers, NaN; jitter or samples at the ends of buckets.
fn source(random: &mut StdRng) -> MemorySource {
    let mut source = MemorySource::new(3);
    for number in 0..8 {
        let step = [15_000, 30_000, 60_000, 300_000][random.random_range(0..4)];
        let jitter = random.random_range(0..2) * 500;
        let mut value = 1_000.0;
        for at in 0..6 * HOUR / step {
            let time = at * step + random.random_range(0..=jitter);
            value = match number % 4 {
                0 => value + f64::from(random.random_range(0..50)),
                1 if random.random_bool(0.02) => f64::from(random.random_range(0..5)),
                1 => value + f64::from(random.random_range(0..50)) / 100.0,
                2 => f64::from(random.random_range(-500..500)) / 10.0,
                _ => value,
            };
            match random.random_range(0..200) {
                0..4 => continue,
                4 => source.insert(&labels(number), time, f64::from_bits(STALE_MARKER_BITS)),
                5 if number == 2 => source.insert(&labels(number), time, f64::NAN),
                _ => source.insert(&labels(number), time, value),
            }
        }
    }
    source
}

fn ask(source: &MemorySource, query: &str, grid: Grid, resolution: Millis) -> QueryResult {
    let options = QueryOptions {
        eval: EvalOptions {
            source_resolution_max_ms: resolution,
            experimental_functions: true,
            ..EvalOptions::default()
        },
        budget: Budget::new(1 << 30),
    };
    block_on(query_range(source, query, grid, &options)).expect(query)
}

/// Series and times with their values.
fn values(result: &QueryResult) -> BTreeMap<(Vec<u8>, Millis), f64> {
    let QueryData::Matrix(series) = &result.data else {
        panic!("a range query gives a matrix");
    };
    let mut found = BTreeMap::new();
    for one in series {
        for point in &one.points {
            let Value::Float(value) = &point.value else {
                panic!("there are no histograms");
            };
            found.insert((one.labels.canonical().to_vec(), point.time), *value);
        }
    }
    found
}

fn is_near(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

/// Whether the answer came from aggregates.
fn check(source: &MemorySource, query: &str, grid: Grid, resolution: Millis) -> bool {
    let (expected, found) = (
        ask(source, query, grid, 0),
        ask(source, query, grid, resolution),
    );
    let (samples, aggregates) = (values(&expected), values(&found));
    assert!(samples.keys().eq(aggregates.keys()), "{query} {grid:?}");
    for (key, value) in samples {
        let own = aggregates[&key];
        assert!(
            is_near(value, own),
            "{query} {grid:?} {key:?}: {own}, not {value}"
        );
    }
    found
        .infos
        .iter()
        .any(|text| text.contains("aggregates of"))
}

const FUNCTIONS: [&str; 13] = [
    "rate",
    "increase",
    "delta",
    "avg_over_time",
    "sum_over_time",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "present_over_time",
    "first_over_time",
    "last_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
];

#[test]
fn aggregates_answer_as_samples_do() {
    let mut used = 0;
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let source = source(&mut random);
        for _ in 0..25 {
            let function = FUNCTIONS[random.random_range(0..FUNCTIONS.len())];
            let range = ["5m", "10m", "1h", "2h", "7m", "65m"][random.random_range(0..6)];
            let offset = ["", " offset 1h", " offset 5m", " @ 7200", " offset 7s"];
            let offset = offset[random.random_range(0..5)];
            let query = match random.random_range(0..4) {
                0 => format!("sum by (n) (x_total{offset})"),
                1 => format!("timestamp(x_total{offset})"),
                2 => format!("max_over_time({function}(x_total[{range}])[1h:10m]{offset})"),
                _ => format!("{function}(x_total[{range}]{offset})"),
            };
            let step = [300_000, 600_000, HOUR, 90_000][random.random_range(0..4)];
            let start =
                random.random_range(0..3) * HOUR + [0, 0, 300_000, 7][random.random_range(0..4)];
            let grid = Grid {
                start,
                end: 7 * HOUR,
                step,
            };
            let resolution = [300_000, HOUR, Millis::MAX][random.random_range(0..3)];
            used += i32::from(check(&source, &query, grid, resolution));
        }
    }
    assert!(used > 40, "aggregates were used {used} times");
}

#[test]
fn what_is_not_exact_is_answered_from_samples() {
    let mut random = StdRng::seed_from_u64(1);
    let source = source(&mut random);
    let aligned = Grid {
        start: HOUR,
        end: 5 * HOUR,
        step: HOUR,
    };
    let uses = |query: &str, grid| check(&source, query, grid, Millis::MAX);
    assert!(uses("rate(x_total[1h])", aligned));
    assert!(uses("rate(x_total[5m])", aligned));
    assert!(uses("x_total", aligned));
    assert!(!uses("rate(x_total[1h30s])", aligned));
    assert!(!uses("rate(x_total[1h] offset 30s)", aligned));
    assert!(!uses("stddev_over_time(x_total[1h])", aligned));
    assert!(!uses("irate(x_total[1h])", aligned));
    assert!(!uses("changes(x_total[1h])", aligned));
    let skewed = Grid {
        start: HOUR + 1,
        ..aligned
    };
    assert!(!uses("rate(x_total[1h])", skewed));
    let of_minutes = Grid {
        step: 60_000,
        ..aligned
    };
    assert!(!uses("rate(x_total[1h])", of_minutes));
}
