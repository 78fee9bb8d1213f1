//! Settings of one node: defaults, then the YAML file, then `TREFOIL_*` variables, then flags.
//!
//! A setting exists because an operator would change it. Unknown keys, wrong types and impossible
//! combinations are errors that name file, line and column and, where one is near, the key that was
//! probably meant. Nothing here touches the network or the data directory.

mod listen;
mod otlp;
mod pairs;
mod place;
mod shown;
mod suggestion;

use clap::Args;
pub(crate) use listen::Listen;
use otlp::OtlpSection;
pub(crate) use pairs::PairSettings;
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use trefoil_api::otlp::OtlpOptions;
use trefoil_query_promql::EvalOptions;

/// Where HTTP listens unless told otherwise.
pub(crate) const HTTP_PORT: u16 = 9190;
/// Where peers meet unless told otherwise: TCP, and UDP for gossip.
pub(crate) const PEER_PORT: u16 = 9191;
/// Where OpenTelemetry's exporters come to by gRPC and by HTTP unless told otherwise, as its specification has it.
pub(crate) const OTLP_GRPC_PORT: u16 = 4317;
pub(crate) const OTLP_HTTP_PORT: u16 = 4318;
/// What all variables begin with.
const VARIABLES: &str = "TREFOIL_";
/// How long metrics are kept where a file is silent, in hours.
pub(crate) const RETENTION_HOURS: u64 = 15 * 24;
/// Slices of the hash space of a new cluster unless the file says otherwise.
pub(crate) const SHARDS: u16 = 256;
/// Series of deltas that a node adds up unless the file says otherwise.
const DELTA_SERIES_MAX: usize = 500_000;

