//! Series in memory, for tests, benchmarks and small tools: a storage, and a source over several of them.

use crate::{
    Budget, Listing, Part, PartResult, QueryError, SampleColumns, SampleSource, Selector,
    SeriesFilter, SeriesStorage, SeriesVisitor, Source, Value, evaluate_part, is_histogram, merge,
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use trefoil_model::{Aggregate, Histogram, Labels, Millis, ResetHint, aggregate};

/// Series by labels, each with ascending samples.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    series: BTreeMap<Labels, SampleColumns>,
}

/// A sample as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds.
    pub time: Millis,
    /// When the counter began, 0 where that is not known. Milliseconds.
    pub start: Millis,
    /// A float, maybe the stale marker, or a histogram.
    pub value: Value,
}

impl MemoryStorage {
    /// Adds a float sample; one with the same time is replaced.
    pub fn insert(&mut self, labels: &Labels, timestamp: Millis, value: f64) {
        let sample = Sample {
            time: timestamp,
            start: 0,
            value: Value::Float(value),
        };
        self.append(labels, &sample);
    }

    /// Adds a sample; one with the same time is replaced. Samples that do not come in order of time cost a copy of the
    /// series.
    pub fn append(&mut self, labels: &Labels, sample: &Sample) {
        let columns = self.series.entry(labels.clone()).or_default();
        let behind = columns.timestamps.partition_point(|t| *t < sample.time);
        let is_same = columns.timestamps.get(behind) == Some(&sample.time);
        let rest: Vec<Sample> = (behind + usize::from(is_same)..columns.timestamps.len())
            .map(|at| sample_of(columns, at))
            .collect();
        truncate(columns, behind);
        push(columns, sample);
        rest.iter().for_each(|sample| push(columns, sample));
    }
}

fn sample_of(columns: &SampleColumns, at: usize) -> Sample {
    let value = columns.values[at];
    let histogram = columns.histograms.at(at).filter(|_| is_histogram(value));
    Sample {
        time: columns.timestamps[at],
        start: columns.start_timestamps.get(at).copied().unwrap_or(0),
        value: histogram.map_or(Value::Float(value), |h| Value::Histogram(h.clone())),
    }
}

fn truncate(columns: &mut SampleColumns, length: usize) {
    columns.timestamps.truncate(length);
    columns.values.truncate(length);
    columns.start_timestamps.truncate(length);
    columns.histograms.truncate(length);
}

fn push(columns: &mut SampleColumns, sample: &Sample) {
    match &sample.value {
        Value::Float(value) => columns.push(sample.time, *value),
        Value::Histogram(histogram) => {
            let before = columns.values.len().checked_sub(1);
            let before = before.and_then(|at| columns.histograms.at(at));
            let histogram = hinted(before, histogram);
            columns.push_histogram(sample.time, histogram);
        }
    }
    columns.set_last_start(sample.start);
}

/// A histogram with what a storage knows about resets: that there was none since the histogram in front of it, if both have
/// the same buckets; nothing else.
fn hinted(before: Option<&Arc<Histogram>>, histogram: &Arc<Histogram>) -> Arc<Histogram> {
    if histogram.reset_hint == ResetHint::Gauge {
        return histogram.clone();
    }
    let continues = before.is_some_and(|before| histogram.continues(before));
    let mut hinted = Histogram::clone(histogram);
    hinted.reset_hint = match continues {
        true => ResetHint::NotReset,
        false => ResetHint::Unknown,
    };
    Arc::new(hinted)
}

struct MemorySamples<'a> {
    columns: &'a SampleColumns,
    selector: &'a Selector,
}

impl SampleSource for MemorySamples<'_> {
    fn read(&mut self, into: &mut SampleColumns) -> Result<(), QueryError> {
        let timestamps = &self.columns.timestamps;
        let from = timestamps.partition_point(|t| *t < self.selector.start);
        let to = timestamps.partition_point(|t| *t <= self.selector.end);
        if from < to {
            into.timestamps.extend_from_slice(&timestamps[from..to]);
            into.values
                .extend_from_slice(&self.columns.values[from..to]);
            for at in from..to {
                if let Some(histogram) = self.columns.histograms.at(at) {
                    into.histograms.put(at - from, histogram.clone());
                }
            }
            if let Some(starts) = self.columns.start_timestamps.get(from..to) {
                into.start_timestamps.extend_from_slice(starts);
            }
        }
        Ok(())
    }

    fn aggregates(&mut self, into: &mut Vec<Aggregate>) -> Result<bool, QueryError> {
        let plain = self.columns.histograms.is_empty() && self.columns.start_timestamps.is_empty();
        let Some(resolution) = self.selector.resolution.filter(|_| plain) else {
            return Ok(false);
        };
        let mut inside = SampleColumns::default();
        self.read(&mut inside)?;
        let samples = inside.timestamps.into_iter().zip(inside.values);
        aggregate(samples, resolution, into);
        Ok(!into.is_empty())
    }
}

