//! One page as bytes: layout, sealing, checking. Drawn in `docs/formats/pages.md`.
//!
//! ```text
//!  0  4  magic "TFpg"              16  4  page number in the file
//!  4  1  format version, 1         20  4  first page of this page's group
//!  5  1  kind: 1 header, 2 data    24  8  stream offset of the first payload byte
//!  6  2  payload bytes used        32  2  payload position of the first record start, 0xffff: none
//!  8  8  salt of the file          34  2  zero
//!                                  36  4  crc32c of bytes 0..36 and of the used payload
//! 40  .. payload, then zeros up to 4096
//! ```
//! All numbers are little-endian. The payloads of a file, in page order, are one logical stream; in it
//! a record is its length (4 bytes) and its bytes.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a page on disk. Fixed by the format: a sector multiple that file systems map in one piece.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of the stream that a full page carries.
pub const PAGE_PAYLOAD_BYTES: usize = PAGE_BYTES - PAGE_HEADER_BYTES;

/// The largest record in bytes. A length above it is malformed, so that a reader's buffer is bounded.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// The largest note in a file header in bytes: what one page holds besides the fixed fields.
pub const NOTE_BYTES_MAX: usize = PAGE_PAYLOAD_BYTES - HEADER_FIXED_BYTES;

pub(crate) const PAGE_HEADER_BYTES: usize = 40;
pub(crate) const NO_RECORD: u16 = u16::MAX;
pub(crate) const FORMAT_VERSION: u8 = 1;
/// Bytes of a record's length field.
pub(crate) const FRAME_BYTES: usize = 4;

const MAGIC: [u8; 4] = *b"TFpg";
const KIND_HEADER: u8 = 1;
const KIND_DATA: u8 = 2;
const CHECKSUM_AT: usize = 36;
const FIRST_RECORD_AT: usize = 32;
const HEADER_FIXED_BYTES: usize = 38;

const _: () = assert!(PAGE_PAYLOAD_BYTES < NO_RECORD as usize);

/// What a page file says about itself in its first page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// What the file is for, for example `*b"jrnl"`. A file of another purpose is refused.
    pub purpose: [u8; 4],
    /// The history that the file belongs to (a node's lineage id).
    pub lineage: u128,
    /// Number of the file, never used twice within a lineage and directory: with the lineage it makes
    /// the salt that separates this file's pages from stale ones in recycled space.
    pub number: u64,
    /// Logical offset of the first stream byte.
    pub base: u64,
    /// Bytes of the owner's own, at most [`NOTE_BYTES_MAX`].
    pub note: Vec<u8>,
}

impl FileHeader {
    /// The salt of all pages of this file.
    pub(crate) fn salt(&self) -> u64 {
        xxh3_64_with_seed(&self.lineage.to_le_bytes(), self.number)
    }

    /// Page 0 of the file.
    ///
    /// # Panics
    /// If the note is longer than [`NOTE_BYTES_MAX`]: the owner builds it and knows the bound.
    pub(crate) fn to_page(&self) -> Vec<u8> {
        assert!(self.note.len() <= NOTE_BYTES_MAX, "the note fits the page");
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.extend_from_slice(&[0; PAGE_HEADER_BYTES]);
        page.extend_from_slice(&self.purpose);
        page.extend_from_slice(&self.lineage.to_le_bytes());
        page.extend_from_slice(&self.number.to_le_bytes());
        page.extend_from_slice(&self.base.to_le_bytes());
        page.extend_from_slice(&(self.note.len() as u16).to_le_bytes());
        page.extend_from_slice(&self.note);
        let used = page.len() - PAGE_HEADER_BYTES;
        page.resize(PAGE_BYTES, 0);
        set_first_record(&mut page, NO_RECORD);
        let place = PagePlace {
            salt: self.salt(),
            number: 0,
            group_start: 0,
            stream_offset: self.base,
        };
        seal(&mut page, KIND_HEADER, used, place);
        page
    }

