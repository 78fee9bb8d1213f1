//! The placement table: which nodes own which shard, as the metadata plane keeps it.
//!
//! A shard's configuration is *simple* (`old == new`) or *joint* (a change from `old` to `new` is under
//! way). Its number rises by one with every change, also when an owner's amnesia is recorded.

use crate::{ConfigurationNumber, LineageId, NodeId, ShardId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The owners of a shard: ascending, unique.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct OwnerSet(Vec<NodeId>);

impl OwnerSet {
    /// The owners in ascending order.
    #[must_use]
    pub fn as_slice(&self) -> &[NodeId] {
        &self.0
    }

    /// The owners in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.iter().copied()
    }

    /// Whether the node is one of the owners.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.0.binary_search(&node).is_ok()
    }

    /// How many owners there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no owner.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many owners are a majority: 1 of 1, 2 of 2, 2 of 3, 3 of 5.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// How many owners meet every majority: `n - majority + 1` (1 of 1, 1 of 2, 2 of 3).
    #[must_use]
    pub fn meets_every_majority(&self) -> usize {
        self.0.len() - self.majority() + 1
    }

    /// How many of `nodes` are owners.
    pub fn count_in(&self, nodes: impl IntoIterator<Item = NodeId>) -> usize {
        nodes.into_iter().filter(|n| self.contains(*n)).count()
    }
}

impl FromIterator<NodeId> for OwnerSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut owners: Vec<NodeId> = nodes.into_iter().collect();
        owners.sort_unstable();
        owners.dedup();
        Self(owners)
    }
}

/// A shard's owner set with its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Rises by one with every change of this shard.
    pub number: ConfigurationNumber,
    /// The owners before the change; the owners, when no change is under way.
    pub old: OwnerSet,
    /// The owners after the change; equal to `old` when no change is under way.
    pub new: OwnerSet,
}

impl Configuration {
    /// Whether a change of owners is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.old != self.new
    }

    /// All nodes that store the shard now: old and new owners, ascending.
    #[must_use]
    pub fn all_owners(&self) -> OwnerSet {
        self.old.iter().chain(self.new.iter()).collect()
    }

    /// Whether the node stores the shard now.
    #[must_use]
    pub fn has_owner(&self, node: NodeId) -> bool {
        self.old.contains(node) || self.new.contains(node)
    }
}

/// What the metadata plane knows of one owner of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The lineage under which the owner's acknowledgements count.
    pub lineage: LineageId,
    /// Acknowledgements under a lower number do not count for anybody.
    pub counts_from: ConfigurationNumber,
    /// Whether the replica was made by the command that made the shard, and so is trusted from birth.
    pub born_serving: bool,
}

/// One row of the placement table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The shard's owners and their number.
    pub configuration: Configuration,
    /// One record for every node of [`Configuration::all_owners`].
    pub owners: BTreeMap<NodeId, OwnerRecord>,
}

/// The table: one row per shard, row `i` for shard `i`. Empty before the cluster begins.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlacementTable {
    /// Row `i` describes shard `i`; the length is a power of two, or 0.
    pub shards: Vec<ShardEntry>,
}

impl PlacementTable {
    /// The row of a shard, if the table has it.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<&ShardEntry> {
        self.shards.get(usize::from(shard.0))
    }

    /// The rows in ascending order of shard.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, &ShardEntry)> {
        self.shards
            .iter()
            .enumerate()
            .map(|(index, entry)| (ShardId(index as u16), entry))
    }

    /// How many shards there are.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.shards.len() as u16
    }

    /// Whether the cluster has not begun.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_intersect() {
        for n in 1..=7u64 {
            let owners: OwnerSet = (1..=n).map(NodeId).collect();
            assert!(owners.majority() + owners.meets_every_majority() == owners.len() + 1);
        }
    }
}
