//! Bodies of writes: what a client may send to any node.

use crate::Target;
use trefoil_api::{
    ApiError, WriteLimits,
    exposition::{Dialect, ImportOptions, import_protobuf, import_text},
    influx::{Precision, import_lines},
    json_lines::import_json_lines,
    otlp::{Export, Imported, OtlpOptions, import_metrics, transcode_json},
    remote_write::{Decoder, WriteRequest, encode},
};
use trefoil_model::Labels;

/// Bytes of buffers for each byte of a body: a line of four bytes (`a 1` and its end) becomes a label of 11 bytes, a
/// sample of 16 and an end of 8, in vectors that double.
const MULTIPLE: usize = 24;
/// What is allocated for the smallest body.
const BASE_BYTES: usize = 64 << 10;
/// Bytes that OpenTelemetry's points may take. A point of a few bytes has all labels of its resource, so the memory that
/// they need has no such multiple, and is asked for.
const POINTS_BYTES_MAX: usize = 1 << 20;
/// Vectors double, and the last series comes on top.
const POINTS_BYTES_HELD_MAX: usize = 4 << 20;

pub(crate) const TEXT: Target = Target {
    name: "text",
    run: |body| import(body, Dialect::Text),
    seeds: || {
        vec![
            "# HELP a_total He\\nlp \u{e9}\n# TYPE a_total counter\na_total{b=\"c\\\"d\",e=\"f\"} 1.5 7\n\
              {\"x.y\",\"z\"=\"1\"} NaN\n\n# comment\nb{} -Inf -1\n"
                .as_bytes()
                .to_vec(),
        ]
    },
};

pub(crate) const OPEN_METRICS: Target = Target {
    name: "open-metrics",
    run: |body| import(body, Dialect::OpenMetrics),
    seeds: || {
        vec![
            b"# TYPE h histogram\n# HELP h x\nh_bucket{le=\"1.0\"} 1 2.5 # {t=\"u\"} 0.5 1\n\
              h_bucket{le=\"+Inf\"} 3 2.5\nh_count 3 2.5\nh_sum 9 2.5\n# EOF\n"
                .to_vec(),
            b"# TYPE s stateset\ns{s=\"on\"} 1\n# TYPE i info\ni_info{v=\"1\"} 1\n# EOF\n".to_vec(),
        ]
    },
};

pub(crate) const PROTOBUF: Target = Target {
    name: "protobuf",
    run: |body| {
        let limits = WriteLimits::default();
        check(body, |out| import_protobuf(body, &options(), &limits, out));
    },
    // MetricFamily { name: "h", type: HISTOGRAM, metric { label { l = v } histogram { 6, bucket { 4, <= 0 } } } }
    seeds: || {
        vec![
            b"\x20\x0a\x01h\x18\x04\x22\x19\x0a\x06\x0a\x01l\x12\x01v\x3a\x0f\x08\x06\x1a\x0b\x08\x04\x11\0\0\0\0\0\0\0\0"
                .to_vec(),
        ]
    },
};

pub(crate) const INFLUX: Target = Target {
    name: "influx",
    run: |body| {
        let limits = WriteLimits::default();
        check(body, |out| {
            import_lines(body, Precision::Seconds, &options(), &limits, out).map(drop)
        });
    },
    seeds: || {
        vec![
            b"cpu,host=a\\ b,zone=c usage=1.5,idle=2i,on=t,name=\"x \\\"y\nz\" 15\nm x=7u\n"
                .to_vec(),
        ]
    },
};

pub(crate) const JSON_LINES: Target = Target {
    name: "json-lines",
    run: |body| {
        let limits = WriteLimits::default();
        check(body, |out| {
            import_json_lines(body, &options(), &limits, out)
        });
    },
    seeds: || {
        let lines = [
            r#"{"metric":{"__name__":"a","b":"\u00e9"},"values":[1,null,"Infinity"],"timestamps":[1,2,3]}"#,
            r#"{"timestamps":[0],"values":[-0.5e1],"metric":{"__name__":"c"}}"#,
            r#"{"metric":{"__name__":"h"},"values":[{"schema":3,"count":6,"sum":7.5,"zero_threshold":0.001,"zero_count":1,
            "positive":{"spans":[[-2,1]],"counts":[5]}},{"schema":-53,"count":3,"sum":2.25,"zero_threshold":0,
            "zero_count":0,"positive":{"spans":[[0,3]],"counts":[1,1,1]},"bounds":[0.5,1]}],"timestamps":[1,2]}"#,
        ];
        let line = |line: &&str| line.replace('\n', "").into_bytes();
        vec![lines[..2].join("\n").into_bytes(), line(&lines[2])]
    },
};

pub(crate) const OTLP: Target = Target {
    name: "otlp",
    run: points,
    seeds: || {
        let mut message = Vec::new();
        let body = OTLP_JSON_SEED.as_bytes();
        let written = transcode_json(Export::Metrics, body, &mut message, &mut |_| Ok(()));
        written.expect("a good body");
        vec![message]
    },
};

