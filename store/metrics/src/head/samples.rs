//! A generation of samples: one append-only list of records for all series of a tenant.
//!
//! ```text
//! tails[series] -> record -> record -> ... (newest arrival first)
//! record = value f64 | number of its timestamp u32 | record before it u32
//! ```
//! Appending is a sequential write and one random access; there is no allocation per series. Records of
//! one scrape lie next to each other in the order of the series, so walking many series reads memory in
//! as many parallel sequential streams as there are scrapes. A timestamp is stored once per scrape. Histograms and start
//! timestamps stand beside the records, by number (`extras`).

use super::extras::Extras;
use super::growing::Steps;
use crate::body::{MetadataRoom, MetricMetadata};
use crate::columns::Column;
use crate::value::HISTOGRAM_BITS;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use trefoil_model::{DeletionVersion, Millis, ShardId, TimeRange, Window};

/// Records per chunk: 128 KiB, so that growing never copies more.
const CHUNK_RECORDS: usize = 8_192;

/// Recent timestamps that are recognised; a request seldom has more.
const RECENT_TIMES: usize = 64;

/// Series per word of `present`.
const BITS_PER_WORD: usize = u64::BITS as usize;

/// No timestamp was appended.
const NOTHING_APPENDED: (Millis, Millis) = (Millis::MAX, Millis::MIN);

/// No record.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Record {
    value: f64,
    time: u32,
    previous: u32,
}

/// What a generation has of a window.
#[derive(Default)]
struct OfWindow {
    /// Records behind the last body that had some of the window, and maybe behind a later one; none before the first note.
    noted: Option<u32>,
}

/// Generations that were begun by this process.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Samples {
    /// Series that are looked up one by one; of more, `present` tells faster.
    series_looked_up_max: u64,
    times: Vec<Millis>,
    /// Numbers of recent timestamps, by the timestamp's low bits.
    recent: Vec<u32>,
    chunks: Vec<Vec<Record>>,
    tails: Vec<u32>,
    /// A bit for each series with records.
    present: Vec<u64>,
    /// The newest record that is the first one of its series.
    newest_first_record: u32,
    records: u32,
    extras: Extras,
    /// The deletion version of the records from a number on; ascending by number.
    versions: Vec<(u32, DeletionVersion)>,
    /// What each window has.
    windows: BTreeMap<Window, OfWindow>,
    /// The first and the last timestamp since the last note; the wrong way round without any.
    appended: (Millis, Millis),
    /// No other generation of this process has it.
    number: u64,
    metadata: BTreeSet<(ShardId, MetricMetadata)>,
    metadata_room: MetadataRoom,
}

impl Samples {
    /// Nothing yet. Whether a question looks up series one by one depends on how many they are.
    pub(crate) fn new(series_looked_up_max: u64) -> Self {
        Self {
            series_looked_up_max,
            times: Vec::new(),
            recent: Vec::new(),
            chunks: Vec::new(),
            tails: Vec::new(),
            present: Vec::new(),
            newest_first_record: 0,
            records: 0,
            extras: Extras::default(),
            versions: Vec::new(),
            windows: BTreeMap::new(),
            appended: NOTHING_APPENDED,
            number: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            metadata: BTreeSet::new(),
            metadata_room: MetadataRoom::new(),
        }
    }

    /// Nothing, under the same settings.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(self.series_looked_up_max)
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> u32 {
        self.records
    }

    /// Whether there is a sample, not only metadata.
    pub(crate) fn has_samples(&self) -> bool {
        self.records > 0
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0 && self.metadata.is_empty()
    }

    /// The series that have records.
    pub(crate) fn written(&self) -> RoaringBitmap {
        let words = self.present.iter();
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        RoaringBitmap::from_lsb0_bytes(0, &bytes)
    }

    /// Says that the records appended from now on came with this deletion version.
    pub(crate) fn set_version(&mut self, version: DeletionVersion) {
        match self.versions.last_mut() {
            Some((_, last)) if *last == version => {}
            Some((first, last)) if *first == self.records => *last = version,
            _ => self.versions.push((self.records, version)),
        }
    }

