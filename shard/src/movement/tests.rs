//! Decisions as tables: a cluster, what is known of it, and the steps that follow.

use super::*;
use crate::{ReplicaGroup, Trust};
use trefoil_model::{Configuration, ShardSet};

const MINUTE: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::from_secs(10_000);

fn owners(ids: &[u64]) -> OwnerSet {
    ids.iter().copied().map(NodeId).collect()
}

/// A cluster whose shards all have one configuration, and members that are up.
struct Bench {
    table: PlacementTable,
    members: Vec<MemberView>,
    reports: BTreeMap<NodeId, ReplicaReport>,
    settings: MovementSettings,
}

impl Bench {
    fn new(shards: u16, old: &[u64], new: &[u64], members: u64) -> Self {
        let configuration = Configuration {
            number: ConfigurationNumber(7),
            old: owners(old),
            new: owners(new),
        };
        let entry = ShardEntry {
            configuration,
            owners: BTreeMap::new(),
        };
        let member = |id| MemberView {
            node: PlacementNode {
                id: NodeId(id),
                zone: String::new(),
                weight: 1,
                active: true,
            },
            dead_since: None,
            has_space: Some(true),
        };
        let mut bench = Self {
            table: PlacementTable {
                shards: vec![entry; usize::from(shards)],
            },
            members: (1..=members).map(member).collect(),
            reports: BTreeMap::new(),
            settings: MovementSettings::default(),
        };
        for id in old {
            bench = bench.reports(*id, 7, Trust::Serving, &[]);
        }
        bench
    }

    fn member(&mut self, id: u64) -> &mut MemberView {
        &mut self.members[id as usize - 1]
    }

    fn dead(mut self, id: u64, minutes: u32) -> Self {
        self.member(id).dead_since = Some(NOW - MINUTE * minutes);
        self
    }

    fn draining(mut self, id: u64) -> Self {
        self.member(id).node.active = false;
        self
    }

    /// A node that reports all shards as Serving under the number, having caught up with these.
    fn reports(mut self, id: u64, number: u64, trust: Trust, caught_up_with: &[u64]) -> Self {
        let group = ReplicaGroup {
            shards: ShardSet::all(self.table.len()),
            number: ConfigurationNumber(number),
            trust,
            whole: true,
            caught_up_with: caught_up_with.iter().copied().map(NodeId).collect(),
        };
        self.reports.insert(
            NodeId(id),
            ReplicaReport {
                groups: vec![group],
            },
        );
        self
    }

    fn decide(&self) -> MovementPlan {
        let view = MovementView {
            now: NOW,
            table: &self.table,
            members: &self.members,
            reports: &self.reports,
        };
        decide(&view, &self.settings)
    }

    /// The steps in short: kind, outgoing, incoming, number of shards.
    fn steps(&self) -> Vec<(StepKind, Vec<u64>, Vec<u64>, usize)> {
        let ids = |set: &OwnerSet| set.iter().map(|node| node.0).collect();
        let short = |s: &Step| (s.kind, ids(&s.outgoing), ids(&s.incoming), s.changes.len());
        self.decide().steps.iter().map(short).collect()
    }
}

const DRAIN: StepKind = StepKind::Begin(Cause::Drain);
const GROW: StepKind = StepKind::Begin(Cause::Grow);
const REPLACE: StepKind = StepKind::Begin(Cause::Replace);
const BALANCE: StepKind = StepKind::Begin(Cause::Balance);

#[test]
fn nothing_to_do() {
    let bench = Bench::new(4, &[1, 2, 3], &[1, 2, 3], 3);
    assert_eq!(bench.decide(), MovementPlan::default());
    assert_eq!(Bench::new(0, &[], &[], 3).decide(), MovementPlan::default());
}

