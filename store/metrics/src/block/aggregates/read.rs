//! Reading the aggregates of a block. Opening reads the footer; pieces are read, checked and decoded when a query needs them.

use super::values::decode;
use super::{MAGIC, VERSION};
use crate::MetricsError;
use crate::block::directory::PieceList;
use crate::block::read::{read_frame, read_piece};
use crate::block::{Cursor, damaged};
use crate::body::unzigzag;
use std::sync::Arc;
use trefoil_model::{Aggregate, Millis, Resolution, TenantId};
use trefoil_store_blocks::{BlockFile, BlockId};

/// The open aggregates of a block. Shared by all queries that see it.
pub(crate) struct AggregatesReader {
    id: BlockId,
    start: Millis,
    file: BlockFile,
    tenants: Vec<TenantEntry>,
}

struct TenantEntry {
    tenant: TenantId,
    series: u32,
    /// Where the pieces of each resolution are, ascending.
    resolutions: Vec<(u64, Pieces)>,
}

/// Where the pieces of one resolution are.
#[derive(Default)]
struct Pieces {
    shapes: PieceList,
    data: PieceList,
}

impl AggregatesReader {
    /// Opens the aggregates of block `id`, whose window starts at `start`.
    pub(crate) fn open(id: BlockId, file: BlockFile, start: Millis) -> Result<Self, MetricsError> {
        let (_, content) = read_frame(id, &file, MAGIC, VERSION..=VERSION)?;
        let tenants = read_footer(&content).ok_or_else(|| damaged(id, "footer"))?;
        Ok(Self {
            id,
            start,
            file,
            tenants,
        })
    }

    /// A tenant's aggregates at a resolution, if there are any; `series`: how many series the data has of the tenant.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`] when the data has another number of series.
    pub(crate) fn tenant(
        self: &Arc<Self>,
        tenant: TenantId,
        series: u32,
        resolution: Resolution,
    ) -> Result<Option<TenantAggregates>, MetricsError> {
        let at = self.tenants.binary_search_by_key(&tenant, |e| e.tenant);
        let Ok(index) = at else {
            return Ok(None);
        };
        let entry = &self.tenants[index];
        let wanted = resolution.millis() as u64;
        let at = entry.resolutions.binary_search_by_key(&wanted, |e| e.0);
        let Ok(at) = at else {
            return Ok(None);
        };
        if entry.series != series {
            return Err(damaged(self.id, "aggregates"));
        }
        Ok(Some(TenantAggregates {
            reader: Arc::clone(self),
            index: (index, at),
            resolution,
            shapes: Vec::new(),
            shape_bytes: 0,
        }))
    }
}

fn read_footer(content: &[u8]) -> Option<Vec<TenantEntry>> {
    let mut cursor = Cursor::new(content);
    let mut tenants = Vec::new();
    for _ in 0..cursor.count()? {
        let tenant = TenantId(cursor.small()?);
        let series = cursor.small()?;
        let mut resolutions = Vec::new();
        for _ in 0..cursor.count()? {
            let millis = cursor.varint()?;
            let pieces = Pieces {
                shapes: PieceList::read(&mut cursor)?,
                data: PieceList::read(&mut cursor)?,
            };
            (pieces.data.total == series).then_some(())?;
            resolutions.push((millis, pieces));
        }
        resolutions.is_sorted_by(|a, b| a.0 < b.0).then_some(())?;
        tenants.push(TenantEntry {
            tenant,
            series,
            resolutions,
        });
    }
    let sorted = tenants.is_sorted_by(|a: &TenantEntry, b| a.tenant < b.tenant);
    (sorted && cursor.is_at_end()).then_some(tenants)
}

/// Shapes of a piece, decoded.
type Shapes = Vec<Box<[Bucket]>>;

/// A bucket without values. Small, because a query over a long time keeps those of many blocks.
#[derive(Clone, Copy)]
struct Bucket {
    /// Lengths from the start of the window to its end.
    place: u32,
    /// Samples, and in the lowest bit whether a stale marker stands behind them.
    samples: u32,
    /// Milliseconds from the left end to the first sample.
    first: u32,
    /// Milliseconds from there to the last sample.
    last: u32,
}

/// One query's access to a tenant's aggregates at one resolution.
#[derive(Clone)]
pub(crate) struct TenantAggregates {
    reader: Arc<AggregatesReader>,
    /// Of the tenant, and of the resolution.
    index: (usize, usize),
    resolution: Resolution,
    shapes: Vec<(usize, Arc<Shapes>)>,
    /// Memory of those.
    shape_bytes: usize,
}

impl TenantAggregates {
    /// Whose aggregates they are.
    pub(crate) fn block(&self) -> BlockId {
        self.reader.id
    }

    fn damaged(&self) -> MetricsError {
        damaged(self.reader.id, "aggregates")
    }

