//! Native histograms in remote write 1.0 and 2.0: what is read of them, and with which words the bad ones are refused.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::sync::Arc;
use trefoil_api::{
    ApiError, WriteLimits,
    remote_write::{Decoder, Sample, SampleValue, WriteRequest},
};
use trefoil_model::{Histogram, ResetHint, histogram::Buckets, write_varint};

const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

fn bytes(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    write_varint(out, number << 3 | 2);
    write_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    write_varint(out, field << 3);
    write_varint(out, value);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    write_varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn span(out: &mut Vec<u8>, field: u64, offset: i64, length: u64) {
    let mut span = Vec::new();
    number(&mut span, 1, zigzag(offset));
    number(&mut span, 2, length);
    bytes(out, field, &span);
}

fn packed(out: &mut Vec<u8>, field: u64, deltas: &[i64]) {
    let mut content = Vec::new();
    deltas
        .iter()
        .for_each(|delta| write_varint(&mut content, zigzag(*delta)));
    bytes(out, field, &content);
}

fn doubles(out: &mut Vec<u8>, field: u64, values: &[f64]) {
    let content: Vec<u8> = values
        .iter()
        .flat_map(|v| v.to_bits().to_le_bytes())
        .collect();
    bytes(out, field, &content);
}

/// Integers on both sides: buckets -1, 0 and 3 with 4, 1 and 3 on the positive side, 1 with 2 on the negative one.
fn integers() -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, 1, 12);
    double(&mut out, 3, 1.5);
    number(&mut out, 4, zigzag(3));
    double(&mut out, 5, 0.5);
    number(&mut out, 6, 2);
    span(&mut out, 8, 1, 1);
    packed(&mut out, 9, &[2]);
    span(&mut out, 11, -1, 2);
    span(&mut out, 11, 2, 1);
    packed(&mut out, 12, &[4, -3, 2]);
    number(&mut out, 14, 3);
    number(&mut out, 15, 1_000);
    out
}

/// A request of one series `h` in the form of 1.0 or 2.0, with samples behind the histograms in the first.
fn decode(version: u8, histograms: &[Vec<u8>], more: &[u8]) -> WriteRequest {
    decode_within(&WriteLimits::default(), version, histograms, more)
}

fn decode_within(
    limits: &WriteLimits,
    version: u8,
    histograms: &[Vec<u8>],
    more: &[u8],
) -> WriteRequest {
    let (mut series, mut body) = (Vec::new(), Vec::new());
    if version == 1 {
        bytes(&mut series, 1, b"\x0a\x08__name__\x12\x01h");
    } else {
        for symbol in ["", "__name__", "h"] {
            bytes(&mut body, 4, symbol.as_bytes());
        }
        bytes(&mut series, 1, &[1, 2]);
    }
    for histogram in histograms {
        bytes(&mut series, if version == 1 { 4 } else { 3 }, histogram);
    }
    series.extend_from_slice(more);
    bytes(&mut body, if version == 1 { 1 } else { 5 }, &series);
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let (mut out, mut decoder) = (WriteRequest::default(), Decoder::default());
    match version {
        1 => decoder.decode(&body, limits, &mut out),
        _ => decoder.decode_symbols(&body, limits, &mut out, &mut |_| Ok(())),
    }
    .expect("a sound request");
    out
}

fn samples(request: &WriteRequest) -> Vec<Sample> {
    request
        .series()
        .flat_map(|series| series.whole_samples())
        .collect()
}

