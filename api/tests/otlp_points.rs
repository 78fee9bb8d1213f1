//! Points of OpenTelemetry that are wrong or unusual: what is stored and what is said.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use trefoil_api::{
    WriteLimits,
    otlp::{
        Deltas, Export, Imported, OtlpOptions, Promotion, Rejections, import_metrics,
        transcode_json,
    },
    remote_write::{SampleValue, WriteRequest},
};
use trefoil_model::histogram::{ResetHint, SCHEMA_CUSTOM};

/// What comes of metrics of a resource with these attributes.
fn translate(options: &OtlpOptions, attributes: &str, metrics: &str) -> (WriteRequest, Rejections) {
    let json = format!(
        r#"{{"resourceMetrics": [{{"resource": {{"attributes": [{attributes}]}},
            "scopeMetrics": [{{"metrics": [{metrics}]}}]}}]}}"#
    );
    let mut body = Vec::new();
    transcode_json(Export::Metrics, json.as_bytes(), &mut body, &mut |_| Ok(())).unwrap();
    let (limits, mut out) = (WriteLimits::default(), Imported::default());
    let mut grow = |_| Ok(());
    let rejections = import_metrics(&body, options, &limits, 1..=9, &mut out, &mut grow);
    (out.request, rejections.unwrap())
}

#[test]
fn deltas_of_one_millisecond_come_to_more_than_each_may_have() {
    let point = |start: u32, end: u32, offset: u32| {
        format!(
            r#"{{"startTimeUnixNano": {start}, "timeUnixNano": {end}, "count": 3, "sum": 9,
                "positive": {{"offset": {offset}, "bucketCounts": [1, 1, 1]}}}}"#
        )
    };
    let points = [point(1, 3_000_000, 0), point(3_000_000, 3_500_000, 10)].join(",");
    let body = format!(
        r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [{{"name": "a", "exponentialHistogram": {{
            "aggregationTemporality": "AGGREGATION_TEMPORALITY_DELTA", "dataPoints": [{points}]}}}}]}}]}}]}}"#
    );
    let mut bytes = Vec::new();
    transcode_json(
        Export::Metrics,
        body.as_bytes(),
        &mut bytes,
        &mut |_| Ok(()),
    )
    .unwrap();
    let options = OtlpOptions {
        deltas: Deltas::Accumulate,
        ..OtlpOptions::default()
    };
    let limits = WriteLimits {
        native_buckets_max: 4,
        reduces_native_buckets: false,
        ..WriteLimits::default()
    };
    let (mut out, mut grow) = (Imported::default(), |_| Ok(()));
    let rejections = import_metrics(&bytes, &options, &limits, 1..=9, &mut out, &mut grow);
    assert_eq!(rejections.unwrap(), Rejections::default());
    let samples = out
        .deltas
        .series()
        .flat_map(|series| series.whole_samples());
    let samples: Vec<_> = samples.map(|sample| sample.value).collect();
    let [SampleValue::Histogram(histogram)] = &samples[..] else {
        panic!("not one histogram: {samples:?}");
    };
    assert_eq!((histogram.positive.len(), histogram.count), (6, 6.0));
}

/// The labels of all series.
fn series_of(request: &WriteRequest) -> Vec<String> {
    let series = request.series();
    series.map(|one| one.to_labels().to_string()).collect()
}

/// A metric of one point at 3 ms.
fn metric(name: &str, kind: &str, point: &str) -> String {
    format!(
        r#"{{"name": "{name}", "{kind}": {{"aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
            "dataPoints": [{{"timeUnixNano": 3000000, {point}}}]}}}}"#
    )
}

#[test]
fn exponential_histograms_add_up() {
    let point = |count: u32| {
        format!(
            r#""count": {count}, "sum": 9, "zeroCount": 1, "positive": {{"bucketCounts": [4]}},
               "exemplars": [{{"timeUnixNano": 3000000, "asDouble": 1.5}}]"#
        )
    };
    let metrics = [("wrong", 99), ("right", 5)]
        .map(|(name, count)| metric(name, "exponentialHistogram", &point(count)));
    let (out, rejections) = translate(&OtlpOptions::default(), "", &metrics.join(","));
    assert_eq!(series_of(&out), ["right"]);
    assert_eq!(
        out.exemplars().len(),
        1,
        "those of the other one go with it"
    );
    let reason = "metric \"wrong\" has a wrong histogram: 5 observations found in buckets, but the Count field is 99: \
                  histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)";
    assert_eq!(
        (rejections.points, rejections.reasons),
        (1, vec![reason.to_owned()])
    );
}

