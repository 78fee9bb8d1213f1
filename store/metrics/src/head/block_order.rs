//! The block order of a head's series: found with keys of a bounded number of series in memory, and with the label index
//! locked for a batch of them at a time, so that the applier and queries hardly wait.
//!
//! New series are sorted some at a time. These runs and what was in order before are merged, every run with the keys of its
//! next batch.

use super::{Growing, HeadIndex};
use crate::order::write_block_key;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

/// Series whose keys are copied under one lock: well below a millisecond.
const KEYS_AT_ONCE: usize = 512;

/// Series that are sorted at once, at least and at most. Their keys take 2 to 20 MB; 5 million new series make 77 runs.
const SORTED_AT_ONCE: RangeInclusive<usize> = 8_192..=65_536;

/// Runs up to which fewer series are sorted at once: the next keys of so many take less than those of one run.
const RUNS_FEW: usize = 16;

/// The first `series` series of the index in block order. `known`: the oldest of them in that order, all of them.
pub(super) fn block_order(index: &Growing<HeadIndex>, known: Vec<u32>, series: u32) -> Vec<u32> {
    let at_once = (series as usize - known.len()).div_ceil(RUNS_FEW);
    let at_once = at_once.clamp(*SORTED_AT_ONCE.start(), *SORTED_AT_ONCE.end());
    block_order_in_runs_of(at_once, index, known, series)
}

fn block_order_in_runs_of(
    sorted_at_once: usize,
    index: &Growing<HeadIndex>,
    known: Vec<u32>,
    series: u32,
) -> Vec<u32> {
    let new: Vec<u32> = (known.len() as u32..series).collect();
    if new.is_empty() {
        return known;
    }
    let sorted = new.chunks(sorted_at_once).map(|some| sorted(index, some));
    let mut runs: Vec<Run> = std::iter::once(known).chain(sorted).map(Run::new).collect();
    let mut first = BinaryHeap::new();
    for (number, run) in runs.iter_mut().enumerate() {
        let mut key = Vec::new();
        if run.copy_key(index, &mut key) {
            first.push(Reverse((key, number)));
        }
    }
    let mut merged = Vec::with_capacity(series as usize);
    while let Some(Reverse((mut key, number))) = first.pop() {
        let run = &mut runs[number];
        if first.is_empty() {
            merged.extend_from_slice(&run.series[run.next..]);
            break;
        }
        merged.push(run.series[run.next]);
        run.next += 1;
        if run.copy_key(index, &mut key) {
            first.push(Reverse((key, number)));
        }
    }
    merged
}

fn sorted(index: &Growing<HeadIndex>, series: &[u32]) -> Vec<u32> {
    let mut keys = Keys::default();
    for some in series.chunks(KEYS_AT_ONCE) {
        keys.add(index, some);
    }
    let mut places: Vec<usize> = (0..series.len()).collect();
    places.sort_unstable_by(|a, b| keys.of(*a).cmp(keys.of(*b)));
    places.into_iter().map(|place| series[place]).collect()
}

/// Series in order, and the keys of the next ones.
struct Run {
    series: Vec<u32>,
    next: usize,
    keys: Keys,
    /// Place in `series` of the first key.
    keys_at: usize,
}

impl Run {
    fn new(series: Vec<u32>) -> Self {
        Self {
            series,
            next: 0,
            keys: Keys::default(),
            keys_at: 0,
        }
    }

    /// Puts the next series' key into `key`; `false` behind the last.
    fn copy_key(&mut self, index: &Growing<HeadIndex>, key: &mut Vec<u8>) -> bool {
        if self.next == self.series.len() {
            self.keys = Keys::default();
            return false;
        }
        if self.next == self.keys_at + self.keys.ends.len() {
            let end = self.series.len().min(self.next + KEYS_AT_ONCE);
            self.keys.clear();
            self.keys.add(index, &self.series[self.next..end]);
            self.keys_at = self.next;
        }
        key.clear();
        key.extend_from_slice(self.keys.of(self.next - self.keys_at));
        true
    }
}

/// Block order keys of some series, in one piece of memory.
#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn add(&mut self, index: &Growing<HeadIndex>, series: &[u32]) {
        let index = index.read();
        let mut canonical = Vec::new();
        for number in series {
            canonical.clear();
            index.write_canonical(*number, &mut canonical);
            write_block_key(&canonical, &mut self.bytes);
            self.ends.push(self.bytes.len());
        }
    }

    /// The key that was added at this place.
    fn of(&self, place: usize) -> &[u8] {
        let start = match place {
            0 => 0,
            _ => self.ends[place - 1],
        };
        &self.bytes[start..self.ends[place]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use trefoil_model::{Labels, ShardId, TenantId};

    #[test]
    fn runs_are_merged_in_order() {
        let mut random = StdRng::seed_from_u64(1);
        for in_runs_of in [1, 7, 100, 5_000] {
            let index = Growing::new(HeadIndex::new(TenantId(1)));
            let mut known = Vec::new();
            for more in [0, 1, 900, 30] {
                for _ in 0..more {
                    let number = random.random_range(0..100_000u32).to_string();
                    let metric = format!("m{}", random.random_range(0..5u32));
                    let labels = Labels::from_pairs([("__name__", &*metric), ("id", &*number)]);
                    index.write().find_or_add(labels.canonical(), ShardId(0));
                }
                let series = index.read().len();
                known = block_order_in_runs_of(in_runs_of, &index, known, series);
                let mut keys = Keys::default();
                keys.add(&index, &known);
                assert_eq!(known.len(), series as usize);
                assert!((1..known.len()).all(|at| keys.of(at - 1) < keys.of(at)));
            }
        }
    }
}
