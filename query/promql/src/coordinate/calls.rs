//! Functions that look at several series at once, or at none.

use super::{
    Coordinator, histogram, inverted, labels, looks, samples, unify::unify, unlabelled, wrong_body,
};
use crate::{
    Expr, Grid, PartBody, PartOutput, QueryError,
    ast::{Call, ExprKind},
    evaluate::{
        pipeline::is_per_series,
        row_op::{RowOp, Scratch},
        windows::Windows,
    },
    function::{FunctionKind, WindowFunction},
    functions::date,
    note::Notes,
    row::{ABSENT, Row, is_absent},
};

impl Coordinator<'_> {
    pub(super) async fn call(
        &self,
        expr: &Expr,
        call: &Call,
        grid: Grid,
    ) -> Result<Vec<Row>, QueryError> {
        match call.function.kind {
            FunctionKind::Absent => self.absent(call, grid).await,
            FunctionKind::LabelReplace | FunctionKind::LabelJoin => {
                let mut rows = self.rows(&call.arguments[0], grid).await?;
                self.work(looks(&rows), |pace| {
                    match call.function.kind {
                        FunctionKind::LabelReplace => {
                            labels::replace(call, &mut rows, self.budget, pace)?;
                        }
                        _ => labels::join(call, &mut rows, self.budget, pace)?,
                    }
                    // Names that are still to go keep nothing apart that the labels do not.
                    unify(rows, pace)
                })
            }
            FunctionKind::Sort { .. } | FunctionKind::SortByLabel { .. } => {
                self.sort(expr, call, grid).await
            }
            FunctionKind::HistogramQuantile
            | FunctionKind::HistogramQuantiles
            | FunctionKind::HistogramFraction => self.histogram(expr, call, grid).await,
            FunctionKind::Info => self.info(expr, call, grid).await,
            FunctionKind::Vector => {
                let bindings = self.own_bindings(expr, grid).await?;
                let scalars = self.context(&bindings).scalars(&call.arguments[0], grid)?;
                let values = (0..grid.steps()).map(|at| scalars.at(at)).collect();
                self.hold(vec![unlabelled(values)], 0)
            }
            FunctionKind::Date(field) => {
                let value = |time| date::field(field, (time as f64 / 1000.0).floor());
                let values = self.work(grid.steps(), |pace| {
                    let values = grid.times().map(|time| pace.look(1).map(|()| value(time)));
                    values.collect()
                })?;
                self.hold(vec![unlabelled(values)], 0)
            }
            _ => Err(QueryError::Internal(format!(
                "{} yields no vector",
                call.function.name
            ))),
        }
    }

    async fn absent(&self, call: &Call, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let argument = &call.arguments[0];
        let node = argument.unwrap_parens();
        let operand = match &node.kind {
            ExprKind::SubQuery(sub_query) => &sub_query.operand,
            _ => node,
        };
        let pushed = is_per_series(operand) || matches!(node.kind, ExprKind::Range(_));
        let present = if pushed {
            let bindings = self.bindings(node, grid).await?;
            let body = self
                .part(node, PartOutput::Presence, grid, bindings)
                .await?;
            let PartBody::Groups(groups) = body else {
                return Err(wrong_body());
            };
            self.finished(groups, node.span)?
        } else {
            self.presence(node, grid).await?
        };
        let mut any = vec![ABSENT; grid.steps()];
        self.work(looks(&present), |pace| {
            for row in &present {
                pace.look(row.looks())?;
                for (any, value) in any.iter_mut().zip(&row.values) {
                    if !is_absent(*value) {
                        *any = 1.0;
                    }
                }
            }
            Ok(())
        })?;
        let row = Row::floats(labels::of_absent(node), false, inverted(&any));
        let rows = if row.is_empty() { vec![] } else { vec![row] };
        self.hold(rows, 0)
    }

    /// Rows that have a sample where the vector or sub-query has one.
    async fn presence(&self, node: &Expr, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let ExprKind::SubQuery(sub_query) = &node.kind else {
            let rows = self.rows(node, grid).await?;
            self.budget.release(samples(&rows));
            return Ok(rows);
        };
        let context = self.context(&[]);
        let Some(inner) = context.sub_query_grid(sub_query, grid)? else {
            return Ok(Vec::new());
        };
        let mut rows = self.rows(&sub_query.operand, inner).await?;
        self.budget.release(samples(&rows));
        let windows = Windows::over(node, WindowFunction::PresentOverTime, &context)?;
        let op = RowOp::Windows { inner, windows };
        let of_all = rows.len().saturating_mul(op.looks(grid));
        self.work(of_all, |pace| {
            let mut scratch = Scratch::default();
            for row in &mut rows {
                pace.look(row.looks())?;
                let mut cells = row.take_cells();
                let notes = &mut Notes::default();
                op.apply(&mut cells, grid, &mut scratch, notes, self.budget)?;
                row.set_cells(cells);
            }
            Ok(())
        })?;
        Ok(rows)
    }

    async fn sort(&self, expr: &Expr, call: &Call, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let mut rows = self.rows(&call.arguments[0], grid).await?;
        if self.is_range {
            let text =
                "sort is ineffective for range queries since results are always ordered by labels";
            self.annotate(|annotations| annotations.warn(expr.span, text));
            return Ok(rows);
        }
        match call.function.kind {
            FunctionKind::Sort { descending } if grid.steps() == 1 => {
                // Only floats have an order.
                self.budget.release(samples(&rows));
                rows.iter_mut().for_each(Row::keep_floats);
                rows.retain(|row| !row.is_empty());
                self.budget.hold(samples(&rows))?;
                self.work(looks(&rows), |pace| {
                    labels::sort_by_value(&mut rows, descending, pace)
                })?;
            }
            FunctionKind::SortByLabel { descending } => {
                self.work(looks(&rows), |pace| {
                    labels::sort_by_label(call, &mut rows, descending, pace)
                })?;
            }
            _ => {}
        }
        Ok(rows)
    }

    async fn histogram(
        &self,
        expr: &Expr,
        call: &Call,
        grid: Grid,
    ) -> Result<Vec<Row>, QueryError> {
        let bindings = self.own_bindings(expr, grid).await?;
        let context = self.context(&bindings);
        let delayed = self.options.delayed_name_removal;
        let steps = grid.steps();
        let scalars = |index: usize| context.scalars(&call.arguments[index], grid);
        let rows_at = match call.function.kind {
            FunctionKind::HistogramQuantile => 1,
            FunctionKind::HistogramFraction => 2,
            _ => 0,
        };
        let rows_expr = &call.arguments[rows_at];
        let rows = self.rows(rows_expr, grid).await?;
        let before = samples(&rows);
        let input = histogram::Input {
            rows: &rows,
            span: rows_expr.span,
            steps,
            delayed,
        };
        let results = if call.function.kind == FunctionKind::HistogramFraction {
            let (lower, upper) = (scalars(0)?, scalars(1)?);
            self.work(looks(&rows), |pace| {
                let (bounds, input) = ((&lower, &upper), &input);
                self.annotate(|all| histogram::fractions(bounds, input, all, pace))
            })?
        } else {
            let many = call.function.kind == FunctionKind::HistogramQuantiles;
            let label = if many {
                Some(histogram::quantile_label(call)?)
            } else {
                None
            };
            let indexes = if many { 2..call.arguments.len() } else { 0..1 };
            let values = indexes
                .clone()
                .map(scalars)
                .collect::<Result<Vec<_>, _>>()?;
            let wanted: Vec<_> = indexes
                .zip(&values)
                .map(|(index, quantiles)| histogram::Wanted {
                    quantiles,
                    span: call.arguments[index].span,
                    label,
                })
                .collect();
            let looks = looks(&rows).saturating_mul(wanted.len());
            self.work(looks, |pace| {
                if let Some(label) = label {
                    histogram::check_label(label, &rows, pace)?;
                }
                self.annotate(|all| histogram::quantiles(&wanted, &input, all, pace))
            })?
        };
        let results = match delayed {
            true => results,
            false => self.work(super::looks(&results), |pace| unify(results, pace))?,
        };
        self.hold(results, before)
    }
}
