//! Which series of which sources satisfy a query, each series once, in label order or in that of blocks.

use crate::block::{BlockReader, Pieces, TenantReader};
use crate::deletion::Deletion;
use crate::head::HeadPart;
use crate::order::SeriesOrder;
use crate::{Matcher, MetricsError};
use hashbrown::HashTable;
use roaring::RoaringBitmap;
use std::sync::Arc;
use trefoil_model::{Millis, ShardId, ShardSet, TenantId};
use xxhash_rust::xxh3::xxh3_64;

/// How many plain samples take as much memory as a histogram with about 40 buckets. Counted for every series of a source
/// that has histograms: which ones have them is known only when they are read.
const SAMPLES_PER_HISTOGRAM: u64 = 32;

/// One place where series of a tenant are found.
#[derive(Clone)]
pub(super) enum Source {
    Block {
        reader: Box<TenantReader>,
        /// Visible and wanted.
        shards: ShardSet,
        /// What takes samples out of some series.
        deletions: Vec<Deletion>,
        /// What takes all samples out of some series.
        emptying: Vec<Deletion>,
    },
    Head {
        part: HeadPart,
        shards: ShardSet,
        deletions: Vec<Deletion>,
    },
}

impl Source {
    /// The tenant's part of a block with samples between two times, both inclusive; `None` when it has none in `shards`.
    pub(super) fn block(
        block: &Arc<BlockReader>,
        tenant: TenantId,
        shards: &ShardSet,
        (time_min, time_max): (Millis, Millis),
        erasing: Vec<Deletion>,
        pieces: Pieces,
    ) -> Result<Option<Self>, MetricsError> {
        let Some(reader) = block.tenant(tenant, pieces)? else {
            return Ok(None);
        };
        let shards = shards.intersection(&reader.entry().shards);
        if shards.is_empty() {
            return Ok(None);
        }
        let all =
            |deletion: &Deletion| deletion.range.start <= time_min && deletion.range.end > time_max;
        let (emptying, deletions) = erasing.into_iter().partition(all);
        Ok(Some(Self::Block {
            deletions,
            emptying,
            reader: Box::new(reader),
            shards,
        }))
    }

    pub(super) fn find(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, MetricsError> {
        self.find_few(matchers, u64::MAX)
    }

    /// The same; perhaps more than that if there are more than `series_max`.
    fn find_few(
        &self,
        matchers: &[Matcher],
        series_max: u64,
    ) -> Result<RoaringBitmap, MetricsError> {
        match self {
            Self::Block {
                reader,
                shards,
                emptying,
                ..
            } => {
                let mut found = reader.find(matchers, shards)?;
                for deletion in emptying {
                    if !found.is_empty() {
                        found -= reader.find(&deletion.matchers, shards)?;
                    }
                }
                Ok(found)
            }
            Self::Head { part, shards, .. } => Ok(part.find(matchers, shards, series_max)),
        }
    }

    /// The label names of all series, ascending.
    pub(super) fn all_label_names(&self) -> Vec<String> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match self {
            Self::Block { reader, .. } => reader.all_label_names().map(text).collect(),
            Self::Head { part, .. } => part.all_label_names(text),
        }
    }

    /// About how many samples a series has here.
    pub(super) fn stored_per_series(&self) -> u64 {
        match self {
            Self::Block { reader, .. } => {
                let entry = reader.entry();
                entry.samples / u64::from(entry.series.max(1)) + 1
            }
            Self::Head { .. } => 32,
        }
    }

    /// The same, a histogram counted as several.
    pub(super) fn samples_per_series(&self) -> u64 {
        let is_plain = match self {
            Self::Block { reader, .. } => reader.is_plain(),
            Self::Head { part, .. } => part.is_plain(),
        };
        match is_plain {
            true => self.stored_per_series(),
            false => self.stored_per_series() * SAMPLES_PER_HISTOGRAM,
        }
    }

    /// The labels of series that were found, in ascending order of number.
    pub(super) fn labels(
        &self,
        found: &RoaringBitmap,
        with_shards: bool,
        mut each: impl FnMut(u32, &[u8], ShardId),
    ) -> Result<(), MetricsError> {
        match self {
            Self::Block { reader, .. } => {
                let all = if with_shards {
                    reader.shards()?
                } else {
                    Vec::new()
                };
                reader.labels_of(found, |number, canonical| {
                    let shard = all.get(number as usize).copied().unwrap_or_default();
                    each(number, canonical, shard);
                })
            }
            Self::Head { part, .. } => {
                part.labels(found.iter(), each);
                Ok(())
            }
        }
    }
}

