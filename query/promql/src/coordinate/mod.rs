//! The coordinator's side: takes a query apart, has its parts evaluated, and puts the answer together.
//!
//! The largest per-series sub-expressions, each with one mergeable aggregation on top where there is one,
//! become parts. What is above them (joins, quantiles, sorting, functions of aggregates) is worked out
//! here, over rows of values per time.

mod aggregate;
mod answer;
mod calls;
pub(crate) mod histogram;
mod info;
pub(crate) mod join;
pub(crate) mod labels;
pub(crate) mod unify;

use crate::{
    Annotations, Binding, Budget, EvalOptions, Expr, Grid, Part, PartBody, PartOutput, PartResult,
    QueryData, QueryError, QueryResult, Source, Span,
    ast::{Binary, ExprKind, ValueType},
    evaluate::{
        context::{Context, scalars_with_data},
        pipeline::{Pipeline, is_per_series, remarks},
        row_op::{Scratch, Step},
        without_name,
    },
    note::Notes,
    pace::{LOOKS_MAX, LOOKS_OF_ROW, Pace},
    parse::parse,
    partial::GroupPartial,
    row::{ABSENT, Row, is_absent, is_histogram},
};
use futures::future::{BoxFuture, FutureExt, try_join};
use std::sync::{Mutex, PoisonError};
use trefoil_model::Millis;
use unify::unify;

/// Settings and limits of one query.
#[derive(Clone, Debug, Default)]
pub struct QueryOptions {
    /// How the text is read and evaluated.
    pub eval: EvalOptions,
    /// What the coordinator may hold, and until when; evaluators get the same limit of samples.
    pub budget: Budget,
}

/// Evaluates a query at one time. Working on the merged parts takes CPU between awaits.
///
/// # Errors
/// See [`QueryError`]; the texts are those of Prometheus.
pub async fn query_instant(
    source: &dyn Source,
    text: &str,
    time: Millis,
    options: &QueryOptions,
) -> Result<QueryResult, QueryError> {
    let root = parse(text, &options.eval)?;
    let coordinator = Coordinator::new(source, text, Grid::instant(time), false, options);
    let data = coordinator.instant(&root).await?;
    Ok(coordinator.result(data))
}

/// Evaluates a query at all times of a grid.
///
/// # Errors
/// As for [`query_instant`]; also for a query that yields neither a scalar nor an instant vector.
pub async fn query_range(
    source: &dyn Source,
    text: &str,
    grid: Grid,
    options: &QueryOptions,
) -> Result<QueryResult, QueryError> {
    let root = parse(text, &options.eval)?;
    let value_type = root.value_type();
    if !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
        return Err(QueryError::BadData(format!(
            "invalid expression type {:?} for range query, must be Scalar or instant Vector",
            value_type.text()
        )));
    }
    let coordinator = Coordinator::new(source, text, grid, true, options);
    let rows = coordinator.range(&root).await?;
    let matrix = coordinator.work(looks(&rows), |pace| answer::matrix(rows, grid, pace))?;
    Ok(coordinator.result(QueryData::Matrix(matrix)))
}

/// One query in work.
struct Coordinator<'a> {
    source: &'a dyn Source,
    text: &'a str,
    query_grid: Grid,
    is_range: bool,
    options: EvalOptions,
    budget: &'a Budget,
    annotations: Mutex<Annotations>,
}

type Rows<'f> = BoxFuture<'f, Result<Vec<Row>, QueryError>>;

impl<'a> Coordinator<'a> {
    fn new(
        source: &'a dyn Source,
        text: &'a str,
        query_grid: Grid,
        is_range: bool,
        options: &'a QueryOptions,
    ) -> Self {
        Self {
            source,
            text,
            query_grid,
            is_range,
            options: options.eval,
            budget: &options.budget,
            annotations: Mutex::new(Annotations::default()),
        }
    }

    fn result(&self, data: QueryData) -> QueryResult {
        let peak = self.budget.samples_peak();
        self.annotate(|annotations| QueryResult::new(data, annotations, self.text, peak))
    }

    /// Works with the annotations, which are consistent after every call.
    fn annotate<T>(&self, f: impl FnOnce(&mut Annotations) -> T) -> T {
        let mut annotations = self
            .annotations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        f(&mut annotations)
    }

    fn context(&self, bindings: &[Binding]) -> Context {
        Context::new(
            self.query_grid,
            self.options,
            bindings,
            self.budget.samples_max(),
        )
    }

