//! [`PageReader`]: reading a page file, and telling a torn tail from damage.
//!
//! A scan walks the pages in order. At the first page that is not valid it looks ahead over the rest
//! of the file. A later valid page whose *group* starts behind the bad one proves that the bad one
//! was durable once: that is **damage**, reported with its logical range, and the scan goes on at the
//! next record start. Without such proof the bad page belongs to the group that was in flight at the
//! crash, or to nothing: the **tail** is cut there. Pages of the torn group behind the hole are cut
//! with it. What cannot be told apart is damage inside the last group of a file; writers therefore
//! end a file that they close with an empty group.
//!
//! Reading never changes a file.

use crate::page::{
    FRAME_BYTES, NO_RECORD, PAGE_BYTES, PageView, RECORD_BYTES_MAX, array, read_data,
};
use crate::{Disk, DiskFile, FileHeader, PagesError, Record};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pages per read while scanning: 256 KiB, sequential speed at little memory.
const SCAN_CHUNK_PAGES: u32 = 64;

/// Logical offsets whose records cannot be read although they were durable once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// First offset that is lost.
    pub start: u64,
    /// First offset behind that can be read again (or the end of the file).
    pub end: u64,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Logical offset behind the last record or damaged range: what is appended next starts here.
    pub end: u64,
    /// How many records were visited.
    pub records: u64,
    /// Bytes of the group in flight at the crash that were found and cut.
    pub torn_bytes: u64,
    /// Durable records that are lost, in order, not touching one another. Empty in a sound file.
    pub damage: Vec<DamagedRange>,
}

/// An open page file.
#[derive(Clone)]
pub struct PageReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: FileHeader,
    salt: u64,
    /// Whether pages must have their checksum; only a test may not want that.
    checked: bool,
}

impl PageReader {
    /// Opens a page file of this purpose and reads its header page.
    pub fn open(disk: &dyn Disk, path: &Path, purpose: [u8; 4]) -> Result<Self, PagesError> {
        let file = disk.open(path).map_err(PagesError::io("open", path))?;
        let mut page = vec![0; PAGE_BYTES];
        let read = match file.read_at(&mut page, 0) {
            Err(error) if is_unreadable(&error) => 0,
            other => other.map_err(PagesError::io("read header of", path))?,
        };
        let header = FileHeader::from_page(&page[..read]).map_err(|version| match version {
            None => PagesError::NoHeader {
                path: path.to_owned(),
            },
            Some(found) => PagesError::UnsupportedVersion {
                path: path.to_owned(),
                found,
                supported: crate::page::FORMAT_VERSION,
            },
        })?;
        if header.purpose != purpose {
            return Err(PagesError::WrongPurpose {
                path: path.to_owned(),
                found: header.purpose,
                expected: purpose,
            });
        }
        Ok(Self::of_writer(file, path.to_owned(), header))
    }

    pub(crate) fn of_writer(file: Arc<dyn DiskFile>, path: PathBuf, header: FileHeader) -> Self {
        let salt = header.salt();
        Self {
            file,
            path,
            header,
            salt,
            checked: true,
        }
    }

    /// The same file, whose pages are taken for whole whatever their checksums say: a mistake that tests plant.
    #[must_use]
    pub fn unchecked(self) -> Self {
        Self {
            checked: false,
            ..self
        }
    }

    /// What the file says about itself.
    #[must_use]
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Where the file was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length in bytes, preallocated space included.
    pub fn file_bytes(&self) -> Result<u64, PagesError> {
        self.file
            .length()
            .map_err(PagesError::io("measure", &self.path))
    }

