//! The disk as a seam: what the storage crates ask of a file system, and nothing more.
//!
//! Implementations: [`crate::RealDisk`], [`crate::ReadOnlyDisk`], and [`crate::SimulatedDisk`], which loses unsynced
//! work at a crash. The contract is the weaker one, so that code that survives the simulation needs
//! no luck from a real file system:
//! * bytes written are durable only after `sync_data` of that file has succeeded;
//! * a created, renamed or removed *name* is durable only after `sync_dir` of its directory;
//! * until then a crash may keep any part of them, in any order, down to single sectors;
//! * after a failed `sync_data` the state of the unsynced bytes is unknown for ever: a later sync
//!   that succeeds proves nothing about them.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file system. Object-safe, shared between threads; every call blocks until it is done.
pub trait Disk: Send + Sync {
    /// Creates an empty file for reading and writing. Fails with `AlreadyExists` if the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file a new name in place of whatever had it, atomically. Open handles stay valid.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name beside the one that it has. Fails with `AlreadyExists` if the name is taken, and where the
    /// two directories or the file system do not allow it.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Open handles stay valid.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names (not paths) of the files directly in a directory, in ascending order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory with all its parents, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. Positional, so that readers and the one writer share a handle.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; after an error any part of them may be there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Reserves space so that the file is at least `length_bytes` long; new bytes read as zero.
    fn preallocate(&self, length_bytes: u64) -> io::Result<()>;

    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
}
