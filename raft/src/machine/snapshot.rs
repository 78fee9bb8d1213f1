//! Snapshots: the state at one log position as one string of bytes, the same on disk and between
//! nodes.
//!
//! ```text
//! u32 length | envelope SnapshotHead { meta, parts }
//! u32 length | envelope SnapshotRows: u32 plain length | zstd of bincode [(key, value)...]      `parts` times
//! ```
//! A reader accepts all of it or nothing.

use crate::engine::SnapshotMeta;
use crate::state::{LogPosition, State, rows};
use crate::{MetadataError, codec};
use serde::{Deserialize, Serialize};

/// Rows of one part, in bytes before compression, unless a single row is larger.
const PART_BYTES: usize = 1 << 20;
/// Largest part after decompression: a row of the largest proposal and what it is wrapped in.
const PART_BYTES_MAX: usize = 64 << 20;
/// zstd's fastest useful level: snapshots are small and made often.
const COMPRESSION_LEVEL: i32 = 1;

/// An encoded snapshot. Empty until it was received.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotBytes(pub(crate) bytes::Bytes);

impl SnapshotBytes {
    /// Refuses bytes that are no snapshot.
    pub(crate) fn check(&self) -> Result<(), MetadataError> {
        decode(&self.0).map(drop)
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    meta: SnapshotMeta,
    parts: u32,
}

/// Encodes a state and what Raft knows about it.
pub(crate) fn encode(state: &State, meta: &SnapshotMeta) -> Result<SnapshotBytes, MetadataError> {
    let mut parts = Vec::new();
    let mut part: Vec<rows::Row> = Vec::new();
    let mut part_bytes = 0;
    for row in rows::all(state)? {
        part_bytes += row.0.len() + row.1.len();
        part.push(row);
        if part_bytes >= PART_BYTES {
            parts.push(compress(&part)?);
            part.clear();
            part_bytes = 0;
        }
    }
    parts.push(compress(&part)?);
    let head = Head {
        meta: meta.clone(),
        parts: parts.len() as u32,
    };
    let mut bytes = Vec::new();
    push(
        &mut bytes,
        &codec::encode(codec::Kind::SnapshotHead, &head)?,
    );
    for part in parts {
        push(&mut bytes, &part);
    }
    Ok(SnapshotBytes(bytes.into()))
}

fn compress(part: &[rows::Row]) -> Result<Vec<u8>, MetadataError> {
    let plain = codec::encode_bare(part)?;
    let packed = zstd::bulk::compress(&plain, COMPRESSION_LEVEL)
        .map_err(|source| MetadataError::disk("compress snapshot", source))?;
    let mut payload = (plain.len() as u32).to_le_bytes().to_vec();
    payload.extend_from_slice(&packed);
    Ok(codec::wrap(codec::Kind::SnapshotRows, &payload))
}

fn push(bytes: &mut Vec<u8>, envelope: &[u8]) {
    bytes.extend_from_slice(&(envelope.len() as u32).to_le_bytes());
    bytes.extend_from_slice(envelope);
}

/// Decodes a snapshot.
///
/// # Errors
/// [`MetadataError::Encoding`] when any part of it is not what it should be.
pub(crate) fn decode(bytes: &[u8]) -> Result<(SnapshotMeta, State), MetadataError> {
    let mut rest = bytes;
    let head: Head = codec::decode(codec::Kind::SnapshotHead, pull(&mut rest)?)?;
    let mut rebuild = rows::Rebuild::default();
    for _ in 0..head.parts {
        let plain = decompress(codec::unwrap(codec::Kind::SnapshotRows, pull(&mut rest)?)?)?;
        let part: Vec<rows::Row> = codec::decode_bare(&plain)?;
        for (key, value) in part {
            rebuild.row(&key, &value)?;
        }
    }
    if !rest.is_empty() {
        return Err(malformed("bytes follow the last part"));
    }
    let applied = head.meta.last_log_id.map(LogPosition::from);
    let state = rebuild.finish(applied.unwrap_or_default())?;
    Ok((head.meta, state))
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, MetadataError> {
    let (length, packed) = payload
        .split_first_chunk::<4>()
        .ok_or_else(|| malformed("a part is too short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > PART_BYTES_MAX {
        return Err(malformed("a part is too large"));
    }
    zstd::bulk::decompress(packed, length).map_err(|error| malformed(&error.to_string()))
}

fn pull<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], MetadataError> {
    let (length, after) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| malformed("it ends early"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (envelope, after) = after
        .split_at_checked(length)
        .ok_or_else(|| malformed("it ends early"))?;
    *rest = after;
    Ok(envelope)
}

fn malformed(reason: &str) -> MetadataError {
    MetadataError::Encoding {
        what: "snapshot",
        reason: reason.to_owned(),
    }
}

/// The head of a snapshot of one part, for the golden bytes.
#[cfg(test)]
pub(crate) fn head_of(meta: &SnapshotMeta) -> impl Serialize + use<> {
    Head {
        meta: meta.clone(),
        parts: 1,
    }
}
