//! What can go wrong in the metrics engine, by what the caller has to do about it.

use thiserror::Error;

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
    /// A compressor or decompressor could not be set up: memory is short.
    #[error("set up compression: {0}")]
    Compression(#[source] std::io::Error),
}
