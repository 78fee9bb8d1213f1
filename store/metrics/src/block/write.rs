//! Writing a block: one pass over series in block order. Memory holds one open piece of each kind, the
//! label index of the present tenant and a hash per timestamp column; nothing grows with the samples.

use super::columns::ColumnWriter;
use super::directory::{Directory, Footer, TenantEntry};
use super::label_index::LabelIndexWriter;
use super::mixed::encode_mixed;
use super::{
    BlockVersion, HEADER_BYTES, MAGIC, PIECE_CONTENT_BYTES_MAX, Pointer, SHARDS_PER_PIECE,
};
use crate::MetricsError;
use crate::body::{MetricMetadata, write_metadata_entry, zigzag};
use crate::columns::{SampleRef, SampleSlice};
use crate::rows::RowWriter;
use crate::value::{Coded, ValueEncoder};
use trefoil_model::{
    DeletionVersion, Millis, ShardId, ShardSet, TenantId, TimeRange, write_varint,
};
use trefoil_store_blocks::{BlockFileEntry, BlockFileWriter};
use zstd::bulk::Compressor;

/// Uncompressed bytes of values after which a data piece is closed: what one series' query must decode.
const DATA_PIECE_BYTES: usize = 64 << 10;

/// Series after which a data piece is closed, for blocks with few samples per series.
const DATA_PIECE_SERIES: u32 = 1_024;

/// Weight (see [`weight`]) of what a data piece with histograms has when it is closed: what a merge decodes at once.
const DATA_PIECE_WEIGHT: usize = 16 << 20;

/// Greatest weight of a series' samples in a block. Far below what a piece takes, and what one query has in memory for
/// a series of a block.
const SERIES_WEIGHT_MAX: usize = 64 << 20;

/// Series per piece of label rows: what reading one series' labels must decode.
const ROWS_PER_PIECE: usize = 128;

/// At least as many bytes as a sample takes in a block and, without its layout, in memory: 28 per bucket for its count
/// and a span of its own.
fn weight(sample: &SampleRef<'_>) -> usize {
    48 + sample
        .histogram
        .map_or(0, |histogram| 3 * histogram.bytes())
}

/// How many of a series' samples a block takes: all, but for histograms far beyond what clients make; one at least.
pub(crate) fn fitting(samples: SampleSlice<'_>) -> usize {
    if samples.is_plain() {
        return samples.timestamps.len();
    }
    let mut sum = 0;
    let fits = samples.iter().take_while(|sample| {
        let is_first = sum == 0;
        sum += weight(sample);
        is_first || sum <= SERIES_WEIGHT_MAX
    });
    fits.count()
}

/// What a finished block holds.
#[derive(Clone, Debug)]
pub(crate) struct BlockSummary {
    pub(crate) file: BlockFileEntry,
    pub(crate) tenants: Vec<TenantEntry>,
    pub(crate) time_min: Millis,
    pub(crate) time_max: Millis,
}

/// Writes a file of pieces: header, pieces, trailer.
pub(super) struct PieceWriter {
    file: BlockFileWriter,
    magic: [u8; 8],
    compressor: Compressor<'static>,
    frame: Vec<u8>,
}

