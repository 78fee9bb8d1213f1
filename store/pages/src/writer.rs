//! [`PageWriter`]: the one writer of a page file, and [`copy_to_fresh`], the way back after a crash.
//!
//! State machine of a writer: *open* until a write or sync fails, then *ended* for ever. At a crash
//! everything up to the last group that [`PageWriter::append`] returned for is on disk; of the group
//! in flight any part may be. The file must then be copied, never appended to: pages of the torn
//! group carry the same salt and could be taken for new ones.

use crate::page::PAGE_BYTES;
use crate::{Disk, DiskFile, FileHeader, PageReader, PagesError, RecordGroup, ScanSummary};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Stream bytes per write while copying: large enough for sequential speed, small in memory.
const COPY_GROUP_BYTES: usize = 1 << 20;

/// Appends groups of records to a page file that it made itself.
pub struct PageWriter {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: FileHeader,
    salt: u64,
    next_page: u32,
    end: u64,
    ended: bool,
}

impl PageWriter {
    /// Makes a new file, reserves `preallocate_bytes`, writes the header page and syncs the file. The
    /// file's *name* is not durable before the caller has synced the directory. Fails if the name is
    /// taken.
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        header: FileHeader,
        preallocate_bytes: u64,
    ) -> Result<Self, PagesError> {
        let file = disk
            .create(path)
            .map_err(PagesError::io("create page file", path))?;
        Self::begin(file, path, header, preallocate_bytes)
    }

    /// Takes over an existing file that nobody needs any more (a recycled segment): its pages stay
    /// where they are and are told apart by `header`'s salt, so the file number must be a new one.
    pub fn recycle(
        disk: &dyn Disk,
        path: &Path,
        header: FileHeader,
        preallocate_bytes: u64,
    ) -> Result<Self, PagesError> {
        let file = disk
            .open(path)
            .map_err(PagesError::io("open recycled page file", path))?;
        Self::begin(file, path, header, preallocate_bytes)
    }

    fn begin(
        file: Arc<dyn DiskFile>,
        path: &Path,
        header: FileHeader,
        preallocate_bytes: u64,
    ) -> Result<Self, PagesError> {
        if preallocate_bytes > 0 {
            file.preallocate(preallocate_bytes)
                .map_err(PagesError::io("reserve space for", path))?;
        }
        file.write_at(&header.to_page(), 0)
            .map_err(PagesError::io("write header of", path))?;
        file.sync_data()
            .map_err(PagesError::io("sync header of", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            salt: header.salt(),
            next_page: 1,
            end: header.base,
            header,
            ended: false,
        })
    }

    /// Writes a group and makes it durable: one write, one `fdatasync`. After an error the writer has
    /// ended; the group may or may not be found after a restart. An empty group is a mark that proves
    /// everything before it durable.
    ///
    /// # Panics
    /// If the group starts before [`PageWriter::end`]: offsets only grow.
    pub fn append(&mut self, group: &mut RecordGroup) -> Result<(), PagesError> {
        self.write(group)?;
        self.sync()
    }

    fn write(&mut self, group: &mut RecordGroup) -> Result<(), PagesError> {
        assert!(group.start() >= self.end, "offsets only grow");
        if self.ended {
            return Err(PagesError::WriterEnded {
                path: self.path.clone(),
            });
        }
        // Until the write has succeeded the writer counts as ended, whatever happens in between.
        self.ended = true;
        let bytes = group.seal(self.salt, self.next_page);
        let pages = u32::try_from(bytes.len() / PAGE_BYTES)
            .ok()
            .and_then(|pages| self.next_page.checked_add(pages))
            .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge));
        let next_page = pages.map_err(PagesError::io("append to", &self.path))?;
        self.file
            .write_at(bytes, u64::from(self.next_page) * PAGE_BYTES as u64)
            .map_err(PagesError::io("append to", &self.path))?;
        self.next_page = next_page;
        self.end = group.end();
        self.ended = false;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), PagesError> {
        self.ended = true;
        self.file
            .sync_data()
            .map_err(PagesError::io("sync", &self.path))?;
        self.ended = false;
        Ok(())
    }

    /// Reserves space so that at least `bytes` more can be appended. An error (a full disk, mostly)
    /// changes nothing: the writer goes on, and a later call may succeed.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), PagesError> {
        self.file
            .preallocate(self.used_bytes().saturating_add(bytes))
            .map_err(PagesError::io("reserve space for", &self.path))
    }

    /// Gives the file another name, in place of whatever has it, and syncs the directory of the new
    /// name. After an error either name may be found after a crash.
    pub fn rename(&mut self, disk: &dyn Disk, to: &Path) -> Result<(), PagesError> {
        disk.rename(&self.path, to)
            .map_err(PagesError::io("rename page file to", to))?;
        self.path = to.to_owned();
        let dir = to.parent().unwrap_or(Path::new(""));
        disk.sync_dir(dir)
            .map_err(PagesError::io("sync directory", dir))
    }

    /// Logical offset behind the last record written.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of the file that are in use; the file itself may be longer (preallocated).
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        u64::from(self.next_page) * PAGE_BYTES as u64
    }

    /// The header that the file was made with.
    #[must_use]
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A reader of the same file. It sees what has been written, durable or not.
    #[must_use]
    pub fn reader(&self) -> PageReader {
        PageReader::of_writer(self.file.clone(), self.path.clone(), self.header.clone())
    }
}

