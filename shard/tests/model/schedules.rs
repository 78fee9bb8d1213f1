//! Named schedules: each goes well under the rules, and breaks a promise with the bug that it is about.

use crate::explorer::replay;
use crate::rules::{Bounds, Fault, ImportSkip, Rules};
use crate::state::{Node, NodeSet};
use crate::step::Event::{self, *};

const A: Node = 0;
const B: Node = 1;
const C: Node = 2;
const D: Node = 3;

const ONE_CHANGE: Bounds = Bounds {
    changes: &[NodeSet::ABD],
    ..Bounds::CALM
};
const ONE_LOSS: Bounds = Bounds {
    losses: 1,
    ..Bounds::CALM
};

/// Checks a schedule under the rules, then with each of the bugs.
fn check(bounds: Bounds, schedule: &[Event], bugs: &[Rules]) {
    let found = replay(schedule, &Rules::default(), &bounds);
    assert_eq!(found, None, "the rules themselves");
    for bug in bugs {
        let found = replay(schedule, bug, &bounds);
        assert!(found.is_some(), "{bug:?} goes unnoticed");
    }
}

fn only(node: Node) -> NodeSet {
    NodeSet(1 << node)
}

/// The item is written by two owners.
fn written(number: u8, first: Node, second: Node) -> [Event; 3] {
    [Try(0, number), Push(0, first), Push(0, second)]
}

#[test]
fn two_chained_movements() {
    let bounds = Bounds {
        changes: &[NodeSet::ABD, NodeSet::ACD],
        ..Bounds::CALM
    };
    let mut schedule = written(0, B, C).to_vec();
    schedule.extend([Begin(NodeSet::ABD), Finish, Begin(NodeSet::ACD), Finish]);
    schedule.extend([
        Follow(D, 1),
        Follow(D, 2),
        Follow(D, 4),
        Follow(A, 2),
        Follow(A, 4),
    ]);
    schedule.push(Query(D, only(A)));
    let bugs = [Fault::NoJointStep, Fault::FinishUnchecked].map(Rules::with);
    check(bounds, &schedule, &bugs);
}

#[test]
fn amnesiac_waits_for_one_owner_only() {
    let mut schedule = written(0, A, B).to_vec();
    schedule.extend([LoseDisk(A), CatchUp(A, C), Query(A, only(C))]);
    let bugs = [Fault::RefillFromOne, Fault::AmnesiacServes].map(Rules::with);
    check(ONE_LOSS, &schedule, &bugs);
}

#[test]
fn acknowledgement_before_a_loss_counts_after_the_refill() {
    let schedule = [
        Try(0, 0),
        Push(0, A),
        LoseDisk(A),
        CatchUp(A, B),
        Push(0, B),
        CatchUp(A, C),
        Query(A, only(C)),
    ];
    check(
        ONE_LOSS,
        &schedule,
        &[Rules::with(Fault::AmnesiaUnrecorded)],
    );
}

#[test]
fn two_owners_refill_from_each_other() {
    let bounds = Bounds {
        losses: 2,
        losses_overlap: true,
        ..Bounds::CALM
    };
    let mut schedule = written(0, A, B).to_vec();
    schedule.extend([
        LoseDisk(A),
        LoseDisk(B),
        Follow(A, 2),
        CatchUp(A, B),
        CatchUp(B, A),
    ]);
    schedule.extend([
        CatchUp(A, C),
        CatchUp(B, C),
        Query(A, only(B)),
        Query(C, only(A)),
    ]);
    check(bounds, &schedule, &[Rules::with(Fault::FillingCounts)]);
}

#[test]
fn imports_that_barriers_do_not_list() {
    let mut schedule = written(0, A, B).to_vec();
    schedule.extend([LoseDisk(A), CatchUp(A, C), CatchUp(C, A), CatchUp(A, B)]);
    schedule.push(Query(C, only(A)));
    let always = Rules {
        import_skip: ImportSkip::Always,
        ..Rules::default()
    };
    check(
        ONE_LOSS,
        &schedule,
        &[Rules::with(Fault::ImportsUnlisted), always],
    );
}

#[test]
fn copied_items_that_are_acknowledged_without_a_record() {
    let bounds = Bounds {
        trims: 1,
        ..Bounds::CALM
    };
    let schedule = [
        Try(0, 0),
        Push(0, A),
        Trim(A),
        Copy(B, A),
        Push(0, B),
        Query(C, only(B)),
    ];
    check(bounds, &schedule, &[Rules::with(Fault::CopiedIsHeld)]);
}

