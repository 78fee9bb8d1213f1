//! The workload `register`: compare-and-set registers are linearizable.
//!
//! Every key by itself (linearizability is local, so the keys together are then linearizable, too): is there an order of
//! its operations that respects real time, and in which every outcome is what a register would have given? An operation
//! whose fate is unknown may take effect at any time after it was sent, or never; a refused one has none. A key does
//! not exist at first. See [`search`] for how an order is looked for.

mod search;

use super::{Seconds, Violations};
use crate::history::{Action, History, Numbered, Operation, Outcome};
use search::{Call, Effect, Found, State, Stuck, search};
use std::collections::BTreeMap;

/// Configurations that are looked at for one key before its history counts as undecided, which fails the run. A run's key
/// needs about as many as it has operations; this many take seconds and some hundred megabytes.
pub const CONFIGURATIONS_MAX: usize = 1_000_000;

/// Looks for an order for every key.
#[must_use]
pub fn check(history: &History) -> Violations {
    check_within(history, CONFIGURATIONS_MAX)
}

/// As [`check`] with another limit of configurations per key.
#[must_use]
pub fn check_within(history: &History, configurations_max: usize) -> Violations {
    let mut violations = Violations::none("register");
    for (key, operations) in by_key(history) {
        let calls: Vec<Call> = operations.iter().filter_map(|one| call(one)).collect();
        match search(&calls, configurations_max) {
            Found::Order => {}
            Found::Undecided => violations.push(None, || {
                format!(
                    "key {key}: undecided after {configurations_max} configurations of {} operations",
                    calls.len()
                )
            }),
            Found::None(stuck) => {
                let operation = operations.iter().find(|one| one.line == stuck.line);
                violations.push(operation.map(|one| one.invoked), || {
                    describe(history, key, operation, &stuck)
                });
            }
        }
    }
    violations
}

fn by_key(history: &History) -> BTreeMap<&str, Vec<&Numbered<Operation>>> {
    let mut keys: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for operation in &history.operations {
        if let Action::Get { key } | Action::CompareAndSet { key, .. } = &operation.action {
            keys.entry(key).or_default().push(operation);
        }
    }
    keys
}

/// What an operation says about its key; none: nothing.
fn call(operation: &Numbered<Operation>) -> Option<Call> {
    let effect = match (&operation.action, &operation.outcome) {
        (_, Outcome::Failed(_)) => return None,
        (Action::Get { .. }, Outcome::Value(value)) => Effect::Holds(*value),
        (Action::CompareAndSet { expected, .. }, Outcome::Mismatch) => Effect::HoldsNot(*expected),
        (Action::CompareAndSet { expected, new, .. }, Outcome::Done | Outcome::Unknown(_)) => {
            Effect::Set {
                expected: *expected,
                new: Some(*new),
            }
        }
        _ => return None,
    };
    let known = !matches!(operation.outcome, Outcome::Unknown(_));
    let completed = operation.completed.filter(|_| known);
    // Without an end nobody has seen that a condition held or not.
    if completed.is_none() && !matches!(effect, Effect::Set { .. }) {
        return None;
    }
    Some(Call {
        line: operation.line,
        invoked: operation.invoked,
        completed,
        effect,
    })
}

fn describe(
    history: &History,
    key: &str,
    operation: Option<&&Numbered<Operation>>,
    stuck: &Stuck,
) -> String {
    let held: Vec<String> = stuck.states.iter().map(|state| shown(*state)).collect();
    let Some(operation) = operation else {
        return format!("key {key}: no order explains line {}", stuck.line);
    };
    let what = match (&operation.action, &operation.outcome) {
        (Action::CompareAndSet { expected, new, .. }, outcome) => {
            let (expected, new) = (shown(*expected), shown(Some(*new)));
            let done = match outcome {
                Outcome::Done => "succeeded",
                _ => "found something else",
            };
            format!("setting {new} where it expected {expected} {done}")
        }
        (_, Outcome::Value(value)) => format!("a read gave {}", shown(*value)),
        _ => "it has an outcome that it cannot have".to_owned(),
    };
    format!(
        "key {key}: no order explains line {} ({}, {} to {}): {what}; every order of what must have come before leaves \
         {}",
        operation.line,
        history.node_name(operation.node),
        Seconds(operation.invoked),
        Seconds(operation.completed.unwrap_or(operation.invoked)),
        held.join(" or "),
    )
}

fn shown(state: State) -> String {
    state.map_or("nothing".to_owned(), |value| value.to_string())
}
