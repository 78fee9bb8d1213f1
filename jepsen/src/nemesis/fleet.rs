//! The nodes of a run as a nemesis and the runner see them: hosts with or without a running node, and what they say.

use crate::{
    HttpClient,
    site::{Host, Site},
    wait_until,
    workload::Addresses,
};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long one question may take; a paused node never answers.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long nodes may take to be ready after a fault. Copies to a new node take the longest.
pub(super) const RECOVERY_MAX: Duration = Duration::from_secs(90);

/// Hosts, of which the first ones run nodes all the time and the last is for a node that joins.
pub struct Fleet {
    site: Site,
    nodes: usize,
    seeds: Vec<SocketAddr>,
    addresses: Addresses,
    http: HttpClient,
}

impl Fleet {
    /// Starts a node on each host but the last, and waits until all are ready.
    ///
    /// # Errors
    /// When a node cannot be started or is not ready in time.
    pub async fn start(site: Site, addresses: &Addresses) -> anyhow::Result<Self> {
        let nodes = site.hosts().len() - 1;
        let seeds = site.hosts()[..nodes]
            .iter()
            .map(|host| host.advertised)
            .collect();
        let mut fleet = Self {
            site,
            nodes,
            seeds,
            addresses: addresses.clone(),
            http: HttpClient::new(ANSWER_WAIT_MAX),
        };
        for node in 0..nodes {
            fleet.start_node(node)?;
        }
        fleet.wait_ready(RECOVERY_MAX).await?;
        Ok(fleet)
    }