#[test]
fn position_in_a_refilled_peers_empty_journal() {
    let bounds = Bounds {
        trims: 1,
        ..ONE_LOSS
    };
    let mut schedule = written(0, A, B).to_vec();
    schedule.extend([
        LoseDisk(A),
        CatchUp(A, B),
        Trim(A),
        CatchUp(A, C),
        Query(C, only(A)),
    ]);
    check(bounds, &schedule, &[Rules::with(Fault::UnknownRunIsStart)]);
}

#[test]
fn shard_that_two_nodes_come_to_share_later() {
    let bounds = Bounds {
        other_shards: true,
        ..ONE_CHANGE
    };
    let mut schedule = written(0, A, B).to_vec();
    schedule.extend([OtherShards(D, A), Begin(NodeSet::ABD), Follow(D, 1)]);
    schedule.extend([CatchUp(D, C), CatchUp(D, A), Query(D, NodeSet(0b101))]);
    check(bounds, &schedule, &[Rules::with(Fault::PositionPerPeer)]);
}

#[test]
fn trim_below_a_paused_replica() {
    let bounds = Bounds {
        trims: 1,
        ..Bounds::CALM
    };
    let mut schedule = written(0, A, B).to_vec();
    schedule.extend([Trim(A), Query(C, only(A))]);
    check(bounds, &schedule, &[Rules::with(Fault::TrimmedAnswersRest)]);
}

/// The new owner D and the staying ones catch up with A and B.
const CAUGHT_UP: [Event; 6] = [
    Begin(NodeSet::ABD),
    Follow(D, 1),
    CatchUp(D, A),
    CatchUp(D, B),
    CatchUp(A, B),
    CatchUp(B, A),
];

#[test]
fn stale_coordinator() {
    let mut schedule = vec![Try(0, 0), Push(0, C)];
    schedule.extend(CAUGHT_UP);
    schedule.extend([Push(0, A), Finish, Follow(B, 2), Query(B, only(D))]);
    check(ONE_CHANGE, &schedule, &[Rules::with(Fault::StalePushTaken)]);
}

#[test]
fn stale_reader() {
    let mut schedule = CAUGHT_UP.to_vec();
    schedule.push(Finish);
    schedule.extend(written(2, A, D));
    schedule.push(Query(C, only(B)));
    check(
        ONE_CHANGE,
        &schedule,
        &[Rules::with(Fault::StaleBarrierAnswered)],
    );
}

#[test]
fn barrier_that_reaches_the_old_owners_only() {
    let mut schedule = CAUGHT_UP.to_vec();
    schedule.extend([Follow(C, 1), Finish]);
    schedule.extend(written(2, A, D));
    schedule.push(Query(C, only(B)));
    check(ONE_CHANGE, &schedule, &[Rules::with(Fault::BarrierOldOnly)]);
}

#[test]
fn adoption_lost_in_a_crash() {
    let bounds = Bounds {
        crashes: 1,
        ..ONE_CHANGE
    };
    let mut schedule = CAUGHT_UP.to_vec();
    schedule.extend([Finish, Crash(A)]);
    schedule.extend(written(0, A, C));
    schedule.extend([Follow(B, 2), Query(B, only(D))]);
    check(bounds, &schedule, &[Rules::with(Fault::AdoptionNotDurable)]);
}

#[test]
fn catching_up_before_the_source_followed() {
    let mut schedule = vec![
        Begin(NodeSet::ABD),
        Follow(D, 1),
        CatchUp(D, A),
        CatchUp(D, B),
    ];
    schedule.extend([CatchUp(B, A), CatchUp(A, B)]);
    schedule.extend(written(0, A, C));
    schedule.extend([
        Follow(A, 1),
        Follow(B, 1),
        CatchUp(A, D),
        CatchUp(B, D),
        Finish,
    ]);
    schedule.extend([Follow(B, 2), Follow(D, 2), Query(B, only(D))]);
    check(ONE_CHANGE, &schedule, &[Rules::with(Fault::EarlyCatchUp)]);
}

#[test]
fn shard_that_leaves_a_node_and_comes_back() {
    let changes = &[NodeSet(0b101), NodeSet(0b011)];
    let bounds = Bounds {
        owners: 2,
        changes,
        drops: true,
        ..Bounds::CALM
    };
    let mut schedule = vec![Begin(changes[0])];
    schedule.extend(written(0, A, B));
    schedule.extend([
        Follow(A, 1),
        CatchUp(A, B),
        CatchUp(B, C),
        CatchUp(C, A),
        CatchUp(C, B),
    ]);
    schedule.extend([
        Finish,
        Begin(changes[1]),
        Follow(A, 2),
        CatchUp(A, C),
        Follow(B, 2),
    ]);
    schedule.extend([
        Drop(B),
        Follow(B, 3),
        CatchUp(B, A),
        CatchUp(B, C),
        Query(B, only(A)),
    ]);
    check(bounds, &schedule, &[Rules::with(Fault::DropKeepsPositions)]);
}