pub(crate) const OTLP_JSON: Target = Target {
    name: "otlp-json",
    run: |body| {
        let mut message = Vec::new();
        let written = transcode_json(Export::Metrics, body, &mut message, &mut |_| Ok(()));
        assert!(message.capacity() <= BASE_BYTES + MULTIPLE * body.len());
        match written {
            Ok(()) => points(&message),
            Err(error) => assert!(error.status() < 500, "{error}"),
        }
    },
    seeds: || vec![OTLP_JSON_SEED.as_bytes().to_vec()],
};

const OTLP_JSON_SEED: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}},
{"key":"a","value":{"kvlistValue":{"values":[{"key":"b","value":{"bytesValue":"AQI="}}]}}}]},"scopeMetrics":[{"metrics":[
{"name":"g.h","unit":"s","gauge":{"dataPoints":[{"timeUnixNano":"9","asDouble":"NaN","attributes":[{"key":"k","value":
{"intValue":"-1"}}],"exemplars":[{"traceId":"0aFF"}]}]}},{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[
{"timeUnixNano":5,"count":3,"sum":1.5,"bucketCounts":[1,2],"explicitBounds":[1e3]}]}},{"name":"s","summary":{"dataPoints":
[{"count":1,"quantileValues":[{"quantile":0.5,"value":2}]}]}},{"name":"e","exponentialHistogram":{"aggregationTemporality":1,
"dataPoints":[{"startTimeUnixNano":1,"timeUnixNano":5000000,"count":3,"sum":1,"scale":9,"zeroCount":1,"positive":{"offset":-3,
"bucketCounts":[1,1]}}]}},{"name":"d","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"timeUnixNano":5,
"asInt":"7","flags":1}]}}]}]}]}"#;

pub(crate) const REMOTE_WRITE: Target = Target {
    name: "remote-write",
    run: |body| {
        let limits = WriteLimits::default();
        for body in [body, &compressed(body)] {
            check(body, |out| Decoder::default().decode(body, &limits, out));
        }
    },
    seeds: || {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let body = encode([(&labels, &[(1000, 1.0), (2000, 2.0)][..])]);
        let plain = snap::raw::Decoder::new().decompress_vec(&body);
        vec![plain.expect("it was compressed just now"), body]
    },
};

pub(crate) const SYMBOLS: Target = Target {
    name: "symbols",
    run: |body| {
        let limits = WriteLimits::default();
        for body in [body, &compressed(body)] {
            check(body, |out| {
                Decoder::default().decode_symbols(body, &limits, out, &mut |_| Ok(()))
            });
        }
    },
    // Symbols "", "__name__", "up"; a series of both with one sample.
    seeds: || {
        vec![
            b"\x22\0\x22\x08__name__\x22\x02up\x2a\x11\x0a\x02\x01\x02\x12\x0b\x09\0\0\0\0\0\0\0\0\x10\x01"
                .to_vec(),
        ]
    },
};

/// The decoders see it as what was compressed, so that changes reach what is behind the compression.
fn compressed(body: &[u8]) -> Vec<u8> {
    let compressed = snap::raw::Encoder::new().compress_vec(body);
    compressed.expect("the body is small")
}

fn options() -> ImportOptions {
    ImportOptions {
        time: 1,
        extra_labels: vec![("job".to_owned(), "x".to_owned())],
    }
}

fn import(body: &[u8], dialect: Dialect) {
    let limits = WriteLimits::default();
    check(body, |out| {
        import_text(body, dialect, &options(), &limits, out)
    });
}

/// OpenTelemetry's points. What they take was asked for.
fn points(message: &[u8]) {
    let (options, limits) = (OtlpOptions::default(), WriteLimits::default());
    let mut out = Imported::default();
    let mut grow = |bytes: usize| match bytes > POINTS_BYTES_MAX {
        true => Err(ApiError::BadData("too many points".to_owned())),
        false => Ok(()),
    };
    let times = 0..=i64::MAX;
    let read = import_metrics(message, &options, &limits, times, &mut out, &mut grow);
    if let Err(error) = read {
        assert!(out.request.is_empty() && out.deltas.is_empty(), "{error}");
        assert!(error.status() < 500, "{error}");
    }
    let held = out.capacity_bytes();
    assert!(held <= POINTS_BYTES_HELD_MAX, "{held} bytes");
    check_series(&out.request);
    check_series(&out.deltas);
}

/// Refused bodies leave nothing behind and are the client's fault; series of others have labels in canonical form.
fn check(body: &[u8], decode: impl FnOnce(&mut WriteRequest) -> Result<(), ApiError>) {
    let mut out = WriteRequest::default();
    if let Err(error) = decode(&mut out) {
        assert!(out.is_empty(), "refused and not empty: {error}");
        assert!(error.status() < 500, "{error}");
    }
    let bytes_max = BASE_BYTES + MULTIPLE * body.len().max(decompressed_bytes(body));
    assert!(
        out.capacity_bytes() <= bytes_max,
        "{} bytes",
        out.capacity_bytes()
    );
    check_series(&out);
}

fn check_series(request: &WriteRequest) {
    for series in request.series() {
        assert!(Labels::from_canonical(series.canonical()).is_ok());
    }
}

/// What a snappy body says that it holds, 0 for others.
fn decompressed_bytes(body: &[u8]) -> usize {
    snap::raw::decompress_len(body).map_or(0, |bytes| bytes.min(body.len() * 32))
}
