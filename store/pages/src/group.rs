//! [`RecordGroup`]: records that become durable together, laid out in pages as they arrive.
//!
//! Appending copies each byte once, straight to its place on disk; page headers and checksums are
//! filled in when the group is written. A written group stays readable, which makes it a cache of
//! recent records for free. Invariant: a group starts on a page of its own and with a record start,
//! so a reader can begin at any group.

use crate::Record;
use crate::page::{
    FRAME_BYTES, NO_RECORD, PAGE_BYTES, PAGE_HEADER_BYTES, PAGE_PAYLOAD_BYTES, PagePlace,
    RECORD_BYTES_MAX, array, first_record, seal_data, set_first_record,
};

/// Records in order, contiguous in the logical stream.
#[derive(Clone, Debug)]
pub struct RecordGroup {
    start: u64,
    end: u64,
    records: u64,
    /// Whole pages, except that the last one ends where its payload does until the group is sealed.
    pages: Vec<u8>,
}

impl RecordGroup {
    /// An empty group whose first record will start at the logical offset `start`.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self {
            start,
            end: start,
            records: 0,
            pages: Vec::new(),
        }
    }

    /// Bytes of the stream that a record of `record_bytes` takes.
    #[must_use]
    pub fn framed_bytes(record_bytes: usize) -> u64 {
        (FRAME_BYTES + record_bytes) as u64
    }

    /// Adds one record made of `parts` and gives its logical range.
    ///
    /// # Panics
    /// If the record is larger than [`RECORD_BYTES_MAX`]: callers have their own, smaller bounds.
    pub fn push(&mut self, parts: &[&[u8]]) -> (u64, u64) {
        let record_bytes: usize = parts.iter().map(|part| part.len()).sum();
        assert!(record_bytes <= RECORD_BYTES_MAX, "records are bounded");
        let start = self.end;
        self.start_record();
        self.extend(&(record_bytes as u32).to_le_bytes());
        for part in parts {
            self.extend(part);
        }
        self.end = start + Self::framed_bytes(record_bytes);
        self.records += 1;
        (start, self.end)
    }

    /// Logical offset of the first record.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Logical offset behind the last record.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many records the group has.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of memory that the group holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pages.capacity()
    }

    /// Bytes that the group takes on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> usize {
        self.pages.len().next_multiple_of(PAGE_BYTES)
    }

    /// The records from the logical offset `from` on, at least one and then no more than about
    /// `bytes_max` bytes. `None` if `from` is not a record start of this group.
    #[must_use]
    pub fn read(&self, from: u64, bytes_max: usize) -> Option<Vec<Record>> {
        let mut at = self.start;
        while at < from {
            at += FRAME_BYTES as u64 + u64::from(self.length_at(at)?);
        }
        if at != from || from == self.end {
            return None;
        }
        let mut records = Vec::new();
        let mut bytes_sum = 0;
        while at < self.end && (records.is_empty() || bytes_sum < bytes_max) {
            let mut bytes = vec![0; self.length_at(at)? as usize];
            self.copy_out(at + FRAME_BYTES as u64, &mut bytes)?;
            let end = at + Self::framed_bytes(bytes.len());
            bytes_sum += bytes.len();
            records.push(Record {
                start: at,
                end,
                bytes,
            });
            at = end;
        }
        Some(records)
    }

    /// Fills in headers and checksums for a place in a file, and gives the bytes to write there.
    /// An empty group is one empty page: a mark that everything before it is durable.
    pub(crate) fn seal(&mut self, salt: u64, first_page: u32) -> &[u8] {
        if self.pages.is_empty() {
            self.open_page();
        }
        let payload_bytes = (self.end - self.start) as usize;
        self.pages
            .resize(self.pages.len().next_multiple_of(PAGE_BYTES), 0);
        for (index, page) in self.pages.chunks_mut(PAGE_BYTES).enumerate() {
            let done = index * PAGE_PAYLOAD_BYTES;
            let place = PagePlace {
                salt,
                number: first_page + index as u32,
                group_start: first_page,
                stream_offset: self.start + done as u64,
            };
            let used = (payload_bytes - done).min(PAGE_PAYLOAD_BYTES);
            seal_data(page, used, place);
        }
        &self.pages
    }

    fn start_record(&mut self) {
        let within = self.pages.len() % PAGE_BYTES;
        if within == 0 {
            self.open_page();
            self.mark_first_record(0);
        } else {
            let page_start = self.pages.len() - within;
            if first_record(&self.pages[page_start..]) == NO_RECORD {
                self.mark_first_record(within - PAGE_HEADER_BYTES);
            }
        }
    }

    fn mark_first_record(&mut self, position: usize) {
        let page_start = (self.pages.len() - 1) / PAGE_BYTES * PAGE_BYTES;
        set_first_record(&mut self.pages[page_start..], position as u16);
    }

    fn open_page(&mut self) {
        let page_start = self.pages.len();
        self.pages.extend_from_slice(&[0; PAGE_HEADER_BYTES]);
        set_first_record(&mut self.pages[page_start..], NO_RECORD);
    }

    fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.pages.len().is_multiple_of(PAGE_BYTES) {
                self.open_page();
            }
            let room = PAGE_BYTES - self.pages.len() % PAGE_BYTES;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pages.extend_from_slice(now);
            bytes = later;
        }
    }

    fn length_at(&self, offset: u64) -> Option<u32> {
        let mut frame = [0; FRAME_BYTES];
        self.copy_out(offset, &mut frame)?;
        Some(u32::from_le_bytes(array(&frame, 0)))
    }

    /// Copies stream bytes; `None` past the end of the group.
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> Option<()> {
        if offset < self.start || offset + into.len() as u64 > self.end {
            return None;
        }
        let mut position = (offset - self.start) as usize;
        let mut done = 0;
        while done < into.len() {
            let within = position % PAGE_PAYLOAD_BYTES;
            let from = position / PAGE_PAYLOAD_BYTES * PAGE_BYTES + PAGE_HEADER_BYTES + within;
            let length = (PAGE_PAYLOAD_BYTES - within).min(into.len() - done);
            into[done..done + length].copy_from_slice(&self.pages[from..from + length]);
            done += length;
            position += length;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_all_sizes_are_read_back() {
        let sizes = [
            0,
            1,
            4051,
            4052,
            4053,
            0,
            8112,
            3,
            20_000,
            PAGE_PAYLOAD_BYTES,
            5,
        ];
        let mut group = RecordGroup::new(77);
        let mut starts = vec![];
        for (index, size) in sizes.into_iter().enumerate() {
            let bytes = vec![index as u8; size];
            let (left, right) = bytes.split_at(size / 3);
            starts.push(group.push(&[left, right]).0);
        }
        for sealed in [false, true] {
            if sealed {
                assert_eq!(group.seal(1, 1).len() % PAGE_BYTES, 0);
            }
            let all = group.read(77, usize::MAX).unwrap();
            assert_eq!(all.len(), sizes.len());
            for (index, record) in all.iter().enumerate() {
                assert_eq!(record.start, starts[index]);
                assert_eq!(record.bytes, vec![index as u8; sizes[index]]);
                let alone = group.read(record.start, 0).unwrap();
                assert_eq!(alone, std::slice::from_ref(record));
            }
            assert_eq!(group.read(78, 1), None);
            assert_eq!(group.read(group.end(), 1), None);
        }
    }
}
