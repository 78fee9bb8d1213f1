//! What several test programs of this crate share: other products that Trefoil is compared with.
//!
//! Nodes, loads and checks come from the crate `trefoil-jepsen`.

mod peers;

pub use peers::{Exporter, Peer, Prometheus, peer_program};
