//! `trefoil k8s`: the objects that run a cluster on Kubernetes, out of what the program knows of itself.
//!
//! Flags, variables, ports, paths of probes and the time that a stop takes come from where they are defined, so
//! that manifests cannot name what the program does not have. `deploy/README.md` says why the objects are as
//! they are; `deploy/kubernetes` keeps them rendered, and `deploy/helm` is a chart that renders the same.
//!
//! Nothing here talks to a cluster: the output is text.

mod network;
mod options;
mod pod;
mod workload;
mod yaml;

#[cfg(test)]
mod tests;

use crate::cli;
use clap::Subcommand;
pub(crate) use options::ManifestsArgs;
use options::Options;
use serde_json::Value;

/// What to print for Kubernetes.
#[derive(Subcommand, Debug)]
pub(crate) enum KubernetesCommand {
    /// Print the manifests of a cluster, for kubectl apply
    Manifests(Box<ManifestsArgs>),
}

/// Runs the command.
///
/// # Errors
/// When a file that the arguments name cannot be read, or the arguments contradict each other.
pub(crate) fn run(command: KubernetesCommand) -> anyhow::Result<()> {
    let KubernetesCommand::Manifests(args) = command;
    let options = Options::of(*args)?;
    cli::print(&yaml::documents(&objects(&options)))
}

/// All objects, in the order in which they can be applied.
fn objects(options: &Options) -> Vec<Value> {
    let mut objects = vec![workload::settings(options)];
    objects.extend(workload::key(options));
    objects.extend([
        network::peers_service(options),
        network::client_service(options),
        workload::stateful_set(options),
        workload::disruption_budget(options),
    ]);
    objects.extend(network::policy(options));
    objects.extend(network::service_monitor(options));
    objects.extend(network::ingress(options));
    objects
}
