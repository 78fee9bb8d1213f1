//! Label sets as rows: the coding shared by parcel bodies and the label sections of blocks.
//!
//! Neighbouring series mostly have the same label names and differ in one or two values. A *shape* is
//! a list of label names; a row names its shape and the values that differ from the shape's previous
//! row. Label texts are stored once, in the order of their first use.
//!
//! ```text
//! shapes  varint count | per shape: varint labels | per label: text (name)
//! values  varint count | per value: text
//! rows    varint count | per row:
//!           varint shape            0: the previous row's shape, else shape index + 1
//!           per 63 labels: varint mask, bit i set: label i differs from the shape's previous row
//!           per set bit:   varint   0: the next value that no row used before, else value index + 1
//! text    varint length | UTF-8 bytes
//! ```
//! A text is exactly a piece of canonical label bytes (`trefoil_model::Labels`), so the reader rebuilds
//! those by copying. The reader checks each name and value once, where it is stored, and so yields only
//! canonical bytes: UTF-8, names ascending and unique. It allocates in proportion to its input.

use hashbrown::HashTable;
use trefoil_model::{read_varint, write_varint};
use xxhash_rust::xxh3::xxh3_64;

/// Labels per mask: a LEB128 of 63 bits is nine bytes at most.
const LABELS_PER_MASK: usize = 63;

/// Most labels of one series. The acceptance limits of tenants are far below it.
pub const LABELS_PER_SERIES_MAX: usize = 1024;

/// Most canonical label bytes of one series. Bounds what a hostile row can make of few bytes.
pub const LABEL_BYTES_PER_SERIES_MAX: usize = 1 << 20;

/// "This shape had no row yet": no value has this index.
const NO_VALUE: u32 = u32::MAX;

/// A place in an arena.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.start as usize..(self.start + self.length) as usize]
    }
}

