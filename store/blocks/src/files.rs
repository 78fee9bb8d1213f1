//! Files of blocks: written once, in order, with a checksum over everything; read at any place.
//!
//! A file is named `<block id>-<name>` in the manifest's directory. It is durable when
//! [`BlockFileWriter::finish`] has returned, and becomes part of the data only by the record that
//! adds its block. A reader that needs single parts without reading everything puts checksums of its
//! own into the file; [`BlockFile::verify`] is for scrubs and copies.

use crate::{BlockFileEntry, BlockId, BlocksError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trefoil_store_pages::{Disk, DiskFile};

/// Bytes that a writer collects before it writes: large sequential writes.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// Bytes that a verification reads at once.
const VERIFY_CHUNK_BYTES: usize = 1 << 20;

pub(crate) fn file_name(block: BlockId, name: &str) -> String {
    format!("{block}-{name}")
}

/// The block that a file name of this directory belongs to; `None` for foreign files.
pub(crate) fn block_of(file_name: &str) -> Option<BlockId> {
    let (id, _) = file_name.split_once('-')?;
    let canonical = id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = canonical.then(|| u64::from_str_radix(id, 16).ok())?;
    id.map(BlockId)
}

/// Writes one file of a block, front to back.
pub struct BlockFileWriter {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    name: String,
    buffer: Vec<u8>,
    written: u64,
    checksum: u32,
}

impl BlockFileWriter {
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        block: BlockId,
        name: &str,
    ) -> Result<Self, BlocksError> {
        let path = dir.join(file_name(block, name));
        let file = disk
            .create(&path)
            .map_err(BlocksError::io("create block file", &path))?;
        Ok(Self {
            file,
            path,
            name: name.to_owned(),
            buffer: Vec::new(),
            written: 0,
            checksum: 0,
        })
    }

    /// Appends bytes. After an error the file is worthless; abandon the block.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlocksError> {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        if self.buffer.is_empty() && bytes.len() >= WRITE_BUFFER_BYTES {
            return self.write_through(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Bytes appended so far: the position of the next one.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes what is left, makes the file durable (its name becomes so in the commit), and gives its
    /// entry for [`crate::BlockMeta::files`].
    pub fn finish(mut self) -> Result<BlockFileEntry, BlocksError> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(BlocksError::io("sync block file", &self.path))?;
        Ok(BlockFileEntry {
            name: self.name,
            length: self.written,
            checksum: self.checksum,
        })
    }

    fn flush(&mut self) -> Result<(), BlocksError> {
        let buffer = std::mem::take(&mut self.buffer);
        self.write_through(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), BlocksError> {
        self.file
            .write_at(bytes, self.written)
            .map_err(BlocksError::io("write block file", &self.path))?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// An open file of a block. Stays readable even after the block was removed.
#[derive(Clone)]
pub struct BlockFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    block: BlockId,
    entry: BlockFileEntry,
}

impl BlockFile {
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        block: BlockId,
        entry: &BlockFileEntry,
    ) -> Result<Self, BlocksError> {
        let path = dir.join(file_name(block, &entry.name));
        let file = match disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(damaged(block, &entry.name, "the file is missing"));
            }
            other => other.map_err(BlocksError::io("open block file", &path))?,
        };
        let opened = Self {
            file,
            path,
            block,
            entry: entry.clone(),
        };
        let length = opened.file.length();
        if length.map_err(BlocksError::io("measure block file", &opened.path))? != entry.length {
            return Err(opened.damaged("its length is wrong"));
        }
        Ok(opened)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.entry.length
    }

    /// Fills `buffer` from `offset`. Bytes beyond the end and sectors that the medium cannot read are
    /// [`BlocksError::DamagedFile`]. Does not check the file's checksum.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), BlocksError> {
        match self.file.read_at(buffer, offset) {
            Ok(read) if read == buffer.len() => Ok(()),
            Ok(_) => Err(self.damaged("a read went beyond its end")),
            // The seam's errors for unreadable sectors vary by file system; all of them mean that this
            // copy of the data is no longer good.
            Err(_) => Err(self.damaged("a part of it cannot be read")),
        }
    }

    /// Reads the whole file and checks its checksum.
    pub fn read_verified(&self) -> Result<Vec<u8>, BlocksError> {
        let length = usize::try_from(self.entry.length);
        let mut bytes = vec![0; length.map_err(|_| self.damaged("it does not fit memory"))?];
        self.read_exact_at(&mut bytes, 0)?;
        if crc32c::crc32c(&bytes) != self.entry.checksum {
            return Err(self.damaged("its checksum is wrong"));
        }
        Ok(bytes)
    }

    /// Checks the checksum of the whole file in small memory.
    pub fn verify(&self) -> Result<(), BlocksError> {
        let mut chunk = vec![0; VERIFY_CHUNK_BYTES];
        let mut checksum = 0;
        let mut at = 0;
        while at < self.entry.length {
            let length = (self.entry.length - at).min(VERIFY_CHUNK_BYTES as u64) as usize;
            self.read_exact_at(&mut chunk[..length], at)?;
            checksum = crc32c::crc32c_append(checksum, &chunk[..length]);
            at += length as u64;
        }
        if checksum != self.entry.checksum {
            return Err(self.damaged("its checksum is wrong"));
        }
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> BlocksError {
        damaged(self.block, &self.entry.name, what)
    }
}

fn damaged(block: BlockId, name: &str, what: &'static str) -> BlocksError {
    BlocksError::DamagedFile {
        block,
        name: name.to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_name_their_block() {
        let block = BlockId(0x1f);
        assert_eq!(file_name(block, "index"), "000000000000001f-index");
        assert_eq!(block_of("000000000000001f-index"), Some(block));
        for foreign in [
            "manifest",
            "1f-index",
            "000000000000001F-index",
            "0000-",
            "+00000000000001f-x",
        ] {
            assert_eq!(block_of(foreign), None, "{foreign}");
        }
    }
}
