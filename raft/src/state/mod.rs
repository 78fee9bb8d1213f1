//! The state machine of the metadata plane: what the members have decided so far.
//!
//! Applying the same proposals in the same order gives the same state on every node: nothing here
//! reads a clock, draws randomness or iterates over unordered maps. A command is applied completely
//! or refused without effect. A `State` is cheap to clone (its maps share structure), so readers
//! keep a version of it.
//!
//! What is persisted is a list of rows ([`rows`]); the Raft log holds the commands ([`Command`]).

mod clients;
mod clock;
mod command;
mod lease;
pub mod limits;
mod loss;
mod member;
mod movement;
mod placement;
mod refusal;
pub(crate) mod rows;
mod tenant;
mod value;

#[cfg(test)]
mod tests;

pub use clock::LeaderClock;
pub use command::{
    Change, Command, Condition, ConfigurationChange, MemberDescription, Proposal, Reply,
};
pub use lease::Lease;
pub use loss::ShardLoss;
pub use member::{Addresses, Member, MemberState};
pub use movement::{Movement, MovementOutcome};
pub use refusal::Refusal;
pub use tenant::{CutOff, Deletion, Tenant};
pub use value::Value;

use clients::ClientRecord;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trefoil_model::{ClusterId, DeletionVersion, Millis, NodeId, PlacementTable, TenantId};

/// The format level that a cluster begins with.
pub const FORMAT_LEVEL_FIRST: u32 = 1;

/// Where in the Raft log a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term of the leader that took it.
    pub term: u64,
    /// Its index; the first command of a cluster has a small one, never 0.
    pub index: u64,
}

/// A recovery from a lost Raft majority (`trefoil cluster recover`), kept for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The node whose state the cluster went on with.
    pub node: NodeId,
    /// The last log position that this node had; what others committed after it is lost.
    pub last: LogPosition,
    /// The voters before it, ascending.
    pub voters_before: Vec<NodeId>,
    /// When, by the node's wall clock.
    pub at: Millis,
}

/// Facts about the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) format_level: u32,
    pub(crate) clock: LeaderClock,
    /// How many proposals were applied. Numbers that must never repeat (versions, fencing numbers)
    /// are taken from it: unlike the log index it rises within one entry too.
    pub(crate) sequence: u64,
    pub(crate) recoveries: Vec<Recovery>,
}

impl Default for ClusterRecord {
    fn default() -> Self {
        Self {
            cluster: None,
            format_level: FORMAT_LEVEL_FIRST,
            clock: LeaderClock::default(),
            sequence: 0,
            recoveries: Vec::new(),
        }
    }
}

/// The metadata at one position of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct State {
    pub(crate) applied: LogPosition,
    pub(crate) cluster: ClusterRecord,
    pub(crate) members: OrdMap<NodeId, Arc<Member>>,
    pub(crate) placement: Arc<PlacementTable>,
    pub(crate) tenants: OrdMap<TenantId, Arc<Tenant>>,
    /// Derived from `tenants`.
    pub(crate) tenant_ids: OrdMap<String, TenantId>,
    pub(crate) deletions: OrdMap<(TenantId, DeletionVersion), Arc<Deletion>>,
    pub(crate) values: OrdMap<String, Arc<Value>>,
    pub(crate) leases: OrdMap<String, Lease>,
    pub(crate) movements: OrdMap<u64, Arc<Movement>>,
    pub(crate) clients: OrdMap<u128, ClientRecord>,
}

