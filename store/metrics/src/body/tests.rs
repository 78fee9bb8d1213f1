//! Bodies: round trips, golden bytes (drawn in docs/formats/metrics-body.md), hostile bytes.

use super::*;
use crate::MetricsError;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use trefoil_model::{Labels, Millis, ShardSet};

type Series = (ShardId, Labels, Vec<(Millis, u64)>);

fn write(series: &[Series]) -> Vec<u8> {
    let mut writer = BodyWriter::new().unwrap();
    for (shard, labels, samples) in series {
        let samples = samples.iter().map(|(t, bits)| (*t, f64::from_bits(*bits)));
        writer
            .add_series(*shard, labels.canonical(), samples)
            .unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8], accepted: &ShardSet) -> Result<Vec<Series>, MetricsError> {
    let mut reader = BodyReader::new()?;
    let mut body = reader.open(bytes)?;
    body.metadata(accepted)?;
    let mut all = Vec::new();
    while let Some(series) = body.next_series(accepted)? {
        let labels = Labels::from_canonical(series.canonical).expect("the reader checks labels");
        let samples = series.samples.map(|(t, v)| (t, v.to_bits())).collect();
        all.push((series.shard, labels, samples));
    }
    Ok(all)
}

fn random_series(random: &mut StdRng) -> Series {
    let mut builder = trefoil_model::LabelsBuilder::new();
    for _ in 0..random.random_range(0..6) {
        let name = format!("l{}", random.random_range(0..8));
        let long = "x".repeat(random.random_range(0..300));
        let value = [format!("v{}", random.random_range(0..4)), long];
        builder.set(&name, &value[usize::from(random.random_bool(0.1))]);
    }
    let samples = (0..random.random_range(1..4)).map(|_| {
        let timestamp = match random.random_range(0..10) {
            0 => Millis::MIN,
            1 => Millis::MAX,
            _ => random.random_range(0..100_000),
        };
        let bits = match random.random_range(0..3) {
            0 => random.random(),
            1 => f64::from(random.random_range(0..1000u32)).to_bits(),
            _ => 0,
        };
        (timestamp, bits)
    });
    let samples = samples.collect();
    (
        ShardId(random.random_range(0..300)),
        builder.build(),
        samples,
    )
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(0..40);
        let series: Vec<Series> = (0..count).map(|_| random_series(&mut random)).collect();
        let bytes = write(&series);
        assert_eq!(
            read(&bytes, &ShardSet::all(300)).unwrap(),
            series,
            "seed {seed}"
        );
        let some: ShardSet = (0..150).map(ShardId).collect();
        let expected: Vec<Series> = series.into_iter().filter(|s| some.contains(s.0)).collect();
        assert_eq!(read(&bytes, &some).unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn more_labels_than_one_mask_holds() {
    let name = |n: usize| format!("label_{n:03}");
    let names: Vec<String> = (0..200).map(name).collect();
    let labels = |value: &str| Labels::from_pairs(names.iter().map(|n| (n.as_str(), value)));
    let series = vec![
        (ShardId(0), labels("a"), vec![(1, 1)]),
        (ShardId(0), labels("a"), vec![(2, 1)]),
        (ShardId(0), labels("b"), vec![(2, 1)]),
    ];
    assert_eq!(read(&write(&series), &ShardSet::all(1)).unwrap(), series);
}

#[test]
fn a_writer_is_empty_after_finish() {
    let series = [(ShardId(0), Labels::from_pairs([("a", "b")]), vec![(1, 2)])];
    let mut writer = BodyWriter::new().unwrap();
    for _ in 0..2 {
        assert!(writer.is_empty());
        let (shard, labels, _) = &series[0];
        let samples = [(1, f64::from_bits(2))];
        writer
            .add_series(*shard, labels.canonical(), samples)
            .unwrap();
        assert_eq!(writer.finish().unwrap(), write(&series));
    }
}

#[test]
fn golden_bytes() {
    let mut writer = BodyWriter::new().unwrap();
    let up = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
    let down = Labels::from_pairs([("__name__", "down"), ("job", "a")]);
    writer
        .add_series(ShardId(7), up.canonical(), [(1_000, 1.0), (2_000, 0.0)])
        .unwrap();
    writer
        .add_series(ShardId(9), down.canonical(), [(2_000, -0.5)])
        .unwrap();
    let entry = MetricMetadata {
        metric: "up".into(),
        metric_type: MetricType::Gauge,
        help: "h".into(),
        unit: String::new(),
    };
    writer.add_metadata(ShardId(7), &entry).unwrap();
    let body = writer.finish().unwrap();
    assert_eq!(body[..5], [1, 80, 0, 0, 0]);
    // The frame itself may change with the version of zstd, the content may not.
    let content = zstd::bulk::decompress(&body[5..], 1024).unwrap();
    let expected: &[&[u8]] = &[
        b"\x01\x0f\x01\x02\x08__name__\x03job",
        b"\x02\x0b\x03\x02up\x01a\x04down",
        b"\x03\x08\x02\x01\x03\x00\x00\x00\x01\x00",
        b"\x04\x04\x07\x00\x09\x00",
        b"\x05\x02\x02\x01",
        b"\x06\x05\xd0\x0f\xd0\x0f\x00",
        b"\x07\x03\x02\x00\x02",
        b"\x08\x04\x3f\xf0\xbf\xe0",
        b"\x09\x0a\x01\x07\x00\x02\x02up\x01h\x00",
    ];
    let expected = expected.concat();
    assert_eq!(content, expected, "{content:02x?}");
    let mut reader = BodyReader::new().unwrap();
    let open = reader.open(&body).unwrap();
    assert_eq!(
        open.metadata(&ShardSet::all(8)).unwrap(),
        vec![(ShardId(7), entry)]
    );
    assert_eq!(open.metadata(&ShardSet::all(7)).unwrap(), vec![]);
}

/// Wraps content as a body would, so that hostile content reaches the reader behind zstd.
fn wrap(content: &[u8]) -> Vec<u8> {
    let mut body = vec![BODY_VERSION_PLAIN];
    body.extend_from_slice(&(content.len() as u32).to_le_bytes());
    body.extend(zstd::bulk::compress(content, 1).unwrap());
    body
}

#[test]
fn hostile_bytes_give_errors_or_sound_series() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let series: Vec<Series> = (0..5).map(|_| random_series(&mut random)).collect();
        let body = write(&series);
        let mut content = zstd::bulk::decompress(&body[5..], 1 << 20).unwrap();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..content.len());
            match random.random_range(0..3) {
                0 => content[at] = random.random(),
                1 => content.truncate(at.max(1)),
                _ => content.insert(at, random.random()),
            }
        }
        // `read` checks that all labels that come out are canonical.
        drop(read(&wrap(&content), &ShardSet::all(300)));
        let mut damaged = body;
        let at = random.random_range(0..damaged.len());
        damaged[at] ^= 1 << random.random_range(0..8);
        drop(read(&damaged, &ShardSet::all(300)));
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let check = |bytes: &[u8], expected: &str| {
        let error = read(bytes, &ShardSet::all(1)).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    check(b"\x01", "parcel body is malformed: header");
    check(
        b"\x03\0\0\0\0",
        "parcel body has version 3, this program reads up to 2",
    );
    check(
        b"\x01\xff\xff\xff\xff",
        "parcel body holds 4294967295 bytes, the limit is 67108864",
    );
    check(b"\x01\x05\0\0\0abc", "parcel body is malformed: zstd frame");
    check(&wrap(b"\x0f\x00"), "parcel body is malformed: section kind");
    check(
        &wrap(b"\x01\x05"),
        "parcel body is malformed: section length",
    );
}

