//! Streams the series of a selection with their samples, in label order or in that of blocks.
//!
//! The cursor reads a batch of series at a time: the batch is consecutive in the wanted order, and inside it every source is
//! read in the source's order, so that a piece of a block is decoded once per batch. The batch bounds memory. In block
//! order small ones do, which stay in the processor's cache; in label order large ones save decoding.

use super::aggregates::Aggregated;
use super::selection::{Part, Selection, Source, samples_per_series};
use crate::columns::{Column, SampleSlice};
use crate::deletion::Deletion;
use crate::order::SeriesOrder;
use crate::{Matcher, MetricsError};
use std::sync::Arc;
use trefoil_model::{Aggregate, Histogram, Millis, ShardId, TimeRange};

/// Samples in memory at once, about, on a walk in label order: 64 MiB.
const LABEL_BATCH_SAMPLES: u64 = 4 << 20;

/// Series in memory at once at least on such a walk.
const LABEL_BATCH_SERIES: u64 = 16;

/// Samples in memory at once, about, on a walk in block order: 2 MiB, or one series.
const BLOCK_BATCH_SAMPLES: u64 = 128 << 10;

/// Memory that the histograms, and that the aggregates of a batch may take.
const BATCH_BYTES: usize = 64 << 20;

/// Memory of a plain sample.
const SAMPLE_BYTES: u64 = 16;

/// Memory of a sample with a start timestamp, in bytes.
const STARTED_SAMPLE_BYTES: usize = 24;

/// By how much a batch of samples has fewer series than one of aggregates: an hour of samples every 15 s makes 240 of them, which take
/// as much memory as forty aggregates.
const SAMPLES_PER_AGGREGATE: usize = 32;

/// How far in front of a range a histogram is compared with the one before it. Beyond it a series counts as interrupted,
/// and what is known of a reset is nothing, which is always right.
pub const COMPARED_WITHIN: Millis = 5 * 60 * 1000;

/// A series with samples.
pub struct SeriesSamples<'a> {
    /// Canonical label bytes.
    pub canonical: &'a [u8],
    /// Its shard; only exports and digests know it, 0 elsewhere.
    pub shard: ShardId,
    /// Ascending, unique, at least one if there are no aggregates.
    pub timestamps: &'a [Millis],
    /// As many values; [`crate::HISTOGRAM_BITS`] where the sample is a histogram.
    pub values: &'a [f64],
    /// Native histograms: empty, or a place for each value.
    pub histograms: &'a [Option<Arc<Histogram>>],
    /// When each sample's counter began, in milliseconds, or 0 where that is not known: empty, or one for each value.
    pub starts: &'a [Millis],
    /// Where they were asked for and the series has them, instead of samples: ascending, one per bucket.
    pub aggregates: &'a [Aggregate],
}

impl<'a> SeriesSamples<'a> {
    /// The samples without the series.
    #[must_use]
    pub fn samples(&self) -> SampleSlice<'a> {
        SampleSlice {
            timestamps: self.timestamps,
            values: self.values,
            histograms: self.histograms,
            starts: self.starts,
        }
    }
}

/// What came of an attempt to read a batch.
enum Batch {
    Read,
    /// It takes too much memory; a smaller one may fit.
    TooLarge,
    /// A source's aggregates turned out to be unreadable: its samples are read next time.
    FewerAggregates,
}

/// A cursor over series in ascending order. Holds its view's blocks and heads.
pub struct SeriesCursor {
    sources: Vec<Source>,
    selection: Arc<Selection>,
    /// The rank behind the last series that it gives.
    end: usize,
    range: TimeRange,
    batch_series: usize,
    /// Series in a batch at most, by the samples that a series has on average.
    batch_series_max: usize,
    /// Memory that histograms and aggregates of a batch may take; one series may have more.
    batch_bytes: usize,
    /// Samples of the series `batch_start..`.
    batch: Vec<Column>,
    batch_start: usize,
    /// First part behind the batch.
    parts_at: usize,
    next: usize,
    aggregated: Option<Aggregated>,
    aggregates_bytes: usize,
    /// Whether hints say which histograms continue the one before them.
    compares: bool,
}

