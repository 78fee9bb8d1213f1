//! What the facade is started with, and what it tells about itself.

use crate::{DiskWork, LogPosition, MetadataError};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use trefoil_model::{ClusterId, NodeId};

/// Settings of the metadata plane on one node.
#[derive(Clone, Debug)]
pub struct PlaneOptions {
    /// The directory `meta/` of the node.
    pub directory: PathBuf,
    /// How often a leader makes itself heard. Default 100 ms. Shorter costs messages; it must stay
    /// well below `election_min`.
    pub heartbeat: Duration,
    /// A follower waits for `election_max` plus a random time between `election_min` and
    /// `election_max` without hearing the leader before it stands for election. Default 300 ms;
    /// below it, busy machines elect for no reason.
    pub election_min: Duration,
    /// See `election_min`. Default 600 ms: a lost leader is replaced after 0.9 to 1.2 s.
    pub election_max: Duration,
    /// Entries between snapshots. Default 4096. Fewer make restarts faster and cost writes.
    pub snapshot_entries: u64,
    /// Entries that are kept behind a snapshot, so that a node that was away shortly gets entries
    /// instead of the whole snapshot. Default 1024.
    pub entries_kept: u64,
    /// Whether the state machine is also kept as rows in sled, which makes restarts fast. Default
    /// true. Nothing depends on it: without it the state is rebuilt from snapshot and log.
    pub materialise: bool,
    /// How long a proposal looks for a leader that answers. Default 10 s.
    pub propose_deadline: Duration,
    /// How long a linearizable read may take. Default 5 s.
    pub read_deadline: Duration,
    /// How often the leader reconsiders voters and learners. Default 500 ms.
    pub automation_interval: Duration,
    /// How long a voter must be dead before another node takes its place. Default 10 min.
    pub replace_after: Duration,
    /// Who waits for the disk. Default: threads. No setting: simulations choose.
    pub disk_work: DiskWork,
    /// Mistakes that tests plant. No setting reaches them.
    pub faults: PlaneFaults,
}

/// Mistakes that a test can plant, to show that a simulation finds them. All are false in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaneFaults {
    /// The Raft log says that entries and votes are durable before they are written.
    pub log_acknowledges_early: bool,
    /// A promise is told and not written, so that a restarted node promises another founding.
    pub promise_not_written: bool,
    /// A proposal that is tried again carries a number of its own, so that it may have two effects.
    pub retries_renumbered: bool,
}

impl PlaneOptions {
    /// The defaults, in this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            snapshot_entries: 4096,
            entries_kept: 1024,
            materialise: true,
            propose_deadline: Duration::from_secs(10),
            read_deadline: Duration::from_secs(5),
            automation_interval: Duration::from_millis(500),
            replace_after: Duration::from_secs(600),
            disk_work: DiskWork::default(),
            faults: PlaneFaults::default(),
        }
    }

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// [`MetadataError::Settings`] with what would be right.
    pub fn check(&self) -> Result<(), MetadataError> {
        let refuse = |reason: &str| {
            Err(MetadataError::Settings {
                reason: reason.to_owned(),
            })
        };
        if self.heartbeat * 2 > self.election_min {
            return refuse("election_min must be at least two heartbeats");
        }
        if self.election_min >= self.election_max {
            return refuse("election_min must be below election_max");
        }
        if self.snapshot_entries == 0 {
            return refuse("snapshot_entries must be at least 1");
        }
        Ok(())
    }
}

/// What gossip says about the other nodes. It is advice: it decides whom to ask, and when
/// automation waits.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PeerView {
    /// Nodes whose address is known, members or not, alive or not; this node may be among them.
    pub seen: BTreeSet<NodeId>,
    /// Nodes that answer, as far as is known; this node may be among them.
    pub alive: BTreeSet<NodeId>,
}

/// What a node is in the Raft group at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decides.
    Leader,
    /// Votes and follows.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows without a vote; also a node that is not part of the group yet.
    Learner,
    /// The Raft task has ended; the node must be restarted.
    Stopped,
}

/// A node's view of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node: NodeId,
    /// The cluster, if the node belongs to one.
    pub cluster: Option<ClusterId>,
    /// What this node is.
    pub role: Role,
    /// Who leads, as far as this node knows; none also at a leader that has not reached a majority of the voters for twice
    /// `election_max`.
    pub leader: Option<NodeId>,
    /// The newest term that this node has seen.
    pub term: u64,
    /// The newest entry whose effect is in this node's state.
    pub last_applied: LogPosition,
    /// The index of the newest entry in this node's log, committed or not.
    pub last_log_index: u64,
    /// The nodes that vote; during a change, those of both sides.
    pub voters: BTreeSet<NodeId>,
    /// The nodes that follow without a vote.
    pub learners: BTreeSet<NodeId>,
}
