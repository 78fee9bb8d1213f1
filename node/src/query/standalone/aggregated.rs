//! Answers from aggregates against answers from samples, on an engine with a head and blocks to which everything happens: late samples,
//! duplicates, deletions, cut-offs, dropped shards, damage. Under seeds.

use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, ops::ControlFlow, path::Path};
use trefoil_model::{Histogram, TimeRange, WINDOW_MILLIS};
use trefoil_query_promql::{
    EvalOptions, Grid, QueryData, QueryOptions, QueryResult, STALE_MARKER_BITS, query_range,
};
use trefoil_store_metrics::{AggregateOutcome, Deletion, Matcher, SampleRef, SelectedCutOff};
use trefoil_store_pages::SimulatedDisk;

const HOUR: Millis = 3_600_000;
/// The beginning of a window.
const START: Millis = 1_700_006_400_000;
const WINDOWS: i64 = 3;
const SERIES: usize = 8;

/// What a series' values are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Grows, and is reset now and then, mostly where a bucket begins.
    Counter,
    /// Halves of small integers, both zeros among them.
    Gauge,
    /// NaN, infinities and zeros besides.
    Odd,
    /// The same all the time.
    Constant,
    /// Some samples are histograms.
    Mixed,
    /// Some samples know when their counter began.
    Started,
}

const KINDS: [Kind; 6] = [
    Kind::Counter,
    Kind::Gauge,
    Kind::Odd,
    Kind::Constant,
    Kind::Mixed,
    Kind::Started,
];

struct World {
    random: StdRng,
    disk: Arc<SimulatedDisk>,
    source: StandaloneSource,
    deletions: Vec<Deletion>,
}

