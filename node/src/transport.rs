//! How nodes reach each other: who is where, one connection per peer and class, and the server side.
//!
//! Three classes (metadata, replication, queries) have connections of their own, so that a big answer
//! never delays a heartbeat. Every request names the cluster, the target node and, once known, the
//! target's incarnation; a mismatch is refused, because addresses get swapped at restarts. Addresses
//! are advice from gossip: a wrong one costs a refused call, never a wrong decision. Where a cluster key is
//! configured, every call also carries a proof that its sender knows it.

pub(crate) mod client;
pub(crate) mod directory;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod metadata;
pub(crate) mod reach;
pub(crate) mod replication;
pub(crate) mod server;

/// The generated messages and services of `proto/peer.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    elided_lifetimes_in_paths
)]
pub(crate) mod proto {
    tonic::include_proto!("trefoil.peer.v1");
}

/// No message between peers is larger; a larger one is a bug or an attack.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;
