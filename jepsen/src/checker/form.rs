//! Whether a history can have come from a run at all: an outcome that its action cannot have, a client with two
//! operations at once, an answer before its question. Such a line is a mistake of the harness, and what is built on it
//! proves nothing.

use super::{Seconds, Violations};
use crate::history::{Action, Fault, Found, History, Micros, Numbered, Operation, Outcome};
use std::collections::HashMap;

/// Looks at every line by itself, and at each client's operations together.
#[must_use]
pub fn check(history: &History) -> Violations {
    let mut violations = Violations::none("form");
    for operation in &history.operations {
        if let Err(reason) = check_operation(history, operation) {
            violations.push(Some(operation.invoked), || {
                format!("line {}: {reason}", operation.line)
            });
        }
    }
    for fault in &history.faults {
        if let Err(reason) = check_fault(history, fault) {
            violations.push(Some(fault.begun), || {
                format!("line {}: {reason}", fault.line)
            });
        }
    }
    check_clients(history, &mut violations);
    violations
}

fn check_operation(history: &History, operation: &Operation) -> Result<(), String> {
    check_node(history, operation.node)?;
    let open = operation.completed.is_none();
    if operation.completed.is_some_and(|at| at < operation.invoked) {
        return Err("was over before it began".to_owned());
    }
    match (&operation.action, &operation.outcome) {
        (_, Outcome::Unknown(_)) => Ok(()),
        _ if open => Err("has an outcome, but never ended".to_owned()),
        (_, Outcome::Failed(_)) | (Action::Add { .. }, Outcome::Done) => Ok(()),
        (Action::Read { .. }, Outcome::Found(found)) => check_found(found),
        (Action::Get { .. }, Outcome::Value(_))
        | (Action::CompareAndSet { .. }, Outcome::Done | Outcome::Mismatch) => Ok(()),
        _ => Err("has an outcome that its action cannot have".to_owned()),
    }
}

fn check_found(found: &Found) -> Result<(), String> {
    let ordered = found.whole.iter().all(|(first, last)| first <= last)
        && found.whole.windows(2).all(|pair| pair[0].1 < pair[1].0);
    if !ordered {
        return Err("has ranges that are not ascending and disjoint".to_owned());
    }
    Ok(())
}

fn check_fault(history: &History, fault: &Fault) -> Result<(), String> {
    fault
        .nodes
        .iter()
        .try_for_each(|node| check_node(history, *node))?;
    let late = fault.recovered.unwrap_or(fault.ended);
    if fault.ended < fault.begun || late < fault.begun {
        return Err("ended before it began".to_owned());
    }
    Ok(())
}

fn check_node(history: &History, node: usize) -> Result<(), String> {
    if node >= history.run.nodes.len() {
        return Err(format!("names node {node}, which the run does not have"));
    }
    Ok(())
}

/// One operation of a client at a time: the orders of its operations is what real time rests on.
fn check_clients(history: &History, violations: &mut Violations) {
    let mut clients: HashMap<u32, Vec<&Numbered<Operation>>> = HashMap::new();
    for operation in &history.operations {
        clients.entry(operation.client).or_default().push(operation);
    }
    let mut clients: Vec<_> = clients.into_iter().collect();
    clients.sort_by_key(|(client, _)| *client);
    for (client, mut operations) in clients {
        operations.sort_by_key(|operation| (operation.invoked, operation.completed.is_none()));
        for pair in operations.windows(2) {
            let free: Option<Micros> = pair[0].completed;
            if free.is_none_or(|free| free > pair[1].invoked) {
                violations.push(Some(pair[1].invoked), || {
                    format!(
                        "line {}: client {client} began it at {}, before its operation of line {} was over",
                        pair[1].line,
                        Seconds(pair[1].invoked),
                        pair[0].line,
                    )
                });
            }
        }
    }
}
