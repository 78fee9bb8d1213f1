//! Movement: which changes of owners the leader proposes next, from what it knows at this moment.
//!
//! [`decide`] is pure and keeps nothing between calls: table, members, reports and the time go in,
//! steps come out as data for the metadata plane. It may be called at any time, by any leader, with
//! reports that are late, repeated or out of order, and its steps may be proposed late or twice:
//!
//! ```text
//!            Begin                        Finish: every condition of `finish` holds
//! (A, A) n ----------> (A, B) n + 1 --+------------------------------> (B, B) n + 2
//!                                     | Abandon: a newcomer is gone or not wanted any more,
//!                                     |          or an old owner must be refilled first
//!                                     `------------------------------> (A, A) n + 2
//! ```
//!
//! - Each change names the number that it replaces, and the metadata plane refuses it under another
//!   one. So a shard never has two changes at once, whatever two leaders propose.
//! - A report speaks about one number and states facts that stay true under it: whatever voids them
//!   (the loss of a disk, another change) raises the number first. So old reports cannot finish
//!   anything, and the order of reports does not matter for safety.
//! - Automation is timid: nothing *begins* while a member that owns shards is down,
//!   except moving shards away from that one member when it has been dead for `replace_after`.
//!
//! A crash of the leader loses nothing: the next one decides from the same table.

mod finish;
mod standing;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use crate::ReplicaReport;
use crate::placement::{PlacementNode, ZoneMode, plan};
use standing::Standing;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use trefoil_model::{ConfigurationNumber, NodeId, OwnerSet, PlacementTable, ShardEntry, ShardId};

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The node; `active` is false while it is being drained.
    pub node: PlacementNode,
    /// Since when gossip has called it dead, on this leader's boot clock; none: it is up. A new leader
    /// counts from its own first look.
    pub dead_since: Option<Duration>,
    /// Whether its disk can take more shards, by its own account; none before it has given one, as with a new leader. It gets
    /// no shards then either, and nobody is called for it.
    pub has_space: Option<bool>,
}

/// Everything that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct MovementView<'a> {
    /// The leader's boot clock.
    pub now: Duration,
    /// The placement table as this leader has applied it.
    pub table: &'a PlacementTable,
    /// All members, draining and dead ones too; each once.
    pub members: &'a [MemberView],
    /// The last report that arrived from each node. Keep those of members only.
    pub reports: &'a BTreeMap<NodeId, ReplicaReport>,
}

/// What an operator can choose, and what tests plant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovementSettings {
    /// How long a member is dead before its shards are given to others. Shorter moves data at every
    /// long restart; longer leaves shards at two owners.
    pub replace_after: Duration,
    /// Most shards that change owners at one time, at least 1. A quarter of the default 256 shards is
    /// what one old node gives to a fourth: one pass over its blocks.
    pub shards_moving_max: usize,
    /// How zones weigh against balance.
    pub zone_mode: ZoneMode,
    /// Mistakes that tests plant.
    pub faults: MovementFaults,
}

impl Default for MovementSettings {
    fn default() -> Self {
        Self {
            replace_after: Duration::from_secs(600),
            shards_moving_max: 64,
            zone_mode: ZoneMode::default(),
            faults: MovementFaults::default(),
        }
    }
}

/// Mistakes that a test can plant, to show that it would find them. All are false in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovementFaults {
    /// A change finishes on reports of any number: adoption is not waited for.
    pub adoption_unchecked: bool,
    /// A change finishes although the new owners have not caught up.
    pub catch_up_unchecked: bool,
    /// A change finishes when one old owner has been caught up with.
    pub one_old_owner_is_enough: bool,
}

/// One shard's next configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardChange {
    /// The shard.
    pub shard: ShardId,
    /// The number that is replaced; the new one is the next.
    pub expected: ConfigurationNumber,
    /// The old owners of the next configuration.
    pub old: OwnerSet,
    /// The new owners of the next configuration.
    pub new: OwnerSet,
}

/// Why shards begin to move. The order is that of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// An owner is dead for good.
    Replace,
    /// An owner is being drained.
    Drain,
    /// There are enough members for another owner.
    Grow,
    /// A member has less than its share.
    Balance,
}

/// What a step does to its shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
    /// A joint change begins.
    Begin(Cause),
    /// The new owners have everything: they become the owners.
    Finish,
    /// The old owners stay.
    Abandon,
}

/// Shards that take the same step between the same nodes. Propose its changes in one command: it succeeds
/// or fails as a whole, and when it is refused the next decision is made from a newer table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// The nodes that stop being owners when the change finishes.
    pub outgoing: OwnerSet,
    /// The nodes that become owners when the change finishes.
    pub incoming: OwnerSet,
    /// One change per shard, ascending by shard; not empty.
    pub changes: Vec<ShardChange>,
}

/// Why something that should happen does not. For operators: none of these ends by itself, except by the
/// condition that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Shards should move, but members that own shards are down.
    MembersDown(Vec<NodeId>),
    /// Several members are dead for good: an operator must say which of them to give up (drain them).
    SeveralDead(Vec<NodeId>),
    /// A dead member's shards have nowhere to go: there are no more members than owners.
    NoSpareNode(NodeId),
    /// Members should get shards but have no space for them.
    NoSpace(Vec<NodeId>),
    /// All members are being drained.
    NoActiveNode,
}

/// The next steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovementPlan {
    /// Steps to propose now: ends of changes first, then beginnings in order of urgency. Disjoint in shards.
    pub steps: Vec<Step>,
    /// Drained members that own nothing any more: they may be removed.
    pub removable: Vec<NodeId>,
    /// What waits for an operator.
    pub waiting: Vec<Waiting>,
}

