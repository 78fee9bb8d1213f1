//! Series as aggregates of their samples: from the files that have them, worked out here where there are none yet.
//!
//! The aggregates of a block are taken only if nothing else has anything of its window: no other block, no generation of the
//! head, no deletion that the block has not applied, no cut-off inside of it. Otherwise the samples are read and merged as ever, and
//! aggregated then. A bucket at the edge of two windows has a part in each, which are joined. A series with histograms or start
//! timestamps is given as samples.
//!
//! Aggregates that turn out to be unreadable, before or on the way, are as if they were not there: the samples answer, and the
//! engine makes them anew.

use super::View;
use super::selection::{Part, Source};
use crate::MetricsError;
use crate::block::TenantAggregates;
use crate::columns::Column;
use crate::engine::BlockReaders;
use std::sync::Arc;
use trefoil_model::{Aggregate, Resolution, TenantId, TimeRange, WINDOW_MILLIS};
use trefoil_store_blocks::VisibleBlock;

/// Memory of shapes of buckets that a cursor keeps from batch to batch, as a share of what a batch may take. Those of a source beyond
/// it are read again with every batch.
const SHAPES_SHARE: usize = 4;

/// Memory of an aggregate in samples.
const SAMPLES_PER_ROW: u64 = 6;

/// What a cursor needs besides to give aggregates.
#[derive(Clone)]
pub(super) struct Aggregated {
    pub(super) resolution: Resolution,
    pub(super) range: TimeRange,
    blocks: Arc<BlockReaders>,
    /// For each source its aggregates, if they may be taken.
    pub(super) readers: Vec<Option<TenantAggregates>>,
    /// For each series of the batch: its buckets, in order of time.
    pub(super) rows: Vec<Vec<Aggregate>>,
    /// For each series of the batch: only its samples will do.
    pub(super) is_raw: Vec<bool>,
    /// Memory of the shapes that the readers keep.
    shape_bytes: usize,
}

impl Aggregated {
    pub(super) fn new(
        blocks: &Arc<BlockReaders>,
        resolution: Resolution,
        range: TimeRange,
    ) -> Self {
        Self {
            resolution,
            range,
            blocks: Arc::clone(blocks),
            readers: Vec::new(),
            rows: Vec::new(),
            is_raw: Vec::new(),
            shape_bytes: 0,
        }
    }

    /// About what a series of a source with so many samples takes at once, in samples.
    pub(super) fn weight(&self, source: usize, samples: u64) -> u64 {
        let buckets = (WINDOW_MILLIS / self.resolution.millis()) as u64 + 1;
        match &self.readers[source] {
            Some(_) => SAMPLES_PER_ROW * buckets,
            None => samples + SAMPLES_PER_ROW * samples.min(buckets),
        }
    }

