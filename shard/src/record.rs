//! Records of a node's journal: everything durable that the protocol knows is one of these, or in the
//! checkpoint ([`crate::Replication::checkpoint`]).
//!
//! Each record carries whole values, never differences, so replaying a record twice, or replaying from
//! before a checkpoint, gives the same state. A record takes effect in memory when it is appended; nothing
//! that rests on it is said to anybody before it is durable.

use crate::{ImportNote, Parcel, Position, ShardError, Trust, envelope};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trefoil_model::{
    DeletionVersion, Incarnation, LineageId, NodeId, ShardEntry, ShardSet, TenantId, TimeRange,
};

/// The format version of a record.
pub const RECORD_VERSION: u8 = 1;

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A process began to write here. Everything up to the next start belongs to this incarnation.
    Start {
        /// The run.
        incarnation: Incarnation,
        /// The lineage of the data directory in this run.
        lineage: LineageId,
    },
    /// Batches that this node holds.
    Parcel {
        /// The batches of the parcel that count here: those that this node owned and did not hold before.
        /// The driver applies exactly these to the head.
        accepted: ShardSet,
        /// The parcel as it came.
        parcel: Parcel,
        /// Where it was fetched from, unless it was pushed or written here. Whoever has that journal up to
        /// there needs none of it; without this two nodes that have forgotten its number would fetch it from
        /// each other for ever.
        fetched: Option<ImportNote>,
    },
    /// Configurations that this node follows from here on.
    Adopt {
        /// Shards with equal rows of the table together.
        entries: Vec<(ShardSet, ShardEntry)>,
    },
    /// Positions in a peer's journal. All that they cover stands before this record.
    Positions {
        /// The peer.
        peer: NodeId,
        /// Shards with equal positions together; with the lineage of the peer's replicas when they were taken.
        groups: Vec<(ShardSet, Position, LineageId)>,
    },
    /// A change of trust in this node's own replicas.
    Trust(TrustRecord),
    /// Deletions that this node knew when it stored batches that presuppose them. After a restart it waits
    /// for the metadata plane to bring at least these.
    Deletions {
        /// The newest known deletion of each tenant named.
        versions: Vec<(TenantId, DeletionVersion)>,
    },
    /// This node's replicas of these shards end here: the driver hides their items in the head and, by
    /// tombstones that are never lifted, in all blocks that exist now.
    Drop {
        /// The shards.
        shards: ShardSet,
    },
}

/// A change of trust, as it is journalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustRecord {
    /// The replicas of these shards now have this trust.
    Set {
        /// The shards.
        shards: ShardSet,
        /// Their trust.
        trust: Trust,
        /// Whether answers that touch them must say that something may be missing for good (RF 1).
        gap: bool,
    },
    /// These replicas may have lost what they acknowledged, all of it: positions and held numbers are void.
    Forget {
        /// The shards.
        shards: ShardSet,
        /// The lineage that begins; it must be recorded in the metadata plane before anything is stored.
        lineage: LineageId,
    },
    /// These replicas lost a block: their items in a range of time may be missing.
    Damage {
        /// The shards.
        shards: ShardSet,
        /// The times of the lost items.
        range: TimeRange,
        /// As in [`TrustRecord::Forget`].
        lineage: LineageId,
    },
    /// The damage in this range is repaired for these shards.
    Repaired {
        /// The shards.
        shards: ShardSet,
        /// The times, as they were recorded.
        range: TimeRange,
    },
}

impl TrustRecord {
    /// The shards whose held numbers are void by this change.
    pub(crate) fn loses(&self) -> Option<&ShardSet> {
        match self {
            Self::Forget { shards, .. } | Self::Damage { shards, .. } => Some(shards),
            Self::Set { .. } | Self::Repaired { .. } => None,
        }
    }
}

/// The meta of a record's envelope; a parcel follows as the tail.
#[derive(Serialize, Deserialize)]
enum RecordMeta {
    Start(Incarnation, LineageId),
    Parcel(ShardSet, Option<ImportNote>),
    Adopt(Vec<(ShardSet, ShardEntry)>),
    Positions(NodeId, Vec<(ShardSet, Position, LineageId)>),
    Trust(TrustRecord),
    Deletions(Vec<(TenantId, DeletionVersion)>),
    Drop(ShardSet),
}

impl Record {
    /// Appends the record's bytes. A parcel's bytes are copied as they are.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut tail = [Bytes::new(), Bytes::new()];
        let meta = match self {
            Self::Start {
                incarnation,
                lineage,
            } => RecordMeta::Start(*incarnation, *lineage),
            Self::Parcel {
                accepted,
                parcel,
                fetched,
            } => {
                tail = parcel.pieces();
                RecordMeta::Parcel(accepted.clone(), *fetched)
            }
            Self::Adopt { entries } => RecordMeta::Adopt(entries.clone()),
            Self::Positions { peer, groups } => RecordMeta::Positions(*peer, groups.clone()),
            Self::Trust(trust) => RecordMeta::Trust(trust.clone()),
            Self::Deletions { versions } => RecordMeta::Deletions(versions.clone()),
            Self::Drop { shards } => RecordMeta::Drop(shards.clone()),
        };
        envelope::seal(RECORD_VERSION, &meta, &tail, out);
    }

    /// Checks a record's bytes; a parcel in it becomes a slice of them.
    ///
    /// # Errors
    /// When the version is unknown, a length is impossible or a checksum differs.
    pub fn decode(bytes: &Bytes) -> Result<Self, ShardError> {
        let (meta, tail) = envelope::open("journal record", RECORD_VERSION, bytes)?;
        Ok(match meta {
            RecordMeta::Start(incarnation, lineage) => Self::Start {
                incarnation,
                lineage,
            },
            RecordMeta::Parcel(accepted, fetched) => Self::Parcel {
                accepted,
                fetched,
                parcel: Parcel::decode(&tail)?,
            },
            RecordMeta::Adopt(entries) => Self::Adopt { entries },
            RecordMeta::Positions(peer, groups) => Self::Positions { peer, groups },
            RecordMeta::Trust(trust) => Self::Trust(trust),
            RecordMeta::Deletions(versions) => Self::Deletions { versions },
            RecordMeta::Drop(shards) => Self::Drop { shards },
        })
    }
}
