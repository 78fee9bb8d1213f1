//! Who votes and who only follows: a pure decision over what the leader knows.
//!
//! Rules, in the order in which they are tried; one change at a time:
//! 1. A member that is in neither set becomes a learner. A learner that was removed goes.
//! 2. A voter that was removed by an operator goes, with another one in its place if there is one.
//! 3. With fewer voters than the members allow (1, 2, 3, 3, 5, 5, ...), learners that have caught
//!    up are promoted.
//! 4. A single dead voter is replaced, after `replace_after` or at once when a new node has its
//!    name, while all other voters are up and another node is there. Draining voters are replaced
//!    the same way.
//! 5. A voter in a crowded zone gives way to a learner in a zone without one, while all voters are
//!    up.
//!
//! No rule but the second makes the number of voters smaller.

use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{NodeId, Zone};

/// Most voters. More cost every commit and survive nothing that five do not.
pub(crate) const VOTERS_MAX: usize = 5;

/// What the leader knows about one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) zone: Zone,
    /// Answers, as far as gossip knows. The leader itself does.
    pub(crate) alive: bool,
    /// Has been dead for `replace_after`, or is dead and has a successor of the same name.
    pub(crate) lost: bool,
    pub(crate) draining: bool,
    pub(crate) removed: bool,
    /// Its log is close to the leader's.
    pub(crate) caught_up: bool,
}

/// What the decision rests on.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) leader: NodeId,
    pub(crate) members: BTreeMap<NodeId, Candidate>,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) learners: BTreeSet<NodeId>,
}

/// A change of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    AddLearner(NodeId),
    RemoveLearner(NodeId),
    SetVoters(BTreeSet<NodeId>),
}

/// The next change, if one is due. The group must not be in the middle of one.
pub(crate) fn decide(view: &View) -> Option<Change> {
    learners(view)
        .or_else(|| removed_voter(view))
        .or_else(|| promotion(view))
        .or_else(|| replacement(view))
        .or_else(|| zone_spread(view))
}

fn learners(view: &View) -> Option<Change> {
    for (node, member) in &view.members {
        let known = view.voters.contains(node) || view.learners.contains(node);
        if !known && !member.removed {
            return Some(Change::AddLearner(*node));
        }
        if view.learners.contains(node) && member.removed {
            return Some(Change::RemoveLearner(*node));
        }
    }
    None
}

fn removed_voter(view: &View) -> Option<Change> {
    let gone = view
        .voters
        .iter()
        .find(|node| view.members.get(node).is_some_and(|member| member.removed))?;
    let mut voters = view.voters.clone();
    voters.remove(gone);
    voters.extend(best_learner(view, &voters));
    (!voters.is_empty()).then_some(Change::SetVoters(voters))
}

/// How many voters this many eligible nodes should have.
fn target(eligible: usize) -> usize {
    match eligible {
        0..=3 => eligible,
        4 => 3,
        _ => VOTERS_MAX,
    }
}

fn promotion(view: &View) -> Option<Change> {
    let eligible = view
        .members
        .iter()
        .filter(|(node, member)| view.voters.contains(node) || eligible(member))
        .count();
    let wanted = target(eligible);
    let mut voters = view.voters.clone();
    while voters.len() < wanted {
        match best_learner(view, &voters) {
            Some(node) => voters.insert(node),
            None => break,
        };
    }
    // Four voters survive no more than three: five or nothing.
    if voters.len() == 4 && view.voters.len() == 3 {
        return None;
    }
    (voters.len() > view.voters.len()).then_some(Change::SetVoters(voters))
}

fn replacement(view: &View) -> Option<Change> {
    let dead: Vec<NodeId> = view
        .voters
        .iter()
        .filter(|n| !is_alive(view, **n))
        .copied()
        .collect();
    let outgoing = match dead.as_slice() {
        [] => view
            .voters
            .iter()
            .find(|node| view.members.get(node).is_some_and(|member| member.draining)),
        [node] => Some(node).filter(|node| view.members.get(node).is_some_and(|m| m.lost)),
        _ => None,
    }?;
    let mut voters = view.voters.clone();
    voters.remove(outgoing);
    voters.insert(best_learner(view, &voters)?);
    Some(Change::SetVoters(voters))
}

fn zone_spread(view: &View) -> Option<Change> {
    if view.voters.iter().any(|node| !is_alive(view, *node)) {
        return None;
    }
    let incoming = best_learner(view, &view.voters)?;
    if zone_count(view, &view.voters, zone(view, incoming)) > 0 {
        return None;
    }
    let outgoing = view
        .voters
        .iter()
        .rev()
        .filter(|node| **node != view.leader)
        .find(|node| zone_count(view, &view.voters, zone(view, **node)) > 1)?;
    let mut voters = view.voters.clone();
    voters.remove(outgoing);
    voters.insert(incoming);
    Some(Change::SetVoters(voters))
}

fn eligible(member: &Candidate) -> bool {
    member.alive && !member.draining && !member.removed
}

