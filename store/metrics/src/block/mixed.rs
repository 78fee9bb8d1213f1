//! The column of a series that has native histograms or start timestamps: kind 4 beside the kinds of `value`.
//!
//! ```text
//! mixed      = kind u8 (4) | starts | kinds | floats | histograms
//! starts     = varint runs (0: none is known) | per run: varint samples
//!              | zigzag varint start behind the previous run's (the first: behind 0)
//! kinds      = varint runs | per run: varint samples, floats and histograms by turns, floats first
//! floats     = part: the values that are floats
//! histograms = absent if there is none, else
//!              varint layouts | per layout: varint histograms | layout, as in `histogram`
//!              | part: counts | part: zero counts | part: sums | part: buckets
//! part       = varint length | a column of `value`; length 0 when it has no value
//! ```
//! Neighbouring histograms of one layout share it. Of each layout the buckets stand one behind the other, positive ones
//! first, each with its counts in order of time: a bucket's counts differ little. The flag for integers is not used.

use crate::body::{unzigzag, zigzag};
use crate::columns::{Column, SampleSlice};
use crate::histogram::{Layout, write_layout};
use crate::packed::Bits;
use crate::rows::text_end;
use crate::value::{Coded, HISTOGRAM_BITS, ValueEncoder, decode_coded};
use std::sync::Arc;
use trefoil_model::histogram::BUCKETS_STORED_MAX;
use trefoil_model::{Histogram, read_varint, write_varint};

/// The first byte of a mixed column.
pub(super) const KIND_MIXED: u8 = 4;

/// Appends the mixed column of samples, of which there is one at least.
pub(super) fn encode_mixed(
    encoder: &mut ValueEncoder,
    samples: SampleSlice<'_>,
    coded: &mut Coded<'_>,
) {
    let out = &mut *coded.content;
    out.push(KIND_MIXED);
    write_starts(samples, out);
    write_kinds(samples, out);
    let all = samples.iter();
    let floats = all.filter(|sample| sample.histogram.is_none());
    let floats: Vec<f64> = floats.map(|sample| sample.value).collect();
    write_part(encoder, &floats, coded);
    let histograms: Vec<&Histogram> = samples.histograms.iter().flatten().map(|h| &**h).collect();
    if histograms.is_empty() {
        return;
    }
    let mut layouts: Vec<(usize, Vec<u8>)> = Vec::new();
    for histogram in &histograms {
        let mut layout = Vec::new();
        write_layout(histogram, false, &mut layout);
        match layouts.last_mut() {
            Some((count, last)) if *last == layout => *count += 1,
            _ => layouts.push((1, layout)),
        }
    }
    let out = &mut *coded.content;
    write_varint(out, layouts.len() as u64);
    let mut buckets = Vec::new();
    let mut rest = &histograms[..];
    for (count, layout) in &layouts {
        write_varint(out, *count as u64);
        out.extend_from_slice(layout);
        let (same, behind) = rest.split_at(*count);
        rest = behind;
        for bucket in 0..same[0].positive.len() {
            buckets.extend(same.iter().map(|h| h.positive.counts()[bucket]));
        }
        for bucket in 0..same[0].negative.len() {
            buckets.extend(same.iter().map(|h| h.negative.counts()[bucket]));
        }
    }
    for number in [
        |h: &Histogram| h.count,
        |h: &Histogram| h.zero_count,
        |h: &Histogram| h.sum,
    ] {
        let column: Vec<f64> = histograms.iter().map(|h| number(h)).collect();
        write_part(encoder, &column, coded);
    }
    write_part(encoder, &buckets, coded);
}

fn write_part(encoder: &mut ValueEncoder, values: &[f64], coded: &mut Coded<'_>) {
    let mut part = Vec::new();
    if !values.is_empty() {
        let part = &mut Coded {
            content: &mut part,
            bits: coded.bits.as_deref_mut(),
        };
        encoder.encode_to(values, part);
    }
    write_varint(coded.content, part.len() as u64);
    coded.content.extend_from_slice(&part);
}

fn write_starts(samples: SampleSlice<'_>, out: &mut Vec<u8>) {
    if samples.starts.iter().all(|start| *start == 0) {
        out.push(0);
        return;
    }
    let runs = samples.starts.chunk_by(|a, b| a == b);
    write_varint(out, runs.clone().count() as u64);
    let mut previous = 0;
    for run in runs {
        write_varint(out, run.len() as u64);
        write_varint(out, zigzag(run[0].wrapping_sub(previous)));
        previous = run[0];
    }
}

fn write_kinds(samples: SampleSlice<'_>, out: &mut Vec<u8>) {
    let mut runs: Vec<u64> = vec![0];
    for sample in samples.iter() {
        let is_histogram = sample.histogram.is_some();
        // Runs at even places are floats.
        if is_histogram == (runs.len() % 2 == 1) {
            runs.push(0);
        }
        let last = runs.len() - 1;
        runs[last] += 1;
    }
    write_varint(out, runs.len() as u64);
    runs.into_iter().for_each(|run| write_varint(out, run));
}

