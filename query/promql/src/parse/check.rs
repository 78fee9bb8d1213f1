//! Type checks, with the texts of Prometheus and in its order: what is inside comes first, but for calls, whose number of
//! arguments is looked at before the arguments.

use super::ParseError;
use crate::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Extension, Span,
    ValueType, VectorMatching, VectorSelector,
};
use crate::function::{Function, FunctionKind, WindowFunction};
use trefoil_model::LABEL_NAME_METRIC;

/// Checks a tree of the query `text`, and settles how the sides of each binary operation meet.
///
/// # Errors
/// The first mistake.
pub(super) fn check(expr: &mut Expr, text: &str) -> Result<(), ParseError> {
    let span = expr.span;
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Ok(()),
        ExprKind::Selector(selector) => {
            check_selector(selector, span)?;
            check_not_empty(selector, span)
        }
        ExprKind::Range(range) => {
            check_selector(&range.selector, range.selector_span)?;
            check_not_empty(&range.selector, range.selector_span)
        }
        ExprKind::Paren(inner) => check(inner, text),
        ExprKind::Aggregate(aggregate) => check_aggregate(aggregate, text),
        ExprKind::Binary(binary) => check_binary(binary, span, text),
        ExprKind::Call(call) => check_call(call, span, text),
        ExprKind::Unary { operand, .. } => {
            check(operand, text)?;
            let got = operand.value_type();
            if matches!(got, ValueType::Scalar | ValueType::Vector) {
                return Ok(());
            }
            let text = format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                got.text()
            );
            Err(ParseError::at(span, text))
        }
        ExprKind::SubQuery(sub_query) => {
            check(&mut sub_query.operand, text)?;
            let got = match sub_query.operand.value_type() {
                ValueType::Vector => return Ok(()),
                // Here Prometheus shows its own word instead of the documented one.
                ValueType::Matrix => "matrix",
                other => other.text(),
            };
            let text = format!("subquery is only allowed on instant vector, got {got} instead");
            Err(ParseError::at(span, text))
        }
    }
}

/// The metric's name is said once.
fn check_selector(selector: &VectorSelector, span: Span) -> Result<(), ParseError> {
    let (Some(name), Some((_, others))) = (&selector.name, selector.matchers.split_last()) else {
        return Ok(());
    };
    let twice = others.iter().find(|m| m.name() == LABEL_NAME_METRIC);
    twice.map_or(Ok(()), |second| {
        let second = second.value();
        let text = format!("metric name must not be set twice: {name:?} or {second:?}");
        Err(ParseError::at(span, text))
    })
}

fn check_not_empty(selector: &VectorSelector, span: Span) -> Result<(), ParseError> {
    if selector.name.is_some() || !selector.matchers.iter().all(|m| m.matches_absent()) {
        return Ok(());
    }
    let text = "vector selector must contain at least one non-empty matcher";
    Err(ParseError::at(span, text))
}

fn check_aggregate(aggregate: &mut Aggregate, text: &str) -> Result<(), ParseError> {
    let of = "aggregation expression";
    expect_type(&mut aggregate.operand, ValueType::Vector, of, text)?;
    let Some(parameter) = &mut aggregate.parameter else {
        return Ok(());
    };
    let expected = match aggregate.op {
        AggregateOp::CountValues => ValueType::String,
        _ => ValueType::Scalar,
    };
    expect_type(parameter, expected, "aggregation parameter", text)
}

fn check_binary(binary: &mut Binary, span: Span, text: &str) -> Result<(), ParseError> {
    check(&mut binary.left, text)?;
    check(&mut binary.right, text)?;
    let (left, right) = (binary.left.value_type(), binary.right.value_type());
    check_operator(binary, (left, right), operator_span(binary, text))?;
    for side in [&binary.left, &binary.right] {
        if !matches!(side.value_type(), ValueType::Scalar | ValueType::Vector) {
            let text = "binary expression must contain only scalar and instant vector types";
            return Err(ParseError::at(side.span, text));
        }
    }
    let reason = if left == ValueType::Vector && right == ValueType::Vector {
        let matching = binary.matching.get_or_insert_with(one_to_one);
        settle_vectors(binary.op, matching)
    } else {
        no_vectors(binary.op, binary.matching.take())
    };
    reason.map_or(Ok(()), |reason| Err(ParseError::at(span, reason)))
}

/// From the operator to what is in front of the right side.
fn operator_span(binary: &Binary, text: &str) -> Span {
    let (end, start) = (binary.left.span.end, binary.right.span.start);
    let between = text.get(end as usize..start as usize).unwrap_or_default();
    let blanks = between.len() - between.trim_start_matches([' ', '\t', '\n', '\r']).len();
    Span::new(end as usize + blanks, start as usize)
}

