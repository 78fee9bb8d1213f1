//! Messages between metadata planes. Each is an envelope ([`crate::codec`]) around `(Header, body)`
//! or an answer.

use crate::engine::{SnapshotMeta, Vote};
use crate::state::{MemberDescription, Proposal, Reply};
use serde::{Deserialize, Serialize};
use trefoil_model::{ClusterId, NodeId};

/// In front of every request. A receiver that is not `to`, or that belongs to another cluster,
/// refuses: addresses get swapped at restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The cluster of the sender; none before it has one.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
}

/// One part of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Bytes of the whole snapshot.
    pub(crate) total_bytes: u64,
    /// Where this part begins.
    pub(crate) offset: u64,
    /// CRC-32C of the part.
    pub(crate) checksum: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The answer to a [`SnapshotChunk`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum SnapshotAnswer {
    /// Go on from here; not always behind the part, when the receiver has more or less than the
    /// sender thinks.
    Continue { offset: u64 },
    /// The snapshot is installed; the receiver's vote.
    Installed { vote: Vote },
}

/// A command for the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProposeRequest {
    pub(crate) proposal: Proposal,
}

/// The answer to a request that only a leader can serve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum LeaderAnswer<T> {
    /// It is done.
    Done(T),
    /// Ask somebody else.
    NotLeader { leader: Option<NodeId> },
    /// The leader could not do it now; a proposal may still take effect.
    Failed { reason: String },
}

pub(crate) type ProposeAnswer = LeaderAnswer<Reply>;
/// Carries the read index.
pub(crate) type ReadAnswer = LeaderAnswer<u64>;

/// Somebody wants to become a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    pub(crate) node: NodeId,
    pub(crate) description: MemberDescription,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum JoinAnswer {
    /// The node is a member of this cluster now.
    Joined { cluster: ClusterId },
    /// It is not.
    Refused { reason: String },
}
