//! Pieces of values: where each series' values and timestamps are.

use super::mixed::{KIND_MIXED, decode_mixed};
use super::{BlockVersion, Cursor};
use crate::body::unzigzag;
use crate::columns::{Column, SampleSlice};
use crate::packed::{BITS_PADDING, Bits};
use crate::value::{constant, decode_coded};
use trefoil_model::Millis;

/// A piece of values, decompressed. Its series can be had in any order.
#[derive(Debug)]
pub(super) struct DataPiece {
    content: Vec<u8>,
    /// Of packed values, with the padding behind them.
    bits: Option<Vec<u8>>,
    /// Where the values begin in `content`.
    values: u32,
    series: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    column: u32,
    front: u32,
    back: u32,
    /// Where the values end in `content`; they begin where those of the series before end.
    end: u32,
    /// The same of its bits.
    bits_end: u32,
}

/// A series of a piece.
pub(super) struct DataSeries<'a> {
    /// The number of its timestamp column.
    pub(super) column: u32,
    front: usize,
    back: usize,
    values: &'a [u8],
    /// All bits of the piece, and where its own begin and end.
    bits: Option<(&'a [u8], usize, usize)>,
}

impl DataPiece {
    /// Reads a piece of `series` series, of which there is one at least; `None` when it is malformed. Packed values
    /// have `bits`.
    pub(super) fn read(content: Vec<u8>, bits: Option<Vec<u8>>, series: u32) -> Option<Self> {
        let mut cursor = Cursor::new(&content);
        // Each has four bytes at least, so a count that lies costs no memory.
        if cursor.varint()? != u64::from(series) || content.len() / 4 < series as usize {
            return None;
        }
        let (mut entries, mut column) = (Vec::with_capacity(series as usize), 0u32);
        let (mut end, mut bits_end) = (0u32, 0u32);
        for _ in 0..series {
            let step = unzigzag(cursor.varint()?);
            column = u32::try_from(i64::from(column).checked_add(step)?).ok()?;
            let (front, back) = (cursor.small()?, cursor.small()?);
            end = end.checked_add(cursor.small()?)?;
            if bits.is_some() {
                bits_end = bits_end.checked_add(cursor.small()?)?;
            }
            entries.push(Entry {
                column,
                front,
                back,
                end,
                bits_end,
            });
        }
        let values = u32::try_from(cursor.at).ok()?;
        for entry in &mut entries {
            entry.end = entry.end.checked_add(values)?;
        }
        // What stands behind the last values belongs to nobody.
        let end = entries.last()?.end as usize;
        if end != content.len() || bits_end as usize != bits.as_ref().map_or(0, Vec::len) {
            return None;
        }
        let bits = bits.map(|mut bits| {
            bits.reserve_exact(BITS_PADDING);
            bits.extend([0; BITS_PADDING]);
            bits
        });
        Some(Self {
            content,
            bits,
            values,
            series: entries,
        })
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let bits = self.bits.as_ref().map_or(0, Vec::capacity);
        self.content.capacity() + bits + self.series.capacity() * size_of::<Entry>()
    }

    /// The series at this place of the piece.
    ///
    /// # Panics
    /// When the piece has fewer.
    pub(super) fn series(&self, place: u32) -> DataSeries<'_> {
        let place = place as usize;
        let entry = self.series[place];
        let (start, bits_start) = match place.checked_sub(1) {
            Some(before) => (self.series[before].end, self.series[before].bits_end),
            None => (self.values, 0),
        };
        DataSeries {
            column: entry.column,
            front: entry.front as usize,
            back: entry.back as usize,
            values: &self.content[start as usize..entry.end as usize],
            bits: (self.bits.as_deref())
                .map(|bits| (bits, bits_start as usize, entry.bits_end as usize)),
        }
    }
}

impl DataSeries<'_> {
    /// Its bits, if its values are packed.
    fn bits(&self) -> Option<Bits<'_>> {
        self.bits
            .map(|(bytes, start, end)| Bits::new(bytes, start, end))
    }

    /// The value that all have, if the column says so.
    fn constant(&self) -> Option<f64> {
        let has_bits = self.bits().is_some_and(|bits| !bits.is_empty());
        constant(self.values).filter(|_| !has_bits)
    }

    fn decode_floats(&self, count: usize, out: &mut Vec<f64>) -> Option<()> {
        let mut bits = self.bits();
        decode_coded(self.values, count, bits.as_mut(), out)?;
        bits.is_none_or(|bits| bits.is_empty()).then_some(())
    }

    /// Its timestamps among those of its column; `None` when there are none.
    pub(super) fn cut<'c>(&self, column: &'c [Millis]) -> Option<&'c [Millis]> {
        let end = column.len().checked_sub(self.back)?;
        column.get(self.front..end).filter(|cut| !cut.is_empty())
    }

    /// Appends the samples `start..end` of the series, whose timestamps are these and whose samples are numbers, to `column`. `None`
    /// when the values are malformed; then the column is, too.
    pub(super) fn append(
        &self,
        timestamps: &[Millis],
        (start, end): (usize, usize),
        column: &mut Column,
    ) -> Option<()> {
        let values = &mut column.values;
        let before = values.len();
        match self.constant() {
            Some(value) => values.resize(before + end - start, value),
            None => {
                self.decode_floats(timestamps.len(), values)?;
                values.truncate(before + end);
                values.drain(before..before + start);
            }
        }
        column.timestamps.extend_from_slice(&timestamps[start..end]);
        column.pad();
        Some(())
    }

    /// Decodes the samples `start..end` of the series, whose timestamps are these, into `memory`, whose former content is
    /// lost. `None` when the values are malformed.
    pub(super) fn decode<'c>(
        &self,
        timestamps: &'c [Millis],
        (start, end): (usize, usize),
        version: BlockVersion,
        memory: &'c mut Column,
    ) -> Option<SampleSlice<'c>> {
        memory.clear();
        if let Some(value) = self.constant() {
            memory.values.resize(end - start, value);
            return Some(SampleSlice {
                timestamps: &timestamps[start..end],
                ..memory.slice()
            });
        }
        if self.values.first() != Some(&KIND_MIXED) || version.is_plain() {
            self.decode_floats(timestamps.len(), &mut memory.values)?;
        } else {
            memory.timestamps.extend_from_slice(timestamps);
            let mut bits = self.bits();
            decode_mixed(self.values, bits.as_mut(), memory)?;
            bits.is_none_or(|bits| bits.is_empty()).then_some(())?;
        }
        let all = SampleSlice {
            timestamps,
            ..memory.slice()
        };
        Some(all.cut(start, end))
    }
}
