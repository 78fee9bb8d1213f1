//! This node's replicas: their trust, their lineage, what they lost, and with whom they have caught up.
//!
//! ```text
//!            born with the shard
//!   (none) ----------------------> Serving <---------------------------+
//!     |                              |  loss                           | caught up with enough
//!     | becomes a new owner          v                                 | Serving owners
//!     +--------> Joining        Amnesiac (unrecorded) --number rises--> Amnesiac (recorded)
//!                   | caught up with a majority of the old owners
//!                   +--------------> Serving
//! ```
//! A replica is *unrecorded* while the row names another lineage than the replica's own: then it stores
//! nothing and answers nothing. A lost block leaves a replica Serving with a damaged range of time.

use crate::{Offset, Trust, TrustRecord, quorum, rows::Rows, shard_map::ShardMap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trefoil_model::{
    Configuration, ConfigurationNumber, LineageId, NodeId, OwnerSet, ShardEntry, ShardId, ShardSet,
    TimeRange,
};

/// One replica, as far as it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replica {
    pub(crate) trust: Trust,
    /// Something is missing for good (RF 1).
    pub(crate) gap: bool,
    /// The place in the own journal where this life of the replica began: what was journalled before may be gone.
    pub(crate) since: Offset,
    /// The replica's lineage, where it differs from the data directory's.
    pub(crate) lineage: Option<LineageId>,
}

/// Items that were lost with a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Damage {
    pub(crate) shards: ShardSet,
    pub(crate) range: TimeRange,
    /// From whom the range was copied under the present numbers. Not durable.
    #[serde(skip)]
    pub(crate) copied: BTreeMap<NodeId, ShardSet>,
}

/// All replicas of this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replicas {
    pub(crate) node: NodeId,
    /// A planted fault: losses need not be recorded.
    pub(crate) everything_recorded: bool,
    /// The lineage of the data directory.
    pub(crate) lineage: LineageId,
    pub(crate) replicas: ShardMap<Replica>,
    pub(crate) damages: Vec<Damage>,
    /// The Serving owners with which a shard has caught up after they followed its present number.
    pub(crate) caught: BTreeMap<NodeId, ShardSet>,
}

impl Replicas {
    pub(crate) fn since(&self, shard: ShardId) -> Option<Offset> {
        self.replicas.get(shard).map(|replica| replica.since)
    }

    pub(crate) fn lineage_of(&self, shard: ShardId) -> LineageId {
        let replica = self.replicas.get(shard);
        let own = replica.and_then(|replica| replica.lineage);
        own.unwrap_or(self.lineage)
    }

    fn change(&mut self, shards: &ShardSet, change: impl Fn(Option<Replica>) -> Option<Replica>) {
        let parts: Vec<(ShardSet, Option<Replica>)> = self
            .replicas
            .within(shards)
            .into_iter()
            .map(|(part, replica)| (part, change(replica.copied())))
            .collect();
        for (part, changed) in parts {
            match changed {
                Some(replica) => self.replicas.set(&part, replica),
                None => self.replicas.remove(&part),
            }
        }
    }

    fn with(&self, accept: impl Fn(&Replica) -> bool) -> ShardSet {
        let accepted = self
            .replicas
            .groups()
            .filter(|(_, replica)| accept(replica));
        accepted.fold(ShardSet::new(), |all, (shards, _)| all.union(shards))
    }

    pub(crate) fn with_trust(&self, trust: Trust) -> ShardSet {
        self.with(|replica| replica.trust == trust)
    }

    pub(crate) fn all(&self) -> ShardSet {
        self.with(|_| true)
    }

    pub(crate) fn gaps(&self) -> ShardSet {
        self.with(|replica| replica.gap)
    }

    /// Shards that lost something, in any range or in one that overlaps `range`.
    pub(crate) fn damaged(&self, range: Option<TimeRange>) -> ShardSet {
        let touched = |damage: &&Damage| range.is_none_or(|range| damage.range.overlaps(&range));
        let damages = self.damages.iter().filter(touched);
        damages.fold(ShardSet::new(), |all, damage| all.union(&damage.shards))
    }

