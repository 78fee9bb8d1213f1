//! Series in memory, for tests, benchmarks and small tools: a storage, and a source over several of them.

use crate::{
    Budget, Listing, Part, PartResult, QueryError, SampleColumns, SampleSource, Selector,
    SeriesFilter, SeriesStorage, SeriesVisitor, Source, evaluate_part, merge,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{Labels, Millis};

/// Series by labels, each with ascending samples.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    series: BTreeMap<Labels, SampleColumns>,
}

impl MemoryStorage {
    /// Adds a sample; one with the same time is replaced.
    pub fn insert(&mut self, labels: &Labels, timestamp: Millis, value: f64) {
        let columns = self.series.entry(labels.clone()).or_default();
        let at = columns.timestamps.partition_point(|t| *t < timestamp);
        if columns.timestamps.get(at) == Some(&timestamp) {
            columns.values[at] = value;
            return;
        }
        columns.timestamps.insert(at, timestamp);
        columns.values.insert(at, value);
    }
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
        }
        Ok(())
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

    /// Adds a sample to the storage that the series belongs to.
    pub fn insert(&mut self, labels: &Labels, timestamp: Millis, value: f64) {
        let hash = xxhash_rust::xxh64::xxh64(labels.canonical(), 0);
        let shard = hash as usize % self.shards.len();
        self.shards[shard].insert(labels, timestamp, value);
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
        merge(results)
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
