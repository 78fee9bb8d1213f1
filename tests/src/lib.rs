//! What several test programs of this crate share: other products that Trefoil is compared with, and queries to ask them.
//!
//! Nodes, loads and checks come from the crate `trefoil-jepsen`.

mod peers;
mod queries;

pub use peers::{Exporter, Peer, Prometheus, peer_program};
pub use queries::{LEFT_OUT, QueryGenerator, REMAINDER_SECONDS, is_left_out};