/// Decides the next steps. Deterministic; changes nothing.
#[must_use]
pub fn decide(view: &MovementView<'_>, settings: &MovementSettings) -> MovementPlan {
    let mut result = MovementPlan::default();
    if view.table.is_empty() {
        return result;
    }
    let standing = Standing::of(view, settings);
    result.waiting.clone_from(&standing.waiting);
    result.removable.clone_from(&standing.removable);
    result.steps = ends(view, settings, &standing);
    begin(view, settings, &standing, &mut result);
    result
}

/// Steps that end changes: finished where the condition holds, abandoned where it may never.
fn ends(view: &MovementView<'_>, settings: &MovementSettings, standing: &Standing) -> Vec<Step> {
    let mut groups = Groups::default();
    for (shard, entry) in view
        .table
        .iter()
        .filter(|(_, e)| e.configuration.is_joint())
    {
        let configuration = &entry.configuration;
        let hopeless = || {
            let newcomers = configuration
                .new
                .iter()
                .filter(|n| !configuration.old.contains(*n));
            // One that stays an owner and is dead and given up will never serve: the change waits for it for
            // ever, and its replacement for the change.
            let given_up = |node| !standing.may_receive(node) && !standing.is_up(node);
            newcomers
                .into_iter()
                .any(|node| !standing.may_receive(node))
                || configuration.new.iter().any(given_up)
        };
        if finish::may_finish(shard, configuration, view.reports, settings.faults) {
            groups.add(StepKind::Finish, shard, entry, &configuration.new);
        } else if hopeless() || finish::blocks_a_refill(shard, configuration, view.reports) {
            groups.add(StepKind::Abandon, shard, entry, &configuration.old);
        }
    }
    groups.into_steps()
}

/// Adds the steps that begin changes, as far as there is room.
fn begin(
    view: &MovementView<'_>,
    settings: &MovementSettings,
    standing: &Standing,
    result: &mut MovementPlan,
) {
    let target = plan(
        &standing.staying,
        view.table.len(),
        Some(view.table),
        settings.zone_mode,
        crate::placement::replication_factor(standing.staying.len()),
    );
    let Some(target) = target else {
        result.waiting.push(Waiting::NoActiveNode);
        return;
    };
    let mut groups = Groups::default();
    let mut no_space = BTreeSet::new();
    let mut wanted = false;
    for ((shard, entry), owners) in view.table.iter().zip(&target) {
        let configuration = &entry.configuration;
        if configuration.is_joint() || configuration.new == *owners {
            continue;
        }
        wanted = true;
        let newcomers = || {
            owners
                .iter()
                .filter(|node| !configuration.old.contains(*node))
        };
        let spacious = newcomers().all(|node| standing.has_space(node));
        let up = configuration.old.iter();
        let up: OwnerSet = up.filter(|node| standing.is_up(*node)).collect();
        let newcomers_up = newcomers().all(|node| standing.is_up(node));
        let settled = finish::may_begin(shard, configuration, &up, view.reports);
        if spacious && newcomers_up && settled {
            let cause = standing.cause(&configuration.old, owners);
            groups.add(StepKind::Begin(cause), shard, entry, owners);
        }
        no_space.extend(newcomers().filter(|node| standing.is_full(*node)));
    }
    if !no_space.is_empty() {
        result
            .waiting
            .push(Waiting::NoSpace(no_space.into_iter().collect()));
    }
    if wanted && !standing.down.is_empty() {
        result
            .waiting
            .push(Waiting::MembersDown(standing.down.clone()));
        return;
    }
    let moving = view
        .table
        .iter()
        .filter(|(_, e)| e.configuration.is_joint())
        .count();
    result
        .steps
        .extend(admit(groups, moving, settings.shards_moving_max.max(1)));
}

/// Takes whole groups in order while they fit beside the shards that are `moving`. A group that is larger
/// than the bound is cut only when nothing else moves, so that its shards are copied in few passes.
fn admit(groups: Groups, mut moving: usize, most: usize) -> Vec<Step> {
    let mut admitted = Vec::new();
    for mut step in groups.into_steps() {
        if moving == 0 {
            step.changes.truncate(most);
        }
        if moving + step.changes.len() > most {
            break;
        }
        moving += step.changes.len();
        admitted.push(step);
    }
    admitted
}

/// Collects shards that take the same step between the same nodes.
#[derive(Default)]
struct Groups {
    steps: BTreeMap<(StepKind, OwnerSet, OwnerSet), Vec<ShardChange>>,
}

impl Groups {
    /// Adds a shard whose owners are to be `owners` when its change has ended.
    fn add(&mut self, kind: StepKind, shard: ShardId, entry: &ShardEntry, owners: &OwnerSet) {
        let present = &entry.configuration;
        let goal = match kind {
            StepKind::Begin(_) => owners,
            StepKind::Finish | StepKind::Abandon => &present.new,
        };
        let without = |set: &OwnerSet, other: &OwnerSet| -> OwnerSet {
            set.iter().filter(|node| !other.contains(*node)).collect()
        };
        let key = (
            kind,
            without(&present.old, goal),
            without(goal, &present.old),
        );
        let old = match kind {
            StepKind::Begin(_) => present.old.clone(),
            StepKind::Finish | StepKind::Abandon => owners.clone(),
        };
        let expected = present.number;
        let change = ShardChange {
            shard,
            expected,
            old,
            new: owners.clone(),
        };
        self.steps.entry(key).or_default().push(change);
    }

    fn into_steps(self) -> Vec<Step> {
        let step = |((kind, outgoing, incoming), changes)| Step {
            kind,
            outgoing,
            incoming,
            changes,
        };
        self.steps.into_iter().map(step).collect()
    }
}