    /// Visits every whole record in order with its logical start and its bytes.
    ///
    /// Only for files that nobody is writing. An error means that the disk refused to read at all;
    /// single unreadable pages are damage or tail, not errors.
    pub fn scan(&self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<ScanSummary, PagesError> {
        let pages = self.page_count()?;
        let mut chunk = Chunk::new(SCAN_CHUNK_PAGES);
        let mut stream = Assembler::new(self.header.base);
        let mut records = 0;
        let mut look_ahead = None;
        let mut number = 1;
        while number < pages {
            match self.page(&mut chunk, number)? {
                Some(page) if page.stream_offset >= stream.offset => stream.accept(&page),
                _ => {
                    let proof = match look_ahead {
                        Some(proof) => proof,
                        None => *look_ahead.insert(self.look_ahead(number, pages)?),
                    };
                    if number >= proof.group_start {
                        break;
                    }
                    stream.lose();
                }
            }
            while let Some((start, bytes)) = stream.next_record() {
                visit(start, bytes);
                records += 1;
            }
            number += 1;
        }
        let proof = look_ahead.unwrap_or_default();
        let mut torn_bytes = stream.finish(proof.stream_offset);
        torn_bytes += u64::from((proof.valid_end).saturating_sub(number)) * PAGE_BYTES as u64;
        Ok(ScanSummary {
            end: stream.offset,
            records,
            torn_bytes,
            damage: stream.damage,
        })
    }

    /// Records that start in `from..until`, in order: at least one if there is one, then no more
    /// than about `bytes_max` bytes, and without a gap. `from` must be a record start; anything else, and a record that
    /// cannot be read, is [`PagesError::NoRecordAt`]. May run beside the writer as long as `until` is
    /// not behind what is written.
    pub fn read(&self, from: u64, until: u64, bytes_max: usize) -> Result<Vec<Record>, PagesError> {
        let no_record = || PagesError::NoRecordAt {
            path: self.path.clone(),
            offset: from,
        };
        let pages = self.page_count()?;
        let mut number = self.find_page(from, pages)?.ok_or_else(no_record)?;
        let chunk_pages = (bytes_max / PAGE_BYTES + 2).min(SCAN_CHUNK_PAGES as usize);
        let mut chunk = Chunk::new(chunk_pages as u32);
        let mut stream = Assembler::new(from);
        stream.lose();
        let mut records: Vec<Record> = Vec::new();
        let mut bytes_sum = 0;
        while number < pages {
            match self.page(&mut chunk, number)? {
                Some(page) if stream.lost || page.stream_offset == stream.expected() => {
                    stream.accept(&page);
                }
                _ => break,
            }
            while let Some((start, bytes)) = stream.next_record() {
                if start < from {
                    continue;
                }
                if records.is_empty() && start != from {
                    return Err(no_record());
                }
                let gap = records.last().is_some_and(|last| last.end != start);
                let enough = !records.is_empty() && bytes_sum >= bytes_max;
                if start >= until || gap || enough {
                    return Ok(records);
                }
                bytes_sum += bytes.len();
                records.push(Record {
                    start,
                    end: start + (FRAME_BYTES + bytes.len()) as u64,
                    bytes: bytes.to_owned(),
                });
            }
            number += 1;
        }
        if records.is_empty() {
            return Err(no_record());
        }
        Ok(records)
    }

    /// The page that holds the stream byte at `offset` and a record start at or before it.
    fn find_page(&self, offset: u64, pages: u32) -> Result<Option<u32>, PagesError> {
        let mut chunk = Chunk::new(1);
        let (mut low, mut high) = (1, pages);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.page(&mut chunk, middle)? {
                Some(page) if page.stream_offset <= offset => low = middle + 1,
                _ => high = middle,
            }
        }
        if self.starts_record(&mut chunk, low.saturating_sub(1), offset)? {
            return Ok(Some(low - 1));
        }
        // Damaged pages mislead the search by halves; it is rare enough to look at every page.
        let mut chunk = Chunk::new(SCAN_CHUNK_PAGES);
        for number in 1..pages {
            if self.starts_record(&mut chunk, number, offset)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    fn starts_record(
        &self,
        chunk: &mut Chunk,
        number: u32,
        offset: u64,
    ) -> Result<bool, PagesError> {
        if number == 0 {
            return Ok(false);
        }
        Ok(self.page(chunk, number)?.is_some_and(|page| {
            page.first_record != NO_RECORD
                && page.stream_offset + u64::from(page.first_record) <= offset
                && offset < page.stream_end()
        }))
    }

    fn look_ahead(&self, from: u32, pages: u32) -> Result<Proof, PagesError> {
        let mut chunk = Chunk::new(SCAN_CHUNK_PAGES);
        let mut proof = Proof::default();
        for number in from..pages {
            if let Some(page) = self.page(&mut chunk, number)? {
                if page.group_start > proof.group_start {
                    proof.group_start = page.group_start;
                    proof.stream_offset = page.stream_offset;
                }
                proof.valid_end = number + 1;
            }
        }
        Ok(proof)
    }

    fn page_count(&self) -> Result<u32, PagesError> {
        let pages = self.file_bytes()? / PAGE_BYTES as u64;
        Ok(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    fn page<'a>(
        &self,
        chunk: &'a mut Chunk,
        number: u32,
    ) -> Result<Option<PageView<'a>>, PagesError> {
        chunk
            .load(&*self.file, number)
            .map_err(PagesError::io("read", &self.path))?;
        Ok(chunk
            .bytes(number)
            .and_then(|bytes| read_data(bytes, self.salt, number, self.checked)))
    }
}

/// What the pages behind a bad one prove.
#[derive(Clone, Copy, Debug, Default)]
struct Proof {
    /// Every page before this one was durable.
    group_start: u32,
    /// Stream offset of the first page that proved it.
    stream_offset: u64,
    /// Number behind the last valid page.
    valid_end: u32,
}

/// A run of neighbouring pages in memory. Pages that the medium cannot read are zeros.
struct Chunk {
    pages_max: u32,
    first: u32,
    bytes: Vec<u8>,
}

impl Chunk {
    fn new(pages_max: u32) -> Self {
        Self {
            pages_max,
            first: 0,
            bytes: Vec::new(),
        }
    }

    fn load(&mut self, file: &dyn DiskFile, number: u32) -> io::Result<()> {
        if self.bytes(number).is_some() {
            return Ok(());
        }
        self.first = number;
        self.bytes.resize(self.pages_max as usize * PAGE_BYTES, 0);
        let offset = u64::from(number) * PAGE_BYTES as u64;
        match file.read_at(&mut self.bytes, offset) {
            Ok(read) => {
                self.bytes.truncate(read);
                return Ok(());
            }
            Err(error) if is_unreadable(&error) => {}
            Err(error) => return Err(error),
        }
        for (index, page) in self.bytes.chunks_mut(PAGE_BYTES).enumerate() {
            match file.read_at(page, offset + (index * PAGE_BYTES) as u64) {
                Ok(read) => page[read..].fill(0),
                Err(error) if is_unreadable(&error) => page.fill(0),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn bytes(&self, number: u32) -> Option<&[u8]> {
        let start = number.checked_sub(self.first)? as usize * PAGE_BYTES;
        self.bytes.get(start..start + PAGE_BYTES)
    }
}

/// Whether the medium, not the file system, failed: `EIO`, or a checksum of the file system's own.
fn is_unreadable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EBADMSG | libc::EUCLEAN)
    )
}

/// Puts the payloads of pages together and takes records off the front.
struct Assembler {
    buffer: Vec<u8>,
    consumed: usize,
    /// Logical offset of the next record, at `buffer[consumed]`.
    offset: u64,
    /// Whether bytes behind `offset` are missing; records go on at the next known record start.
    lost: bool,
    /// How far the lost bytes reach at least.
    lost_until: u64,
    damage: Vec<DamagedRange>,
}

impl Assembler {
    fn new(offset: u64) -> Self {
        Self {
            buffer: Vec::new(),
            consumed: 0,
            offset,
            lost: false,
            lost_until: offset,
            damage: Vec::new(),
        }
    }

    /// Stream offset that continues what is here.
    fn expected(&self) -> u64 {
        self.offset + (self.buffer.len() - self.consumed) as u64
    }

    /// Takes note that a page is missing here.
    fn lose(&mut self) {
        self.lost = true;
        self.lost_until = self.lost_until.max(self.expected());
        self.buffer.clear();
        self.consumed = 0;
    }

    /// Takes a page that is not before `offset`, except as the first page of a read in the middle.
    fn accept(&mut self, page: &PageView<'_>) {
        let starts_group = page.group_start == page.number;
        let interrupted = starts_group && self.consumed < self.buffer.len();
        if page.stream_offset != self.expected() || interrupted {
            self.lose();
        }
        let mut payload = page.payload;
        if self.lost {
            let skip = match (page.first_record, starts_group) {
                (NO_RECORD, false) => {
                    self.lost_until = self.lost_until.max(page.stream_end());
                    return;
                }
                (NO_RECORD, true) => 0,
                (first, _) => usize::from(first),
            };
            payload = &payload[skip..];
            self.resume(page.stream_offset + skip as u64);
        }
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(payload);
    }

    fn resume(&mut self, at: u64) {
        if at > self.offset {
            match self.damage.last_mut() {
                Some(before) if before.end == self.offset => before.end = at,
                _ => self.damage.push(DamagedRange {
                    start: self.offset,
                    end: at,
                }),
            }
        }
        self.offset = at;
        self.lost = false;
    }

    fn next_record(&mut self) -> Option<(u64, &[u8])> {
        let rest = self.buffer.get(self.consumed..)?;
        if rest.len() < FRAME_BYTES {
            return None;
        }
        let length = u32::from_le_bytes(array(rest, 0)) as usize;
        if length > RECORD_BYTES_MAX {
            // A sound page cannot say this; the writer that made it was not ours.
            self.lose();
            return None;
        }
        let end = FRAME_BYTES + length;
        if rest.len() < end {
            return None;
        }
        let start = self.offset;
        let from = self.consumed + FRAME_BYTES;
        self.consumed += end;
        self.offset += end as u64;
        Some((start, &self.buffer[from..from + length]))
    }

    /// Ends the stream: says how many bytes of an unfinished record are cut. `proof` is how far the
    /// stream is known to have reached when the end is lost.
    fn finish(&mut self, proof: u64) -> u64 {
        let cut = (self.buffer.len() - self.consumed) as u64;
        if self.lost {
            self.resume(self.lost_until.max(proof).max(self.offset));
        }
        cut
    }
}

#[cfg(test)]
mod tests;
