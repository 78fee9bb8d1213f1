//! A cluster that lost two of its three nodes for good goes on with what the third one holds, as
//! `docs/lost-majority.md` says.

use crate::{SETTLE, Scenario, check_end, stations};
use anyhow::{Context, bail, ensure};
use std::{process::Output, time::Duration};
use trefoil_jepsen::{Cluster, Load, LoadPlan, check_answers, wait_until, wait_until_equal};

/// How long copies of little data to two new nodes may take, with the changes of owners around them.
const GROWN_WAIT_MAX: Duration = Duration::from_secs(90);
/// How long a node alone may take to be ready: its Raft group elects it at once.
const ALONE_SECONDS_MAX: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_recovered_from_the_last_of_three_nodes() -> anyhow::Result<()> {
    let mut run = Scenario::begin().await?;
    run.load.go_on(SETTLE).await;
    run.load.stop().await?;
    run.load.check_honesty()?;
    // Now the survivor has all that was acknowledged, so that all of it must come back.
    wait_until_equal(&run.cluster, 0, crate::EQUAL_WAIT_MAX).await?;
    for node in [1, 2] {
        run.cluster.kill(node)?;
        run.cluster.delete_data(node)?;
    }
    let refused = run.cluster.recover(0, &[])?;
    ensure!(!refused.status.success(), "recovered a running node");
    run.cluster.stop(0)?;

    let plan = success(&run.cluster.recover(0, &[])?)?;
    for expected in ["node-2, node-3", "256 of 256 shards", "Nothing was changed"] {
        ensure!(plan.contains(expected), "{expected:?} is not in:\n{plan}");
    }
    success(&run.cluster.recover(0, &["--yes"])?)?;
    run.cluster.start_node(0)?;
    run.cluster.wait_ready(ALONE_SECONDS_MAX).await?;
    check_answers(&run.cluster, &run.load.ledgers()).await?;
    let status = success(&run.cluster.command(0, &["cluster", "status"])?)?;
    ensure!(status.contains("Recovered"), "not recorded:\n{status}");

    run.cluster.add_node()?;
    run.cluster.add_node()?;
    wait_for_three_owners(&run.cluster).await?;
    run.cluster.wait_ready(ALONE_SECONDS_MAX).await?;
    let mut after = Load::start(
        "after",
        &stations(&run.cluster, &[0, 3, 4]),
        &LoadPlan::default(),
    );
    after.go_on(SETTLE).await;
    after.stop().await?;
    after.check_honesty()?;
    let ledgers = [run.load.ledgers(), after.ledgers()].concat();
    check_end(&run.cluster, &ledgers).await
}

/// What a command printed; an error with all of it when it failed.
fn success(output: &Output) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Waits until every shard has three owners, all of them serving, and none is changing.
async fn wait_for_three_owners(cluster: &Cluster) -> anyhow::Result<()> {
    let grown = wait_until("three owners of every shard", GROWN_WAIT_MAX, || async {
        let document = cluster.admin(0, "cluster").await?;
        let configurations = document["configurations"].as_array();
        for configuration in configurations.context("configurations")? {
            let replicas = configuration["replicas"].as_array().context("replicas")?;
            let serving = replicas
                .iter()
                .filter(|replica| replica["state"] == "serving");
            if serving.count() != 3 || configuration["old"] != configuration["new"] {
                bail!("{configuration}");
            }
        }
        Ok(())
    });
    grown.await?;
    Ok(())
}
