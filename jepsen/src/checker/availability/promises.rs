//! What each kind of fault leaves of the promise that requests succeed.
//!
//! The promise is the issue's: with a majority of the owners reachable, requests at those nodes succeed. With three
//! owners per shard spread over all nodes every pair of nodes owns some shard together, so as soon as two nodes are
//! out of action some shard has lost its majority, however many nodes there are: for the workload `set` a fault may
//! strike one node. The metadata plane (workload `register`) needs a majority of the nodes.
//!
//! "Succeed" leaves room for finding out: a window of errors up to a limit, which depends on how a fault shows.
//!
//! | limit | for | because |
//! |---|---|---|
//! | 3 s | a node that is dead, paused or refuses; no fault at all | asked for by the issue; an election takes 1.2 s |
//! | 5 s | links that lose, delay or choke silently; members that change; a node that is slow but alive | nothing ends a request but deadlines, and an election may have to be repeated |
//! | 8 s | the metadata plane over links that lose packets | TCP backs off for seconds: one request ends by its deadline of 5 s, and the next takes its time |
//! | 15 s | a rolling restart, at every node | each node is away in its turn: a drain and a start of at most 5 s |
//!
//! What a node says that was struck itself is measured and not judged.

use crate::history::{Fault, Micros};

/// For nodes that are gone or say so.
const PLAIN: Micros = 3_000_000;
/// For what shows only by silence.
const SILENT: Micros = 5_000_000;
/// For requests that need one other node, over links that lose up to a quarter of the packets.
const LOSSY: Micros = 8_000_000;
/// For a node that is itself restarted in good order.
const RESTARTED: Micros = 15_000_000;

/// The limit while no fault is in force.
pub(super) const QUIET: Micros = PLAIN;

/// Who keeps the promise while a fault is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// The nodes that it does not strike, if it strikes few enough, within this limit.
    Others(Micros),
    /// All nodes, within this limit.
    Everyone(Micros),
    /// All nodes of a cluster of three, within this limit; nobody in larger ones.
    EveryoneOfThree(Micros),
    /// Nobody.
    Nobody,
}

/// A kind of fault, what it leaves of the workload `set`, and of `register`.
type Kind = (&'static str, Promise, Promise);

use Promise::{Everyone, EveryoneOfThree, Nobody, Others};

/// All kinds. A kind that is not in the list makes a run fail.
const KINDS: &[Kind] = &[
    ("isolate-one", Others(SILENT), Others(SILENT)),
    ("split", Others(SILENT), Others(SILENT)),
    // Connections need both directions: with three nodes a ring leaves pairs, with more not every shard a majority.
    ("majorities-ring", Nobody, Nobody),
    // Each end hears the middle: a majority of three owners. The leader may be at the other end.
    ("bridge", EveryoneOfThree(SILENT), Nobody),
    ("one-way", Others(SILENT), Others(SILENT)),
    ("leader-only", Others(SILENT), Others(SILENT)),
    ("zone", Others(SILENT), Others(SILENT)),
    // In its middle nobody hears anybody.
    ("clog", Nobody, Nobody),
    // The metadata plane takes a leader for dead whose answer takes longer than its heartbeat, a tenth of a second; round
    // trips of up to 0.6 s leave it without one for seconds.
    ("slow", Everyone(SILENT), Nobody),
    ("lossy", Everyone(SILENT), Everyone(LOSSY)),
    ("duplicating", Everyone(PLAIN), Everyone(PLAIN)),
    ("reordering", Everyone(SILENT), Everyone(SILENT)),
    ("narrow", Everyone(SILENT), Everyone(SILENT)),
    ("kill-one", Others(PLAIN), Others(PLAIN)),
    ("kill-all", Nobody, Nobody),
    ("pause", Others(PLAIN), Others(PLAIN)),
    ("restart-loop", Others(PLAIN), Others(PLAIN)),
    ("rolling-restart", Everyone(RESTARTED), Everyone(RESTARTED)),
    ("clock-jump", Others(PLAIN), Others(PLAIN)),
    ("clock-drift", Others(PLAIN), Others(PLAIN)),
    ("power-cut-one", Others(PLAIN), Others(PLAIN)),
    ("power-cut-all", Nobody, Nobody),
    ("disk-full", Others(PLAIN), Others(PLAIN)),
    ("disk-read-only", Others(PLAIN), Others(PLAIN)),
    ("slow-sync", Others(SILENT), Others(SILENT)),
    ("failing-sync", Others(PLAIN), Others(PLAIN)),
    ("torn-tail", Others(PLAIN), Others(PLAIN)),
    ("flipped-journal", Others(PLAIN), Others(PLAIN)),
    ("flipped-blocks", Others(PLAIN), Others(PLAIN)),
    ("deleted-data", Others(PLAIN), Others(PLAIN)),
    ("join", Others(SILENT), Others(SILENT)),
    ("drain", Others(SILENT), Others(SILENT)),
    ("replace", Others(SILENT), Others(SILENT)),
    ("address-change", Others(PLAIN), Others(PLAIN)),
    // Each leader is paused for less than the limit; without one there are no registers.
    ("leader-storm", Everyone(SILENT), Nobody),
    // The storm fills the metadata plane's log on purpose.
    ("snapshot-storm", Others(PLAIN), Nobody),
];

/// Whether [`KINDS`] has it.
pub(super) fn is_known(kind: &str) -> bool {
    KINDS.iter().any(|(name, ..)| *name == kind)
}

/// How long requests of a workload may fail at a node while these faults are in force; none: nothing is promised.
pub(super) fn limit(
    workload: &str,
    node: usize,
    nodes: usize,
    in_force: &[&Fault],
) -> Option<Micros> {
    let mut longest = QUIET;
    let mut away: Vec<usize> = Vec::new();
    for fault in in_force {
        let kind = KINDS.iter().find(|(name, ..)| *name == fault.kind);
        let promise = match (kind, workload) {
            (None, _) => Nobody,
            (Some((_, set, _)), "set") => *set,
            (Some((_, _, register)), _) => *register,
        };
        let limit = match promise {
            Everyone(limit) => limit,
            EveryoneOfThree(limit) if nodes == 3 => limit,
            Others(limit) if !fault.nodes.contains(&node) => {
                away.extend(&fault.nodes);
                limit
            }
            _ => return None,
        };
        longest = longest.max(limit);
    }
    away.sort_unstable();
    away.dedup();
    let majority = match workload {
        "set" => away.len() <= 1,
        _ => away.len() * 2 < nodes,
    };
    majority.then_some(longest)
}
