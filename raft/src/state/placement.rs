//! The placement table: the leader plans it elsewhere and proposes the result as data; here it is
//! only checked against the rules of a joint change, which are drawn here, and recorded.
//!
//! ```text
//! simple (A, A) --> joint (A, B) --+--> simple (B, B)   the change is complete
//!                                  `--> simple (A, A)   the change is abandoned
//! any (A, B) --amnesia of an owner--> (A, B), next number, that owner counts from it under a new lineage
//! ```

use super::limits::{OWNERS_MAX, SHARDS_MAX};
use super::{ConfigurationChange, MemberState, Refusal, Reply, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trefoil_model::{
    Configuration, ConfigurationNumber, LineageId, NodeId, OwnerRecord, OwnerSet, PlacementTable,
    ShardEntry, ShardId, ShardSet,
};

/// The number of a shard's first configuration.
const FIRST: ConfigurationNumber = ConfigurationNumber(1);

impl State {
    /// Which nodes own which shard.
    #[must_use]
    pub fn placement(&self) -> &Arc<PlacementTable> {
        &self.placement
    }

    pub(super) fn create_placement(&mut self, owners: &[OwnerSet]) -> Result<Reply, Refusal> {
        if !self.placement.is_empty() {
            return Err(Refusal::PlacementExists);
        }
        if !owners.len().is_power_of_two() || owners.len() > SHARDS_MAX {
            return Err(Refusal::PlacementMalformed {
                reason: format!(
                    "{} shards; a power of two up to {SHARDS_MAX} is needed",
                    owners.len()
                ),
            });
        }
        let rows: Result<Vec<ShardEntry>, Refusal> =
            owners.iter().map(|set| self.first_entry(set)).collect();
        self.placement = Arc::new(PlacementTable { shards: rows? });
        Ok(Reply::Done)
    }

    fn first_entry(&self, owners: &OwnerSet) -> Result<ShardEntry, Refusal> {
        if owners.is_empty() || owners.len() > OWNERS_MAX {
            return Err(Refusal::PlacementMalformed {
                reason: format!(
                    "{} owners of one shard; 1 to {OWNERS_MAX} are possible",
                    owners.len()
                ),
            });
        }
        let mut records = BTreeMap::new();
        for node in owners.iter() {
            let record = OwnerRecord {
                lineage: self.lineage_of_new_owner(node)?,
                counts_from: FIRST,
                born_serving: true,
            };
            records.insert(node, record);
        }
        Ok(ShardEntry {
            configuration: Configuration {
                number: FIRST,
                old: owners.clone(),
                new: owners.clone(),
            },
            owners: records,
        })
    }

    /// The lineage on record of a node that may become an owner.
    fn lineage_of_new_owner(&self, node: NodeId) -> Result<LineageId, Refusal> {
        let member = self.members.get(&node).ok_or(Refusal::NotMember { node })?;
        match member.state {
            MemberState::Active => Ok(member.lineage),
            MemberState::Draining => Err(Refusal::MemberDraining { node }),
            MemberState::Removed => Err(Refusal::MemberRemoved { node }),
        }
    }

    pub(super) fn set_configurations(
        &mut self,
        changes: &[ConfigurationChange],
    ) -> Result<Reply, Refusal> {
        let mut seen = BTreeSet::new();
        let mut entries = Vec::with_capacity(changes.len());
        for change in changes {
            if !seen.insert(change.shard) {
                return Err(step_refused(
                    change.shard,
                    "it appears twice in one command",
                ));
            }
            entries.push((change.shard, self.next_entry(change)?));
        }
        let table = Arc::make_mut(&mut self.placement);
        for (shard, entry) in entries {
            table.shards[usize::from(shard.0)] = entry;
        }
        self.forget_confirmed_deletions();
        Ok(Reply::Done)
    }

    fn next_entry(&self, change: &ConfigurationChange) -> Result<ShardEntry, Refusal> {
        let shard = change.shard;
        let present = self
            .placement
            .get(shard)
            .ok_or(Refusal::UnknownShard { shard })?;
        if present.configuration.number != change.expected {
            return Err(Refusal::ConfigurationMoved {
                shard,
                expected: change.expected,
                present: present.configuration.number,
            });
        }
        check_step(shard, &present.configuration, change)?;
        let number = present.configuration.number.next();
        let configuration = Configuration {
            number,
            old: change.old.clone(),
            new: change.new.clone(),
        };
        let mut owners = BTreeMap::new();
        for node in configuration.all_owners().iter() {
            let record = match present.owners.get(&node) {
                Some(record) => *record,
                None => OwnerRecord {
                    lineage: self.lineage_of_new_owner(node)?,
                    counts_from: number,
                    born_serving: false,
                },
            };
            owners.insert(node, record);
        }
        Ok(ShardEntry {
            configuration,
            owners,
        })
    }

    pub(super) fn record_amnesia(
        &mut self,
        node: NodeId,
        shards: Option<&ShardSet>,
        lineage: LineageId,
    ) -> Result<Reply, Refusal> {
        let member = self.present_member(node)?;
        if shards.is_none() {
            member.lineage = lineage;
        }
        let affected: Vec<ShardId> = self
            .placement
            .iter()
            .filter(|(shard, _)| shards.is_none_or(|set| set.contains(*shard)))
            .filter(|(_, entry)| {
                entry
                    .owners
                    .get(&node)
                    .is_some_and(|record| record.lineage != lineage)
            })
            .map(|(shard, _)| shard)
            .collect();
        if affected.is_empty() {
            return Ok(Reply::Done);
        }
        let table = Arc::make_mut(&mut self.placement);
        for shard in affected {
            let entry = &mut table.shards[usize::from(shard.0)];
            entry.configuration.number = entry.configuration.number.next();
            let record = OwnerRecord {
                lineage,
                counts_from: entry.configuration.number,
                born_serving: false,
            };
            entry.owners.insert(node, record);
        }
        Ok(Reply::Done)
    }
}

/// Refuses a change that is not one step of a joint change.
fn check_step(
    shard: ShardId,
    present: &Configuration,
    change: &ConfigurationChange,
) -> Result<(), Refusal> {
    let (old, new) = (&change.old, &change.new);
    if new.is_empty() || new.len() > OWNERS_MAX {
        return Err(step_refused(
            shard,
            "the number of its owners is out of bounds",
        ));
    }
    if present.is_joint() {
        let ends = old == new && (new == &present.new || new == &present.old);
        return match ends {
            true => Ok(()),
            false => Err(step_refused(
                shard,
                "a change is under way, which can only be completed or abandoned",
            )),
        };
    }
    if old != &present.old {
        return Err(step_refused(
            shard,
            "the old owners are not the present ones",
        ));
    }
    if old == new {
        return Err(step_refused(shard, "the change changes nothing"));
    }
    Ok(())
}

fn step_refused(shard: ShardId, reason: &str) -> Refusal {
    Refusal::ConfigurationStep {
        shard,
        reason: reason.to_owned(),
    }
}
