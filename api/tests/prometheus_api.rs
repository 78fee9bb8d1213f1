//! What Prometheus' API answers beside queries: texts, settings, amounts, federation, remote read, deletion.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "this file has no use for some of it")]
mod fake;

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use fake::{FakeNode, Mood};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;
use trefoil_api::{ApiLimits, router};

async fn ask(node: &Arc<FakeNode>, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let router = router(Arc::<FakeNode>::clone(node), ApiLimits::default());
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    (parts.status, parts.headers, body)
}

async fn get(node: &Arc<FakeNode>, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let (status, _, body) = ask(node, request).await;
    (status, serde_json::from_slice(&body).unwrap())
}

async fn data(path: &str) -> Value {
    let (status, mut answer) = get(&FakeNode::new(), path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {answer}");
    assert_eq!(answer["status"], "success", "{path}");
    answer["data"].take()
}

#[tokio::test]
async fn texts_of_queries_are_formatted_and_taken_apart() {
    for base in ["/api/v1", "/prometheus/api/v1"] {
        let formatted = data(&format!("{base}/format_query?query=sum(up)by(job)%2B1")).await;
        assert_eq!(formatted, "sum by (job) (up) + 1");
        let tree = data(&format!("{base}/parse_query?query=%22a%22")).await;
        assert_eq!(tree, json!({"type": "stringLiteral", "val": "a"}));
    }
    let form = Request::post("/api/v1/format_query")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("query=1%20%20%2B2"))
        .unwrap();
    let (status, _, body) = ask(&FakeNode::new(), form).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body, br#"{"status":"success","data":"1 + 2"}"#);
    let (status, answer) = get(&FakeNode::new(), "/api/v1/parse_query?query=sum(").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let error = answer["error"].as_str().unwrap();
    let expected = "invalid parameter \"query\": 1:";
    assert!(error.starts_with(expected), "{error}");
    assert!(error.contains("parse error:"), "{error}");
}

#[tokio::test]
async fn what_there_is_none_of_is_empty() {
    for (path, expected) in [
        (
            "targets?state=active",
            json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}}),
        ),
        ("targets/metadata", json!([])),
        ("scrape_pools", json!({"scrapePools": []})),
        (
            "alertmanagers",
            json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}),
        ),
        ("rules?type=alert", json!({"groups": []})),
        ("alerts", json!({"alerts": []})),
        ("notifications", json!([])),
        (
            "status/walreplay",
            json!({"min": 0, "max": 0, "current": 0, "state": "done"}),
        ),
    ] {
        assert_eq!(data(&format!("/api/v1/{path}")).await, expected, "{path}");
    }
    let (status, answer) = get(&FakeNode::new(), "/api/v1/rules?type=both").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let expected = "invalid parameter \"type\": not supported value \"both\"";
    assert_eq!(answer["error"], expected);
}

#[tokio::test]
async fn settings_have_the_names_of_prometheus() {
    let flags = data("/api/v1/status/flags").await;
    assert_eq!(flags["query.timeout"], "2m");
    assert_eq!(flags["query.lookback-delta"], "5m");
    assert_eq!(flags["query.max-samples"], "50000000");
    assert_eq!(flags["storage.tsdb.retention.time"], "15d");
    let runtime = data("/api/v1/status/runtimeinfo").await;
    assert_eq!(runtime["startTime"], "1970-01-01T00:00:01Z");
    assert_eq!(runtime["serverTime"], "1970-01-01T00:00:42Z");
    assert_eq!(runtime["storageRetention"], "15d");
    let config = data("/api/v1/status/config").await;
    assert!(config["yaml"].as_str().unwrap().starts_with("global: {}"));
}