    /// Appends a sample.
    ///
    /// # Panics
    /// When there are 2^32 - 1 records, 64 GiB: the engine flushes long before.
    #[inline]
    pub(crate) fn append(&mut self, series: u32, time: Millis, value: f64) {
        assert!(
            self.records < NONE,
            "a generation is flushed before it is full"
        );
        let (first, last) = self.appended;
        self.appended = (first.min(time), last.max(time));
        let time = self.time_number(time);
        let series = series as usize;
        if self.tails.len() <= series {
            self.tails.resize(series + 1, NONE);
        }
        let record = Record {
            value,
            time,
            previous: self.tails[series],
        };
        if record.previous == NONE {
            self.note_presence(series);
        }
        self.tails[series] = self.records;
        self.records += 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_RECORDS => chunk.push(record),
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK_RECORDS);
                chunk.push(record);
                self.chunks.push(chunk);
            }
            // A tenant's first chunk grows by doubling: there may be many small tenants.
            None => self.chunks.push(vec![record]),
        }
    }

    /// Notes that the next record is the first of its series.
    fn note_presence(&mut self, series: usize) {
        let word = series / BITS_PER_WORD;
        if self.present.len() <= word {
            self.present.resize(word + 1, 0);
        }
        self.present[word] |= 1 << (series % BITS_PER_WORD);
        self.newest_first_record = self.records;
    }

    /// Appends a sample that is a histogram, packed and checked, or whose start timestamp is known (0: it is not).
    ///
    /// # Panics
    /// As [`Samples::append`].
    pub(crate) fn append_with_extras(
        &mut self,
        series: u32,
        (time, value): (Millis, f64),
        histogram: Option<&[u8]>,
        start: Millis,
    ) {
        self.extras.put(self.records, histogram, start);
        let marker = f64::from_bits(HISTOGRAM_BITS);
        self.append(series, time, histogram.map_or(value, |_| marker));
    }

    /// Whether there are only numbers without start timestamps.
    pub(crate) fn is_plain(&self) -> bool {
        self.extras.is_empty()
    }

    /// Gives the last sample of `column`, which is `record`, its histogram and start timestamp.
    #[inline]
    pub(crate) fn copy_extras(&self, record: u32, column: &mut Column) {
        if !self.extras.is_empty() {
            self.extras.copy_to(record, column);
        }
    }

    /// How many records there are, histograms and start timestamps counted as the plain ones that take as much memory.
    pub(crate) fn weight(&self) -> usize {
        self.records as usize + self.extras.records(size_of::<Record>())
    }

    #[inline]
    fn time_number(&mut self, time: Millis) -> u32 {
        let slot = (time as u64 % RECENT_TIMES as u64) as usize;
        if let Some(&number) = self.recent.get(slot)
            && self.times.get(number as usize) == Some(&time)
        {
            return number;
        }
        if self.recent.is_empty() {
            self.recent.resize(RECENT_TIMES, NONE);
        }
        let number = self.times.len() as u32;
        self.times.push(time);
        self.recent[slot] = number;
        self.windows.entry(Window::containing(time)).or_default();
        number
    }

    /// Notes which windows have got records since the last time: all between the first and the last of them, to be on the
    /// safe side. To be called behind each body, before its records are published.
    pub(crate) fn note_windows(&mut self) {
        let (first, last) = std::mem::replace(&mut self.appended, NOTHING_APPENDED);
        if first > last {
            return;
        }
        let touched = Window::containing(first)..=Window::containing(last);
        for (_, of_window) in self.windows.range_mut(touched) {
            of_window.noted = Some(self.records);
        }
    }

    /// No other generation of this process has it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Each window, and how many records there were when it was noted last: a window has got none since.
    pub(crate) fn noted_windows(&self) -> impl Iterator<Item = (Window, Option<u32>)> {
        let windows = self.windows.iter();
        windows.map(|(window, of_window)| (*window, of_window.noted))
    }

    /// Adds declarations, as far as there is room. How many found none.
    pub(crate) fn add_metadata(&mut self, entries: &[(ShardId, MetricMetadata)]) -> u64 {
        self.metadata_room.extend(&mut self.metadata, entries)
    }

    pub(crate) fn metadata(&self) -> &BTreeSet<(ShardId, MetricMetadata)> {
        &self.metadata
    }

    /// The windows that the samples lie in, ascending.
    pub(crate) fn windows(&self) -> impl Iterator<Item = Window> {
        self.windows.keys().copied()
    }

    /// Whether there are samples in a window.
    pub(crate) fn has_window(&self, window: Window) -> bool {
        self.windows.contains_key(&window)
    }

    /// Whether there are samples in a window that shares time with `range`.
    pub(crate) fn overlaps(&self, range: &TimeRange) -> bool {
        self.windows().any(|window| window.range().overlaps(range))
    }

    /// Whether the series has a record below `limit`.
    pub(crate) fn has(&self, series: u32, limit: u32) -> bool {
        let mut at = self.tails.get(series as usize).copied().unwrap_or(NONE);
        while at != NONE && at >= limit {
            at = self.record(at).previous;
        }
        at != NONE
    }

    /// Whether the series has a sample at or behind `oldest`.
    pub(crate) fn has_since(&self, series: u32, oldest: Millis) -> bool {
        let mut at = self.tails.get(series as usize).copied().unwrap_or(NONE);
        while at != NONE && self.times[self.record(at).time as usize] < oldest {
            at = self.record(at).previous;
        }
        at != NONE
    }

    /// The records of a series below `limit`, in order of arrival. `newest_first` is memory to be used again.
    pub(crate) fn collect(
        &self,
        series: u32,
        limit: u32,
        newest_first: &mut Vec<u32>,
        mut each: impl FnMut(u32),
    ) {
        newest_first.clear();
        let mut at = self.tails.get(series as usize).copied().unwrap_or(NONE);
        while at != NONE {
            if at < limit {
                newest_first.push(at);
            }
            at = self.record(at).previous;
        }
        for &at in newest_first.iter().rev() {
            each(at);
        }
    }

    /// The records of several series below `limit`. One walk waits for memory at every step; walks side by side
    /// wait together.
    pub(crate) fn collect_many(&self, series: &[u32], limit: u32, out: &mut Collected) {
        let tail = |series: &u32| self.tails.get(*series as usize).copied().unwrap_or(NONE);
        out.clear(series.len());
        let walks = (0..).zip(series.iter().map(tail));
        out.walks.extend(walks.filter(|(_, at)| *at != NONE));
        while !out.walks.is_empty() {
            out.walks.retain_mut(|(place, at)| {
                if *at < limit {
                    out.newest_first.push((*place, *at));
                    out.starts[*place as usize] += 1;
                }
                *at = self.record(*at).previous;
                *at != NONE
            });
        }
        out.sort();
    }

    /// A record by its number.
    #[inline]
    pub(crate) fn get(&self, at: u32) -> (Millis, f64, DeletionVersion) {
        let record = self.record(at);
        let time = self.times[record.time as usize];
        (time, record.value, self.version(at))
    }

    fn record(&self, at: u32) -> &Record {
        let at = at as usize;
        &self.chunks[at / CHUNK_RECORDS][at % CHUNK_RECORDS]
    }

    fn version(&self, record: u32) -> DeletionVersion {
        if let [(_, only)] = self.versions[..] {
            return only;
        }
        let behind = self.versions.partition_point(|(first, _)| *first <= record);
        match behind.checked_sub(1) {
            Some(at) => self.versions[at].1,
            None => DeletionVersion(0),
        }
    }

    /// The highest deletion version that an item came with.
    pub(crate) fn version_max(&self) -> DeletionVersion {
        let versions = self.versions.iter().map(|(_, version)| *version);
        versions.max().unwrap_or_default()
    }

    /// Memory held, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let records: usize = self.chunks.iter().map(Vec::capacity).sum();
        let shared =
            self.times.capacity() * 8 + self.tails.capacity() * 4 + self.present.capacity() * 8;
        records * size_of::<Record>() + shared + self.extras.memory_bytes()
    }
}

