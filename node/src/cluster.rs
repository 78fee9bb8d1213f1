//! The node as a member: follows the metadata plane and gossip, and leads when it is the leader.
//!
//! Gossip is advice: it says whom to ask and who seems dead. Only the metadata plane decides. What the
//! replication core wants from the metadata plane comes here as wishes.

pub(crate) mod admin;
pub(crate) mod clocks;
mod deletions;
pub(crate) mod delta_lease;
pub(crate) mod follow;
pub(crate) mod known_cut_offs;
pub(crate) mod known_deletions;
pub(crate) mod known_series;
mod lead;
mod readiness;
pub(crate) mod replicas;
mod retention;
mod snapshots;
mod space;
mod stopping;
mod tenant_retention;
mod tenants;
mod values;
pub(crate) mod wishes;

use crate::{
    clock::ClusterClock,
    config::Settings,
    data_plane::DataPlane,
    gossip_driver::Gossip,
    query::evaluator::Evaluator,
    transport::{client::Connections, directory::Directory, identity::LocalIdentity},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
pub(crate) use tenant_retention::{check_selector, is_same_selector};
use tokio::sync::{Notify, watch};
use trefoil_gossip::{Load, NodePhase};
use trefoil_model::{DeletionVersion, NodeId, TenantId};
use trefoil_raft::{Command, MetadataError, MetadataPlane, Reply};
use wishes::NodeReport;

/// How long the store may take to follow a state that is here. It takes microseconds, if the machine gives them.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(2);

/// Everything that a member needs of its node.
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) identity: Arc<LocalIdentity>,
    pub(crate) metadata: MetadataPlane,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) gossip: Gossip,
    pub(crate) directory: Arc<Directory>,
    pub(crate) connections: Arc<Connections>,
    /// What this node works on for its peers.
    pub(crate) evaluator: Evaluator,
    /// The last report of every node, at the leader.
    reports: Mutex<BTreeMap<NodeId, NodeReport>>,
    /// Since when a node seems dead, by this node's boot clock.
    dead_since: Mutex<BTreeMap<NodeId, Duration>>,
    /// What the last decision about movements waits for, in words.
    waiting: Mutex<Vec<String>>,
    /// Whether this node was ready since it started.
    was_ready: AtomicBool,
    /// That this node is about to stop, if somebody has said so.
    stopping: Mutex<Option<stopping::Stop>>,
    /// Held by who waits for this node's turn to stop.
    preparing_stop: tokio::sync::Mutex<()>,
    /// The snapshot that is made through this node.
    snapshot: Mutex<Option<String>>,
    /// Who writes about pairs of senders.
    pair_turns: Arc<replicas::Turns>,
    /// Tenants for whose series limits can speak.
    recalled: known_series::Recalled,
    /// Whether this node adds deltas up.
    delta_lease: delta_lease::DeltaLease,
    /// Wakes who describes this node to the others.
    pub(crate) described_anew: Notify,
    /// What "now" is for acceptance, retention and queries.
    pub(crate) clock: Arc<ClusterClock>,
    /// The place in the Raft log of the state that store and core have been told of; 0 until one is as new as what was
    /// acknowledged before this run.
    followed: watch::Sender<u64>,
    /// By tenant, the newest deletion that the store knows.
    deletions_known: Mutex<Arc<BTreeMap<TenantId, DeletionVersion>>>,
}

impl Cluster {
    pub(crate) fn new(
        settings: Settings,
        identity: Arc<LocalIdentity>,
        metadata: MetadataPlane,
        plane: Arc<DataPlane>,
        gossip: Gossip,
        directory: Arc<Directory>,
        connections: Arc<Connections>,
    ) -> Arc<Self> {
        let clock = plane.clock.clone();
        Arc::new(Self {
            evaluator: Evaluator::new(settings.part_concurrency)
                .keeping(usize::try_from(settings.answers_kept_bytes).unwrap_or(usize::MAX)),
            settings,
            identity,
            metadata,
            plane,
            gossip,
            directory,
            connections,
            reports: Mutex::default(),
            dead_since: Mutex::default(),
            waiting: Mutex::default(),
            was_ready: AtomicBool::new(false),
            stopping: Mutex::default(),
            preparing_stop: tokio::sync::Mutex::default(),
            snapshot: Mutex::default(),
            pair_turns: Arc::default(),
            recalled: known_series::Recalled::default(),
            delta_lease: delta_lease::DeltaLease::default(),
            described_anew: Notify::new(),
            clock,
            followed: watch::Sender::new(0),
            deletions_known: Mutex::default(),
        })
    }

    /// Starts the member's tasks on the current runtime; they end with it.
    pub(crate) fn start(
        self: &Arc<Self>,
        wishes: tokio::sync::mpsc::Receiver<crate::data_plane::MetadataWish>,
    ) {
        tokio::spawn(follow::metadata(self.clone()));
        tokio::spawn(follow::peers(self.clone()));
        tokio::spawn(lead::run(self.clone()));
        tokio::spawn(follow::reach(self.clone()));
        tokio::spawn(clocks::run(self.clone()));
        tokio::spawn(retention::compare(self.clone()));
        tokio::spawn(wishes::run(self.clone(), wishes));
    }

