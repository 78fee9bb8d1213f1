//! Why the journal refused.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use trefoil_store_pages::PagesError;

/// A refused operation of the journal.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A page file refused. While opening: nothing is lost, the cause can be repaired and the journal
    /// opened again. While committing: the journal has ended.
    #[error("journal: {0}")]
    Pages(#[from] PagesError),
    /// The disk refused an operation on a name or a directory.
    #[error("journal: {action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The writer thread could not be started.
    #[error("start journal thread: {0}")]
    Thread(io::Error),
    /// More is waiting for the disk than `pending_bytes_max` allows. Nothing was appended; try again
    /// when something has become durable, or answer that this owner is overloaded.
    #[error("the journal has {pending_bytes} bytes waiting for the disk")]
    Full {
        /// Bytes that wait.
        pending_bytes: usize,
    },
    /// The disk has no room for another segment. What is pending waits, and goes on when there is.
    #[error("no space for another journal segment")]
    NoSpace,
    /// The record is larger than the journal can ever hold at once. Nothing was appended.
    #[error("record of {bytes} bytes is larger than {bytes_max}")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound: `pending_bytes_max`, and never more than a page file's largest record.
        bytes_max: usize,
    },
    /// A write or fsync failed earlier, or the journal was closed. Restart the node.
    #[error("the journal has ended")]
    Ended,
    /// The records at this offset have been trimmed.
    #[error("offset {offset} is below the journal's floor {floor}")]
    BelowFloor {
        /// The offset asked for.
        offset: u64,
        /// The first offset that is kept.
        floor: u64,
    },
    /// The offset is behind everything durable. A peer that asks for it remembers a history that this
    /// node has lost.
    #[error("offset {offset} is beyond the journal's durable end {end}")]
    BeyondEnd {
        /// The offset asked for.
        offset: u64,
        /// The durable end.
        end: u64,
    },
    /// Between floor and end, but there is no readable record: damage, or not a record start.
    #[error("no readable record at offset {offset}")]
    Unreadable {
        /// The offset asked for.
        offset: u64,
    },
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the disk is full (or over quota), as opposed to broken.
    pub(crate) fn is_full_disk(&self) -> bool {
        let source = match self {
            Self::Pages(PagesError::Io { source, .. }) | Self::Io { source, .. } => source,
            _ => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}
