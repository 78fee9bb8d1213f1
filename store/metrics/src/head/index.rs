//! A tenant's label index in memory: series, their labels, and which series carry which label.
//!
//! A label pair is stored once, as its canonical bytes; a series is a list of pair numbers, so its
//! canonical labels are the concatenation of its pairs' bytes. About 90 bytes per series with 10 labels
//! that few others share. Series are numbered in the order of their arrival and never change.

mod search;

use crate::active::{Seen, metric_hash};
use crate::order::{pair_bytes, text_of};
use crate::postings::Postings;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use trefoil_model::{LABEL_NAME_METRIC, SeriesHash, ShardId, ShardSet, TenantId};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) struct HeadIndex {
    tenant: TenantId,
    /// Canonical bytes of all pairs.
    arena: Vec<u8>,
    pairs: Vec<Pair>,
    pair_table: HashTable<u32>,
    /// Places of label names in `of_names`.
    names: BTreeMap<Box<[u8]>, u32>,
    of_names: Vec<OfName>,
    series: Vec<Series>,
    /// The shards of all series.
    shards: ShardSet,
    /// Pair numbers of all series.
    labels: Vec<u32>,
    series_table: HashTable<u32>,
    /// Series in block order; the newest may be missing.
    ordered: Vec<u32>,
}

struct Pair {
    start: u32,
    /// Length of the name with its length prefix.
    name: u32,
    end: u32,
    /// Place of the name in `of_names`.
    of_name: u32,
    postings: Postings,
}

/// What belongs to a label name.
#[derive(Default)]
struct OfName {
    pairs: Vec<u32>,
    /// The series that have the label.
    postings: Postings,
}

struct Series {
    hash_high: u64,
    hash_low: u64,
    labels: u32,
    label_count: u16,
    shard: ShardId,
}

