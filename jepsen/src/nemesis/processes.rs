//! Faults of processes: killed, paused, restarted, moved to another address.

use super::{Fleet, Kind, Step, fleet::RECOVERY_MAX, strike::Struck};
use rand::RngExt;
use std::time::Instant;
use tokio::time::sleep;

pub(super) async fn strike(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    let node = step.dice().random_range(0..fleet.nodes());
    match step.kind {
        Kind::KillAll => kill_all(fleet, step).await,
        Kind::Pause => pause(fleet, step, node).await,
        Kind::RestartLoop => restart_loop(fleet, step, node).await,
        Kind::RollingRestart => rolling_restart(fleet).await,
        Kind::AddressChange => {
            fleet.host(node).kill()?;
            sleep(step.lasts()).await;
            tokio::task::block_in_place(|| fleet.site_mut().readdress(node))?;
            fleet.start_node(node)?;
            let now = fleet.site().host(node).advertised;
            Ok(struck(vec![node], 1, format!("came back at {now}")))
        }
        _ => {
            fleet.host(node).kill()?;
            sleep(step.lasts()).await;
            fleet.start_node(node)?;
            Ok(struck(vec![node], 1, "SIGKILL".to_owned()))
        }
    }
}

fn struck(nodes: Vec<usize>, struck: u64, details: String) -> Struck {
    Struck {
        nodes,
        details,
        struck,
    }
}

async fn kill_all(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    let nodes: Vec<usize> = (0..fleet.nodes()).collect();
    for &node in &nodes {
        fleet.host(node).kill()?;
    }
    // Short: nobody answers meanwhile.
    sleep(step.lasts() / 4).await;
    for &node in &nodes {
        fleet.start_node(node)?;
    }
    let count = nodes.len() as u64;
    Ok(struck(nodes, count, "SIGKILL of all".to_owned()))
}

async fn pause(fleet: &mut Fleet, step: &Step, node: usize) -> anyhow::Result<Struck> {
    fleet.host(node).pause()?;
    sleep(step.lasts()).await;
    fleet.host(node).resume()?;
    Ok(struck(vec![node], 1, "SIGSTOP".to_owned()))
}

async fn restart_loop(fleet: &mut Fleet, step: &Step, node: usize) -> anyhow::Result<Struck> {
    let mut dice = step.dice();
    let (begun, mut times) = (Instant::now(), 0);
    while begun.elapsed() < step.lasts() {
        fleet.host(node).kill()?;
        times += 1;
        fleet.start_node(node)?;
        // At every stage of a start: before it listens, while it replays, when it has just become ready.
        sleep(step.lasts() * dice.random_range(5..30) / 100).await;
    }
    Ok(struck(vec![node], times, format!("SIGKILL {times} times")))
}

async fn rolling_restart(fleet: &mut Fleet) -> anyhow::Result<Struck> {
    let nodes: Vec<usize> = (0..fleet.nodes()).collect();
    let mut failed = Vec::new();
    for &node in &nodes {
        let status = fleet.host(node).stop()?;
        if !status.success() {
            failed.push(format!("node {} ended with {status}", node + 1));
        }
        fleet.start_node(node)?;
        if let Err(error) = fleet.wait_ready(RECOVERY_MAX).await {
            failed.push(format!("{error:#}"));
        }
    }
    let details = match failed.is_empty() {
        true => "SIGTERM and start, one by one".to_owned(),
        false => failed.join("; "),
    };
    let count = nodes.len() as u64;
    Ok(struck(nodes, count, details))
}