/// What `trefoil serve` takes on the command line or from `TREFOIL_*` variables.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// YAML configuration file; flags and TREFOIL_* variables override it
    #[arg(long, value_name = "FILE", env = "TREFOIL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where this node keeps its data [default: ./trefoil-data]
    #[arg(long, value_name = "DIR", env = "TREFOIL_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The node's name, unique in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME", env = "TREFOIL_NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// The failure zone the node runs in
    #[arg(long, value_name = "ZONE", env = "TREFOIL_ZONE")]
    pub(crate) zone: Option<String>,
    /// Address of all HTTP interfaces [default: 0.0.0.0:9190]
    #[arg(long, value_name = "ADDR", env = "TREFOIL_HTTP")]
    pub(crate) http: Option<SocketAddr>,
    /// Address for the other nodes, gRPC over TCP and gossip over UDP, also the one that this node calls them
    /// from [default: 0.0.0.0:9191]
    #[arg(long, value_name = "ADDR", env = "TREFOIL_PEER")]
    pub(crate) peer: Option<SocketAddr>,
    /// Address for OpenTelemetry over gRPC, or off [default: 0.0.0.0:4317 if it is free]
    #[arg(long, value_name = "ADDR", env = "TREFOIL_OTLP_GRPC")]
    pub(crate) otlp_grpc: Option<Listen>,
    /// Address for OpenTelemetry over HTTP beside --http, or off [default: 0.0.0.0:4318 if it is free]
    #[arg(long, value_name = "ADDR", env = "TREFOIL_OTLP_HTTP")]
    pub(crate) otlp_http: Option<Listen>,
    /// Host or address that the other nodes reach this one at [default: found from the route to the seeds]
    #[arg(long, value_name = "HOST", env = "TREFOIL_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// Peer addresses to find the cluster by: host:port, comma-separated; DNS names may resolve to many
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        env = "TREFOIL_SEEDS"
    )]
    pub(crate) seeds: Option<Vec<String>>,
    /// How many nodes agree to begin a new cluster [default: 3, or 1 without seeds]
    #[arg(long, value_name = "N", env = "TREFOIL_BOOTSTRAP_EXPECT")]
    pub(crate) bootstrap_expect: Option<usize>,
    /// File with the cluster's key (64 hexadecimal digits) that authenticates gossip
    #[arg(long, value_name = "FILE", env = "TREFOIL_CLUSTER_KEY_FILE")]
    pub(crate) cluster_key_file: Option<PathBuf>,
    /// Allow deleting series and making snapshots (POST /api/v1/admin/tsdb/...) through this node. Whoever may query
    /// through a data source of Grafana can then do so
    #[arg(long, env = "TREFOIL_ENABLE_ADMIN_API", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL",
        value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) enable_admin_api: Option<bool>,
    /// Experimental features, by Prometheus' names, comma-separated: promql-experimental-functions,
    /// promql-extended-range-selectors, promql-binop-fill-modifiers, promql-delayed-name-removal, use-start-timestamps,
    /// type-and-unit-labels
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        env = "TREFOIL_ENABLE_FEATURE"
    )]
    pub(crate) enable_feature: Option<Vec<String>>,
    /// Log format: text or json
    #[arg(long, value_name = "FORMAT", env = "TREFOIL_LOG_FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Log filter, for example info or trefoil=debug
    #[arg(long, value_name = "FILTER", env = "TREFOIL_LOG_LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// How log lines are written to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// The YAML file. Every key is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    node_name: Option<String>,
    zone: Option<String>,
    http: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    advertise: Option<String>,
    seeds: Option<Vec<String>>,
    bootstrap_expect: Option<usize>,
    cluster_key_file: Option<PathBuf>,
    enable_admin_api: Option<bool>,
    enable_feature: Option<Vec<String>>,
    shards: Option<u16>,
    zone_mode: Option<ZoneMode>,
    replace_after_seconds: Option<u64>,
    log: LogSection,
    storage: StorageSection,
    limits: LimitsSection,
    otlp: OtlpSection,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogSection {
    format: Option<LogFormat>,
    level: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StorageSection {
    flush_interval_seconds: Option<u64>,
    flush_samples: Option<u64>,
    journal_bytes_max: Option<u64>,
    movement_bytes_per_second: Option<u64>,
    retention_hours: Option<u64>,
    down_sampling: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsSection {
    write_timeout_seconds: Option<u64>,
    query_timeout_seconds: Option<u64>,
    query_concurrency: Option<usize>,
    query_samples: Option<u64>,
    query_bytes: Option<u64>,
    part_concurrency: Option<usize>,
    answers_kept_bytes: Option<u64>,
    out_of_order_window_hours: Option<u64>,
    accept_ha_samples: Option<bool>,
    ha_cluster_label: Option<String>,
    ha_replica_label: Option<String>,
    ha_max_clusters: Option<usize>,
    ha_tracker_update_timeout_seconds: Option<u64>,
    ha_tracker_failover_timeout_seconds: Option<u64>,
    ha_held_bytes_max: Option<usize>,
    ha_held_late_samples: Option<bool>,
}

/// How zones bind placement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ZoneMode {
    /// Never two replicas of a shard in one zone.
    Strict,
    /// Spread over zones as far as balance allows.
    #[default]
    Spread,
}

/// The settings a node runs with, complete and checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where the node keeps its data.
    pub(crate) data_dir: PathBuf,
    /// Unique in the cluster.
    pub(crate) node_name: String,
    /// Failure zone; empty when none was given.
    pub(crate) zone: String,
    /// Where HTTP listens.
    pub(crate) http: SocketAddr,
    /// Where peers connect (TCP) and gossip arrives (UDP).
    pub(crate) peer: SocketAddr,
    /// Where OpenTelemetry over gRPC listens. Off costs nothing but that its exporters have to use HTTP.
    pub(crate) otlp_grpc: Listen,
    /// Where OpenTelemetry over HTTP listens beside `http`, which serves it too.
    pub(crate) otlp_http: Listen,
    /// How OpenTelemetry's metrics become series. A change makes other series from then on; all nodes need the same.
    pub(crate) otlp: OtlpOptions,
    /// Series of deltas that this node adds up at the same time; further ones are refused. Each takes some 250 bytes.
    pub(crate) delta_series_max: usize,
    /// Host that others reach this node at; found from the routes when absent.
    pub(crate) advertise: Option<String>,
    /// `host:port` entries; empty for a cluster of one.
    pub(crate) seeds: Vec<String>,
    /// How many nodes begin a new cluster together.
    pub(crate) bootstrap_expect: usize,
    /// Key for gossip, when configured.
    pub(crate) cluster_key: Option<[u8; 32]>,
    /// Whether series can be deleted through this node.
    pub(crate) enable_admin_api: bool,
    /// Names of experimental features that are enabled.
    pub(crate) features: Vec<String>,
    /// Whether series get labels of their type and unit.
    pub(crate) type_and_unit_labels: bool,
    /// How queries are read and evaluated with these.
    pub(crate) eval: EvalOptions,
    /// Slices of the hash space, a power of two; fixed when the cluster begins. Default 256.
    pub(crate) shards: u16,
    /// Whether zones are binding.
    pub(crate) zone_mode: ZoneMode,
    /// A node dead for this long is replaced when another can take its place. Default 10 min.
    pub(crate) replace_after: Duration,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// Which events are logged.
    pub(crate) log_level: String,
    /// A head older than this is flushed. Default 180 s; lower restarts faster, higher writes less.
    pub(crate) flush_interval: Duration,
    /// A head with more samples than this, and than eight of each series, is flushed. Default 1 million, 16 MB;
    /// higher costs memory and restarts slower, lower writes more.
    pub(crate) flush_samples: u64,
    /// The journal never keeps more than this for absent owners. Default 8 GiB.
    pub(crate) journal_bytes_max: u64,
    /// Pace of moving shards, per receiving node. Default 64 MiB/s.
    pub(crate) movement_bytes_per_second: u64,
    /// Items older than this are dropped; `None` keeps them for ever. Default 15 days. Counts only until the first
    /// leader has recorded its own; see `cluster::retention`.
    pub(crate) retention: Option<Duration>,
    /// Whether blocks of closed windows also keep the aggregates of their samples in buckets of 5 min and 1 h, for queries with
    /// `max_source_resolution`: more disk, and more CPU in merges. Default false.
    pub(crate) down_sampling: bool,
    /// A write that has no majority after this is answered 503. Default 10 s.
    pub(crate) write_timeout: Duration,
    /// A query that runs longer is ended. Default 2 min.
    pub(crate) query_timeout: Duration,
    /// Queries evaluated at once; more wait. Default 20.
    pub(crate) query_concurrency: usize,
    /// Samples one query may hold. Default 50 million.
    pub(crate) query_samples: u64,
    /// Bytes of labels and values that the parts of one query may answer, together; more is refused with 422. Default
    /// 1 GiB, what 50 million samples of a range selector take; times `query_concurrency` it is what queries can cost.
    pub(crate) query_bytes: u64,
    /// Parts of queries that this node evaluates for its peers at once; more wait for half of their time, then
    /// another owner is asked. Default 40, twice `query_concurrency`.
    pub(crate) part_concurrency: usize,
    /// Memory for answers of range queries about past times, which are not worked out again while nothing of them has changed; what
    /// was used longest ago goes first. 0 keeps none. Default 64 MiB.
    pub(crate) answers_kept_bytes: u64,
    /// Samples older than this are refused; `None`, the default: only those older than the retention.
    pub(crate) out_of_order_window: Option<Duration>,
    /// Pairs of senders that measure the same.
    pub(crate) pairs: PairSettings,
}

