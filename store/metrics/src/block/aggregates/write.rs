//! Writing the aggregates of a block, beside its data and in the same order. Memory holds an open piece of each kind and
//! resolution, and a hash per shape.

use super::values::encode;
use super::{MAGIC, VERSION};
use crate::MetricsError;
use crate::block::directory::PieceList;
use crate::block::write::PieceWriter;
use crate::body::zigzag;
use crate::columns::SampleSlice;
use crate::value::ValueEncoder;
use hashbrown::HashTable;
use trefoil_model::{Aggregate, Millis, Resolution, TenantId, aggregate, write_varint};
use trefoil_store_blocks::{BlockFileEntry, BlockFileWriter};
use xxhash_rust::xxh3::xxh3_128;

/// Uncompressed bytes after which a piece is closed.
const PIECE_BYTES: usize = 64 << 10;

/// Series after which a data piece is closed.
const PIECE_SERIES: u32 = 1_024;

/// Writes one file. A writer that is dropped before [`AggregatesWriter::finish`] leaves a file without trailer.
pub(crate) struct AggregatesWriter {
    pieces: PieceWriter,
    start: Millis,
    encoder: ValueEncoder,
    tenant: Option<TenantWriter>,
    tenants: u64,
    footer: Vec<u8>,
    rows: Vec<Aggregate>,
}

