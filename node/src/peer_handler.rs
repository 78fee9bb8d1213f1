//! What this node does with the requests of its peers.

use crate::{
    backend::NodeBackend,
    cluster::{Cluster, wishes::KIND_REPORT},
    data_plane::DataPlane,
    deltas::message::KIND_DELTAS,
    query::{
        answering,
        question::{Ask, KIND_ASK, KIND_ASK_ANEW, KIND_ASK_WITHIN},
    },
    transport::server::PeerHandler,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use tonic::Status;
use trefoil_model::NodeId;
use trefoil_raft::{MetadataPlane, RpcKind};

/// The handlers, as far as the node has come: the metadata plane first, the rest once there is a cluster.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) metadata: OnceLock<MetadataPlane>,
    pub(crate) plane: OnceLock<Arc<DataPlane>>,
    pub(crate) cluster: OnceLock<Arc<Cluster>>,
    pub(crate) backend: OnceLock<Arc<NodeBackend>>,
    /// Where evaluations run: not on the threads that carry heartbeats.
    pub(crate) evaluators: OnceLock<tokio::runtime::Handle>,
}

#[async_trait]
impl PeerHandler for Handlers {
    async fn metadata(&self, source: NodeId, kind: u32, body: Bytes) -> Result<Bytes, Status> {
        if kind == KIND_REPORT {
            let cluster = self.cluster.get().ok_or_else(not_yet)?;
            let report = bincode::deserialize(&body)
                .map_err(|error| Status::invalid_argument(format!("malformed report: {error}")))?;
            cluster.take_report(source, report);
            return Ok(Bytes::new());
        }
        let metadata = self.metadata.get().ok_or_else(not_yet)?;
        let kind = u8::try_from(kind).ok().and_then(RpcKind::from_byte);
        let kind = kind.ok_or_else(|| Status::unimplemented("unknown kind of metadata call"))?;
        let answer = metadata.handle(kind, body).await;
        answer.map_err(|error| Status::aborted(error.to_string()))
    }

    fn replication(&self, body: Bytes) {
        if let Some(plane) = self.plane.get() {
            plane.receive(&body);
        }
    }

    async fn evaluate(&self, kind: u32, body: Bytes) -> Result<Bytes, Status> {
        let cluster = self.cluster.get().ok_or_else(not_yet)?.clone();
        let evaluators = self.evaluators.get().ok_or_else(not_yet)?;
        let backend = self.backend.get().cloned();
        let work = evaluators.spawn(async move {
            if kind == KIND_DELTAS {
                return backend.ok_or_else(not_yet)?.answer_deltas(&body).await;
            }
            if ![KIND_ASK, KIND_ASK_WITHIN, KIND_ASK_ANEW].contains(&kind) {
                return cluster.answer_peer(kind, &body).await;
            }
            // Its state may be older than a deletion that the asker knows to have been made.
            if !*cluster.metadata.caught_up().borrow() || cluster.follow_up().await.is_err() {
                return Err(not_yet());
            }
            let ask = Ask::from_bytes(kind, &body)?;
            let answered = answering::answer(&cluster.plane, &cluster.evaluator, ask).await?;
            answered.to_bytes(kind)
        });
        let mut work = AbortOnDrop(work);
        (&mut work.0)
            .await
            .map_err(|error| Status::internal(error.to_string()))?
    }
}

/// Ends the evaluation when the coordinator has gone away.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn not_yet() -> Status {
    Status::unavailable("the node is starting")
}
