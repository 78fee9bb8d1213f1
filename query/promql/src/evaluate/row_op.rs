//! Row operations: whatever turns the values of one series into other values of the same series.
//!
//! The same operations run where the data is and, above joins and aggregations, on the coordinator.

use super::{
    context::{Context, Scalars},
    placements::Placements,
    windows::Windows,
};
use crate::{
    Budget, Grid, QueryError, SampleColumns, Span,
    ast::{BinaryOp, Call, Expr, ExprKind, ValueType},
    function::{DateField, FunctionKind, SampleFunction},
    functions::{date, sample},
    note::Notes,
    operators,
    row::{ABSENT, Cell, Cells, is_absent},
};
use std::sync::Arc;
use trefoil_model::{Histogram, ResetHint};

/// An operation on the values of one series.
#[derive(Clone, Debug)]
pub(crate) enum RowOp {
    /// The values as they are.
    Keep,
    Negate,
    Sample {
        function: SampleFunction,
        parameters: [Scalars; 2],
    },
    Date(DateField),
    /// The time of evaluation in seconds.
    Timestamp,
    /// Nothing: only samples as they are stored have start timestamps.
    StartTimestamp,
    Scalar {
        op: BinaryOp,
        scalars: Scalars,
        scalar_on_left: bool,
        return_bool: bool,
        /// Where the operation stands.
        span: Span,
    },
    /// A function over ranges of the values, which stand at the times of `inner`.
    Windows {
        inner: Grid,
        windows: Windows,
    },
}

/// An expression seen as an operation on the rows of another one.
#[derive(Debug)]
pub(crate) struct Step<'e> {
    pub(crate) operand: &'e Expr,
    /// The times at which the operand is wanted; `None`: no time, so there is no result.
    pub(crate) operand_grid: Option<Grid>,
    pub(crate) op: RowOp,
    pub(crate) drops_name: bool,
}

