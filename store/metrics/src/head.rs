//! The head: the part of a node's samples that is not in blocks yet, in memory, queryable.
//!
//! Every tenant has one label index, which outlives flushes, and a *generation* of samples. A flush
//! freezes the generation (a new one takes its place at once), writes it as blocks and drops it whole,
//! together with the index when few of its series are still written to.
//! Both only grow, so a reader needs no copy: it remembers how long they were ([`HeadPart`]) and
//! ignores what came later, under read locks that it holds for one batch of series at a time. There is one writer.
//!
//! Nothing of the head is on disk. After a crash it is made again from the journal.

mod index;
mod samples;

pub(crate) use index::HeadIndex;
use samples::Collected;
pub(crate) use samples::Samples;

use crate::Matcher;
use crate::columns::Column;
use crate::deletion::Deletion;
use parking_lot::RwLock;
use roaring::RoaringBitmap;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, ShardId, ShardSet, TenantId, TimeRange};

/// A tenant's present head.
#[derive(Clone)]
pub(crate) struct TenantHead {
    pub(crate) index: Arc<RwLock<HeadIndex>>,
    pub(crate) samples: Arc<RwLock<Samples>>,
}

impl TenantHead {
    pub(crate) fn new(tenant: TenantId) -> Self {
        Self {
            index: Arc::new(RwLock::new(HeadIndex::new(tenant))),
            samples: Arc::new(RwLock::new(Samples::default())),
        }
    }

    /// The generation as it is now.
    pub(crate) fn part(&self) -> HeadPart {
        let series = self.index.read().len();
        HeadPart {
            index: Arc::clone(&self.index),
            samples: Arc::clone(&self.samples),
            series,
            records: self.samples.read().len(),
        }
    }
}

/// A generation as a view sees it: what was there when the view was made.
#[derive(Clone)]
pub(crate) struct HeadPart {
    index: Arc<RwLock<HeadIndex>>,
    samples: Arc<RwLock<Samples>>,
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

    /// Like [`HeadPart::samples`], with labels, into memory, so that no lock is held while they are used.
    pub(crate) fn gather(
        &self,
        series: &[u32],
        range: TimeRange,
        deletions: &[Deletion],
        out: &mut Gathered,
    ) {
        out.clear();
        let (index, samples) = (self.index.read(), self.samples.read());
        samples.collect_many(series, self.records, &mut out.collected);
        let mut column = Column::default();
        for (place, &number) in series.iter().enumerate() {
            let labels = out.canonical.len();
            index.write_canonical(number, &mut out.canonical);
            let erased = Erased::new(deletions, &out.canonical[labels..]);
            column.clear();
            for &record in out.collected.of(place) {
                let (time, value, version) = samples.get(record);
                if range.contains(time) && !erased.erases(time, version) {
                    column.push(time, value);
                }
            }
            if column.is_empty() {
                out.canonical.truncate(labels);
                continue;
            }
            column.normalize();
            out.column.extend(&column.timestamps, &column.values);
            out.ends.push(GatheredEnd {
                canonical: out.canonical.len(),
                samples: out.column.values.len(),
                shard: index.shard(number),
            });
        }
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
        samples.collect(number, self.records, records, |time, value, version| {
            if range.contains(time) && !erased.erases(time, version) {
                column.push(time, value);
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
    pub(crate) fn generation(&self) -> &RwLock<Samples> {
        &self.samples
    }

    /// Whether there are samples in a window that shares time with `range`.
    pub(crate) fn overlaps(&self, range: &TimeRange) -> bool {
        self.samples.read().overlaps(range)
    }

    /// Whether most series of the index have no samples here.
    pub(crate) fn is_mostly_idle(&self) -> bool {
        2 * self.samples.read().series() < self.series as usize
    }

    /// All series with samples here, in block order, from the order that the index keeps.
    pub(crate) fn in_block_order(&self) -> Vec<u32> {
        let mut order = self.index.write().block_order();
        let samples = self.samples.read();
        order.retain(|series| samples.has(*series, self.records));
        order
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
    pub(crate) timestamps: &'a [Millis],
    pub(crate) values: &'a [f64],
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
                timestamps: &self.column.timestamps[range.clone()],
                values: &self.column.values[range],
            }
        })
    }
}
