//! Points of OpenTelemetry that are wrong or unusual: what is stored and what is said.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use trefoil_api::{
    WriteLimits,
    otlp::{Export, Imported, OtlpOptions, Rejections, import_metrics, transcode_json},
    remote_write::WriteRequest,
};

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
