//! One native histogram as bytes: how it travels in bodies and waits in the head, and what digests hash.
//!
//! ```text
//! packed = schema i8 | flags u8: reset hint (0 unknown, 1 reset, 2 not reset, 3 gauge) | 4 when counts are integers
//!          | exponential: zero threshold f64 LE            custom: varint bounds | f64 LE per bound
//!          | spans of the positive side | spans of the negative side | sum f64 LE
//!          | counts: all observations, zero bucket, positive buckets, negative buckets
//! spans  = varint count | per span: zigzag varint buckets skipped behind the previous span | varint buckets
//! counts = integers: varint each, buckets as zigzag varint behind the bucket before (the first of a side: behind 0)
//!          else f64 LE each
//! ```
//! A histogram has exactly one form: spans are the longest runs of listed buckets, and counts are integers exactly when
//! all of them are whole, not negative and at most 2^53. So equal bytes mean equal histograms, on every replica.

use crate::body::{unzigzag, zigzag};
use std::sync::Arc;
use trefoil_model::histogram::{BUCKETS_STORED_MAX, Buckets, SCHEMA_CUSTOM};
use trefoil_model::{Histogram, ResetHint, read_varint, write_varint};

const FLAG_INTEGERS: u8 = 4;

/// Largest integer up to which doubles are dense.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Appends the packed form.
pub(crate) fn pack(histogram: &Histogram, out: &mut Vec<u8>) {
    let counts = || {
        let first = [histogram.count, histogram.zero_count].into_iter();
        let sides = [&histogram.positive, &histogram.negative];
        first.chain(sides.into_iter().flat_map(|side| side.counts()).copied())
    };
    let integers = counts().all(is_integer);
    write_layout(histogram, integers, out);
    out.extend_from_slice(&histogram.sum.to_bits().to_le_bytes());
    if !integers {
        counts().for_each(|count| out.extend_from_slice(&count.to_bits().to_le_bytes()));
        return;
    }
    write_varint(out, histogram.count as u64);
    write_varint(out, histogram.zero_count as u64);
    for side in [&histogram.positive, &histogram.negative] {
        let mut previous = 0;
        for count in side.counts() {
            let count = *count as i64;
            write_varint(out, zigzag(count - previous));
            previous = count;
        }
    }
}

fn is_integer(count: f64) -> bool {
    // Negative zero is not the same bits as the integer.
    (0.0..=INTEGER_MAX).contains(&count) && count.fract() == 0.0 && count.is_sign_positive()
}

/// Reads a packed histogram that fills `bytes`; `None` when it is malformed or not in its only form.
pub(crate) fn unpack(bytes: &[u8]) -> Option<Histogram> {
    let mut at = 0;
    let (layout, integers) = Layout::read(bytes, &mut at)?;
    let sum = read_float(bytes, &mut at)?;
    let mut counts = Vec::with_capacity(2 + layout.buckets());
    if integers {
        counts.push(read_varint(bytes, &mut at)? as f64);
        counts.push(read_varint(bytes, &mut at)? as f64);
        for spans in [&layout.positive, &layout.negative] {
            let mut count = 0i64;
            for _ in 0..buckets_of(spans) {
                count = count.checked_add(unzigzag(read_varint(bytes, &mut at)?))?;
                counts.push(count as f64);
            }
        }
    } else {
        for _ in 0..2 + layout.buckets() {
            counts.push(read_float(bytes, &mut at)?);
        }
    }
    let is_only_form = counts.iter().all(|count| is_integer(*count)) == integers;
    let histogram = layout.histogram(&counts, sum)?;
    (at == bytes.len() && is_only_form).then_some(histogram)
}

/// What neighbouring histograms of a series mostly have in common: all but the numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    schema: i8,
    hint: ResetHint,
    zero_threshold: f64,
    bounds: Arc<[f64]>,
    positive: Vec<(i32, u32)>,
    negative: Vec<(i32, u32)>,
}

