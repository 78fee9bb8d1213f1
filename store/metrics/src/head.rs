//! The head: the part of a node's samples that is not in blocks yet, in memory, queryable.
//!
//! Every tenant has one label index, which outlives flushes, and a *generation* of samples. A flush
//! freezes the generation (a new one takes its place at once), writes it as blocks and drops it whole,
//! together with the index when few of its series are still written to.
//! Both only grow, so a reader needs no copy: it remembers how long they were ([`HeadPart`]) and
//! ignores what came later, under read locks that it holds for one batch of series at a time. There is one writer,
//! which publishes the lengths behind each body: making a view waits for nobody.
//!
//! Nothing of the head is on disk. After a crash it is made again from the journal.

mod extras;
mod growing;
mod index;
mod samples;

pub(crate) use growing::Growing;
pub(crate) use index::{BlockKeys, HeadIndex};
use samples::Collected;
pub(crate) use samples::Samples;

use crate::Matcher;
use crate::columns::{Column, SampleSlice};
use crate::deletion::Deletion;
use roaring::RoaringBitmap;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, ShardId, ShardSet, TenantId, TimeRange};

/// Series whose keys are copied under one lock: well below a millisecond.
const KEYS_AT_ONCE: usize = 1024;

/// Memory of histograms copied out of the head at once; one series may have more.
const GATHERED_HISTOGRAM_BYTES: usize = 16 << 20;

/// A tenant's present head.
#[derive(Clone)]
pub(crate) struct TenantHead {
    pub(crate) index: Arc<Growing<HeadIndex>>,
    pub(crate) samples: Arc<Growing<Samples>>,
}

impl TenantHead {
    pub(crate) fn new(tenant: TenantId) -> Self {
        Self {
            index: Arc::new(Growing::new(HeadIndex::new(tenant))),
            samples: Arc::new(Growing::new(Samples::default())),
        }
    }

    /// The generation as it is now, up to the last body that was applied whole. Takes no lock.
    pub(crate) fn part(&self) -> HeadPart {
        // The writer publishes in the other order, so that the index knows the series of all records.
        let records = self.samples.length();
        HeadPart {
            index: Arc::clone(&self.index),
            samples: Arc::clone(&self.samples),
            series: self.index.length(),
            records,
        }
    }
}

/// A generation as a view sees it: what was there when the view was made.
#[derive(Clone)]
pub(crate) struct HeadPart {
    index: Arc<Growing<HeadIndex>>,
    samples: Arc<Growing<Samples>>,
    series: u32,
    records: u32,
}

impl HeadPart {
    /// The series with samples here that satisfy all matchers and lie in `shards`.
    pub(crate) fn find(&self, matchers: &[Matcher], shards: &ShardSet) -> RoaringBitmap {
        let mut found = self.index.read().find(matchers, self.series);
        let (index, samples) = (self.index.read(), self.samples.read());
        let absent: Vec<u32> = found
            .iter()
            .filter(|series| {
                !shards.contains(index.shard(*series)) || !samples.has(*series, self.records)
            })
            .collect();
        for series in absent {
            found.remove(series);
        }
        found
    }

    /// Canonical labels and shards of the given series.
    pub(crate) fn labels(
        &self,
        series: impl Iterator<Item = u32>,
        mut each: impl FnMut(u32, &[u8], ShardId),
    ) {
        let index = self.index.read();
        let mut canonical = Vec::new();
        for number in series {
            canonical.clear();
            index.write_canonical(number, &mut canonical);
            each(number, &canonical, index.shard(number));
        }
    }

    /// The samples of the given series inside `range`, in order of time; series without any are left out.
    pub(crate) fn samples(
        &self,
        series: impl Iterator<Item = u32>,
        range: TimeRange,
        deletions: &[Deletion],
        mut each: impl FnMut(u32, &Column),
    ) {
        let (index, samples) = (self.index.read(), self.samples.read());
        let mut walk = Walk::default();
        for number in series {
            self.collect(&index, &samples, number, (range, deletions), &mut walk);
            if !walk.column.is_empty() {
                each(number, &walk.column);
            }
        }
    }

    /// Like [`HeadPart::samples`], with labels, into memory, so that no lock is held while they are used. Ends early when
    /// their histograms take much memory. Says of how many series it has them.
    pub(crate) fn gather(
        &self,
        series: &[u32],
        range: TimeRange,
        deletions: &[Deletion],
        out: &mut Gathered,
    ) -> usize {
        out.clear();
        let (index, samples) = (self.index.read(), self.samples.read());
        samples.collect_many(series, self.records, &mut out.collected);
        let mut column = Column::default();
        let mut histogram_bytes = 0;
        for (place, &number) in series.iter().enumerate() {
            let labels = out.canonical.len();
            index.write_canonical(number, &mut out.canonical);
            let erased = Erased::new(deletions, &out.canonical[labels..]);
            column.clear();
            for &record in out.collected.of(place) {
                let (time, value, version) = samples.get(record);
                if range.contains(time) && !erased.erases(time, version) {
                    column.push(time, value);
                    samples.copy_extras(record, &mut column);
                }
            }
            if column.is_empty() {
                out.canonical.truncate(labels);
                continue;
            }
            column.normalize();
            out.column.extend(column.slice());
            out.ends.push(GatheredEnd {
                canonical: out.canonical.len(),
                samples: out.column.values.len(),
                shard: index.shard(number),
            });
            let histograms = column.histograms.iter().flatten();
            histogram_bytes += histograms.map(|one| one.bytes()).sum::<usize>();
            if histogram_bytes >= GATHERED_HISTOGRAM_BYTES {
                return place + 1;
            }
        }
        series.len()
    }

