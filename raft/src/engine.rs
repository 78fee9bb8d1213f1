//! The types that openraft is instantiated with. Nothing outside this crate sees them.

use crate::MetadataError;
use crate::machine::SnapshotBytes;
use crate::state::{Proposal, Reply};
use openraft::{ErrorSubject, ErrorVerb, StorageIOError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What one entry of the Raft log holds: proposals that arrived at the leader together, applied in
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) proposals: Vec<Proposal>,
}

/// The replies to a [`Batch`], one per proposal, in order. Empty for entries without a batch.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Replies(pub(crate) Vec<Reply>);

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Batch,
        R = Replies,
        NodeId = u64,
        Node = openraft::EmptyNode,
        SnapshotData = SnapshotBytes,
);

pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, openraft::EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<Types>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type Raft = openraft::Raft<Types>;

/// An error of ours in the form in which openraft stops on it.
pub(crate) fn storage_error(
    subject: ErrorSubject<u64>,
    verb: ErrorVerb,
    error: &MetadataError,
) -> StorageError {
    let source = openraft::AnyError::error(Shown(error));
    StorageIOError::new(subject, verb, source).into()
}

/// Prints an error with all its causes.
struct Shown<'a>(&'a MetadataError);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
