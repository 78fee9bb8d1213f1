//! Where shards are, for those who cut requests into parcels and queries into parts. A snapshot: being a
//! little old is harmless, since owners refuse what is not theirs.

use std::collections::BTreeMap;
use trefoil_model::{NodeId, OwnerSet, PlacementTable, ShardId, ShardSet};

/// The shards by owner set, as this node follows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Shards with the same owners (old and new ones together, while they change) make one group.
    groups: Vec<RouteGroup>,
    /// The group of each shard.
    group_of: Vec<u16>,
}

/// Shards with the same owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteGroup {
    /// The shards.
    pub shards: ShardSet,
    /// All nodes that store them.
    pub owners: OwnerSet,
    /// The nodes that are owners before and after a change: the first to ask for an evaluation.
    pub settled: OwnerSet,
}

/// Who evaluates which part of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPlan {
    /// Disjoint parts, this node's first.
    pub parts: Vec<(NodeId, ShardSet)>,
    /// Shards for which no owner is left.
    pub missing: ShardSet,
}

impl Routing {
    pub(crate) fn new(table: &PlacementTable) -> Self {
        let mut routing = Self::default();
        for (shard, entry) in table.iter() {
            let owners = entry.configuration.all_owners();
            let settled: OwnerSet = owners
                .iter()
                .filter(|node| entry.configuration.old.contains(*node))
                .filter(|node| entry.configuration.new.contains(*node))
                .collect();
            let found = routing
                .groups
                .iter()
                .position(|group| group.owners == owners && group.settled == settled);
            let index = found.unwrap_or_else(|| {
                routing.groups.push(RouteGroup {
                    shards: ShardSet::new(),
                    owners,
                    settled,
                });
                routing.groups.len() - 1
            });
            routing.groups[index].shards.insert(shard);
            routing.group_of.push(index as u16);
        }
        routing
    }

    /// How many shards there are; 0 before the cluster began.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.group_of.len() as u16
    }

    /// The groups. All shards are in exactly one.
    #[must_use]
    pub fn groups(&self) -> &[RouteGroup] {
        &self.groups
    }

    /// The index in [`Routing::groups`] of a shard's group.
    ///
    /// # Panics
    /// When the shard is not below [`Routing::shards`].
    #[must_use]
    pub fn group_of(&self, shard: ShardId) -> usize {
        usize::from(self.group_of[usize::from(shard.0)])
    }

    /// Chooses evaluators. `here` is preferred, then whoever takes most of what is left, first among the
    /// nodes that `reachable` says can be asked. `excluded` are nodes that refused shards of this query.
    #[must_use]
    pub fn plan(
        &self,
        here: NodeId,
        shards: &ShardSet,
        excluded: &[(NodeId, ShardSet)],
        reachable: impl Fn(NodeId) -> bool,
    ) -> QueryPlan {
        let mut candidates: BTreeMap<NodeId, (ShardSet, ShardSet)> = BTreeMap::new();
        for group in &self.groups {
            let asked = group.shards.intersection(shards);
            for node in group.owners.iter().filter(|_| !asked.is_empty()) {
                let (all, settled) = candidates.entry(node).or_default();
                *all = all.union(&asked);
                if group.settled.contains(node) {
                    *settled = settled.union(&asked);
                }
            }
        }
        for (node, refused) in excluded {
            if let Some((all, settled)) = candidates.get_mut(node) {
                *all = all.difference(refused);
                *settled = settled.difference(refused);
            }
        }
        let mut plan = QueryPlan {
            parts: Vec::new(),
            missing: shards.clone(),
        };
        loop {
            let score = |node: NodeId, all: &ShardSet, settled: &ShardSet| {
                let preferred = settled.intersection(&plan.missing).len();
                let possible = all.intersection(&plan.missing).len();
                (
                    possible > 0,
                    node == here,
                    node == here || reachable(node),
                    preferred,
                    possible,
                )
            };
            let best = candidates
                .iter()
                .map(|(node, (all, settled))| (score(*node, all, settled), *node))
                .max_by_key(|(score, node)| (*score, std::cmp::Reverse(*node)));
            let Some((score, node)) = best else {
                return plan;
            };
            if !score.0 {
                return plan;
            }
            let taken = candidates[&node].0.intersection(&plan.missing);
            plan.missing = plan.missing.difference(&taken);
            plan.parts.push((node, taken));
        }
    }
}
