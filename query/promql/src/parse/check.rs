//! Type checks, with the texts of Prometheus.

use super::{ParseError, Parser};
use crate::ast::{
    Aggregate, AggregateOp, Binary, Cardinality, Expr, ExprKind, Extension, Span, ValueType,
    VectorMatching,
};
use crate::function::{Function, FunctionKind, WindowFunction};

impl Parser<'_> {
    pub(super) fn check_binary(
        &self,
        mut binary: Binary,
        span: Span,
        op_span: Span,
    ) -> Result<Expr, ParseError> {
        let (left, right) = (binary.left.value_type(), binary.right.value_type());
        let fail = |text: String| Err(ParseError::at(span, text));
        if binary.return_bool && !binary.op.is_comparison() {
            let text = "bool modifier can only be used on comparison operators";
            return Err(ParseError::at(op_span, text));
        }
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if binary.op.is_comparison() && !binary.return_bool && scalars {
            return fail("comparisons between scalars must use BOOL modifier".into());
        }
        for side in [&binary.left, &binary.right] {
            if !matches!(side.value_type(), ValueType::Scalar | ValueType::Vector) {
                let text = "binary expression must contain only scalar and instant vector types";
                return Err(ParseError::at(side.span, text));
            }
        }
        let op = binary.op;
        if left == ValueType::Vector && right == ValueType::Vector {
            let matching = binary.matching.get_or_insert(VectorMatching {
                cardinality: Cardinality::OneToOne,
                on: false,
                labels: Vec::new(),
                include: Vec::new(),
                fill_left: None,
                fill_right: None,
            });
            let twice = matching
                .labels
                .iter()
                .find(|l| matching.include.contains(l));
            if let Some(label) = twice.filter(|_| matching.on) {
                return fail(format!(
                    "label {label:?} must not occur in ON and GROUP clause at once"
                ));
            }
            if op.is_set() {
                if matching.cardinality != Cardinality::OneToOne {
                    return fail(format!("no grouping allowed for {:?} operation", op.text()));
                }
                matching.cardinality = Cardinality::ManyToMany;
                if matching.fill_left.is_some() || matching.fill_right.is_some() {
                    return fail("filling in missing series not allowed for set operators".into());
                }
            }
        } else {
            let matching = binary.matching.take();
            if matching.as_ref().is_some_and(|m| !m.labels.is_empty()) {
                return fail("vector matching only allowed between instant vectors".into());
            }
            if matching.is_some_and(|m| m.fill_left.is_some() || m.fill_right.is_some()) {
                return fail(
                    "filling in missing series only allowed between instant vectors".into(),
                );
            }
            if op.is_set() {
                return fail(format!(
                    "set operator {:?} not allowed in binary scalar expression",
                    op.text()
                ));
            }
        }
        Ok(Expr {
            kind: ExprKind::Binary(Box::new(binary)),
            span,
        })
    }

    pub(super) fn check_call(
        &self,
        function: &Function,
        arguments: Vec<Expr>,
        span: Span,
    ) -> Result<Vec<Expr>, ParseError> {
        let (declared, got) = (function.arguments.len(), arguments.len());
        let name = function.name;
        let wrong = match function.variadic {
            0 if got != declared => Some(format!(
                "expected {declared} argument(s) in call to {name:?}, got {got}"
            )),
            0 => None,
            variadic => {
                let optional = if variadic < 0 { 1 } else { variadic as usize };
                let least = declared.saturating_sub(optional.min(declared - required(function)));
                let most = (variadic > 0).then_some(required(function) + optional);
                if got < least {
                    Some(format!(
                        "expected at least {least} argument(s) in call to {name:?}, got {got}"
                    ))
                } else {
                    most.filter(|most| got > *most).map(|most| {
                        format!(
                            "expected at most {most} argument(s) in call to {name:?}, got {got}"
                        )
                    })
                }
            }
        };
        if let Some(text) = wrong {
            return Err(ParseError::at(span, text));
        }
        for (index, argument) in arguments.iter().enumerate() {
            let expected = function.arguments[index.min(declared - 1)];
            let context = format!("call to function {name:?}");
            expect_type(argument, expected, &context)?;
            check_extension(function, argument)?;
            if function.kind == FunctionKind::Info && index == 1 {
                check_label_selectors(argument)?;
            }
        }
        Ok(arguments)
    }

    pub(super) fn check_aggregate(&self, aggregate: &Aggregate) -> Result<(), ParseError> {
        expect_type(
            &aggregate.operand,
            ValueType::Vector,
            "aggregation expression",
        )?;
        let Some(parameter) = &aggregate.parameter else {
            return Ok(());
        };
        let expected = match aggregate.op {
            AggregateOp::CountValues => ValueType::String,
            _ => ValueType::Scalar,
        };
        expect_type(parameter, expected, "aggregation parameter")
    }
}

/// How many arguments a function with optional ones needs.
fn required(function: &Function) -> usize {
    // `histogram_quantiles` declares its first quantile twice; all others declare each argument once.
    match function.variadic {
        0 => function.arguments.len(),
        9 => 3,
        _ => function.arguments.len() - 1,
    }
}

/// `anchored` and `smoothed` make sense for few functions.
fn check_extension(function: &Function, argument: &Expr) -> Result<(), ParseError> {
    use WindowFunction::{Changes, Delta, Increase, Rate, Resets};
    let ExprKind::Range(range) = &argument.unwrap_parens().kind else {
        return Ok(());
    };
    let Some(extension) = range.selector.extension else {
        return Ok(());
    };
    let FunctionKind::Window(kind) = function.kind else {
        return Ok(());
    };
    let both = matches!(kind, Delta | Increase | Rate);
    let allowed = match extension {
        Extension::Anchored if both || matches!(kind, Changes | Resets) => return Ok(()),
        Extension::Anchored => "changes, delta, increase, rate, resets",
        Extension::Smoothed if both => return Ok(()),
        Extension::Smoothed => "delta, increase, rate",
    };
    let text = format!(
        "{} modifier can only be used with: {allowed} - not with {}",
        extension.text(),
        function.name
    );
    Err(ParseError::at(argument.span, text))
}

/// The second argument of `info` is made of braces only.
fn check_label_selectors(argument: &Expr) -> Result<(), ParseError> {
    match &argument.kind {
        ExprKind::Selector(selector) if selector.name.is_none() => Ok(()),
        ExprKind::Selector(_) => Err(ParseError::at(
            argument.span,
            "expected label selectors only, got vector selector instead",
        )),
        _ => Err(ParseError::at(
            argument.span,
            "expected label selectors only",
        )),
    }
}

fn expect_type(expr: &Expr, expected: ValueType, context: &str) -> Result<(), ParseError> {
    let got = expr.value_type();
    if got == expected {
        return Ok(());
    }
    let text = format!(
        "expected type {} in {context}, got {}",
        expected.text(),
        got.text()
    );
    Err(ParseError::at(expr.span, text))
}