/// Reads the mixed column of `into`'s timestamps into its other columns, which are empty. `None` when it is malformed.
pub(super) fn decode_mixed(
    bytes: &[u8],
    bits: Option<&mut Bits<'_>>,
    into: &mut Column,
) -> Option<()> {
    let count = into.timestamps.len();
    let mut at = 1;
    read_starts(bytes, &mut at, into)?;
    let (mut runs, mut total) = (Vec::new(), 0usize);
    let in_column = |number: u64| usize::try_from(number).ok().filter(|n| *n <= count);
    for _ in 0..in_bytes(read_varint(bytes, &mut at)?, bytes, at)? {
        let run = in_column(read_varint(bytes, &mut at)?)?;
        total = total.checked_add(run)?;
        runs.push(run);
    }
    if total != count {
        return None;
    }
    let histogram_count: usize = runs.iter().skip(1).step_by(2).sum();
    let mut floats = Vec::new();
    let place = &mut Place { bytes, at, bits };
    read_part(place, count - histogram_count, &mut floats)?;
    let histograms = match histogram_count {
        0 => Vec::new(),
        _ => read_histograms(place, histogram_count)?,
    };
    let (mut floats, mut histograms) = (floats.into_iter(), histograms.into_iter());
    for (place, run) in runs.into_iter().enumerate() {
        if place % 2 == 0 {
            into.values.extend(floats.by_ref().take(run));
            continue;
        }
        into.histograms.resize(into.values.len(), None);
        into.histograms
            .extend(histograms.by_ref().take(run).map(Some));
        let behind = into.values.len() + run;
        into.values.resize(behind, f64::from_bits(HISTOGRAM_BITS));
    }
    if histogram_count > 0 {
        into.histograms.resize(count, None);
    }
    (place.at == bytes.len()).then_some(())
}

/// A number of things that take at least a byte each.
fn in_bytes(count: u64, bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= bytes.len() - at)
}

fn read_starts(bytes: &[u8], at: &mut usize, into: &mut Column) -> Option<()> {
    let count = into.timestamps.len();
    let runs = in_bytes(read_varint(bytes, at)?, bytes, *at)?;
    let mut start = 0i64;
    for _ in 0..runs {
        let run = usize::try_from(read_varint(bytes, at)?).ok()?;
        start = start.wrapping_add(unzigzag(read_varint(bytes, at)?));
        let behind = into
            .starts
            .len()
            .checked_add(run)
            .filter(|end| *end <= count)?;
        into.starts.resize(behind, start);
    }
    (runs == 0 || into.starts.len() == count).then_some(())
}

/// How far a column is read.
struct Place<'p, 'b> {
    bytes: &'p [u8],
    at: usize,
    bits: Option<&'p mut Bits<'b>>,
}

/// Reads a part of `count` values.
fn read_part(place: &mut Place<'_, '_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    let end = text_end(place.bytes, place.at)?;
    let length = usize::try_from(read_varint(place.bytes, &mut place.at)?).ok()?;
    let part = &place.bytes[end - length..end];
    place.at = end;
    match (count, length) {
        (0, 0) => Some(()),
        (0, _) | (_, 0) => None,
        _ => decode_coded(part, count, place.bits.as_deref_mut(), out),
    }
}