#[test]
fn both_versions_keep_integers_floats_and_custom_buckets() {
    let mut floats = Vec::new();
    double(&mut floats, 2, 3.5);
    double(&mut floats, 7, 0.5);
    number(&mut floats, 8 + 6, 1);
    span(&mut floats, 11, 0, 2);
    doubles(&mut floats, 13, &[1.25, 1.75]);
    number(&mut floats, 15, 2_000);
    let mut custom = Vec::new();
    number(&mut custom, 1, 3);
    number(&mut custom, 4, zigzag(-53));
    span(&mut custom, 11, 0, 2);
    packed(&mut custom, 12, &[1, 1]);
    number(&mut custom, 14, 2);
    number(&mut custom, 15, 3_000);
    doubles(&mut custom, 16, &[0.5, 1.0]);
    let side = |spans: &[(i32, u32)], counts: &[f64]| {
        Buckets::from_spans(spans, counts.to_vec()).expect("lengths agree")
    };
    let expected = [
        Histogram {
            schema: 3,
            reset_hint: ResetHint::Gauge,
            zero_threshold: 0.5,
            zero_count: 2.0,
            count: 12.0,
            sum: 1.5,
            positive: side(&[(-1, 2), (2, 1)], &[4.0, 1.0, 3.0]),
            negative: side(&[(1, 1)], &[2.0]),
            ..Histogram::default()
        },
        Histogram {
            reset_hint: ResetHint::Reset,
            zero_count: 0.5,
            count: 3.5,
            positive: side(&[(0, 2)], &[1.25, 1.75]),
            ..Histogram::default()
        },
        Histogram {
            schema: -53,
            count: 3.0,
            positive: side(&[(0, 2)], &[1.0, 2.0]),
            custom_bounds: [0.5, 1.0].into(),
            ..Histogram::default()
        },
    ];
    let expected: Vec<Sample> = (1..)
        .zip(expected)
        .map(|(second, histogram)| Sample {
            time: second * 1_000,
            start: 0,
            value: SampleValue::Histogram(Arc::new(histogram)),
        })
        .collect();
    let histograms = [integers(), floats, custom];
    for version in [1, 2] {
        let request = decode(version, &histograms, &[]);
        assert_eq!(samples(&request), expected, "version {version}");
        assert!(request.refusals().is_empty());
        assert_eq!(request.histogram_count(), 3);
    }
}

#[test]
fn a_stale_histogram_is_the_stale_marker() {
    let mut stale = Vec::new();
    double(&mut stale, 3, STALE);
    number(&mut stale, 15, 1_000);
    for version in [1, 2] {
        let request = decode(version, std::slice::from_ref(&stale), &[]);
        let series = request.series().next().expect("a series");
        let (time, value) = series.samples()[0];
        assert_eq!((time, value.to_bits()), (1_000, STALE.to_bits()));
        assert!(series.is_plain());
        assert_eq!(request.histogram_count(), 1, "it came as a histogram");
    }
}

/// A body of one series, as version 1.0 or 2.0, of so many equal fields.
fn repeated(version: u8, field: u64, content: &[u8], times: usize) -> Vec<u8> {
    let (mut series, mut body) = (Vec::new(), Vec::new());
    match version {
        1 => bytes(&mut series, 1, b"\x0a\x08__name__\x12\x01h"),
        _ => {
            for symbol in ["", "__name__", "h"] {
                bytes(&mut body, 4, symbol.as_bytes());
            }
            bytes(&mut series, 1, &[1, 2]);
        }
    }
    (0..times).for_each(|_| bytes(&mut series, field, content));
    bytes(&mut body, if version == 1 { 1 } else { 5 }, &series);
    snap::raw::Encoder::new().compress_vec(&body).unwrap()
}

/// Histograms and exemplars take two bytes each on the wire.
#[test]
fn a_series_of_empty_messages_ends_at_the_limit_and_asks_for_memory() {
    let limits = WriteLimits {
        decompressed_bytes_max: 4 << 20,
        ..WriteLimits::default()
    };
    for (version, field) in [(1, 4), (1, 3), (2, 3), (2, 4)] {
        let body = repeated(version, field, &[], 1 << 20);
        let (mut out, mut asked) = (WriteRequest::default(), 0);
        let mut decode = |grow: &mut dyn FnMut(usize) -> Result<(), ApiError>| {
            let (mut decoder, out) = (Decoder::default(), &mut out);
            match version {
                1 => decoder.decode_within(&body, &limits, out, grow),
                _ => decoder.decode_symbols(&body, &limits, out, grow),
            }
        };
        let too_large = decode(&mut |bytes| {
            asked = bytes;
            Ok(())
        });
        assert_eq!(too_large.unwrap_err().status(), 413);
        assert!((3 << 20..8 << 20).contains(&asked), "{asked}");
        let refused = decode(&mut |bytes| match bytes < 2 << 20 {
            true => Ok(()),
            false => Err(ApiError::Internal("enough".to_owned())),
        });
        assert_eq!(refused.unwrap_err().status(), 500);
        // The places of what came first are buffers; at the limit there would be many more.
        assert!(out.capacity_bytes() < 4 << 20, "{}", out.capacity_bytes());
    }
}

