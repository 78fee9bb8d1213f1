//! Queries over one metrics engine without a cluster around it, for `trefoil test promql`.
//!
//! The engine is a real one: samples, histograms and start timestamps come in bodies of parcels, some are flushed to blocks
//! and merged there, others stay in the head. Its shards are spread over several evaluators, whose questions and answers take the form in which they travel
//! between nodes. What is missing is the cluster: no journal, no barrier, no other owner. A process that dies leaves its
//! directory behind, which nothing reads again.

use super::{
    answering::{evaluate, read_labels},
    question::{self, Answer, Question},
    source::{filter, listing, wrong_kind},
    storage::ViewStorage,
};
use async_trait::async_trait;
use std::{
    cell::Cell,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use trefoil_model::{
    DeletionVersion, Histogram, Labels, Millis, ResetHint, ShardId, ShardSet, TenantId, key_hash,
    shard_of,
};
use trefoil_query_promql::{
    Budget, Listing, Part, PartResult, QueryError, SAMPLES_MAX_DEFAULT, Sample, SeriesFilter,
    Source, Value, merge, promqltest::Target,
};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::{BodyWriter, MetricsEngine, MetricsOptions, SampleRef, View};
use trefoil_store_pages::RealDisk;

/// Slices of the hash space.
const SHARDS: u16 = 8;
/// Evaluators, each of which answers for every so many-th shard.
const EVALUATORS: u16 = 3;
/// Series after which the head is flushed: those between two flushes are in blocks with one half, and so is what was
/// written before them.
const SERIES_PER_FLUSH: u64 = 12;
/// Every so many-th series is written with its newer half first.
const LATE_EVERY: u64 = 3;
/// Flushes after which blocks are merged.
const FLUSHES_PER_MERGE: u64 = 4;
/// A head over more windows is not flushed: each would be a block, and every block costs an fsync.
const WINDOWS_PER_FLUSH_MAX: usize = 8;

/// An engine in a temporary directory, with who writes to it.
pub(crate) struct Standalone {
    writer: BodyWriter,
    source: StandaloneSource,
    /// Series that were written.
    series: u64,
    flushes: u64,
    _folder: Folder,
}

struct StandaloneSource {
    engine: MetricsEngine,
    /// Whose samples are meant: what others wrote is forgotten.
    tenant: TenantId,
}

/// A name in this process that was not given before.
fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(format!("trefoil-promqltest-{process}-{number}"))
}

/// A directory that goes with this.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is a temporary file that nothing reads.
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Standalone {
    /// An empty engine in a new temporary directory.
    ///
    /// # Errors
    /// When the directory cannot be made or written to.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = Folder(directory());
        fs::create_dir(&folder.0)?;
        let blocks = folder.0.join("blocks");
        let (manifest, _) =
            Manifest::open(Arc::new(RealDisk), &blocks, ManifestOptions::default())?;
        let engine = MetricsEngine::open(Arc::new(manifest), MetricsOptions::default())?;
        Ok(Self {
            writer: BodyWriter::new()?,
            source: StandaloneSource {
                engine,
                tenant: TenantId(0),
            },
            series: 0,
            flushes: 0,
            _folder: folder,
        })
    }

    /// Writes samples of a series as a parcel of its own.
    fn write(&mut self, labels: &Labels, samples: &[Sample]) -> anyhow::Result<()> {
        let tenant = self.source.tenant;
        let shard = shard_of(key_hash(tenant, labels.canonical()), SHARDS);
        let stored: Vec<Stored> = samples.iter().map(Stored::of).collect();
        let samples = stored.iter().map(Stored::sample);
        self.writer
            .add_samples(shard, labels.canonical(), samples)?;
        if self.writer.is_empty() {
            return Ok(());
        }
        let body = self.writer.finish()?;
        let engine = &self.source.engine;
        let position = engine.applied_position() + body.len() as u64;
        let all = ShardSet::all(SHARDS);
        engine.apply(position, tenant, DeletionVersion::default(), &body, &all)?;
        Ok(())
    }

    /// Moves what is in the head to blocks, and merges those now and then.
    fn flush(&mut self) -> anyhow::Result<()> {
        let engine = &self.source.engine;
        if engine.head_windows().len() > WINDOWS_PER_FLUSH_MAX {
            return Ok(());
        }
        engine.flush(engine.applied_position(), None)?;
        self.flushes += 1;
        if self.flushes.is_multiple_of(FLUSHES_PER_MERGE) {
            while engine.merge_once(Millis::MAX)?.is_some() {}
        }
        Ok(())
    }

    fn take(&mut self, labels: &Labels, samples: &[Sample]) -> anyhow::Result<()> {
        let (first, second) = samples.split_at(samples.len() / 2);
        // Of some series the older half is what comes late.
        let (first, second) = match self.series.is_multiple_of(LATE_EVERY) {
            true => (second, first),
            false => (first, second),
        };
        self.write(labels, first)?;
        self.series += 1;
        if self.series.is_multiple_of(SERIES_PER_FLUSH) {
            self.flush()?;
        }
        self.write(labels, second)
    }
}

