//! Chunks of histograms against a reader that is written from the format alone, and from what Prometheus' readers make
//! of the reset flags.

use super::*;
use crate::{
    remote_read::{Frames, bit_reader::BitReader},
    wire::{Reader, WireType},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use trefoil_model::{Labels, histogram::SCHEMA_CUSTOM, read_varint};
use trefoil_query_promql::{
    HISTOGRAM, Histograms, RawSeries, STALE_MARKER_BITS, Value, is_histogram,
};

const STALE: f64 = f64::from_bits(STALE_MARKER_BITS);

fn unsigned(bits: &mut BitReader<'_>) -> u64 {
    match bits.ones(8) {
        0 => 0,
        ones => bits.read([3, 6, 9, 12, 18, 25, 56, 64][ones as usize - 1]),
    }
}

fn signed(bits: &mut BitReader<'_>) -> i64 {
    let ones = bits.ones(8);
    if ones == 0 {
        return 0;
    }
    let length = [3, 6, 9, 12, 18, 25, 56, 64][ones as usize - 1];
    let number = bits.read(length);
    // Above the middle it is negative; the middle itself is not.
    match length < 64 && number > 1 << (length - 1) {
        true => number as i64 - (1 << length),
        false => number as i64,
    }
}

/// The number before, and the leading zeros and length of the last change that said so.
#[derive(Clone, Copy)]
struct Before {
    bits: u64,
    leading: u32,
    length: u32,
}

impl Before {
    fn new(bits: u64) -> Self {
        Self {
            bits,
            leading: 0,
            length: 0,
        }
    }

    fn read(&mut self, bits: &mut BitReader<'_>) -> f64 {
        if bits.read(1) == 1 {
            if bits.read(1) == 1 {
                self.leading = bits.read(5) as u32;
                self.length = match bits.read(6) {
                    0 => 64,
                    length => length as u32,
                };
            }
            self.bits ^= bits.read(self.length) << (64 - self.leading - self.length);
        }
        f64::from_bits(self.bits)
    }
}

/// Schema, zero threshold, spans of both sides, bounds.
type Layout = (i8, f64, [Vec<(i32, u32)>; 2], Vec<f64>);

fn layout(bits: &mut BitReader<'_>) -> Layout {
    let threshold = match bits.read(8) {
        0 => 0.0,
        255 => f64::from_bits(bits.read(64)),
        exponent => 0.5 * f64::from(exponent as i32 - 243).exp2(),
    };
    let schema = signed(bits) as i8;
    let spans = [(); 2].map(|()| {
        let count = unsigned(bits);
        let mut spans = Vec::new();
        for _ in 0..count {
            let length = unsigned(bits) as u32;
            spans.push((signed(bits) as i32, length));
        }
        spans
    });
    let mut bounds = Vec::new();
    if schema == SCHEMA_CUSTOM {
        for _ in 0..unsigned(bits) {
            bounds.push(match unsigned(bits) {
                0 => f64::from_bits(bits.read(64)),
                more => (more - 1) as f64 / 1000.0,
            });
        }
    }
    (schema, threshold, spans, bounds)
}

/// The columns of a chunk: time, then count, zero bucket and buckets, with the sum apart.
enum Columns {
    Whole(Vec<(i64, i64)>),
    Fractional(Vec<Before>),
}

fn decode(encoding: u64, data: &[u8]) -> Vec<(Millis, Histogram)> {
    let count = u16::from_be_bytes([data[0], data[1]]);
    let mut bits = BitReader::new(&data[3..]);
    let (schema, zero_threshold, spans, bounds) = layout(&mut bits);
    let lengths: [usize; 2] = [0, 1].map(|side| spans[side].iter().map(|s| s.1 as usize).sum());
    let width = 2 + lengths[0] + lengths[1];
    let (mut time, mut delta) = (0i64, 0i64);
    let mut sum = Before::new(0);
    let mut columns = match encoding {
        2 => Columns::Whole(vec![(0, 0); width]),
        3 => Columns::Fractional(vec![Before::new(0); width]),
        _ => panic!("encoding {encoding}"),
    };
    let mut out = Vec::new();
    for at in 0..count {
        let change = signed(&mut bits);
        match at {
            0 => time = change,
            _ => {
                delta += change;
                time += delta;
            }
        }
        let mut values = Vec::new();
        for column in 0..width {
            if column == 2 {
                read_sum(at, &mut sum, &mut bits);
            }
            values.push(match &mut columns {
                Columns::Whole(all) => {
                    let (value, delta) = &mut all[column];
                    match at {
                        0 if column < 2 => *value = unsigned(&mut bits) as i64,
                        0 => *value = signed(&mut bits),
                        _ => {
                            *delta += signed(&mut bits);
                            *value += *delta;
                        }
                    }
                    *value as f64
                }
                Columns::Fractional(all) if at == 0 => {
                    all[column] = Before::new(bits.read(64));
                    f64::from_bits(all[column].bits)
                }
                Columns::Fractional(all) => all[column].read(&mut bits),
            });
        }
        if width == 2 {
            read_sum(at, &mut sum, &mut bits);
        }
        let (ends, buckets) = values.split_at(2);
        let (positive, negative) = buckets.split_at(lengths[0]);
        let side = |spans: &[(i32, u32)], counts: &[f64]| {
            let mut counts = counts.to_vec();
            if encoding == 2 {
                (1..counts.len()).for_each(|at| counts[at] += counts[at - 1]);
            }
            Buckets::from_spans(spans, counts).unwrap()
        };
        let reset_hint = match (data[2] >> 6, at) {
            (0b11, _) => ResetHint::Gauge,
            (_, 1..) => ResetHint::NotReset,
            (0b10, 0) => ResetHint::Reset,
            _ => ResetHint::Unknown,
        };
        let histogram = Histogram {
            schema,
            reset_hint,
            zero_threshold,
            zero_count: ends[1],
            count: ends[0],
            sum: f64::from_bits(sum.bits),
            positive: side(&spans[0], positive),
            negative: side(&spans[1], negative),
            custom_bounds: bounds.clone().into(),
        };
        histogram.check().unwrap();
        out.push((time, histogram));
    }
    assert!(bits.left() < 8, "{} bits are left", bits.left());
    out
}

fn read_sum(at: u16, sum: &mut Before, bits: &mut BitReader<'_>) {
    match at {
        0 => *sum = Before::new(bits.read(64)),
        _ => {
            sum.read(bits);
        }
    }
}

/// Each chunk of the frames of one series: first and last time, encoding, data.
fn chunks(frames: &[u8]) -> Vec<(Millis, Millis, u64, Vec<u8>)> {
    let (mut chunks, mut at) = (Vec::new(), 0);
    while at < frames.len() {
        let length = read_varint(frames, &mut at).unwrap() as usize;
        at += 4;
        let mut message = Reader::new(&frames[at..at + length], length);
        at += length;
        while !message.is_at_end() {
            let (field, wire) = message.tag("").unwrap();
            if field != 1 {
                message.skip(wire, "").unwrap();
                continue;
            }
            let mut series = message.message("").unwrap();
            while !series.is_at_end() {
                match series.tag("").unwrap() {
                    (2, WireType::Bytes) => chunks.push(chunk(series.message("").unwrap())),
                    (_, wire) => series.skip(wire, "").unwrap(),
                }
            }
        }
    }
    chunks
}

fn chunk(mut chunk: Reader<'_>) -> (Millis, Millis, u64, Vec<u8>) {
    let mut fields = (0, 0, 0, Vec::new());
    while !chunk.is_at_end() {
        match chunk.tag("").unwrap() {
            (1, _) => fields.0 = chunk.varint("").unwrap() as i64,
            (2, _) => fields.1 = chunk.varint("").unwrap() as i64,
            (3, _) => fields.2 = chunk.varint("").unwrap(),
            _ => fields.3 = chunk.bytes("").unwrap().to_vec(),
        }
    }
    fields
}

fn native(histogram: &Histogram) -> Value {
    Value::Histogram(Arc::new(histogram.clone()))
}

fn series(samples: &[(Millis, Value)]) -> RawSeries {
    let mut series = RawSeries {
        labels: Labels::from_pairs([("__name__", "h")]),
        timestamps: Vec::new(),
        values: Vec::new(),
        histograms: Histograms::default(),
    };
    for (at, (time, value)) in samples.iter().enumerate() {
        series.timestamps.push(*time);
        series.values.push(value.as_float().unwrap_or(HISTOGRAM));
        if let Value::Histogram(histogram) = value {
            series.histograms.put(at, Arc::clone(histogram));
        }
    }
    series
}

/// Writes histograms, reads them back, compares, and returns encoding and length of each chunk.
fn check(samples: &[(Millis, Histogram)]) -> Vec<(u64, usize)> {
    let all = samples.iter().map(|(time, one)| (*time, native(one)));
    let all: Vec<_> = all.collect();
    let mut expected = samples.iter();
    let mut previous: Option<&Histogram> = None;
    let mut lengths = Vec::new();
    for (first, last, encoding, data) in chunks(&Frames::default().page(0, &[series(&all)])) {
        let read = decode(encoding, &data);
        assert_eq!((read[0].0, read[read.len() - 1].0), (first, last));
        lengths.push((encoding, read.len()));
        for (at, (time, histogram)) in read.into_iter().enumerate() {
            let (stored_at, stored) = expected.next().expect("as many as there were");
            assert_eq!(time, *stored_at);
            if is_stale(stored.sum) {
                assert!(is_stale(histogram.sum));
                previous = None;
                continue;
            }
            assert!(histogram.same_content(stored), "{histogram:?}\n{stored:?}");
            let gauge = ResetHint::Gauge;
            assert_eq!(histogram.reset_hint == gauge, stored.reset_hint == gauge);
            if at > 0 && stored.reset_hint != gauge {
                assert!(!stored.is_reset_after(previous.unwrap()), "at {time}");
            } else if stored.reset_hint == ResetHint::Reset {
                assert_eq!(histogram.reset_hint, ResetHint::Reset);
            }
            previous = Some(stored);
        }
    }
    assert!(expected.next().is_none());
    lengths
}

fn whole(counts: &[f64]) -> Histogram {
    Histogram {
        schema: 3,
        count: counts.iter().sum::<f64>() + 1.0,
        sum: counts.len() as f64 * 0.1,
        zero_count: 1.0,
        zero_threshold: 0.001,
        positive: Buckets::from_spans(&[(-2, 1), (3, counts.len() as u32 - 1)], counts.to_vec())
            .unwrap(),
        ..Histogram::default()
    }
}

/// Checks the data of a chunk against bits that were worked out by hand from the format (`,` only separates).
fn check_bits(samples: &[(Millis, Histogram)], encoding: u64, expected: &[&str]) {
    let (time, first) = &samples[0];
    let mut chunk = HistogramChunk::begin(*time, first);
    for (time, next) in &samples[1..] {
        assert!(chunk.takes(next));
        chunk.push(*time, next);
    }
    assert_eq!(chunk.encoding(), encoding);
    let expected: String = expected.concat().replace([' ', ','], "");
    let data = chunk.finish();
    let mut bits = BitReader::new(&data);
    let read: String = (0..expected.len())
        .map(|_| char::from(b'0' + bits.read(1) as u8))
        .collect();
    assert_eq!(read, expected);
    assert!(bits.left() < 8);
    assert_eq!(bits.read(bits.left() as u32), 0);
}

fn bits_of(number: f64) -> String {
    format!("{:064b}", number.to_bits())
}

#[test]
fn golden_chunk() {
    let histogram = Histogram {
        schema: 1,
        count: 3.0,
        zero_count: 1.0,
        zero_threshold: 0.5,
        positive: Buckets::from_spans(&[(1, 1)], vec![2.0]).unwrap(),
        ..Histogram::default()
    };
    let expected = [
        // One sample; no flags; threshold 2^-1 is f3.
        "0000000000000001 00000000 11110011",
        // Schema 1; one positive span, of length 1 at 1; no negative ones.
        "10 001, 10 001, 10 001, 10 001, 0",
        // Time 2, count 3, zero bucket 1, sum, bucket 2.
        "10 010, 10 011, 10 001",
        &bits_of(0.0),
        "10 010",
    ];
    check_bits(&[(2, histogram)], 2, &expected);
}

/// Counts that are not whole: 64 bits, then changes, each with a window of its own.
#[test]
fn golden_chunk_of_floats() {
    let at = |time, count, zero_count, sum, bucket| {
        let histogram = Histogram {
            count,
            zero_count,
            sum,
            positive: Buckets::from_spans(&[(0, 1)], vec![bucket]).unwrap(),
            ..Histogram::default()
        };
        (time, histogram)
    };
    let samples = [
        at(10, 1.5, 0.5, 1.0, 1.0),
        at(25, 2.5, 0.5, 3.0, 2.0),
        at(40, 3.5, 1.5, 3.0, 2.0),
    ];
    let expected = [
        // Three samples; no flags; threshold 0; schema 0; one positive span, of length 1 at 0; no negative ones.
        "0000000000000011 00000000 00000000, 0, 10 001, 10 001, 0, 0",
        // 10; count, zero bucket, sum and bucket.
        "110 001010",
        &["00111111 11111000", &"0".repeat(48)].concat(),
        &["00111111 11100000", &"0".repeat(48)].concat(),
        &["00111111 11110000", &"0".repeat(48)].concat(),
        &["00111111 11110000", &"0".repeat(48)].concat(),
        // 15 later. 3ff8 and 4004 differ in 7ffc: 1 leading zero, 13 bits.
        "110 001111, 11 00001 001101 1111111111111",
        // The same; 3ff0 and 4008: 7ff8; 3ff0 and 4000: 7ff0.
        "0, 11 00001 001100 111111111111, 11 00001 001011 11111111111",
        // 15 later again. 4004 and 400c differ in 0008, which is in the window: the last but one of its bits.
        "0, 10 0000000000010",
        // 3fe0 and 3ff8 differ in 0018: 11 leading zeros, 2 bits. Sum and bucket are the same.
        "11 01011 000010 11, 0, 0",
    ];
    check_bits(&samples, 3, &expected);
}

#[test]
fn golden_chunk_of_custom_buckets() {
    let at = |time, counts: [f64; 3], sum| {
        let histogram = Histogram {
            schema: SCHEMA_CUSTOM,
            count: counts.iter().sum(),
            sum,
            positive: Buckets::from_spans(&[(0, 3)], counts.to_vec()).unwrap(),
            custom_bounds: [0.25, 1.0 / 3.0].into(),
            ..Histogram::default()
        };
        (time, histogram)
    };
    let samples = [
        at(-2, [1.0, 2.0, 3.0], 1.0),
        at(3, [1.0, 4.0, 4.0], 2.0),
        at(8, [2.0, 4.0, 7.0], 2.0),
    ];
    let expected = [
        // Three samples; no flags; threshold 0; schema -53, which is 512 - 53 = 459 in nine bits.
        "0000000000000011 00000000 00000000, 1110 111001011",
        // One positive span, of length 3 at 0; no negative ones; two bounds: 250 thousandths and one, and one third.
        "10 001, 10 011, 0, 0, 10 010, 1110 011111011, 0",
        &["00111111 11010101", &"01".repeat(24)].concat(),
        // -2; 6 in all, no zero bucket; sum; buckets 1, 2 and 3.
        "10 110, 10 110, 0",
        &["00111111 11110000", &"0".repeat(48)].concat(),
        "10 001, 10 001, 10 001",
        // 5 later, 3 more; the sum from 3ff0 to 4000; the buckets' differences are 1, 3 and 0: 0, 2 and -1 more.
        "110 000101, 10 011, 0, 11 00001 001011 11111111111, 0, 10 010, 10 111",
        // 5 later, 4 more, which is 1 more than before; the same sum; differences 2, 2 and 3: 1, -1 and 3 more, which
        // is 1, -3 and 4 more than before.
        "0, 10 001, 0, 0, 10 001, 10 101, 10 100",
    ];
    check_bits(&samples, 2, &expected);
}

#[test]
fn a_counter_is_one_chunk_until_something_changes() {
    let at = |time: i64, counts: &[f64]| (time, whole(counts));
    let counter: Vec<_> = (0..5)
        .map(|i| at(i * 15, &[i as f64, 2.0 * i as f64]))
        .collect();
    assert_eq!(check(&counter), [(2, 5)]);
    let with = |change: fn(&mut Histogram)| {
        let mut all = counter.clone();
        all[2..]
            .iter_mut()
            .for_each(|(_, histogram)| change(histogram));
        check(&all)
    };
    let in_two = [(2, 2), (2, 3)];
    assert_eq!(with(|h| h.schema = 4), in_two);
    assert_eq!(with(|h| h.zero_threshold = 0.5), in_two);
    assert_eq!(with(|h| h.reset_hint = ResetHint::Gauge), in_two);
    // Another bucket; and fewer observations in one, though there are more in all.
    let bucket = |h: &mut Histogram| {
        h.negative = Buckets::from_spans(&[(9, 1)], vec![3.0]).unwrap();
        h.count += 3.0;
    };
    assert_eq!(with(bucket), in_two);
    let reset = [at(0, &[9.0, 1.0]), at(1, &[8.0, 9.0])];
    assert_eq!(check(&reset), [(2, 1), (2, 1)]);
    let hint = |h: &mut Histogram| h.reset_hint = ResetHint::Reset;
    assert_eq!(with(hint), [(2, 2), (2, 1), (2, 1), (2, 1)]);
    // Counts that are no integers have a kind of their own.
    let half = |h: &mut Histogram| (h.count, h.zero_count) = (h.count + 0.5, 1.5);
    assert_eq!(with(half), [(2, 2), (3, 3)]);
    // Gauges go up and down.
    let mut gauges = [at(0, &[9.0]), at(1, &[2.0]), at(2, &[5.0])];
    let each = gauges.iter_mut();
    each.for_each(|(_, h)| h.reset_hint = ResetHint::Gauge);
    assert_eq!(check(&gauges), [(2, 3)]);
    let empty: Vec<_> = (0..200).map(|time| (time, Histogram::default())).collect();
    assert_eq!(check(&empty), [(2, 120), (2, 80)]);
}

#[test]
fn floats_and_stale_markers_lie_between() {
    let histogram = || native(&whole(&[1.0, 2.0]));
    let stale = native(&Histogram {
        sum: STALE,
        ..whole(&[1.0])
    });
    let samples = [
        (0, Value::Float(1.0)),
        (1, histogram()),
        (2, histogram()),
        (3, Value::Float(STALE)),
        (4, histogram()),
        (5, stale),
        (6, histogram()),
        (7, Value::Float(2.0)),
        (8, Value::Float(3.0)),
    ];
    let series = series(&samples);
    assert!(is_histogram(series.values[1]));
    let chunks = chunks(&Frames::default().page(0, &[series]));
    let kinds: Vec<_> = chunks
        .iter()
        .map(|(first, last, encoding, _)| (*first, *last, *encoding))
        .collect();
    let expected = [
        (0, 0, 1),
        (1, 2, 2),
        (3, 3, 1),
        (4, 4, 2),
        (5, 5, 2),
        (6, 6, 2),
        (7, 8, 1),
    ];
    assert_eq!(kinds, expected);
    let (_, _, encoding, data) = &chunks[4];
    let read = decode(*encoding, data);
    let marker = Histogram {
        sum: STALE,
        ..Histogram::default()
    };
    assert!(read[0].1.same_content(&marker), "{read:?}");
}

#[test]
fn bounds_and_thresholds_keep_their_bits() {
    let bounds = [
        -3.5,
        -0.0,
        0.001,
        0.1,
        0.3,
        1.0 / 3.0,
        2.5,
        33_554.429,
        33_554.43,
        33_554.431,
        1e300,
    ];
    let custom = Histogram {
        schema: SCHEMA_CUSTOM,
        count: 3.0,
        sum: 4.0,
        positive: Buckets::from_spans(&[(0, 1), (10, 1)], vec![1.0, 2.0]).unwrap(),
        custom_bounds: bounds.into(),
        ..Histogram::default()
    };
    let other = Histogram {
        custom_bounds: bounds[1..].into(),
        positive: Buckets::from_spans(&[(0, 1)], vec![3.0]).unwrap(),
        ..custom.clone()
    };
    let samples = [(0, custom.clone()), (1, custom), (2, other)];
    assert_eq!(check(&samples), [(2, 2), (2, 1)]);
    for exponent in [-1074, -1022, -244, -243, -128, 0, 10, 11, 1023] {
        for factor in [1.0, 1.5] {
            let threshold =
                f64::from(exponent / 2).exp2() * f64::from(exponent - exponent / 2).exp2();
            let histogram = Histogram {
                zero_threshold: threshold * factor,
                ..Histogram::default()
            };
            check(&[(i64::MIN / 4, histogram.clone()), (i64::MAX / 4, histogram)]);
        }
    }
}

fn random_buckets(random: &mut StdRng, most: i32) -> Buckets {
    let (mut indexes, mut next) = (Vec::new(), random.random_range(-most..=most));
    for _ in 0..random.random_range(0..12) {
        indexes.push((next, 1));
        next = random.random_range(0..3) * random.random_range(0..most);
    }
    let counts = indexes.iter().map(|_| random_count(random)).collect();
    Buckets::from_spans(&indexes, counts).unwrap()
}

fn random_count(random: &mut StdRng) -> f64 {
    let bits: u64 = random.random();
    (bits >> random.random_range(14..64)) as f64
}

fn count_all(histogram: &mut Histogram) {
    let sides = [&histogram.positive, &histogram.negative];
    let in_buckets: f64 = sides.iter().flat_map(|side| side.counts()).sum();
    histogram.count = histogram.zero_count + in_buckets;
}

fn random_histogram(random: &mut StdRng) -> Histogram {
    let mut histogram = Histogram {
        schema: random.random_range(-4..=8),
        zero_threshold: [0.0, 0.001, 0.25][random.random_range(0..3)],
        zero_count: random_count(random),
        positive: random_buckets(random, 50),
        negative: random_buckets(random, 1 << 20),
        ..Histogram::default()
    };
    if random.random_range(0..3) == 0 {
        let bounds: Vec<f64> = (0..200).map(|i| f64::from(i) * 0.125 + 0.1).collect();
        let counts = (0..5).map(|_| random_count(random)).collect();
        let at = random.random_range(0..190);
        histogram = Histogram {
            schema: SCHEMA_CUSTOM,
            positive: Buckets::from_spans(&[(at, 2), (2, 3)], counts).unwrap(),
            custom_bounds: bounds.into(),
            ..Histogram::default()
        };
    }
    count_all(&mut histogram);
    histogram
}

/// The next histogram of a counter or a gauge: mostly more of the same.
fn random_next(random: &mut StdRng, histogram: &mut Histogram) {
    let is_gauge = histogram.reset_hint == ResetHint::Gauge;
    if random.random_range(0..20) == 0 {
        *histogram = random_histogram(random);
    }
    histogram.reset_hint = match random.random_range(0..30) {
        0 => ResetHint::Reset,
        1 => ResetHint::NotReset,
        2 => ResetHint::Gauge,
        3..6 => ResetHint::Unknown,
        _ if is_gauge => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    };
    let mut more = |count: f64| match random.random_range(0..60) {
        0 => (count / 2.0).floor(),
        1 => count + 0.25,
        2..10 => count,
        _ => count + f64::from(random.random_range(0..1 << 20)),
    };
    histogram.positive = each(&histogram.positive, &mut more);
    histogram.negative = each(&histogram.negative, &mut more);
    if !histogram.is_custom() {
        histogram.zero_count = more(histogram.zero_count);
    }
    count_all(histogram);
    let bits: u64 = random.random();
    histogram.sum = match random.random_range(0..10) {
        0 => STALE,
        1..4 => f64::from_bits(bits),
        _ => histogram.sum + 1.5,
    };
}

fn each(buckets: &Buckets, more: &mut impl FnMut(f64) -> f64) -> Buckets {
    let counts = buckets.counts().iter().map(|count| more(*count)).collect();
    Buckets::from_spans(&buckets.spans(), counts).unwrap()
}

#[test]
fn random_histograms_are_read_back() {
    let mut kinds = [0; 4];
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut time = random.random_range(-1_000_000i64..1_000_000);
        let mut histogram = random_histogram(&mut random);
        let samples: Vec<_> = (0..random.random_range(1..300))
            .map(|_| {
                let bits = random.random_range(1..40);
                time += random.random_range(1i64..1 << bits);
                random_next(&mut random, &mut histogram);
                (time, histogram.clone())
            })
            .collect();
        for (encoding, length) in check(&samples) {
            kinds[encoding as usize] += usize::from(length > 1);
        }
    }
    assert!(kinds[2] > 100 && kinds[3] > 100, "{kinds:?}");
}

/// Large histograms make shorter chunks, and frames stay near their bound.
#[test]
fn chunks_of_large_histograms_are_cut() {
    let mut random = StdRng::seed_from_u64(1);
    let mut counts: Vec<f64> = vec![0.0; 4000];
    let samples: Vec<_> = (0..100)
        .map(|time| {
            let add = |count: &mut f64| *count += f64::from(random.random_range(0..1 << 30));
            counts.iter_mut().for_each(add);
            (time, whole(&counts))
        })
        .collect();
    let lengths = check(&samples);
    assert!(lengths.len() > 20, "{lengths:?}");
    let all = samples.iter().map(|(time, one)| (*time, native(one)));
    let all: Vec<_> = all.collect();
    let out = Frames::default().page(0, &[series(&all)]);
    let mut at = 0;
    while at < out.len() {
        let length = read_varint(&out, &mut at).unwrap() as usize;
        assert!(
            length < (1 << 20) + (128 << 10),
            "a frame of {length} bytes"
        );
        at += 4 + length;
    }
}
