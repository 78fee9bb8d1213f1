//! How long metrics are kept is a fact of the cluster: not of a file, and not of whoever leads.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::Duration;
use trefoil_jepsen::{
    Clock, Cluster, Exclusive, Ledger, ready_seconds_max, wait_until, wait_until_equal,
};

const HOUR: i64 = 3_600_000;
/// How long the leader may take to advance a cut-off, and the others to hear of it.
const HELD_WAIT_MAX: Duration = Duration::from_secs(20);

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

/// A rule hides series of one tenant on all nodes, and a restart does not bring them back.
#[tokio::test(flavor = "multi_thread")]
async fn series_of_a_selector_are_kept_for_a_shorter_time() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let now = Clock::now_millis();
    for writer in ["debug", "web"] {
        for hours in [30, 1] {
            let taken = write_at(&cluster, writer, now - hours * HOUR).await?;
            ensure!(taken == 204, "{writer}: {taken}");
        }
    }
    let rule = [
        "cluster",
        "retention",
        "24",
        "--tenant",
        "anonymous",
        "--selector",
        "{writer=\"debug\"}",
    ];
    let asks = cluster.command(0, &rule)?;
    ensure!(!asks.status.success(), "data is removed without --yes");
    let changed = cluster.command(0, &[&rule[..], &["--yes"]].concat())?;
    let error = String::from_utf8_lossy(&changed.stderr).into_owned();
    ensure!(changed.status.success(), "{error}");
    let shown = cluster.command(1, &["cluster", "retention"])?;
    let table = String::from_utf8_lossy(&shown.stdout).into_owned();
    let row = table.lines().find(|line| line.contains(rule[6]));
    ensure!(row.is_some_and(|row| row.contains("24 h")), "{table}");

    for node in 0..3 {
        wait_until("the rule holds", HELD_WAIT_MAX, || {
            check_kept(&cluster, node)
        })
        .await?;
    }
    cluster.kill(2)?;
    cluster.start_node(2)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    check_kept(&cluster, 2).await?;
    wait_until_equal(&cluster, 0, HELD_WAIT_MAX).await?;
    let unset = cluster.command(1, &[&rule[..2], &["--unset"], &rule[3..]].concat())?;
    ensure!(unset.status.success(), "the rule is removed");
    check_kept(&cluster, 1).await
}

/// A node shows both samples of one writer, and only the new one of the other.
async fn check_kept(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let counted = cluster
        .instant(
            node,
            "sum by (writer) (count_over_time({writer=~\".+\"}[3d]))",
        )
        .await?;
    let mut found: Vec<(String, String)> = Vec::new();
    for series in counted.as_array().context("series")? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        found.push((text(&series["metric"]["writer"]), text(&series["value"][1])));
    }
    found.sort();
    let expected = [("debug", "1"), ("web", "2")];
    let expected = expected.map(|(writer, count)| (writer.to_owned(), count.to_owned()));
    ensure!(found == expected, "node {node} shows {counted}");
    Ok(())
}

async fn write_at(cluster: &Cluster, writer: &str, at: i64) -> anyhow::Result<u16> {
    let body = Ledger::new(writer, 1).begin(at).body;
    let answer = cluster.client().remote_write(&cluster.url(0), body).await?;
    Ok(answer.status)
}
