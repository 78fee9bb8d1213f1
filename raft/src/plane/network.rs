//! Sends requests to the other planes through the [`Transport`], for openraft and for ourselves.

use super::wire::{Header, SnapshotAnswer, SnapshotChunk};
use crate::engine::{Snapshot, Types, Vote};
use crate::transport::{RpcKind, RpcRequest};
use crate::{MetadataError, Transport, TransportError, codec};
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use trefoil_model::{ClusterId, NodeId};

/// Bytes of one part of a snapshot: small enough that a part fits any deadline, large enough for
/// speed.
const SNAPSHOT_CHUNK_BYTES: usize = 512 << 10;
/// How long openraft leaves an unreachable peer alone.
const BACKOFF: Duration = Duration::from_millis(200);

/// The other planes. Clones share the cluster id.
#[derive(Clone)]
pub(super) struct Peers {
    node: NodeId,
    cluster: Arc<Mutex<Option<ClusterId>>>,
    transport: Arc<dyn Transport>,
}

impl Peers {
    pub(super) fn new(
        node: NodeId,
        cluster: Arc<Mutex<Option<ClusterId>>>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            node,
            cluster,
            transport,
        }
    }

    /// Sends a request and decodes the answer, within the deadline.
    pub(super) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        to: NodeId,
        kind: RpcKind,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, TransportError> {
        let header = Header {
            cluster: *self.cluster.lock(),
            from: self.node,
            to,
        };
        let malformed = |error: MetadataError| TransportError::Refused {
            node: to,
            reason: error.to_string(),
        };
        let bytes = codec::encode(codec::Kind::Request, &(header, request)).map_err(malformed)?;
        let request = RpcRequest {
            kind,
            bytes: bytes.into(),
        };
        let answer = self.transport.call(to, request, deadline);
        let answer = match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(TransportError::TimedOut { node: to }),
        };
        codec::decode(codec::Kind::Answer, &answer).map_err(malformed)
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        Peer {
            target: NodeId(target),
            peers: self.clone(),
        }
    }
}

/// One peer, as openraft sees it.
pub(super) struct Peer {
    target: NodeId,
    peers: Peers,
}

type RpcError = RPCError<u64, EmptyNode, RaftError<u64>>;

/// A peer that does not answer is left alone for a while; one that was slow is asked again at once.
fn rpc_error(error: &TransportError) -> RpcError {
    match error {
        TransportError::TimedOut { .. } => RPCError::Network(NetworkError::new(error)),
        _ => RPCError::Unreachable(Unreachable::new(error)),
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        self.peers
            .call(
                self.target,
                RpcKind::AppendEntries,
                &request,
                option.hard_ttl(),
            )
            .await
            .map_err(|error| rpc_error(&error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        self.peers
            .call(self.target, RpcKind::Vote, &request, option.hard_ttl())
            .await
            .map_err(|error| rpc_error(&error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, &snapshot, option.hard_ttl()) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

impl Peer {
    /// Sends a snapshot part by part. The receiver says where to go on, so what it got before a
    /// lost connection is not sent again.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: &Snapshot,
        chunk_deadline: Duration,
    ) -> Result<Vote, TransportError> {
        let bytes = &snapshot.snapshot.0;
        let mut offset = 0;
        loop {
            let rest = &bytes[offset.min(bytes.len())..];
            let part = &rest[..rest.len().min(SNAPSHOT_CHUNK_BYTES)];
            let chunk = SnapshotChunk {
                vote,
                meta: snapshot.meta.clone(),
                total_bytes: bytes.len() as u64,
                offset: offset as u64,
                checksum: crc32c::crc32c(part),
                bytes: part.to_vec(),
            };
            let answer: SnapshotAnswer = self
                .peers
                .call(self.target, RpcKind::SnapshotChunk, &chunk, chunk_deadline)
                .await?;
            match answer {
                SnapshotAnswer::Continue { offset: next } => offset = next as usize,
                SnapshotAnswer::Installed { vote } => return Ok(vote),
            }
        }
    }
}
