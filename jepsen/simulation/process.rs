//! One run of a node's process: it comes up as `trefoil serve` does, and ends at any instant.
//!
//! ```text
//! identity -> gossip, peers' handlers, metadata plane -> cluster (formed or joined)
//!   -> data plane recovered from blocks and journal -> member's tasks
//! ```
//! An end takes all tasks away at once, makes the disk useless for whatever is still being torn down, and lets the
//! power cut decide about what was not synced.

use crate::{
    bugs::Bug,
    coverage::Seen,
    disk::DiskOfRun,
    gossip::Gossip,
    member::Member,
    network::{Class, NoAnswer},
    plane::{Plane, PlaneParts, prepare},
    world::World,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::AbortHandle};
use trefoil_gossip::{Load, NodeInfo, NodePhase};
use trefoil_model::{ClusterId, Incarnation, LineageId, NodeId};
use trefoil_raft::{
    Addresses, DiskWork, Identity, MemberDescription, MetadataError, MetadataPlane, PlaneFaults,
    PlaneOptions, RpcRequest, Transport, TransportError, formation::BootstrapSettings,
};
use trefoil_store_pages::{CrashLoss, Disk};

/// The data directory of every node on its own disk.
pub(crate) const DIRECTORY: &str = "/data";
/// The other nodes' whereabouts, until gossip says something newer.
pub(crate) type Directory = BTreeMap<NodeId, Whereabouts>;

/// Where a node is, by gossip's word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whereabouts {
    pub(crate) peer: SocketAddr,
    pub(crate) alive: bool,
}

/// Who a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) lineage: LineageId,
    pub(crate) fresh: bool,
}

/// A run of a process.
pub(crate) struct Process {
    pub(crate) world: Arc<World>,
    pub(crate) machine: usize,
    alive: Arc<AtomicBool>,
    disk: Arc<dyn Disk>,
    tasks: Mutex<Vec<AbortHandle>>,
    who: OnceLock<Who>,
    pub(crate) directory: Mutex<Directory>,
    pub(crate) gossip: OnceLock<Gossip>,
    pub(crate) metadata: OnceLock<MetadataPlane>,
    pub(crate) plane: OnceLock<Arc<Plane>>,
    pub(crate) member: Member,
}

impl World {
    /// Starts the process of a machine, if it does not run and may.
    pub(crate) fn start(self: &Arc<Self>, index: usize) {
        let mut machine = self.machine(index);
        if machine.process.is_some() || machine.condemned.is_some() {
            return;
        }
        let alive = Arc::new(AtomicBool::new(true));
        let process = Arc::new(Process {
            world: self.clone(),
            machine: index,
            disk: Arc::new(DiskOfRun {
                disk: machine.disk.clone(),
                alive: alive.clone(),
            }),
            alive,
            tasks: Mutex::default(),
            who: OnceLock::new(),
            directory: Mutex::default(),
            gossip: OnceLock::new(),
            metadata: OnceLock::new(),
            plane: OnceLock::new(),
            member: Member::default(),
        });
        machine.process = Some(process.clone());
        let name = machine.name.clone();
        drop(machine);
        self.tell(format_args!("{name} starts"));
        let starting = process.clone();
        process.spawn(async move {
            if let Err(error) = starting.boot().await {
                starting.end(
                    &format!("cannot start: {error}"),
                    matches!(error, MetadataError::Damaged { .. }),
                );
            }
        });
    }

    /// Ends the process of a machine; what was not synced meets this fate.
    pub(crate) fn crash(&self, index: usize, loss: CrashLoss) {
        let mut machine = self.machine(index);
        let process = machine.process.take();
        machine.disk.crash(loss);
        // What was asked for and has not happened is not for the next run.
        machine.disk.stop_failing();
        drop(machine);
        if let Some(process) = process {
            process.tear_down();
        }
    }
}

impl Process {
    /// The node's id, once it is known.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.who.get().map(|who| who.node)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// The name of the machine.
    pub(crate) fn name(&self) -> String {
        self.world.machine(self.machine).name.clone()
    }