fn is_alive(view: &View, node: NodeId) -> bool {
    view.members.get(&node).is_some_and(|member| member.alive)
}

fn zone(view: &View, node: NodeId) -> &str {
    view.members.get(&node).map_or("", |member| &member.zone)
}

fn zone_count(view: &View, voters: &BTreeSet<NodeId>, wanted: &str) -> usize {
    voters
        .iter()
        .filter(|node| zone(view, **node) == wanted)
        .count()
}

/// The learner that makes the best voter beside these: up, caught up, in the zone with the fewest
/// of them.
fn best_learner(view: &View, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
    view.learners
        .iter()
        .filter(|node| !voters.contains(node))
        .filter(|node| {
            view.members
                .get(node)
                .is_some_and(|m| eligible(m) && m.caught_up)
        })
        .min_by_key(|node| (zone_count(view, voters, zone(view, **node)), **node))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(members: &[(u64, &str)], voters: &[u64], learners: &[u64]) -> View {
        let candidate = |zone: &str| Candidate {
            zone: zone.to_owned(),
            alive: true,
            lost: false,
            draining: false,
            removed: false,
            caught_up: true,
        };
        View {
            leader: NodeId(1),
            members: members
                .iter()
                .map(|(id, zone)| (NodeId(*id), candidate(zone)))
                .collect(),
            voters: ids(voters),
            learners: ids(learners),
        }
    }

    fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn member(view: &mut View, node: u64) -> &mut Candidate {
        view.members.get_mut(&NodeId(node)).unwrap()
    }

    fn plain(count: u64) -> Vec<(u64, &'static str)> {
        (1..=count).map(|node| (node, "")).collect()
    }

    #[test]
    fn members_become_learners_and_the_removed_go() {
        let mut view = view(&plain(4), &[1, 2, 3], &[]);
        assert_eq!(decide(&view), Some(Change::AddLearner(NodeId(4))));
        view.learners = ids(&[4]);
        assert_eq!(decide(&view), None, "four nodes have three voters");
        member(&mut view, 4).removed = true;
        assert_eq!(decide(&view), Some(Change::RemoveLearner(NodeId(4))));
    }

    #[test]
    fn voters_grow_to_three_and_then_to_five() {
        let two = view(&plain(2), &[1], &[2]);
        assert_eq!(decide(&two), Some(Change::SetVoters(ids(&[1, 2]))));
        let mut five = view(&plain(5), &[1, 2, 3], &[4, 5]);
        assert_eq!(
            decide(&five),
            Some(Change::SetVoters(ids(&[1, 2, 3, 4, 5])))
        );
        member(&mut five, 5).caught_up = false;
        assert_eq!(decide(&five), None, "not to four");
        let six = view(&plain(6), &[1, 2, 3, 4, 5], &[6]);
        assert_eq!(decide(&six), None);
    }

    #[test]
    fn zones_are_preferred_for_promotion_and_spread_later() {
        let grow = view(
            &[(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c")],
            &[1],
            &[2, 3, 4, 5],
        );
        let all = Change::SetVoters(ids(&[1, 2, 3, 4, 5]));
        assert_eq!(decide(&grow), Some(all));
        let three = view(&[(1, "a"), (2, "a"), (3, "b"), (4, "c")], &[1, 2, 3], &[4]);
        assert_eq!(decide(&three), Some(Change::SetVoters(ids(&[1, 3, 4]))));
    }

    #[test]
    fn a_dead_voter_is_replaced_only_when_it_is_lost_and_alone() {
        let mut four = view(&plain(4), &[1, 2, 3], &[4]);
        member(&mut four, 3).alive = false;
        assert_eq!(decide(&four), None);
        member(&mut four, 3).lost = true;
        assert_eq!(decide(&four), Some(Change::SetVoters(ids(&[1, 2, 4]))));
        let mut without_spare = view(&plain(3), &[1, 2, 3], &[]);
        member(&mut without_spare, 3).alive = false;
        member(&mut without_spare, 3).lost = true;
        assert_eq!(decide(&without_spare), None, "never fewer than three");
        let mut two_dead = view(&plain(7), &[1, 2, 3, 4, 5], &[6, 7]);
        for node in [4, 5] {
            member(&mut two_dead, node).alive = false;
            member(&mut two_dead, node).lost = true;
        }
        assert_eq!(decide(&two_dead), None, "an operator's decision");
    }

    #[test]
    fn draining_and_removed_voters_give_way() {
        let mut four = view(&plain(4), &[1, 2, 3], &[4]);
        member(&mut four, 2).draining = true;
        assert_eq!(decide(&four), Some(Change::SetVoters(ids(&[1, 3, 4]))));
        let mut three = view(&plain(3), &[1, 2, 3], &[]);
        member(&mut three, 3).draining = true;
        assert_eq!(decide(&three), None);
        member(&mut three, 3).removed = true;
        assert_eq!(decide(&three), Some(Change::SetVoters(ids(&[1, 2]))));
    }
}
