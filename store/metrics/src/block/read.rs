//! Reading blocks. Opening reads the trailer and the footer; directories are read at a tenant's first
//! use and kept; every other piece is read, checked and decoded when a query needs it, and stays for a while (`kept`).

mod remembered;
mod search;

use super::columns::Columns;
use super::data::{DataPiece, DataSeries};
use super::directory::{Directory, Footer, NameEntry, PageEntry, TenantEntry};
use super::kept::{Pieces, Spot};
use super::label_index::read_page;
use super::{
    BlockVersion, Cursor, HEADER_BYTES, MAGIC, PIECE_CONTENT_BYTES_MAX, Pointer, SHARDS_PER_PIECE,
    TRAILER_BYTES, damaged,
};
use crate::MetricsError;
use crate::body::{MetricMetadata, read_metadata};
use crate::columns::{Column, SampleSlice};
use crate::packed::BITS_PADDING;
use crate::rows::{RowReader, RowSections};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use std::any::Any;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use trefoil_model::{Millis, ShardId, ShardSet, TenantId, TimeRange};
use trefoil_store_blocks::{BlockFile, BlockId};
use zstd::bulk::Decompressor;

/// Decoded timestamp columns that one reader of a tenant keeps, in bytes. When they are more all are
/// dropped; a query that goes through series in block order seldom comes back to them.
const COLUMN_CACHE_BYTES_MAX: usize = 8 << 20;

/// Decompressors that wait for the next piece, about 100 KiB each: as many as threads usually read blocks at once. Making one
/// for every piece took a fifth of the time of small answers. Beyond the bound they are dropped after use.
const DECOMPRESSORS_KEPT_MAX: usize = 8;

/// They know nothing of what they read, so all engines of the process share them.
static DECOMPRESSORS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

/// An open block. Shared by all queries that see it.
pub(crate) struct BlockReader {
    pub(super) id: BlockId,
    version: BlockVersion,
    file: BlockFile,
    pub(super) footer: Footer,
    directories: Vec<OnceLock<Arc<Directory>>>,
    /// Guards the first reading of a directory, so that many queries do not do it at once.
    opening: Mutex<()>,
}

impl BlockReader {
    /// Opens block `id`, whose only file is `file`.
    pub(crate) fn open(id: BlockId, file: BlockFile) -> Result<Self, MetricsError> {
        let (version, footer) = read_footer(id, &file)?;
        let directories = footer.tenants.iter().map(|_| OnceLock::new()).collect();
        Ok(Self {
            id,
            version,
            file,
            footer,
            directories,
            opening: Mutex::new(()),
        })
    }

    /// The version of its format.
    pub(crate) fn version(&self) -> BlockVersion {
        self.version
    }

    /// What the block holds of a tenant, if it holds any.
    pub(crate) fn tenant(
        self: &Arc<Self>,
        tenant: TenantId,
        pieces: Pieces,
    ) -> Result<Option<TenantReader>, MetricsError> {
        let Ok(index) = self
            .footer
            .tenants
            .binary_search_by_key(&tenant, |entry| entry.tenant)
        else {
            return Ok(None);
        };
        let directory = match (&pieces, self.directories[index].get()) {
            (Pieces::OnlyKept(_), None) => return Err(MetricsError::NotKept),
            (_, Some(directory)) => Arc::clone(directory),
            (_, None) => self.directory(index)?,
        };
        Ok(Some(TenantReader {
            block: Arc::clone(self),
            index,
            directory,
            pieces,
            columns: Vec::new(),
            column_bytes: 0,
        }))
    }

    pub(super) fn directory(&self, index: usize) -> Result<Arc<Directory>, MetricsError> {
        let slot = &self.directories[index];
        if let Some(directory) = slot.get() {
            return Ok(Arc::clone(directory));
        }
        let _opening = self.opening.lock();
        if let Some(directory) = slot.get() {
            return Ok(Arc::clone(directory));
        }
        let entry = &self.footer.tenants[index];
        let content = self.piece(entry.directory, "directory")?;
        let directory = Directory::read(&content)
            .filter(|directory| {
                let series = entry.series;
                let pieces = (series as usize).div_ceil(SHARDS_PER_PIECE);
                directory.data.total == series
                    && directory.rows.total == series
                    && directory.shards.len() == pieces
            })
            .ok_or_else(|| damaged(self.id, "directory"))?;
        Ok(Arc::clone(slot.get_or_init(|| Arc::new(directory))))
    }

