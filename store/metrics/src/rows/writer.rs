//! Writing rows.

use super::{LABELS_PER_MASK, LABELS_PER_SERIES_MAX, Span, text_end};
use hashbrown::HashTable;
use trefoil_model::{read_varint, write_varint};
use xxhash_rust::xxh3::xxh3_64;

/// "This shape had no row yet": no value has this index.
const NO_VALUE: u32 = u32::MAX;

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
    /// The row before, against which the next one is compared without looking names up.
    previous: Vec<u8>,
    /// Pieces of the row being added: name and value by turns.
    pieces: Vec<Span>,
    /// Labels of the row being added whose values differ from the row before.
    changed: Vec<u32>,
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
        self.previous.clear();
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
        if self.count > 0 && self.find_changes(canonical) {
            self.push_same_shape(canonical);
        } else {
            self.push_other_shape(canonical);
        }
        self.previous.clear();
        self.previous.extend_from_slice(canonical);
        self.count += 1;
    }

    /// Compares with the row before. `true`: the names are the same, `changed` has the labels whose values differ,
    /// and `pieces` their values. Equal stretches are compared as a whole, however many labels they span.
    fn find_changes(&mut self, canonical: &[u8]) -> bool {
        self.changed.clear();
        self.pieces.clear();
        let (mut at, mut before) = (0, 0);
        let mut label = 0;
        while at < canonical.len() && before < self.previous.len() {
            let equal = equal_bytes(&canonical[at..], &self.previous[before..]);
            let end = at + equal;
            // Labels that lie wholly in the equal stretch.
            let (start, name_end) = loop {
                let start = at;
                let Some(name_end) = text_end(canonical, start).filter(|name| *name < end) else {
                    break (start, None);
                };
                match text_end(canonical, name_end).filter(|value| *value <= end) {
                    Some(value_end) => {
                        before += value_end - start;
                        at = value_end;
                        label += 1;
                    }
                    None => break (start, Some(name_end)),
                }
                if at == end {
                    break (at, None);
                }
            };
            if at == end && (at == canonical.len() || before == self.previous.len()) {
                break;
            }
            // The label at `start` differs, or only its beginning was equal.
            let name_end = match name_end {
                Some(name_end) => name_end,
                None => match text_end(canonical, start) {
                    Some(name_end) => name_end,
                    None => return false,
                },
            };
            let name = &canonical[start..name_end];
            if !self.previous[before..].starts_with(name) {
                return false;
            }
            let value_end = text_end(canonical, name_end);
            let before_end = text_end(&self.previous, before + name.len());
            let (Some(value_end), Some(before_end)) = (value_end, before_end) else {
                return false;
            };
            if canonical[name_end..value_end] != self.previous[before + name.len()..before_end] {
                self.changed.push(label);
                self.pieces.push(Span {
                    start: name_end as u32,
                    length: (value_end - name_end) as u32,
                });
            }
            (at, before) = (value_end, before_end);
            label += 1;
        }
        at == canonical.len() && before == self.previous.len()
    }

    fn push_same_shape(&mut self, canonical: &[u8]) {
        self.rows.push(0);
        let labels = self.shapes[self.shape].last.len();
        let mut next = 0;
        for first in (0..labels).step_by(LABELS_PER_MASK) {
            let of_group = self.changed[next..]
                .iter()
                .take_while(|label| (**label as usize) < first + LABELS_PER_MASK);
            let end = next + of_group.count();
            let bits = self.changed[next..end].iter();
            let mask = bits.fold(0u64, |mask, label| mask | 1 << (*label as usize - first));
            write_varint(&mut self.rows, mask);
            for change in next..end {
                let value = self.pieces[change].of(canonical);
                self.push_value(self.changed[change] as usize, value);
            }
            next = end;
        }
    }

    fn push_other_shape(&mut self, canonical: &[u8]) {
        self.split(canonical);
        let labels = self.pieces.len() / 2;
        assert!(labels <= LABELS_PER_SERIES_MAX, "too many labels in a row");
        self.shape = self.find_shape(canonical);
        write_varint(&mut self.rows, self.shape as u64 + 1);
        for first in (0..labels).step_by(LABELS_PER_MASK) {
            self.push_values(canonical, first, labels.min(first + LABELS_PER_MASK));
        }
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

    /// The shape with the names of `self.pieces`; a new one if there was none.
    fn find_shape(&mut self, canonical: &[u8]) -> usize {
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
            self.push_value(label, self.pieces[2 * label + 1].of(canonical));
        }
    }

    /// Writes the value of a label that differs from the shape's previous row.
    fn push_value(&mut self, label: usize, value: &[u8]) {
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

/// How many bytes two slices have in common at their beginning.
fn equal_bytes(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let mut equal = 0;
    for (a, b) in words {
        let word = |bytes: &[u8]| {
            bytes
                .first_chunk()
                .map_or(0, |word| u64::from_le_bytes(*word))
        };
        let differing = word(a) ^ word(b);
        if differing != 0 {
            return equal + (differing.trailing_zeros() / 8) as usize;
        }
        equal += 8;
    }
    let rest = a[equal..].iter().zip(&b[equal..]);
    equal + rest.take_while(|(a, b)| a == b).count()
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
