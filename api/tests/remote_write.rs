//! The decoder of remote write against an encoder of its own, malformed input and random bytes.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use trefoil_api::{
    ApiError, WriteLimits,
    remote_write::{Decoder, MetricKind, WriteRequest, encode},
};
use trefoil_model::{Labels, write_varint};

/// A series as a client means it, labels in the order in which they are sent.
type Series = (Vec<(Vec<u8>, Vec<u8>)>, Vec<(i64, f64)>);

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 1, name);
    field(&mut out, 2, value);
    out
}

fn sample(timestamp: i64, value: f64) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend_from_slice(&value.to_le_bytes());
    out.push(0x10);
    write_varint(&mut out, timestamp as u64);
    out
}

fn message(series: &[Series]) -> Vec<u8> {
    let mut body = Vec::new();
    for (labels, samples) in series {
        let mut inner = Vec::new();
        for (name, value) in labels {
            field(&mut inner, 1, &label(name, value));
        }
        for (timestamp, value) in samples {
            field(&mut inner, 2, &sample(*timestamp, *value));
        }
        field(&mut body, 1, &inner);
    }
    body
}

fn series(labels: &[(&str, &str)]) -> Series {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let labels = labels.iter().map(|(n, v)| (bytes(n), bytes(v))).collect();
    (labels, vec![(1000, 1.5)])
}