    /// Owned shards whose row names another lineage than the replica's: nothing is stored or answered.
    pub(crate) fn unrecorded(&self, rows: &Rows) -> ShardSet {
        let mut unrecorded = ShardSet::new();
        if self.everything_recorded {
            return unrecorded;
        }
        for group in rows.groups() {
            let Some(record) = group.entry.owners.get(&self.node) else {
                continue;
            };
            for (part, replica) in self.replicas.within(&group.shards) {
                let own = replica.and_then(|replica| replica.lineage);
                if own.unwrap_or(self.lineage) != record.lineage {
                    unrecorded = unrecorded.union(&part);
                }
            }
        }
        unrecorded
    }

    /// Those of the shards whose replica is of another stay among the owners than the one that the row speaks of.
    pub(crate) fn of_former_stay(
        &self,
        shards: &ShardSet,
        before: Option<&ShardEntry>,
        after: &ShardEntry,
    ) -> ShardSet {
        let mut former = ShardSet::new();
        let is_former =
            |replica: &Replica| is_of_former_stay(self.node, self.lineage, replica, before, after);
        for (part, replica) in self.replicas.within(shards) {
            if replica.is_some_and(is_former) {
                former = former.union(&part);
            }
        }
        former
    }

    /// What following a new row makes of a replica. Returns the shards whose replica should have been
    /// here and is not.
    pub(crate) fn follow(
        &mut self,
        shards: &ShardSet,
        before: Option<&ShardEntry>,
        after: &ShardEntry,
        at: Offset,
    ) {
        for caught in self.caught.values_mut() {
            *caught = caught.difference(shards);
        }
        for damage in &mut self.damages {
            for copied in damage.copied.values_mut() {
                *copied = copied.difference(shards);
            }
        }
        let node = self.node;
        let data_lineage = self.lineage;
        self.change(shards, |replica| {
            follow_one(node, data_lineage, replica, before, after, at)
        });
    }

    /// Applies a journalled change of trust.
    pub(crate) fn apply(&mut self, record: &TrustRecord, at: Offset) {
        match record {
            TrustRecord::Set { shards, trust, gap } => self.change(shards, |replica| {
                Some(Replica {
                    trust: *trust,
                    gap: *gap,
                    since: replica.map_or(at, |replica| replica.since),
                    lineage: replica.and_then(|replica| replica.lineage),
                })
            }),
            TrustRecord::Forget { shards, lineage } => {
                let data_lineage = self.lineage;
                self.change(shards, |_| {
                    Some(Replica {
                        trust: Trust::Amnesiac,
                        gap: false,
                        since: at,
                        lineage: Some(*lineage).filter(|lineage| *lineage != data_lineage),
                    })
                });
                self.uncatch(shards);
            }
            TrustRecord::Damage {
                shards,
                range,
                lineage,
            } => {
                self.change(shards, |replica| {
                    replica.map(|replica| Replica {
                        since: at,
                        lineage: Some(*lineage),
                        ..replica
                    })
                });
                self.uncatch(shards);
                self.damages.push(Damage {
                    shards: shards.clone(),
                    range: *range,
                    copied: BTreeMap::new(),
                });
            }
            TrustRecord::Repaired { shards, range } => {
                let repaired = self.damages.iter_mut().filter(|d| d.range == *range);
                repaired.for_each(|damage| damage.shards = damage.shards.difference(shards));
                self.damages.retain(|damage| !damage.shards.is_empty());
            }
        }
    }

    /// The replicas end.
    pub(crate) fn drop(&mut self, shards: &ShardSet) {
        self.replicas.remove(shards);
        self.uncatch(shards);
        for damage in &mut self.damages {
            damage.shards = damage.shards.difference(shards);
        }
        self.damages.retain(|damage| !damage.shards.is_empty());
    }

