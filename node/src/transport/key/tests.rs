//! Nodes with other keys, or without one, get nothing over TCP.

use super::*;
use crate::transport::{
    client::Connections,
    directory::{Directory, Whereabouts},
    proto::ReplicationMessage,
    server::{self, PeerHandler},
};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Code;
use trefoil_model::{ClusterId, Incarnation};

const SERVER: NodeId = NodeId(7);
const RIGHT: Option<[u8; 32]> = Some([1; 32]);
const WRONG: Option<[u8; 32]> = Some([2; 32]);
const DEADLINE: Duration = Duration::from_secs(20);

struct Echo(mpsc::Sender<Bytes>);

#[async_trait]
impl PeerHandler for Echo {
    async fn metadata(&self, _: NodeId, _: u32, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }

    fn replication(&self, body: Bytes) {
        self.0.try_send(body).unwrap();
    }

    async fn evaluate(&self, _: u32, body: Bytes) -> Result<Bytes, Status> {
        Ok(body)
    }
}

struct Server {
    key: Arc<PeerKey>,
    address: SocketAddr,
    replicated: mpsc::Receiver<Bytes>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn identity(node: NodeId) -> Arc<LocalIdentity> {
    let cluster = Some(ClusterId(5));
    Arc::new(LocalIdentity::new(node, Incarnation(1), cluster))
}

async fn start(key: Option<[u8; 32]>) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let key = PeerKey::new(key, identity(SERVER));
    let (sender, replicated) = mpsc::channel(16);
    let task = tokio::spawn(server::serve(
        listener,
        identity(SERVER),
        key.clone(),
        Arc::new(Echo(sender)),
        std::future::pending(),
    ));
    Server {
        key,
        address,
        replicated,
        task,
    }
}

/// A node that takes `target` to be at the server's address.
fn peer(server: &Server, key: Option<[u8; 32]>) -> Connections {
    let directory = Arc::new(Directory::default());
    let whereabouts = Whereabouts {
        peer: server.address,
        incarnation: None,
        alive: true,
    };
    directory.set(SERVER, whereabouts);
    let identity = identity(NodeId(8));
    Connections::new(identity.clone(), directory, PeerKey::new(key, identity))
}

/// The outcome of a call of each service.
async fn outcomes(peer: &Connections) -> [Result<(), Code>; 3] {
    let body = Bytes::from_static(b"x");
    let metadata = peer.metadata(SERVER, 1, body.clone(), DEADLINE).await;
    let evaluated = peer.evaluate(SERVER, 1, body.clone(), DEADLINE).await;
    let mut replication = peer.replication(SERVER).unwrap();
    let message = ReplicationMessage { body };
    let exchanged = replication.exchange(futures::stream::iter([message])).await;
    [
        metadata.map(drop).map_err(|status| status.code()),
        evaluated.map(drop).map_err(|status| status.code()),
        exchanged.map(drop).map_err(|status| status.code()),
    ]
}

#[tokio::test]
async fn the_same_key_passes_and_no_key_means_no_key() {
    for key in [RIGHT, None] {
        let mut server = start(key).await;
        assert_eq!(outcomes(&peer(&server, key)).await, [Ok(()); 3]);
        assert_eq!(
            server.replicated.recv().await,
            Some(Bytes::from_static(b"x"))
        );
        assert_eq!(server.key.refused(), 0);
        server.task.abort();
    }
}

#[tokio::test]
async fn another_key_or_none_or_one_too_many_is_refused_everywhere_and_counted() {
    for (ours, theirs) in [(RIGHT, WRONG), (RIGHT, None), (None, RIGHT)] {
        let mut server = start(ours).await;
        let refused = [Err(Code::Unauthenticated); 3];
        assert_eq!(outcomes(&peer(&server, theirs)).await, refused);
        assert!(
            server.replicated.try_recv().is_err(),
            "nothing came through"
        );
        assert_eq!(server.key.refused(), 3);
        server.task.abort();
    }
}

#[test]
fn a_proof_for_another_node_is_refused() {
    let server = PeerKey::new(RIGHT, identity(SERVER));
    let peer = PeerKey::new(RIGHT, identity(NodeId(8)));
    let checked = |target| {
        let request = peer.prover(target).call(Request::new(())).unwrap();
        server.check(request.metadata(), None)
    };
    assert!(checked(SERVER).is_ok());
    assert_eq!(
        checked(NodeId(9)).unwrap_err().code(),
        Code::Unauthenticated
    );
    let mut malformed = MetadataMap::new();
    malformed.insert_bin(HEADER, MetadataValue::from_bytes(b"no proof"));
    assert!(server.check(&malformed, None).is_err());
}
