//! The answer of remote read with samples: one message, compressed whole.

use super::{write_bytes, write_double, write_labels, write_number};
use crate::ApiError;
use trefoil_model::{Histogram, Millis, histogram::Buckets, write_varint};
use trefoil_query_promql::{QueryError, RawSeries, is_histogram};

/// Bytes of an uncompressed answer. Clients that read more take chunks.
const BYTES_MAX: usize = 256 << 20;

/// An answer in the making.
#[derive(Default)]
pub(crate) struct Response {
    body: Vec<u8>,
    result: Vec<u8>,
    series: Vec<u8>,
    item: Vec<u8>,
}

impl Response {
    /// Adds series to the query that is being answered.
    ///
    /// # Errors
    /// When the answer is larger than it may be.
    pub(crate) fn add(&mut self, series: &[RawSeries]) -> Result<(), ApiError> {
        for one in series {
            self.series.clear();
            write_labels(&mut self.series, &one.labels);
            for (at, (time, value)) in one.timestamps.iter().zip(&one.values).enumerate() {
                self.item.clear();
                match one.histograms.at(at).filter(|_| is_histogram(*value)) {
                    Some(histogram) => {
                        write_histogram(&mut self.item, *time, histogram);
                        write_bytes(&mut self.series, 4, &self.item);
                    }
                    None => {
                        write_double(&mut self.item, 1, *value);
                        write_number(&mut self.item, 2, *time as u64);
                        write_bytes(&mut self.series, 2, &self.item);
                    }
                }
            }
            write_bytes(&mut self.result, 1, &self.series);
            if self.body.len() + self.result.len() > BYTES_MAX {
                return Err(QueryError::Execution(format!(
                    "exceeded the limit of {BYTES_MAX} bytes of samples; ask for STREAMED_XOR_CHUNKS"
                ))
                .into());
            }
        }
        Ok(())
    }

    /// Ends the answer to a query.
    pub(crate) fn end_query(&mut self) {
        write_bytes(&mut self.body, 1, &self.result);
        self.result.clear();
    }

    /// The compressed answer.
    ///
    /// # Errors
    /// [`ApiError::Internal`] when it cannot be compressed.
    pub(crate) fn finish(self) -> Result<Vec<u8>, ApiError> {
        let compressed = snap::raw::Encoder::new().compress_vec(&self.body);
        compressed.map_err(|error| ApiError::Internal(format!("compress an answer: {error}")))
    }
}

/// `prometheus.Histogram` with floats for counts, which holds every histogram.
fn write_histogram(out: &mut Vec<u8>, time: Millis, histogram: &Histogram) {
    // A oneof is written also when it is 0, or it would be another kind.
    write_varint(out, 2 << 3 | 1);
    out.extend_from_slice(&histogram.count.to_le_bytes());
    write_double(out, 3, histogram.sum);
    write_number(out, 4, zigzag(i64::from(histogram.schema)));
    write_double(out, 5, histogram.zero_threshold);
    write_varint(out, 7 << 3 | 1);
    out.extend_from_slice(&histogram.zero_count.to_le_bytes());
    write_buckets(out, &histogram.negative, [8, 10]);
    write_buckets(out, &histogram.positive, [11, 13]);
    write_number(out, 14, histogram.reset_hint as u64);
    write_number(out, 15, time as u64);
    write_doubles(out, 16, histogram.custom_bounds.iter().copied());
}

fn write_buckets(out: &mut Vec<u8>, buckets: &Buckets, [spans, counts]: [u32; 2]) {
    let mut span = Vec::new();
    for (offset, length) in buckets.spans() {
        span.clear();
        write_number(&mut span, 1, zigzag(i64::from(offset)));
        write_number(&mut span, 2, u64::from(length));
        write_bytes(out, spans, &span);
    }
    write_doubles(out, counts, buckets.counts().iter().copied());
}

fn write_doubles(out: &mut Vec<u8>, field: u32, values: impl ExactSizeIterator<Item = f64>) {
    if values.len() > 0 {
        write_varint(out, u64::from(field << 3 | 2));
        write_varint(out, values.len() as u64 * 8);
        values.for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}
