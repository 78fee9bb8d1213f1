//! Reading rows: every name and value is checked once, where it is stored.

use super::{LABEL_BYTES_PER_SERIES_MAX, LABELS_PER_MASK, LABELS_PER_SERIES_MAX, Span, read_short};
use trefoil_model::read_varint;

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
    /// Where each label of the current row begins in `canonical`.
    starts: Vec<u32>,
    /// Labels of the row being read whose values differ from the shape's previous row.
    changed: Vec<u32>,
    patched: Vec<u8>,
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
        self.changed.clear();
        for group in (0..labels).step_by(LABELS_PER_MASK) {
            let mut mask = read_short(sections.rows, &mut self.at)?;
            let in_group = (labels - group).min(LABELS_PER_MASK);
            let all = (1u64 << in_group) - 1;
            if mask & !all != 0 || (!shape.has_row && mask != all) {
                return None;
            }
            while mask != 0 {
                let label = group + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                self.changed.push(label as u32);
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
        if same_shape {
            self.patch(sections, first)
        } else {
            self.rebuild(sections, first, labels)
        }
    }

    /// Makes the row out of the row before, which has the same shape: stretches without a change are
    /// copied as a whole.
    fn patch(&mut self, sections: RowSections<'_>, first: usize) -> Option<()> {
        if self.changed.is_empty() {
            return Some(());
        }
        self.patched.clear();
        // Where the bytes that were not copied yet begin, and how far later labels have moved.
        let (mut copied, mut moved) = (0, 0i64);
        let labels = self.starts.len();
        let mut changes = self.changed.iter().map(|label| *label as usize).peekable();
        let from = *changes.peek()?;
        for label in from..labels {
            let start = self.starts[label] as usize;
            self.starts[label] = (start as i64 + moved) as u32;
            if changes.next_if_eq(&label).is_none() {
                continue;
            }
            let value = start + self.names[first + label].length as usize;
            let next = self.starts.get(label + 1);
            let end = next.map_or(self.canonical.len(), |next| *next as usize);
            self.patched
                .extend_from_slice(&self.canonical[copied..value]);
            let new = self.last[first + label].of(sections.values);
            self.patched.extend_from_slice(new);
            moved += new.len() as i64 - (end - value) as i64;
            copied = end;
        }
        self.patched.extend_from_slice(&self.canonical[copied..]);
        std::mem::swap(&mut self.patched, &mut self.canonical);
        (self.canonical.len() <= LABEL_BYTES_PER_SERIES_MAX).then_some(())
    }

    /// Makes the row out of names and values.
    fn rebuild(&mut self, sections: RowSections<'_>, first: usize, labels: usize) -> Option<()> {
        self.canonical.clear();
        self.starts.clear();
        for label in first..first + labels {
            self.starts.push(self.canonical.len() as u32);
            let name = self.names[label].of(sections.shapes);
            self.canonical.extend_from_slice(name);
            let value = self.last[label].of(sections.values);
            self.canonical.extend_from_slice(value);
            if self.canonical.len() > LABEL_BYTES_PER_SERIES_MAX {
                return None;
            }
        }
        Some(())
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
