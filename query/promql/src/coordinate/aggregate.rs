//! Aggregations: pushed to the evaluators where they can be merged, else worked out over all rows.

use super::{Coordinator, finish, looks, samples, unify::unify, wrong_body};
use crate::{
    Annotations, Binding, Expr, Grid, PartBody, PartOutput, QueryError, Span,
    ast::{Aggregate, AggregateOp},
    evaluate::{
        context::Context,
        count_values,
        grouping::{GroupMap, Grouping},
        new_column,
        pipeline::{Pipeline, selector_of, warn_about_quantile},
        select::select_series,
    },
    functions::{quantile::quantile, window::variance},
    note::{Note, Notes},
    pace::{LOOKS_OF_ROW, Pace},
    partial::GroupPartial,
    row::{ABSENT, Row, is_absent, is_histogram},
};
use std::collections::HashMap;
use trefoil_model::Labels;

impl Coordinator<'_> {
    pub(super) async fn aggregate(
        &self,
        expr: &Expr,
        aggregate: &Aggregate,
        grid: Grid,
    ) -> Result<Vec<Row>, QueryError> {
        let own = self.own_bindings(expr, grid).await?;
        if self.can_push(aggregate, grid).await? {
            let mut bindings = self.bindings(&aggregate.operand, grid).await?;
            bindings.extend(own.iter().cloned());
            let body = self.part(expr, PartOutput::Groups, grid, bindings).await?;
            return self.merged(aggregate, body, grid, &own);
        }
        let rows = self.rows(&aggregate.operand, grid).await?;
        let before = samples(&rows);
        let rows = self.work(looks(&rows), |pace| {
            self.over_rows(aggregate, rows, grid, &own, pace)
        })?;
        self.hold(rows, before)
    }

    /// Whether evaluators can work out the aggregation: it can be merged, its operand is per series,
    /// and no two series of the operand can become one when their names are dropped.
    async fn can_push(&self, aggregate: &Aggregate, grid: Grid) -> Result<bool, QueryError> {
        use AggregateOp::{Quantile, Stddev, Stdvar};
        if matches!(aggregate.op, Quantile | Stddev | Stdvar) {
            return Ok(false);
        }
        let Some(selector) = selector_of(&aggregate.operand) else {
            return Ok(false);
        };
        if self.options.delayed_name_removal || selector.fixed_name().is_some() {
            return Ok(true);
        }
        let bindings = self.bindings(&aggregate.operand, grid).await?;
        let context = self.context(&bindings);
        let compiled = Pipeline::compile(&aggregate.operand, grid, &context)?;
        Ok(compiled.is_some_and(|pipeline| !pipeline.drops_name))
    }

    /// The result from merged partial results.
    fn merged(
        &self,
        aggregate: &Aggregate,
        body: PartBody,
        grid: Grid,
        own: &[Binding],
    ) -> Result<Vec<Row>, QueryError> {
        let rows = match body {
            PartBody::Groups(groups) => self.finished(groups, aggregate.operand.span)?,
            PartBody::Rows(rows) => {
                let context = self.context(own);
                self.work(looks(&rows), |pace| {
                    self.annotate(|annotations| {
                        select_series(aggregate, rows, grid, &context, annotations, pace)
                    })
                })?
            }
            PartBody::Samples(_) => return Err(wrong_body()),
        };
        self.hold(rows, 0)
    }

    /// The rows of merged groups of what stands at `span`.
    pub(super) fn finished(
        &self,
        groups: Vec<GroupPartial>,
        span: Span,
    ) -> Result<Vec<Row>, QueryError> {
        let looks = groups.iter().map(GroupPartial::looks).sum();
        self.work(looks, |pace| {
            self.annotate(|annotations| finish(groups, span, annotations, pace))
        })
    }

    fn over_rows(
        &self,
        aggregate: &Aggregate,
        rows: Vec<Row>,
        grid: Grid,
        own: &[Binding],
        pace: &mut Pace<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        use AggregateOp::{CountValues, Quantile, Stddev, Stdvar};
        let context = self.context(own);
        let delayed = self.options.delayed_name_removal;
        let steps = grid.steps();
        match aggregate.op {
            op if op.selects_series() => self.annotate(|annotations| {
                select_series(aggregate, rows, grid, &context, annotations, pace)
            }),
            CountValues => {
                let groups = count_values(aggregate, &rows, steps, delayed, self.budget)?;
                let span = aggregate.operand.span;
                let rows = self.annotate(|all| finish(groups, span, all, pace))?;
                unify(rows, pace)
            }
            Quantile => {
                self.note_ignored(aggregate, &rows);
                self.annotate(|annotations| {
                    quantiles(aggregate, &rows, grid, &context, annotations, pace)
                })
            }
            Stddev | Stdvar => {
                self.note_ignored(aggregate, &rows);
                let root = aggregate.op == Stddev;
                let of_values = |_, values: &mut [f64]| {
                    let variance = variance(values);
                    if root { variance.sqrt() } else { variance }
                };
                per_time(aggregate, &rows, steps, of_values, pace)
            }
            op => {
                let mut groups = GroupMap::new(Grouping::of(aggregate, delayed));
                let (span, mut notes) = (aggregate.operand.span, Notes::default());
                for mut row in rows {
                    pace.look(row.looks())?;
                    let (group, _) =
                        groups.group_of(&row.labels, row.drop_name, || new_column(op, steps))?;
                    let metric = row.labels.metric_name().unwrap_or("").to_owned();
                    group.add(&row.take_cells(), &metric, span, &mut notes);
                }
                let groups = groups.into_groups();
                self.annotate(|annotations| {
                    notes.tell("", annotations);
                    finish(groups, span, annotations, pace)
                })
            }
        }
    }

    /// Says so when an aggregation of floats leaves histograms out.
    fn note_ignored(&self, aggregate: &Aggregate, rows: &[Row]) {
        if rows.iter().any(|row| !row.histograms.is_empty()) {
            let note = Note::IgnoredInAggregation(aggregate.op.text());
            self.annotate(|annotations| note.tell(aggregate.operand.span, "", annotations));
        }
    }
}