impl SeriesCursor {
    pub(super) fn new(
        sources: Vec<Source>,
        matchers: &[Matcher],
        range: TimeRange,
        with_shards: bool,
        order: SeriesOrder,
    ) -> Result<Self, MetricsError> {
        let selection = Selection::new(&sources, matchers, with_shards, order)?;
        Ok(Self::of(selection, sources, range, order))
    }

    /// The same in block order, unless a source has more than `series_max` of the series.
    pub(super) fn over_few(
        sources: Vec<Source>,
        matchers: &[Matcher],
        range: TimeRange,
        series_max: u64,
    ) -> Result<Option<Self>, MetricsError> {
        let order = SeriesOrder::Block;
        let selection = Selection::of_few(&sources, matchers, false, order, series_max)?;
        Ok(selection.map(|selection| Self::of(selection, sources, range, order)))
    }

    fn of(
        selection: Selection,
        sources: Vec<Source>,
        range: TimeRange,
        order: SeriesOrder,
    ) -> Self {
        let (batch_samples, least) = match order {
            SeriesOrder::Label => (LABEL_BATCH_SAMPLES, LABEL_BATCH_SERIES),
            SeriesOrder::Block => (BLOCK_BATCH_SAMPLES, 1),
        };
        let batch_series =
            Selection::batch_series(samples_per_series(&sources), batch_samples, least);
        Self {
            batch_series,
            batch_series_max: batch_series,
            batch_bytes: BATCH_BYTES,
            sources,
            end: selection.len(),
            selection: Arc::new(selection),
            range,
            batch: Vec::new(),
            batch_start: 0,
            parts_at: 0,
            next: 0,
            aggregated: None,
            aggregates_bytes: 0,
            compares: false,
        }
    }

    /// The same with hints in histograms that continue the one before them; its sources reach [`COMPARED_WITHIN`] further back
    /// where they have histograms.
    pub(super) fn comparing(mut self) -> Self {
        self.compares = true;
        self
    }

    /// The same with aggregates in place of samples; they have a reader, or none, for each source.
    pub(super) fn aggregated(mut self, aggregated: Option<Aggregated>) -> Self {
        self.aggregated = aggregated;
        // The pieces that they are in are not kept from batch to batch, so there are few batches.
        self.read_in_batches_of(LABEL_BATCH_SAMPLES);
        self
    }

    /// About how many samples a series takes at once, an aggregate counted as several.
    fn weight_of_series(&self) -> u64 {
        let Some(aggregated) = &self.aggregated else {
            return samples_per_series(&self.sources);
        };
        let sources = self.sources.iter().enumerate();
        let weight =
            |(at, source): (usize, &Source)| aggregated.weight(at, source.samples_per_series());
        sources.map(weight).sum()
    }

    /// Memory of the aggregates that it holds, in bytes. Changes only with [`SeriesCursor::advance`].
    #[must_use]
    pub fn aggregates_bytes(&self) -> usize {
        self.aggregates_bytes
    }

    /// How many series satisfy the matchers, with or without samples in the range.
    #[must_use]
    pub fn series(&self) -> usize {
        self.end - self.next
    }

    /// About how many samples those series have in the blocks and heads that are read.
    #[must_use]
    pub fn samples_estimate(&self) -> u64 {
        self.series() as u64 * samples_per_series(&self.sources)
    }

    /// How many samples a series of a batch gets room for at first: growing block by block would copy them again and again.
    fn samples_expected(&self) -> usize {
        if self.aggregated.is_some() {
            return 0;
        }
        let stored: u64 = self.sources.iter().map(Source::stored_per_series).sum();
        stored.min(BLOCK_BATCH_SAMPLES / self.batch_series.max(1) as u64) as usize
    }