/// Builds rows. Reusable: [`RowWriter::clear`] keeps the memory.
#[derive(Debug, Default)]
pub(crate) struct RowWriter {
    /// Value texts, concatenated: the `values` section without its count.
    values: Vec<u8>,
    value_spans: Vec<Span>,
    value_table: HashTable<u32>,
    /// Name texts of all shapes, concatenated.
    names: Vec<u8>,
    shapes: Vec<ShapeWriter>,
    shape_table: HashTable<u32>,
    shape: usize,
    rows: Vec<u8>,
    count: usize,
    /// Pieces of the row being added: name and value by turns.
    pieces: Vec<Span>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct ShapeWriter {
    /// All names of the shape in the names arena.
    names: Span,
    /// Last value of each label.
    last: Vec<u32>,
}

impl RowWriter {
    /// Forgets all rows and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.value_spans.clear();
        self.value_table.clear();
        self.names.clear();
        self.shapes.clear();
        self.shape_table.clear();
        self.shape = 0;
        self.rows.clear();
        self.count = 0;
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// About how many bytes the sections have now.
    pub(crate) fn bytes(&self) -> usize {
        self.values.len() + self.names.len() + self.rows.len()
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When `canonical` is not canonical label bytes or has more than [`LABELS_PER_SERIES_MAX`] labels:
    /// the caller made or checked them.
    pub(crate) fn push(&mut self, canonical: &[u8]) {
        self.split(canonical);
        let labels = self.pieces.len() / 2;
        assert!(labels <= LABELS_PER_SERIES_MAX, "too many labels in a row");
        let shape = self.find_shape(canonical);
        if shape == self.shape && self.count > 0 {
            self.rows.push(0);
        } else {
            write_varint(&mut self.rows, shape as u64 + 1);
            self.shape = shape;
        }
        for first in (0..labels).step_by(LABELS_PER_MASK) {
            self.push_values(canonical, first, labels.min(first + LABELS_PER_MASK));
        }
        self.count += 1;
    }

    /// Cuts canonical bytes into `self.pieces`, each a text with its length prefix.
    fn split(&mut self, canonical: &[u8]) {
        self.pieces.clear();
        let mut at = 0;
        while at < canonical.len() {
            let start = at;
            let length = match canonical[at] {
                short if short < 0x80 => {
                    at += 1;
                    usize::from(short)
                }
                _ => read_varint(canonical, &mut at).expect("canonical label bytes") as usize,
            };
            at += length;
            assert!(at <= canonical.len(), "canonical label bytes");
            self.pieces.push(Span {
                start: start as u32,
                length: (at - start) as u32,
            });
        }
        assert!(self.pieces.len().is_multiple_of(2), "canonical label bytes");
    }

    /// The shape with the names of `self.pieces`: mostly the previous row's.
    fn find_shape(&mut self, canonical: &[u8]) -> usize {
        if let Some(shape) = self.shapes.get(self.shape)
            && self.has_names(shape, canonical)
        {
            return self.shape;
        }
        self.scratch.clear();
        for name in self.pieces.iter().step_by(2) {
            self.scratch.extend_from_slice(name.of(canonical));
        }
        let hash = xxh3_64(&self.scratch);
        let (names, shapes, scratch) = (&self.names, &self.shapes, &self.scratch);
        let names_of = |index: u32| shapes[index as usize].names.of(names);
        if let Some(found) = self
            .shape_table
            .find(hash, |&index| names_of(index) == scratch.as_slice())
        {
            return *found as usize;
        }
        let index = self.shapes.len() as u32;
        self.shape_table
            .insert_unique(hash, index, |&other| xxh3_64(names_of(other)));
        let span = Span {
            start: self.names.len() as u32,
            length: self.scratch.len() as u32,
        };
        self.names.extend_from_slice(&self.scratch);
        let last = vec![NO_VALUE; self.pieces.len() / 2];
        self.shapes.push(ShapeWriter { names: span, last });
        index as usize
    }

    fn has_names(&self, shape: &ShapeWriter, canonical: &[u8]) -> bool {
        let mut names = shape.names.of(&self.names);
        for piece in self.pieces.iter().step_by(2) {
            let Some(rest) = names.strip_prefix(piece.of(canonical)) else {
                return false;
            };
            names = rest;
        }
        names.is_empty()
    }

    /// Writes the mask and the changed values of the labels `first..end`.
    fn push_values(&mut self, canonical: &[u8], first: usize, end: usize) {
        let mut mask = 0u64;
        for label in first..end {
            let value = self.pieces[2 * label + 1].of(canonical);
            let last = self.shapes[self.shape].last[label];
            let same =
                last != NO_VALUE && self.value_spans[last as usize].of(&self.values) == value;
            mask |= u64::from(!same) << (label - first);
        }
        write_varint(&mut self.rows, mask);
        while mask != 0 {
            let label = first + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let value = self.pieces[2 * label + 1].of(canonical);
            let known = self.value_spans.len() as u32;
            let index = intern(
                &mut self.values,
                &mut self.value_spans,
                &mut self.value_table,
                value,
            );
            self.shapes[self.shape].last[label] = index;
            let code = if index == known {
                0
            } else {
                u64::from(index) + 1
            };
            write_varint(&mut self.rows, code);
        }
    }

    /// Appends the `shapes` section.
    pub(crate) fn write_shapes(&self, out: &mut Vec<u8>) {
        write_varint(out, self.shapes.len() as u64);
        for shape in &self.shapes {
            write_varint(out, shape.last.len() as u64);
            out.extend_from_slice(shape.names.of(&self.names));
        }
    }

    /// Appends the `values` section.
    pub(crate) fn write_values(&self, out: &mut Vec<u8>) {
        write_varint(out, self.value_spans.len() as u64);
        out.extend_from_slice(&self.values);
    }

    /// Appends the `rows` section.
    pub(crate) fn write_rows(&self, out: &mut Vec<u8>) {
        write_varint(out, self.count as u64);
        out.extend_from_slice(&self.rows);
    }
}

fn intern(
    arena: &mut Vec<u8>,
    spans: &mut Vec<Span>,
    table: &mut HashTable<u32>,
    text: &[u8],
) -> u32 {
    let hash = xxh3_64(text);
    if let Some(found) = table.find(hash, |&index| spans[index as usize].of(arena) == text) {
        return *found;
    }
    let index = spans.len() as u32;
    table.insert_unique(hash, index, |&other| {
        xxh3_64(spans[other as usize].of(arena))
    });
    spans.push(Span {
        start: arena.len() as u32,
        length: text.len() as u32,
    });
    arena.extend_from_slice(text);
    index
}

/// Reads rows. Reusable: [`RowReader::open`] keeps the memory.
#[derive(Debug, Default)]
pub(crate) struct RowReader {
    /// Name pieces of all shapes; `Span`s into the `shapes` section.
    names: Vec<Span>,
    shapes: Vec<ShapeReader>,
    /// Last value of each name of `names`, as a place in the `values` section.
    last: Vec<Span>,
    values: Vec<Span>,
    /// How many values rows have used so far.
    used: usize,
    shape: usize,
    at: usize,
    left: usize,
    canonical: Vec<u8>,
    /// Where the value of each label of the current row begins in `canonical`.
    starts: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct ShapeReader {
    first: u32,
    labels: u32,
    has_row: bool,
}

/// The three sections that a [`RowReader`] reads, uncompressed.
#[derive(Clone, Copy)]
pub(crate) struct RowSections<'a> {
    pub(crate) shapes: &'a [u8],
    pub(crate) values: &'a [u8],
    pub(crate) rows: &'a [u8],
}

impl RowReader {
    /// Checks shapes and values and stands before the first row. `Err` names what is malformed.
    pub(crate) fn open(&mut self, sections: RowSections<'_>) -> Result<(), &'static str> {
        self.read_shapes(sections.shapes).ok_or("label names")?;
        self.read_values(sections.values).ok_or("label values")?;
        self.used = 0;
        self.shape = usize::MAX;
        self.at = 0;
        self.canonical.clear();
        self.starts.clear();
        let rows = read_varint(sections.rows, &mut self.at).ok_or("label rows")?;
        // A row has at least one byte, so a count beyond the bytes is a lie.
        if rows > sections.rows.len() as u64 {
            return Err("number of label rows");
        }
        self.left = rows as usize;
        Ok(())
    }

    /// How many rows are left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    fn read_shapes(&mut self, bytes: &[u8]) -> Option<()> {
        self.names.clear();
        self.shapes.clear();
        let mut at = 0;
        let count = read_varint(bytes, &mut at)?;
        for _ in 0..count {
            let labels = read_varint(bytes, &mut at)?;
            if labels > LABELS_PER_SERIES_MAX as u64 {
                return None;
            }
            let first = self.names.len() as u32;
            let mut previous: Option<&[u8]> = None;
            for _ in 0..labels {
                let (piece, text) = read_text(bytes, &mut at)?;
                if previous.is_some_and(|previous| previous >= text) {
                    return None;
                }
                previous = Some(text);
                self.names.push(piece);
            }
            self.shapes.push(ShapeReader {
                first,
                labels: labels as u32,
                has_row: false,
            });
        }
        self.last.clear();
        self.last.resize(self.names.len(), Span::default());
        (at == bytes.len()).then_some(())
    }

