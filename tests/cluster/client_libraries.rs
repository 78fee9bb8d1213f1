//! Client libraries at a real node: OpenTelemetry's SDKs and exporters and Prometheus' own libraries, of Python and Node.
//!
//! They come from the languages' registries; `.ci/run` puts them into folders of their own, which variables name.

use anyhow::{Context, ensure};
use std::{env, ffi::OsString, process::Command};
use trefoil_jepsen::{Cluster, Exclusive, ready_seconds_max};

/// The Python interpreter that has the libraries.
const PYTHON: &str = "TREFOIL_CLIENTS_PYTHON";
/// The folder with the packages of Node.
const NODE: &str = "TREFOIL_CLIENTS_NODE";
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster");

/// What a variable says, or nothing where the test may be left out.
fn required(variable: &str) -> anyhow::Result<Option<OsString>> {
    let value = env::var_os(variable);
    if value.is_none() {
        ensure!(
            env::var_os("TREFOIL_REQUIRE_PEERS").is_none(),
            "{variable} does not name client libraries"
        );
        eprintln!("{variable} is not set; this test did not run");
    }
    Ok(value)
}

async fn one_node() -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    Ok(cluster)
}

/// Runs a program that must succeed and say nothing.
async fn send(mut command: Command) -> anyhow::Result<()> {
    let sending = tokio::task::spawn_blocking(move || command.output());
    let sent = sending.await?.context("start the program that sends")?;
    let said = String::from_utf8_lossy(&sent.stderr);
    ensure!(
        sent.status.success() && said.is_empty(),
        "{}: {said}",
        sent.status
    );
    Ok(())
}

/// The queries, in which `JOB` stands for a job's selector, have these values.
async fn check(cluster: &Cluster, job: &str, expected: &[(&str, &str)]) -> anyhow::Result<()> {
    for (query, expected) in expected {
        let query = query.replace("JOB", &format!("job=\"{job}\""));
        let found = cluster.instant(0, &query).await?;
        let value = found[0]["value"][1].as_str();
        ensure!(value == Some(expected), "{query}: {found}, not {expected}");
    }
    Ok(())
}

fn grpc(cluster: &Cluster) -> String {
    format!("http://{}", cluster.nodes()[0].otlp_grpc)
}

#[tokio::test(flavor = "multi_thread")]
async fn opentelemetry_of_python_sends_over_grpc_and_http() -> anyhow::Result<()> {
    let Some(python) = required(PYTHON)? else {
        return Ok(());
    };
    let _alone = Exclusive::take()?;
    let cluster = one_node().await?;
    let mut command = Command::new(python);
    command
        .arg(format!("{FOLDER}/send_opentelemetry.py"))
        .args([grpc(&cluster), cluster.url(0)]);
    send(command).await?;
    for job in ["plain", "compressed", "http"] {
        let expected = [
            ("sdk_requests_total{JOB, instance=\"1\"}", "3"),
            ("sdk_queue{JOB, instance=\"1\"}", "-2"),
            ("sdk_latency_milliseconds_sum{JOB, instance=\"1\"}", "7"),
            ("sum(sdk_latency_milliseconds_bucket{JOB} == 1)", "14"),
            ("count(target_info{host_name=\"h\", JOB})", "1"),
        ];
        check(&cluster, job, &expected).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_of_python_is_imported() -> anyhow::Result<()> {
    let Some(python) = required(PYTHON)? else {
        return Ok(());
    };
    let _alone = Exclusive::take()?;
    let cluster = one_node().await?;
    let mut command = Command::new(python);
    command
        .arg(format!("{FOLDER}/send_exposition.py"))
        .arg(cluster.url(0));
    send(command).await?;
    for job in ["python-text", "python-open"] {
        let expected = [
            ("python_requests_total{JOB, route=\"/a\\\\\\\"\\n\"}", "3"),
            ("python_queue{JOB}", "-Inf"),
            ("python_latency_seconds_bucket{JOB, le=\"1.0\"}", "1"),
            ("python_latency_seconds_bucket{JOB, le=\"0.1\"}", "0"),
            ("python_latency_seconds_sum{JOB}", "0.5"),
            ("python_sizes_count{JOB}", "1"),
            ("python_build_info{JOB, version=\"1.2\"}", "1"),
            ("python_state{JOB, python_state=\"busy\"}", "1"),
            ("target_info{JOB, version=\"1\"}", "1"),
        ];
        check(&cluster, job, &expected).await?;
    }
    check_exemplars(&cluster, "python_requests_total", "python-open").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_libraries_of_node_send() -> anyhow::Result<()> {
    let Some(packages) = required(NODE)? else {
        return Ok(());
    };
    let _alone = Exclusive::take()?;
    let cluster = one_node().await?;
    let mut command = Command::new("node");
    command
        .env("NODE_PATH", packages)
        .arg(format!("{FOLDER}/send_node.js"))
        .args([grpc(&cluster), cluster.url(0)]);
    send(command).await?;
    for job in ["node-grpc", "node-json", "node-protobuf"] {
        let expected = [
            ("node_requests_total{JOB, http_route=\"/a\"}", "3"),
            ("node_queue{JOB, instance=\"1\"}", "-2"),
            ("node_latency_milliseconds_sum{JOB}", "7"),
            ("histogram_count(node_sizes_bytes{JOB})", "3"),
            ("histogram_sum(node_sizes_bytes{JOB})", "7"),
            ("count(target_info{host_name=\"h\", JOB})", "1"),
        ];
        check(&cluster, job, &expected).await?;
    }
    for job in ["node-text", "node-open"] {
        let expected = [
            (
                "node_exposed_requests_total{JOB, route=\"/a\\\\\\\"\\n\"}",
                "3",
            ),
            ("node_exposed_queue{JOB}", "-2.5"),
            ("node_exposed_latency_seconds_bucket{JOB, le=\"1\"}", "1"),
            ("node_exposed_sizes_sum{JOB}", "4"),
        ];
        check(&cluster, job, &expected).await?;
    }
    check_exemplars(&cluster, "node_exposed_requests_total", "node-open").await
}

/// A series has the exemplar that was sent with it.
async fn check_exemplars(cluster: &Cluster, metric: &str, job: &str) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/query_exemplars", cluster.url(0));
    let query = format!("{metric}{{job=\"{job}\"}}");
    // Far enough ahead for a clock that was read a little later.
    let parameters = [("query", query.as_str()), ("start", "0"), ("end", "1e10")];
    let found = cluster.client().query(&url, &parameters).await?;
    let labels = &found[0]["exemplars"][0]["labels"];
    ensure!(labels["trace_id"] == "abc", "{query}: {found}");
    Ok(())
}
