//! Proof that a peer knows the cluster key, for what does not travel in datagrams.
//!
//! ```text
//! "Tp" | version 1 | 0 | source node, 8 | target node, 8 | source's incarnation, 16 | nonce, 24 | tag, 16
//! ```
//! Numbers are big-endian. The tag is that of XChaCha20-Poly1305 over no message, with everything in
//! front of the nonce as associated data, under the cluster key. The magic is another one than that
//! of datagrams, so neither can be taken for the other.
//!
//! It proves that whoever made it knew the key and meant this target. It neither hides nor protects
//! what is sent beside it, and who reads it on the wire can repeat it to the same target: it keeps
//! out strangers and misconfigured nodes, not somebody who listens between the nodes.

use crate::{ClusterKey, GossipError};
use bytes::{Buf, BufMut};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use trefoil_model::{Incarnation, NodeId};

const MAGIC: [u8; 4] = [b'T', b'p', 1, 0];
const CLAIM_BYTES: usize = 4 + 8 + 8 + 16;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// What a proof says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerClaim {
    /// Who made it.
    pub source: NodeId,
    /// For whom it is.
    pub target: NodeId,
    /// The run of the source's process.
    pub incarnation: Incarnation,
}

impl PeerClaim {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CLAIM_BYTES + NONCE_BYTES + TAG_BYTES);
        out.put_slice(&MAGIC);
        out.put_u64(self.source.0);
        out.put_u64(self.target.0);
        out.put_u128(self.incarnation.0);
        out
    }
}

impl ClusterKey {
    /// The proof of a claim. `nonce` must be drawn anew for each call.
    #[must_use]
    pub fn prove(&self, claim: &PeerClaim, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let mut out = claim.encode();
        let payload = Payload {
            msg: &[],
            aad: &out,
        };
        let tag = self.cipher().encrypt(XNonce::from_slice(&nonce), payload);
        out.put_slice(&nonce);
        // The cipher fails only for messages of more than 256 GiB.
        out.put_slice(&tag.unwrap_or_default());
        out
    }

    /// What a proof says, if it was made with this key.
    ///
    /// # Errors
    /// [`GossipError::WrongKey`] when it was not; [`GossipError::Malformed`] when it is no proof of
    /// this version.
    pub fn check(&self, proof: &[u8]) -> Result<PeerClaim, GossipError> {
        let parts = proof.split_at_checked(CLAIM_BYTES);
        let (claim, rest) = parts.ok_or(GossipError::malformed("proof of the key ends early"))?;
        if claim[..4] != MAGIC || rest.len() != NONCE_BYTES + TAG_BYTES {
            return Err(GossipError::malformed("proof of the key"));
        }
        let (nonce, tag) = rest.split_at(NONCE_BYTES);
        let payload = Payload {
            msg: tag,
            aad: claim,
        };
        self.cipher()
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| GossipError::WrongKey)?;
        let mut fields = &claim[4..];
        Ok(PeerClaim {
            source: NodeId(fields.get_u64()),
            target: NodeId(fields.get_u64()),
            incarnation: Incarnation(fields.get_u128()),
        })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: PeerClaim = PeerClaim {
        source: NodeId(1),
        target: NodeId(2),
        incarnation: Incarnation(3),
    };

    /// The bytes of docs/formats/peer.md.
    #[test]
    fn golden_bytes() {
        let proof = ClusterKey::new([7; 32]).prove(&CLAIM, [9; 24]);
        let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        let nonce = "09".repeat(24);
        let claim = format!(
            "54700100{}01{}02{}03",
            "00".repeat(7),
            "00".repeat(7),
            "00".repeat(15)
        );
        assert_eq!(
            hex,
            format!("{claim}{nonce}f546224b4598a4a36e52d6841487563c")
        );
    }

    #[test]
    fn only_the_same_key_and_the_same_bytes_are_believed() {
        let key = ClusterKey::new([7; 32]);
        let proof = key.prove(&CLAIM, [9; 24]);
        assert_eq!(key.check(&proof), Ok(CLAIM));
        let other = ClusterKey::new([8; 32]);
        assert_eq!(other.check(&proof), Err(GossipError::WrongKey));
        for at in 0..proof.len() {
            let mut altered = proof.clone();
            altered[at] ^= 1;
            assert!(key.check(&altered).is_err(), "byte {at}");
            assert!(key.check(&proof[..at]).is_err(), "cut at {at}");
        }
        let longer = [&proof[..], &[0]].concat();
        assert!(key.check(&longer).is_err());
    }
}
