//! How this crate reaches the other nodes. The node crate implements it over its own connections;
//! tests implement it in memory with faults.

use crate::TransportError;
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;
use trefoil_model::NodeId;

/// Which handler a request is for. The bytes do not say it again; the numbers are part of the
/// format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RpcKind {
    /// Raft: entries and heartbeats.
    AppendEntries = 1,
    /// Raft: a candidate asks for a vote.
    Vote = 2,
    /// Raft: one part of a snapshot; up to 1 MiB and a little.
    SnapshotChunk = 3,
    /// A command for the leader.
    Propose = 4,
    /// A linearizable reader asks the leader for its read index.
    ReadIndex = 5,
    /// What do you know about clusters? Asked before there is one.
    Hello = 6,
    /// Promise to found this cluster with these nodes and no other.
    Promise = 7,
    /// Make me a member.
    Join = 8,
}

impl RpcKind {
    /// The kind that this byte names on the wire, if it names one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::AppendEntries,
            Self::Vote,
            Self::SnapshotChunk,
            Self::Propose,
            Self::ReadIndex,
            Self::Hello,
            Self::Promise,
            Self::Join,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A request to a peer.
#[derive(Clone, Debug)]
pub struct RpcRequest {
    /// Which handler it is for.
    pub kind: RpcKind,
    /// Enveloped bytes; the transport only carries them.
    pub bytes: Bytes,
}

/// Reaches peers by their id.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends a request to `MetadataPlane::handle` of a peer and brings back its answer. Must end
    /// within `deadline`, and must not deliver to a node with another id, whatever its address.
    ///
    /// # Errors
    /// See [`TransportError`]; the request may have been acted on unless the peer was unreachable.
    async fn call(
        &self,
        target: NodeId,
        request: RpcRequest,
        deadline: Duration,
    ) -> Result<Bytes, TransportError>;
}