#[test]
fn members_come() {
    // One, two, three: another owner for every shard, all in one group.
    assert_eq!(
        Bench::new(8, &[1], &[1], 2).steps(),
        [(GROW, vec![], vec![2], 8)]
    );
    assert_eq!(
        Bench::new(8, &[1, 2], &[1, 2], 3).steps(),
        [(GROW, vec![], vec![3], 8)]
    );
    // The fourth gets three quarters of the shards, in as many groups as there are old owners.
    let fourth = Bench::new(256, &[1, 2, 3], &[1, 2, 3], 4).steps();
    assert_eq!(
        fourth,
        [(BALANCE, vec![1], vec![4], 64)],
        "one group fits the bound"
    );
    let mut wider = Bench::new(256, &[1, 2, 3], &[1, 2, 3], 4);
    wider.settings.shards_moving_max = 256;
    let from = |node| (BALANCE, vec![node], vec![4], 64);
    assert_eq!(wider.steps(), [from(1), from(2), from(3)]);
}

#[test]
fn a_group_that_is_too_large_is_cut_only_when_nothing_moves() {
    let mut bench = Bench::new(8, &[1], &[1], 2);
    bench.settings.shards_moving_max = 3;
    assert_eq!(bench.steps(), [(GROW, vec![], vec![2], 3)]);
    bench.table.shards[0].configuration.new = owners(&[1, 2]);
    assert_eq!(bench.steps(), [], "the rest waits for the shard that moves");
}

#[test]
fn a_drained_member_gives_its_shards_away_and_may_then_be_removed() {
    let bench = Bench::new(4, &[1, 2, 3], &[1, 2, 3], 4).draining(2);
    assert_eq!(bench.steps(), [(DRAIN, vec![2], vec![4], 4)]);
    assert_eq!(bench.decide().removable, []);
    let empty = Bench::new(4, &[1, 3, 4], &[1, 3, 4], 4).draining(2);
    assert_eq!(empty.decide().removable, [NodeId(2)]);
    // With three members draining one leaves two owners, as for a cluster of two.
    let three = Bench::new(4, &[1, 2, 3], &[1, 2, 3], 3).draining(2);
    assert_eq!(three.steps(), [(DRAIN, vec![2], vec![], 4)]);
    let all = Bench::new(4, &[1], &[1], 1).draining(1);
    assert_eq!(all.decide().waiting, [Waiting::NoActiveNode]);
}

#[test]
fn a_dead_member_is_replaced_after_ten_minutes_when_all_else_is_well() {
    let cluster = |members| Bench::new(4, &[1, 2, 3], &[1, 2, 3], members);
    let down = |ids: &[u64]| Waiting::MembersDown(ids.iter().copied().map(NodeId).collect());
    assert_eq!(
        cluster(4).dead(2, 10).steps(),
        [(REPLACE, vec![2], vec![4], 4)]
    );
    // (members, dead, minutes) -> what it waits for; no step in any of these.
    let early = cluster(4).dead(2, 9);
    assert_eq!(
        (early.steps(), early.decide().waiting),
        (vec![], vec![down(&[2])])
    );
    let no_spare = cluster(3).dead(2, 99);
    let expected = vec![Waiting::NoSpareNode(NodeId(2))];
    assert_eq!(
        (no_spare.steps(), no_spare.decide().waiting),
        (vec![], expected)
    );
    let two = cluster(5).dead(2, 99).dead(3, 99).decide();
    assert_eq!(two.steps, []);
    assert_eq!(
        two.waiting[0],
        Waiting::SeveralDead(vec![NodeId(2), NodeId(3)])
    );
    let one_and_a_blink = cluster(5).dead(2, 99).dead(3, 0).decide();
    assert_eq!(one_and_a_blink.steps, []);
    assert_eq!(one_and_a_blink.waiting[0], down(&[3]));
    let mut full = cluster(4).dead(2, 10);
    full.member(4).has_space = Some(false);
    assert_eq!(full.steps(), []);
    assert_eq!(full.decide().waiting[0], Waiting::NoSpace(vec![NodeId(4)]));
    // Two dead, one of them given up by the operator: the word of an operator is enough for that one.
    let given_up = cluster(4).dead(2, 1).draining(2);
    assert_eq!(given_up.steps(), [(DRAIN, vec![2], vec![4], 4)]);
    // Without a majority of the old owners nothing could ever finish.
    let lost = Bench::new(4, &[1, 2], &[1, 2], 3).dead(2, 99).draining(2);
    assert_eq!(lost.steps(), []);
}

