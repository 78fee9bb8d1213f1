//! Parts whose answer at a time depends on that time alone, so that answers can be kept in pieces and put together.
//!
//! Not divisible are parts with anything that is fixed by the query's ends or by a scalar that was worked out (`@`, `start()`,
//! `range()`, bindings), and those of which a remark at one time depends on others.

use crate::{
    EvalOptions, Expr, Grid, Part, PartOutput, QueryError, Selector, Span,
    ast::{DurationExpr, DurationKind, ExprKind, TimeModifier},
    evaluate::{detects_resets, selector_at},
    function::{FunctionKind, TimeFunction, WindowFunction},
    parse::parse,
};
use std::ops::Range;
use trefoil_model::{Millis, TimeRange};

/// A part that can be divided in time.
#[derive(Clone, Debug)]
pub struct Divided {
    part: Part,
    root: Expr,
}

/// What a divisible part asks, but for its first and last time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartKey {
    query: String,
    node: Span,
    output: PartOutput,
    step: Millis,
    /// What is left of its times when divided by the step.
    phase: Millis,
    options: EvalOptions,
}

impl PartKey {
    /// The memory that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.query.len()
    }
}

impl Divided {
    /// The part, if it can be divided.
    ///
    /// # Errors
    /// Those of [`evaluate_part`](crate::evaluate_part) which show without samples.
    pub fn of(part: &Part) -> Result<Option<Self>, QueryError> {
        let is_of_times = match part.output {
            PartOutput::Rows | PartOutput::Groups | PartOutput::Presence => true,
            PartOutput::Samples | PartOutput::Info => false,
        };
        if !is_of_times || !part.bindings.is_empty() || part.grid.steps() < 2 {
            return Ok(None);
        }
        let mut divided = Self {
            root: parse(&part.query, &part.options)?,
            part: part.clone(),
        };
        let Some(node) = divided.root.find(part.node) else {
            return Ok(None);
        };
        let is_divisible = depends_on_time_alone(node)
            && is_remarked_by_time(node)
            && !detects_resets(&divided.root, node);
        if !is_divisible {
            return Ok(None);
        }
        let Some(selector) = divided.selector(part.grid)? else {
            return Ok(None);
        };
        // Some of the times may lie on longer buckets than all of them.
        divided.part.options.source_resolution_max_ms =
            selector.resolution.map_or(0, |found| found.millis());
        Ok(Some(divided))
    }

    /// What of the part is the same for all times.
    #[must_use]
    pub fn key(&self) -> PartKey {
        let part = &self.part;
        PartKey {
            query: part.query.clone(),
            node: part.node,
            output: part.output,
            step: part.grid.step,
            phase: part.grid.start.rem_euclid(part.grid.step),
            options: part.options,
        }
    }

    /// The same part at some of its times, at least one.
    #[must_use]
    pub fn at(&self, steps: Range<usize>) -> Part {
        Part {
            grid: self.grid_of(steps),
            ..self.part.clone()
        }
    }

    /// The times of all samples on which the answer at some of the part's times depends.
    ///
    /// # Errors
    /// As for [`Divided::of`].
    pub fn reach(&self, steps: Range<usize>) -> Result<TimeRange, QueryError> {
        let selector = self.selector(self.grid_of(steps))?;
        let selector =
            selector.ok_or_else(|| QueryError::Internal("the part has changed".into()))?;
        Ok(TimeRange {
            start: selector.start,
            end: selector.end.saturating_add(1),
        })
    }

    fn grid_of(&self, steps: Range<usize>) -> Grid {
        let grid = self.part.grid;
        Grid {
            start: grid.at(steps.start),
            end: grid.at(steps.end - 1),
            step: grid.step,
        }
    }

    fn selector(&self, grid: Grid) -> Result<Option<Selector>, QueryError> {
        match self.root.find(self.part.node) {
            Some(node) => {
                let read = selector_at(node, &self.part, grid)?;
                Ok(read.map(|(selector, _)| selector))
            }
            None => Ok(None),
        }
    }
}

/// Whether nothing in `expr` refers to the ends or the step of the query.
fn depends_on_time_alone(expr: &Expr) -> bool {
    let own = match &expr.kind {
        ExprKind::Selector(selector) => is_free(&selector.time),
        ExprKind::Range(range) => is_free(&range.selector.time) && is_fixed(&range.range),
        ExprKind::SubQuery(sub_query) => {
            let step = sub_query.step.as_ref();
            is_free(&sub_query.time) && is_fixed(&sub_query.range) && step.is_none_or(is_fixed)
        }
        ExprKind::Call(call) => match call.function.kind {
            FunctionKind::Time(function) => {
                matches!(function, TimeFunction::Time | TimeFunction::Pi)
            }
            _ => true,
        },
        _ => true,
    };
    own && expr.children().into_iter().all(depends_on_time_alone)
}

fn is_free(time: &TimeModifier) -> bool {
    time.at.is_none() && time.offset.as_ref().is_none_or(is_fixed)
}

/// Whether a duration is the same whatever the query's times are.
fn is_fixed(duration: &DurationExpr) -> bool {
    match &duration.kind {
        DurationKind::Literal(_) | DurationKind::Number(_) => true,
        DurationKind::Step | DurationKind::Range => false,
        DurationKind::Negative(inner) | DurationKind::Paren(inner) => is_fixed(inner),
        DurationKind::Binary(_, a, b) | DurationKind::Min(a, b) | DurationKind::Max(a, b) => {
            is_fixed(a) && is_fixed(b)
        }
    }
}

/// Whether what is said about a series at a time does not depend on other times: a quantile that changes with time is remarked
/// upon for all times at once.
fn is_remarked_by_time(expr: &Expr) -> bool {
    let has = |wanted: FunctionKind| calls(expr, &|kind| kind == wanted);
    !(has(FunctionKind::Window(WindowFunction::QuantileOverTime))
        && has(FunctionKind::Time(TimeFunction::Time)))
}

fn calls(expr: &Expr, wanted: &dyn Fn(FunctionKind) -> bool) -> bool {
    let own = matches!(&expr.kind, ExprKind::Call(call) if wanted(call.function.kind));
    own || expr
        .children()
        .into_iter()
        .any(|child| calls(child, wanted))
}
