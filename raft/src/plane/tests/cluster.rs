//! A cluster of planes in one process: their transport is a table, their disks are simulated.

use crate::codec;
use crate::engine::Types;
use crate::plane::wire::Header;
use crate::state::{Command, MemberDescription, Reply, State};
use crate::{
    Addresses, BootstrapSettings, Identity, MetadataError, MetadataPlane, PeerView, PlaneOptions,
    Role, RpcKind, RpcRequest, Transport, TransportError,
};
use async_trait::async_trait;
use bytes::Bytes;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use trefoil_model::{ClusterId, NodeId};
use trefoil_store_pages::{CrashLoss, Disk, SimulatedDisk};

pub(super) const CLUSTER: ClusterId = ClusterId(0xC1);
/// How long a test waits for a state that must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The network: who runs, and which directed links are cut.
#[derive(Default)]
pub(super) struct Net {
    planes: Mutex<BTreeMap<NodeId, MetadataPlane>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// One of n requests is lost, and one of n answers; 0: none.
    lose_one_of: AtomicU64,
    calls: AtomicU64,
    /// Of what a leader sends to its followers only heartbeats arrive that tell it nothing about
    /// their logs, so it can show that it leads, but cannot commit.
    pub(super) only_bare_heartbeats: AtomicBool,
    pub(super) snapshot_chunks: AtomicU64,
}

struct Wire {
    net: Arc<Net>,
    from: NodeId,
}

#[async_trait]
impl Transport for Wire {
    async fn call(
        &self,
        target: NodeId,
        request: RpcRequest,
        _deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let net = &self.net;
        let unreachable = || TransportError::Unreachable {
            node: target,
            reason: "cut".to_owned(),
        };
        let withheld = net.only_bare_heartbeats.load(Ordering::Relaxed)
            && request.kind == RpcKind::AppendEntries
            && !is_bare_heartbeat(&request.bytes);
        if withheld || net.is_cut(self.from, target) || net.loses() {
            return Err(unreachable());
        }
        if request.kind == RpcKind::SnapshotChunk {
            net.snapshot_chunks.fetch_add(1, Ordering::Relaxed);
        }
        let plane = net
            .planes
            .lock()
            .get(&target)
            .cloned()
            .ok_or_else(unreachable)?;
        let answer = plane.handle(request.kind, request.bytes).await;
        if net.is_cut(target, self.from) || net.loses() {
            return Err(TransportError::TimedOut { node: target });
        }
        answer.map_err(|error| TransportError::Refused {
            node: target,
            reason: error.to_string(),
        })
    }
}

fn is_bare_heartbeat(bytes: &[u8]) -> bool {
    let request: (Header, AppendEntriesRequest<Types>) =
        codec::decode(codec::Kind::Request, bytes).unwrap();
    request.1.prev_log_id.is_none() && request.1.entries.is_empty()
}

impl Net {
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.lock().contains(&(from, to))
    }

    /// Spread as a hash is: what is lost by count can fall on the same question in every round.
    fn loses(&self) -> bool {
        let every = self.lose_one_of.load(Ordering::Relaxed);
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut hash = DefaultHasher::new();
        hash.write_u64(call);
        every > 0 && hash.finish().is_multiple_of(every)
    }
}

/// A machine: its disk stays when its plane goes.
pub(super) struct Machine {
    pub(super) node: NodeId,
    pub(super) disk: SimulatedDisk,
    peers: watch::Sender<PeerView>,
}

/// Machines on one network.
pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    pub(super) machines: Vec<Machine>,
    pub(super) options: PlaneOptions,
}

impl Cluster {
    /// `count` running planes that are one cluster, all voters, all members.
    pub(super) async fn begin(count: usize, options: impl FnOnce(&mut PlaneOptions)) -> Self {
        let mut cluster = Self::empty(options);
        for _ in 0..count {
            cluster.add_machine().await;
        }
        cluster.everybody_sees_all();
        let nodes = cluster.nodes();
        for node in &nodes {
            cluster
                .plane(*node)
                .initialize(CLUSTER, &nodes)
                .await
                .unwrap();
        }
        for node in &nodes {
            cluster.announce(*node).await;
            let named = |state: &State| state.cluster() == Some(CLUSTER);
            state_where(&cluster.plane(*node), "the cluster's name", named).await;
        }
        cluster
    }

    pub(super) fn empty(options: impl FnOnce(&mut PlaneOptions)) -> Self {
        let mut settings = PlaneOptions {
            // Timings for a machine that runs other tests beside this one.
            materialise: false,
            automation_interval: Duration::from_millis(50),
            propose_deadline: Duration::from_secs(15),
            read_deadline: Duration::from_secs(15),
            ..PlaneOptions::new(PathBuf::from("/meta"))
        };
        options(&mut settings);
        Self {
            net: Arc::default(),
            machines: Vec::new(),
            options: settings,
        }
    }

    /// Adds a machine with an empty disk and starts its plane.
    pub(super) async fn add_machine(&mut self) -> NodeId {
        let disk = SimulatedDisk::new(self.machines.len() as u64);
        let identity = Identity::open(Arc::new(disk.clone()), &self.options.directory).unwrap();
        let node = identity.node();
        let (peers, _) = watch::channel(PeerView::default());
        self.machines.push(Machine { node, disk, peers });
        self.start(node).await.unwrap();
        node
    }

    pub(super) fn machine(&self, node: NodeId) -> &Machine {
        self.machines
            .iter()
            .find(|machine| machine.node == node)
            .unwrap()
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.machines.iter().map(|machine| machine.node).collect()
    }

