//! Scenarios of the whole product: real processes, real disks, real signals.
//!
//! Every scenario ends with the same questions: is every acknowledged sample in every running node's
//! answer, is there none that was never sent, are all replicas equal? Times are shortened by default;
//! `TREFOIL_LONG_TESTS=1` gives the full ones. Scenarios run one at a time.

mod addresses;
mod background;
mod bad_input;
mod command_line;
mod damage;
mod demo;
mod faults;
mod full_disk;
mod large_request;
mod membership;
mod peers;
mod recovery;
mod start;

use std::{sync::Arc, time::Duration};
use trefoil_tests::{
    Cluster, Exclusive, Ledger, Load, LoadPlan, check_answers, long_tests, ready_seconds_max,
    wait_until_equal,
};

/// After rest, replicas must be equal within this time (D3).
const EQUAL_WAIT_MAX: Duration = Duration::from_secs(10);

/// The short form of a time, or with `TREFOIL_LONG_TESTS=1` the full one.
fn seconds(short: u64, full: u64) -> Duration {
    Duration::from_secs(if long_tests() { full } else { short })
}

/// Most scenarios: three nodes alone on the machine, all of them under a steady load.
struct Scenario {
    cluster: Cluster,
    load: Load,
    _alone: Exclusive,
}

impl Scenario {
    async fn begin() -> anyhow::Result<Self> {
        let alone = Exclusive::take()?;
        let mut cluster = Cluster::start(3)?;
        cluster.wait_ready(ready_seconds_max()).await?;
        let load = Load::start(
            "load",
            &stations(&cluster, &[0, 1, 2]),
            &LoadPlan::default(),
        );
        Ok(Self {
            cluster,
            load,
            _alone: alone,
        })
    }

    /// Ends the load and asks the questions that every scenario ends with.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.load.stop().await?;
        self.load.check_honesty()?;
        check_end(&self.cluster, &self.load.ledgers()).await
    }
}

/// The questions at the end of every scenario.
async fn check_end(cluster: &Cluster, ledgers: &[Arc<Ledger>]) -> anyhow::Result<()> {
    check_answers(cluster, ledgers).await?;
    let running = cluster.nodes().iter().position(|node| node.is_running());
    wait_until_equal(cluster, running.unwrap_or(0), EQUAL_WAIT_MAX).await?;
    Ok(())
}

/// (number, base URL) of the named nodes, as loads want them.
fn stations(cluster: &Cluster, nodes: &[usize]) -> Vec<(usize, String)> {
    nodes
        .iter()
        .map(|node| (*node, cluster.url(*node)))
        .collect()
}