    fn collect(
        &self,
        index: &HeadIndex,
        samples: &Samples,
        number: u32,
        (range, deletions): (TimeRange, &[Deletion]),
        walk: &mut Walk,
    ) {
        walk.canonical.clear();
        if !deletions.is_empty() {
            index.write_canonical(number, &mut walk.canonical);
        }
        let erased = Erased::new(deletions, &walk.canonical);
        let column = &mut walk.column;
        column.clear();
        let records = &mut walk.records;
        samples.collect(number, self.records, records, |record| {
            let (time, value, version) = samples.get(record);
            if range.contains(time) && !erased.erases(time, version) {
                column.push(time, value);
                samples.copy_extras(record, column);
            }
        });
        column.normalize();
    }

    /// The values of label `name` on series of `among`.
    pub(crate) fn label_values(&self, name: &[u8], among: &RoaringBitmap, each: impl FnMut(&[u8])) {
        self.index.read().label_values(name, among, each);
    }

    /// The names of labels on series of `among`.
    pub(crate) fn label_names(&self, among: &RoaringBitmap, each: impl FnMut(&[u8])) {
        self.index.read().label_names(among, each);
    }

    /// The generation's content.
    pub(crate) fn generation(&self) -> &Growing<Samples> {
        &self.samples
    }

    /// Whether there are only numbers without start timestamps.
    pub(crate) fn is_plain(&self) -> bool {
        self.samples.read().is_plain()
    }

    /// Whether there are samples in a window that shares time with `range`.
    pub(crate) fn overlaps(&self, range: &TimeRange) -> bool {
        self.samples.read().overlaps(range)
    }

    /// Whether most series of the index have no samples here.
    pub(crate) fn is_mostly_idle(&self) -> bool {
        2 * self.samples.read().series() < self.series as usize
    }

    /// All series with samples here, in block order.
    pub(crate) fn in_block_order(&self) -> Vec<u32> {
        let mut order = self.block_order();
        let samples = self.samples.read();
        order.retain(|series| samples.has(*series, self.records));
        order
    }

    /// All series of the index in block order. The index keeps the order for the next time, when only newer series
    /// have to be sorted. Sorts copies of keys, so that the applier and queries wait for a batch of them at most.
    fn block_order(&self) -> Vec<u32> {
        let known = self.index.read().block_order().to_vec();
        let new: Vec<u32> = (known.len() as u32..self.series).collect();
        if new.is_empty() {
            return known;
        }
        let mut new_keys = BlockKeys::default();
        for some in new.chunks(KEYS_AT_ONCE) {
            self.index.read().add_block_keys(some, &mut new_keys);
        }
        let mut places: Vec<usize> = (0..new.len()).collect();
        places.sort_unstable_by(|a, b| new_keys.of(*a).cmp(new_keys.of(*b)));
        let mut places = places.into_iter().peekable();
        let mut merged = Vec::with_capacity(known.len() + new.len());
        let mut keys = BlockKeys::default();
        for some in known.chunks(KEYS_AT_ONCE) {
            if places.peek().is_none() {
                merged.extend_from_slice(some);
                continue;
            }
            keys.clear();
            self.index.read().add_block_keys(some, &mut keys);
            for (at, series) in some.iter().enumerate() {
                while let Some(place) = places.next_if(|new| new_keys.of(*new) < keys.of(at)) {
                    merged.push(new[place]);
                }
                merged.push(*series);
            }
        }
        merged.extend(places.map(|place| new[place]));
        self.index.write().keep_block_order(merged.clone());
        merged
    }
}

/// The deletions that select a series.
struct Erased<'a>(Vec<&'a Deletion>);

impl<'a> Erased<'a> {
    fn new(deletions: &'a [Deletion], canonical: &[u8]) -> Self {
        Self(deletions.iter().filter(|d| d.selects(canonical)).collect())
    }

    fn erases(&self, time: Millis, version: DeletionVersion) -> bool {
        let gone = |d: &&Deletion| version < d.version && d.range.contains(time);
        self.0.iter().any(gone)
    }
}

/// Memory for walking one series after another.
#[derive(Default)]
struct Walk {
    column: Column,
    canonical: Vec<u8>,
    records: Vec<u32>,
}

/// Series with labels and samples, copied out of the head.
#[derive(Default)]
pub(crate) struct Gathered {
    canonical: Vec<u8>,
    column: Column,
    ends: Vec<GatheredEnd>,
    collected: Collected,
}

struct GatheredEnd {
    canonical: usize,
    samples: usize,
    shard: ShardId,
}

/// One of [`Gathered`].
pub(crate) struct GatheredSeries<'a> {
    pub(crate) canonical: &'a [u8],
    pub(crate) shard: ShardId,
    pub(crate) samples: SampleSlice<'a>,
}

impl Gathered {
    fn clear(&mut self) {
        self.canonical.clear();
        self.column.clear();
        self.ends.clear();
    }

    /// The series in the order in which they were asked for.
    pub(crate) fn iter(&self) -> impl Iterator<Item = GatheredSeries<'_>> {
        let (mut canonical, mut samples) = (0, 0);
        self.ends.iter().map(move |end| {
            let labels = std::mem::replace(&mut canonical, end.canonical)..end.canonical;
            let range = std::mem::replace(&mut samples, end.samples)..end.samples;
            GatheredSeries {
                canonical: &self.canonical[labels],
                shard: end.shard,
                samples: self.column.slice().cut(range.start, range.end),
            }
        })
    }
}