impl Target for Standalone {
    fn clear(&mut self) -> Result<(), QueryError> {
        self.source.tenant.0 += 1;
        Ok(())
    }

    fn load(&mut self, labels: &Labels, samples: &[Sample]) -> Result<(), QueryError> {
        self.take(labels, samples)
            .map_err(|error| QueryError::Internal(format!("{error:#}")))
    }

    fn source(&self) -> &dyn Source {
        &self.source
    }
}

/// A sample as protocols give it to the store.
struct Stored {
    time: Millis,
    start: Millis,
    value: f64,
    histogram: Option<Arc<Histogram>>,
}

impl Stored {
    fn of(sample: &Sample) -> Self {
        let (value, histogram) = match &sample.value {
            Value::Float(value) => (*value, None),
            Value::Histogram(histogram) => (0.0, Some(as_taken_in(histogram))),
        };
        Self {
            time: sample.time,
            start: sample.start,
            value,
            histogram,
        }
    }

    fn sample(&self) -> SampleRef<'_> {
        SampleRef {
            time: self.time,
            value: self.value,
            histogram: self.histogram.as_ref(),
            start: self.start,
        }
    }
}

/// As all protocols do: that there was no reset is not taken from clients, because another sample may come in between.
fn as_taken_in(histogram: &Arc<Histogram>) -> Arc<Histogram> {
    let mut histogram = histogram.clone();
    if histogram.reset_hint == ResetHint::NotReset {
        Arc::make_mut(&mut histogram).reset_hint = ResetHint::Unknown;
    }
    histogram
}

/// The shards of each evaluator.
fn evaluators() -> impl Iterator<Item = ShardSet> {
    (0..EVALUATORS).map(|first| {
        let shards = (first..SHARDS).step_by(usize::from(EVALUATORS));
        shards.map(ShardId).collect()
    })
}

impl StandaloneSource {
    /// What the evaluators say, one after the other, on one view.
    fn ask_all(&self, question: &Question, samples_max: u64) -> Result<Vec<Answer>, QueryError> {
        let view = self.engine.view();
        let asked = evaluators().map(|shards| self.ask(&view, &shards, question, samples_max));
        asked.collect()
    }

    fn ask(
        &self,
        view: &View,
        shards: &ShardSet,
        question: &Question,
        samples_max: u64,
    ) -> Result<Answer, QueryError> {
        let broken = |status: tonic::Status| QueryError::Internal(status.message().to_owned());
        let travels = question::encode(question).map_err(broken)?;
        let question = question::decode(&travels).map_err(broken)?;
        let budget = Budget::new(samples_max);
        let storage = ViewStorage {
            view,
            tenant: self.tenant,
            shards,
            damaged: Cell::new(None),
            budget: &budget,
            meter: Arc::default(),
            brief: None,
        };
        let answer = evaluate(&storage, question, &budget, None)?;
        question::decode(&question::encode(&answer).map_err(broken)?).map_err(broken)
    }

    fn texts(&self, question: &Question, limit: usize) -> Result<Listing<String>, QueryError> {
        let mut texts = Vec::new();
        for answer in self.ask_all(question, SAMPLES_MAX_DEFAULT)? {
            match answer {
                Answer::Texts(part) => texts.extend(part),
                _ => return Err(wrong_kind()),
            }
        }
        Ok(listing(texts, limit, Vec::new()))
    }
}

