//! What can be chosen about the manifests, with its defaults, checked.

use crate::config::{self, PEER_PORT, ServeArgs};
use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};

/// Settings of every node when no file is given.
const SETTINGS_DEFAULT: &str = "# Every key of trefoil's configuration file; variables of the pod override it.\n\
                                log:\n  format: json\n";

/// What `trefoil k8s manifests` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct ManifestsArgs {
    /// Name of the StatefulSet; the other objects' names begin with it
    #[arg(long, default_value = "trefoil", value_parser = object_name)]
    name: String,
    /// Namespace of all objects [default: none, so that kubectl's is used]
    #[arg(long, value_parser = object_name)]
    namespace: Option<String>,
    /// Image of the container
    #[arg(long, default_value = concat!("trefoil:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// How many nodes; 1 has no seeds, so that it never grows by kubectl scale
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    replicas: u16,
    /// How many nodes begin the cluster together; no matter afterwards [default: more than half, 3 where there are as many]
    #[arg(long, value_name = "N")]
    bootstrap_expect: Option<u16>,
    /// Zones to run in, as the label topology.kubernetes.io/zone names them, comma-separated [default: all]
    #[arg(long, value_name = "ZONE,...", value_delimiter = ',')]
    zones: Vec<String>,
    /// Size of each node's volume
    #[arg(long, value_name = "SIZE", default_value = "50Gi", value_parser = quantity)]
    storage_size: String,
    /// Class of the volumes [default: the cluster's]
    #[arg(long, value_name = "CLASS")]
    storage_class: Option<String>,
    /// Processor time that a node is sure to get
    #[arg(long, value_name = "CORES", default_value = "1", value_parser = quantity)]
    cpu: String,
    /// Memory that a node is sure to get, and its limit
    #[arg(long, value_name = "SIZE", default_value = "4Gi", value_parser = quantity)]
    memory: String,
    /// Configuration file for every node; checked here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Secret whose entry `key` is the cluster's key [default: NAME-cluster-key]
    #[arg(long, value_name = "SECRET")]
    cluster_key_secret: Option<String>,
    /// Print that Secret too, with the key in this file (64 hexadecimal digits)
    #[arg(long, value_name = "FILE")]
    cluster_key_file: Option<PathBuf>,
    /// Let anybody who reaches the peers' port take part
    #[arg(long, conflicts_with_all = ["cluster_key_secret", "cluster_key_file"])]
    without_cluster_key: bool,
    /// Leave network access to others
    #[arg(long)]
    without_network_policy: bool,
    /// Namespaces besides the own one that may reach HTTP, comma-separated
    #[arg(long, value_name = "NAMESPACE,...", value_delimiter = ',')]
    allow_namespaces: Vec<String>,
    /// Let the Prometheus operator scrape every node
    #[arg(long)]
    service_monitor: bool,
    /// Host name under which an Ingress leads to the nodes
    #[arg(long, value_name = "HOST")]
    ingress_host: Option<String>,
    /// Class of the Ingress [default: the cluster's]
    #[arg(long, value_name = "CLASS", requires = "ingress_host")]
    ingress_class: Option<String>,
}

/// The cluster's key, if it has one.
pub(super) struct Key {
    /// The Secret's name.
    pub(super) secret: String,
    /// The key, if the Secret is to be printed.
    pub(super) text: Option<String>,
}

/// Who may reach HTTP.
pub(super) struct Access {
    /// Namespaces besides the own one.
    pub(super) namespaces: Vec<String>,
}

/// Where an Ingress leads from.
pub(super) struct Entrance {
    pub(super) host: String,
    pub(super) class: Option<String>,
}

/// The arguments, complete and checked.
pub(super) struct Options {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) image: String,
    pub(super) replicas: u16,
    /// How many nodes begin a cluster of several.
    pub(super) bootstrap_expect: u16,
    pub(super) zones: Vec<String>,
    pub(super) storage_size: String,
    pub(super) storage_class: Option<String>,
    pub(super) cpu: String,
    pub(super) memory: String,
    /// Text of the configuration file.
    pub(super) settings: String,
    pub(super) key: Option<Key>,
    pub(super) access: Option<Access>,
    pub(super) service_monitor: bool,
    pub(super) entrance: Option<Entrance>,
}