    /// The aggregates of the given series (ascending): `each` gets the number and the buckets in order of time; none when only
    /// the series' samples know.
    pub(crate) fn read(
        &mut self,
        series: impl Iterator<Item = u32>,
        mut each: impl FnMut(u32, &[Aggregate]),
    ) -> Result<(), MetricsError> {
        let reader = Arc::clone(&self.reader);
        let list = &reader.tenants[self.index.0].resolutions[self.index.1]
            .1
            .data;
        let mut wanted = series.peekable();
        let mut rows = Vec::new();
        while let Some(&first) = wanted.peek() {
            let (piece, _) = list.find(first).ok_or_else(|| self.damaged())?;
            let content = read_piece(reader.id, &reader.file, list.pointers[piece], "aggregates")?;
            let mut data =
                DataPiece::open(&content, list.things(piece)).ok_or_else(|| self.damaged())?;
            for number in list.first[piece]..list.first[piece] + list.things(piece) {
                let (shape, values) = data.next().ok_or_else(|| self.damaged())?;
                if wanted.next_if_eq(&number).is_none() {
                    continue;
                }
                rows.clear();
                if !values.is_empty() {
                    let (shapes, index) = self.shapes(shape)?;
                    let buckets = shapes[index].iter();
                    rows.extend(buckets.map(|bucket| bucket.row(reader.start, self.resolution)));
                    decode(values, &mut rows).ok_or_else(|| self.damaged())?;
                }
                each(number, &rows);
                if wanted.peek().is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The decoded piece with a shape, and the shape's place in it.
    fn shapes(&mut self, shape: u32) -> Result<(Arc<Shapes>, usize), MetricsError> {
        let reader = Arc::clone(&self.reader);
        let list = &reader.tenants[self.index.0].resolutions[self.index.1]
            .1
            .shapes;
        let (piece, index) = list.find(shape).ok_or_else(|| self.damaged())?;
        let index = index as usize;
        if let Some((_, shapes)) = self.shapes.iter().find(|(known, _)| *known == piece) {
            return Ok((Arc::clone(shapes), index));
        }
        let content = read_piece(reader.id, &reader.file, list.pointers[piece], "aggregates")?;
        let shapes = read_shapes(&content, reader.start, self.resolution)
            .filter(|shapes| shapes.len() == list.things(piece) as usize)
            .ok_or_else(|| self.damaged())?;
        let shapes = Arc::new(shapes);
        let bytes = shapes.iter();
        let bytes = bytes.map(|buckets| size_of_val(buckets) + size_of_val(&**buckets));
        self.shape_bytes += bytes.sum::<usize>();
        self.shapes.push((piece, Arc::clone(&shapes)));
        Ok((shapes, index))
    }

    /// Memory of the shapes that it keeps for the next series, in bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.shape_bytes
    }

    /// Forgets them.
    pub(crate) fn forget(&mut self) {
        self.shapes = Vec::new();
        self.shape_bytes = 0;
    }
}

impl Bucket {
    fn row(&self, start: Millis, resolution: Resolution) -> Aggregate {
        let length = resolution.millis();
        let end = start + i64::from(self.place) * length;
        let count = u64::from(self.samples >> 1);
        let first_time = match count {
            0 => end,
            _ => end - length + i64::from(self.first),
        };
        Aggregate {
            end,
            count,
            first_time,
            last_time: first_time + i64::from(self.last),
            first: 0.0,
            last: 0.0,
            min: 0.0,
            max: 0.0,
            sum: 0.0,
            dropped: 0.0,
            ends_stale: self.samples & 1 == 1,
        }
    }
}

fn read_shapes(content: &[u8], start: Millis, resolution: Resolution) -> Option<Shapes> {
    let mut cursor = Cursor::new(content);
    let mut shapes = Vec::new();
    for _ in 0..cursor.count()? {
        let buckets = cursor.count()?;
        let mut rows: Vec<Bucket> = Vec::with_capacity(buckets);
        for _ in 0..buckets {
            rows.push(read_bucket(&mut cursor, start, rows.last(), resolution)?);
        }
        shapes.push(rows.into_boxed_slice());
    }
    cursor.is_at_end().then_some(shapes)
}

fn read_bucket(
    cursor: &mut Cursor<'_>,
    start: Millis,
    before: Option<&Bucket>,
    resolution: Resolution,
) -> Option<Bucket> {
    let length = resolution.millis();
    let behind = cursor.small()?;
    // Buckets ascend; queries walk along them.
    (before.is_none() || behind > 0).then_some(())?;
    let place = before
        .map_or(0, |bucket| bucket.place)
        .checked_add(behind)?;
    start.checked_add(i64::from(place).checked_mul(length)?)?;
    let samples = cursor.small()?;
    let first = match samples >> 1 {
        0 => 0,
        _ => cursor.small()?,
    };
    let last = match samples >> 1 {
        0 | 1 => 0,
        _ => cursor.small()?,
    };
    let inside = samples >> 1 == 0 || first > 0 && i64::from(first) + i64::from(last) <= length;
    inside.then_some(Bucket {
        place,
        samples,
        first,
        last,
    })
}

/// A cursor over the series of a data piece.
struct DataPiece<'a> {
    headers: Cursor<'a>,
    values: &'a [u8],
    shape: u32,
}

impl<'a> DataPiece<'a> {
    fn open(content: &'a [u8], series: u32) -> Option<Self> {
        let mut cursor = Cursor::new(content);
        (cursor.varint()? == u64::from(series)).then_some(())?;
        let headers = cursor.at;
        for _ in 0..u64::from(series) * 2 {
            cursor.varint()?;
        }
        Some(Self {
            headers: Cursor {
                bytes: &content[..cursor.at],
                at: headers,
            },
            values: &content[cursor.at..],
            shape: 0,
        })
    }

    /// The shape and the values of the next series.
    fn next(&mut self) -> Option<(u32, &'a [u8])> {
        let step = unzigzag(self.headers.varint()?);
        self.shape = u32::try_from(i64::from(self.shape).checked_add(step)?).ok()?;
        let length = self.headers.small()? as usize;
        let (values, rest) = self.values.split_at_checked(length)?;
        self.values = rest;
        Some((self.shape, values))
    }
}
