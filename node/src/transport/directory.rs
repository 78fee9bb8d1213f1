//! Where peers are: node id to address and incarnation, as gossip spreads them.

use parking_lot::RwLock;
use std::{collections::BTreeMap, net::SocketAddr};
use trefoil_model::{Incarnation, NodeId};

/// What is known of a peer's whereabouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    pub(crate) peer: SocketAddr,
    /// Unknown until gossip has brought it.
    pub(crate) incarnation: Option<Incarnation>,
    /// Whether the failure detector holds the peer for reachable.
    pub(crate) alive: bool,
}

/// The address book of the transport. One entry per node that was ever heard of in this run.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: RwLock<BTreeMap<NodeId, Whereabouts>>,
}

impl Directory {
    /// Replaces what is known of a node.
    pub(crate) fn set(&self, node: NodeId, whereabouts: Whereabouts) {
        self.entries.write().insert(node, whereabouts);
    }

    /// Marks a node as reachable or not; unknown nodes stay unknown.
    pub(crate) fn set_alive(&self, node: NodeId, alive: bool) {
        if let Some(entry) = self.entries.write().get_mut(&node) {
            entry.alive = alive;
        }
    }

    /// What is known of a node.
    pub(crate) fn get(&self, node: NodeId) -> Option<Whereabouts> {
        self.entries.read().get(&node).copied()
    }
}
