//! OpenTelemetry's metrics: what becomes of data points, and how exporters are answered over HTTP and gRPC.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "other tests use more of it")]
mod fake;

use axum::{
    body::Body,
    http::{HeaderMap, Request},
};
use fake::{FakeNode, Mood};
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use std::{io::Write, ops::RangeInclusive, sync::Arc};
use tower::ServiceExt;
use trefoil_api::{
    Api, ApiError, ApiLimits, WriteLimits, grpc_starting_router,
    otlp::{
        Deltas, Export, Imported, OtlpOptions, Promotion, Rejections, TranslationStrategy,
        import_metrics, transcode_json,
    },
    remote_write::{MetricKind, SampleValue, WriteRequest},
};
use trefoil_model::histogram::ResetHint;

/// Times that the node stores.
const ACCEPTED: RangeInclusive<i64> = 1..=400_000;
const STALE: u64 = 0x7ff0_0000_0000_0002;
const RESOURCE: &str = r#""resource": {"attributes": [
    {"key": "service.namespace", "value": {"stringValue": "shop"}},
    {"key": "service.name", "value": {"stringValue": "cart"}},
    {"key": "service.instance.id", "value": {"stringValue": "i-1"}},
    {"key": "host.name", "value": {"stringValue": "h"}}
]}"#;

fn protobuf(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    transcode_json(Export::Metrics, json.as_bytes(), &mut out, &mut |_| Ok(())).unwrap();
    out
}

/// A request of one resource with these metrics, in JSON.
fn request(resource: &str, metrics: &str) -> String {
    let scope = r#""scope": {"name": "lib", "version": "1.2", "attributes": [{"key": "a.b", "value": {"intValue": 7}}]}"#;
    let comma = if resource.is_empty() { "" } else { "," };
    format!(
        r#"{{"resourceMetrics": [{{"scopeMetrics": [{{{scope}, "metrics": [{metrics}]}}]{comma} {resource}}}]}}"#
    )
}

fn translate(options: &OtlpOptions, json: &str) -> (Vec<String>, WriteRequest, Rejections) {
    let mut out = Imported::default();
    let body = protobuf(json);
    let limits = WriteLimits::default();
    let mut grow = |_| Ok(());
    let rejections = import_metrics(&body, options, &limits, ACCEPTED, &mut out, &mut grow);
    let rejections = rejections.unwrap();
    let mut lines = lines_of(&out.request);
    let deltas = lines_of(&out.deltas).into_iter();
    lines.extend(deltas.map(|line| format!("delta {line}")));
    (lines, out.request, rejections)
}

fn with_deltas(deltas: Deltas) -> OtlpOptions {
    OtlpOptions {
        deltas,
        ..OtlpOptions::default()
    }
}

fn lines_of(request: &WriteRequest) -> Vec<String> {
    let mut lines = Vec::new();
    for series in request.series() {
        let labels = series.to_labels();
        for (time, value) in series.samples() {
            let value = match value.to_bits() {
                STALE => "stale".to_owned(),
                _ => value.to_string(),
            };
            lines.push(format!("{labels} {time} {value}"));
        }
    }
    lines
}

fn check(metrics: &str, expected: &[&str]) {
    let (lines, _, rejections) = translate(&OtlpOptions::default(), &request("", metrics));
    assert_eq!(lines, expected);
    assert_eq!(rejections, Rejections::default());
}

#[test]
fn gauges_and_sums() {
    check(
        r#"{"name": "memory.usage", "unit": "By", "gauge": {"dataPoints": [
            {"timeUnixNano": "1500999999", "asDouble": 1.5, "attributes": [
                {"key": "pool.name", "value": {"stringValue": "a"}},
                {"key": "pool_name", "value": {"boolValue": true}},
                {"key": "1st", "value": {"doubleValue": 0.5}},
                {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}}},
                {"key": "none", "value": {}}
            ]},
            {"timeUnixNano": 2000000000, "asInt": "-7"}
        ]}}"#,
        &[
            r#"memory_usage_bytes{key_1st="0.5", list="[1,\"x\"]", pool_name="a;true"} 1500 1.5"#,
            "memory_usage_bytes 2000 -7",
        ],
    );
    check(
        r#"{"name": "requests", "unit": "{request}", "sum": {"isMonotonic": true, "aggregationTemporality": 2,
            "dataPoints": [{"timeUnixNano": 1000000, "asInt": 3}]}},
           {"name": "queue", "sum": {"aggregationTemporality": 2, "dataPoints": [{"asInt": 0}]}}"#,
        &["requests_total 1 3", "queue 0 0"],
    );
}