fn compress(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

fn decode(body: &[u8]) -> Result<WriteRequest, ApiError> {
    let mut request = WriteRequest::default();
    Decoder::default().decode(&compress(body), &WriteLimits::default(), &mut request)?;
    Ok(request)
}

#[test]
fn what_is_encoded_is_decoded() {
    let first = Labels::from_pairs([("__name__", "up"), ("job", "a"), ("z", "\u{e9}")]);
    let second = Labels::from_pairs([("__name__", "x"), ("long", &"v".repeat(2000))]);
    let compressed = encode([
        (&first, &[(-5, 1.0), (i64::MAX, f64::NAN)][..]),
        (&second, &[(0, f64::INFINITY)][..]),
        (&first, &[][..]),
    ]);
    let (mut decoder, mut request) = (Decoder::default(), WriteRequest::default());
    let limits = WriteLimits::default();
    decoder.decode(&compressed, &limits, &mut request).unwrap();
    assert_eq!((request.series_count(), request.sample_count()), (2, 3));
    let decoded: Vec<_> = request.series().collect();
    assert_eq!(decoded[0].to_labels(), first);
    assert_eq!(decoded[0].canonical(), first.canonical());
    assert_eq!(decoded[0].samples()[0], (-5, 1.0));
    assert_eq!(decoded[0].samples()[1].0, i64::MAX);
    assert!(decoded[0].samples()[1].1.is_nan());
    assert_eq!(decoded[1].to_labels(), second);
    assert!(request.refusals().is_empty());
    // The same buffers serve the next request.
    decoder.decode(&encode([]), &limits, &mut request).unwrap();
    assert!(request.is_empty());
}

#[test]
fn golden_bytes() {
    let labels = Labels::from_pairs([("__name__", "up")]);
    let mut expected = b"\x0a\x1e\x0a\x0e\x0a\x08__name__\x12\x02up\x12\x0c\x09".to_vec();
    expected.extend_from_slice(&1.0f64.to_le_bytes());
    expected.extend_from_slice(&[0x10, 0xac, 0x02]);
    let compressed = encode([(&labels, &[(300, 1.0)][..])]);
    let body = snap::raw::Decoder::new()
        .decompress_vec(&compressed)
        .unwrap();
    assert_eq!(body, expected);
}

#[test]
fn bad_series_are_named_and_good_ones_kept() {
    let check = |bad: Series, expected: &str| {
        let good = [series(&[("__name__", "a")]), series(&[("__name__", "b")])];
        let body = message(&[good[0].clone(), bad, good[1].clone()]);
        let request = decode(&body).unwrap();
        assert_eq!(request.series_count(), 2, "{expected}");
        let names: Vec<_> = request
            .series()
            .map(|s| s.to_labels().to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let refusals = request.refusals();
        assert_eq!((refusals.series, refusals.samples), (1, 1), "{expected}");
        assert_eq!(refusals.reasons, [expected]);
    };
    let twice = "label \"a\" appears twice (err-mimir-duplicate-label-names), in series up{a=\"1\"";
    check(
        series(&[("__name__", "up"), ("a", "1"), ("a", "2")]),
        &format!("{twice}, a=\"2\"}}"),
    );
    check(
        series(&[("a", "1"), ("b", "3"), ("__name__", "up"), ("a", "2")]),
        &format!("{twice}, a=\"2\", b=\"3\"}}"),
    );
    let nameless = "has no metric name (label __name__) (err-mimir-missing-metric-name), in series";
    check(
        series(&[("job", "x")]),
        &format!("{nameless} {{job=\"x\"}}"),
    );
    check(series(&[]), &format!("{nameless} {{}}"));
    check(series(&[("__name__", "")]), &format!("{nameless} {{}}"));
    for labels in [
        [("", "v"), ("__name__", "up")],
        [("__name__", "up"), ("", "v")],
    ] {
        check(
            series(&labels),
            "has a label with an empty name (value \"v\") (err-mimir-label-invalid), in series up{=\"v\"}",
        );
    }
    let mut not_text = series(&[("__name__", "up"), ("a", "1")]);
    not_text.0[1].1 = b"\xff".to_vec();
    check(
        not_text,
        "label \"a\" is not valid UTF-8 (err-mimir-label-value-invalid), in series up{a=\"\u{fffd}\"}",
    );
    let mut not_text = series(&[("__name__", "up"), ("a", "1")]);
    not_text.0[1].0 = b"\xff".to_vec();
    check(
        not_text,
        "the name of label \"\u{fffd}\" is not valid UTF-8 (err-mimir-label-invalid), in series up{\u{fffd}=\"1\"}",
    );
    let mut not_text = series(&[("__name__", "up")]);
    not_text.0[0].1 = b"\xff".to_vec();
    check(
        not_text,
        "the metric name is not valid UTF-8 (err-mimir-metric-name-invalid), in series \u{fffd}{}",
    );
}

#[test]
fn labels_may_come_in_any_order() {
    let long = "x".repeat(300);
    let sorted = [
        ("A", "0"),
        ("__name__", "up"),
        ("alab", "1"),
        ("label_a", "2"),
        ("label_b", long.as_str()),
    ];
    let expected = Labels::from_pairs(sorted);
    // All orders of five labels: every one is some number of rotations of ever shorter fronts.
    for order in 0..120 {
        let (mut labels, mut rest) = (sorted.to_vec(), order);
        for front in 2..=labels.len() {
            labels[..front].rotate_left(rest % front);
            rest /= front;
        }
        let request = decode(&message(&[series(&labels), series(&[("__name__", "b")])])).unwrap();
        assert!(request.refusals().is_empty(), "{labels:?}");
        let stored: Vec<Labels> = request.series().map(|s| s.to_labels()).collect();
        let other = Labels::from_pairs([("__name__", "b")]);
        assert_eq!(stored, [expected.clone(), other], "{labels:?}");
    }
    // What is refused for its length is refused in any order, and too many stay too many.
    let names: Vec<String> = (0..200).map(|i| format!("l{i:03}")).collect();
    let mut many = vec![("__name__", "up")];
    many.extend(names.iter().rev().map(|name| (name.as_str(), "v")));
    let value = "v".repeat(2049);
    let request = decode(&message(&[
        series(&many),
        series(&[("b", "1"), ("__name__", "up"), ("a", &value)]),
    ]));
    let request = request.unwrap();
    let reasons = &request.refusals().reasons;
    assert!(
        reasons[0].contains("has 201 labels, more than 30"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains("err-mimir-label-value-too-long"),
        "{reasons:?}"
    );
}

#[test]
fn limits_of_labels() {
    let names: Vec<String> = (0..31).map(|i| format!("l{i:02}")).collect();
    let check = |labels: &[(&str, &str)], expected: Option<&str>| {
        let request = decode(&message(&[series(labels)])).unwrap();
        let reasons = &request.refusals().reasons;
        match expected {
            None => assert_eq!((request.series_count(), reasons.len()), (1, 0)),
            Some(expected) => assert!(reasons[0].contains(expected), "{}", reasons[0]),
        }
    };
    let mut labels = vec![("__name__", "up")];
    labels.extend(names.iter().map(|name| (name.as_str(), "v")));
    check(&labels[..30], None);
    check(
        &labels,
        Some("has 32 labels, more than 30 (max_label_names_per_series)"),
    );
    // A series that informs is there for its labels.
    let names: Vec<String> = (0..80).map(|i| format!("l{i:02}")).collect();
    let mut labels = vec![("__name__", "up_info")];
    labels.extend(names.iter().map(|name| (name.as_str(), "v")));
    check(&labels[..80], None);
    let most = "has 81 labels, more than 80 (max_label_names_per_info_series) \
                (err-mimir-max-label-names-per-info-series)";
    check(&labels, Some(most));
    labels[0].1 = "up_info_total";
    check(&labels[..80], Some("(max_label_names_per_series)"));
    let (name, value) = ("n".repeat(1024), "v".repeat(2048));
    check(&[("__name__", "up"), (&name, &value)], None);
    check(
        &[("__name__", "up"), (&format!("{name}n"), "v")],
        Some("(max_label_name_length)"),
    );
    check(
        &[("__name__", "up"), ("a", &format!("{value}v"))],
        Some("(max_label_value_length)"),
    );
    // A label without a value is no label.
    let request = decode(&message(&[series(&[
        ("__name__", "up"),
        ("a", ""),
        ("b", "1"),
    ])]));
    let labels = request.unwrap().series().next().unwrap().to_labels();
    assert_eq!(labels, Labels::from_pairs([("__name__", "up"), ("b", "1")]));
}

#[test]
fn only_some_reasons_are_kept() {
    let bad: Vec<Series> = (0..1000).map(|_| series(&[("job", "x")])).collect();
    let request = decode(&message(&bad)).unwrap();
    assert_eq!(request.refusals().series, 1000);
    assert_eq!(request.refusals().reasons.len(), 10);
}

#[test]
fn sizes_are_checked_before_memory_is_taken() {
    let (mut decoder, mut request) = (Decoder::default(), WriteRequest::default());
    let limits = WriteLimits::default();
    let mut bomb = Vec::new();
    write_varint(&mut bomb, 1 << 30);
    bomb.extend_from_slice(&[0xfe; 100]);
    let refused = decoder.decode(&bomb, &limits, &mut request).unwrap_err();
    assert_eq!(refused.status(), 413, "{refused}");
    assert!(refused.to_string().contains("1073741824"), "{refused}");
    assert_eq!(decoder.capacity_bytes(), 0);
    let small = WriteLimits {
        compressed_bytes_max: 10,
        samples_max: 1,
        ..limits
    };
    let body = encode([(
        &Labels::from_pairs([("__name__", "a")]),
        &[(1, 1.0), (2, 2.0)][..],
    )]);
    assert_eq!(
        decoder
            .decode(&body, &small, &mut request)
            .unwrap_err()
            .status(),
        413
    );
    let few = WriteLimits {
        samples_max: 1,
        ..limits
    };
    let refused = decoder.decode(&body, &few, &mut request).unwrap_err();
    assert!(
        refused.to_string().contains("number of samples"),
        "{refused}"
    );
    assert!(request.is_empty());
}

#[test]
fn truncated_snappy_is_refused_at_every_length() {
    let body = compress(&message(&[series(&[
        ("__name__", "up"),
        ("job", "aaaaaaaaaaaaaa"),
    ])]));
    let (mut decoder, mut request) = (Decoder::default(), WriteRequest::default());
    for length in 0..body.len() {
        let outcome = decoder.decode(&body[..length], &WriteLimits::default(), &mut request);
        let refused = outcome.unwrap_err();
        assert!(
            matches!(refused, ApiError::CorruptSnappy { .. }),
            "{length}: {refused}"
        );
        assert_eq!(refused.status(), 400);
        assert!(request.is_empty());
    }
}

#[test]
fn corrupt_protobuf_names_the_field_and_the_place() {
    let check = |body: &[u8], expected: &str| {
        let refused = decode(body).unwrap_err();
        assert_eq!(refused.status(), 400);
        assert_eq!(
            refused.to_string(),
            format!("corrupt protobuf in field {expected} of the decompressed body")
        );
    };
    check(b"\x0a\x05\x0a", "WriteRequest.timeseries at byte 2");
    check(b"\x0a\x02\x0a\x7f", "TimeSeries.labels at byte 4");
    check(b"\x0a\x04\x0a\x02\x0a\x09", "Label.name at byte 6");
    check(b"\x0a\x04\x12\x02\x09\x01", "Sample.value at byte 5");
    check(
        b"\x0a\x05\x12\x03\x10\xff\xff",
        "Sample.timestamp at byte 5",
    );
    check(b"\x00", "WriteRequest at byte 1");
    check(b"\x0b", "WriteRequest at byte 1");
    check(b"\x0a\x02\x08\x01", "TimeSeries at byte 3");
    let long = [
        0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02,
    ];
    check(&long, "WriteRequest.timeseries at byte 1");
}

#[test]
fn exemplars_and_histograms_are_kept() {
    let mut inner = Vec::new();
    field(&mut inner, 1, &label(b"__name__", b"up"));
    field(&mut inner, 3, b"\x0a\x02\x0a\x00");
    field(&mut inner, 4, b"");
    field(&mut inner, 4, b"");
    let mut body = Vec::new();
    field(&mut body, 1, &inner);
    // A field of some later version, in every layout.
    body.extend_from_slice(b"\x78\x01\x79abcdefgh\x7a\x01x\x7dabcd");
    let request = decode(&body).unwrap();
    assert_eq!(
        (request.exemplars().len(), request.skipped_exemplars()),
        (1, 0)
    );
    assert_eq!(request.histogram_count(), 2);
    assert!(request.refusals().is_empty());
}

#[test]
fn metadata_is_read() {
    let mut body = Vec::new();
    for (kind, metric, help) in [
        (1u8, "a_total", "An \u{e9}."),
        (9, "b", ""),
        (2, "", "lost"),
    ] {
        let mut inner = vec![0x08, kind];
        field(&mut inner, 2, metric.as_bytes());
        field(&mut inner, 4, help.as_bytes());
        field(&mut inner, 5, b"seconds");
        field(&mut body, 3, &inner);
    }
    let request = decode(&body).unwrap();
    let entries: Vec<_> = request.metadata().collect();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (entries[0].metric, entries[0].kind),
        ("a_total", MetricKind::Counter)
    );
    assert_eq!(
        (entries[0].help, entries[0].unit),
        ("An \u{e9}.", "seconds")
    );
    assert_eq!(
        (entries[1].metric, entries[1].kind),
        ("b", MetricKind::Unknown)
    );
}

/// What the decoder should make of valid labels: the rules of the specification, written plainly.
fn expected_labels(labels: &[(Vec<u8>, Vec<u8>)]) -> Option<Labels> {
    let mut pairs = Vec::new();
    for (name, value) in labels {
        if name.is_empty() {
            return None;
        }
        if !value.is_empty() {
            pairs.push((
                std::str::from_utf8(name).ok()?,
                std::str::from_utf8(value).ok()?,
            ));
        }
    }
    // Their order is free.
    pairs.sort_unstable();
    let once = pairs.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let set = Labels::from_pairs(pairs);
    (once && set.metric_name().is_some()).then_some(set)
}

fn random_text(random: &mut StdRng) -> Vec<u8> {
    let texts: [&[u8]; 8] = [
        b"a",
        b"b",
        b"__name__",
        b"",
        b"\xc3\xa9",
        b"\xff",
        b"job",
        b"zz",
    ];
    let mut text = texts[random.random_range(0..texts.len())].to_vec();
    if random.random_bool(0.1) {
        text = vec![b'x'; random.random_range(0..300)];
    }
    text
}

#[test]
fn random_requests_agree_with_the_plain_rules() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..3000 {
        let many: Vec<Series> = (0..random.random_range(0..6))
            .map(|_| {
                let labels = (0..random.random_range(0..5))
                    .map(|_| (random_text(&mut random), random_text(&mut random)));
                let mut labels: Vec<_> = labels.collect();
                if random.random_bool(0.8) {
                    labels.push((b"__name__".to_vec(), b"up".to_vec()));
                }
                if random.random_bool(0.5) {
                    labels.sort();
                }
                let samples = (0..random.random_range(0..4))
                    .map(|_| (random.random::<i64>(), f64::from(random.random::<i32>())));
                (labels, samples.collect())
            })
            .collect();
        let request = decode(&message(&many)).unwrap();
        let expected: Vec<_> = many
            .iter()
            .filter(|(_, samples)| !samples.is_empty())
            .filter_map(|(labels, samples)| Some((expected_labels(labels)?, samples.clone())))
            .collect();
        let found: Vec<_> = request
            .series()
            .map(|series| (series.to_labels(), series.samples().to_vec()))
            .collect();
        assert_eq!(found, expected, "{many:?}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = StdRng::seed_from_u64(2);
    let (mut decoder, mut request) = (Decoder::default(), WriteRequest::default());
    let limits = WriteLimits::default();
    let real = message(&[
        series(&[("__name__", "up"), ("job", "a")]),
        series(&[("__name__", "x"), ("long", &"v".repeat(200))]),
    ]);
    for round in 0..60_000u32 {
        let mut body = real.clone();
        if round % 3 == 0 {
            body = vec![0; random.random_range(0..100)];
            random.fill_bytes(&mut body);
        }
        for _ in 0..random.random_range(0..5) {
            if !body.is_empty() {
                let at = random.random_range(0..body.len());
                body[at] = random.random();
            }
        }
        body.truncate(random.random_range(0..=body.len()));
        let compressed = if round % 5 == 0 {
            body
        } else {
            compress(&body)
        };
        if decoder.decode(&compressed, &limits, &mut request).is_ok() {
            for series in request.series() {
                assert!(Labels::from_canonical(series.canonical()).is_ok());
                assert!(!series.samples().is_empty());
            }
            assert!(request.metadata().all(|entry| !entry.metric.is_empty()));
        }
    }
}