impl Steps<'_, Samples> {
    /// Leaves out the series that have no record below `limit`.
    pub(crate) fn retain(&mut self, found: &mut RoaringBitmap, limit: u32) {
        if self.newest_first_record < limit && found.len() > self.series_looked_up_max {
            *found &= self.written();
            return;
        }
        let mut kept = Vec::new();
        for series in &*found {
            if self.has(series, limit) {
                kept.push(series);
            }
            self.worked(1);
        }
        *found = kept.into_iter().collect();
    }
}

/// The records of several series, by the series' places in the list that was asked for.
#[derive(Default)]
pub(crate) struct Collected {
    /// Place and present record of each walk that goes on.
    walks: Vec<(u32, u32)>,
    newest_first: Vec<(u32, u32)>,
    /// Where the records of each place begin in `numbers`; one more says where the last one ends.
    starts: Vec<u32>,
    numbers: Vec<u32>,
}

impl Collected {
    fn clear(&mut self, places: usize) {
        self.newest_first.clear();
        self.starts.clear();
        self.starts.resize(places + 1, 0);
    }

    /// From counts to starts, and each place's records into the order of arrival.
    fn sort(&mut self) {
        let mut end = 0;
        for start in &mut self.starts {
            end += *start;
            *start = end;
        }
        self.numbers.clear();
        self.numbers.resize(self.newest_first.len(), NONE);
        for (place, number) in &self.newest_first {
            // What began as the place's end comes down to its start.
            let start = &mut self.starts[*place as usize];
            *start -= 1;
            self.numbers[*start as usize] = *number;
        }
    }

    /// The numbers of a place's records in order of arrival.
    pub(crate) fn of(&self, place: usize) -> &[u32] {
        &self.numbers[self.starts[place] as usize..self.starts[place + 1] as usize]
    }
}
