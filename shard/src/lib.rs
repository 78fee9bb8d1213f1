//! The data plane: how a node stores, replicates and completes what it owns.
//!
//! [`Replication`] is the core: one pure state machine per node. Events and the time go in, actions and
//! journal records come out; there is no clock, no socket, no task and no randomness in it, so a
//! simulation runs thousands of schedules with faults per second under a seed. The node drives it under
//! a mutex: it feeds [`Event`]s, carries out [`Action`]s in their order, and applies the journal's durable
//! records to the store in theirs.
//!
//! At a crash the state machine is lost. [`Recovery`] makes the next one from the newest checkpoint and the
//! journal; see there for what the driver must have done before.

mod action;
mod answer;
mod barrier;
mod coordinator;
mod copy;
mod deadlines;
mod envelope;
mod error;
mod event;
mod export;
mod filling;
mod following;
mod forgetting;
mod held;
mod journal_state;
mod leaving;
mod message;
pub mod movement;
mod owner;
mod parcel;
mod peers;
pub mod placement;
mod position;
mod query;
mod quorum;
mod record;
mod recovery;
mod replicas;
mod replication;
mod report;
mod routing;
mod rows;
mod scrub;
mod settings;
mod shard_map;
mod trimming;
mod trust;

pub use action::{Action, Alarm, JournalPort, Proposal, QueryReady, WriteOutcome};
pub use error::ShardError;
pub use event::{Event, QueryRequest, WriteRequest};
pub use message::{
    AskGroup, BarrierAnswer, BarrierAsk, CopyAnswerStep, CopyAskStep, Envelope, ExportedItems,
    FETCH_RECORDS_MAX, FetchedParcel, ListedParcel, MESSAGE_VERSION, Message, Push, PushAck,
    PushOutcome, ShardDigest, decode_message, encode_message,
};
pub use parcel::{ImportNote, PARCEL_VERSION, Parcel, ParcelHeader, RequestNumber};
pub use position::{Offset, Position, Span};
pub use record::{RECORD_VERSION, Record, TrustRecord};
pub use recovery::{CHECKPOINT_VERSION, Loss, RecoveredJournal, Recovery};
pub use replication::{Identity, Replication};
pub use report::{ReplicaGroup, ReplicaReport, ReplicationStatus};
pub use routing::{QueryPlan, RouteGroup, Routing};
pub use settings::{Faults, Settings, WINDOWS_MAX};
pub use trust::Trust;

/// The driver's number of a client's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The driver's number of a part of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// The protocol's number of a read from the own journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The protocol's number of a pinned view that a peer copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportId(pub u64);

/// The protocol's number of a computation of digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestId(pub u64);