#[async_trait]
impl Source for StandaloneSource {
    async fn evaluate(&self, part: Part) -> Result<PartResult, QueryError> {
        let samples_max = part.samples_max;
        let mut results = Vec::new();
        for answer in self.ask_all(&Question::Part(Box::new(part)), samples_max)? {
            match answer {
                Answer::Part(result) => results.push(result),
                _ => return Err(wrong_kind()),
            }
        }
        merge(results, &Budget::new(samples_max))
    }

    async fn series(&self, wanted: SeriesFilter) -> Result<Listing<Labels>, QueryError> {
        let limit = wanted.limit;
        let mut series = Vec::new();
        for answer in self.ask_all(&Question::Series(filter(wanted)), SAMPLES_MAX_DEFAULT)? {
            match answer {
                Answer::Series(canonical) => series.extend(read_labels(canonical)?),
                _ => return Err(wrong_kind()),
            }
        }
        Ok(listing(series, limit, Vec::new()))
    }

    async fn label_names(&self, wanted: SeriesFilter) -> Result<Listing<String>, QueryError> {
        let limit = wanted.limit;
        self.texts(&Question::LabelNames(filter(wanted)), limit)
    }

    async fn label_values(
        &self,
        name: &str,
        wanted: SeriesFilter,
    ) -> Result<Listing<String>, QueryError> {
        let limit = wanted.limit;
        let question = Question::LabelValues(name.to_owned(), filter(wanted));
        self.texts(&question, limit)
    }
}

