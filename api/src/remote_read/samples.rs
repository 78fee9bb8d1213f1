//! The answer of remote read with samples: one message, compressed whole.

use super::write_labels;
use crate::{
    ApiError,
    wire::{write_buckets, write_bytes, write_double, write_doubles, write_number, zigzag},
};
use trefoil_model::{Histogram, Millis, write_varint};
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

/// `prometheus.Histogram`: with integers where all counts are whole, else with floats. Which of the two a histogram came as
/// is not kept. Readers take both for the same, and integers are shorter.
fn write_histogram(out: &mut Vec<u8>, time: Millis, histogram: &Histogram) {
    let is_whole = histogram.has_whole_counts();
    write_count(out, histogram.count, is_whole, [1, 2]);
    write_double(out, 3, histogram.sum);
    write_number(out, 4, zigzag(i64::from(histogram.schema)));
    write_double(out, 5, histogram.zero_threshold);
    write_count(out, histogram.zero_count, is_whole, [6, 7]);
    write_buckets(out, &histogram.negative, is_whole, [8, 9, 10]);
    write_buckets(out, &histogram.positive, is_whole, [11, 12, 13]);
    write_number(out, 14, histogram.reset_hint as u64);
    write_number(out, 15, time as u64);
    write_doubles(out, 16, &histogram.custom_bounds);
}

/// A count as a member of a oneof, which is written also when it is 0, or it would be another kind.
fn write_count(out: &mut Vec<u8>, count: f64, is_whole: bool, [integer, float]: [u32; 2]) {
    if is_whole {
        write_varint(out, u64::from(integer << 3));
        write_varint(out, count as u64);
    } else {
        write_varint(out, u64::from(float << 3 | 1));
        out.extend_from_slice(&count.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        remote_write::{SampleValue, read_histogram},
        wire::Reader,
    };
    use trefoil_model::ResetHint;
    use trefoil_model::histogram::Buckets;

    fn check(histogram: &Histogram, expected: &[&[u8]]) {
        let mut out = Vec::new();
        write_histogram(&mut out, 5, histogram);
        assert_eq!(out, expected.concat());
        let read = read_histogram(Reader::new(&out, out.len())).unwrap();
        let read = read.expect("a sound histogram");
        let SampleValue::Histogram(value) = read.value else {
            panic!("a histogram: {read:?}")
        };
        assert!(value.same_content(histogram), "{value:?}");
        assert_eq!(value.reset_hint, histogram.reset_hint);
        assert_eq!(read.time, 5);
    }

    /// The fields in the order of their numbers: kind of the number, sum, schema, threshold, kind of the zero bucket, sides.
    #[test]
    fn whole_counts_are_integers_and_others_floats() {
        let mut histogram = Histogram {
            schema: -1,
            reset_hint: ResetHint::Gauge,
            count: 300.0,
            sum: 1.5,
            zero_threshold: 0.5,
            positive: Buckets::from_spans(&[(-1, 2)], vec![4.0, 1.0]).unwrap(),
            negative: Buckets::from_spans(&[(2, 1)], vec![295.0]).unwrap(),
            ..Histogram::default()
        };
        let sum = [&b"\x19"[..], &1.5f64.to_le_bytes(), b"\x20\x01"].concat();
        let threshold = [&b"\x29"[..], &0.5f64.to_le_bytes()].concat();
        check(
            &histogram,
            &[
                b"\x08\xac\x02",
                &sum,
                &threshold,
                b"\x30\x00",
                b"\x42\x04\x08\x04\x10\x01\x4a\x02\xce\x04",
                b"\x5a\x04\x08\x01\x10\x02\x62\x02\x08\x05",
                b"\x70\x03\x78\x05",
            ],
        );
        histogram.count = 300.5;
        let double = |tag: &[u8], value: f64| [tag, &value.to_le_bytes()].concat();
        check(
            &histogram,
            &[
                &double(b"\x11", 300.5),
                &sum,
                &threshold,
                &double(b"\x39", 0.0),
                b"\x42\x04\x08\x04\x10\x01",
                &double(b"\x52\x08", 295.0),
                b"\x5a\x04\x08\x01\x10\x02",
                &double(b"\x6a\x10", 4.0),
                &1f64.to_le_bytes(),
                b"\x70\x03\x78\x05",
            ],
        );
        let empty = Histogram::default();
        check(&empty, &[b"\x08\x00\x30\x00\x78\x05"]);
    }
}