#[tokio::test]
async fn amounts_are_listed_largest_first() {
    let tsdb = data("/api/v1/status/tsdb?limit=2").await;
    let entry = |name: &str, value: u64| json!({"name": name, "value": value});
    assert_eq!(tsdb["headStats"]["numSeries"], 3);
    assert_eq!(tsdb["headStats"]["numLabelPairs"], 5);
    assert_eq!(
        tsdb["seriesCountByMetricName"],
        json!([entry("up", 2), entry("down", 1)])
    );
    assert_eq!(
        tsdb["labelValueCountByLabelName"],
        json!([entry("job", 3), entry("__name__", 2)])
    );
    assert_eq!(
        tsdb["memoryInBytesByLabelName"],
        json!([entry("__name__", 6), entry("job", 4)])
    );
    assert_eq!(
        tsdb["seriesCountByLabelValuePair"],
        json!([entry("__name__=up", 2), entry("__name__=down", 1)])
    );
    let (status, _) = get(&FakeNode::new(), "/api/v1/status/tsdb?limit=0").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn cardinality_has_the_form_of_mimir() {
    let node = FakeNode::new();
    let base = "/prometheus/api/v1/cardinality";
    let (_, names) = get(&node, &format!("{base}/label_names?limit=1")).await;
    let expected = json!({
        "label_values_count_total": 5,
        "label_names_count": 2,
        "cardinality": [{"label_name": "job", "label_values_count": 3}],
    });
    assert_eq!(names, expected);
    assert_eq!(node.last_query(), "count 0 [] from -7158000 to 42000");
    let path =
        format!("{base}/label_values?label_names[]=__name__&selector=up&count_method=active");
    let (_, values) = get(&node, &path).await;
    let expected = json!({
        // Of all series, whatever the selector.
        "series_count_total": 3,
        "labels": [{
            "label_name": "__name__", "label_values_count": 2, "series_count": 2,
            "cardinality": [
                {"label_value": "down", "series_count": 1}, {"label_value": "up", "series_count": 1},
            ],
        }],
    });
    assert_eq!(values, expected);
    let last = "count 0 [__name__] from -1158000 to 42000 exact";
    assert_eq!(node.last_query(), last);
    let (_, active) = get(&node, &format!("{base}/active_series?selector=up")).await;
    let names = active["data"].as_array().unwrap().iter();
    let names: Vec<&Value> = names.map(|series| &series["__name__"]).collect();
    assert_eq!(names, ["busy_total", "ended", "odd.name"]);
    let path = format!("{base}/active_native_histogram_metrics?selector=h");
    let (_, active) = get(&node, &path).await;
    assert_eq!(active, json!({"data": []}));
    let (_, active) = get(&FakeNode::with(Mood::HasHistograms), &path).await;
    let expected = json!({
        "metric": "h", "series_count": 1, "bucket_count": 0, "avg_bucket_count": 0.0,
        "min_bucket_count": 0, "max_bucket_count": 0,
    });
    assert_eq!(active, json!({"data": [expected]}));
    for (path, text) in [
        ("label_values", "'label_names[]' param is required"),
        (
            "label_names?limit=501",
            "'limit' param cannot be greater than '500'.",
        ),
        (
            "label_names?limit=-1",
            "'limit' param cannot be less than '0'.",
        ),
        ("label_names?limit=x", "invalid 'limit' param 'x'"),
        (
            "label_names?count_method=x",
            "invalid 'count_method' param 'x'. valid options are: [inmemory,active]",
        ),
        ("active_series", "missing 'selector' parameter"),
        (
            "active_native_histogram_metrics",
            "missing 'selector' parameter",
        ),
    ] {
        let (status, answer) = get(&node, &format!("{base}/{path}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(answer["error"], text, "{path}");
    }
}

#[tokio::test]
async fn federation_gives_the_newest_samples() {
    let node = FakeNode::new();
    let path = "/federate?match[]=up&match[]=%7Bjob=%22a%22%7D";
    let request = Request::get(path).body(Body::empty()).unwrap();
    let (status, headers, body) = ask(&node, request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let text = String::from_utf8(body).unwrap();
    let expected = "# TYPE busy_total untyped\n\
         busy_total{instance=\"a\\\"b\"} 1 30000\n\
         # TYPE odd_name untyped\n\
         odd_name{instance=\"a\\\"b\"} +Inf 40500\n";
    assert_eq!(text, expected);
    assert_eq!(node.last_query(), "select 2 from -258000 to 42000 newest");
    // Two headers are one list.
    let request = Request::get("/federate?match[]=up")
        .header("accept", "text/plain;q=0.5")
        .header("accept", "application/openmetrics-text;version=1.0.0")
        .body(Body::empty())
        .unwrap();
    let (_, headers, body) = ask(&node, request).await;
    let kind = headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(body.ends_with(b"# EOF\n"));
    let request = Request::get("/federate?match[]=%7B")
        .body(Body::empty())
        .unwrap();
    assert_eq!(ask(&node, request).await.0, StatusCode::BAD_REQUEST);
}

/// A request for everything from 0 to 60 s of one metric.
fn read_request(kinds: &[u8]) -> Request<Body> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let matcher = [field(2, b"__name__"), field(3, b"x")].concat();
    // 60,000 as a varint.
    let query = [&[0x10, 0xe0, 0xd4, 0x03][..], &field(3, &matcher)].concat();
    let body = [field(1, &query), field(2, kinds)].concat();
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    Request::post("/api/v1/read")
        .body(Body::from(body))
        .unwrap()
}

#[tokio::test]
async fn remote_read_answers_with_samples_or_chunks() {
    let node = FakeNode::new();
    let (status, headers, body) = ask(&node, read_request(&[])).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["content-encoding"], "snappy");
    assert_eq!(node.last_query(), "select 1 from 0 to 60000");
    let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let names = ["busy_total", "ended", "odd.name"];
    let has = |body: &[u8], name: &str| body.windows(name.len()).any(|w| w == name.as_bytes());
    assert!(names.iter().all(|name| has(&body, name)));
    // The last sample of the first series: 2.0 at 60 s.
    let sample = [
        &[0x12, 0x0d, 0x09][..],
        &2f64.to_le_bytes(),
        &[0x10, 0xe0, 0xd4, 0x03],
    ]
    .concat();
    assert!(body.windows(sample.len()).any(|w| w == sample));

    let (status, headers, body) = ask(&node, read_request(&[1])).await;
    assert_eq!(status, StatusCode::OK);
    let expected = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    assert_eq!(headers["content-type"], expected);
    assert!(headers.get("content-encoding").is_none());
    assert!(names.iter().all(|name| has(&body, name)));

    let histograms = FakeNode::with(Mood::HasHistograms);
    let (status, headers, body) = ask(&histograms, read_request(&[1, 0])).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], expected);
    // The time of the first and the last sample, the kind, and 16 bytes of an empty histogram.
    let chunk = b"\x08\xa8\xc0\x02\x10\xa8\xc0\x02\x18\x02\x22\x10\x00\x01\x00\x00";
    assert!(body.windows(chunk.len()).any(|w| w == chunk), "{body:x?}");
    let (_, _, body) = ask(&histograms, read_request(&[])).await;
    let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let sample = b"\x22\x08\x08\x00\x30\x00\x78\xa8\xc0\x02";
    assert!(body.windows(sample.len()).any(|w| w == sample), "{body:x?}");

    let (status, _, body) = ask(&node, read_request(&[7])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("response types"), "{text}");
    let request = Request::post("/api/v1/read").body(Body::from("x")).unwrap();
    assert_eq!(ask(&node, request).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn heads_are_answered_where_pages_are() {
    for path in [
        "/-/healthy",
        "/-/ready",
        "/api/v1/status/buildinfo",
        "/federate",
    ] {
        let request = Request::head(path).body(Body::empty()).unwrap();
        let (status, _, body) = ask(&FakeNode::new(), request).await;
        assert_eq!((status, body.len()), (StatusCode::OK, 0), "{path}");
    }
}

#[tokio::test]
async fn features_are_told_by_prometheus_names() {
    let data = data("/api/v1/features").await;
    for (category, feature, expected) in [
        ("api", "admin", true),
        ("api", "query_stats", true),
        ("api", "lifecycle", false),
        ("otlp_receiver", "delta_conversion", true),
        ("promql", "fill", false),
        ("promql", "duration_expr", true),
        ("promql", "type_and_unit_labels", false),
        ("promql_functions", "rate", true),
        ("promql_functions", "info", false),
        ("promql_operators", "atan2", true),
        ("promql_operators", "=~", true),
        ("promql_operators", "limitk", false),
        ("promql_operators", "sum", true),
        ("tsdb", "native_histograms", true),
    ] {
        assert_eq!(data[category][feature], expected, "{category}: {feature}");
    }
    let categories = data.as_object().unwrap().values();
    let features = categories.flat_map(|features| features.as_object().unwrap().values());
    assert!(features.clone().count() > 120);
    assert!(features.into_iter().all(Value::is_boolean), "{data}");
}

#[tokio::test]
async fn what_a_query_took_is_told_when_it_is_asked_for() {
    let stats = data("/api/v1/query?query=up&time=1.5&stats=all").await["stats"].take();
    // The node answers 1 to everything, and the expression has one selector.
    let expected = json!({
        "peakSamples": 0, "totalQueryableSamples": 1, "totalQueryableSamplesPerStep": [[1.5, 1]],
    });
    assert_eq!(stats["samples"], expected);
    let total = stats["timings"]["execTotalTime"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&total), "{stats}");
    let stats = data("/api/v1/query?query=up%2Bup*up&time=1&stats=1").await["stats"].take();
    assert_eq!(stats["samples"]["totalQueryableSamples"], 3);
    let path = "/api/v1/query_range?query=a%2Brate(b[5m])&start=0&end=5&step=1&stats=";
    let stats = data(&format!("{path}all")).await["stats"].take();
    // Two selectors, of which each gets 0.5, 1.5... up to 4 s.
    let steps = json!([[0, 0], [1, 2], [2, 4], [3, 6], [4, 8], [5, 0]]);
    let samples = &stats["samples"];
    assert_eq!(samples["totalQueryableSamplesPerStep"], steps);
    assert_eq!(samples["totalQueryableSamples"], 20);
    let stats = data(&format!("{path}true")).await["stats"].take();
    let expected = json!({"peakSamples": 0, "totalQueryableSamples": 20});
    assert_eq!(stats["samples"], expected);
    assert!(data(path).await.get("stats").is_none());
    let node = FakeNode::new();
    get(&node, &format!("{path}1")).await;
    let last = "range sum(count_over_time(b[5m])) from 0 to 5000 by 1000 counting anew";
    assert_eq!(node.last_query(), last);
    get(&node, path).await;
    assert_eq!(
        node.last_query(),
        "range a+rate(b[5m]) from 0 to 5000 by 1000"
    );
    let without = data("/api/v1/query_range?query=up&start=1&end=2&step=1").await;
    assert!(without.get("stats").is_none());
}

/// An answer is never lost because its samples cannot be counted: they are left out, and a warning says why.
#[tokio::test]
async fn an_answer_does_not_depend_on_its_statistics() {
    let selectors = |count| {
        let all = (0..count).map(|number| format!("a{number}"));
        all.collect::<Vec<_>>().join("%2B")
    };
    let node = FakeNode::new();
    for (query, reason) in [
        ("unreachable".to_owned(), "shard 3"),
        ("slow".to_owned(), "timed out"),
        (selectors(17), "it has more than 16 different selectors"),
    ] {
        let path = format!("/api/v1/query?query={query}&time=1&timeout=1s&stats=all");
        let (status, answer) = get(&node, &path).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["data"]["result"][0]["value"], json!([1, "1"]));
        let samples = &answer["data"]["stats"]["samples"];
        assert_eq!(*samples, json!({"peakSamples": 0}), "{answer}");
        let warnings = answer["warnings"].as_array().unwrap();
        let warning = warnings.last().unwrap().as_str().unwrap();
        let begin = "the samples of the query were not counted: ";
        assert!(warning.starts_with(begin), "{answer}");
        assert!(warning.contains(reason), "{answer}");
    }
    let path = format!("/api/v1/query?query={}&time=1&stats=1", selectors(16));
    let (_, answer) = get(&node, &path).await;
    let samples = &answer["data"]["stats"]["samples"];
    assert_eq!(samples["totalQueryableSamples"], 16);
    // What the counts lack is said, once.
    let path = "/api/v1/query?query=partly%2Bup&time=1&stats=1";
    let (_, answer) = get(&node, path).await;
    assert_eq!(answer["warnings"], json!(["w", "partly"]));
}

