//! Deleted samples stay deleted on every node, also on one that was away, and what is written later stays.

use anyhow::{Context, ensure};
use trefoil_jepsen::{Clock, Cluster, Exclusive, Ledger, ready_seconds_max};

/// Series of each writer.
const SERIES: usize = 20;
/// How long a node without its data may take to be filled with so little.
const FILLED_SECONDS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_does_not_come_back() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let (gone, kept) = (Ledger::new("gone", SERIES), Ledger::new("kept", SERIES));
    let at = Clock::now_millis() - 120_000;
    write(&cluster, 0, &gone, at).await?;
    write(&cluster, 1, &kept, at).await?;

    // One owner misses the deletion, with what is deleted in its journal.
    cluster.kill(2)?;
    let selector = [("match[]", "{writer=\"gone\"}")];
    administer(&cluster, "delete_series", &selector).await?;
    for node in [0, 1] {
        check_node(&cluster, node, 0).await?;
    }
    write(&cluster, 0, &gone, at + 60_000).await?;
    cluster.start_node(2)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    check(&cluster).await?;

    // A journal that is replayed has what was deleted, and knows that it is.
    cluster.kill(0)?;
    cluster.start_node(0)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    check(&cluster).await?;
    administer(&cluster, "clean_tombstones", &[]).await?;
    for node in 0..3 {
        let stored = stored_samples(&cluster, node).await?;
        ensure!(
            stored == (0, 2 * SERIES),
            "node {node} has {stored:?} samples in its head and on its disk"
        );
    }
    check(&cluster).await?;

    for node in 0..3 {
        cluster.kill(node)?;
    }
    // A node that has lost its disk is filled with copies.
    cluster.delete_data(1)?;
    for node in 0..3 {
        cluster.start_node(node)?;
    }
    cluster.wait_ready(FILLED_SECONDS_MAX).await?;
    check(&cluster).await
}

/// A selector that cannot be applied deletes nothing, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_refused_deletes_nothing() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let kept = Ledger::new("kept", SERIES);
    write(&cluster, 0, &kept, Clock::now_millis() - 60_000).await?;
    let url = format!("{}/api/v1/admin/tsdb/delete_series", cluster.url(0));
    for form in [
        &[][..],
        &[("match[]", "{writer=\"kept\"}"), ("match[]", "{writer=")],
        &[("match[]", "{writer=\"kept\"}"), ("start", "never")],
    ] {
        let answer = cluster.client().post_form(&url, form).await?;
        ensure!(answer.status == 400, "{form:?}: {}", answer.text());
    }
    let found = samples(&cluster, 0, "kept").await?;
    ensure!(found == SERIES, "{found} samples are left");
    Ok(())
}

/// A request of Prometheus' administration, which succeeds.
async fn administer(cluster: &Cluster, what: &str, form: &[(&str, &str)]) -> anyhow::Result<()> {
    let url = format!("{}/prometheus/api/v1/admin/tsdb/{what}", cluster.url(0));
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
        check_node(cluster, node, SERIES).await?;
    }
    Ok(())
}

/// A node shows what the deletion did not select, and so many samples of what it selected.
async fn check_node(cluster: &Cluster, node: usize, gone: usize) -> anyhow::Result<()> {
    for (writer, expected) in [("gone", gone), ("kept", SERIES)] {
        let found = samples(cluster, node, writer).await?;
        ensure!(
            found == expected,
            "node {node} shows {found} samples of {writer}"
        );
    }
    let selector = "match[]=%7Bwriter%3D%22gone%22%7D";
    let url = format!("{}/api/v1/series?{selector}", cluster.url(node));
    let series = cluster.client().get(&url).await?.complete_data()?;
    let listed = series.as_array().context("series")?.len();
    let expected = if gone > 0 { SERIES } else { 0 };
    ensure!(listed == expected, "node {node} lists {series}");
    Ok(())
}

/// How many samples a node has in its head and in its blocks.
async fn stored_samples(cluster: &Cluster, node: usize) -> anyhow::Result<(usize, usize)> {
    let url = format!("{}/metrics", cluster.url(node));
    let answer = cluster.client().get(&url).await?;
    let text = String::from_utf8_lossy(&answer.body);
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        let value: Option<f64> = line.and_then(|value| value.parse().ok());
        anyhow::Ok(value.context("a gauge")? as usize)
    };
    Ok((
        value("trefoil_head_samples")?,
        value("trefoil_blocks_samples")?,
    ))
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