    /// The rows of a vector expression at the times of `grid`. Their samples are held in the budget.
    fn rows<'f>(&'f self, expr: &'f Expr, grid: Grid) -> Rows<'f> {
        async move {
            self.budget.check()?;
            if is_per_series(expr) {
                return self.per_series(expr, grid).await;
            }
            match &expr.kind {
                ExprKind::Aggregate(aggregate) => self.aggregate(expr, aggregate, grid).await,
                ExprKind::Binary(binary) if binary.matching.is_some() => {
                    self.join(expr, binary, grid).await
                }
                _ if Step::operand_of(expr).is_some() => self.step(expr, grid).await,
                ExprKind::Call(call) => self.call(expr, call, grid).await,
                _ => Err(QueryError::Internal(format!(
                    "the expression at {} is no vector",
                    expr.span
                ))),
            }
        }
        .boxed()
    }

    /// Has the evaluators work out a node.
    async fn part(
        &self,
        node: &Expr,
        output: PartOutput,
        grid: Grid,
        bindings: Vec<Binding>,
    ) -> Result<PartBody, QueryError> {
        let part = Part {
            query: self.text.to_owned(),
            node: node.span,
            output,
            grid,
            query_grid: self.query_grid,
            bindings,
            options: self.options,
            samples_max: self.budget.samples_max(),
        };
        let PartResult { body, annotations } = self.source.evaluate(part).await?;
        self.budget.check()?;
        self.annotate(|all| all.merge(annotations));
        Ok(body)
    }

    async fn per_series(&self, expr: &Expr, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let bindings = self.bindings(expr, grid).await?;
        let compiled = Pipeline::compile(expr, grid, &self.context(&bindings))?;
        let body = self.part(expr, PartOutput::Rows, grid, bindings).await?;
        let PartBody::Rows(rows) = body else {
            return Err(wrong_body());
        };
        let drops_name = compiled.is_some_and(|pipeline| pipeline.drops_name);
        let rows = if drops_name && !self.options.delayed_name_removal {
            self.work(looks(&rows), |pace| unify(rows, pace))?
        } else {
            rows
        };
        self.hold(rows, 0)
    }

    async fn join(&self, expr: &Expr, binary: &Binary, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let left = self.rows(&binary.left, grid);
        let right = self.rows(&binary.right, grid);
        let (left, right) = try_join(left, right).await?;
        let before = samples(&left) + samples(&right);
        let delayed = self.options.delayed_name_removal;
        let mut notes = Notes::default();
        let looks = looks(&left) + looks(&right);
        let rows = self.work(looks, |pace| {
            join::join(binary, expr.span, left, right, delayed, &mut notes, pace)
        })?;
        self.annotate(|annotations| notes.tell("", annotations));
        self.hold(rows, before)
    }

    /// An operation on rows that could not be worked out by the evaluators.
    async fn step(&self, expr: &Expr, grid: Grid) -> Result<Vec<Row>, QueryError> {
        let bindings = self.own_bindings(expr, grid).await?;
        let context = self.context(&bindings);
        let Some(step) = Step::of(expr, grid, &context)? else {
            return Err(QueryError::Internal("not an operation on rows".into()));
        };
        let Some(operand_grid) = step.operand_grid else {
            return Ok(Vec::new());
        };
        let mut rows = self.rows(step.operand, operand_grid).await?;
        let before = samples(&rows);
        let delayed = self.options.delayed_name_removal;
        let looks_of_row = step.op.looks(grid).saturating_add(LOOKS_OF_ROW);
        let looks = rows.len().saturating_mul(looks_of_row);
        self.work(looks, |pace| self.apply(&step, &mut rows, grid, pace))?;
        rows.retain(|row| !row.is_empty());
        let mut pace = Pace::new(self.budget);
        for remark in remarks(expr, grid, &context)? {
            self.annotate(|annotations| {
                for row in &rows {
                    pace.look(row.looks())?;
                    let is_float = |v: &f64| !is_absent(*v) && !is_histogram(*v);
                    let has_floats = row.values.iter().any(is_float);
                    remark.annotate(&row.labels, has_floats, annotations);
                }
                Ok(())
            })?;
        }
        if step.drops_name && !delayed {
            rows = self.work(self::looks(&rows), |pace| unify(rows, pace))?;
        }
        self.hold(rows, before)
    }

    /// Applies an operation to the values of each row.
    fn apply(
        &self,
        step: &Step<'_>,
        rows: &mut [Row],
        grid: Grid,
        pace: &mut Pace<'_>,
    ) -> Result<(), QueryError> {
        let delayed = self.options.delayed_name_removal;
        let (mut scratch, mut notes) = (Scratch::default(), Notes::default());
        for row in rows {
            pace.look(row.looks())?;
            let mut cells = row.take_cells();
            step.op
                .apply(&mut cells, grid, &mut scratch, &mut notes, self.budget)?;
            row.set_cells(cells);
            if !notes.is_empty() {
                let metric = row.labels.metric_name().unwrap_or("");
                self.annotate(|annotations| notes.tell(metric, annotations));
            }
            if step.drops_name && delayed {
                row.drop_name = true;
            } else if step.drops_name {
                row.labels = without_name(&row.labels);
            }
        }
        Ok(())
    }

