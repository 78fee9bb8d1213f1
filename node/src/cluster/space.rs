//! Whether a node's disk can take more shards.
//!
//! Every node tells the leader once a second what it stores and what is free. A node must have room for its share of
//! everything when one node fewer is there to share it: that is what a replacement makes of it, and more
//! than growing or balancing does.

use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};
use trefoil_model::NodeId;

/// What stays free besides: the journal's next segment and its spare, and the output of a merge.
const RESERVE_BYTES: u64 = 512 << 20;

/// A node's account of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Space {
    /// Bytes of blocks and journal.
    pub(crate) stored_bytes: u64,
    /// Bytes that the file system would still give to this process.
    pub(crate) free_bytes: u64,
}

impl Space {
    /// Measures the file system of the data directory. One that cannot be measured has no free space.
    pub(crate) fn measure(directory: &Path, stored_bytes: u64) -> Self {
        let free_bytes = match statvfs(directory) {
            Ok(system) => system.f_bavail.saturating_mul(system.f_frsize),
            Err(error) => {
                tracing::warn!(%error, "measure the free space of the data directory");
                0
            }
        };
        Self {
            stored_bytes,
            free_bytes,
        }
    }
}

/// Whether a node has room for its share of what all store, should one of the others go. Not known before it has given its
/// account.
pub(crate) fn has_space(accounts: &BTreeMap<NodeId, Space>, node: NodeId) -> Option<bool> {
    let own = accounts.get(&node)?;
    Some(own.free_bytes >= needed_bytes(accounts, node))
}

/// What a node must have free to get more shards.
pub(crate) fn needed_bytes(accounts: &BTreeMap<NodeId, Space>, node: NodeId) -> u64 {
    let stored = accounts.get(&node).map_or(0, |own| own.stored_bytes);
    let all: u64 = accounts.values().map(|space| space.stored_bytes).sum();
    let others = accounts.len().saturating_sub(1).max(1) as u64;
    let gained = (all / others).saturating_sub(stored);
    gained.saturating_add(RESERVE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn accounts(list: &[(u64, u64)]) -> BTreeMap<NodeId, Space> {
        let spaces = list.iter().zip(1..).map(|((stored, free), node)| {
            let space = Space {
                stored_bytes: stored * GIB,
                free_bytes: free * GIB,
            };
            (NodeId(node), space)
        });
        spaces.collect()
    }

    #[test]
    fn a_node_needs_room_for_its_share_of_one_node_fewer() {
        // 90 GiB on four nodes: 30 each, should one go.
        let accounts = accounts(&[(30, 1), (30, 0), (30, 9), (0, 31)]);
        assert_eq!(
            has_space(&accounts, NodeId(1)),
            Some(true),
            "it gains nothing"
        );
        assert_eq!(
            has_space(&accounts, NodeId(2)),
            Some(false),
            "nothing is free"
        );
        assert_eq!(has_space(&accounts, NodeId(4)), Some(true));
        assert_eq!(has_space(&accounts, NodeId(5)), None, "it said nothing");
    }

    #[test]
    fn the_reserve_stays_free() {
        let accounts = accounts(&[(30, 9), (30, 9), (30, 9), (0, 30)]);
        assert_eq!(has_space(&accounts, NodeId(4)), Some(false));
        assert_eq!(needed_bytes(&accounts, NodeId(4)), (30 << 30) + (512 << 20));
    }

    #[test]
    fn this_machine_has_a_disk() {
        let space = Space::measure(&std::env::temp_dir(), 7);
        assert!(space.free_bytes > 0 && space.stored_bytes == 7);
        assert_eq!(
            Space::measure(Path::new("/nowhere/at/all"), 0),
            Space::default()
        );
    }
}