#[test]
fn a_node_that_has_not_said_what_space_it_has_gets_nothing_and_is_not_called_full() {
    // A member whose owner is dead for good, and a member that is drained: both wait, and nobody is called for it.
    let cluster = |members| Bench::new(4, &[1, 2, 3], &[1, 2, 3], members);
    for bench in [cluster(4).dead(2, 10), cluster(4).draining(2)] {
        let mut unknown = bench;
        unknown.member(4).has_space = None;
        let decided = unknown.decide();
        assert_eq!(decided.steps, []);
        let full = |waiting: &Waiting| matches!(waiting, Waiting::NoSpace(_));
        assert!(!decided.waiting.iter().any(full), "{:?}", decided.waiting);
        unknown.member(4).has_space = Some(true);
        assert_eq!(unknown.steps().len(), 1);
    }
    let mut full = cluster(4).draining(2);
    full.member(4).has_space = Some(false);
    assert_eq!(full.decide().waiting, [Waiting::NoSpace(vec![NodeId(4)])]);
    // A node that is gone and owned nothing will never say what it has: nobody waits for that.
    let mut gone = cluster(5).dead(2, 10).dead(5, 99);
    gone.member(5).has_space = None;
    assert_eq!(gone.steps().len(), 1, "{:?}", gone.decide().waiting);
}

#[test]
fn a_dead_member_that_owns_nothing_disturbs_nobody() {
    let bench = Bench::new(4, &[1], &[1], 3).dead(3, 99);
    assert_eq!(bench.steps(), [(GROW, vec![], vec![2], 4)]);
    assert_eq!(bench.decide().waiting, []);
}

#[test]
fn a_change_finishes_under_its_condition_only() {
    use Trust::{Amnesiac, Joining, Serving};
    let joint = || {
        let mut bench = Bench::new(2, &[1, 2, 3], &[1, 2, 4], 4);
        bench.reports.clear();
        bench
    };
    let finish = vec![(StepKind::Finish, vec![3], vec![4], 2)];
    let check = |what: &str, bench: Bench, finishes: bool| {
        let expected = if finishes { finish.clone() } else { vec![] };
        assert_eq!(bench.steps(), expected, "{what}");
    };
    let ready = || {
        let bench = joint()
            .reports(1, 7, Serving, &[2])
            .reports(2, 7, Serving, &[1]);
        bench.reports(4, 7, Serving, &[1, 2])
    };
    check("all of new has caught up with 1 and 2", ready(), true);
    check(
        "reports of the owner that leaves do not matter",
        ready().reports(3, 6, Amnesiac, &[]),
        true,
    );
    check("nobody has reported", joint(), false);
    check(
        "an old owner has not followed",
        ready().reports(2, 6, Serving, &[1]),
        false,
    );
    check(
        "a stale report of the newcomer",
        ready().reports(4, 6, Serving, &[1, 2]),
        false,
    );
    check(
        "one of new lacks one of the majority",
        ready().reports(1, 7, Serving, &[]),
        false,
    );
    check(
        "the newcomer lacks one",
        ready().reports(4, 7, Serving, &[1]),
        false,
    );
    check(
        "the newcomer is not Serving",
        ready().reports(4, 7, Joining, &[1, 2]),
        false,
    );
    let other = joint()
        .reports(1, 7, Serving, &[3])
        .reports(2, 7, Serving, &[1, 3]);
    let other = other.reports(3, 7, Serving, &[]);
    check(
        "the majority is 1 and 3",
        other.reports(4, 7, Serving, &[1, 3]),
        true,
    );
    let mut damaged = ready();
    damaged.reports.get_mut(&NodeId(2)).unwrap().groups[0].whole = false;
    // It is refilled sooner among the old owners alone.
    assert_eq!(damaged.steps(), [(StepKind::Abandon, vec![3], vec![4], 2)]);
    let growing = Bench::new(2, &[1], &[1, 2], 2).reports(1, 7, Serving, &[]);
    let growing = growing.reports(2, 7, Serving, &[1]).steps();
    assert_eq!(growing, [(StepKind::Finish, vec![], vec![2], 2)]);
}

