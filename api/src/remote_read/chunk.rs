//! The answer of remote read with chunks: a frame for each piece of a series, of at most about a megabyte.
//!
//! ```text
//! frame   length varint | CRC32C of the message u32 BE | message
//! message ChunkedReadResponse{chunked_series=1 {labels=1, chunks=2 Chunk}, query_index=2}
//! Chunk   min_time_ms=1, max_time_ms=2, type=3 (1: XOR), data=4
//! data    samples u16 BE | first time zigzag varint | first value 64 bits | second time's delta varint | its value | rest
//! time    difference of deltas: 0 | 10 + 14 bits | 110 + 17 bits | 1110 + 20 bits | 1111 + 64 bits
//! value   XOR with the one before: 0 when equal | 10 + the meaningful bits, where those of the window before suffice
//!         | 11 + leading zeros (5 bits) + length (6 bits, 64 is 0) + meaningful bits
//! ```
//! Source: `tsdb/docs/format/chunks.md` of Prometheus; bits are written from the highest of each byte on.

use super::{write_bytes, write_labels, write_number};
use bytes::Bytes;
use trefoil_model::{Labels, Millis, write_varint};
use trefoil_query_promql::{QueryError, RawSeries, is_histogram};

/// Samples of a chunk, as Prometheus cuts them.
const CHUNK_SAMPLES: usize = 120;
/// A frame that is longer takes no further chunk; Prometheus' default.
const FRAME_BYTES: usize = 1 << 20;
/// The encoding of a chunk's data.
const ENCODING_XOR: u64 = 1;

/// The frames of some series, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    message: Vec<u8>,
    series: Vec<u8>,
    chunk: Vec<u8>,
}

impl Frames {
    /// Appends the frames of a series.
    ///
    /// # Errors
    /// [`QueryError::Execution`] for native histograms: there is no encoder for their chunks.
    pub(crate) fn write(
        &mut self,
        query: usize,
        series: &RawSeries,
        out: &mut Vec<u8>,
    ) -> Result<(), QueryError> {
        if series.values.iter().any(|value| is_histogram(*value)) {
            return Err(QueryError::Execution(format!(
                "{} has native histograms, which are only read as SAMPLES",
                series.labels
            )));
        }
        self.begin(&series.labels);
        let times = series.timestamps.chunks(CHUNK_SAMPLES);
        for (times, values) in times.zip(series.values.chunks(CHUNK_SAMPLES)) {
            if self.series.len() > FRAME_BYTES {
                self.end(query, out);
                self.begin(&series.labels);
            }
            let data = encode(times, values);
            self.chunk.clear();
            write_number(&mut self.chunk, 1, times[0] as u64);
            write_number(&mut self.chunk, 2, times[times.len() - 1] as u64);
            write_number(&mut self.chunk, 3, ENCODING_XOR);
            write_bytes(&mut self.chunk, 4, &data);
            write_bytes(&mut self.series, 2, &self.chunk);
        }
        self.end(query, out);
        Ok(())
    }

    /// The frames of a page.
    ///
    /// # Errors
    /// As for [`Frames::write`].
    pub(crate) fn page(&mut self, query: usize, page: &[RawSeries]) -> Result<Bytes, QueryError> {
        let mut out = Vec::new();
        for series in page {
            self.write(query, series, &mut out)?;
        }
        Ok(Bytes::from(out))
    }

    fn begin(&mut self, labels: &Labels) {
        self.series.clear();
        write_labels(&mut self.series, labels);
    }

    fn end(&mut self, query: usize, out: &mut Vec<u8>) {
        self.message.clear();
        write_bytes(&mut self.message, 1, &self.series);
        write_number(&mut self.message, 2, query as u64);
        write_varint(out, self.message.len() as u64);
        out.extend_from_slice(&crc32c::crc32c(&self.message).to_be_bytes());
        out.extend_from_slice(&self.message);
    }
}

/// The data of a chunk. Equally many times and values, at least one and at most 65,535.
fn encode(times: &[Millis], values: &[f64]) -> Vec<u8> {
    let mut out = Bits::default();
    out.bytes
        .extend_from_slice(&(times.len() as u16).to_be_bytes());
    let mut window = Window::default();
    let (mut time, mut delta, mut bits) = (0, 0, 0);
    for (at, (next, value)) in times.iter().zip(values).enumerate() {
        let next_delta = next.wrapping_sub(time);
        match at {
            0 => {
                write_varint(&mut out.bytes, ((next << 1) ^ (next >> 63)) as u64);
                out.bytes.extend_from_slice(&value.to_bits().to_be_bytes());
            }
            1 => {
                write_varint(&mut out.bytes, next_delta as u64);
                window.write(&mut out, bits ^ value.to_bits());
            }
            _ => {
                write_delta(&mut out, next_delta.wrapping_sub(delta));
                window.write(&mut out, bits ^ value.to_bits());
            }
        }
        (time, delta, bits) = (*next, next_delta, value.to_bits());
    }
    out.bytes
}

fn write_delta(out: &mut Bits, change: i64) {
    let fits = |bits: u32| (-(1i64 << (bits - 1)) + 1..=1 << (bits - 1)).contains(&change);
    let (prefix, length, bits) = match change {
        0 => (0, 1, 0),
        _ if fits(14) => (0b10, 2, 14),
        _ if fits(17) => (0b110, 3, 17),
        _ if fits(20) => (0b1110, 4, 20),
        _ => (0b1111, 4, 64),
    };
    out.write(prefix, length);
    out.write(change as u64, bits);
}

/// Where the meaningful bits of the last value stood that said so.
#[derive(Default)]
struct Window {
    leading: u32,
    trailing: u32,
    is_known: bool,
}

impl Window {
    fn write(&mut self, out: &mut Bits, xor: u64) {
        if xor == 0 {
            out.write(0, 1);
            return;
        }
        // Five bits say how many.
        let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        if self.is_known && leading >= self.leading && trailing >= self.trailing {
            out.write(0b10, 2);
        } else {
            out.write(0b11, 2);
            out.write(u64::from(leading), 5);
            // 64 does not fit, and 0 would be no value at all.
            out.write(u64::from(64 - leading - trailing), 6);
            *self = Self {
                leading,
                trailing,
                is_known: true,
            };
        }
        out.write(xor >> self.trailing, 64 - self.leading - self.trailing);
    }
}

/// Bytes that are filled bit by bit.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not used.
    free: u32,
}

impl Bits {
    /// Appends the lowest bits of a number, the highest of them first.
    fn write(&mut self, number: u64, length: u32) {
        let mut left = length;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = left.min(self.free);
            left -= taken;
            self.free -= taken;
            let piece = (number >> left) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (piece as u8) << self.free;
            }
        }
    }
}

#[cfg(test)]
mod tests;
