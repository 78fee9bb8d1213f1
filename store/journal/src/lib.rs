//! The journal of a node: append-only, durable before it is acknowledged, read again by peers.
//!
//! Records are bytes; what they mean is the data plane's business. A record is named by its logical
//! offset: offsets only grow, across segments and restarts, and a record's end is its successor's
//! start.
//!
//! ```text
//!  append() --> pending group --> committer: one write + one fdatasync --> durable_end, on_durable
//!               (bounded)         (a thread, or commit_now())              cache of recent groups
//!
//!  journal/0000000000000000.segment   sealed      [base .. next base)
//!          000000000003f1c2.segment   sealed
//!          00000000000803aa.segment   being written
//!          0000000000000007.spare     recycled, for the next segment
//! ```
//!
//! Invariants:
//! * A record is durable when `durable_end` has reached its end; only then is it read back or named
//!   in an event.
//! * A failed write or fsync ends the journal: `on_durable` says so once, every later append fails,
//!   nothing is retried. Records in doubt may be found after a restart.
//! * At a start the segment that was being written is copied to a fresh, synced file before anything
//!   in it counts: after a failed fsync the page cache may show what the disk does not have. A torn tail is cut; durable records that cannot be read are
//!   reported as damage, at every start, until they have been trimmed away.
//! * A full disk is noticed when a segment is reserved, before anything is written: the journal is
//!   stalled. What was appended waits for space, within the bound; the journal does not end.

mod committer;
mod error;
mod events;
mod journal;
mod options;
mod segments;
mod view;

pub use error::JournalError;
pub use journal::Journal;
pub use options::{
    AppendedRecord, CommitMode, DurableEvent, JournalFaults, JournalOptions, JournalStatistics,
    OnDurable, Recovery,
};
pub use trefoil_store_pages::{DamagedRange, Record};