/// Appends the layout of a histogram with its flags.
pub(crate) fn write_layout(histogram: &Histogram, integers: bool, out: &mut Vec<u8>) {
    out.push(histogram.schema as u8);
    let hint = match histogram.reset_hint {
        ResetHint::Unknown => 0,
        ResetHint::Reset => 1,
        ResetHint::NotReset => 2,
        ResetHint::Gauge => 3,
    };
    out.push(hint | if integers { FLAG_INTEGERS } else { 0 });
    if histogram.is_custom() {
        write_varint(out, histogram.custom_bounds.len() as u64);
        for bound in histogram.custom_bounds.iter() {
            out.extend_from_slice(&bound.to_bits().to_le_bytes());
        }
    } else {
        out.extend_from_slice(&histogram.zero_threshold.to_bits().to_le_bytes());
    }
    for side in [&histogram.positive, &histogram.negative] {
        let spans = side.spans();
        write_varint(out, spans.len() as u64);
        for (offset, length) in spans {
            write_varint(out, zigzag(i64::from(offset)));
            write_varint(out, u64::from(length));
        }
    }
}

impl Layout {
    /// Reads a layout and whether its counts are integers.
    pub(crate) fn read(bytes: &[u8], at: &mut usize) -> Option<(Self, bool)> {
        let [schema, flags] = *bytes.get(*at..)?.first_chunk::<2>()?;
        *at += 2;
        let hint = match flags & 3 {
            0 => ResetHint::Unknown,
            1 => ResetHint::Reset,
            2 => ResetHint::NotReset,
            _ => ResetHint::Gauge,
        };
        if flags > FLAG_INTEGERS + 3 {
            return None;
        }
        let schema = schema as i8;
        let (mut zero_threshold, mut bounds) = (0.0, Vec::new());
        if schema == SCHEMA_CUSTOM {
            let count = usize::try_from(read_varint(bytes, at)?).ok()?;
            if count > BUCKETS_STORED_MAX.min((bytes.len() - *at) / 8) {
                return None;
            }
            for _ in 0..count {
                bounds.push(read_float(bytes, at)?);
            }
        } else {
            zero_threshold = read_float(bytes, at)?;
        }
        let layout = Self {
            schema,
            hint,
            zero_threshold,
            bounds: bounds.into(),
            positive: read_spans(bytes, at)?,
            negative: read_spans(bytes, at)?,
        };
        let integers = flags & FLAG_INTEGERS != 0;
        (layout.buckets() <= BUCKETS_STORED_MAX).then_some((layout, integers))
    }

    /// How many buckets are listed on both sides.
    pub(crate) fn buckets(&self) -> usize {
        buckets_of(&self.positive).saturating_add(buckets_of(&self.negative))
    }

    /// The histogram with these counts: all observations, zero bucket, positive and negative buckets.
    pub(crate) fn histogram(&self, counts: &[f64], sum: f64) -> Option<Histogram> {
        let (&[count, zero_count], buckets) = counts.split_first_chunk::<2>()?;
        let (positive, negative) = buckets.split_at_checked(buckets_of(&self.positive))?;
        let histogram = Histogram {
            schema: self.schema,
            reset_hint: self.hint,
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum,
            positive: Buckets::from_spans(&self.positive, positive.to_vec()).ok()?,
            negative: Buckets::from_spans(&self.negative, negative.to_vec()).ok()?,
            custom_bounds: Arc::clone(&self.bounds),
        };
        histogram.check().ok()?;
        Some(histogram)
    }
}

fn buckets_of(spans: &[(i32, u32)]) -> usize {
    let lengths = spans.iter().map(|(_, length)| *length as usize);
    lengths.fold(0, usize::saturating_add)
}

