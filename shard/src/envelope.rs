//! The envelope around everything that this crate writes to disk or sends to a peer.
//!
//! ```text
//! version u8 | length u32 LE of the meta | crc32c u32 LE of meta and tail | meta (bincode) | tail (raw bytes)
//! ```
//! The meta is serde data in bincode's compact integers; the tail carries parcels as they are, so that a
//! body is never encoded a second time. Lengths are checked before anything is allocated for them.

use crate::ShardError;
use bincode::Options as _;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Largest meta, in bytes. A record or message that would exceed it is refused when it is read.
pub(crate) const META_BYTES_MAX: u64 = 16 << 20;

/// Bytes in front of the meta.
const HEADER_BYTES: usize = 9;

fn options() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_limit(META_BYTES_MAX)
        .with_varint_encoding()
        .reject_trailing_bytes()
}

/// Appends the envelope's prefix and the meta for a tail that the caller writes directly behind them.
///
/// # Panics
/// When the meta exceeds [`META_BYTES_MAX`]: all lists in it are bounded far below.
pub(crate) fn seal_apart<M: Serialize>(version: u8, meta: &M, tail: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.push(version);
    out.extend_from_slice(&[0; HEADER_BYTES - 1]);
    let written = options().serialize_into(&mut *out, meta);
    assert!(written.is_ok(), "the lists in a meta are bounded");
    let meta_bytes = (out.len() - start - HEADER_BYTES) as u32;
    let checksum = crc32c::crc32c(&out[start + HEADER_BYTES..]);
    let checksum = crc32c::crc32c_append(checksum, tail);
    out[start + 1..start + 5].copy_from_slice(&meta_bytes.to_le_bytes());
    out[start + 5..start + 9].copy_from_slice(&checksum.to_le_bytes());
}

/// Appends a meta in its envelope, with the pieces of a tail behind it.
///
/// # Panics
/// As [`seal_apart`].
pub(crate) fn seal<M: Serialize>(version: u8, meta: &M, tail: &[Bytes], out: &mut Vec<u8>) {
    let start = out.len();
    seal_apart(version, meta, &[], out);
    let mut checksum = crc32c::crc32c(&out[start + HEADER_BYTES..]);
    for piece in tail {
        checksum = crc32c::crc32c_append(checksum, piece);
        out.extend_from_slice(piece);
    }
    out[start + 5..start + 9].copy_from_slice(&checksum.to_le_bytes());
}

/// Checks the envelope and decodes the meta; the tail is a slice of `bytes`, not a copy.
///
/// # Errors
/// When the version is not `version`, a length is impossible, the checksum differs, or the meta does not decode.
pub(crate) fn open<M: DeserializeOwned>(
    what: &'static str,
    version: u8,
    bytes: &Bytes,
) -> Result<(M, Bytes), ShardError> {
    let malformed = |why: &str| ShardError::Malformed {
        what,
        why: why.to_owned(),
    };
    if bytes.len() < HEADER_BYTES {
        return Err(malformed("shorter than its header"));
    }
    if bytes[0] != version {
        return Err(ShardError::UnknownVersion {
            what,
            version: bytes[0],
            readable: version,
        });
    }
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let meta_bytes = word(1) as usize;
    if meta_bytes > bytes.len() - HEADER_BYTES {
        return Err(malformed("the meta is longer than the bytes"));
    }
    let (expected, found) = (word(5), crc32c::crc32c(&bytes[HEADER_BYTES..]));
    if expected != found {
        return Err(ShardError::Checksum {
            what,
            found,
            expected,
        });
    }
    let meta = options()
        .deserialize(&bytes[HEADER_BYTES..HEADER_BYTES + meta_bytes])
        .map_err(|error| malformed(&error.to_string()))?;
    Ok((meta, bytes.slice(HEADER_BYTES + meta_bytes..)))
}
