//! Deltas that are to be added up: which of them are rejected, and what becomes of all else of their requests.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "other tests use more of it")]
mod fake;

use axum::{body::Body, http::Request};
use fake::{FakeNode, Mood};
use std::sync::Arc;
use tower::ServiceExt;
use trefoil_api::{
    Api, ApiLimits, WriteLimits,
    otlp::{Deltas, Export, Imported, OtlpOptions, Rejections, import_metrics, transcode_json},
    remote_write::SampleValue,
};

/// Deltas of one series, by (start, end, value) in nanoseconds, as samples of (start, time, value) in milliseconds, and what is
/// rejected.
fn deltas(points: &[(u64, u64, u64)]) -> (Vec<(i64, i64, f64)>, Rejections) {
    let of = |(start, end, value): &(u64, u64, u64)| {
        format!(r#"{{"startTimeUnixNano": {start}, "timeUnixNano": {end}, "asInt": {value}}}"#)
    };
    let points: Vec<String> = points.iter().map(of).collect();
    let json = format!(
        r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [{{"name": "c", "sum":
            {{"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{}]}}}}]}}]}}]}}"#,
        points.join(",")
    );
    let (out, rejections) = import(&options(Deltas::Accumulate), &json);
    let samples = out
        .deltas
        .series()
        .flat_map(|series| series.whole_samples());
    let number = |value: SampleValue| match value {
        SampleValue::Float(value) => value,
        SampleValue::Histogram(histogram) => panic!("{histogram:?}"),
    };
    let samples = samples.map(|sample| (sample.start, sample.time, number(sample.value)));
    (samples.collect(), rejections)
}

#[test]
fn points_of_the_same_millisecond_are_one_delta() {
    const MS: u64 = 1_000_000;
    // They may come in any order; what begins later may leave a gap.
    let points = [
        (MS + 700, 2 * MS, 9),
        (MS + 300, MS + 500, 2),
        (0, MS + 300, 1),
        (MS + 501, MS + 700, 4),
    ];
    let (found, rejections) = deltas(&points);
    assert_eq!(found, [(0, 1, 7.0), (1, 2, 9.0)]);
    assert_eq!(rejections, Rejections::default());
    // Points without a start.
    let (found, _) = deltas(&[(0, MS + 1, 1), (0, MS + 2, 1), (0, 3 * MS, 1)]);
    assert_eq!(found, [(0, 1, 2.0), (0, 3, 1.0)]);
    // What overlaps is left to the node, which refuses it.
    let (found, rejections) = deltas(&[(5, MS + 1, 1), (5, MS + 2, 1)]);
    assert_eq!(found, [(0, 1, 1.0), (0, 1, 1.0)]);
    assert_eq!(rejections, Rejections::default());
    let (found, _) = deltas(&[(5, MS, 1), (5, MS, 2)]);
    assert_eq!(found, [(0, 1, 1.0), (0, 1, 2.0)]);
    // There it would look repeated.
    let (found, rejections) = deltas(&[(5, MS, 1), (5, MS, 1), (MS, MS + 1, 2)]);
    assert_eq!(found, [(0, 1, 3.0)]);
    let reason = "a data point comes twice, in series c_total";
    assert_eq!(
        (rejections.points, &rejections.reasons[..]),
        (1, &[reason.to_owned()][..])
    );
}

#[test]
fn histograms_of_the_same_millisecond_are_added() {
    let points = |metric: &str, value: &str| {
        let point = |start: u64, end: u64| {
            format!(
                r#"{{"startTimeUnixNano": {start}, "timeUnixNano": {end}, "count": 2, "sum": 3, {value}}}"#
            )
        };
        format!(
            r#"{{"name": "{metric}", "{metric}": {{"aggregationTemporality": 1, "dataPoints": [{},{}]}}}}"#,
            point(500, 1_000_001),
            point(1_000_001, 1_000_002)
        )
    };
    // A bound that is the last one's makes two equal samples of one point.
    let bounds = r#""bucketCounts": [1, 1, 0], "explicitBounds": [1, "Infinity"]"#;
    let json = format!(
        r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [{},{}]}}]}}]}}"#,
        points("histogram", bounds),
        points("exponentialHistogram", r#""zeroCount": 2"#)
    );
    let (out, rejections) = import(&options(Deltas::Accumulate), &json);
    assert_eq!(rejections, Rejections::default());
    let mut found = Vec::new();
    for series in out.deltas.series() {
        for sample in series.whole_samples() {
            assert_eq!((sample.start, sample.time), (0, 1));
            let value = match sample.value {
                SampleValue::Float(value) => value,
                SampleValue::Histogram(histogram) => histogram.count + histogram.sum,
            };
            found.push(format!("{} {value}", series.to_labels()));
        }
    }
    found.sort();
    assert_eq!(
        found,
        [
            "exponentialHistogram 10",
            r#"histogram_bucket{le="+Inf"} 4"#,
            r#"histogram_bucket{le="1"} 2"#,
            "histogram_count 4",
            "histogram_sum 6",
        ]
    );
}