async fn ask_limited(node: &Arc<FakeNode>, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path)
        .header("x-scope-orgid", "limited")
        .body(Body::empty())
        .unwrap();
    let (status, _, body) = ask(node, request).await;
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_tenants_questions_keep_to_its_limits() {
    let node = FakeNode::new();
    let refused = [
        (
            "query?query=sum(up%2B1)",
            "err-mimir-max-query-expression-size-bytes",
        ),
        (
            "query_range?query=up&start=40&end=4000&step=15",
            "err-mimir-max-total-query-length",
        ),
    ];
    for (path, id) in refused {
        let (status, answer) = ask_limited(&node, &format!("/api/v1/{path}")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {answer}");
        assert_eq!(answer["errorType"], "execution");
        assert!(answer["error"].as_str().unwrap().contains(id), "{answer}");
    }
    assert_eq!(node.last_query(), "");
    // The tenant sees 30 s, and it is 42.
    for (path, empty) in [
        (
            "query?query=up&time=11",
            json!({"resultType": "vector", "result": []}),
        ),
        (
            "query_range?query=up&start=1&end=11&step=1",
            json!({"resultType": "matrix", "result": []}),
        ),
        ("labels?start=1&end=11", json!([])),
        ("series?match[]=up&start=1&end=11", json!([])),
        ("label/job/values?start=1&end=11", json!([])),
    ] {
        let (status, answer) = ask_limited(&node, &format!("/api/v1/{path}")).await;
        assert_eq!(
            (status, &answer["data"]),
            (StatusCode::OK, &empty),
            "{path}"
        );
    }
    assert_eq!(node.last_query(), "");
    ask_limited(&node, "/api/v1/query_range?query=up&start=1&end=40&step=10").await;
    assert_eq!(node.last_query(), "range up from 21000 to 40000 by 10000");
    // Statistics list the times that are not seen, too.
    for (path, steps) in [
        ("query?query=up&time=11", json!([[11, 0]])),
        (
            "query_range?query=up&start=1&end=11&step=10",
            json!([[1, 0], [11, 0]]),
        ),
        (
            "query_range?query=up&start=5&end=25&step=10",
            json!([[5, 0], [15, 0], [25, 0]]),
        ),
    ] {
        let path = format!("/api/v1/{path}&stats=all");
        let (_, answer) = ask_limited(&node, &path).await;
        let samples = &answer["data"]["stats"]["samples"];
        assert_eq!(samples["totalQueryableSamplesPerStep"], steps, "{answer}");
    }
    let (_, answer) = ask_limited(&node, "/api/v1/series?match[]=up").await;
    assert_eq!(answer["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        answer["warnings"],
        json!(["results truncated due to limit"])
    );
    assert_eq!(
        node.last_query(),
        "series of 1 from 12000 to 9223372036854 limit 2"
    );
}

#[tokio::test]
async fn a_tenants_series_keep_to_its_limits() {
    let node = FakeNode::new();
    let text = "up{job=\"abcd\"} 1\nup{job=\"abc\"} 2\n";
    let request = Request::post("/api/v1/import/prometheus")
        .header("x-scope-orgid", "limited")
        .body(Body::from(text))
        .unwrap();
    let (status, _, body) = ask(&node, request).await;
    let answer = String::from_utf8(body).unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    assert!(
        answer.contains("err-mimir-label-value-too-long"),
        "{answer}"
    );
    assert_eq!(node.stored(), ["limited up{job=\"abc\"} 42000 2"]);
}

#[tokio::test]
async fn limits_are_read_and_set() {
    let node = FakeNode::new();
    let (_, answer) = ask_limited(&node, "/api/v1/user_limits").await;
    assert_eq!(answer["max_query_lookback"], "30s");
    assert_eq!(answer["max_label_names_per_series"], 30);
    assert_eq!(answer["max_label_names_per_info_series"], 80);
    let (_, answer) = get(&node, "/trefoil/api/v1/limits?tenant=a").await;
    assert_eq!(answer["tenant"], "a");
    let post = |body: &'static str| {
        let request = Request::post("/trefoil/api/v1/limits");
        ask(&node, request.body(Body::from(body)).unwrap())
    };
    let (status, _, body) = post(r#"{"tenant":"a","limits":{"ingestion_rate":5}}"#).await;
    assert_eq!(status, StatusCode::OK);
    assert!(String::from_utf8(body).unwrap().contains("has 1"));
    let (status, _, body) = post(r#"{"limits":{"ingestion_rat":5}}"#).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8(body).unwrap().contains("ingestion_rat"));
}

#[tokio::test]
async fn scripts_of_other_sites_may_ask_and_not_write() {
    let node = FakeNode::new();
    let send = async |method: &str, path: &str, origin: Option<&str>| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let (status, headers, _) = ask(&node, request.body(Body::empty()).unwrap()).await;
        (status.as_u16(), headers)
    };
    let path = "/api/v1/query?query=up&time=1";
    for (method, expected) in [("GET", 200), ("OPTIONS", 204)] {
        let (status, headers) = send(method, path, Some("http://grafana.example")).await;
        assert_eq!(status, expected, "{method}");
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-expose-headers", "Date"),
        ] {
            assert_eq!(headers[name], value, "{method}");
        }
        let (status, headers) = send(method, path, None).await;
        assert_eq!(status, expected, "{method}");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
    let (_, headers) = send("POST", "/api/v1/write", Some("http://other.example")).await;
    assert!(!headers.contains_key("access-control-allow-origin"));
    let (status, headers) = send("DELETE", path, None).await;
    assert_eq!(status, 405);
    assert!(headers.contains_key("allow"));
}

#[tokio::test]
async fn series_are_deleted_by_selector_and_time() {
    let node = FakeNode::new();
    let path = "/prometheus/api/v1/admin/tsdb/delete_series";
    let send = async |method: &str, query: &str| {
        let request = Request::builder().method(method);
        let request = request.uri(format!("{path}?{query}"));
        let (status, _, body) = ask(&node, request.body(Body::empty()).unwrap()).await;
        (status, String::from_utf8(body).unwrap())
    };
    let selectors = "match[]=up&match[]=%7Bjob%3D%22x%22%7D";
    let deleted = send("POST", selectors).await;
    assert_eq!(deleted, (StatusCode::NO_CONTENT, String::new()));
    let everything = format!("from {} to {}", i64::MIN, i64::MAX);
    let expected = format!("anonymous deletes [\"up\", \"{{job=\\\"x\\\"}}\"] {everything}");
    assert_eq!(node.last_query(), expected);
    let (status, _) = send("PUT", "match[]=up&start=1&end=2.5").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(
        node.last_query().ends_with("from 1000 to 2501"),
        "the end is inside"
    );
    for method in ["POST", "PUT"] {
        let form = Request::builder().method(method).uri(path);
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        let form = form.body(Body::from("match[]=of_a_form&end=3")).unwrap();
        let (status, _, _) = ask(&node, form).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{method}");
        assert!(node.last_query().contains("of_a_form"), "{method}");
    }

    for (query, error) in [
        ("start=1", "no match[] parameter provided"),
        ("match[]=up%7B", "match[]"),
        (
            "match[]=up&match[]=%7B%7D",
            "must contain at least one non-empty matcher",
        ),
        (
            "match[]=up&start=2&end=1",
            "end timestamp must not be before start time",
        ),
    ] {
        let (status, answer) = send("POST", query).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.contains(error), "{answer}");
    }
    let (status, _) = send("GET", selectors).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn tombstones_are_cleaned() {
    let node = FakeNode::new();
    for (method, expected) in [
        ("POST", StatusCode::NO_CONTENT),
        ("PUT", StatusCode::NO_CONTENT),
        ("GET", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let request = Request::builder().method(method);
        let request = request.uri("/api/v1/admin/tsdb/clean_tombstones");
        let (status, _, _) = ask(&node, request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, expected, "{method}");
    }
    assert_eq!(node.last_query(), "blocks are rewritten");
}

#[tokio::test]
async fn snapshots_are_named() {
    let node = FakeNode::new();
    let send = async |method: &str, query: &str| {
        let request = Request::builder().method(method);
        let request = request.uri(format!("/prometheus/api/v1/admin/tsdb/snapshot{query}"));
        let (status, _, body) = ask(&node, request.body(Body::empty()).unwrap()).await;
        (status, String::from_utf8(body).unwrap())
    };
    let named = r#""data":{"name":"20261122T051500Z-0123456789abcdef"}"#;
    for (method, query) in [
        ("POST", ""),
        ("PUT", "?skip_head=false"),
        ("PUT", "?skip_head="),
    ] {
        let (status, answer) = send(method, query).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer, format!("{{{named},\"status\":\"success\"}}"));
    }
    let (_, answer) = send("POST", "?skip_head=true").await;
    assert!(answer.contains(named), "{answer}");
    assert!(
        answer.contains(r#""warnings":["n2 has no part of it"]"#),
        "{answer}"
    );
    let (status, answer) = send("POST", "?skip_head=maybe").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.contains("skip_head"), "{answer}");
    let (status, _) = send("GET", "").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn retention_is_read_and_set_for_all_for_tenants_and_for_selectors() {
    let node = FakeNode::new();
    let (_, answer) = get(&node, "/trefoil/api/v1/retention").await;
    assert_eq!(answer["hours"], 360);
    let post = async |path: &'static str, body: &'static str| {
        let request = Request::post(format!("/trefoil/api/v1/{path}"));
        let request = request.body(Body::from(body)).unwrap();
        let (status, _, body) = ask(&node, request).await;
        (status, String::from_utf8(body).unwrap())
    };
    let (whole, of_tenants) = ("retention", "retention/tenants");
    for (path, body, request) in [
        (
            whole,
            r#"{"hours":5}"#,
            "{ hours: Some(5), tenant: None, selector: None }",
        ),
        (
            of_tenants,
            r#"{"tenant":"a"}"#,
            "{ hours: None, tenant: Some(\\\"a\\\"), selector: None }",
        ),
        (
            of_tenants,
            r#"{"tenant":"a","selector":"up","hours":1}"#,
            "{ hours: Some(1), tenant: Some(\\\"a\\\"), selector: Some(\\\"up\\\") }",
        ),
    ] {
        let (status, answer) = post(path, body).await;
        assert_eq!(status, StatusCode::OK);
        assert!(answer.contains(request), "{answer}");
    }
    for (path, body, said) in [
        (of_tenants, r#"{"tenat":"a","hours":1}"#, "tenat"),
        (of_tenants, r#"{"hours":1}"#, "name the tenant"),
        (whole, r#"{"tenant":"a","hours":1}"#, "retention/tenants"),
        (whole, r#"{"selector":"up","hours":1}"#, "retention/tenants"),
    ] {
        let (status, answer) = post(path, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.contains(said), "{answer}");
    }
}
