//! How far this node trusts its own replicas.

use serde::{Deserialize, Serialize};

/// The trust in a replica. Only a `Serving` one evaluates; the other two are *Filling*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Trust {
    /// It has everything that it acknowledged; together with enough partners it is complete.
    Serving,
    /// A new owner that never lost anything: it counts as a partner for the new owners only.
    Joining,
    /// It may lack what it acknowledged itself: it is no partner, and catching up with it counts for nothing.
    Amnesiac,
}
