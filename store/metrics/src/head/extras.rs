//! What only some records of a generation have beside time and number: histograms and start timestamps.
//!
//! Histograms wait packed, some hundred bytes each; they were checked when the body was applied. Start timestamps lie in
//! chunks of their own, which exist only where there are any. A generation of plain numbers pays nothing.

use crate::columns::Column;
use crate::histogram::unpack;
use crate::value::HISTOGRAM_BITS;
use std::collections::BTreeMap;
use std::sync::Arc;
use trefoil_model::Millis;

/// Records per chunk of start timestamps: 64 KiB.
const CHUNK_RECORDS: usize = 8_192;

/// Memory of an entry beside its bytes, about.
const ENTRY_BYTES: usize = 48;

#[derive(Default)]
pub(super) struct Extras {
    /// Packed histograms by record.
    histograms: BTreeMap<u32, Box<[u8]>>,
    packed_bytes: usize,
    /// By chunk of records; a chunk without any is empty.
    starts: Vec<Box<[Millis]>>,
    start_bytes: usize,
}

impl Extras {
    /// Whether there are none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.starts.is_empty()
    }

    /// Says what a record has. `histogram`: packed and checked.
    pub(super) fn put(&mut self, record: u32, histogram: Option<&[u8]>, start: Millis) {
        if let Some(packed) = histogram {
            self.packed_bytes += packed.len();
            self.histograms.insert(record, packed.into());
        }
        if start != 0 {
            let at = record as usize;
            let chunk = at / CHUNK_RECORDS;
            if self.starts.len() <= chunk {
                self.starts.resize_with(chunk + 1, Box::default);
            }
            if self.starts[chunk].is_empty() {
                self.starts[chunk] = vec![0; CHUNK_RECORDS].into();
                self.start_bytes += CHUNK_RECORDS * size_of::<Millis>();
            }
            self.starts[chunk][at % CHUNK_RECORDS] = start;
        }
    }

    /// Gives the last sample of `column`, which is `record`, what the record has.
    pub(super) fn copy_to(&self, record: u32, column: &mut Column) {
        let is_marked = |value: &f64| value.to_bits() == HISTOGRAM_BITS;
        if column.values.last().is_some_and(is_marked)
            && let Some(packed) = self.histograms.get(&record)
        {
            let histogram = unpack(packed).expect("it was checked when it was applied");
            column.set_last_histogram(Arc::new(histogram));
        }
        let at = record as usize;
        let chunk = self.starts.get(at / CHUNK_RECORDS);
        let start = chunk.and_then(|chunk| chunk.get(at % CHUNK_RECORDS));
        column.set_last_start(start.copied().unwrap_or(0));
    }

    /// Memory held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.histograms.len() * ENTRY_BYTES + self.packed_bytes + self.start_bytes
    }

    /// How many plain records take as much memory, about.
    pub(super) fn records(&self, record_bytes: usize) -> usize {
        self.memory_bytes() / record_bytes
    }
}
