//! The controller of a stateful set and the kubelet of its pods, on hosts of a site: host `i` runs pod `i`.
//!
//! A pod has its volume as long as it is claimed, and another address each time it starts. It ends as in a cluster: services forget
//! it, its preStop hook runs, SIGTERM, and after 30 s SIGKILL, which is a failure here.

use crate::{
    manifests::{PodFacts, StatefulSet},
    pods::{DOMAIN, Pods, probe},
};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::task::{JoinHandle, block_in_place};
use trefoil_jepsen::{HttpClient, nemesis::check_owner, site::Site, trefoil_binary, wait_until};

/// How long a pod may take until it is available, and the cluster until it has moved replicas.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long one question may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Becomes the container: a mount namespace in which the cluster's name server is asked.
const CONTAINER: &str = r#"mount --bind "$1" /etc/resolv.conf && shift && exec env "$@""#;
/// Labels of the machines, by turns.
const ZONES: [&str; 3] = ["a", "b", "c"];

/// What stopping pods took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StopFigures {
    /// Pods that were stopped.
    pub(crate) stopped: u64,
    /// The longest preStop hook.
    pub(crate) longest_hook: Duration,
    /// The longest time from SIGTERM to the end.
    pub(crate) longest_end: Duration,
}

/// Runs one stateful set.
pub(crate) struct Controller {
    site: Site,
    set: StatefulSet,
    pods: Pods,
    volumes: PathBuf,
    replicas: usize,
    had_an_address: BTreeSet<usize>,
    probes: BTreeMap<usize, JoinHandle<()>>,
    http: HttpClient,
    figures: StopFigures,
}