    fn read_values(&mut self, bytes: &[u8]) -> Option<()> {
        self.values.clear();
        let mut at = 0;
        let count = read_varint(bytes, &mut at)?;
        for _ in 0..count {
            let (piece, _) = read_text(bytes, &mut at)?;
            self.values.push(piece);
        }
        (at == bytes.len()).then_some(())
    }

    /// Moves to the next row; `false` behind the last. `sections` are those of [`RowReader::open`].
    /// `Err` names what is malformed; the reader must not be used further.
    pub(crate) fn advance(&mut self, sections: RowSections<'_>) -> Result<bool, &'static str> {
        if self.left == 0 {
            return if self.at == sections.rows.len() {
                Ok(false)
            } else {
                Err("bytes behind the label rows")
            };
        }
        self.left -= 1;
        self.read_row(sections).ok_or("label row")?;
        Ok(true)
    }

    /// The canonical label bytes of the row that [`RowReader::advance`] moved to.
    pub(crate) fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    fn read_row(&mut self, sections: RowSections<'_>) -> Option<()> {
        let code = read_short(sections.rows, &mut self.at)?;
        let same_shape = code == 0;
        if !same_shape {
            self.shape = usize::try_from(code - 1).ok()?;
        }
        let shape = *self.shapes.get(self.shape)?;
        let labels = shape.labels as usize;
        let first = shape.first as usize;
        let mut keep = labels;
        for group in (0..labels).step_by(LABELS_PER_MASK) {
            let mut mask = read_short(sections.rows, &mut self.at)?;
            let in_group = (labels - group).min(LABELS_PER_MASK);
            let all = (1u64 << in_group) - 1;
            if mask & !all != 0 || (!shape.has_row && mask != all) {
                return None;
            }
            if mask != 0 {
                keep = keep.min(group + mask.trailing_zeros() as usize);
            }
            while mask != 0 {
                let label = group + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let index = match read_short(sections.rows, &mut self.at)? {
                    0 => {
                        self.used += 1;
                        self.used - 1
                    }
                    code => usize::try_from(code - 1).ok()?,
                };
                self.last[first + label] = *self.values.get(index)?;
            }
        }
        self.shapes[self.shape].has_row = true;
        self.rebuild(sections, first, labels, if same_shape { keep } else { 0 })
    }

    /// Copies names and values together; the labels before `keep` are already in place.
    fn rebuild(
        &mut self,
        sections: RowSections<'_>,
        first: usize,
        labels: usize,
        keep: usize,
    ) -> Option<()> {
        if keep == labels && keep > 0 {
            return Some(());
        }
        if keep == 0 {
            self.canonical.clear();
            self.starts.clear();
        } else {
            self.canonical.truncate(self.starts[keep] as usize);
            self.starts.truncate(keep);
        }
        for label in keep..labels {
            let name = self.names[first + label].of(sections.shapes);
            let value = self.last[first + label].of(sections.values);
            self.starts.push(self.canonical.len() as u32);
            self.canonical.extend_from_slice(name);
            self.canonical.extend_from_slice(value);
            if self.canonical.len() > LABEL_BYTES_PER_SERIES_MAX {
                return None;
            }
        }
        Some(())
    }
}

/// A varint that is mostly one byte long.
#[inline]
pub(crate) fn read_short(bytes: &[u8], at: &mut usize) -> Option<u64> {
    match bytes.get(*at) {
        Some(&byte) if byte < 0x80 => {
            *at += 1;
            Some(u64::from(byte))
        }
        _ => read_varint(bytes, at),
    }
}

/// A text with its length prefix: the piece as a place in `bytes`, and the text alone, which is UTF-8.
/// The length prefix must be the shortest one, or the same labels would have two canonical forms.
fn read_text<'a>(bytes: &'a [u8], at: &mut usize) -> Option<(Span, &'a [u8])> {
    let start = *at;
    let length = usize::try_from(read_short(bytes, at)?).ok()?;
    if *at - start > 1 && bytes[*at - 1] == 0 {
        return None;
    }
    let end = at.checked_add(length)?;
    let text = bytes.get(*at..end)?;
    std::str::from_utf8(text).ok()?;
    *at = end;
    let span = Span {
        start: u32::try_from(start).ok()?,
        length: u32::try_from(end - start).ok()?,
    };
    Some((span, text))
}
