//! Whether requests should come to this node: what `/-/ready` answers, and what a rolling update waits for.
//!
//! A node is ready when it is a member that knows what was decided, takes writes, and has replicas that serve
//! and that have, once since the start, been compared with enough other owners whose replicas serve: no query has
//! to wait then for what was written in the node's absence. Once ready, only what it does itself takes that away, so
//! that a peer's trouble does not spread. Liveness asks for none of this.
//!
//! Shards that the node is only just getting do not count: their old owners answer for them. Were it otherwise, all
//! nodes that share the shards of a dead one would be unready together, until they have copied them.

use super::{Cluster, admin::is_present};
use std::{collections::BTreeMap, sync::atomic::Ordering};
use trefoil_model::{Configuration, NodeId, PlacementTable, ShardId, ShardSet};
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
        if self.is_leaving() {
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
        let expected: ShardSet = relied_upon(state.placement(), me)
            .map(|(shard, _)| shard)
            .collect();
        let filling = status.filling.union(&status.damaged);
        let filling = filling.intersection(&expected);
        if !filling.is_empty() {
            return Err(format!("{} replicas are being filled", filling.len()));
        }
        let missing = expected.difference(&status.serving).len();
        if missing > 0 {
            return Err(format!("{missing} replicas do not serve yet"));
        }
        let behind = match self.was_ready.load(Ordering::Relaxed) {
            true => 0,
            false => unproven(state.placement(), me, &status.compared),
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

/// The shards whose owners were and stay `me` among others: not those that it gets or gives away by a change that is
/// under way.
fn relied_upon(
    table: &PlacementTable,
    me: NodeId,
) -> impl Iterator<Item = (ShardId, &Configuration)> {
    table
        .iter()
        .map(|(shard, entry)| (shard, &entry.configuration))
        .filter(move |(_, owners)| owners.old.contains(me) && owners.new.contains(me))
}

/// Shards of `me` that no query could be answered from without fetching first: not compared since the start with
/// as many other owners as it takes to meet every majority. `compared` has only owners that were Serving then: one
/// that is being filled may lack the same.
fn unproven(table: &PlacementTable, me: NodeId, compared: &BTreeMap<NodeId, ShardSet>) -> usize {
    relied_upon(table, me)
        .filter(|(shard, configuration)| {
            // During a change whatever was acknowledged is at a majority of the old owners too.
            let owners = &configuration.old;
            let needed = owners.meets_every_majority().saturating_sub(1);
            let others = compared
                .iter()
                .filter(|(node, shards)| **node != me && shards.contains(*shard));
            owners.count_in(others.map(|(node, _)| *node)) < needed
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::{ConfigurationNumber, OwnerSet, ShardEntry};

    /// A table whose shards have these old and new owners.
    fn table(rows: &[(&[u64], &[u64])]) -> PlacementTable {
        let owners = |ids: &[u64]| -> OwnerSet { ids.iter().copied().map(NodeId).collect() };
        let entry = |(old, new): &(&[u64], &[u64])| ShardEntry {
            configuration: Configuration {
                number: ConfigurationNumber(1),
                old: owners(old),
                new: owners(new),
            },
            owners: BTreeMap::new(),
        };
        PlacementTable {
            shards: rows.iter().map(entry).collect(),
        }
    }

    /// A table without changes.
    fn at_rest(owners: &[&[u64]]) -> PlacementTable {
        let rows: Vec<(&[u64], &[u64])> = owners.iter().map(|ids| (*ids, *ids)).collect();
        table(&rows)
    }

    /// These nodes, compared in these shards.
    fn compared(nodes: &[u64], shards: &[u16]) -> BTreeMap<NodeId, ShardSet> {
        let shards: ShardSet = shards.iter().copied().map(ShardId).collect();
        let nodes = nodes.iter().copied().map(NodeId);
        nodes.map(|node| (node, shards.clone())).collect()
    }

    #[test]
    fn one_other_owner_of_three_is_enough_and_of_two_none_is_needed() {
        let table = at_rest(&[&[1, 2, 3], &[1, 3, 4], &[2, 3, 4], &[1, 2], &[1]]);
        let unproven = |nodes: &[u64]| {
            let compared = compared(nodes, &[0, 1, 2, 3, 4]);
            super::unproven(&table, NodeId(1), &compared)
        };
        assert_eq!(unproven(&[]), 2);
        assert_eq!(unproven(&[1]), 2);
        assert_eq!(unproven(&[2]), 1);
        assert_eq!(unproven(&[3]), 0);
        assert_eq!(unproven(&[2, 4]), 0);
    }

    #[test]
    fn nobody_is_unready_for_shards_of_a_dead_node_that_it_is_getting() {
        // Node 4 is dead: each of the three others gets a shard of it.
        let dead: &[(&[u64], &[u64])] = &[
            (&[1, 2, 4], &[1, 2, 3]),
            (&[1, 3, 4], &[1, 2, 3]),
            (&[2, 3, 4], &[1, 2, 3]),
            (&[1, 2, 3], &[1, 2, 3]),
        ];
        let table = table(dead);
        for (me, expected) in [(1, [0, 1, 3]), (2, [0, 2, 3]), (3, [1, 2, 3])] {
            let relied: Vec<u16> = relied_upon(&table, NodeId(me)).map(|(s, _)| s.0).collect();
            assert_eq!(relied, expected, "node {me}");
        }
        // One that leaves a shard is not waited for either.
        assert_eq!(relied_upon(&table, NodeId(4)).count(), 0);
    }

    #[test]
    fn an_owner_counts_only_in_the_shards_in_which_it_served() {
        let table = at_rest(&[&[1, 2, 3], &[1, 2, 3]]);
        let mut met = compared(&[2], &[1]);
        assert_eq!(unproven(&table, NodeId(1), &met), 1);
        met.extend(compared(&[3], &[0]));
        assert_eq!(unproven(&table, NodeId(1), &met), 0);
    }

    #[test]
    fn a_newcomer_proves_nothing_about_what_was_written_before_it_came() {
        let table = table(&[(&[1, 2, 4], &[1, 2, 3])]);
        let unproven = |node| super::unproven(&table, NodeId(1), &compared(&[node], &[0]));
        assert_eq!(unproven(2), 0);
        assert_eq!(unproven(3), 1);
    }
}
