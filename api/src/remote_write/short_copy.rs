//! A byte buffer made for appending very many very short texts.
//!
//! Copying ten bytes through `memcpy` costs more than the bytes. Where source and target are known to
//! have [`PADDING`] bytes behind what counts, whole pieces of 16 bytes are copied instead, and what is
//! too much is overwritten by the next text. All of it is checked indexing; nothing is `unsafe`.

/// How many bytes source and target must have behind the last one that counts.
pub(super) const PADDING: usize = 16;
/// Bytes of the longest length in LEB128.
const LENGTH_BYTES_MAX: usize = 10;

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
        self.reserve(LENGTH_BYTES_MAX + text.len());
        let mut rest = text.len();
        while rest >= 0x80 {
            self.bytes[self.length] = rest as u8 | 0x80;
            self.length += 1;
            rest >>= 7;
        }
        self.bytes[self.length] = rest as u8;
        self.length += 1;
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
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
