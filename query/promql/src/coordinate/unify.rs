//! Rows that turn out to be the same series, after names were dropped or labels changed.

use crate::{
    QueryError,
    evaluate::without_name,
    pace::{LOOKS_OF_ROW, Pace},
    row::{Row, is_absent},
};
use std::collections::HashMap;
use trefoil_model::Labels;

/// Makes one row of rows with equal labels, in the order of the first of them.
///
/// # Errors
/// [`QueryError::Execution`] with Prometheus' text when two of them have a sample at the same time; those of the pace.
pub(crate) fn unify(rows: Vec<Row>, pace: &mut Pace<'_>) -> Result<Vec<Row>, QueryError> {
    let mut indexes: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
    let mut unified: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        pace.look(LOOKS_OF_ROW)?;
        match indexes.get(&row.labels) {
            None => {
                indexes.insert(row.labels.clone(), unified.len());
                unified.push(row);
            }
            Some(at) => {
                pace.look(row.looks())?;
                fill_in(&mut unified[*at], &row)?;
            }
        }
    }
    Ok(unified)
}

fn fill_in(into: &mut Row, row: &Row) -> Result<(), QueryError> {
    into.drop_name |= row.drop_name;
    for at in 0..row.values.len().min(into.values.len()) {
        if is_absent(row.values[at]) {
            continue;
        }
        if !is_absent(into.values[at]) {
            return Err(same_labels());
        }
        into.put(at, row.at(at));
    }
    Ok(())
}

/// Prometheus' error for two series that became one.
pub(crate) fn same_labels() -> QueryError {
    QueryError::execution("vector cannot contain metrics with the same labelset")
}

/// Removes the names whose removal was delayed, and unifies.
pub(crate) fn remove_names(
    mut rows: Vec<Row>,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    for row in rows.iter_mut().filter(|row| row.drop_name) {
        pace.look(LOOKS_OF_ROW)?;
        row.labels = without_name(&row.labels);
        row.drop_name = false;
    }
    unify(rows, pace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, row::ABSENT};

    fn row(name: &str, values: &[f64]) -> Row {
        let labels = Labels::from_pairs([("__name__", name), ("x", "y")]);
        Row::floats(labels, true, values.to_vec())
    }

    #[test]
    fn series_that_take_turns_become_one() {
        let rows = vec![row("a", &[1.0, ABSENT]), row("b", &[ABSENT, 2.0])];
        let budget = Budget::default();
        let mut pace = Pace::new(&budget);
        let unified = remove_names(rows, &mut pace).expect("no overlap");
        assert_eq!(unified.len(), 1);
        assert_eq!(unified[0].values, [1.0, 2.0]);
        let rows = vec![row("a", &[1.0]), row("b", &[2.0])];
        assert_eq!(remove_names(rows, &mut pace), Err(same_labels()));
    }
}