/// What is wrong with the operator itself and its modifiers.
fn check_operator(
    binary: &Binary,
    types: (ValueType, ValueType),
    span: Span,
) -> Result<(), ParseError> {
    let fail = |text: String| Err(ParseError::at(span, text));
    let compares = binary.op.is_comparison();
    if binary.return_bool && !compares {
        return fail("bool modifier can only be used on comparison operators".to_owned());
    }
    if compares && !binary.return_bool && types == (ValueType::Scalar, ValueType::Scalar) {
        return fail("comparisons between scalars must use BOOL modifier".to_owned());
    }
    let Some(matching) = binary.matching.as_ref().filter(|matching| matching.on) else {
        return Ok(());
    };
    let mut labels = matching.labels.iter();
    match labels.find(|label| matching.include.contains(label)) {
        None => Ok(()),
        Some(label) => fail(format!(
            "label {label:?} must not occur in ON and GROUP clause at once"
        )),
    }
}

fn one_to_one() -> VectorMatching {
    VectorMatching {
        cardinality: Cardinality::OneToOne,
        on: false,
        labels: Vec::new(),
        include: Vec::new(),
        fill_left: None,
        fill_right: None,
    }
}

/// Settles how two vectors meet; what is wrong with it.
fn settle_vectors(op: BinaryOp, matching: &mut VectorMatching) -> Option<String> {
    if !op.is_set() {
        return None;
    }
    if matching.cardinality != Cardinality::OneToOne {
        return Some(format!("no grouping allowed for {:?} operation", op.text()));
    }
    matching.cardinality = Cardinality::ManyToMany;
    let reason = "filling in missing series not allowed for set operators";
    matching.fills().then(|| reason.to_owned())
}

/// What is wrong with an operation that has a scalar on one side at least.
fn no_vectors(op: BinaryOp, matching: Option<VectorMatching>) -> Option<String> {
    if matching.as_ref().is_some_and(|m| !m.labels.is_empty()) {
        return Some("vector matching only allowed between instant vectors".to_owned());
    }
    if matching.is_some_and(|m| m.fills()) {
        let reason = "filling in missing series only allowed between instant vectors";
        return Some(reason.to_owned());
    }
    let text = op.text();
    op.is_set()
        .then(|| format!("set operator {text:?} not allowed in binary scalar expression"))
}

fn check_call(call: &mut Call, span: Span, text: &str) -> Result<(), ParseError> {
    let function = call.function;
    if let Some(reason) = wrong_count(function, call.arguments.len()) {
        return Err(ParseError::at(span, reason));
    }
    let is_info = function.kind == FunctionKind::Info;
    if let Some(selectors) = call.arguments.get(1).filter(|_| is_info) {
        check_label_selectors(function, selectors, span)?;
    }
    let context = format!("call to function {:?}", function.name);
    for (index, argument) in call.arguments.iter_mut().enumerate() {
        if is_info && index == 1 {
            // It was looked at already, and its labels need not be there.
            continue;
        }
        let expected = function.arguments[index.min(function.arguments.len() - 1)];
        expect_type(argument, expected, &context, text)?;
        check_extension(function, argument)?;
    }
    Ok(())
}

/// Why a function does not take so many arguments.
fn wrong_count(function: &Function, got: usize) -> Option<String> {
    let (declared, name) = (function.arguments.len(), function.name);
    let optional = match function.variadic {
        0 if got == declared => return None,
        0 => {
            return Some(format!(
                "expected {declared} argument(s) in call to {name:?}, got {got}"
            ));
        }
        // Any number of the last one.
        -1 => None,
        count => Some(count as usize),
    };
    // `histogram_quantiles` needs all but the repetitions of its last argument, others all but the last one.
    let least = match function.variadic {
        9 => 3,
        _ => declared - 1,
    };
    if got < least {
        return Some(format!(
            "expected at least {least} argument(s) in call to {name:?}, got {got}"
        ));
    }
    let most = optional.map(|optional| least + optional);
    most.filter(|most| got > *most)
        .map(|most| format!("expected at most {most} argument(s) in call to {name:?}, got {got}"))
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

/// The second argument of `info` is made of braces only; of the call at `span`.
fn check_label_selectors(
    function: &Function,
    argument: &Expr,
    span: Span,
) -> Result<(), ParseError> {
    let got = argument.value_type();
    if got != ValueType::Vector {
        let context = format!("call to function {:?}", function.name);
        return Err(wrong_type(span, ValueType::Vector, got, &context));
    }
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

fn expect_type(
    expr: &mut Expr,
    expected: ValueType,
    context: &str,
    text: &str,
) -> Result<(), ParseError> {
    check(expr, text)?;
    let got = expr.value_type();
    match got == expected {
        true => Ok(()),
        false => Err(wrong_type(expr.span, expected, got, context)),
    }
}

fn wrong_type(span: Span, expected: ValueType, got: ValueType, context: &str) -> ParseError {
    let text = format!(
        "expected type {} in {context}, got {}",
        expected.text(),
        got.text()
    );
    ParseError::at(span, text)
}
