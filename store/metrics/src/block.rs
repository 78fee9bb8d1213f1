//! Blocks: immutable files with the series of one window on one node, of all tenants and shards.
//!
//! ```text
//! block     = header | piece* | trailer
//! header    = magic "TREFOILM" | version u8 ([`BlockVersion`]) | 7 zero bytes
//! piece     = one zstd frame; its pointer carries the checksum
//!             packed data: varint length of the frame | frame | varint bytes of bits | bits, or if smaller their frame
//! pointer   = varint offset | varint length | varint content length (of the first frame) | crc32c of the piece u32 LE
//! trailer   = footer's offset u64 LE, length u32 LE, content length u32 LE, crc32c u32 LE
//!             | crc32c of these 20 bytes u32 LE | magic "TREFOILM"
//! footer    = zigzag window start | varint window length | varint tenants | per tenant, ascending:
//!               varint tenant | varint deletion version | varint series | varint samples
//!               | varint words | shard bitmap words u64 LE | pointer to the directory
//! directory = columns: varint count | per piece: varint timestamp columns | pointer
//!             data:    varint count | per piece: varint series | pointer
//!             rows:    varint count | per piece: varint series | pointer
//!             shards:  varint count | per piece of 65,536 series: pointer
//!             names:   varint count | per label name, ascending: text | varint pages
//!                        | per page: text first value | varint values | pointer
//!             metadata: 0 | 1 and a pointer
//! columns   = varint columns | per column: varint timestamps | zigzag first, behind the window's start
//!             | zigzag varint per further one: difference behind the previous difference (first: behind 0)
//! data      = varint series | per series: zigzag varint column behind the previous series' (first: behind 0)
//!             | varint timestamps dropped at the column's front | varint dropped at its back
//!             | varint length of the values | packed: varint length of its bits
//!             ; then the values of all series, as drawn in `value`, `packed` and `mixed`
//! rows      = varint length of shapes | varint length of values | shapes | values | rows, as in `rows`
//! shards    = u16 LE per series
//! page      = varint values | per value, ascending: varint bytes shared with the previous value
//!             | text rest | varint length | postings, as drawn in `postings`
//! metadata  = varint count | per entry: shard u16 LE | type u8 | text metric | text help | text unit
//! ```
//! Inside a tenant series are numbered in block order (`order`): metric, job, instance, rest. A piece is
//! checked whenever it is read from disk: damage is an error that names the block and the piece, never a
//! wrong answer. A block is written to the end, synced and only then named in the manifest; a crash
//! before that leaves a file that nobody refers to.

mod aggregates;
mod columns;
mod data;
mod directory;
mod kept;
mod label_index;
mod mixed;
mod pieces;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use aggregates::{AggregatesReader, AggregatesWriter, TenantAggregates};
pub(crate) use directory::TenantEntry;
pub(crate) use kept::{KeptPieces, Pieces};
pub(crate) use pieces::pieces_of;
pub use pieces::read_block_piece;
pub(crate) use read::{BlockReader, TenantReader};
pub(crate) use write::{BlockSummary, BlockWriter, fitting};

use crate::MetricsError;
use trefoil_model::{read_varint, write_varint};
use trefoil_store_blocks::BlockId;

const MAGIC: [u8; 8] = *b"TREFOILM";

/// The version of a block's format.
///
/// | | plain | mixed |
/// |---|---|---|
/// | values in varints | 1 | 2 |
/// | values packed | 3 | 4 |
///
/// A plain block holds nothing but floats: programs before native histograms read version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockVersion(u8);

impl BlockVersion {
    /// The newest one that this program reads and writes.
    pub(crate) const MAX: Self = Self::new(false, true);

    pub(crate) const fn new(is_plain: bool, is_packed: bool) -> Self {
        Self(1 + !is_plain as u8 + 2 * is_packed as u8)
    }

    /// Whether all series have only numbers without start timestamps.
    pub(crate) const fn is_plain(self) -> bool {
        self.0 % 2 == 1
    }

    const fn is_packed(self) -> bool {
        self.0 > 2
    }
}

const HEADER_BYTES: usize = 16;
const TRAILER_BYTES: usize = 32;

/// Most uncompressed bytes of a piece. The largest are directories: some 40 bytes per 64 KiB of data.
const PIECE_CONTENT_BYTES_MAX: usize = 256 << 20;

/// Series per piece of shard numbers.
const SHARDS_PER_PIECE: usize = 65_536;

/// Where a piece is, how long it is and what its bytes must hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    offset: u64,
    length: u32,
    content: u32,
    crc: u32,
}

impl Pointer {
    fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, self.offset);
        write_varint(out, u64::from(self.length));
        write_varint(out, u64::from(self.content));
        out.extend_from_slice(&self.crc.to_le_bytes());
    }
}

/// A checked cursor over the content of a piece. Every method gives `None` when the bytes end early.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn varint(&mut self) -> Option<u64> {
        read_varint(self.bytes, &mut self.at)
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    /// A number of things that take at least a byte each.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.bytes.len() - self.at).then_some(count)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    fn pointer(&mut self) -> Option<Pointer> {
        Some(Pointer {
            offset: self.varint()?,
            length: self.small()?,
            content: self.small()?,
            crc: u32::from_le_bytes(self.array()?),
        })
    }

    /// All bytes that are left.
    fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

fn damaged(block: BlockId, piece: &'static str) -> MetricsError {
    MetricsError::DamagedBlock { block, piece }
}