impl PieceWriter {
    /// Begins an empty file; pieces are compressed at zstd `level`.
    pub(super) fn begin(
        mut file: BlockFileWriter,
        magic: [u8; 8],
        version: u8,
        level: i32,
    ) -> Result<Self, MetricsError> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&magic);
        header[8] = version;
        file.write(&header)?;
        Ok(Self {
            file,
            magic,
            compressor: Compressor::new(level).map_err(MetricsError::Compression)?,
            frame: Vec::new(),
        })
    }

    /// Bytes written so far.
    pub(super) fn position(&self) -> u64 {
        self.file.position()
    }

    /// Writes a piece.
    pub(super) fn write(&mut self, content: &[u8]) -> Result<Pointer, MetricsError> {
        self.compress(content)?;
        let frame = std::mem::take(&mut self.frame);
        let pointer = self.put(&frame, content.len());
        self.frame = frame;
        pointer
    }

    /// Writes a piece with bits behind it, which are compressed only when that is worth reading them twice: most are noise.
    fn write_with_bits(&mut self, content: &[u8], bits: &[u8]) -> Result<Pointer, MetricsError> {
        self.compress(content)?;
        let mut piece = Vec::with_capacity(self.frame.len() + bits.len() + 20);
        write_varint(&mut piece, self.frame.len() as u64);
        piece.extend_from_slice(&self.frame);
        write_varint(&mut piece, bits.len() as u64);
        self.compress(bits)?;
        let is_worth_it = self.frame.len() < bits.len() - bits.len() / 8;
        piece.extend_from_slice(if is_worth_it { &self.frame } else { bits });
        self.put(&piece, content.len())
    }

    /// Fills `frame`.
    fn compress(&mut self, content: &[u8]) -> Result<(), MetricsError> {
        if content.len() > PIECE_CONTENT_BYTES_MAX {
            return Err(MetricsError::SeriesTooLarge);
        }
        self.frame.clear();
        self.frame
            .reserve(zstd::zstd_safe::compress_bound(content.len()));
        self.compressor
            .compress_to_buffer(content, &mut self.frame)
            .map_err(MetricsError::Compression)?;
        Ok(())
    }

    fn put(&mut self, piece: &[u8], content: usize) -> Result<Pointer, MetricsError> {
        let pointer = Pointer {
            offset: self.file.position(),
            length: piece.len() as u32,
            content: content as u32,
            crc: crc32c::crc32c(piece),
        };
        self.file.write(piece)?;
        Ok(pointer)
    }

    /// Writes the footer and the trailer that points to it, and makes the file durable (not its name).
    pub(super) fn finish(mut self, footer: &[u8]) -> Result<BlockFileEntry, MetricsError> {
        let pointer = self.write(footer)?;
        let mut trailer = pointer.offset.to_le_bytes().to_vec();
        trailer.extend_from_slice(&pointer.length.to_le_bytes());
        trailer.extend_from_slice(&pointer.content.to_le_bytes());
        trailer.extend_from_slice(&pointer.crc.to_le_bytes());
        let crc = crc32c::crc32c(&trailer);
        trailer.extend_from_slice(&crc.to_le_bytes());
        trailer.extend_from_slice(&self.magic);
        self.file.write(&trailer)?;
        Ok(self.file.finish()?)
    }
}

/// Writes one block. A writer that is dropped before [`BlockWriter::finish`] leaves a file without trailer.
pub(crate) struct BlockWriter {
    pieces: PieceWriter,
    version: BlockVersion,
    range: TimeRange,
    tenants: Vec<TenantEntry>,
    tenant: Option<TenantWriter>,
    encoder: ValueEncoder,
    time_min: Millis,
    time_max: Millis,
}

impl BlockWriter {
    /// Begins a block of `range` in an empty file, compressed at zstd `level`. A plain block takes no histograms and no start
    /// timestamps.
    pub(crate) fn new(
        file: BlockFileWriter,
        range: TimeRange,
        level: i32,
        version: BlockVersion,
    ) -> Result<Self, MetricsError> {
        let pieces = PieceWriter::begin(file, MAGIC, version.0, level)?;
        Ok(Self {
            pieces,
            version,
            range,
            tenants: Vec::new(),
            tenant: None,
            encoder: ValueEncoder::default(),
            time_min: Millis::MAX,
            time_max: Millis::MIN,
        })
    }

    /// Bytes of the pieces that are written.
    pub(crate) fn position(&self) -> u64 {
        self.pieces.position()
    }

    /// Ends the tenant before and begins another one; tenants ascend.
    pub(crate) fn begin_tenant(
        &mut self,
        tenant: TenantId,
        deletion_version: DeletionVersion,
    ) -> Result<(), MetricsError> {
        self.end_tenant()?;
        assert!(
            self.tenants.last().is_none_or(|last| last.tenant < tenant),
            "tenants ascend"
        );
        self.tenant = Some(TenantWriter::new(
            tenant,
            deletion_version,
            self.range.start,
            self.version,
        ));
        Ok(())
    }

