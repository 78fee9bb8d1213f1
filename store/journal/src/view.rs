//! What readers see: the durable records, in memory or in segments.

use crate::segments::Segment;
use crate::{JournalError, Record};
use std::collections::VecDeque;
use std::sync::Arc;
use trefoil_store_pages::{PageReader, PagesError, RecordGroup};

/// The durable part of the journal. Segments are in order of their bases and never empty; the cache
/// is a contiguous run of groups that ends at `durable_end`.
pub(crate) struct View {
    pub(crate) segments: Vec<Segment>,
    pub(crate) durable_end: u64,
    cache: VecDeque<Arc<RecordGroup>>,
    cache_bytes: usize,
    cache_bytes_max: usize,
}

/// Where a read is answered from.
pub(crate) enum Place {
    Memory(Vec<Arc<RecordGroup>>),
    File { reader: PageReader, until: u64 },
}

impl View {
    pub(crate) fn new(segments: Vec<Segment>, durable_end: u64, cache_bytes_max: usize) -> Self {
        Self {
            segments,
            durable_end,
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
        }
    }

    pub(crate) fn floor(&self) -> u64 {
        self.segments.first().map_or(self.durable_end, |s| s.base)
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Takes a group that has become durable in the last segment.
    pub(crate) fn advance(&mut self, group: RecordGroup) {
        self.durable_end = group.end();
        if let Some(current) = self.segments.last_mut() {
            current.end = group.end();
        }
        self.cache_bytes += group.memory_bytes();
        self.cache.push_back(Arc::new(group));
        while self.cache_bytes > self.cache_bytes_max
            && let Some(oldest) = self.cache.pop_front()
        {
            self.cache_bytes -= oldest.memory_bytes();
        }
    }

    /// Forgets groups below the floor.
    pub(crate) fn trim_cache(&mut self) {
        let floor = self.floor();
        while self.cache.front().is_some_and(|group| group.end() <= floor)
            && let Some(oldest) = self.cache.pop_front()
        {
            self.cache_bytes -= oldest.memory_bytes();
        }
    }

    /// Where the records from `from` on are, about `bytes_max` bytes of them. `None`: there are none yet.
    pub(crate) fn locate(
        &self,
        from: u64,
        bytes_max: usize,
    ) -> Result<Option<Place>, JournalError> {
        if from > self.durable_end {
            return Err(JournalError::BeyondEnd {
                offset: from,
                end: self.durable_end,
            });
        }
        if from < self.floor() {
            return Err(JournalError::BelowFloor {
                offset: from,
                floor: self.floor(),
            });
        }
        if from == self.durable_end {
            return Ok(None);
        }
        let cached = self.cache.partition_point(|group| group.start() <= from);
        if let Some(first) = cached.checked_sub(1) {
            let mut groups = Vec::new();
            let mut bytes_sum = 0;
            for group in self.cache.range(first..) {
                groups.push(group.clone());
                bytes_sum += group.end().saturating_sub(group.start().max(from)) as usize;
                if bytes_sum >= bytes_max {
                    break;
                }
            }
            return Ok(Some(Place::Memory(groups)));
        }
        let after = self
            .segments
            .partition_point(|segment| segment.base <= from);
        let segment = after.checked_sub(1).and_then(|at| self.segments.get(at));
        match segment.and_then(|segment| Some((segment.reader.clone()?, segment.end))) {
            Some((reader, until)) if from < until => Ok(Some(Place::File { reader, until })),
            _ => Err(JournalError::Unreadable { offset: from }),
        }
    }
}

impl Place {
    pub(crate) fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<Record>, JournalError> {
        match self {
            Self::Memory(groups) => read_groups(groups, from, bytes_max)
                .ok_or(JournalError::Unreadable { offset: from }),
            Self::File { reader, until } => {
                reader
                    .read(from, *until, bytes_max)
                    .map_err(|error| match error {
                        PagesError::NoRecordAt { offset, .. } => {
                            JournalError::Unreadable { offset }
                        }
                        other => other.into(),
                    })
            }
        }
    }
}

fn read_groups(groups: &[Arc<RecordGroup>], from: u64, bytes_max: usize) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    let mut bytes_sum = 0;
    let mut at = from;
    for group in groups {
        let more = group.read(at, bytes_max - bytes_sum)?;
        bytes_sum += more.iter().map(|record| record.bytes.len()).sum::<usize>();
        at = more.last().map_or(at, |record| record.end);
        records.extend(more);
        if bytes_sum >= bytes_max || at != group.end() {
            break;
        }
    }
    Some(records)
}
