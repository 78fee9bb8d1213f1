//! What an envelope holds: one of three kinds of message.

use crate::{
    GossipError, Identity,
    wire::{put_identity, take_identity},
};

const KIND_SWIM: u8 = 1;
const KIND_HELLO: u8 = 2;
const KIND_SUPERSEDED: u8 = 3;

/// The content of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// A message of SWIM.
    Swim(&'a [u8]),
    /// The sender's identity, to whichever node is at the address.
    Hello(Identity),
    /// A later identity of the receiver's node than the one that it used.
    Superseded(Identity),
}

impl<'a> Content<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Swim(message) => {
                let mut out = Vec::with_capacity(1 + message.len());
                out.push(KIND_SWIM);
                out.extend_from_slice(message);
                out
            }
            Self::Hello(identity) => with_identity(KIND_HELLO, identity),
            Self::Superseded(identity) => with_identity(KIND_SUPERSEDED, identity),
        }
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, GossipError> {
        let (kind, mut rest) = bytes
            .split_first()
            .ok_or(GossipError::malformed("datagram is empty"))?;
        match *kind {
            KIND_SWIM => Ok(Self::Swim(rest)),
            KIND_HELLO => Ok(Self::Hello(take_identity(&mut rest)?)),
            KIND_SUPERSEDED => Ok(Self::Superseded(take_identity(&mut rest)?)),
            _ => Err(GossipError::malformed("kind of content")),
        }
    }
}

fn with_identity(kind: u8, identity: &Identity) -> Vec<u8> {
    let mut out = vec![kind];
    put_identity(&mut out, identity);
    out
}
