//! Faults while members come and go: joins, drains and replacements, each with a disturbance in its middle.
//!
//! Each leaves the cluster as it was: the spare host is empty again, and the first ones are its members.

use super::{Fleet, Kind, Step, fleet::RECOVERY_MAX, strike::Struck};
use anyhow::Context;
use rand::RngExt;
use tokio::time::sleep;

pub(super) async fn strike(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    let node = step.dice().random_range(0..fleet.nodes());
    let outcome = match step.kind {
        Kind::Replace => replace(fleet, step, node).await,
        _ => join_and_drain(fleet, step, node).await,
    };
    let details = match &outcome {
        Ok(details) => details.clone(),
        // The nodes did not do in time what they were asked. The history says so; the run goes on with what is.
        Err(error) => format!("not finished: {error:#}"),
    };
    let struck = u64::from(outcome.is_ok());
    empty_spare(fleet).await?;
    Ok(Struck {
        nodes: vec![node],
        details,
        struck,
    })
}

/// The spare node joins and is drained again; another node is killed in the middle of the one, or paused in the middle
/// of the other.
async fn join_and_drain(fleet: &mut Fleet, step: &Step, node: usize) -> anyhow::Result<String> {
    let spare = fleet.spare();
    fleet.start_node(spare)?;
    let pause = step.lasts() / 4;
    if step.kind == Kind::Join {
        sleep(pause).await;
        fleet.host(node).kill()?;
        sleep(pause).await;
        fleet.start_node(node)?;
    }
    fleet.wait_owner(spare, true).await?;
    fleet.administer("drain", spare).await?;
    if step.kind == Kind::Drain {
        sleep(pause / 4).await;
        fleet.host(node).pause()?;
        sleep(pause).await;
        fleet.host(node).resume()?;
    }
    fleet.wait_owner(spare, false).await?;
    fleet.administer("remove", spare).await?;
    Ok(match step.kind {
        Kind::Join => format!("a node joined while node {} was killed", node + 1),
        _ => format!("a node was drained while node {} was paused", node + 1),
    })
}

/// A node dies for good; the spare one takes its place; then it comes back empty, as a new one, and the spare one goes.
async fn replace(fleet: &mut Fleet, step: &Step, node: usize) -> anyhow::Result<String> {
    let spare = fleet.spare();
    fleet.start_node(spare)?;
    fleet.wait_owner(spare, true).await?;
    fleet.host(node).kill()?;
    fleet.host(node).delete_data()?;
    sleep(step.lasts() / 4).await;
    fleet.start_node(node)?;
    fleet.wait_ready(RECOVERY_MAX).await?;
    fleet.wait_owner(node, true).await?;
    fleet.administer("drain", spare).await?;
    fleet.wait_owner(spare, false).await?;
    fleet.administer("remove", spare).await?;
    Ok(format!(
        "node {} died for good and came back as a new one",
        node + 1
    ))
}

/// Ends the node on the spare host and forgets its data, whatever it has come to.
async fn empty_spare(fleet: &mut Fleet) -> anyhow::Result<()> {
    let spare = fleet.spare();
    // It may have ended by itself: it was removed.
    if fleet.host(spare).is_running() {
        fleet.host(spare).kill()?;
    }
    if fleet.host(spare).data().exists() {
        fleet
            .host(spare)
            .delete_data()
            .context("empty the spare host")?;
    }
    Ok(())
}
