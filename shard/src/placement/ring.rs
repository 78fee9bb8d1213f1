//! The order in which each shard prefers the nodes: a consistent-hash ring with our own frozen hash.
//!
//! The crate's default hash goes through `std::hash::Hash`, whose bytes depend on the machine and the
//! version of the compiler. [`FrozenHash`] feeds xxh3-64 with fixed-width little-endian bytes only:
//!
//! ```text
//! shard:        "shard" (5 bytes)  shard id  u64 LE
//! virtual node: "node"  (4 bytes)  node id   u64 LE   sequence number u64 LE
//! ```
//!
//! A golden test pins the result. The ring's own evenness does not matter, since the planner's shares
//! balance the table; it only decides *which* shards a node gets, so that a node that leaves and comes
//! back, or tables made from scratch, agree as far as they can.

use super::PlacementNode;
use consistent_hash::{Node, RingHash, StaticHashRing};
use std::hash::{Hash, Hasher};
use trefoil_model::NodeId;
use xxhash_rust::xxh3::xxh3_64;

/// Places of each node on the ring.
const VIRTUAL_NODES: usize = 32;

/// Longest input that is hashed: a tag and two numbers.
const INPUT_BYTES_MAX: usize = 24;

/// For every shard, the place of each node (given ascending by id) in the shard's order of preference.
pub(super) fn ranks(active: &[&PlacementNode], shards: u16) -> Vec<Vec<usize>> {
    let nodes = active
        .iter()
        .map(|n| Node::new(RingNode(n.id)).quantity(VIRTUAL_NODES));
    let ring = StaticHashRing::new(FrozenHash, nodes);
    let ranks_of = |shard: u16| {
        let mut ranks = vec![0; active.len()];
        for (rank, node) in ring.calc_candidates(&RingShard(shard)).enumerate() {
            if let Ok(index) = active.binary_search_by_key(&node.key.0, |n| n.id) {
                ranks[index] = rank;
            }
        }
        ranks
    };
    (0..shards).map(ranks_of).collect()
}

/// A node as a key of the ring.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RingNode(NodeId);

impl Hash for RingNode {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(b"node");
        hasher.write(&self.0.0.to_le_bytes());
    }
}

/// A shard as an item of the ring.
struct RingShard(u16);

impl Hash for RingShard {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(b"shard");
        hasher.write(&u64::from(self.0).to_le_bytes());
    }
}

/// xxh3-64 over the bytes that the keys above write.
#[derive(Clone, Copy)]
struct FrozenHash;

impl RingHash for FrozenHash {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut input = Input::default();
        item.hash(&mut input);
        input.finish()
    }

    fn hash_vnode<K: Hash>(&self, key: &K, sequence: usize) -> u64 {
        let mut input = Input::default();
        key.hash(&mut input);
        input.write(&(sequence as u64).to_le_bytes());
        input.finish()
    }
}

/// Collects the bytes to hash.
#[derive(Default)]
struct Input {
    bytes: [u8; INPUT_BYTES_MAX],
    length: usize,
}

impl Hasher for Input {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn finish(&self) -> u64 {
        xxh3_64(&self.bytes[..self.length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_frozen() {
        assert_eq!(
            FrozenHash.hash_item(&RingShard(7)),
            16_608_462_064_866_133_741
        );
        assert_eq!(
            FrozenHash.hash_vnode(&RingNode(NodeId(0x0123_4567_89ab_cdef)), 3),
            4_412_640_959_769_435_605
        );
    }

    #[test]
    fn preference_is_frozen() {
        let node = |id| PlacementNode {
            id: NodeId(id),
            zone: String::new(),
            weight: 1,
            active: true,
        };
        let nodes: Vec<PlacementNode> = (1..=4).map(node).collect();
        let active: Vec<&PlacementNode> = nodes.iter().collect();
        let ranks = ranks(&active, 4);
        assert_eq!(
            ranks,
            [[2, 1, 0, 3], [2, 0, 1, 3], [1, 0, 3, 2], [2, 1, 0, 3]]
        );
    }
}