    pub(super) fn piece(
        &self,
        pointer: Pointer,
        piece: &'static str,
    ) -> Result<Vec<u8>, MetricsError> {
        read_piece(self.id, &self.file, pointer, piece)
    }

    /// The content of a data piece, and the bits of a packed one.
    pub(super) fn data(
        &self,
        pointer: Pointer,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), MetricsError> {
        if !self.version.is_packed() {
            return Ok((self.piece(pointer, "data")?, None));
        }
        let bytes = read_bytes(self.id, &self.file, pointer, "data")?;
        let (frame, length, bits) = split_data(&bytes).ok_or_else(|| damaged(self.id, "data"))?;
        let content = read_content(self.id, frame, pointer.content as usize, "data")?;
        let bits = match bits.len() == length {
            true => with_padding(bits),
            false => read_content(self.id, bits, length, "data")?,
        };
        Ok((content, Some(bits)))
    }
}

/// The frame of a piece of packed data, how many bytes its bits have, and those bytes, compressed if they are fewer.
fn split_data(bytes: &[u8]) -> Option<(&[u8], usize, &[u8])> {
    let mut cursor = Cursor::new(bytes);
    let length = usize::try_from(cursor.varint()?).ok()?;
    let frame = cursor.take(length)?;
    let bits = usize::try_from(cursor.varint()?).ok()?;
    (bits <= PIECE_CONTENT_BYTES_MAX).then(|| (frame, bits, cursor.rest()))
}

/// A copy with room for what [`DataPiece`] puts behind it.
fn with_padding(bits: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(bits.len() + BITS_PADDING);
    copy.extend_from_slice(bits);
    copy
}

/// The version of the format, and the footer.
fn read_footer(id: BlockId, file: &BlockFile) -> Result<(BlockVersion, Footer), MetricsError> {
    let versions = 1..=BlockVersion::MAX.0;
    let (version, content) = read_frame(id, file, MAGIC, versions)?;
    let footer = Footer::read(&content).ok_or_else(|| damaged(id, "footer"))?;
    Ok((BlockVersion(version), footer))
}

/// Reads header and trailer of a file of pieces: the version of the format, and the footer's content.
pub(super) fn read_frame(
    id: BlockId,
    file: &BlockFile,
    magic: [u8; 8],
    versions: RangeInclusive<u8>,
) -> Result<(u8, Vec<u8>), MetricsError> {
    let bad = || damaged(id, "trailer");
    let length = file.length();
    if length < (HEADER_BYTES + TRAILER_BYTES) as u64 {
        return Err(bad());
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)
        .map_err(|_| damaged(id, "header"))?;
    if header[..8] != magic || header[9..] != [0; 7] {
        return Err(damaged(id, "header"));
    }
    let version = header[8];
    if !versions.contains(&version) {
        // Only a file that is as it was written tells which program wrote it.
        file.verify().map_err(|_| damaged(id, "header"))?;
        return Err(MetricsError::UnknownBlockVersion {
            block: id,
            found: version,
            supported: *versions.end(),
        });
    }
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, length - TRAILER_BYTES as u64)
        .map_err(|_| bad())?;
    let mut cursor = Cursor::new(&trailer);
    let mut read = || {
        let pointer = Pointer {
            offset: u64::from_le_bytes(cursor.array()?),
            length: u32::from_le_bytes(cursor.array()?),
            content: u32::from_le_bytes(cursor.array()?),
            crc: u32::from_le_bytes(cursor.array()?),
        };
        let crc = u32::from_le_bytes(cursor.array()?);
        (crc == crc32c::crc32c(&trailer[..20]) && trailer[24..] == magic).then_some(pointer)
    };
    let pointer = read().ok_or_else(bad)?;
    Ok((version, read_piece(id, file, pointer, "footer")?))
}