impl AggregatesWriter {
    /// Begins the file for a block whose window starts at `start`.
    pub(crate) fn new(
        file: BlockFileWriter,
        start: Millis,
        level: i32,
    ) -> Result<Self, MetricsError> {
        Ok(Self {
            pieces: PieceWriter::begin(file, MAGIC, VERSION, level)?,
            start,
            encoder: ValueEncoder::default(),
            tenant: None,
            tenants: 0,
            footer: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Bytes of the pieces that are written.
    pub(crate) fn position(&self) -> u64 {
        self.pieces.position()
    }

    /// Ends the tenant before and begins another one; tenants ascend.
    pub(crate) fn begin_tenant(&mut self, tenant: TenantId) -> Result<(), MetricsError> {
        self.end_tenant()?;
        self.tenant = Some(TenantWriter {
            tenant,
            series: 0,
            buckets: Resolution::ALL.map(Buckets::new),
        });
        self.tenants += 1;
        Ok(())
    }

    /// Adds the next series of the present tenant, in the order of the block's data.
    pub(crate) fn add_series(&mut self, samples: SampleSlice<'_>) -> Result<(), MetricsError> {
        let samples = samples.cut(0, samples.timestamps.len());
        let tenant = self.tenant.as_mut().expect("begin_tenant comes first");
        tenant.series += 1;
        for buckets in &mut tenant.buckets {
            self.rows.clear();
            if samples.is_plain() {
                let times = samples.timestamps.iter().copied();
                let pairs = times.zip(samples.values.iter().copied());
                aggregate(pairs, buckets.resolution, &mut self.rows);
            }
            buckets.add(self.start, &self.rows, &mut self.encoder, &mut self.pieces)?;
        }
        Ok(())
    }

    fn end_tenant(&mut self) -> Result<(), MetricsError> {
        let Some(tenant) = self.tenant.take() else {
            return Ok(());
        };
        write_varint(&mut self.footer, u64::from(tenant.tenant.0));
        write_varint(&mut self.footer, u64::from(tenant.series));
        write_varint(&mut self.footer, tenant.buckets.len() as u64);
        for buckets in tenant.buckets {
            buckets.finish(&mut self.pieces, &mut self.footer)?;
        }
        Ok(())
    }

    /// Writes footer and trailer and makes the file durable (not its name).
    pub(crate) fn finish(mut self) -> Result<BlockFileEntry, MetricsError> {
        self.end_tenant()?;
        let mut footer = Vec::with_capacity(self.footer.len() + 10);
        write_varint(&mut footer, self.tenants);
        footer.append(&mut self.footer);
        self.pieces.finish(&footer)
    }
}

struct TenantWriter {
    tenant: TenantId,
    series: u32,
    buckets: [Buckets; Resolution::ALL.len()],
}

/// The aggregates of one tenant at one resolution.
struct Buckets {
    resolution: Resolution,
    shapes: PieceList,
    data: PieceList,
    /// Hash and number of every shape.
    known: HashTable<(u128, u32)>,
    shape_total: u32,
    shape_piece: Vec<u8>,
    shapes_in_piece: u32,
    header: Vec<u8>,
    values: Vec<u8>,
    series_in_piece: u32,
    /// Shape of the previous series in the piece.
    shape: u32,
    scratch: Vec<u8>,
}

impl Buckets {
    fn new(resolution: Resolution) -> Self {
        Self {
            resolution,
            shapes: PieceList::default(),
            data: PieceList::default(),
            known: HashTable::new(),
            shape_total: 0,
            shape_piece: Vec::new(),
            shapes_in_piece: 0,
            header: Vec::new(),
            values: Vec::new(),
            series_in_piece: 0,
            shape: 0,
            scratch: Vec::new(),
        }
    }

    /// Adds a series; without rows, one of which only the samples know.
    fn add(
        &mut self,
        start: Millis,
        rows: &[Aggregate],
        encoder: &mut ValueEncoder,
        pieces: &mut PieceWriter,
    ) -> Result<(), MetricsError> {
        let before = self.values.len();
        let mut shape = self.shape;
        if !rows.is_empty() {
            shape = self.shape_of(start, rows);
            encode(rows, encoder, &mut self.values);
        }
        let step = i64::from(shape) - i64::from(self.shape);
        write_varint(&mut self.header, zigzag(step));
        write_varint(&mut self.header, (self.values.len() - before) as u64);
        self.shape = shape;
        self.series_in_piece += 1;
        if self.values.len() >= PIECE_BYTES || self.series_in_piece == PIECE_SERIES {
            self.close_data(pieces)?;
        }
        if self.shape_piece.len() >= PIECE_BYTES {
            self.close_shapes(pieces)?;
        }
        Ok(())
    }

    /// The number of the shape that these buckets have.
    fn shape_of(&mut self, start: Millis, rows: &[Aggregate]) -> u32 {
        self.scratch.clear();
        let length = self.resolution.millis();
        let mut before = start;
        write_varint(&mut self.scratch, rows.len() as u64);
        for row in rows {
            let behind = (row.end - before) / length;
            write_varint(&mut self.scratch, behind as u64);
            let samples = row.count << 1 | u64::from(row.ends_stale);
            write_varint(&mut self.scratch, samples);
            if row.count > 0 {
                let first = row.first_time - (row.end - length);
                write_varint(&mut self.scratch, first as u64);
            }
            if row.count > 1 {
                let last = row.last_time - row.first_time;
                write_varint(&mut self.scratch, last as u64);
            }
            before = row.end;
        }
        let hash = xxh3_128(&self.scratch);
        let same = |(known, _): &(u128, u32)| *known == hash;
        if let Some(&(_, number)) = self.known.find(hash as u64, same) {
            return number;
        }
        let number = self.shape_total;
        self.known
            .insert_unique(hash as u64, (hash, number), |(known, _)| *known as u64);
        self.shape_total += 1;
        self.shapes_in_piece += 1;
        self.shape_piece.append(&mut self.scratch);
        number
    }

    fn close_data(&mut self, pieces: &mut PieceWriter) -> Result<(), MetricsError> {
        if self.series_in_piece == 0 {
            return Ok(());
        }
        self.scratch.clear();
        write_varint(&mut self.scratch, u64::from(self.series_in_piece));
        self.scratch.append(&mut self.header);
        self.scratch.append(&mut self.values);
        let pointer = pieces.write(&self.scratch)?;
        self.data.push(self.series_in_piece, pointer);
        self.series_in_piece = 0;
        self.shape = 0;
        Ok(())
    }

    fn close_shapes(&mut self, pieces: &mut PieceWriter) -> Result<(), MetricsError> {
        if self.shapes_in_piece == 0 {
            return Ok(());
        }
        self.scratch.clear();
        write_varint(&mut self.scratch, u64::from(self.shapes_in_piece));
        self.scratch.append(&mut self.shape_piece);
        let pointer = pieces.write(&self.scratch)?;
        self.shapes.push(self.shapes_in_piece, pointer);
        self.shapes_in_piece = 0;
        Ok(())
    }

    fn finish(
        mut self,
        pieces: &mut PieceWriter,
        footer: &mut Vec<u8>,
    ) -> Result<(), MetricsError> {
        self.close_data(pieces)?;
        self.close_shapes(pieces)?;
        write_varint(footer, self.resolution.millis() as u64);
        self.shapes.write(footer);
        self.data.write(footer);
        Ok(())
    }
}