impl Controller {
    /// Starts all replicas at once; does not wait for them.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(crate) fn begin(
        site: Site,
        set: &StatefulSet,
        pods: &Pods,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let volumes = folder.join("volumes");
        set.write_volumes(&volumes)?;
        let server = site.clients_address().context("hosts on loopback")?;
        let resolver = format!(
            "nameserver {server}\nsearch {DOMAIN} svc.cluster.local cluster.local\noptions ndots:5\n"
        );
        fs::write(volumes.join("resolv.conf"), resolver)?;
        let mut controller = Self {
            site,
            set: set.clone(),
            pods: pods.clone(),
            volumes,
            replicas: set.replicas,
            had_an_address: BTreeSet::new(),
            probes: BTreeMap::new(),
            http: HttpClient::new(ANSWER_WAIT_MAX),
            figures: StopFigures::default(),
        };
        for ordinal in 0..set.replicas {
            controller.start_pod(ordinal)?;
        }
        Ok(controller)
    }

    /// What stopping pods took so far.
    pub(crate) fn figures(&self) -> StopFigures {
        self.figures
    }

    /// Names and base URLs of all pods.
    pub(crate) fn urls(&self) -> Vec<(String, String)> {
        let pods = 0..self.replicas;
        pods.map(|ordinal| (self.pod_name(ordinal), self.url(ordinal)))
            .collect()
    }

    /// Prints the last lines of every pod's log.
    pub(crate) fn print_logs(&self) {
        for host in self.site.hosts() {
            let log = host.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- {}:\n{}", host.name, last.join("\n"));
        }
    }

    fn pod_name(&self, ordinal: usize) -> String {
        format!("{}-{ordinal}", self.set.name)
    }

    fn address(&self, ordinal: usize) -> IpAddr {
        self.site.host(ordinal).http.ip()
    }

    fn url(&self, ordinal: usize) -> String {
        format!("http://{}:{}", self.address(ordinal), self.set.http_port)
    }

    fn start_pod(&mut self, ordinal: usize) -> anyhow::Result<()> {
        if !self.had_an_address.insert(ordinal) {
            self.site.readdress(ordinal)?;
        }
        let name = self.pod_name(ordinal);
        let address = self.address(ordinal);
        let host = self.site.host_mut(ordinal);
        let words = self.set.words(&PodFacts {
            name: &name,
            address,
            zone: ZONES[ordinal % ZONES.len()],
            volumes: &self.volumes,
            data: &host.data(),
        })?;
        let resolver = self.volumes.join("resolv.conf").display().to_string();
        let begin = [
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            CONTAINER,
            "pod",
        ];
        let mut arguments: Vec<String> = begin.map(str::to_owned).to_vec();
        arguments.push(resolver);
        arguments.extend(words);
        host.start_program(Path::new("unshare"), &arguments)?;
        self.pods.add(ordinal, address);
        let probing = probe(
            self.pods.clone(),
            self.set.clone(),
            ordinal,
            self.url(ordinal),
        );
        self.probes.insert(ordinal, tokio::spawn(probing));
        Ok(())
    }

    /// Ends a pod as the kubelet does. Its volume stays.
    async fn stop_pod(&mut self, ordinal: usize) -> anyhow::Result<()> {
        self.pods.terminate(ordinal);
        let begun = Instant::now();
        let hook: Vec<&str> = self.set.pre_stop.iter().map(String::as_str).collect();
        let said = self.execute(ordinal, &hook)?;
        let hook = begun.elapsed();
        ensure!(hook < self.set.grace, "the preStop hook took {hook:?}");
        let host = self.site.host_mut(ordinal);
        let begun = Instant::now();
        let status = block_in_place(|| host.stop())?;
        let end = begun.elapsed();
        ensure!(status.success(), "pod {ordinal} ended with {status}");
        if let Some(probes) = self.probes.remove(&ordinal) {
            probes.abort();
        }
        self.pods.remove(ordinal);
        self.figures.stopped += 1;
        self.figures.longest_hook = self.figures.longest_hook.max(hook);
        self.figures.longest_end = self.figures.longest_end.max(end);
        eprintln!(
            "pod {ordinal}: hook {hook:.1?} ({}), end {end:.1?}",
            said.trim()
        );
        Ok(())
    }

    /// `kubectl exec POD -- /trefoil ...`; what it printed.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub(crate) fn execute(&self, ordinal: usize, arguments: &[&str]) -> anyhow::Result<String> {
        let program = trefoil_binary()?;
        let program = program.to_str().context("a path that is text")?;
        let output = block_in_place(|| self.site.host(ordinal).output(program, arguments))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "pod {ordinal}: {arguments:?}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    }

    /// Waits until pods are available: ready, for as long as the stateful set asks for.
    ///
    /// # Errors
    /// When they are not in time.
    pub(crate) async fn wait_available(
        &self,
        pods: impl Iterator<Item = usize>,
    ) -> anyhow::Result<()> {
        for ordinal in pods {
            let what = format!("pod {ordinal} is available");
            let available = wait_until(&what, PATIENCE, || async {
                let ready = self.pods.ready_for(ordinal).context("it is not ready")?;
                ensure!(ready >= self.set.min_ready, "ready for {ready:?}");
                Ok(())
            });
            available.await?;
        }
        Ok(())
    }

    /// Replaces all pods, from the highest ordinal down, each when the one before is available.
    ///
    /// # Errors
    /// When one does not end or does not become available.
    pub(crate) async fn update(&mut self) -> anyhow::Result<()> {
        for ordinal in (0..self.replicas).rev() {
            self.stop_pod(ordinal).await?;
            self.start_pod(ordinal)?;
            self.wait_available(std::iter::once(ordinal)).await?;
        }
        Ok(())
    }

    /// Adds pods, all at once, and waits until they are available and own replicas.
    ///
    /// # Errors
    /// When they do not in time.
    pub(crate) async fn scale_up(&mut self, replicas: usize) -> anyhow::Result<()> {
        let added = self.replicas..replicas;
        self.replicas = replicas;
        for ordinal in added.clone() {
            self.start_pod(ordinal)?;
        }
        self.wait_available(added.clone()).await?;
        for ordinal in added {
            self.wait_owner(ordinal, true).await?;
        }
        Ok(())
    }

    /// Takes pods away as documented: drained, stopped, removed, their volumes deleted, one after the other.
    ///
    /// # Errors
    /// When a step fails or is not done in time.
    pub(crate) async fn scale_down(&mut self, replicas: usize) -> anyhow::Result<()> {
        while self.replicas > replicas {
            let ordinal = self.replicas - 1;
            let name = self.pod_name(ordinal);
            self.execute(0, &["cluster", "drain", &name])?;
            self.wait_owner(ordinal, false).await?;
            self.replicas = ordinal;
            self.stop_pod(ordinal).await?;
            self.execute(0, &["cluster", "remove", &name])?;
            self.site.host_mut(ordinal).delete_data()?;
        }
        Ok(())
    }

    async fn wait_owner(&self, ordinal: usize, owner: bool) -> anyhow::Result<()> {
        let name = self.pod_name(ordinal);
        let what = format!("{name} owns replicas: {owner}");
        let url = format!("{}/trefoil/api/v1/cluster", self.url(0));
        let done = wait_until(&what, PATIENCE, || async {
            let document: Value = self.http.get(&url).await?.json()?;
            check_owner(&document, &name, owner)
        });
        done.await.map(drop)
    }

    /// Waits until `trefoil cluster verify` finds all replicas equal; how long that took.
    ///
    /// # Errors
    /// When they are not in time: with what it said.
    pub(crate) async fn wait_equal(&self, patience: Duration) -> anyhow::Result<Duration> {
        let equal = wait_until("cluster verify finds equal replicas", patience, || async {
            self.execute(0, &["cluster", "verify"])
        });
        Ok(equal.await?.1)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        for probes in self.probes.values() {
            probes.abort();
        }
    }
}