/// Why the settings were refused; the text says where and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file could not be read.
    #[error("read {path}")]
    Read {
        /// The file that was named: the configuration, or one that it names.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}:{line}:{column}: {message}")]
    Invalid {
        /// The file that was named.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong, with a suggestion where one is near.
        message: String,
    },
    /// A value is impossible by itself or beside another.
    #[error("{0}")]
    Impossible(String),
}

impl Settings {
    /// Merges file, variables and flags over the defaults and checks the result.
    ///
    /// # Errors
    /// When the file cannot be read or parsed, or when values contradict each other.
    pub(crate) fn load(args: &ServeArgs) -> Result<Self, ConfigError> {
        let Some(path) = &args.config else {
            return complete(args, File::default());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        read(args, path, &text)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let impossible = |text: String| Err(ConfigError::Impossible(text));
        if !self.shards.is_power_of_two() || self.shards > 4096 {
            return impossible(format!(
                "shards: {} is not a power of two up to 4096",
                self.shards
            ));
        }
        if self.bootstrap_expect == 0 {
            return impossible(
                "bootstrap_expect: 0 nodes cannot begin a cluster; use 1 or 3".into(),
            );
        }
        if self.bootstrap_expect == 1 && !self.seeds.is_empty() {
            return impossible(
                "bootstrap_expect: 1 needs an empty seed list: with seeds, several nodes would each \
                 begin a cluster of its own"
                    .into(),
            );
        }
        if self.bootstrap_expect > 1 && self.seeds.is_empty() {
            return impossible(format!(
                "bootstrap_expect: {} nodes cannot find each other without seeds; give --seeds \
                 host:9191,... or set bootstrap_expect to 1",
                self.bootstrap_expect
            ));
        }
        if self.node_name.is_empty() {
            return impossible("node_name: is empty; give --node-name".into());
        }
        if let Err(error) = crate::logging::filter(&self.log_level) {
            return impossible(format!("log.level: {}", crate::cli::explain(&error)));
        }
        self.check_bounds()?;
        self.check_pairs()?;
        for seed in &self.seeds {
            let port = seed
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return impossible(format!("seeds: {seed:?} has no port; write host:9191"));
            }
        }
        Ok(())
    }
}

