//! Walks a tenant's series in a block from first to last, for merging.

use crate::MetricsError;
use crate::block::TenantReader;
use crate::columns::Column;
use crate::order::write_block_key;
use std::collections::VecDeque;
use trefoil_model::{ShardId, ShardSet, TimeRange};

/// A series of a block in memory.
pub(super) struct ScannedSeries {
    /// Block order key.
    pub(super) key: Vec<u8>,
    pub(super) canonical: Vec<u8>,
    pub(super) shard: ShardId,
    pub(super) column: Column,
}

/// A cursor in block order. Holds one data piece decoded.
pub(super) struct Scan {
    reader: TenantReader,
    all_shards: Vec<ShardId>,
    /// Series of other shards are left out.
    shards: ShardSet,
    range: TimeRange,
    next: u32,
    ready: VecDeque<ScannedSeries>,
}

impl Scan {
    pub(super) fn new(
        reader: TenantReader,
        shards: ShardSet,
        range: TimeRange,
    ) -> Result<Self, MetricsError> {
        Ok(Self {
            all_shards: reader.shards()?,
            reader,
            shards,
            range,
            next: 0,
            ready: VecDeque::new(),
        })
    }

    /// The next series, if there is one.
    pub(super) fn peek(&mut self) -> Result<Option<&ScannedSeries>, MetricsError> {
        while self.ready.is_empty() && self.next < self.reader.entry().series {
            self.read_piece()?;
        }
        Ok(self.ready.front())
    }

    pub(super) fn take(&mut self) -> Option<ScannedSeries> {
        self.ready.pop_front()
    }

    fn read_piece(&mut self) -> Result<(), MetricsError> {
        let end = self.reader.data_piece_end(self.next)?;
        let wanted: Vec<u32> = (self.next..end)
            .filter(|series| self.shards.contains(self.all_shards[*series as usize]))
            .collect();
        self.next = end;
        let mut series: VecDeque<(u32, ScannedSeries)> = VecDeque::with_capacity(wanted.len());
        let shards = &self.all_shards;
        self.reader
            .labels(wanted.iter().copied(), |number, canonical| {
                let mut key = Vec::new();
                write_block_key(canonical, &mut key);
                let one = ScannedSeries {
                    key,
                    canonical: canonical.to_vec(),
                    shard: shards[number as usize],
                    column: Column::default(),
                };
                series.push_back((number, one));
            })?;
        let mut at = 0;
        self.reader
            .samples(wanted.into_iter(), self.range, |number, samples| {
                while series[at].0 != number {
                    at += 1;
                }
                series[at].1.column.extend(samples);
            })?;
        let ready = series.into_iter().map(|(_, one)| one);
        self.ready
            .extend(ready.filter(|one| !one.column.is_empty()));
        Ok(())
    }
}
