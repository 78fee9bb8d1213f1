//! Runs that did too little.

use super::build::{Build, failed, unknown};
use crate::{
    checker::{Timeline, coverage},
    history::{Action, Outcome},
};

/// Twenty seconds with a fault from 4 s to 12 s, all clients of all nodes at work all the time.
fn busy(workload: &str) -> Build {
    let mut build = Build::new(workload);
    build.history.run.duration = 20_000_000;
    build.history.run.faults = vec!["kill-one".to_owned()];
    build.fault("kill-one", &[0], (4_000, 12_000));
    for at in (0..20_000).step_by(500) {
        for node in 0..3 {
            let at = (at, at + 10);
            let key = || "k".to_owned();
            if workload == "set" {
                let add = Action::Add {
                    writer: "w".to_owned(),
                    number: at.0,
                    series: 1,
                };
                build.operation(node, at, add, Outcome::Done);
                build.read(node, at, (0, 0), &[]);
            } else {
                let set = Action::CompareAndSet {
                    key: key(),
                    expected: None,
                    new: 1,
                };
                let get = Action::Get { key: key() };
                build.operation(node, at, set, Outcome::Done);
                build.operation(node, at, get, Outcome::Value(None));
            }
        }
    }
    build
}

fn texts(build: &Build) -> Vec<String> {
    let timeline = Timeline::new(&build.history);
    let violations = coverage::check(&build.history, &timeline);
    violations.kept().iter().map(|v| v.text.clone()).collect()
}

/// The first violation has these words.
fn assert_rejected(build: &Build, words: &str) {
    let texts = texts(build);
    let first = texts.first().map_or("", |text| text);
    assert!(first.contains(words), "{texts:#?}");
}

/// Makes operations fail for which `matches` holds.
fn fail(build: &mut Build, matches: impl Fn(&crate::history::Operation) -> bool) {
    for operation in &mut build.history.operations {
        if matches(operation) {
            operation.item.outcome = failed();
        }
    }
}

#[test]
fn busy_runs_are_accepted() {
    assert_eq!(texts(&busy("set")), Vec::<String>::new());
    assert_eq!(texts(&busy("register")), Vec::<String>::new());
}

#[test]
fn a_fault_that_did_not_happen_is_rejected() {
    let mut build = busy("set");
    build.history.run.faults.push("pause".to_owned());
    assert_rejected(&build, "pause was asked for and did not happen");
}

#[test]
fn a_fault_that_never_struck_is_rejected() {
    let mut build = busy("set");
    build.history.faults[0].item.struck = 0;
    assert_rejected(
        &build,
        "kill-one was done 1 times and never struck anything",
    );
    build.fault("kill-one", &[1], (13_000, 13_500));
    assert_eq!(texts(&build), Vec::<String>::new());
}

#[test]
fn a_node_that_never_recovered_is_rejected() {
    let mut build = busy("set");
    build.history.faults[0].item.recovered = None;
    assert_rejected(
        &build,
        "line 2: node-1 did not become ready again after kill-one",
    );
}

#[test]
fn a_workload_that_did_nothing_or_that_nobody_knows_is_rejected() {
    let mut build = busy("set");
    build.history.run.workloads.push("register".to_owned());
    assert_rejected(&build, "0 register reads at node-1 in 20 s, fewer than 4");
    let mut build = busy("set");
    build.history.run.workloads.push("logs".to_owned());
    assert_rejected(&build, "nobody knows the workload logs");
}

#[test]
fn a_node_with_too_few_successes_is_rejected() {
    let mut build = busy("set");
    fail(&mut build, |one| {
        one.node == 1 && one.invoked >= 8_000_000 && matches!(one.action, Action::Add { .. })
    });
    assert_eq!(texts(&build), Vec::<String>::new());
    fail(&mut build, |one| {
        one.node == 1 && one.invoked >= 4_500_000 && matches!(one.action, Action::Add { .. })
    });
    assert_rejected(
        &build,
        "9 acknowledged adds at node-2 in 20 s, fewer than 10",
    );
}

#[test]
fn conditions_that_never_hold_are_rejected() {
    let mut build = busy("register");
    for operation in &mut build.history.operations {
        if matches!(operation.action, Action::CompareAndSet { .. }) {
            operation.item.outcome = Outcome::Mismatch;
        }
    }
    assert_rejected(&build, "0 compare-and-sets held in 20 s, fewer than 2");
}

#[test]
fn a_run_that_ended_early_is_rejected() {
    let mut build = busy("set");
    let operations = &mut build.history.operations;
    operations.retain(|operation| operation.invoked < 18_001_000);
    assert_eq!(texts(&build), Vec::<String>::new());
    let operations = &mut build.history.operations;
    operations.retain(|operation| operation.invoked < 18_000_000);
    assert_rejected(
        &build,
        "the last of the acknowledged adds was tried at 17.500 s",
    );
}

#[test]
fn a_fault_during_which_nobody_tried_anything_is_rejected() {
    let mut build = busy("set");
    let during = 4_000_000..=12_000_000;
    build.history.operations.retain(|one| {
        let read = matches!(one.action, Action::Read { .. });
        !(read && one.node == 0 && during.contains(&one.invoked))
    });
    assert_rejected(
        &build,
        "line 2: during kill-one (8.000 s) 0 reads were tried at node-1, fewer than 1",
    );
    // One that waits the whole time is at work.
    let read = Action::Read {
        writer: "w".to_owned(),
        first: 0,
        last: 0,
    };
    build.operation(0, (3_900, 13_000), read, unknown());
    assert_eq!(texts(&build), Vec::<String>::new());
}

#[test]
fn a_fault_during_which_too_little_succeeded_at_other_nodes_is_rejected() {
    let mut build = busy("set");
    let during = 4_000_000..=12_000_000;
    let read = |one: &crate::history::Operation| {
        matches!(one.action, Action::Read { .. }) && during.contains(&one.invoked)
    };
    fail(&mut build, |one| one.node == 0 && read(one));
    assert_eq!(texts(&build), Vec::<String>::new());
    fail(&mut build, |one| one.node == 1 && read(one));
    assert_rejected(&build, "0 reads succeeded at node-2, fewer than 1");
}