    pub(crate) fn uncatch(&mut self, shards: &ShardSet) {
        for caught in self.caught.values_mut() {
            *caught = caught.difference(shards);
        }
    }

    /// Of `shards`: those whose replica met every majority that it may have been part of, in old and in new,
    /// when each node in `met` was caught up with in the shards of its set.
    pub(crate) fn met_every_majority(
        &self,
        configuration: &Configuration,
        shards: &ShardSet,
        met: &BTreeMap<NodeId, ShardSet>,
        need: impl Fn(&OwnerSet) -> usize,
    ) -> ShardSet {
        let mut enough = shards.clone();
        for owners in [&configuration.old, &configuration.new] {
            if owners.contains(self.node) {
                let sets = met.iter().map(|(node, set)| (*node, set));
                enough = quorum::owners_with(need(owners), &enough, owners, sets);
            }
        }
        enough
    }
}

/// Whether the stay that the row speaks of began after the one that the replica is of had ended.
fn is_of_former_stay(
    node: NodeId,
    data_lineage: LineageId,
    replica: &Replica,
    before: Option<&ShardEntry>,
    after: &ShardEntry,
) -> bool {
    let Some(record) = after.owners.get(&node) else {
        return false;
    };
    let number_before = before.map_or(ConfigurationNumber(0), |entry| entry.configuration.number);
    let old = &after.configuration.old;
    // An operator has made it the only owner: what it has is all that there is.
    let is_all_there_is = old.len() == 1 && old.contains(node);
    if record.born_serving || record.counts_from <= number_before || is_all_there_is {
        return false;
    }
    let record_before = before.and_then(|entry| entry.owners.get(&node));
    match record_before {
        Some(record_before) if record_before.lineage != record.lineage => {
            // A loss was recorded, which raises the number too. Was there time to leave and to come back? What an amnesiac
            // has left counts for nothing; a replica that lost a block is kept. One that has a lineage of its own has had its
            // loss recorded under that, and a stay begins with the lineage of the data: that is no loss, but a new stay.
            let left = record.counts_from > number_before.next();
            let own = replica.lineage.filter(|own| *own != data_lineage);
            let anew = own.is_some() && record.lineage == data_lineage;
            left && (anew || (replica.trust == Trust::Amnesiac && replica.lineage.is_none()))
        }
        _ => true,
    }
}

/// The replica of one kind of shard after it follows a new row.
fn follow_one(
    node: NodeId,
    data_lineage: LineageId,
    replica: Option<Replica>,
    before: Option<&ShardEntry>,
    after: &ShardEntry,
    at: Offset,
) -> Option<Replica> {
    let Some(record) = after.owners.get(&node) else {
        // It leaves: what it is trusted with does not matter any more, nor does its own lineage.
        return replica.map(|replica| Replica {
            lineage: None,
            ..replica
        });
    };
    let number_before = before.map_or(ConfigurationNumber(0), |entry| entry.configuration.number);
    let record_before = before.and_then(|entry| entry.owners.get(&node));
    let own = replica
        .and_then(|replica| replica.lineage)
        .unwrap_or(data_lineage);
    let joint_newcomer = after.configuration.is_joint() && !after.configuration.old.contains(node);
    if let (Some(replica), Some(record_before)) = (replica, record_before) {
        let amnesia_recorded = record_before.lineage != record.lineage && record.lineage == own;
        if amnesia_recorded {
            return Some(replica);
        }
        if record.counts_from <= number_before {
            let born = replica.trust == Trust::Joining && !after.configuration.is_joint();
            let trust = if born { Trust::Serving } else { replica.trust };
            return Some(Replica { trust, ..replica });
        }
    }
    let trust = match (record.lineage == own, record.born_serving, joint_newcomer) {
        (true, true, _) => Trust::Serving,
        (true, false, true) => Trust::Joining,
        _ => Trust::Amnesiac,
    };
    let lineage = replica.and_then(|replica| replica.lineage);
    Some(Replica {
        trust,
        gap: false,
        since: replica.map_or(at, |replica| replica.since),
        lineage,
    })
}
