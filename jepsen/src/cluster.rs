//! A cluster of real processes on loopback, and what tests do to its nodes.

use crate::{Clock, FreePort, HttpClient, Process, process::log_tail, trefoil_binary, wait_until};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    time::Duration,
};
use tempfile::TempDir;

/// How long the nodes of a test may take for an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Seconds within which nodes must be ready after their start: the promise of the product.
#[must_use]
pub fn ready_seconds_max() -> u64 {
    5
}

/// One node: its place, its addresses, and its process while it runs.
pub struct Node {
    /// Its name, `node-1` for the first.
    pub name: String,
    /// Where its HTTP server listens.
    pub http: SocketAddr,
    /// Where its peers reach it.
    pub peer: SocketAddr,
    /// Where OpenTelemetry's exporters reach it by gRPC.
    pub otlp_grpc: SocketAddr,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Node {
    /// The base URL of its HTTP server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Whether the test has it running (paused counts as running).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it runs and its processor quota holds.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.process.as_ref().is_some_and(Process::has_quota)
    }

    /// All that it has logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    fn process(&mut self) -> anyhow::Result<&mut Process> {
        let name = &self.name;
        self.process
            .as_mut()
            .with_context(|| format!("{name} is not running"))
    }
}

/// Nodes that were started with one seed list. Everything ends and is deleted when it is dropped;
/// when the thread panics the logs' tails are printed first.
pub struct Cluster {
    nodes: Vec<Node>,
    seeds: Vec<SocketAddr>,
    expect: usize,
    quota: Option<f64>,
    config: Option<PathBuf>,
    /// Deleting and snapshots are allowed, unless the configuration says something about it.
    enables_admin_api: bool,
    folder: TempDir,
    client: HttpClient,
}

impl Cluster {
    /// Starts so many nodes with the same seed list; does not wait for them.
    ///
    /// # Errors
    /// When the program cannot be built or started.
    pub fn start(count: usize) -> anyhow::Result<Self> {
        Self::start_with(count, None)
    }

