//! The documents of the administration API, `/trefoil/api/v1/`. Described in `docs/admin-api.md`.
//!
//! Ids are the hexadecimal text of the model's ids; times are milliseconds of UTC. Fields are only
//! added, never renamed, and readers ignore what they do not know.

use crate::LimitValues;
use serde::{Deserialize, Serialize};

/// `GET cluster`: the cluster as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id; absent before it began.
    pub cluster_id: Option<String>,
    /// The node that answers.
    pub answered_by: String,
    /// The leader of the metadata plane, if one is known.
    pub leader: Option<String>,
    /// Its term.
    pub term: u64,
    /// Index of the last command that this node has applied.
    pub applied_index: u64,
    /// Owners per shard.
    pub replication_factor: u16,
    /// How long metrics are kept, in hours; 0 for ever, absent before it was recorded.
    #[serde(default)]
    pub retention_hours: Option<u64>,
    /// The level of formats that the cluster uses: all members read it, older programs are refused.
    #[serde(default)]
    pub format_level: u32,
    /// Why changes of owners that should be made are not, in words.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// Nodes, ascending by name.
    pub nodes: Vec<Node>,
    /// Shards with the same owners and states, together; ascending by their first shard.
    pub configurations: Vec<Configuration>,
    /// Recoveries from a lost majority, oldest first.
    #[serde(default)]
    pub recoveries: Vec<Recovery>,
}

/// A recovery from a lost majority (`trefoil cluster recover`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The node whose state the cluster went on with.
    pub node: String,
    /// When, by that node's clock: milliseconds of UTC.
    pub at: i64,
    /// The voters before.
    pub voters_before: Vec<String>,
}

/// One node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its zone; empty when it has none.
    pub zone: String,
    /// `alive`, `suspect`, `down` or `left`, as gossip sees it; `unknown` before it was seen.
    pub state: String,
    /// `bootstrapping`, `ready`, `draining` or `left`, as it says itself.
    pub phase: String,
    /// `voter`, `learner` or `none` in the metadata plane.
    pub role: String,
    /// Address of its HTTP server.
    pub http: String,
    /// Address of its peer server.
    pub peer: String,
    /// The run of its process.
    pub incarnation: String,
    /// Its version.
    pub version: String,
    /// The highest level of formats that its program reads.
    #[serde(default)]
    pub format_level_max: u32,
    /// Replicas on it that are trusted.
    pub replicas_serving: u32,
    /// Replicas on it that are being filled.
    pub replicas_filling: u32,
    /// Series in its head.
    pub series: u64,
    /// Bytes of its blocks and journal.
    pub bytes: u64,
}

/// The owners of some shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The shards, as ascending ranges with both ends inclusive.
    pub shards: Vec<(u16, u16)>,
    /// The highest configuration number among them.
    pub number: u64,
    /// The owners before a change; the owners, when there is none.
    pub old: Vec<String>,
    /// The owners after a change.
    pub new: Vec<String>,
    /// The state of every replica.
    pub replicas: Vec<Replica>,
}

/// The state of a shard on one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The owner.
    pub node: String,
    /// `serving`, `filling`, or `unknown` when the owner does not answer.
    pub state: String,
}

/// Which digests are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigestsRequest {
    /// First millisecond of interest.
    pub start: Option<i64>,
    /// First millisecond behind.
    pub end: Option<i64>,
}

/// `GET digests`: the content of all replicas, compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Whether all owners answered, something was compared, and all digests are equal.
    pub equal: bool,
    /// Owners that did not answer, with the reason.
    pub unreachable: Vec<Unreachable>,
    /// Shard windows compared.
    pub compared: u64,
    /// Shard windows whose replicas differ; the first 1000.
    pub unequal: Vec<UnequalWindow>,
    /// Digest over everything that a node holds, per node; equal on all nodes that own the same shards.
    pub totals: Vec<NodeDigest>,
}

/// A node that could not be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// Replicas of a shard that differ in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnequalWindow {
    /// The tenant.
    pub tenant: String,
    /// The signal.
    pub signal: String,
    /// The shard.
    pub shard: u16,
    /// First millisecond of the window.
    pub start: i64,
    /// First millisecond behind the window.
    pub end: i64,
    /// What each owner has.
    pub replicas: Vec<NodeDigest>,
}

