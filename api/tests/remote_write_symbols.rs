//! Remote write 2.0 against an encoder of the test's own.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use trefoil_api::{
    ApiError, WriteLimits,
    remote_write::{Decoder, MetricKind, WriteRequest},
};
use trefoil_model::write_varint;

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn numbers(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    write_varint(out, value);
}

fn sample(timestamp: i64, value: f64) -> Vec<u8> {
    let mut out = vec![0x09];
    out.extend_from_slice(&value.to_le_bytes());
    numbers(&mut out, 2, timestamp as u64);
    // The start timestamp.
    numbers(&mut out, 3, 500);
    out
}

/// A series by references, with a sample and the fields of `more`.
fn series(references: &[u64], samples: &[(i64, f64)], more: &[(u8, &[u8])]) -> Vec<u8> {
    let mut packed = Vec::new();
    for reference in references {
        write_varint(&mut packed, *reference);
    }
    let mut out = Vec::new();
    field(&mut out, 1, &packed);
    for (timestamp, value) in samples {
        field(&mut out, 2, &sample(*timestamp, *value));
    }
    for (number, bytes) in more {
        field(&mut out, *number, bytes);
    }
    out
}

fn request(symbols: &[&str], series: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for one in series {
        field(&mut body, 5, one);
    }
    // Behind the series: the order of fields is free.
    for symbol in symbols {
        field(&mut body, 4, symbol.as_bytes());
    }
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}

fn decode(body: &[u8], limits: &WriteLimits) -> Result<WriteRequest, ApiError> {
    let mut out = WriteRequest::default();
    let outcome = Decoder::default().decode_symbols(body, limits, &mut out, &mut |_| Ok(()));
    outcome.map(|()| out)
}

fn stored(request: &WriteRequest) -> Vec<String> {
    let series = request.series();
    series
        .map(|series| format!("{} {:?}", series.to_labels(), series.samples()))
        .collect()
}

#[test]
fn series_metadata_and_samples() {
    let long = "x".repeat(300);
    let symbols = [
        "", "__name__", "up", "job", "a", "pod", &long, "Whether.", "s",
    ];
    let mut metadata = Vec::new();
    numbers(&mut metadata, 1, 1);
    numbers(&mut metadata, 3, 7);
    numbers(&mut metadata, 4, 8);
    let body = request(
        &symbols,
        &[
            series(
                &[1, 2, 3, 4],
                &[(1000, 1.5), (2000, 2.5)],
                &[(5, &metadata)],
            ),
            series(
                &[1, 2, 5, 6],
                &[(1000, 3.0)],
                &[(5, &metadata), (4, b"\x0a\x00")],
            ),
        ],
    );
    let request = decode(&body, &WriteLimits::default()).unwrap();
    let expected = [
        "up{job=\"a\"} [(1000, 1.5), (2000, 2.5)]".to_owned(),
        format!("up{{pod=\"{long}\"}} [(1000, 3.0)]"),
    ];
    assert_eq!(stored(&request), expected);
    let declared: Vec<_> = request.metadata().collect();
    assert_eq!(declared.len(), 1, "the same declaration twice is one");
    let declared = declared[0];
    assert_eq!(
        (declared.metric, declared.kind, declared.help, declared.unit),
        ("up", MetricKind::Counter, "Whether.", "s")
    );
    assert_eq!(
        (request.exemplars().len(), request.skipped_exemplars()),
        (1, 0)
    );
    assert!(request.refusals().is_empty());
}

#[test]
fn labels_may_come_in_any_order() {
    let symbols = ["", "__name__", "up", "job", "a", "abc"];
    let exemplar: (u8, &[u8]) = (4, b"\x0a\x04\x03\x04\x01\x02");
    let unsorted = series(&[1, 2, 3, 4, 5, 4], &[(1, 1.0)], &[exemplar]);
    let body = request(
        &symbols,
        &[unsorted, series(&[3, 4, 1, 2], &[(2, 2.0)], &[])],
    );
    let request = decode(&body, &WriteLimits::default()).unwrap();
    let expected = [
        "up{abc=\"a\", job=\"a\"} [(1, 1.0)]",
        "up{job=\"a\"} [(2, 2.0)]",
    ];
    assert_eq!(stored(&request), expected);
    let [(series, exemplar)] = request.exemplars() else {
        panic!("{:?}", request.exemplars());
    };
    assert_eq!(series.to_string(), "up{abc=\"a\", job=\"a\"}");
    assert_eq!(exemplar.labels.to_string(), "up{job=\"a\"}");
}

