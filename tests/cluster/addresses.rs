//! Restarts with new addresses, and with each other's: identity is in the data, not in the address.

use crate::{SETTLE, Scenario, check_end, stations};
use trefoil_jepsen::{Load, LoadPlan};

/// Peers must first notice that an old address no longer answers.
const MOVED_READY_SECONDS_MAX: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_back_at_new_addresses() -> anyhow::Result<()> {
    let mut run = rested().await?;
    // They move one by one. In the end the seed list, which stays the same, leads to none of them, and the last one
    // finds the others where its own data says that they were.
    for node in [1, 2, 0] {
        run.cluster.stop(node)?;
        run.cluster.readdress(node)?;
        run.cluster.start_node(node)?;
        run.cluster.wait_ready(MOVED_READY_SECONDS_MAX).await?;
    }

    // All move at once; the new seed list names the new addresses, the data only the old ones.
    for node in 0..3 {
        run.cluster.stop(node)?;
        run.cluster.readdress(node)?;
    }
    run.cluster.reseed();
    for node in 0..3 {
        run.cluster.start_node(node)?;
    }
    run.cluster.wait_ready(MOVED_READY_SECONDS_MAX).await?;
    check_after(run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_come_back_at_each_others_address() -> anyhow::Result<()> {
    let mut run = rested().await?;
    run.cluster.kill(0)?;
    run.cluster.kill(1)?;
    run.cluster.swap_addresses(0, 1);
    run.cluster.start_node(0)?;
    run.cluster.start_node(1)?;
    run.cluster.wait_ready(MOVED_READY_SECONDS_MAX).await?;
    check_after(run).await
}

/// A cluster whose load has ended.
async fn rested() -> anyhow::Result<Scenario> {
    let mut run = Scenario::begin().await?;
    run.load.go_on(SETTLE).await;
    run.load.stop().await?;
    Ok(run)
}

/// New samples are taken at all nodes, and the old ones are still there.
async fn check_after(run: Scenario) -> anyhow::Result<()> {
    let nodes = stations(&run.cluster, &[0, 1, 2]);
    let mut after = Load::start("after", &nodes, &LoadPlan::default());
    after.go_on(SETTLE).await;
    after.stop().await?;
    run.load.check_honesty()?;
    after.check_honesty()?;
    let ledgers = [run.load.ledgers(), after.ledgers()].concat();
    check_end(&run.cluster, &ledgers).await
}