pub(super) fn read_piece(
    id: BlockId,
    file: &BlockFile,
    pointer: Pointer,
    piece: &'static str,
) -> Result<Vec<u8>, MetricsError> {
    let frame = read_bytes(id, file, pointer, piece)?;
    read_content(id, &frame, pointer.content as usize, piece)
}

/// The bytes of a piece as they stand in the file.
fn read_bytes(
    id: BlockId,
    file: &BlockFile,
    pointer: Pointer,
    piece: &'static str,
) -> Result<Vec<u8>, MetricsError> {
    let content = pointer.content as usize;
    let end = pointer.offset.checked_add(u64::from(pointer.length));
    if content > PIECE_CONTENT_BYTES_MAX || end.is_none_or(|end| end > file.length()) {
        return Err(damaged(id, piece));
    }
    let mut bytes = vec![0; pointer.length as usize];
    let read = file.read_exact_at(&mut bytes, pointer.offset);
    if read.is_err() || crc32c::crc32c(&bytes) != pointer.crc {
        return Err(damaged(id, piece));
    }
    Ok(bytes)
}

/// What a frame has, which is `content` bytes.
fn read_content(
    id: BlockId,
    frame: &[u8],
    content: usize,
    piece: &'static str,
) -> Result<Vec<u8>, MetricsError> {
    let bytes = decompress(frame, content).map_err(MetricsError::Compression)?;
    bytes
        .filter(|bytes| bytes.len() == content)
        .ok_or_else(|| damaged(id, piece))
}

/// The content of a frame, at most `content_max` bytes; `None` when it is malformed.
///
/// # Errors
/// When memory is short.
fn decompress(frame: &[u8], content_max: usize) -> std::io::Result<Option<Vec<u8>>> {
    let waiting = DECOMPRESSORS.lock().pop();
    let mut decompressor = match waiting {
        Some(decompressor) => decompressor,
        None => Decompressor::new()?,
    };
    let content = decompressor.decompress(frame, content_max).ok();
    let mut waiting = DECOMPRESSORS.lock();
    if waiting.len() < DECOMPRESSORS_KEPT_MAX {
        waiting.push(decompressor);
    }
    Ok(content)
}

/// One query's access to a tenant in a block.
#[derive(Clone)]
pub(crate) struct TenantReader {
    block: Arc<BlockReader>,
    index: usize,
    directory: Arc<Directory>,
    pieces: Pieces,
    columns: Vec<(usize, Arc<Columns>)>,
    column_bytes: usize,
}

impl TenantReader {
    /// What the footer says of the tenant.
    pub(crate) fn entry(&self) -> &TenantEntry {
        &self.block.footer.tenants[self.index]
    }

    /// Whether the block's format has only numbers without start timestamps.
    pub(crate) fn is_plain(&self) -> bool {
        self.block.version.is_plain()
    }

    fn damaged(&self, piece: &'static str) -> MetricsError {
        damaged(self.block.id, piece)
    }