    /// Adds a series of the present tenant. Series ascend in block order and are unique; timestamps
    /// ascend, are unique, lie in the block's range, and there is one at least.
    ///
    /// # Errors
    /// [`MetricsError::SeriesTooLarge`] when not all samples are [`fitting`]; the block must not be written further.
    pub(crate) fn add_series(
        &mut self,
        canonical: &[u8],
        shard: ShardId,
        samples: SampleSlice<'_>,
    ) -> Result<(), MetricsError> {
        let samples = samples.cut(0, samples.timestamps.len());
        let (timestamps, values) = (samples.timestamps, samples.values);
        assert!(timestamps.len() == values.len() && !values.is_empty());
        self.time_min = self.time_min.min(timestamps[0]);
        self.time_max = self.time_max.max(timestamps[timestamps.len() - 1]);
        if fitting(samples) < timestamps.len() {
            return Err(MetricsError::SeriesTooLarge);
        }
        let tenant = self.tenant.as_mut().expect("begin_tenant comes first");
        tenant.make_room(&mut self.pieces, samples)?;
        tenant.add_labels(&mut self.pieces, canonical, shard)?;
        let slice = tenant.columns.slice(timestamps);
        let header = &mut tenant.data_header;
        write_varint(
            header,
            zigzag(i64::from(slice.column) - i64::from(tenant.data_column)),
        );
        write_varint(header, u64::from(slice.front));
        write_varint(header, u64::from(slice.back));
        tenant.data_column = slice.column;
        let before = (tenant.data_values.len(), tenant.data_bits.len());
        let coded = &mut Coded {
            content: &mut tenant.data_values,
            bits: self.version.is_packed().then_some(&mut tenant.data_bits),
        };
        if samples.is_plain() {
            self.encoder.encode_to(values, coded);
        } else {
            assert!(!self.version.is_plain(), "a block of floats");
            encode_mixed(&mut self.encoder, samples, coded);
        }
        write_varint(header, (tenant.data_values.len() - before.0) as u64);
        if self.version.is_packed() {
            write_varint(header, (tenant.data_bits.len() - before.1) as u64);
        }
        tenant.data_series += 1;
        tenant.entry.samples += values.len() as u64;
        let bytes = tenant.data_values.len() + tenant.data_bits.len();
        if bytes >= DATA_PIECE_BYTES || tenant.data_series == DATA_PIECE_SERIES {
            tenant.close_data(&mut self.pieces)?;
        }
        tenant.close_columns(&mut self.pieces, false)
    }

    /// Adds the metadata of the present tenant; once at most.
    pub(crate) fn add_metadata(
        &mut self,
        entries: &[(ShardId, MetricMetadata)],
    ) -> Result<(), MetricsError> {
        let tenant = self.tenant.as_mut().expect("begin_tenant comes first");
        let mut content = Vec::new();
        write_varint(&mut content, entries.len() as u64);
        for (shard, entry) in entries {
            write_metadata_entry(*shard, entry, &mut content);
            tenant.entry.shards.insert(*shard);
        }
        tenant.directory.metadata = Some(self.pieces.write(&content)?);
        Ok(())
    }

    fn end_tenant(&mut self) -> Result<(), MetricsError> {
        if let Some(tenant) = self.tenant.take() {
            self.tenants.push(tenant.finish(&mut self.pieces)?);
        }
        Ok(())
    }

    /// Writes footer and trailer and makes the file durable (not its name).
    pub(crate) fn finish(mut self) -> Result<BlockSummary, MetricsError> {
        self.end_tenant()?;
        let footer = Footer {
            range: self.range,
            tenants: self.tenants,
        };
        let mut content = Vec::new();
        footer.write(&mut content);
        Ok(BlockSummary {
            file: self.pieces.finish(&content)?,
            tenants: footer.tenants,
            time_min: self.time_min,
            time_max: self.time_max,
        })
    }
}

struct TenantWriter {
    version: BlockVersion,
    entry: TenantEntry,
    directory: Directory,
    labels: LabelIndexWriter,
    columns: ColumnWriter,
    rows: RowWriter,
    shards: Vec<u8>,
    data_header: Vec<u8>,
    data_values: Vec<u8>,
    /// Of packed values, in the open data piece.
    data_bits: Vec<u8>,
    data_series: u32,
    data_column: u32,
    /// Of the samples that are not plain, in the open data piece.
    data_weight: usize,
    scratch: Vec<u8>,
}

