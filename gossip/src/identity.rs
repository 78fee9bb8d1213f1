//! The name under which SWIM knows one run of one node.

use std::net::SocketAddr;
use trefoil_model::NodeId;

/// Generations above this are refused, so that a hostile datagram cannot use the numbers up.
pub(crate) const GENERATION_MAX: u64 = u64::MAX / 2;

/// One run of one node at one address.
///
/// Of two identities of the same node the one with the higher `(generation, address)` is the later.
/// A node starts with the milliseconds of its clock as generation and takes the next one whenever
/// the others hold it for dead. A node whose clock was set back is told so by the others (see
/// `Membership`) and moves above what they know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Rises with every restart, change of address and return from a false death.
    pub generation: u64,
    /// Where the node receives gossip.
    pub address: SocketAddr,
}

impl Identity {
    /// Whether this identity replaces the other one of the same node.
    #[must_use]
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.generation, self.address) > (other.generation, other.address)
    }
}

impl foca::Identity for Identity {
    /// SWIM keeps one identity per node, so what it calls the address is our node id.
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        (self.generation < GENERATION_MAX).then(|| Self {
            generation: self.generation + 1,
            ..*self
        })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.is_later_than(adversary)
    }
}
