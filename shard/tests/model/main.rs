//! An exhaustive model of the core of replication: configuration numbers, joint changes, held
//! records, barriers by position, the trim floor, copies of blocks as journal records, trust, amnesia with
//! lineage, dropped replicas.
//!
//! One shard, four nodes, up to two writes. A step is one exchange or local event ([`step`]); the explorer
//! ([`explorer`]) tries every schedule within [`rules::Bounds`], breadth first, so that what it finds is
//! shortest. Two promises are checked: no acknowledged item is lost while disks are lost one at a time (D1), and
//! no evaluation lacks an item that was acknowledged before its query began (D2).
//!
//! **Planted bugs** ([`rules::Fault`]) undo one rule each. All are found: by search, which prints the
//! shortest counter-example, and most also by a named schedule ([`schedules`]).
//!
//! **What the bounds leave out.** One or two writes, one change or loss at a time in most searches, journals of a
//! few records. Not modelled at all: restored copies, items that are seen but not yet held, copies that are
//! not atomic, deletions, windows. The simulation of the replica core has these, without being exhaustive.
//!
//! **Where states are saved**, with the argument at the place: queries happen at one moment
//! (`step::query`), positions move past records that are held already
//! (`step::pass_over_what_is_held`), catching up is forgotten where it decides nothing
//! (`step::forget_what_decides_nothing`), nodes that play the same part may swap names
//! (`explorer::symmetries`).
//!
//! `TREFOIL_MODEL_STATES` raises the number of states for the searches that do not finish by default;
//! with 2000000 the change of one of three owners is exhausted too.

mod explorer;
mod rules;
mod schedules;
mod state;
mod step;

use explorer::search;
use rules::{Bounds, Fault, ImportSkip, Rules};
use state::NodeSet;

/// States after which a search that is meant to finish is given up.
const EXHAUSTIVE_STATES_MAX: usize = 2_000_000;
/// States of the other searches, unless `TREFOIL_MODEL_STATES` says otherwise.
const PARTIAL_STATES: usize = 30_000;

const A_AND_B: NodeSet = NodeSet(0b0011);
const A_AND_C: NodeSet = NodeSet(0b0101);

const CALM: Bounds = Bounds::CALM;
/// One of three owners is replaced by the spare.
const CHANGE: Bounds = Bounds {
    changes: &[NodeSet::ABD],
    ..CALM
};
/// The same with a coordinator that never learns of it.
const STALE: Bounds = Bounds {
    abandons: false,
    tries: Some(&[0]),
    ..CHANGE
};
/// One of two owners is replaced.
const CHANGE_OF_TWO: Bounds = Bounds {
    owners: 2,
    changes: &[A_AND_C],
    ..CALM
};

/// Runs a search and prints how it went.
fn run(name: &str, rules: &Rules, bounds: &Bounds, states_max: usize) -> explorer::Search {
    let search = search(rules, bounds, states_max);
    println!("{name}: {search}");
    search
}

fn check_exhaustively(name: &str, rules: &Rules, bounds: &Bounds) {
    let search = run(name, rules, bounds, EXHAUSTIVE_STATES_MAX);
    assert!(
        search.found.is_none() && search.exhausted && search.clipped == 0,
        "{name}: {search}"
    );
}

#[test]
fn losses_and_trims_of_three_owners() {
    let bounds = Bounds {
        losses: 1,
        trims: 1,
        ..CALM
    };
    check_exhaustively("one loss, one trim", &Rules::default(), &bounds);
}

#[test]
fn growing_and_changing_two_owners() {
    let rules = Rules::default();
    let one = Bounds {
        owners: 1,
        changes: &[A_AND_B],
        ..CALM
    };
    check_exhaustively("1 -> 2 owners", &rules, &one);
    let grow = Bounds {
        owners: 2,
        changes: &[NodeSet::ABC],
        tries: Some(&[0, 1]),
        ..CALM
    };
    check_exhaustively(
        "2 -> 3 owners",
        &rules,
        &Bounds {
            abandons: false,
            ..grow
        },
    );
    check_exhaustively(
        "2 owners, trim",
        &rules,
        &Bounds {
            trims: 1,
            abandons: false,
            tries: Some(&[0]),
            ..CHANGE_OF_TWO
        },
    );
    check_exhaustively(
        "2 owners",
        &rules,
        &Bounds {
            abandons: false,
            ..CHANGE_OF_TWO
        },
    );
}

/// States of the searches that are not meant to finish by default.
fn partial_states() -> usize {
    let variable = std::env::var("TREFOIL_MODEL_STATES");
    variable.map_or(PARTIAL_STATES, |text| {
        text.parse().expect("a number of states")
    })
}

