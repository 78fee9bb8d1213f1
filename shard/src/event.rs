//! What happens to a node's replication: the inputs of [`crate::Replication::step`].

use crate::{
    DigestId, Envelope, ExportId, ExportedItems, FetchedParcel, Message, Offset, QueryId, ReadId,
    RequestId, ShardDigest,
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_model::{
    DeletionVersion, Incarnation, NodeId, PlacementTable, ShardSet, Signal, TenantId, TimeRange,
    Window,
};

/// One thing that happened. The driver feeds them one at a time, in the order in which it saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed. Feed one when [`crate::Replication::next_tick`] says: all deadlines and retries hang on it.
    Tick,

    // --- clients ---
    /// A client's write, accepted by the coordinator's checks. Answered by one
    /// [`crate::Action::FinishWrite`].
    Write(WriteRequest),
    /// This node is to evaluate a part. Answered by one [`crate::Action::QueryReady`]. Feed it only when the
    /// query has arrived: what was acknowledged before this event will be in the answer.
    Query(QueryRequest),
    /// The caller of a query went away; no `QueryReady` will follow for it.
    CancelQuery(QueryId),

    // --- peers ---
    /// A message arrived. The driver has checked nothing but its bytes ([`crate::decode_message`]).
    Message(Envelope, Message),
    /// A peer can be reached, in this run. Said at every change of its incarnation; advice, except that
    /// messages to it name the incarnation given here.
    PeerUp {
        /// The peer.
        node: NodeId,
        /// Its present run.
        incarnation: Incarnation,
    },
    /// A peer cannot be reached at present. Advice: it decides whom to ask first.
    PeerDown {
        /// The peer.
        node: NodeId,
    },

    // --- metadata plane ---
    /// The metadata plane's state as this node has applied it. Said once after the start and at every change.
    /// An older state than the last is harmless.
    Metadata {
        /// The placement table.
        table: Arc<PlacementTable>,
        /// The newest deletion of each tenant that has one. The driver has already given these deletions
        /// to the store.
        deletions: Arc<BTreeMap<TenantId, DeletionVersion>>,
    },

    /// Deletions that this node has confirmed, by the metadata plane's word, and those that are forgotten: items of lower
    /// versions are not taken. Said before [`Event::Metadata`] of the same state.
    Confirmed {
        /// By tenant: all up to this one.
        deletions: BTreeMap<TenantId, DeletionVersion>,
        /// Whether any deletion waits for owners, this one or another, that have not confirmed it.
        pending: bool,
    },

    // --- own journal and store ---
    /// The journal is durable up to here. Said after every group commit.
    Durable {
        /// The end of the last durable record.
        end: Offset,
    },
    /// The head has every accepted batch up to here: queries that pin a view from now on see them.
    Applied {
        /// The end of the last applied record; never beyond the durable end.
        end: Offset,
    },
    /// A manifest record is durable that holds blocks up to `through` and a checkpoint. The journal below
    /// `through` is not needed for a restart any more.
    Flushed {
        /// The position L of the flush.
        through: Offset,
    },
    /// The answer to [`crate::Action::Read`].
    JournalRead {
        /// The read.
        read: ReadId,
        /// The parcel records among those that were asked for, ascending by end. One that cannot be read (trimmed meanwhile)
        /// is left out.
        records: Vec<FetchedParcel>,
    },
    /// The answer to [`crate::Action::OpenExport`]: a view is pinned.
    ExportOpened {
        /// The export.
        export: ExportId,
        /// Everything that was applied up to here is in the view. Take this number and pin the view in one
        /// step: blocks only with their L, or blocks and head with the applied end.
        covers: Offset,
    },
    /// The answer to [`crate::Action::Export`].
    Exported {
        /// The export.
        export: ExportId,
        /// The cursor that was asked for.
        cursor: u64,
        /// Items at the cursor, of the shards and range of the export only. About the number of bytes that was asked for. Every piece
        /// has at least one shard.
        items: Vec<ExportedItems>,
        /// The next chunk's cursor; none: there is no more.
        next: Option<u64>,
    },
    /// The view cannot be pinned or read (damage, too many pins). Ends the export.
    ExportFailed {
        /// The export.
        export: ExportId,
    },
    /// A block of the own store is unreadable. Its items in `range` of `shards` may be lost. Feed it as soon
    /// as the damage is known, before any answer that could lack the items leaves the node. So: feed this first, take
    /// the block out of new views after that, and out of the manifest once [`Event::Durable`] has passed the
    /// end that the journal had then (a crash before finds the block again), or when [`crate::Action::Repaired`]
    /// has come for it. Feeding the same block again, as after a restart, costs another repair and harms nothing.
    Damaged {
        /// The shards that the block holds.
        shards: ShardSet,
        /// The times that the block holds.
        range: TimeRange,
    },
    /// Windows of which the store has a digest (one merged block, quiet). Advice for scrubbing; say it now
    /// and then, the newest first, at most [`crate::WINDOWS_MAX`].
    Windows(Vec<Window>),
    /// The answer to [`crate::Action::Digest`].
    Digests {
        /// The request.
        id: DigestId,
        /// Those of the shards that have a digest.
        digests: Vec<ShardDigest>,
    },
}

/// A client's write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    /// The driver's number of the request, unique among those that are open.
    pub request: RequestId,
    /// Whose items.
    pub tenant: TenantId,
    /// What kind of items.
    pub signal: Signal,
    /// The newest deletion that the coordinator knew *when it took the request*.
    pub deletion: DeletionVersion,
    /// One body for each group of [`crate::Routing`] that the request touches, with the shards of which it
    /// has a batch. The sets are disjoint and not empty. A routing that is a little old is harmless.
    pub parcels: Vec<(ShardSet, Bytes)>,
    /// When the coordinator gives up, on the boot clock.
    pub deadline: Duration,
}

/// A part that this node is to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRequest {
    /// The driver's number of the part, unique among those that are open.
    pub query: QueryId,
    /// The shards that are to be evaluated.
    pub shards: ShardSet,
    /// All times that the evaluation will look at. Decides whether lost blocks matter.
    pub range: TimeRange,
    /// When to give up, on the boot clock.
    pub deadline: Duration,
}
