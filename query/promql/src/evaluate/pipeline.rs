//! A per-series expression as a pipeline: samples of one series -> values at the times of a grid.

use super::{
    context::Context,
    instant::{Instant, InstantValue},
    placements::Placements,
    prepare::{detect_resets, drop_stale},
    row_op::{RowOp, Scratch, Step},
    windows::Windows,
};
use crate::{
    Annotations, Budget, Grid, QueryError, SampleColumns, Selector, Span,
    ast::{Expr, ExprKind, VectorSelector},
    format::general,
    function::{FunctionKind, SampleFunction, WindowFunction},
    note::Notes,
    row::{Cells, is_absent, is_histogram},
};
use trefoil_model::{Aggregate, Labels, Millis, Resolution};

/// Suffixes by which metrics name themselves counters.
const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

/// Whether `expr` can be evaluated series by series, scalars aside.
pub(crate) fn is_per_series(expr: &Expr) -> bool {
    selector_of(expr).is_some()
}

/// The selector of a per-series expression, and whether its metric name is dropped on the way.
pub(crate) fn selector_of(expr: &Expr) -> Option<&VectorSelector> {
    if let Some(operand) = Step::operand_of(expr) {
        return selector_of(operand);
    }
    match &expr.kind {
        ExprKind::Selector(selector) => Some(selector),
        ExprKind::Call(call) => match call.function.kind {
            FunctionKind::Timestamp | FunctionKind::StartTimestamp => {
                selector_of(call.arguments.first()?.unwrap_parens())
            }
            FunctionKind::Window(_) => match &super::row_op::matrix_argument(call)?.kind {
                ExprKind::Range(range) => Some(&range.selector),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// A compiled per-series expression.
#[derive(Debug)]
pub(crate) struct Pipeline {
    /// What the storage is asked for.
    pub(crate) selector: Selector,
    /// Whether the result has no metric name.
    pub(crate) drops_name: bool,
    leaf: Leaf,
    leaf_grid: Grid,
    /// Operations with the grids of their results.
    ops: Vec<(RowOp, Grid)>,
    /// What to say about series that have a result.
    remarks: Vec<Remark>,
    /// The last grid has times at which nothing can have a value.
    empty: bool,
    /// Resets between histograms are looked for even where nothing needs them.
    pub(crate) detects_resets: bool,
}

#[derive(Debug)]
enum Leaf {
    Instant(Instant),
    Windows(Windows),
}

impl Leaf {
    /// Whether aggregates of buckets of this length give the same as samples.
    fn is_exact_at(&self, grid: Grid, length: Millis) -> bool {
        match self {
            Self::Instant(instant) => instant.is_exact_at(grid, length),
            Self::Windows(windows) => windows.is_exact_at(grid, length),
        }
    }

    fn span(&self) -> Span {
        match self {
            Self::Instant(instant) => instant.span,
            Self::Windows(windows) => windows.span(),
        }
    }
}

/// Memory that pipelines reuse from series to series.
#[derive(Debug, Default)]
pub(crate) struct PipelineScratch {
    pub(crate) columns: SampleColumns,
    /// The series' aggregates, if it has some; then the columns are empty.
    pub(crate) buckets: Vec<Aggregate>,
    /// The result of [`Pipeline::run`].
    pub(crate) cells: Cells,
    /// What is to be said about the series.
    pub(crate) notes: Notes,
    /// The selected samples led to floats before any operation.
    pub(crate) has_floats: bool,
    /// They led to histograms.
    pub(crate) has_histograms: bool,
    placements: Placements,
    ops: Scratch,
}

impl Pipeline {
    /// Compiles a per-series expression for the times of `grid`. `None`: it is none.
    ///
    /// # Errors
    /// For durations and parameters that are out of range, and scalars that are not bound.
    pub(crate) fn compile(
        expr: &Expr,
        grid: Grid,
        context: &Context,
    ) -> Result<Option<Self>, QueryError> {
        if let Some(step) = Step::of(expr, grid, context)? {
            let operand_grid = step.operand_grid.unwrap_or(grid);
            let Some(mut pipeline) = Self::compile(step.operand, operand_grid, context)? else {
                return Ok(None);
            };
            pipeline.empty |= step.operand_grid.is_none();
            pipeline.drops_name |= step.drops_name;
            pipeline.remarks.extend(remarks(expr, grid, context)?);
            pipeline.ops.push((step.op, grid));
            return Ok(Some(pipeline));
        }
        let (leaf, selector, drops_name) = match &expr.kind {
            ExprKind::Selector(selector) => {
                let wanted = InstantValue::Value;
                let leaf = Leaf::Instant(Instant::of(selector, expr.span, context, wanted)?);
                (leaf, selector, false)
            }
            ExprKind::Call(call) => match (call.function.kind, selector_of(expr)) {
                (FunctionKind::Timestamp, Some(selector)) => {
                    let wanted = InstantValue::Timestamp;
                    let leaf = Leaf::Instant(Instant::of(selector, expr.span, context, wanted)?);
                    (leaf, selector, true)
                }
                (FunctionKind::StartTimestamp, Some(selector)) => {
                    let wanted = InstantValue::StartTimestamp;
                    let leaf = Leaf::Instant(Instant::of(selector, expr.span, context, wanted)?);
                    (leaf, selector, true)
                }
                (FunctionKind::Window(function), Some(selector)) => {
                    let windows = Windows::of_call(call, function, grid, context)?;
                    let drops_name = windows.drops_name();
                    (Leaf::Windows(windows), selector, drops_name)
                }
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let mut pipeline = Self::from_leaf(leaf, selector, drops_name, grid, context);
        pipeline.remarks.extend(remarks(expr, grid, context)?);
        Ok(Some(pipeline))
    }

    /// Compiles the question at which times a per-series expression, or range vector of one, has any
    /// sample. `None`: it is no such expression.
    ///
    /// # Errors
    /// As for [`Pipeline::compile`].
    pub(crate) fn compile_presence(
        expr: &Expr,
        grid: Grid,
        context: &Context,
    ) -> Result<Option<Self>, QueryError> {
        let windows = || Windows::over(expr, WindowFunction::PresentOverTime, context);
        match &expr.kind {
            ExprKind::Range(range) => {
                let leaf = Leaf::Windows(windows()?);
                Ok(Some(Self::from_leaf(
                    leaf,
                    &range.selector,
                    true,
                    grid,
                    context,
                )))
            }
            ExprKind::SubQuery(sub_query) => {
                let inner = context.sub_query_grid(sub_query, grid)?;
                let operand_grid = inner.unwrap_or(grid);
                let compiled = Self::compile(&sub_query.operand, operand_grid, context)?;
                let Some(mut pipeline) = compiled else {
                    return Ok(None);
                };
                pipeline.empty |= inner.is_none();
                let (inner, windows) = (operand_grid, windows()?);
                pipeline.ops.push((RowOp::Windows { inner, windows }, grid));
                Ok(Some(pipeline))
            }
            _ => Self::compile(expr, grid, context),
        }
    }

    fn from_leaf(
        leaf: Leaf,
        selector: &VectorSelector,
        drops_name: bool,
        grid: Grid,
        context: &Context,
    ) -> Self {
        let length_max = context.options.source_resolution_max_ms;
        let mut resolutions = Resolution::ALL.into_iter().rev();
        let resolution = resolutions.find(|resolution| {
            resolution.millis() <= length_max && leaf.is_exact_at(grid, resolution.millis())
        });
        let (start, end) = match &leaf {
            Leaf::Instant(instant) => instant.bounds(grid),
            Leaf::Windows(windows) => windows.bounds(grid),
        };
        Self {
            selector: Selector {
                matchers: selector.matchers.clone(),
                start,
                end,
                resolution,
            },
            drops_name,
            leaf,
            leaf_grid: grid,
            ops: Vec::new(),
            remarks: Vec::new(),
            empty: false,
            detects_resets: false,
        }
    }

    /// How many times the sub-queries have together: the length of the columns that a run works on besides the samples
    /// and the result.
    pub(crate) fn inner_steps(&self) -> usize {
        let mut last = self.leaf_grid;
        let mut steps = 0;
        for (_, of_result) in &self.ops {
            if last != *of_result {
                steps += last.steps();
            }
            last = *of_result;
        }
        steps
    }

    /// What is to be said about a series that has a result, which is the last one that was run.
    pub(crate) fn remark(&self, labels: &Labels, scratch: &PipelineScratch) -> Annotations {
        let mut annotations = Annotations::default();
        if !scratch.buckets.is_empty() {
            self.annotate_resolution(&mut annotations);
        }
        for remark in &self.remarks {
            remark.annotate(labels, scratch.has_floats, &mut annotations);
        }
        annotations
    }

    /// Whether something may be said about series that are no counters.
    pub(crate) fn remarks_on_counters(&self) -> bool {
        let mut remarks = self.remarks.iter();
        remarks.any(|remark| matches!(remark, Remark::Counter(_)))
    }

    /// Says that aggregates stood for samples.
    fn annotate_resolution(&self, annotations: &mut Annotations) {
        if let Some(resolution) = self.selector.resolution {
            let length = crate::format::duration(resolution.millis());
            let text = format!("answered from aggregates of {length} instead of samples");
            annotations.info(self.leaf.span(), text);
        }
    }

    /// Works out the values of one series from `scratch.buckets`, or else `scratch.columns`, into `scratch.cells`. `false`: there
    /// are none; there may be notes.
    ///
    /// # Errors
    /// Those of [`Budget::check`].
    pub(crate) fn run(
        &self,
        scratch: &mut PipelineScratch,
        budget: &Budget,
    ) -> Result<bool, QueryError> {
        (scratch.has_floats, scratch.has_histograms) = (false, false);
        let (cells, notes) = (&mut scratch.cells, &mut scratch.notes);
        let columns = &mut scratch.columns;
        if self.detects_resets && !columns.histograms.is_empty() {
            detect_resets(columns);
        }
        let buckets = &scratch.buckets;
        match &self.leaf {
            Leaf::Instant(instant) if !buckets.is_empty() => {
                instant.apply_buckets(buckets, self.leaf_grid, cells);
            }
            Leaf::Windows(windows) if !buckets.is_empty() => {
                windows.apply_buckets(buckets, self.leaf_grid, cells, budget)?;
            }
            Leaf::Instant(instant) => instant.apply(columns, self.leaf_grid, cells, notes),
            Leaf::Windows(windows) => {
                drop_stale(columns);
                let placements = &mut scratch.placements;
                windows.apply(columns, self.leaf_grid, cells, placements, notes, budget)?;
            }
        }
        if self.empty || cells.values.iter().all(|value| is_absent(*value)) {
            return Ok(false);
        }
        let is_float = |value: &f64| !is_absent(*value) && !is_histogram(*value);
        scratch.has_histograms = !cells.histograms.is_empty();
        scratch.has_floats = !scratch.has_histograms || cells.values.iter().any(is_float);
        for (op, grid) in &self.ops {
            op.apply(cells, *grid, &mut scratch.ops, notes, budget)?;
        }
        Ok(!cells.values.iter().all(|value| is_absent(*value)))
    }
}

/// Something to say about a function's results.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Remark {
    /// The series should be a counter.
    Counter(Span),
    /// A quantile is outside of 0 to 1.
    Quantile(Span, f64),
}

/// What is to be said about the results of `expr`.
///
/// # Errors
/// For scalars that are not bound.
pub(crate) fn remarks(
    expr: &Expr,
    grid: Grid,
    context: &Context,
) -> Result<Vec<Remark>, QueryError> {
    let ExprKind::Call(call) = &expr.kind else {
        return Ok(Vec::new());
    };
    let first = &call.arguments[..1.min(call.arguments.len())];
    let mut remarks = Vec::new();
    for argument in first {
        match call.function.kind {
            FunctionKind::Window(WindowFunction::Rate | WindowFunction::Increase) => {
                remarks.push(Remark::Counter(argument.span));
            }
            FunctionKind::Window(WindowFunction::QuantileOverTime) => {
                let quantiles = context.scalars(argument, grid)?;
                let odd = (0..grid.steps()).map(|at| quantiles.at(at));
                let odd = odd.filter(|q| !(0.0..=1.0).contains(q));
                remarks.extend(odd.map(|q| Remark::Quantile(argument.span, q)));
                remarks.dedup();
            }
            _ => {}
        }
    }
    Ok(remarks)
}

impl Remark {
    /// Says it about a series with a result, which may come from floats.
    pub(crate) fn annotate(
        &self,
        labels: &Labels,
        has_floats: bool,
        annotations: &mut Annotations,
    ) {
        match self {
            // What a histogram counts, it says itself.
            Self::Counter(_) if !has_floats => {}
            Self::Counter(span) => note_if_not_counter(labels, *span, annotations),
            Self::Quantile(span, quantile) => {
                warn_about_quantile(*quantile, *span, annotations);
            }
        }
    }
}

fn note_if_not_counter(labels: &Labels, span: Span, annotations: &mut Annotations) {
    let Some(name) = labels.metric_name().filter(|name| !name.is_empty()) else {
        return;
    };
    if COUNTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        return;
    }
    annotations.info(
        span,
        format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
        ),
    );
}

/// Warns about a quantile that is not between 0 and 1.
pub(crate) fn warn_about_quantile(quantile: f64, span: Span, annotations: &mut Annotations) {
    if !(0.0..=1.0).contains(&quantile) {
        let text = format!(
            "quantile value should be between 0 and 1, got {}",
            general(quantile)
        );
        annotations.warn(span, text);
    }
}

/// Whether histograms that the node at `span` selects are wanted for their counts and sums only.
///
/// A sub-query in between needs all of them, and so does a function that looks into buckets.
pub(crate) fn wants_counts_only(root: &Expr, span: Span) -> bool {
    fn walk(expr: &Expr, span: Span, counts_only: bool) -> Option<bool> {
        if expr.span == span && matches!(expr.kind, ExprKind::Selector(_) | ExprKind::Range(_)) {
            return Some(counts_only);
        }
        let counts_only = match &expr.kind {
            ExprKind::SubQuery(_) => return None,
            ExprKind::Binary(binary) if binary.op.is_trim() => return None,
            ExprKind::Call(call) => match call.function.kind {
                FunctionKind::Sample(
                    SampleFunction::HistogramAvg
                    | SampleFunction::HistogramCount
                    | SampleFunction::HistogramSum,
                ) => true,
                FunctionKind::HistogramQuantile
                | FunctionKind::HistogramQuantiles
                | FunctionKind::HistogramFraction => return None,
                _ => counts_only,
            },
            _ => counts_only,
        };
        let mut children = expr.children().into_iter();
        children.find_map(|child| walk(child, span, counts_only))
    }
    walk(root, span, false).unwrap_or(false)
}

/// Where the selector of a per-series expression stands.
pub(crate) fn selector_span(expr: &Expr) -> Option<Span> {
    match &expr.kind {
        ExprKind::Selector(_) | ExprKind::Range(_) => Some(expr.span),
        _ => expr.children().into_iter().find_map(selector_span),
    }
}
