//! What a node's replication wants done: the outputs of [`crate::Replication::step`].
//!
//! The driver carries out the actions of one step in their order, before the next step; those that take
//! time (reads, exports, digests) it starts in that order and answers later by an event. Records of the
//! journal are not actions: they are appended during the step, through [`JournalPort`].

use crate::{
    DigestId, Envelope, ExportId, Message, Offset, QueryId, ReadId, Record, ReplicaReport,
    RequestId, Routing, Span,
};
use std::sync::Arc;
use trefoil_model::{LineageId, NodeId, ShardSet, TimeRange, Window};

/// The journal as the protocol uses it. The driver's implementation buffers records and has them fsynced
/// in groups; the simulation's keeps them in memory.
pub trait JournalPort {
    /// Appends a record and says where it lies. It is not durable yet: [`crate::Event::Durable`] says so
    /// later. Never fails: a journal that cannot take records any more ends the process.
    fn append(&mut self, record: Record) -> Span;
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message. If there is no connection, or its queue is full, drop it: whoever waits asks again.
    Send(Envelope, Message),
    /// Answer a client's write.
    FinishWrite {
        /// The request.
        request: RequestId,
        /// How it ended.
        outcome: WriteOutcome,
    },
    /// Pin a view of head and blocks *now*, before the next step, and evaluate the part on it.
    QueryReady(QueryReady),
    /// Read these records of the own journal and answer with [`crate::Event::JournalRead`].
    Read {
        /// Named in the answer.
        read: ReadId,
        /// The records, ascending.
        records: Vec<Span>,
    },
    /// Pin a view of these shards and answer with [`crate::Event::ExportOpened`] or `ExportFailed`.
    OpenExport {
        /// Named in the answer.
        export: ExportId,
        /// Only items of these.
        shards: ShardSet,
        /// Only items in this range; none: all.
        range: Option<TimeRange>,
    },
    /// Read about so many bytes of the view and answer with [`crate::Event::Exported`] or `ExportFailed`. Cursors
    /// come one behind the other, each until its chunk has arrived: reading at the last one again must give the same
    /// items, while it is being read further requests of it need no answer, and older ones need none any more.
    Export {
        /// The export.
        export: ExportId,
        /// 0, or a `next` of an earlier answer.
        cursor: u64,
        /// How much to read.
        bytes_max: usize,
    },
    /// Unpin the view. Not answered.
    CloseExport {
        /// The export.
        export: ExportId,
    },
    /// Propose this to the metadata plane. Proposed again after a while until its effect is seen.
    Propose(Proposal),
    /// Tell the leader what this node's replicas have reached. Repeated every second; replaces the last one.
    Report(ReplicaReport),
    /// A peer knows deletions that this node does not: bring the metadata plane's state up to date soon.
    RefreshMetadata,
    /// The journal below is not needed by anybody: segments that lie wholly below may be recycled. The
    /// protocol does not refer to anything below from now on.
    Trim {
        /// The new floor.
        below: Offset,
    },
    /// Publish this routing to those who cut requests into parcels and plan queries.
    RoutingChanged(Arc<Routing>),
    /// Compute digests and answer with [`crate::Event::Digests`].
    Digest {
        /// Named in the answer.
        id: DigestId,
        /// The shards.
        shards: ShardSet,
        /// The window.
        window: Window,
    },
    /// What unreadable blocks held in `range` of `shards` is here again, durably, or is not wanted any more
    /// because the shards have left. A block whose shards [`crate::Replication::damaged`] does not name any
    /// more for its range needs no mark in the manifest.
    Repaired {
        /// The shards.
        shards: ShardSet,
        /// The times, as an [`crate::Event::Damaged`] named them.
        range: TimeRange,
    },
    /// Say this to the operator (log, metric). Nothing depends on it.
    Alarm(Alarm),
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Every batch is durable at a majority of its shard's owners.
    Held,
    /// There was no majority within the deadline, or too many writes are open. What was stored may become
    /// visible; the client may retry.
    Unavailable,
}

/// What of a part can be evaluated now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryReady {
    /// The part.
    pub query: QueryId,
    /// Evaluate these, on a view that is pinned now.
    pub complete: ShardSet,
    /// These cannot be promised here: not owned, not trusted, damaged in the range, or not enough partners
    /// answered in time. Plan them again without this node; if no owner is left, the answer is an error or
    /// says that they are missing.
    pub refused: ShardSet,
    /// Of the complete: something may be missing for good (RF 1 after a loss). The answer says so.
    pub gaps: ShardSet,
}

/// A command for the metadata plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// This node may lack what it acknowledged. See `RecordAmnesia` of the metadata plane.
    RecordAmnesia {
        /// The shards; none: all that it owns, and the member's lineage changes too.
        shards: Option<ShardSet>,
        /// The lineage that begins.
        lineage: LineageId,
    },
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A peer knows more of this node's journal than this node does: the data directory is an old copy. The
    /// driver also gives up the Raft vote.
    RestoredCopy {
        /// The peer that noticed.
        peer: NodeId,
    },
    /// These replicas lost data and are being filled again.
    Amnesia {
        /// The shards.
        shards: ShardSet,
    },
    /// At RF 1 a loss cannot be repaired; answers that touch these shards say so from now on.
    Gap {
        /// The shards.
        shards: ShardSet,
    },
}
