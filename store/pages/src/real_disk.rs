//! [`RealDisk`]: the operating system's file system.
//!
//! Paths are used as they are. Nothing is cached here; durability is exactly what `fdatasync` and
//! `fsync` of directories give.

use crate::{Disk, DiskFile};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        match std::fs::create_dir(dir) {
            Ok(()) => self.sync_dir(parent),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let here = Path::new(".");
        let dir = if dir.as_os_str().is_empty() {
            here
        } else {
            dir
        };
        File::open(dir)?.sync_all()
    }
}

struct RealFile {
    file: File,
}

/// Fills `buffer` from `offset` on as far as the file reaches; the bytes that it reads.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_at(&self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn preallocate(&self, length_bytes: u64) -> io::Result<()> {
        let length = libc::off_t::try_from(length_bytes)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the descriptor belongs to `self.file`, which is open for the whole call; the call
        // touches no memory of ours.
        match unsafe { libc::posix_fallocate(self.file.as_raw_fd(), 0, length) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_contract_of_the_seam() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        RealDisk.create_dir_all(&dir).unwrap();
        RealDisk.create_dir_all(&dir).unwrap();
        let file = RealDisk.create(&dir.join("x")).unwrap();
        assert!(RealDisk.create(&dir.join("x")).is_err());
        file.preallocate(8192).unwrap();
        file.write_at(b"hello", 4094).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.length().unwrap(), 8192);
        let mut buffer = [1u8; 8];
        assert_eq!(file.read_at(&mut buffer, 4092).unwrap(), 8);
        assert_eq!(&buffer, b"\0\0hello\0");
        assert_eq!(file.read_at(&mut buffer, 8190).unwrap(), 2);
        RealDisk.rename(&dir.join("x"), &dir.join("y")).unwrap();
        RealDisk.sync_dir(&dir).unwrap();
        assert_eq!(RealDisk.list(&dir).unwrap(), ["y"]);
        RealDisk.link(&dir.join("y"), &dir.join("z")).unwrap();
        let taken = RealDisk.link(&dir.join("y"), &dir.join("z")).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        RealDisk.remove(&dir.join("y")).unwrap();
        let second = RealDisk.open(&dir.join("z")).unwrap();
        assert_eq!(second.length().unwrap(), 8192);
        RealDisk.remove(&dir.join("z")).unwrap();
        assert!(RealDisk.list(&dir).unwrap().is_empty());
        assert_eq!(file.length().unwrap(), 8192, "open handles stay valid");
    }
}
