//! A map from shards to values that stores equal values once: with all shards alike it has one entry.

use serde::{Deserialize, Serialize};
use trefoil_model::{ShardId, ShardSet};

/// A partial map from shards to values. Invariant: the sets are disjoint and not empty, and no two groups
/// have equal values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardMap<V> {
    groups: Vec<(ShardSet, V)>,
}

impl<V> Default for ShardMap<V> {
    fn default() -> Self {
        Self { groups: Vec::new() }
    }
}

impl<V: PartialEq> ShardMap<V> {
    pub(crate) fn get(&self, shard: ShardId) -> Option<&V> {
        let group = self.groups.iter().find(|(set, _)| set.contains(shard));
        group.map(|(_, value)| value)
    }

    /// Gives all of `shards` this value.
    pub(crate) fn set(&mut self, shards: &ShardSet, value: V) {
        if shards.is_empty() {
            return;
        }
        self.remove(shards);
        match self.groups.iter_mut().find(|(_, held)| *held == value) {
            Some((set, _)) => *set = set.union(shards),
            None => self.groups.push((shards.clone(), value)),
        }
    }

    pub(crate) fn remove(&mut self, shards: &ShardSet) {
        for (set, _) in &mut self.groups {
            *set = set.difference(shards);
        }
        self.groups.retain(|(set, _)| !set.is_empty());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The groups, in the order in which their values first appeared.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&ShardSet, &V)> {
        self.groups.iter().map(|(set, value)| (set, value))
    }

    /// The groups cut down to `shards`; then `None` for those of `shards` that have no value.
    pub(crate) fn within(&self, shards: &ShardSet) -> Vec<(ShardSet, Option<&V>)> {
        let mut rest = shards.clone();
        let mut found = Vec::new();
        for (set, value) in &self.groups {
            let both = set.intersection(shards);
            if !both.is_empty() {
                rest = rest.difference(&both);
                found.push((both, Some(value)));
            }
        }
        if !rest.is_empty() {
            found.push((rest, None));
        }
        found
    }
}
