//! `trefoil cluster`: look at a cluster and change it, through any of its nodes.

use super::{Output, Target, print, print_json, retention::RetentionArgs, table::Table};
use crate::http_client::{Answer, HttpClient};
use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use hyper::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use std::{process::ExitCode, time::Duration};
use trefoil_api::admin;

/// What to do with the cluster.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCommand {
    /// Show nodes, leader and owners
    Status(StatusArgs),
    /// Move all replicas off a node
    Drain(NodeArgs),
    /// Let a node that is being drained take replicas again
    Undrain(NodeArgs),
    /// Show or change how long metrics are kept: all, those of a tenant, or some series of a tenant
    Retention(RetentionArgs),
    /// Take a node that is empty or gone for good out of the cluster
    Remove(NodeArgs),
    /// Compare the content of all replicas; exit code 3 unless all are known to be equal
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

/// How long the cluster may take to record a change.
pub(super) const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
/// What a change that was answered with 503 may still come to.
const OPEN_END: &str =
    "It may have happened, or happen later when a majority is back: look before you try again";
/// Exit code of `verify` when replicas differ.
const EXIT_DIFFERENT: u8 = 3;

/// Runs the command; the code that the process ends with.
pub(crate) async fn run(command: ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Status(args) => status(&args).await.map(|()| ExitCode::SUCCESS),
        ClusterCommand::Verify(args) => verify(&args).await,
        ClusterCommand::Drain(args) => change_node(&args, "drain").await,
        ClusterCommand::Undrain(args) => change_node(&args, "undrain").await,
        ClusterCommand::Remove(args) => change_node(&args, "remove").await,
        ClusterCommand::Retention(args) => super::retention::run(&args).await,
        ClusterCommand::Recover(args) => {
            crate::recover::run(&args).await.map(|()| ExitCode::SUCCESS)
        }
    }
}

async fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let document: serde_json::Value = fetch(&args.target, "cluster", 10).await?;
    match args.output {
        Output::Json => print_json(&document),
        Output::Table => print(&status_text(&serde_json::from_value(document)?)),
    }
}

fn status_text(cluster: &admin::Cluster) -> String {
    let id = cluster.cluster_id.as_deref();
    let leader = cluster.leader.as_deref().unwrap_or("(none)");
    let kept = match cluster.retention_hours {
        Some(0) => "for ever".to_owned(),
        Some(hours) => format!("{hours} h"),
        None => "(not recorded yet)".to_owned(),
    };
    let mut text = format!(
        "Cluster  {}\nLeader   {leader}, term {}, applied {}\nKeeps    metrics {kept}\nFormats  level {}\n",
        id.unwrap_or("(has not begun)"),
        cluster.term,
        cluster.applied_index,
        cluster.format_level
    );
    for reason in &cluster.waiting {
        text += &format!("Waiting  {reason}\n");
    }
    for recovery in &cluster.recoveries {
        text += &format!(
            "Recovered from {} at Unix time {}; the voters were {}\n",
            recovery.node,
            recovery.at / 1000,
            recovery.voters_before.join(", ")
        );
    }
    let shards = shards_table(&cluster.configurations).render();
    text + "\n" + &nodes_table(&cluster.nodes).render() + "\n" + &shards
}

fn nodes_table(nodes: &[admin::Node]) -> Table {
    let mut table = Table::new(&[
        "NODE", "ZONE", "STATE", "PHASE", "ROLE", "SERVING", "FILLING", "SERIES", "BYTES", "HTTP",
        "PEER", "LEVEL",
    ]);
    for node in nodes {
        table.row([
            node.name.clone(),
            or_dash(node.zone.clone()),
            node.state.clone(),
            node.phase.clone(),
            node.role.clone(),
            node.replicas_serving.to_string(),
            node.replicas_filling.to_string(),
            node.series.to_string(),
            node.bytes.to_string(),
            node.http.clone(),
            node.peer.clone(),
            node.format_level_max.to_string(),
        ]);
    }
    table
}

fn shards_table(configurations: &[admin::Configuration]) -> Table {
    let mut table = Table::new(&["SHARDS", "OWNERS", "CHANGING TO", "NOT SERVING"]);
    for group in configurations {
        let replicas = group.replicas.iter();
        let waiting: Vec<String> = replicas
            .filter(|replica| replica.state != "serving")
            .map(|replica| format!("{} ({})", replica.node, replica.state))
            .collect();
        let changing = match group.old == group.new {
            true => String::new(),
            false => group.new.join(","),
        };
        table.row([
            ranges(&group.shards),
            group.old.join(","),
            or_dash(changing),
            or_dash(waiting.join(", ")),
        ]);
    }
    table
}

