//! What the engine costs per sample on node-exporter-like data: head append, flush, merge, select; and
//! what a series costs in memory and a sample on disk.

mod scrape;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use scrape::{START, Scraper, TENANT};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, Resolution, ShardSet, TimeRange, WINDOW_MILLIS};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::{BodyWriter, Matcher, MetricsEngine, MetricsOptions};
use trefoil_store_pages::{Disk, SimulatedDisk};

const TARGETS: usize = 8;

/// Series per request, as Prometheus sends them by default.
const REQUEST_SERIES: usize = 2_000;

fn engine() -> MetricsEngine {
    engine_with(MetricsOptions::default())
}

fn engine_with(options: MetricsOptions) -> MetricsEngine {
    let disk = Arc::new(SimulatedDisk::new(1)) as Arc<dyn Disk>;
    let (manifest, _) = Manifest::open(disk, Path::new("blocks"), ManifestOptions::default())
        .expect("an empty disk");
    MetricsEngine::open(Arc::new(manifest), options).expect("memory")
}

/// The bodies of the next `scrapes` scrapes.
fn bodies(scraper: &mut Scraper, scrapes: usize) -> Vec<Vec<u8>> {
    let mut writer = BodyWriter::new().expect("memory");
    let mut bodies = Vec::new();
    for _ in 0..scrapes {
        let times = scraper.scrape();
        for series in scraper.series.chunks(REQUEST_SERIES) {
            for one in series {
                let sample = [(times[one.target], one.value)];
                writer
                    .add_series(one.shard, one.labels.canonical(), sample)
                    .expect("a small body");
            }
            bodies.push(writer.finish().expect("a small body"));
        }
    }
    bodies
}

fn apply(engine: &MetricsEngine, bodies: &[Vec<u8>]) {
    let all = ShardSet::all(256);
    for body in bodies {
        engine
            .apply(1, TENANT, DeletionVersion(0), body, &all)
            .expect("a sound body");
    }
}

fn flush(engine: &MetricsEngine) {
    engine.flush(1, None).expect("a sound disk");
}

fn range(minutes: i64) -> TimeRange {
    TimeRange {
        start: START,
        end: START + minutes * 60_000,
    }
}

fn count(engine: &MetricsEngine, matchers: &[Matcher], range: TimeRange) -> usize {
    let mut samples = 0;
    let each = |series: trefoil_store_metrics::SeriesSamples<'_>| {
        samples += series.values.len();
        ControlFlow::Continue(())
    };
    let view = engine.view();
    view.select(TENANT, matchers, range, &ShardSet::all(256), each)
        .expect("sound blocks");
    samples
}

fn report(what: &str, engine: &MetricsEngine) {
    let found = engine.statistics();
    let series = found.series_active.values().sum::<u64>().max(1);
    eprintln!(
        "{what}: {series} series, head {} B per series, {} blocks, {:.3} B per sample on disk",
        found.head_bytes / series,
        found.blocks,
        found.block_bytes as f64 / found.block_samples.max(1) as f64,
    );
}

