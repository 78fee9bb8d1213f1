//! Bringing histograms to buckets that they share: a coarser schema, fewer custom bounds, a wider zero bucket.

use super::{Buckets, Histogram, SCHEMA_CUSTOM};
use crate::ModelError;
use std::sync::Arc;

/// What buckets a histogram has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) schema: i8,
    pub(super) zero_threshold: f64,
    pub(super) custom_bounds: Arc<[f64]>,
}

impl Histogram {
    pub(super) fn layout(&self) -> Layout {
        Layout {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            custom_bounds: self.custom_bounds.clone(),
        }
    }

    fn has_layout_of(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.zero_threshold == other.zero_threshold
            && (Arc::ptr_eq(&self.custom_bounds, &other.custom_bounds)
                || self.custom_bounds == other.custom_bounds)
    }

    /// The finest layout that both can be brought to, and whether custom bounds differ; `None`: both are equal already.
    ///
    /// # Errors
    /// [`ModelError::HistogramKinds`] when only one has custom buckets.
    pub(super) fn common_layout(&self, other: &Self) -> Result<Option<(Layout, bool)>, ModelError> {
        if self.is_custom() != other.is_custom() {
            return Err(ModelError::HistogramKinds);
        }
        if self.has_layout_of(other) {
            return Ok(None);
        }
        if self.is_custom() {
            let shared = |bound: &&f64| other.custom_bounds.contains(*bound);
            let layout = Layout {
                schema: SCHEMA_CUSTOM,
                zero_threshold: self.zero_threshold,
                custom_bounds: self.custom_bounds.iter().filter(shared).copied().collect(),
            };
            return Ok(Some((layout, self.custom_bounds != other.custom_bounds)));
        }
        let mut zero_threshold = self.zero_threshold.max(other.zero_threshold);
        loop {
            let wider = other.wider_threshold(self.wider_threshold(zero_threshold));
            if wider == zero_threshold {
                break;
            }
            zero_threshold = wider;
        }
        let layout = Layout {
            schema: self.schema.min(other.schema),
            zero_threshold,
            custom_bounds: self.custom_bounds.clone(),
        };
        Ok(Some((layout, false)))
    }

    /// The smallest zero threshold from `threshold` on that does not cut a bucket with observations in two.
    pub(super) fn wider_threshold(&self, mut threshold: f64) -> f64 {
        loop {
            let before = threshold;
            for (index, count) in self.positive.iter().chain(self.negative.iter()) {
                let bucket = self.exponential(index, count);
                if count != 0.0 && bucket.lower < threshold && bucket.upper > threshold {
                    threshold = bucket.upper;
                }
            }
            if threshold == before {
                return threshold;
            }
        }
    }

    /// Brings the histogram to a layout that is coarser in every way.
    pub(super) fn lay_out(&mut self, layout: &Layout) {
        if self.is_custom() {
            if self.custom_bounds != layout.custom_bounds {
                let new_index = self.new_custom_indexes(&layout.custom_bounds);
                self.positive
                    .merge_indexes(|index| new_index[index as usize]);
                self.custom_bounds = layout.custom_bounds.clone();
            }
            self.zero_threshold = layout.zero_threshold;
            return;
        }
        self.widen_zero(layout.zero_threshold);
        self.reduce_schema(layout.schema);
    }

    /// For each custom bucket, the one that it is part of when only `bounds` are left.
    fn new_custom_indexes(&self, bounds: &[f64]) -> Vec<i32> {
        let new = |bound: &f64| bounds.partition_point(|b| b < bound) as i32;
        let inner = self.custom_bounds.iter().map(new);
        inner.chain([bounds.len() as i32]).collect()
    }

    /// Moves the buckets inside a wider zero bucket into it. No bucket with observations reaches across its bounds.
    fn widen_zero(&mut self, threshold: f64) {
        if threshold == self.zero_threshold {
            return;
        }
        let schema = self.schema;
        let lower = |index: i32| super::bound_of(schema, index.saturating_sub(1));
        for side in [&mut self.positive, &mut self.negative] {
            for (index, count) in side.iter() {
                if lower(index) < threshold {
                    self.zero_count += count;
                }
            }
            side.retain(|index, _| lower(index) >= threshold);
        }
        self.zero_threshold = threshold;
    }

    /// Merges buckets to a coarser exponential schema; a schema that is not coarser changes nothing.
    pub fn reduce_schema(&mut self, schema: i8) {
        if self.is_custom() || schema >= self.schema {
            return;
        }
        let shift = u32::from(self.schema.abs_diff(schema));
        let coarser = |index: i32| ((index.saturating_sub(1)) >> shift) + 1;
        self.positive.merge_indexes(coarser);
        self.negative.merge_indexes(coarser);
        self.schema = schema;
    }

    /// Whether the counter behind `previous` and this histogram was reset in between, by the hint or else by comparison.
    #[must_use]
    pub fn is_reset_after(&self, previous: &Self) -> bool {
        use super::ResetHint::{Gauge, NotReset, Reset, Unknown};
        match self.reset_hint {
            Reset => true,
            NotReset => false,
            Unknown | Gauge => self.is_below(previous),
        }
    }

    /// Whether this goes on counting where `previous` was: both are counters of one layout, and nothing is lower.
    #[must_use]
    pub fn continues(&self, previous: &Self) -> bool {
        use super::ResetHint::{Gauge, Reset};
        previous.reset_hint != Gauge
            && !matches!(self.reset_hint, Gauge | Reset)
            && previous.schema == self.schema
            && previous.zero_threshold == self.zero_threshold
            && previous.custom_bounds == self.custom_bounds
            && !self.is_below(previous)
    }

    /// Whether some count is lower than in `previous`, whatever the hints say. A finer schema or a narrower zero bucket
    /// means that the counter began anew.
    #[must_use]
    pub fn is_below(&self, previous: &Self) -> bool {
        if self.count < previous.count || self.is_custom() != previous.is_custom() {
            return true;
        }
        if !self.is_custom()
            && (self.schema > previous.schema
                || self.zero_threshold < previous.zero_threshold
                || previous.wider_threshold(self.zero_threshold) != self.zero_threshold)
        {
            return true;
        }
        let Ok(common) = self.common_layout(previous) else {
            return true;
        };
        if let Some((layout, _)) = common {
            let (mut current, mut previous) = (self.clone(), previous.clone());
            current.lay_out(&layout);
            previous.lay_out(&layout);
            return current.has_lower_bucket_than(&previous);
        }
        self.has_lower_bucket_than(previous)
    }

    fn has_lower_bucket_than(&self, previous: &Self) -> bool {
        self.zero_count < previous.zero_count
            || has_lower(&self.positive, &previous.positive)
            || has_lower(&self.negative, &previous.negative)
    }
}

/// Whether some bucket of `previous` has less or is missing in `current`.
fn has_lower(current: &Buckets, previous: &Buckets) -> bool {
    if current.indexes() == previous.indexes() {
        let pairs = current.counts().iter().zip(previous.counts());
        return pairs
            .into_iter()
            .any(|(current, previous)| current < previous);
    }
    let mut at = 0;
    previous.iter().any(|(index, count)| {
        at += current.indexes()[at..].partition_point(|i| *i < index);
        let found = current.indexes().get(at) == Some(&index);
        (if found { current.counts()[at] } else { 0.0 }) < count
    })
}