/// Spans in their only form: none is empty, and none begins where the one before ends.
fn read_spans(bytes: &[u8], at: &mut usize) -> Option<Vec<(i32, u32)>> {
    let count = usize::try_from(read_varint(bytes, at)?).ok()?;
    if count > bytes.len() - *at {
        return None;
    }
    let mut spans = Vec::with_capacity(count);
    for index in 0..count {
        let offset = i32::try_from(unzigzag(read_varint(bytes, at)?)).ok()?;
        let length = u32::try_from(read_varint(bytes, at)?).ok()?;
        if length == 0 || (index > 0 && offset <= 0) {
            return None;
        }
        spans.push((offset, length));
    }
    Some(spans)
}

fn read_float(bytes: &[u8], at: &mut usize) -> Option<f64> {
    let eight = *bytes.get(*at..)?.first_chunk::<8>()?;
    *at += 8;
    Some(f64::from_bits(u64::from_le_bytes(eight)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// A histogram as clients send them, or as nobody would.
    pub(crate) fn random_histogram(random: &mut StdRng) -> Histogram {
        let custom = random.random_bool(0.3);
        let floats = random.random_bool(0.3);
        let side = |random: &mut StdRng, first: i32| {
            let spans: Vec<(i32, u32)> = (0..random.random_range(0..3))
                .map(|at| {
                    let from = if at == 0 { first } else { 1 };
                    (random.random_range(from..6), random.random_range(1..5))
                })
                .collect();
            let counts = (0..buckets_of(&spans)).map(|_| {
                let count = f64::from(random.random_range(0..1_000u32));
                if floats { count / 7.0 } else { count }
            });
            Buckets::from_spans(&spans, counts.collect()).expect("lengths agree")
        };
        let positive = side(random, if custom { 0 } else { -5 });
        let negative = match custom {
            true => Buckets::default(),
            false => side(random, -5),
        };
        let bounds = (0..40).map(|at| f64::from(at) * 0.25);
        Histogram {
            schema: if custom {
                SCHEMA_CUSTOM
            } else {
                random.random_range(-4..=8)
            },
            reset_hint: match random.random_range(0..4) {
                0 => ResetHint::Gauge,
                1 => ResetHint::Reset,
                _ => ResetHint::Unknown,
            },
            zero_threshold: if custom { 0.0 } else { 0.001 },
            zero_count: if custom {
                0.0
            } else {
                f64::from(random.random_range(0..9u32))
            },
            count: f64::from(random.random_range(0..100_000u32)),
            sum: f64::from_bits(random.random()),
            positive,
            negative,
            custom_bounds: bounds.filter(|_| custom).collect(),
        }
    }

    fn packed(histogram: &Histogram) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(histogram, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_packed_is_unpacked_to_the_bit() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..2_000 {
            let histogram = random_histogram(&mut random);
            let bytes = packed(&histogram);
            let back = unpack(&bytes).expect("what was packed");
            assert!(back.same_content(&histogram), "{histogram:?}");
            assert_eq!(back.reset_hint, histogram.reset_hint);
            assert_eq!(packed(&back), bytes);
        }
    }

    #[test]
    fn hostile_bytes_give_nothing_or_the_only_form() {
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..20_000 {
            let mut bytes = packed(&random_histogram(&mut random));
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, random.random()),
            }
            if let Some(histogram) = unpack(&bytes) {
                let again = unpack(&packed(&histogram)).expect("what was packed");
                assert!(again.same_content(&histogram));
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let histogram = Histogram {
            schema: 3,
            reset_hint: ResetHint::Gauge,
            zero_threshold: 0.5,
            zero_count: 2.0,
            count: 10.0,
            sum: 1.5,
            positive: Buckets::from_spans(&[(-1, 2), (3, 1)], vec![4.0, 1.0, 3.0]).unwrap(),
            ..Histogram::default()
        };
        let bytes = packed(&histogram);
        let expected = b"\x03\x07\0\0\0\0\0\0\xe0\x3f\x02\x01\x02\x06\x01\x00\0\0\0\0\0\0\xf8\x3f\x0a\x02\x08\x05\x04";
        assert_eq!(bytes, expected, "{bytes:02x?}");
    }
}