    /// A piece as `decode` makes it of its content; `None` means that it is damaged. `bytes` is the memory that it takes.
    fn piece<T: Any + Send + Sync>(
        &self,
        (pointer, name): (Pointer, &'static str),
        bytes: impl FnOnce(&T) -> usize,
        decode: impl FnOnce(Vec<u8>) -> Option<T>,
    ) -> Result<Arc<T>, MetricsError> {
        self.kept_or_read(pointer, bytes, || {
            let content = self.block.piece(pointer, name)?;
            decode(content).ok_or_else(|| self.damaged(name))
        })
    }

    fn kept_or_read<T: Any + Send + Sync>(
        &self,
        pointer: Pointer,
        bytes: impl FnOnce(&T) -> usize,
        read: impl FnOnce() -> Result<T, MetricsError>,
    ) -> Result<Arc<T>, MetricsError> {
        let place = (self.block.id, Spot::Piece(pointer.offset));
        match &self.pieces {
            Pieces::Read => read().map(Arc::new),
            Pieces::Keep(kept) => kept.get_or_read(place, bytes, read),
            Pieces::OnlyKept(kept) => kept.get_or_read(place, bytes, || Err(MetricsError::NotKept)),
        }
    }

    fn content(&self, pointer: Pointer, name: &'static str) -> Result<Arc<Vec<u8>>, MetricsError> {
        self.piece((pointer, name), Vec::len, Some)
    }

    fn name(&self, name: &[u8]) -> Option<&NameEntry> {
        let names = &self.directory.names;
        let at = names
            .binary_search_by(|entry| (*entry.name).cmp(name))
            .ok()?;
        Some(&names[at])
    }

    fn page(
        &self,
        page: &PageEntry,
        each: impl FnMut(&[u8], &[u8]) -> Option<bool>,
    ) -> Result<(), MetricsError> {
        let content = self.content(page.pointer, "label page")?;
        read_page(&content, page.values, each).ok_or_else(|| self.damaged("label page"))
    }

    fn retain_shards(
        &self,
        found: &mut RoaringBitmap,
        shards: &ShardSet,
    ) -> Result<(), MetricsError> {
        if self.entry().shards.is_subset(shards) || found.is_empty() {
            return Ok(());
        }
        // They are those of all series, and not kept.
        if matches!(self.pieces, Pieces::OnlyKept(_)) {
            return Err(MetricsError::NotKept);
        }
        let all = self.shards()?;
        let mut kept = RoaringBitmap::new();
        for series in found.iter() {
            if shards.contains(all[series as usize]) {
                kept.insert(series);
            }
        }
        *found = kept;
        Ok(())
    }

    /// The shard of every series.
    pub(crate) fn shards(&self) -> Result<Vec<ShardId>, MetricsError> {
        let series = self.entry().series as usize;
        let mut shards = Vec::with_capacity(series);
        for pointer in &self.directory.shards {
            let content = self.block.piece(*pointer, "shards")?;
            let (numbers, rest) = content.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(self.damaged("shards"));
            }
            shards.extend(numbers.iter().map(|n| ShardId(u16::from_le_bytes(*n))));
        }
        if shards.len() != series {
            return Err(self.damaged("shards"));
        }
        Ok(shards)
    }

