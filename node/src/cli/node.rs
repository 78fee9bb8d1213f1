//! `trefoil node`: what concerns the one node that is asked, wherever the rest of the cluster is.

use super::{Target, cluster, print};
use crate::http_client::HttpClient;
use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::StatusCode;
use std::{process::ExitCode, time::Duration};
use trefoil_api::{
    READY_PATH,
    admin::{Accepted, PrepareStopRequest},
};

/// How long a node may take to say whether it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the node may wait its answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(30);

/// What to tell the node.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Say whether the node is ready; exit code 1 when it is not
    Ready(Target),
    /// Make ready to stop: wait until the other owners can go on alone, then send clients elsewhere; exit code 3 when
    /// shards would lose their majority
    PrepareStop(PrepareStopArgs),
}

/// What `prepare-stop` takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PrepareStopArgs {
    /// Seconds to wait for other owners that are away, being filled or stopping too; then it ends with exit code 3
    #[arg(long, value_name = "SECONDS", default_value_t = PREPARE_STOP_WAIT_SECONDS, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// A node that was stopped is back within seconds; a minute leaves room for the replay of a full journal.
pub(crate) const PREPARE_STOP_WAIT_SECONDS: u64 = 60;

/// What `prepare-stop` ends with when shards would lose their majority by the stop.
const WOULD_LOSE_MAJORITY: u8 = 3;

/// Runs the command; the code that the process ends with.
pub(crate) async fn run(command: NodeCommand) -> anyhow::Result<ExitCode> {
    match command {
        NodeCommand::Ready(target) => ready(&target).await,
        NodeCommand::PrepareStop(args) => prepare_stop(&args).await,
    }
}

async fn ready(target: &Target) -> anyhow::Result<ExitCode> {
    let client = HttpClient::new(READY_TIMEOUT);
    let answer = client.get(&target.path(READY_PATH)).await?;
    if !answer.status.is_success() {
        bail!("{}", answer.text());
    }
    print(&format!("{}\n", answer.text()))?;
    Ok(ExitCode::SUCCESS)
}

async fn prepare_stop(args: &PrepareStopArgs) -> anyhow::Result<ExitCode> {
    let wanted = PrepareStopRequest {
        wait_seconds: args.wait,
    };
    let timeout = Duration::from_secs(args.wait) + ANSWER_GRACE;
    let answer = cluster::send(&args.target, "node/prepare-stop", &wanted, timeout).await?;
    if answer.status == StatusCode::CONFLICT {
        eprintln!("error: {}", cluster::reason(&answer));
        return Ok(ExitCode::from(WOULD_LOSE_MAJORITY));
    }
    let accepted: Accepted = cluster::document(answer)?;
    print(&format!("{}\n", accepted.message))?;
    Ok(ExitCode::SUCCESS)
}