    pub(super) fn plane(&self, node: NodeId) -> MetadataPlane {
        self.net.planes.lock().get(&node).cloned().unwrap()
    }

    /// The planes that run.
    pub(super) fn planes(&self) -> Vec<MetadataPlane> {
        self.net.planes.lock().values().cloned().collect()
    }

    pub(super) async fn start(&self, node: NodeId) -> Result<(), MetadataError> {
        let machine = self.machine(node);
        let disk: Arc<dyn Disk> = Arc::new(machine.disk.clone());
        let identity = Identity::open(Arc::clone(&disk), &self.options.directory)?;
        let wire = Wire {
            net: Arc::clone(&self.net),
            from: node,
        };
        let plane = MetadataPlane::start(
            self.options.clone(),
            identity,
            disk,
            Arc::new(wire),
            machine.peers.subscribe(),
        )
        .await?;
        self.net.planes.lock().insert(node, plane);
        Ok(())
    }

    /// A power cut on one machine.
    pub(super) async fn crash(&self, node: NodeId, loss: CrashLoss) {
        self.machine(node).disk.crash(loss);
        self.stop(node).await;
    }

    pub(super) async fn stop(&self, node: NodeId) {
        let plane = self.net.planes.lock().remove(&node);
        if let Some(plane) = plane {
            plane.shutdown().await;
        }
    }

    /// Cuts all links between the two groups.
    pub(super) fn cut(&self, one: &[NodeId], other: &[NodeId]) {
        let mut cut = self.net.cut.lock();
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            cut.insert((a, b));
            cut.insert((b, a));
        }
    }

    pub(super) fn heal(&self) {
        self.net.cut.lock().clear();
        self.net.lose_one_of.store(0, Ordering::Relaxed);
    }

    pub(super) fn lose_one_of(&self, n: u64) {
        self.net.lose_one_of.store(n, Ordering::Relaxed);
    }

    pub(super) fn everybody_sees(&self, alive: &[NodeId]) {
        let view = PeerView {
            seen: self.nodes().into_iter().collect(),
            alive: alive.iter().copied().collect(),
        };
        for machine in &self.machines {
            machine.peers.send_replace(view.clone());
        }
    }

    pub(super) fn everybody_sees_all(&self) {
        self.everybody_sees(&self.nodes());
    }

    pub(super) fn description(&self, node: NodeId) -> MemberDescription {
        MemberDescription {
            name: format!("n-{node}"),
            zone: String::new(),
            weight: 100,
            addresses: Addresses::default(),
            version: "test".to_owned(),
            format_level_max: crate::state::FORMAT_LEVEL_FIRST,
            lineage: self.plane(node).identity().lock().lineage(),
        }
    }

    /// Lets a node say who it is, as it does at each start.
    pub(super) async fn announce(&self, node: NodeId) {
        let command = Command::AddMember {
            node,
            description: self.description(node),
        };
        self.plane(node).propose(command).await.unwrap();
    }

    /// Lets these nodes found or join a cluster, all at once.
    pub(super) async fn form(&self, nodes: &[NodeId], expect: usize) -> Vec<ClusterId> {
        let settings = BootstrapSettings {
            expect,
            seed_addresses: expect,
        };
        let mut tasks = tokio::task::JoinSet::new();
        for node in nodes {
            let plane = self.plane(*node);
            let (description, settings) = (self.description(*node), fixed(settings));
            tasks.spawn(async move { plane.form(settings, description).await.unwrap() });
        }
        let all = tasks.join_all();
        match tokio::time::timeout(PATIENCE, all).await {
            Ok(clusters) => clusters,
            Err(_) => panic!("a cluster did not form: {}", self.describe()),
        }
    }

    /// What every running plane says of itself, for a test that failed.
    fn describe(&self) -> String {
        let planes = self.planes();
        let lines = planes
            .iter()
            .map(|plane| format!("\n{:?} {:?}", plane.forming_reason(), plane.status()));
        lines.collect()
    }

    /// The leader that a majority of the running planes knows.
    pub(super) async fn leader(&self) -> NodeId {
        let majority = self.machines.len() / 2 + 1;
        let known = || {
            let planes = self.planes();
            let leader = planes
                .iter()
                .find(|plane| plane.status().role == Role::Leader)?
                .node();
            let knowing = planes
                .iter()
                .filter(|plane| plane.leader() == Some(leader))
                .count();
            (knowing >= majority).then_some(leader)
        };
        eventually("a leader", known).await
    }
}

/// Waits for something that must come.
pub(super) async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pulse = tokio::time::interval(Duration::from_millis(10));
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        pulse.tick().await;
    }
}

/// Waits until a plane's state fulfils a condition.
pub(super) async fn state_where(
    plane: &MetadataPlane,
    what: &str,
    mut holds: impl FnMut(&State) -> bool,
) -> Arc<State> {
    let mut states = plane.watch();
    let reached = states.wait_for(|state| holds(state));
    match tokio::time::timeout(PATIENCE, reached).await {
        Ok(Ok(state)) => Arc::clone(&state),
        _ => panic!("{what} did not come"),
    }
}

pub(super) async fn create_tenant(
    plane: &MetadataPlane,
    name: &str,
) -> Result<Reply, MetadataError> {
    let command = Command::CreateTenant {
        name: name.to_owned(),
    };
    plane.propose(command).await
}

/// Settings that stay as they are.
pub(super) fn fixed(settings: BootstrapSettings) -> watch::Receiver<BootstrapSettings> {
    watch::channel(settings).1
}