impl Settings {
    /// Where 0 would stop the node from ever doing the thing.
    fn check_bounds(&self) -> Result<(), ConfigError> {
        let counts = [
            (
                "storage.flush_interval_seconds",
                self.flush_interval.as_secs(),
            ),
            ("storage.flush_samples", self.flush_samples),
            ("storage.journal_bytes_max", self.journal_bytes_max),
            (
                "storage.movement_bytes_per_second",
                self.movement_bytes_per_second,
            ),
            ("replace_after_seconds", self.replace_after.as_secs()),
            ("limits.write_timeout_seconds", self.write_timeout.as_secs()),
            ("limits.query_timeout_seconds", self.query_timeout.as_secs()),
            ("limits.query_concurrency", self.query_concurrency as u64),
            ("limits.query_samples", self.query_samples),
        ];
        match counts.iter().find(|(_, value)| *value == 0) {
            None => Ok(()),
            Some((key, _)) => Err(ConfigError::Impossible(format!(
                "{key}: is 0; it must be at least 1"
            ))),
        }
    }

    fn check_pairs(&self) -> Result<(), ConfigError> {
        let pairs = &self.pairs;
        let impossible = |text: &str| Err(ConfigError::Impossible(text.to_owned()));
        if pairs.cluster_label.is_empty() {
            return impossible("limits.ha_cluster_label: is empty; a pair needs a name");
        }
        if pairs.replica_label.is_empty() {
            return impossible("limits.ha_replica_label: is empty; a sender needs a name");
        }
        if pairs.cluster_label == pairs.replica_label {
            return impossible(
                "limits.ha_replica_label: is the same as ha_cluster_label; one names the pair, the other the sender",
            );
        }
        match pairs.failover_timeout <= pairs.update_interval {
            true => impossible(
                "limits.ha_tracker_failover_timeout_seconds: must be longer than \
                 ha_tracker_update_timeout_seconds, or senders that are well take turns",
            ),
            false => Ok(()),
        }
    }
}

/// Checks a configuration file's text, with the arguments that nodes will have beside it.
///
/// # Errors
/// As [`Settings::load`].
pub(crate) fn check_text(
    args: &ServeArgs,
    path: &std::path::Path,
    text: &str,
) -> Result<(), ConfigError> {
    read(args, path, text).map(drop)
}

/// Reads a file's text and merges the arguments over it.
fn read(args: &ServeArgs, path: &std::path::Path, text: &str) -> Result<Settings, ConfigError> {
    let file = parse(path, text)?;
    complete(args, file.clone()).map_err(|error| match error {
        // What is impossible by the file alone has its place there.
        ConfigError::Impossible(why)
            if complete(&ServeArgs::default(), file)
                .is_err_and(|alone| alone.to_string() == why) =>
        {
            in_file(path, text, why)
        }
        error => error,
    })
}

/// The error about an impossible value of the file, whose text begins with the key's path.
fn in_file(path: &std::path::Path, text: &str, why: String) -> ConfigError {
    let key = why.split(':').next().unwrap_or_default();
    match place::of_key(text, key) {
        Some((line, column)) => ConfigError::Invalid {
            path: path.to_owned(),
            line,
            column,
            message: why,
        },
        None => ConfigError::Impossible(format!("{}: {why}", path.display())),
    }
}

/// Merges arguments over a file and checks the result.
fn complete(args: &ServeArgs, file: File) -> Result<Settings, ConfigError> {
    let settings = merge(args, file)?;
    settings.check()?;
    Ok(settings)
}