/// A body with everything that only version 2 has: the content behind the sections of version 1.
#[test]
fn golden_bytes_of_histograms_and_starts() {
    let mut column = crate::columns::Column::default();
    column.push(1_000, 1.0);
    column.push(2_000, 0.0);
    column.set_last_histogram(Default::default());
    column.set_last_start(500);
    let mut writer = BodyWriter::new().unwrap();
    let up = Labels::from_pairs([("__name__", "up")]);
    for _ in 0..2 {
        writer
            .add_samples(ShardId(7), up.canonical(), column.slice().iter())
            .unwrap();
        writer
            .add_series(ShardId(7), up.canonical(), [(2_000, 1.0)])
            .unwrap();
        let body = writer.finish().unwrap();
        assert_eq!(body[0], 2);
        let content = zstd::bulk::decompress(&body[5..], 1024).unwrap();
        let expected: &[&[u8]] = &[
            b"\x05\x02\x02\x01",
            b"\x06\x05\xd0\x0f\xd0\x0f\x00",
            b"\x07\x03\x02\x09\x02",
            b"\x08\x04\x3f\xf0\x3f\xf0",
            b"\x0a\x17\x16\x00\x04\0\0\0\0\0\0\0\0\x00\x00\0\0\0\0\0\0\0\0\x00\x00",
            b"\x0b\x05\x00\xe8\x07\xe7\x07",
        ];
        let expected = expected.concat();
        assert!(content.ends_with(&expected), "{content:02x?}");
        let mut reader = BodyReader::new().unwrap();
        let mut open = reader.open(&body).unwrap();
        let all = ShardSet::all(8);
        let series = open.next_series(&all).unwrap().unwrap();
        let first = series.samples.next_with_extras().unwrap().unwrap();
        assert_eq!(
            (first.time, first.start, first.histogram()),
            (1_000, 0, None)
        );
        let second = series.samples.next_with_extras().unwrap().unwrap();
        assert_eq!((second.time, second.start), (2_000, 500));
        assert_eq!(second.histogram(), Some(Default::default()));
        // The sections of version 2 are not known to version 1.
        let mut older = body.clone();
        older[0] = 1;
        let error = read(&older, &all).expect_err("an unknown section");
        assert_eq!(error.to_string(), "parcel body is malformed: section kind");
    }
}

#[test]
fn hostile_histograms_give_errors_or_sound_samples() {
    for seed in 0..2_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut column = crate::columns::Column::default();
        for time in 0..4 {
            column.push(time, 1.0);
            let histogram = crate::histogram::tests::random_histogram(&mut random);
            column.set_last_histogram(std::sync::Arc::new(histogram));
            column.set_last_start(time / 2);
        }
        let mut writer = BodyWriter::new().unwrap();
        let up = Labels::from_pairs([("__name__", "up")]);
        writer
            .add_samples(ShardId(7), up.canonical(), column.slice().iter())
            .unwrap();
        let body = writer.finish().unwrap();
        let mut content = zstd::bulk::decompress(&body[5..], 1 << 20).unwrap();
        let at = random.random_range(0..content.len());
        content[at] = random.random();
        let mut hostile = wrap(&content);
        hostile[0] = BODY_VERSION;
        let mut reader = BodyReader::new().unwrap();
        let Ok(mut open) = reader.open(&hostile) else {
            continue;
        };
        let all = ShardSet::all(8);
        while let Ok(Some(series)) = open.next_series(&all) {
            while let Ok(Some(sample)) = series.samples.next_with_extras() {
                assert_eq!(sample.histogram.is_some(), sample.histogram().is_some());
            }
        }
    }
}
