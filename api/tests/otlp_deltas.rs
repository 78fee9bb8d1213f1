//! Deltas that are to be added up: which of them are rejected.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use trefoil_api::{
    WriteLimits,
    otlp::{Deltas, Export, Imported, OtlpOptions, Rejections, import_metrics, transcode_json},
};

/// How many series of deltas and others come of a request, and what is rejected.
fn translate(options: &OtlpOptions, json: &str) -> ([usize; 2], Rejections) {
    let mut body = Vec::new();
    transcode_json(Export::Metrics, json.as_bytes(), &mut body, &mut |_| Ok(())).unwrap();
    let (limits, mut out) = (WriteLimits::default(), Imported::default());
    let mut grow = |_| Ok(());
    let rejections = import_metrics(&body, options, &limits, 1..=9, &mut out, &mut grow);
    let series = [&out.deltas, &out.request].map(|request| request.series().count());
    (series, rejections.unwrap())
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
    let options = |deltas| OtlpOptions {
        deltas,
        ..OtlpOptions::default()
    };
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
