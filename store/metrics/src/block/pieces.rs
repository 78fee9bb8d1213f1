//! The pieces of blocks behind their checksums, one by one, for fuzzing: a checksum hides the decoder behind it.
//!
//! ```text
//! piece = kind u8 | things: what the directory says of the piece, varint
//!         | kinds 3 and 4: varint timestamps | kind 4: varint length of the content | content | kind 4: bits
//! kind  = 0 footer | 1 directory | 2 timestamps | 3 data | 4 packed data | 5 label page | 6 label rows | 7 metadata
//! ```

use super::columns::Columns;
use super::data::DataPiece;
use super::directory::{Directory, Footer};
use super::label_index::read_page;
use super::read::{BlockReader, row_sections};
use super::{BlockVersion, Cursor, Pointer, damaged};
use crate::MetricsError;
use crate::body::read_metadata;
use crate::columns::Column;
use crate::postings::read_postings;
use crate::rows::RowReader;
use roaring::RoaringBitmap;
use trefoil_model::{Millis, ShardSet, write_varint};

/// Columns of a fuzzed piece of data have at most so many timestamps, for the memory that they take.
const TIMESTAMPS_MAX: u32 = 10_000;

/// Series that a label page may speak of.
const SERIES_MAX: u32 = 1 << 16;

/// Takes a piece apart as readers do; `None` when it is malformed.
#[must_use]
pub fn read_block_piece(bytes: &[u8]) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    let [kind] = cursor.array()?;
    let things = cursor.small()?;
    match kind {
        0 => Footer::read(cursor.rest()).map(drop),
        1 => Directory::read(cursor.rest()).map(drop),
        2 => Columns::read(cursor.rest(), 0, things).map(drop),
        3 => {
            let timestamps = cursor.small()?;
            let piece = DataPiece::read(cursor.rest().to_vec(), None, things.max(1))?;
            read_data(
                &piece,
                (things, timestamps),
                BlockVersion::new(false, false),
            )
        }
        4 => {
            let timestamps = cursor.small()?;
            let content = cursor.text()?.to_vec();
            let piece = DataPiece::read(content, Some(cursor.rest().to_vec()), things.max(1))?;
            read_data(&piece, (things, timestamps), BlockVersion::new(false, true))
        }
        5 => read_page(cursor.rest(), things, |_, postings| {
            let mut series = RoaringBitmap::new();
            read_postings(postings, SERIES_MAX, &mut series)?;
            assert!(series.max().is_none_or(|last| last < SERIES_MAX));
            Some(true)
        }),
        6 => {
            let content = cursor.rest();
            let sections = row_sections(content)?;
            let mut reader = RowReader::default();
            reader.open(sections).ok()?;
            while reader.advance(sections).ok()? {}
            Some(())
        }
        7 => read_metadata(cursor.rest(), &ShardSet::all(8)).map(drop),
        _ => None,
    }
}

/// Decodes all series of a piece.
fn read_data(
    piece: &DataPiece,
    (series, timestamps): (u32, u32),
    version: BlockVersion,
) -> Option<()> {
    let column: Vec<Millis> = (0..timestamps.min(TIMESTAMPS_MAX))
        .map(Millis::from)
        .collect();
    let mut decoded = Column::default();
    for place in 0..series {
        let series = piece.series(place);
        let cut = series.cut(&column)?;
        let samples = series.decode(cut, (0, cut.len()), version, &mut decoded)?;
        assert_eq!(samples.iter().count(), cut.len());
        if samples.is_plain() {
            let (all, inside) = (samples.values.to_vec(), (cut.len() / 3, cut.len() / 2));
            let mut column = Column::default();
            series.append(cut, inside, &mut column)?;
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&column.values), bits(&all[inside.0..inside.1]));
        }
    }
    Some(())
}

/// All pieces of a block, as [`read_block_piece`] reads them.
///
/// # Errors
/// When the block is damaged.
pub(crate) fn pieces_of(block: &BlockReader) -> Result<Vec<Vec<u8>>, MetricsError> {
    let mut footer = Vec::new();
    block.footer.write(&mut footer);
    let mut pieces = vec![piece(0, 0, &footer)];
    for index in 0..block.footer.tenants.len() {
        let directory = block.directory(index)?;
        let mut content = Vec::new();
        directory.write(&mut content);
        pieces.push(piece(1, 0, &content));
        for (kind, list) in [(2, &directory.columns), (6, &directory.rows)] {
            for (at, pointer) in list.pointers.iter().enumerate() {
                let content = block.piece(*pointer, "piece")?;
                pieces.push(piece(kind, list.things(at), &content));
            }
        }
        let timestamps = longest_column(block, &directory)?;
        for (at, pointer) in directory.data.pointers.iter().enumerate() {
            let things = directory.data.things(at);
            pieces.push(data_piece(block, *pointer, (things, timestamps))?);
        }
        for page in directory.names.iter().flat_map(|name| &name.pages) {
            let content = block.piece(page.pointer, "piece")?;
            pieces.push(piece(5, page.values, &content));
        }
        if let Some(pointer) = directory.metadata {
            pieces.push(piece(7, 0, &block.piece(pointer, "piece")?));
        }
    }
    Ok(pieces)
}

/// How many timestamps the longest column has.
fn longest_column(block: &BlockReader, directory: &Directory) -> Result<usize, MetricsError> {
    let mut longest = 0;
    let list = &directory.columns;
    for (at, pointer) in list.pointers.iter().enumerate() {
        let content = block.piece(*pointer, "piece")?;
        let things = list.things(at);
        let columns = Columns::read(&content, block.footer.range.start, things);
        let columns = columns.ok_or_else(|| damaged(block.id, "timestamps"))?;
        let lengths = (0..things).filter_map(|column| columns.get(column).map(<[_]>::len));
        longest = lengths.fold(longest, usize::max);
    }
    Ok(longest)
}

fn data_piece(
    block: &BlockReader,
    pointer: Pointer,
    (things, timestamps): (u32, usize),
) -> Result<Vec<u8>, MetricsError> {
    let (content, bits) = block.data(pointer)?;
    let mut bytes = Vec::new();
    write_varint(&mut bytes, timestamps as u64);
    let Some(bits) = bits else {
        bytes.extend_from_slice(&content);
        return Ok(piece(3, things, &bytes));
    };
    write_varint(&mut bytes, content.len() as u64);
    bytes.extend_from_slice(&content);
    bytes.extend_from_slice(&bits);
    Ok(piece(4, things, &bytes))
}

fn piece(kind: u8, things: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    write_varint(&mut bytes, u64::from(things));
    bytes.extend_from_slice(content);
    bytes
}