#[test]
fn histograms_and_exemplars_are_part_of_a_requests_memory() {
    let (mut decoder, mut out) = (Decoder::default(), WriteRequest::default());
    let body = repeated(1, 4, &integers(), 1_000);
    decoder
        .decode(&body, &WriteLimits::default(), &mut out)
        .unwrap();
    let least = 1_000 * (size_of::<Histogram>() + 4 * 12);
    assert!(out.capacity_bytes() >= least);
}

#[test]
fn more_buckets_or_bounds_than_a_request_may_bring_refuse_their_histogram() {
    let custom = |bounds: usize| {
        let mut out = Vec::new();
        number(&mut out, 4, zigzag(-53));
        let bounds: Vec<f64> = (0..bounds).map(|at| at as f64).collect();
        doubles(&mut out, 16, &bounds);
        number(&mut out, 15, 1_000);
        out
    };
    let listed = |buckets: usize| {
        let mut out = Vec::new();
        span(&mut out, 11, 0, buckets as u64);
        packed(&mut out, 12, &vec![0; buckets]);
        number(&mut out, 15, 1_000);
        out
    };
    for version in [1, 2] {
        let histograms = [custom(2_048), custom(2_049), listed(2_048), listed(2_049)];
        let request = decode(version, &histograms, &[]);
        assert_eq!(request.sample_count(), 2);
        assert_eq!(request.refusals().samples, 2);
        let reason = &request.refusals().reasons[0];
        assert!(
            reason.contains("more than 2048 buckets, in series h"),
            "{reason}"
        );
    }
}

#[test]
fn a_tenants_limit_makes_histograms_coarser_or_refuses_them() {
    let decode = |most, reduces, histogram: Vec<u8>| {
        let limits = WriteLimits {
            native_buckets_max: most,
            reduces_native_buckets: reduces,
            ..WriteLimits::default()
        };
        decode_within(&limits, 2, &[histogram], &[])
    };
    let found = |request: &WriteRequest| match &samples(request)[..] {
        [sample] => match &sample.value {
            SampleValue::Histogram(h) => {
                (h.schema, h.count, h.positive.clone(), h.negative.clone())
            }
            SampleValue::Float(_) => panic!("it is a histogram"),
        },
        others => panic!("{others:?}"),
    };
    let side = |spans: &[(i32, u32)], counts: &[f64]| {
        Buckets::from_spans(spans, counts.to_vec()).expect("lengths agree")
    };
    let negative = side(&[(1, 1)], &[2.0]);
    let whole = side(&[(-1, 2), (2, 1)], &[4.0, 1.0, 3.0]);
    let kept = decode(4, false, integers());
    assert_eq!(found(&kept), (3, 12.0, whole, negative.clone()));
    let coarser = side(&[(0, 1), (1, 1)], &[5.0, 3.0]);
    let reduced = decode(3, true, integers());
    assert_eq!(found(&reduced), (2, 12.0, coarser, negative));
    let mut custom = Vec::new();
    number(&mut custom, 1, 3);
    number(&mut custom, 4, zigzag(-53));
    span(&mut custom, 11, 0, 2);
    packed(&mut custom, 12, &[1, 1]);
    doubles(&mut custom, 16, &[0.5, 1.0]);
    for (most, reduces, histogram, expected) in [
        (
            3,
            false,
            integers(),
            "buckets: 4 limit: 3 (err-mimir-max-native-histogram-buckets)",
        ),
        (
            2,
            true,
            integers(),
            "buckets: 4 limit: 2 (err-mimir-not-reducible-native-histogram)",
        ),
        (
            1,
            true,
            custom,
            "buckets: 2 limit: 1 (err-mimir-not-reducible-native-histogram)",
        ),
    ] {
        let request = decode(most, reduces, histogram);
        assert!(samples(&request).is_empty(), "{expected}");
        let refusals = request.refusals();
        assert_eq!((refusals.series, refusals.samples), (1, 1), "{expected}");
        let reason = &refusals.reasons[0];
        assert!(
            reason.contains(expected) && reason.ends_with("buckets, in series h{}"),
            "{reason}"
        );
    }
}

