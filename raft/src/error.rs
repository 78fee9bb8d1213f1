//! Why an operation of the metadata plane failed.

use crate::state::Refusal;
use thiserror::Error;
use trefoil_model::NodeId;

/// An error of the metadata plane. Each variant says whether state may have changed and whether
/// trying again helps.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// The command was applied and refused. Nothing changed; the same command is refused until the
    /// state changes.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// No leader answered within the deadline. The command may or may not take effect, once; asking
    /// the state tells.
    #[error("the metadata plane has no leader that answers ({reason})")]
    NoLeader {
        /// What the last attempt met.
        reason: String,
    },
    /// A member answered that it does not take this node. Nothing changed; trying again helps when what it says has passed.
    #[error("{reason}")]
    NotAdmitted {
        /// What it said.
        reason: String,
    },
    /// More proposals are waiting than the bound allows. Nothing changed; try later.
    #[error("{max} proposals are waiting already")]
    Overloaded {
        /// The bound.
        max: usize,
    },
    /// The command is too large. Nothing changed; it never fits.
    #[error("a proposal of {bytes} bytes exceeds the limit of {max}")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The node is shutting down or its Raft task has stopped after a storage error. Restart it.
    #[error("the metadata plane has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// Bytes from disk or from a peer are not what they should be.
    #[error("malformed {what}: {reason}")]
    Encoding {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk failed. What was not acknowledged may or may not be there after a restart.
    #[error("{action}: {source}")]
    Disk {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The Raft log or the snapshots are damaged before their end, so this node cannot prove what
    /// it promised. It must not go on as this node; with an empty data directory it can join as a
    /// new one.
    #[error("the metadata directory is damaged: {reason}")]
    Damaged {
        /// What is missing.
        reason: String,
    },
    /// The node belongs to another cluster, or made a promise that rules this out. Nothing changed;
    /// an operator has to decide.
    #[error("{reason}")]
    OtherCluster {
        /// Which clusters.
        reason: String,
    },
    /// The settings contradict each other. Nothing was started.
    #[error("invalid setting: {reason}")]
    Settings {
        /// Which, and what would be right.
        reason: String,
    },
}

/// Why a call to a peer brought no answer.
#[derive(Clone, Debug, Error)]
pub enum TransportError {
    /// The peer cannot be reached, or its address is not known. It did not get the request.
    #[error("node {node} is unreachable: {reason}")]
    Unreachable {
        /// The peer.
        node: NodeId,
        /// What went wrong.
        reason: String,
    },
    /// No answer in time; the peer may have acted on the request.
    #[error("node {node} did not answer in time")]
    TimedOut {
        /// The peer.
        node: NodeId,
    },
    /// The peer got the request and would not act on it.
    #[error("node {node} refused: {reason}")]
    Refused {
        /// The peer.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

impl MetadataError {
    pub(crate) fn disk(action: &'static str, source: std::io::Error) -> Self {
        Self::Disk { action, source }
    }
}