#[test]
fn histograms_and_summaries() {
    check(
        r#"{"name": "latency", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": 1000000, "count": 6, "sum": 7.5, "bucketCounts": [1, "2", 3], "explicitBounds": [0.005, 1],
             "attributes": [{"key": "le", "value": {"stringValue": "mine"}}]}
        ]}}"#,
        &[
            r#"latency_seconds_sum{le="mine"} 1 7.5"#,
            r#"latency_seconds_count{le="mine"} 1 6"#,
            r#"latency_seconds_bucket{le="0.005"} 1 1"#,
            r#"latency_seconds_bucket{le="1"} 1 3"#,
            r#"latency_seconds_bucket{le="+Inf"} 1 6"#,
        ],
    );
    check(
        r#"{"name": "x", "summary": {"dataPoints": [
            {"timeUnixNano": 1000000, "count": 2, "sum": 3, "quantileValues": [{"quantile": 0.99, "value": 2.5}]}
        ]}}"#,
        &["x_sum 1 3", "x_count 1 2", r#"x{quantile="0.99"} 1 2.5"#],
    );
}

#[test]
fn exponential_histograms_are_native_ones() {
    let point = |scale: i32| {
        format!(
            r#"{{"name": "e{scale}", "unit": "s", "exponentialHistogram": {{"aggregationTemporality": 2, "dataPoints": [
                {{"startTimeUnixNano": 500000000, "timeUnixNano": "1000000000", "count": "9", "sum": 7.5, "scale": {scale},
                  "zeroCount": 1, "positive": {{"offset": -2, "bucketCounts": [1, "2", 0, 3]}},
                  "negative": {{"bucketCounts": [2]}}}}
            ]}}}}"#
        )
    };
    let metrics = [point(0), point(9), point(-5)].join(",");
    let (_, out, rejections) = translate(&OtlpOptions::default(), &request("", &metrics));
    let stored: Vec<_> = out
        .series()
        .map(|series| {
            let sample = series.whole_samples().next().unwrap();
            let SampleValue::Histogram(histogram) = sample.value else {
                panic!("not a histogram");
            };
            assert_eq!(
                (sample.start, sample.time, histogram.count),
                (500, 1000, 9.0)
            );
            assert_eq!((histogram.sum, histogram.zero_count), (7.5, 1.0));
            let name = series.to_labels().metric_name().unwrap().to_owned();
            let buckets: Vec<_> = histogram.positive.iter().collect();
            (name, histogram.schema, buckets)
        })
        .collect();
    assert_eq!(
        stored,
        [
            (
                "e0_seconds".to_owned(),
                0,
                vec![(-1, 1.0), (0, 2.0), (2, 3.0)]
            ),
            ("e9_seconds".to_owned(), 8, vec![(0, 3.0), (1, 3.0)]),
        ]
    );
    let reason = "metric \"e-5\" has the scale -5, native histograms begin at -4";
    assert_eq!(
        (rejections.points, rejections.reasons),
        (1, vec![reason.to_owned()])
    );
}

