//! Histories that no run can have made.

use super::build::{At, Build, MS, unknown};
use crate::{
    checker::form,
    history::{Action, Outcome},
};

fn get() -> Action {
    Action::Get {
        key: "k".to_owned(),
    }
}

fn assert_rejected(build: &Build, words: &str) {
    let violations = form::check(&build.history);
    let texts: Vec<_> = violations.kept().iter().map(|v| v.text.as_str()).collect();
    assert_eq!(violations.count(), 1, "{texts:?}");
    assert!(texts[0].contains(words), "{texts:?}");
}

#[test]
fn ordinary_lines_are_accepted() {
    let mut build = Build::new("set");
    build.add(0, (0, 1), Outcome::Done);
    build.add(1, At(1, None), unknown());
    build.read(1, (2, 3), (0, 9), &[(0, 0), (2, 4)]);
    build.operation(2, (0, 5), get(), Outcome::Value(None));
    build.operation(2, (5, 6), get(), unknown()).client = 5;
    build.fault("kill-one", &[2], (0, 5));
    let violations = form::check(&build.history);
    assert_eq!(violations.kept(), []);
}

#[test]
fn outcomes_that_an_action_cannot_have_are_rejected() {
    let mut build = Build::new("register");
    build.operation(0, (0, 1), get(), Outcome::Done);
    assert_rejected(&build, "line 2: has an outcome that its action cannot have");
    let mut build = Build::new("set");
    build.add(0, At(1, None), Outcome::Done);
    assert_rejected(&build, "never ended");
}

#[test]
fn times_that_run_backwards_are_rejected() {
    let mut build = Build::new("set");
    build.add(0, (2, 1), Outcome::Done);
    assert_rejected(&build, "over before it began");
    let mut build = Build::new("set");
    build.fault("kill-one", &[0], (2, 1));
    assert_rejected(&build, "ended before it began");
}

#[test]
fn nodes_that_do_not_exist_are_rejected() {
    let mut build = Build::new("set");
    build.read(3, (0, 1), (0, 0), &[]);
    assert_rejected(&build, "names node 3");
    let mut build = Build::new("set");
    build.fault("kill-one", &[0, 4], (0, 1));
    assert_rejected(&build, "names node 4");
}

#[test]
fn ranges_out_of_order_are_rejected() {
    for whole in [&[(3, 4), (0, 1)][..], &[(0, 2), (2, 3)], &[(2, 1)]] {
        let mut build = Build::new("set");
        build.read(0, (0, 1), (0, 9), whole);
        assert_rejected(&build, "not ascending and disjoint");
    }
}

#[test]
fn a_client_with_two_operations_at_once_is_rejected() {
    let mut build = Build::new("register");
    let value = Outcome::Value(None);
    build.operation(0, (0, 5), get(), value.clone()).client = 1;
    build.operation(1, (5, 7), get(), value.clone()).client = 1;
    assert_eq!(form::check(&build.history).count(), 0);
    build.history.operations[0].item.completed = Some(5 * MS + 1);
    assert_rejected(&build, "line 3: client 1 began it at 0.005 s");
    build.history.operations[0].item.completed = None;
    build.history.operations[0].item.outcome = unknown();
    assert_rejected(&build, "before its operation of line 2 was over");
}