impl HeadIndex {
    pub(crate) fn new(tenant: TenantId) -> Self {
        Self {
            tenant,
            arena: Vec::new(),
            pairs: Vec::new(),
            pair_table: HashTable::new(),
            names: BTreeMap::new(),
            of_names: Vec::new(),
            series: Vec::new(),
            shards: ShardSet::new(),
            labels: Vec::new(),
            series_table: HashTable::new(),
            ordered: Vec::new(),
        }
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> u32 {
        self.series.len() as u32
    }

    pub(crate) fn shard(&self, series: u32) -> ShardId {
        self.series[series as usize].shard
    }

    /// The number of the series with these canonical labels; a new one if there was none.
    #[inline]
    pub(crate) fn find_or_add(&mut self, canonical: &[u8], shard: ShardId) -> u32 {
        let hash = SeriesHash::of(self.tenant, canonical).0;
        let (high, low) = ((hash >> 64) as u64, hash as u64);
        let series = &self.series;
        let same = |number: &u32| {
            let one = &series[*number as usize];
            one.hash_low == low && one.hash_high == high
        };
        match self.series_table.find(low, same) {
            Some(number) => *number,
            None => self.add(canonical, shard, (high, low)),
        }
    }

    /// Whether there is a series whose hash has this low half.
    pub(crate) fn contains_hash(&self, low: u64) -> bool {
        let same = |number: &u32| self.series[*number as usize].hash_low == low;
        self.series_table.find(low, same).is_some()
    }

    /// A series as limits know it.
    pub(crate) fn seen(&self, number: u32) -> Seen {
        let place = self.names.get(LABEL_NAME_METRIC.as_bytes());
        let pair = place.and_then(|place| self.pair_of(number, *place));
        let metric = pair.map_or(&[][..], |pair| self.value_of(pair));
        let series = &self.series[number as usize];
        Seen {
            series: series.hash_low,
            metric: metric_hash(metric),
            shard: series.shard,
        }
    }

    fn add(&mut self, canonical: &[u8], shard: ShardId, (high, low): (u64, u64)) -> u32 {
        let number = self.series.len() as u32;
        let labels = self.labels.len() as u32;
        for (bytes, name) in pair_bytes(canonical) {
            let pair = self.find_or_add_pair(bytes, name);
            let of_pair = &mut self.pairs[pair as usize];
            of_pair.postings.push_or_begin(number);
            let of_name = &mut self.of_names[of_pair.of_name as usize];
            of_name.postings.push_or_begin(number);
            self.labels.push(pair);
        }
        self.shards.insert(shard);
        self.series.push(Series {
            hash_high: high,
            hash_low: low,
            labels,
            label_count: (self.labels.len() as u32 - labels) as u16,
            shard,
        });
        let series = &self.series;
        self.series_table
            .insert_unique(low, number, |other| series[*other as usize].hash_low);
        number
    }

    fn find_or_add_pair(&mut self, bytes: &[u8], name: usize) -> u32 {
        if let Some(pair) = self.find_pair(bytes) {
            return pair;
        }
        let number = self.pairs.len() as u32;
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        let of_name = self.place_of_name(text_of(&bytes[..name]));
        self.of_names[of_name as usize].pairs.push(number);
        self.pairs.push(Pair {
            start,
            name: name as u32,
            end: self.arena.len() as u32,
            of_name,
            postings: Postings::default(),
        });
        let (arena, pairs) = (&self.arena, &self.pairs);
        self.pair_table
            .insert_unique(xxh3_64(bytes), number, |other| {
                let pair = &pairs[*other as usize];
                xxh3_64(&arena[pair.start as usize..pair.end as usize])
            });
        number
    }

    fn place_of_name(&mut self, name: &[u8]) -> u32 {
        if let Some(place) = self.names.get(name) {
            return *place;
        }
        let place = self.of_names.len() as u32;
        self.of_names.push(OfName::default());
        self.names.insert(name.into(), place);
        place
    }

    fn find_pair(&self, bytes: &[u8]) -> Option<u32> {
        self.pair_table
            .find(xxh3_64(bytes), |pair| self.pair_bytes(*pair) == bytes)
            .copied()
    }

    fn pair_bytes(&self, pair: u32) -> &[u8] {
        let pair = &self.pairs[pair as usize];
        &self.arena[pair.start as usize..pair.end as usize]
    }

    fn value_of(&self, pair: u32) -> &[u8] {
        let name = self.pairs[pair as usize].name as usize;
        text_of(&self.pair_bytes(pair)[name..])
    }

    /// The pairs of a series in the order of its labels.
    fn pairs_of(&self, series: u32) -> &[u32] {
        let series = &self.series[series as usize];
        let labels = series.labels as usize;
        &self.labels[labels..labels + usize::from(series.label_count)]
    }

    /// Appends the canonical labels of a series.
    pub(crate) fn write_canonical(&self, series: u32, out: &mut Vec<u8>) {
        for pair in self.pairs_of(series) {
            out.extend_from_slice(self.pair_bytes(*pair));
        }
    }

    /// Series in block order, as [`HeadIndex::keep_block_order`] was last told: the oldest series, all of them.
    pub(crate) fn block_order(&self) -> &[u32] {
        &self.ordered
    }

    /// Keeps the block order of the oldest series.
    pub(crate) fn keep_block_order(&mut self, ordered: Vec<u32>) {
        self.ordered = ordered;
    }

    /// Memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let postings: usize = self
            .pairs
            .iter()
            .map(|pair| pair.postings.heap_bytes())
            .sum();
        let names: usize = self
            .of_names
            .iter()
            .map(|of_name| of_name.pairs.capacity() * 4 + of_name.postings.heap_bytes() + 128)
            .sum();
        self.arena.capacity()
            + self.pairs.capacity() * size_of::<Pair>()
            + (self.pair_table.capacity() + self.series_table.capacity()) * 5 * 8 / 7
            + self.series.capacity() * size_of::<Series>()
            + (self.labels.capacity() + self.ordered.capacity()) * 4
            + postings
            + names
    }
}