    /// The canonical labels of the given series, in ascending order of number.
    pub(crate) fn labels(
        &self,
        series: impl Iterator<Item = u32>,
        mut each: impl FnMut(u32, &[u8]),
    ) -> Result<(), MetricsError> {
        let bad = || self.damaged("label rows");
        let mut reader = RowReader::default();
        let mut wanted = series.peekable();
        while let Some(&first) = wanted.peek() {
            let rows = &self.directory.rows;
            let (piece, _) = rows.find(first).ok_or_else(bad)?;
            let content = self.content(rows.pointers[piece], "label rows")?;
            let sections = row_sections(&content).ok_or_else(bad)?;
            reader.open(sections).map_err(|_| bad())?;
            if reader.left() != rows.things(piece) as usize {
                return Err(bad());
            }
            let mut number = rows.first[piece];
            while reader.advance(sections).map_err(|_| bad())? {
                if wanted.next_if_eq(&number).is_some() {
                    each(number, reader.canonical());
                }
                number += 1;
                if wanted.peek().is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The samples of the given series (ascending) inside `range`: `each` gets the number and the samples in ascending
    /// order of time. Series without a sample in the range are left out.
    pub(crate) fn samples(
        &mut self,
        series: impl Iterator<Item = u32>,
        range: TimeRange,
        mut each: impl FnMut(u32, SampleSlice<'_>),
    ) -> Result<(), MetricsError> {
        let mut decoded = Column::default();
        let version = self.block.version;
        self.each_cut(series, range, |number, series, timestamps, cut| {
            let samples = series.decode(timestamps, cut, version, &mut decoded)?;
            each(number, samples);
            Some(())
        })
    }

    /// As [`TenantReader::samples`] for a block that [is plain](TenantReader::is_plain): `each` gets the number and what appends
    /// the samples to a column.
    pub(crate) fn append_plain(
        &mut self,
        series: impl Iterator<Item = u32>,
        range: TimeRange,
        mut each: impl FnMut(u32, &dyn Fn(&mut Column) -> Option<()>) -> Option<()>,
    ) -> Result<(), MetricsError> {
        self.each_cut(series, range, |number, series, timestamps, cut| {
            each(number, &|column| series.append(timestamps, cut, column))
        })
    }

    /// Calls `each` for the given series (ascending) that have samples inside `range`, with all their timestamps and the places of
    /// those inside. `None` from it means that the values are malformed.
    fn each_cut(
        &mut self,
        series: impl Iterator<Item = u32>,
        range: TimeRange,
        mut each: impl FnMut(u32, DataSeries<'_>, &[Millis], (usize, usize)) -> Option<()>,
    ) -> Result<(), MetricsError> {
        let mut wanted = series.peekable();
        let directory = Arc::clone(&self.directory);
        while let Some(&first) = wanted.peek() {
            let (piece, _) = directory
                .data
                .find(first)
                .ok_or_else(|| self.damaged("data"))?;
            let (first, things) = (directory.data.first[piece], directory.data.things(piece));
            let pointer = directory.data.pointers[piece];
            let read = || {
                let (content, bits) = self.block.data(pointer)?;
                DataPiece::read(content, bits, things).ok_or_else(|| self.damaged("data"))
            };
            let data = self.kept_or_read(pointer, DataPiece::bytes, read)?;
            while let Some(number) = wanted.next_if(|number| *number < first + things) {
                let series = data.series(number - first);
                let (columns, index) = self.columns(series.column)?;
                let column = columns.get(index).and_then(|c| series.cut(c));
                let timestamps = column.ok_or_else(|| self.damaged("timestamps"))?;
                let start = timestamps.partition_point(|at| *at < range.start);
                let end = timestamps.partition_point(|at| *at < range.end);
                if start < end {
                    each(number, series, timestamps, (start, end))
                        .ok_or_else(|| self.damaged("data"))?;
                }
            }
        }
        Ok(())
    }

    /// The decoded piece with a column, and the column's place in it.
    fn columns(&mut self, column: u32) -> Result<(Arc<Columns>, u32), MetricsError> {
        let list = &self.directory.columns;
        let (piece, index) = list.find(column).ok_or_else(|| self.damaged("data"))?;
        if let Some((_, columns)) = self.columns.iter().find(|(known, _)| *known == piece) {
            return Ok((Arc::clone(columns), index));
        }
        let (start, things) = (self.block.footer.range.start, list.things(piece));
        let pointer = list.pointers[piece];
        let columns = self.piece((pointer, "timestamps"), Columns::bytes, |content| {
            Columns::read(&content, start, things)
        })?;
        if self.column_bytes + columns.bytes() > COLUMN_CACHE_BYTES_MAX {
            self.columns.clear();
            self.column_bytes = 0;
        }
        self.column_bytes += columns.bytes();
        self.columns.push((piece, Arc::clone(&columns)));
        Ok((columns, index))
    }

    /// The number behind the last series of the data piece that holds `series`.
    pub(crate) fn data_piece_end(&self, series: u32) -> Result<u32, MetricsError> {
        let data = &self.directory.data;
        let (piece, _) = data.find(series).ok_or_else(|| self.damaged("data"))?;
        Ok(data.first[piece] + data.things(piece))
    }

    /// The metadata entries of metrics in `shards`, with their shards.
    pub(crate) fn metadata(
        &self,
        shards: &ShardSet,
    ) -> Result<Vec<(ShardId, MetricMetadata)>, MetricsError> {
        let Some(pointer) = self.directory.metadata else {
            return Ok(Vec::new());
        };
        let content = self.block.piece(pointer, "metadata")?;
        read_metadata(&content, shards).ok_or_else(|| self.damaged("metadata"))
    }
}

pub(super) fn row_sections(content: &[u8]) -> Option<RowSections<'_>> {
    let mut cursor = Cursor::new(content);
    let shapes = usize::try_from(cursor.varint()?).ok()?;
    let values = usize::try_from(cursor.varint()?).ok()?;
    Some(RowSections {
        shapes: cursor.take(shapes)?,
        values: cursor.take(values)?,
        rows: &content[cursor.at..],
    })
}