    /// The same walk, of which nothing was done yet, in so many pieces one behind the other, for as many threads.
    #[must_use]
    pub fn split(&self, pieces: usize) -> Vec<Self> {
        let rank = |piece: usize| self.next + self.series() * piece / pieces;
        let piece = |piece: usize| {
            let mut cursor = Self {
                sources: self.sources.clone(),
                selection: Arc::clone(&self.selection),
                end: rank(piece + 1),
                batch_bytes: self.batch_bytes / pieces,
                batch: Vec::new(),
                aggregated: self.aggregated.clone(),
                ..*self
            };
            if cursor.aggregated.is_some() {
                // Their batches fill the memory; larger ones would be read in vain.
                cursor.batch_series_max = (self.batch_series_max / pieces).max(1);
                cursor.batch_series = cursor.batch_series_max;
            }
            cursor.begin_at(rank(piece));
            cursor
        };
        (0..pieces).map(piece).collect()
    }

    /// The canonical labels of all of them, in order.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        (self.next..self.end).map(|rank| self.selection.canonical(rank))
    }

    /// Has about so many samples in memory at once, or aggregates that take as much, instead of what suits a query. One series may
    /// take more.
    pub fn read_in_batches_of(&mut self, samples: u64) {
        let least = match &self.aggregated {
            Some(_) => 1,
            None => LABEL_BATCH_SERIES,
        };
        self.batch_series = Selection::batch_series(self.weight_of_series(), samples, least);
        self.batch_series_max = self.batch_series;
        self.batch_bytes = (samples * SAMPLE_BYTES) as usize;
    }

    /// Has no more samples in memory at once, or aggregates that take as much, than about so many. One series may take more.
    pub fn hold_at_most(&mut self, samples: u64) {
        let usual = self.batch_bytes as u64 / SAMPLE_BYTES;
        self.read_in_batches_of(samples.clamp(1, usual));
    }

    /// Skips the series in front of the first whose labels `reached` accepts, as it does all behind it.
    pub fn skip_until(&mut self, reached: &dyn Fn(&[u8]) -> bool) {
        let ranks: Vec<usize> = (0..self.end).collect();
        let first = ranks.partition_point(|rank| !reached(self.selection.canonical(*rank)));
        self.begin_at(first);
    }

    fn begin_at(&mut self, rank: usize) {
        self.next = rank;
        self.batch.clear();
        self.batch_start = rank;
        let parts = &self.selection.parts;
        self.parts_at = parts.partition_point(|part| (part.rank as usize) < rank);
    }

    /// The next series that has samples in the range, or `None` behind the last.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`]; the cursor must not be used further.
    pub fn next_series(&mut self) -> Result<Option<SeriesSamples<'_>>, MetricsError> {
        let is_any = self.advance()?;
        Ok(is_any.then(|| self.current()))
    }

    /// Moves to the next series that has samples in the range; `false` behind the last.
    ///
    /// # Errors
    /// As for [`SeriesCursor::next_series`].
    pub fn advance(&mut self) -> Result<bool, MetricsError> {
        loop {
            if self.next >= self.end {
                return Ok(false);
            }
            if self.next >= self.batch_start + self.batch.len() {
                self.read_batch()?;
            }
            let rank = self.next;
            self.next += 1;
            let slot = rank - self.batch_start;
            if !self.batch[slot].is_empty() || !self.rows_at(slot).is_empty() {
                return Ok(true);
            }
        }
    }

    /// The series that [`SeriesCursor::advance`] moved to.
    ///
    /// # Panics
    /// When it did not move to any.
    #[must_use]
    pub fn current(&self) -> SeriesSamples<'_> {
        self.series_at(self.next - 1)
    }

    /// Exchanges that series' timestamps, values and start timestamps for the memory of others, which the cursor uses again.
    ///
    /// # Panics
    /// When [`SeriesCursor::advance`] did not move to a series.
    pub fn swap_samples(
        &mut self,
        timestamps: &mut Vec<Millis>,
        values: &mut Vec<f64>,
        starts: &mut Vec<Millis>,
    ) {
        let column = &mut self.batch[self.next - 1 - self.batch_start];
        std::mem::swap(&mut column.timestamps, timestamps);
        std::mem::swap(&mut column.values, values);
        std::mem::swap(&mut column.starts, starts);
    }

    /// Exchanges that series' aggregates for the memory of others, which must be none.
    ///
    /// # Panics
    /// When [`SeriesCursor::advance`] did not move to a series.
    pub fn swap_aggregates(&mut self, aggregates: &mut Vec<Aggregate>) {
        let slot = self.next - 1 - self.batch_start;
        if let Some(aggregated) = &mut self.aggregated {
            std::mem::swap(&mut aggregated.rows[slot], aggregates);
        }
    }

    fn rows_at(&self, slot: usize) -> &[Aggregate] {
        let aggregated = self.aggregated.as_ref();
        aggregated.map_or(&[], |aggregated| &aggregated.rows[slot])
    }

    fn series_at(&self, rank: usize) -> SeriesSamples<'_> {
        let column = &self.batch[rank - self.batch_start];
        SeriesSamples {
            canonical: self.selection.canonical(rank),
            shard: self.selection.shard(rank),
            timestamps: &column.timestamps,
            values: &column.values,
            histograms: &column.histograms,
            starts: &column.starts,
            aggregates: self.rows_at(rank - self.batch_start),
        }
    }

    /// Reads as many series as fit: what histograms and aggregates take is known only when they are read.
    fn read_batch(&mut self) -> Result<(), MetricsError> {
        let parts_at = self.parts_at;
        loop {
            match self.try_batch()? {
                Batch::Read => break,
                Batch::TooLarge => self.batch_series = (self.batch.len() / 2).max(1),
                Batch::FewerAggregates => self.expect_samples(),
            }
            self.parts_at = parts_at;
        }
        self.batch_series = (2 * self.batch_series).min(self.batch_series_max);
        Ok(())
    }

    /// A source's samples are read in place of its aggregates: batches were made for the latter, of which there are fewer.
    fn expect_samples(&mut self) {
        let fewer = |series: usize| (series / SAMPLES_PER_AGGREGATE).max(1);
        self.batch_series_max = fewer(self.batch_series_max);
        self.batch_series = fewer(self.batch_series);
    }

    /// Tries to read a batch.
    fn try_batch(&mut self) -> Result<Batch, MetricsError> {
        let end = self.end.min(self.next + self.batch_series);
        self.batch_start = self.next;
        for column in &mut self.batch {
            column.clear();
        }
        let samples = self.samples_expected();
        self.batch
            .resize_with(end - self.next, || Column::with_capacity(samples));
        let all = &self.selection.parts;
        let behind =
            self.parts_at + all[self.parts_at..].partition_point(|p| (p.rank as usize) < end);
        let mut parts: Vec<Part> = all[self.parts_at..behind].to_vec();
        self.parts_at = behind;
        if let Some(aggregated) = &mut self.aggregated {
            aggregated.begin_batch(self.batch.len());
        }
        parts.sort_unstable_by_key(|part| (part.source, part.number));
        let mut room = match self.batch.len() {
            1 => usize::MAX,
            _ => self.batch_bytes,
        };
        for of_source in parts.chunk_by(|a, b| a.source == b.source) {
            if let Some(aggregated) = &mut self.aggregated
                && aggregated.has(of_source[0].source)
            {
                let read = aggregated.read(of_source, self.batch_start, self.batch_bytes)?;
                let Some(bytes) = read else {
                    return Ok(Batch::FewerAggregates);
                };
                room = room.saturating_sub(bytes);
                if room == 0 {
                    return Ok(Batch::TooLarge);
                }
                continue;
            }
            room = room.saturating_sub(self.read_source(of_source, room)?);
            if room == 0 {
                return Ok(Batch::TooLarge);
            }
        }
        if !self.read_what_has_no_aggregates(&parts, &mut room)? {
            return Ok(Batch::TooLarge);
        }
        for column in &mut self.batch {
            column.normalize();
            if self.compares {
                column.compare_and_cut(self.range.start);
            }
        }
        if let Some(aggregated) = &mut self.aggregated {
            aggregated.fold(&mut self.batch);
            self.aggregates_bytes = aggregated.bytes();
        }
        Ok(Batch::Read)
    }

    /// Reads the samples of series that cannot be aggregated from the sources whose aggregates were taken; says whether they fit.
    fn read_what_has_no_aggregates(
        &mut self,
        parts: &[Part],
        room: &mut usize,
    ) -> Result<bool, MetricsError> {
        let Some(aggregated) = &mut self.aggregated else {
            return Ok(true);
        };
        for (column, is_raw) in self.batch.iter().zip(&mut aggregated.is_raw) {
            *is_raw |= !column.slice().is_plain();
        }
        let start = self.batch_start;
        let is_lacking = |part: &&Part| {
            aggregated.has(part.source) && aggregated.is_raw[part.rank as usize - start]
        };
        let lacking: Vec<Part> = parts.iter().filter(is_lacking).copied().collect();
        for of_source in lacking.chunk_by(|a, b| a.source == b.source) {
            // The batch was made for aggregates, which are fewer than samples.
            let each = self.sources[of_source[0].source as usize].stored_per_series();
            let samples = (of_source.len() as u64).saturating_mul(each);
            let samples = usize::try_from(samples).unwrap_or(usize::MAX);
            let bytes = samples.saturating_mul(STARTED_SAMPLE_BYTES);
            if self.batch.len() > 1 {
                *room = room.saturating_sub(bytes);
            }
            if *room == 0 {
                return Ok(false);
            }
            *room = room.saturating_sub(self.read_source(of_source, *room)?);
            if *room == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Appends what one source has of the batch until its histograms take `room` bytes, and says how many they take. `parts`
    /// ascend by number.
    fn read_source(&mut self, parts: &[Part], room: usize) -> Result<usize, MetricsError> {
        let mut taken = 0;
        let compared = match self.compares {
            true => reaching_back(self.range),
            false => self.range,
        };
        let (batch, start, selection) = (&mut self.batch, self.batch_start, &self.selection);
        let mut at = parts.iter();
        // Sources leave out series without samples, so the walk along the parts skips some.
        let mut slot_of = move |number: u32| {
            let part = at.find(|part| part.number == number);
            part.map(|part| part.rank as usize)
                .expect("a number of parts")
        };
        let numbers = parts.iter().map(|part| part.number);
        match &mut self.sources[parts[0].source as usize] {
            Source::Head {
                part, deletions, ..
            } => {
                let range = if part.is_plain() {
                    self.range
                } else {
                    compared
                };
                part.samples(numbers, range, deletions, |number, column| {
                    if taken < room {
                        taken += histogram_bytes(column.slice());
                        batch[slot_of(number) - start].extend(column.slice());
                    }
                });
            }
            Source::Block {
                reader, deletions, ..
            } if deletions.is_empty() && reader.is_plain() => {
                reader.append_plain(numbers, self.range, |number, append| {
                    append(&mut batch[slot_of(number) - start])
                })?;
            }
            Source::Block {
                reader, deletions, ..
            } => reader.samples(numbers, compared, |number, samples| {
                if taken >= room {
                    return;
                }
                taken += histogram_bytes(samples);
                let rank = slot_of(number);
                let column = &mut batch[rank - start];
                let canonical = selection.canonical(rank);
                extend_without(deletions, canonical, samples, column);
            })?,
        }
        Ok(taken)
    }
}

/// A range with what its first histograms are compared with.
pub(super) fn reaching_back(range: TimeRange) -> TimeRange {
    TimeRange {
        start: range.start.saturating_sub(COMPARED_WITHIN),
        ..range
    }
}

fn histogram_bytes(samples: SampleSlice<'_>) -> usize {
    let histograms = samples.histograms.iter().flatten();
    histograms.map(|histogram| histogram.bytes()).sum()
}

/// Appends samples that no deletion erases.
pub(crate) fn extend_without(
    deletions: &[Deletion],
    canonical: &[u8],
    samples: SampleSlice<'_>,
    column: &mut Column,
) {
    let selecting = deletions.iter().filter(|d| d.selects(canonical));
    let ranges: Vec<TimeRange> = selecting.map(|deletion| deletion.range).collect();
    if ranges.is_empty() {
        column.extend(samples);
        return;
    }
    for sample in samples.iter() {
        if !ranges.iter().any(|range| range.contains(sample.time)) {
            column.push_sample(sample);
        }
    }
}
