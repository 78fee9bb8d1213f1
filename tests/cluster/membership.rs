//! Nodes that join, are drained, and lose their disks, under load.

use crate::{SETTLE, Scenario};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use trefoil_jepsen::{Cluster, wait_until};

/// How long a movement of little data may take.
const MOVED_WAIT_MAX: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_node_takes_its_share_and_another_is_drained() -> anyhow::Result<()> {
    let mut run = Scenario::under_load().await?;
    run.load.go_on(SETTLE).await;

    let begun = Instant::now();
    let fourth = run.cluster.add_node()?;
    let share = replicas_when(&run.cluster, fourth, "a quarter has moved", |count, all| {
        (all * 23 / 100..=all * 27 / 100).contains(&count)
    });
    eprintln!("the fourth node has {} replicas", share.await?);
    run.load.go_on(SETTLE).await;
    run.load
        .check_windows(&[0, 1, 2], (begun, Instant::now()), Duration::ZERO)?;

    let begun = Instant::now();
    let name = run.cluster.nodes()[1].name.clone();
    let drain = run.cluster.command(0, &["cluster", "drain", &name])?;
    ensure!(
        drain.status.success(),
        "{}",
        String::from_utf8_lossy(&drain.stderr)
    );
    replicas_when(&run.cluster, 1, "the node is empty", |count, _| count == 0).await?;
    run.load.go_on(SETTLE).await;
    run.load
        .check_windows(&[0, 2], (begun, Instant::now()), Duration::ZERO)?;
    run.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_data_is_filled_again() -> anyhow::Result<()> {
    let mut run = Scenario::under_load().await?;
    run.load.go_on(SETTLE).await;
    run.cluster.kill(1)?;
    run.cluster.delete_data(1)?;
    run.cluster.start_node(1)?;
    // Ready is a node only when it has all that its predecessor had.
    let took = run.cluster.wait_ready(MOVED_WAIT_MAX.as_secs()).await?;
    eprintln!("filled after {took:?}");
    let owned = replicas_when(&run.cluster, 1, "a third of all replicas", |count, all| {
        count * 3 == all
    });
    owned.await?;
    run.load.go_on(SETTLE).await;
    run.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_gone_before_the_others_started_is_drained() -> anyhow::Result<()> {
    let mut run = Scenario::begin().await?;
    let fourth = run.cluster.add_node()?;
    let share = replicas_when(&run.cluster, fourth, "it has some", |count, _| count > 0);
    share.await?;
    run.load.go_on(SETTLE).await;
    run.load.stop().await?;
    for node in 0..4 {
        run.cluster.kill(node)?;
    }
    for node in 0..3 {
        run.cluster.start_node(node)?;
    }
    run.cluster.wait_ready(MOVED_WAIT_MAX.as_secs()).await?;
    let name = run.cluster.nodes()[fourth].name.clone();
    for action in ["drain", "remove"] {
        let done = wait_until(action, MOVED_WAIT_MAX, || async {
            let output = run.cluster.command(0, &["cluster", action, &name])?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(())
        });
        done.await?;
    }
    run.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_leader_that_is_removed_while_it_runs_stops_and_stays_out() -> anyhow::Result<()> {
    let mut run = Scenario::begin().await?;
    let fourth = run.cluster.add_node()?;
    replicas_when(&run.cluster, fourth, "it has some", |count, _| count > 0).await?;
    run.load.go_on(SETTLE).await;

    let document = run.cluster.admin(0, "cluster").await?;
    let name = document["leader"].as_str().context("a leader")?.to_owned();
    let nodes = run.cluster.nodes();
    let is_leader = |node: &usize| nodes[*node].name == name;
    let leader = (0..nodes.len()).find(is_leader).context("its number")?;
    let other = (leader + 1) % nodes.len();
    for action in ["drain", "remove"] {
        let done = run.cluster.command(other, &["cluster", action, &name])?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{action}: {said}");
        if action == "drain" {
            replicas_when(&run.cluster, leader, "it is empty", |count, _| count == 0).await?;
        }
    }
    ends_as_removed(&mut run.cluster, leader).await?;
    run.cluster.start_node(leader)?;
    ends_as_removed(&mut run.cluster, leader).await?;
    run.load.go_on(SETTLE).await;
    run.finish().await
}

/// Waits until a node has ended because it was removed.
async fn ends_as_removed(cluster: &mut Cluster, node: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = cluster.ended(node)? {
            break status;
        }
        ensure!(begun.elapsed() < MOVED_WAIT_MAX, "the node runs on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    eprintln!("ended after {:?}", begun.elapsed());
    let log = cluster.nodes()[node].log()?;
    let last = log.lines().next_back().unwrap_or_default();
    ensure!(
        status.code() == Some(1) && last.contains("was removed from"),
        "{status}: {last}"
    );
    Ok(())
}

/// Waits until the number of serving replicas on a node, of all serving replicas, is as wanted, and
/// no configuration is joint; that number.
async fn replicas_when(
    cluster: &Cluster,
    node: usize,
    what: &str,
    wanted: impl Fn(u64, u64) -> bool,
) -> anyhow::Result<u64> {
    let name = &cluster.nodes()[node].name;
    let reached = wait_until(what, MOVED_WAIT_MAX, || async {
        let document = cluster.admin(0, "cluster").await?;
        let configurations = document["configurations"]
            .as_array()
            .context("configurations")?;
        if configurations.iter().any(is_changing) {
            bail!("owners are changing: {}", document["configurations"]);
        }
        let (count, all) = serving_replicas(&document, name).context("nodes")?;
        if !wanted(count, all) {
            bail!("{name} has {count} of {all} replicas");
        }
        Ok(count)
    });
    Ok(reached.await?.0)
}

/// Whether a group of shards is between two sets of owners.
fn is_changing(configuration: &Value) -> bool {
    let owners = |field: &str| configuration[field].as_array().cloned().unwrap_or_default();
    let new = owners("new");
    !new.is_empty() && new != owners("old")
}

fn serving_replicas(document: &Value, name: &str) -> Option<(u64, u64)> {
    let (mut own, mut all) = (0, 0);
    for node in document["nodes"].as_array()? {
        let count = node["replicas_serving"].as_u64()?;
        all += count;
        if node["name"] == name {
            own += count;
        }
    }
    Some((own, all))
}
