//! What the label index costs at many series: time of matchers and label questions, memory and disk per series.
//!
//! The series are those of Prometheus' `BenchmarkHeadPostingForMatchers`: a fiftieth as many values of `i` as series, 40 of
//! `n`, two of `j`. `LABEL_INDEX_SERIES` says how many there are (200,000 unless set; 5,000,000 are the whole set). The
//! head is measured first, then the same series after two flushes and a merge, on a real disk. Times are those of the
//! thread on a processor, so that other work of the machine matters less; what has been read stays in the page cache.
//!
//! Before that, how long writes of a series wait while the head answers some long questions.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use trefoil_model::{
    DeletionVersion, Labels, Millis, ShardId, ShardSet, TenantId, TimeRange, WINDOW_MILLIS,
    key_hash, shard_of,
};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::{BodyWriter, Matcher, MetricsEngine, MetricsOptions};
use trefoil_store_pages::{Disk, RealDisk};

const TENANT: TenantId = TenantId(1);
const START: Millis = 1_700_006_400_000;
const SHARDS: usize = 256;

/// Every text ends like this, as in Prometheus' benchmark.
const SUFFIX: &str = "aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd";

/// Series of one value of `i`.
const SERIES_PER_VALUE: u64 = 50;

/// Series per request.
const REQUEST_SERIES: u64 = 2_000;

