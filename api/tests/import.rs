//! Imports over a fake node: what is stored, and what is said about what is not.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "other tests use more of it")]
mod fake;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use fake::{FakeNode, Mood};
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use std::{io::Write, sync::Arc};
use tower::ServiceExt;
use trefoil_api::{ApiLimits, WriteLimits, router};
use trefoil_model::write_varint;

const TEXT: &str = "/prometheus/api/v1/import/prometheus";
const OPEN_METRICS: (&str, &str) = (
    "content-type",
    "application/openmetrics-text; version=1.0.0",
);
const PROTOBUF: (&str, &str) = (
    "content-type",
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
);

async fn post(
    node: &Arc<FakeNode>,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> (u16, String) {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let limits = ApiLimits {
        write: WriteLimits {
            decompressed_bytes_max: 1 << 20,
            ..WriteLimits::default()
        },
        ..ApiLimits::default()
    };
    let router = router(Arc::<FakeNode>::clone(node), limits);
    let request = request.body(Body::from(body.into())).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn text_is_stored() {
    let node = FakeNode::new();
    let text = "# TYPE a gauge\na{b=\"c\"} 1 1500\na 2 1600\n";
    for path in [TEXT, "/api/v1/import/prometheus"] {
        assert_eq!(post(&node, path, &[], text).await, (204, String::new()));
    }
    let encoded = [("content-encoding", "gzip")];
    assert_eq!(post(&node, TEXT, &encoded, gzip(b"g 1 7")).await.0, 204);
    let encoded = [("content-encoding", "zstd")];
    let zstd = zstd::encode_all(&b"z 1 7"[..], 1).unwrap();
    assert_eq!(post(&node, TEXT, &encoded, zstd).await.0, 204);
    let encoded = [("content-encoding", "snappy")];
    let snappy = snap::raw::Encoder::new().compress_vec(b"s 1 7").unwrap();
    assert_eq!(post(&node, TEXT, &encoded, snappy).await.0, 204);
    let line = ["anonymous a{b=\"c\"} 1500 1", "anonymous a 1600 2"];
    let rest = ["anonymous g 7 1", "anonymous z 7 1", "anonymous s 7 1"];
    assert_eq!(node.stored(), [&line[..], &line, &rest].concat());
}

#[tokio::test]
async fn exemplars_that_are_too_long_are_named_with_their_line() {
    let node = FakeNode::new();
    let text = |length| {
        let long = "x".repeat(length);
        format!("# TYPE ex counter\nex_total 1 1 # {{trace_id=\"{long}\"}} 1\n# EOF\n")
    };
    let answer = post(&node, TEXT, &[OPEN_METRICS], text(120)).await;
    assert_eq!(answer.0, 204, "{}", answer.1);
    let answer = post(&node, TEXT, &[OPEN_METRICS], text(121)).await;
    let expected = "line 2, column 16: the labels of the exemplar have 129 characters, more than 128; nothing of the \
                    request was stored\n";
    assert_eq!(answer, (400, expected.to_owned()));
    let stored = node.stored();
    let exemplars = stored.iter().filter(|line| line.contains("exemplar"));
    assert_eq!((stored.len(), exemplars.count()), (2, 1), "{stored:?}");
}

#[tokio::test]
async fn created_lines_are_start_timestamps() {
    let node = FakeNode::new();
    let text = "# TYPE c counter\nc_total{a=\"1\"} 5 # {t=\"x\"} 1\nc_created{a=\"1\"} 1.5\n\
                c_created{a=\"2\"} 2.5\nc_total{a=\"2\"} 6\nc_total{a=\"3\"} 7\nc_total{a=\"4\"} 8\nc_created{a=\"4\"} NaN\n\
                # TYPE m counter\nm_total 1 10\nm_created 9 10\nm_total 2 20\nm_created 15 20\n\
                # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_count 2\nh_sum 3\nh_created 3.5\n\
                # TYPE s summary\ns{quantile=\"0.5\"} 1\ns_count 2\ns_sum 3\ns_created 4.5\n\
                # TYPE g gauge\ng 1\n# TYPE g_created gauge\ng_created 2\n# EOF\n";
    let path = format!("{TEXT}?timestamp=9000");
    let answer = post(&node, &path, &[OPEN_METRICS], text).await;
    assert_eq!(answer, (204, String::new()));
    let stored = [
        "anonymous c_total{a=\"1\"} 9000 5 since 1500",
        "anonymous c_total{a=\"2\"} 9000 6 since 2500",
        "anonymous c_total{a=\"3\"} 9000 7",
        "anonymous c_total{a=\"4\"} 9000 8",
        "anonymous m_total 10000 1 since 9000",
        "anonymous m_total 20000 2 since 15000",
        "anonymous h_bucket{le=\"1\"} 9000 1 since 3500",
        "anonymous h_bucket{le=\"+Inf\"} 9000 2 since 3500",
        "anonymous h_count 9000 2 since 3500",
        "anonymous h_sum 9000 3 since 3500",
        "anonymous s{quantile=\"0.5\"} 9000 1 since 4500",
        "anonymous s_count 9000 2 since 4500",
        "anonymous s_sum 9000 3 since 4500",
        "anonymous g 9000 1",
        "anonymous g_created 9000 2",
        "anonymous c_total{a=\"1\"} 9000 exemplar {t=\"x\"} 1",
    ];
    assert_eq!(node.stored(), stored);
    // Prometheus' text has no such lines: they are series.
    let answer = post(&node, &path, &[], "# TYPE x counter\nx_created 1\n").await;
    assert_eq!(answer, (204, String::new()));
    assert_eq!(
        node.stored()[stored.len()..],
        ["anonymous x_created 9000 1"]
    );
}

#[tokio::test]
async fn bodies_up_to_the_bound_are_taken_whatever_they_are_thought_to_take() {
    let limits = ApiLimits {
        write: WriteLimits {
            decompressed_bytes_max: 1 << 20,
            ..WriteLimits::default()
        },
        // As by default: what a text is thought to take, four times the largest, is all that there is.
        write_bytes_at_once_max: 4 << 20,
        ..ApiLimits::default()
    };
    let node = FakeNode::new();
    for (bytes, status) in [(1 << 20, 204), ((1 << 20) + 1, 413), (3 << 20, 413)] {
        let text = format!("{}\na 1 1\n", "#".repeat(bytes - 7));
        let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let snappy = snap::raw::Encoder::new().compress_vec(text.as_bytes());
        let gzip = gzip(text.as_bytes());
        for (coding, body) in [("gzip", gzip), ("zstd", zstd), ("snappy", snappy.unwrap())] {
            let request = Request::post(TEXT).header("content-encoding", coding);
            let request = request.body(Body::from(body)).unwrap();
            let router = router(Arc::<FakeNode>::clone(&node), limits);
            let answer = router.oneshot(request).await.unwrap().status();
            assert_eq!(answer.as_u16(), status, "{bytes} {coding}");
        }
    }
}

#[tokio::test]
async fn times_and_labels_of_the_request() {
    let node = FakeNode::new();
    let path = format!("{TEXT}?timestamp=99&extra_label=job=x&extra_label=b=d%3De");
    let answer = post(
        &node,
        &path,
        &[OPEN_METRICS],
        "a{b=\"c\"} 1\na2 2 1.5\n# EOF\n",
    )
    .await;
    assert_eq!(answer.0, 204, "{}", answer.1);
    let stored = [
        "anonymous a{b=\"d=e\", job=\"x\"} 99 1",
        "anonymous a2{b=\"d=e\", job=\"x\"} 1500 2",
    ];
    assert_eq!(node.stored(), stored);
    for (parameter, expected) in [
        ("timestamp=1.5", "is not a time in whole milliseconds"),
        ("extra_label=job", "is not of the form name=value"),
    ] {
        let answer = post(&node, &format!("{TEXT}?{parameter}"), &[], "a 1").await;
        assert!(
            answer.0 == 400 && answer.1.contains(expected),
            "{}",
            answer.1
        );
    }
}

#[tokio::test]
async fn a_bad_line_is_named_and_nothing_stored() {
    let node = FakeNode::new();
    let (status, text) = post(&node, TEXT, &[], "a 1\nb{c=\"d} 1\n").await;
    assert_eq!(status, 400);
    assert_eq!(
        text,
        "line 2, column 5: the quotation mark is never closed; nothing of the request was stored\n"
    );
    let (status, text) = post(&node, TEXT, &[OPEN_METRICS], "a 1\n").await;
    assert_eq!(status, 400);
    assert!(
        text.starts_with("line 2, column 1: expected \"# EOF\""),
        "{text}"
    );
    let (status, text) = post(&node, TEXT, &[PROTOBUF], vec![5, 10, 9, b'a']).await;
    assert_eq!(status, 400);
    assert!(
        text.starts_with("corrupt protobuf in field MetricFamily"),
        "{text}"
    );
    assert!(node.stored().is_empty());
}

#[tokio::test]
async fn other_formats_and_too_large_ones_are_refused() {
    let node = FakeNode::new();
    for header in [
        ("content-type", "application/json"),
        (
            "content-type",
            "application/vnd.google.protobuf; encoding=text",
        ),
        ("content-encoding", "br"),
    ] {
        let (status, text) = post(&node, TEXT, &[header], "a 1").await;
        assert!(status == 415 && text.contains(header.1), "{status} {text}");
    }
    let bomb = vec![b' '; 4 << 20];
    for (coding, body) in [
        ("gzip", gzip(&bomb)),
        ("zstd", zstd::encode_all(&bomb[..], 1).unwrap()),
        (
            "snappy",
            snap::raw::Encoder::new().compress_vec(&bomb).unwrap(),
        ),
    ] {
        let (status, text) = post(&node, TEXT, &[("content-encoding", coding)], body).await;
        assert!(
            status == 413 && text.contains("decompressed"),
            "{status} {text}"
        );
        let (status, _) = post(&node, TEXT, &[("content-encoding", coding)], "plain").await;
        assert_eq!(status, 400, "{coding}");
    }
    assert!(node.stored().is_empty());
}

#[tokio::test]
async fn series_that_break_limits_are_named_and_the_others_stored() {
    let node = FakeNode::new();
    let text = format!("a{{b=\"{}\"}} 1 5\nc 2 5\n", "x".repeat(3000));
    let (status, text) = post(&node, TEXT, &[], text).await;
    assert_eq!(status, 400);
    assert!(
        text.contains("1 of 2 series were refused, all others were stored"),
        "{text}"
    );
    assert!(text.contains("max_label_value_length"), "{text}");
    assert_eq!(node.stored(), ["anonymous c 5 2"]);
}

#[tokio::test]
async fn requests_beyond_the_rate_of_their_tenant_are_refused_at_once() {
    let node = FakeNode::new();
    let hurried = ("x-scope-orgid", "hurried");
    for path in [TEXT, "/api/v1/import", "/write", "/api/v1/write"] {
        // What it says is not looked at.
        let (status, text) = post(&node, path, &[hurried], "?").await;
        assert_eq!(status, 429, "{path}: {text}");
        let id = "set to 0.5 requests/s across all nodes with a maximum allowed burst of 0 \
                  (err-mimir-tenant-max-request-rate)";
        assert!(text.contains(id), "{path}: {text}");
    }
    assert!(node.stored().is_empty());
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn double(out: &mut Vec<u8>, number: u8, value: f64) {
    out.push(number << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A family of one metric with the label `l="v"` and the time 1500.
fn family(name: &str, kind: u8, value_field: u8, value: &[u8]) -> Vec<u8> {
    let mut label = Vec::new();
    field(&mut label, 1, b"l");
    field(&mut label, 2, b"v");
    let mut metric = Vec::new();
    field(&mut metric, 1, &label);
    field(&mut metric, value_field, value);
    metric.push(6 << 3);
    write_varint(&mut metric, 1500);
    let mut family = Vec::new();
    // The metric before the name: the order of fields is free.
    field(&mut family, 4, &metric);
    field(&mut family, 1, name.as_bytes());
    family.extend([3 << 3, kind]);
    let mut delimited = Vec::new();
    write_varint(&mut delimited, family.len() as u64);
    delimited.extend(family);
    delimited
}

#[tokio::test]
async fn protobuf_is_stored() {
    let node = FakeNode::new();
    let mut value = Vec::new();
    double(&mut value, 1, 2.5);
    let mut body = family("c_total", 0, 3, &value);
    let mut bucket = vec![1 << 3, 4];
    double(&mut bucket, 2, 0.5);
    let mut histogram = vec![1 << 3, 6];
    double(&mut histogram, 2, 7.5);
    field(&mut histogram, 3, &bucket);
    field(&mut histogram, 15, &[1 << 3, 5]);
    body.extend(family("h", 4, 7, &histogram));
    let mut quantile = Vec::new();
    double(&mut quantile, 1, 1.0);
    double(&mut quantile, 2, 3.0);
    let mut summary = vec![1 << 3, 9];
    field(&mut summary, 3, &quantile);
    field(&mut summary, 4, &[1 << 3, 6]);
    body.extend(family("s", 2, 4, &summary));
    let mut native = vec![1 << 3, 3, 5 << 3, 2];
    double(&mut native, 2, 4.5);
    field(&mut native, 12, &[2 << 3, 2]);
    field(&mut native, 13, &[2, 2]);
    field(&mut native, 15, &[1 << 3, 7]);
    body.extend(family("n", 4, 7, &native));
    let answer = post(&node, TEXT, &[PROTOBUF], body).await;
    assert_eq!(answer, (204, String::new()));
    let stored = [
        "anonymous c_total{l=\"v\"} 1500 2.5",
        "anonymous h_bucket{l=\"v\", le=\"0.5\"} 1500 4 since 5000",
        "anonymous h_bucket{l=\"v\", le=\"+Inf\"} 1500 6 since 5000",
        "anonymous h_sum{l=\"v\"} 1500 7.5 since 5000",
        "anonymous h_count{l=\"v\"} 1500 6 since 5000",
        "anonymous s{l=\"v\", quantile=\"1.0\"} 1500 3 since 6000",
        "anonymous s_sum{l=\"v\"} 1500 0 since 6000",
        "anonymous s_count{l=\"v\"} 1500 9 since 6000",
        "anonymous n{l=\"v\"} 1500 1 of 3: Buckets { indexes: [0, 1], counts: [1.0, 2.0] } 4.5 since 7000",
    ];
    assert_eq!(node.stored(), stored);
}

#[tokio::test]
async fn influx_lines_are_stored_and_bad_ones_named() {
    let node = FakeNode::new();
    for path in [
        "/write?precision=s",
        "/api/v2/write?precision=s&bucket=b&org=o",
        "/api/v1/push/influx/write?precision=s",
    ] {
        let answer = post(&node, path, &[], "cpu,host=a usage=1.5 2\n").await;
        assert_eq!(answer, (204, String::new()), "{path}");
    }
    let (status, text) = post(
        &node,
        "/write?precision=ms",
        &[],
        "cpu usage=1\nmem x=2 7\ncpu",
    )
    .await;
    assert_eq!(status, 400, "{text}");
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = "partial write: line 3, column 4: expected a space before the fields, found the \
                    end of the text (all other lines were stored) dropped=1";
    assert_eq!(answer["error"], expected);
    assert_eq!(
        (&answer["message"], &answer["code"]),
        (&answer["error"], &"invalid".into())
    );
    let stored = node.stored();
    assert_eq!(stored[..3], ["anonymous cpu_usage{host=\"a\"} 2000 1.5"; 3]);
    assert_eq!(stored[4], "anonymous mem_x 7 2");
    let refusing = FakeNode::with(Mood::RefusesOld);
    let (status, text) = post(&refusing, "/write", &[], "up value=1\ncpu").await;
    assert!(status == 400 && text.contains("dropped=2"), "{text}");
    let (status, text) = post(&node, "/write?precision=d", &[], "a x=1").await;
    assert!(status == 400 && text.contains("precision"), "{text}");
}

#[tokio::test]
async fn a_majority_that_is_missing_is_said() {
    let node = FakeNode::with(Mood::NoMajority);
    for (path, body) in [(TEXT, "a 1"), ("/write", "a x=1")] {
        let (status, text) = post(&node, path, &[], body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {text}");
    }
}

#[tokio::test]
async fn remote_write_says_how_much_was_written() {
    let node = FakeNode::new();
    // Symbols "", "__name__", "up"; a series of both with one sample, one with an empty native histogram, and one with a
    // histogram that counts an observation in no bucket.
    let body = b"\x22\0\x22\x08__name__\x22\x02up\
                 \x2a\x11\x0a\x02\x01\x02\x12\x0b\x09\0\0\0\0\0\0\0\0\x10\x01\
                 \x2a\x06\x0a\x02\x01\x02\x1a\x00\
                 \x2a\x08\x0a\x02\x01\x02\x1a\x02\x08\x01";
    let request = Request::post("/api/v1/write")
        .header(
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        )
        .header("content-encoding", "snappy")
        .body(Body::from(
            snap::raw::Encoder::new().compress_vec(body).unwrap(),
        ))
        .unwrap();
    let router = router(Arc::<FakeNode>::clone(&node), ApiLimits::default());
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    for (kind, expected) in [("samples", "1"), ("histograms", "1"), ("exemplars", "0")] {
        let name = format!("x-prometheus-remote-write-{kind}-written");
        assert_eq!(response.headers()[&name], expected, "{kind}");
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&body).unwrap();
    let counts = "1 of 3 series were refused, all others were stored: ";
    assert!(text.starts_with(counts), "{text}");
    assert!(
        text.contains(
            "the number of observations found in the buckets (in absence of NaN), in series up{}"
        ),
        "{text}"
    );
    let stored = [
        "anonymous up 1 0",
        "anonymous up 0 0 of 0: Buckets { indexes: [], counts: [] } 0.0",
    ];
    assert_eq!(node.stored(), stored);
}

#[tokio::test]
async fn series_are_exported_as_lines() {
    let node = FakeNode::new();
    let (status, text) = post(&node, "/api/v1/export", &[], "").await;
    assert_eq!(status, 400);
    assert_eq!(text, "no match[] parameter provided\n");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let wanted = "match[]=a&match[]={b=\"c\"}&start=2985&end=42&reduce_mem_usage=1";
    let (status, _) = post(&node, "/api/v1/export", &form, wanted).await;
    assert_eq!(status, 400);
    let wanted = "match[]=a&match[]={b=\"c\"}&start=2970&end=4200&max_rows_per_line=1";
    let (status, text) = post(&node, "/prometheus/api/v1/export", &form, wanted).await;
    assert_eq!(status, 200);
    assert_eq!(node.last_query(), "select 2 from 2970000 to 4200000");
    let expected = "{\"metric\":{\"__name__\":\"busy_total\",\"instance\":\"a\\\"b\"},\"values\":[99],\"timestamps\":[2970000]}\n\
                    {\"metric\":{\"__name__\":\"busy_total\",\"instance\":\"a\\\"b\"},\"values\":[99.5],\"timestamps\":[2985000]}\n\
                    {\"metric\":{\"__name__\":\"ended\",\"instance\":\"a\\\"b\"},\"values\":[null],\"timestamps\":[41000]}\n\
                    {\"metric\":{\"__name__\":\"odd.name\",\"instance\":\"a\\\"b\"},\"values\":[\"Infinity\"],\"timestamps\":[40500]}\n";
    assert_eq!(text, expected);
    let (status, _) = post(&node, "/api/v1/import", &[], text).await;
    assert_eq!(status, 204);
    let stored = [
        "anonymous busy_total{instance=\"a\\\"b\"} 2970000 99",
        "anonymous busy_total{instance=\"a\\\"b\"} 2985000 99.5",
        "anonymous ended{instance=\"a\\\"b\"} 41000 NaN",
        "anonymous odd.name{instance=\"a\\\"b\"} 40500 inf",
    ];
    assert_eq!(node.stored(), stored);
    let (status, text) = post(&node, "/api/v1/export?match[]=a&format=csv", &[], "").await;
    assert!(
        status == 400 && text.contains("\"csv\" is not known"),
        "{text}"
    );
}