fn quantiles(
    aggregate: &Aggregate,
    rows: &[Row],
    grid: Grid,
    context: &Context,
    annotations: &mut Annotations,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let Some(parameter) = &aggregate.parameter else {
        return Err(QueryError::Internal("quantile has no parameter".into()));
    };
    let wanted = context.scalars(parameter, grid)?;
    pace.look(grid.steps())?;
    for at in 0..grid.steps() {
        warn_about_quantile(wanted.at(at), parameter.span, annotations);
    }
    let of_values = |at, values: &mut [f64]| quantile(wanted.at(at), values);
    per_time(aggregate, rows, grid.steps(), of_values, pace)
}

/// Applies `f` to the values of each group at each time.
fn per_time(
    aggregate: &Aggregate,
    rows: &[Row],
    steps: usize,
    f: impl Fn(usize, &mut [f64]) -> f64,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    // Names that are to go have gone from the rows already, or stay until the end of the query.
    let grouping = Grouping::of(aggregate, true);
    let mut groups: HashMap<Vec<u8>, Vec<&Row>> = HashMap::new();
    for row in rows {
        pace.look(LOOKS_OF_ROW)?;
        let key = grouping.key(&row.labels, false);
        groups.entry(key).or_default().push(row);
    }
    let mut results = Vec::with_capacity(groups.len());
    for (key, members) in groups {
        let mut present = Vec::with_capacity(members.len());
        let mut values = vec![ABSENT; steps];
        for (at, value) in values.iter_mut().enumerate() {
            pace.look(members.len())?;
            present.clear();
            present.extend(
                members
                    .iter()
                    .map(|m| m.values[at])
                    .filter(|v| !is_absent(*v) && !is_histogram(*v)),
            );
            if !present.is_empty() {
                *value = f(at, &mut present);
            }
        }
        // The key consists of labels of a valid set, in their order.
        let labels = Labels::from_canonical(&key).unwrap_or_default();
        let drop_name = members.iter().any(|m| m.drop_name);
        results.push(Row::floats(labels, drop_name, values));
    }
    results.retain(|row| !row.is_empty());
    pace.sort_by(&mut results, |a, b| a.labels.cmp(&b.labels))?;
    Ok(results)
}
