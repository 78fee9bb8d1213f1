//! The command line. Output for people is a table on standard output; `-o json` is for programs;
//! messages and progress go to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.

pub(crate) mod cluster;
pub(crate) mod query;
pub(crate) mod table;

use crate::{bench, config::ServeArgs, demo::DemoArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::process::ExitCode;

/// One database for metrics, logs and traces: identical nodes, replicated, answered from any of them.
#[derive(Parser, Debug)]
#[command(
    name = "trefoil",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program can do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a node; three of these with the same seed list are a cluster
    Serve(ServeArgs),
    /// Run three nodes on this machine with live data
    Demo(DemoArgs),
    /// Look at a cluster and change it
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Ask a question
    #[command(subcommand)]
    Query(query::QueryCommand),
    /// Load a server and measure it
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// What to load a server with.
#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// Write metrics to any server that takes remote write
    Metrics(bench::BenchMetricsArgs),
}

/// Runs a load and prints its report; the code that the process ends with.
pub(crate) async fn bench(command: BenchCommand) -> anyhow::Result<ExitCode> {
    let BenchCommand::Metrics(args) = command;
    let form = args.output;
    let report = bench::run(args).await?;
    println!("{}", report.render(form));
    Ok(report.exit_code())
}

/// Where the cluster is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// HTTP address of any node
    #[arg(
        long,
        value_name = "URL",
        env = "TREFOIL_URL",
        default_value = "http://127.0.0.1:9190"
    )]
    pub(crate) url: String,
}

impl Target {
    /// The address of a path below the node's root.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}
