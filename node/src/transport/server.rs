//! The answering side: checks whom a request is meant for and hands it on.

use super::{
    MESSAGE_BYTES_MAX,
    identity::LocalIdentity,
    key::{Checker, PeerKey},
    proto::{
        EvaluateChunk, EvaluateRequest, MetadataRequest, MetadataResponse, ReplicationEnd,
        ReplicationMessage,
        metadata_server::{Metadata, MetadataServer},
        queries_server::{Queries, QueriesServer},
        replication_server::{Replication, ReplicationServer},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status, Streaming, service::interceptor::InterceptedService};
use trefoil_model::NodeId;

/// Chunks of an answer are cut to this, so that a cancelled query stops early.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// What a node does with requests of its peers.
#[async_trait]
pub(crate) trait PeerHandler: Send + Sync + 'static {
    /// Answers a call of the metadata plane.
    async fn metadata(&self, source: NodeId, kind: u32, body: Bytes) -> Result<Bytes, Status>;
    /// Takes one replication message. Never waits.
    fn replication(&self, body: Bytes);
    /// Evaluates a part of a query; dropping the future cancels it.
    async fn evaluate(&self, kind: u32, body: Bytes) -> Result<Bytes, Status>;
}

struct Service<H> {
    identity: Arc<LocalIdentity>,
    handler: Arc<H>,
}

impl<H> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            handler: self.handler.clone(),
        }
    }
}

#[async_trait]
impl<H: PeerHandler> Metadata for Service<H> {
    async fn call(
        &self,
        request: Request<MetadataRequest>,
    ) -> Result<Response<MetadataResponse>, Status> {
        let request = request.into_inner();
        let source = self.identity.check(request.identity.as_ref())?;
        let body = self
            .handler
            .metadata(source, request.kind, request.body)
            .await?;
        Ok(Response::new(MetadataResponse { body }))
    }
}

#[async_trait]
impl<H: PeerHandler> Replication for Service<H> {
    async fn exchange(
        &self,
        request: Request<Streaming<ReplicationMessage>>,
    ) -> Result<Response<ReplicationEnd>, Status> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.next().await {
            self.handler.replication(message?.body);
        }
        Ok(Response::new(ReplicationEnd {}))
    }
}

#[async_trait]
impl<H: PeerHandler> Queries for Service<H> {
    type EvaluateStream = BoxStream<'static, Result<EvaluateChunk, Status>>;

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<Self::EvaluateStream>, Status> {
        let request = request.into_inner();
        self.identity.check(request.identity.as_ref())?;
        let body = self.handler.evaluate(request.kind, request.body).await?;
        Ok(Response::new(chunks(body).boxed()))
    }
}

fn chunks(body: Bytes) -> impl Stream<Item = Result<EvaluateChunk, Status>> + Send {
    futures::stream::unfold(body, |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some((Ok(EvaluateChunk { body: chunk }), rest))
    })
}

/// Serves peers until `shutdown` resolves.
///
/// # Errors
/// When the address cannot be bound or the server fails.
pub(crate) async fn serve<H: PeerHandler>(
    listener: tokio::net::TcpListener,
    identity: Arc<LocalIdentity>,
    key: Arc<PeerKey>,
    handler: Arc<H>,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let service = Service { identity, handler };
    let checker = Checker(key);
    let metadata = MetadataServer::new(service.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let replication =
        ReplicationServer::new(service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let queries = QueriesServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(InterceptedService::new(metadata, checker.clone()))
        .add_service(InterceptedService::new(replication, checker.clone()))
        .add_service(InterceptedService::new(queries, checker))
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await?;
    Ok(())
}
