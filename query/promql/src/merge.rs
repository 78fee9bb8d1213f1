//! Puts the answers of several evaluators to one part together.
//!
//! Evaluators answer for disjoint series. The merged answer does not depend on the order in which
//! the answers arrive: they are sorted by their first labels before they are merged.

use crate::{
    Budget, PartBody, PartResult, QueryError, pace::Pace, part::RawSeries, partial::GroupPartial,
    row::Row,
};
use std::collections::BTreeMap;
use trefoil_model::Labels;

/// Merges the answers to one part, as long as the budget lets it go on. Of no answers: no rows.
///
/// # Errors
/// [`QueryError::Internal`] when the answers are of different kinds; those of [`Budget::check`].
pub fn merge(results: Vec<PartResult>, budget: &Budget) -> Result<PartResult, QueryError> {
    let mut results = results.into_iter();
    let Some(mut merged) = results.next() else {
        return Ok(PartResult {
            body: PartBody::Rows(Vec::new()),
            annotations: crate::Annotations::default(),
        });
    };
    let mut bodies = Vec::with_capacity(results.len());
    for result in results {
        merged.annotations.merge(result.annotations);
        bodies.push(result.body);
    }
    if !bodies.is_empty() {
        bodies.push(merged.body);
        merged.body = merge_bodies(bodies, &mut Pace::new(budget))?;
    }
    Ok(merged)
}

fn merge_bodies(bodies: Vec<PartBody>, pace: &mut Pace<'_>) -> Result<PartBody, QueryError> {
    let mut rows: Vec<Vec<Row>> = Vec::new();
    let mut groups: Vec<Vec<GroupPartial>> = Vec::new();
    let mut samples: Vec<Vec<RawSeries>> = Vec::new();
    let count = bodies.len();
    for body in bodies {
        match body {
            PartBody::Rows(list) => rows.push(list),
            PartBody::Groups(list) => groups.push(list),
            PartBody::Samples(list) => samples.push(list),
        }
    }
    if rows.len() == count {
        return merge_sorted(rows, |row| &row.labels, pace).map(PartBody::Rows);
    }
    if samples.len() == count {
        return merge_sorted(samples, |raw| &raw.labels, pace).map(PartBody::Samples);
    }
    if groups.len() == count {
        return merge_groups(groups, pace).map(PartBody::Groups);
    }
    Err(mismatch())
}

fn mismatch() -> QueryError {
    QueryError::Internal("evaluators gave answers of different kinds to one part".into())
}

/// Concatenates and sorts; stable, so that equal labels stay in the order of the first labels.
fn merge_sorted<T>(
    mut lists: Vec<Vec<T>>,
    labels: impl Fn(&T) -> &Labels,
    pace: &mut Pace<'_>,
) -> Result<Vec<T>, QueryError> {
    lists.retain(|list| !list.is_empty());
    lists.sort_by(|a, b| labels(&a[0]).cmp(labels(&b[0])));
    let mut all: Vec<T> = lists.into_iter().flatten().collect();
    pace.sort_by(&mut all, |a, b| labels(a).cmp(labels(b)))?;
    Ok(all)
}

fn merge_groups(
    mut lists: Vec<Vec<GroupPartial>>,
    pace: &mut Pace<'_>,
) -> Result<Vec<GroupPartial>, QueryError> {
    // Any total order of the answers will do. Compensated sums make its choice invisible.
    lists.sort_by(|a, b| {
        let key = |list: &[GroupPartial]| list.first().map(|g| g.labels.clone());
        key(a).cmp(&key(b)).then_with(|| a.len().cmp(&b.len()))
    });
    let mut merged: BTreeMap<Labels, GroupPartial> = BTreeMap::new();
    for group in lists.into_iter().flatten() {
        pace.look(group.looks())?;
        match merged.get_mut(&group.labels) {
            None => drop(merged.insert(group.labels.clone(), group)),
            Some(existing) => {
                if !existing.merge(&group) {
                    return Err(mismatch());
                }
            }
        }
    }
    Ok(merged.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Annotations, partial::GroupColumn};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    fn rows(names: &[&str]) -> PartResult {
        let row = |name: &&str| Row::floats(Labels::from_pairs([("x", *name)]), false, vec![1.0]);
        PartResult {
            body: PartBody::Rows(names.iter().map(row).collect()),
            annotations: Annotations::default(),
        }
    }

    fn sum(value: f64) -> PartResult {
        let column = GroupColumn::Sum(vec![value], vec![0.0]);
        let group = GroupPartial::new(Labels::empty(), column);
        PartResult {
            body: PartBody::Groups(vec![group]),
            annotations: Annotations::default(),
        }
    }

    #[test]
    fn rows_come_in_order_of_labels() {
        let forth = merge(
            vec![rows(&["a", "c"]), rows(&["b"]), rows(&[])],
            &Budget::default(),
        )
        .expect("same kind");
        let back = merge(
            vec![rows(&[]), rows(&["b"]), rows(&["a", "c"])],
            &Budget::default(),
        )
        .expect("same kind");
        assert_eq!(forth, back);
        assert_eq!(forth, rows(&["a", "b", "c"]));
    }

    #[test]
    fn groups_are_added_and_kinds_are_checked() {
        let merged =
            merge(vec![sum(1.0), sum(2.0), sum(4.0)], &Budget::default()).expect("same kind");
        assert_eq!(merged, sum(7.0));
        assert!(merge(vec![sum(1.0), rows(&["a"])], &Budget::default()).is_err());
        assert!(merge(vec![], &Budget::default()).is_ok());
    }

    #[test]
    fn merging_ends_when_it_must() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let late = Budget::with_deadline(1, 1, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        let of = |body| PartResult {
            body,
            annotations: Annotations::default(),
        };
        let labels = |at: usize| Labels::from_pairs([("x", at.to_string().as_str())]);
        let many_rows = |_| {
            let rows = (0..10_000).map(|at| Row::floats(labels(at), false, vec![1.0]));
            of(PartBody::Rows(rows.collect()))
        };
        let many_groups = |_| {
            let column = || GroupColumn::Sum(vec![1.0; 1000], vec![0.0; 1000]);
            let groups = (0..100).map(|at| GroupPartial::new(labels(at), column()));
            of(PartBody::Groups(groups.collect()))
        };
        let all: [Vec<PartResult>; 2] = [
            (0..3).map(many_rows).collect(),
            (0..3).map(many_groups).collect(),
        ];
        for results in all {
            assert!(merge(results.clone(), &Budget::default()).is_ok());
            assert_eq!(merge(results, &late), Err(QueryError::Timeout));
            assert_eq!(asked.swap(0, Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn results_travel() {
        for result in [rows(&["a", "b"]), sum(1.5)] {
            let bytes = bincode::serialize(&result).expect("serialises");
            let back: PartResult = bincode::deserialize(&bytes).expect("deserialises");
            assert_eq!(back, result);
        }
    }
}
