//! The facade: everything that the rest of the program sees of the metadata plane.
//!
//! Tasks of a plane: openraft's own, the leader's queue of proposals, the queue of readers, the
//! leader's automation, and, until it succeeds, catching up. They end at [`MetadataPlane::shutdown`]. Every wait has a deadline.

mod asking;
mod automation;
mod catching_up;
mod forming;
mod network;
mod options;
mod proposals;
mod reads;
mod receiver;
mod server;
mod standing;
pub(crate) mod stores;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

pub use options::{PeerView, PlaneFaults, PlaneOptions, Role, Status};

use crate::engine::Raft;
use crate::formation::{Agreement, Identity, promise};
use crate::patience::Patience;
use crate::state::{LogPosition, MemberDescription, State};
use crate::transport::RpcKind;
use crate::{MetadataError, Transport};
use forming::Reasons;
use network::Peers;
use openraft::{EmptyNode, RaftMetrics, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use proposals::{Lanes, LeaderQueue};
use reads::ReadQueue;
use receiver::Receiver;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use stores::Stores;
use tokio::sync::watch;
use trefoil_model::{ClusterId, NodeId};
use trefoil_store_pages::Disk;
use wire::{JoinAnswer, JoinRequest};

/// How long a part of a snapshot may take.
const SNAPSHOT_CHUNK_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait for news about the leader before asking again.
const LEADER_POLL: Duration = Duration::from_millis(50);
/// Entries of one `AppendEntries` message.
const PAYLOAD_ENTRIES_MAX: u64 = 256;

/// The metadata plane of one node. Clones are handles of the same plane.
#[derive(Clone)]
pub struct MetadataPlane {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    options: PlaneOptions,
    identity: Arc<Mutex<Identity>>,
    /// The cluster of the identity, or the one that the node promised to found.
    cluster: Arc<Mutex<Option<ClusterId>>>,
    raft: Raft,
    stores: Stores,
    state: watch::Receiver<Arc<State>>,
    peers: Peers,
    peer_view: watch::Receiver<PeerView>,
    disk: Arc<dyn Disk>,
    agreement: tokio::sync::Mutex<Agreement>,
    forming_reason: Mutex<Reasons>,
    lanes: Lanes,
    leader_queue: LeaderQueue,
    read_queue: ReadQueue,
    receiver: Receiver,
    /// Whether a linearizable read has succeeded in this run.
    caught_up: watch::Sender<bool>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

/// Who leads. A leader that left the group holds itself for one once more after a restart.
fn leader_of(metrics: &openraft::RaftMetrics<u64, EmptyNode>) -> Option<NodeId> {
    let leader = metrics.current_leader?;
    let is_other = leader != metrics.id;
    (is_other || metrics.state.is_leader()).then_some(NodeId(leader))
}

impl MetadataPlane {
    /// Starts the plane on what its directory holds. A node without a cluster waits for
    /// [`MetadataPlane::initialize`], or for a leader that makes it a learner. On a full disk it waits for space;
    /// who waits no longer drops the future.
    ///
    /// # Errors
    /// [`MetadataError::Settings`]; [`MetadataError::Damaged`] when the directory no longer proves
    /// what the node promised, in which case it must not run as this node.
    pub async fn start(
        options: PlaneOptions,
        identity: Identity,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
        peer_view: watch::Receiver<PeerView>,
    ) -> Result<Self, MetadataError> {
        options.check()?;
        let node = identity.node();
        let belongs_to = identity.cluster();
        let opened = {
            let options = options.clone();
            let disk = Arc::clone(&disk);
            move || {
                let promise = promise::read(&*disk, &options.directory)?;
                let may_begin = belongs_to.is_none() && promise.is_none();
                let stores = stores::open(&disk, &options, node, may_begin)?;
                Ok((promise, stores))
            }
        };
        let patience = Patience::default();
        let opened = patience.run(&options.disk_work, "open the metadata", opened);
        let (promise, stores) = opened.await?;
        let promised_to = promise.as_ref().map(|founding| founding.cluster);
        let cluster = Arc::new(Mutex::new(belongs_to.or(promised_to)));
        let peers = Peers::new(node, Arc::clone(&cluster), transport);
        let log_end = stores.log.last();
        let raft = Raft::new(
            node.0,
            Arc::new(raft_config(&options)?),
            peers.clone(),
            stores.log.clone(),
            stores.machine.clone(),
        )
        .await
        .map_err(|error| stopped(&error))?;
        let read_queue = ReadQueue::start(
            node,
            (raft.clone(), stores.machine.watch()),
            peers.clone(),
            options.election_max * 2,
            log_end,
        );
        let plane = Self {
            inner: Arc::new(Inner {
                node,
                identity: Arc::new(Mutex::new(identity)),
                cluster,
                state: stores.machine.watch(),
                peer_view: peer_view.clone(),
                disk,
                agreement: tokio::sync::Mutex::new(forming::agreement(node, promise, belongs_to)),
                forming_reason: Mutex::default(),
                lanes: Lanes::new(),
                leader_queue: LeaderQueue::start(raft.clone(), options.propose_deadline),
                read_queue,
                receiver: Receiver::default(),
                caught_up: watch::Sender::new(false),
                tasks: Mutex::default(),
                options,
                raft,
                stores,
                peers,
            }),
        };
        let tasks = [
            automation::start(&plane, peer_view),
            catching_up::start(&plane),
            tokio::spawn(tell_failure(plane.inner.raft.metrics())),
        ];
        plane.inner.tasks.lock().extend(tasks);
        Ok(plane)
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Begins the cluster with these voters. Every voter may call it, with the same arguments: the
    /// caller has made sure that all of them agreed (see [`crate::formation`]). Does nothing when
    /// the cluster has begun.
    ///
    /// # Errors
    /// [`MetadataError::OtherCluster`]; [`MetadataError::Disk`]; [`MetadataError::Stopped`].
    pub async fn initialize(
        &self,
        cluster: ClusterId,
        members: &[NodeId],
    ) -> Result<(), MetadataError> {
        self.belong_to(cluster).await?;
        let voters: BTreeMap<u64, EmptyNode> =
            members.iter().map(|node| (node.0, EmptyNode {})).collect();
        match self.inner.raft.initialize(voters).await {
            Ok(()) => Ok(()),
            Err(openraft::error::RaftError::APIError(
                openraft::error::InitializeError::NotAllowed(_),
            )) => Ok(()),
            Err(error) => Err(stopped(&error)),
        }
    }

    /// Asks a member to make this node one too, and then belongs to its cluster. Repeating it is
    /// harmless; a member brings its description up to date with it.
    ///
    /// # Errors
    /// [`MetadataError::NoLeader`] when the member did not answer, and [`MetadataError::NotAdmitted`] when it says why it
    /// does not commit it: try again or elsewhere; [`MetadataError::OtherCluster`] when this node belongs to another cluster.
    pub async fn join(
        &self,
        via: NodeId,
        description: MemberDescription,
    ) -> Result<ClusterId, MetadataError> {
        let request = JoinRequest {
            node: self.inner.node,
            description,
        };
        let deadline = self.inner.options.propose_deadline;
        let answer = self
            .inner
            .peers
            .call(via, RpcKind::Join, &request, deadline);
        match answer.await {
            Ok(JoinAnswer::Joined { cluster }) => {
                self.belong_to(cluster).await?;
                Ok(cluster)
            }
            Ok(JoinAnswer::Refused { reason }) => Err(MetadataError::NotAdmitted { reason }),
            Err(error) => Err(MetadataError::NoLeader {
                reason: error.to_string(),
            }),
        }
    }

    /// Writes the cluster into the identity, durably.
    pub(crate) async fn belong_to(&self, cluster: ClusterId) -> Result<(), MetadataError> {
        let identity = Arc::clone(&self.inner.identity);
        let joined = move || identity.lock().join_cluster(cluster);
        self.inner.options.disk_work.run(joined).await??;
        *self.inner.cluster.lock() = Some(cluster);
        self.inner.agreement.lock().await.joined(cluster);
        Ok(())
    }

    /// Says why when the Raft task has ended.
    fn check_running(&self) -> Result<(), MetadataError> {
        match &self.inner.raft.metrics().borrow().running_state {
            Ok(()) => Ok(()),
            Err(error) => Err(stopped(error)),
        }
    }

    /// Waits until the plane has stopped by itself, because a disk failed; the reason. Only a restart helps.
    pub async fn failed(&self) -> MetadataError {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if let Err(error) = self.check_running() {
                return error;
            }
            if let Err(error) = metrics.changed().await {
                return stopped(&error);
            }
        }
    }

    /// The newest version of the state on this node; it may lack what others have acknowledged.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.state.borrow())
    }

    /// Follows the versions of the state on this node. Versions may be skipped; the newest never
    /// is.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.inner.state.clone()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        leader_of(&self.inner.raft.metrics().borrow())
    }

    /// The cluster to which this node belongs or has promised itself.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        *self.inner.cluster.lock()
    }

    /// Who this node is, for a change of its lineage.
    #[must_use]
    pub fn identity(&self) -> &Arc<Mutex<Identity>> {
        &self.inner.identity
    }

    /// This node's view of the Raft group.
    #[must_use]
    pub fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let role = match (&metrics.running_state, metrics.state) {
            (Err(_), _) | (_, ServerState::Shutdown) => Role::Stopped,
            (_, ServerState::Leader) => Role::Leader,
            (_, ServerState::Candidate) => Role::Candidate,
            (_, ServerState::Follower) => Role::Follower,
            (_, ServerState::Learner) => Role::Learner,
        };
        // A leader that has lost its majority goes on calling itself one, and decides nothing.
        let patience = self.inner.options.election_max * 2;
        let acknowledged = metrics.millis_since_quorum_ack.map(Duration::from_millis);
        let leads = role != Role::Leader || acknowledged.is_some_and(|since| since <= patience);
        Status {
            node: self.inner.node,
            cluster: self.cluster(),
            role,
            leader: leader_of(&metrics).filter(|_| leads),
            term: metrics.current_term,
            last_applied: metrics
                .last_applied
                .map(LogPosition::from)
                .unwrap_or_default(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
        }
    }

    /// A note of this node alone, which may be lost at a power cut; none when there is none or
    /// nothing is kept.
    #[must_use]
    pub fn local_note(&self, key: &str) -> Option<Vec<u8>> {
        self.inner.stores.machine.materialised()?.note(key)
    }

    /// Keeps a note of this node alone. Does nothing when the plane was started without
    /// `materialise`.
    ///
    /// # Errors
    /// [`MetadataError::Disk`].
    pub fn keep_local_note(&self, key: &str, bytes: &[u8]) -> Result<(), MetadataError> {
        match self.inner.stores.machine.materialised() {
            Some(materialised) => materialised.keep_note(key, bytes),
            None => Ok(()),
        }
    }

    /// Stops the plane and writes what is outstanding. Calls that are under way fail.
    pub async fn shutdown(&self) {
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        // The Raft task hears of its end only between two writes.
        self.inner.stores.log.stop_waiting();
        self.inner.stores.machine.stop_waiting();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the Raft task ended badly");
        }
        let inner = Arc::clone(&self.inner);
        let close = move || {
            inner.stores.log.close();
            inner.stores.machine.close();
        };
        if let Err(error) = self.inner.options.disk_work.run(close).await {
            tracing::warn!(%error, "the metadata stores were not closed");
        }
    }
}

/// Says why the Raft task has ended, if it does before the plane is shut down: from then on only a restart helps, and the
/// Raft library's own log is not heard by default.
async fn tell_failure(mut metrics: watch::Receiver<RaftMetrics<u64, EmptyNode>>) {
    loop {
        let failure = metrics.borrow_and_update().running_state.clone().err();
        if let Some(error) = failure {
            tracing::error!(%error, "the metadata plane has stopped by itself; this node has to be started again");
            return;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn stopped(error: &dyn std::error::Error) -> MetadataError {
    MetadataError::Stopped {
        reason: error.to_string(),
    }
}

fn raft_config(options: &PlaneOptions) -> Result<openraft::Config, MetadataError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let config = openraft::Config {
        cluster_name: "trefoil".to_owned(),
        heartbeat_interval: millis(options.heartbeat),
        election_timeout_min: millis(options.election_min),
        election_timeout_max: millis(options.election_max),
        install_snapshot_timeout: millis(SNAPSHOT_CHUNK_DEADLINE),
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        replication_lag_threshold: options.snapshot_entries + options.entries_kept,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_entries),
        max_in_snapshot_log_to_keep: options.entries_kept,
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| MetadataError::Settings {
        reason: error.to_string(),
    })
}
