//! Answers with the help of earlier ones against answers that are worked out anew, over real heads and blocks.

mod causes;
mod policy;

use super::*;
use crate::query::{
    allowance::Meter,
    answering,
    question::{Answer, Question as Asking, encode},
    source::wrong_kind,
    storage::{Brief, ViewStorage},
};
use async_trait::async_trait;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{cell::Cell, path::Path};
use trefoil_model::{
    DeletionVersion, Histogram, Labels, Millis, ResetHint, ShardId, WINDOW_MILLIS, key_hash,
    shard_of,
};
use trefoil_query_promql::{
    EvalOptions, Grid, Listing, PartResult, QueryOptions, SeriesFilter, Source, merge, query_range,
};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::{
    BodyWriter, Deletion, Matcher, MetricsEngine, MetricsOptions, SampleRef, SelectedCutOff, View,
};
use trefoil_store_pages::{Disk, SimulatedDisk};

const TENANT: TenantId = TenantId(3);
const SHARDS: u16 = 8;
/// The begin of a window.
const START: Millis = 1_700_006_400_000;
const MINUTE: Millis = 60_000;
/// Enough for everything that a test asks.
const ROOM: usize = 64 << 20;

/// An engine with who writes to it, and what evaluators over it keep.
struct Bench {
    engine: MetricsEngine,
    writer: BodyWriter,
    reuse: Reuse,
    version: u64,
    deletions: Vec<Deletion>,
    /// How many parts were answered by the thread that asks.
    briefs: AtomicU64,
}

fn labels(series: u32) -> Labels {
    let name = ["a_total", "gauge", "histogram"][series as usize % 3];
    let (x, y) = ((series % 4).to_string(), series.to_string());
    Labels::from_pairs(vec![("__name__", name), ("x", &x), ("y", &y)])
}

fn shard(labels: &Labels) -> ShardId {
    shard_of(key_hash(TENANT, labels.canonical()), SHARDS)
}

fn histogram(value: f64) -> Arc<Histogram> {
    Arc::new(Histogram {
        count: value,
        sum: value * 2.0,
        zero_count: value,
        reset_hint: ResetHint::Unknown,
        ..Histogram::default()
    })
}

impl Bench {
    fn new(seed: u64) -> Self {
        let disk = Arc::new(SimulatedDisk::new(seed)) as Arc<dyn Disk>;
        let opened = Manifest::open(disk, Path::new("blocks"), ManifestOptions::default());
        let options = MetricsOptions {
            down_sampling: true,
            ..MetricsOptions::default()
        };
        let manifest = Arc::new(opened.expect("an empty disk").0);
        Self {
            engine: MetricsEngine::open(manifest, options).expect("an engine"),
            writer: BodyWriter::new().expect("a writer"),
            reuse: Reuse::eager(ROOM),
            version: 0,
            deletions: Vec::new(),
            briefs: AtomicU64::new(0),
        }
    }

    /// Writes samples of a series; those of histograms as such.
    fn write(&mut self, series: u32, samples: &[(Millis, f64)]) {
        self.write_as(series, series % 3 == 2, samples);
        self.apply(false);
    }

    fn write_as(&mut self, series: u32, is_histogram: bool, samples: &[(Millis, f64)]) {
        let labels = labels(series);
        let histograms: Vec<_> = samples.iter().map(|(_, value)| histogram(*value)).collect();
        let samples = samples.iter().zip(&histograms);
        let samples = samples.map(|((time, value), histogram)| SampleRef {
            time: *time,
            value: *value,
            histogram: is_histogram.then_some(histogram),
            start: 0,
        });
        let added = self
            .writer
            .add_samples(shard(&labels), labels.canonical(), samples);
        added.expect("a small body");
    }

    fn apply(&mut self, is_copy: bool) {
        let body = self.writer.finish().expect("a body");
        let end = self.engine.applied_position() + 1;
        let (version, all) = (DeletionVersion(self.version), ShardSet::all(SHARDS));
        let applied = match is_copy {
            false => self.engine.apply(end, TENANT, version, &body, &all),
            true => self.engine.apply_copied(end, TENANT, version, &body, &all),
        };
        applied.expect("a readable body");
    }