impl State {
    /// The newest log position whose effect is in this state; zero before the first.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// The cluster's id; none before it began.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.cluster
    }

    /// The format level in force.
    #[must_use]
    pub fn format_level(&self) -> u32 {
        self.cluster.format_level
    }

    /// Recoveries from a lost majority, oldest first.
    #[must_use]
    pub fn recoveries(&self) -> &[Recovery] {
        &self.cluster.recoveries
    }

    /// Applies the command at `at` and returns its reply. A proposal that was applied before has no
    /// second effect and gets the reply of the first.
    pub(crate) fn apply(&mut self, at: LogPosition, proposal: &Proposal) -> Reply {
        self.applied = at;
        self.cluster
            .clock
            .advance(at.term, proposal.leader_elapsed_ms);
        if let Some(reply) = self.known_reply(proposal) {
            return reply;
        }
        self.cluster.sequence += 1;
        let reply = self
            .execute(&proposal.command)
            .unwrap_or_else(Reply::Refused);
        self.remember_reply(proposal, &reply);
        reply
    }

    fn execute(&mut self, command: &Command) -> Result<Reply, Refusal> {
        match command {
            Command::Tick => Ok(Reply::Done),
            Command::BeginCluster { cluster } => self.begin_cluster(*cluster),
            Command::RaiseFormatLevel { level } => self.raise_format_level(*level),
            Command::AddMember { node, description } => self.add_member(*node, description),
            Command::SetDraining { node, draining } => self.set_draining(*node, *draining),
            Command::SetWeight { node, weight } => self.set_weight(*node, *weight),
            Command::RemoveMember { node } => self.remove_member(*node),
            Command::CreatePlacement { owners } => self.create_placement(owners),
            Command::SetConfigurations { changes } => self.set_configurations(changes),
            Command::RecordAmnesia {
                node,
                shards,
                lineage,
            } => self.record_amnesia(*node, shards.as_ref(), *lineage),
            Command::BeginMovement { .. } => self.begin_movement(command),
            Command::FinishMovement {
                movement,
                outcome,
                at: when,
            } => self.finish_movement(*movement, outcome, *when),
            Command::CreateTenant { name } => self.create_tenant(name),
            Command::SetLimits { tenant, limits } => self.set_limits(*tenant, limits.as_deref()),
            Command::AdvanceRetention {
                tenant,
                signal,
                selector,
                before,
            } => self.advance_retention(*tenant, *signal, selector, *before),
            Command::CreateDeletion {
                tenant,
                signal,
                selector,
                range,
            } => self.create_deletion(*tenant, *signal, selector, *range),
            Command::ConfirmDeletions {
                node,
                tenant,
                up_to,
            } => self.confirm_deletions(*node, *tenant, *up_to),
            Command::Write {
                conditions,
                changes,
            } => self.write(conditions, changes),
            Command::AcquireLease {
                name,
                holder,
                incarnation,
                term_ms,
            } => self.acquire_lease(name, *holder, *incarnation, *term_ms),
            Command::ReleaseLease { name, fencing } => Ok(self.release_lease(name, *fencing)),
            Command::ChangeLimits {
                tenant,
                expected,
                limits,
            } => self.change_limits(*tenant, expected.as_deref(), limits.as_deref()),
        }
    }

    fn begin_cluster(&mut self, cluster: ClusterId) -> Result<Reply, Refusal> {
        match self.cluster.cluster {
            Some(present) if present != cluster => Err(Refusal::OtherCluster { cluster: present }),
            Some(_) => Ok(Reply::Done),
            None => {
                self.cluster.cluster = Some(cluster);
                if self.tenant_id(tenant::ANONYMOUS).is_none() {
                    self.insert_tenant(Tenant::new(TenantId(0), tenant::ANONYMOUS));
                }
                Ok(Reply::Done)
            }
        }
    }

    fn raise_format_level(&mut self, level: u32) -> Result<Reply, Refusal> {
        let behind = self
            .members()
            .filter(|member| member.state != MemberState::Removed)
            .find(|member| member.description.format_level_max < level);
        if let Some(member) = behind {
            return Err(Refusal::FormatLevel {
                node: member.node,
                level_max: member.description.format_level_max,
            });
        }
        self.cluster.format_level = self.cluster.format_level.max(level);
        Ok(Reply::Done)
    }
}
