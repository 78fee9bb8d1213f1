//! The outer layer of a datagram: what it is, and whether it may be believed.
//!
//! ```text
//! open:    "Tg" | version 1 | 0 | crc32c of content (4, big-endian) | content
//! sealed:  "Tg" | version 1 | 1 | nonce (24) | XChaCha20-Poly1305 of content, 4 bytes in front as data
//! ```
//! A node with a cluster key believes sealed datagrams only; a node without one believes open
//! datagrams only, so a half-configured cluster is noticed (both sides count refusals) and not half
//! protected. Nonces are random; at 192 bits a repetition is not a concern.
//!
//! Replaying an old datagram is harmless: facts carry (generation, incarnation, revision) and only
//! later ones count; a request is answered once, to the identity that it names; and a declaration
//! of death concerns one generation of a node, which the node has left behind if it lives.

use crate::GossipError;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use std::fmt;

const MAGIC_OPEN: [u8; 4] = [b'T', b'g', 1, 0];
const MAGIC_SEALED: [u8; 4] = [b'T', b'g', 1, 1];
const NONCE_BYTES: usize = 24;
/// What the envelope adds at most: magic, nonce, authentication tag.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 4 + NONCE_BYTES + 16;

/// The secret that the nodes of a cluster share. Never printed.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// Takes 32 secret bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// Wraps and unwraps datagrams, with or without a key.
pub(crate) struct Envelope {
    cipher: Option<XChaCha20Poly1305>,
}

impl Envelope {
    pub(crate) fn new(key: Option<&ClusterKey>) -> Self {
        Self {
            cipher: key.map(|key| XChaCha20Poly1305::new(&key.0.into())),
        }
    }

    /// The datagram around `content`. `nonce` must be drawn anew for each call.
    pub(crate) fn wrap(&self, nonce: [u8; NONCE_BYTES], content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(content.len() + ENVELOPE_BYTES_MAX);
        let Some(cipher) = &self.cipher else {
            out.extend_from_slice(&MAGIC_OPEN);
            out.extend_from_slice(&crc32c::crc32c(content).to_be_bytes());
            out.extend_from_slice(content);
            return out;
        };
        let payload = Payload {
            msg: content,
            aad: &MAGIC_SEALED,
        };
        let sealed = cipher.encrypt(XNonce::from_slice(&nonce), payload);
        out.extend_from_slice(&MAGIC_SEALED);
        out.extend_from_slice(&nonce);
        // The cipher fails only for messages of more than 256 GiB.
        out.extend_from_slice(&sealed.unwrap_or_default());
        out
    }

    pub(crate) fn unwrap(&self, datagram: &[u8]) -> Result<Vec<u8>, GossipError> {
        let (magic, body) = datagram
            .split_first_chunk::<4>()
            .ok_or(GossipError::NotGossip)?;
        match (*magic, &self.cipher) {
            (MAGIC_OPEN, None) => {
                let (sum, content) = body
                    .split_first_chunk::<4>()
                    .ok_or(GossipError::NotGossip)?;
                if u32::from_be_bytes(*sum) != crc32c::crc32c(content) {
                    return Err(GossipError::Checksum);
                }
                Ok(content.to_vec())
            }
            (MAGIC_SEALED, Some(cipher)) => {
                let (nonce, sealed) = body
                    .split_first_chunk::<NONCE_BYTES>()
                    .ok_or(GossipError::NotGossip)?;
                let payload = Payload {
                    msg: sealed,
                    aad: &MAGIC_SEALED,
                };
                cipher
                    .decrypt(XNonce::from_slice(nonce), payload)
                    .map_err(|_| GossipError::WrongKey)
            }
            (MAGIC_OPEN, Some(_)) => Err(GossipError::NotSealed),
            (MAGIC_SEALED, None) => Err(GossipError::Sealed),
            _ => Err(GossipError::NotGossip),
        }
    }
}
