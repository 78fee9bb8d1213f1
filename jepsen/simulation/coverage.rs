//! What really happened in the simulations. A fault that never strikes tests nothing, so every kind is counted where it
//! takes effect, and a full run in which one of them is missing fails.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

macro_rules! seen {
    ($($name:ident),* $(,)?) => {
        /// Something that simulations are for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(crate) enum Seen { $($name),* }

        /// Every kind.
        const ALL: &[Seen] = &[$(Seen::$name),*];
    };
}

seen!(
    // The network.
    MessageLost,
    MessageRepeated,
    MessageLate,
    MessageCutOff,
    PartitionMinority,
    PartitionOneWay,
    PartitionHalves,
    PartitionBridge,
    PartitionRing,
    SlowLink,
    // Processes and disks.
    Kill,
    LeaderKilled,
    PowerCut,
    PowerCutOfAll,
    CrashWhileForming,
    FoundingsOverlap,
    CommitTorn,
    SyncFailed,
    DiskFull,
    NoSpaceForJournal,
    MetadataPlaneFailed,
    DiskLost,
    DataLost,
    JournalDamaged,
    MetadataDamaged,
    BlockDamaged,
    AggregatesDamaged,
    OldCopyRestored,
    ClockJumped,
    // The cluster.
    NodeAdded,
    NodeDrained,
    Tangle,
    // What follows.
    Joined,
    Led,
    TenantCreated,
    Commit,
    Flush,
    Merge,
    AggregatesMade,
    Trim,
    WindowScrubbed,
    LossNoticed,
    AmnesiaRecorded,
    OldCopyNoticed,
    DamageNoticed,
    DamageRepaired,
    ExportOpened,
    ReplicaCopied,
    ReplicaEnded,
    ParcelFetched,
    MovementBegun,
    MovementFinished,
    MovementAbandoned,
    // Clients.
    WriteHeld,
    WriteUnavailable,
    QueryComplete,
    QueryPartial,
    EvaluatedDirectly,
    EvaluationRefused,
    RegisterWritten,
    RegisterRefused,
    RegisterUnknown,
    RegisterRead,
);

/// How often each kind happened.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Coverage(BTreeMap<Seen, u64>);

impl Coverage {
    pub(crate) fn note(&mut self, what: Seen) {
        self.count(what, 1);
    }

    pub(crate) fn count(&mut self, what: Seen, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub(crate) fn of(&self, what: Seen) -> u64 {
        self.0.get(&what).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, times) in &other.0 {
            self.count(*what, *times);
        }
    }

    /// The kinds that never happened.
    pub(crate) fn lacks(&self) -> Vec<Seen> {
        let all = ALL.iter().copied();
        all.filter(|what| self.of(*what) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in ALL.chunks(4) {
            for what in line {
                let name = format!("{what:?}");
                write!(f, "  {name:<20}{:>9}", self.of(*what))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
