//! Page files: append-only, checksummed files of records, and the disk that they stand on.
//!
//! The journal, the Raft log and the manifest log are page files. A file is a chain of 4 KiB pages;
//! records flow through the pages; what is appended together (a *group*) is written as one
//! sequential write and made durable by one `fdatasync`. The bytes are drawn in
//! `docs/formats/pages.md`.
//!
//! Invariants:
//! * A page names its file (salt), its place (page number) and its stream offset, so that neither
//!   stale bytes of a recycled file nor a misdirected write ever look valid.
//! * A group is written only after the group before it is durable, and each page names the first
//!   page of its group. A valid page therefore proves that every page before its group was durable.
//!   This is how a reader tells a *torn tail* (cut silently) from *damage* (reported).
//! * A file that was open at a crash is never appended to again: [`copy_to_fresh`] moves its records
//!   to a new file, and nothing in it counts before that file is durable.
//! * A failed write or fsync ends a [`PageWriter`] for good; nothing is retried.
//!
//! This crate does not know what a record means, starts no thread and reads no clock.

mod disk;
mod error;
mod full_disk;
mod group;
mod page;
mod read_only_disk;
mod reader;
mod real_disk;
mod simulated_disk;
mod writer;

pub use disk::{Disk, DiskFile};
pub use error::PagesError;
pub use full_disk::is_full_disk;
pub use group::RecordGroup;
pub use page::{FileHeader, NOTE_BYTES_MAX, PAGE_BYTES, PAGE_PAYLOAD_BYTES, RECORD_BYTES_MAX};
pub use read_only_disk::ReadOnlyDisk;
pub use reader::{DamagedRange, PageReader, ScanSummary};
pub use real_disk::RealDisk;
pub use simulated_disk::{CrashLoss, SimulatedDisk};
pub use writer::{PageWriter, copy_records, copy_to_fresh};

/// A record as it lies in the logical stream of a page file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Logical offset of the record's first byte (of its length field).
    pub start: u64,
    /// Logical offset behind the record; the next record starts here.
    pub end: u64,
    /// The bytes that were appended, without the length field.
    pub bytes: Vec<u8>,
}