fn labels(number: usize) -> Labels {
    let number = number.to_string();
    Labels::from_pairs([("__name__", "x_total"), ("n", number.as_str())])
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = Arc::new(SimulatedDisk::new(seed));
        let options = ManifestOptions::default();
        let (manifest, _) =
            Manifest::open(disk.clone(), Path::new("blocks"), options).expect("a manifest");
        let options = MetricsOptions {
            down_sampling: true,
            ..MetricsOptions::default()
        };
        let engine = MetricsEngine::open(Arc::new(manifest), options).expect("an engine");
        Self {
            random: StdRng::seed_from_u64(seed),
            disk,
            source: StandaloneSource {
                engine,
                tenant: TenantId(1),
            },
            deletions: Vec::new(),
        }
    }

    fn value(&mut self, kind: Kind, time: Millis, before: f64) -> f64 {
        let small = f64::from(self.random.random_range(-6..6)) / 2.0;
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0];
        match kind {
            Kind::Constant => 7.0,
            Kind::Gauge if small == 0.0 && self.random.random_bool(0.5) => -0.0,
            Kind::Gauge => small,
            Kind::Odd => match self.random.random_range(0..12) {
                0..5 => odd[self.random.random_range(0..odd.len())],
                _ => small,
            },
            _ => {
                let at_border = time % 300_000 <= 15_000;
                let reset = self.random.random_bool(if at_border { 0.3 } else { 0.01 });
                before.abs() * f64::from(u8::from(!reset))
                    + f64::from(self.random.random_range(0..9))
            }
        }
    }

    /// Some samples of one series, most at the ends of buckets or next to them; late ones and such as are there already among them.
    fn write(&mut self) {
        let number = self.random.random_range(0..SERIES);
        let kind = KINDS[number % KINDS.len()];
        let step = [15_000, 30_000, 60_000, 100_000, 300_000][self.random.random_range(0..5)];
        let shift = [0, 0, 0, 1, -1, 7_000][self.random.random_range(0..6)];
        let first = START + self.random.random_range(0..WINDOWS * WINDOW_MILLIS) / step * step;
        let count = self.random.random_range(1..300);
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let mut before = 50.0;
        for at in 0..count {
            let time = first + at * step + shift;
            if time < START || self.random.random_bool(0.03) {
                continue;
            }
            before = self.value(kind, time, before);
            let stale = self.random.random_bool(0.03);
            times.push(time);
            values.push(if stale {
                f64::from_bits(STALE_MARKER_BITS)
            } else {
                before
            });
        }
        let histogram = Arc::new(Histogram {
            count: 3.0,
            zero_count: 3.0,
            sum: 4.0,
            ..Histogram::default()
        });
        let has_histograms = kind == Kind::Mixed && self.random.random_bool(0.3);
        let has_starts = kind == Kind::Started && self.random.random_bool(0.3);
        let samples = times.iter().zip(&values).map(|(time, value)| SampleRef {
            time: *time,
            value: *value,
            histogram: (has_histograms && time % 7 == 0).then_some(&histogram),
            start: if has_starts { time - 500 } else { 0 },
        });
        let labels = labels(number);
        let shard = shard_of(key_hash(self.source.tenant, labels.canonical()), SHARDS);
        let mut body = BodyWriter::new().expect("a writer");
        body.add_samples(shard, labels.canonical(), samples)
            .expect("it fits");
        if body.is_empty() {
            return;
        }
        let body = body.finish().expect("a body");
        let engine = &self.source.engine;
        let position = engine.applied_position() + 1;
        let version = DeletionVersion(self.deletions.len() as u64);
        let all = ShardSet::all(SHARDS);
        engine
            .apply(position, self.source.tenant, version, &body, &all)
            .expect("a body");
    }

    fn any_time(&mut self) -> Millis {
        START + self.random.random_range(0..WINDOWS * WINDOW_MILLIS)
    }

    fn one_series(&mut self) -> (String, Vec<Matcher>) {
        let number = self.random.random_range(0..SERIES).to_string();
        let matcher = Matcher::equal("n", &number);
        (number, vec![matcher])
    }

    fn delete(&mut self) {
        let start = self.any_time();
        let length = [1_000, 300_000, HOUR, 10 * HOUR][self.random.random_range(0..4)];
        let (_, matchers) = self.one_series();
        self.deletions.push(Deletion {
            version: DeletionVersion(self.deletions.len() as u64 + 1),
            matchers,
            range: TimeRange {
                start,
                end: start + length,
            },
        });
        let newest = DeletionVersion(self.deletions.len() as u64);
        let engine = &self.source.engine;
        engine.set_deletions(self.source.tenant, newest, self.deletions.clone());
    }

    /// Mostly inside a bucket, and at times where one ends.
    fn cut_off(&mut self) {
        let time = START + self.random.random_range(0..WINDOW_MILLIS * 2);
        let time = match self.random.random_bool(0.3) {
            true => time / HOUR * HOUR + self.random.random_range(0..2),
            false => time,
        };
        let tenant = self.source.tenant;
        match self.random.random_bool(0.5) {
            true => self.source.engine.set_cut_off(tenant, time),
            false => {
                let (selector, matchers) = self.one_series();
                let cut_off = SelectedCutOff {
                    selector: selector.into(),
                    matchers,
                    before: time,
                };
                // The others' times are over, so they may be left out.
                self.source
                    .engine
                    .set_cut_off(tenant, START + WINDOW_MILLIS * 2);
                let engine = &self.source.engine;
                engine.set_selected_cut_offs(tenant, vec![cut_off]);
            }
        }
    }

    fn damage(&mut self) {
        let files = self.disk.files().into_iter();
        let is_wanted = |path: &Path| path.to_string_lossy().ends_with("-aggregates");
        let files: Vec<_> = files.filter(|(path, _)| is_wanted(path)).collect();
        if !files.is_empty() {
            let (path, length) = &files[self.random.random_range(0..files.len())];
            let byte = self.random.random_range(0..*length);
            assert!(self.disk.flip_bit(path, byte, 2));
        }
    }

    fn step(&mut self) {
        let engine = &self.source.engine;
        match self.random.random_range(0..100) {
            0..38 => self.write(),
            38..50 => self.settle(),
            50..62 => drop(
                engine
                    .flush(engine.applied_position(), None)
                    .expect("a flush"),
            ),
            62..76 => drop(engine.merge_once(Millis::MAX).expect("a merge")),
            76..90 => drop(self.aggregate()),
            90..93 => self.delete(),
            93..94 => self.cut_off(),
            94..96 => self.damage(),
            96..97 => drop(engine.enforce_retention().expect("removed")),
            _ => {
                let shards = [ShardId(self.random.random_range(0..SHARDS))];
                let position = engine.applied_position();
                let shards = shards.into_iter().collect();
                engine
                    .drop_shards(&shards, position, None)
                    .expect("dropped");
            }
        }
    }

    /// Everything is in one block per window, with aggregates; some of them may not be sound.
    fn settle(&mut self) {
        let engine = &self.source.engine;
        engine
            .flush(engine.applied_position(), None)
            .expect("a flush");
        while engine.merge_once(Millis::MAX).expect("a merge").is_some() {}
        while self.aggregate() != AggregateOutcome::Nothing {}
        if self.random.random_bool(0.2) {
            self.damage();
        }
    }

    fn aggregate(&self) -> AggregateOutcome {
        let go_on = &mut |_| ControlFlow::Continue(());
        let made = self.source.engine.aggregate_once(Millis::MAX, go_on);
        made.expect("sound samples")
    }

    async fn ask(&self, query: &str, grid: Grid, resolution: Millis) -> QueryResult {
        let options = QueryOptions {
            eval: EvalOptions {
                source_resolution_max_ms: resolution,
                experimental_functions: true,
                ..EvalOptions::default()
            },
            budget: Budget::default(),
        };
        let answer = query_range(&self.source, query, grid, &options).await;
        answer.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Whether the answer came from aggregates.
    async fn check(&self, query: &str, grid: Grid, resolution: Millis, is_exact: bool) -> bool {
        let samples = self.ask(query, grid, 0).await;
        let aggregates = self.ask(query, grid, resolution).await;
        let (samples, found) = (values(&samples), values(&aggregates));
        assert!(samples.keys().eq(found.keys()), "{query} {grid:?}");
        for (key, value) in samples {
            let own = &found[&key];
            let is_same = match (&value, own) {
                (Value::Float(a), Value::Float(b)) => is_same(*a, *b, is_exact),
                (a, b) => format!("{a:?}") == format!("{b:?}"),
            };
            assert!(is_same, "{query} {grid:?} {key:?}: {own:?}, not {value:?}");
        }
        aggregates
            .infos
            .iter()
            .any(|text| text.contains("aggregates of"))
    }
}

