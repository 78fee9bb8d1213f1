//! What the leader does by itself: names the cluster, turns members into learners and voters, lets
//! time pass while leases are held, and asks for a snapshot when the log has grown in bytes rather
//! than in entries.

use super::{MetadataPlane, PeerView};
use crate::engine::Raft;
use crate::state::{Command, MemberState};
use crate::voters::{self, Candidate, Change, View};
use openraft::ChangeMembers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use trefoil_model::NodeId;

type Metrics = openraft::RaftMetrics<u64, openraft::EmptyNode>;

/// A learner that is this many entries behind counts as caught up.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// How long a change of the Raft group may take before the leader looks again.
const CHANGE_DEADLINE: Duration = Duration::from_secs(5);
/// Unpurged bytes of the log that call for a snapshot whatever the number of entries.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// Starts the task; it ends when the plane goes.
pub(super) fn start(
    plane: &MetadataPlane,
    peer_view: watch::Receiver<PeerView>,
) -> tokio::task::JoinHandle<()> {
    let task = Task {
        plane: std::sync::Arc::downgrade(&plane.inner),
        peer_view,
        dead_since: BTreeMap::new(),
        ticked_term: 0,
    };
    tokio::spawn(task.run(plane.inner.options.automation_interval))
}

struct Task {
    plane: Weak<super::Inner>,
    peer_view: watch::Receiver<PeerView>,
    /// When each member was first seen dead, by this node's clock.
    dead_since: BTreeMap<NodeId, Instant>,
    /// The term in which this leader has let time begin.
    ticked_term: u64,
}

impl Task {
    async fn run(mut self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(inner) = self.plane.upgrade() else {
                return;
            };
            self.round(&MetadataPlane { inner }).await;
        }
    }

    async fn round(&mut self, plane: &MetadataPlane) {
        self.note_deaths(plane);
        let raft = &plane.inner.raft;
        let metrics = raft.metrics().borrow().clone();
        bound_log_bytes(plane, &metrics).await;
        if metrics.current_leader != Some(plane.node().0) || !metrics.state.is_leader() {
            return;
        }
        self.name_cluster(plane).await;
        self.let_time_begin(plane, metrics.current_term).await;
        let membership = metrics.membership_config.membership();
        if membership.get_joint_config().len() > 1 {
            finish_change(raft).await;
            return;
        }
        let view = self.view(plane, &metrics);
        if let Some(change) = voters::decide(&view) {
            change_group(raft, change).await;
        }
    }

    /// Remembers since when members are dead. Also on followers, so that a new leader does not
    /// count anew.
    fn note_deaths(&mut self, plane: &MetadataPlane) {
        let alive = self.peer_view.borrow().alive.clone();
        let state = plane.state();
        let now = Instant::now();
        self.dead_since.retain(|node, _| !alive.contains(node));
        for member in state.members() {
            if member.node != plane.node() && !alive.contains(&member.node) {
                self.dead_since.entry(member.node).or_insert(now);
            }
        }
    }

    /// The first command of a cluster's life.
    async fn name_cluster(&self, plane: &MetadataPlane) {
        if plane.state().cluster().is_some() {
            return;
        }
        let Some(cluster) = plane.cluster() else {
            return;
        };
        if let Err(error) = plane.propose(Command::BeginCluster { cluster }).await {
            tracing::warn!(%error, "the cluster is not named yet");
        }
    }

    /// A new leader's first stamp proves nothing; until there is one, leases of dead holders do not
    /// run out.
    async fn let_time_begin(&mut self, plane: &MetadataPlane, term: u64) {
        if self.ticked_term == term || plane.state().leases().next().is_none() {
            return;
        }
        match plane.propose(Command::Tick).await {
            Ok(_) => self.ticked_term = term,
            Err(error) => tracing::warn!(%error, "time does not pass yet"),
        }
    }

    fn view(&self, plane: &MetadataPlane, metrics: &Metrics) -> View {
        let state = plane.state();
        let alive = self.peer_view.borrow().alive.clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let caught_up = |node: NodeId| {
            let replicated = metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(&node.0));
            let index = replicated.copied().flatten().map(|id| id.index);
            index.is_some_and(|index| index + CAUGHT_UP_ENTRIES >= last)
        };
        let lost_for = |node: NodeId| self.dead_since.get(&node).map(Instant::elapsed);
        let members = state.members().map(|member| {
            let node = member.node;
            let patience = match member.superseded_by {
                Some(_) => Duration::ZERO,
                None => plane.inner.options.replace_after,
            };
            let candidate = Candidate {
                zone: member.description.zone.clone(),
                alive: node == plane.node() || alive.contains(&node),
                lost: lost_for(node).is_some_and(|dead| dead >= patience),
                draining: member.state == MemberState::Draining,
                removed: member.state == MemberState::Removed,
                caught_up: caught_up(node),
            };
            (node, candidate)
        });
        let membership = metrics.membership_config.membership();
        View {
            leader: plane.node(),
            members: members.collect(),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
        }
    }
}

/// Few large entries can fill the log before there are enough of them for a snapshot.
async fn bound_log_bytes(plane: &MetadataPlane, metrics: &Metrics) {
    if plane.inner.stores.log.bytes() <= LOG_BYTES_MAX {
        return;
    }
    let trigger = plane.inner.raft.trigger();
    let begun = match metrics.snapshot {
        // Nothing new to put into a snapshot: the entries that are kept behind it are too large.
        Some(snapshot) if metrics.snapshot == metrics.last_applied => {
            trigger.purge_log(snapshot.index).await
        }
        _ => trigger.snapshot().await,
    };
    if let Err(error) = begun {
        tracing::warn!(%error, "the Raft log cannot be made smaller");
    }
}

/// Ends a change of the voters that is half done. Its two halves are two entries, and the leader that wrote the first may
/// have ended before the second: then both groups would have to agree for ever, and no other change could begin.
async fn finish_change(raft: &Raft) {
    let nothing_more = ChangeMembers::AddVoterIds(BTreeSet::new());
    let finished = raft.change_membership(nothing_more, true);
    match tokio::time::timeout(CHANGE_DEADLINE, finished).await {
        Ok(Ok(_)) => tracing::info!("finished a change of the Raft group that was half done"),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the change of the Raft group is not finished yet")
        }
        Err(_) => tracing::warn!("the end of a change of the Raft group takes long"),
    }
}

async fn change_group(raft: &Raft, change: Change) {
    tracing::info!(?change, "the Raft group changes");
    let changed = async {
        match &change {
            Change::AddLearner(node) => raft
                .add_learner(node.0, openraft::EmptyNode {}, false)
                .await
                .map(drop),
            Change::RemoveLearner(node) => {
                let gone = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
                raft.change_membership(gone, true).await.map(drop)
            }
            Change::SetVoters(voters) => {
                let voters: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
                // Former voters stay as learners; those that were removed go in the next round.
                raft.change_membership(voters, true).await.map(drop)
            }
        }
    };
    match tokio::time::timeout(CHANGE_DEADLINE, changed).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, ?change, "the Raft group did not change"),
        Err(_) => tracing::warn!(?change, "the change of the Raft group takes long"),
    }
}
