//! OpenTelemetry's exponential histograms as native histograms.
//!
//! Both have bounds at powers of `2^(2^-scale)`. OpenTelemetry counts buckets by their lower bound and native histograms by
//! the upper one, hence a difference of one. Scales that are finer than native histograms have are merged; coarser
//! ones have no counterpart and are refused.
//!
//! Source: OpenTelemetry's "Prometheus and OpenMetrics compatibility".

use crate::{
    ApiError,
    remote_write::check_count,
    wire::{Reader, WireType},
};
use trefoil_model::{
    Histogram,
    histogram::{Buckets, SCHEMA_MAX, SCHEMA_MIN},
};

/// The width of the zero bucket of points that do not say theirs, as Prometheus has it.
const ZERO_THRESHOLD: f64 = 1e-128;

/// What a data point has of an exponential histogram beside count and sum.
#[derive(Debug, Default)]
pub(super) struct Exponential {
    pub(super) scale: i32,
    pub(super) zero_count: u64,
    pub(super) zero_threshold: f64,
    pub(super) positive: Side,
    pub(super) negative: Side,
}

/// Buckets of one side, without gaps.
#[derive(Debug, Default)]
pub(super) struct Side {
    offset: i32,
    counts: Vec<u64>,
}

impl Exponential {
    pub(super) fn clear(&mut self) {
        (self.scale, self.zero_count, self.zero_threshold) = (0, 0, 0.0);
        for side in [&mut self.positive, &mut self.negative] {
            side.offset = 0;
            side.counts.clear();
        }
    }

    /// The native histogram.
    ///
    /// # Errors
    /// In words, when there is none.
    pub(super) fn to_native(&self, count: u64, sum: f64) -> Result<Histogram, String> {
        if self.scale < i32::from(SCHEMA_MIN) {
            let scale = self.scale;
            return Err(format!(
                "has the scale {scale}, native histograms begin at {SCHEMA_MIN}"
            ));
        }
        let schema = self.scale.min(i32::from(SCHEMA_MAX));
        let shift = (self.scale - schema).min(i64::BITS as i32 - 1);
        let buckets = |side: &Side| side.merged(shift as u32).map_err(|error| error.to_string());
        let is_said = self.zero_threshold > 0.0;
        let histogram = Histogram {
            schema: schema as i8,
            zero_threshold: if is_said {
                self.zero_threshold
            } else {
                ZERO_THRESHOLD
            },
            zero_count: self.zero_count as f64,
            count: count as f64,
            sum,
            positive: buckets(&self.positive)?,
            negative: buckets(&self.negative)?,
            ..Histogram::default()
        };
        match check_count(&histogram) {
            Ok(()) => Ok(histogram),
            Err(reason) => Err(format!("has a wrong histogram: {reason}")),
        }
    }
}

impl Side {
    pub(super) fn read(&mut self, mut reader: Reader<'_>) -> Result<(), ApiError> {
        const NAME: &str = "Buckets";
        while !reader.is_at_end() {
            match reader.tag(NAME)? {
                (1, WireType::Varint) => self.offset = zigzag(reader.varint(NAME)?),
                (2, WireType::Varint) => self.counts.push(reader.varint(NAME)?),
                (2, WireType::Bytes) => {
                    let mut packed = reader.message(NAME)?;
                    while !packed.is_at_end() {
                        self.counts.push(packed.varint(NAME)?);
                    }
                }
                (_, wire_type) => reader.skip(wire_type, NAME)?,
            }
        }
        Ok(())
    }

    /// The buckets that are not empty, `2^shift` of them in one.
    fn merged(&self, shift: u32) -> Result<Buckets, trefoil_model::ModelError> {
        let mut merged: Vec<(i64, f64)> = Vec::new();
        for (index, count) in (i64::from(self.offset)..).zip(&self.counts) {
            let index = (index >> shift) + 1;
            match merged.last_mut() {
                _ if *count == 0 => {}
                Some((last, sum)) if *last == index => *sum += *count as f64,
                _ => merged.push((index, *count as f64)),
            }
        }
        let mut next = 0;
        let spans: Vec<(i32, u32)> = merged
            .iter()
            .map(|(index, _)| {
                let distance = (index - next).clamp(i32::MIN.into(), i32::MAX.into());
                next = index + 1;
                (distance as i32, 1)
            })
            .collect();
        Buckets::from_spans(&spans, merged.into_iter().map(|(_, count)| count).collect())
    }
}

/// A signed number as protobuf folds it.
pub(super) fn zigzag(number: u64) -> i32 {
    let number = number as u32;
    (number >> 1) as i32 ^ -((number & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(scale: i32, offset: i32, counts: &[u64]) -> Result<(i8, Vec<(i32, f64)>), String> {
        let exponential = Exponential {
            scale,
            positive: Side {
                offset,
                counts: counts.to_vec(),
            },
            ..Exponential::default()
        };
        let histogram = exponential.to_native(counts.iter().sum(), 1.5)?;
        histogram.check().map_err(|error| error.to_string())?;
        Ok((histogram.schema, histogram.positive.iter().collect()))
    }

    #[test]
    fn buckets_are_counted_by_their_upper_bound() {
        let buckets = vec![(-1, 1.0), (1, 2.0), (2, 3.0)];
        assert_eq!(native(0, -2, &[1, 0, 2, 3]).unwrap(), (0, buckets));
        assert_eq!(native(8, 0, &[]).unwrap(), (8, vec![]));
    }

    #[test]
    fn fine_scales_are_merged_and_coarse_ones_refused() {
        // At scale 9 the buckets (2^(-2/512), 2^(-1/512)] and the next one are one bucket at scale 8.
        let buckets = vec![(0, 3.0), (1, 7.0), (2, 5.0)];
        assert_eq!(native(9, -2, &[1, 2, 3, 4, 5]).unwrap(), (8, buckets));
        assert_eq!(native(i32::MAX, 0, &[1, 2]).unwrap(), (8, vec![(1, 3.0)]));
        assert_eq!(native(-4, 0, &[1]).unwrap().0, -4);
        let error = native(-5, 0, &[1]).unwrap_err();
        assert_eq!(error, "has the scale -5, native histograms begin at -4");
    }

    #[test]
    fn counts_have_to_fit() {
        let point = Exponential {
            zero_count: 1,
            positive: Side {
                offset: 0,
                counts: vec![4],
            },
            ..Exponential::default()
        };
        point.to_native(5, 1.5).unwrap();
        assert_eq!(
            point.to_native(99, 1.5).unwrap_err(),
            "has a wrong histogram: 5 observations found in buckets, but the Count field is 99: \
             histogram's observation count should equal the number of observations found in the \
             buckets (in absence of NaN)"
        );
        // Observations of NaN are in no bucket.
        point.to_native(99, f64::NAN).unwrap();
        point.to_native(4, f64::NAN).unwrap_err();
    }

    #[test]
    fn signs_are_unfolded() {
        assert_eq!([0, 1, 2, 3].map(zigzag), [0, -1, 1, -2]);
        assert_eq!(zigzag(u32::MAX.into()), i32::MIN);
    }
}
