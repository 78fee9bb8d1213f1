//! How the members stand: who stays, who leaves and why, who is down.

use super::{Cause, MovementSettings, MovementView, Waiting};
use crate::placement::{PlacementNode, replication_factor};
use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{NodeId, OwnerSet};

/// The members, sorted by what movement does with them.
pub(super) struct Standing {
    /// The nodes that the target table is planned for.
    pub(super) staying: Vec<PlacementNode>,
    /// Members that should own nothing, and why.
    leaving: BTreeMap<NodeId, Cause>,
    /// Members that are down, own shards and are not leaving: nothing begins because of them. Ascending.
    pub(super) down: Vec<NodeId>,
    /// Drained members that own nothing. Ascending.
    pub(super) removable: Vec<NodeId>,
    /// Why dead members are not replaced.
    pub(super) waiting: Vec<Waiting>,
    up: BTreeSet<NodeId>,
    /// Members with space for more shards, and those without; of the others it is not known yet.
    spacious: BTreeSet<NodeId>,
    full: BTreeSet<NodeId>,
    /// Members that are dead for so long that nothing should wait for them.
    dead_for_good: BTreeSet<NodeId>,
}

impl Standing {
    pub(super) fn of(view: &MovementView<'_>, settings: &MovementSettings) -> Self {
        let owners: BTreeSet<NodeId> = view
            .table
            .iter()
            .flat_map(|(_, e)| e.configuration.all_owners().as_slice().to_vec())
            .collect();
        let mut standing = Self {
            staying: Vec::new(),
            leaving: BTreeMap::new(),
            down: Vec::new(),
            removable: Vec::new(),
            waiting: Vec::new(),
            up: BTreeSet::new(),
            spacious: BTreeSet::new(),
            full: BTreeSet::new(),
            dead_for_good: BTreeSet::new(),
        };
        let mut down = BTreeSet::new();
        for member in view.members {
            let id = member.node.id;
            match member.dead_since {
                None => drop(standing.up.insert(id)),
                Some(since) => {
                    if owners.contains(&id) {
                        down.insert(id);
                    }
                    if view.now.saturating_sub(since) >= settings.replace_after {
                        standing.dead_for_good.insert(id);
                    }
                }
            }
            match member.has_space {
                Some(true) => drop(standing.spacious.insert(id)),
                Some(false) => drop(standing.full.insert(id)),
                None => {}
            }
            if !member.node.active {
                standing.leaving.insert(id, Cause::Drain);
                if !owners.contains(&id) {
                    standing.removable.push(id);
                }
            }
        }
        standing.replace(view, &down);
        standing.removable.sort_unstable();
        standing.down = down
            .into_iter()
            .filter(|id| !standing.leaving.contains_key(id))
            .collect();
        let stays = |node: &PlacementNode| {
            let id = node.id;
            let useless = !standing.up.contains(&id) && !owners.contains(&id);
            !useless && !standing.leaving.contains_key(&id)
        };
        let nodes = view.members.iter().map(|member| &member.node);
        standing.staying = nodes.filter(|node| stays(node)).cloned().collect();
        standing
    }

    /// Gives up the one active member that is dead for good, if all others are up and there is a node for
    /// its shards. `down`: the members that own shards and are down.
    fn replace(&mut self, view: &MovementView<'_>, down: &BTreeSet<NodeId>) {
        let active = || view.members.iter().filter(|member| member.node.active);
        let dead: Vec<NodeId> = down
            .iter()
            .copied()
            .filter(|id| self.dead_for_good.contains(id) && !self.leaving.contains_key(id))
            .collect();
        let [gone] = dead[..] else {
            if !dead.is_empty() {
                self.waiting.push(Waiting::SeveralDead(dead));
            }
            return;
        };
        let others = || active().filter(|member| member.node.id != gone);
        let up = || others().filter(|member| member.dead_since.is_none());
        let others_up = up().count();
        let full: Vec<NodeId> = up()
            .filter(|member| member.has_space == Some(false))
            .map(|member| member.node.id)
            .collect();
        if others_up < replication_factor(active().count()) {
            self.waiting.push(Waiting::NoSpareNode(gone));
        } else if down.len() > 1 {
            let others_down = down.iter().copied().filter(|id| *id != gone).collect();
            self.waiting.push(Waiting::MembersDown(others_down));
        } else if !full.is_empty() {
            self.waiting.push(Waiting::NoSpace(full));
        } else if up().all(|member| member.has_space.is_some()) {
            self.leaving.insert(gone, Cause::Replace);
        }
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.up.contains(&node)
    }

    pub(super) fn has_space(&self, node: NodeId) -> bool {
        self.spacious.contains(&node)
    }

    pub(super) fn is_full(&self, node: NodeId) -> bool {
        self.full.contains(&node)
    }

    /// Whether a node that is becoming an owner should go on becoming one.
    pub(super) fn may_receive(&self, node: NodeId) -> bool {
        let stays = self.staying.iter().any(|member| member.id == node);
        stays && !self.dead_for_good.contains(&node)
    }

    /// Why a shard with these owners gets these other ones.
    pub(super) fn cause(&self, old: &OwnerSet, new: &OwnerSet) -> Cause {
        let leaving = old.iter().filter_map(|node| self.leaving.get(&node)).min();
        let growing = if new.len() > old.len() {
            Cause::Grow
        } else {
            Cause::Balance
        };
        leaving.copied().unwrap_or(growing)
    }
}
