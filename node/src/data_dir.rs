//! The node's data directory: made when it is missing, and used by one process at a time.

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

/// The file that says why the directory must not be used again.
const CONDEMNED: &str = "condemned";

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
        match std::fs::read_to_string(path.join(CONDEMNED)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            reason => bail!(
                "the data directory {} must not be used again: {}. Remove it and start the node empty: it \
                 joins as a new one and is filled by the others",
                path.display(),
                reason.unwrap_or_else(|error| error.to_string())
            ),
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Makes sure that the directory is never used again, and says why to whoever tries.
    ///
    /// # Errors
    /// When that cannot be put on disk.
    pub(crate) fn condemn(path: &Path, reason: &str) -> std::io::Result<()> {
        let mut file = File::create(path.join(CONDEMNED))?;
        file.write_all(reason.as_bytes())?;
        file.sync_all()?;
        File::open(path)?.sync_all()
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
    fn one_process_at_a_time_and_none_once_condemned() {
        let directory = std::env::temp_dir().join(format!("trefoil-lock-{}", std::process::id()));
        let first = DataDir::open(&directory).unwrap();
        let error = DataDir::open(&directory).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(first);
        assert!(DataDir::open(&directory).is_ok());
        DataDir::condemn(&directory, "it is a copy").unwrap();
        let error = DataDir::open(&directory).unwrap_err().to_string();
        assert!(error.contains("it is a copy"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
