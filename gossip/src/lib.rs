//! Membership: who is there, where, and how loaded. SWIM (the `foca` crate) over datagrams.
//!
//! The crate is pure: [`Membership`] gets datagrams and the time, and leaves datagrams to send, a
//! next timeout and notifications to be drained. It opens no socket, reads no clock and starts no
//! task; the node does. What it learns is advice (whom to ask, and where): only the metadata plane
//! decides who is a member.
//!
//! A node is known by its `NodeId`, whatever its address. A restart with another address replaces
//! what was known, and addresses swapped between two nodes sort themselves out.
//!
//! At a crash everything here is lost, and learnt again from the seeds within a second.

mod content;
mod envelope;
mod error;
mod identity;
mod info;
mod info_table;
mod membership;
mod proof;
pub mod seeds;
mod swim;
mod timers;
mod view;
mod wire;

pub use envelope::ClusterKey;
pub use error::GossipError;
pub use identity::Identity;
pub use info::{INFO_TEXT_BYTES_MAX, Load, NodeInfo, NodePhase};
pub use membership::{Counters, Membership, Now};
pub use proof::PeerClaim;
pub use view::{Member, MemberState, Notification};
