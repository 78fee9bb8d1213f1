//! Every decoder over thousands of broken variants of good bodies: it never panics, and what it fills
//! stays within a stated multiple of the body.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use rand::{RngExt, SeedableRng, rngs::StdRng};
use trefoil_api::{
    ApiError, WriteLimits,
    exposition::{Dialect, ImportOptions, import_protobuf, import_text},
    influx::{Precision, import_lines},
    json_lines::import_json_lines,
    otlp::{Export, Imported, OtlpOptions, import_metrics, transcode_json},
    remote_write::{Decoder, WriteRequest, encode},
};
use trefoil_model::Labels;

/// Variants of each body.
const VARIANTS: usize = 20_000;
/// Bytes of buffers for each byte of a body: a line of four bytes (`a 1` and its end) becomes a label of
/// 11 bytes, a sample of 16 and an end of 8, in vectors that double.
const MULTIPLE: usize = 24;
/// What is allocated for the smallest body.
const BASE_BYTES: usize = 64 << 10;

const TEXT: &str = "# HELP a_total He\\nlp \u{e9}\n# TYPE a_total counter\na_total{b=\"c\\\"d\",e=\"f\"} 1.5 7\n\
                    {\"x.y\",\"z\"=\"1\"} NaN\n\n# comment\nb{} -Inf -1\n";
const OPEN_METRICS: &str = "# TYPE h histogram\n# UNIT h \nh_bucket{le=\"1.0\"} 1 2.5 # {t=\"\u{e9}\"} 0.5 1\n\
                            h_bucket{le=\"+Inf\"} 3 2.5\nh_count 3 2.5\nh_sum 9 2.5\n# TYPE s stateset\n\
                            s{s=\"on\"} 1\n# EOF\n";
const LINES: &str =
    "cpu,host=a\\ b,zone=c usage=1.5,idle=2i,on=t,name=\"x \\\"y\nz\" 15\n# no\nm x=7u\n";

/// Changes some bytes: flips, overwrites, inserts, removes, repeats, swaps in of telling ones.
fn mutate(random: &mut StdRng, body: &[u8]) -> Vec<u8> {
    const TELLING: &[u8] = b"\"\\{}=,# \n\0\x7f\x80\xff0-.";
    let mut out = body.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=out.len());
        let end = (at + random.random_range(0..12)).min(out.len());
        let telling = TELLING[random.random_range(0..TELLING.len())];
        match random.random_range(0..6) {
            0 if at < out.len() => out[at] ^= 1 << random.random_range(0..8),
            1 if at < out.len() => out[at] = telling,
            2 => out.insert(at, telling),
            3 => drop(out.drain(at..end)),
            4 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            _ => out.truncate(at.max(1)),
        }
    }
    out
}

/// Runs a decoder over variants of a body.
fn check(
    what: &str,
    body: &[u8],
    mut decode: impl FnMut(&[u8], &mut WriteRequest) -> Result<(), ApiError>,
) {
    let mut whole = WriteRequest::default();
    decode(body, &mut whole).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(whole.series_count() > 0, "{what}");
    let mut random = StdRng::seed_from_u64(11);
    let mut refused = 0;
    for _ in 0..VARIANTS {
        let variant = mutate(&mut random, body);
        let mut out = WriteRequest::default();
        if let Err(error) = decode(&variant, &mut out) {
            refused += 1;
            assert!(out.is_empty(), "{what}: refused and not empty: {error}");
            assert!(error.status() < 500, "{what}: {error}");
        }
        let bytes_max = BASE_BYTES + MULTIPLE * variant.len();
        assert!(out.capacity_bytes() <= bytes_max, "{what}: {variant:?}");
        for series in out.series() {
            assert!(Labels::from_canonical(series.canonical()).is_ok(), "{what}");
        }
    }
    assert!(refused > 0, "{what}: nothing was refused");
}

fn options() -> ImportOptions {
    ImportOptions {
        time: 1,
        extra_labels: vec![("job".to_owned(), "x".to_owned())],
    }
}

#[test]
fn texts() {
    let limits = WriteLimits::default();
    for (body, dialect) in [(TEXT, Dialect::Text), (OPEN_METRICS, Dialect::OpenMetrics)] {
        check("text", body.as_bytes(), |body, out| {
            import_text(body, dialect, &options(), &limits, out)
        });
    }
}

