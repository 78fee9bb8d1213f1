//! Whether requests should come to this node: what `/-/ready` answers, and what a rolling update waits for.
//!
//! A node is ready when it is a member that knows what was decided, takes writes, and has replicas that serve
//! and that have, once since the start, been compared with enough other owners: no query has to wait then for
//! what was written in the node's absence. Once ready, only what it does itself takes that away, so
//! that a peer's trouble does not spread. Liveness asks for none of this.

use super::{Cluster, admin::is_present};
use std::{collections::BTreeSet, sync::atomic::Ordering};
use trefoil_model::{NodeId, PlacementTable};
use trefoil_raft::Role;

impl Cluster {
    /// Whether this node's replicas serve; the reason when they do not.
    ///
    /// # Errors
    /// The reason, in words.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        if matches!(self.metadata.status().role, Role::Stopped) {
            return Err("the metadata plane has stopped".to_owned());
        }
        if self.is_stopping() {
            return Err("this node is about to stop".to_owned());
        }
        if !*self.metadata.caught_up().borrow() {
            return Err(
                "what was decided before this node started is not known here yet".to_owned(),
            );
        }
        let state = self.metadata.state();
        if state.placement().is_empty() {
            return Err("the cluster has no placement yet".to_owned());
        }
        self.check_clock()?;
        let me = self.identity.node;
        if state.member(me).is_none() {
            return Err("this node is not a member yet".to_owned());
        }
        if let Some(why) = self.plane.refuses_items() {
            return Err(format!("this node takes no writes: {why}"));
        }
        let status = self.plane.status();
        let filling = status.filling.union(&status.damaged);
        if !filling.is_empty() {
            return Err(format!("{} replicas are being filled", filling.len()));
        }
        let owned = state
            .placement()
            .iter()
            .filter(|(_, e)| e.configuration.new.contains(me));
        let missing = owned
            .filter(|(shard, _)| !status.serving.contains(*shard))
            .count();
        if missing > 0 {
            return Err(format!("{missing} replicas do not serve yet"));
        }
        let behind = match self.was_ready.load(Ordering::Relaxed) {
            true => 0,
            false => unproven(state.placement(), me, &status.caught_up_with),
        };
        if behind > 0 {
            return Err(format!(
                "{behind} replicas may lack what was written while this node was away"
            ));
        }
        // A node that lost its disk is there again when what it had is there again.
        let predecessor = state
            .members()
            .find(|member| member.superseded_by == Some(me) && is_present(member));
        if let Some(lost) = predecessor {
            return Err(format!(
                "it takes over from {}, which lost its data directory",
                lost.node
            ));
        }
        self.was_ready.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Shards of `me` that no query could be answered from without fetching first: not compared since the start with
/// as many other owners as it takes to meet every majority.
fn unproven(table: &PlacementTable, me: NodeId, compared: &BTreeSet<NodeId>) -> usize {
    let entries = table.iter();
    entries
        .filter(|(_, entry)| {
            let owners = &entry.configuration.new;
            let needed = owners.meets_every_majority().saturating_sub(1);
            let found = owners.count_in(compared.iter().copied().filter(|node| *node != me));
            owners.contains(me) && found < needed
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use trefoil_model::{Configuration, ConfigurationNumber, OwnerSet, ShardEntry};

    fn table(owners: &[&[u64]]) -> PlacementTable {
        let entry = |ids: &&[u64]| {
            let owners: OwnerSet = ids.iter().copied().map(NodeId).collect();
            ShardEntry {
                configuration: Configuration {
                    number: ConfigurationNumber(1),
                    old: owners.clone(),
                    new: owners,
                },
                owners: BTreeMap::new(),
            }
        };
        PlacementTable {
            shards: owners.iter().map(entry).collect(),
        }
    }

    #[test]
    fn one_other_owner_of_three_is_enough_and_of_two_none_is_needed() {
        let table = table(&[&[1, 2, 3], &[1, 3, 4], &[2, 3, 4], &[1, 2], &[1]]);
        let unproven = |compared: &[u64]| {
            let compared = compared.iter().copied().map(NodeId).collect();
            super::unproven(&table, NodeId(1), &compared)
        };
        assert_eq!(unproven(&[]), 2);
        assert_eq!(unproven(&[1]), 2);
        assert_eq!(unproven(&[2]), 1);
        assert_eq!(unproven(&[3]), 0);
        assert_eq!(unproven(&[2, 4]), 0);
    }
}
