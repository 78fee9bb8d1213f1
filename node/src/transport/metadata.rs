//! Carries the metadata plane's calls over this node's connections.

use super::client::Connections;
use async_trait::async_trait;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tonic::{Code, Status};
use trefoil_model::NodeId;
use trefoil_raft::{RpcRequest, Transport, TransportError};

/// The metadata plane's way to its peers.
pub(crate) struct MetadataTransport {
    connections: Arc<Connections>,
}

impl MetadataTransport {
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        Self { connections }
    }
}

#[async_trait]
impl Transport for MetadataTransport {
    async fn call(
        &self,
        target: NodeId,
        request: RpcRequest,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let kind = u32::from(request.kind as u8);
        let answer = self
            .connections
            .metadata(target, kind, request.bytes, deadline)
            .await;
        answer.map_err(|status| transport_error(target, &status))
    }
}

fn transport_error(node: NodeId, status: &Status) -> TransportError {
    let reason = status.message().to_owned();
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => TransportError::TimedOut { node },
        // A mismatch of identities is found before the request is looked at.
        Code::Unavailable | Code::FailedPrecondition => {
            TransportError::Unreachable { node, reason }
        }
        _ => TransportError::Refused { node, reason },
    }
}
