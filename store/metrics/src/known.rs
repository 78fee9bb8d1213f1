//! Which series of a tenant the head has, as a limit of series asks: now, without a view, whether or not they still
//! get samples. A flush forgets them when more than a quarter of them have had none since the flush before the last.

use crate::head::{Growing, HeadIndex};
use crate::order::pairs;
use std::sync::Arc;
use trefoil_model::LABEL_NAME_METRIC;

/// The series of a tenant in the head. Every answer is about the moment of its question.
pub struct KnownSeries {
    index: Arc<Growing<HeadIndex>>,
}

impl KnownSeries {
    pub(crate) fn new(index: Arc<Growing<HeadIndex>>) -> Self {
        Self { index }
    }

    /// Whether the head has the series with these canonical labels.
    #[must_use]
    pub fn contains(&self, canonical: &[u8]) -> bool {
        self.index.read().contains(canonical)
    }

    /// How many series the head has, of all shards.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.index.read().len())
    }

    /// How many of them have this metric name.
    #[must_use]
    pub fn count_of_metric(&self, metric: &[u8]) -> u64 {
        self.index
            .read()
            .count_of_pair(LABEL_NAME_METRIC.as_bytes(), metric)
    }
}

/// The metric name among canonical labels.
#[must_use]
pub fn metric_of(canonical: &[u8]) -> Option<&[u8]> {
    let mut pairs = pairs(canonical);
    pairs
        .find(|(name, _)| *name == LABEL_NAME_METRIC.as_bytes())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::{Labels, ShardId, TenantId};

    #[test]
    fn the_head_knows_its_series() {
        let mut index = HeadIndex::new(TenantId(1));
        let series = |metric: &str, job: &str| {
            Labels::from_pairs([(LABEL_NAME_METRIC, metric), ("job", job)])
        };
        for (metric, job) in [("up", "a"), ("up", "b"), ("x", "up"), ("up", "a")] {
            index.find_or_add(series(metric, job).canonical(), ShardId(0));
        }
        let known = KnownSeries::new(Arc::new(Growing::new(index)));
        assert_eq!(known.count(), 3);
        assert_eq!(known.count_of_metric(b"up"), 2);
        assert_eq!(known.count_of_metric(b"y"), 0);
        assert!(known.contains(series("up", "b").canonical()));
        assert!(!known.contains(series("x", "b").canonical()));
        assert_eq!(metric_of(series("x", "up").canonical()), Some(&b"x"[..]));
    }
}
