//! How many series the values of labels have. Every shard is answered for by one owner, so adding up counts each series
//! once, however many replicas it has.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trefoil_model::{Labels, Millis, TimeRange};
use trefoil_query_promql::{Budget, Matcher, QueryError};

/// Memory of a counted value beside its text, about.
const VALUE_BYTES: usize = 64;

/// Which series are counted, by which labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// A series counts when it fits all matchers of one of these; all series when there is none.
    pub(crate) alternatives: Vec<Vec<Matcher>>,
    /// First millisecond, inclusive.
    pub(crate) start: Millis,
    /// Last millisecond, inclusive.
    pub(crate) end: Millis,
    /// Labels of interest; all when there is none.
    pub(crate) names: Vec<String>,
    /// Whether a series must have a sample in the range; otherwise storage windows decide.
    pub(crate) is_exact: bool,
}

impl Counts {
    /// The times for which whoever answers must be complete.
    pub(crate) fn reach(&self) -> TimeRange {
        TimeRange {
            start: self.start,
            end: self.end.saturating_add(1),
        }
    }
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) series: u64,
    /// Of each label, how many series have each value.
    pub(crate) labels: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Counted {
    /// Counts a series. What it takes is held in the budget for good.
    ///
    /// # Errors
    /// When the query may not have more bytes, or its time is over.
    pub(super) fn add(
        &mut self,
        labels: &Labels,
        names: &[String],
        budget: &Budget,
    ) -> Result<(), QueryError> {
        budget.check()?;
        self.series += 1;
        for (name, value) in labels.iter() {
            if names.is_empty() || names.iter().any(|wanted| wanted == name) {
                self.add_value(name, value, 1, budget)?;
            }
        }
        Ok(())
    }

    /// Counts so many series that have this value, but not as series.
    ///
    /// # Errors
    /// As [`Counted::add`].
    pub(super) fn add_value(
        &mut self,
        name: &str,
        value: &str,
        series: u64,
        budget: &Budget,
    ) -> Result<(), QueryError> {
        if !self.labels.contains_key(name) {
            self.labels.insert(name.to_owned(), BTreeMap::new());
        }
        let Some(values) = self.labels.get_mut(name) else {
            return Ok(());
        };
        if let Some(count) = values.get_mut(value) {
            *count += series;
            return Ok(());
        }
        budget.hold_bytes(value.len() + VALUE_BYTES)?;
        values.insert(value.to_owned(), series);
        Ok(())
    }

    /// Adds what was counted for other shards.
    pub(super) fn merge(&mut self, other: Self) {
        self.series += other.series;
        for (name, values) in other.labels {
            let own = self.labels.entry(name).or_default();
            for (value, series) in values {
                *own.entry(value).or_default() += series;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_shards() {
        let budget = Budget::with_deadline(1, 10_000, || false);
        let labels = |job: &str| Labels::from_pairs([("__name__", "up"), ("job", job)]);
        let mut one = Counted::default();
        let mut other = Counted::default();
        for job in ["a", "b"] {
            one.add(&labels(job), &[], &budget)
                .expect("it is within the budget");
        }
        let names = ["job".to_owned()];
        other
            .add(&labels("b"), &names, &budget)
            .expect("it is within the budget");
        one.merge(other);
        let text = format!("{:?}", one.labels);
        let expected = r#"{"__name__": {"up": 2}, "job": {"a": 1, "b": 2}}"#;
        assert_eq!((one.series, text.as_str()), (3, expected));
        let small = Budget::with_deadline(1, 10, || false);
        let error = Counted::default().add(&labels("a"), &[], &small);
        assert_eq!(error.expect_err("too many bytes").error_type(), "execution");
    }
}
