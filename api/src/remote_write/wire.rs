//! Reading protobuf fields from a slice. Nothing here panics or allocates.

use crate::ApiError;

/// A position in a message. `at` counts from the start of the whole body, for error messages.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

/// How a field's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            end: bytes.len(),
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// Bytes left of this message.
    pub(super) fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// The next byte without moving, 0 at the end (which is no tag).
    #[inline(always)]
    pub(super) fn peek(&self) -> u8 {
        if self.at < self.end {
            self.bytes[self.at]
        } else {
            0
        }
    }

    /// Moves behind a byte that was peeked.
    #[inline(always)]
    pub(super) fn skip_byte(&mut self) {
        self.at += 1;
    }

    #[inline(always)]
    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, ApiError> {
        if self.at < self.end && self.bytes[self.at] < 0x80 {
            self.at += 1;
            return Ok(u64::from(self.bytes[self.at - 1]));
        }
        self.long_varint(field)
    }

    #[inline(never)]
    fn long_varint(&mut self, field: &'static str) -> Result<u64, ApiError> {
        let mut value = 0u64;
        for (index, byte) in self.bytes[self.at..self.end].iter().take(10).enumerate() {
            if index == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(self.corrupt(field))
    }

    /// The field's number and layout. Groups, which nobody sends, are refused.
    pub(super) fn tag(&mut self, message: &'static str) -> Result<(u64, WireType), ApiError> {
        let tag = self.varint(message)?;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            5 => WireType::Fixed32,
            _ => return Err(self.corrupt(message)),
        };
        if tag >> 3 == 0 {
            return Err(self.corrupt(message));
        }
        Ok((tag >> 3, wire_type))
    }

    /// A length-delimited value.
    #[inline(always)]
    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], ApiError> {
        let length = self.varint(field)?;
        if length > (self.end - self.at) as u64 {
            return Err(self.corrupt(field));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(&self.bytes[start..self.at])
    }

    /// A message inside this one.
    #[inline(always)]
    pub(super) fn message(&mut self, field: &'static str) -> Result<Reader<'a>, ApiError> {
        let length = self.varint(field)?;
        if length > (self.end - self.at) as u64 {
            return Err(self.corrupt(field));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(Reader {
            bytes: self.bytes,
            at: start,
            end: self.at,
        })
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self, field: &'static str) -> Result<u64, ApiError> {
        match self.bytes[self.at..self.end].first_chunk::<8>() {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(self.corrupt(field)),
        }
    }

    /// Moves behind a field that is not needed.
    pub(super) fn skip(
        &mut self,
        wire_type: WireType,
        field: &'static str,
    ) -> Result<(), ApiError> {
        match wire_type {
            WireType::Varint => self.varint(field).map(drop),
            WireType::Fixed64 => self.fixed64(field).map(drop),
            WireType::Bytes => self.bytes(field).map(drop),
            WireType::Fixed32 if self.remaining() >= 4 => {
                self.at += 4;
                Ok(())
            }
            WireType::Fixed32 => Err(self.corrupt(field)),
        }
    }

    /// The error for a value that could not be read here.
    #[cold]
    pub(super) fn corrupt(&self, field: &'static str) -> ApiError {
        ApiError::CorruptProtobuf { field, at: self.at }
    }
}
