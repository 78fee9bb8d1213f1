//! Places in journals.
//!
//! A node's journal has one running count of bytes that grows for ever, over restarts too; an [`Offset`] is
//! a place in it. A [`Position`] names a peer's journal up to an offset, with the incarnation that wrote
//! there, so that a journal which was restored from an old copy and went on differently is noticed.

use crate::shard_map::ShardMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trefoil_model::{Incarnation, LineageId, NodeId, ShardId, ShardSet};

/// A place in a node's own journal: bytes since its beginning, over all restarts. A record is named by the
/// offset of its end.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Offset(pub u64);

/// Where a record lies in the journal: `start` inclusive, `end` exclusive. The next record starts at or
/// behind `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The record's first byte.
    pub start: Offset,
    /// The first byte behind the record; this is the record's name.
    pub end: Offset,
}

/// "All of that node's journal up to here", for some shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The run of the peer in which the place was durable.
    pub incarnation: Incarnation,
    /// The end of the last record that is covered.
    pub offset: Offset,
}

/// A position together with what makes it trustworthy here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// How far the peer's journal is covered.
    pub(crate) position: Position,
    /// The end of this node's own journal when the position was taken: all that is covered lies before it.
    pub(crate) taken_at: Offset,
    /// The lineage of the peer's replicas then.
    pub(crate) lineage: LineageId,
}

/// The positions in all peers' journals, per peer and shard, stored as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Positions {
    peers: BTreeMap<NodeId, ShardMap<Reached>>,
}

impl Positions {
    pub(crate) fn of(&self, peer: NodeId) -> Option<&ShardMap<Reached>> {
        self.peers.get(&peer)
    }

    pub(crate) fn get(&self, peer: NodeId, shard: ShardId) -> Option<Reached> {
        self.peers.get(&peer)?.get(shard).copied()
    }

    /// Takes a position. It replaces what was known: the caller has checked that it is not a step back.
    pub(crate) fn set(&mut self, peer: NodeId, shards: &ShardSet, reached: Reached) {
        self.peers.entry(peer).or_default().set(shards, reached);
    }

    pub(crate) fn drop_peer(&mut self, peer: NodeId, shards: &ShardSet) {
        if let Some(map) = self.peers.get_mut(&peer) {
            map.remove(shards);
            if map.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    pub(crate) fn drop_shards(&mut self, shards: &ShardSet) {
        for map in self.peers.values_mut() {
            map.remove(shards);
        }
        self.peers.retain(|_, map| !map.is_empty());
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = (NodeId, &ShardMap<Reached>)> {
        self.peers.iter().map(|(peer, map)| (*peer, map))
    }
}
