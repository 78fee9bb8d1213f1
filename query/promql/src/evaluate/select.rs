//! Aggregations whose result consists of input series: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! Selecting among selected series gives the same as selecting among all, so evaluators select
//! candidates and the coordinator selects among those. Ties go to the series that comes first.

use super::{
    context::{Context, Scalars},
    grouping::Grouping,
};
use crate::{
    Annotations, Grid, QueryError,
    ast::{Aggregate, AggregateOp},
    format::general,
    functions::quantile::nan_first,
    note::Note,
    pace::{LOOKS_OF_ROW, Pace},
    row::{ABSENT, Row, is_absent},
};
use std::{cmp::Ordering, collections::HashMap};
use xxhash_rust::xxh64::xxh64;

/// Keeps the selected samples of `rows`; rows without any are dropped. At a single time the rows of a
/// group come in the order of selection.
///
/// # Errors
/// For parameters that select nothing; those of the pace.
pub(crate) fn select_series(
    aggregate: &Aggregate,
    rows: Vec<Row>,
    grid: Grid,
    context: &Context,
    annotations: &mut Annotations,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let Some(parameter) = &aggregate.parameter else {
        return Err(QueryError::Internal("the parameter is missing".into()));
    };
    let scalars = context.scalars(parameter, grid)?;
    if aggregate.op == AggregateOp::LimitRatio {
        check_ratios(&scalars, grid, parameter.span, annotations)?;
        return by_ratio(rows, &scalars, pace);
    }
    let counts = counts(&scalars, grid)?;
    let mut rows = rows;
    if matches!(aggregate.op, AggregateOp::TopK | AggregateOp::BottomK) {
        leave_out_histograms(aggregate, &mut rows, annotations, pace)?;
    }
    if grid.steps() == 1 {
        return at_one_time(aggregate, rows, counts[0], pace);
    }
    for members in groups(aggregate, &rows, pace)? {
        let mut keep = vec![vec![false; grid.steps()]; members.len()];
        for (at, count) in counts.iter().enumerate() {
            let selected = selected(aggregate.op, &rows, &members, (at, *count), pace)?;
            for member in selected {
                keep[member][at] = true;
            }
        }
        for (member, keep) in members.iter().zip(keep) {
            pace.look(keep.len())?;
            let values = rows[*member].values.iter_mut();
            for (value, _) in values.zip(keep).filter(|(_, keep)| !keep) {
                *value = ABSENT;
            }
        }
    }
    drop_empty(&mut rows, pace)?;
    Ok(rows)
}

/// Forgets rows without samples, and histograms of samples that were not selected.
fn drop_empty(rows: &mut Vec<Row>, pace: &mut Pace<'_>) -> Result<(), QueryError> {
    rows.retain(|row| !row.is_empty());
    for row in rows {
        pace.look(row.looks())?;
        row.tidy();
    }
    Ok(())
}

/// Only floats have an order.
fn leave_out_histograms(
    aggregate: &Aggregate,
    rows: &mut Vec<Row>,
    annotations: &mut Annotations,
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    if rows.iter().all(|row| row.histograms.is_empty()) {
        return Ok(());
    }
    for row in rows.iter_mut().filter(|row| !row.histograms.is_empty()) {
        let note = Note::IgnoredInAggregation(aggregate.op.text());
        note.tell(aggregate.operand.span, "", annotations);
        row.keep_floats();
    }
    drop_empty(rows, pace)
}

/// Members of each group as indexes of rows, groups in the order of their first row.
fn groups(
    aggregate: &Aggregate,
    rows: &[Row],
    pace: &mut Pace<'_>,
) -> Result<Vec<Vec<usize>>, QueryError> {
    // Names that are to go have gone from the rows already, or stay until the end of the query.
    let grouping = Grouping::of(aggregate, true);
    let mut indexes: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        pace.look(LOOKS_OF_ROW)?;
        let key = grouping.key(&row.labels, false);
        let group = *indexes.entry(key).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(at);
    }
    Ok(groups)
}

/// Which of `members` (as indexes into it) are selected at a time, so many at most, best first.
fn selected(
    op: AggregateOp,
    rows: &[Row],
    members: &[usize],
    (at, count): (usize, usize),
    pace: &mut Pace<'_>,
) -> Result<Vec<usize>, QueryError> {
    pace.look(members.len())?;
    let value = |member: &usize| rows[members[*member]].values[at];
    let present = |member: &usize| !is_absent(value(member));
    let mut candidates: Vec<usize> = (0..members.len()).filter(present).collect();
    let order = |a: &usize, b: &usize| {
        let (left, right) = (value(a), value(b));
        let by_value = match op {
            AggregateOp::TopK => best_first(right, left),
            AggregateOp::BottomK => {
                let nan_last = left.is_nan().cmp(&right.is_nan());
                nan_last.then(nan_first(&left, &right))
            }
            _ => Ordering::Equal,
        };
        by_value.then(a.cmp(b))
    };
    // Only what is selected is sorted.
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, order);
        candidates.truncate(count);
    }
    pace.sort_by(&mut candidates, order)?;
    Ok(candidates)
}

/// NaN is the worst.
fn best_first(a: f64, b: f64) -> Ordering {
    nan_first(&a, &b)
}

fn at_one_time(
    aggregate: &Aggregate,
    rows: Vec<Row>,
    count: usize,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let mut order: Vec<usize> = Vec::new();
    for members in groups(aggregate, &rows, pace)? {
        let selected = selected(aggregate.op, &rows, &members, (0, count), pace)?;
        order.extend(selected.into_iter().map(|member| members[member]));
    }
    let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|at| rows[at].take()).collect())
}

fn counts(scalars: &Scalars, grid: Grid) -> Result<Vec<usize>, QueryError> {
    let count = |at| {
        let value = scalars.at(at);
        if value.is_nan() {
            return Err(QueryError::execution("Parameter value is NaN"));
        }
        if value <= i64::MIN as f64 {
            let text = format!("Scalar value {} underflows int64", general(value));
            return Err(QueryError::execution(text));
        }
        if value >= i64::MAX as f64 {
            let text = format!("Scalar value {} overflows int64", general(value));
            return Err(QueryError::execution(text));
        }
        Ok(value.max(0.0) as usize)
    };
    (0..grid.steps()).map(count).collect()
}

fn check_ratios(
    scalars: &Scalars,
    grid: Grid,
    span: crate::Span,
    annotations: &mut Annotations,
) -> Result<(), QueryError> {
    for at in 0..grid.steps() {
        let ratio = scalars.at(at);
        if ratio.is_nan() {
            return Err(QueryError::execution("Ratio value is NaN"));
        }
        if ratio.abs() > 1.0 {
            annotations.warn(
                span,
                format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    general(ratio),
                    ratio.signum()
                ),
            );
        }
    }
    Ok(())
}

fn by_ratio(
    mut rows: Vec<Row>,
    ratios: &Scalars,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    for row in &mut rows {
        pace.look(row.looks())?;
        // The hash of Prometheus for labels below 128 bytes, so that the same series are sampled.
        let offset = xxh64(row.labels.canonical(), 0) as f64 / u64::MAX as f64;
        for (at, value) in row.values.iter_mut().enumerate() {
            let ratio = ratios.at(at).clamp(-1.0, 1.0);
            let keep = if ratio >= 0.0 {
                offset < ratio
            } else {
                offset >= 1.0 + ratio
            };
            if !keep {
                *value = ABSENT;
            }
        }
    }
    drop_empty(&mut rows, pace)?;
    Ok(rows)
}