/// The variable of the flag with this name.
///
/// # Panics
/// When there is none. Use [`variable_of`], with which that does not compile.
pub(crate) fn variable_named(flag: &str) -> String {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let argument = command.get_arguments().find(|a| a.get_id() == flag);
    let variable = argument.and_then(|argument| argument.get_env()?.to_str());
    assert!(variable.is_some(), "no variable says what --{flag} says");
    variable.unwrap_or_default().to_owned()
}

/// The `TREFOIL_*` variable of a field of [`ServeArgs`]; a field that does not exist does not compile.
macro_rules! variable_of {
    ($field:ident) => {{
        const _: fn(&$crate::config::ServeArgs) = |args| {
            let _ = &args.$field;
        };
        $crate::config::variable_named(stringify!($field))
    }};
}
pub(crate) use variable_of;

fn parse(path: &std::path::Path, text: &str) -> Result<File, ConfigError> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        let message = match error {
            serde_saphyr::Error::SerdeUnknownField {
                field, expected, ..
            } => suggestion::unknown_key(field, expected, &nested_keys()),
            other => suggestion::in_words(other),
        };
        ConfigError::Invalid {
            path: path.to_owned(),
            line,
            column,
            message,
        }
    })
}

/// The keys of all sections, as `section.key`.
fn nested_keys() -> Vec<String> {
    fn keys<T: serde::de::DeserializeOwned>(section: &str) -> Vec<String> {
        // The parser's own list, so that there is no second one to keep in step.
        let error = serde_saphyr::from_str::<T>("'': 0").err();
        match error.as_ref().map(serde_saphyr::Error::without_snippet) {
            Some(serde_saphyr::Error::SerdeUnknownField { expected, .. }) => expected
                .iter()
                .map(|key| format!("{section}.{key}"))
                .collect(),
            _ => Vec::new(),
        }
    }
    [
        keys::<LogSection>("log"),
        keys::<StorageSection>("storage"),
        keys::<LimitsSection>("limits"),
        keys::<OtlpSection>("otlp"),
    ]
    .concat()
}

/// What to say about `TREFOIL_*` variables that no flag has: they do nothing. Not an error, because others
/// set such variables too (Kubernetes does, for a service of that name).
pub(crate) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    // Without what all of them begin with, by which all would be near.
    let known: Vec<(&str, &str)> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .filter_map(|variable| Some((variable.strip_prefix(VARIABLES)?, variable)))
        .collect();
    // Read by the commands for people.
    let is_known = |name: &str| {
        name == crate::cli::URL_VARIABLE || known.iter().any(|(_, variable)| *variable == name)
    };
    names
        .filter(|name| !is_known(name))
        .filter_map(|name| {
            let near = suggestion::nearest(name.strip_prefix(VARIABLES)?, known.iter().copied());
            let meant = near.map(|known| format!("; did you mean {known}?"));
            Some(format!("{name} does nothing{}", meant.unwrap_or_default()))
        })
        .collect()
}

