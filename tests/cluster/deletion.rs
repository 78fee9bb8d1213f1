//! Deleted samples stay deleted on every node, also on one that was away, and what is written later stays.

use anyhow::{Context, ensure};
use trefoil_jepsen::{Clock, Cluster, Exclusive, Ledger, ready_seconds_max};

/// Series of each writer.
const SERIES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_does_not_come_back() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let (gone, kept) = (Ledger::new("gone", SERIES), Ledger::new("kept", SERIES));
    let at = Clock::now_millis() - 120_000;
    write(&cluster, 0, &gone, at).await?;
    write(&cluster, 1, &kept, at).await?;

    // One owner misses the deletion.
    cluster.kill(2)?;
    let selector = [("match[]", "{writer=\"gone\"}")];
    administer(&cluster, "delete_series", &selector).await?;
    for node in [0, 1] {
        let found = samples(&cluster, node, "gone").await?;
        ensure!(found == 0, "node {node} shows {found} deleted samples");
    }
    write(&cluster, 0, &gone, at + 60_000).await?;
    cluster.start_node(2)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    check(&cluster).await?;
    administer(&cluster, "clean_tombstones", &[]).await?;
    check(&cluster).await?;

    for node in 0..3 {
        cluster.kill(node)?;
    }
    for node in 0..3 {
        cluster.start_node(node)?;
    }
    cluster.wait_ready(ready_seconds_max()).await?;
    check(&cluster).await
}

/// A request of Prometheus' administration, which succeeds.
async fn administer(cluster: &Cluster, what: &str, form: &[(&str, &str)]) -> anyhow::Result<()> {
    let url = format!("{}/prometheus/api/v1/admin/tsdb/{what}", cluster.url(1));
    let answer = cluster.client().post_form(&url, form).await?;
    ensure!(
        answer.status == 204,
        "{what}: {}: {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

/// All nodes show what was written after the deletion, and what it did not select.
async fn check(cluster: &Cluster) -> anyhow::Result<()> {
    for node in 0..3 {
        for writer in ["gone", "kept"] {
            let found = samples(cluster, node, writer).await?;
            ensure!(
                found == SERIES,
                "node {node} shows {found} samples of {writer}"
            );
        }
    }
    Ok(())
}

async fn write(cluster: &Cluster, node: usize, ledger: &Ledger, at: i64) -> anyhow::Result<()> {
    let body = ledger.begin(at).body;
    let answer = cluster
        .client()
        .remote_write(&cluster.url(node), body)
        .await?;
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    Ok(())
}

/// How many samples of a writer a node answers with.
async fn samples(cluster: &Cluster, node: usize, writer: &str) -> anyhow::Result<usize> {
    let query = format!("sum(count_over_time({{writer=\"{writer}\"}}[10m]))");
    let url = format!("{}/prometheus/api/v1/query", cluster.url(node));
    let data = cluster.client().query(&url, &[("query", &query)]).await?;
    let Some(first) = data["result"].as_array().and_then(|found| found.first()) else {
        return Ok(0);
    };
    let text = first["value"][1].as_str().context("a value")?;
    Ok(text.parse()?)
}