    /// The header in page 0, or why there is none: `Err(Some(version))` for a foreign format version.
    pub(crate) fn from_page(page: &[u8]) -> Result<Self, Option<u8>> {
        let version = page.get(4).copied().ok_or(None)?;
        if page.get(0..4) != Some(&MAGIC) {
            return Err(None);
        }
        if version != FORMAT_VERSION {
            return Err(Some(version));
        }
        let view = check(page, KIND_HEADER, true).ok_or(None)?;
        let fixed = view.payload.get(..HEADER_FIXED_BYTES).ok_or(None)?;
        let note_bytes = usize::from(u16::from_le_bytes(array(fixed, 36)));
        let note = view.payload.get(HEADER_FIXED_BYTES..).ok_or(None)?;
        let header = Self {
            purpose: array(fixed, 0),
            lineage: u128::from_le_bytes(array(fixed, 4)),
            number: u64::from_le_bytes(array(fixed, 20)),
            base: u64::from_le_bytes(array(fixed, 28)),
            note: note.to_owned(),
        };
        let sound = note.len() == note_bytes
            && view.number == 0
            && view.salt == header.salt()
            && view.stream_offset == header.base;
        if sound { Ok(header) } else { Err(None) }
    }
}

/// Where a page lies: what its writer puts into it besides the payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagePlace {
    pub(crate) salt: u64,
    pub(crate) number: u32,
    pub(crate) group_start: u32,
    pub(crate) stream_offset: u64,
}

/// A page whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageView<'a> {
    pub(crate) salt: u64,
    pub(crate) number: u32,
    pub(crate) group_start: u32,
    pub(crate) stream_offset: u64,
    /// Payload position of the first record start, or [`NO_RECORD`].
    pub(crate) first_record: u16,
    pub(crate) payload: &'a [u8],
}

impl PageView<'_> {
    /// Logical offset behind the page's payload.
    pub(crate) fn stream_end(&self) -> u64 {
        self.stream_offset + self.payload.len() as u64
    }
}

/// Notes in an unsealed page where its first record starts.
pub(crate) fn set_first_record(page: &mut [u8], position: u16) {
    page[FIRST_RECORD_AT..FIRST_RECORD_AT + 2].copy_from_slice(&position.to_le_bytes());
}

/// Where the first record of a page starts, sealed or not, or [`NO_RECORD`].
pub(crate) fn first_record(page: &[u8]) -> u16 {
    u16::from_le_bytes(array(page, FIRST_RECORD_AT))
}

/// Completes a data page of exactly [`PAGE_BYTES`] whose payload and first record are in place.
pub(crate) fn seal_data(page: &mut [u8], used: usize, place: PagePlace) {
    seal(page, KIND_DATA, used, place);
}