    /// Nodes that clients ask. The spare host is the one after them.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The number of the host for a node that joins.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.nodes
    }

    /// The hosts and their network.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// A host, to do something to it.
    pub fn host(&mut self, node: usize) -> &mut Host {
        self.site.host_mut(node)
    }

    /// The hosts, to do something to several.
    pub fn site_mut(&mut self) -> &mut Site {
        &mut self.site
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// When it runs, or cannot be started.
    pub fn start_node(&mut self, node: usize) -> anyhow::Result<()> {
        let (seeds, expect) = (self.seeds.clone(), self.nodes);
        self.site.host_mut(node).start(&seeds, expect, &[])?;
        self.publish();
        Ok(())
    }

    /// Tells the clients where the nodes are.
    fn publish(&self) {
        let urls = self.site.hosts()[..self.nodes].iter().map(Host::url);
        self.addresses.set(urls.collect());
    }

    /// Starts every node that does not run: it ended by itself, or a fault ended it. The spare one stays as it is.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_ended(&mut self) -> anyhow::Result<()> {
        for node in 0..self.nodes {
            if !self.site.host_mut(node).is_running() {
                self.start_node(node)?;
            }
        }
        Ok(())
    }

    /// Waits until all nodes say that they are ready; how long that took. Nodes that end meanwhile are started
    /// again: a node may end itself when its disk failed.
    ///
    /// # Errors
    /// With the last reason, when they are not in time.
    pub async fn wait_ready(&mut self, patience: Duration) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut restarts = 0;
        for node in 0..self.nodes {
            loop {
                let why = match self.readiness(node).await {
                    Ok(()) => break,
                    Err(error) => format!("{error:#}"),
                };
                let name = self.site.host(node).name.clone();
                ensure!(begun.elapsed() < patience, "{name} is not ready: {why}");
                if !self.site.host_mut(node).is_running() {
                    restarts += 1;
                    ensure!(restarts < 10, "{name} ends again and again: {why}");
                    self.start_node(node)?;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(begun.elapsed())
    }

    /// Whether a node says that it is ready; its reason when it is not.
    ///
    /// # Errors
    /// When it is not ready or does not answer.
    pub async fn readiness(&self, node: usize) -> anyhow::Result<()> {
        let url = format!("{}/-/ready", self.site.host(node).url());
        let answer = self.http.get(&url).await?;
        ensure!(answer.is_success(), "{} {}", answer.status, answer.text());
        Ok(())
    }

    /// The state of the cluster, as the first node that answers sees it.
    ///
    /// # Errors
    /// When none does.
    pub async fn describe(&self) -> anyhow::Result<Value> {
        let mut last = None;
        for node in 0..self.nodes {
            let url = format!("{}/trefoil/api/v1/cluster", self.site.host(node).url());
            match self.http.get(&url).await.and_then(|answer| answer.json()) {
                Ok(document) => return Ok(document),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there are no nodes")?)
    }

    /// The node that leads the metadata plane, if it is one of those that clients ask.
    ///
    /// # Errors
    /// When no node knows.
    pub async fn leader(&self) -> anyhow::Result<Option<usize>> {
        let document = self.describe().await?;
        let leader = document["leader"].as_str().context("no leader is known")?;
        let mut hosts = self.site.hosts()[..self.nodes].iter();
        Ok(hosts.position(|host| host.name == leader))
    }

    /// Asks for something that the administration API does to a node, at whichever node takes it.
    ///
    /// # Errors
    /// When none takes it in time: with the last answer.
    pub async fn administer(&self, what: &str, node: usize) -> anyhow::Result<()> {
        let name = &self.site.host(node).name;
        let body = json!({ "node": name }).to_string();
        let headers = [("content-type", "application/json")];
        let what_for = format!("{what} {name}");
        let done = wait_until(&what_for, RECOVERY_MAX, || async {
            let mut said = String::new();
            for asked in (0..self.nodes).filter(|asked| *asked != node) {
                let url = self.site.host(asked).url();
                let url = format!("{url}/trefoil/api/v1/cluster/{what}");
                match self.http.post(&url, &headers, body.clone()).await {
                    Ok(answer) if answer.is_success() => return Ok(()),
                    Ok(answer) => said = format!("{} {}", answer.status, answer.text()),
                    Err(error) => said = format!("{error:#}"),
                }
            }
            bail!("{said}")
        });
        done.await.map(drop)
    }

    /// Waits until a node owns replicas, and nothing moves (`true`), or owns none (`false`).
    ///
    /// # Errors
    /// When that is not so in time.
    pub async fn wait_owner(&self, node: usize, owner: bool) -> anyhow::Result<()> {
        let name = &self.site.host(node).name;
        let what = format!("{name} is an owner: {owner}");
        let done = wait_until(&what, RECOVERY_MAX, || async {
            let document = self.describe().await?;
            check_owner(&document, name, owner)
        });
        done.await.map(drop)
    }

    /// Compares the content of all replicas: (equal, how much was compared, what differs).
    ///
    /// # Errors
    /// When the node cannot compare.
    pub async fn compare(&self, node: usize) -> anyhow::Result<(bool, u64, Vec<String>)> {
        let url = format!("{}/trefoil/api/v1/digests", self.site.host(node).url());
        let document = self.http.get(&url).await?.json()?;
        let equal = document["equal"].as_bool().context("no verdict")?;
        let compared = document["compared"].as_u64().context("no count")?;
        let differs = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        let differing = differs("unequal").into_iter().chain(differs("unreachable"));
        let words = differing.take(10).map(|one| one.to_string()).collect();
        Ok((equal, compared, words))
    }

    /// A client for questions of the harness itself.
    #[must_use]
    pub fn http(&self) -> &HttpClient {
        &self.http
    }
}

/// Fails unless nothing moves in a description of the cluster, and a node owns replicas (`true`) or none (`false`).
///
/// # Errors
/// Says what is not so.
pub fn check_owner(document: &Value, name: &str, owner: bool) -> anyhow::Result<()> {
    let configurations = document["configurations"].as_array();
    let configurations = configurations.context("no configurations")?;
    let names = |list: &Value| {
        let list = list.as_array();
        list.is_some_and(|list| list.iter().any(|n| n == name))
    };
    let owns = configurations
        .iter()
        .any(|c| names(&c["old"]) || names(&c["new"]));
    let moving = configurations.iter().any(|c| c["old"] != c["new"]);
    let replicas = configurations
        .iter()
        .flat_map(|c| c["replicas"].as_array())
        .flatten();
    let filling = replicas
        .filter(|replica| replica["state"] != "serving")
        .count();
    ensure!(owns == owner, "it is not so yet");
    ensure!(
        !moving && filling == 0,
        "replicas are moving, {filling} do not serve"
    );
    Ok(())
}