fn merge(args: &ServeArgs, file: File) -> Result<Settings, ConfigError> {
    let args = args.clone();
    let address = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let seeds: Vec<String> = args
        .seeds
        .or(file.seeds)
        .unwrap_or_default()
        .into_iter()
        .map(|seed| seed.trim().to_owned())
        .filter(|seed| !seed.is_empty())
        .collect();
    let bootstrap_default = if seeds.is_empty() { 1 } else { 3 };
    let seconds = |value: Option<u64>, default| Duration::from_secs(value.unwrap_or(default));
    let hours = |value: u64| (value > 0).then(|| Duration::from_secs(value * 3600));
    let retention = hours(file.storage.retention_hours.unwrap_or(RETENTION_HOURS));
    let mut enabled = args
        .enable_feature
        .or(file.enable_feature)
        .unwrap_or_default();
    enabled.retain(|name| !name.is_empty());
    Ok(Settings {
        data_dir: args
            .data_dir
            .or(file.data_dir)
            .unwrap_or_else(|| "trefoil-data".into()),
        node_name: args.node_name.or(file.node_name).unwrap_or_else(host_name),
        zone: args.zone.or(file.zone).unwrap_or_default(),
        http: args.http.or(file.http).unwrap_or(address(HTTP_PORT)),
        peer: args.peer.or(file.peer).unwrap_or(address(PEER_PORT)),
        otlp_grpc: args
            .otlp_grpc
            .or(file.otlp.grpc)
            .unwrap_or(Listen::IfFree(address(OTLP_GRPC_PORT))),
        otlp_http: args
            .otlp_http
            .or(file.otlp.http)
            .unwrap_or(Listen::IfFree(address(OTLP_HTTP_PORT))),
        delta_series_max: file.otlp.delta_series_max.unwrap_or(DELTA_SERIES_MAX),
        otlp: file.otlp.options()?,
        advertise: args.advertise.or(file.advertise),
        seeds,
        bootstrap_expect: args
            .bootstrap_expect
            .or(file.bootstrap_expect)
            .unwrap_or(bootstrap_default),
        cluster_key: args
            .cluster_key_file
            .or(file.cluster_key_file)
            .map(read_key)
            .transpose()?,
        enable_admin_api: args
            .enable_admin_api
            .or(file.enable_admin_api)
            .unwrap_or(false),
        eval: features(&enabled)?,
        type_and_unit_labels: enabled.iter().any(|name| name == TYPE_AND_UNIT_LABELS),
        features: enabled,
        shards: file.shards.unwrap_or(SHARDS),
        zone_mode: file.zone_mode.unwrap_or_default(),
        replace_after: seconds(file.replace_after_seconds, 600),
        log_format: args.log_format.or(file.log.format).unwrap_or_default(),
        log_level: args
            .log_level
            .or(file.log.level)
            .unwrap_or_else(|| "info".into()),
        flush_interval: seconds(file.storage.flush_interval_seconds, 180),
        flush_samples: file.storage.flush_samples.unwrap_or(1_000_000),
        journal_bytes_max: file.storage.journal_bytes_max.unwrap_or(8 << 30),
        movement_bytes_per_second: file.storage.movement_bytes_per_second.unwrap_or(64 << 20),
        retention,
        down_sampling: file.storage.down_sampling.unwrap_or(false),
        write_timeout: seconds(file.limits.write_timeout_seconds, 10),
        query_timeout: seconds(file.limits.query_timeout_seconds, 120),
        query_concurrency: file.limits.query_concurrency.unwrap_or(20),
        query_samples: file.limits.query_samples.unwrap_or(50_000_000),
        query_bytes: file.limits.query_bytes.unwrap_or(1 << 30),
        part_concurrency: file.limits.part_concurrency.unwrap_or(40),
        answers_kept_bytes: file.limits.answers_kept_bytes.unwrap_or(64 << 20),
        out_of_order_window: file.limits.out_of_order_window_hours.and_then(hours),
        pairs: file.limits.pairs(),
    })
}

/// The feature that is none of queries.
const TYPE_AND_UNIT_LABELS: &str = "type-and-unit-labels";

/// What experimental features make of the evaluation.
fn features(names: &[String]) -> Result<EvalOptions, ConfigError> {
    let enable = |options: EvalOptions, name: &String| options.with_feature(name);
    let mut of_queries = names.iter().filter(|name| *name != TYPE_AND_UNIT_LABELS);
    of_queries
        .try_fold(EvalOptions::default(), enable)
        .map_err(|reason| {
            let other = format!("known for writing is: {TYPE_AND_UNIT_LABELS}");
            ConfigError::Impossible(format!("enable_feature: {reason}; {other}"))
        })
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// The key in a file.
///
/// # Errors
/// When it cannot be read, or does not hold 64 hexadecimal digits.
pub(crate) fn read_key(path: PathBuf) -> Result<[u8; 32], ConfigError> {
    let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
        path: path.clone(),
        source,
    })?;
    let text = text.trim();
    let malformed = || {
        ConfigError::Impossible(format!(
            "cluster_key_file: {} does not hold 64 hexadecimal digits (32 random bytes)",
            path.display()
        ))
    };
    if text.len() != 64 || !text.is_ascii() {
        return Err(malformed());
    }
    let mut key = [0u8; 32];
    for (index, byte) in key.iter_mut().enumerate() {
        let digits = text.get(index * 2..index * 2 + 2).ok_or_else(malformed)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| malformed())?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
