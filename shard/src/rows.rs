//! The rows of the placement table that this node follows, shard by shard.
//!
//! A row is followed from the moment its [`crate::Record::Adopt`] is appended; nothing is said under it
//! before that record is durable (the *gate*). A row is only ever replaced by one with a higher number.

use crate::Routing;
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{
    Configuration, ConfigurationNumber, NodeId, PlacementTable, ShardEntry, ShardId, ShardSet,
};

/// Rows that are equal, with all their shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowGroup {
    pub(crate) shards: ShardSet,
    pub(crate) entry: ShardEntry,
}

/// The followed rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// Row `i` is shard `i`'s. A shard that is not known yet has number 0 and no owner.
    table: PlacementTable,
    /// The same by equal rows; shards without owners are in none.
    groups: Vec<RowGroup>,
    routing: Arc<Routing>,
}

/// How the numbers of a peer compare with one's own.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Both follow the same number.
    pub(crate) equal: ShardSet,
    /// The peer follows a higher number.
    pub(crate) lower_here: ShardSet,
    /// The peer follows a lower number.
    pub(crate) higher_here: ShardSet,
}

fn unknown_row() -> ShardEntry {
    ShardEntry {
        configuration: Configuration {
            number: ConfigurationNumber(0),
            old: Default::default(),
            new: Default::default(),
        },
        owners: BTreeMap::new(),
    }
}

impl Rows {
    pub(crate) fn get(&self, shard: ShardId) -> Option<&ShardEntry> {
        self.table
            .get(shard)
            .filter(|entry| entry.configuration.number > ConfigurationNumber(0))
    }

    pub(crate) fn number(&self, shard: ShardId) -> ConfigurationNumber {
        let entry = self.table.get(shard);
        entry.map_or(ConfigurationNumber(0), |entry| entry.configuration.number)
    }

    pub(crate) fn groups(&self) -> &[RowGroup] {
        &self.groups
    }

    pub(crate) fn routing(&self) -> &Arc<Routing> {
        &self.routing
    }

    /// The groups cut down to `shards`.
    pub(crate) fn within<'a>(
        &'a self,
        shards: &'a ShardSet,
    ) -> impl Iterator<Item = (ShardSet, &'a ShardEntry)> + 'a {
        let cut = |group: &'a RowGroup| (group.shards.intersection(shards), &group.entry);
        let groups = self.groups.iter().map(cut);
        groups.filter(|(both, _)| !both.is_empty())
    }

    /// Those of the entries that are newer than the followed ones, cut down to the shards that are.
    pub(crate) fn newer(
        &self,
        entries: impl IntoIterator<Item = (ShardSet, ShardEntry)>,
    ) -> Vec<(ShardSet, ShardEntry)> {
        let mut newer = Vec::new();
        for (shards, entry) in entries {
            let number = entry.configuration.number;
            let risen: ShardSet = shards.iter().filter(|s| number > self.number(*s)).collect();
            if !risen.is_empty() {
                newer.push((risen, entry));
            }
        }
        newer
    }

    /// The newer rows of a table, equal ones together.
    pub(crate) fn newer_in(&self, table: &PlacementTable) -> Vec<(ShardSet, ShardEntry)> {
        let mut newer: Vec<(ShardSet, ShardEntry)> = Vec::new();
        for (shard, entry) in table.iter() {
            if entry.configuration.number <= self.number(shard) {
                continue;
            }
            match newer.iter_mut().find(|(_, known)| known == entry) {
                Some((shards, _)) => {
                    shards.insert(shard);
                }
                None => newer.push((ShardSet::from_iter([shard]), entry.clone())),
            }
        }
        newer
    }

    /// Replaces rows. The caller has checked that they are newer.
    pub(crate) fn replace(&mut self, entries: &[(ShardSet, ShardEntry)]) {
        for (shards, entry) in entries {
            for shard in shards.iter() {
                let index = usize::from(shard.0);
                if self.table.shards.len() <= index {
                    self.table.shards.resize_with(index + 1, unknown_row);
                }
                self.table.shards[index] = entry.clone();
            }
        }
        self.groups.clear();
        for (shard, entry) in self.table.iter() {
            if entry.configuration.number == ConfigurationNumber(0) {
                continue;
            }
            match self.groups.iter_mut().find(|group| group.entry == *entry) {
                Some(group) => {
                    group.shards.insert(shard);
                }
                None => self.groups.push(RowGroup {
                    shards: ShardSet::from_iter([shard]),
                    entry: entry.clone(),
                }),
            }
        }
        self.routing = Arc::new(Routing::new(&self.table));
    }

    /// The rows of these shards, equal ones together: what a peer is taught.
    pub(crate) fn entries(&self, shards: &ShardSet) -> Vec<(ShardSet, ShardEntry)> {
        let rows = self.within(shards);
        rows.map(|(both, entry)| (both, entry.clone())).collect()
    }

    /// The numbers of these shards, equal ones together.
    pub(crate) fn numbers(&self, shards: &ShardSet) -> Vec<(ShardSet, ConfigurationNumber)> {
        let mut numbers: Vec<(ShardSet, ConfigurationNumber)> = Vec::new();
        for (both, entry) in self.within(shards) {
            let number = entry.configuration.number;
            match numbers.iter_mut().find(|(_, known)| *known == number) {
                Some((set, _)) => *set = set.union(&both),
                None => numbers.push((both, number)),
            }
        }
        numbers
    }

    /// Compares a peer's numbers with the followed ones.
    pub(crate) fn compare<'a>(
        &self,
        numbers: impl IntoIterator<Item = (&'a ShardSet, ConfigurationNumber)>,
    ) -> Compared {
        let mut compared = Compared::default();
        for (shards, number) in numbers {
            let mut rest = shards.clone();
            for (both, entry) in self.within(shards) {
                rest = rest.difference(&both);
                let into = match entry.configuration.number.cmp(&number) {
                    std::cmp::Ordering::Equal => &mut compared.equal,
                    std::cmp::Ordering::Less => &mut compared.lower_here,
                    std::cmp::Ordering::Greater => &mut compared.higher_here,
                };
                *into = into.union(&both);
            }
            compared.lower_here = compared.lower_here.union(&rest);
        }
        compared
    }

    /// The shards of which the node is an owner, old or new.
    pub(crate) fn owned_by(&self, node: NodeId) -> ShardSet {
        self.shards_where(|entry| entry.configuration.has_owner(node))
    }

    /// The shards of which both nodes are owners.
    pub(crate) fn shared_by(&self, one: NodeId, other: NodeId) -> ShardSet {
        self.shards_where(|entry| {
            entry.configuration.has_owner(one) && entry.configuration.has_owner(other)
        })
    }

    fn shards_where(&self, accept: impl Fn(&ShardEntry) -> bool) -> ShardSet {
        let accepted = self.groups.iter().filter(|group| accept(&group.entry));
        accepted.fold(ShardSet::new(), |all, group| all.union(&group.shards))
    }

    /// All nodes that own a shard together with `node`, ascending.
    pub(crate) fn peers_of(&self, node: NodeId) -> Vec<NodeId> {
        let mut peers: Vec<NodeId> = Vec::new();
        for group in &self.groups {
            if group.entry.configuration.has_owner(node) {
                peers.extend(group.entry.configuration.all_owners().iter());
            }
        }
        peers.sort_unstable();
        peers.dedup();
        peers.retain(|peer| *peer != node);
        peers
    }
}
