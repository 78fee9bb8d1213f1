//! Exemplars over a fake node: what every format stores of them, and how `query_exemplars` lists them.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "other tests use more of it")]
mod fake;

use axum::{body::Body, http::Request};
use fake::FakeNode;
use http_body_util::BodyExt;
use std::sync::Arc;
use tower::ServiceExt;
use trefoil_api::{
    ApiLimits, WriteLimits,
    remote_write::{Decoder, WriteRequest},
    router,
};
use trefoil_model::write_varint;

const IMPORT: &str = "/api/v1/import/prometheus?timestamp=9000";

async fn ask(node: &Arc<FakeNode>, request: Request<Body>) -> (u16, String) {
    let router = router(Arc::<FakeNode>::clone(node), ApiLimits::default());
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    write_varint(out, field << 3 | 2);
    write_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Value 0.5 at 1,500.
fn value_and_time(out: &mut Vec<u8>) {
    out.push(2 << 3 | 1);
    out.extend_from_slice(&0.5f64.to_bits().to_le_bytes());
    out.push(3 << 3);
    write_varint(out, 1_500);
}

fn label(name: &str, value: &str) -> Vec<u8> {
    let mut label = Vec::new();
    bytes(&mut label, 1, name.as_bytes());
    bytes(&mut label, 2, value.as_bytes());
    label
}

/// A series of nothing but exemplars, as Prometheus sends them: with a trace, and with labels that are too long.
fn request(version: u8) -> WriteRequest {
    let long = "x".repeat(200);
    let (mut body, mut series) = (Vec::new(), Vec::new());
    if version == 1 {
        bytes(&mut series, 1, &label("__name__", "m"));
        for value in ["abc", &long] {
            let mut exemplar = Vec::new();
            bytes(&mut exemplar, 1, &label("trace_id", value));
            value_and_time(&mut exemplar);
            bytes(&mut series, 3, &exemplar);
        }
    } else {
        for symbol in ["", "__name__", "m", "trace_id", "abc", &long] {
            bytes(&mut body, 4, symbol.as_bytes());
        }
        bytes(&mut series, 1, &[1, 2]);
        for references in [&[3, 4][..], &[3, 5], &[3], &[3, 99]] {
            let mut exemplar = Vec::new();
            bytes(&mut exemplar, 1, references);
            value_and_time(&mut exemplar);
            bytes(&mut series, 4, &exemplar);
        }
    }
    bytes(&mut body, if version == 1 { 1 } else { 5 }, &series);
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let (mut out, limits) = (WriteRequest::default(), WriteLimits::default());
    let mut decoder = Decoder::default();
    match version {
        1 => decoder.decode(&body, &limits, &mut out),
        _ => decoder.decode_symbols(&body, &limits, &mut out, &mut |_| Ok(())),
    }
    .unwrap();
    out
}

#[test]
fn both_versions_of_remote_write_keep_those_that_fit() {
    for (version, skipped) in [(1, 1), (2, 3)] {
        let request = request(version);
        let [(series, exemplar)] = request.exemplars() else {
            panic!("{:?}", request.exemplars());
        };
        assert_eq!(series.to_string(), "m");
        assert_eq!(exemplar.labels.to_string(), "{trace_id=\"abc\"}");
        assert_eq!((exemplar.value, exemplar.time), (0.5, 1_500));
        assert_eq!(request.skipped_exemplars(), skipped);
        assert!(request.refusals().is_empty() && request.series_count() == 0);
    }
}

#[tokio::test]
async fn imports_keep_them_with_the_series_of_their_line() {
    let node = FakeNode::new();
    let text = "# TYPE c counter\nc_total 3 # {trace_id=\"abc\"} 0.5 1.5\nc_total{a=\"b\"} 3 # {} 2\n# EOF\n";
    let post = Request::post(IMPORT)
        .header("content-type", "application/openmetrics-text")
        .body(Body::from(text))
        .unwrap();
    assert_eq!(ask(&node, post).await, (204, String::new()));
    let mut exemplar = Vec::new();
    bytes(&mut exemplar, 1, &label("trace_id", "abc"));
    exemplar.push(2 << 3 | 1);
    exemplar.extend_from_slice(&0.5f64.to_bits().to_le_bytes());
    let (mut counter, mut bucket, mut histogram) = (Vec::new(), Vec::new(), Vec::new());
    bytes(&mut counter, 2, &exemplar);
    bytes(&mut bucket, 3, &exemplar);
    bytes(&mut histogram, 3, &bucket);
    let mut body = Vec::new();
    for (name, kind, field, content) in [("d", 0, 3, &counter), ("h", 4, 7, &histogram)] {
        let (mut metric, mut family) = (Vec::new(), Vec::new());
        bytes(&mut metric, field, content);
        bytes(&mut family, 1, name.as_bytes());
        family.extend([3 << 3, kind]);
        bytes(&mut family, 4, &metric);
        write_varint(&mut body, family.len() as u64);
        body.extend(family);
    }
    let post = Request::post(IMPORT)
        .header(
            "content-type",
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        )
        .body(Body::from(body))
        .unwrap();
    assert_eq!(ask(&node, post).await, (204, String::new()));
    let stored = node.stored();
    let exemplars: Vec<&String> = stored
        .iter()
        .filter(|line| line.contains("exemplar"))
        .collect();
    let expected = [
        "anonymous c_total 1500 exemplar {trace_id=\"abc\"} 0.5",
        "anonymous c_total{a=\"b\"} 9000 exemplar {} 2",
        "anonymous d 9000 exemplar {trace_id=\"abc\"} 0.5",
        "anonymous h_bucket{le=\"0.0\"} 9000 exemplar {trace_id=\"abc\"} 0.5",
    ];
    assert_eq!(exemplars, expected);
}

#[tokio::test]
async fn all_selectors_of_an_expression_are_asked() {
    let node = FakeNode::new();
    let query = "query=rate(a%7Bb%3D%22c%22%7D%5B5m%5D)%20%2F%20d&start=1&end=2";
    let series = |labels: &str| {
        format!(
            "{{\"seriesLabels\":{labels},\"exemplars\":[{{\"labels\":{{\"asked\":\"anonymous 1000 to 2000\"}},\"value\":\"0.25\",\"timestamp\":1.500}}]}}"
        )
    };
    let expected = format!(
        "{{\"status\":\"success\",\"data\":[{},{}]}}",
        series("{\"__name__\":\"a\",\"b\":\"c\"}"),
        series("{\"__name__\":\"d\"}")
    );
    let path = format!("/prometheus/api/v1/query_exemplars?{query}");
    let get = Request::get(path).body(Body::empty()).unwrap();
    assert_eq!(ask(&node, get).await, (200, expected.clone()));
    let post = Request::post("/api/v1/query_exemplars")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(query))
        .unwrap();
    assert_eq!(ask(&node, post).await, (200, expected));
    let get = |query: &str| {
        let path = format!("/api/v1/query_exemplars?query={query}");
        Request::get(path).body(Body::empty()).unwrap()
    };
    let empty = "{\"status\":\"success\",\"data\":[]}".to_owned();
    assert_eq!(ask(&node, get("1")).await, (200, empty));
    let (status, text) = ask(&node, get("a%7B")).await;
    let expected = "\"1:3: parse error: unexpected end of input inside braces\"";
    assert!(status == 400 && text.contains(expected), "{text}");
}
