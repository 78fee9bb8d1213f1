//! `info` at the evaluator: which info series there are at the times of a grid.

use super::{
    Evaluation,
    context::{Context, Reference},
    instant::{Instant, InstantValue},
};
use crate::{
    Expr, Grid, MatchOp, Matcher, QueryError, SampleColumns, Selector,
    ast::{Call, ExprKind},
    note::Notes,
    row::{Cells, Row},
};
use trefoil_model::{LABEL_NAME_METRIC, Labels};

/// The info metric where the query names none.
const DEFAULT_NAME: &str = "target_info";
/// What info metrics are called where the query only says what they are not called.
const USUAL_NAMES: &str = ".+_info";

/// What a call of `info` says about info series.
pub(crate) struct InfoSelector {
    /// Conditions on the metric's name; at least one.
    names: Vec<Matcher>,
    /// Conditions on data labels, which are the only ones to be added, if there are any.
    pub(crate) data: Vec<Matcher>,
    /// The times at which info series are looked at: those of the first selector of the other argument.
    reference: Reference,
}

impl InfoSelector {
    /// # Errors
    /// For durations that are out of range.
    pub(crate) fn of(call: &Call, context: &Context) -> Result<Self, QueryError> {
        let selector = call
            .arguments
            .get(1)
            .map(|argument| &argument.unwrap_parens().kind);
        let matchers = match selector {
            Some(ExprKind::Selector(selector)) => selector.matchers.clone(),
            _ => Vec::new(),
        };
        let is_name = |matcher: &Matcher| matcher.name() == LABEL_NAME_METRIC;
        let (mut names, data): (Vec<_>, Vec<_>) = matchers.into_iter().partition(is_name);
        let is_positive =
            |matcher: &Matcher| matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
        if names.is_empty() {
            names.push(Matcher::new(
                LABEL_NAME_METRIC,
                MatchOp::Equal,
                DEFAULT_NAME,
            )?);
        } else if !names.iter().any(is_positive) {
            names.push(Matcher::new(
                LABEL_NAME_METRIC,
                MatchOp::Regex,
                USUAL_NAMES,
            )?);
        }
        let reference = match call.arguments.first() {
            Some(vector) => first_reference(vector, context)?,
            None => None,
        };
        Ok(Self {
            names,
            data,
            reference: reference.unwrap_or(Reference {
                at: None,
                offset: 0,
            }),
        })
    }

    /// Whether a series is an info series itself.
    pub(crate) fn is_info(&self, labels: &Labels) -> bool {
        self.names
            .iter()
            .all(|matcher| matcher.matches_labels(labels))
    }

    fn instant(&self, context: &Context) -> Instant {
        Instant {
            reference: self.reference,
            look_back_ms: context.options.look_back_ms,
            wanted: InstantValue::Timestamp,
            span: crate::Span::default(),
        }
    }

    /// What the storage is asked for.
    pub(crate) fn selector(&self, grid: Grid, context: &Context) -> Selector {
        let (start, end) = self.instant(context).bounds(grid);
        Selector {
            matchers: self.names.iter().chain(&self.data).cloned().collect(),
            start,
            end,
            resolution: None,
        }
    }
}

/// How the first selector of `expr` sees the time of evaluation, through the sub-queries around it.
fn first_reference(expr: &Expr, context: &Context) -> Result<Option<Reference>, QueryError> {
    match &expr.kind {
        ExprKind::Selector(selector) => context.reference(&selector.time).map(Some),
        ExprKind::Range(range) => context.reference(&range.selector.time).map(Some),
        ExprKind::SubQuery(sub_query) => {
            let outer = context.reference(&sub_query.time)?;
            let inner = first_reference(&sub_query.operand, context)?;
            Ok(inner.map(|inner| match inner.at {
                Some(_) => inner,
                None => Reference {
                    at: outer.at,
                    offset: outer.offset.saturating_add(inner.offset),
                },
            }))
        }
        _ => {
            for child in expr.children() {
                if let Some(found) = first_reference(child, context)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
    }
}

impl Evaluation<'_> {
    /// One row for every info series of a call: the times of its samples, in seconds.
    pub(super) fn info(&mut self, call: &Call) -> Result<Vec<Row>, QueryError> {
        let info = InfoSelector::of(call, &self.context)?;
        let (grid, budget) = (self.part.grid, self.budget);
        let instant = info.instant(&self.context);
        let selector = info.selector(grid, &self.context);
        let (mut columns, mut cells) = (SampleColumns::default(), Cells::default());
        let mut rows = Vec::new();
        self.storage.select(&selector, &mut |labels, source| {
            budget.check()?;
            columns.clear();
            source.read(&mut columns)?;
            if !columns.histograms.is_empty() {
                return Err(QueryError::execution(format!(
                    "this should be an info metric, with float samples: {labels}"
                )));
            }
            instant.apply(&columns, grid, &mut cells, &mut Notes::default());
            let row = Row::floats(labels.clone(), false, cells.values.clone());
            if !row.is_empty() {
                budget.hold(row.samples())?;
                budget.hold_bytes(row.bytes())?;
                rows.push(row);
            }
            Ok(())
        })?;
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(rows)
    }
}