fn read_histograms(place: &mut Place<'_, '_>, count: usize) -> Option<Vec<Arc<Histogram>>> {
    let (bytes, at) = (place.bytes, &mut place.at);
    let mut layouts: Vec<(usize, Layout)> = Vec::new();
    let (mut total, mut bucket_count) = (0usize, 0usize);
    for _ in 0..in_bytes(read_varint(bytes, at)?, bytes, *at)? {
        let with_layout = usize::try_from(read_varint(bytes, at)?).ok()?;
        total = total
            .checked_add(with_layout)
            .filter(|total| *total <= count)?;
        let (layout, _) = Layout::read(bytes, at)?;
        // Both are bounded, by the timestamps and by the buckets that a histogram may have.
        assert!(layout.buckets() <= BUCKETS_STORED_MAX);
        bucket_count += with_layout * layout.buckets();
        layouts.push((with_layout, layout));
    }
    if total != count {
        return None;
    }
    let mut columns = [const { Vec::new() }; 4];
    for (column, length) in columns.iter_mut().zip([count, count, count, bucket_count]) {
        read_part(place, length, column)?;
    }
    let [counts, zero_counts, sums, buckets] = columns;
    let mut histograms = Vec::with_capacity(count);
    let mut numbers = Vec::new();
    let mut first_bucket = 0;
    for (with_layout, layout) in layouts {
        for index in 0..with_layout {
            let place = histograms.len();
            numbers.clear();
            numbers.extend([counts[place], zero_counts[place]]);
            let bucket = |bucket: usize| buckets[first_bucket + bucket * with_layout + index];
            numbers.extend((0..layout.buckets()).map(bucket));
            histograms.push(Arc::new(layout.histogram(&numbers, sums[place])?));
        }
        first_bucket += with_layout * layout.buckets();
    }
    Some(histograms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{pack, tests::random_histogram};
    use crate::packed::BITS_PADDING;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn random_column(random: &mut StdRng) -> Column {
        let mut column = Column::default();
        let mut histogram = random_histogram(random);
        let starts = random.random_bool(0.5);
        for time in 0..random.random_range(1..40) {
            column.push(time, f64::from(random.random_range(0..50u32)) / 4.0);
            if random.random_bool(0.1) {
                histogram = random_histogram(random);
            }
            if random.random_bool(0.7) {
                histogram.count += 1.0;
                column.set_last_histogram(Arc::new(histogram.clone()));
            }
            if starts {
                column.set_last_start(time / 10 * 1_000);
            }
        }
        column
    }

    fn encode(column: &Column) -> Vec<u8> {
        let mut bytes = Vec::new();
        let coded = &mut Coded {
            content: &mut bytes,
            bits: None,
        };
        encode_mixed(&mut ValueEncoder::default(), column.slice(), coded);
        bytes
    }

    /// The column with packed values, and their bits with the padding.
    fn encode_packed(column: &Column) -> (Vec<u8>, Vec<u8>) {
        let (mut bytes, mut bits) = (Vec::new(), Vec::new());
        let coded = &mut Coded {
            content: &mut bytes,
            bits: Some(&mut bits),
        };
        encode_mixed(&mut ValueEncoder::default(), column.slice(), coded);
        bits.extend([0; BITS_PADDING]);
        (bytes, bits)
    }

    fn decode(bytes: &[u8], into: &mut Column) -> Option<()> {
        decode_mixed(bytes, None, into)
    }

    fn decode_packed(bytes: &[u8], bits: &[u8], into: &mut Column) -> Option<()> {
        let mut bits = Bits::new(bits, 0, bits.len() - BITS_PADDING);
        decode_mixed(bytes, Some(&mut bits), into)?;
        bits.is_empty().then_some(())
    }

    fn content(column: &Column) -> Vec<(u64, Vec<u8>, i64)> {
        let content = column.slice().iter().map(|sample| {
            let mut packed = Vec::new();
            if let Some(histogram) = sample.histogram {
                pack(histogram, &mut packed);
            }
            (sample.value.to_bits(), packed, sample.start)
        });
        content.collect()
    }

    #[test]
    fn what_is_written_is_read_to_the_bit() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..1_000 {
            let column = random_column(&mut random);
            let mut back = Column {
                timestamps: column.timestamps.clone(),
                ..Column::default()
            };
            let mut packed_back = back.clone();
            decode(&encode(&column), &mut back).expect("what was written");
            assert_eq!(content(&back), content(&column));
            let (bytes, bits) = encode_packed(&column);
            decode_packed(&bytes, &bits, &mut packed_back).expect("what was packed");
            assert_eq!(content(&packed_back), content(&column));
        }
    }

    #[test]
    fn hostile_columns_give_none_or_the_right_count() {
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..20_000 {
            let column = random_column(&mut random);
            let packed = random.random_bool(0.5);
            let (mut bytes, bits) = match packed {
                true => encode_packed(&column),
                false => (encode(&column), vec![0; BITS_PADDING]),
            };
            let at = random.random_range(1..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, random.random()),
            }
            let mut back = Column {
                timestamps: column.timestamps.clone(),
                ..Column::default()
            };
            let decoded = match packed {
                true => decode_packed(&bytes, &bits, &mut back),
                false => decode(&bytes, &mut back),
            };
            if decoded.is_some() {
                assert_eq!(back.values.len(), column.values.len());
                assert_eq!(back.slice().iter().count(), column.values.len());
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let mut column = Column::default();
        column.push(0, 1.0);
        for time in [1, 2] {
            let histogram = Histogram {
                zero_threshold: 0.5,
                count: 2.0 * time as f64,
                sum: 1.0,
                positive: trefoil_model::histogram::Buckets::from_spans(
                    &[(1, 2)],
                    vec![1.0, time as f64],
                )
                .unwrap(),
                ..Histogram::default()
            };
            column.push(time, 0.0);
            column.set_last_histogram(Arc::new(histogram));
            column.set_last_start(1);
        }
        let bytes = encode(&column);
        let expected: &[&[u8]] = &[
            b"\x04\x02\x01\x00\x02\x02",
            b"\x02\x01\x02",
            b"\x09\x00\0\0\0\0\0\0\xf0\x3f",
            b"\x01\x02\x00\x00\0\0\0\0\0\0\xe0\x3f\x01\x02\x02\x00",
            b"\x05\x01\x00\x00\x04\x04",
            b"\x09\x00\0\0\0\0\0\0\0\0",
            b"\x09\x00\0\0\0\0\0\0\xf0\x3f",
            b"\x07\x01\x00\x00\x02\x00\x00\x02",
        ];
        assert_eq!(bytes, expected.concat(), "{bytes:02x?}");
    }
}
