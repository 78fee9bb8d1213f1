//! The label index of a tenant in a block: for each label name its values in ascending order, in pages,
//! each value with the series that carry it.

use super::directory::{NameEntry, PageEntry, write_text};
use super::{Cursor, Pointer};
use crate::MetricsError;
use crate::order::{pair_bytes, text_of};
use crate::postings::Postings;
use hashbrown::HashTable;
use trefoil_model::write_varint;
use xxhash_rust::xxh3::xxh3_64;

/// Uncompressed bytes after which a page is closed. One page answers an equality matcher.
const PAGE_BYTES: usize = 8 << 10;

struct Entry {
    /// The pair's canonical bytes in the arena, and how many of them are the name with its length.
    start: u32,
    end: u32,
    name: u32,
    postings: Postings,
}

/// Collects which series carry which label.
#[derive(Default)]
pub(super) struct LabelIndexWriter {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    table: HashTable<u32>,
    /// Entries of the previous series' labels: the next series mostly has the same at the same place.
    previous: Vec<u32>,
}

impl LabelIndexWriter {
    /// Adds a series; numbers ascend.
    pub(super) fn add(&mut self, series: u32, canonical: &[u8]) {
        let mut place = 0;
        for (bytes, name) in pair_bytes(canonical) {
            let guess = self.previous.get(place).copied();
            let entry = match guess.filter(|guess| self.bytes(*guess) == bytes) {
                Some(entry) => entry,
                None => self.find(bytes, name),
            };
            self.entries[entry as usize].postings.push_or_begin(series);
            match self.previous.get_mut(place) {
                Some(slot) => *slot = entry,
                None => self.previous.push(entry),
            }
            place += 1;
        }
        self.previous.truncate(place);
    }

    fn bytes(&self, entry: u32) -> &[u8] {
        let entry = &self.entries[entry as usize];
        &self.arena[entry.start as usize..entry.end as usize]
    }

    fn find(&mut self, bytes: &[u8], name: usize) -> u32 {
        let hash = xxh3_64(bytes);
        if let Some(found) = self.table.find(hash, |&entry| self.bytes(entry) == bytes) {
            return *found;
        }
        let number = self.entries.len() as u32;
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        self.entries.push(Entry {
            start,
            end: self.arena.len() as u32,
            name: name as u32,
            postings: Postings::default(),
        });
        let (arena, entries) = (&self.arena, &self.entries);
        self.table.insert_unique(hash, number, |&other| {
            let entry = &entries[other as usize];
            xxh3_64(&arena[entry.start as usize..entry.end as usize])
        });
        number
    }

    /// Name and value of an entry.
    fn pair(&self, entry: &Entry) -> (&[u8], &[u8]) {
        let bytes = &self.arena[entry.start as usize..entry.end as usize];
        let (name, value) = bytes.split_at(entry.name as usize);
        (text_of(name), text_of(value))
    }

    /// Writes all pages through `write`, and gives the directory's names.
    pub(super) fn finish(
        self,
        mut write: impl FnMut(&[u8]) -> Result<Pointer, MetricsError>,
    ) -> Result<Vec<NameEntry>, MetricsError> {
        let mut order: Vec<&Entry> = self.entries.iter().collect();
        order.sort_unstable_by_key(|entry| self.pair(entry));
        let mut names = Vec::new();
        for of_name in order.chunk_by(|a, b| self.pair(a).0 == self.pair(b).0) {
            let mut pages = Vec::new();
            let mut page = PageWriter::default();
            for entry in of_name {
                page.add(self.pair(entry).1, &entry.postings);
                if page.bytes.len() >= PAGE_BYTES {
                    pages.push(page.finish(&mut write)?);
                }
            }
            if page.values > 0 {
                pages.push(page.finish(&mut write)?);
            }
            let name = self.pair(of_name[0]).0.into();
            names.push(NameEntry { name, pages });
        }
        Ok(names)
    }
}

#[derive(Default)]
struct PageWriter {
    bytes: Vec<u8>,
    values: u32,
    first: Vec<u8>,
    previous: Vec<u8>,
    postings: Vec<u8>,
}

impl PageWriter {
    fn add(&mut self, value: &[u8], postings: &Postings) {
        if self.values == 0 {
            self.first.clear();
            self.first.extend_from_slice(value);
            self.previous.clear();
        }
        let shared = value
            .iter()
            .zip(&self.previous)
            .take_while(|(a, b)| a == b)
            .count();
        write_varint(&mut self.bytes, shared as u64);
        write_text(&value[shared..], &mut self.bytes);
        self.postings.clear();
        postings.write(&mut self.postings);
        write_text(&self.postings, &mut self.bytes);
        self.previous.clear();
        self.previous.extend_from_slice(value);
        self.values += 1;
    }

    fn finish(
        &mut self,
        write: &mut impl FnMut(&[u8]) -> Result<Pointer, MetricsError>,
    ) -> Result<PageEntry, MetricsError> {
        let mut content = Vec::with_capacity(self.bytes.len() + 5);
        write_varint(&mut content, u64::from(self.values));
        content.append(&mut self.bytes);
        let page = PageEntry {
            first_value: self.first.as_slice().into(),
            values: std::mem::take(&mut self.values),
            pointer: write(&content)?,
        };
        Ok(page)
    }
}

/// Walks the values of a page in ascending order. `None`: the page is malformed.
/// `each` gets a value and its coded postings and says whether to go on.
pub(super) fn read_page(
    bytes: &[u8],
    values: u32,
    mut each: impl FnMut(&[u8], &[u8]) -> Option<bool>,
) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    if cursor.varint()? != u64::from(values) {
        return None;
    }
    let mut value = Vec::new();
    for _ in 0..values {
        let shared = usize::try_from(cursor.varint()?).ok()?;
        if shared > value.len() {
            return None;
        }
        value.truncate(shared);
        value.extend_from_slice(cursor.text()?);
        let postings = cursor.text()?;
        if !each(&value, postings)? {
            return Some(());
        }
    }
    cursor.is_at_end().then_some(())
}
