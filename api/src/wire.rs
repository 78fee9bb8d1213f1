//! Reading protobuf fields from a slice: nothing here panics or allocates. Writing them is in `write`.

mod write;

use crate::ApiError;
pub(crate) use write::{
    write_buckets, write_bytes, write_double, write_doubles, write_number, write_spans, zigzag,
};

/// A position in a message. `at` counts from the start of the whole body, for error messages.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

/// Where two short texts stand in the buffer, each behind one byte with its length.
#[derive(Clone, Copy)]
pub(crate) struct UsualPair {
    pub(crate) name_at: usize,
    pub(crate) name_length: usize,
    pub(crate) value_at: usize,
    pub(crate) value_length: usize,
}

/// How a field's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

impl<'a> Reader<'a> {
    /// Reads the first `length` of `bytes`; whatever follows is padding.
    pub(crate) fn new(bytes: &'a [u8], length: usize) -> Self {
        assert!(length <= bytes.len(), "a message ends inside its buffer");
        Self {
            bytes,
            at: 0,
            end: length,
        }
    }

    /// The whole buffer, padding included; positions in it are those of the reader.
    #[inline(always)]
    pub(crate) fn buffer(&self) -> &'a [u8] {
        self.bytes
    }

    /// Takes a length-delimited message of two short texts in the usual order, as nearly all labels
    /// are, and returns where the texts and their one-byte lengths stand. `None`: it is of another
    /// form, and nothing was read.
    ///
    /// ```text
    /// length | 0a | name length | name | 12 | value length | value
    /// ```
    #[inline(always)]
    pub(crate) fn usual_pair(&mut self) -> Option<UsualPair> {
        let (bytes, at) = (self.bytes, self.at);
        let [length, tag, name_length] = *bytes.get(at..)?.first_chunk::<3>()?;
        let (length, name_length) = (usize::from(length), usize::from(name_length));
        let is_usual = length < 0x80 && tag == 0x0a && length >= name_length + 4;
        if !is_usual || at + 1 + length > self.end {
            return None;
        }
        let value_at = at + 3 + name_length;
        let value_length = length - 4 - name_length;
        if bytes[value_at] != 0x12 || usize::from(bytes[value_at + 1]) != value_length {
            return None;
        }
        self.at = at + 1 + length;
        Some(UsualPair {
            name_at: at + 3,
            name_length,
            value_at: value_at + 2,
            value_length,
        })
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// Where the next byte stands in the buffer.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Bytes left of this message.
    pub(crate) fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// The next byte without moving, 0 at the end (which is no tag).
    #[inline(always)]
    pub(crate) fn peek(&self) -> u8 {
        if self.at < self.end {
            self.bytes[self.at]
        } else {
            0
        }
    }

    /// Moves behind a byte that was peeked.
    #[inline(always)]
    pub(crate) fn skip_byte(&mut self) {
        self.at += 1;
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, ApiError> {
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
    pub(crate) fn tag(&mut self, message: &'static str) -> Result<(u64, WireType), ApiError> {
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
    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], ApiError> {
        let length = self.varint(field)?;
        if length > (self.end - self.at) as u64 {
            return Err(self.corrupt(field));
        }
        let start = self.at;
        self.at += length as usize;
        Ok(&self.bytes[start..self.at])
    }

    /// A text, which protobuf demands to be UTF-8.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, ApiError> {
        let bytes = self.bytes(field)?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt(field))
    }

    /// A message inside this one.
    #[inline(always)]
    pub(crate) fn message(&mut self, field: &'static str) -> Result<Reader<'a>, ApiError> {
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
    pub(crate) fn fixed64(&mut self, field: &'static str) -> Result<u64, ApiError> {
        match self.bytes[self.at..self.end].first_chunk::<8>() {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(self.corrupt(field)),
        }
    }

    /// Moves behind a field that is not needed.
    pub(crate) fn skip(
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
    pub(crate) fn corrupt(&self, field: &'static str) -> ApiError {
        ApiError::CorruptProtobuf { field, at: self.at }
    }
}
