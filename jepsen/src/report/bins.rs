//! Operations counted by lane and time: what the picture draws, whatever their number.
//!
//! A lane is one node's operations of one sort. An operation counts in the bin in which it began. Apart from that a lane
//! knows in which bins somebody was waiting for what came to an error: a request that hangs is one
//! operation, but a long time.

use crate::history::{Action, History, Micros, Operation, Outcome};

/// Bins of a lane at most: the picture is this many columns wide.
pub(super) const BINS_MAX: usize = 2_000;
/// Bins of a short run: the picture fills a screen.
const BINS_MIN: usize = 400;
/// Bins per second of a run between these limits.
const BINS_PER_SECOND: f64 = 2.0;

/// Sorts of operations, in the order of the lanes.
pub(super) const SORTS: [&str; 3] = ["adds", "reads", "registers"];

/// What became of operations, in the order in which they are stacked from below.
pub(super) const FATES: [&str; 4] = ["done", "incomplete", "unknown", "failed"];

/// One lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// Whose.
    pub(super) node: usize,
    /// An index of [`SORTS`].
    pub(super) sort: usize,
    /// For every bin how many operations had each of [`FATES`].
    pub(super) counts: Vec<[u32; 4]>,
    /// For every bin whether somebody waited for an error.
    pub(super) erring: Vec<bool>,
}

/// All lanes of a run.
pub(super) struct Bins {
    /// Node by node, sort by sort; only sorts that the run has.
    pub(super) lanes: Vec<Lane>,
    /// How many bins a lane has.
    pub(super) count: usize,
    /// When the run was over.
    pub(super) end: Micros,
}

impl Bins {
    pub(super) fn new(history: &History) -> Self {
        let end = history.end().max(1);
        let wanted = (end as f64 / 1e6 * BINS_PER_SECOND) as usize;
        let count = wanted.clamp(BINS_MIN, BINS_MAX);
        let mut bins = Self {
            lanes: Vec::new(),
            count,
            end,
        };
        for node in 0..history.run.nodes.len() {
            bins.lanes.extend((0..SORTS.len()).map(|sort| Lane {
                node,
                sort,
                counts: vec![[0; 4]; count],
                erring: vec![false; count],
            }));
        }
        for operation in &history.operations {
            bins.take(operation);
        }
        let mut seen = [false; SORTS.len()];
        for lane in &bins.lanes {
            seen[lane.sort] |= lane.counts.iter().any(|fates| *fates != [0; 4]);
        }
        bins.lanes.retain(|lane| seen[lane.sort]);
        bins
    }

    /// The bin of a moment.
    pub(super) fn at(&self, at: Micros) -> usize {
        let at = u128::from(at) * self.count as u128 / u128::from(self.end);
        (at as usize).min(self.count - 1)
    }

    fn take(&mut self, operation: &Operation) {
        let begin = self.at(operation.invoked);
        let end = self.at(operation.completed.unwrap_or(self.end));
        let (sort, fate) = (sort(operation), fate(operation));
        let Some(lane) = self.lanes.get_mut(operation.node * SORTS.len() + sort) else {
            return;
        };
        lane.counts[begin][fate] += 1;
        if fate > 0 && begin <= end {
            lane.erring[begin..=end].fill(true);
        }
    }
}

fn sort(operation: &Operation) -> usize {
    match operation.action {
        Action::Add { .. } => 0,
        Action::Read { .. } => 1,
        Action::Get { .. } | Action::CompareAndSet { .. } => 2,
    }
}

fn fate(operation: &Operation) -> usize {
    match &operation.outcome {
        Outcome::Found(found) if found.declared_incomplete => 1,
        Outcome::Unknown(_) => 2,
        Outcome::Failed(_) => 3,
        _ => 0,
    }
}
