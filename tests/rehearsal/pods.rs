//! What the cluster knows of its pods: the kubelet's probes write it, the client service and the name server read it.
//!
//! As in a cluster, news takes its time: a probe sees a change at its next turn, and services and names follow one to
//! two [`NEWS_TRAVEL`] later. Until then clients are sent to a pod that is going, and not to one that has come.

use crate::{
    dns::Names,
    manifests::{Probe, StatefulSet},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;
use trefoil_jepsen::{HttpClient, Service};

/// Half of the longest time until services and names follow.
const NEWS_TRAVEL: Duration = Duration::from_secs(1);
/// The domain that the cluster adds to services' names.
pub(crate) const DOMAIN: &str = "default.svc.cluster.local";

/// All pods by their ordinals. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Pods(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pods: BTreeMap<usize, Pod>,
    longest_start: Duration,
    complaints: Vec<String>,
}

struct Pod {
    address: IpAddr,
    started: Instant,
    ready_since: Option<Instant>,
    terminating: bool,
}

impl Pods {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod was started and is not ready yet.
    pub(crate) fn add(&self, ordinal: usize, address: IpAddr) {
        let pod = Pod {
            address,
            started: Instant::now(),
            ready_since: None,
            terminating: false,
        };
        self.state().pods.insert(ordinal, pod);
    }

    /// A pod is about to end: services forget it, whatever its probes say.
    pub(crate) fn terminate(&self, ordinal: usize) {
        if let Some(pod) = self.state().pods.get_mut(&ordinal) {
            pod.terminating = true;
        }
    }

    /// A pod is gone.
    pub(crate) fn remove(&self, ordinal: usize) {
        self.state().pods.remove(&ordinal);
    }

    /// For how long a pod has been ready.
    pub(crate) fn ready_for(&self, ordinal: usize) -> Option<Duration> {
        let state = self.state();
        let since = state.pods.get(&ordinal)?.ready_since?;
        Some(since.elapsed())
    }

    /// The longest time from the start of a pod until a probe found it ready.
    pub(crate) fn longest_start(&self) -> Duration {
        self.state().longest_start
    }

    /// What probes found wrong with pods that were not about to end.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.state().complaints.clone()
    }

    fn complain(&self, ordinal: usize, what: &str) {
        let state = &mut *self.state();
        if state.pods.get(&ordinal).is_some_and(|pod| !pod.terminating) {
            state.complaints.push(format!("pod {ordinal}: {what}"));
        }
    }

    fn set_ready(&self, ordinal: usize, why_not: Option<&str>) {
        let state = &mut *self.state();
        let Some(pod) = state.pods.get_mut(&ordinal) else {
            return;
        };
        match why_not {
            None if pod.ready_since.is_none() => {
                pod.ready_since = Some(Instant::now());
                state.longest_start = state.longest_start.max(pod.started.elapsed());
            }
            Some(why) if pod.ready_since.take().is_some() && !pod.terminating => {
                let what = format!("pod {ordinal} is not ready any more: {why}");
                state.complaints.push(what);
            }
            _ => {}
        }
    }

    /// Where the client service leads: pods that are ready and not about to end.
    fn endpoints(&self, port: u16) -> Vec<String> {
        let state = self.state();
        let serving = state.pods.values();
        serving
            .filter(|pod| pod.ready_since.is_some() && !pod.terminating)
            .map(|pod| format!("http://{}:{port}", pod.address))
            .collect()
    }

    /// The headless service, which also has pods that are not ready, and each pod below it.
    fn names(&self, set: &StatefulSet) -> BTreeMap<String, Vec<IpAddr>> {
        let state = self.state();
        let service = format!("{}.{DOMAIN}", set.service);
        let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (ordinal, pod) in &state.pods {
            let name = format!("{}-{ordinal}.{service}", set.name);
            names.insert(name, vec![pod.address]);
            names.entry(service.clone()).or_default().push(pod.address);
        }
        names
    }
}

/// Lets services and names follow, for ever.
pub(crate) async fn publish(pods: Pods, set: StatefulSet, service: Service, names: Names) {
    let mut ticks = tokio::time::interval(NEWS_TRAVEL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut endpoints, mut addresses) = (Vec::new(), BTreeMap::new());
    loop {
        ticks.tick().await;
        service.set_nodes(endpoints);
        names.set(addresses);
        endpoints = pods.endpoints(set.http_port);
        addresses = pods.names(&set);
    }
}

/// Probes a pod as the kubelet does: the startup probe until it succeeds, then the others for ever.
pub(crate) async fn probe(pods: Pods, set: StatefulSet, ordinal: usize, url: String) {
    let mut failed = 0;
    let mut ticks = ticks(&set.startup);
    while let Err(why) = look(&set.startup, &mut ticks, &url).await {
        failed += 1;
        if failed == set.startup.failures {
            pods.complain(ordinal, &format!("would be killed, did not start: {why}"));
        }
    }
    tokio::join!(
        probe_readiness(&pods, &set, ordinal, &url),
        probe_liveness(&pods, &set, ordinal, &url)
    );
}

async fn probe_readiness(pods: &Pods, set: &StatefulSet, ordinal: usize, url: &str) {
    let mut failed = 0;
    let mut ticks = ticks(&set.readiness);
    loop {
        match look(&set.readiness, &mut ticks, url).await {
            Ok(()) => {
                failed = 0;
                pods.set_ready(ordinal, None);
            }
            Err(why) => {
                failed += 1;
                if failed >= set.readiness.failures {
                    pods.set_ready(ordinal, Some(&why));
                }
            }
        }
    }
}

async fn probe_liveness(pods: &Pods, set: &StatefulSet, ordinal: usize, url: &str) {
    let mut ticks = ticks(&set.liveness);
    loop {
        // One failure would not kill it, but nothing here explains one.
        if let Err(why) = look(&set.liveness, &mut ticks, url).await {
            pods.complain(ordinal, &format!("does not look alive: {why}"));
        }
    }
}

fn ticks(probe: &Probe) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(probe.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Probes once, at the next turn and over a connection of its own; why it failed.
async fn look(probe: &Probe, ticks: &mut tokio::time::Interval, url: &str) -> Result<(), String> {
    ticks.tick().await;
    let client = HttpClient::new(probe.timeout);
    match client.get(&format!("{url}{}", probe.path)).await {
        Ok(answer) if answer.is_success() => Ok(()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
        Err(error) => Err(format!("{error:#}")),
    }
}
