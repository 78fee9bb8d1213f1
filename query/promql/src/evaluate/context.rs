//! What an expression's value depends on besides data: the query's times, settings, bound scalars.

use crate::{
    Binding, EvalOptions, Grid, QueryError, Span,
    ast::{At, BinaryOp, DurationExpr, DurationKind, Expr, ExprKind, SubQuery, TimeModifier},
    function::{FunctionKind, TimeFunction},
    operators,
};
use std::collections::HashMap;
use trefoil_model::Millis;

/// Longest distance in milliseconds that a duration expression may yield: Prometheus' nanoseconds.
const DURATION_MILLIS_MAX: f64 = 9_223_372_036_000.0;

/// The surroundings of an evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) query_grid: Grid,
    pub(crate) options: EvalOptions,
    pub(crate) bindings: HashMap<Span, Vec<f64>>,
    /// More times than this one sub-query may not have.
    samples_max: u64,
}

/// A scalar over the times of a grid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalars {
    Constant(f64),
    Column(Vec<f64>),
}

impl Scalars {
    /// The value at the time with this number.
    #[inline]
    pub(crate) fn at(&self, index: usize) -> f64 {
        match self {
            Self::Constant(value) => *value,
            // A single value stands for all times: the scalar was bound on a grid of one time.
            Self::Column(values) => values.get(index).copied().unwrap_or(f64::NAN),
        }
    }

    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(f(value)),
            Self::Column(values) => Self::Column(values.into_iter().map(f).collect()),
        }
    }

    fn combine(self, other: Self, steps: usize, f: impl Fn(f64, f64) -> f64) -> Self {
        match (&self, &other) {
            (Self::Constant(a), Self::Constant(b)) => Self::Constant(f(*a, *b)),
            _ => Self::Column((0..steps).map(|i| f(self.at(i), other.at(i))).collect()),
        }
    }
}

/// An error of an expression of durations, with Prometheus' way to say where.
fn at(duration: &DurationExpr, text: &str) -> QueryError {
    let Span { start, end } = duration.span;
    QueryError::BadData(format!("{start}:{end}: {text}"))
}

/// Where a selector or sub-query looks: `@` and `offset` resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) at: Option<Millis>,
    pub(crate) offset: Millis,
}

impl Reference {
    /// The time that an evaluation at `time` refers to.
    pub(crate) fn time(&self, time: Millis) -> Millis {
        self.at.unwrap_or(time).saturating_sub(self.offset)
    }

    /// What the first and the last time of a grid refer to.
    pub(crate) fn ends(&self, grid: Grid) -> (Millis, Millis) {
        let last = grid.at(grid.steps() - 1);
        (self.time(grid.start), self.time(last))
    }

    /// Whether everything that the times of a grid refer to is a multiple of `length`.
    pub(crate) fn is_aligned(&self, grid: Grid, length: Millis) -> bool {
        let (first, last) = self.ends(grid);
        first.rem_euclid(length) == 0 && (first == last || grid.step % length == 0)
    }
}

impl Context {
    pub(crate) fn new(
        query_grid: Grid,
        options: EvalOptions,
        bindings: &[Binding],
        samples_max: u64,
    ) -> Self {
        let bindings = bindings.iter().map(|b| (b.node, b.values.clone()));
        Self {
            query_grid,
            options,
            bindings: bindings.collect(),
            samples_max,
        }
    }

    pub(crate) fn reference(&self, time: &TimeModifier) -> Result<Reference, QueryError> {
        let offset = match &time.offset {
            Some(offset) => self.milliseconds(offset)?,
            None => 0,
        };
        let at = time.at.map(|at| match at {
            At::Time(time) => time,
            At::Start => self.query_grid.start,
            At::End => self.query_grid.end,
        });
        Ok(Reference { at, offset })
    }

    /// The milliseconds of a range or step, which must be positive.
    pub(crate) fn positive(&self, duration: &DurationExpr) -> Result<Millis, QueryError> {
        let milliseconds = self.milliseconds(duration)?;
        if milliseconds <= 0 {
            return Err(at(duration, "duration must be greater than 0"));
        }
        Ok(milliseconds)
    }

    fn milliseconds(&self, duration: &DurationExpr) -> Result<Millis, QueryError> {
        let milliseconds = (self.seconds(duration)? * 1000.0).round();
        if !milliseconds.is_finite() || milliseconds.abs() > DURATION_MILLIS_MAX {
            return Err(at(duration, "duration is out of range"));
        }
        Ok(milliseconds as Millis)
    }

    fn seconds(&self, duration: &DurationExpr) -> Result<f64, QueryError> {
        Ok(match &duration.kind {
            DurationKind::Literal(value) | DurationKind::Number(value) => *value,
            DurationKind::Step => self.step_seconds(),
            DurationKind::Range => self.range_seconds(),
            DurationKind::Negative(inner) => -self.seconds(inner)?,
            DurationKind::Paren(inner) => self.seconds(inner)?,
            DurationKind::Min(a, b) => self.seconds(a)?.min(self.seconds(b)?),
            DurationKind::Max(a, b) => self.seconds(a)?.max(self.seconds(b)?),
            DurationKind::Binary(op, a, b) => {
                let (a, b) = (self.seconds(a)?, self.seconds(b)?);
                let zero = match op {
                    BinaryOp::Div => Some("division by zero"),
                    BinaryOp::Mod => Some("modulo by zero"),
                    _ => None,
                };
                if let Some(text) = zero.filter(|_| b == 0.0) {
                    return Err(at(duration, text));
                }
                operators::arithmetic(*op, a, b)
            }
        })
    }

