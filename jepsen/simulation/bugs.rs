//! The mistakes that are planted, one at a time, to show that the simulation finds them. Each is a field of an options
//! struct that is false in production and that no configuration reaches.

use trefoil_shard::{Faults, movement::MovementFaults};

macro_rules! bugs {
    ($($name:ident: $what:literal,)*) => {
        /// A planted mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug { $(#[doc = $what] $name),* }

        /// All of them, with what they are in words.
        pub(crate) const ALL: &[(Bug, &str)] = &[$((Bug::$name, $what)),*];
    };
}

bugs!(
    AcknowledgeBeforeFsync: "an owner acknowledges before its journal is synced",
    MajorityOfOne: "a write needs one owner",
    BelieveUnsyncedNumbers: "a number that was seen counts as held before it is synced",
    EvaluateWhileFilling: "a replica that lost data evaluates at once",
    TrimPinnedCopy: "the journal behind a pinned copy is trimmed, and the position that the copy took is believed",
    PromiseTwice: "a promise to found a cluster is told and not written, so a restarted node promises again",
    SkipConfigurationCheck: "owners take pushes and answer barriers under any configuration number",
    CountFillingOwner: "catching up with a Filling owner counts",
    LoseIdempotency: "a command that is tried again is a new command",
    TrustRestoredCopy: "a node that is told of a longer journal of its own goes on",
    ApplyTornPage: "a journal page is read without its checksum",
    DropOldOwnerByTimer: "an old owner drops its replica some time after its shard began to move",
    RaftAcknowledgesBeforeFsync: "the Raft log says that it is durable before it is",
    RefillFromOne: "a replica that lost data serves when it has caught up with one owner",
    AmnesiaUnrecorded: "a loss is recorded nowhere, and what peers knew of the journal before it is ignored",
    OldBarrierUsed: "a query uses a barrier that began before it",
    UnappliedEvaluated: "a query does not wait until the own journal is applied",
    PositionBeforeParcels: "a position is noted before what it covers is journalled",
    BarrierOldOnly: "during a change of owners barriers need the old owners only",
    FinishWithoutCatchUp: "a change of owners finishes before the new ones have caught up",
    DamageIgnored: "a damaged block changes nothing",
    TrimmedAnswersRest: "a position below the journal's floor is answered with what is left",
);

impl Bug {
    /// The bug of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = ALL.iter().find(|(bug, _)| format!("{bug:?}") == name);
        found.map(|(bug, _)| *bug)
    }

    /// What it is, in words.
    pub(crate) fn what(self) -> &'static str {
        let found = ALL.iter().find(|(bug, _)| *bug == self);
        found.map_or("", |(_, what)| what)
    }

    /// What of it is in the replication core.
    pub(crate) fn in_the_core(self) -> Faults {
        let mut faults = Faults::default();
        match self {
            Self::AcknowledgeBeforeFsync => faults.acknowledge_before_fsync = true,
            Self::MajorityOfOne => faults.acknowledge_with_one = true,
            Self::BelieveUnsyncedNumbers => faults.seen_is_held = true,
            Self::EvaluateWhileFilling => faults.amnesiac_serves = true,
            // Either alone is harmless: a position below the floor is copied again, and the pin keeps it above.
            Self::TrimPinnedCopy => {
                faults.pinned_trimmed = true;
                faults.trimmed_answers_rest = true;
            }
            Self::SkipConfigurationCheck => {
                faults.stale_push_taken = true;
                faults.stale_barrier_answered = true;
            }
            Self::CountFillingOwner => faults.filling_counts = true,
            Self::TrustRestoredCopy => faults.restored_copy_ignored = true,
            Self::DropOldOwnerByTimer => faults.drop_unconfirmed = true,
            Self::RefillFromOne => faults.refill_from_one = true,
            // Peers that know the old journal would notice otherwise.
            Self::AmnesiaUnrecorded => {
                faults.amnesia_unrecorded = true;
                faults.restored_copy_ignored = true;
            }
            // With the leader's check alone gone, no new owner says that it serves before it has caught up.
            Self::FinishWithoutCatchUp => faults.join_from_one = true,
            Self::OldBarrierUsed => faults.old_barrier_used = true,
            Self::UnappliedEvaluated => faults.unapplied_evaluated = true,
            Self::PositionBeforeParcels => faults.position_before_parcels = true,
            Self::BarrierOldOnly => faults.barrier_old_only = true,
            Self::DamageIgnored => faults.damage_ignored = true,
            Self::TrimmedAnswersRest => faults.trimmed_answers_rest = true,
            Self::PromiseTwice
            | Self::LoseIdempotency
            | Self::ApplyTornPage
            | Self::RaftAcknowledgesBeforeFsync => {}
        }
        faults
    }

    /// What of it is in the leader's decisions.
    pub(crate) fn in_the_movement(self) -> MovementFaults {
        MovementFaults {
            catch_up_unchecked: self == Self::FinishWithoutCatchUp,
            adoption_unchecked: self == Self::FinishWithoutCatchUp,
            ..MovementFaults::default()
        }
    }
}
