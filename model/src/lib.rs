//! The nouns of Trefoil: ids, time, labels, hashes, native histograms, aggregates, the placement table.
//!
//! Everything here is plain data that every other crate may name. This crate imports no other crate
//! of the project, does no input or output, reads no clock and starts no task.

mod aggregate;
mod compensated;
mod error;
mod hash;
pub mod histogram;
mod ids;
mod labels;
mod placement;
mod ranges;
mod time;

pub use aggregate::{Aggregate, Resolution, STALE_MARKER_BITS, aggregate};
pub use compensated::add_compensated;
pub use error::ModelError;
pub use hash::{SeriesHash, key_hash, shard_of};
pub use histogram::{Histogram, ResetHint};
pub use ids::{
    ClusterId, ConfigurationNumber, DeletionVersion, Incarnation, LineageId, NodeId, NodeName,
    RequestSequence, ShardId, Signal, TenantId, Zone,
};
pub use labels::{LABEL_NAME_METRIC, Labels, LabelsBuilder, read_varint, write_varint};
pub use placement::{Configuration, OwnerRecord, OwnerSet, PlacementTable, ShardEntry};
pub use ranges::ShardSet;
pub use time::{Millis, TimeRange, WINDOW_MILLIS, Window};
