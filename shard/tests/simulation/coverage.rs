//! What really happened in schedules. A fault that never strikes tests nothing, so every kind is counted
//! where it takes effect, and a full run in which one of them is missing fails.

use std::{collections::BTreeMap, fmt};

/// Something that schedules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seen {
    MessageLost,
    MessageRepeated,
    MessageLate,
    MessageMisdelivered,
    MessageCutOff,
    Partition,
    CutOffFromPlane,
    Pause,
    Kill,
    PowerCut,
    PowerCutOfAll,
    UnsyncedTailLost,
    DiskLost,
    JournalPageLost,
    JournalEndLost,
    OldCopyRestored,
    OldCopyNoticed,
    BlockDamaged,
    DamageNoticed,
    DamageRepaired,
    AmnesiaRecorded,
    MovementBegun,
    MovementFinished,
    MovementAbandoned,
    ReplicaCopied,
    ReplicaEnded,
    ParcelFetched,
    WindowScrubbed,
    Deletion,
    DeletionForgotten,
    OutdatedPushRefused,
    OutdatedShardCopied,
    Flush,
    Trim,
    WriteHeld,
    WriteUnavailable,
    QueryComplete,
    QueryRefused,
}

/// Every kind.
const ALL: [Seen; 38] = [
    Seen::MessageLost,
    Seen::MessageRepeated,
    Seen::MessageLate,
    Seen::MessageMisdelivered,
    Seen::MessageCutOff,
    Seen::Partition,
    Seen::CutOffFromPlane,
    Seen::Pause,
    Seen::Kill,
    Seen::PowerCut,
    Seen::PowerCutOfAll,
    Seen::UnsyncedTailLost,
    Seen::DiskLost,
    Seen::JournalPageLost,
    Seen::JournalEndLost,
    Seen::OldCopyRestored,
    Seen::OldCopyNoticed,
    Seen::BlockDamaged,
    Seen::DamageNoticed,
    Seen::DamageRepaired,
    Seen::AmnesiaRecorded,
    Seen::MovementBegun,
    Seen::MovementFinished,
    Seen::MovementAbandoned,
    Seen::ReplicaCopied,
    Seen::ReplicaEnded,
    Seen::ParcelFetched,
    Seen::WindowScrubbed,
    Seen::Deletion,
    Seen::DeletionForgotten,
    Seen::OutdatedPushRefused,
    Seen::OutdatedShardCopied,
    Seen::Flush,
    Seen::Trim,
    Seen::WriteHeld,
    Seen::WriteUnavailable,
    Seen::QueryComplete,
    Seen::QueryRefused,
];

/// How often each kind happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<Seen, u64>);

impl Coverage {
    pub(crate) fn note(&mut self, seen: Seen) {
        self.count(seen, 1);
    }

    pub(crate) fn count(&mut self, seen: Seen, times: u64) {
        *self.0.entry(seen).or_default() += times;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (seen, times) in &other.0 {
            self.count(*seen, *times);
        }
    }

    pub(crate) fn of(&self, seen: Seen) -> u64 {
        self.0.get(&seen).copied().unwrap_or_default()
    }

    /// What is wrong with a full run's coverage.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let never = ALL.iter().filter(|seen| self.of(**seen) == 0);
        let mut lacks: Vec<String> = never
            .map(|seen| format!("{seen:?} never happens"))
            .collect();
        if self.of(Seen::WriteHeld) < 2 * self.of(Seen::WriteUnavailable) {
            lacks.push("too few writes succeed".to_owned());
        }
        if self.of(Seen::QueryComplete) < 4 * self.of(Seen::QueryRefused) {
            lacks.push("too many queries are refused".to_owned());
        }
        lacks
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for seen in ALL {
            writeln!(f, "{:>12} {seen:?}", self.of(seen))?;
        }
        Ok(())
    }
}
