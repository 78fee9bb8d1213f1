//! A cluster makes itself out of a seed list, and stops when it is asked to.

use crate::{EQUAL_WAIT_MAX, SETTLE, stations};
use anyhow::{Context, ensure};
use std::time::Duration;
use trefoil_jepsen::{
    Cluster, Exclusive, Load, LoadPlan, check_answers, ready_seconds_max, wait_until,
    wait_until_equal,
};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_with_one_seed_list_are_a_cluster_in_five_seconds() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    let took = cluster.wait_ready(ready_seconds_max()).await?;
    eprintln!("ready after {took:?}");
    let mut ids = Vec::new();
    for node in 0..3 {
        let document = cluster.admin(node, "cluster").await?;
        ensure!(
            document["nodes"]
                .as_array()
                .is_some_and(|nodes| nodes.len() == 3),
            "{document}"
        );
        ids.push(
            document["cluster_id"]
                .as_str()
                .context("a cluster id")?
                .to_owned(),
        );
    }
    ensure!(
        ids.iter().all(|id| *id == ids[0]),
        "several clusters: {ids:?}"
    );
    let status = cluster.command(1, &["cluster", "status", "--output", "json"])?;
    ensure!(
        status.status.success(),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
    serde_json::from_slice::<serde_json::Value>(&status.stdout)
        .context("JSON of cluster status")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_takes_and_answers_and_survives_sigkill() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut load = Load::start("alone", &stations(&cluster, &[0]), &LoadPlan::default());
    load.go_on(SETTLE).await;
    cluster.kill(0)?;
    load.stop().await?;
    cluster.start_node(0)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    load.check_honesty()?;
    check_answers(&cluster, &load.ledgers()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_stop_when_asked_and_come_back_with_everything() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut load = Load::start(
        "graceful",
        &stations(&cluster, &[0, 1, 2]),
        &LoadPlan::default(),
    );
    load.go_on(SETTLE).await;
    load.stop().await?;
    for node in 0..3 {
        cluster.stop(node)?;
    }
    // Alone it has nobody to tell that it is back, and stops as well.
    cluster.start_node(0)?;
    wait_serving(&cluster, 0).await?;
    cluster.stop(0)?;
    for node in 0..3 {
        cluster.start_node(node)?;
    }
    cluster.wait_ready(ready_seconds_max()).await?;
    load.check_honesty()?;
    check_answers(&cluster, &load.ledgers()).await?;
    wait_until_equal(&cluster, 0, EQUAL_WAIT_MAX).await?;
    Ok(())
}

/// Waits until the node says what it knows of its cluster, which it does without the others.
async fn wait_serving(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let most = Duration::from_secs(ready_seconds_max());
    let serving = wait_until("the node serves", most, || cluster.admin(node, "cluster"));
    serving.await.map(|_| ())
}
