//! From rows to the forms of the API.

use super::{Coordinator, looks, unify::remove_names, wrong_body};
use crate::{
    Grid, MatrixSeries, PartBody, PartOutput, Point, QueryData, QueryError, RawSeries, Value,
    VectorSample,
    ast::{Expr, ExprKind, ValueType},
    evaluate::context::scalars_with_data,
    pace::{LOOKS_OF_ROW, Pace},
    row::{Cell, Row, cell, is_absent, samples_of},
};
use trefoil_model::Millis;

impl Coordinator<'_> {
    pub(super) async fn instant(&self, root: &Expr) -> Result<QueryData, QueryError> {
        let grid = self.query_grid;
        let expr = root.unwrap_parens();
        match (expr.value_type(), &expr.kind) {
            (ValueType::String, ExprKind::String(text)) => Ok(QueryData::String {
                time: grid.start,
                text: text.shown(),
            }),
            (ValueType::Scalar, _) => {
                let values = self.scalar_values(expr, grid).await?;
                Ok(QueryData::Scalar(point(grid.start, values[0])))
            }
            (ValueType::Vector, _) => {
                let rows = self.rows(expr, grid).await?;
                self.work(looks(&rows), |pace| {
                    let rows = remove_names(rows, pace)?;
                    vector(rows, grid.start, pace).map(QueryData::Vector)
                })
            }
            (ValueType::Matrix, _) => self.matrix(expr, grid).await.map(QueryData::Matrix),
            _ => Err(QueryError::Internal("unknown type of value".into())),
        }
    }

    pub(super) async fn range(&self, root: &Expr) -> Result<Vec<Row>, QueryError> {
        if root.value_type() == ValueType::Scalar {
            let values = self.scalar_values(root, self.query_grid).await?;
            return Ok(vec![super::unlabelled(values)]);
        }
        let rows = self.rows(root, self.query_grid).await?;
        self.work(looks(&rows), |pace| remove_names(rows, pace))
    }

    async fn scalar_values(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, QueryError> {
        let mut wanted = Vec::new();
        scalars_with_data(expr, &mut wanted);
        let bindings = self.bind(&wanted, grid).await?;
        let scalars = self.context(&bindings).scalars(expr, grid)?;
        Ok((0..grid.steps()).map(|at| scalars.at(at)).collect())
    }

    /// A range vector at one time.
    async fn matrix(&self, expr: &Expr, grid: Grid) -> Result<Vec<MatrixSeries>, QueryError> {
        if let ExprKind::SubQuery(sub_query) = &expr.kind {
            let inner = self.context(&[]).sub_query_grid(sub_query, grid)?;
            let Some(inner) = inner else {
                return Ok(Vec::new());
            };
            let rows = self.rows(&sub_query.operand, inner).await?;
            return self.work(looks(&rows), |pace| {
                matrix(remove_names(rows, pace)?, inner, pace)
            });
        }
        let body = self
            .part(expr, PartOutput::Samples, grid, Vec::new())
            .await?;
        let PartBody::Samples(series) = body else {
            return Err(wrong_body());
        };
        let samples = series
            .iter()
            .map(|raw| samples_of(&raw.values, &raw.histograms))
            .sum();
        self.budget.hold(samples)?;
        self.work(samples, |pace| {
            let read = |raw: RawSeries| {
                pace.look(raw.timestamps.len() + LOOKS_OF_ROW)?;
                Ok(series_of_samples(raw))
            };
            series.into_iter().map(read).collect()
        })
    }
}

fn series_of_samples(raw: RawSeries) -> MatrixSeries {
    let places = raw.timestamps.iter().enumerate();
    let points =
        places.filter_map(|(at, time)| point_of(*time, cell(&raw.values, &raw.histograms, at)));
    MatrixSeries {
        points: points.collect(),
        labels: raw.labels,
    }
}

fn point(time: Millis, value: f64) -> Point {
    Point {
        time,
        value: Value::Float(value),
    }
}

fn point_of(time: Millis, cell: Cell) -> Option<Point> {
    match cell {
        Cell::Absent => None,
        Cell::Float(value) => Some(point(time, value)),
        Cell::Histogram(histogram) => Some(Point {
            time,
            value: Value::Histogram(histogram),
        }),
    }
}

fn vector(
    rows: Vec<Row>,
    time: Millis,
    pace: &mut Pace<'_>,
) -> Result<Vec<VectorSample>, QueryError> {
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        pace.look(LOOKS_OF_ROW)?;
        if let Some(point) = point_of(time, row.at(0)) {
            let labels = row.labels;
            all.push(VectorSample { labels, point });
        }
    }
    Ok(all)
}

/// Rows as series, ascending by labels.
pub(super) fn matrix(
    mut rows: Vec<Row>,
    grid: Grid,
    pace: &mut Pace<'_>,
) -> Result<Vec<MatrixSeries>, QueryError> {
    pace.sort_by(&mut rows, |a, b| a.labels.cmp(&b.labels))?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        pace.look(row.looks())?;
        let present = row.values.iter().filter(|v| !is_absent(**v)).count();
        let mut points = Vec::with_capacity(present);
        let times = grid.times().enumerate().take(row.values.len());
        points.extend(times.filter_map(|(at, time)| point_of(time, row.at(at))));
        if !points.is_empty() {
            all.push(MatrixSeries {
                labels: row.labels,
                points,
            });
        }
    }
    Ok(all)
}
