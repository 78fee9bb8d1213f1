//! What tests read chunks with. Written from the format, not from what writes it.

/// Reads bits from the highest of each byte on.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits that have not been read.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    pub(super) fn read(&mut self, length: u32) -> u64 {
        let mut number = 0;
        for _ in 0..length {
            let byte = self.bytes[self.at / 8];
            number = number << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        number
    }

    /// Ones in front of the next zero, at most so many.
    pub(super) fn ones(&mut self, max: u32) -> u32 {
        (0..max).find(|_| self.read(1) == 0).unwrap_or(max)
    }

    pub(super) fn varint(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.read(8);
            number |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }
}
