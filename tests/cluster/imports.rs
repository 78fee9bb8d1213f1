//! The formats of imports at real nodes: written at one, read at another.

use crate::Scenario;
use anyhow::ensure;
use std::time::{Duration, SystemTime};
use trefoil_jepsen::{Answer, HttpClient, percent_encode, wait_until};

/// How far the clocks of nodes of one machine may be apart.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);
const TEXT: &str = "/prometheus/api/v1/import/prometheus";

#[tokio::test(flavor = "multi_thread")]
async fn imports_of_every_format_are_read_at_another_node() -> anyhow::Result<()> {
    let run = Scenario::begin().await?;
    let client = run.cluster.client();
    let open_metrics = ("content-type", "application/openmetrics-text");
    let json = ("content-type", "application/json");
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_nanos();
    let lines = format!(
        r#"{{"metric":{{"__name__":"import_lines"}},"values":[12],"timestamps":[{}]}}"#,
        now / 1_000_000
    );
    let otlp = format!(
        r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [
            {{"name": "import.otlp", "gauge": {{"dataPoints": [{{"timeUnixNano": "{now}", "asInt": 11}}]}}}},
            {{"name": "import.delta", "sum": {{"aggregationTemporality": 1, "dataPoints": [{{"asInt": 1}}]}}}}
        ]}}]}}]}}"#
    );
    for (path, headers, body, status, says) in [
        (
            TEXT,
            &[][..],
            "# TYPE import_text gauge\nimport_text{a=\"b\"} 7\n",
            204,
            "",
        ),
        (
            TEXT,
            &[open_metrics][..],
            "# TYPE import_open counter\nimport_open_total 8\n# EOF\n",
            204,
            "",
        ),
        ("/write", &[], "import,a=b influx=9\n", 204, ""),
        ("/api/v1/import", &[], lines.as_str(), 204, ""),
        (
            "/v1/metrics",
            &[json][..],
            otlp.as_str(),
            200,
            "\"rejectedDataPoints\":\"1\"",
        ),
        (
            TEXT,
            &[],
            "import_lost 1\nimport_lost{ 1\n",
            400,
            "line 2, column 14: expected the name of a label",
        ),
        (
            "/api/v2/write",
            &[],
            "import kept=10\nimport lost\n",
            400,
            "line 2, column 12",
        ),
    ] {
        let url = format!("{}{path}", run.cluster.url(0));
        let answer = client.post(&url, headers, body.to_owned()).await?;
        let text = answer.text();
        ensure!(
            answer.status == status && text.contains(says),
            "{path}: {} {text}, not {status} with {says:?}",
            answer.status
        );
    }
    for (query, expected) in [
        ("import_text{a=\"b\"}", Some("7")),
        ("import_open_total", Some("8")),
        ("import_influx{a=\"b\"}", Some("9")),
        ("import_kept", Some("10")),
        ("import_otlp", Some("11")),
        ("import_lines", Some("12")),
        ("import_lost", None),
    ] {
        // A node gives samples without a time the cluster's, which may be a little ahead of the time that is asked for.
        let seen = wait_until(query, CLOCKS_APART_MAX, || async {
            let found = run.cluster.instant(1, query).await?;
            let value = found[0]["value"][1].as_str();
            ensure!(value == expected, "{query}: {found}, not {expected:?}");
            Ok(())
        });
        seen.await?;
    }
    run.finish().await
}

/// Every kind of value, in a series with two lines and two with one.
const LINES: &str = r#"{"metric":{"__name__":"export_a","b":"\"c\""},"values":[1.5,-0,0.1],"timestamps":[T0,T1,T2]}
{"metric":{"__name__":"export_a","b":"\"c\""},"values":["Infinity",null],"timestamps":[T3,T4]}
{"metric":{"__name__":"export_b"},"values":["NaN","NaN(0x7ff8000000000001)",1.7976931348623157e+308],"timestamps":[T0,T1,T2]}
{"metric":{"__name__":"export_c"},"values":[{"schema":3,"count":6,"sum":7.5,"zero_threshold":0.001,"zero_count":1,"positive":{"spans":[[-2,1],[3,2]],"counts":[1,2,2]}},2,{"schema":-53,"count":3,"sum":2.25,"zero_threshold":0,"zero_count":0,"positive":{"spans":[[0,3]],"counts":[1,1,1]},"bounds":[0.5,1]}],"timestamps":[T0,T1,T2]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_export_imports_to_the_same_export() -> anyhow::Result<()> {
    let run = Scenario::begin().await?;
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as u64;
    let mut text = LINES.to_owned();
    for at in 0..5 {
        let time = now - 60_000 + at * 1_000;
        text = text.replace(&format!("T{at}"), &time.to_string());
    }
    let tenant = |name| HttpClient::new(Duration::from_secs(10)).with_tenant(name);
    let (one, other) = (tenant("one"), tenant("other"));
    let import = format!("{}/api/v1/import", run.cluster.url(0));
    let answer = one.post(&import, &[], text.clone()).await?;
    ensure!(answer.status == 204, "{}", answer.text());
    let export = |node| {
        let selector = percent_encode("{__name__=~\"export_.\"}");
        let url = run.cluster.url(node);
        format!("{url}/api/v1/export?match[]={selector}&max_rows_per_line=3")
    };
    let whole = |answer: Answer| String::from_utf8(answer.body.to_vec());
    let exported = whole(one.get(&export(1)).await?)?;
    ensure!(exported == text, "exported {exported}, not {text}");
    let import = format!("{}/api/v1/import", run.cluster.url(2));
    let answer = other.post(&import, &[], exported).await?;
    ensure!(answer.status == 204, "{}", answer.text());
    let exported = whole(other.get(&export(0)).await?)?;
    ensure!(exported == text, "exported again {exported}, not {text}");
    run.finish().await
}
