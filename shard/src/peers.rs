//! What is known of each peer: its run, whether it answers, and how much it has been pushed.

use crate::{Offset, barrier::Pair};
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{Incarnation, NodeId};

/// One peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Its present run, as the driver says.
    pub(crate) incarnation: Option<Incarnation>,
    /// Whether it can be reached, as the driver says.
    pub(crate) up: bool,
    /// When something was last heard of it.
    pub(crate) heard_at: Duration,
    /// Barriers that this node asks it for.
    pub(crate) pair: Pair,
    /// Where it durably is in this node's journal, in the shards that both own. None: not known, or nowhere.
    pub(crate) kept: Option<Offset>,
    /// How far its journal is covered here by positions that are durable.
    pub(crate) noted: Option<Offset>,
    /// The same by positions that were journalled, once the journal is durable up to the first offset.
    pub(crate) noting: Option<(Offset, Option<Offset>)>,
    /// Pushes that it has not answered.
    pub(crate) window: Window,
}

/// Pushes that a peer has not answered.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) pushes: usize,
    pub(crate) bytes: usize,
    /// Since when pushes to it are skipped, because it is slow, absent or far behind.
    pub(crate) skipped_since: Option<Duration>,
}

/// All peers, by id.
pub(crate) type Peers = BTreeMap<NodeId, Peer>;
