//! `trefoil node`: what concerns the one node that is asked, wherever the rest of the cluster is.

use super::{Target, cluster::post, print};
use crate::http_client::HttpClient;
use anyhow::bail;
use clap::{Args, Subcommand};
use std::{process::ExitCode, time::Duration};
use trefoil_api::{READY_PATH, admin::PrepareStopRequest};

/// How long a node may take to say whether it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the node may wait its answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(30);

/// What to tell the node.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Say whether the node is ready; exit code 1 when it is not
    Ready(Target),
    /// Make ready to stop: send clients elsewhere and wait until the other owners can go on alone
    PrepareStop(PrepareStopArgs),
}

/// What `prepare-stop` takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PrepareStopArgs {
    /// Seconds to wait for other owners that are away, being filled or stopping too; then it ends all the same
    #[arg(long, value_name = "SECONDS", default_value_t = PREPARE_STOP_WAIT_SECONDS)]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// A node that was stopped is back within seconds; a minute leaves room for the replay of a full journal.
pub(crate) const PREPARE_STOP_WAIT_SECONDS: u64 = 60;

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
    post(&args.target, "node/prepare-stop", &wanted, timeout).await
}