    fn flush(&self) {
        let flushed = self.engine.flush(self.engine.applied_position(), None);
        flushed.expect("room");
    }

    fn merge(&self) {
        while self.engine.merge_once(Millis::MAX).expect("room").is_some() {}
    }

    fn delete(&mut self, y: &str, start: Millis, end: Millis) {
        self.version += 1;
        self.deletions.push(Deletion {
            version: DeletionVersion(self.version),
            matchers: vec![Matcher::equal("y", y)],
            range: TimeRange { start, end },
        });
        let newest = DeletionVersion(self.version);
        self.engine
            .set_deletions(TENANT, newest, self.deletions.clone());
    }

    fn cut_off_selected(&self, y: &str, before: Millis) {
        let selected = SelectedCutOff {
            selector: y.into(),
            matchers: vec![Matcher::equal("y", y)],
            before,
        };
        self.engine.set_selected_cut_offs(TENANT, vec![selected]);
    }

    /// What the API would show, or the error.
    fn ask(&self, query: &str, grid: Grid, eval: EvalOptions, reuse: bool) -> String {
        let side = Side {
            view: &self.engine.view(),
            reuse: reuse.then_some(&self.reuse),
            briefs: &self.briefs,
        };
        let options = QueryOptions {
            eval,
            ..QueryOptions::default()
        };
        let answer = query_range(&side, query, grid, &options);
        format!("{:?}", futures::executor::block_on(answer))
    }

    /// The answer with the help of earlier ones, which must be the one without.
    fn checked(&self, query: &str, grid: Grid, eval: EvalOptions) -> String {
        let cold = self.ask(query, grid, eval, false);
        let warm = self.ask(query, grid, eval, true);
        assert!(
            are_same(&warm, &cold),
            "{query} at {grid:?}:\n{warm}\nis not\n{cold}"
        );
        warm
    }
}

/// Whether two answers are the same but for the last digits of numbers: sums depend on how many threads were free to share the work.
fn are_same(a: &str, b: &str) -> bool {
    const RELATIVE_ERROR_MAX: f64 = 1e-12;
    let words = |text: &str| -> Vec<String> {
        let words = text.split(['(', ')', ',', ' ', ']', '[']);
        words.map(str::to_owned).collect()
    };
    let (a, b) = (words(a), words(b));
    let is_near = |(a, b): (&String, &String)| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => a == b || (x - y).abs() <= RELATIVE_ERROR_MAX * x.abs().max(y.abs()),
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(&b).all(is_near)
}

/// Evaluators over one view, each of which has some of the shards.
struct Side<'a> {
    view: &'a View,
    reuse: Option<&'a Reuse>,
    briefs: &'a AtomicU64,
}

/// About half of the questions take more.
const BRIEF: Brief = Brief {
    series_max: 2,
    work_max: 1 << 10,
};

impl Side<'_> {
    fn answer(
        &self,
        part: &Part,
        shards: &ShardSet,
        (brief, reuse): (Option<Brief>, Option<&Reuse>),
    ) -> Result<PartResult, QueryError> {
        let budget = Budget::new(part.samples_max);
        let storage = ViewStorage {
            view: self.view,
            tenant: TENANT,
            shards,
            damaged: Cell::new(None),
            budget: &budget,
            meter: Arc::new(Meter::default()),
            brief,
        };
        let question = Asking::Part(Box::new(part.clone()));
        match answering::evaluate(&storage, question, &budget, reuse)? {
            Answer::Part(result) => Ok(result),
            _ => Err(wrong_kind()),
        }
    }
}

