//! The evaluator's side: works out a part on the samples of one node, series by series.

pub(crate) mod context;
pub(crate) mod grouping;
pub(crate) mod info;
pub(crate) mod instant;
pub(crate) mod pipeline;
pub(crate) mod placements;
mod prepare;
pub(crate) mod row_op;
pub(crate) mod said;
pub(crate) mod select;
pub(crate) mod windows;

use crate::{
    Annotations, Budget, Grid, Part, PartBody, PartOutput, PartResult, QueryError, RawSeries,
    Selector, SeriesStorage,
    ast::{Aggregate, AggregateOp, Expr, ExprKind, RangeSelector},
    functions::native,
    note::Notes,
    pace::{LOOKS_OF_ROW, Pace},
    parse::parse,
    partial::{GroupColumn, GroupPartial},
    piece::Worked,
    reach::Confined,
    row::{ABSENT, Cell, Cells, Row, is_absent, row_bytes},
};
use context::Context;
use grouping::{GroupMap, Grouping};
use pipeline::{Pipeline, PipelineScratch, selector_of, selector_span, wants_counts_only};
use prepare::drop_stale;
use said::Said;
use select::select_series;
use std::collections::BTreeMap;
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder};

/// Works out `part` on the series of `storage`. Synchronous; the time goes with the samples read.
///
/// # Errors
/// What the storage says, what the budget says, and errors of the query that show only with its data.
/// [`QueryError::Internal`] when a selector looks outside of [`Part::reach`].
pub fn evaluate_part(
    part: &Part,
    storage: &dyn SeriesStorage,
    budget: &Budget,
) -> Result<PartResult, QueryError> {
    evaluate_part_in(part, &[], storage, budget).map(|worked| worked.result)
}

/// As [`evaluate_part`], for an answer that is to be kept in pieces: `ends` says behind how many times each of them ends, ascending;
/// none when the answer stays whole.
///
/// # Errors
/// As there.
pub fn evaluate_part_in(
    part: &Part,
    ends: &[usize],
    storage: &dyn SeriesStorage,
    budget: &Budget,
) -> Result<Worked, QueryError> {
    budget.check()?;
    let root = parse(&part.query, &part.options)?;
    let node = node_of(&root, part)?;
    let storage = Confined {
        storage,
        reach: part.reach()?,
    };
    let mut evaluation = Evaluation {
        part,
        storage: &storage,
        budget,
        context: context_of(part),
        annotations: Annotations::default(),
        said: Said::about(ends),
        detects_resets: detects_resets(&root, node),
    };
    let body = evaluation.body(node)?;
    let annotations = evaluation.annotations;
    let mut said = evaluation.said.finish(&annotations);
    // Which series names a group's histograms depends on all times.
    said.is_blurred |= has_histograms(&body) && fixed_name(node).is_none();
    let result = PartResult { body, annotations };
    Ok(Worked { result, said })
}

/// Whether resets between the histograms of a node are looked for even where nothing needs them.
pub(crate) fn detects_resets(root: &Expr, node: &Expr) -> bool {
    selector_span(node).is_some_and(|span| wants_counts_only(root, span))
}

fn has_histograms(body: &PartBody) -> bool {
    match body {
        PartBody::Groups(groups) => groups.iter().any(|group| !group.histograms.is_empty()),
        PartBody::Rows(_) | PartBody::Samples(_) => false,
    }
}

/// The metric's name that all series of a node have.
fn fixed_name(node: &Expr) -> Option<&str> {
    let operand = match &node.kind {
        ExprKind::Aggregate(aggregate) => &aggregate.operand,
        _ => node,
    };
    selector_of(operand)?.fixed_name()
}

/// The selector of which `part` may be evaluated on some of the series at a time, to [merge](crate::merge) the answers, and how many
/// times its sub-queries have; `None` if there is none.
///
/// # Errors
/// As for [`evaluate_part`].
pub fn part_selector(part: &Part) -> Result<Option<(Selector, usize)>, QueryError> {
    let root = parse(&part.query, &part.options)?;
    selector_at(node_of(&root, part)?, part, part.grid)
}

