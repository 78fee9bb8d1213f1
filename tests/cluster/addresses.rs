//! Restarts with new addresses, and with each other's: identity is in the data, not in the address.

use crate::{check_end, seconds, stations};
use trefoil_tests::{Cluster, Exclusive, Load, LoadPlan, ready_seconds_max};

/// Peers must first notice that an old address no longer answers.
const MOVED_READY_SECONDS_MAX: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_back_at_new_addresses() -> anyhow::Result<()> {
    if !crate::unsettled_wanted() {
        return Ok(());
    }
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut before = Load::start(
        "before",
        &stations(&cluster, &[0, 1, 2]),
        &LoadPlan::default(),
    );
    before.go_on(seconds(2, 5)).await;
    before.stop().await?;

    // One node moves while the others stay, whose seed list names its old address.
    cluster.stop(1)?;
    cluster.readdress(1)?;
    cluster.start_node(1)?;
    cluster.wait_ready(MOVED_READY_SECONDS_MAX).await?;

    // All move at once; the new seed list names the new addresses, the data only the old ones.
    for node in 0..3 {
        cluster.stop(node)?;
        cluster.readdress(node)?;
    }
    cluster.reseed();
    for node in 0..3 {
        cluster.start_node(node)?;
    }
    cluster.wait_ready(MOVED_READY_SECONDS_MAX).await?;
    check_after(&cluster, before).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_come_back_at_each_others_address() -> anyhow::Result<()> {
    if !crate::unsettled_wanted() {
        return Ok(());
    }
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut before = Load::start(
        "before",
        &stations(&cluster, &[0, 1, 2]),
        &LoadPlan::default(),
    );
    before.go_on(seconds(2, 5)).await;
    before.stop().await?;
    cluster.kill(0)?;
    cluster.kill(1)?;
    cluster.swap_addresses(0, 1);
    cluster.start_node(0)?;
    cluster.start_node(1)?;
    cluster.wait_ready(MOVED_READY_SECONDS_MAX).await?;
    check_after(&cluster, before).await
}

/// New samples are taken at all nodes, and the old ones are still there.
async fn check_after(cluster: &Cluster, before: Load) -> anyhow::Result<()> {
    let mut after = Load::start(
        "after",
        &stations(cluster, &[0, 1, 2]),
        &LoadPlan::default(),
    );
    after.go_on(seconds(2, 5)).await;
    after.stop().await?;
    before.check_honesty()?;
    after.check_honesty()?;
    let ledgers = [before.ledgers(), after.ledgers()].concat();
    check_end(cluster, &ledgers).await
}
