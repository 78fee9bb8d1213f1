//! Which series carry a label: ascending series numbers, coded as runs while they are added.
//!
//! ```text
//! postings = run*
//! run      = varint gap << 1 | more | (more: varint length - 2)
//!            gap: numbers skipped behind the previous run (the first: before it)
//! ```
//! Series are numbered so that neighbours are alike, which makes most sets a few long runs. The same
//! bytes serve the head, where they only grow, and blocks.

use crate::rows::read_short;
use roaring::RoaringBitmap;
use std::ops::Range;
use trefoil_model::{read_varint, write_varint};

/// A growing set of ascending numbers. The last run stays open and costs no allocation.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    closed: Vec<u8>,
    /// One behind the last closed run.
    closed_end: u32,
    open_start: u32,
    open_end: u32,
}

impl Postings {
    /// The set of one number.
    pub(crate) fn one(number: u32) -> Self {
        Self {
            open_start: number,
            open_end: number + 1,
            ..Self::default()
        }
    }

    /// Adds a number, which may be the first, above all others.
    pub(crate) fn push_or_begin(&mut self, number: u32) {
        if self.open_end == 0 {
            *self = Self::one(number);
        } else {
            self.push(number);
        }
    }

    /// Adds a number above all others; adding the largest again changes nothing.
    pub(crate) fn push(&mut self, number: u32) {
        if number == self.open_end {
            self.open_end += 1;
        } else if number > self.open_end {
            self.write_open();
            (self.open_start, self.open_end) = (number, number + 1);
        } else {
            assert!(number + 1 == self.open_end, "postings only grow");
        }
    }

    fn write_open(&mut self) {
        write_run(
            &mut self.closed,
            self.closed_end,
            self.open_start,
            self.open_end,
        );
        self.closed_end = self.open_end;
    }

    /// Appends the coded set.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.closed);
        write_run(out, self.closed_end, self.open_start, self.open_end);
    }

    /// Adds the set to `out`.
    pub(crate) fn collect(&self, out: &mut RoaringBitmap) {
        read_postings(&self.closed, u32::MAX, out).expect("closed runs are written here");
        if self.open_end > self.open_start {
            out.insert_range(self.open_start..self.open_end);
        }
    }

    /// The numbers as ascending ranges that do not touch, until `each` wants no more. Says whether it wanted all.
    pub(crate) fn each_run(&self, mut each: impl FnMut(Range<u32>) -> bool) -> bool {
        let closed = read_runs(&self.closed, u32::MAX, &mut each);
        let wants_more = closed.expect("closed runs are written here");
        wants_more && (self.open_end == self.open_start || each(self.open_start..self.open_end))
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.closed.capacity()
    }
}

fn write_run(out: &mut Vec<u8>, previous_end: u32, start: u32, end: u32) {
    let more = end - start > 1;
    write_varint(out, u64::from(start - previous_end) << 1 | u64::from(more));
    if more {
        write_varint(out, u64::from(end - start - 2));
    }
}

/// Adds a coded set, whose numbers are all below `limit`, to `out`. `None`: it is malformed.
pub(crate) fn read_postings(bytes: &[u8], limit: u32, out: &mut RoaringBitmap) -> Option<()> {
    let insert = |run: Range<u32>| {
        match run.len() {
            1 => out.insert(run.start),
            _ => out.insert_range(run) > 0,
        };
        true
    };
    read_runs(bytes, limit, insert).map(drop)
}

/// The numbers of a coded set, which are all below `limit`, as ascending ranges that do not touch, until `each` wants no
/// more. Says whether it wanted all. `None`: the set is malformed.
#[inline]
pub(crate) fn read_runs(
    bytes: &[u8],
    limit: u32,
    mut each: impl FnMut(Range<u32>) -> bool,
) -> Option<bool> {
    let mut at = 0;
    let mut end = 0u32;
    while at < bytes.len() {
        let code = read_short(bytes, &mut at)?;
        let length = if code & 1 == 1 {
            u32::try_from(read_varint(bytes, &mut at)?)
                .ok()?
                .checked_add(2)?
        } else {
            1
        };
        let start = end.checked_add(u32::try_from(code >> 1).ok()?)?;
        end = start.checked_add(length).filter(|end| *end <= limit)?;
        if !each(start..end) {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn what_is_pushed_is_read() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..500 {
            let first = random.random_range(0..5);
            let mut postings = Postings::one(first);
            let mut expected = RoaringBitmap::from_iter([first]);
            let mut number = first;
            for _ in 0..random.random_range(0..100) {
                number += if random.random_bool(0.8) {
                    1
                } else {
                    random.random_range(0..1_000)
                };
                postings.push(number);
                expected.insert(number);
            }
            let mut collected = RoaringBitmap::new();
            postings.collect(&mut collected);
            assert_eq!(collected, expected);
            let mut bytes = Vec::new();
            postings.write(&mut bytes);
            let mut back = RoaringBitmap::new();
            assert_eq!(read_postings(&bytes, number + 1, &mut back), Some(()));
            assert_eq!(back, expected);
            assert_eq!(
                read_postings(&bytes, number, &mut RoaringBitmap::new()),
                None
            );
        }
    }

    #[test]
    fn bytes_are_frozen() {
        let mut postings = Postings::one(3);
        for number in [4, 5, 5, 9, 300] {
            postings.push(number);
        }
        let mut bytes = Vec::new();
        postings.write(&mut bytes);
        assert_eq!(bytes, [7, 1, 6, 0xc4, 4]);
    }
}