#[test]
fn units_are_told_in_words() {
    let metrics = r#"{"name": "a", "unit": "By/s", "gauge": {"dataPoints": [{"timeUnixNano": 3000000, "asInt": 1}]}},
        {"name": "b", "unit": "1", "gauge": {"dataPoints": [{"timeUnixNano": 3000000, "asInt": 1}]}}"#;
    let (out, _) = translate(&OtlpOptions::default(), "", metrics);
    let units: Vec<_> = out.metadata().map(|m| (m.metric, m.unit)).collect();
    assert_eq!(
        units,
        [("a_bytes_per_second", "bytes_per_second"), ("b_ratio", "")]
    );
}

/// As many attributes, and the service's name if it has one.
fn attributes(count: usize, service: &str) -> String {
    let text = |(key, value): (String, &str)| {
        format!(r#"{{"key": "{key}", "value": {{"stringValue": "{value}"}}}}"#)
    };
    let named = (!service.is_empty()).then(|| ("service.name".to_owned(), service));
    let others = (0..count).map(|i| (format!("l{i}"), "v"));
    let texts: Vec<_> = named.into_iter().chain(others).map(text).collect();
    texts.join(",")
}

#[test]
fn target_info_may_have_more_labels() {
    let metrics = metric("a", "gauge", r#""asInt": 1"#);
    let options = OtlpOptions::default();
    // With its name and the job.
    let (out, rejections) = translate(&options, &attributes(78, "cart"), &metrics);
    assert_eq!(
        (out.series().count(), rejections),
        (2, Rejections::default())
    );
    let (out, rejections) = translate(&options, &attributes(79, "cart"), &metrics);
    assert_eq!(series_of(&out), [r#"a{job="cart"}"#]);
    let reason = "target_info of the resource job \"cart\" has more than 80 labels (max_label_names_per_info_series)";
    assert_eq!(
        (rejections.points, rejections.reasons),
        (1, vec![reason.to_owned()])
    );
}

#[test]
fn metrics_that_inform_may_have_more_labels() {
    let point = |count| format!(r#""asInt": 1, "attributes": [{}]"#, attributes(count, ""));
    let options = OtlpOptions::default();
    for (name, count, expected) in [
        ("a_info", 79, None),
        (
            "a_info",
            80,
            Some("80 labels (max_label_names_per_info_series)"),
        ),
        // So many are not even put together.
        (
            "a_info",
            200,
            Some("80 labels (max_label_names_per_info_series)"),
        ),
        ("a_inform", 29, None),
        (
            "a_inform",
            30,
            Some("30 labels (max_label_names_per_series)"),
        ),
        (
            "a_inform",
            200,
            Some("30 labels (max_label_names_per_series)"),
        ),
    ] {
        let metrics = metric(name, "gauge", &point(count));
        let (out, rejections) = translate(&options, "", &metrics);
        let reasons = expected.map(|text| format!("metric \"{name}\" has more than {text}"));
        assert_eq!(
            rejections.reasons,
            Vec::from_iter(reasons),
            "{name} {count}"
        );
        let stored = usize::from(expected.is_none());
        assert_eq!((out.series().count(), out.refusals().series), (stored, 0));
    }
    // Only those of its series are called so that tell quantiles.
    let summary = format!(r#""count": 1, "attributes": [{}]"#, attributes(40, ""));
    let (out, rejections) = translate(&options, "", &metric("a_info", "summary", &summary));
    assert_eq!((out.series().count(), rejections.points), (0, 1));
}

#[test]
fn all_attributes_of_a_resource_are_promoted_but_some() {
    let text = |key: &str, value: &str| {
        format!(r#"{{"key": "{key}", "value": {{"stringValue": "{value}"}}}}"#)
    };
    let attributes = [
        text("k8s_pod", "under"),
        text("service.name", "cart"),
        text("process.pid", "7"),
        text("k8s.pod", "dot"),
        text("..", "nameless"),
    ];
    let options = OtlpOptions {
        promoted: Promotion::AllBut(vec!["process.pid".to_owned()]),
        ..OtlpOptions::default()
    };
    let own = format!(r#""asInt": 1, "attributes": [{}]"#, text("k8s.pod", "mine"));
    let metrics = [
        metric("a", "gauge", r#""asInt": 1"#),
        metric("b", "gauge", &own),
    ];
    let expected = [
        r#"a{job="cart", k8s_pod="dot", service_name="cart"}"#,
        r#"b{job="cart", k8s_pod="mine", service_name="cart"}"#,
    ];
    let (out, rejections) = translate(&options, &attributes.join(","), &metrics.join(","));
    assert_eq!(series_of(&out), expected);
    // The points are stored, and what cannot be told of the resource is.
    assert!(rejections.reasons[0].starts_with("target_info of the resource job \"cart\""));
    assert_eq!(rejections.points, 1);
    // The order of a client's attributes does not make another series.
    let reversed: Vec<_> = attributes.iter().rev().map(String::as_str).collect();
    let (out, _) = translate(&options, &reversed.join(","), &metrics.join(","));
    assert_eq!(series_of(&out), expected);
}

#[test]
fn too_many_promoted_attributes_refuse_the_points() {
    let options = OtlpOptions {
        promoted: Promotion::AllBut(Vec::new()),
        ..OtlpOptions::default()
    };
    let metrics = [
        metric("a", "gauge", r#""asInt": 1"#),
        metric("a_info", "gauge", r#""asInt": 1"#),
    ];
    for (count, stored, points) in [(29, 2, 0), (40, 1, 1), (200, 0, 2)] {
        let (out, rejections) = translate(&options, &attributes(count, ""), &metrics.join(","));
        let found = (out.series().count(), rejections.points);
        assert_eq!(found, (stored, points), "{count}: {:?}", rejections.reasons);
    }
}

#[test]
fn explicit_histograms_become_native_ones() {
    let options = OtlpOptions {
        converts_histograms: true,
        ..OtlpOptions::default()
    };
    let point = |count: u32| {
        format!(
            r#""startTimeUnixNano": 1000000, "count": {count}, "sum": 7.5, "bucketCounts": [1, 2, 3],
               "explicitBounds": [0.5, 1], "exemplars": [{{"timeUnixNano": 3000000, "asDouble": 0.7}}]"#
        )
    };
    let metrics = [
        metric("h", "histogram", &point(6)),
        metric("wrong", "histogram", &point(99)),
        metric("pause", "histogram", r#""flags": 1"#),
    ];
    let (out, rejections) = translate(&options, "", &metrics.join(","));
    assert_eq!(series_of(&out), ["h", "pause"]);
    let samples = out.series().flat_map(|series| series.whole_samples());
    let samples: Vec<_> = samples.collect();
    let SampleValue::Histogram(histogram) = &samples[0].value else {
        panic!("not a histogram");
    };
    assert_eq!((samples[0].time, samples[0].start), (3, 1));
    assert_eq!(
        (histogram.schema, histogram.reset_hint),
        (SCHEMA_CUSTOM, ResetHint::Unknown)
    );
    assert_eq!((histogram.count, histogram.sum), (6.0, 7.5));
    assert_eq!(histogram.custom_bounds[..], [0.5, 1.0]);
    let buckets: Vec<_> = histogram.positive.iter().collect();
    assert_eq!(buckets, [(0, 1.0), (1, 2.0), (2, 3.0)]);
    assert!(matches!(samples[1].value, SampleValue::Float(value) if value.is_nan()));
    let exemplars: Vec<_> = out
        .exemplars()
        .iter()
        .map(|(series, _)| series.to_string())
        .collect();
    assert_eq!(exemplars, ["h"]);
    assert_eq!(rejections.points, 1);
    let reason = "metric \"wrong\" has a wrong histogram: 6 observations found in buckets, but the Count field is 99";
    assert!(
        rejections.reasons[0].starts_with(reason),
        "{:?}",
        rejections.reasons
    );

    let options = OtlpOptions {
        deltas: Deltas::Store,
        ..options
    };
    let delta = metrics[0].replace("CUMULATIVE", "DELTA");
    let (out, _) = translate(&options, "", &delta);
    let mut samples = out.series().flat_map(|series| series.whole_samples());
    let Some(SampleValue::Histogram(histogram)) = samples.next().map(|sample| sample.value) else {
        panic!("not a histogram");
    };
    assert_eq!(histogram.reset_hint, ResetHint::Gauge);
}

#[test]
fn native_histograms_have_no_label_of_a_bucket() {
    let point = |count| {
        let attributes = attributes(count, "");
        format!(r#""count": 1, "zeroCount": 1, "attributes": [{attributes}]"#)
    };
    let options = OtlpOptions {
        converts_histograms: true,
        ..OtlpOptions::default()
    };
    for kind in ["exponentialHistogram", "histogram"] {
        for (count, stored) in [(29, 1), (30, 0)] {
            let (out, rejections) = translate(&options, "", &metric("a", kind, &point(count)));
            let found = (out.series().count(), rejections.points);
            assert_eq!(found, (stored, 1 - stored as u64), "{kind} {count}");
        }
    }
}
