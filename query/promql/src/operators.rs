//! Arithmetic and comparison of two numbers, of two native histograms, and of one of each.

use crate::{
    Span,
    ast::BinaryOp,
    functions::native,
    note::{ADDITION, Note, Notes, SUBTRACTION},
    row::{ABSENT, Cell, is_absent},
};
use std::sync::Arc;
use trefoil_model::{Histogram, ModelError, ResetHint, histogram::Combined};

/// The value of an arithmetic operator; [`ABSENT`] for others.
#[inline]
pub(crate) fn arithmetic(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => ABSENT,
    }
}

/// Whether a comparison holds; `false` for other operators.
#[inline]
pub(crate) fn compare(op: BinaryOp, left: f64, right: f64) -> bool {
    match op {
        BinaryOp::Equal => left == right,
        BinaryOp::NotEqual => left != right,
        BinaryOp::Less => left < right,
        BinaryOp::LessEqual => left <= right,
        BinaryOp::Greater => left > right,
        BinaryOp::GreaterEqual => left >= right,
        _ => false,
    }
}

/// The result for one pair of samples: a comparison keeps `kept`, or yields 0 and 1 with `bool`.
#[inline]
pub(crate) fn apply(op: BinaryOp, left: f64, right: f64, return_bool: bool, kept: f64) -> f64 {
    if !op.is_comparison() {
        return arithmetic(op, left, right);
    }
    match (compare(op, left, right), return_bool) {
        (holds, true) => f64::from(u8::from(holds)),
        (true, false) => kept,
        (false, false) => ABSENT,
    }
}

/// The result for one pair of samples of any kind, neither of which is absent. What cannot be is noted.
pub(crate) fn apply_cells(
    op: BinaryOp,
    left: &Cell,
    right: &Cell,
    return_bool: bool,
    span: Span,
    notes: &mut Notes,
) -> Cell {
    let histogram = |histogram: Histogram| Cell::Histogram(Arc::new(histogram));
    let mut incompatible = |left, right| {
        notes.add(Note::IncompatibleTypes(left, op.text(), right), span);
        Cell::Absent
    };
    match (left, right) {
        (Cell::Float(a), Cell::Float(b)) if !op.is_trim() => {
            let value = apply(op, *a, *b, return_bool, *a);
            if is_absent(value) {
                Cell::Absent
            } else {
                Cell::Float(value)
            }
        }
        (Cell::Float(_), Cell::Float(_)) => incompatible("float", "float"),
        (Cell::Float(factor), Cell::Histogram(scaled)) => match op {
            BinaryOp::Mul => histogram(multiplied(scaled, *factor)),
            _ => incompatible("float", "histogram"),
        },
        (Cell::Histogram(scaled), Cell::Float(value)) => match op {
            BinaryOp::Mul => histogram(multiplied(scaled, *value)),
            BinaryOp::Div => {
                let mut result = Histogram::clone(scaled);
                result.divide(*value);
                result.compact();
                histogram(result)
            }
            BinaryOp::TrimUpper => histogram(native::trim(scaled, *value, true)),
            BinaryOp::TrimLower => histogram(native::trim(scaled, *value, false)),
            _ => incompatible("histogram", "float"),
        },
        (Cell::Histogram(a), Cell::Histogram(b)) => {
            let holds = match op {
                BinaryOp::Equal => a.same_content(b),
                BinaryOp::NotEqual => !a.same_content(b),
                BinaryOp::Add | BinaryOp::Sub => return combined(op, a, b, span, notes),
                _ => return incompatible("histogram", "histogram"),
            };
            match (holds, return_bool) {
                (holds, true) => Cell::Float(f64::from(u8::from(holds))),
                (true, false) => left.clone(),
                (false, false) => Cell::Absent,
            }
        }
        (Cell::Absent, _) | (_, Cell::Absent) => Cell::Absent,
    }
}

fn multiplied(histogram: &Histogram, factor: f64) -> Histogram {
    let mut result = histogram.clone();
    result.multiply(factor);
    result.compact();
    result
}

/// The sum or difference of two histograms; a difference is a gauge.
fn combined(
    op: BinaryOp,
    left: &Histogram,
    right: &Histogram,
    span: Span,
    notes: &mut Notes,
) -> Cell {
    let mut result = left.clone();
    let (outcome, done): (Result<Combined, ModelError>, _) = match op {
        BinaryOp::Sub => (result.subtract(right), SUBTRACTION),
        _ => (result.add(right), ADDITION),
    };
    let Ok(outcome) = outcome else {
        notes.add(Note::IncompatibleBuckets(op.text()), span);
        return Cell::Absent;
    };
    if outcome.bounds_reconciled {
        notes.add(Note::BoundsReconciled(done), span);
    }
    if outcome.resets_collide {
        notes.add(Note::ResetsCollide(done), span);
    }
    if op == BinaryOp::Sub {
        result.reset_hint = ResetHint::Gauge;
    }
    result.compact();
    Cell::Histogram(Arc::new(result))
}
