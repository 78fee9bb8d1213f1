//! Going on without members that are gone for good, when too many are gone for the ordinary way: a part of
//! [`crate::recovery`], never a command.
//!
//! ```text
//! a majority of old and of new is left   the owners stay; the ordinary change replaces the lost ones
//! only of old                            (old, old): the change is abandoned
//! not of old                             the first owner that is left, alone: what it holds counts;
//!                                        a change to new owners that kept their majority goes on from it
//! no owner at all                        the recovered node, empty: it says that something is missing
//! ```
//! Every shard's number rises by [`NUMBER_GAP`], because a survivor may follow a configuration that this
//! node never heard of, and replicas refuse lower numbers.

use super::{Member, MemberState, MovementOutcome, State, Tenant};
use std::collections::BTreeSet;
use std::sync::Arc;
use trefoil_model::{
    Configuration, ConfigurationNumber, Millis, NodeId, OwnerRecord, OwnerSet, ShardEntry, TenantId,
};

/// Configuration numbers that are left out: more changes of one shard than can have been decided while the
/// recovered node did not hear of them.
const NUMBER_GAP: u64 = 1 << 20;
/// Tenant ids that are left out: more tenants than can have been made meanwhile. Items of such a tenant may
/// be in journals, and must not become those of another one.
const TENANT_GAP: u32 = 1 << 12;
/// Fencing numbers and versions that are left out, for the same reason.
const SEQUENCE_GAP: u64 = 1 << 32;

/// What a loss of members means for the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardLoss {
    /// All shards.
    pub shards: usize,
    /// Shards that lost a majority of their owners: what only lost owners had acknowledged is gone.
    pub without_majority: usize,
    /// Those among them that have no owner left: everything in them is gone.
    pub without_owner: usize,
}

impl State {
    /// Goes on without the members in `lost`; `heir` gets the shards that have no owner left. `at` is the
    /// wall clock.
    pub(crate) fn go_on_without(
        &mut self,
        lost: &BTreeSet<NodeId>,
        heir: NodeId,
        at: Millis,
    ) -> ShardLoss {
        let mut loss = ShardLoss::default();
        let heir = self.members.get(&heir).cloned();
        for entry in &mut Arc::make_mut(&mut self.placement).shards {
            loss.shards += 1;
            go_on_with_the_rest(entry, lost, heir.as_deref(), &mut loss);
        }
        for node in lost {
            self.give_up(*node);
        }
        for movement in self.movements.clone().values() {
            if movement.ended.is_none() {
                let reason = "the cluster was recovered".to_owned();
                let outcome = MovementOutcome::Abandoned { reason };
                // The movement is there, so ending it is not refused.
                self.finish_movement(movement.number, &outcome, at).ok();
            }
        }
        self.cluster.sequence += SEQUENCE_GAP;
        let newest = self.tenants.get_max().map_or(0, |(id, _)| id.0);
        let mark = TenantId(newest.saturating_add(TENANT_GAP));
        // No client can send this name: it has a slash.
        let name = format!("recovery/{}", self.cluster.sequence);
        self.insert_tenant(Tenant::new(mark, &name));
        self.forget_confirmed_deletions();
        loss
    }

    /// A lost member that owns nothing any more is removed; from another one the ordinary way takes its shards.
    fn give_up(&mut self, node: NodeId) {
        let owns = self
            .placement
            .iter()
            .any(|(_, entry)| entry.configuration.has_owner(node));
        if let Ok(member) = self.present_member(node) {
            member.state = match owns {
                true => MemberState::Draining,
                false => MemberState::Removed,
            };
        }
    }
}