    fn is_instant(&self) -> bool {
        self.query_grid.start == self.query_grid.end
    }

    fn step_seconds(&self) -> f64 {
        if self.is_instant() {
            return 0.0;
        }
        self.query_grid.step as f64 / 1000.0
    }

    fn range_seconds(&self) -> f64 {
        (self.query_grid.end - self.query_grid.start) as f64 / 1000.0
    }

    /// The times at which a sub-query's operand is evaluated for all times of `grid`. `None`: none is
    /// inside the range.
    ///
    /// # Errors
    /// For durations that are out of range, and for more times than a query may hold samples: columns as long as the grid
    /// are made before any sample is read.
    pub(crate) fn sub_query_grid(
        &self,
        sub_query: &SubQuery,
        grid: Grid,
    ) -> Result<Option<Grid>, QueryError> {
        let range = self.positive(&sub_query.range)?;
        let step = match &sub_query.step {
            Some(step) => self.positive(step)?,
            None => self.options.sub_query_step_ms.max(1),
        };
        let reference = self.reference(&sub_query.time)?;
        let last = grid.at(grid.steps() - 1);
        let (first, last) = (reference.time(grid.start), reference.time(last));
        // Multiples of the step, the first one behind the left end, which is open.
        let left = first.saturating_sub(range);
        let start = (left.div_euclid(step) + 1).saturating_mul(step);
        if start > last {
            return Ok(None);
        }
        let inner = Grid {
            start,
            end: last,
            step,
        };
        match inner.steps() as u64 > self.samples_max {
            true => Err(QueryError::too_many_samples()),
            false => Ok(Some(inner)),
        }
    }

    /// The values of a scalar expression at the times of `grid`.
    ///
    /// # Errors
    /// [`QueryError::Internal`] when a scalar that needs data is not bound.
    pub(crate) fn scalars(&self, expr: &Expr, grid: Grid) -> Result<Scalars, QueryError> {
        if let Some(values) = self.bindings.get(&expr.span) {
            return Ok(Scalars::Column(values.clone()));
        }
        match &expr.kind {
            ExprKind::Number(value) => Ok(Scalars::Constant(*value)),
            ExprKind::Paren(inner) => self.scalars(inner, grid),
            ExprKind::Unary { negative, operand } => {
                let values = self.scalars(operand, grid)?;
                Ok(if *negative {
                    values.map(|v| -v)
                } else {
                    values
                })
            }
            ExprKind::Binary(binary) => {
                let left = self.scalars(&binary.left, grid)?;
                let right = self.scalars(&binary.right, grid)?;
                let op = binary.op;
                Ok(left.combine(right, grid.steps(), |a, b| {
                    if op.is_comparison() {
                        f64::from(u8::from(operators::compare(op, a, b)))
                    } else {
                        operators::arithmetic(op, a, b)
                    }
                }))
            }
            ExprKind::Call(call) => match (call.function.kind, call.arguments.as_slice()) {
                (FunctionKind::Time(function), _) => Ok(self.time_function(function, grid)),
                (FunctionKind::OfScalars { max }, [a, b]) => {
                    let (a, b) = (self.scalars(a, grid)?, self.scalars(b, grid)?);
                    Ok(a.combine(b, grid.steps(), if max { go_max } else { go_min }))
                }
                _ => Err(unbound(expr)),
            },
            _ => Err(unbound(expr)),
        }
    }

    fn time_function(&self, function: TimeFunction, grid: Grid) -> Scalars {
        Scalars::Constant(match function {
            TimeFunction::Time => {
                let times = grid.times().map(|time| time as f64 / 1000.0);
                return Scalars::Column(times.collect());
            }
            TimeFunction::Pi => std::f64::consts::PI,
            TimeFunction::Start => self.query_grid.start as f64 / 1000.0,
            TimeFunction::End => self.query_grid.end as f64 / 1000.0,
            TimeFunction::Step => self.step_seconds(),
            TimeFunction::Range => self.range_seconds(),
        })
    }
}

/// The larger of two, NaN if one is NaN.
pub(crate) fn go_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    a.max(b)
}

/// The smaller of two, NaN if one is NaN.
pub(crate) fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    a.min(b)
}

fn unbound(expr: &Expr) -> QueryError {
    QueryError::Internal(format!("the scalar at {} is not bound", expr.span))
}

/// Collects the scalars below `expr` that need data, not looking into them.
pub(crate) fn scalars_with_data<'e>(expr: &'e Expr, into: &mut Vec<&'e Expr>) {
    if let ExprKind::Call(call) = &expr.kind
        && call.function.kind == FunctionKind::Scalar
    {
        into.push(expr);
        return;
    }
    for child in expr.children() {
        scalars_with_data(child, into);
    }
}
