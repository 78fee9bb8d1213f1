//! The rules under test as values: how the open design decisions are read, which bugs are planted, and how
//! far a search goes.

use crate::state::{NodeSet, Number};

/// When a replica may pass over an import that a barrier lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum ImportSkip {
    /// Never: it takes every import that it does not have.
    Never,
    /// When its own position in the journal of the import's source, in the same lineage, is not before the place
    /// that the import covers; or when it is that source itself, still in that lineage.
    #[default]
    ByPosition,
    /// Planted: whenever it has any position in the source's journal.
    Always,
}

/// Bugs that a test plants. Each undoes one rule of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Owners change in one step, without a joint configuration.
    NoJointStep,
    /// A change finishes without its condition.
    FinishUnchecked,
    /// A configuration that was followed is forgotten in a crash.
    AdoptionNotDurable,
    /// Having caught up is not forgotten when the number changes, and counts although the source had
    /// not followed the number.
    EarlyCatchUp,
    /// Owners take pushes under a lower number than theirs.
    StalePushTaken,
    /// Barriers are answered to askers with a lower number.
    StaleBarrierAnswered,
    /// During a joint change a barrier needs enough of the old owners only.
    BarrierOldOnly,
    /// An amnesiac serves at once.
    AmnesiacServes,
    /// An amnesiac serves when it has caught up with one other owner.
    RefillFromOne,
    /// A loss is not recorded: no number rises.
    AmnesiaUnrecorded,
    /// Catching up with a Filling owner counts, and it is a partner of barriers.
    FillingCounts,
    /// Blocks are copied without a record in the receiver's journal.
    ImportsUnlisted,
    /// What was copied with blocks is acknowledged without a record of its own.
    CopiedIsHeld,
    /// A position in a lost journal counts as the beginning of the new one.
    UnknownRunIsStart,
    /// A position below the floor is answered with what is left.
    TrimmedAnswersRest,
    /// One position per peer, whatever the shard.
    PositionPerPeer,
    /// Dropping a replica keeps its positions in the peers' journals.
    DropKeepsPositions,
}

/// What is explored: rules and how they are read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// The planted bug.
    pub(crate) fault: Option<Fault>,
    /// When imports are passed over.
    pub(crate) import_skip: ImportSkip,
    /// Whether a replica that comes back to a node it was dropped from counts as another lineage. If not,
    /// positions that peers took in the earlier tenure stay comparable with later ones.
    pub(crate) drop_begins_lineage: bool,
    /// Whether whoever copies a peer's blocks also takes over the positions that the peer had.
    pub(crate) inherit_positions: bool,
    /// Whether an amnesiac among the old owners of a joint configuration must meet the majorities of the old
    /// owners only. It would refill sooner, and with two owners it would not wait for a newcomer that waits for
    /// it; no violation was found (1.4 million states, two owners, one change and one loss, exhausted).
    pub(crate) refill_old_only: bool,
}

impl Rules {
    /// The rules with a bug.
    pub(crate) fn with(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::default()
        }
    }

    /// Whether this bug is planted.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

/// What may happen in a search, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Writes, at most two. Each may be retried under every number.
    pub(crate) writes: u8,
    /// The owner sets to which changes may go, in this order of changes: the first begins with the first
    /// set, and so on. A change that is abandoned uses up its set.
    pub(crate) changes: &'static [NodeSet],
    /// Disk losses.
    pub(crate) losses: u8,
    /// Whether a second disk may be lost before the first is refilled. Then data may really be gone, and only
    /// silent gaps are violations.
    pub(crate) losses_overlap: bool,
    /// How often journals are trimmed.
    pub(crate) trims: u8,
    /// Whether replicas that are not owned any more are dropped.
    pub(crate) drops: bool,
    /// Most owners at the beginning: nodes 0, 1, ... own the shard.
    pub(crate) owners: u8,
    /// Crashes that forget, under [`Fault::AdoptionNotDurable`].
    pub(crate) crashes: u8,
    /// Whether changes are abandoned.
    pub(crate) abandons: bool,
    /// The numbers under which coordinators try writes; none: under every number.
    pub(crate) tries: Option<&'static [Number]>,
    /// Barriers about other shards, under [`Fault::PositionPerPeer`].
    pub(crate) other_shards: bool,
}

impl Bounds {
    /// One write by three owners, and nothing else.
    pub(crate) const CALM: Self = Self {
        writes: 1,
        changes: &[],
        losses: 0,
        losses_overlap: false,
        trims: 0,
        drops: false,
        owners: 3,
        crashes: 0,
        abandons: true,
        tries: None,
        other_shards: false,
    };
}