#[test]
fn a_pause_is_a_stale_marker() {
    check(
        r#"{"name": "a", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "flags": 1}]}},
           {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": 1000000, "flags": 1}]}}"#,
        &[
            "a 1 stale",
            "h_count 1 stale",
            r#"h_bucket{le="+Inf"} 1 stale"#,
        ],
    );
}

#[test]
fn a_resource_becomes_job_instance_and_target_info() {
    let points = r#"{"name": "a", "gauge": {"dataPoints": [
        {"timeUnixNano": 1000000000, "asInt": 1, "attributes": [{"key": "job", "value": {"stringValue": "mine"}}]},
        {"timeUnixNano": 301000000000, "asInt": 2}
    ]}}"#;
    let (lines, out, _) = translate(&OtlpOptions::default(), &request(RESOURCE, points));
    assert_eq!(
        lines,
        [
            r#"a{instance="i-1", job="shop/cart"} 1000 1"#,
            r#"a{instance="i-1", job="shop/cart"} 301000 2"#,
            r#"target_info{host_name="h", instance="i-1", job="shop/cart"} 1000 1"#,
            r#"target_info{host_name="h", instance="i-1", job="shop/cart"} 151000 1"#,
            r#"target_info{host_name="h", instance="i-1", job="shop/cart"} 301000 1"#,
        ]
    );
    let declared: Vec<_> = out
        .metadata()
        .map(|m| (m.metric, m.kind.as_str(), m.help))
        .collect();
    assert_eq!(
        declared,
        [
            ("a", "gauge", ""),
            ("target_info", "gauge", "Target metadata")
        ]
    );
    // Nobody could tell whose attributes these are.
    let anonymous =
        r#""resource": {"attributes": [{"key": "host.name", "value": {"stringValue": "h"}}]}"#;
    let (lines, _, _) = translate(&OtlpOptions::default(), &request(anonymous, points));
    assert_eq!(lines, [r#"a{job="mine"} 1000 1"#, "a 301000 2"]);
    // And points that the node will refuse for their time say nothing.
    let odd = r#"{"name": "a", "gauge": {"dataPoints": [{"asInt": 1}, {"timeUnixNano": "18446744073709551615", "asInt": 1},
        {"timeUnixNano": 7000000, "asInt": 1}]}}"#;
    let (lines, _, _) = translate(&OtlpOptions::default(), &request(RESOURCE, odd));
    assert_eq!(lines.len(), 3 + 1);
    assert!(lines[3].starts_with("target_info") && lines[3].ends_with(" 7 1"));
}

#[test]
fn empty_attributes_are_none() {
    let options = OtlpOptions {
        promoted: Promotion::Only(vec!["host.name".to_owned()]),
        ..OtlpOptions::default()
    };
    let points = r#"{"name": "a", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "asInt": 1, "attributes": [
        {"key": "host.name", "value": {"stringValue": ""}},
        {"key": "b!c", "value": {"stringValue": ""}},
        {"key": "b.c", "value": {"stringValue": "x"}}
    ]}]}}"#;
    let (lines, _, _) = translate(&options, &request(RESOURCE, points));
    assert_eq!(
        lines[0],
        r#"a{b_c="x", host_name="h", instance="i-1", job="shop/cart"} 1 1"#
    );
}

/// Why nothing of a request is stored, and of how many points.
fn check_rejected(resource: &str, metrics: &str, points: u64, expected: &str) {
    let options = OtlpOptions {
        promoted: Promotion::Only(vec!["host.name".to_owned()]),
        promotes_scope: true,
        ..OtlpOptions::default()
    };
    let (lines, out, rejections) = translate(&options, &request(resource, metrics));
    assert_eq!(lines, [""; 0]);
    assert_eq!(rejections.reasons, [expected]);
    assert_eq!((rejections.points, out.refusals().series), (points, 0));
}

