//! The compose file, and what Prometheus and Grafana are told in it.

use crate::{check_variables, flags_and_variables, read};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use trefoil_jepsen::{Cluster, Exclusive, HttpClient, ready_seconds_max};

const COMPOSE: &str = "deploy/compose/compose.yaml";
const DASHBOARD: &str = "deploy/compose/grafana/dashboards/cluster.json";
/// The services that are nodes.
const NODES: [&str; 3] = ["trefoil-1", "trefoil-2", "trefoil-3"];

fn compose() -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&read(COMPOSE)?)?)
}

/// A field of a service, also when it comes from a mapping that is merged in.
fn field<'a>(service: &'a Value, name: &str) -> &'a Value {
    match &service[name] {
        Value::Null => &service["<<"][name],
        own => own,
    }
}

#[test]
fn three_nodes_with_one_seed_list_and_ports_of_the_program() -> anyhow::Result<()> {
    check_variables(COMPOSE, &read(COMPOSE)?, 6)?;
    let compose = compose()?;
    let seeds: BTreeSet<String> = NODES.iter().map(|node| format!("{node}:9191")).collect();
    for node in NODES {
        let service = &compose["services"][node];
        let environment = field(service, "environment");
        ensure!(
            environment["TREFOIL_NODE_NAME"] == node,
            "{node}: {environment}"
        );
        ensure!(
            environment["TREFOIL_ADVERTISE"] == node,
            "{node}: {environment}"
        );
        let listed = field(environment, "TREFOIL_SEEDS")
            .as_str()
            .context("seeds")?;
        let listed: BTreeSet<String> = listed.split(',').map(str::to_owned).collect();
        ensure!(listed == seeds, "{node}: {listed:?}");
        let published = service["ports"].as_array().context("ports")?;
        let published = published.iter().filter_map(Value::as_str);
        let inside: Vec<&str> = published.filter_map(|p| p.rsplit(':').next()).collect();
        ensure!(inside == ["9190", "4317", "4318"], "{node}: {inside:?}");
        for (variable, port) in [("TREFOIL_OTLP_GRPC", 4317), ("TREFOIL_OTLP_HTTP", 4318)] {
            let address = field(environment, variable);
            ensure!(*address == format!("0.0.0.0:{port}"), "{node}: {address}");
        }
        ensure!(
            *field(service, "read_only") == true,
            "{node} can write to its root"
        );
        ensure!(
            *field(service, "user") == "65532:65532",
            "{node} runs as somebody else"
        );
        let check = field(service, "healthcheck")["test"]
            .as_array()
            .context("a health check")?;
        let words: Vec<&str> = check.iter().filter_map(Value::as_str).skip(2).collect();
        flags_and_variables(&words)?;
    }
    Ok(())
}

#[test]
fn prometheus_knows_all_nodes_and_where_they_take_writes() -> anyhow::Result<()> {
    let config: Value = serde_saphyr::from_str(&read("deploy/compose/prometheus.yaml")?)?;
    let targets = &config["scrape_configs"][0]["static_configs"][0]["targets"];
    let expected: Vec<String> = NODES.iter().map(|node| format!("{node}:9190")).collect();
    ensure!(*targets == serde_json::json!(expected), "{targets}");
    ensure!(config["remote_write"][0]["url"] == "http://trefoil:9190/api/v1/write");
    let source = read("deploy/compose/grafana/datasources/trefoil.yaml")?;
    let source: Value = serde_saphyr::from_str(&source)?;
    ensure!(source["datasources"][0]["url"] == "http://trefoil:9190/prometheus");
    Ok(())
}

/// A node alone has every metric that the dashboard asks for.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_metrics_that_there_are() -> anyhow::Result<()> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let questions: Vec<&str> = targets
        .filter_map(|target| target["expr"].as_str())
        .collect();
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = questions
        .iter()
        .flat_map(|question| question.split(|c| !is_inside(c)));
    let metrics: BTreeSet<&str> = words.filter(|word| word.starts_with("trefoil_")).collect();
    ensure!(metrics.len() >= 8, "only {metrics:?}");
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let client = HttpClient::new(std::time::Duration::from_secs(5));
    let write = ["bench", "metrics", "--series", "5", "--samples", "2"];
    ensure!(
        cluster.command(0, &write)?.status.success(),
        "write something"
    );
    let asked = [("query", "1")];
    client
        .query(&format!("{}/api/v1/query", cluster.url(0)), &asked)
        .await?;
    let page = client.get(&format!("{}/metrics", cluster.url(0))).await?;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    for metric in metrics {
        let begins = |line: &str| {
            line.starts_with(&format!("{metric}{{")) || line.starts_with(&format!("{metric} "))
        };
        ensure!(page.lines().any(begins), "the node has no {metric}");
    }
    Ok(())
}
