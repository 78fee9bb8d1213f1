//! Pieces that queries have read lately, decompressed and taken apart, so that the next query need not do it again.
//!
//! A query for few series spends its time not on their samples but on opening what stands around them: a page of
//! labels, a piece of label rows, a piece of timestamps and one of values, in every block. Only queries keep pieces;
//! merges, flushes, digests and copies go through everything once and would only push out what is wanted again.
//!
//! There are two generations. What is read goes to the young one; when that has half of the bytes, it becomes the old one,
//! and what the old one had and nobody asked for since is forgotten. Nothing here outlives the process, and a piece's bytes
//! were checked when they were read.
//!
//! What matchers found in a block and the labels of a few series are kept, too: dashboards ask for the same again and again.
//!
//! A piece is known by its block's number and its offset, without its checksum: what stands there cannot change. A block's
//! file is never written again, and a manifest counts its numbers up and gives none twice while it is open. A number that
//! was given to a block which was never committed comes back after a start, when nothing is kept. Pieces of a block's other
//! file, that of aggregates, are not kept.

use crate::MetricsError;
use parking_lot::Mutex;
use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use trefoil_store_blocks::BlockId;

/// Memory of all pieces that an engine keeps, in bytes. The oldest are forgotten beyond it.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// Memory of an entry besides its piece, about.
const ENTRY_BYTES: usize = 96;

/// What is kept of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Spot {
    /// The piece of its file that begins here.
    Piece(u64),
    /// The series that satisfy matchers, by the hash of those.
    Found(u64),
    /// The labels of a few series, by the hash of their numbers.
    Labels(u64),
}

/// A block, and what of it.
type Place = (BlockId, Spot);

type Piece = Arc<dyn Any + Send + Sync>;

/// How a query comes to the pieces of a block.
#[derive(Clone)]
pub(crate) enum Pieces {
    /// Each is read.
    Read,
    /// What is kept is taken, anything else is read and kept.
    Keep(Arc<KeptPieces>),
    /// Only what is kept: where it would have to wait for the disk it fails with [`MetricsError::NotKept`].
    OnlyKept(Arc<KeptPieces>),
}

impl Pieces {
    /// Where pieces are kept.
    pub(super) fn kept(&self) -> Option<&KeptPieces> {
        match self {
            Self::Read => None,
            Self::Keep(kept) | Self::OnlyKept(kept) => Some(kept),
        }
    }
}

/// The pieces that the queries of an engine keep.
pub(crate) struct KeptPieces {
    generations: Mutex<Generations>,
    bytes_max: usize,
}

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    pieces: HashMap<Place, (Piece, usize)>,
    bytes: usize,
}

impl Default for KeptPieces {
    fn default() -> Self {
        Self::new(KEPT_BYTES_MAX)
    }
}

impl KeptPieces {
    fn new(bytes_max: usize) -> Self {
        Self {
            generations: Mutex::default(),
            bytes_max,
        }
    }

    /// The piece at a place, which `read` gives if it is not kept. `bytes` says what memory it takes.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn get_or_read<T: Any + Send + Sync>(
        &self,
        place: Place,
        bytes: impl FnOnce(&T) -> usize,
        read: impl FnOnce() -> Result<T, MetricsError>,
    ) -> Result<Arc<T>, MetricsError> {
        let found = self.generations.lock().get(place, self.bytes_max / 2);
        // A place always has the same kind of piece; of another kind it would be read again.
        if let Some(piece) = found.and_then(|piece| piece.downcast().ok()) {
            return Ok(piece);
        }
        // Without the lock: two queries may read the same piece at once.
        let piece = Arc::new(read()?);
        let entry: (Piece, usize) = (piece.clone(), bytes(&piece) + ENTRY_BYTES);
        let mut generations = self.generations.lock();
        generations.keep(place, entry, self.bytes_max / 2);
        Ok(piece)
    }

    /// Forgets the pieces of blocks that are not in `ids`.
    pub(crate) fn retain(&self, ids: &BTreeSet<BlockId>) {
        let mut generations = self.generations.lock();
        let Generations { young, old } = &mut *generations;
        for generation in [young, old] {
            generation.pieces.retain(|(id, _), _| ids.contains(id));
            generation.bytes = generation.pieces.values().map(|(_, bytes)| bytes).sum();
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.bytes + generations.old.bytes
    }
}

impl Generations {
    fn get(&mut self, place: Place, half: usize) -> Option<Piece> {
        if let Some((piece, _)) = self.young.pieces.get(&place) {
            return Some(Arc::clone(piece));
        }
        let entry = self.old.pieces.remove(&place)?;
        self.old.bytes -= entry.1;
        let piece = Arc::clone(&entry.0);
        self.keep(place, entry, half);
        Some(piece)
    }

    /// Keeps a piece as the youngest, unless it alone takes half of the bytes.
    fn keep(&mut self, place: Place, entry: (Piece, usize), half: usize) {
        let bytes = entry.1;
        if bytes > half {
            return;
        }
        if self.young.bytes + bytes > half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += bytes;
        if let Some((_, replaced)) = self.young.pieces.insert(place, entry) {
            self.young.bytes -= replaced;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE_BYTES: usize = 1_000;

    fn read(kept: &KeptPieces, at: u64) -> bool {
        let mut was_read = false;
        let piece = kept.get_or_read((BlockId(at % 2), Spot::Piece(at)), Vec::len, || {
            was_read = true;
            Ok(vec![at as u8; PIECE_BYTES - ENTRY_BYTES])
        });
        assert_eq!(piece.expect("it is made here")[0], at as u8);
        was_read
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let kept = KeptPieces::new(10 * PIECE_BYTES);
        for at in 0..200 {
            assert!(read(&kept, at), "it was never read before");
            assert!(!read(&kept, 0), "it is asked for all the time");
            assert!(kept.bytes() <= 10 * PIECE_BYTES);
        }
        assert!(kept.bytes() >= 5 * PIECE_BYTES);
        assert!(read(&kept, 1), "nobody asked for it for long");
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let kept = KeptPieces::new(PIECE_BYTES);
        assert!(read(&kept, 1));
        assert!(read(&kept, 1));
        assert_eq!(kept.bytes(), 0);
    }

    #[test]
    fn pieces_go_with_their_blocks() {
        let kept = KeptPieces::new(10 * PIECE_BYTES);
        assert!(read(&kept, 2) && read(&kept, 3));
        kept.retain(&BTreeSet::from([BlockId(0)]));
        assert_eq!(kept.bytes(), PIECE_BYTES);
        assert!(!read(&kept, 2) && read(&kept, 3));
    }
}
