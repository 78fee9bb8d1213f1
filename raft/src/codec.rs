//! The envelope around everything of ours that this crate writes to disk or sends: versioned,
//! checksummed and limited in size. Inside is bincode 1.3 (little endian, variable-length
//! integers).
//!
//! ```text
//!  0       4          6       8          12        16
//!  | magic | version  | kind  | length   | crc32c  | payload ...
//!  | TfRm  | u16 = 1  | u16   | u32      | u32     | `length` bytes of bincode
//! ```
//! All integers are little endian. The checksum covers bytes 4..12 and the payload. Nothing follows
//! the payload. Bytes that do not fit are an error of their own kind, never a panic.

use crate::MetadataError;
use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

const MAGIC: [u8; 4] = *b"TfRm";
/// The version of the envelope and of every type that goes into it. Raised when one of them changes
/// in a way that an older program cannot read, together with the cluster's format level.
const VERSION: u16 = 1;
/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 16;
/// Longest payload: many times the largest proposal (4 MiB) and the largest message of entries,
/// which the log limits to 4 MiB or one entry.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// What an envelope holds. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    /// A record of the Raft log file.
    LogRecord = 1,
    /// The sentinel of the materialised state.
    Sentinel = 2,
    /// The head of a snapshot.
    SnapshotHead = 3,
    /// A part of a snapshot's rows.
    SnapshotRows = 4,
    /// A request between nodes.
    Request = 5,
    /// The answer to one.
    Answer = 6,
    /// The identity file.
    Identity = 7,
    /// The promise file.
    Promise = 8,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(PAYLOAD_BYTES_MAX as u64)
}

/// Encodes a value without an envelope, for rows inside something that is enveloped.
///
/// # Errors
/// [`MetadataError::Encoding`] when the value is larger than the limit.
pub(crate) fn encode_bare<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, MetadataError> {
    options()
        .serialize(value)
        .map_err(|error| MetadataError::Encoding {
            what: "value",
            reason: error.to_string(),
        })
}

/// Decodes what [`encode_bare`] wrote; all bytes must be used.
///
/// # Errors
/// [`MetadataError::Encoding`] when the bytes are not such a value.
pub(crate) fn decode_bare<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MetadataError> {
    options()
        .deserialize(bytes)
        .map_err(|error| MetadataError::Encoding {
            what: "value",
            reason: error.to_string(),
        })
}

/// Encodes a value in an envelope.
///
/// # Errors
/// [`MetadataError::Encoding`] when the value is larger than the limit.
pub(crate) fn encode<T: Serialize + ?Sized>(
    kind: Kind,
    value: &T,
) -> Result<Vec<u8>, MetadataError> {
    Ok(wrap(kind, &encode_bare(value)?))
}

/// Decodes an envelope of the expected kind; all bytes must be used.
///
/// # Errors
/// [`MetadataError::Encoding`] when magic, version, kind, length, checksum or content is wrong.
pub(crate) fn decode<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, MetadataError> {
    decode_bare(unwrap(kind, bytes)?)
}

/// Puts a payload into an envelope.
pub(crate) fn wrap(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(kind as u16).to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes[4..12], payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of an envelope of the expected kind.
///
/// # Errors
/// [`MetadataError::Encoding`] when magic, version, kind, length or checksum is wrong.
pub(crate) fn unwrap(kind: Kind, bytes: &[u8]) -> Result<&[u8], MetadataError> {
    let refuse = |reason: String| MetadataError::Encoding {
        what: "envelope",
        reason,
    };
    let Some((header, payload)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(refuse(format!("{} bytes are no envelope", bytes.len())));
    };
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if header[..4] != MAGIC {
        return Err(refuse("the magic is wrong".to_owned()));
    }
    if half(4) != VERSION {
        let found = half(4);
        return Err(refuse(format!(
            "version {found}; this program reads {VERSION}"
        )));
    }
    if half(6) != kind as u16 {
        return Err(refuse(format!("kind {}; {kind:?} was expected", half(6))));
    }
    if word(8) as usize != payload.len() || payload.len() > PAYLOAD_BYTES_MAX {
        return Err(refuse(format!(
            "length {}, but {} bytes",
            word(8),
            payload.len()
        )));
    }
    if word(12) != checksum(&header[4..12], payload) {
        return Err(refuse("the checksum is wrong".to_owned()));
    }
    Ok(payload)
}

fn checksum(fields: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(fields), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let bytes = encode(Kind::Request, &(7u64, "ab")).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5466526d010005000400000001599b9607026162");
        assert_eq!(
            decode::<(u64, String)>(Kind::Request, &bytes).unwrap(),
            (7, "ab".into())
        );
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = encode(Kind::Answer, &vec![1u8, 2, 3]).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(
                decode::<Vec<u8>>(Kind::Answer, &damaged).is_err(),
                "byte {at}"
            );
            assert!(
                decode::<Vec<u8>>(Kind::Answer, &bytes[..at]).is_err(),
                "cut at {at}"
            );
        }
        assert!(decode::<Vec<u8>>(Kind::Request, &bytes).is_err());
    }
}
