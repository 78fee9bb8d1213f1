//! Scenarios of the whole product: real processes, real disks, real signals.
//!
//! Every scenario ends with the same questions: is every acknowledged sample in every running node's
//! answer, is there none that was never sent, are all replicas equal? Scenarios run one at a time.

mod addresses;
mod answers;
mod bad_input;
mod client_libraries;
mod command_line;
mod damage;
mod deletion;
mod deltas;
mod demo;
mod differential;
mod down_sampling;
mod faults;
mod full_disk;
mod given_up;
mod histograms;
mod imports;
mod kept_answers;
mod large_request;
mod membership;
mod pairs;
mod partial;
mod peers;
mod query_api;
mod recovery;
mod relay;
mod retention;
mod snapshots;
mod start;
mod tenant_limits;

use std::{sync::Arc, time::Duration};
use trefoil_jepsen::{
    Cluster, Exclusive, Ledger, Load, LoadPlan, Node, check_answers, measure_capacity,
    ready_seconds_max, wait_until_equal,
};

/// After rest, replicas must be equal within this time (D3).
const EQUAL_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(20);
/// How long a load goes on before the first fault and after each.
const SETTLE: Duration = Duration::from_secs(5);

/// A quota that leaves the load generator some of two cores.
const CORES_PER_NODE: f64 = 0.6;
/// The share of the measured capacity that the load of a scenario of faults takes.
const LOAD_SHARE: f64 = 0.2;

/// Most scenarios: three nodes alone on the machine, all of them under a steady load.
struct Scenario {
    cluster: Cluster,
    load: Load,
    _alone: Exclusive,
}

impl Scenario {
    /// Under a small load, where the load is not what matters.
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

    /// Each node with a quota where the machine allows one, under a fifth of what the three of them
    /// are measured to take at the begin.
    async fn under_load() -> anyhow::Result<Self> {
        let alone = Exclusive::take()?;
        let mut cluster = Cluster::start_with(3, Some(CORES_PER_NODE))?;
        cluster.wait_ready(ready_seconds_max()).await?;
        let nodes = stations(&cluster, &[0, 1, 2]);
        let capacity = measure_capacity(&nodes, &LoadPlan::heavy()).await?;
        let rate = capacity * LOAD_SHARE;
        let limited = cluster.nodes().iter().all(Node::has_quota);
        eprintln!("capacity {capacity:.0} samples/s, load {rate:.0} samples/s, quotas: {limited}");
        let plan = LoadPlan::heavy().at_rate(nodes.len(), rate);
        let load = Load::start("load", &nodes, &plan);
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
    // Equality first: queries bring replicas up to date themselves.
    let running = cluster.nodes().iter().position(|node| node.is_running());
    wait_until_equal(cluster, running.unwrap_or(0), EQUAL_WAIT_MAX).await?;
    check_answers(cluster, ledgers).await
}

/// (number, base URL) of the named nodes, as loads want them.
fn stations(cluster: &Cluster, nodes: &[usize]) -> Vec<(usize, String)> {
    nodes
        .iter()
        .map(|node| (*node, cluster.url(*node)))
        .collect()
}