    /// Memory of the batch's aggregates and of what is kept for the next batch, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.shape_bytes
            + self
                .rows
                .iter()
                .map(|rows| size_of_val(&**rows))
                .sum::<usize>()
    }

    /// Forgets the batch before; `series`: how many the next one has.
    pub(super) fn begin_batch(&mut self, series: usize) {
        self.rows.iter_mut().for_each(Vec::clear);
        self.rows.resize_with(series, Vec::new);
        self.is_raw.clear();
        self.is_raw.resize(series, false);
    }

    /// Whether the aggregates of a source are taken.
    pub(super) fn has(&self, source: u32) -> bool {
        self.readers[source as usize].is_some()
    }

    /// Reads what one source, whose aggregates are taken, has of the batch that begins at rank `start`, and says how many bytes that
    /// takes. `None`: they cannot be read, and are no longer taken; the batch has to be begun again. `batch_bytes`: what a batch may
    /// take.
    pub(super) fn read(
        &mut self,
        parts: &[Part],
        start: usize,
        batch_bytes: usize,
    ) -> Result<Option<usize>, MetricsError> {
        let source = parts[0].source as usize;
        let Some(mut reader) = self.readers[source].take() else {
            return Ok(Some(0));
        };
        self.shape_bytes -= reader.kept_bytes();
        let read = self.read_source(&mut reader, parts, start).map(Some);
        let read = self.blocks.or_samples(reader.block(), read)?;
        if read.is_some() {
            if self.shape_bytes + reader.kept_bytes() > batch_bytes / SHAPES_SHARE {
                reader.forget();
            }
            self.shape_bytes += reader.kept_bytes();
            self.readers[source] = Some(reader);
        }
        Ok(read)
    }

    fn read_source(
        &mut self,
        reader: &mut TenantAggregates,
        parts: &[Part],
        start: usize,
    ) -> Result<usize, MetricsError> {
        let mut taken = 0;
        let (range, length) = (self.range, self.resolution.millis());
        let (rows, is_raw) = (&mut self.rows, &mut self.is_raw);
        let mut at = parts.iter();
        reader.read(parts.iter().map(|part| part.number), |number, found| {
            let Some(part) = at.find(|part| part.number == number) else {
                return;
            };
            let slot = part.rank as usize - start;
            is_raw[slot] |= found.is_empty();
            let overlaps =
                |row: &&Aggregate| row.end >= range.start && row.end - length < range.end - 1;
            let rows = &mut rows[slot];
            let before = rows.len();
            found
                .iter()
                .filter(overlaps)
                .for_each(|row| push(rows, *row));
            taken += size_of::<Aggregate>() * (rows.len() - before);
        })?;
        Ok(taken)
    }

    /// Puts the samples of the batch, which are in order, where aggregates are. Those of series that only their samples will do for
    /// stay.
    pub(super) fn fold(&mut self, batch: &mut [Column]) {
        for (slot, column) in batch.iter_mut().enumerate() {
            let rows = &mut self.rows[slot];
            if self.is_raw[slot] {
                rows.clear();
                continue;
            }
            if column.is_empty() {
                continue;
            }
            let mut found = std::mem::take(rows);
            let times = column.timestamps.iter().copied();
            let pairs = times.zip(column.values.iter().copied());
            trefoil_model::aggregate(pairs, self.resolution, &mut found);
            column.clear();
            // The parts of a bucket are disjoint in time. A marker alone has the bucket's last time, and so may the next part.
            found.sort_by_key(|row| (row.end, row.first_time, row.count));
            found.into_iter().for_each(|row| push(rows, row));
        }
    }
}

/// Appends a bucket, or joins it to the last one if they are parts of the same.
fn push(rows: &mut Vec<Aggregate>, row: Aggregate) {
    match rows.last_mut() {
        Some(last) if last.end == row.end => last.join(&row),
        _ => rows.push(row),
    }
}

impl View {
    /// The aggregates of the source that a block is, if they are the whole truth of the block's window.
    pub(super) fn aggregates_of(
        &self,
        tenant: TenantId,
        block: &VisibleBlock,
        source: &Source,
        resolution: Resolution,
    ) -> Result<Option<TenantAggregates>, MetricsError> {
        let Source::Block {
            reader, deletions, ..
        } = source
        else {
            return Ok(None);
        };
        let window = block.meta.window;
        let of_window = |other: &&VisibleBlock| {
            other.meta.window.overlaps(&window) && other.meta.tenant(tenant).is_some()
        };
        let is_alone = self.blocks.iter().filter(of_window).count() == 1;
        let is_cut = self.policy.cut_off(tenant) > block.meta.time_min;
        let mut parts = self.heads.get(&tenant).into_iter().flatten();
        if !is_alone || is_cut || !deletions.is_empty() || parts.any(|part| part.overlaps(&window))
        {
            return Ok(None);
        }
        let opened = self.readers.aggregates(&block.meta);
        let found = opened.and_then(|aggregates| match aggregates {
            Some(aggregates) => aggregates.tenant(tenant, reader.entry().series, resolution),
            None => Ok(None),
        });
        self.readers.or_samples(block.meta.id, found)
    }
}
