//! Chunks against bytes worked out by hand, and against a reader that is written from the format alone.

use super::*;
use crate::remote_read::bit_reader::BitReader;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_change(bits: &mut BitReader<'_>) -> i64 {
    let length = match bits.ones(4) {
        0 => return 0,
        1 => 14,
        2 => 17,
        3 => 20,
        _ => 64,
    };
    let number = bits.read(length);
    // Above the middle it is negative; the middle itself is not.
    match length < 64 && number > 1 << (length - 1) {
        true => number as i64 - (1 << length),
        false => number as i64,
    }
}

fn decode(data: &[u8]) -> Vec<(Millis, u64)> {
    let count = u16::from_be_bytes([data[0], data[1]]);
    let mut bits = BitReader::new(&data[2..]);
    let (mut time, mut delta, mut value) = (0i64, 0i64, 0);
    let (mut leading, mut length) = (0, 0);
    let mut samples = Vec::new();
    for at in 0..count {
        match at {
            0 => {
                let first = bits.varint();
                time = (first >> 1) as i64 ^ -((first & 1) as i64);
                value = bits.read(64);
                samples.push((time, value));
                continue;
            }
            1 => delta = bits.varint() as i64,
            _ => delta = delta.wrapping_add(read_change(&mut bits)),
        }
        time = time.wrapping_add(delta);
        if bits.read(1) == 1 {
            if bits.read(1) == 1 {
                leading = bits.read(5) as u32;
                length = match bits.read(6) {
                    0 => 64,
                    length => length as u32,
                };
            }
            value ^= bits.read(length) << (64 - leading - length);
        }
        samples.push((time, value));
    }
    samples
}

fn check(samples: &[(Millis, f64)]) {
    let times: Vec<Millis> = samples.iter().map(|(time, _)| *time).collect();
    let values: Vec<f64> = samples.iter().map(|(_, value)| *value).collect();
    let expected: Vec<(Millis, u64)> = samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
    assert_eq!(decode(&encode(&times, &values)), expected);
}

/// 3 samples, time 0, 1.0; 15 s later, the same; as late again, 2.0: bits 0, 0, 11 00001 001011 11111111111.
#[test]
fn golden_chunk() {
    let data = encode(&[0, 15_000, 30_000], &[1.0, 1.0, 2.0]);
    assert_eq!(
        hex(&data),
        "0003003ff00000000000009875".to_owned() + "3097ffc0"
    );
    assert_eq!(hex(&encode(&[-1], &[0.0])), "0001010000000000000000");
}

#[test]
fn what_is_written_is_read_back() {
    let counter = (0..120).map(|i| (1_700_000_000_000 + i * 15_000, i as f64 * 7.0));
    check(&counter.collect::<Vec<_>>());
    let stale = f64::from_bits(trefoil_query_promql::STALE_MARKER_BITS);
    let odd = [
        0.1,
        -0.0,
        f64::INFINITY,
        stale,
        1e300,
        1e300,
        f64::MIN_POSITIVE,
        3.0,
    ];
    check(
        &odd.iter()
            .enumerate()
            .map(|(at, v)| (at as i64, *v))
            .collect::<Vec<_>>(),
    );
    // Differences of deltas at both sides of every bound.
    for change in [
        1,
        8191,
        8192,
        8193,
        65_536,
        65_537,
        524_288,
        524_289,
        1 << 40,
    ] {
        for change in [change, -change] {
            let step = 1i64 << 41;
            check(&[(0, 1.0), (step, 2.0), (2 * step + change, 2.5)]);
        }
    }
}

#[test]
fn random_series_are_read_back() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut time = random.random_range(-1_000_000i64..1_000_000);
        let samples: Vec<(Millis, f64)> = (0..random.random_range(1..200))
            .map(|_| {
                let bits = random.random_range(1..40);
                time += random.random_range(1i64..1 << bits);
                let bits: u64 = random.random();
                (time, f64::from_bits(bits >> random.random_range(0..64)))
            })
            .collect();
        check(&samples);
    }
}

/// A frame: its length, the checksum of what follows, and the message.
#[test]
fn golden_frame() {
    let series = RawSeries {
        labels: Labels::from_pairs([("a", "b")]),
        timestamps: vec![1],
        values: vec![0.0],
        histograms: Default::default(),
    };
    let frame = Frames::default().page(1, &[series]);
    let message = [
        "0a1d0a060a0161120162",
        "1213080110011801220b0001020000000000000000",
        "1001",
    ];
    let message_bytes = frame.len() - 5;
    assert_eq!(usize::from(frame[0]), message_bytes);
    assert_eq!(hex(&frame[5..]), message.concat());
    assert_eq!(frame[1..5], crc32c::crc32c(&frame[5..]).to_be_bytes());
}

#[test]
fn long_series_are_cut_into_frames() {
    let count = 200_000;
    let series = RawSeries {
        labels: Labels::from_pairs([("__name__", "long")]),
        timestamps: (0..count).map(|i| i * 1000 + i % 7).collect(),
        values: (0..count).map(|i| (i as f64).sin()).collect(),
        histograms: Default::default(),
    };
    let out = Frames::default().page(0, &[series]);
    let (mut at, mut frames) = (0, 0);
    while at < out.len() {
        let length = trefoil_model::read_varint(&out, &mut at).unwrap() as usize;
        assert!(
            length < FRAME_BYTES + (64 << 10),
            "a frame of {length} bytes"
        );
        at += 4 + length;
        frames += 1;
    }
    assert_eq!(at, out.len());
    assert!(frames >= 2, "{frames} frames");
}
