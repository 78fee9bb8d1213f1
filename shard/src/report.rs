//! What a node tells the leader about its replicas, for moving shards.

use crate::{Offset, Trust};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trefoil_model::{ConfigurationNumber, NodeId, ShardSet};

/// What one node's replicas have reached. Everything in it is durable at that node. Replaces the node's
/// last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Shards that are alike together; disjoint, ascending by number.
    pub groups: Vec<ReplicaGroup>,
}

/// Replicas that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaGroup {
    /// The shards; the node owns them under `number`.
    pub shards: ShardSet,
    /// The number that the node follows.
    pub number: ConfigurationNumber,
    /// The trust. A replica with unrecorded amnesia is not reported at all.
    pub trust: Trust,
    /// Whether nothing is missing in any window.
    pub whole: bool,
    /// The Serving owners with which the node has caught up *after* these followed `number`; ascending,
    /// without the node itself.
    pub caught_up_with: Vec<NodeId>,
}

/// How far the replicas of a node are, for people (`cluster status`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// Owned shards whose replica is trusted everywhere.
    pub serving: ShardSet,
    /// Owned shards that are being filled.
    pub filling: ShardSet,
    /// Owned shards that lost some windows and are otherwise trusted.
    pub damaged: ShardSet,
    /// Not owned any more, not dropped yet.
    pub leaving: ShardSet,
    /// For each peer: bytes of its journal that this node had not covered at the last barrier.
    pub lag_bytes: BTreeMap<NodeId, u64>,
    /// For each peer: the shards of which all that its Serving replica had at some moment since the start is here.
    pub compared: BTreeMap<NodeId, ShardSet>,
    /// Messages that were not meant for this run of this node.
    pub misdirected: u64,
    /// Writes that are open.
    pub open_writes: usize,
    /// Parts that wait for a barrier.
    pub open_queries: usize,
    /// Below it the journal is not needed by anybody, and not referred to any more.
    pub journal_floor: Offset,
    /// Parcels in the journal above its floor.
    pub journal_parcels: usize,
    /// Parcels that were fetched from peers since the start.
    pub fetched_parcels: u64,
    /// Times that parcels of a peer were too old to be taken, so that their shards are copied.
    pub outdated: u64,
    /// Copies of replicas that were completed since the start.
    pub copies: u64,
    /// Bytes that have come for replicas that are still being filled, by the shards that were copied together.
    pub copied: Vec<(ShardSet, u64)>,
}