#[async_trait]
impl Source for Side<'_> {
    async fn evaluate(&self, part: Part) -> Result<PartResult, QueryError> {
        let mut results = Vec::new();
        for first in 0..2 {
            let shards: ShardSet = (first..SHARDS).step_by(2).map(ShardId).collect();
            let brief = self.answer(&part, &shards, (Some(BRIEF), None));
            let answer = self.answer(&part, &shards, (None, self.reuse));
            if !matches!(brief, Err(QueryError::Canceled)) {
                let (brief, answer) = (format!("{brief:?}"), format!("{answer:?}"));
                assert!(are_same(&brief, &answer), "{brief}\nis not\n{answer}");
                self.briefs.fetch_add(1, Ordering::Relaxed);
            }
            results.push(answer?);
        }
        merge(results, &Budget::new(part.samples_max))
    }

    async fn series(&self, _: SeriesFilter) -> Result<Listing<Labels>, QueryError> {
        Err(wrong_kind())
    }

    async fn label_names(&self, _: SeriesFilter) -> Result<Listing<String>, QueryError> {
        Err(wrong_kind())
    }

    async fn label_values(&self, _: &str, _: SeriesFilter) -> Result<Listing<String>, QueryError> {
        Err(wrong_kind())
    }
}

/// What is asked again and again.
const QUERIES: &[&str] = &[
    "a_total",
    "gauge > 40",
    "rate(a_total[5m])",
    "rate(gauge[5m])",
    "rate(gauge[10m]) > 0",
    "sum by (x) (rate(a_total[10m]))",
    "sum(rate(a_total[10m])) / sum(gauge)",
    "avg(gauge)",
    "min by (x) (gauge)",
    "count by (x) (gauge)",
    "sum(histogram)",
    "histogram_quantile(0.5, sum by (x) (rate(histogram[10m])))",
    "histogram_count(sum(rate(histogram[10m])))",
    "rate({__name__=~\"gauge|histogram\"}[10m])",
    "sum({__name__=~\"gauge|histogram\"})",
    "{x=\"1\"} + 1",
    "max_over_time({x=\"1\"}[10m])",
    "topk(2, gauge)",
    "bottomk(1, rate(a_total[10m]))",
    "quantile(0.3, gauge)",
    "count_values(\"value\", floor(gauge / 50))",
    "absent(gauge{x=\"3\"})",
    "absent_over_time(gauge{x=\"7\"}[3m])",
    "max_over_time(sum(gauge)[30m:1m])",
    "max_over_time(rate(a_total[5m])[30m:2m])",
    "avg_over_time(gauge[1h])",
    "sum(increase(a_total[1h]))",
    "gauge offset 1h",
    "gauge - gauge offset 30m",
    "gauge @ 1700010000",
    "gauge * on (y) group_left () (gauge > bool 10)",
    "time() - gauge",
    "quantile_over_time(1.5, gauge[10m])",
    "scalar(gauge{y=\"1\"}) * gauge",
    "clamp_max(gauge, 50) unless gauge > 45",
    "label_replace(gauge, \"z\", \"$1\", \"y\", \"(.*)\")",
    "predict_linear(gauge[30m], 600)",
];

/// How long the engine is written to.
const SPAN: Millis = 5 * WINDOW_MILLIS;

fn happen(bench: &mut Bench, random: &mut StdRng, now: &mut Millis) {
    let some_time = |random: &mut StdRng| START + random.random_range(0..SPAN / MINUTE) * MINUTE;
    match random.random_range(0..20) {
        0..10 => {
            *now = (*now + random.random_range(1..60) * MINUTE).min(START + SPAN);
            for series in 0..18 {
                let mut value = f64::from(random.random_range(0..100_u32));
                let from = *now - 61 * MINUTE;
                let times = (from..*now).step_by(30_000);
                let samples: Vec<_> = times
                    .map(|time| {
                        value = match random.random_range(0..40) {
                            0 => 0.0,
                            _ => value + random.random::<f64>(),
                        };
                        (time, value)
                    })
                    .collect();
                if random.random_bool(0.8) {
                    // Seldom of another kind than it was.
                    let is_histogram = (series % 3 == 2) != random.random_bool(0.01);
                    bench.write_as(series, is_histogram, &samples);
                }
            }
            bench.apply(false);
        }
        10..12 => {
            let time = some_time(random);
            bench.write(random.random_range(0..20), &[(time, 7.0), (time + 1, 8.0)]);
        }
        12..15 => bench.flush(),
        15 | 16 => bench.merge(),
        17 => {
            let (y, start) = (random.random_range(0..18).to_string(), some_time(random));
            bench.delete(&y, start, start + 40 * MINUTE);
        }
        18 if random.random_bool(0.3) => {
            let shard = ShardId(random.random_range(0..SHARDS));
            let end = bench.engine.applied_position();
            let dropped = bench
                .engine
                .drop_shards(&[shard].into_iter().collect(), end, None);
            dropped.expect("room");
        }
        18 => {
            let y = random.random_range(0..18).to_string();
            bench.cut_off_selected(&y, some_time(random));
        }
        _ if random.random_bool(0.2) => bench.engine.set_cut_off(TENANT, some_time(random)),
        _ => {}
    }
}

