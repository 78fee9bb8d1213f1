//! `trefoil demo`: three nodes on loopback with live data, to look at and to break.
//!
//! The nodes are child processes of this binary. The demo feeds them through the normal write path:
//! what their own `/metrics` say, and a small shop with an hour of history. Nothing here is known to
//! the nodes: a node of the demo is a node like any other.

mod children;
mod feed;
mod keys;
pub(crate) mod shop;

use crate::http_client::HttpClient;
use anyhow::{Context, bail};
use children::Node;
use clap::Args;
use keys::Key;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

/// How long the three nodes may take until all are ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often live data is sent.
const FEED_INTERVAL: Duration = Duration::from_secs(5);

/// What `trefoil demo` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// Keep the data of the nodes when the demo ends, and continue with it next time
    #[arg(long)]
    keep: bool,
    /// Where the nodes keep their data [default: a temporary directory; with --keep ./trefoil-demo]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Do not read keys
    #[arg(long)]
    no_input: bool,
    /// End after this many seconds
    #[arg(long, value_name = "SECONDS")]
    exit_after: Option<u64>,
}

/// Runs the demo until a key, a signal or `--exit-after` ends it.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let directory = match (&args.data_dir, args.keep) {
        (Some(directory), _) => directory.clone(),
        (None, true) => PathBuf::from("trefoil-demo"),
        (None, false) => std::env::temp_dir().join(format!("trefoil-demo-{}", std::process::id())),
    };
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("make the demo's directory {}", directory.display()))?;
    let mut demo = Demo::new(&directory)?;
    let end = args
        .exit_after
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    // From the first instant on, so that an early end cleans up like a late one: signals are listened for before
    // anything is started or said.
    let outcome = tokio::select! {
        biased;
        () = stopped() => Ok(()),
        () = until(end) => Ok(()),
        outcome = demo.live(&args) => outcome,
    };
    demo.stop().await?;
    if args.keep || args.data_dir.is_some() {
        println!("The data is kept in {}.", directory.display());
    } else {
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("remove the demo's directory {}", directory.display()))?;
    }
    outcome
}

struct Demo {
    directory: PathBuf,
    nodes: Vec<Node>,
    client: HttpClient,
}

impl Demo {
    fn new(directory: &Path) -> anyhow::Result<Self> {
        // Those that were added to data that was kept belong to the cluster too.
        let kept = |number: &usize| directory.join(children::name(*number)).is_dir();
        let added = (4..).take_while(kept);
        let nodes = (1..=3)
            .chain(added)
            .map(|number| Node::prepare(number, directory))
            .collect::<Result<_, _>>()?;
        let client = HttpClient::new(Duration::from_secs(5));
        Ok(Self {
            directory: directory.to_owned(),
            nodes,
            client,
        })
    }

    async fn live(&mut self, args: &DemoArgs) -> anyhow::Result<()> {
        let mut keys = keys::Keys::open(!args.no_input);
        tokio::select! {
            begun = self.begin() => begun?,
            () = keys.quit() => return Ok(()),
        }
        self.print_guide(keys.is_open());
        let mut feed_time = tokio::time::interval(FEED_INTERVAL);
        feed_time.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut feed_failed = false;
        loop {
            tokio::select! {
                _ = feed_time.tick() => match feed::live(&self.client, &mut self.nodes).await {
                    Ok(()) if feed_failed => {
                        feed_failed = false;
                        println!("Writing works again.");
                    }
                    Ok(()) => {}
                    Err(error) if !feed_failed => {
                        feed_failed = true;
                        println!("No node takes the live data: {error:#}");
                    }
                    Err(_) => {}
                },
                key = keys.next() => match key {
                    Key::Quit => return Ok(()),
                    other => self.press(other).await?,
                },
            }
        }
    }

    async fn begin(&mut self) -> anyhow::Result<()> {
        let count = self.nodes.len();
        println!("Starting {count} nodes ...");
        let started = Instant::now();
        for index in 0..count {
            self.start(index)?;
        }
        self.wait_until_ready().await?;
        println!(
            "Ready after {:.1} s. Writing an hour of history ...",
            started.elapsed().as_secs_f64()
        );
        let samples = feed::history(&self.client, &self.nodes).await?;
        println!("Wrote {samples} samples.\n");
        Ok(())
    }

    async fn press(&mut self, key: Key) -> anyhow::Result<()> {
        match key {
            Key::Kill => match self
                .nodes
                .iter_mut()
                .rev()
                .find_map(|n| n.is_running().then_some(n))
            {
                Some(node) => {
                    node.kill().await?;
                    println!("Killed {}. Press r to restart it.", node.name);
                }
                None => println!("No node is running."),
            },
            Key::Restart => match (0..self.nodes.len()).find(|i| !self.nodes[*i].is_running()) {
                Some(index) => {
                    self.start(index)?;
                    println!("Restarted {}.", self.nodes[index].name);
                }
                None => println!("All nodes are running."),
            },
            Key::Add => {
                self.nodes
                    .push(Node::prepare(self.nodes.len() + 1, &self.directory)?);
                let index = self.nodes.len() - 1;
                self.start(index)?;
                let node = &self.nodes[index];
                println!("Added {}: http://{}", node.name, node.http);
            }
            Key::Quit | Key::Other => println!("Keys: k kill, r restart, a add, q quit."),
        }
        Ok(())
    }

    fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let seeds: Vec<_> = self.nodes.iter().take(3).map(Node::peer).collect();
        self.nodes[index].start(&seeds)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        for node in &mut self.nodes {
            while !node.is_ready(&self.client).await {
                if !node.is_running() {
                    bail!("{} ended; its log is {}", node.name, node.log().display());
                }
                if Instant::now() > deadline {
                    bail!(
                        "{} is not ready; its log is {}",
                        node.name,
                        node.log().display()
                    );
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn print_guide(&self, keys: bool) {
        for node in &self.nodes {
            println!(
                "  {}  http://{}   log {}",
                node.name,
                node.http,
                node.log().display()
            );
        }
        let url = format!("http://{}", self.nodes[0].http);
        println!("\nTry, at any of the nodes:");
        println!(
            "  trefoil query metrics --url {url} 'sum by (service) (rate(shop_http_requests_total[1m]))'"
        );
        println!("  curl -s '{url}/api/v1/query?query=up'");
        println!("  trefoil cluster status --url {url}");
        println!("As a Grafana data source of type Prometheus: {url}/prometheus");
        if keys {
            println!("\nKeys: k kill -9 a node   r restart it   a add a node   q quit");
        }
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        println!("Stopping ...");
        futures::future::join_all(self.nodes.iter_mut().map(Node::stop))
            .await
            .into_iter()
            .collect()
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Resolves at SIGINT, at SIGTERM, and when the terminal goes away: the nodes are not in its process group.
async fn stopped() {
    let arrives = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = arrives(SignalKind::interrupt()) => {}
        () = arrives(SignalKind::terminate()) => {}
        () = arrives(SignalKind::hangup()) => {}
    }
}
