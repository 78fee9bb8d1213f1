//! The sending side of replication: one bounded queue and one stream per peer.
//!
//! Messages may be lost: a full queue or a broken stream drops them, and the protocol (crate
//! trefoil-shard) repeats what still matters. Order within a stream is kept.

use super::{client::Connections, proto::ReplicationMessage};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use trefoil_model::NodeId;

/// Messages that may wait for one peer.
const QUEUE_MESSAGES_MAX: usize = 4096;
/// Bytes that may wait for one peer; more are dropped, and fetched later by barriers.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Pause before a broken stream is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

struct Queue {
    sender: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// Sends replication messages to peers without ever waiting for them.
pub(crate) struct ReplicationSender {
    connections: Arc<Connections>,
    runtime: tokio::runtime::Handle,
    queues: Mutex<BTreeMap<NodeId, Queue>>,
    dropped: AtomicU64,
}

impl ReplicationSender {
    pub(crate) fn new(connections: Arc<Connections>, runtime: tokio::runtime::Handle) -> Self {
        Self {
            connections,
            runtime,
            queues: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Queues a message for a peer, or drops it when too much waits already.
    pub(crate) fn send(&self, target: NodeId, body: Bytes) {
        let mut queues = self.queues.lock();
        let queue = queues.entry(target).or_insert_with(|| self.open(target));
        let length = body.len();
        let waiting = queue.bytes.fetch_add(length, Ordering::Relaxed);
        if waiting + length > QUEUE_BYTES_MAX || queue.sender.try_send(body).is_err() {
            queue.bytes.fetch_sub(length, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Messages dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn open(&self, target: NodeId) -> Queue {
        let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let stream = PeerStream {
            target,
            connections: self.connections.clone(),
            receiver: Arc::new(tokio::sync::Mutex::new(receiver)),
            bytes: bytes.clone(),
        };
        self.runtime.spawn(stream.run());
        Queue { sender, bytes }
    }
}

struct PeerStream {
    target: NodeId,
    connections: Arc<Connections>,
    receiver: Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>,
    bytes: Arc<AtomicUsize>,
}

impl PeerStream {
    /// Keeps a stream open for as long as the sender lives; what a broken stream held is lost.
    async fn run(self) {
        loop {
            let outcome = match self.connections.replication(self.target) {
                Ok(mut client) => client.exchange(self.messages()).await.map(drop),
                Err(status) => Err(status),
            };
            if let Err(status) = outcome {
                tracing::debug!(peer = %self.target, error = %status.message(), "replication stream ended");
            }
            if self.receiver.lock().await.is_closed() {
                return;
            }
            self.discard_waiting().await;
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    fn messages(&self) -> impl futures::Stream<Item = ReplicationMessage> + Send + 'static {
        let (receiver, bytes) = (self.receiver.clone(), self.bytes.clone());
        futures::stream::unfold((receiver, bytes), |(receiver, bytes)| async move {
            let body = receiver.lock().await.recv().await?;
            bytes.fetch_sub(body.len(), Ordering::Relaxed);
            Some((ReplicationMessage { body }, (receiver, bytes)))
        })
    }

    /// What waited while the peer was away is stale: the protocol asks again.
    async fn discard_waiting(&self) {
        let mut receiver = self.receiver.lock().await;
        while let Ok(body) = receiver.try_recv() {
            self.bytes.fetch_sub(body.len(), Ordering::Relaxed);
        }
    }
}