    /// Runs a task that ends with the process.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if !self.is_alive() {
            return;
        }
        let handle = tokio::spawn(work).abort_handle();
        let mut tasks = self.tasks.lock();
        tasks.push(handle);
        if tasks.len().is_multiple_of(256) {
            tasks.retain(|task| !task.is_finished());
        }
    }

    /// The process ends by itself, as a real one does by `exit` or `abort`. `unusable`: its data directory must not be
    /// used again.
    pub(crate) fn end(&self, why: &str, unusable: bool) {
        if !self.is_alive() {
            return;
        }
        self.world.tell(format_args!("{} ends: {why}", self.name()));
        if unusable {
            let mut machine = self.world.machine(self.machine);
            machine.condemned = Some(why.to_owned());
            let innocent = !machine.damaged;
            drop(machine);
            if innocent {
                let name = self.name();
                let how = format!("{name} lost nothing and must not be used again: {why}");
                self.world.broken(how);
            }
        }
        self.world.crash(self.machine, CrashLoss::Nothing);
    }

    fn tear_down(&self) {
        self.alive.store(false, Ordering::Relaxed);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        if let Some(metadata) = self.metadata.get() {
            let metadata = metadata.clone();
            tokio::spawn(async move { metadata.shutdown().await });
        }
    }

    async fn boot(self: &Arc<Self>) -> Result<(), MetadataError> {
        let world = &self.world;
        tokio::time::sleep(world.disk_pause()).await;
        let directory = Path::new(DIRECTORY);
        let own = Identity::open(self.disk.clone(), &directory.join("meta"))?;
        let who = Who {
            node: own.node(),
            incarnation: own.incarnation(),
            lineage: own.lineage(),
            fresh: own.is_fresh(),
        };
        self.who.set(who).ok();
        {
            let mut machine = world.machine(self.machine);
            if machine.nodes.last() != Some(&who.node) {
                machine.nodes.push(who.node);
            }
        }
        if own.cluster().is_none()
            && let Err(error) = prepare(&self.disk, who.lineage)
        {
            self.end(&format!("cannot prepare: {error:#}"), false);
            return Ok(());
        }
        let info = self.describe(own.cluster());
        self.gossip.set(Gossip::start(self, info.clone())).ok();
        let transport = Arc::new(Peers(self.clone()));
        let view = self.gossip().peer_view();
        let metadata =
            MetadataPlane::start(self.options(), own, self.disk.clone(), transport, view).await?;
        self.metadata.set(metadata.clone()).ok();
        let (process, watched) = (self.clone(), metadata.clone());
        self.spawn(async move {
            let error = watched.failed().await;
            process.world.saw(Seen::MetadataPlaneFailed);
            process.end(&format!("the metadata plane has failed: {error}"), false);
        });
        let cluster = self.join(&metadata, info.cluster).await?;
        world.tell(format_args!("{} belongs to cluster {cluster}", self.name()));
        self.recover(&metadata, cluster).await
    }

    /// Brings the data plane up, and the member's tasks.
    async fn recover(
        self: &Arc<Self>,
        metadata: &MetadataPlane,
        cluster: ClusterId,
    ) -> Result<(), MetadataError> {
        tokio::time::sleep(self.world.disk_pause()).await;
        let (wishes, wanted) = tokio::sync::mpsc::channel(crate::plane::WISHES_WAITING_MAX);
        let parts = PlaneParts {
            process: self.clone(),
            disk: self.disk.clone(),
            cluster,
            who: self.who(),
            policy: crate::member::store_policy(&metadata.state()),
            wishes,
        };
        match Plane::recover(parts) {
            Ok(plane) => {
                self.plane.set(plane.clone()).ok();
                Member::start(self, wanted);
                plane.start_maintenance();
                Ok(())
            }
            Err(error) => {
                // After an error of the disk the next start may do better.
                let by_disk =
                    |cause: &(dyn std::error::Error + 'static)| cause.is::<std::io::Error>();
                let unusable = !error.chain().any(by_disk);
                self.end(&format!("cannot recover: {error:#}"), unusable);
                Ok(())
            }
        }
    }

    pub(crate) fn who(&self) -> Who {
        *self
            .who
            .get()
            .expect("an identity is read before anything else begins")
    }

    pub(crate) fn gossip(&self) -> &Gossip {
        self.gossip
            .get()
            .expect("gossip runs before anything asks for it")
    }

    fn options(&self) -> PlaneOptions {
        let setup = &self.world.setup;
        let mut options = PlaneOptions::new(Path::new(DIRECTORY).join("meta"));
        options.materialise = false;
        options.snapshot_entries = setup.snapshot_entries;
        options.replace_after = crate::member::REPLACE_AFTER;
        options.entries_kept = setup.snapshot_entries / 4;
        let world = self.world.clone();
        options.disk_work = DiskWork::Tasks(Arc::new(move || world.disk_pause()));
        options.faults = PlaneFaults {
            log_acknowledges_early: self.world.has_bug(Bug::RaftAcknowledgesBeforeFsync),
            promise_not_written: self.world.has_bug(Bug::PromiseTwice),
            retries_renumbered: self.world.has_bug(Bug::LoseIdempotency),
        };
        options
    }

    async fn join(
        self: &Arc<Self>,
        metadata: &MetadataPlane,
        known: Option<ClusterId>,
    ) -> Result<ClusterId, MetadataError> {
        let (_, bootstrap) = tokio::sync::watch::channel(BootstrapSettings {
            expect: self.world.setup.expect,
            seed_addresses: self.world.setup.founders,
        });
        let who = self.who();
        let address = self.world.machine(self.machine).address;
        let description = MemberDescription {
            name: self.name(),
            zone: String::new(),
            weight: 100,
            addresses: Addresses {
                peer: address.to_string(),
                http: address.to_string(),
            },
            version: "simulated".to_owned(),
            format_level_max: 1,
            lineage: who.lineage,
        };
        if let Some(cluster) = known {
            let (process, metadata) = (self.clone(), metadata.clone());
            self.spawn(async move {
                if let Err(error) = metadata.form(bootstrap, description).await {
                    // A member that was removed while it was away starts empty, as the operator is told to.
                    let removed = matches!(error, MetadataError::Refused(_));
                    process.end(&format!("cannot go on as a member: {error}"), removed);
                }
            });
            return Ok(cluster);
        }
        let cluster = metadata.form(bootstrap, description).await?;
        self.world.saw(Seen::Joined);
        Ok(cluster)
    }

    /// What the node says of itself.
    pub(crate) fn describe(&self, cluster: Option<ClusterId>) -> NodeInfo {
        let who = self.who();
        let machine = self.world.machine(self.machine);
        NodeInfo {
            node: who.node,
            name: machine.name.clone(),
            zone: String::new(),
            http: machine.address,
            peer: machine.address,
            incarnation: who.incarnation,
            cluster,
            version: "simulated".to_owned(),
            load: Load::default(),
            phase: NodePhase::Bootstrapping,
        }
    }

    pub(crate) fn take_datagram(self: &Arc<Self>, bytes: &[u8]) {
        if let Some(gossip) = self.gossip.get() {
            gossip.take(self, bytes);
        }
    }

    /// Where a peer is, when gossip has said so.
    pub(crate) fn machine_of(&self, node: NodeId) -> Option<usize> {
        let peer = self.directory.lock().get(&node)?.peer;
        self.world.at_address(peer)
    }
}