fn go_on_with_the_rest(
    entry: &mut ShardEntry,
    lost: &BTreeSet<NodeId>,
    heir: Option<&Member>,
    loss: &mut ShardLoss,
) {
    let left = |owners: &OwnerSet| -> OwnerSet {
        owners.iter().filter(|node| !lost.contains(node)).collect()
    };
    let decides = |owners: &OwnerSet| left(owners).len() >= owners.majority();
    let Configuration { number, old, new } = entry.configuration.clone();
    let number = ConfigurationNumber(number.0 + NUMBER_GAP);
    entry.configuration.number = number;
    match (decides(&old), decides(&new)) {
        (true, true) => return,
        (true, false) => entry.configuration.new = old,
        (false, _) => {
            loss.without_majority += 1;
            let alone = |node: NodeId| OwnerSet::from_iter([node]);
            if let Some(node) = left(&old).iter().next() {
                // What the new owners have got already is not thrown away.
                let goes_on = old != new && decides(&new);
                entry.configuration.old = alone(node);
                entry.configuration.new = if goes_on { new } else { alone(node) };
            } else {
                let newcomer = left(&new).iter().next();
                loss.without_owner += usize::from(newcomer.is_none());
                let known =
                    newcomer.and_then(|node| entry.owners.get(&node).map(|r| (node, r.lineage)));
                let Some((node, lineage)) = known.or(heir.map(|heir| (heir.node, heir.lineage)))
                else {
                    return;
                };
                let record = OwnerRecord {
                    lineage,
                    counts_from: number,
                    born_serving: false,
                };
                entry.owners.insert(node, record);
                entry.configuration.old = alone(node);
                entry.configuration.new = alone(node);
            }
        }
    }
    let owners = entry.configuration.all_owners();
    entry.owners.retain(|node, _| owners.contains(*node));
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::LineageId;

    fn owners(nodes: &[u64]) -> OwnerSet {
        nodes.iter().copied().map(NodeId).collect()
    }

    /// Nodes 1 and 9 are left, 1 is recovered.
    fn check(before: (&[u64], &[u64]), after: (&[u64], &[u64]), expected: (usize, usize)) {
        let configuration = Configuration {
            number: ConfigurationNumber(5),
            old: owners(before.0),
            new: owners(before.1),
        };
        let record = |node: NodeId| OwnerRecord {
            lineage: LineageId(node.0.into()),
            counts_from: ConfigurationNumber(1),
            born_serving: true,
        };
        let all = configuration.all_owners();
        let mut entry = ShardEntry {
            configuration,
            owners: all.iter().map(|node| (node, record(node))).collect(),
        };
        let heir = Member {
            node: NodeId(1),
            state: MemberState::Active,
            description: super::super::tests::description("one", 1),
            lineage: LineageId(1),
            weight_set: None,
            superseded_by: None,
        };
        let lost = (2..=8).map(NodeId).collect();
        let mut loss = ShardLoss::default();
        go_on_with_the_rest(&mut entry, &lost, Some(&heir), &mut loss);
        let configuration = &entry.configuration;
        assert_eq!(
            (&configuration.old, &configuration.new),
            (&owners(after.0), &owners(after.1)),
            "{before:?}"
        );
        assert_eq!(configuration.number, ConfigurationNumber(5 + NUMBER_GAP));
        let recorded: OwnerSet = entry.owners.keys().copied().collect();
        assert_eq!(recorded, configuration.all_owners(), "{before:?}");
        assert_eq!((loss.without_majority, loss.without_owner), expected);
    }

    #[test]
    fn each_shard_goes_on_with_what_is_left_of_it() {
        // One lost owner of three is replaced in the ordinary way.
        check((&[1, 2, 9], &[1, 2, 9]), (&[1, 2, 9], &[1, 2, 9]), (0, 0));
        // The survivor alone.
        check((&[1, 2, 3], &[1, 2, 3]), (&[1], &[1]), (1, 0));
        check((&[1, 2], &[1, 2]), (&[1], &[1]), (1, 0));
        // Nothing is left: the recovered node begins anew.
        check((&[2, 3, 4], &[2, 3, 4]), (&[1], &[1]), (1, 1));
        // The old owners decide, the new ones cannot.
        check((&[1, 2, 9], &[2, 3, 9]), (&[1, 2, 9], &[1, 2, 9]), (0, 0));
        // The new owners keep what they got, and get the rest from the survivor.
        check((&[1, 2, 3], &[1, 2, 9]), (&[1], &[1, 2, 9]), (1, 0));
        // Only a newcomer is left: it has what came during the change.
        check((&[2, 3, 4], &[2, 3, 9]), (&[9], &[9]), (1, 0));
    }
}
