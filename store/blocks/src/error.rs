//! Why a manifest or a block file could not be opened, changed or read.

use crate::BlockId;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use trefoil_store_pages::{DamagedRange, PagesError};

/// A failed operation on the manifest or a block.
#[derive(Debug, Error)]
pub enum BlocksError {
    /// The manifest's page file refused. During a commit the manifest has ended: restart.
    #[error("manifest: {0}")]
    Pages(#[from] PagesError),
    /// The disk refused an operation on a block file or a directory; the manifest did not change.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// There are block files but no manifest: it was lost with the facts in it. The node moves the
    /// directory aside and fills itself again.
    #[error("{files} block files but no manifest in {path}", path = path.display())]
    ManifestLost {
        /// The directory.
        path: PathBuf,
        /// How many block files are there.
        files: usize,
    },
    /// Durable records of the manifest cannot be read. What it says can no longer be trusted.
    #[error("manifest {path} is damaged in {} places, first at offset {}", damage.len(), damage[0].start, path = path.display())]
    ManifestDamaged {
        /// The manifest.
        path: PathBuf,
        /// The lost ranges; never empty.
        damage: Vec<DamagedRange>,
    },
    /// A record of the manifest has a sound checksum but says nothing that this program understands:
    /// it was written by a newer program.
    #[error("manifest {path}: record at offset {offset} is not understood: {what}", path = path.display())]
    UnknownRecord {
        /// The manifest.
        path: PathBuf,
        /// Logical offset of the record.
        offset: u64,
        /// The first thing that is not understood.
        what: &'static str,
    },
    /// The edit replaces blocks that have changed since its basis (removed, damaged, or with new
    /// tombstones). Nothing was written; do the merge again from a new pin.
    #[error("block {block} has changed since version {basis}")]
    StaleEdit {
        /// The block.
        block: BlockId,
        /// The version that the edit was made from.
        basis: u64,
    },
    /// The disk has no room for the record. Nothing was written; try again when there is.
    #[error("no space for the manifest: {0}")]
    NoSpace(#[source] PagesError),
    /// An earlier commit failed; this manifest changes nothing any more. Restart.
    #[error("the manifest ended with an earlier failure")]
    Ended,
    /// A block's file has another length or checksum than the manifest says. Mark the block damaged.
    #[error("block {block} file {name}: {what}")]
    DamagedFile {
        /// The block.
        block: BlockId,
        /// The file within the block.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl BlocksError {
    /// Whether a commit that failed with this is certain not to have happened: what it would have added may be
    /// abandoned.
    #[must_use]
    pub fn is_before_the_record(&self) -> bool {
        !matches!(self, Self::Pages(_))
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
