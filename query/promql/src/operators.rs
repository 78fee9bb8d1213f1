//! Arithmetic and comparison of two numbers.

use crate::{ast::BinaryOp, row::ABSENT};

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
