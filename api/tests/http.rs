//! The routes over a fake node: statuses, envelopes, bounds, cancellation.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "other tests use more of it")]
mod fake;

use axum::{
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use fake::{FakeNode, Mood};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use std::{io::Read, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tower::ServiceExt;
use trefoil_api::{ApiLimits, WriteLimits, remote_write::encode, router};
use trefoil_model::{Labels, write_varint};

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(node: &Arc<FakeNode>, request: Request<Body>) -> Answer {
    ask_with(node, request, ApiLimits::default()).await
}

async fn ask_with(node: &Arc<FakeNode>, request: Request<Body>, limits: ApiLimits) -> Answer {
    let router = router(Arc::<FakeNode>::clone(node), limits);
    let response = router.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post_write(body: Vec<u8>) -> Request<Body> {
    Request::post("/api/v1/write")
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-write-version", "0.1.0")
        .body(Body::from(body))
        .unwrap()
}

fn good_body() -> Vec<u8> {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
    encode([(&labels, &[(1000, 1.0)][..])])
}

fn body_with_bad_series() -> Vec<u8> {
    let good = Labels::from_pairs([("__name__", "up")]);
    let bad = Labels::from_pairs([("job", "nameless")]);
    encode([(&bad, &[(1000, 1.0)][..]), (&good, &[(1000, 2.0)][..])])
}

#[tokio::test]
async fn writes_are_stored() {
    let node = FakeNode::new();
    for path in [
        "/api/v1/write",
        "/prometheus/api/v1/write",
        "/prometheus/api/v1/push",
    ] {
        let mut request = post_write(good_body());
        *request.uri_mut() = path.parse().unwrap();
        let answer = ask(&node, request).await;
        assert_eq!(
            (answer.status, answer.text()),
            (StatusCode::NO_CONTENT, ""),
            "{path}"
        );
    }
    assert_eq!(node.stored(), ["anonymous up{job=\"a\"} 1000 1"; 3]);
}

#[tokio::test]
async fn a_bad_series_is_named_and_the_others_stored() {
    let node = FakeNode::new();
    let answer = ask(&node, post_write(body_with_bad_series())).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.text(),
        "1 of 2 series were refused, all others were stored: has no metric name (label __name__) \
         (err-mimir-missing-metric-name), in series {job=\"nameless\"}\n"
    );
    assert_eq!(node.stored(), ["anonymous up 1000 2"]);
}

#[tokio::test]
async fn series_refused_by_the_node_are_reported() {
    let node = FakeNode::with(Mood::RefusesOld);
    let answer = ask(&node, post_write(good_body())).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(
        answer.text().contains("1 of 1 series were refused"),
        "{}",
        answer.text()
    );
    assert!(answer.text().contains("too old"), "{}", answer.text());
}

#[tokio::test]
async fn what_another_sender_counts_for_is_accepted() {
    let node = FakeNode::with(Mood::DropsPair);
    let answer = ask(&node, post_write(good_body())).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn malformed_writes_are_refused_whole() {
    let node = FakeNode::new();
    let mut bomb = Vec::new();
    write_varint(&mut bomb, 1 << 30);
    bomb.extend_from_slice(&[0xfe, 1, 0]);
    let mut truncated = good_body();
    truncated.pop();
    let corrupt = snap::raw::Encoder::new()
        .compress_vec(b"\x0a\x05\x0a")
        .unwrap();
    let many = vec![0; 2000];
    for (body, status, expected) in [
        (
            bomb,
            413,
            "decompressed request body is 1073741824, more than 134217728",
        ),
        (truncated, 400, "snappy: "),
        (vec![], 400, "snappy: "),
        (
            corrupt,
            400,
            "corrupt protobuf in field WriteRequest.timeseries at byte 2",
        ),
        (many, 413, "request body is 2000, more than 1000"),
    ] {
        let limits = ApiLimits {
            write: WriteLimits {
                compressed_bytes_max: 1000,
                ..WriteLimits::default()
            },
            ..ApiLimits::default()
        };
        let answer = ask_with(&node, post_write(body), limits).await;
        assert_eq!(answer.status.as_u16(), status, "{expected}");
        assert!(answer.text().contains(expected), "{}", answer.text());
        assert_eq!(answer.text().matches(expected).count(), 1, "said twice");
    }
    assert!(node.stored().is_empty());
}

#[tokio::test]
async fn the_root_says_what_this_is_and_where_to_go() {
    let node = FakeNode::new();
    for path in ["/", "/prometheus", "/prometheus/"] {
        assert_eq!(ask(&node, get(path)).await.status.as_u16(), 200, "{path}");
    }
    let answer = ask(&node, get("/")).await;
    for place in [
        "Trefoil ",
        "/prometheus ",
        "/trefoil/api/v1/cluster ",
        "/-/ready",
    ] {
        assert!(answer.text().contains(place), "{}", answer.text());
    }
}

#[tokio::test]
async fn other_encodings_and_messages_are_refused() {
    let node = FakeNode::new();
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-type", "application/json"),
        (
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v3.Request",
        ),
    ] {
        let mut request = post_write(good_body());
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = ask(&node, request).await;
        assert_eq!(answer.status.as_u16(), 415, "{value}");
        assert!(answer.text().contains(value), "{}", answer.text());
    }
    for (name, value) in [
        (
            "content-type",
            "application/x-protobuf;proto=prometheus.WriteRequest",
        ),
        ("content-encoding", "Snappy"),
        ("content-encoding", ""),
    ] {
        let mut request = post_write(good_body());
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = ask(&node, request).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{value}");
    }
}

#[tokio::test]
async fn tenants_are_separate_and_checked() {
    let node = FakeNode::new();
    let mut request = post_write(good_body());
    request
        .headers_mut()
        .insert("x-scope-orgid", "team-a".parse().unwrap());
    assert_eq!(ask(&node, request).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.stored(), ["team-a up{job=\"a\"} 1000 1"]);
    let mut request = get("/api/v1/query?query=up");
    request
        .headers_mut()
        .insert("x-scope-orgid", "a/b".parse().unwrap());
    let answer = ask(&node, request).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(
        answer.text().contains("unsupported character '/'"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_missing_majority_is_a_retry_and_never_an_error_of_the_server() {
    for (mood, status) in [
        (Mood::NoMajority, 503),
        (Mood::RateLimited, 429),
        (Mood::Hangs, 503),
    ] {
        let node = FakeNode::with(mood);
        let limits = ApiLimits {
            write_timeout: Duration::from_millis(50),
            ..ApiLimits::default()
        };
        let answer = ask_with(&node, post_write(good_body()), limits).await;
        assert_eq!(answer.status.as_u16(), status, "{mood:?}");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    }
}

#[tokio::test]
async fn bytes_and_requests_in_work_are_bounded() {
    let node = FakeNode::new();
    let no_bytes = ApiLimits {
        write_bytes_at_once_max: 0,
        ..ApiLimits::default()
    };
    let no_writes = ApiLimits {
        writes_at_once_max: 0,
        ..ApiLimits::default()
    };
    for limits in [no_bytes, no_writes] {
        let answer = ask_with(&node, post_write(good_body()), limits).await;
        assert_eq!(answer.status.as_u16(), 503);
        assert_eq!(answer.header("retry-after"), "1");
    }
    let no_queries = ApiLimits {
        queries_at_once_max: 0,
        queries_waiting_max: 0,
        ..ApiLimits::default()
    };
    let answer = ask_with(&node, get("/api/v1/query?query=up"), no_queries).await;
    assert_eq!(answer.status.as_u16(), 503);
    assert!(answer.text().contains("more than 0 queries are waiting"));
    let waits = ApiLimits {
        queries_waiting_max: 1,
        ..no_queries
    };
    let answer = ask_with(&node, get("/api/v1/query?query=up&timeout=20ms"), waits).await;
    assert_eq!(answer.status.as_u16(), 503);
    assert!(
        answer.text().contains("\"errorType\":\"timeout\""),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn large_bodies_are_decoded_too() {
    let node = FakeNode::new();
    let many: Vec<Labels> = (0..20_000)
        .map(|i| Labels::from_pairs([("__name__", "up"), ("i", &format!("{i:020}"))]))
        .collect();
    let body = encode(many.iter().map(|labels| (labels, &[(1, 1.0)][..])));
    let answer = ask(&node, post_write(body)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(node.stored().len(), 20_000);
}

#[tokio::test]
async fn queries_by_address_and_by_form() {
    let node = FakeNode::new();
    let expected = concat!(
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up"},"#,
        r#""value":[1435781451.781,"1"]}]},"warnings":["w"]}"#
    );
    let by_form = Request::post("/prometheus/api/v1/query?time=7")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(
            "query=up+%7B%7D&time=1435781451.781&timeout=5s&lookback_delta=1m",
        ))
        .unwrap();
    for request in [
        get("/api/v1/query?query=up+%7B%7D&time=1435781451.781"),
        by_form,
    ] {
        let answer = ask(&node, request).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.text(), expected);
        assert_eq!(node.last_query(), "instant up {} at 1435781451781");
    }
    ask(&node, get("/api/v1/query?query=x")).await;
    assert_eq!(node.last_query(), "instant x at 42000");
    let path = "/api/v1/query_range?query=x&start=10&end=1970-01-01T00:01:40Z&step=30s";
    let answer = ask(&node, get(path)).await;
    assert_eq!(node.last_query(), "range x from 10000 to 100000 by 30000");
    assert!(
        answer.text().contains("\"resultType\":\"matrix\""),
        "{}",
        answer.text()
    );
    let answer = ask(&node, get("/api/v1/query?query=two&limit=1")).await;
    assert!(
        answer.text().contains("results truncated due to limit"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.text().matches("\"metric\"").count(), 1);
}

#[tokio::test]
async fn partial_answers_are_given_only_to_who_asks() {
    let node = FakeNode::new();
    for (path, noted) in [
        ("query?query=x&time=1", "instant x at 1000"),
        (
            "query_range?query=x&start=1&end=2&step=1",
            "range x from 1000 to 2000 by 1000",
        ),
        (
            "series?match[]=x&start=1&end=2",
            "series of 1 from 1000 to 2000 limit 0",
        ),
        ("labels?start=1", "label names"),
        ("label/job/values?start=1", "values of job"),
    ] {
        for (parameter, suffix) in [
            ("", ""),
            ("&partial_response=", ""),
            ("&partial_response=false", ""),
            ("&partial_response=0", ""),
            ("&partial_response=true", " partial"),
            ("&partial_response=1", " partial"),
        ] {
            let path = format!("/api/v1/{path}{parameter}");
            let answer = ask(&node, get(&path)).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert_eq!(node.last_query(), format!("{noted}{suffix}"), "{path}");
        }
    }
}

#[tokio::test]
async fn wrong_parameters_in_the_words_of_prometheus() {
    let node = FakeNode::new();
    let range = "/api/v1/query_range?query=x";
    for (path, status, kind, expected) in [
        (
            "/api/v1/query?query=x&time=soon".to_owned(),
            400,
            "bad_data",
            r#"invalid parameter \"time\": invalid time value for 'time': cannot parse \"soon\" to a valid timestamp"#,
        ),
        (
            "/api/v1/query?query=x&lookback_delta=soon".to_owned(),
            400,
            "bad_data",
            r#""error parsing lookback delta duration: cannot parse \"soon\" to a valid duration""#,
        ),
        (
            "/api/v1/query?query=x&limit=x".to_owned(),
            400,
            "bad_data",
            r#"invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"#,
        ),
        (
            "/api/v1/label/%FF/values".to_owned(),
            400,
            "bad_data",
            "invalid label name: ",
        ),
        (
            "/api/v1/query_exemplars?query=x&start=2&end=1".to_owned(),
            400,
            "bad_data",
            r#""end timestamp must not be before start timestamp""#,
        ),
        (
            "/api/v1/query_exemplars?query=".to_owned(),
            400,
            "bad_data",
            r#""1:1: parse error: no expression found in input""#,
        ),
        (
            "/api/v1/query?query=x&partial_response=maybe".to_owned(),
            400,
            "bad_data",
            r#"invalid parameter \"partial_response\": cannot parse \"maybe\" to a truth value"#,
        ),
        (
            "/api/v1/query?query=x&limit=-1".to_owned(),
            400,
            "bad_data",
            r#"invalid parameter \"limit\": limit must be non-negative"#,
        ),
        (
            format!("{range}&end=1&step=1"),
            400,
            "bad_data",
            r#"invalid parameter \"start\": cannot parse \"\" to a valid timestamp"#,
        ),
        (
            format!("{range}&start=1&end=0&step=1"),
            400,
            "bad_data",
            r#"invalid parameter \"end\": end timestamp must not be before start time"#,
        ),
        (
            format!("{range}&start=0&end=1"),
            400,
            "bad_data",
            r#"invalid parameter \"step\": cannot parse \"\" to a valid duration"#,
        ),
        (
            format!("{range}&start=0&end=1&step=0"),
            400,
            "bad_data",
            r#"invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            format!("{range}&start=0&end=11001&step=1"),
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        (
            "/api/v1/query?query=bad".to_owned(),
            400,
            "bad_data",
            r#"invalid parameter \"query\": 1:1: parse error: bad"#,
        ),
        (
            "/api/v1/query?query=exec".to_owned(),
            422,
            "execution",
            "exec",
        ),
        (
            "/api/v1/query?query=hang&timeout=20ms".to_owned(),
            503,
            "timeout",
            "query timed out in expression evaluation",
        ),
        (
            "/api/v1/query?query=lost".to_owned(),
            503,
            "unavailable",
            "shard 3",
        ),
        (
            "/api/v1/series".to_owned(),
            400,
            "bad_data",
            "no match[] parameter provided",
        ),
        (
            "/api/v1/labels?match[]=sum(x)".to_owned(),
            400,
            "bad_data",
            r#""1:4: parse error: unexpected \"(\"""#,
        ),
        (
            "/api/v1/series?match[]=sum(x)".to_owned(),
            400,
            "bad_data",
            r#"invalid parameter \"match[]\": 1:4: parse error: unexpected \"(\"""#,
        ),
        (
            "/api/v1/series?match[]=%7B%7D".to_owned(),
            400,
            "bad_data",
            r#"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"#,
        ),
        (
            "/api/v1/labels?start=2&end=1".to_owned(),
            400,
            "bad_data",
            "end timestamp must not be before start time",
        ),
        (
            "/api/v1/metadata?limit=x".to_owned(),
            400,
            "bad_data",
            "limit must be a number",
        ),
    ] {
        let answer = ask(&node, get(&path)).await;
        let text = answer.text();
        assert_eq!(answer.status.as_u16(), status, "{path}: {text}");
        let head = format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":\"");
        assert!(
            text.starts_with(&head) && text.contains(expected),
            "{path}: {text}"
        );
    }
}

#[tokio::test]
async fn listings() {
    let node = FakeNode::new();
    let check = async |path: &str, expected: &str| {
        let answer = ask(&node, get(path)).await;
        assert_eq!(answer.text(), expected, "{path}");
    };
    check(
        "/api/v1/series?match[]=up&match[]=x&start=1&end=2",
        r#"{"status":"success","data":[{"__name__":"up"},{"__name__":"x","job":"a"}]}"#,
    )
    .await;
    assert_eq!(node.last_query(), "series of 2 from 1000 to 2000 limit 0");
    check(
        "/prometheus/api/v1/labels?limit=1",
        r#"{"status":"success","data":["__name__"],"warnings":["results truncated due to limit"]}"#,
    )
    .await;
    check(
        "/api/v1/label/U__my_2e_label/values",
        r#"{"status":"success","data":["my.label"]}"#,
    )
    .await;
    let a = r#"{"type":"counter","help":"A.","unit":"s"}"#;
    let a2 = r#"{"type":"gauge","help":"A2.","unit":""}"#;
    let b = r#"{"type":"unknown","help":"","unit":""}"#;
    check(
        "/api/v1/metadata",
        &format!(r#"{{"status":"success","data":{{"a":[{a},{a2}],"b":[{b}]}}}}"#),
    )
    .await;
    check(
        "/api/v1/metadata?limit=1&limit_per_metric=1",
        &format!(r#"{{"status":"success","data":{{"a":[{a}]}}}}"#),
    )
    .await;
}

#[tokio::test]
async fn long_answers_come_in_pieces_and_compressed() {
    let node = FakeNode::new();
    let path = "/api/v1/query_range?query=long&start=0&end=1&step=1";
    let plain = ask(&node, get(path)).await;
    assert!(plain.body.len() > 500_000 && plain.header("content-encoding").is_empty());
    assert_eq!(plain.text().matches("\"metric\"").count(), 5000);
    for accepted in ["gzip", "deflate, GZIP;q=0.5"] {
        let mut request = get(path);
        request
            .headers_mut()
            .insert("accept-encoding", accepted.parse().unwrap());
        let answer = ask(&node, request).await;
        assert_eq!(answer.header("content-encoding"), "gzip");
        assert!(answer.body.len() < plain.body.len() / 4);
        let mut text = Vec::new();
        GzDecoder::new(&answer.body[..])
            .read_to_end(&mut text)
            .unwrap();
        assert!(text == plain.body);
    }
    let mut request = get(path);
    request
        .headers_mut()
        .insert("accept-encoding", "gzip;q=0, br".parse().unwrap());
    assert!(
        ask(&node, request)
            .await
            .header("content-encoding")
            .is_empty()
    );
}

#[tokio::test]
async fn state_of_the_node() {
    let node = FakeNode::new();
    let healthy = ask(&node, get("/-/healthy")).await;
    assert_eq!(
        (healthy.status, healthy.text()),
        (StatusCode::OK, "Trefoil is Healthy.\n")
    );
    assert_eq!(
        ask(&node, get("/prometheus/-/ready")).await.status,
        StatusCode::OK
    );
    let unready = FakeNode::with(Mood::NotReady);
    let answer = ask(&unready, get("/-/ready")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.text(),
        "Trefoil is not ready: 3 replicas are filling\n"
    );
    let info = ask(&node, get("/api/v1/status/buildinfo")).await;
    assert!(
        info.text().contains("\"version\":\"3.5.0+trefoil.0.1.0\""),
        "{}",
        info.text()
    );
    assert_eq!(
        ask(&node, get("/nothing")).await.status,
        StatusCode::NOT_FOUND
    );
    let wrong_method = ask(&node, get("/api/v1/write")).await;
    assert_eq!(wrong_method.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_starting_node_lives_and_refuses_everything_else() {
    let starting = trefoil_api::starting_router(Arc::new(|| "1 of 3 nodes are there".to_owned()));
    let ask = async |path: &str| {
        let response = starting.clone().oneshot(get(path)).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head, String::from_utf8(body.to_vec()).unwrap())
    };
    let (head, text) = ask(trefoil_api::HEALTHY_PATH).await;
    assert_eq!(
        (head.status, text.as_str()),
        (StatusCode::OK, "Trefoil is Healthy.\n")
    );
    let (head, text) = ask(trefoil_api::READY_PATH).await;
    assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text, "Trefoil is not ready: 1 of 3 nodes are there\n");
    let (head, text) = ask("/api/v1/query?query=up").await;
    assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(head.headers["retry-after"], "1");
    assert!(
        text.contains("this node is starting: 1 of 3 nodes"),
        "{text}"
    );
}

#[tokio::test]
async fn metrics_about_the_server() {
    let node = FakeNode::new();
    let router = router(Arc::<FakeNode>::clone(&node), ApiLimits::default());
    for request in [
        post_write(body_with_bad_series()),
        get("/api/v1/label/job/values"),
        get("/prometheus/api/v1/query?query=up"),
        get("/metrics"),
        get("/metrics"),
    ] {
        router.clone().oneshot(request).await.unwrap();
    }
    let response = router.oneshot(get("/metrics")).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&body).unwrap();
    let parsed = trefoil_api::exposition::parse(text).unwrap();
    let value = |name: &str| {
        let found = parsed.samples.iter().find(|s| s.labels.to_string() == name);
        found
            .unwrap_or_else(|| panic!("{name} is not in {text}"))
            .value
    };
    assert_eq!(value("fake_up"), 1.0);
    assert_eq!(value("trefoil_remote_write_samples_total"), 1.0);
    assert_eq!(value("trefoil_remote_write_refused_series_total"), 1.0);
    let requests = |handler: &str, code: &str| {
        value(&format!(
            "trefoil_http_requests_total{{code=\"{code}\", handler=\"{handler}\"}}"
        ))
    };
    assert_eq!(requests("/api/v1/write", "400"), 1.0);
    assert_eq!(requests("/api/v1/label/:name/values", "200"), 1.0);
    assert_eq!(requests("/api/v1/query", "200"), 1.0);
    assert_eq!(
        value("trefoil_http_request_duration_seconds_count{handler=\"/metrics\"}"),
        2.0
    );
}

#[tokio::test]
async fn administration() {
    let node = FakeNode::new();
    let cluster = ask(&node, get("/trefoil/api/v1/cluster")).await;
    let document: trefoil_api::admin::Cluster = serde_json::from_slice(&cluster.body).unwrap();
    assert_eq!(document.term, 7);
    let digests = ask(&node, get("/trefoil/api/v1/digests?start=1&end=2")).await;
    assert!(
        digests.text().contains("\"equal\":true"),
        "{}",
        digests.text()
    );
    for backwards in ["start=2&end=1", "start=2&end=2"] {
        let path = format!("/trefoil/api/v1/digests?{backwards}");
        assert_eq!(ask(&node, get(&path)).await.status, 400, "{backwards}");
    }
    let movements = ask(&node, get("/trefoil/api/v1/movements")).await;
    assert_eq!(
        movements.text(),
        r#"{"pace_bytes_per_second":5,"waiting":[],"movements":[]}"#
    );
    let post = async |path: &str, body: &'static str| {
        let request = Request::post(path).body(Body::from(body)).unwrap();
        ask(&node, request).await
    };
    let patient = post(
        "/trefoil/api/v1/node/prepare-stop",
        r#"{"wait_seconds":3601}"#,
    )
    .await;
    assert_eq!(patient.status, 400, "{}", patient.text());
    let prepared = post("/trefoil/api/v1/node/prepare-stop", r#"{"wait_seconds":7}"#).await;
    assert_eq!(prepared.text(), r#"{"message":"waited 7 s"}"#);
    let drained = post("/trefoil/api/v1/cluster/drain", r#"{"node":"n1"}"#).await;
    assert_eq!(drained.text(), r#"{"message":"n1 is draining"}"#);
    let undrained = post("/trefoil/api/v1/cluster/undrain", r#"{"node":"n1"}"#).await;
    assert_eq!(undrained.text(), r#"{"message":"n1 takes replicas again"}"#);
    let unknown = post("/trefoil/api/v1/cluster/remove", r#"{"node":"n9"}"#).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let held = ask(&node, get("/trefoil/api/v1/values?key=k")).await;
    assert_eq!(held.text(), r#"{"key":"k","version":7,"value":"v"}"#);
    let put = post(
        "/trefoil/api/v1/values",
        r#"{"key":"k","value":"w","expected_version":7}"#,
    );
    assert_eq!(put.await.text(), r#"{"version":8}"#);
    let late = post(
        "/trefoil/api/v1/values",
        r#"{"key":"k","value":"w","expected_version":6}"#,
    );
    assert_eq!(late.await.status, 412);
    let without = ask(&node, get("/trefoil/api/v1/values")).await;
    assert_eq!(without.status, 400);
    let misspelt = post("/trefoil/api/v1/values", r#"{"key":"k","vlaue":"w"}"#);
    assert!(misspelt.await.text().contains("vlaue"));
    let wrong = post("/trefoil/api/v1/cluster/drain", "n1").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(
        wrong
            .text()
            .contains("expected {\\\"node\\\":\\\"NAME\\\"}"),
        "{}",
        wrong.text()
    );
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_query() {
    let node = FakeNode::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router(Arc::<FakeNode>::clone(&node), ApiLimits::default());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = b"GET /api/v1/query?query=hang HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(request).await.unwrap();
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, node.hanging.notified())
        .await
        .unwrap();
    drop(client);
    tokio::time::timeout(deadline, node.canceled.notified())
        .await
        .unwrap();
    server.abort();
}
