//! The answer of remote read with chunks: a frame for each piece of a series, of at most about a megabyte.
//!
//! ```text
//! frame   length varint | CRC32C of the message u32 BE | message
//! message ChunkedReadResponse{chunked_series=1 {labels=1, chunks=2 Chunk}, query_index=2}
//! Chunk   min_time_ms=1, max_time_ms=2, type=3 (1: XOR, 2 and 3: histograms), data=4
//! XOR     samples u16 BE | first time zigzag varint | first value 64 bits | second time's delta varint | its value | rest
//! time    difference of deltas: 0 | 10 + 14 bits | 110 + 17 bits | 1110 + 20 bits | 1111 + 64 bits
//! value   XOR with the one before, varbit_xor
//! ```
//! A series has chunks of floats and of histograms, one after the other in the order of their times.
//!
//! Source: `tsdb/docs/format/chunks.md` of Prometheus.

use super::{
    bits::{Bits, Window},
    histogram_chunk::HistogramChunk,
    write_labels,
};
use crate::wire::{write_bytes, write_number};
use bytes::Bytes;
use std::sync::Arc;
use trefoil_model::{Histogram, Labels, Millis, write_varint};
use trefoil_query_promql::{RawSeries, is_histogram};

/// Samples of a chunk, as Prometheus cuts them.
const CHUNK_SAMPLES: usize = 120;
/// A frame that is longer takes no further chunk; Prometheus' default.
const FRAME_BYTES: usize = 1 << 20;
/// The encoding of a chunk of floats.
const ENCODING_XOR: u64 = 1;

/// The frames of some series, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    message: Vec<u8>,
    series: Vec<u8>,
    chunk: Vec<u8>,
}

/// Samples of a series that are one chunk.
struct Chunk {
    samples: usize,
    encoding: u64,
    data: Vec<u8>,
}

impl Frames {
    /// Appends the frames of a series.
    fn write(&mut self, query: usize, series: &RawSeries, out: &mut Vec<u8>) {
        self.begin(&series.labels);
        let mut at = 0;
        while at < series.timestamps.len() {
            if self.series.len() > FRAME_BYTES {
                self.end(query, out);
                self.begin(&series.labels);
            }
            let chunk = next_chunk(series, at);
            let last = at + chunk.samples - 1;
            self.chunk.clear();
            write_number(&mut self.chunk, 1, series.timestamps[at] as u64);
            write_number(&mut self.chunk, 2, series.timestamps[last] as u64);
            write_number(&mut self.chunk, 3, chunk.encoding);
            write_bytes(&mut self.chunk, 4, &chunk.data);
            write_bytes(&mut self.series, 2, &self.chunk);
            at = last + 1;
        }
        self.end(query, out);
    }

    /// The frames of a page.
    pub(crate) fn page(&mut self, query: usize, page: &[RawSeries]) -> Bytes {
        let mut out = Vec::new();
        for series in page {
            self.write(query, series, &mut out);
        }
        Bytes::from(out)
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

fn histogram_at(series: &RawSeries, at: usize) -> Option<&Arc<Histogram>> {
    let value = series.values.get(at)?;
    series.histograms.at(at).filter(|_| is_histogram(*value))
}

/// The chunk that begins with this sample of a series.
fn next_chunk(series: &RawSeries, from: usize) -> Chunk {
    let Some(first) = histogram_at(series, from) else {
        let end = series.timestamps.len().min(from + CHUNK_SAMPLES);
        let end = (from..end)
            .find(|at| histogram_at(series, *at).is_some())
            .unwrap_or(end);
        return Chunk {
            samples: end - from,
            encoding: ENCODING_XOR,
            data: encode(&series.timestamps[from..end], &series.values[from..end]),
        };
    };
    let mut chunk = HistogramChunk::begin(series.timestamps[from], first);
    let mut samples = 1;
    while samples < CHUNK_SAMPLES
        && let Some(next) = histogram_at(series, from + samples)
        && chunk.takes(next)
    {
        chunk.push(series.timestamps[from + samples], next);
        samples += 1;
    }
    Chunk {
        samples,
        encoding: chunk.encoding(),
        data: chunk.finish(),
    }
}

/// The data of a chunk of floats. Equally many times and values, at least one and at most 65,535.
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

#[cfg(test)]
mod tests;