/// About how many samples a series has in all sources together, one at least.
pub(super) fn samples_per_series(sources: &[Source]) -> u64 {
    let each: u64 = sources.iter().map(Source::samples_per_series).sum();
    each.max(1)
}

/// A series of a selection in one of its sources.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Place of the series in the selection's order.
    pub(super) rank: u32,
    pub(super) source: u32,
    /// The series' number in the source.
    pub(super) number: u32,
}

/// The series of a query, in order, with their parts.
#[derive(Default)]
pub(super) struct Selection {
    arena: Vec<u8>,
    series: Vec<SelectedLabels>,
    /// By rank.
    pub(super) parts: Vec<Part>,
}

struct SelectedLabels {
    start: usize,
    end: usize,
    shard: ShardId,
}

impl Selection {
    /// Finds the series in all sources. With `with_shards`, knows the shard of each.
    pub(super) fn new(
        sources: &[Source],
        matchers: &[Matcher],
        with_shards: bool,
        order: SeriesOrder,
    ) -> Result<Self, MetricsError> {
        let all = Self::of_few(sources, matchers, with_shards, order, u64::MAX)?;
        Ok(all.unwrap_or_default())
    }

    /// The same, unless a source has more than `series_max` of the series: then it looks no further.
    pub(super) fn of_few(
        sources: &[Source],
        matchers: &[Matcher],
        with_shards: bool,
        order: SeriesOrder,
        series_max: u64,
    ) -> Result<Option<Self>, MetricsError> {
        let mut selection = Self::default();
        let mut table: HashTable<u32> = HashTable::new();
        for (source, from) in sources.iter().enumerate() {
            let found = from.find_few(matchers, series_max)?;
            if found.len() > series_max {
                return Ok(None);
            }
            from.labels(&found, with_shards, |number, canonical, shard| {
                let rank = selection.intern(&mut table, canonical, shard);
                selection.parts.push(Part {
                    rank,
                    source: source as u32,
                    number,
                });
            })?;
        }
        drop(table);
        selection.sort(order);
        Ok(Some(selection))
    }

    fn intern(&mut self, table: &mut HashTable<u32>, canonical: &[u8], shard: ShardId) -> u32 {
        let (arena, series) = (&self.arena, &self.series);
        let labels = |one: &SelectedLabels| &arena[one.start..one.end];
        let hash = xxh3_64(canonical);
        if let Some(found) = table.find(hash, |one| labels(&series[*one as usize]) == canonical) {
            return *found;
        }
        let number = series.len() as u32;
        table.insert_unique(hash, number, |one| xxh3_64(labels(&series[*one as usize])));
        let start = self.arena.len();
        self.arena.extend_from_slice(canonical);
        self.series.push(SelectedLabels {
            start,
            end: self.arena.len(),
            shard,
        });
        number
    }

    /// Brings series and parts into order. Sources give series in block order, so that of one source is found by one walk.
    fn sort(&mut self, wanted: SeriesOrder) {
        let mut keys = Vec::with_capacity(self.arena.len() + self.series.len() * 16);
        let mut order: Vec<(usize, usize, u32)> = Vec::with_capacity(self.series.len());
        for (number, one) in self.series.iter().enumerate() {
            let start = keys.len();
            wanted.write_key(&self.arena[one.start..one.end], &mut keys);
            order.push((start, keys.len(), number as u32));
        }
        order.sort_unstable_by(|a, b| keys[a.0..a.1].cmp(&keys[b.0..b.1]));
        let mut ranks = vec![0; order.len()];
        for (rank, (_, _, number)) in order.iter().enumerate() {
            ranks[*number as usize] = rank as u32;
        }
        for part in &mut self.parts {
            part.rank = ranks[part.rank as usize];
        }
        self.parts.sort_unstable_by_key(|part| part.rank);
        let mut at = 0;
        self.series.sort_by_cached_key(|_| {
            at += 1;
            ranks[at - 1]
        });
    }

    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    pub(super) fn canonical(&self, rank: usize) -> &[u8] {
        let one = &self.series[rank];
        &self.arena[one.start..one.end]
    }

    pub(super) fn shard(&self, rank: usize) -> ShardId {
        self.series[rank].shard
    }

    /// How many series, `least` of them at least, to decode at once so that about `samples` samples are in memory, of which each
    /// series takes so many.
    pub(super) fn batch_series(samples_per_series: u64, samples: u64, least: u64) -> usize {
        (samples / samples_per_series.max(1)).clamp(least, 8_192) as usize
    }
}
