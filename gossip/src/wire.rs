//! The bytes of SWIM messages. Drawn in `docs/formats/gossip.md`; numbers are big-endian.
//!
//! Every read is checked: hostile bytes give an error, never a panic.

use crate::{GossipError, Identity, identity::GENERATION_MAX};
use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};
use std::net::{IpAddr, SocketAddr};
use trefoil_model::NodeId;

/// foca's codec in our own bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WireCodec;

pub(crate) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(address.port());
}

pub(crate) fn take_address(buf: &mut impl Buf) -> Result<SocketAddr, GossipError> {
    let early = |_| GossipError::malformed("address ends early");
    let ip: IpAddr = match buf.try_get_u8().map_err(early)? {
        4 => IpAddr::V4(buf.try_get_u32().map_err(early)?.into()),
        6 => IpAddr::V6(buf.try_get_u128().map_err(early)?.into()),
        _ => return Err(GossipError::malformed("address family")),
    };
    let port = buf.try_get_u16().map_err(early)?;
    Ok(SocketAddr::new(ip, port))
}

/// Appends a text of at most 255 bytes behind its length. Callers check the length beforehand.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() <= 255, "texts are bounded before they get here");
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

pub(crate) fn take_text(buf: &mut impl Buf, bytes_max: usize) -> Result<String, GossipError> {
    let early = |_| GossipError::malformed("text ends early");
    let length = usize::from(buf.try_get_u8().map_err(early)?);
    if length > bytes_max {
        return Err(GossipError::malformed("text is too long"));
    }
    let mut bytes = vec![0; length];
    buf.try_copy_to_slice(&mut bytes).map_err(early)?;
    String::from_utf8(bytes).map_err(|_| GossipError::malformed("text is not UTF-8"))
}

pub(crate) fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.put_u64(identity.node.0);
    out.put_u64(identity.generation);
    put_address(out, identity.address);
}

pub(crate) fn take_identity(buf: &mut impl Buf) -> Result<Identity, GossipError> {
    let early = |_| GossipError::malformed("identity ends early");
    let node = NodeId(buf.try_get_u64().map_err(early)?);
    let generation = buf.try_get_u64().map_err(early)?;
    if node.0 == 0 || generation > GENERATION_MAX {
        return Err(GossipError::malformed("identity"));
    }
    Ok(Identity {
        node,
        generation,
        address: take_address(buf)?,
    })
}

fn put_message(out: &mut Vec<u8>, message: &Message<Identity>) {
    let mut relayed = |tag: u8, identity: &Identity, probe_number: u8| {
        out.put_u8(tag);
        out.put_u8(probe_number);
        put_identity(out, identity);
    };
    match message {
        Message::PingReq {
            target,
            probe_number,
        } => relayed(3, target, *probe_number),
        Message::IndirectPing {
            origin,
            probe_number,
        } => relayed(4, origin, *probe_number),
        Message::IndirectAck {
            target,
            probe_number,
        } => relayed(5, target, *probe_number),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => relayed(6, origin, *probe_number),
        Message::Ping(number) => out.put_slice(&[1, *number]),
        Message::Ack(number) => out.put_slice(&[2, *number]),
        Message::Announce => out.put_u8(7),
        Message::Feed => out.put_u8(8),
        Message::Gossip => out.put_u8(9),
        Message::Broadcast => out.put_u8(10),
        Message::TurnUndead => out.put_u8(11),
    }
}

fn take_message(buf: &mut impl Buf) -> Result<Message<Identity>, GossipError> {
    let early = |_| GossipError::malformed("message ends early");
    let tag = buf.try_get_u8().map_err(early)?;
    let probe_number = match tag {
        1..=6 => buf.try_get_u8().map_err(early)?,
        _ => 0,
    };
    Ok(match tag {
        1 => Message::Ping(probe_number),
        2 => Message::Ack(probe_number),
        3 => Message::PingReq {
            target: take_identity(buf)?,
            probe_number,
        },
        4 => Message::IndirectPing {
            origin: take_identity(buf)?,
            probe_number,
        },
        5 => Message::IndirectAck {
            target: take_identity(buf)?,
            probe_number,
        },
        6 => Message::ForwardedAck {
            origin: take_identity(buf)?,
            probe_number,
        },
        7 => Message::Announce,
        8 => Message::Feed,
        9 => Message::Gossip,
        10 => Message::Broadcast,
        11 => Message::TurnUndead,
        _ => return Err(GossipError::malformed("message tag")),
    })
}

/// Writes all of `bytes` or nothing, as foca demands.
fn put_whole(mut buf: impl BufMut, bytes: &[u8]) -> Result<(), GossipError> {
    if buf.remaining_mut() < bytes.len() {
        return Err(GossipError::malformed("no space in the datagram"));
    }
    buf.put_slice(bytes);
    Ok(())
}

impl Codec<Identity> for WireCodec {
    type Error = GossipError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), GossipError> {
        let mut out = Vec::with_capacity(112);
        put_identity(&mut out, &header.src);
        out.put_u16(header.src_incarnation);
        put_identity(&mut out, &header.dst);
        put_message(&mut out, &header.message);
        put_whole(buf, &out)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, GossipError> {
        Ok(Header {
            src: take_identity(&mut buf)?,
            src_incarnation: buf
                .try_get_u16()
                .map_err(|_| GossipError::malformed("header ends early"))?,
            dst: take_identity(&mut buf)?,
            message: take_message(&mut buf)?,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), GossipError> {
        let mut out = Vec::with_capacity(48);
        put_identity(&mut out, member.id());
        out.put_u16(member.incarnation());
        out.put_u8(match member.state() {
            State::Alive => 1,
            State::Suspect => 2,
            State::Down => 3,
        });
        put_whole(buf, &out)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, GossipError> {
        let early = |_| GossipError::malformed("member ends early");
        let identity = take_identity(&mut buf)?;
        let incarnation = buf.try_get_u16().map_err(early)?;
        let state = match buf.try_get_u8().map_err(early)? {
            1 => State::Alive,
            2 => State::Suspect,
            3 => State::Down,
            _ => return Err(GossipError::malformed("member state")),
        };
        Ok(Member::new(identity, incarnation, state))
    }
}
