//! A tenant's label index in memory: series, their labels, and which series carry which label.
//!
//! A label pair is stored once, as its canonical bytes; a series is a list of pair numbers, so its
//! canonical labels are the concatenation of its pairs' bytes. About 90 bytes per series with 10 labels
//! that few others share. Series are numbered in the order of their arrival and never change.

use crate::Matcher;
use crate::order::{pair_bytes, text_of, write_block_key};
use crate::postings::Postings;
use hashbrown::HashTable;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use trefoil_model::{SeriesHash, ShardId, TenantId, write_varint};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) struct HeadIndex {
    tenant: TenantId,
    /// Canonical bytes of all pairs.
    arena: Vec<u8>,
    pairs: Vec<Pair>,
    pair_table: HashTable<u32>,
    /// The pairs of each label name.
    names: BTreeMap<Box<[u8]>, Vec<u32>>,
    series: Vec<Series>,
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
            series: Vec::new(),
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

    /// Whether there is a series with these canonical labels.
    pub(crate) fn contains(&self, canonical: &[u8]) -> bool {
        let hash = SeriesHash::of(self.tenant, canonical).0;
        let (high, low) = ((hash >> 64) as u64, hash as u64);
        let same = |number: &u32| {
            let one = &self.series[*number as usize];
            one.hash_low == low && one.hash_high == high
        };
        self.series_table.find(low, same).is_some()
    }

    /// Collects the series that have this label with this value.
    pub(crate) fn collect_pair(&self, name: &[u8], value: &[u8], found: &mut RoaringBitmap) {
        let mut bytes = Vec::new();
        for text in [name, value] {
            write_varint(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text);
        }
        if let Some(pair) = self.find_pair(&bytes) {
            self.pairs[pair as usize].postings.collect(found);
        }
    }

    fn add(&mut self, canonical: &[u8], shard: ShardId, (high, low): (u64, u64)) -> u32 {
        let number = self.series.len() as u32;
        let labels = self.labels.len() as u32;
        for (bytes, name) in pair_bytes(canonical) {
            let pair = self.find_or_add_pair(bytes, name);
            self.pairs[pair as usize].postings.push_or_begin(number);
            self.labels.push(pair);
        }
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
        self.pairs.push(Pair {
            start,
            name: name as u32,
            end: self.arena.len() as u32,
            postings: Postings::default(),
        });
        let (arena, pairs) = (&self.arena, &self.pairs);
        self.pair_table
            .insert_unique(xxh3_64(bytes), number, |other| {
                let pair = &pairs[*other as usize];
                xxh3_64(&arena[pair.start as usize..pair.end as usize])
            });
        let name = text_of(&bytes[..name]);
        match self.names.get_mut(name) {
            Some(pairs) => pairs.push(number),
            None => drop(self.names.insert(name.into(), vec![number])),
        }
        number
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

    /// Appends the canonical labels of a series.
    pub(crate) fn write_canonical(&self, series: u32, out: &mut Vec<u8>) {
        let series = &self.series[series as usize];
        let labels = series.labels as usize;
        for pair in &self.labels[labels..labels + usize::from(series.label_count)] {
            out.extend_from_slice(self.pair_bytes(*pair));
        }
    }

    /// The series below `limit` that satisfy all matchers.
    pub(crate) fn find(&self, matchers: &[Matcher], limit: u32) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        found.insert_range(0..limit);
        for matcher in matchers {
            if found.is_empty() {
                break;
            }
            if matcher.matches(b"") {
                found -= self.series_with(matcher, |value| !matcher.matches(value));
            } else {
                found &= self.series_with(matcher, |value| matcher.matches(value));
            }
        }
        found
    }

    fn series_with(&self, matcher: &Matcher, wanted: impl Fn(&[u8]) -> bool) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        let name = matcher.name().as_bytes();
        if let Some(literals) = matcher.literals().filter(|_| !matcher.matches(b"")) {
            let mut bytes = Vec::new();
            for value in literals {
                bytes.clear();
                for text in [name, value] {
                    write_varint(&mut bytes, text.len() as u64);
                    bytes.extend_from_slice(text);
                }
                if let Some(pair) = self.find_pair(&bytes) {
                    self.pairs[pair as usize].postings.collect(&mut found);
                }
            }
            return found;
        }
        for &pair in self.names.get(name).map_or(&[][..], Vec::as_slice) {
            if wanted(self.value_of(pair)) {
                self.pairs[pair as usize].postings.collect(&mut found);
            }
        }
        found
    }

    /// The values of label `name` on series of `among`, in no order.
    pub(crate) fn label_values(
        &self,
        name: &[u8],
        among: &RoaringBitmap,
        mut each: impl FnMut(&[u8]),
    ) {
        for &pair in self.names.get(name).map_or(&[][..], Vec::as_slice) {
            if self.is_on(pair, among) {
                each(self.value_of(pair));
            }
        }
    }

    /// The label names on series of `among`, ascending.
    pub(crate) fn label_names(&self, among: &RoaringBitmap, mut each: impl FnMut(&[u8])) {
        for (name, pairs) in &self.names {
            if pairs.iter().any(|pair| self.is_on(*pair, among)) {
                each(name);
            }
        }
    }

    fn is_on(&self, pair: u32, among: &RoaringBitmap) -> bool {
        let mut series = RoaringBitmap::new();
        self.pairs[pair as usize].postings.collect(&mut series);
        !series.is_disjoint(among)
    }

    /// Series in block order, as [`HeadIndex::keep_block_order`] was last told: the oldest series, all of them.
    pub(crate) fn block_order(&self) -> &[u32] {
        &self.ordered
    }

    /// Keeps the block order of the oldest series.
    pub(crate) fn keep_block_order(&mut self, ordered: Vec<u32>) {
        self.ordered = ordered;
    }

    /// Appends the block order keys of some series.
    pub(crate) fn add_block_keys(&self, series: &[u32], keys: &mut BlockKeys) {
        let mut canonical = Vec::new();
        for &number in series {
            canonical.clear();
            self.write_canonical(number, &mut canonical);
            write_block_key(&canonical, &mut keys.bytes);
            keys.ends.push(keys.bytes.len());
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let postings: usize = self
            .pairs
            .iter()
            .map(|pair| pair.postings.heap_bytes())
            .sum();
        let names: usize = self
            .names
            .values()
            .map(|pairs| pairs.capacity() * 4 + 64)
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

/// Block order keys of some series, in one piece of memory.
#[derive(Default)]
pub(crate) struct BlockKeys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl BlockKeys {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The key that was added at this place.
    pub(crate) fn of(&self, place: usize) -> &[u8] {
        let start = match place {
            0 => 0,
            _ => self.ends[place - 1],
        };
        &self.bytes[start..self.ends[place]]
    }
}
