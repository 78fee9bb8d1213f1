//! Whether requests succeed where they should, and how long they fail everywhere.
//!
//! An *error window* of one client at one node lasts from the begin of a failed attempt to the end of its next
//! successful one (`windows.rs`). An answer that calls itself incomplete is no success here; a condition that did not
//! hold is one. See [`promises`] for where a window may be how long. Only attempts that began while something was
//! promised are judged, and a window ends where the promise does.

mod promises;

use super::{Seconds, Span, Timeline, Violations};
use crate::{
    history::{Fault, History, Micros, Numbered, Operation},
    windows::{Attempt, error_windows},
};
use promises::QUIET;
use std::collections::BTreeMap;

/// The longest error windows of one fault, over the attempts that began between its begin and the next fault's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultWindows {
    /// At nodes that it did not strike, microseconds.
    pub untouched: Micros,
    /// At any node.
    pub anywhere: Micros,
}

/// What was seen of requests that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailabilityFindings {
    /// Windows over their limits, and kinds of faults that nobody has set a limit for.
    pub violations: Violations,
    /// For each fault of the [`Timeline`], in its order.
    pub by_fault: Vec<FaultWindows>,
    /// Before the first fault.
    pub quiet: Micros,
    /// In the whole run.
    pub longest: Micros,
}

/// One client's operations at one node, by their begins.
struct Seat<'a> {
    node: usize,
    operations: Vec<&'a Numbered<Operation>>,
}

/// A stretch of a run during which the same faults are in force, and so the same is promised.
struct Stretch<'a> {
    span: Span,
    in_force: Vec<&'a Fault>,
}

/// Whether a fault, alone, leaves the promise of a workload's availability at a node.
pub(super) fn promised(workload: &str, node: usize, nodes: usize, fault: &Fault) -> bool {
    promises::limit(workload, node, nodes, &[fault]).is_some()
}

/// Measures and judges.
#[must_use]
pub fn check(history: &History, timeline: &Timeline<'_>) -> AvailabilityFindings {
    let mut violations = Violations::none("availability");
    for fault in &history.faults {
        if !promises::is_known(&fault.kind) {
            violations.push(Some(fault.begun), || {
                let (line, kind) = (fault.line, &fault.kind);
                format!("line {line}: nobody has said what {kind} leaves of availability")
            });
        }
    }
    let seats = seats(history);
    let stretches = stretches(timeline);
    for seat in &seats {
        judge(history, timeline, seat, &stretches, &mut violations);
    }
    let influence = influence(timeline);
    let by_fault = influence.iter().map(|(span, fault)| {
        let mut windows = FaultWindows::default();
        for seat in &seats {
            let longest = longest(seat, timeline, *span);
            windows.anywhere = windows.anywhere.max(longest);
            if !fault.nodes.contains(&seat.node) {
                windows.untouched = windows.untouched.max(longest);
            }
        }
        windows
    });
    let whole = Span {
        from: 0,
        to: Micros::MAX,
    };
    let first = timeline.faults().first();
    let before = Span {
        from: 0,
        to: first.map_or(Micros::MAX, |(span, _)| span.from),
    };
    let over_all = |span| seats.iter().map(|seat| longest(seat, timeline, span)).max();
    AvailabilityFindings {
        by_fault: by_fault.collect(),
        quiet: over_all(before).unwrap_or(0),
        longest: over_all(whole).unwrap_or(0),
        violations,
    }
}

fn seats(history: &History) -> Vec<Seat<'_>> {
    let mut seats: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for operation in &history.operations {
        let seat = (operation.client, operation.node, operation.workload());
        seats.entry(seat).or_default().push(operation);
    }
    let seats = seats.into_iter().map(|((_, node, _), mut operations)| {
        operations.sort_by_key(|operation| (operation.invoked, operation.line));
        Seat { node, operations }
    });
    seats.collect()
}

/// All stretches of a run, without gaps; the last one has no end.
fn stretches<'a>(timeline: &Timeline<'a>) -> Vec<Stretch<'a>> {
    let spans = timeline.faults().iter().map(|(span, _)| *span);
    let mut cuts: Vec<Micros> = spans.flat_map(|span| [span.from, span.to]).collect();
    cuts.extend([0, Micros::MAX]);
    cuts.sort_unstable();
    cuts.dedup();
    let spans = cuts.windows(2).map(|pair| Span {
        from: pair[0],
        to: pair[1],
    });
    let stretches = spans.map(|span| {
        let faults = timeline.faults().iter();
        let in_force = faults.filter(|(of, _)| of.from < span.to && of.to > span.from);
        let in_force = in_force.map(|(_, fault)| &fault.item).collect();
        Stretch { span, in_force }
    });
    stretches.collect()
}

