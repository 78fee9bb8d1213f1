//! One side's buckets: which there are and how much is in each, as two columns.

use crate::ModelError;
use serde::{Deserialize, Serialize};

/// Buckets by index. The columns are equally long, and indexes ascend strictly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Buckets {
    indexes: Vec<i32>,
    counts: Vec<f64>,
}

impl Buckets {
    /// Buckets from runs of consecutive ones, as protocols and exposition formats carry them: each run is the distance to the
    /// end of the one before (the first: its first index) and a length.
    ///
    /// # Errors
    /// [`ModelError::Histogram`] when the lengths do not add up to the number of counts, or indexes leave their range.
    pub fn from_spans(spans: &[(i32, u32)], counts: Vec<f64>) -> Result<Self, ModelError> {
        let total: u64 = spans.iter().map(|(_, length)| u64::from(*length)).sum();
        if total != counts.len() as u64 {
            return Err(ModelError::Histogram(
                "the spans of a histogram do not fit its buckets",
            ));
        }
        let mut indexes = Vec::with_capacity(counts.len());
        let mut next = 0i64;
        for (offset, length) in spans {
            next += i64::from(*offset);
            for _ in 0..*length {
                let index = i32::try_from(next);
                indexes.push(index.map_err(|_| {
                    ModelError::Histogram("a bucket of a histogram is out of range")
                })?);
                next += 1;
            }
        }
        let buckets = Self { indexes, counts };
        buckets.check()?;
        Ok(buckets)
    }

    /// The runs of consecutive buckets, in the form of [`Buckets::from_spans`].
    #[must_use]
    pub fn spans(&self) -> Vec<(i32, u32)> {
        let mut spans: Vec<(i32, u32)> = Vec::new();
        let mut next = 0;
        for index in &self.indexes {
            match spans.last_mut() {
                Some((_, length)) if *index == next => *length += 1,
                _ => spans.push((index.wrapping_sub(next), 1)),
            }
            next = index.wrapping_add(1);
        }
        spans
    }

    /// The indexes, ascending.
    #[must_use]
    pub fn indexes(&self) -> &[i32] {
        &self.indexes
    }

    /// As many counts.
    #[must_use]
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// As many integers: how much more each count is than the one before, the first than 0. For counts that are whole numbers
    /// up to 2^53.
    pub fn deltas(&self) -> impl Iterator<Item = i64> + '_ {
        let mut last = 0;
        self.counts.iter().map(move |count| {
            let count = *count as i64;
            let delta = count.wrapping_sub(last);
            last = count;
            delta
        })
    }

    /// Whether no bucket is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// How many buckets are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indexes.len()
    }

    /// Index and count of each bucket, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + ExactSizeIterator + '_ {
        self.indexes
            .iter()
            .copied()
            .zip(self.counts.iter().copied())
    }

    pub(super) fn check(&self) -> Result<(), ModelError> {
        if self.indexes.len() != self.counts.len() || !self.indexes.is_sorted_by(|a, b| a < b) {
            return Err(ModelError::Histogram(
                "the buckets of a histogram are not in order",
            ));
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.indexes.len() * (size_of::<i32>() + size_of::<f64>())
    }

    pub(super) fn same_content(&self, other: &Self) -> bool {
        let bits = |counts: &[f64]| counts.iter().map(|c| c.to_bits()).collect::<Vec<_>>();
        self.indexes == other.indexes && bits(&self.counts) == bits(&other.counts)
    }

    pub(super) fn counts_mut(&mut self) -> &mut [f64] {
        &mut self.counts
    }

    pub(super) fn compact(&mut self) {
        self.retain(|_, count| count != 0.0);
    }

    /// Keeps the buckets that `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(i32, f64) -> bool) {
        if self.iter().all(|(index, count)| keep(index, count)) {
            return;
        }
        let kept = self.iter().filter(|(index, count)| keep(*index, *count));
        let (indexes, counts) = kept.unzip();
        *self = Self { indexes, counts };
    }

    /// Maps every count; buckets of which nothing is left go.
    #[must_use]
    pub fn map(&self, mut f: impl FnMut(i32, f64) -> f64) -> Self {
        let mapped = self.iter().map(|(index, count)| (index, f(index, count)));
        let (indexes, counts) = mapped.filter(|(_, count)| *count != 0.0).unzip();
        Self { indexes, counts }
    }

    /// Moves every bucket to where `to` says, which never decreases; those that meet are added.
    pub(super) fn merge_indexes(&mut self, to: impl Fn(i32) -> i32) {
        let mut kept = 0;
        for at in 0..self.indexes.len() {
            let (index, count) = (to(self.indexes[at]), self.counts[at]);
            if kept > 0 && self.indexes[kept - 1] == index {
                self.counts[kept - 1] += count;
            } else {
                (self.indexes[kept], self.counts[kept]) = (index, count);
                kept += 1;
            }
        }
        self.indexes.truncate(kept);
        self.counts.truncate(kept);
    }

    /// Lists the buckets of `other` too, those that are new with a count of zero.
    pub(super) fn list_also(&mut self, other: &Self) {
        if self.indexes == other.indexes {
            return;
        }
        *self = self.united(other);
    }

    fn united(&self, other: &Self) -> Self {
        let mut merged = Self::default();
        let (mut own, mut others) = (self.iter().peekable(), other.indexes.iter().peekable());
        loop {
            let (index, count) = match (own.peek(), others.peek()) {
                (Some((index, count)), Some(other)) if index <= *other => (*index, *count),
                (Some((index, count)), None) => (*index, *count),
                (_, Some(other)) => (**other, 0.0),
                (None, None) => break,
            };
            own.next_if(|(i, _)| *i == index);
            others.next_if(|i| **i == index);
            merged.indexes.push(index);
            merged.counts.push(count);
        }
        merged
    }

    /// Calls `f` with the place of each bucket of `other`, all of which are listed here too, and its count.
    pub(super) fn each_of(&mut self, other: &Self, mut f: impl FnMut(usize, &mut f64, f64)) {
        let mut at = 0;
        for (index, count) in other.iter() {
            while self.indexes[at] < index {
                at += 1;
            }
            f(at, &mut self.counts[at], count);
        }
    }
}