impl<'e> Step<'e> {
    /// Whether `expr` is such an operation, judged without the values of its scalars.
    pub(crate) fn operand_of(expr: &'e Expr) -> Option<&'e Expr> {
        let vector = |e: &&Expr| e.value_type() == ValueType::Vector;
        match &expr.kind {
            ExprKind::Paren(inner) => Some(&**inner).filter(vector),
            ExprKind::Unary { operand, .. } => Some(&**operand).filter(vector),
            ExprKind::Binary(binary) => match (binary.left.value_type(), binary.right.value_type())
            {
                (ValueType::Vector, ValueType::Scalar) => Some(&binary.left),
                (ValueType::Scalar, ValueType::Vector) => Some(&binary.right),
                _ => None,
            },
            ExprKind::Call(call) => match call.function.kind {
                FunctionKind::Sample(_) | FunctionKind::Date(_) => call.arguments.first(),
                FunctionKind::Timestamp | FunctionKind::StartTimestamp => {
                    call.arguments.first().filter(|argument| {
                        !matches!(argument.unwrap_parens().kind, ExprKind::Selector(_))
                    })
                }
                FunctionKind::Window(_) => match &matrix_argument(call)?.kind {
                    ExprKind::SubQuery(sub_query) => Some(&sub_query.operand),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    /// Makes the operation for the times of `grid`.
    ///
    /// # Errors
    /// For durations and parameters that are out of range, and scalars that are not bound.
    pub(crate) fn of(
        expr: &'e Expr,
        grid: Grid,
        context: &Context,
    ) -> Result<Option<Self>, QueryError> {
        let Some(operand) = Self::operand_of(expr) else {
            return Ok(None);
        };
        let mut operand_grid = Some(grid);
        let mut drops_name = true;
        let op = match &expr.kind {
            ExprKind::Unary { negative: true, .. } => RowOp::Negate,
            ExprKind::Binary(binary) => {
                let scalar_on_left = std::ptr::eq(operand, &raw const binary.right);
                let scalar = if scalar_on_left {
                    &binary.left
                } else {
                    &binary.right
                };
                drops_name = binary.op.changes_meaning() || binary.return_bool;
                RowOp::Scalar {
                    op: binary.op,
                    scalars: context.scalars(scalar, grid)?,
                    scalar_on_left,
                    return_bool: binary.return_bool,
                    span: expr.span,
                }
            }
            ExprKind::Call(call) => match call.function.kind {
                FunctionKind::Sample(function) => RowOp::Sample {
                    function,
                    parameters: sample_parameters(call, grid, context)?,
                },
                FunctionKind::Date(field) => RowOp::Date(field),
                FunctionKind::Window(function) => {
                    let windows = Windows::of_call(call, function, grid, context)?;
                    drops_name = windows.drops_name();
                    if let Some(ExprKind::SubQuery(sub_query)) =
                        matrix_argument(call).map(|matrix| &matrix.kind)
                    {
                        operand_grid = context.sub_query_grid(sub_query, grid)?;
                    }
                    let inner = operand_grid.unwrap_or(grid);
                    RowOp::Windows { inner, windows }
                }
                FunctionKind::StartTimestamp => RowOp::StartTimestamp,
                _ => RowOp::Timestamp,
            },
            _ => {
                drops_name = false;
                RowOp::Keep
            }
        };
        Ok(Some(Self {
            operand,
            operand_grid,
            op,
            drops_name,
        }))
    }
}

/// The range vector among the arguments.
pub(crate) fn matrix_argument(call: &Call) -> Option<&Expr> {
    let mut arguments = call.arguments.iter();
    arguments
        .find(|a| a.value_type() == ValueType::Matrix)
        .map(Expr::unwrap_parens)
}

fn sample_parameters(
    call: &Call,
    grid: Grid,
    context: &Context,
) -> Result<[Scalars; 2], QueryError> {
    let parameter = |index: usize| match call.arguments.get(index) {
        Some(expr) => context.scalars(expr, grid),
        // The nearest multiple of `round` is 1 by default; other functions ignore it.
        None => Ok(Scalars::Constant(1.0)),
    };
    Ok([parameter(1)?, parameter(2)?])
}

impl RowOp {
    /// About how many values of a row are looked at for results at the times of `grid`.
    pub(crate) fn looks(&self, grid: Grid) -> usize {
        let Self::Windows { inner, windows } = self else {
            return grid.steps();
        };
        let in_window = windows.range_ms / inner.step.max(1);
        let in_window = usize::try_from(in_window).unwrap_or(0).min(inner.steps());
        grid.steps()
            .saturating_mul(in_window)
            .saturating_add(inner.steps())
    }

    /// Replaces `cells` by the result; `scratch` is reused memory.
    ///
    /// # Errors
    /// Those of [`Budget::check`], for functions of ranges.
    pub(crate) fn apply(
        &self,
        cells: &mut Cells,
        grid: Grid,
        scratch: &mut Scratch,
        notes: &mut Notes,
        budget: &Budget,
    ) -> Result<(), QueryError> {
        if let Self::Windows { inner, windows } = self {
            scratch.fill(cells, *inner);
            let Scratch {
                columns,
                placements,
            } = scratch;
            return windows.apply(columns, grid, cells, placements, notes, budget);
        }
        let trims = matches!(self, Self::Scalar { op, .. } if op.is_trim());
        if !cells.histograms.is_empty() || trims {
            self.apply_to_any(cells, grid, notes);
            return Ok(());
        }
        let values = &mut cells.values;
        match self {
            Self::Keep | Self::Windows { .. } => {}
            Self::Negate => each(values, |_, value| -value),
            Self::Sample {
                function,
                parameters: [first, second],
            } => each(values, |at, value| {
                sample::apply(*function, value, [first.at(at), second.at(at)])
            }),
            Self::Date(field) => each(values, |_, value| date::field(*field, value)),
            Self::Timestamp => each(values, |at, _| grid.at(at) as f64 / 1000.0),
            Self::StartTimestamp => each(values, |_, _| ABSENT),
            Self::Scalar {
                op,
                scalars,
                scalar_on_left,
                return_bool,
                ..
            } => each(values, |at, value| {
                let scalar = scalars.at(at);
                let (left, right) = if *scalar_on_left {
                    (scalar, value)
                } else {
                    (value, scalar)
                };
                operators::apply(*op, left, right, *return_bool, value)
            }),
        }
        Ok(())
    }

    /// The same for values among which are histograms, and for operators that are about histograms.
    fn apply_to_any(&self, cells: &mut Cells, grid: Grid, notes: &mut Notes) {
        cells.map(|at, cell| match self {
            Self::Keep | Self::Windows { .. } => cell,
            Self::Negate => match cell {
                Cell::Histogram(histogram) => {
                    let mut negative = Histogram::clone(&histogram);
                    negative.multiply(-1.0);
                    Cell::Histogram(Arc::new(negative))
                }
                Cell::Float(value) => Cell::Float(-value),
                Cell::Absent => Cell::Absent,
            },
            Self::Sample {
                function,
                parameters: [first, second],
            } => match cell {
                Cell::Histogram(histogram) => float(sample::of_histogram(*function, &histogram)),
                Cell::Float(value) => float(sample::apply(
                    *function,
                    value,
                    [first.at(at), second.at(at)],
                )),
                Cell::Absent => Cell::Absent,
            },
            Self::Date(field) => match cell {
                Cell::Float(value) => Cell::Float(date::field(*field, value)),
                _ => Cell::Absent,
            },
            Self::Timestamp => Cell::Float(grid.at(at) as f64 / 1000.0),
            Self::StartTimestamp => Cell::Absent,
            Self::Scalar {
                op,
                scalars,
                scalar_on_left,
                return_bool,
                span,
            } => {
                let scalar = Cell::Float(scalars.at(at));
                let (left, right) = match scalar_on_left {
                    true => (&scalar, &cell),
                    false => (&cell, &scalar),
                };
                match operators::apply_cells(*op, left, right, *return_bool, *span, notes) {
                    // A comparison keeps the vector's value, on whichever side it is.
                    Cell::Float(_) if op.is_comparison() && !return_bool => cell,
                    result => result,
                }
            }
        });
    }
}

/// A float, or nothing for the marker of nothing.
fn float(value: f64) -> Cell {
    if is_absent(value) {
        Cell::Absent
    } else {
        Cell::Float(value)
    }
}

/// Memory that row operations reuse from series to series.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    columns: SampleColumns,
    placements: Placements,
}

impl Scratch {
    /// Takes values at the times of a grid for samples. What is known about resets was about other neighbours.
    fn fill(&mut self, cells: &Cells, grid: Grid) {
        self.columns.clear();
        for (at, value) in cells.values.iter().enumerate() {
            if is_absent(*value) {
                continue;
            }
            match cells.at(at) {
                Cell::Histogram(histogram) if histogram.reset_hint != ResetHint::Gauge => {
                    let mut unknown = Histogram::clone(&histogram);
                    unknown.reset_hint = ResetHint::Unknown;
                    self.columns.push_histogram(grid.at(at), Arc::new(unknown));
                }
                Cell::Histogram(gauge) => self.columns.push_histogram(grid.at(at), gauge),
                _ => self.columns.push(grid.at(at), *value),
            }
        }
    }
}

fn each(values: &mut [f64], f: impl Fn(usize, f64) -> f64) {
    for (at, value) in values.iter_mut().enumerate() {
        if !is_absent(*value) {
            *value = f(at, *value);
        }
    }
}