/// The same for the part's node at other times.
pub(crate) fn selector_at(
    node: &Expr,
    part: &Part,
    grid: Grid,
) -> Result<Option<(Selector, usize)>, QueryError> {
    let context = context_of(part);
    let of_pipeline = |pipeline: Option<Pipeline>| {
        pipeline.map(|pipeline| {
            let inner_steps = pipeline.inner_steps();
            (pipeline.selector, inner_steps)
        })
    };
    match (part.output, &node.kind) {
        (PartOutput::Samples, ExprKind::Range(range)) => {
            samples_selector(range, grid, &context).map(|selector| Some((selector, 0)))
        }
        (PartOutput::Groups, ExprKind::Aggregate(aggregate)) => {
            // At a single time groups come in the order of their first members, which their winners do not show.
            if aggregate.op.selects_series() && grid.steps() == 1 {
                return Ok(None);
            }
            Pipeline::compile(&aggregate.operand, grid, &context).map(of_pipeline)
        }
        (PartOutput::Rows, _) => Pipeline::compile(node, grid, &context).map(of_pipeline),
        (PartOutput::Presence, _) => {
            Pipeline::compile_presence(node, grid, &context).map(of_pipeline)
        }
        _ => Ok(None),
    }
}

fn node_of<'a>(root: &'a Expr, part: &Part) -> Result<&'a Expr, QueryError> {
    root.find(part.node)
        .ok_or_else(|| QueryError::Internal(format!("the query has no node at {}", part.node)))
}

fn context_of(part: &Part) -> Context {
    Context::new(
        part.query_grid,
        part.options,
        &part.bindings,
        part.samples_max,
    )
}

/// The samples of a range vector at one time.
fn samples_selector(
    range: &RangeSelector,
    grid: Grid,
    context: &Context,
) -> Result<Selector, QueryError> {
    let length = context.positive(&range.range)?;
    let reference = context.reference(&range.selector.time)?;
    let end = reference.time(grid.start);
    Ok(Selector {
        matchers: range.selector.matchers.clone(),
        start: end.saturating_sub(length).saturating_add(1),
        end,
        resolution: None,
    })
}

/// What an aggregate counts in the budget of samples: about its memory.
const SAMPLES_PER_BUCKET: usize = 6;

struct Evaluation<'a> {
    part: &'a Part,
    storage: &'a dyn SeriesStorage,
    budget: &'a Budget,
    context: Context,
    annotations: Annotations,
    said: Said,
    detects_resets: bool,
}

/// Takes a series' labels, whether its name goes, and its values; may leave notes.
type Each<'a> = dyn FnMut(&Labels, bool, &Cells, &mut Notes) -> Result<(), QueryError> + 'a;