/// As many points of one metric as there are texts.
fn gauge(points: &[&str]) -> String {
    let points = points.join(",");
    format!(r#"{{"name": "a", "gauge": {{"dataPoints": [{points}]}}}}"#)
}

#[test]
fn what_is_too_long_is_rejected_before_it_is_copied() {
    let long = "x".repeat(2049);
    let text = |key: &str, value: &str| {
        format!(r#"{{"key": "{key}", "value": {{"stringValue": "{value}"}}}}"#)
    };
    let point = |attributes: &str| {
        format!(r#"{{"timeUnixNano": 1000000, "asInt": 1, "attributes": [{attributes}]}}"#)
    };
    let value_too_long = "whose value has more than 2048 bytes (max_label_value_length)";
    // Joined they would be a gigabyte, each time with all that were before.
    let same = vec![text("a", &long[..2000]); 1024].join(",");
    let expected = format!("metric \"a\" has an attribute \"a\" {value_too_long}");
    check_rejected("", &gauge(&[&point(&same)]), 1, &expected);
    let key = "k".repeat(1025);
    let expected = format!(
        "metric \"a\" has an attribute \"{}\"... whose name has more than 1024 bytes (max_label_name_length)",
        &key[..200]
    );
    check_rejected("", &gauge(&[&point(&text(&key, "x"))]), 1, &expected);
    let many: Vec<_> = (0..30).map(|i| text(&format!("l{i}"), "x")).collect();
    check_rejected(
        "",
        &gauge(&[&point(&many.join(","))]),
        1,
        "metric \"a\" has more than 30 labels (max_label_names_per_series)",
    );
    // Those of the resource are looked at once for all of its points.
    for key in ["service.name", "host.name"] {
        let attribute = text(key, &long);
        let resource = format!(r#""resource": {{"attributes": [{attribute}]}}"#);
        let points = gauge(&[&point(""), &point("")]);
        let expected =
            format!("metric \"a\" has a resource that has an attribute \"{key}\" {value_too_long}");
        check_rejected(&resource, &points, 2, &expected);
    }
    let name = format!(r#"{{"name": "{long}", "gauge": {{"dataPoints": [{{"asInt": 1}}]}}}}"#);
    let expected = format!(
        "metric \"{}\"... has a name or unit of more than 2048 bytes (max_label_value_length)",
        &long[..200]
    );
    check_rejected("", &name, 1, &expected);
    // A point that says nothing is told from its few bytes.
    let empty = format!(r#"{{"attributes": [{same}]}}"#);
    let expected = "metric \"a\" has a data point without a value";
    check_rejected("", &gauge(&[&empty]), 1, expected);
}

#[test]
fn memory_is_asked_for_before_it_is_taken() {
    let value = "x".repeat(2000);
    let (counts, bounds) = (vec!["1"; 5000].join(","), vec!["2"; 5000].join(","));
    let one_point = format!(
        r#"{{"name": "h", "histogram": {{"aggregationTemporality": 2, "dataPoints": [{{"timeUnixNano": 1000000,
        "bucketCounts": [{counts}], "explicitBounds": [{bounds}],
        "attributes": [{{"key": "a", "value": {{"stringValue": "{value}"}}}}]}}]}}}}"#
    );
    let metrics: Vec<_> = (0..50_000)
        .map(|i| format!(r#"{{"name": "m{i}", "gauge": {{}}}}"#))
        .collect();
    for metrics in [one_point, metrics.join(",")] {
        let body = protobuf(&request("", &metrics));
        let (options, limits) = (OtlpOptions::default(), WriteLimits::default());
        let mut out = Imported::default();
        let mut grow = |bytes: usize| match bytes > 1 << 20 {
            true => Err(ApiError::BadData("full".to_owned())),
            false => Ok(()),
        };
        let outcome = import_metrics(&body, &options, &limits, ACCEPTED, &mut out, &mut grow);
        assert_eq!(outcome.unwrap_err().status(), 400);
        assert!(out.capacity_bytes() < 4 << 20);
    }
}

#[test]
fn options() {
    let options = OtlpOptions {
        strategy: TranslationStrategy::NoTranslation,
        promoted: Promotion::Only(vec!["host.name".to_owned(), "absent".to_owned()]),
        keeps_identifying_attributes: true,
        promotes_scope: true,
        ..OtlpOptions::default()
    };
    let points = r#"{"name": "a.b", "unit": "s", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}}"#;
    let (lines, _, _) = translate(&options, &request(RESOURCE, points));
    let name = |line: &String| line.contains("a.b") && line.contains(r#"host.name="h""#);
    assert!(name(&lines[0]), "{lines:?}");
    for label in [
        r#"otel_scope_name="lib""#,
        r#"otel_scope_version="1.2""#,
        r#"otel_scope_a.b="7""#,
    ] {
        assert!(lines[0].contains(label), "{lines:?}");
        assert!(!lines[1].contains(label), "{lines:?}");
    }
    assert!(lines[1].contains(r#"service.name="cart""#), "{lines:?}");
}

#[test]
fn what_cannot_be_kept_is_rejected_by_name() {
    let point = r#"{"timeUnixNano": 1000000, "asInt": 1}"#;
    let metrics = [
        &format!(
            r#"{{"name": "d", "sum": {{"aggregationTemporality": 1, "dataPoints": [{point},{point}]}}}}"#
        ),
        &format!(r#"{{"name": "u", "sum": {{"dataPoints": [{point}]}}}}"#),
        &format!(r#"{{"name": "\u00e9", "gauge": {{"dataPoints": [{point}]}}}}"#),
        r#"{"name": "v", "gauge": {"dataPoints": [{"timeUnixNano": 1000000}]}}"#,
        r#"{"name": "k", "gauge": {"dataPoints": [{"asInt": 1, "attributes": [{"key": "..", "value": {"intValue": 1}}]}]}}"#,
        r#"{"name": "nothing"}"#,
        &format!(r#"{{"name": "kept", "gauge": {{"dataPoints": [{point}]}}}}"#),
    ];
    let options = with_deltas(Deltas::Accumulate);
    let (lines, _, rejections) = translate(&options, &request("", &metrics.join(",")));
    assert_eq!(lines, ["kept 1 1"]);
    assert_eq!(
        rejections.reasons,
        [
            "metric \"d\" has deltas of a sum that may fall; its total cannot be known",
            "metric \"u\" does not say its temporality",
            "metric \"\u{e9}\" has a name of which nothing can be kept",
            "metric \"v\" has a data point without a value",
            "metric \"k\" has an attribute \"..\" of whose name nothing can be kept",
        ]
    );
    assert_eq!(rejections.points, 6);
}

#[test]
fn deltas_are_added_up_or_stored_or_rejected() {
    let points = r#""aggregationTemporality": 1, "dataPoints": [{"timeUnixNano": 3000000, "startTimeUnixNano": 2000000"#;
    let exemplars = r#""exemplars": [{"timeUnixNano": 3000000, "asDouble": 1}]"#;
    let metrics = [
        format!(
            r#"{{"name": "c", "sum": {{"isMonotonic": true, {points}, "asInt": 2, {exemplars}}}]}}}}"#
        ),
        format!(
            r#"{{"name": "h", "histogram": {{{points}, "count": 4, "sum": 6, "bucketCounts": [3, 1], "explicitBounds": [1]}}]}}}}"#
        ),
        format!(
            r#"{{"name": "e", "exponentialHistogram": {{{points}, "count": 5, "sum": 1, "zeroCount": 5}}]}}}}"#
        ),
        r#"{"name": "g", "gauge": {"dataPoints": [{"timeUnixNano": 3000000, "asInt": 1}]}}"#
            .to_owned(),
    ];
    let json = request("", &metrics.join(","));
    let of = |deltas| translate(&with_deltas(deltas), &json);
    let counted = [
        "c_total 3 2",
        "h_sum 3 6",
        "h_count 3 4",
        r#"h_bucket{le="1"} 3 3"#,
        r#"h_bucket{le="+Inf"} 3 4"#,
        "e 3 NaN",
    ];
    let kinds = |request: &WriteRequest| -> Vec<MetricKind> {
        request.metadata().map(|entry| entry.kind).collect()
    };
    use MetricKind::{Counter, Gauge, Histogram, Unknown};

    let (lines, stored, rejections) = of(Deltas::Accumulate);
    let added = counted.map(|line| format!("delta {line}"));
    assert_eq!((lines[0].as_str(), &lines[1..]), ("g 3 1", &added[..]));
    assert_eq!(stored.exemplars().len(), 1, "they are stored as they are");
    assert_eq!(rejections, Rejections::default());
    assert_eq!(kinds(&stored), [Counter, Histogram, Histogram, Gauge]);

    let (lines, stored, rejections) = of(Deltas::Store);
    let kept = counted.into_iter().chain(["g 3 1"]);
    assert_eq!(lines, kept.collect::<Vec<_>>());
    assert_eq!(kinds(&stored), [Unknown, Unknown, Unknown, Gauge]);
    assert_eq!(rejections, Rejections::default());
    let samples = stored.series().flat_map(|series| series.whole_samples());
    let hints = samples.filter_map(|sample| match sample.value {
        SampleValue::Histogram(histogram) => Some(histogram.reset_hint),
        SampleValue::Float(_) => None,
    });
    assert_eq!(hints.collect::<Vec<_>>(), [ResetHint::Gauge]);

    assert_eq!(Deltas::default(), Deltas::Accumulate);
    let (lines, _, rejections) = of(Deltas::Refuse);
    assert_eq!(lines, ["g 3 1"]);
    assert_eq!(rejections.points, 3);
    let reason = "metric \"c\" has delta temporality; only cumulative temporality is accepted \
                  unless otlp.deltas is accumulate or store";
    assert_eq!(rejections.reasons[0], reason);
}

#[test]
fn attributes_without_end_refuse_the_request() {
    let attribute = r#"{"key": "a", "value": {"intValue": 1}}"#;
    let attributes = vec![attribute; 1025].join(",");
    let metrics = format!(
        r#"{{"name": "a", "gauge": {{"dataPoints": [{{"asInt": 1, "attributes": [{attributes}]}}]}}}}"#
    );
    let body = protobuf(&request("", &metrics));
    let (options, limits) = (OtlpOptions::default(), WriteLimits::default());
    let mut out = Imported::default();
    let outcome = import_metrics(
        &body,
        &options,
        &limits,
        ACCEPTED,
        &mut out,
        &mut |_| Ok(()),
    );
    assert_eq!(outcome.unwrap_err().status(), 400);
    assert!(out.request.is_empty());
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

async fn call(node: &Arc<FakeNode>, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let limits = ApiLimits {
        write: WriteLimits {
            decompressed_bytes_max: 1 << 16,
            ..WriteLimits::default()
        },
        ..ApiLimits::default()
    };
    let options = with_deltas(Deltas::Accumulate);
    let api = Api::new(Arc::<FakeNode>::clone(node), limits, options);
    let routes = match path.starts_with("/opentelemetry") {
        true => api.otlp_grpc(),
        false => api.http(),
    };
    let request = request.body(Body::from(body)).unwrap();
    let (parts, body) = routes.oneshot(request).await.unwrap().into_parts();
    let collected = body.collect().await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        trailers: collected.trailers().cloned().unwrap_or_default(),
        body: collected.to_bytes().to_vec(),
    }
}

fn one_point() -> String {
    request(
        "",
        r#"{"name": "a", "gauge": {"dataPoints": [{"timeUnixNano": 1000000, "asInt": 1}]}}"#,
    )
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const PATH: &str = "/v1/metrics";

#[tokio::test]
async fn http_takes_both_encodings_compressed_or_not() {
    let node = FakeNode::new();
    let json = one_point();
    for path in [
        PATH,
        "/otlp/v1/metrics",
        "/api/v1/otlp/v1/metrics",
        "/prometheus/api/v1/otlp/v1/metrics",
    ] {
        let answer = call(&node, path, &[JSON], json.clone().into()).await;
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, &b"{}"[..]),
            "{path}"
        );
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    let compressed = gzip(&protobuf(&json));
    let answer = call(
        &node,
        PATH,
        &[PROTOBUF, ("content-encoding", "gzip")],
        compressed,
    )
    .await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.headers["content-type"], "application/x-protobuf");
    let compressed = zstd::encode_all(json.as_bytes(), 1).unwrap();
    let headers = [JSON, ("content-encoding", "zstd"), ("x-scope-orgid", "t")];
    assert_eq!(call(&node, PATH, &headers, compressed).await.status, 200);
    // An empty request is fine.
    assert_eq!(call(&node, PATH, &[PROTOBUF], vec![]).await.status, 200);
    let stored = node.stored();
    assert_eq!(stored.len(), 6);
    assert_eq!(
        (stored[4].as_str(), stored[5].as_str()),
        ("anonymous a 1 1", "t a 1 1")
    );
}

#[tokio::test]
async fn http_says_what_was_left_out() {
    let node = FakeNode::with(Mood::RefusesOld);
    let answer = call(&node, PATH, &[JSON], one_point().into()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        String::from_utf8(answer.body).unwrap(),
        r#"{"partialSuccess":{"errorMessage":"1 of 1 series were refused, nothing of them was stored: sample is too old, in series up","rejectedDataPoints":"1"}}"#
    );
    let delta = |more: &str| {
        let sum = format!(r#""aggregationTemporality": 1, "dataPoints": [{{"asInt": 1}}]{more}"#);
        protobuf(&request(
            "",
            &format!(r#"{{"name": "d", "sum": {{{sum}}}}}"#),
        ))
    };
    let one_point_refused = |answer: &Answer| {
        answer.status == 200 && answer.body.windows(3).any(|w| w == b"\x08\x01\x12")
    };
    let answer = call(&FakeNode::new(), PATH, &[PROTOBUF], delta("")).await;
    assert!(one_point_refused(&answer), "{:?}", answer.body);

    let delta = delta(r#", "isMonotonic": true"#);
    let node = FakeNode::new();
    let answer = call(&node, PATH, &[PROTOBUF], delta.clone()).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(node.stored(), ["anonymous d_total 0 1 added up"]);
    let refusing = FakeNode::with(Mood::RefusesOld);
    let answer = call(&refusing, PATH, &[PROTOBUF], delta.clone()).await;
    assert!(one_point_refused(&answer), "{:?}", answer.body);
    let failing = FakeNode::with(Mood::NoMajority);
    let answer = call(&failing, PATH, &[PROTOBUF], delta).await;
    assert_eq!(answer.status, 503);
}

#[tokio::test]
async fn http_errors_are_statuses() {
    let node = FakeNode::new();
    let large = vec![0x0a; (1 << 16) + 1];
    for (headers, body, status, expected) in [
        (
            &[JSON][..],
            b"{]".to_vec(),
            400,
            r#"{"code":3,"message":"line 1, column 2: expected a name in quotation marks"}"#,
        ),
        (&[PROTOBUF], b"\x0a\x05".to_vec(), 400, "\x08\x03\x12"),
        (
            &[("content-type", "text/plain")],
            vec![],
            415,
            "\x08\x0c\x12",
        ),
        (
            &[JSON, ("content-encoding", "br")],
            vec![],
            415,
            r#"{"code":12,"#,
        ),
        (
            &[JSON, ("content-encoding", "gzip")],
            gzip(&large),
            413,
            r#"{"code":8,"#,
        ),
    ] {
        let answer = call(&node, PATH, headers, body).await;
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, status, "{text}");
        assert!(text.starts_with(expected), "{text}");
    }
    assert!(node.stored().is_empty());
    for (mood, status) in [(Mood::NoMajority, 503), (Mood::RateLimited, 429)] {
        let answer = call(&FakeNode::with(mood), PATH, &[JSON], one_point().into()).await;
        assert_eq!(
            (answer.status, &answer.headers["retry-after"]),
            (status, &"2".parse().unwrap())
        );
        assert!(answer.body.starts_with(br#"{"code":14,"#));
    }
}

const GRPC: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

fn framed(flag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![flag];
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out
}

#[tokio::test]
async fn grpc_takes_calls() {
    let node = FakeNode::new();
    let body = protobuf(&one_point());
    let kind = ("content-type", "application/grpc");
    for (headers, body) in [
        (vec![kind], framed(0, &body)),
        (
            vec![kind, ("grpc-encoding", "gzip")],
            framed(1, &gzip(&body)),
        ),
        (vec![kind, ("grpc-encoding", "gzip")], framed(0, &body)),
        (
            vec![kind, ("grpc-encoding", "zstd")],
            framed(1, &zstd::encode_all(&body[..], 1).unwrap()),
        ),
    ] {
        let answer = call(&node, GRPC, &headers, body).await;
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, &[0u8; 5][..])
        );
        assert_eq!(answer.headers["content-type"], "application/grpc");
        assert_eq!(answer.trailers["grpc-status"], "0");
    }
    assert_eq!(node.stored(), vec!["anonymous a 1 1"; 4]);
}

#[tokio::test]
async fn grpc_errors_are_statuses() {
    let body = framed(0, &protobuf(&one_point()));
    let large = framed(1, &gzip(&vec![0x0a; (1 << 16) + 1]));
    let gzipped = ("grpc-encoding", "gzip");
    for (mood, path, header, body, code) in [
        (
            Mood::Good,
            GRPC,
            gzipped,
            b"\0\0\0\0\x02\x0a\x05".to_vec(),
            3,
        ),
        (Mood::Good, GRPC, gzipped, vec![], 3),
        (Mood::Good, GRPC, gzipped, large, 8),
        (Mood::Good, GRPC, ("grpc-encoding", "br"), body.clone(), 12),
        (
            Mood::Good,
            "/opentelemetry.proto.collector.x/Y",
            gzipped,
            body.clone(),
            12,
        ),
        (Mood::NoMajority, GRPC, gzipped, body.clone(), 14),
        (Mood::RateLimited, GRPC, gzipped, body, 14),
    ] {
        let node = FakeNode::with(mood);
        let answer = call(&node, path, &[header], body).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(
            answer.headers["grpc-status"],
            code.to_string().as_str(),
            "{path}"
        );
        assert!(!answer.headers["grpc-message"].is_empty());
        assert!(node.stored().is_empty());
    }
    // They are counted by what they are, though the status line says 200.
    let node = FakeNode::with(Mood::NoMajority);
    let api = Api::new(node, ApiLimits::default(), OtlpOptions::default());
    let call = Request::post(GRPC).body(Body::from(framed(0, &protobuf(&one_point()))));
    api.otlp_grpc().oneshot(call.unwrap()).await.unwrap();
    let page = Request::get("/metrics").body(Body::empty()).unwrap();
    let page = api.http().oneshot(page).await.unwrap().into_body();
    let page = page.collect().await.unwrap().to_bytes();
    let counted = format!("trefoil_http_requests_total{{handler=\"{GRPC}\",code=\"503\"}} 1");
    let page = String::from_utf8_lossy(&page);
    assert!(page.lines().any(|line| line == counted), "{page}");
    let call = Request::post(GRPC).body(Body::empty()).unwrap();
    let answer = grpc_starting_router("it starts")
        .oneshot(call)
        .await
        .unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
}

#[test]
fn exemplars_are_kept_with_the_series_that_counted_them() {
    let ids = r#""traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708""#;
    let attribute = |text: &str| {
        format!(r#""filteredAttributes": [{{"key": "k.1", "value": {{"stringValue": "{text}"}}}}]"#)
    };
    let (short, long) = (attribute("v"), attribute(&"v".repeat(200)));
    let metrics = format!(
        r#"{{"name": "s", "sum": {{"isMonotonic": true, "aggregationTemporality": 2, "dataPoints": [{{
                "timeUnixNano": "5000000", "asInt": 1, "exemplars": [
                    {{{ids}, {short}, "timeUnixNano": "4000000", "asInt": "-3"}},
                    {{{ids}, {long}, "timeUnixNano": "4500000", "asDouble": 1.5}},
                    {{{ids}, "timeUnixNano": "4000000"}}
                ]}}]}}}},
            {{"name": "h", "histogram": {{"aggregationTemporality": 2, "dataPoints": [{{
                "timeUnixNano": "5000000", "count": 2, "bucketCounts": [1, 1], "explicitBounds": [1.5], "exemplars": [
                    {{"timeUnixNano": "4000000", "asDouble": 1.5}}, {{"timeUnixNano": "4000000", "asDouble": 1.6}}
                ]}}]}}}},
            {{"name": "e", "exponentialHistogram": {{"aggregationTemporality": 2, "dataPoints": [{{
                "timeUnixNano": "5000000", "count": 0, "exemplars": [{{"timeUnixNano": "4000000", "asDouble": 2}}]
            }}]}}}}"#
    );
    let (_, request, rejections) = translate(&OtlpOptions::default(), &request("", &metrics));
    assert_eq!(rejections, Rejections::default());
    let found = request.exemplars().iter();
    let found: Vec<String> = found
        .map(|(series, e)| format!("{series} {} {} {}", e.labels, e.value, e.time))
        .collect();
    let ids = "span_id=\"0102030405060708\", trace_id=\"0102030405060708090a0b0c0d0e0f10\"";
    let expected = [
        format!("s_total {{k.1=\"v\", {ids}}} -3 4"),
        // Attributes that do not fit are left out together.
        format!("s_total {{{ids}}} 1.5 4"),
        "h_bucket{le=\"1.5\"} {} 1.5 4".to_owned(),
        "h_bucket{le=\"+Inf\"} {} 1.6 4".to_owned(),
        "e {} 2 4".to_owned(),
    ];
    assert_eq!(found, expected);
    // One has no value.
    assert_eq!(request.skipped_exemplars(), 1);
}
