//! The cluster key on the peers' TCP port: every call carries a proof that its sender knows the key.
//!
//! As in gossip, a node with a key takes only calls with a proof, and a node without one only calls
//! without, so that a half-configured cluster is noticed on both sides. What a proof is worth, and what
//! it is not, stands in `trefoil_gossip::PeerClaim`'s module; the header is drawn in
//! `docs/formats/peer.md`.

use super::identity::LocalIdentity;
use parking_lot::Mutex;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::{
    Request, Status,
    metadata::{Binary, MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, server::TcpConnectInfo},
};
use trefoil_gossip::{ClusterKey, PeerClaim};
use trefoil_model::NodeId;

/// The header of a call that carries the proof.
const HEADER: &str = "trefoil-proof-bin";
/// A stranger who goes on trying is told no more often than this.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// A connection whose calls carry this node's proof.
pub(crate) type ProvenChannel = InterceptedService<Channel, Prover>;

/// The key of this node, if it has one, and what was refused because of it.
pub(crate) struct PeerKey {
    key: Option<ClusterKey>,
    identity: Arc<LocalIdentity>,
    refused: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl PeerKey {
    pub(crate) fn new(key: Option<[u8; 32]>, identity: Arc<LocalIdentity>) -> Arc<Self> {
        Arc::new(Self {
            key: key.map(ClusterKey::new),
            identity,
            refused: AtomicU64::new(0),
            told: Mutex::default(),
        })
    }

    /// What lets this node's calls to a peer pass there.
    pub(crate) fn prover(&self, target: NodeId) -> Prover {
        let claim = PeerClaim {
            source: self.identity.node,
            target,
            incarnation: self.identity.incarnation,
        };
        let prove = |key: &ClusterKey| {
            let proof = key.prove(&claim, rand::random());
            MetadataValue::from_bytes(&proof)
        };
        Prover {
            proof: self.key.as_ref().map(prove),
        }
    }

    /// Calls that were refused since the start because of the key.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn check(&self, headers: &MetadataMap, from: Option<SocketAddr>) -> Result<(), Status> {
        let outcome = self.judge(headers);
        if let Err(reason) = outcome {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.tell(reason, from);
            return Err(Status::unauthenticated(reason));
        }
        Ok(())
    }

    fn judge(&self, headers: &MetadataMap) -> Result<(), &'static str> {
        let proof = headers.get_bin(HEADER);
        let (key, proof) = match (&self.key, proof) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err("the caller has a cluster key and this node has none"),
            (Some(_), None) => return Err("this node has a cluster key and the caller has none"),
            (Some(key), Some(proof)) => (key, proof),
        };
        let bytes = proof.to_bytes().map_err(|_| "the proof is malformed")?;
        let claim = key.check(&bytes).map_err(|_| "the cluster key is wrong")?;
        match claim.target == self.identity.node {
            true => Ok(()),
            false => Err("the proof is for another node"),
        }
    }

    fn tell(&self, reason: &'static str, from: Option<SocketAddr>) {
        let mut told = self.told.lock();
        if told.is_some_and(|at| at.elapsed() < TOLD_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        tracing::warn!(
            ?from,
            reason,
            "calls of a peer are refused; do all nodes have the same cluster_key_file?"
        );
    }
}

/// Adds the proof to calls to one peer.
#[derive(Clone)]
pub(crate) struct Prover {
    proof: Option<MetadataValue<Binary>>,
}

impl Interceptor for Prover {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(proof) = &self.proof {
            request.metadata_mut().insert_bin(HEADER, proof.clone());
        }
        Ok(request)
    }
}

/// Refuses calls without the right proof, before anything of them is read.
#[derive(Clone)]
pub(crate) struct Checker(pub(crate) Arc<PeerKey>);

impl Interceptor for Checker {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let info = request.extensions().get::<TcpConnectInfo>();
        let from = info.and_then(TcpConnectInfo::remote_addr);
        self.0.check(request.metadata(), from)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
