//! Whether a run did enough to prove anything: every fault that was asked for struck and was recovered from, and clients
//! wrote and read enough, everywhere, all the time.
//!
//! Thresholds are far below what clients do at rest (10 adds, 4 reads and 5 register operations per second and
//! node), because half of a run is faults; and far above what a client does that is stuck.

use super::{Seconds, Span, Timeline, Violations, availability::promised};
use crate::history::{Action, History, Micros, Numbered, Operation, Outcome};

/// Acknowledged adds per second of a run that every node must come to. Fewer fail the run, as for all of these.
pub const ADDS_PER_SECOND_MIN: f64 = 0.5;
/// Complete answers about elements per second and node.
pub const READS_PER_SECOND_MIN: f64 = 0.2;
/// Values read from registers per second and node.
pub const GETS_PER_SECOND_MIN: f64 = 0.2;
/// Decided compare-and-sets per second and node.
pub const SETS_PER_SECOND_MIN: f64 = 0.1;
/// Compare-and-sets that held, per second, at all nodes together: failed ones alone change nothing.
pub const SETS_HELD_PER_SECOND_MIN: f64 = 0.1;
/// Attempts of adds, of reads and of register operations that each fault must see at each node, whatever becomes of
/// them: a client that waits for its answer is at work.
pub const ATTEMPTS_PER_FAULT_MIN: usize = 1;
/// Successes of each of these that a fault must see per second at each node at which it leaves the promise of
/// availability.
pub const SUCCESSES_PER_FAULT_SECOND_MIN: f64 = 0.2;
/// How long a fault lasts for these thresholds to mean something, microseconds.
const FAULT_JUDGED_MIN: Micros = 1_000_000;
/// The share of the asked duration for which clients must have been at work.
pub const DURATION_SHARE_MIN: f64 = 0.9;

/// A kind of operation, and which of its outcomes count.
struct Counted {
    workload: &'static str,
    /// In words, for a sentence.
    name: &'static str,
    per_second_min: f64,
    is_one: fn(&Action) -> bool,
}

const COUNTED: [Counted; 4] = [
    Counted {
        workload: "set",
        name: "acknowledged adds",
        per_second_min: ADDS_PER_SECOND_MIN,
        is_one: |action| matches!(action, Action::Add { .. }),
    },
    Counted {
        workload: "set",
        name: "complete reads",
        per_second_min: READS_PER_SECOND_MIN,
        is_one: |action| matches!(action, Action::Read { .. }),
    },
    Counted {
        workload: "register",
        name: "register reads",
        per_second_min: GETS_PER_SECOND_MIN,
        is_one: |action| matches!(action, Action::Get { .. }),
    },
    Counted {
        workload: "register",
        name: "decided compare-and-sets",
        per_second_min: SETS_PER_SECOND_MIN,
        is_one: |action| matches!(action, Action::CompareAndSet { .. }),
    },
];

/// Operations of one client of a node: what must be tried and succeed during faults.
struct Tried {
    workload: &'static str,
    name: &'static str,
    is_one: fn(&Action) -> bool,
}

const TRIED: [Tried; 3] = [
    Tried {
        workload: "set",
        name: "adds",
        is_one: |action| matches!(action, Action::Add { .. }),
    },
    Tried {
        workload: "set",
        name: "reads",
        is_one: |action| matches!(action, Action::Read { .. }),
    },
    Tried {
        workload: "register",
        name: "register operations",
        is_one: |action| matches!(action, Action::Get { .. } | Action::CompareAndSet { .. }),
    },
];

/// Looks at faults and at clients.
#[must_use]
pub fn check(history: &History, timeline: &Timeline<'_>) -> Violations {
    let mut violations = Violations::none("coverage");
    check_faults(history, &mut violations);
    for workload in &history.run.workloads {
        if !COUNTED.iter().any(|counted| counted.workload == workload) {
            violations.push(None, || format!("nobody knows the workload {workload}"));
        }
    }
    let asked = |workload: &str| history.run.workloads.iter().any(|name| name == workload);
    for counted in COUNTED.iter().filter(|one| asked(one.workload)) {
        let all = history.operations.iter();
        let operations: Vec<_> = all.filter(|one| (counted.is_one)(&one.action)).collect();
        check_run(history, counted, &operations, &mut violations);
    }
    for tried in TRIED.iter().filter(|one| asked(one.workload)) {
        check_during(history, timeline, tried, &mut violations);
    }
    check_held(history, &mut violations);
    violations
}

