//! `trefoil cluster`: look at a cluster and change it, through any of its nodes.

use super::{Output, Target, table::Table};
use crate::http_client::HttpClient;
use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use std::{process::ExitCode, time::Duration};
use trefoil_api::admin;

/// What to do with the cluster.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCommand {
    /// Show nodes, leader and owners
    Status(StatusArgs),
    /// Move all replicas off a node
    Drain(NodeArgs),
    /// Take a node that is empty or gone for good out of the cluster
    Remove(NodeArgs),
    /// Compare the content of all replicas; exit code 3 when they differ
    Verify(StatusArgs),
    /// Make this stopped node the only voter of its cluster, after a majority was lost for good
    Recover(RecoverArgs),
}

/// What `status` and `verify` take.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    target: Target,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What `drain` and `remove` take.
#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// The node's name or id
    node: String,
    #[command(flatten)]
    target: Target,
}

/// What `recover` takes.
#[derive(Args, Debug)]
pub(crate) struct RecoverArgs {
    /// The data directory of the stopped node
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: std::path::PathBuf,
    /// Another node whose data is there; all that are not named are given up for good. Can be repeated
    #[arg(long, value_name = "NODE", conflicts_with = "forget_group")]
    pub(crate) survivor: Vec<String>,
    /// For the other survivors: forget vote and log, and come back as a learner
    #[arg(long)]
    pub(crate) forget_group: bool,
    /// Do it; without this, only say what would be lost
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Exit code of `verify` when replicas differ.
const EXIT_DIFFERENT: u8 = 3;

/// Runs the command; the code that the process ends with.
pub(crate) async fn run(command: ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Status(args) => status(&args).await.map(|()| ExitCode::SUCCESS),
        ClusterCommand::Verify(args) => verify(&args).await,
        ClusterCommand::Drain(args) => post(&args, "drain").await.map(|()| ExitCode::SUCCESS),
        ClusterCommand::Remove(args) => post(&args, "remove").await.map(|()| ExitCode::SUCCESS),
        ClusterCommand::Recover(args) => {
            crate::recover::run(&args).await.map(|()| ExitCode::SUCCESS)
        }
    }
}

async fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let document: serde_json::Value = fetch(&args.target, "cluster", 10).await?;
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(());
    }
    let cluster: admin::Cluster = serde_json::from_value(document)?;
    println!(
        "Cluster  {}",
        cluster.cluster_id.as_deref().unwrap_or("(has not begun)")
    );
    let leader = cluster.leader.as_deref().unwrap_or("(none)");
    println!(
        "Leader   {leader}, term {}, applied {}",
        cluster.term, cluster.applied_index
    );
    for recovery in &cluster.recoveries {
        println!(
            "Recovered from {} at Unix time {}; the voters were {}",
            recovery.node,
            recovery.at / 1000,
            recovery.voters_before.join(", ")
        );
    }
    println!();
    let mut nodes = Table::new(&[
        "NODE", "ZONE", "STATE", "PHASE", "ROLE", "SERVING", "FILLING", "SERIES", "BYTES", "HTTP",
        "PEER",
    ]);
    for node in &cluster.nodes {
        nodes.row([
            node.name.clone(),
            if node.zone.is_empty() {
                "-".to_owned()
            } else {
                node.zone.clone()
            },
            node.state.clone(),
            node.phase.clone(),
            node.role.clone(),
            node.replicas_serving.to_string(),
            node.replicas_filling.to_string(),
            node.series.to_string(),
            node.bytes.to_string(),
            node.http.clone(),
            node.peer.clone(),
        ]);
    }
    println!("{}", nodes.render());
    let mut shards = Table::new(&["SHARDS", "OWNERS", "CHANGING TO", "NOT SERVING"]);
    for group in &cluster.configurations {
        let waiting = group
            .replicas
            .iter()
            .filter(|replica| replica.state != "serving");
        let waiting: Vec<String> = waiting
            .map(|replica| format!("{} ({})", replica.node, replica.state))
            .collect();
        let changing = if group.old == group.new {
            "-".to_owned()
        } else {
            group.new.join(",")
        };
        let waiting = if waiting.is_empty() {
            "-".to_owned()
        } else {
            waiting.join(", ")
        };
        shards.row([
            ranges(&group.shards),
            group.old.join(","),
            changing,
            waiting,
        ]);
    }
    print!("{}", shards.render());
    Ok(())
}

async fn verify(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let document: serde_json::Value = fetch(&args.target, "digests", 150).await?;
    let digests: admin::Digests = serde_json::from_value(document.clone())?;
    let code = if digests.equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_DIFFERENT)
    };
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(code);
    }
    let mut totals = Table::new(&["NODE", "ITEMS", "DIGEST"]);
    for total in &digests.totals {
        totals.row([
            total.node.clone(),
            total.items.to_string(),
            total.digest.clone(),
        ]);
    }
    println!("{}", totals.render());
    for node in &digests.unreachable {
        println!("{} did not answer: {}", node.node, node.reason);
    }
    if digests.equal {
        println!(
            "All replicas of {} shard windows are equal.",
            digests.compared
        );
        return Ok(code);
    }
    let mut unequal = Table::new(&[
        "TENANT", "SIGNAL", "SHARD", "WINDOW", "NODE", "ITEMS", "DIGEST",
    ]);
    for window in &digests.unequal {
        for replica in &window.replicas {
            unequal.row([
                window.tenant.clone(),
                window.signal.clone(),
                window.shard.to_string(),
                window.start.to_string(),
                replica.node.clone(),
                replica.items.to_string(),
                replica.digest.clone(),
            ]);
        }
    }
    print!("{}", unequal.render());
    println!(
        "{} of {} shard windows differ.",
        digests.unequal.len(),
        digests.compared
    );
    Ok(code)
}

async fn post(args: &NodeArgs, action: &str) -> anyhow::Result<()> {
    let client = HttpClient::new(Duration::from_secs(15));
    let url = args
        .target
        .path(&format!("/trefoil/api/v1/cluster/{action}"));
    let body = serde_json::to_vec(&admin::NodeRequest {
        node: args.node.clone(),
    })?;
    let headers = [("content-type", "application/json")];
    let answer = client.post(&url, &headers, Bytes::from(body)).await?;
    let accepted: admin::Accepted = document(answer)?;
    println!("{}", accepted.message);
    Ok(())
}

async fn fetch<T: DeserializeOwned>(
    target: &Target,
    path: &str,
    seconds: u64,
) -> anyhow::Result<T> {
    let client = HttpClient::new(Duration::from_secs(seconds));
    document(
        client
            .get(&target.path(&format!("/trefoil/api/v1/{path}")))
            .await?,
    )
}

fn document<T: DeserializeOwned>(answer: crate::http_client::Answer) -> anyhow::Result<T> {
    if !answer.status.is_success() {
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        bail!(
            "{}: {}",
            answer.status,
            error["error"].as_str().unwrap_or(&answer.text())
        );
    }
    serde_json::from_slice(&answer.body).context("read the answer")
}

fn ranges(shards: &[(u16, u16)]) -> String {
    let range = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let ranges: Vec<String> = shards.iter().map(range).collect();
    if ranges.len() > 6 {
        let count: u32 = shards
            .iter()
            .map(|(first, last)| u32::from(last - first) + 1)
            .sum();
        return format!("{} ... ({count} shards)", ranges[..4].join(","));
    }
    ranges.join(",")
}
