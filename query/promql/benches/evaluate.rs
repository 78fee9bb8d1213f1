//! What evaluation costs over 10,000 series of 240 samples each, the size of an hour of a small cluster. Each target has eight
//! series with the same timestamps, which jitter as those of scrapes.
//!
//! Measured is the processor time of the thread, which other work on the machine disturbs less than the clock on the wall.

use criterion::{
    BatchSize, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use futures::executor::block_on;
use rustix::time::{ClockId, clock_gettime};
use std::{hint::black_box, time::Duration};
use trefoil_model::Labels;
use trefoil_query_promql::{
    Grid, MemorySource, QueryOptions, parse_selector, query_instant, query_range,
};

const SERIES: usize = 10_000;
const SAMPLES: i64 = 240;
const INTERVAL_MS: i64 = 15_000;
const SERIES_PER_TARGET: usize = 8;

/// Processor time of the calling thread.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    }

    fn end(&self, begun: Duration) -> Duration {
        self.start().saturating_sub(begun)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn source() -> MemorySource {
    let mut source = MemorySource::new(1);
    for series in 0..SERIES {
        let target = series / SERIES_PER_TARGET;
        let (instance, job) = (
            format!("10.0.0.{target}:9100"),
            format!("job-{}", target % 20),
        );
        let cpu = (series % SERIES_PER_TARGET).to_string();
        let labels = Labels::from_pairs([
            ("__name__", "requests_total"),
            ("instance", &instance),
            ("job", &job),
            ("cpu", &cpu),
            ("code", if series % 3 == 0 { "500" } else { "200" }),
        ]);
        for sample in 0..SAMPLES {
            let value = (sample * (series as i64 % 17 + 1)) as f64;
            let jitter = (target as i64 * 7_919 + sample * 104_729) % 1_000;
            source.insert(&labels, sample * INTERVAL_MS + jitter, value);
        }
    }
    source
}

fn evaluate(criterion: &mut Criterion<CpuTime>) {
    let source = source();
    let end = (SAMPLES - 1) * INTERVAL_MS;
    let grid = Grid::range(5 * 60_000, end, 60_000).expect("a valid range");
    let mut group = criterion.benchmark_group("10k series x 240 samples");
    group.sample_size(10);
    group.throughput(Throughput::Elements(SERIES as u64 * SAMPLES as u64));
    for query in [
        "sum by (job) (rate(requests_total[5m]))",
        r#"sum by (job) (rate(requests_total{cpu="0"}[5m]))"#,
        "sum(requests_total)",
        "rate(requests_total[5m])",
        "max_over_time(requests_total[5m])",
        "topk(5, rate(requests_total[5m]))",
        "requests_total / on (instance, cpu) group_left () requests_total",
        "quantile by (job) (0.9, rate(requests_total[5m]))",
    ] {
        group.bench_function(format!("range {query}"), |bencher| {
            bencher.iter_batched(
                QueryOptions::default,
                |options| block_on(query_range(&source, black_box(query), grid, &options)),
                BatchSize::PerIteration,
            );
        });
    }
    for query in [
        "requests_total",
        "count(requests_total)",
        "sum by (job) (rate(requests_total[5m]))",
    ] {
        group.bench_function(format!("instant {query}"), |bencher| {
            bencher.iter_batched(
                QueryOptions::default,
                |options| block_on(query_instant(&source, black_box(query), end, &options)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    criterion.bench_function("parse selector", |bencher| {
        bencher.iter(|| parse_selector(black_box(r#"up{job=~"a|b",instance!="c"}"#)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = evaluate
}
criterion_main!(benches);
