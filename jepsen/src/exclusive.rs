//! One cluster test at a time, over all threads and test programs of a machine.

use std::fs::File;

/// Held by a test while its processes run. The system releases it with the process, however that ends.
pub struct Exclusive {
    _file: File,
}

impl Exclusive {
    /// Waits until no other test holds it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn take() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join("trefoil-cluster-tests.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        file.lock()?;
        Ok(Self { _file: file })
    }
}