fn seal(page: &mut [u8], kind: u8, used: usize, place: PagePlace) {
    assert!(page.len() == PAGE_BYTES && used <= PAGE_PAYLOAD_BYTES);
    page[0..4].copy_from_slice(&MAGIC);
    page[4] = FORMAT_VERSION;
    page[5] = kind;
    page[6..8].copy_from_slice(&(used as u16).to_le_bytes());
    page[8..16].copy_from_slice(&place.salt.to_le_bytes());
    page[16..20].copy_from_slice(&place.number.to_le_bytes());
    page[20..24].copy_from_slice(&place.group_start.to_le_bytes());
    page[24..32].copy_from_slice(&place.stream_offset.to_le_bytes());
    page[34..36].copy_from_slice(&[0, 0]);
    let checksum = checksum(page, used);
    page[CHECKSUM_AT..PAGE_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// The data page in these bytes if it is whole, of this file and at this place; `None` otherwise. Its checksum is looked at
/// if `checked`, and only a test may not want that.
pub(crate) fn read_data(
    page: &[u8],
    salt: u64,
    number: u32,
    checked: bool,
) -> Option<PageView<'_>> {
    // The salt first: preallocated and stale pages are refused without a checksum.
    if page.len() != PAGE_BYTES || page[8..16] != salt.to_le_bytes() {
        return None;
    }
    let view = check(page, KIND_DATA, checked)?;
    let first = usize::from(view.first_record);
    let sound = view.number == number
        && view.group_start <= number
        && (view.first_record == NO_RECORD || first < view.payload.len())
        && view.stream_offset.checked_add(PAGE_BYTES as u64).is_some();
    sound.then_some(view)
}

fn check(page: &[u8], kind: u8, checked: bool) -> Option<PageView<'_>> {
    if page.len() != PAGE_BYTES || page[0..4] != MAGIC {
        return None;
    }
    let used = usize::from(u16::from_le_bytes(array(page, 6)));
    let right_kind = page[4] == FORMAT_VERSION && page[5] == kind;
    if !right_kind || used > PAGE_PAYLOAD_BYTES {
        return None;
    }
    if checked && checksum(page, used) != u32::from_le_bytes(array(page, CHECKSUM_AT)) {
        return None;
    }
    Some(PageView {
        salt: u64::from_le_bytes(array(page, 8)),
        number: u32::from_le_bytes(array(page, 16)),
        group_start: u32::from_le_bytes(array(page, 20)),
        stream_offset: u64::from_le_bytes(array(page, 24)),
        first_record: first_record(page),
        payload: &page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + used],
    })
}

fn checksum(page: &[u8], used: usize) -> u32 {
    let head = crc32c::crc32c(&page[..CHECKSUM_AT]);
    crc32c::crc32c_append(head, &page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + used])
}

/// Makes the checksum of a changed page right again, as far as its claims allow.
#[cfg(test)]
pub(crate) fn correct_checksum(page: &mut [u8]) {
    let used = usize::from(u16::from_le_bytes(array(page, 6))).min(PAGE_PAYLOAD_BYTES);
    let checksum = checksum(page, used);
    page[CHECKSUM_AT..PAGE_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// The `N` bytes at `at`. Callers have checked that they are there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            purpose: *b"test",
            lineage: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
            number: 7,
            base: 1000,
            note: b"note".to_vec(),
        }
    }

    #[test]
    fn header_page_is_frozen() {
        let page = header().to_page();
        let hexadecimal: String = page[..88].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hexadecimal, include_str!("golden/header_page.hex").trim());
        assert_eq!(FileHeader::from_page(&page), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_page_is_noticed() {
        let page = header().to_page();
        let used = HEADER_FIXED_BYTES + 4;
        for bit in 0..(PAGE_HEADER_BYTES + used) * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(FileHeader::from_page(&damaged), Ok(header()), "bit {bit}");
        }
        assert_eq!(FileHeader::from_page(&page[..4095]), Err(None));
        assert_eq!(FileHeader::from_page(&[]), Err(None));
    }

    #[test]
    fn a_page_counts_only_in_its_file_and_place() {
        let mut page = vec![0; PAGE_BYTES];
        let place = PagePlace {
            salt: 5,
            number: 3,
            group_start: 2,
            stream_offset: 100,
        };
        set_first_record(&mut page, NO_RECORD);
        seal_data(&mut page, 10, place);
        assert!(read_data(&page, 5, 3, true).is_some());
        assert!(
            read_data(&page, 5, 4, true).is_none(),
            "a misdirected write"
        );
        assert!(read_data(&page, 6, 3, true).is_none(), "a recycled file");
        assert!(FileHeader::from_page(&page).is_err());
        assert!(read_data(&header().to_page(), header().salt(), 0, true).is_none());
    }

    #[test]
    fn a_foreign_version_is_named() {
        let mut page = header().to_page();
        page[4] = 9;
        assert_eq!(FileHeader::from_page(&page), Err(Some(9)));
    }
}
