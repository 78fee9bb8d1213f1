//! The binary `trefoil`: reads the command line and runs what it asks for.

mod allocator;
mod backend;
mod bench;
mod cli;
mod clock;
mod cluster;
mod config;
mod data_dir;
mod data_plane;
mod deltas;
mod demo;
mod formats;
mod front;
mod gossip_driver;
mod held;
mod http_client;
mod ingest;
mod kubernetes;
mod limits;
mod logging;
mod open_files;
mod peer_handler;
mod query;
mod recover;
mod seeds;
mod serve;
mod snapshot;
mod stop_signal;
mod telemetry;
mod transport;

use clap::FromArgMatches;
use cli::{Cli, Command};
use std::{ffi::OsStr, process::ExitCode};

fn main() -> ExitCode {
    allocator::configure();
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let matches = Cli::command_without_empty(is_empty).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Demo(args) => {
            block_on(async { demo::run(args).await.map(|()| ExitCode::SUCCESS) })
        }
        Command::Cluster(command) => block_on(cli::cluster::run(command)),
        Command::Node(command) => block_on(cli::node::run(command)),
        Command::Tenant(command) => block_on(cli::tenant::run(command)),
        Command::Query(command) => {
            block_on(async { cli::query::run(command).await.map(|()| ExitCode::SUCCESS) })
        }
        Command::K8s(command) => kubernetes::run(command).map(|()| ExitCode::SUCCESS),
        Command::Snapshot(command) => cli::snapshot::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Test(command) => block_on(cli::test::run(command)),
        Command::Bench(command) => block_on(cli::bench(command)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    // A thread that reads keys waits for the terminal and would be waited for.
    runtime.shutdown_background();
    outcome
}
