//! Limits of tenants: set at one node at run time, kept by all of them, and lifted again.

use anyhow::ensure;
use std::time::Duration;
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{
    Answer, Clock, Cluster, Exclusive, HttpClient, ready_seconds_max, wait_until,
};
use trefoil_model::Labels;

const TENANT: &str = "limited";
const NODES: usize = 5;
/// How long a change may take to reach a node.
const KNOWN_WAIT_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn tenants_keep_to_limits_that_change_at_run_time() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    // More than a series has owners, so that every node also decides about series that it does not store.
    let mut cluster = Cluster::start(NODES)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let client = HttpClient::new(Duration::from_secs(20)).with_tenant(TENANT);
    set(
        &cluster,
        0,
        &["--tenant", TENANT, "max_global_series_per_user=10"],
    )?;
    for node in 0..NODES {
        wait_for(&client, &cluster, node, "\"max_global_series_per_user\":10").await?;
    }
    // Who has read something else changes nothing.
    let url = format!("{}/trefoil/api/v1/limits", cluster.url(1));
    let stale = format!(r#"{{"tenant":"{TENANT}","limits":{{}},"expected":{{}}}}"#);
    let json = [("content-type", "application/json")];
    let refused = client.post(&url, &json, stale).await?;
    ensure!(
        refused.status == 412,
        "{}: {}",
        refused.status,
        refused.text()
    );
    // Each series counts once, though there are three replicas.
    let answer = write(&client, &cluster, 1, 0..10).await?;
    ensure!(answer.is_success(), "{}", answer.text());
    count_is(&client, &cluster, 10).await?;
    for node in 0..NODES {
        // Those that are there go on, others cannot begin, at any node.
        let refused = write(&client, &cluster, node, 5..15).await?;
        let text = refused.text();
        ensure!(refused.status == 400, "{}: {text}", refused.status);
        ensure!(text.contains("err-mimir-max-series-per-user"), "{text}");
        ensure!(text.starts_with("5 of 10 series were refused"), "{text}");
    }
    count_is(&client, &cluster, 10).await?;
    let others = write(cluster.client(), &cluster, 0, 0..20).await?;
    ensure!(others.is_success(), "another tenant: {}", others.text());

    set(&cluster, 2, &["max_global_series_per_metric=12"])?;
    set(
        &cluster,
        2,
        &["--tenant", TENANT, "max_global_series_per_user="],
    )?;
    for node in 0..NODES {
        wait_for(
            &client,
            &cluster,
            node,
            "\"max_global_series_per_metric\":12",
        )
        .await?;
        wait_for(&client, &cluster, node, "\"max_global_series_per_user\":0").await?;
    }
    let refused = write(&client, &cluster, 0, 0..20).await?;
    let text = refused.text();
    ensure!(text.contains("err-mimir-max-series-per-metric"), "{text}");
    count_is(&client, &cluster, 12).await?;

    let fetched = "max_fetched_series_per_query=11";
    set(&cluster, 2, &["--tenant", TENANT, fetched])?;
    for path in [
        "api/v1/query?query=count(trefoil_test_limits)",
        "federate?match[]=trefoil_test_limits",
    ] {
        is_too_much(&client, &cluster, 3, path).await?;
    }
    let fetched = "max_fetched_series_per_query=";
    set(&cluster, 2, &["--tenant", TENANT, fetched])?;

    // After a start a node still knows which series are active.
    cluster.stop(0)?;
    cluster.start_node(0)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let refused = write(&client, &cluster, 0, 12..14).await?;
    let text = refused.text();
    ensure!(text.starts_with("2 of 2 series were refused"), "{text}");

    set(
        &cluster,
        1,
        &[
            "--tenant",
            TENANT,
            "ingestion_rate=1",
            "ingestion_burst_size=20",
        ],
    )?;
    wait_for(&client, &cluster, 1, "\"ingestion_burst_size\":20,").await?;
    let first = write(&client, &cluster, 1, 0..12).await?;
    ensure!(first.is_success(), "{}", first.text());
    let second = write(&client, &cluster, 1, 0..12).await?;
    ensure!(second.status == 429, "{}: {}", second.status, second.text());
    let text = second.text();
    ensure!(
        text.contains("err-mimir-tenant-max-ingestion-rate"),
        "{text}"
    );
    old_samples_and_many_requests_are_refused(&client, &cluster).await?;
    crate::check_end(&cluster, &[]).await
}

