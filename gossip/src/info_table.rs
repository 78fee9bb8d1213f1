//! The newest description of every node, and the decision which ones are worth passing on.

use crate::{GossipError, Identity, NodeInfo, info::InfoVersion, membership::MEMBERS_MAX};
use foca::{BroadcastHandler, Invalidates};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use trefoil_model::NodeId;

/// Which description a queued broadcast carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InfoKey {
    node: NodeId,
    version: InfoVersion,
}

impl Invalidates for InfoKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.node == other.node && self.version >= other.version
    }
}

#[derive(Default)]
struct Rows {
    rows: BTreeMap<NodeId, (NodeInfo, InfoVersion)>,
    changed: bool,
}

/// A handle on the table. SWIM owns one (it hands received descriptions in), `Membership` the other;
/// the lock is never contended, since both live in one `Membership`.
#[derive(Clone, Default)]
pub(crate) struct InfoTable(Arc<Mutex<Rows>>);

impl InfoTable {
    pub(crate) fn get(&self, node: NodeId) -> Option<(NodeInfo, InfoVersion)> {
        self.rows().rows.get(&node).cloned()
    }

    /// Whether a description changed since the last call.
    pub(crate) fn take_changed(&self) -> bool {
        std::mem::take(&mut self.rows().changed)
    }

    /// Forgets the nodes that `keep` does not name.
    pub(crate) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        self.rows().rows.retain(|node, _| keep(*node));
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // A panic while the lock is held cannot leave the maps half-changed in a harmful way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BroadcastHandler<Identity> for InfoTable {
    type Key = InfoKey;
    type Error = GossipError;

    fn receive_item(
        &mut self,
        data: &[u8],
        _sender: Option<&Identity>,
    ) -> Result<Option<InfoKey>, GossipError> {
        let Some((info, version)) = NodeInfo::decode(data)? else {
            return Ok(None);
        };
        let node = info.node;
        let mut table = self.rows();
        let known = table.rows.get(&node).map(|(_, version)| *version);
        let is_news = known.is_none_or(|known| version > known);
        if !is_news || (known.is_none() && table.rows.len() >= MEMBERS_MAX) {
            return Ok(None);
        }
        table.rows.insert(node, (info, version));
        table.changed = true;
        Ok(Some(InfoKey { node, version }))
    }
}
