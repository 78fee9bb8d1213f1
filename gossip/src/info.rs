//! What a node tells about itself, and its bytes.
//!
//! The bytes are drawn in `docs/formats/gossip.md`. A description carries a version, (generation,
//! revision); the later one wins wherever two meet, so order and repetition do not matter.

use crate::{
    GossipError,
    identity::GENERATION_MAX,
    wire::{put_address, put_text, take_address, take_text},
};
use bytes::{Buf, BufMut};
use std::net::SocketAddr;
use trefoil_model::{ClusterId, Incarnation, NodeId};

/// Longest name, zone or version text. Three of them and the rest fit a datagram twice over.
pub const INFO_TEXT_BYTES_MAX: usize = 64;

/// Layout of a description; a later layout is skipped by programs that do not know it.
const INFO_LAYOUT: u8 = 1;

/// What a node is doing with its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum NodePhase {
    /// Started; its replicas do not serve yet.
    #[default]
    Bootstrapping = 1,
    /// Its replicas serve.
    Ready = 2,
    /// It is about to stop and come back, now or when those before it are back.
    Stopping = 3,
    /// It said goodbye: its silence is not a failure.
    Left = 4,
}

/// How much a node holds, for placement and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Load {
    /// Series in its head.
    pub series: u64,
    /// Bytes of its blocks and journal.
    pub bytes: u64,
}

/// A node's description of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeInfo {
    /// The node.
    pub node: NodeId,
    /// Its name, at most [`INFO_TEXT_BYTES_MAX`] bytes.
    pub name: String,
    /// Its failure zone, empty when none was given, at most [`INFO_TEXT_BYTES_MAX`] bytes.
    pub zone: String,
    /// Where clients and people reach it.
    pub http: SocketAddr,
    /// Where peers reach it, by gRPC (TCP) and gossip (UDP).
    pub peer: SocketAddr,
    /// The run of its process; peer requests name it.
    pub incarnation: Incarnation,
    /// The cluster that it belongs to, once it belongs to one.
    pub cluster: Option<ClusterId>,
    /// The program's version, at most [`INFO_TEXT_BYTES_MAX`] bytes.
    pub version: String,
    /// How much it holds.
    pub load: Load,
    /// What it is doing.
    pub phase: NodePhase,
}

/// Orders a node's descriptions: the later wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InfoVersion {
    pub(crate) generation: u64,
    pub(crate) revision: u32,
}

impl NodeInfo {
    /// Checks the bounds of the texts.
    ///
    /// # Errors
    /// When a text is longer than [`INFO_TEXT_BYTES_MAX`].
    pub fn check(&self) -> Result<(), GossipError> {
        for (field, text) in [
            ("node name", &self.name),
            ("zone", &self.zone),
            ("version", &self.version),
        ] {
            if text.len() > INFO_TEXT_BYTES_MAX {
                return Err(GossipError::TextTooLong {
                    field,
                    bytes: text.len(),
                    bytes_max: INFO_TEXT_BYTES_MAX,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn encode(&self, version: InfoVersion) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.put_u8(INFO_LAYOUT);
        out.put_u64(self.node.0);
        out.put_u64(version.generation);
        out.put_u32(version.revision);
        out.put_u8(self.phase as u8);
        out.put_u128(self.incarnation.0);
        out.put_u128(self.cluster.unwrap_or_default().0);
        out.put_u64(self.load.series);
        out.put_u64(self.load.bytes);
        put_address(&mut out, self.http);
        put_address(&mut out, self.peer);
        put_text(&mut out, &self.name);
        put_text(&mut out, &self.zone);
        put_text(&mut out, &self.version);
        out
    }

    /// `None`: a layout of a later program, to be skipped.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Option<(Self, InfoVersion)>, GossipError> {
        let early = |_| GossipError::malformed("node description ends early");
        let buf = &mut bytes;
        if buf.try_get_u8().map_err(early)? != INFO_LAYOUT {
            return Ok(None);
        }
        let node = NodeId(buf.try_get_u64().map_err(early)?);
        let generation = buf.try_get_u64().map_err(early)?;
        let revision = buf.try_get_u32().map_err(early)?;
        if node.0 == 0 || generation > GENERATION_MAX {
            return Err(GossipError::malformed("node description's identity"));
        }
        let phase = phase_from_byte(buf.try_get_u8().map_err(early)?)?;
        let incarnation = Incarnation(buf.try_get_u128().map_err(early)?);
        let cluster = Some(ClusterId(buf.try_get_u128().map_err(early)?));
        let load = Load {
            series: buf.try_get_u64().map_err(early)?,
            bytes: buf.try_get_u64().map_err(early)?,
        };
        let info = Self {
            node,
            http: take_address(buf)?,
            peer: take_address(buf)?,
            name: take_text(buf, INFO_TEXT_BYTES_MAX)?,
            zone: take_text(buf, INFO_TEXT_BYTES_MAX)?,
            version: take_text(buf, INFO_TEXT_BYTES_MAX)?,
            incarnation,
            cluster: cluster.filter(|id| id.0 != 0),
            load,
            phase,
        };
        if !buf.is_empty() {
            return Err(GossipError::malformed("bytes behind a node description"));
        }
        let version = InfoVersion {
            generation,
            revision,
        };
        Ok(Some((info, version)))
    }
}

fn phase_from_byte(byte: u8) -> Result<NodePhase, GossipError> {
    match byte {
        1 => Ok(NodePhase::Bootstrapping),
        2 => Ok(NodePhase::Ready),
        3 => Ok(NodePhase::Stopping),
        4 => Ok(NodePhase::Left),
        _ => Err(GossipError::malformed("node phase")),
    }
}
