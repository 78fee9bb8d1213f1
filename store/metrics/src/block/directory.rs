//! Footer and directories: what a block holds and where. Small, read once, kept by the reader.

use super::{Cursor, Pointer};
use crate::body::{unzigzag, zigzag};
use trefoil_model::{DeletionVersion, Millis, ShardSet, TenantId, TimeRange, write_varint};

/// What the footer says of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TenantEntry {
    pub(crate) tenant: TenantId,
    /// All deletions up to this version have been applied to the tenant's items.
    pub(crate) deletion_version: DeletionVersion,
    pub(crate) series: u32,
    pub(crate) samples: u64,
    pub(crate) shards: ShardSet,
    pub(super) directory: Pointer,
}

/// The footer of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) range: TimeRange,
    pub(super) tenants: Vec<TenantEntry>,
}

impl Footer {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, zigzag(self.range.start));
        write_varint(out, self.range.end.wrapping_sub(self.range.start) as u64);
        write_varint(out, self.tenants.len() as u64);
        for entry in &self.tenants {
            write_varint(out, u64::from(entry.tenant.0));
            write_varint(out, entry.deletion_version.0);
            write_varint(out, u64::from(entry.series));
            write_varint(out, entry.samples);
            write_varint(out, entry.shards.words().len() as u64);
            for word in entry.shards.words() {
                out.extend_from_slice(&word.to_le_bytes());
            }
            entry.directory.write(out);
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let start = unzigzag(cursor.varint()?);
        let end = start.wrapping_add(cursor.varint()? as Millis);
        let mut tenants = Vec::new();
        for _ in 0..cursor.count()? {
            let tenant = TenantId(cursor.small()?);
            let deletion_version = DeletionVersion(cursor.varint()?);
            let series = cursor.small()?;
            let samples = cursor.varint()?;
            let words = (0..cursor.count()?)
                .map(|_| cursor.array().map(u64::from_le_bytes))
                .collect::<Option<Vec<u64>>>()?;
            tenants.push(TenantEntry {
                tenant,
                deletion_version,
                series,
                samples,
                shards: ShardSet::from_words(words),
                directory: cursor.pointer()?,
            });
        }
        let sorted = tenants.is_sorted_by(|a, b| a.tenant < b.tenant);
        (sorted && cursor.is_at_end()).then_some(Self {
            range: TimeRange { start, end },
            tenants,
        })
    }
}

/// Pieces that hold consecutive things (series, columns): where each begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PieceList {
    /// Number of the first thing in each piece; ascending.
    pub(super) first: Vec<u32>,
    pub(super) pointers: Vec<Pointer>,
    /// How many things all pieces hold.
    pub(super) total: u32,
}

impl PieceList {
    pub(super) fn push(&mut self, things: u32, pointer: Pointer) {
        self.first.push(self.total);
        self.pointers.push(pointer);
        self.total += things;
    }

    /// The piece that holds thing `number`, and the thing's place inside.
    pub(super) fn find(&self, number: u32) -> Option<(usize, u32)> {
        if number >= self.total {
            return None;
        }
        let piece = self.first.partition_point(|first| *first <= number) - 1;
        Some((piece, number - self.first[piece]))
    }

    /// How many things a piece holds.
    pub(super) fn things(&self, piece: usize) -> u32 {
        self.first.get(piece + 1).unwrap_or(&self.total) - self.first[piece]
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, self.pointers.len() as u64);
        for (piece, pointer) in self.pointers.iter().enumerate() {
            write_varint(out, u64::from(self.things(piece)));
            pointer.write(out);
        }
    }

    pub(super) fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut list = Self::default();
        for _ in 0..cursor.count()? {
            let things = cursor.small().filter(|things| *things > 0)?;
            list.total.checked_add(things)?;
            list.push(things, cursor.pointer()?);
        }
        Some(list)
    }
}

/// A page of label values with their postings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageEntry {
    pub(super) first_value: Box<[u8]>,
    pub(super) values: u32,
    pub(super) pointer: Pointer,
}

/// A label name and its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameEntry {
    pub(super) name: Box<[u8]>,
    pub(super) pages: Vec<PageEntry>,
}

/// Where everything of one tenant is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) columns: PieceList,
    pub(super) data: PieceList,
    pub(super) rows: PieceList,
    pub(super) shards: Vec<Pointer>,
    /// Ascending by name.
    pub(super) names: Vec<NameEntry>,
    pub(super) metadata: Option<Pointer>,
}

impl Directory {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.columns.write(out);
        self.data.write(out);
        self.rows.write(out);
        write_varint(out, self.shards.len() as u64);
        for pointer in &self.shards {
            pointer.write(out);
        }
        write_varint(out, self.names.len() as u64);
        for name in &self.names {
            write_text(&name.name, out);
            write_varint(out, name.pages.len() as u64);
            for page in &name.pages {
                write_text(&page.first_value, out);
                write_varint(out, u64::from(page.values));
                page.pointer.write(out);
            }
        }
        out.push(u8::from(self.metadata.is_some()));
        if let Some(pointer) = &self.metadata {
            pointer.write(out);
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let columns = PieceList::read(&mut cursor)?;
        let data = PieceList::read(&mut cursor)?;
        let rows = PieceList::read(&mut cursor)?;
        let shards = (0..cursor.count()?)
            .map(|_| cursor.pointer())
            .collect::<Option<_>>()?;
        let names = (0..cursor.count()?)
            .map(|_| read_name(&mut cursor))
            .collect::<Option<_>>()?;
        let metadata = match cursor.array()? {
            [0] => None,
            [1] => Some(cursor.pointer()?),
            _ => return None,
        };
        cursor.is_at_end().then_some(Self {
            columns,
            data,
            rows,
            shards,
            names,
            metadata,
        })
    }
}

fn read_name(cursor: &mut Cursor<'_>) -> Option<NameEntry> {
    let name = cursor.text()?.into();
    let pages = (0..cursor.count()?).map(|_| {
        Some(PageEntry {
            first_value: cursor.text()?.into(),
            values: cursor.small()?,
            pointer: cursor.pointer()?,
        })
    });
    let pages = pages.collect::<Option<_>>()?;
    Some(NameEntry { name, pages })
}

pub(super) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    write_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}