/// For every fault the time from its begin to the begin of the next one after it was settled.
fn influence<'a>(timeline: &Timeline<'a>) -> Vec<(Span, &'a Numbered<Fault>)> {
    let faults = timeline.faults();
    let spans = faults.iter().map(|(span, fault)| {
        let next = faults.iter().map(|(other, _)| other.from);
        let next = next.filter(|from| *from >= span.to && *from > span.from);
        let to = next.min().unwrap_or(Micros::MAX);
        (Span { to, ..*span }, *fault)
    });
    spans.collect()
}

fn attempt(operation: &Operation, end: Micros) -> Attempt<Micros> {
    Attempt {
        begun: operation.invoked,
        ended: operation.completed.unwrap_or(end),
        success: operation.succeeded(),
    }
}

/// The longest window of a seat over the attempts that began in a span, its end excluded.
fn longest(seat: &Seat<'_>, timeline: &Timeline<'_>, span: Span) -> Micros {
    let begin = |at: Micros| {
        let operations = &seat.operations;
        operations.partition_point(|operation| operation.invoked < at)
    };
    let within = seat.operations[begin(span.from)..begin(span.to)].iter();
    let attempts = within.map(|operation| attempt(operation, timeline.end()));
    let lengths = error_windows(attempts).map(|(from, to)| to - from);
    lengths.max().unwrap_or(0)
}

/// Holds a seat's windows against what was promised while they lasted.
fn judge(
    history: &History,
    timeline: &Timeline<'_>,
    seat: &Seat<'_>,
    stretches: &[Stretch<'_>],
    violations: &mut Violations,
) {
    let Some(first) = seat.operations.first() else {
        return;
    };
    let workload = first.workload();
    let nodes = history.run.nodes.len();
    let limits: Vec<(Span, Option<Micros>)> = stretches
        .iter()
        .map(|stretch| {
            let limit = promises::limit(workload, seat.node, nodes, &stretch.in_force);
            (stretch.span, limit)
        })
        .collect();
    // Neighbouring stretches with promises make one, in which a window may be as long as the longest limit that it meets.
    for promised in limits.chunk_by(|one, other| one.1.is_some() == other.1.is_some()) {
        let (Some((begin, Some(_))), Some((end, _))) = (promised.first(), promised.last()) else {
            continue;
        };
        let (from, to) = (begin.from, end.to);
        let within =
            |operation: &&&Numbered<Operation>| from <= operation.invoked && operation.invoked < to;
        let attempts = seat.operations.iter().filter(within);
        let attempts = attempts.map(|operation| attempt(operation, timeline.end()));
        for (begun, ended) in error_windows(attempts) {
            let window = Span {
                from: begun,
                to: ended.min(to),
            };
            let met = promised.iter().filter(|(span, _)| span.overlaps(window));
            let limit = met.filter_map(|(_, limit)| *limit).max().unwrap_or(QUIET);
            if window.to - window.from > limit {
                report(history, timeline, seat, window, limit, violations);
            }
        }
    }
}

fn report(
    history: &History,
    timeline: &Timeline<'_>,
    seat: &Seat<'_>,
    window: Span,
    limit: Micros,
    violations: &mut Violations,
) {
    let operations = seat.operations.iter();
    let first = operations
        .clone()
        .find(|operation| operation.invoked == window.from && !operation.succeeded());
    let Some(first) = first else {
        return;
    };
    violations.push(Some(window.from), || {
        let faults: Vec<String> = timeline
            .suspects(window)
            .iter()
            .map(|fault| format!("{} of line {}", fault.kind, fault.line))
            .collect();
        let faults = match faults.is_empty() {
            true => "no fault yet".to_owned(),
            false => faults.join(" and "),
        };
        format!(
            "the {} requests of client {} at {} failed for {} from {} on (line {}), longer than {}, with {faults}",
            first.workload(),
            first.client,
            history.node_name(seat.node),
            Seconds(window.to - window.from),
            Seconds(window.from),
            first.line,
            Seconds(limit),
        )
    });
}