#[test]
fn earlier_answers_change_no_answer() {
    let (mut filled, mut hits, mut briefs) = (0, 0, 0);
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = Bench::new(seed);
        let mut now = START + 2 * 61 * MINUTE;
        for _ in 0..4 {
            happen(&mut bench, &mut random, &mut now);
        }
        for _ in 0..60 {
            if random.random_bool(0.4) {
                happen(&mut bench, &mut random, &mut now);
            }
            for _ in 0..4 {
                let query = QUERIES[random.random_range(0..QUERIES.len())];
                let step = [MINUTE, MINUTE, 5 * MINUTE][random.random_range(0..3)];
                let length = random.random_range(2..240) * step;
                let end = now - random.random_range(0..60) * MINUTE;
                let phase = [0, 0, 0, 7_000][random.random_range(0..4)];
                let start = (end - length).div_euclid(5 * MINUTE) * 5 * MINUTE + phase;
                let grid = Grid { start, end, step };
                let eval = EvalOptions {
                    source_resolution_max_ms: [0, 0, Millis::MAX][random.random_range(0..3)],
                    ..EvalOptions::default()
                };
                let answer = bench.checked(query, grid, eval);
                filled += usize::from(answer.contains("points: ["));
            }
        }
        hits += bench.reuse.statistics().hits;
        briefs += bench.briefs.load(Ordering::Relaxed);
    }
    let counts = (filled, hits, briefs);
    assert!(filled > 700 && hits > 300 && briefs > 300, "{counts:?}");
}

#[test]
fn what_looks_at_much_is_not_answered_in_brief() {
    let mut bench = Bench::new(1);
    let samples: Vec<_> = (0..60).map(|at| (START + at * MINUTE, at as f64)).collect();
    bench.write(1, &samples);
    bench.flush();
    let grid = |steps: i64, step| Grid {
        start: START + 30 * MINUTE,
        end: START + 30 * MINUTE + (steps - 1) * step,
        step,
    };
    let briefs = |query, grid| {
        let answer = bench.ask(query, grid, EvalOptions::default(), false);
        assert!(answer.contains("points: ["), "{answer}");
        bench.briefs.swap(0, Ordering::Relaxed)
    };
    let (series, two) = ("gauge{y=\"1\"}", "both halves of the shards");
    briefs(series, grid(30, MINUTE));
    let range = format!("max_over_time({series}[1m])");
    assert_eq!(briefs(series, grid(30, MINUTE)), 2, "{two}");
    assert_eq!(briefs(&range, grid(30, MINUTE)), 2, "{two}");
    // The half without the series has nothing to look at.
    let overlapping = format!("max_over_time({series}[30m])");
    assert_eq!(briefs(&overlapping, grid(30, MINUTE)), 2, "few looks");
    assert_eq!(briefs(&overlapping, grid(600, 1_000)), 1, "many looks");
    let sub_query = format!("max_over_time(max_over_time({series}[1m])[5m:1m])");
    assert_eq!(briefs(&sub_query, grid(30, MINUTE)), 0, "inner steps");
}
