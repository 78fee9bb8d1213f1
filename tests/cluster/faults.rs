//! Nodes that are killed, paused and restarted under a steady load.

use crate::{FAULT, SETTLE, Scenario};
use std::time::{Duration, Instant};
use trefoil_jepsen::{check_answers, ready_seconds_max};

/// No request may fail for longer than this at a node that nothing happened to.
const ERROR_WINDOW_MAX: Duration = Duration::from_secs(1);
/// How long a loaded node with a quota may take to be ready again.
const LOADED_READY_SECONDS_MAX: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_and_a_paused_node_cost_nothing() -> anyhow::Result<()> {
    let mut run = Scenario::under_load().await?;
    run.load.go_on(SETTLE).await;

    let killed = Instant::now();
    run.cluster.kill(1)?;
    run.load.go_on(FAULT).await;
    run.cluster.start_node(1)?;
    let took = run.cluster.wait_ready(LOADED_READY_SECONDS_MAX).await?;
    eprintln!("ready after {took:.1?}");
    run.load.go_on(SETTLE).await;
    let paused = Instant::now();
    run.load
        .check_windows(&[0, 2], (killed, paused), ERROR_WINDOW_MAX)?;

    run.cluster.pause(2)?;
    run.load.go_on(FAULT).await;
    run.cluster.resume(2)?;
    run.load.go_on(SETTLE).await;
    run.load
        .check_windows(&[0, 1], (paused, Instant::now()), ERROR_WINDOW_MAX)?;
    run.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_dead_for_good_and_another_restarted() -> anyhow::Result<()> {
    let mut run = Scenario::under_load().await?;
    run.load.go_on(SETTLE).await;
    let killed = Instant::now();
    run.cluster.kill(1)?;
    run.load.go_on(FAULT).await;
    run.load
        .check_windows(&[0, 2], (killed, Instant::now()), ERROR_WINDOW_MAX)?;

    // With one node dead, the restart of a second leaves no majority: errors are right, loss is not.
    run.cluster.kill(0)?;
    run.cluster.start_node(0)?;
    run.cluster.wait_ready(ready_seconds_max()).await?;
    let back = Instant::now();
    run.load.go_on(SETTLE).await;
    run.load
        .check_windows(&[0, 2], (back, Instant::now()), ERROR_WINDOW_MAX)?;
    run.load.stop().await?;
    run.load.check_honesty()?;
    check_answers(&run.cluster, &run.load.ledgers()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_bring_everything_back() -> anyhow::Result<()> {
    let mut run = Scenario::under_load().await?;
    run.load.go_on(SETTLE * 4).await;
    for node in 0..3 {
        run.cluster.kill(node)?;
    }
    for node in 0..3 {
        run.cluster.start_node(node)?;
    }
    let took = run.cluster.wait_ready(ready_seconds_max()).await?;
    eprintln!("ready after {took:?}");
    run.load.go_on(SETTLE).await;
    run.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_two_of_three_nodes_have_everything() -> anyhow::Result<()> {
    let mut run = Scenario::under_load().await?;
    run.load.go_on(SETTLE).await;
    for node in 0..3 {
        run.cluster.kill(node)?;
    }
    run.load.stop().await?;
    for node in [0, 2] {
        run.cluster.start_node(node)?;
    }
    run.cluster.wait_ready(LOADED_READY_SECONDS_MAX).await?;
    run.load.check_honesty()?;
    check_answers(&run.cluster, &run.load.ledgers()).await
}