fn or_dash(text: String) -> String {
    match text.is_empty() {
        true => "-".to_owned(),
        false => text,
    }
}

async fn verify(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let document: serde_json::Value = fetch(&args.target, "digests", 150).await?;
    let digests: admin::Digests = serde_json::from_value(document.clone())?;
    match args.output {
        Output::Json => print_json(&document)?,
        Output::Table => print(&digests_text(&digests))?,
    }
    Ok(match digests.equal || is_empty(&digests) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DIFFERENT),
    })
}

/// Whether every owner has said that it holds nothing.
fn is_empty(digests: &admin::Digests) -> bool {
    digests.compared == 0 && digests.unreachable.is_empty()
}

fn digests_text(digests: &admin::Digests) -> String {
    let mut totals = Table::new(&["NODE", "ITEMS", "DIGEST"]);
    for total in &digests.totals {
        totals.row([
            total.node.clone(),
            total.items.to_string(),
            total.digest.clone(),
        ]);
    }
    let mut text = totals.render() + "\n";
    for node in &digests.unreachable {
        text += &format!("{} did not answer: {}\n", node.node, node.reason);
    }
    if is_empty(digests) {
        return text + "Nothing was compared: no owner holds anything.\n";
    }
    if digests.equal {
        let compared = digests.compared;
        return text + &format!("All replicas of {compared} shard windows are equal.\n");
    }
    if digests.unequal.is_empty() {
        let compared = digests.compared;
        return text
            + &format!(
                "Nothing differs in {compared} shard windows, but not every owner has answered.\n"
            );
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
    let differ = digests.unequal.len();
    text + &unequal.render() + &format!("{differ} of {} shard windows differ.\n", digests.compared)
}

async fn change_node(args: &NodeArgs, action: &str) -> anyhow::Result<ExitCode> {
    let wanted = admin::NodeRequest {
        node: args.node.clone(),
    };
    let path = format!("cluster/{action}");
    post(&args.target, &path, &wanted, CHANGE_TIMEOUT).await
}

/// Sends a document to the administration API and prints what it accepted.
///
/// # Errors
/// When no answer comes in time, or it is a refusal.
pub(super) async fn post(
    target: &Target,
    path: &str,
    wanted: &impl Serialize,
    timeout: Duration,
) -> anyhow::Result<ExitCode> {
    let answer = send(target, path, wanted, timeout).await?;
    let is_open = answer.status == StatusCode::SERVICE_UNAVAILABLE;
    let accepted: admin::Accepted = match document(answer) {
        Err(error) if is_open => bail!("{error:#}\n{OPEN_END}"),
        read => read?,
    };
    print(&format!("{}\n", accepted.message))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends a document to the administration API; any status is an answer.
///
/// # Errors
/// When no answer comes in time.
pub(super) async fn send(
    target: &Target,
    path: &str,
    wanted: &impl Serialize,
    timeout: Duration,
) -> anyhow::Result<Answer> {
    let client = HttpClient::new(timeout);
    let url = target.path(&format!("/trefoil/api/v1/{path}"));
    let body = serde_json::to_vec(wanted)?;
    let headers = [("content-type", "application/json")];
    client.post(&url, &headers, Bytes::from(body)).await
}

pub(super) async fn fetch<T: DeserializeOwned>(
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

/// Why a request was refused.
pub(super) fn reason(answer: &Answer) -> String {
    let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let reason = error["error"].as_str();
    reason.map_or_else(|| answer.text(), str::to_owned)
}

/// Reads an answer.
///
/// # Errors
/// When it is a refusal, or not such a document.
pub(super) fn document<T: DeserializeOwned>(answer: Answer) -> anyhow::Result<T> {
    if !answer.status.is_success() {
        bail!("{}: {}", answer.status, reason(&answer));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_what_movements_wait_for_and_which_formats_programs_read() {
        let cluster = admin::Cluster {
            format_level: 6,
            waiting: vec!["n3 has no space for more shards".to_owned()],
            nodes: vec![admin::Node {
                name: "n1".to_owned(),
                peer: "a:1".to_owned(),
                format_level_max: 7,
                ..admin::Node::default()
            }],
            ..admin::Cluster::default()
        };
        let text = status_text(&cluster);
        assert!(text.contains("\nFormats  level 6\n"), "{text}");
        assert!(
            text.contains("\nWaiting  n3 has no space for more shards\n"),
            "{text}"
        );
        let node = text.lines().find(|line| line.starts_with("n1"));
        assert_eq!(
            node.and_then(|line| line.split_whitespace().last()),
            Some("7")
        );
    }
}
