//! Why bytes of the replication protocol were refused. Nothing changes when one of these is returned.

use thiserror::Error;

/// Bytes from disk or from a peer that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShardError {
    /// The first byte names a version that this program does not read. A newer program may.
    #[error("{what} has format version {version}, this program reads {readable}")]
    UnknownVersion {
        /// What was being read, for example `parcel`.
        what: &'static str,
        /// The version that the bytes claim.
        version: u8,
        /// The version that this program reads.
        readable: u8,
    },
    /// The bytes end early, carry an impossible length, or do not decode. Reading them again never helps.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// What was being read, for example `message`.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The checksum differs: the bytes were damaged on the way. Sending them again helps.
    #[error("{what} has checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// What was being read.
        what: &'static str,
        /// The checksum of the bytes.
        found: u32,
        /// The checksum that the bytes carry.
        expected: u32,
    },
}
