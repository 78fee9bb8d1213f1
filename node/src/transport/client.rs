//! The calling side: one lazily opened connection per peer and class.

use super::{
    MESSAGE_BYTES_MAX,
    directory::Directory,
    identity::LocalIdentity,
    key::{PeerKey, ProvenChannel},
    proto::{
        EvaluateChunk, EvaluateRequest, MetadataRequest, metadata_client::MetadataClient,
        queries_client::QueriesClient, replication_client::ReplicationClient,
    },
    reach::Reach,
};
use crate::clock;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use trefoil_model::NodeId;

/// What a connection is for. Classes never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Metadata,
    Replication,
    Queries,
}

/// A peer that does not answer a ping within this is taken for unreachable and reconnected.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle connection is pinged.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// All connections of this node to its peers.
pub(crate) struct Connections {
    identity: Arc<LocalIdentity>,
    directory: Arc<Directory>,
    key: Arc<PeerKey>,
    /// Where connections leave from; the system chooses when there is none.
    source: Option<IpAddr>,
    channels: Mutex<BTreeMap<(NodeId, Class), (SocketAddr, ProvenChannel)>>,
    /// Which peers answer calls of the metadata plane.
    reach: Reach,
}

impl Connections {
    pub(crate) fn new(
        identity: Arc<LocalIdentity>,
        directory: Arc<Directory>,
        key: Arc<PeerKey>,
    ) -> Self {
        Self {
            identity,
            directory,
            key,
            source: None,
            channels: Mutex::default(),
            reach: Reach::default(),
        }
    }

    /// Lets connections leave from the address that this node listens at, when that is one address: on a
    /// host with several networks they stay in the one that was chosen for peers.
    pub(crate) fn leaving_from(mut self, listening: IpAddr) -> Self {
        self.source = (!listening.is_unspecified()).then_some(listening);
        self
    }

    /// The connection to a peer, opened anew when gossip has moved the peer elsewhere.
    ///
    /// # Errors
    /// `UNAVAILABLE` when nobody has said yet where the peer is.
    fn channel(&self, target: NodeId, class: Class) -> Result<ProvenChannel, Status> {
        let Some(whereabouts) = self.directory.get(target) else {
            return Err(Status::unavailable(format!(
                "node {target} has no known address"
            )));
        };
        let mut channels = self.channels.lock();
        if let Some((address, channel)) = channels.get(&(target, class))
            && *address == whereabouts.peer
        {
            return Ok(channel.clone());
        }
        let channel = connect(whereabouts.peer, self.source)?;
        let channel = ProvenChannel::new(channel, self.key.prover(target));
        channels.insert((target, class), (whereabouts.peer, channel.clone()));
        Ok(channel)
    }

    /// Calls the metadata plane of a peer.
    ///
    /// # Errors
    /// As the transport or the peer says; `DEADLINE_EXCEEDED` after `deadline`.
    pub(crate) async fn metadata(
        &self,
        target: NodeId,
        kind: u32,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, Status> {
        let answer = self.call_metadata(target, kind, body, deadline).await;
        self.reach.note(target, &answer, clock::boot());
        answer
    }

    async fn call_metadata(
        &self,
        target: NodeId,
        kind: u32,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, Status> {
        let mut client = MetadataClient::new(self.channel(target, Class::Metadata)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let identity = Some(self.request_identity(target));
        let call = client.call(MetadataRequest {
            identity,
            kind,
            body,
        });
        within(deadline, call)
            .await
            .map(|response| response.into_inner().body)
    }

    /// Asks a peer to evaluate a part of a query; the answer comes in chunks.
    ///
    /// # Errors
    /// As the transport or the peer says; `DEADLINE_EXCEEDED` when the first chunk takes too long.
    pub(crate) async fn evaluate(
        &self,
        target: NodeId,
        kind: u32,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Streaming<EvaluateChunk>, Status> {
        let mut client = QueriesClient::new(self.channel(target, Class::Queries)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let identity = Some(self.request_identity(target));
        let call = client.evaluate(EvaluateRequest {
            identity,
            kind,
            body,
        });
        within(deadline, call)
            .await
            .map(tonic::Response::into_inner)
    }

    /// The client for a replication stream to a peer.
    ///
    /// # Errors
    /// `UNAVAILABLE` when nobody has said yet where the peer is.
    pub(crate) fn replication(
        &self,
        target: NodeId,
    ) -> Result<ReplicationClient<ProvenChannel>, Status> {
        let channel = self.channel(target, Class::Replication)?;
        Ok(ReplicationClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Which peers answer calls of the metadata plane.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Calls of peers that this node refused because of the cluster key.
    pub(crate) fn refused_calls(&self) -> u64 {
        self.key.refused()
    }

    fn request_identity(&self, target: NodeId) -> super::proto::Identity {
        let incarnation = self.directory.get(target).and_then(|w| w.incarnation);
        self.identity.request_to(target, incarnation)
    }
}

fn connect(address: SocketAddr, source: Option<IpAddr>) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::new(Code::Internal, error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .local_address(source)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    Ok(endpoint.connect_lazy())
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {deadline:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::Incarnation;

    #[tokio::test]
    async fn calls_leave_from_the_address_that_the_node_listens_at() {
        let peer = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (listening, source) in [("127.0.0.9", "127.0.0.9"), ("0.0.0.0", "127.0.0.1")] {
            let identity = Arc::new(LocalIdentity::new(NodeId(1), Incarnation(1), None));
            let directory = Arc::new(Directory::default());
            let whereabouts = crate::transport::directory::Whereabouts {
                peer: peer.local_addr().unwrap(),
                incarnation: None,
                alive: true,
            };
            directory.set(NodeId(2), whereabouts);
            let key = PeerKey::new(None, identity.clone());
            let connections = Connections::new(identity, directory, key);
            let connections = connections.leaving_from(listening.parse().unwrap());
            let deadline = Duration::from_secs(10);
            let called = connections.metadata(NodeId(2), 0, Bytes::new(), deadline);
            tokio::select! {
                answer = called => panic!("nobody answers, but {answer:?} came"),
                accepted = peer.accept() => {
                    let (_, address) = accepted.unwrap();
                    assert_eq!(address.ip().to_string(), source);
                }
            }
        }
    }
}