/// What one node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDigest {
    /// The node.
    pub node: String,
    /// Items counted once.
    pub items: u64,
    /// 128 bits in hexadecimal.
    pub digest: String,
}

/// `GET movements`: changes of owners under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movements {
    /// Bytes per second that copies may use on each node.
    pub pace_bytes_per_second: u64,
    /// Why changes that should be made are not, in words.
    pub waiting: Vec<String>,
    /// The changes, oldest first.
    pub movements: Vec<Movement>,
}

/// Shards that change owners together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// The shards, as ascending ranges with both ends inclusive.
    pub shards: Vec<(u16, u16)>,
    /// The node that loses them, if one does.
    pub from: Option<String>,
    /// The node that gets them.
    pub to: String,
    /// `copying`, `catching_up`, `switching` or `deleting`.
    pub step: String,
    /// Bytes copied so far.
    pub copied_bytes: u64,
    /// Bytes to copy in all, as far as known.
    pub total_bytes: u64,
    /// When it began.
    pub since: i64,
}

/// `POST cluster/drain` and `POST cluster/remove`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// The node's name or id.
    pub node: String,
}

/// `POST retention`, of the whole cluster, and `POST retention/tenants`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRequest {
    /// How long metrics are kept, in hours; 0 for ever. Absent: a tenant goes by the cluster again, a selector by its tenant.
    #[serde(default)]
    pub hours: Option<u64>,
    /// The tenant whose metrics are meant; absent: those of all tenants that have no time of their own, and then there is no
    /// selector.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The series of the tenant that are meant; absent: all.
    #[serde(default)]
    pub selector: Option<String>,
}

/// `GET retention`: how long metrics are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Hours; 0 for ever, absent before the first leader has recorded it.
    pub hours: Option<u64>,
    /// Tenants with times of their own, by name.
    pub tenants: Vec<TenantRetention>,
}

/// How long a tenant's metrics are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRetention {
    /// The tenant.
    pub tenant: String,
    /// Hours; 0 for ever, absent: as long as the cluster says.
    pub hours: Option<u64>,
    /// Selectors of which the series are kept for a shorter time, in order of their texts.
    pub selectors: Vec<SelectorRetention>,
}

/// How long the series that a selector selects are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorRetention {
    /// The selector.
    pub selector: String,
    /// Hours, at least 1.
    pub hours: u64,
}

/// `GET values?key=K`: what a key of the metadata plane holds, read linearizably.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// Names the write that put the value; 0 when the key does not exist.
    pub version: u64,
    /// The value; absent when the key does not exist.
    pub value: Option<String>,
}

/// `POST values`: puts or deletes a value, if a condition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutValue {
    /// The key: 1 to 256 bytes.
    pub key: String,
    /// What it shall hold, at most 32 KiB; absent to delete it.
    #[serde(default)]
    pub value: Option<String>,
    /// The version that it must have, 0 when it must not exist; absent for whatever it holds.
    #[serde(default)]
    pub expected_version: Option<u64>,
}

/// The answer to `POST values`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenValue {
    /// The version that the key has now.
    pub version: u64,
}

/// `POST node/prepare-stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareStopRequest {
    /// How long to wait for the other owners, seconds.
    pub wait_seconds: u64,
}

/// Limits of a tenant, or those of tenants that have none of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The tenant; none: the defaults of all.
    pub tenant: Option<String>,
    /// What was set, by name.
    pub set: LimitValues,
    /// What is in effect, by name: all limits.
    pub effective: LimitValues,
}

/// `POST limits`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// The tenant; none: the defaults of all.
    #[serde(default)]
    pub tenant: Option<String>,
    /// What is set from now on, by name, instead of all that was set before.
    pub limits: LimitValues,
    /// What whoever asks has read as set; when something else is set by now, nothing changes. None: whatever is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<LimitValues>,
}

/// The answer to a `POST`: what was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// One sentence for people.
    pub message: String,
}
