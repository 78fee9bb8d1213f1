//! Which series of a tenant the node has, as a limit of series asks: now, without a view. Those in the head are there, whether or
//! not they still get samples; those that count are the active ones ([`crate::active`]).

use crate::active::{Active, metric_hash};
use crate::head::{Growing, HeadIndex};
use crate::order::pairs;
use parking_lot::RwLock;
use std::sync::Arc;
use trefoil_model::{LABEL_NAME_METRIC, ShardSet};

/// The series of a tenant. Every answer is about the moment of its question.
pub struct KnownSeries {
    /// That of the head; none while nothing is in it.
    index: Option<Arc<Growing<HeadIndex>>>,
    active: Arc<RwLock<Active>>,
}

impl KnownSeries {
    pub(crate) fn new(index: Option<Arc<Growing<HeadIndex>>>, active: Arc<RwLock<Active>>) -> Self {
        Self { index, active }
    }

    /// Those of the series that are there, by the low halves of their hashes: wrong once in 2^64 divided by the number of
    /// series.
    #[must_use]
    pub fn present(&self, series: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut present = Vec::new();
        let mut others = Vec::new();
        let active = self.active.read();
        for low in series {
            match active.contains(low) {
                true => present.push(low),
                false => others.push(low),
            }
        }
        drop(active);
        if let Some(index) = &self.index
            && !others.is_empty()
        {
            let index = index.read();
            present.extend(others.into_iter().filter(|low| index.contains_hash(*low)));
        }
        present
    }

    /// How many series of these shards are active.
    #[must_use]
    pub fn count(&self, shards: &ShardSet) -> u64 {
        self.active.read().count(shards)
    }

    /// How many of them have this metric name.
    #[must_use]
    pub fn count_of_metric(&self, metric: &[u8], shards: &ShardSet) -> u64 {
        let active = self.active.read();
        active.count_of_metric(metric_hash(metric), shards)
    }
}

/// The metric name among canonical labels.
#[must_use]
pub fn metric_of(canonical: &[u8]) -> Option<&[u8]> {
    let mut pairs = pairs(canonical);
    let metric = pairs.find(|(name, _)| *name == LABEL_NAME_METRIC.as_bytes());
    metric.map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::Labels;

    #[test]
    fn the_metric_is_found_among_labels() {
        let labels = Labels::from_pairs([("A", "a"), ("__name__", "up"), ("job", "b")]);
        assert_eq!(metric_of(labels.canonical()), Some(&b"up"[..]));
        assert_eq!(
            metric_of(Labels::from_pairs([("job", "b")]).canonical()),
            None
        );
    }
}
