//! OpenTelemetry's own SDK and exporters, over gRPC and HTTP, at a real node.
//!
//! They come from the Python registry (`.ci/run` puts them into a folder of their own, which
//! `TREFOIL_OPENTELEMETRY_PYTHON` names).

use anyhow::{Context, ensure};
use std::{env, process::Command};
use trefoil_jepsen::{Cluster, Exclusive, ready_seconds_max};

/// The interpreter that has the exporters.
const PYTHON: &str = "TREFOIL_OPENTELEMETRY_PYTHON";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/send_opentelemetry.py");

#[tokio::test(flavor = "multi_thread")]
async fn the_exporters_of_the_sdk_send_over_grpc_and_http() -> anyhow::Result<()> {
    let Some(python) = env::var_os(PYTHON) else {
        ensure!(
            env::var_os("TREFOIL_REQUIRE_PEERS").is_none(),
            "{PYTHON} names no Python with OpenTelemetry's exporters"
        );
        eprintln!("{PYTHON} is not set; this test did not run");
        return Ok(());
    };
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let grpc = format!("http://{}", cluster.nodes()[0].otlp_grpc);
    let arguments = [PROGRAM.to_owned(), grpc, cluster.url(0)];
    let sending =
        tokio::task::spawn_blocking(move || Command::new(python).args(arguments).output());
    let sent = sending.await?.context("start Python")?;
    let said = String::from_utf8_lossy(&sent.stderr);
    ensure!(
        sent.status.success() && said.is_empty(),
        "{}: {said}",
        sent.status
    );
    for job in ["plain", "compressed", "http"] {
        let selector = format!("{{job=\"{job}\", instance=\"1\"}}");
        for (query, expected) in [
            (format!("sdk_requests_total{selector}"), "3"),
            (format!("sdk_queue{selector}"), "-2"),
            (format!("sdk_latency_milliseconds_sum{selector}"), "7"),
            (
                format!("sum(sdk_latency_milliseconds_bucket{selector} == 1)"),
                "14",
            ),
            (
                format!("count(target_info{{host_name=\"h\", job=\"{job}\"}})"),
                "1",
            ),
        ] {
            let found = cluster.instant(0, &query).await?;
            let value = found[0]["value"][1].as_str();
            ensure!(value == Some(expected), "{query}: {found}, not {expected}");
        }
    }
    Ok(())
}