impl Options {
    /// Reads the files that the arguments name.
    ///
    /// # Errors
    /// When a file cannot be read, or nodes with these arguments would not start.
    pub(super) fn of(args: ManifestsArgs) -> anyhow::Result<Self> {
        let settings = match &args.config {
            None => SETTINGS_DEFAULT.to_owned(),
            Some(path) => read(path)?,
        };
        let key = key(&args)?;
        let bootstrap_expect = args
            .bootstrap_expect
            .unwrap_or_else(|| bootstrap_expect(args.replicas));
        let options = Self {
            name: args.name,
            namespace: args.namespace,
            image: args.image,
            replicas: args.replicas,
            bootstrap_expect,
            zones: args.zones,
            storage_size: args.storage_size,
            storage_class: args.storage_class,
            cpu: args.cpu,
            memory: args.memory,
            settings,
            key,
            access: (!args.without_network_policy).then_some(Access {
                namespaces: args.allow_namespaces,
            }),
            service_monitor: args.service_monitor,
            entrance: args.ingress_host.map(|host| Entrance {
                host,
                class: args.ingress_class,
            }),
        };
        options.check(args.config.as_deref())?;
        Ok(options)
    }

    /// The name of the service behind which all nodes are, ready or not.
    pub(super) fn peers_service(&self) -> String {
        format!("{}-peers", self.name)
    }

    /// Where nodes look for one another; none for a cluster of one.
    pub(super) fn seeds(&self) -> Option<String> {
        (self.replicas > 1).then(|| format!("{}:{PEER_PORT}", self.peers_service()))
    }

    fn check(&self, file: Option<&Path>) -> anyhow::Result<()> {
        let several = self.replicas > 1;
        if several && u32::from(self.bootstrap_expect) * 2 <= u32::from(self.replicas) {
            bail!(
                "--bootstrap-expect {} must exceed half of {} replicas: two halves could begin a cluster each",
                self.bootstrap_expect,
                self.replicas
            );
        }
        if self.bootstrap_expect > self.replicas {
            bail!(
                "--bootstrap-expect {}: there are only {} replicas",
                self.bootstrap_expect,
                self.replicas
            );
        }
        let args = ServeArgs {
            seeds: self.seeds().map(|seed| vec![seed]),
            bootstrap_expect: several.then_some(self.bootstrap_expect.into()),
            ..ServeArgs::default()
        };
        let named = file.unwrap_or(Path::new("trefoil.yaml"));
        config::check_text(&args, named, &self.settings)?;
        Ok(())
    }
}

/// More than half, so that no two clusters begin; and three where there are three, because fewer owners than
/// three would have to be changed at once.
fn bootstrap_expect(replicas: u16) -> u16 {
    (replicas / 2 + 1).max(replicas.min(3))
}

fn key(args: &ManifestsArgs) -> anyhow::Result<Option<Key>> {
    if args.without_cluster_key {
        return Ok(None);
    }
    let text = match &args.cluster_key_file {
        None => None,
        Some(path) => {
            config::read_key(path.clone())?;
            Some(read(path)?.trim().to_owned())
        }
    };
    let named = args.cluster_key_secret.clone();
    let secret = named.unwrap_or_else(|| format!("{}-cluster-key", args.name));
    Ok(Some(Key { secret, text }))
}

/// A quantity as Kubernetes writes them: a number with a suffix such as `Gi`, `G` or `m`, or none.
fn quantity(text: &str) -> Result<String, String> {
    const SUFFIXES: &[&str] = &[
        "", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let digits = text.trim_end_matches(|one: char| one.is_ascii_alphabetic());
    let is_number = digits.parse::<f64>().is_ok_and(|number| number > 0.0)
        && digits.chars().all(|one| one.is_ascii_digit() || one == '.');
    match is_number && SUFFIXES.contains(&&text[digits.len()..]) {
        true => Ok(text.to_owned()),
        false => {
            Err("a number with Ki, Mi, Gi, Ti, k, M, G, T or m behind it, or nothing".to_owned())
        }
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// A label of DNS that leaves room for the suffixes of services and pods.
fn object_name(text: &str) -> Result<String, &'static str> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: char| inside(c) && c != '-';
    let fits = !text.is_empty() && text.len() <= 50 && text.chars().all(inside);
    match fits && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.ends_with(edge) {
        true => Ok(text.to_owned()),
        false => Err("use at most 50 of a-z, 0-9 and -, beginning with a letter"),
    }
}
