//! How long metrics are kept is a fact of the cluster: not of a file, and not of whoever leads.

use anyhow::ensure;
use trefoil_jepsen::{Clock, Cluster, Exclusive, Ledger, ready_seconds_max};

const HOUR: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_changes_it_and_a_restart_does_not() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let hours = |document: &serde_json::Value| document["retention_hours"].as_u64();
    let begun = cluster.admin(0, "cluster").await?;
    ensure!(hours(&begun) == Some(15 * 24), "{begun}");
    let old = Clock::now_millis() - 101 * HOUR;
    let taken = write_at(&cluster, "before", old).await?;
    ensure!(taken == 204, "a sample inside the retention: {taken}");

    let asks = cluster.command(0, &["cluster", "retention", "100"])?;
    ensure!(!asks.status.success(), "data is removed without --yes");
    let kept = cluster.admin(0, "cluster").await?;
    ensure!(hours(&kept) == Some(15 * 24), "{kept}");
    let changed = cluster.command(0, &["cluster", "retention", "100", "--yes"])?;
    ensure!(
        changed.status.success(),
        "{}",
        String::from_utf8_lossy(&changed.stderr)
    );
    let refused = write_at(&cluster, "after", old).await?;
    ensure!(refused == 400, "a sample behind the retention: {refused}");

    cluster.stop(0)?;
    cluster.start_node(0)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let again = cluster.admin(0, "cluster").await?;
    ensure!(hours(&again) == Some(100), "{again}");
    let refused = write_at(&cluster, "again", old).await?;
    ensure!(refused == 400, "after the restart: {refused}");
    Ok(())
}

async fn write_at(cluster: &Cluster, writer: &str, at: i64) -> anyhow::Result<u16> {
    let body = Ledger::new(writer, 1).begin(at).body;
    let answer = cluster.client().remote_write(&cluster.url(0), body).await?;
    Ok(answer.status)
}