#[cfg(test)]
mod aggregated;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parallel;
    use trefoil_query_promql::{EvalOptions, Grid, PartBody, PartOutput, Span};

    /// The whole expression at eleven times.
    fn part(query: &str, output: PartOutput) -> Part {
        let grid = Grid {
            start: 0,
            end: 600_000,
            step: 60_000,
        };
        Part {
            query: query.into(),
            node: Span::new(0, query.len()),
            output,
            grid,
            query_grid: grid,
            bindings: Vec::new(),
            options: EvalOptions::default(),
            samples_max: SAMPLES_MAX_DEFAULT,
        }
    }

    /// An engine with series of three jobs in its head and its blocks.
    async fn three_jobs() -> Standalone {
        let mut target = Standalone::new().expect("a directory");
        let mut cases = "load 1m\n".to_owned();
        for series in 0..3 * SERIES_PER_FLUSH {
            let (job, step) = (series % 3, series + 1);
            cases += &format!("  m{{i=\"{series}\", job=\"{job}\"}} 0+{step}x10\n");
        }
        let report = trefoil_query_promql::promqltest::run(&cases, &mut target).await;
        assert!(report.expect("a readable file").failures.is_empty());
        target
    }

    #[tokio::test]
    async fn pieces_that_share_groups_are_charged_once() {
        let target = three_jobs().await;
        let view = target.source.engine.view();
        let all = ShardSet::all(SHARDS);
        let part = part("sum by (job) (m)", PartOutput::Groups);
        let (of_groups, of_series) = (3 * 11, 11);
        // In the smaller budget one piece just fits, but the groups of two pieces do not.
        for samples_max in [of_groups + of_series, 1_000] {
            for pieces in [1, 2, 12] {
                let budget = Budget::new(samples_max);
                let storage = ViewStorage {
                    view: &view,
                    tenant: target.source.tenant,
                    shards: &all,
                    damaged: Cell::new(None),
                    budget: &budget,
                    meter: Arc::default(),
                    brief: None,
                };
                parallel::evaluate_in_pieces(&part, &[], &storage, &budget, |_| pieces)
                    .expect("room");
                let left = (samples_max - of_groups) as usize;
                assert_eq!(budget.hold(left), Ok(()), "{pieces} pieces");
                assert!(budget.hold(1).is_err(), "{pieces} pieces");
            }
        }
    }

    #[tokio::test]
    async fn pieces_on_threads_are_the_whole() {
        let target = three_jobs().await;
        let view = target.source.engine.view();
        let (budget, all) = (Budget::default(), ShardSet::all(SHARDS));
        let storage = ViewStorage {
            view: &view,
            tenant: target.source.tenant,
            shards: &all,
            damaged: Cell::new(None),
            budget: &budget,
            meter: Arc::default(),
            brief: None,
        };
        for (query, output) in [
            ("rate(m[3m])", PartOutput::Rows),
            ("sum by (job) (m)", PartOutput::Groups),
            ("avg(m)", PartOutput::Groups),
            ("topk(100, m)", PartOutput::Groups),
            ("m[3m]", PartOutput::Samples),
            ("m{job=\"1\"}", PartOutput::Presence),
        ] {
            let part = part(query, output);
            let in_pieces = |pieces| {
                parallel::evaluate_in_pieces(&part, &[], &storage, &budget, |_| pieces)
                    .expect(query)
                    .result
            };
            let whole = in_pieces(1);
            let length = match &whole.body {
                PartBody::Rows(rows) => rows.len(),
                PartBody::Groups(groups) => groups.len(),
                PartBody::Samples(series) => series.len(),
            };
            assert!(length > 0, "{query}");
            // Bytes, because a value that is absent does not equal itself.
            let bytes = |result| question::encode(&Answer::Part(result)).expect("an answer");
            let whole = bytes(whole);
            for pieces in [2, 3, 50] {
                assert_eq!(
                    bytes(in_pieces(pieces)),
                    whole,
                    "{query} in {pieces} pieces"
                );
            }
        }
    }

    #[test]
    fn every_shard_has_one_evaluator() {
        let mut all = ShardSet::new();
        for shards in evaluators() {
            assert!(all.intersection(&shards).is_empty());
            all = all.union(&shards);
        }
        assert_eq!(all, ShardSet::all(SHARDS));
    }

    #[tokio::test]
    async fn histograms_and_start_timestamps_are_in_the_engine() {
        let mut target = Standalone::new().expect("a directory");
        let mut cases = "load 1m\n".to_owned();
        for series in 0..SERIES_PER_FLUSH {
            cases += &format!("  h{{i=\"{series}\"}} {{{{count:1 sum:2 buckets:[1]}}}}x10\n");
            cases += &format!("  c{{i=\"{series}\"}} 0+1x10\n  c{{i=\"{series}\"}}@st -1mx10\n");
        }
        cases += "\neval instant at 10m count(histogram_count(h) == 1)\n  {} 12\n\n\
                  eval instant at 10m sum(count_over_time(h[11m])) + sum(count_over_time(c[11m]))\n  {} 264\n";
        let report = trefoil_query_promql::promqltest::run(&cases, &mut target).await;
        let report = report.expect("a readable file");
        assert_eq!((report.passed, report.failures), (2, vec![]));
        let statistics = target.source.engine.statistics();
        assert!(statistics.head_samples > 0 && statistics.block_samples > 0);
        let stored = statistics.head_samples + statistics.block_samples;
        assert_eq!(stored, 264, "nothing is beside the engine");
    }

    #[tokio::test]
    async fn cases_run_over_head_and_blocks() {
        let mut target = Standalone::new().expect("a directory");
        let mut cases = "load 1m\n".to_owned();
        for series in 0..2 * SERIES_PER_FLUSH {
            cases += &format!("  m{{i=\"{series}\"}} 0+1x10\n");
        }
        cases += "\neval instant at 10m sum(sum_over_time(m[10m]))\n  {} 1320\n\n\
                  eval instant at 10m count(m)\n  {} 24\n\nclear\n\neval instant at 10m m\n";
        let report = trefoil_query_promql::promqltest::run(&cases, &mut target).await;
        let report = report.expect("a readable file");
        assert_eq!((report.passed, report.failures), (3, vec![]));
        let statistics = target.source.engine.statistics();
        assert_eq!(target.flushes, 2);
        assert!(statistics.blocks > 0 && statistics.block_samples > 0);
        let folder = target._folder.0.clone();
        assert!(folder.exists());
        drop(target);
        assert!(!folder.exists());
    }
}
