//! A byte buffer made for appending very many very short texts.
//!
//! Copying ten bytes through `memcpy` costs more than the bytes. Where source and target are known to
//! have [`PADDING`] bytes behind what counts, whole pieces of 16 bytes are copied instead, and what is
//! too much is overwritten by the next text. All of it is checked indexing; nothing is `unsafe`.

use trefoil_model::write_varint;

/// How many bytes source and target must have behind the last one that counts.
pub(super) const PADDING: usize = 16;

/// Bytes of which the first `length` count; the rest is room that was cleared or written before.
#[derive(Clone, Debug, Default)]
pub(super) struct PaddedBuffer {
    bytes: Vec<u8>,
    length: usize,
}

impl PaddedBuffer {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// All bytes that count.
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn truncate(&mut self, length: usize) {
        assert!(
            length <= self.length,
            "a buffer is not made longer by cutting"
        );
        self.length = length;
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room for `more` bytes and the padding.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = self.length + more + PADDING;
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted.max(self.bytes.len() * 2), 0);
        }
    }

    /// Appends a length and a text of any length.
    pub(super) fn push_text(&mut self, text: &[u8]) {
        let mut prefix = Vec::with_capacity(5);
        write_varint(&mut prefix, text.len() as u64);
        self.reserve(prefix.len() + text.len());
        for part in [&prefix, text] {
            self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
            self.length += part.len();
        }
    }

    /// Appends `from[at..at + count]`.
    ///
    /// # Panics
    /// When either side lacks the room, padding included.
    #[inline(always)]
    pub(super) fn push_short(&mut self, from: &[u8], at: usize, count: usize) {
        let mut done = 0;
        while done < count {
            let source = &from[at + done..at + done + PADDING];
            let target = self.length + done;
            self.bytes[target..target + PADDING].copy_from_slice(source);
            done += PADDING;
        }
        self.length += count;
    }
}
