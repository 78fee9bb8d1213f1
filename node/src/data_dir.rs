//! The node's data directory: made when it is missing, and used by one process at a time.

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// The directory, locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Holds the lock; the system releases it when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory when needed and locks it.
    ///
    /// # Errors
    /// When it cannot be made, or another process uses it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("make the data directory {}", path.display()))?;
        let file = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .with_context(|| format!("open {}", file.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "the data directory {} is used by another process; give every node its own --data-dir",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where metadata, journal and blocks are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let directory = std::env::temp_dir().join(format!("trefoil-lock-{}", std::process::id()));
        let first = DataDir::open(&directory).unwrap();
        let error = DataDir::open(&directory).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(first);
        assert!(DataDir::open(&directory).is_ok());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