#[test]
fn bad_series_are_named_and_the_others_kept() {
    let symbols = ["", "__name__", "up", "job", "a"];
    let good = series(&[1, 2], &[(1, 1.0)], &[]);
    for (bad, expected) in [
        (
            series(&[1, 2, 3], &[(1, 1.0)], &[]),
            "an odd number of references",
        ),
        (
            series(&[1, 9], &[(1, 1.0)], &[]),
            "a series refers to the symbols 1 and 9, but there are 5",
        ),
        (series(&[3, 4], &[(1, 1.0)], &[]), "has no metric name"),
        (
            series(&[3, 4, 1, 2, 3, 2], &[(1, 1.0)], &[]),
            "label \"job\" appears twice (err-mimir-duplicate-label-names)",
        ),
        (
            series(&[1, 2, 3, 4, 3, 4], &[(1, 1.0)], &[]),
            "label \"job\" appears twice",
        ),
        (
            series(&[1, 2, 3, 4], &[], &[]),
            "has neither samples nor histograms",
        ),
        (
            series(&[1, 2, 3, 4], &[], &[(3, b"\x08\x01")]),
            "observations found in buckets, but the Count field is 1: histogram's observation count",
        ),
        (
            series(&[1, 2].repeat(40), &[(1, 1.0)], &[]),
            "label \"__name__\" appears twice",
        ),
    ] {
        let body = request(&symbols, &[bad, good.clone()]);
        let request = decode(&body, &WriteLimits::default()).unwrap();
        assert_eq!(stored(&request), ["up [(1, 1.0)]"], "{expected}");
        let refusals = request.refusals();
        assert_eq!(refusals.series, 1, "{expected}");
        assert!(refusals.reasons[0].contains(expected), "{refusals:?}");
    }
}

#[test]
fn corrupt_requests_are_refused_whole() {
    let limits = WriteLimits::default();
    let body = request(&["x"], &[series(&[], &[], &[])]);
    let error = decode(&body, &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the first symbol of the request must be empty"
    );
    let mut cut = Vec::new();
    field(&mut cut, 5, &[0x0a, 5, 1]);
    let cut = snap::raw::Encoder::new().compress_vec(&cut).unwrap();
    let error = decode(&cut, &limits).unwrap_err();
    assert_eq!(error.status(), 400, "{error}");
    assert!(
        error.to_string().contains("TimeSeries.labels_refs"),
        "{error}"
    );
}

#[test]
fn labels_that_would_grow_too_large_are_refused_before_they_do() {
    let long = "x".repeat(2000);
    let symbols = ["", "__name__", &long, "b", "c", "d", "e", "f"];
    let one = series(&[1, 2, 3, 2, 4, 2, 5, 2, 6, 2, 7, 2], &[(1, 1.0)], &[]);
    let body = request(&symbols, &vec![one; 1000]);
    let limits = WriteLimits {
        decompressed_bytes_max: 2 << 20,
        ..WriteLimits::default()
    };
    let error = decode(&body, &limits).unwrap_err();
    assert_eq!(error.status(), 413, "{error}");
    let mut asked = 0;
    let mut out = WriteRequest::default();
    let mut grow = |bytes| {
        asked = bytes;
        Err(ApiError::Internal("enough".to_owned()))
    };
    let refused = Decoder::default().decode_symbols(&body, &limits, &mut out, &mut grow);
    assert!(refused.is_err() && asked > 0);
    assert!(out.is_empty() && out.capacity_bytes() < 1 << 20);
}

#[test]
fn series_that_inform_may_have_more_labels() {
    let names: Vec<String> = (0..200).map(|i| format!("l{i:03}")).collect();
    let mut symbols = vec!["", "__name__", "a_info", "v"];
    symbols.extend(names.iter().map(String::as_str));
    let with_labels = |count: u64| {
        let labels = (4..).take(count as usize - 1).flat_map(|name| [name, 3]);
        series(
            &[1, 2].into_iter().chain(labels).collect::<Vec<_>>(),
            &[(1, 1.0)],
            &[],
        )
    };
    let body = request(&symbols, &[80, 81, 200].map(with_labels));
    let out = decode(&body, &WriteLimits::default()).unwrap();
    assert_eq!((out.series().count(), out.refusals().series), (1, 2));
    for (reason, count) in out.refusals().reasons.iter().zip([81, 200]) {
        let expected =
            format!("has {count} labels, more than 80 (max_label_names_per_info_series)");
        assert!(reason.contains(&expected), "{reason}");
    }
}