    /// The values of all scalars below a per-series expression that need data.
    fn bindings<'f>(
        &'f self,
        expr: &'f Expr,
        grid: Grid,
    ) -> BoxFuture<'f, Result<Vec<Binding>, QueryError>> {
        async move {
            let mut bindings = self.own_bindings(expr, grid).await?;
            for child in expr.children() {
                let child_grid = match &expr.kind {
                    ExprKind::SubQuery(sub_query) => {
                        let inner = self.context(&[]).sub_query_grid(sub_query, grid)?;
                        inner.unwrap_or(grid)
                    }
                    _ => grid,
                };
                if child.value_type() != ValueType::Scalar {
                    bindings.extend(self.bindings(child, child_grid).await?);
                }
            }
            Ok(bindings)
        }
        .boxed()
    }

    /// The values of the scalars among the direct arguments of `expr` that need data.
    async fn own_bindings(&self, expr: &Expr, grid: Grid) -> Result<Vec<Binding>, QueryError> {
        let mut wanted = Vec::new();
        for child in expr.children() {
            if child.value_type() == ValueType::Scalar {
                scalars_with_data(child, &mut wanted);
            }
        }
        self.bind(&wanted, grid).await
    }

    async fn bind(&self, wanted: &[&Expr], grid: Grid) -> Result<Vec<Binding>, QueryError> {
        let mut bindings = Vec::with_capacity(wanted.len());
        for expr in wanted {
            let ExprKind::Call(call) = &expr.kind else {
                continue;
            };
            let rows = self.rows(&call.arguments[0], grid).await?;
            let steps = grid.steps();
            let values = self.work(looks(&rows), |pace| only_values(&rows, steps, pace))?;
            bindings.push(Binding {
                node: expr.span,
                values,
            });
            self.budget.release(samples(&rows));
        }
        Ok(bindings)
    }

    /// Works out what looks at about so many values; what is long, where nobody waits for the thread. Its loops ask the
    /// budget at the pace that they get.
    fn work<T>(
        &self,
        looks: usize,
        work: impl FnOnce(&mut Pace<'_>) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let mut pace = Pace::new(self.budget);
        if looks < LOOKS_MAX {
            return work(&mut pace);
        }
        let (mut work, mut done) = (Some(work), None);
        self.source
            .work_long(&mut || done = work.take().map(|work| work(&mut pace)));
        done.unwrap_or_else(|| Err(QueryError::Internal("the work was not done".into())))
    }

    /// Counts `rows` as held instead of `before` samples.
    fn hold(&self, rows: Vec<Row>, before: usize) -> Result<Vec<Row>, QueryError> {
        self.budget.hold(samples(&rows))?;
        self.budget.release(before);
        Ok(rows)
    }
}

/// `scalar(v)`: the value at the times at which exactly one row has one, NaN at others.
fn only_values(rows: &[Row], steps: usize, pace: &mut Pace<'_>) -> Result<Vec<f64>, QueryError> {
    let mut values = vec![f64::NAN; steps];
    for (at, value) in values.iter_mut().enumerate() {
        pace.look(rows.len())?;
        let mut present = rows
            .iter()
            .map(|row| row.values[at])
            .filter(|v| !is_absent(*v) && !is_histogram(*v));
        if let (Some(only), None) = (present.next(), present.next()) {
            *value = only;
        }
    }
    Ok(values)
}

fn samples(rows: &[Row]) -> usize {
    rows.iter().map(Row::samples).sum()
}

/// What working on rows takes, in looks at values.
fn looks(rows: &[Row]) -> usize {
    samples(rows) + LOOKS_OF_ROW * rows.len()
}

/// The rows of merged groups of what stands at `span`.
fn finish(
    groups: Vec<GroupPartial>,
    span: Span,
    annotations: &mut Annotations,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let mut rows = Vec::with_capacity(groups.len());
    for group in groups {
        pace.look(group.looks())?;
        let (labels, drop_name, cells) = group.finish(span, annotations);
        let mut row = Row::floats(labels, drop_name, Vec::new());
        row.set_cells(cells);
        rows.push(row);
    }
    rows.retain(|row| !row.is_empty());
    Ok(rows)
}

fn wrong_body() -> QueryError {
    QueryError::Internal("an evaluator gave an answer of the wrong kind".into())
}

/// A row without labels.
fn unlabelled(values: Vec<f64>) -> Row {
    Row::floats(trefoil_model::Labels::empty(), false, values)
}

/// An absent value where `present` has one, and 1 where it has none.
fn inverted(present: &[f64]) -> Vec<f64> {
    let invert = |value: &f64| if is_absent(*value) { 1.0 } else { ABSENT };
    present.iter().map(invert).collect()
}