fn head(criterion: &mut Criterion) {
    let mut scraper = Scraper::new(TARGETS, 1);
    let first = bodies(&mut scraper, 1);
    let more = bodies(&mut scraper, 20);
    let samples = scraper.series.len() as u64;
    let mut group = criterion.benchmark_group("head");
    group.sample_size(10);
    group.throughput(Throughput::Elements(samples));
    group.bench_function("new series", |b| {
        b.iter_batched(
            engine,
            |engine| {
                apply(&engine, &first);
                engine
            },
            BatchSize::LargeInput,
        );
    });
    group.throughput(Throughput::Elements(20 * samples));
    let known = || {
        let engine = engine();
        apply(&engine, &first);
        engine
    };
    group.bench_function("append with decode", |b| {
        b.iter_batched(
            known,
            |engine| {
                apply(&engine, &more);
                engine
            },
            BatchSize::LargeInput,
        );
    });
    let full = || {
        let engine = known();
        apply(&engine, &more);
        engine
    };
    report("head with 21 scrapes", &full());
    group.bench_function("flush of 21 scrapes", |b| {
        b.iter_batched(
            full,
            |engine| {
                flush(&engine);
                engine
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn blocks(criterion: &mut Criterion) {
    for is_packed in [false, true] {
        let engine = engine();
        if is_packed {
            engine.pack_blocks();
        }
        let values = if is_packed { "packed" } else { "varints" };
        blocks_of(criterion, &engine, values);
    }
}

/// What blocks with values in this form cost.
fn blocks_of(criterion: &mut Criterion, engine: &MetricsEngine, values: &str) {
    let mut scraper = Scraper::new(TARGETS, 1);
    let mut flushing = std::time::Duration::ZERO;
    for _ in 0..12 {
        apply(engine, &bodies(&mut scraper, 40));
        let started = std::time::Instant::now();
        flush(engine);
        flushing += started.elapsed();
    }
    report(&format!("12 flushes of 40 scrapes, {values}"), engine);
    let started = std::time::Instant::now();
    let outcome = engine
        .merge_once(Millis::MAX)
        .expect("sound blocks")
        .expect("twelve blocks");
    let nanoseconds = started.elapsed().as_nanos() as f64 / outcome.samples as f64;
    let flushing = flushing.as_nanos() as f64 / outcome.samples as f64;
    eprintln!("flush: {flushing:.0} ns per sample, merge: {nanoseconds:.0}");
    report(&format!("one merged window, {values}"), engine);
    let mut group = criterion.benchmark_group(format!("select, {values}"));
    group.sample_size(10);
    let name = |metric: &str| Matcher::equal("__name__", metric);
    let cases = [
        (
            "one series",
            vec![
                name("node_load"),
                Matcher::equal("window", "window1"),
                Matcher::regex("instance", "node-0003.*").expect("sound"),
            ],
        ),
        ("one metric", vec![name("node_cpu_seconds_total")]),
        ("everything", vec![]),
    ];
    let window = TimeRange {
        start: START,
        end: START + WINDOW_MILLIS,
    };
    for (case, matchers) in cases {
        for (span, range) in [("5 min", range(5)), ("2 h", window)] {
            let samples = count(engine, &matchers, range);
            group.throughput(Throughput::Elements(samples as u64));
            group.bench_function(format!("{case}, {span}"), |b| {
                b.iter(|| count(engine, &matchers, range))
            });
        }
    }
    group.finish();
}

/// Windows of the benchmark of aggregates.
const WINDOWS: usize = 3;

/// What aggregates cost on disk, and what reading them costs beside reading samples.
fn aggregates(criterion: &mut Criterion) {
    let mut bytes = Vec::new();
    let mut engines = Vec::new();
    for down_sampling in [false, true] {
        let engine = engine_with(MetricsOptions {
            down_sampling,
            ..MetricsOptions::default()
        });
        let mut scraper = Scraper::new(TARGETS, 1);
        for _ in 0..WINDOWS * 12 {
            apply(&engine, &bodies(&mut scraper, 40));
            flush(&engine);
        }
        let started = std::time::Instant::now();
        while engine.merge_once(Millis::MAX).expect("sound").is_some() {}
        let samples = engine.statistics().block_samples as f64;
        let nanoseconds = started.elapsed().as_nanos() as f64 / samples;
        eprintln!("merge, aggregates {down_sampling}: {nanoseconds:.0} ns per sample");
        bytes.push(engine.statistics().block_bytes as f64);
        engines.push(engine);
    }
    let overhead = 100.0 * (bytes[1] / bytes[0] - 1.0);
    eprintln!("aggregates take {overhead:.1} % more disk");
    let engine = &engines[1];
    let all = range(WINDOWS as i64 * 120);
    let mut group = criterion.benchmark_group("aggregates");
    group.sample_size(10);
    for (case, metric) in [("one metric", "node_cpu_seconds_total"), ("everything", "")] {
        let matchers = match metric {
            "" => vec![],
            metric => vec![Matcher::equal("__name__", metric)],
        };
        group.bench_function(format!("{case}, samples"), |b| {
            b.iter(|| count(engine, &matchers, all))
        });
        for resolution in Resolution::ALL {
            group.bench_function(format!("{case}, {resolution:?}"), |b| {
                b.iter(|| count_buckets(engine, &matchers, all, resolution))
            });
        }
    }
    group.finish();
}

fn count_buckets(
    engine: &MetricsEngine,
    matchers: &[Matcher],
    range: TimeRange,
    resolution: Resolution,
) -> usize {
    let (view, shards) = (engine.view(), ShardSet::all(256));
    let cursor = view.aggregates(TENANT, matchers, range, &shards, resolution);
    let mut cursor = cursor.expect("sound blocks");
    let mut buckets = 0;
    while let Some(series) = cursor.next_series().expect("sound blocks") {
        buckets += series.aggregates.len();
    }
    buckets
}

criterion_group!(benches, head, blocks, aggregates);
criterion_main!(benches);
