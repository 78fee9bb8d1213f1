//! The metadata plane: small facts that must never fork, agreed on by one Raft group.
//!
//! ```text
//!   callers --> MetadataPlane (plane/)  propose, read, watch, status
//!                  |            \
//!                openraft        leader's task: voters and learners (voters/)
//!               /       \
//!     log/  Raft log    machine/  state machine: State (state/), snapshots, materialised rows (sled)
//!
//! ```
//!
//! openraft is an implementation detail: nothing of it is public. The state machine ([`State`]) is
//! pure; commands ([`Command`]) and replies ([`Reply`]) are data. Everything that must survive a
//! crash is in the Raft log or in a snapshot before it is acknowledged; sled holds only what can be
//! rebuilt from them.
//!
//! This crate does not know what the data plane does with the facts, how peers are reached
//! ([`Transport`]), or who is alive (it is told).

mod codec;
mod disk_work;
mod engine;
mod error;
mod files;
pub mod formation;
#[cfg(test)]
mod golden;
mod log;
mod machine;
mod patience;
mod plane;
pub mod recovery;
pub mod state;
mod transport;
mod voters;

pub use disk_work::DiskWork;
pub use error::{MetadataError, TransportError};
pub use formation::{BootstrapSettings, Identity};
pub use plane::{MetadataPlane, PeerView, PlaneFaults, PlaneOptions, Role, Status};
pub use state::{
    Addresses, Change, Command, Condition, ConfigurationChange, CutOff, Deletion, Lease,
    LogPosition, Member, MemberDescription, MemberState, Movement, MovementOutcome, Proposal,
    Recovery, Refusal, Reply, ShardLoss, State, Tenant, Value,
};
pub use transport::{RpcKind, RpcRequest, Transport};