fn options(deltas: Deltas) -> OtlpOptions {
    OtlpOptions {
        deltas,
        ..OtlpOptions::default()
    }
}

/// How many series of deltas and others come of a request, and what is rejected.
fn translate(options: &OtlpOptions, json: &str) -> ([usize; 2], Rejections) {
    let (out, rejections) = import(options, json);
    let series = [&out.deltas, &out.request].map(|request| request.series().count());
    (series, rejections)
}

fn import(options: &OtlpOptions, json: &str) -> (Imported, Rejections) {
    let mut body = Vec::new();
    transcode_json(Export::Metrics, json.as_bytes(), &mut body, &mut |_| Ok(())).unwrap();
    let (limits, mut out) = (WriteLimits::default(), Imported::default());
    let mut grow = |_| Ok(());
    let rejections = import_metrics(&body, options, &limits, 1..=9, &mut out, &mut grow);
    (out, rejections.unwrap())
}

#[test]
fn negative_ones_are_rejected_by_name() {
    let points = r#""aggregationTemporality": 1, "dataPoints": [{"timeUnixNano": 3000000, "startTimeUnixNano": 2000000"#;
    let json = format!(
        r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [
            {{"name": "c", "sum": {{"isMonotonic": true, {points}, "asInt": -2}}]}}}},
            {{"name": "h", "histogram": {{{points}, "count": 1, "sum": -6, "bucketCounts": [1, 0], "explicitBounds": [1]}}]}}}},
            {{"name": "e", "exponentialHistogram": {{{points}, "count": 5, "sum": -1, "zeroCount": 5}}]}}}}
        ]}}]}}]}}"#
    );
    let (series, rejections) = translate(&options(Deltas::Accumulate), &json);
    assert_eq!(series, [1, 0], "the exponential one alone");
    let reason =
        |name| format!("metric {name:?} has a negative delta of a sum; its total would fall");
    assert_eq!(rejections.reasons, ["c", "h"].map(reason));
    assert_eq!(rejections.points, 2);
    // Stored as they are they are no counters.
    let (series, rejections) = translate(&options(Deltas::Store), &json);
    assert_eq!((series, rejections.points), ([0, 6], 0));
    // Of a native histogram the sum is a part of its value, and its count says whether it begins anew.
    let native = OtlpOptions {
        converts_histograms: true,
        ..options(Deltas::Accumulate)
    };
    let (series, rejections) = translate(&native, &json);
    assert_eq!((series, rejections.points), ([2, 0], 1));
}

/// The status of the answer to these metrics, and when to come again.
async fn post(node: &Arc<FakeNode>, metrics: &str) -> (u16, Option<String>) {
    let json =
        format!(r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [{metrics}]}}]}}]}}"#);
    let request = Request::post("/v1/metrics").header("content-type", "application/json");
    let request = request.body(Body::from(json)).unwrap();
    let node = Arc::<FakeNode>::clone(node);
    let api = Api::new(node, ApiLimits::default(), OtlpOptions::default());
    let answer = api.http().oneshot(request).await.unwrap();
    let later = answer.headers().get("retry-after");
    let later = later.map(|later| later.to_str().unwrap().to_owned());
    (answer.status().as_u16(), later)
}

#[tokio::test]
async fn all_else_is_stored_when_they_cannot_be_added_up() {
    let point = r#"{"timeUnixNano": 1000000, "asInt": 1}"#;
    let delta = format!(
        r#"{{"name": "d", "sum": {{"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{point}]}}}}"#
    );
    let gauge = format!(r#"{{"name": "g", "gauge": {{"dataPoints": [{point}]}}}}"#);
    let mixed = format!("{delta},{gauge}");
    let node = FakeNode::with(Mood::NoHolder);
    assert_eq!(post(&node, &mixed).await, (503, Some("5".to_owned())));
    assert_eq!(node.stored(), ["anonymous g 1 1"]);
    // Who has no deltas has no part in it.
    assert_eq!(post(&node, &gauge).await, (200, None));
    assert_eq!(node.stored().len(), 2);
    // The other way round nothing is added up: the sender has to come again anyway.
    let node = FakeNode::with(Mood::NoMajority);
    assert_eq!(post(&node, &mixed).await.0, 503);
    assert!(node.stored().is_empty());
    let node = FakeNode::new();
    assert_eq!(post(&node, &mixed).await, (200, None));
    assert_eq!(
        node.stored(),
        ["anonymous g 1 1", "anonymous d_total 1 1 added up"]
    );
}