#[test]
fn a_finished_change_has_the_new_owners_and_an_abandoned_one_the_old() {
    let joint = Bench::new(1, &[1, 2, 3], &[1, 2, 4], 4);
    let changes = |bench: Bench| bench.decide().steps[0].changes.clone();
    let expected = |ids: &[u64]| {
        let (shard, expected) = (ShardId(0), ConfigurationNumber(7));
        vec![ShardChange {
            shard,
            expected,
            old: owners(ids),
            new: owners(ids),
        }]
    };
    let abandoned = changes(joint.draining(4));
    assert_eq!(abandoned, expected(&[1, 2, 3]));
    let ready = Bench::new(1, &[1, 2, 3], &[1, 2, 4], 4)
        .reports(1, 7, Trust::Serving, &[2])
        .reports(2, 7, Trust::Serving, &[1])
        .reports(4, 7, Trust::Serving, &[1, 2]);
    assert_eq!(changes(ready), expected(&[1, 2, 4]));
}

#[test]
fn a_change_is_abandoned_when_its_newcomer_is_gone() {
    let abandon = [(StepKind::Abandon, vec![3], vec![4], 4)];
    let joint = |members| Bench::new(4, &[1, 2, 3], &[1, 2, 4], members);
    assert_eq!(joint(4).dead(4, 10).steps(), abandon);
    assert_eq!(joint(4).draining(4).steps(), abandon);
    assert_eq!(joint(3).steps(), abandon, "removed");
    assert_eq!(joint(4).dead(4, 9).steps(), [], "it may come back");
    assert_eq!(
        joint(4).dead(3, 99).steps(),
        [],
        "the one that leaves may be dead"
    );
}

/// A change that began before anybody knew that an owner which it keeps was dead.
#[test]
fn a_change_that_keeps_a_dead_owner_is_abandoned_once_that_is_given_up() {
    let bench = || Bench::new(4, &[1, 2, 3], &[1, 2, 4], 4);
    assert_eq!(bench().dead(2, 0).steps(), []);
    let abandon = [(StepKind::Abandon, vec![3], vec![4], 4)];
    assert_eq!(bench().dead(2, 0).draining(2).steps(), abandon);
    assert_eq!(bench().draining(2).steps(), [], "it can still serve");
}

#[test]
fn refills_come_first() {
    let change = || Bench::new(4, &[1, 2, 3], &[1, 2, 3], 4);
    assert_eq!(change().steps().len(), 3);
    assert_eq!(change().reports(1, 7, Trust::Amnesiac, &[]).steps(), []);
    assert_eq!(
        change().reports(1, 6, Trust::Serving, &[]).steps(),
        [],
        "who knows"
    );
    let joint = Bench::new(4, &[1, 2], &[1, 2, 3], 3).reports(2, 7, Trust::Amnesiac, &[1]);
    assert_eq!(joint.steps(), [(StepKind::Abandon, vec![], vec![3], 4)]);
    let newcomer = Bench::new(4, &[1, 2], &[1, 2, 3], 3).reports(3, 7, Trust::Amnesiac, &[1]);
    assert_eq!(
        newcomer.steps(),
        [],
        "a newcomer is refilled inside the change"
    );
}

#[test]
fn reports_decide_nothing_when_nothing_moves() {
    let bench = Bench::new(4, &[1, 2, 3], &[1, 2, 3], 3).reports(1, 7, Trust::Amnesiac, &[]);
    assert_eq!(bench.steps(), []);
}