fn check_faults(history: &History, violations: &mut Violations) {
    for kind in &history.run.faults {
        let mut of_kind = history.faults.iter().filter(|fault| fault.kind == *kind);
        match of_kind.clone().count() {
            0 => violations.push(None, || format!("{kind} was asked for and did not happen")),
            count if of_kind.all(|fault| fault.struck == 0) => violations.push(None, || {
                format!("{kind} was done {count} times and never struck anything")
            }),
            _ => {}
        }
    }
    for fault in history
        .faults
        .iter()
        .filter(|fault| fault.recovered.is_none())
    {
        violations.push(Some(fault.ended), || {
            let names = fault.nodes.iter().map(|node| history.node_name(*node));
            format!(
                "line {}: {} did not become ready again after {} had ended at {}",
                fault.line,
                names.collect::<Vec<_>>().join(", "),
                fault.kind,
                Seconds(fault.ended)
            )
        });
    }
}

/// What every node came to over the whole run, and whether clients worked to its end.
fn check_run(
    history: &History,
    counted: &Counted,
    operations: &[&Numbered<Operation>],
    violations: &mut Violations,
) {
    let seconds = history.run.duration as f64 / 1e6;
    let name = counted.name;
    for (node, place) in history.run.nodes.iter().enumerate() {
        let at_node = operations.iter().filter(|operation| operation.node == node);
        let count = at_node.filter(|operation| operation.succeeded()).count();
        let least = least(seconds, counted.per_second_min);
        if count < least {
            violations.push(None, || {
                format!("{count} {name} at {place} in {seconds:.0} s, fewer than {least}")
            });
        }
    }
    let last = operations.iter().map(|operation| operation.invoked).max();
    let last = last.unwrap_or(0);
    if (last as f64) < history.run.duration as f64 * DURATION_SHARE_MIN {
        violations.push(Some(last), || {
            format!(
                "the last of the {name} was tried at {}, long before the end at {}",
                Seconds(last),
                Seconds(history.run.duration)
            )
        });
    }
}

/// Whether clients kept trying at every node while each fault was in force, and succeeded where they should.
fn check_during(
    history: &History,
    timeline: &Timeline<'_>,
    tried: &Tried,
    violations: &mut Violations,
) {
    let nodes = history.run.nodes.len();
    let mut counts = vec![vec![(0, 0); nodes]; timeline.faults().len()];
    for operation in history
        .operations
        .iter()
        .filter(|one| (tried.is_one)(&one.action))
    {
        let span = Span {
            from: operation.invoked,
            to: operation.completed.unwrap_or(timeline.end()),
        };
        for ((of, _), counts) in timeline.faults().iter().zip(&mut counts) {
            if let Some((attempts, successes)) = counts.get_mut(operation.node)
                && of.overlaps(span)
            {
                *attempts += 1;
                *successes += usize::from(operation.succeeded());
            }
        }
    }
    for ((span, fault), counts) in timeline.faults().iter().zip(counts) {
        let lasted = fault.ended.saturating_sub(span.from);
        if lasted < FAULT_JUDGED_MIN {
            continue;
        }
        let due = least(lasted as f64 / 1e6, SUCCESSES_PER_FAULT_SECOND_MIN);
        for (node, (attempts, successes)) in counts.into_iter().enumerate() {
            let promised = promised(tried.workload, node, nodes, fault);
            let (count, least, what) = match promised {
                _ if attempts < ATTEMPTS_PER_FAULT_MIN => {
                    (attempts, ATTEMPTS_PER_FAULT_MIN, "were tried")
                }
                true if successes < due => (successes, due, "succeeded"),
                _ => continue,
            };
            violations.push(Some(span.from), || {
                format!(
                    "line {}: during {} ({}) {count} {} {what} at {}, fewer than {least}",
                    fault.line,
                    fault.kind,
                    Seconds(lasted),
                    tried.name,
                    history.node_name(node)
                )
            });
        }
    }
}

fn check_held(history: &History, violations: &mut Violations) {
    if !history.run.workloads.iter().any(|name| name == "register") {
        return;
    }
    let held = history.operations.iter().filter(|operation| {
        let set = matches!(operation.action, Action::CompareAndSet { .. });
        set && operation.outcome == Outcome::Done
    });
    let held = held.count();
    let seconds = history.run.duration as f64 / 1e6;
    let least = least(seconds, SETS_HELD_PER_SECOND_MIN);
    if held < least {
        violations.push(None, || {
            format!("{held} compare-and-sets held in {seconds:.0} s, fewer than {least}")
        });
    }
}

/// At least one, however short the time is.
fn least(seconds: f64, per_second: f64) -> usize {
    ((seconds * per_second) as usize).max(1)
}
