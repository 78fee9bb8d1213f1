//! [`ReadOnlyDisk`]: the operating system's file system, of which nothing is changed.
//!
//! For what belongs to somebody else, such as a snapshot on a medium that takes no writes: files are opened for reading
//! only, and every change is refused.

use crate::real_disk::read_at;
use crate::{Disk, DiskFile, RealDisk};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The file system of this machine, to read from.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::open(path)?;
        Ok(Arc::new(ReadOnlyFile { file }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }
}

struct ReadOnlyFile {
    file: File,
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(&self.file, buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn preallocate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        std::fs::write(&path, b"hello").unwrap();
        let file = ReadOnlyDisk.open(&path).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(file.read_at(&mut buffer, 1).unwrap(), 4);
        assert_eq!((&buffer[..4], file.length().unwrap()), (&b"ello"[..], 5));
        assert_eq!(ReadOnlyDisk.list(root.path()).unwrap(), ["x"]);
        let other = root.path().join("y");
        for changed in [
            file.write_at(b"no", 0),
            file.sync_data(),
            file.preallocate(9),
            ReadOnlyDisk.create(&other).map(drop),
            ReadOnlyDisk.rename(&path, &other),
            ReadOnlyDisk.link(&path, &other),
            ReadOnlyDisk.remove(&path),
            ReadOnlyDisk.create_dir_all(&other),
            ReadOnlyDisk.sync_dir(root.path()),
        ] {
            let kind = changed.map_err(|error| error.kind());
            assert_eq!(kind, Err(io::ErrorKind::ReadOnlyFilesystem));
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    }
}