impl TenantWriter {
    fn new(
        tenant: TenantId,
        deletion_version: DeletionVersion,
        start: Millis,
        version: BlockVersion,
    ) -> Self {
        let nowhere = Pointer {
            offset: 0,
            length: 0,
            content: 0,
            crc: 0,
        };
        Self {
            version,
            entry: TenantEntry {
                tenant,
                deletion_version,
                series: 0,
                samples: 0,
                shards: ShardSet::new(),
                directory: nowhere,
            },
            directory: Directory::default(),
            labels: LabelIndexWriter::default(),
            columns: ColumnWriter::new(start),
            rows: RowWriter::default(),
            shards: Vec::new(),
            data_header: Vec::new(),
            data_values: Vec::new(),
            data_bits: Vec::new(),
            data_series: 0,
            data_column: 0,
            data_weight: 0,
            scratch: Vec::new(),
        }
    }

    fn add_labels(
        &mut self,
        pieces: &mut PieceWriter,
        canonical: &[u8],
        shard: ShardId,
    ) -> Result<(), MetricsError> {
        self.labels.add(self.entry.series, canonical);
        self.rows.push(canonical);
        if self.rows.len() == ROWS_PER_PIECE {
            self.close_rows(pieces)?;
        }
        self.shards.extend_from_slice(&shard.0.to_le_bytes());
        self.entry.shards.insert(shard);
        if self.shards.len() == 2 * SHARDS_PER_PIECE {
            self.close_shards(pieces)?;
        }
        self.entry.series += 1;
        Ok(())
    }

    fn close_rows(&mut self, pieces: &mut PieceWriter) -> Result<(), MetricsError> {
        if self.rows.len() == 0 {
            return Ok(());
        }
        let (mut shapes, mut values) = (Vec::new(), Vec::new());
        self.rows.write_shapes(&mut shapes);
        self.rows.write_values(&mut values);
        self.scratch.clear();
        write_varint(&mut self.scratch, shapes.len() as u64);
        write_varint(&mut self.scratch, values.len() as u64);
        self.scratch.extend_from_slice(&shapes);
        self.scratch.extend_from_slice(&values);
        self.rows.write_rows(&mut self.scratch);
        let pointer = pieces.write(&self.scratch)?;
        self.directory.rows.push(self.rows.len() as u32, pointer);
        self.rows.clear();
        Ok(())
    }

    fn close_shards(&mut self, pieces: &mut PieceWriter) -> Result<(), MetricsError> {
        if !self.shards.is_empty() {
            self.directory.shards.push(pieces.write(&self.shards)?);
            self.shards.clear();
        }
        Ok(())
    }

    /// Closes the data piece when samples that are not plain would make it too heavy.
    fn make_room(
        &mut self,
        pieces: &mut PieceWriter,
        samples: SampleSlice<'_>,
    ) -> Result<(), MetricsError> {
        if samples.is_plain() {
            return Ok(());
        }
        let more: usize = samples.iter().map(|sample| weight(&sample)).sum();
        if self.data_weight + more > DATA_PIECE_WEIGHT {
            self.close_data(pieces)?;
        }
        self.data_weight += more;
        Ok(())
    }

    fn close_data(&mut self, pieces: &mut PieceWriter) -> Result<(), MetricsError> {
        if self.data_series == 0 {
            return Ok(());
        }
        self.scratch.clear();
        write_varint(&mut self.scratch, u64::from(self.data_series));
        self.scratch.append(&mut self.data_header);
        self.scratch.append(&mut self.data_values);
        let pointer = match self.version.is_packed() {
            true => pieces.write_with_bits(&self.scratch, &self.data_bits)?,
            false => pieces.write(&self.scratch)?,
        };
        self.data_bits.clear();
        self.directory.data.push(self.data_series, pointer);
        self.data_series = 0;
        self.data_column = 0;
        self.data_weight = 0;
        Ok(())
    }

    fn close_columns(&mut self, pieces: &mut PieceWriter, last: bool) -> Result<(), MetricsError> {
        if let Some(columns) = self.columns.take_piece(last, &mut self.scratch) {
            let pointer = pieces.write(&self.scratch)?;
            self.directory.columns.push(columns, pointer);
        }
        Ok(())
    }

    fn finish(mut self, pieces: &mut PieceWriter) -> Result<TenantEntry, MetricsError> {
        self.close_rows(pieces)?;
        self.close_shards(pieces)?;
        self.close_data(pieces)?;
        self.close_columns(pieces, true)?;
        let labels = std::mem::take(&mut self.labels);
        self.directory.names = labels.finish(|content| pieces.write(content))?;
        let mut content = Vec::new();
        self.directory.write(&mut content);
        self.entry.directory = pieces.write(&content)?;
        Ok(self.entry)
    }
}