/// Copies every whole record of `source` to a new file at `to` with `header` (whose base is replaced
/// by the source's), and syncs it; see [`copy_records`]. A leftover at `to` is removed first.
/// Afterwards the caller renames the new file over the old one ([`PageWriter::rename`]) and goes on
/// appending to it.
pub fn copy_to_fresh(
    disk: &dyn Disk,
    source: &PageReader,
    to: &Path,
    header: FileHeader,
    preallocate_bytes: u64,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> Result<(PageWriter, ScanSummary), PagesError> {
    match disk.remove(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(PagesError::io("remove leftover", to)(error));
        }
        _ => {}
    }
    let header = FileHeader {
        base: source.header().base,
        ..header
    };
    let mut writer = PageWriter::create(disk, to, header, preallocate_bytes)?;
    let summary = copy_records(source, &mut writer, visit)?;
    Ok((writer, summary))
}

/// Copies every whole record of `source` to a writer that has none yet, at the same logical offsets,
/// and syncs once at the end; `visit` sees each record's start and bytes on the way.
///
/// Damaged ranges stay behind as gaps in the offsets, so they are found again by every later scan.
/// Nothing that was read counts before this has returned and the file has its final name, because what
/// was read may come from a page cache that the disk never saw.
pub fn copy_records(
    source: &PageReader,
    writer: &mut PageWriter,
    visit: &mut dyn FnMut(u64, &[u8]),
) -> Result<ScanSummary, PagesError> {
    let mut group = RecordGroup::new(writer.end());
    let mut failure = None;
    let summary = source.scan(&mut |start, bytes| {
        visit(start, bytes);
        if start != group.end() || group.disk_bytes() >= COPY_GROUP_BYTES {
            let full = std::mem::replace(&mut group, RecordGroup::new(start));
            write_copied(writer, full, &mut failure);
        }
        group.push(&[bytes]);
    })?;
    write_copied(writer, group, &mut failure);
    if let Some(error) = failure {
        return Err(error);
    }
    // The mark keeps the copy's last records provable: should one of its pages rot later, that is
    // damage and not a torn tail. It also carries a gap at the very end.
    writer.append(&mut RecordGroup::new(summary.end))?;
    Ok(summary)
}

fn write_copied(writer: &mut PageWriter, mut group: RecordGroup, failure: &mut Option<PagesError>) {
    if group.records() > 0
        && failure.is_none()
        && let Err(error) = writer.write(&mut group)
    {
        *failure = Some(error);
    }
}