fn series_wanted() -> u64 {
    let set = std::env::var("LABEL_INDEX_SERIES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(200_000)
}

/// The series with this number.
fn labels(number: u64, values: u64) -> Labels {
    let (kind, i, n) = (
        number % 5,
        number / 5 % values,
        number / 5 / values % (SERIES_PER_VALUE / 5),
    );
    let prefix = ["", "", "0_", "1_", "2_"][kind as usize];
    let j = if kind == 0 || kind == 4 { "foo" } else { "bar" };
    Labels::from_pairs([
        ("i", format!("{i}{SUFFIX}").as_str()),
        ("n", format!("{prefix}{n}{SUFFIX}").as_str()),
        ("j", j),
    ])
}

fn apply(engine: &MetricsEngine, series: u64, time: Millis) {
    let values = series.div_ceil(SERIES_PER_VALUE);
    let mut writer = BodyWriter::new().expect("memory");
    let all = ShardSet::all(SHARDS as u16);
    for first in (0..series).step_by(REQUEST_SERIES as usize) {
        for number in first..series.min(first + REQUEST_SERIES) {
            let labels = labels(number, values);
            let shard = shard_of(key_hash(TENANT, labels.canonical()), SHARDS as u16);
            writer
                .add_series(shard, labels.canonical(), [(time, number as f64)])
                .expect("a small body");
        }
        let body = writer.finish().expect("a small body");
        engine
            .apply(1, TENANT, DeletionVersion(0), &body, &all)
            .expect("a sound body");
    }
}

/// Anonymous memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

fn report(what: &str, before: u64, series: u64, engine: &MetricsEngine) {
    let found = engine.statistics();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    eprintln!(
        "{what}: {series} series, {} B of memory per series ({} B counted as head), {} B of blocks per series, {}",
        memory().saturating_sub(before) / series,
        found.head_bytes / series,
        found.block_bytes / series,
        peak.unwrap_or_default(),
    );
}

type Case = (&'static str, Vec<Matcher>);

/// The matchers of Prometheus' benchmark, and some more.
fn cases() -> Vec<Case> {
    let regex = |name, pattern| Matcher::regex(name, pattern).expect("sound");
    let not_regex = |name, pattern| Matcher::not_regex(name, pattern).expect("sound");
    let n1 = || Matcher::equal("n", &format!("1{SUFFIX}"));
    let few = format!("7{SUFFIX}|1999{SUFFIX}|333{SUFFIX}");
    let few = Matcher::regex("i", &few).expect("sound");
    vec![
        (r#"n="1""#, vec![n1()]),
        (r#"n="1",j="foo""#, vec![n1(), Matcher::equal("j", "foo")]),
        (
            r#"n="1",j!="foo""#,
            vec![n1(), Matcher::not_equal("j", "foo")],
        ),
        (r#"i=~".*""#, vec![regex("i", ".*")]),
        (r#"i=~".+""#, vec![regex("i", ".+")]),
        (r#"i!="""#, vec![Matcher::not_equal("i", "")]),
        (r#"n="1",i=~"^.+$""#, vec![n1(), regex("i", "^.+$")]),
        (r#"i=~"1.+""#, vec![regex("i", "1.+")]),
        (r#"i=~".*1.*""#, vec![regex("i", ".*1.*")]),
        (r#"i=~"a|b|c""#, vec![few]),
        (r#"i!~"2.*""#, vec![not_regex("i", "2.*")]),
        (r#"n="1",i!~".*2.*""#, vec![n1(), not_regex("i", ".*2.*")]),
        (
            r#"n="1",i=~"1[0-9]*a.*""#,
            vec![n1(), regex("i", "1[0-9]*a.*")],
        ),
    ]
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn time(group: &mut BenchmarkGroup<'_, WallTime>, case: &str, ask: impl Fn() -> usize) {
    let mut found = 0;
    group.bench_function(case, |b| {
        b.iter_custom(|times| {
            let started = processor_time();
            for _ in 0..times {
                found = black_box(ask());
            }
            processor_time() - started
        });
    });
    eprintln!("{case}: {found} found");
}

fn questions(criterion: &mut Criterion, place: &str, engine: &MetricsEngine) {
    let mut group = criterion.benchmark_group(place);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    let view = engine.view();
    let shards = ShardSet::all(SHARDS as u16);
    let window = TimeRange {
        start: START,
        end: START + WINDOW_MILLIS,
    };
    let values = |name: &str, matchers: &[Matcher]| {
        let values = view.label_values(TENANT, name, matchers, window, &shards);
        values.expect("sound blocks").len()
    };
    for (case, matchers) in cases() {
        // No series has this label, so only the matchers cost.
        time(&mut group, case, || values("absent", &matchers));
    }
    let n1 = Matcher::equal("n", &format!("1{SUFFIX}"));
    let i_wide = Matcher::regex("i", ".*1.*").expect("sound");
    let i_one = Matcher::equal("i", &format!("77{SUFFIX}"));
    for (case, name, matchers) in [
        ("values of i", "i", vec![]),
        (r#"values of i, n="1""#, "i", vec![n1]),
        (r#"values of n, i=~".*1.*""#, "n", vec![i_wide.clone()]),
        (r#"values of n, i="77""#, "n", vec![i_one.clone()]),
    ] {
        time(&mut group, case, || values(name, &matchers));
    }
    for (case, matchers) in [
        ("label names", vec![]),
        (r#"label names, i=~".*1.*""#, vec![i_wide]),
    ] {
        time(&mut group, case, || {
            let names = view.label_names(TENANT, &matchers, window, &shards);
            names.expect("sound blocks").len()
        });
    }
    time(&mut group, r#"series, i="77""#, || {
        let mut series = 0;
        let each = |_: &[u8]| {
            series += 1;
            ControlFlow::Continue(())
        };
        let found = view.series(TENANT, std::slice::from_ref(&i_one), window, &shards, each);
        found.expect("sound blocks");
        series
    });
    group.finish();
}

/// The longest that a write of one series took while a question was answered, after each other, from the head.
fn append_stalls(engine: &MetricsEngine) {
    let labels = labels(0, 1);
    let mut writer = BodyWriter::new().expect("memory");
    let shard = shard_of(key_hash(TENANT, labels.canonical()), SHARDS as u16);
    writer
        .add_series(shard, labels.canonical(), [(START, 1.0)])
        .expect("a small body");
    let body = writer.finish().expect("a small body");
    let (view, all) = (engine.view(), ShardSet::all(SHARDS as u16));
    let window = TimeRange {
        start: START,
        end: START + WINDOW_MILLIS,
    };
    let few: ShardSet = (0..SHARDS as u16 / 2).map(ShardId).collect();
    let wide = [Matcher::regex("i", ".*[1-5].*[a].*").expect("sound")];
    let continued = |_: &str, _: &str, _: u64| ControlFlow::Continue(());
    type Question<'a> = (&'static str, Box<dyn Fn() + Send + Sync + 'a>);
    let questions: Vec<Question<'_>> = vec![
        (
            "values of i, of half of the shards",
            Box::new(|| drop(view.label_values(TENANT, "i", &wide, window, &few))),
        ),
        (
            "series, of half of the shards",
            Box::new(|| {
                let each = |_: &[u8]| ControlFlow::Continue(());
                drop(view.series(TENANT, &wide, window, &few, each));
            }),
        ),
        (
            "counts of all labels",
            Box::new(|| {
                let go_on = |_| ControlFlow::Continue(());
                let place = (window, &all);
                drop(view.count_series(TENANT, &[vec![]], place, &[], continued, go_on));
            }),
        ),
    ];
    for (what, question) in &questions {
        let is_asked = AtomicBool::new(true);
        let (begun, mut longest) = (Instant::now(), Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                question();
                is_asked.store(false, Ordering::Relaxed);
            });
            while is_asked.load(Ordering::Relaxed) {
                let begun = Instant::now();
                engine
                    .apply(1, TENANT, DeletionVersion(0), &body, &all)
                    .expect("a sound body");
                longest = longest.max(begun.elapsed());
            }
        });
        let took = begun.elapsed();
        eprintln!("{what}: took {took:?}, a write waited {longest:?} at most");
    }
}

fn label_index(criterion: &mut Criterion) {
    let folder = std::env::temp_dir().join(format!("trefoil-label-index-{}", std::process::id()));
    let disk = Arc::new(RealDisk) as Arc<dyn Disk>;
    let (manifest, _) = Manifest::open(disk, &folder, ManifestOptions::default()).expect("a disk");
    let manifest = Arc::new(manifest);
    let open = || {
        let engine = MetricsEngine::open(Arc::clone(&manifest), MetricsOptions::default());
        engine.expect("memory")
    };
    let (series, empty) = (series_wanted(), memory());
    let engine = open();
    let started = std::time::Instant::now();
    apply(&engine, series, START);
    report("head", empty, series, &engine);
    eprintln!("made in {:?}", started.elapsed());
    append_stalls(&engine);
    questions(criterion, "head", &engine);
    let started = std::time::Instant::now();
    engine.flush(1, None).expect("a sound disk");
    eprintln!("flushed in {:?}", started.elapsed());
    report("head after a flush", empty, series, &engine);
    apply(&engine, series, START + 15_000);
    engine.flush(1, None).expect("a sound disk");
    let started = std::time::Instant::now();
    engine.merge_once(Millis::MAX).expect("sound blocks");
    eprintln!("merged in {:?}", started.elapsed());
    drop(engine);
    let engine = open();
    let empty = memory();
    questions(criterion, "block", &engine);
    report("open block", empty, series, &engine);
    drop(engine);
    drop(std::fs::remove_dir_all(&folder));
}

criterion_group!(benches, label_index);
criterion_main!(benches);