impl SeriesStorage for MemoryStorage {
    fn select(&self, selector: &Selector, each: &mut SeriesVisitor<'_>) -> Result<(), QueryError> {
        for (labels, columns) in &self.series {
            if selector.matchers.iter().all(|m| m.matches_labels(labels)) {
                each(labels, &mut MemorySamples { columns, selector })?;
            }
        }
        Ok(())
    }
}

/// A source over several storages with disjoint series, as if each was an evaluator's.
#[derive(Clone, Debug)]
pub struct MemorySource {
    shards: Vec<MemoryStorage>,
}

impl MemorySource {
    /// An empty source of `shards` storages, at least one.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self {
            shards: vec![MemoryStorage::default(); shards.max(1)],
        }
    }

    /// Adds a float sample to the storage that the series belongs to.
    pub fn insert(&mut self, labels: &Labels, timestamp: Millis, value: f64) {
        self.shard(labels).insert(labels, timestamp, value);
    }

    /// Adds a sample; see [`MemoryStorage::append`].
    pub fn append(&mut self, labels: &Labels, sample: &Sample) {
        self.shard(labels).append(labels, sample);
    }

    fn shard(&mut self, labels: &Labels) -> &mut MemoryStorage {
        let hash = xxhash_rust::xxh64::xxh64(labels.canonical(), 0);
        let shard = hash as usize % self.shards.len();
        &mut self.shards[shard]
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.shards.fill(MemoryStorage::default());
    }

    fn fitting(&self, filter: &SeriesFilter) -> BTreeSet<&Labels> {
        let inside = |columns: &SampleColumns| {
            let mut times = columns.timestamps.iter();
            times.any(|t| (filter.start..=filter.end).contains(t))
        };
        let fits = |labels: &Labels| {
            filter.alternatives.is_empty()
                || filter
                    .alternatives
                    .iter()
                    .any(|all| all.iter().all(|m| m.matches_labels(labels)))
        };
        let all = self.shards.iter().flat_map(|shard| &shard.series);
        let fitting = all.filter(|(labels, columns)| fits(labels) && inside(columns));
        fitting.map(|(labels, _)| labels).collect()
    }
}

fn listing<T>(items: impl IntoIterator<Item = T>, limit: usize) -> Listing<T> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut items: Vec<T> = items.into_iter().take(limit.saturating_add(1)).collect();
    let mut warnings = Vec::new();
    if items.len() > limit {
        items.truncate(limit);
        warnings.push("results truncated due to limit".to_owned());
    }
    Listing { items, warnings }
}

#[async_trait]
impl Source for MemorySource {
    async fn evaluate(&self, part: Part) -> Result<PartResult, QueryError> {
        let mut results = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let budget = Budget::new(part.samples_max);
            results.push(evaluate_part(&part, shard, &budget)?);
        }
        merge(results, &Budget::new(part.samples_max))
    }

    async fn series(&self, filter: SeriesFilter) -> Result<Listing<Labels>, QueryError> {
        let series = self.fitting(&filter).into_iter().cloned();
        Ok(listing(series, filter.limit))
    }

    async fn label_names(&self, filter: SeriesFilter) -> Result<Listing<String>, QueryError> {
        let series = self.fitting(&filter);
        let names: BTreeSet<String> = series
            .into_iter()
            .flat_map(|labels| labels.iter().map(|(name, _)| name.to_owned()))
            .collect();
        Ok(listing(names, filter.limit))
    }

    async fn label_values(
        &self,
        name: &str,
        filter: SeriesFilter,
    ) -> Result<Listing<String>, QueryError> {
        let series = self.fitting(&filter);
        let values: BTreeSet<String> = series
            .into_iter()
            .filter_map(|labels| labels.get(name).map(str::to_owned))
            .collect();
        Ok(listing(values, filter.limit))
    }
}
