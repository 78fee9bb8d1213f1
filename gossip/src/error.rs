//! Why a datagram, a seed or a node's own description was refused. Nothing changes when one of these
//! is returned; sending the same bytes again never helps.

use thiserror::Error;

/// A refusal of the gossip crate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GossipError {
    /// The datagram is not Trefoil gossip, or of a version that this program does not know.
    #[error("not a gossip datagram of version 1")]
    NotGossip,
    /// This node has a cluster key and the datagram is not sealed: the sender has no key.
    #[error("datagram is not sealed, but this node has a cluster key")]
    NotSealed,
    /// The datagram is sealed and this node has no cluster key.
    #[error("datagram is sealed, but this node has no cluster key")]
    Sealed,
    /// The datagram was sealed with another key, or was altered.
    #[error("datagram does not open with the cluster key")]
    WrongKey,
    /// The checksum of an open datagram does not match.
    #[error("datagram checksum does not match")]
    Checksum,
    /// The content ends early, is longer than it may be, or holds an impossible value.
    #[error("datagram is malformed: {what}")]
    Malformed {
        /// Which part could not be read.
        what: &'static str,
    },
    /// There are as many members as there may be, and the datagram names another one.
    #[error("more than {members_max} members")]
    TooManyMembers {
        /// The bound.
        members_max: usize,
    },
    /// The membership protocol refused the content.
    #[error("datagram was refused: {reason}")]
    Protocol {
        /// The reason, as the protocol gives it.
        reason: String,
    },
    /// An entry of the seed list is not `host:port`.
    #[error("seed {entry:?} is not host:port ({reason})")]
    MalformedSeed {
        /// The entry as it was given.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text in a node's description is longer than it may be.
    #[error("{field} has {bytes} bytes, more than {bytes_max}")]
    TextTooLong {
        /// Which text.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

impl GossipError {
    pub(crate) fn malformed(what: &'static str) -> Self {
        Self::Malformed { what }
    }
}
