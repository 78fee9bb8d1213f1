//! The formats of imports at real nodes: written at one, read at another.

use crate::Scenario;
use anyhow::ensure;
use std::time::{Duration, SystemTime};
use trefoil_jepsen::wait_until;

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
