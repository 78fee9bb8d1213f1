//! What the protocol knows of its own journal: its ends, its runs, and an index of its parcels.
//!
//! ```text
//! 0 ........ floor ........ flushed (L) ........ applied ........ durable ........ end
//!   trimmed        kept for peers that are behind      in the head     being fsynced
//! ```

use crate::{ImportNote, Offset, Position, RequestNumber, Span};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use trefoil_model::{DeletionVersion, Incarnation, ShardSet, TenantId};

/// A parcel record, without its parcel.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    pub(crate) span: Span,
    pub(crate) number: RequestNumber,
    pub(crate) accepted: Arc<ShardSet>,
    pub(crate) import: Option<ImportNote>,
    pub(crate) fetched: Option<ImportNote>,
}

/// The beginning of a run in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunStart {
    pub(crate) incarnation: Incarnation,
    pub(crate) at: Offset,
}

/// What a position of a peer in this journal is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Everything behind it can be listed.
    Known,
    /// It was right, but what is behind it was trimmed.
    BelowFloor,
    /// This journal never had it: this is an older copy, or another journal.
    Unknown,
}

/// The state of the own journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct JournalState {
    pub(crate) end: Offset,
    pub(crate) durable: Offset,
    pub(crate) applied: Offset,
    pub(crate) flushed: Offset,
    pub(crate) floor: Offset,
    /// Nothing may be claimed before this is durable: the last adoption or change of trust.
    pub(crate) gate: Offset,
    /// Ascending by `at`; the oldest are forgotten.
    pub(crate) starts: Vec<RunStart>,
    /// Whether starts were forgotten.
    pub(crate) starts_forgotten: bool,
    index: VecDeque<IndexEntry>,
    /// The ends of the last parcels behind the floor, by tenant and presupposed deletion.
    last_ends: BTreeMap<(TenantId, DeletionVersion), Offset>,
    /// The last accepted set, because most are equal.
    interned: Option<Arc<ShardSet>>,
}

impl JournalState {
    pub(crate) fn note_start(&mut self, incarnation: Incarnation, at: Offset, starts_max: usize) {
        let last = self.starts.last().map(|start| start.incarnation);
        if last != Some(incarnation) {
            self.starts.push(RunStart { incarnation, at });
        }
        if self.starts.len() > starts_max.max(1) {
            self.starts.remove(0);
            self.starts_forgotten = true;
        }
    }

    /// The end of the last parcel of a tenant's that is older than a deletion, if there is one behind the floor.
    pub(crate) fn last_older(&self, tenant: TenantId, deletion: DeletionVersion) -> Option<Offset> {
        let versions = (tenant, DeletionVersion(0))..(tenant, deletion);
        self.last_ends.range(versions).map(|(_, end)| *end).max()
    }

    /// Notes which deletions the parcel of a record presupposes.
    pub(crate) fn note_version(&mut self, span: Span, tenant: TenantId, deletion: DeletionVersion) {
        let last = self.last_ends.entry((tenant, deletion)).or_default();
        *last = span.end.max(*last);
    }

    pub(crate) fn note_parcel(
        &mut self,
        span: Span,
        number: RequestNumber,
        accepted: &ShardSet,
        import: Option<ImportNote>,
        fetched: Option<ImportNote>,
    ) {
        let interned = match &self.interned {
            Some(known) if **known == *accepted => Arc::clone(known),
            _ => Arc::new(accepted.clone()),
        };
        self.interned = Some(Arc::clone(&interned));
        self.index.push_back(IndexEntry {
            span,
            number,
            accepted: interned,
            import,
            fetched,
        });
    }

    pub(crate) fn judge(&self, position: Position) -> Judgement {
        let found = self
            .starts
            .iter()
            .position(|start| start.incarnation == position.incarnation);
        let Some(index) = found else {
            let oldest = self.starts.first().map_or(Offset(0), |start| start.at);
            let forgotten = self.starts_forgotten && position.offset <= oldest;
            return match forgotten {
                true => Judgement::BelowFloor,
                false => Judgement::Unknown,
            };
        };
        let run_end = self
            .starts
            .get(index + 1)
            .map_or(self.durable, |next| next.at);
        if position.offset > run_end {
            return Judgement::Unknown;
        }
        match position.offset < self.floor {
            true => Judgement::BelowFloor,
            false => Judgement::Known,
        }
    }

    /// The durable entries that end behind `after`, ascending.
    pub(crate) fn durable_behind(&self, after: Offset) -> impl Iterator<Item = &IndexEntry> {
        let first = self.index.partition_point(|entry| entry.span.end <= after);
        let behind = self.index.range(first..);
        behind.take_while(|entry| entry.span.end <= self.durable)
    }

    /// The entry whose record ends there.
    pub(crate) fn find(&self, end: Offset) -> Option<&IndexEntry> {
        let at = self.index.partition_point(|entry| entry.span.end < end);
        self.index.get(at).filter(|entry| entry.span.end == end)
    }

    pub(crate) fn trim(&mut self, below: Offset) {
        self.floor = self.floor.max(below);
        let floor = self.floor;
        self.last_ends.retain(|_, end| *end > floor);
        while self.index.front().is_some_and(|e| e.span.end <= self.floor) {
            self.index.pop_front();
        }
    }

    pub(crate) fn parcels(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(incarnation: u128, offset: u64) -> Position {
        Position {
            incarnation: Incarnation(incarnation),
            offset: Offset(offset),
        }
    }

    #[test]
    fn positions_are_judged_by_run_and_offset() {
        let mut journal = JournalState::default();
        journal.note_start(Incarnation(1), Offset(0), 8);
        journal.note_start(Incarnation(2), Offset(100), 8);
        journal.durable = Offset(200);
        journal.trim(Offset(50));
        assert_eq!(journal.judge(at(1, 100)), Judgement::Known);
        assert_eq!(
            journal.judge(at(1, 101)),
            Judgement::Unknown,
            "it went on differently"
        );
        assert_eq!(journal.judge(at(1, 49)), Judgement::BelowFloor);
        assert_eq!(journal.judge(at(2, 200)), Judgement::Known);
        assert_eq!(
            journal.judge(at(2, 201)),
            Judgement::Unknown,
            "beyond the end"
        );
        assert_eq!(
            journal.judge(at(3, 60)),
            Judgement::Unknown,
            "a run of which nothing is known"
        );
    }

    #[test]
    fn forgotten_runs_are_old_not_unknown() {
        let mut journal = JournalState::default();
        for run in 1..=3u128 {
            journal.note_start(Incarnation(run), Offset(run as u64 * 10), 2);
        }
        journal.durable = Offset(40);
        assert_eq!(journal.judge(at(1, 15)), Judgement::BelowFloor);
        assert_eq!(journal.judge(at(1, 25)), Judgement::Unknown);
    }
}