#[test]
fn lines() {
    let limits = WriteLimits::default();
    check(
        "line protocol",
        &[LINES.as_bytes(), b"y z=1"].concat(),
        |body, out| import_lines(body, Precision::Seconds, &options(), &limits, out).map(drop),
    );
}

#[test]
fn json_lines() {
    let limits = WriteLimits::default();
    let body = "{\"metric\":{\"__name__\":\"a\",\"b\":\"\\u00e9\"},\"values\":[1,null,\"Infinity\"],\"timestamps\":[1,2,3]}\n\
                {\"timestamps\":[0],\"values\":[-0.5e1],\"metric\":{\"__name__\":\"c\"}}\n";
    check("JSON lines", body.as_bytes(), |body, out| {
        import_json_lines(body, &options(), &limits, out)
    });
}

#[test]
fn protobuf() {
    let limits = WriteLimits::default();
    // MetricFamily { name: "h", type: HISTOGRAM, metric { label { l = v } histogram { 6, bucket { 4, <= 0 } } } }
    let body = b"\x20\x0a\x01h\x18\x04\x22\x19\x0a\x06\x0a\x01l\x12\x01v\x3a\x0f\x08\x06\x1a\x0b\x08\x04\x11\0\0\0\0\0\0\0\0";
    check("protobuf", body, |body, out| {
        import_protobuf(body, &options(), &limits, out)
    });
}

#[test]
fn remote_write() {
    let limits = WriteLimits::default();
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "a"), ("z", "\u{e9}")]);
    let one = encode([(&labels, &[(1000, 1.0), (2000, 2.0)][..])]);
    let one = snap::raw::Decoder::new().decompress_vec(&one).unwrap();
    // Symbols "", "__name__", "up"; a series of both with one sample.
    let two = b"\x22\0\x22\x08__name__\x22\x02up\x2a\x11\x0a\x02\x01\x02\x12\x0b\x09\0\0\0\0\0\0\0\0\x10\x01";
    let compress = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body).unwrap();
    check("remote write 1.0", &one, |body, out| {
        Decoder::default().decode(&compress(body), &limits, out)
    });
    check("remote write 2.0", two, |body, out| {
        Decoder::default().decode_symbols(&compress(body), &limits, out, &mut |_| Ok(()))
    });
    check("snappy", &compress(&one), |body, out| {
        Decoder::default().decode(body, &limits, out)
    });
}

const OTLP: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}},
{"key":"a","value":{"kvlistValue":{"values":[{"key":"b","value":{"bytesValue":"AQI="}}]}}}]},"scopeMetrics":[{"metrics":[
{"name":"g.h","unit":"s","gauge":{"dataPoints":[{"timeUnixNano":"9","asDouble":"NaN","attributes":[{"key":"k","value":
{"intValue":"-1"}}],"exemplars":[{"traceId":"0aFF"}]}]}},{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[
{"timeUnixNano":5,"count":3,"sum":1.5,"bucketCounts":[1,2],"explicitBounds":[1e3]}]}},{"name":"s","summary":{"dataPoints":
[{"count":1,"quantileValues":[{"quantile":0.5,"value":2}]}]}}]}]}]}"#;

/// A resource with `target_info` makes at most 601 samples of two points.
const OTLP_BASE_BYTES: usize = 64 << 10;

#[test]
fn otlp() {
    let (options, limits) = (OtlpOptions::default(), WriteLimits::default());
    let import = |message: &[u8], out: &mut WriteRequest| {
        let mut imported = Imported {
            request: std::mem::take(out),
            ..Imported::default()
        };
        let grow = &mut |_| Ok(());
        let outcome = import_metrics(
            message,
            &options,
            &limits,
            0..=i64::MAX,
            &mut imported,
            grow,
        );
        *out = imported.request;
        outcome.map(drop)
    };
    let mut message = Vec::new();
    transcode_json(Export::Metrics, OTLP.as_bytes(), &mut message, &mut |_| {
        Ok(())
    })
    .unwrap();
    check("OTLP protobuf", &message, import);
    check("OTLP JSON", OTLP.as_bytes(), |body, out| {
        let mut message = Vec::new();
        transcode_json(Export::Metrics, body, &mut message, &mut |_| Ok(()))?;
        assert!(message.capacity() <= OTLP_BASE_BYTES + MULTIPLE * body.len());
        import(&message, out)
    });
}
