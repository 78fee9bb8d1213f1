//! Timestamp columns: stored once, shared by all series that were scraped together.

use super::Cursor;
use crate::body::{unzigzag, zigzag};
use crate::rows::read_short;
use hashbrown::HashTable;
use trefoil_model::{Millis, write_varint};
use xxhash_rust::xxh3::xxh3_128;

/// Uncompressed bytes after which a piece of columns is closed.
const COLUMN_PIECE_BYTES: usize = 64 << 10;

/// A series' timestamps: a column without some at its front and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct ColumnSlice {
    pub(super) column: u32,
    pub(super) front: u32,
    pub(super) back: u32,
}

/// Finds or stores the column of each series.
#[derive(Default)]
pub(super) struct ColumnWriter {
    start: Millis,
    /// Hash and number of every column.
    known: HashTable<(u128, u32)>,
    total: u32,
    /// The column of the previous series: series of one target stand next to each other, and one that
    /// began late or ended early has a part of its neighbours' column.
    previous: Vec<Millis>,
    previous_column: u32,
    piece: Vec<u8>,
    in_piece: u32,
    scratch: Vec<u8>,
}

impl ColumnWriter {
    pub(super) fn new(start: Millis) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    /// The slice that has exactly `timestamps`, which ascend and are not empty.
    pub(super) fn slice(&mut self, timestamps: &[Millis]) -> ColumnSlice {
        if timestamps == self.previous {
            return self.whole(self.previous_column);
        }
        self.scratch.clear();
        for timestamp in timestamps {
            self.scratch.extend_from_slice(&timestamp.to_le_bytes());
        }
        let hash = xxh3_128(&self.scratch);
        if let Some(&(_, column)) = self.known.find(hash as u64, |(known, _)| *known == hash) {
            self.remember(timestamps, column);
            return self.whole(column);
        }
        if let Ok(front) = self.previous.binary_search(&timestamps[0])
            && self.previous[front..].starts_with(timestamps)
        {
            return ColumnSlice {
                column: self.previous_column,
                front: front as u32,
                back: (self.previous.len() - front - timestamps.len()) as u32,
            };
        }
        self.known
            .insert_unique(hash as u64, (hash, self.total), |(known, _)| *known as u64);
        self.remember(timestamps, self.total);
        self.write(timestamps);
        self.total += 1;
        self.in_piece += 1;
        self.whole(self.total - 1)
    }

    fn whole(&self, column: u32) -> ColumnSlice {
        ColumnSlice {
            column,
            ..ColumnSlice::default()
        }
    }

    fn remember(&mut self, timestamps: &[Millis], column: u32) {
        self.previous.clear();
        self.previous.extend_from_slice(timestamps);
        self.previous_column = column;
    }

    fn write(&mut self, timestamps: &[Millis]) {
        write_varint(&mut self.piece, timestamps.len() as u64);
        let (mut previous, mut previous_delta) = (self.start, 0);
        for (index, &timestamp) in timestamps.iter().enumerate() {
            let delta = timestamp.wrapping_sub(previous);
            write_varint(&mut self.piece, zigzag(delta.wrapping_sub(previous_delta)));
            previous = timestamp;
            // The first difference is a place in the window and says nothing of the next one.
            previous_delta = if index == 0 { 0 } else { delta };
        }
    }

    /// The content of a full piece and its number of columns; with `last`, of any piece.
    pub(super) fn take_piece(&mut self, last: bool, out: &mut Vec<u8>) -> Option<u32> {
        if self.in_piece == 0 || (!last && self.piece.len() < COLUMN_PIECE_BYTES) {
            return None;
        }
        out.clear();
        write_varint(out, u64::from(self.in_piece));
        out.append(&mut self.piece);
        Some(std::mem::take(&mut self.in_piece))
    }
}

/// The columns of one piece, decoded.
#[derive(Debug)]
pub(super) struct Columns {
    timestamps: Vec<Millis>,
    /// Where each column ends in `timestamps`.
    ends: Vec<u32>,
}

impl Columns {
    /// Reads a piece of `columns` columns; `None` when it is malformed.
    pub(super) fn read(bytes: &[u8], start: Millis, columns: u32) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        // Each has two bytes at least, so a number that lies costs no memory.
        if cursor.varint()? != u64::from(columns) || bytes.len() / 2 < columns as usize {
            return None;
        }
        let mut at = cursor.at;
        let mut timestamps = Vec::with_capacity(bytes.len());
        let mut ends = Vec::with_capacity(columns as usize);
        for _ in 0..columns {
            let count = read_short(bytes, &mut at)?;
            if count == 0 || count > (bytes.len() - at) as u64 {
                return None;
            }
            let (mut previous, mut previous_delta) = (start, 0i64);
            for index in 0..count {
                let step = unzigzag(read_short(bytes, &mut at)?);
                let delta = previous_delta.wrapping_add(step);
                // Timestamps ascend; readers search in them.
                if index > 0 && delta <= 0 {
                    return None;
                }
                previous = previous.wrapping_add(delta);
                previous_delta = if index == 0 { 0 } else { delta };
                timestamps.push(previous);
            }
            ends.push(u32::try_from(timestamps.len()).ok()?);
        }
        (at == bytes.len()).then_some(Self { timestamps, ends })
    }

    /// The timestamps of the column at `index` in this piece.
    pub(super) fn get(&self, index: u32) -> Option<&[Millis]> {
        let index = index as usize;
        let end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(previous) => self.ends[previous] as usize,
            None => 0,
        };
        Some(&self.timestamps[start..end])
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.timestamps.capacity() * 8 + self.ends.capacity() * 4
    }
}