async fn old_samples_and_many_requests_are_refused(
    client: &HttpClient,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let limits = [
        "--tenant",
        TENANT,
        "ingestion_rate=",
        "past_grace_period=1h",
        "request_rate=0.1",
        "request_burst_size=1",
    ];
    set(cluster, 1, &limits)?;
    wait_for(client, cluster, 2, "\"request_rate\":0.1").await?;
    let two_hours_ago = Clock::now_millis() - 2 * 3_600_000;
    let old = write_at(client, cluster, 2, 0..1, two_hours_ago).await?;
    let text = old.text();
    ensure!(old.status == 400, "{}: {text}", old.status);
    ensure!(text.contains("err-mimir-too-far-in-past"), "{text}");
    // That one was the only request for some fifty seconds.
    let second = write(client, cluster, 2, 0..1).await?;
    let text = second.text();
    ensure!(second.status == 429, "{}: {text}", second.status);
    ensure!(text.contains("err-mimir-tenant-max-request-rate"), "{text}");
    Ok(())
}

fn set(cluster: &Cluster, node: usize, arguments: &[&str]) -> anyhow::Result<()> {
    let output = cluster.command(node, &[&["tenant", "set-limits"][..], arguments].concat())?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {text}");
    Ok(())
}

/// Waits until a node has heard of a change.
async fn wait_for(
    client: &HttpClient,
    cluster: &Cluster,
    node: usize,
    holds: &str,
) -> anyhow::Result<()> {
    let url = format!("{}/prometheus/api/v1/user_limits", cluster.url(node));
    let known = wait_until("the node knows the limits", KNOWN_WAIT_MAX, || async {
        let answer = client.get(&url).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(text.contains(holds), "{text}");
        Ok(())
    });
    known.await.map(|_| ())
}

/// Waits until a node refuses a question because of what it would fetch.
async fn is_too_much(
    client: &HttpClient,
    cluster: &Cluster,
    node: usize,
    path: &str,
) -> anyhow::Result<()> {
    let url = format!("{}/{path}", cluster.url(node));
    let refused = wait_until("the question is too much", KNOWN_WAIT_MAX, || async {
        let answer = client.get(&url).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 422, "{}: {text}", answer.status);
        ensure!(text.contains("err-mimir-max-series-per-query"), "{text}");
        Ok(())
    });
    refused.await.map(|_| ())
}

async fn write(
    client: &HttpClient,
    cluster: &Cluster,
    node: usize,
    ids: std::ops::Range<usize>,
) -> anyhow::Result<Answer> {
    write_at(client, cluster, node, ids, Clock::now_millis()).await
}

async fn write_at(
    client: &HttpClient,
    cluster: &Cluster,
    node: usize,
    ids: std::ops::Range<usize>,
    time: i64,
) -> anyhow::Result<Answer> {
    let series = ids.map(|id| {
        Labels::from_pairs([("__name__", "trefoil_test_limits"), ("id", &id.to_string())])
    });
    let series: Vec<Labels> = series.collect();
    let samples = [(time, 1.0)];
    let body = encode(series.iter().map(|labels| (labels, samples.as_slice())));
    client.remote_write(&cluster.url(node), body).await
}

/// All nodes have so many series of the tenant, and their heads do.
async fn count_is(client: &HttpClient, cluster: &Cluster, expected: usize) -> anyhow::Result<()> {
    for node in 0..NODES {
        let url = format!("{}/api/v1/query", cluster.url(node));
        let query = [("query", "count(trefoil_test_limits)")];
        let data = client.query(&url, &query).await?;
        let count = &data["result"][0]["value"][1];
        ensure!(*count == format!("{expected}"), "node {node}: {data}");
    }
    Ok(())
}
