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

mod reader;
mod writer;

pub(crate) use reader::{RowReader, RowSections};
pub(crate) use writer::RowWriter;

use trefoil_model::read_varint;

/// Labels per mask: a LEB128 of 63 bits is nine bytes at most.
const LABELS_PER_MASK: usize = 63;

/// Most labels of one series. The acceptance limits of tenants are far below it.
pub const LABELS_PER_SERIES_MAX: usize = 1024;

/// Most canonical label bytes of one series. Bounds what a hostile row can make of few bytes.
pub const LABEL_BYTES_PER_SERIES_MAX: usize = 1 << 20;

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

/// Where the text that begins at `at` ends; `None` when it reaches beyond the bytes.
pub(crate) fn text_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let length = read_short(bytes, &mut at)?;
    let end = at.checked_add(usize::try_from(length).ok()?)?;
    (end <= bytes.len()).then_some(end)
}