#[test]
fn a_tenant_may_have_no_native_histograms() {
    let limits = WriteLimits {
        native_histograms: false,
        ..WriteLimits::default()
    };
    let mut stale = Vec::new();
    double(&mut stale, 3, STALE);
    number(&mut stale, 15, 2_000);
    let mut more = Vec::new();
    double(&mut more, 1, 2.0);
    let mut sample = Vec::new();
    bytes(&mut sample, 2, &more);
    for version in [1, 2] {
        let request = decode_within(&limits, version, &[integers(), stale.clone()], &sample);
        assert_eq!(samples(&request), [Sample::float(0, 2.0)]);
        let refusals = request.refusals();
        assert_eq!(
            (refusals.series, refusals.partly, refusals.samples),
            (1, 1, 2)
        );
        let expected = "native histograms are not taken of this tenant (native_histograms_ingestion_enabled), in series h{}";
        assert_eq!(refusals.reasons, [expected]);
    }
}

#[test]
fn start_timestamps_are_those_of_samples_or_of_their_series() {
    let mut own = integers();
    number(&mut own, 17, 400);
    let mut more = Vec::new();
    for start in [0, 300] {
        let mut sample = Vec::new();
        double(&mut sample, 1, 2.0);
        number(&mut sample, 2, 2_000 + start);
        if start > 0 {
            number(&mut sample, 3, start);
        }
        bytes(&mut more, 2, &sample);
    }
    let starts = |more: &[u8]| {
        let found = samples(&decode(2, &[own.clone(), integers()], more));
        found.iter().map(|sample| sample.start).collect::<Vec<_>>()
    };
    assert_eq!(starts(&more), [400, 0, 0, 300]);
    number(&mut more, 6, 200);
    assert_eq!(starts(&more), [400, 200, 200, 300]);
}

#[test]
fn bad_histograms_are_refused_with_the_words_of_prometheus_and_the_others_kept() {
    let check = |bad: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let mut histogram = Vec::new();
        bad(&mut histogram);
        let request = decode(2, &[histogram, integers()], &[]);
        assert_eq!(request.histogram_count(), 1, "{expected}");
        let refusals = request.refusals();
        assert_eq!(refusals.samples, 1);
        let expected = format!("{expected}, in series h{{}}");
        assert_eq!(refusals.reasons, [expected]);
    };
    check(
        &|out| number(out, 4, zigzag(9)),
        "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema 9",
    );
    check(
        &|out| {
            span(out, 11, 0, 2);
            packed(out, 12, &[1]);
        },
        "positive side: spans need 2 buckets, have 1 buckets: histogram spans specify different number of buckets than provided",
    );
    check(
        &|out| {
            span(out, 8, 0, 1);
            span(out, 8, -1, 1);
            packed(out, 9, &[1, 1]);
        },
        "negative side: span number 2 with offset -1: histogram has a span whose offset is negative",
    );
    check(
        &|out| {
            span(out, 11, 0, 2);
            packed(out, 12, &[1, -2]);
        },
        "positive side: bucket number 2 has observation count of -1: histogram has a bucket whose observation count is negative",
    );
    check(
        &|out| number(out, 1, 1),
        "0 observations found in buckets, but the Count field is 1: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)",
    );
    check(
        &|out| {
            double(out, 3, f64::NAN);
            number(out, 6, 1);
        },
        "1 observations found in buckets, but the Count field is 0: histogram's observation count should be at least the number of observations found in the buckets",
    );
    check(
        &|out| doubles(out, 16, &[1.0]),
        "histogram with exponential schema must not have custom bounds",
    );
    let custom = |out: &mut Vec<u8>, bounds: &[f64]| {
        number(out, 4, zigzag(-53));
        doubles(out, 16, bounds);
    };
    check(
        &|out| custom(out, &[2.0, 1.0]),
        "custom buckets: histogram custom bounds must be in strictly increasing order",
    );
    check(
        &|out| custom(out, &[f64::INFINITY]),
        "custom buckets: histogram custom bounds must be finite",
    );
    check(
        &|out| {
            custom(out, &[1.0]);
            span(out, 11, 0, 3);
        },
        "custom buckets: histogram custom bounds are too few",
    );
    check(
        &|out| {
            custom(out, &[1.0]);
            number(out, 6, 1);
        },
        "custom buckets: must have zero count of 0",
    );
    check(
        &|out| {
            custom(out, &[1.0]);
            span(out, 8, 0, 1);
        },
        "custom buckets: must not have negative spans",
    );
}