/// Series and times with their values.
fn values(result: &QueryResult) -> BTreeMap<(Labels, Millis), Value> {
    let QueryData::Matrix(series) = &result.data else {
        panic!("a range query gives a matrix");
    };
    let points = series.iter().flat_map(|one| {
        let points = one.points.iter();
        points.map(|point| ((one.labels.clone(), point.time), point.value.clone()))
    });
    points.collect()
}

fn is_same(a: f64, b: f64, is_exact: bool) -> bool {
    let near = || (a - b).abs() <= 1e-12 * a.abs().max(b.abs());
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (!is_exact && near())
}

/// With whether their numbers are the same to the last bit: those of sums are only added in another order.
const FUNCTIONS: [(&str, bool); 13] = [
    ("rate", false),
    ("increase", false),
    ("delta", false),
    ("avg_over_time", false),
    ("sum_over_time", false),
    ("count_over_time", true),
    ("min_over_time", true),
    ("max_over_time", true),
    ("present_over_time", true),
    ("first_over_time", true),
    ("last_over_time", true),
    ("ts_of_first_over_time", true),
    ("ts_of_last_over_time", true),
];

#[tokio::test]
async fn aggregates_answer_as_samples_do() {
    let (mut used, mut stored, mut damaged) = (0, 0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..120 {
            world.step();
            if !world.random.random_bool(0.25) {
                continue;
            }
            let random = &mut world.random;
            let (function, is_exact) = FUNCTIONS[random.random_range(0..FUNCTIONS.len())];
            let range = ["5m", "10m", "1h", "2h", "3h"][random.random_range(0..5)];
            let offset = ["", "", " offset 1h", " offset 5m"][random.random_range(0..4)];
            let (query, is_exact) = match random.random_range(0..5) {
                0 => (format!("x_total{offset}"), true),
                1 => (format!("timestamp(x_total{offset})"), true),
                _ => (format!("{function}(x_total[{range}]{offset})"), is_exact),
            };
            let step = [300_000, 600_000, HOUR][random.random_range(0..3)];
            let grid = Grid {
                start: START - HOUR,
                end: START + WINDOWS * WINDOW_MILLIS + 2 * HOUR,
                step,
            };
            let resolution = [300_000, HOUR, Millis::MAX][random.random_range(0..3)];
            println!("seed {seed}: {query} by {step}, {resolution}");
            used += u32::from(world.check(&query, grid, resolution, is_exact).await);
        }
        let statistics = world.source.engine.statistics();
        stored += statistics.aggregates_selectors;
        damaged += statistics.aggregates_damaged;
    }
    println!("{used} answers from aggregates, {stored} selectors from files, {damaged} damaged");
    assert!(used > 200 && stored > 200 && damaged > 5);
}
