//! The command line. Output for people is a table on standard output; `-o json` is for programs;
//! messages and progress go to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage.

pub(crate) mod cluster;
pub(crate) mod node;
pub(crate) mod query;
pub(crate) mod retention;
pub(crate) mod snapshot;
pub(crate) mod table;
pub(crate) mod tenant;
pub(crate) mod test;

use crate::{bench, config::ServeArgs, demo::DemoArgs, kubernetes::KubernetesCommand};
use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, builder::Resettable};
use std::{
    ffi::OsStr,
    io::{ErrorKind, Write},
    process::ExitCode,
};

/// A database for metrics: identical nodes, replicated, answered from any of them.
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

impl Cli {
    /// The program's command line. A variable that is empty counts as not set, as deployments have it that name all of them.
    pub(crate) fn command_without_empty(is_empty: impl Fn(&OsStr) -> bool) -> clap::Command {
        without_empty(Self::command(), &is_empty)
    }
}

fn without_empty(command: clap::Command, is_empty: &dyn Fn(&OsStr) -> bool) -> clap::Command {
    command
        .mut_args(|argument| match argument.get_env().is_some_and(is_empty) {
            true => argument.env(Resettable::<clap::builder::OsStr>::Reset),
            false => argument,
        })
        .mut_subcommands(|command| without_empty(command, is_empty))
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
    /// Tell one node something
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Look at what tenants may do and change it
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Ask a question
    #[command(subcommand)]
    Query(query::QueryCommand),
    /// Run a cluster on Kubernetes
    #[command(subcommand)]
    K8s(KubernetesCommand),
    /// Read snapshots of a cluster, without the cluster
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Run files of test cases
    #[command(subcommand)]
    Test(test::TestCommand),
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
    print(&report.render(form))?;
    Ok(report.exit_code())
}

/// Writes to standard output. A reader that has gone away has all that it wanted: no error.
///
/// # Errors
/// When standard output takes nothing, a full disk for example.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

/// [`print`] of a JSON document.
pub(crate) fn print_json(document: &serde_json::Value) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(document)?))
}

/// An error with all its causes, each once: many of them show their own cause already.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The variable that says where the cluster is.
pub(crate) const URL_VARIABLE: &str = "TREFOIL_URL";

/// Where the cluster is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Target {
    /// HTTP address of any node
    #[arg(
        long,
        value_name = "URL",
        env = URL_VARIABLE,
        default_value = "http://127.0.0.1:9190",
        value_parser = base_url
    )]
    pub(crate) url: String,
}

fn base_url(text: &str) -> Result<String, &'static str> {
    match text.strip_prefix("http://") {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("it must have the form http://HOST:PORT"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_count_as_not_set() {
        let command = Cli::command_without_empty(|name| name == "TREFOIL_ENABLE_ADMIN_API");
        let serve = command.find_subcommand("serve").expect("a command");
        let variable = |id: &str| {
            let argument = serve.get_arguments().find(|a| a.get_id() == id);
            argument
                .expect("an argument")
                .get_env()
                .map(OsStr::to_owned)
        };
        assert_eq!(variable("enable_admin_api"), None);
        assert_eq!(variable("zone"), Some("TREFOIL_ZONE".into()));
        for (text, expected) in [("1", true), ("0", false), ("true", true), ("false", false)] {
            let flag = format!("--enable-admin-api={text}");
            let cli = Cli::try_parse_from(["trefoil", "serve", &flag]).expect("a truth value");
            let Command::Serve(args) = cli.command else {
                panic!("another command");
            };
            assert_eq!(args.enable_admin_api, Some(expected));
        }
    }

    #[test]
    fn every_cause_is_said_once() {
        let missing = std::io::Error::new(ErrorKind::NotFound, "no such file");
        let shown = anyhow::anyhow!("no such file").context("read a: no such file");
        let plain = anyhow::Error::new(missing)
            .context("read a")
            .context("start");
        assert_eq!(explain(&shown), "read a: no such file");
        assert_eq!(explain(&plain), "start: read a: no such file");
    }
}
