//! Error windows: how they are measured, and where they may be how long.

use super::build::{Build, failed};
use crate::{
    checker::{
        Timeline,
        availability::{self, AvailabilityFindings, FaultWindows},
    },
    history::{Action, Micros, Outcome},
    nemesis::Kind,
};

/// A client's add at a node; numbers do not matter here.
fn add(build: &mut Build, client: u32, node: usize, at: (Micros, Micros), outcome: Outcome) {
    let action = Action::Add {
        writer: "w".to_owned(),
        number: 0,
        series: 1,
    };
    build.operation(node, at, action, outcome).client = client;
}

/// Errors of client 1 at `node` from `from` to `to`, then a success.
fn errors(build: &mut Build, node: usize, (from, to): (Micros, Micros)) {
    add(build, 1, node, (from, from + 1), failed());
    add(build, 1, node, (from + 1, to - 1), failed());
    add(build, 1, node, (to - 1, to), Outcome::Done);
}

fn judge(build: &Build) -> AvailabilityFindings {
    availability::check(&build.history, &Timeline::new(&build.history))
}

fn assert_accepted(build: &Build) {
    assert_eq!(judge(build).violations.kept(), []);
}

fn assert_rejected(build: &Build, words: &str) {
    let violations = judge(build).violations;
    let texts: Vec<_> = violations.kept().iter().map(|v| v.text.as_str()).collect();
    assert_eq!(texts.len(), 1, "{texts:#?}");
    assert!(texts[0].contains(words), "{texts:#?}");
}

#[test]
fn a_window_over_three_seconds_at_a_node_that_was_not_struck_is_rejected() {
    for kind in ["kill-one", "pause"] {
        let mut build = Build::new("set");
        build.fault(kind, &[0], (10_000, 20_000));
        errors(&mut build, 0, (10_000, 20_000));
        errors(&mut build, 1, (11_000, 14_000));
        assert_accepted(&build);
        errors(&mut build, 2, (11_000, 14_001));
        let words = format!(
            "set requests of client 1 at node-3 failed for 3.001 s from 11.000 s on (line 9), longer than 3.000 s, with \
             {kind} of line 2"
        );
        assert_rejected(&build, &words);
    }
}

#[test]
fn silence_is_given_five_seconds() {
    let mut build = Build::new("set");
    build.fault("isolate-one", &[0], (10_000, 20_000));
    errors(&mut build, 1, (11_000, 16_000));
    assert_accepted(&build);
    errors(&mut build, 2, (11_000, 16_001));
    assert_rejected(&build, "longer than 5.000 s");
}

#[test]
fn errors_without_any_fault_are_rejected() {
    let mut build = Build::new("set");
    errors(&mut build, 0, (1_000, 4_000));
    assert_accepted(&build);
    errors(&mut build, 1, (1_000, 4_001));
    assert_rejected(&build, "with no fault yet");
}

#[test]
fn errors_that_outlast_recovery_are_rejected() {
    let mut build = Build::new("set");
    build.fault("kill-all", &[0, 1, 2], (10_000, 20_000));
    // Attempts that began while nothing was promised are not judged, however late they end.
    add(&mut build, 1, 0, (15_000, 30_000), failed());
    add(&mut build, 1, 0, (30_000, 33_000), failed());
    add(&mut build, 1, 0, (33_000, 33_000), Outcome::Done);
    assert_accepted(&build);
    add(&mut build, 2, 1, (21_000, 22_000), failed());
    add(&mut build, 2, 1, (24_000, 24_001), Outcome::Done);
    assert_rejected(&build, "with kill-all of line 2");
}

#[test]
fn a_node_that_is_not_ready_yet_is_still_struck() {
    let mut build = Build::new("set");
    let fault = build.fault("kill-one", &[0], (10_000, 20_000));
    fault.recovered = Some(30_000_000);
    errors(&mut build, 0, (10_000, 29_000));
    assert_accepted(&build);
    errors(&mut build, 0, (30_000, 34_000));
    assert_rejected(&build, "node-1");
}

#[test]
fn a_promise_ends_where_the_next_fault_takes_it_away() {
    let mut build = Build::new("set");
    build.fault("kill-one", &[0], (10_000, 20_000));
    build.fault("kill-all", &[0, 1, 2], (20_000, 40_000));
    errors(&mut build, 1, (17_500, 39_000));
    assert_accepted(&build);
    errors(&mut build, 2, (16_500, 39_000));
    assert_rejected(&build, "failed for 3.500 s");
}

#[test]
fn two_nodes_away_leave_registers_of_five_but_no_elements() {
    for (workload, kept) in [("set", false), ("register", true)] {
        let mut build = Build::new(workload);
        build.history.run.nodes = (1..=5).map(|node| format!("node-{node}")).collect();
        build.fault("split", &[0, 1], (10_000, 30_000));
        for at in [(11_000, 12_000), (12_000, 20_000)] {
            match workload {
                "set" => add(&mut build, 1, 4, at, failed()),
                _ => {
                    let key = "k".to_owned();
                    build.operation(4, at, Action::Get { key }, failed()).client = 1;
                }
            }
        }
        let count = judge(&build).violations.count();
        assert_eq!(count == 1, kept, "{workload}");
    }
}

#[test]
fn two_faults_at_once_take_away_what_each_one_leaves() {
    let mut build = Build::new("set");
    build.fault("kill-one", &[0], (10_000, 30_000));
    build.fault("pause", &[1], (10_000, 20_000));
    errors(&mut build, 2, (10_000, 20_000));
    assert_accepted(&build);
    errors(&mut build, 2, (20_000, 24_000));
    assert_rejected(&build, "failed for 4.000 s");
}

#[test]
fn answers_that_call_themselves_incomplete_are_errors() {
    let mut build = Build::new("set");
    for at in [(0, 1), (2_000, 3_001)] {
        let found = build.read(0, at, (0, 0), &[]);
        found.declared_incomplete = true;
    }
    for operation in &mut build.history.operations {
        operation.item.client = 1;
    }
    assert_rejected(&build, "failed for 3.001 s");
}

#[test]
fn a_kind_without_a_limit_is_rejected() {
    let mut build = Build::new("set");
    build.fault("meteor", &[0], (0, 1));
    assert_rejected(&build, "nobody has said what meteor leaves");
}

#[test]
fn every_kind_of_fault_has_a_limit() {
    for kind in Kind::ALL {
        let mut build = Build::new("set");
        build.fault(kind.name(), &[0], (0, 1));
        assert_accepted(&build);
    }
}

#[test]
fn windows_are_measured_per_fault_and_per_client_and_node() {
    let mut build = Build::new("set");
    errors(&mut build, 1, (1_000, 1_400));
    build.fault("kill-one", &[0], (2_000, 3_000));
    build.fault("pause", &[1], (5_000, 6_000));
    errors(&mut build, 0, (2_100, 2_900));
    errors(&mut build, 1, (4_000, 4_200));
    errors(&mut build, 1, (5_000, 7_000));
    // Another client's success closes no window of the first.
    add(&mut build, 2, 1, (5_500, 5_600), Outcome::Done);
    let found = judge(&build);
    let kill = FaultWindows {
        untouched: 200_000,
        anywhere: 800_000,
    };
    let pause = FaultWindows {
        untouched: 0,
        anywhere: 2_000_000,
    };
    assert_eq!(found.by_fault, [kill, pause]);
    assert_eq!((found.quiet, found.longest), (400_000, 2_000_000));
}
