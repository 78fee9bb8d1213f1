//! Before a node is part of a cluster: who it is, and which cluster it founds or joins.

mod identity;

pub use identity::Identity;
