//! The disk as one run of a process sees it: behind the process's end every call fails.
//!
//! Files that were open at a crash are dead by themselves ([`trefoil_store_pages::SimulatedDisk`]); this keeps a task
//! that is still being torn down from opening new ones.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use trefoil_store_pages::{Disk, DiskFile, SimulatedDisk};

/// A disk for one run.
pub(crate) struct DiskOfRun {
    pub(crate) disk: SimulatedDisk,
    pub(crate) alive: Arc<AtomicBool>,
}

impl DiskOfRun {
    fn check(&self) -> io::Result<&SimulatedDisk> {
        match self.alive.load(Ordering::Relaxed) {
            true => Ok(&self.disk),
            false => Err(io::Error::other("the process has ended")),
        }
    }
}

impl Disk for DiskOfRun {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.check()?.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.check()?.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check()?.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check()?.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.check()?.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check()?.sync_dir(dir)
    }
}
