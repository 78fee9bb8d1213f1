//! The head: the part of a node's samples that is not in blocks yet, in memory, queryable.
//!
//! Every tenant has one label index, which outlives flushes, and a *generation* of samples. A flush
//! freezes the generation (a new one takes its place at once), writes it as blocks and drops it whole,
//! together with the index when more than a quarter of its series are not written to any more ([`TenantHead::freeze`]).
//! Both only grow, so a reader needs no copy: it remembers how long they were ([`HeadPart`]) and
//! ignores what came later, under read locks that it holds for one batch of series at a time. There is one writer,
//! which publishes the lengths behind each body: making a view waits for nobody.
//!
//! Nothing of the head is on disk. After a crash it is made again from the journal.

mod block_order;
mod extras;
mod growing;
mod index;
mod samples;

pub(crate) use growing::Growing;
pub(crate) use index::HeadIndex;
use samples::Collected;
pub(crate) use samples::Samples;

use crate::Matcher;
use crate::active::Seen;
use crate::columns::{Column, SampleSlice};
use crate::deletion::Deletion;
use crate::dense::DenseSet;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, ShardId, ShardSet, TenantId, TimeRange, Window};

/// Memory of histograms copied out of the head at once; one series may have more.
const GATHERED_HISTOGRAM_BYTES: usize = 16 << 20;

/// Series that limits are told of under one lock.
pub(crate) const SEEN_AT_ONCE: u32 = 2_048;

/// A tenant's present head.
#[derive(Clone)]
pub(crate) struct TenantHead {
    pub(crate) index: Arc<Growing<HeadIndex>>,
    pub(crate) samples: Arc<Growing<Samples>>,
    /// The series of the index that had samples in the generation before.
    written_before: Arc<RoaringBitmap>,
}

impl TenantHead {
    /// A head with nothing in it.
    pub(crate) fn new(tenant: TenantId, samples: Samples) -> Self {
        Self {
            index: Arc::new(Growing::new(HeadIndex::new(tenant))),
            samples: Arc::new(Growing::new(samples)),
            written_before: Arc::default(),
        }
    }

    /// Puts a new generation in the place of the present one, which it gives. The index goes with it when more than a
    /// quarter of its series had samples neither there nor in the generation before: what is scraped seldom stays.
    pub(crate) fn freeze(&mut self, tenant: TenantId) -> HeadPart {
        let part = self.part();
        let (written, next) = {
            let samples = part.samples.read();
            (samples.written(), samples.emptied())
        };
        let idle = u64::from(part.series) - written.union_len(&self.written_before);
        if 4 * idle > u64::from(part.series) {
            *self = Self::new(tenant, next);
        } else {
            self.samples = Arc::new(Growing::new(next));
            self.written_before = Arc::new(written);
        }
        part
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

/// What a view sees of the windows of a generation.
pub(crate) struct HeadWindows {
    /// No other generation of this process has it.
    pub(crate) generation: u64,
    /// What the view sees of the generation.
    records: u32,
    /// By window, how many records the generation had when it was noted that it had got some.
    noted: BTreeMap<Window, Option<u32>>,
}

/// What a generation has of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InHead {
    /// How many records the generation had when it last got some of the window: with that number, no other ones are meant.
    Records(u32),
    /// More came since the view was made.
    Unknown,
}

impl HeadWindows {
    /// What the generation has of a window, if it has some of it.
    pub(crate) fn of(&self, window: Window) -> Option<InHead> {
        let noted = self.noted.get(&window)?;
        let seen = noted.filter(|noted| *noted <= self.records);
        Some(seen.map_or(InHead::Unknown, InHead::Records))
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
    /// The series with samples here that satisfy all matchers and lie in `shards`; perhaps more if there are more than
    /// `series_max`, so that finding that out takes little.
    pub(crate) fn find(
        &self,
        matchers: &[Matcher],
        shards: &ShardSet,
        series_max: u64,
    ) -> RoaringBitmap {
        let mut index = self.index.steps();
        let mut found = index.find(matchers, self.series);
        if found.len() > series_max {
            return found;
        }
        index.retain_shards(&mut found, shards);
        drop(index);
        self.samples.steps().retain(&mut found, self.records);
        found
    }

    /// The series with a sample at or behind `oldest`, some at a time; nothing is locked while `each` has them.
    pub(crate) fn each_since(&self, oldest: Millis, mut each: impl FnMut(&[Seen])) {
        let mut seen = Vec::new();
        for first in (0..self.series).step_by(SEEN_AT_ONCE as usize) {
            let some = first..self.series.min(first.saturating_add(SEEN_AT_ONCE));
            seen.clear();
            {
                let (index, samples) = (self.index.read(), self.samples.read());
                let since = some.filter(|number| samples.has_since(*number, oldest));
                seen.extend(since.map(|number| index.seen(number)));
            }
            each(&seen);
        }
    }

    /// Canonical labels and shards of the given series.
    pub(crate) fn labels(
        &self,
        series: impl Iterator<Item = u32>,
        mut each: impl FnMut(u32, &[u8], ShardId),
    ) {
        let mut index = self.index.steps();
        let mut canonical = Vec::new();
        for number in series {
            canonical.clear();
            index.write_canonical(number, &mut canonical);
            each(number, &canonical, index.shard(number));
            index.worked(1);
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
        self.index.steps().label_values(name, among, each);
    }

    /// The names of labels on series of `among`.
    pub(crate) fn label_names(&self, among: &RoaringBitmap, each: impl FnMut(&[u8])) {
        self.index.steps().label_names(among, each);
    }

    /// How many series of `among` have each value of label `name`, until `each` breaks.
    pub(crate) fn count_values(
        &self,
        name: &[u8],
        among: &DenseSet,
        each: impl FnMut(&[u8], u64) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.index.steps().count_values(name, among, each)
    }

    /// All label names of the index, ascending.
    pub(crate) fn all_label_names<T>(&self, each: impl FnMut(&[u8]) -> T) -> Vec<T> {
        self.index.read().all_label_names().map(each).collect()
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

    /// What the part has of each window.
    pub(crate) fn noted_windows(&self) -> HeadWindows {
        let samples = self.samples.read();
        HeadWindows {
            generation: samples.number(),
            records: self.records,
            noted: samples.noted_windows().collect(),
        }
    }

    /// All series with samples here, in block order.
    pub(crate) fn in_block_order(&self) -> Vec<u32> {
        let mut order = self.block_order();
        let samples = self.samples.read();
        order.retain(|series| samples.has(*series, self.records));
        order
    }

    /// All series of the index in block order. The index keeps the order for the next time, when only newer series
    /// have to be sorted.
    fn block_order(&self) -> Vec<u32> {
        let known = self.index.read().block_order().to_vec();
        let is_known = known.len() == self.series as usize;
        let order = block_order::block_order(&self.index, known, self.series);
        if !is_known {
            self.index.write().keep_block_order(order.clone());
        }
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