/// Searches that need millions of states: as far as they are given.
#[test]
fn larger_bounds() {
    let two_writes = Bounds {
        writes: 2,
        drops: true,
        losses: 2,
        trims: 2,
        ..CHANGE
    };
    let back = Bounds {
        changes: &[A_AND_C, A_AND_B],
        drops: true,
        trims: 1,
        ..CHANGE_OF_TWO
    };
    let searches = [
        ("3 owners, change, stale coordinator", STALE),
        ("3 owners, change", CHANGE),
        (
            "3 owners, change, loss, trim",
            Bounds {
                losses: 1,
                trims: 1,
                ..CHANGE
            },
        ),
        (
            "2 owners, change, loss",
            Bounds {
                losses: 1,
                ..CHANGE_OF_TWO
            },
        ),
        ("a shard comes back", back),
        (
            "2 of everything",
            Bounds {
                changes: &[NodeSet::ABD, NodeSet::ACD],
                ..two_writes
            },
        ),
    ];
    for (name, bounds) in searches {
        let search = run(name, &Rules::default(), &bounds, partial_states());
        assert!(search.found.is_none(), "{name}: {search}");
    }
}

/// Two bugs that only 13 and 14 steps show, after more than a million states. By default their named
/// schedules stand for them.
#[test]
fn deep_planted_bugs() {
    let deep = [
        (
            Fault::AdoptionNotDurable,
            Bounds {
                crashes: 1,
                ..STALE
            },
        ),
        (Fault::EarlyCatchUp, STALE),
    ];
    for (fault, bounds) in deep {
        let search = run(
            &format!("{fault:?}"),
            &Rules::with(fault),
            &bounds,
            partial_states(),
        );
        assert!(search.found.is_some() || partial_states() < EXHAUSTIVE_STATES_MAX);
    }
}

/// The decision on imports (docs/decisions/imports-are-journal-records.md): passing over an import by
/// position is as safe as never passing over one, and passing over it with any position is not.
#[test]
fn imports_may_be_passed_over_by_position() {
    let bounds = Bounds {
        losses: 1,
        trims: 1,
        ..CALM
    };
    let inherit = Rules {
        inherit_positions: true,
        ..Rules::default()
    };
    check_exhaustively("positions are inherited with copies", &inherit, &bounds);
    let never = Rules {
        import_skip: ImportSkip::Never,
        ..Rules::default()
    };
    let loss = Bounds { trims: 0, ..bounds };
    check_exhaustively("imports are never passed over", &never, &loss);
    let always = Rules {
        import_skip: ImportSkip::Always,
        ..Rules::default()
    };
    let search = run(
        "imports are passed over with any position",
        &always,
        &bounds,
        100_000,
    );
    assert!(search.found.is_some());
}

#[test]
fn every_planted_bug_is_found() {
    let change = Bounds {
        abandons: false,
        ..CHANGE
    };
    let fresh = Bounds {
        tries: Some(&[2]),
        ..change
    };
    let loss = Bounds { losses: 1, ..CALM };
    let trim = Bounds { trims: 1, ..CALM };
    let back = Bounds {
        changes: &[A_AND_C, A_AND_B],
        drops: true,
        ..CHANGE_OF_TWO
    };
    let planted = [
        (Fault::NoJointStep, change),
        (Fault::FinishUnchecked, change),
        (Fault::StalePushTaken, STALE),
        (Fault::StaleBarrierAnswered, fresh),
        (Fault::BarrierOldOnly, fresh),
        (Fault::AmnesiacServes, loss),
        (Fault::RefillFromOne, loss),
        (Fault::AmnesiaUnrecorded, loss),
        (
            Fault::FillingCounts,
            Bounds {
                losses: 2,
                losses_overlap: true,
                ..CALM
            },
        ),
        (Fault::ImportsUnlisted, loss),
        (Fault::CopiedIsHeld, trim),
        (Fault::UnknownRunIsStart, Bounds { trims: 1, ..loss }),
        (Fault::TrimmedAnswersRest, trim),
        (
            Fault::PositionPerPeer,
            Bounds {
                other_shards: true,
                ..STALE
            },
        ),
        (
            Fault::DropKeepsPositions,
            Bounds {
                abandons: false,
                tries: Some(&[0]),
                ..back
            },
        ),
    ];
    for (fault, bounds) in planted {
        let name = format!("{fault:?}");
        let search = run(&name, &Rules::with(fault), &bounds, EXHAUSTIVE_STATES_MAX);
        assert!(search.found.is_some(), "{name} is not found: {search}");
    }
}