/// Reaches the metadata planes of the other nodes.
struct Peers(Arc<Process>);

#[async_trait]
impl Transport for Peers {
    async fn call(
        &self,
        target: NodeId,
        request: RpcRequest,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let own = &self.0;
        let unreachable = |reason: &str| TransportError::Unreachable {
            node: target,
            reason: reason.to_owned(),
        };
        if !own.is_alive() {
            return Err(unreachable("this process has ended"));
        }
        let Some(machine) = own.machine_of(target) else {
            return Err(unreachable("its address is not known"));
        };
        let asked = own
            .world
            .ask(own, (machine, target, Class::Metadata), move |process| {
                Box::pin(async move {
                    let metadata = process.metadata.get().cloned()?;
                    process.world.trace(format_args!(
                        "{} takes {:?} of {} bytes",
                        process.name(),
                        request.kind,
                        request.bytes.len()
                    ));
                    Some(metadata.handle(request.kind, request.bytes).await)
                })
            });
        match tokio::time::timeout(deadline, asked).await {
            Err(_) => Err(TransportError::TimedOut { node: target }),
            Ok(Err(NoAnswer::NobodyThere)) | Ok(Ok(None)) => Err(unreachable("nobody listens")),
            Ok(Err(NoAnswer::Ended)) => Err(TransportError::TimedOut { node: target }),
            Ok(Ok(Some(Err(error)))) => Err(TransportError::Refused {
                node: target,
                reason: error.to_string(),
            }),
            Ok(Ok(Some(Ok(bytes)))) => Ok(bytes),
        }
    }
}

/// What the metadata plane is told of gossip's view.
pub(crate) type PeerViews = watch::Receiver<trefoil_raft::PeerView>;
