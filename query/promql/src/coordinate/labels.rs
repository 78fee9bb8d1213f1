//! Functions that change labels or the order of series.

use crate::{
    Budget, QueryError, StringLiteral,
    ast::{Call, Expr, ExprKind},
    evaluate::without_name,
    functions::quantile::nan_first,
    pace::{LOOKS_OF_ROW, Pace},
    row::Row,
};
use regex::Regex;
use std::cmp::Ordering;
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder};

fn literal(expr: Option<&Expr>) -> Result<&StringLiteral, QueryError> {
    match expr.map(|expr| &expr.unwrap_parens().kind) {
        Some(ExprKind::String(literal)) => Ok(literal),
        _ => Err(QueryError::Internal("an argument is not a text".into())),
    }
}

/// An argument that ends in labels' values or names them, which are UTF-8.
fn text(expr: Option<&Expr>) -> Result<&str, QueryError> {
    let literal = literal(expr)?;
    let bad = || QueryError::execution(format!("the string {literal} is not UTF-8"));
    literal.text().ok_or_else(bad)
}

/// Sets a label of a row whose name may be about to go. The budget holds what the labels grow by.
fn set_label(row: &mut Row, label: &str, value: &str, budget: &Budget) -> Result<(), QueryError> {
    let before = row.labels.canonical().len();
    let added = value.len() + label.len();
    budget.hold_bytes(added)?;
    let mut builder = LabelsBuilder::from_labels(&row.labels);
    builder.set(label, value);
    row.labels = builder.build();
    let grown = row.labels.canonical().len().saturating_sub(before);
    budget.release_bytes(added.saturating_sub(grown));
    if label == LABEL_NAME_METRIC {
        row.drop_name = false;
    }
    Ok(())
}

/// The label that a function sets.
fn destination<'c>(call: &'c Call, name: &str) -> Result<&'c str, QueryError> {
    named(call.arguments.get(1), "destination", name)
}

fn named<'c>(
    argument: Option<&'c Expr>,
    which: &str,
    function: &str,
) -> Result<&'c str, QueryError> {
    let literal = literal(argument)?;
    let shown = || {
        format!(
            "invalid {which} label name in {function}(): {}",
            literal.shown()
        )
    };
    let label = literal.label_name();
    label.map_err(|_| QueryError::execution(shown()))
}

/// `label_replace(v, destination, replacement, source, expression)`.
///
/// # Errors
/// For an expression that does not compile, an empty destination, labels that the budget has no room for, and those of the pace.
pub(crate) fn replace(
    call: &Call,
    rows: &mut [Row],
    budget: &Budget,
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    let argument = |index: usize| text(call.arguments.get(index));
    let replacement = argument(2)?;
    let (source, expression) = (argument(3)?, argument(4)?);
    let regex = Regex::new(&format!("^(?s:{expression})$")).map_err(|_| {
        QueryError::execution(format!(
            "invalid regular expression in label_replace(): {expression}"
        ))
    })?;
    let label = destination(call, "label_replace")?;
    for row in rows {
        pace.look(LOOKS_OF_ROW)?;
        let value = row.labels.get(source).unwrap_or("");
        let Some(captures) = regex.captures(value) else {
            continue;
        };
        let mut replaced = String::new();
        captures.expand(replacement, &mut replaced);
        set_label(row, label, &replaced, budget)?;
    }
    Ok(())
}

/// `label_join(v, destination, separator, source...)`.
///
/// # Errors
/// For an empty destination or source, labels that the budget has no room for, and those of the pace.
pub(crate) fn join(
    call: &Call,
    rows: &mut [Row],
    budget: &Budget,
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    let separator = text(call.arguments.get(2))?;
    let sources: Vec<&str> = call.arguments[3..]
        .iter()
        .map(|argument| named(Some(argument), "source", "label_join"))
        .collect::<Result<_, _>>()?;
    let label = destination(call, "label_join")?;
    for row in rows {
        pace.look(LOOKS_OF_ROW)?;
        let values: Vec<&str> = sources
            .iter()
            .map(|source| row.labels.get(source).unwrap_or(""))
            .collect();
        let joined = values.join(separator);
        set_label(row, label, &joined, budget)?;
    }
    Ok(())
}

/// `sort` and `sort_desc` at a single time; NaN comes last.
///
/// # Errors
/// Those of the pace.
pub(crate) fn sort_by_value(
    rows: &mut [Row],
    descending: bool,
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    pace.sort_by(rows, |a, b| {
        let (a, b) = (a.values[0], b.values[0]);
        let order = nan_first(&a, &b);
        let order = if descending { order.reverse() } else { order };
        a.is_nan().cmp(&b.is_nan()).then(order)
    })
}

/// `sort_by_label` and `sort_by_label_desc`: numbers inside texts by value, then by all labels.
///
/// # Errors
/// When an argument is not a text; those of the pace.
pub(crate) fn sort_by_label(
    call: &Call,
    rows: &mut [Row],
    descending: bool,
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    let names: Vec<&str> = call.arguments[1..]
        .iter()
        .map(|argument| text(Some(argument)))
        .collect::<Result<_, _>>()?;
    pace.sort_by(rows, |a, b| {
        let by_name = names.iter().map(|name| {
            let value = |row: &'_ Row| row.labels.get(name).unwrap_or("").to_owned();
            natural(&value(a), &value(b))
        });
        let order = by_name
            .into_iter()
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    })
}

/// Orders texts with runs of digits by their numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (left, right) = (chunk(a), chunk(b));
        if left.is_empty() || right.is_empty() {
            return a.len().cmp(&b.len());
        }
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(left) && digits(right) {
            let significant = |text: &'_ str| text.trim_start_matches('0').to_owned();
            let (x, y) = (significant(left), significant(right));
            x.len()
                .cmp(&y.len())
                .then(x.cmp(&y))
                .then(left.len().cmp(&right.len()))
        } else {
            left.cmp(right)
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (&a[left.len()..], &b[right.len()..]);
    }
}

/// The first run of digits or of other characters.
fn chunk(text: &str) -> &str {
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digit);
    &text[..end.unwrap_or(text.len())]
}

/// The labels of what `absent` yields: those that equality matchers of a selector fix.
pub(crate) fn of_absent(argument: &Expr) -> Labels {
    let selector = match &argument.kind {
        ExprKind::Selector(selector) => selector,
        ExprKind::Range(range) => &range.selector,
        _ => return Labels::empty(),
    };
    let mut builder = LabelsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in &selector.matchers {
        // A label that is matched twice is not fixed, as in Prometheus.
        if matcher.op() == crate::MatchOp::Equal && !seen.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            builder.remove(matcher.name());
        }
    }
    without_name(&builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_sort_by_value() {
        let mut texts = ["a10", "a9", "a", "b1", "1", "10", "2"];
        texts.sort_by(|a, b| natural(a, b));
        assert_eq!(texts, ["1", "2", "10", "a", "a9", "a10", "b1"]);
    }
}
