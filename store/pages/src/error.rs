//! Why a page file could not be written or read.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// An operation on a page file that failed.
#[derive(Debug, Error)]
pub enum PagesError {
    /// The disk refused. After a failed write or sync the writer has ended; what was being written
    /// may or may not be found after a restart. Retrying on the same writer never helps.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The first page is not a valid file header: not a page file, or its first page is damaged.
    #[error("{path} has no valid header page", path = path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
    },
    /// The file was written in a format that this program cannot read.
    #[error("{path} has page format {found}, this program reads format {supported}", path = path.display())]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u8,
        /// The version of this program.
        supported: u8,
    },
    /// The file is a page file of another kind (its purpose tag differs).
    #[error("{path} is a page file for {found:?}, expected {expected:?}", path = path.display())]
    WrongPurpose {
        /// The file.
        path: PathBuf,
        /// The tag in the file.
        found: [u8; 4],
        /// The tag that the caller wants.
        expected: [u8; 4],
    },
    /// A write or sync failed earlier; this writer does nothing any more. Restart and recover.
    #[error("the writer of {path} ended with an earlier failure", path = path.display())]
    WriterEnded {
        /// The file.
        path: PathBuf,
    },
    /// The offset asked for is no record start of this file, or lies in a damaged range.
    #[error("{path} has no readable record at offset {offset}", path = path.display())]
    NoRecordAt {
        /// The file.
        path: PathBuf,
        /// The logical offset.
        offset: u64,
    },
}

impl PagesError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
