//! What reports say about one shard: when a change of owners may finish, because the new ones
//! have caught up with a majority of the old ones, when one may begin, and when one had better be abandoned.

use super::MovementFaults;
use crate::{ReplicaGroup, ReplicaReport, Trust};
use std::collections::BTreeMap;
use trefoil_model::{Configuration, NodeId, OwnerSet, ShardId};

/// Whether the new owners of a joint configuration may become the owners:
///
/// some majority of the old owners, each of them Serving and following the joint number durably, is such
/// that every new owner is Serving, follows that number, and has caught up with each of them (but itself)
/// *after* it followed that number.
///
/// The last part is what makes the change safe. What was acknowledged before was acknowledged by a majority
/// of the old owners, hence by one of these; it did so before it followed the number, for afterwards it
/// refuses the lower one; so whoever asked it afterwards has it.
pub(super) fn may_finish(
    shard: ShardId,
    configuration: &Configuration,
    reports: &BTreeMap<NodeId, ReplicaReport>,
    faults: MovementFaults,
) -> bool {
    let serving = |node: NodeId| {
        let groups = &reports.get(&node)?.groups;
        let group = groups.iter().find(|group| group.shards.contains(shard))?;
        let follows = group.number == configuration.number || faults.adoption_unchecked;
        let whole = group.trust == Trust::Serving && group.whole;
        (follows && whole).then_some(group)
    };
    let newcomers: Option<Vec<(NodeId, &ReplicaGroup)>> = configuration
        .new
        .iter()
        .map(|node| serving(node).map(|group| (node, group)))
        .collect();
    let Some(new) = newcomers else {
        return false;
    };
    let has_caught_up = |(node, group): &(NodeId, &ReplicaGroup), source: NodeId| {
        *node == source || group.caught_up_with.contains(&source) || faults.catch_up_unchecked
    };
    // An old owner with which every new one has caught up serves in any majority, so the largest set of
    // such owners decides.
    let sources = configuration.old.iter().filter(|source| {
        serving(*source).is_some() && new.iter().all(|owner| has_caught_up(owner, *source))
    });
    let needed = if faults.one_old_owner_is_enough {
        1
    } else {
        configuration.old.majority()
    };
    sources.count() >= needed
}

/// Whether a change may begin: the old owners that are up are a majority, for without one nothing could ever
/// finish, and each of them is known to be Serving under the present number. A change around an owner that is being refilled can block the refill: with two owners, the
/// amnesiac waits for the newcomer and the newcomer for the amnesiac.
pub(super) fn may_begin(
    shard: ShardId,
    configuration: &Configuration,
    up: &OwnerSet,
    reports: &BTreeMap<NodeId, ReplicaReport>,
) -> bool {
    let serving = |node| {
        group_of(node, shard, reports).is_some_and(|group| {
            group.number == configuration.number && group.trust == Trust::Serving && group.whole
        })
    };
    up.len() >= configuration.old.majority() && up.iter().all(serving)
}

/// Whether an old owner lost what it had during this change. It is refilled sooner, and surely, among the
/// old owners alone; the change begins again afterwards.
pub(super) fn blocks_a_refill(
    shard: ShardId,
    configuration: &Configuration,
    reports: &BTreeMap<NodeId, ReplicaReport>,
) -> bool {
    configuration.old.iter().any(|node| {
        group_of(node, shard, reports).is_some_and(|group| {
            let lost = group.trust == Trust::Amnesiac || !group.whole;
            group.number == configuration.number && lost
        })
    })
}

/// What a node last said about its replica of a shard.
fn group_of(
    node: NodeId,
    shard: ShardId,
    reports: &BTreeMap<NodeId, ReplicaReport>,
) -> Option<&ReplicaGroup> {
    let groups = &reports.get(&node)?.groups;
    groups.iter().find(|group| group.shards.contains(shard))
}