    /// The tenant of this name, made when it is new. Waits until this node knows what was decided before
    /// it started: an item must not carry a deletion version from before its time.
    ///
    /// # Errors
    /// When it is new and the metadata plane cannot record it now, or the node has not caught up.
    pub(crate) async fn tenant_for_write(&self, name: &str) -> Result<TenantId, MetadataError> {
        self.follow_up().await?;
        if let Some(tenant) = self.tenant(name) {
            return Ok(tenant);
        }
        let command = Command::CreateTenant {
            name: name.to_owned(),
        };
        match self.metadata.propose(command).await? {
            Reply::Tenant(tenant) => Ok(tenant),
            other => Err(MetadataError::Encoding {
                what: "reply to CreateTenant",
                reason: format!("{other:?}"),
            }),
        }
    }

    /// The tenant of this name; none when it has never written anywhere in the cluster.
    ///
    /// # Errors
    /// When this node does not know the name and cannot ask the metadata plane now: the tenant may have
    /// written through another node. When it has not caught up since it started: what it knows of the
    /// tenant may be older than a deletion.
    pub(crate) async fn tenant_for_query(
        &self,
        name: &str,
    ) -> Result<Option<TenantId>, MetadataError> {
        self.follow_up().await?;
        if let Some(tenant) = self.tenant(name) {
            return Ok(Some(tenant));
        }
        let state = self.metadata.read_linearizable().await?;
        self.has_followed(state.applied().index).await?;
        Ok(self.tenant(name))
    }

    /// Waits until this node has caught up with what was decided before it started, and its store knows all of that:
    /// the metadata plane hears of a deletion before the store does.
    ///
    /// # Errors
    /// When the metadata plane cannot be asked now.
    pub(crate) async fn follow_up(&self) -> Result<(), MetadataError> {
        self.metadata.catch_up().await?;
        // Any state that was followed after catching up: later ones keep nobody waiting.
        self.has_followed(1).await
    }

    /// The newest deletion of a tenant that this node knows; items that it writes are stamped with it. A forgotten one's
    /// number stays used: items written now are newer than it. One that this program cannot read is not among them, so it
    /// stops no writes.
    pub(crate) fn newest_deletion(&self, tenant: TenantId) -> DeletionVersion {
        let known = self.deletions_known.lock();
        known.get(&tenant).copied().unwrap_or_default()
    }

    /// Waits until the store and the core know what the metadata plane's state at this place of its log says.
    ///
    /// # Errors
    /// [`MetadataError::NoLeader`] when they do not within [`FOLLOW_PATIENCE`].
    pub(crate) async fn has_followed(&self, index: u64) -> Result<(), MetadataError> {
        let mut followed = self.followed.subscribe();
        let reached = followed.wait_for(|followed| *followed >= index);
        match tokio::time::timeout(FOLLOW_PATIENCE, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(MetadataError::NoLeader {
                reason: "this node has not followed what was decided".to_owned(),
            }),
        }
    }

    /// The tenant of this name, if this node knows that it has written.
    fn tenant(&self, name: &str) -> Option<TenantId> {
        self.metadata.state().tenant_id(name)
    }

    /// A node's name for people; its id when nobody has named it.
    pub(crate) fn node_name(&self, node: NodeId) -> String {
        let state = self.metadata.state();
        state
            .member(node)
            .map_or_else(|| node.to_string(), |m| m.description.name.clone())
    }

    /// The node that people mean by a name or an id.
    pub(crate) fn find_node(&self, text: &str) -> Option<NodeId> {
        let state = self.metadata.state();
        let by_name = state.member_by_name(text).map(|member| member.node);
        by_name.or_else(|| {
            text.parse()
                .ok()
                .filter(|node| state.member(*node).is_some())
        })
    }

    /// Takes a node's report; only the leader uses it.
    pub(crate) fn take_report(&self, node: NodeId, report: NodeReport) {
        self.reports.lock().insert(node, report);
    }

    /// What this node is doing, for the others.
    pub(crate) fn phase(&self) -> NodePhase {
        match self.readiness() {
            _ if self.is_stopping() => NodePhase::Stopping,
            Ok(()) => NodePhase::Ready,
            Err(_) => NodePhase::Bootstrapping,
        }
    }

    /// How much this node holds, for the others.
    pub(crate) fn load(&self) -> Load {
        let stats = self.plane.engine().statistics();
        let bytes = stats.block_bytes + self.plane.journal().bytes_on_disk();
        Load {
            series: stats.series_active.values().sum(),
            bytes,
        }
    }

    fn is_leader(&self) -> bool {
        self.metadata.leader() == Some(self.identity.node)
    }
}
