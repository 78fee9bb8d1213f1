//! What can go wrong in the metrics engine, by what the caller has to do about it.

use thiserror::Error;
use trefoil_model::{DeletionVersion, TenantId};
use trefoil_store_blocks::{BlockId, BlocksError};

/// An error of the metrics engine. No variant leaves the engine's state changed unless it says so.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// Bytes of a parcel's body cannot be read. Retrying the same bytes never helps.
    #[error("parcel body is malformed: {what}")]
    MalformedBody {
        /// The field or column that could not be read.
        what: &'static str,
    },
    /// The body was written by a newer program. Retrying helps only after an upgrade.
    #[error("parcel body has version {found}, this program reads up to {supported}")]
    UnknownBodyVersion {
        /// The version in the body.
        found: u8,
        /// The newest version that this program reads.
        supported: u8,
    },
    /// The body would need more memory than a parcel may.
    #[error("parcel body holds {bytes} bytes, the limit is {limit}")]
    BodyTooLarge {
        /// Uncompressed length.
        bytes: usize,
        /// [`crate::BODY_CONTENT_BYTES_MAX`].
        limit: usize,
    },
    /// The native histograms of one series are more than one block takes. Its other blocks stay as they are.
    #[error("the histograms of a series are too large for one block")]
    SeriesTooLarge,
    /// A compressor or decompressor could not be set up: memory is short.
    #[error("set up compression: {0}")]
    Compression(#[source] std::io::Error),
    /// The manifest or a block's file could not be written or opened. Heads and blocks are as before,
    /// except where [`BlocksError`] says that the manifest has ended.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// A block's bytes are not what was written. The block's windows must be filled again from another
    /// owner; retrying does not help.
    #[error("block {block} is damaged: {piece}")]
    DamagedBlock {
        /// The block.
        block: BlockId,
        /// Which part of it.
        piece: &'static str,
    },
    /// Something that was asked of what queries have kept in memory would have to be read.
    #[error("not in memory")]
    NotKept,
    /// The block was written by a newer program. Retrying helps only after an upgrade.
    #[error("block {block} has version {found}, this program reads up to {supported}")]
    UnknownBlockVersion {
        /// The block.
        block: BlockId,
        /// The version in the block.
        found: u8,
        /// The newest version that this program reads.
        supported: u8,
    },
    /// Items presuppose a deletion that the store has not been told of, as after a restart that began with an old state of
    /// the metadata plane. Tell it and try again.
    #[error("tenant {tenant} has items of deletion {version}, which is not known yet")]
    UnknownDeletion {
        /// Whose items.
        tenant: TenantId,
        /// The deletion.
        version: DeletionVersion,
    },
    /// A matcher's regular expression is malformed or compiles to something too large.
    #[error("regular expression {pattern:?}: {source}")]
    Regex {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        source: regex::Error,
    },
}