    /// [`Cluster::start`] with a processor quota of so many cores for each node, where the machine
    /// allows one.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(count: usize, quota: Option<f64>) -> anyhow::Result<Self> {
        Self::begin(count, quota, None)
    }

    /// [`Cluster::start`] with a configuration file of this text for every node.
    ///
    /// # Errors
    /// As [`Cluster::start`], and when the file cannot be written.
    pub fn start_configured(count: usize, config: &str) -> anyhow::Result<Self> {
        Self::begin(count, None, Some(config))
    }

    fn begin(count: usize, quota: Option<f64>, config: Option<&str>) -> anyhow::Result<Self> {
        let mut cluster = Self {
            nodes: Vec::new(),
            seeds: Vec::new(),
            expect: count,
            quota,
            config: None,
            enables_admin_api: !config.is_some_and(|text| text.contains("enable_admin_api")),
            folder: tempfile::Builder::new().prefix("trefoil-test-").tempdir()?,
            client: HttpClient::new(ANSWER_WAIT_MAX),
        };
        if let Some(text) = config {
            let path = cluster.folder.path().join("trefoil.yaml");
            std::fs::write(&path, text)?;
            cluster.config = Some(path);
        }
        // Built before the clock of the first test starts.
        trefoil_binary()?;
        for _ in 0..count {
            cluster.prepare_node()?;
        }
        cluster.seeds = match count {
            1 => Vec::new(),
            _ => cluster.nodes.iter().map(|node| node.peer).collect(),
        };
        for node in 0..count {
            cluster.start_node(node)?;
        }
        Ok(cluster)
    }

    /// The nodes, in the order of their making.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The base URL of a node.
    #[must_use]
    pub fn url(&self, node: usize) -> String {
        self.nodes[node].url()
    }

    /// Base URLs of the nodes that run.
    #[must_use]
    pub fn running_urls(&self) -> Vec<String> {
        let running = self.nodes.iter().filter(|node| node.is_running());
        running.map(Node::url).collect()
    }

    /// Makes one more node with the same seeds and starts it; its number.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_node(&mut self) -> anyhow::Result<usize> {
        self.prepare_node()?;
        let node = self.nodes.len() - 1;
        self.start_node(node)?;
        Ok(node)
    }

    fn prepare_node(&mut self) -> anyhow::Result<()> {
        let name = format!("node-{}", self.nodes.len() + 1);
        self.nodes.push(Node {
            http: FreePort::find()?,
            peer: FreePort::find()?,
            otlp_grpc: FreePort::find()?,
            data: self.folder.path().join(&name),
            log: self.folder.path().join(format!("{name}.log")),
            name,
            process: None,
        });
        Ok(())
    }

    /// Starts a node that is not running, with its present addresses and data.
    ///
    /// # Errors
    /// When the process cannot be made.
    pub fn start_node(&mut self, node: usize) -> anyhow::Result<()> {
        let seeds: Vec<String> = self.seeds.iter().map(SocketAddr::to_string).collect();
        let (expect, quota, enables_admin_api) = (self.expect, self.quota, self.enables_admin_api);
        let node = &mut self.nodes[node];
        let mut command = Command::new(trefoil_binary()?);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(&node.data)
            .args(["--node-name", &node.name])
            .args(["--http", &node.http.to_string()])
            .args(["--peer", &node.peer.to_string()])
            .args(["--otlp-grpc", &node.otlp_grpc.to_string()])
            .args(["--otlp-http", "off"])
            .args(["--bootstrap-expect", &expect.to_string()]);
        if enables_admin_api {
            command.arg("--enable-admin-api");
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        if !seeds.is_empty() {
            command.args(["--seeds", &seeds.join(",")]);
        }
        node.process = Some(Process::start(&mut command, &node.log, quota)?);
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[node];
        node.process()?.kill()?;
        node.process = None;
        Ok(())
    }

    /// SIGTERM; the node must end by itself with success.
    ///
    /// # Errors
    /// When the node is not running, does not end in time, or ends with a failure.
    pub fn stop(&mut self, node: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[node];
        let status = node.process()?.stop()?;
        node.process = None;
        if !status.success() {
            bail!(
                "{} ended with {status}:\n{}",
                node.name,
                log_tail(&node.log)
            );
        }
        Ok(())
    }

    /// How a node has ended by itself, if it has; it is not running then.
    ///
    /// # Errors
    /// When the node was not running, or cannot be asked.
    pub fn ended(&mut self, node: usize) -> anyhow::Result<Option<ExitStatus>> {
        let node = &mut self.nodes[node];
        let status = node.process()?.status()?;
        if status.is_some() {
            node.process = None;
        }
        Ok(status)
    }

    /// SIGSTOP: the node is there and says nothing.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn pause(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].process()?.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn resume(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].process()?.resume()
    }

    /// Gives a stopped node new ports. The seed list of the others stays as it was given.
    ///
    /// # Errors
    /// When no ports are free.
    pub fn readdress(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].http = FreePort::find()?;
        self.nodes[node].peer = FreePort::find()?;
        Ok(())
    }

    /// Exchanges the addresses of two stopped nodes.
    pub fn swap_addresses(&mut self, one: usize, other: usize) {
        let (a, b) = (&self.nodes[one], &self.nodes[other]);
        let (first, second) = ((a.http, a.peer), (b.http, b.peer));
        (self.nodes[one].http, self.nodes[one].peer) = second;
        (self.nodes[other].http, self.nodes[other].peer) = first;
    }

    /// Sets what the next starts name as seeds: the present peer addresses of all nodes.
    pub fn reseed(&mut self) {
        self.seeds = self.nodes.iter().map(|node| node.peer).collect();
    }

    /// Deletes the data directory of a stopped node.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn delete_data(&mut self, node: usize) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.nodes[node].data).context("delete a data directory")
    }

    /// Waits until every running node says that its replicas serve; how long that took.
    ///
    /// # Errors
    /// When a process ends meanwhile, or the deadline passes.
    pub async fn wait_ready(&mut self, seconds: u64) -> anyhow::Result<Duration> {
        let urls = self.running_urls();
        let deadline = Duration::from_secs(seconds);
        let client = self.client.clone();
        let ready = wait_until("all nodes are ready", deadline, || async {
            for url in &urls {
                let answer = client.get(&format!("{url}/-/ready")).await?;
                if !answer.is_success() {
                    bail!("{url}: {} {}", answer.status, answer.text());
                }
            }
            Ok(())
        });
        let ready = ready.await;
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                let name = &node.name;
                process.check_running().with_context(|| name.clone())?;
            }
        }
        Ok(ready?.1)
    }

    /// Runs the command line of the product, for example `["cluster", "status"]`, against a node.
    ///
    /// # Errors
    /// When it cannot be started; a failure of the command itself is in its status.
    pub fn command(&self, node: usize, arguments: &[&str]) -> anyhow::Result<Output> {
        let url = self.url(node);
        run_trefoil(&[arguments, &["--url", &url]].concat())
    }

    /// Runs `trefoil cluster recover` on the data directory of a node that is not running.
    ///
    /// # Errors
    /// As [`Cluster::command`].
    pub fn recover(&self, node: usize, arguments: &[&str]) -> anyhow::Result<Output> {
        let data = self.nodes[node].data.to_string_lossy();
        run_trefoil(&[&["cluster", "recover", "--data-dir", &data], arguments].concat())
    }

    /// A document of the administration API, `cluster` for example, as a node gives it.
    ///
    /// # Errors
    /// When the node does not answer with success.
    pub async fn admin(&self, node: usize, page: &str) -> anyhow::Result<Value> {
        let url = format!("{}/trefoil/api/v1/{page}", self.url(node));
        self.client.get(&url).await?.json()
    }

    /// Prometheus' instant query at a node; the `result` list.
    ///
    /// # Errors
    /// When the node does not answer with a complete success.
    pub async fn instant(&self, node: usize, query: &str) -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/query", self.url(node));
        let time = format!("{:.3}", Clock::now_millis() as f64 / 1000.0);
        let parameters = [("query", query), ("time", time.as_str())];
        Ok(self.client.query(&url, &parameters).await?["result"].take())
    }

    /// A client with the harness' own deadline.
    #[must_use]
    pub fn client(&self) -> &HttpClient {
        &self.client
    }
}

fn run_trefoil(arguments: &[&str]) -> anyhow::Result<Output> {
    Command::new(trefoil_binary()?)
        .args(arguments)
        .output()
        .context("run trefoil")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- log of {}:\n{}", node.name, log_tail(&node.log));
            }
        }
    }
}
