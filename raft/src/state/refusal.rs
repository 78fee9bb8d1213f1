//! Why applying a command changed nothing. Part of the reply, and so of the format.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trefoil_model::{ClusterId, ConfigurationNumber, NodeId, ShardId, TenantId};

/// Why a command was refused. The state is what it was; the same command is refused again until the
/// state changes.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// A newer proposal of the same proposer was applied already.
    #[error("proposal {serial} is older than {newest}, the newest one of its proposer")]
    StaleSerial {
        /// The proposal's number.
        serial: u64,
        /// The newest number that was applied.
        newest: u64,
    },
    /// The cluster has another id.
    #[error("this is cluster {cluster}")]
    OtherCluster {
        /// The cluster's id.
        cluster: ClusterId,
    },
    /// A member cannot read the format level.
    #[error(
        "the program of node {node} reads format levels up to {level_max}, which is less than the cluster uses: start it with \
         the newer program that the other nodes run"
    )]
    FormatLevel {
        /// The member.
        node: NodeId,
        /// What it can read.
        level_max: u32,
    },
    /// The node is not a member.
    #[error("node {node} is not a member")]
    NotMember {
        /// The node.
        node: NodeId,
    },
    /// The node was removed; it needs an empty data directory to come back, as a new node.
    #[error("node {node} was removed from the cluster")]
    MemberRemoved {
        /// The node.
        node: NodeId,
    },
    /// A node that is being drained gets no new shards.
    #[error("node {node} is being drained")]
    MemberDraining {
        /// The node.
        node: NodeId,
    },
    /// The member still owns shards.
    #[error("node {node} still owns {shards} shards")]
    StillOwner {
        /// The member.
        node: NodeId,
        /// How many.
        shards: usize,
    },
    /// The placement table exists already.
    #[error("the placement table exists already")]
    PlacementExists,
    /// The placement table or the change of it is not well formed.
    #[error("placement is malformed: {reason}")]
    PlacementMalformed {
        /// What is wrong.
        reason: String,
    },
    /// The table has no such shard.
    #[error("shard {shard} does not exist")]
    UnknownShard {
        /// The shard.
        shard: ShardId,
    },
    /// The shard's configuration changed since the proposer read it.
    #[error("shard {shard} is at configuration {present}, not {expected}")]
    ConfigurationMoved {
        /// The shard.
        shard: ShardId,
        /// What the proposer expected.
        expected: ConfigurationNumber,
        /// What it is.
        present: ConfigurationNumber,
    },
    /// The change is not one step of a joint change.
    #[error("shard {shard}: {reason}")]
    ConfigurationStep {
        /// The shard.
        shard: ShardId,
        /// Which rule it breaks.
        reason: String,
    },
    /// There is no such tenant.
    #[error("tenant {tenant} does not exist")]
    UnknownTenant {
        /// The tenant.
        tenant: TenantId,
    },
    /// There is no such movement.
    #[error("movement {movement} is not known")]
    UnknownMovement {
        /// The movement's number.
        movement: u64,
    },
    /// A condition of a write does not hold.
    #[error("condition {position} does not hold")]
    ConditionFailed {
        /// Which one, from 0.
        position: usize,
        /// The key's present version; none when it has no value or the condition was about a lease.
        present: Option<u64>,
    },
    /// Somebody else holds the lease.
    #[error("node {holder} holds the lease for {remaining_ms} ms more")]
    LeaseHeld {
        /// The holder.
        holder: NodeId,
        /// For how long, at most, by the leader's time; with a new leader it counts anew.
        remaining_ms: u64,
    },
    /// A bound of the state machine is reached.
    #[error("{what} would exceed {max}")]
    Limit {
        /// What is bounded.
        what: String,
        /// The bound.
        max: u64,
    },
    /// A field has a value that it cannot have.
    #[error("{field} is invalid: {reason}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

impl Refusal {
    pub(crate) fn limit(what: &str, max: usize) -> Self {
        Self::Limit {
            what: what.to_owned(),
            max: max as u64,
        }
    }

    pub(crate) fn invalid(field: &str, reason: &str) -> Self {
        Self::Invalid {
            field: field.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// Refuses a text that is empty or longer than `max` bytes.
pub(crate) fn check_text(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(field, "it is empty"));
    }
    if text.len() > max {
        return Err(Refusal::limit(&format!("length of {field}"), max));
    }
    Ok(())
}