impl Evaluation<'_> {
    fn body(&mut self, node: &Expr) -> Result<PartBody, QueryError> {
        match (self.part.output, &node.kind) {
            (PartOutput::Samples, ExprKind::Range(range)) => {
                self.samples(range).map(PartBody::Samples)
            }
            (PartOutput::Groups, ExprKind::Aggregate(aggregate)) => self.aggregate(aggregate),
            (PartOutput::Info, ExprKind::Call(call)) => self.info(call).map(PartBody::Rows),
            (PartOutput::Rows, _) => self.rows(node).map(PartBody::Rows),
            (PartOutput::Presence, _) => self.presence(node),
            _ => Err(QueryError::Internal(
                "the part's node does not fit its output".into(),
            )),
        }
    }

    /// Calls `each` for every series with a result, in the storage's order.
    fn each_series(&mut self, expr: &Expr, each: &mut Each<'_>) -> Result<(), QueryError> {
        let pipeline = Pipeline::compile(expr, self.part.grid, &self.context)?;
        self.each_series_of(pipeline.ok_or_else(|| not_per_series(expr))?, each)
    }

    fn each_series_of(
        &mut self,
        mut pipeline: Pipeline,
        each: &mut Each<'_>,
    ) -> Result<(), QueryError> {
        pipeline.detects_resets = self.detects_resets;
        let mut scratch = PipelineScratch::default();
        let (budget, annotations) = (self.budget, &mut self.annotations);
        let said = &mut self.said;
        let inner = pipeline.inner_steps();
        budget.hold(inner)?;
        self.storage
            .select(&pipeline.selector, &mut |labels, source| {
                budget.check()?;
                scratch.columns.clear();
                scratch.buckets.clear();
                let has_buckets = pipeline.selector.resolution.is_some()
                    && source.aggregates(&mut scratch.buckets)?;
                if !has_buckets {
                    source.read(&mut scratch.columns)?;
                }
                let read = scratch.columns.samples() + SAMPLES_PER_BUCKET * scratch.buckets.len();
                budget.hold(read)?;
                let is_raw = !scratch.columns.timestamps.is_empty();
                let any = pipeline.run(&mut scratch, budget)?;
                budget.release(read);
                said.see(&pipeline, &scratch, is_raw);
                if any {
                    let remarks = pipeline.remark(labels, &scratch);
                    if !remarks.is_empty() {
                        said.place(&remarks, &scratch.cells);
                        annotations.merge(remarks);
                    }
                    let PipelineScratch { cells, notes, .. } = &mut scratch;
                    each(labels, pipeline.drops_name, cells, notes)?;
                }
                if !scratch.notes.is_empty() {
                    let metric = labels.metric_name().unwrap_or("");
                    scratch.notes.tell(metric, annotations);
                }
                Ok(())
            })?;
        budget.release(inner);
        Ok(())
    }

    fn rows(&mut self, expr: &Expr) -> Result<Vec<Row>, QueryError> {
        let delayed = self.context.options.delayed_name_removal;
        let budget = self.budget;
        let mut rows = Vec::new();
        self.each_series(expr, &mut |labels, drops_name, cells, _| {
            let row = row(labels, drops_name, cells, delayed);
            budget.hold(row.samples())?;
            budget.hold_bytes(row.bytes())?;
            rows.push(row);
            Ok(())
        })?;
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(rows)
    }

    fn samples(&mut self, range: &RangeSelector) -> Result<Vec<RawSeries>, QueryError> {
        let selector = samples_selector(range, self.part.grid, &self.context)?;
        let mut all = Vec::new();
        let budget = self.budget;
        self.storage.select(&selector, &mut |labels, source| {
            budget.check()?;
            let mut columns = crate::SampleColumns::default();
            source.read(&mut columns)?;
            drop_stale(&mut columns);
            budget.hold(columns.samples())?;
            // A time and a value are as large as two values.
            let bytes = row_bytes(labels, 2 * columns.timestamps.len());
            budget.hold_bytes(bytes + columns.histograms.bytes())?;
            if !columns.timestamps.is_empty() {
                // The storage may have given memory for much more than the range has.
                columns.timestamps.shrink_to_fit();
                columns.values.shrink_to_fit();
                all.push(RawSeries {
                    labels: labels.clone(),
                    timestamps: columns.timestamps,
                    values: columns.values,
                    histograms: columns.histograms,
                });
            }
            Ok(())
        })?;
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }

    fn presence(&mut self, expr: &Expr) -> Result<PartBody, QueryError> {
        let mut column = GroupColumn::Group(vec![ABSENT; self.part.grid.steps()]);
        let grid = self.part.grid;
        let pipeline = Pipeline::compile_presence(expr, grid, &self.context)?;
        self.each_series_of(
            pipeline.ok_or_else(|| not_per_series(expr))?,
            &mut |_, _, cells, _| {
                column.add(&cells.values);
                Ok(())
            },
        )?;
        let group = GroupPartial::new(Labels::empty(), column);
        Ok(PartBody::Groups(vec![group]))
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<PartBody, QueryError> {
        if aggregate.op.selects_series() {
            let rows = self.rows(&aggregate.operand)?;
            let held: usize = rows.iter().map(Row::samples).sum();
            let held_bytes: usize = rows.iter().map(Row::bytes).sum();
            let selected = select_series(
                aggregate,
                rows,
                self.part.grid,
                &self.context,
                &mut self.annotations,
                &mut Pace::new(self.budget),
            )?;
            self.budget.release(held);
            self.budget.hold(selected.iter().map(Row::samples).sum())?;
            self.budget.release_bytes(held_bytes);
            self.budget
                .hold_bytes(selected.iter().map(Row::bytes).sum())?;
            return Ok(PartBody::Rows(selected));
        }
        if aggregate.op == AggregateOp::CountValues {
            return self.count_values(aggregate).map(PartBody::Groups);
        }
        let steps = self.part.grid.steps();
        let delayed = self.context.options.delayed_name_removal;
        let mut groups = GroupMap::new(Grouping::of(aggregate, delayed));
        let (budget, span) = (self.budget, aggregate.operand.span);
        self.each_series(
            &aggregate.operand,
            &mut |labels, drops_name, cells, notes| {
                let (group, is_new) =
                    groups.group_of(labels, drops_name, || new_column(aggregate.op, steps))?;
                if is_new {
                    budget.hold(steps)?;
                    budget.hold_bytes(group_bytes(&group.labels, steps))?;
                }
                if cells.histograms.is_empty() {
                    group.column.add(&cells.values);
                    return Ok(());
                }
                let before = group.histograms.bytes();
                group.add(cells, labels.metric_name().unwrap_or(""), span, notes);
                let bytes = group.histograms.bytes();
                // Histograms shrink when they meet coarser ones.
                budget.hold_bytes(bytes.saturating_sub(before))
            },
        )?;
        Ok(PartBody::Groups(groups.into_groups()))
    }

    fn count_values(&mut self, aggregate: &Aggregate) -> Result<Vec<GroupPartial>, QueryError> {
        let rows = self.rows(&aggregate.operand)?;
        let delayed = self.context.options.delayed_name_removal;
        let groups = count_values(
            aggregate,
            &rows,
            self.part.grid.steps(),
            delayed,
            self.budget,
        );
        self.budget.release_bytes(rows.iter().map(Row::bytes).sum());
        self.budget.release(rows.iter().map(Row::samples).sum());
        groups
    }
}

fn not_per_series(expr: &Expr) -> QueryError {
    QueryError::Internal(format!("the expression at {} is not per series", expr.span))
}

/// A row from the values of a series; without delayed name removal its name goes at once.
pub(crate) fn row(labels: &Labels, drops_name: bool, cells: &Cells, delayed: bool) -> Row {
    let labels = if drops_name && !delayed {
        without_name(labels)
    } else {
        labels.clone()
    };
    Row {
        labels,
        drop_name: drops_name && delayed,
        values: cells.values.clone(),
        histograms: cells.histograms.clone(),
    }
}

/// The labels that describe a metric and go when its name goes.
pub(crate) const METADATA_LABELS: [&str; 3] = [LABEL_NAME_METRIC, "__type__", "__unit__"];

/// The labels without the metric's name, type and unit.
pub(crate) fn without_name(labels: &Labels) -> Labels {
    if METADATA_LABELS
        .iter()
        .all(|name| labels.get(name).is_none())
    {
        return labels.clone();
    }
    LabelsBuilder::from_labels(labels)
        .retain(|name| !METADATA_LABELS.contains(&name))
        .build()
}

/// The memory that a group takes, about: no state of an aggregation is smaller than two values per time, or much
/// larger.
pub(crate) fn group_bytes(labels: &Labels, steps: usize) -> usize {
    row_bytes(labels, 2 * steps)
}

/// The empty state of a mergeable aggregation; that of `count` for all others.
pub(crate) fn new_column(op: AggregateOp, steps: usize) -> GroupColumn {
    let absent = || vec![ABSENT; steps];
    match op {
        AggregateOp::Sum => GroupColumn::Sum(absent(), vec![0.0; steps]),
        AggregateOp::Avg => GroupColumn::Avg(vec![crate::MeanState::default(); steps]),
        AggregateOp::Min => GroupColumn::Min(absent()),
        AggregateOp::Max => GroupColumn::Max(absent()),
        AggregateOp::Group => GroupColumn::Group(absent()),
        _ => GroupColumn::Count(absent()),
    }
}

/// How often each value occurs in each group: one group per value.
pub(crate) fn count_values(
    aggregate: &Aggregate,
    rows: &[Row],
    steps: usize,
    delayed: bool,
    budget: &Budget,
) -> Result<Vec<GroupPartial>, QueryError> {
    let label = match aggregate
        .parameter
        .as_ref()
        .map(|p| &p.unwrap_parens().kind)
    {
        Some(ExprKind::String(label)) => label.label_name()?,
        _ => return Err(QueryError::Internal("count_values has no label".into())),
    };
    let grouping = Grouping::of(aggregate, delayed);
    let mut groups: BTreeMap<Labels, GroupPartial> = BTreeMap::new();
    let mut pace = Pace::new(budget);
    for row in rows {
        pace.look(LOOKS_OF_ROW)?;
        let key = Labels::from_canonical(&grouping.key(&row.labels, false))
            .map_err(|error| QueryError::Internal(error.to_string()))?;
        for at in 0..steps {
            let text = match row.at(at) {
                Cell::Absent => continue,
                Cell::Float(value) => crate::format::number(value),
                Cell::Histogram(histogram) => native::text(&histogram),
            };
            // It becomes labels, and those a group.
            pace.look(LOOKS_OF_ROW)?;
            let mut builder = LabelsBuilder::from_labels(&key);
            builder.set(label, &text);
            let labels = builder.build();
            if !groups.contains_key(&labels) {
                budget.hold(steps)?;
                budget.hold_bytes(group_bytes(&labels, steps))?;
            }
            let group = groups
                .entry(labels.clone())
                .or_insert_with(|| GroupPartial {
                    labels,
                    drop_name: row.drop_name,
                    ..GroupPartial::new(Labels::empty(), GroupColumn::Count(vec![ABSENT; steps]))
                });
            if let GroupColumn::Count(counts) = &mut group.column {
                counts[at] = if is_absent(counts[at]) {
                    1.0
                } else {
                    counts[at] + 1.0
                };
            }
        }
    }
    Ok(groups.into_values().collect())
}
