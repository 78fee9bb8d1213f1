//! Writes a syntax tree over several lines, as Prometheus' `format_query` does: what fits into a line stays on it,
//! everything else opens at its own brackets or operator, two blanks deeper for each level.

use crate::{
    ast::{Aggregate, Binary, Call, Expr, ExprKind},
    printer::{aggregate_head, binary_operator, sub_query_suffix},
};

/// Longest text of an expression, in bytes without its indentation, that stays on one line.
const LINE_BYTES_MAX: usize = 100;
const INDENT: &str = "  ";

impl Expr {
    /// The query in the form of Prometheus' formatter.
    #[must_use]
    pub fn pretty(&self) -> String {
        pretty(self, 0)
    }
}

fn pretty(expr: &Expr, level: usize) -> String {
    let indent = INDENT.repeat(level);
    let line = expr.to_string();
    match &expr.kind {
        ExprKind::Unary { negative, operand } => {
            let sign = if *negative { "-" } else { "+" };
            format!("{indent}{sign}{}", pretty(operand, level).trim())
        }
        // Whoever is inside a sub-query that fits has no indentation; Prometheus does the same.
        ExprKind::SubQuery(_) if line.len() <= LINE_BYTES_MAX => line,
        _ if line.len() <= LINE_BYTES_MAX => indent + &line,
        ExprKind::SubQuery(sub_query) => {
            let operand = pretty(&sub_query.operand, level);
            format!("{operand}{}", sub_query_suffix(sub_query))
        }
        ExprKind::Paren(inner) => format!("{indent}(\n{}\n{indent})", pretty(inner, level + 1)),
        ExprKind::Call(call) => pretty_call(call, level, &indent),
        ExprKind::Aggregate(aggregate) => pretty_aggregate(aggregate, level, &indent),
        ExprKind::Binary(binary) => pretty_binary(binary, level, &indent),
        ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Selector(_) | ExprKind::Range(_) => {
            indent + &line
        }
    }
}

fn pretty_call(call: &Call, level: usize, indent: &str) -> String {
    let arguments = call.arguments.iter();
    let arguments: Vec<String> = arguments.map(|one| pretty(one, level + 1)).collect();
    let (name, arguments) = (call.function.name, arguments.join(",\n"));
    format!("{indent}{name}(\n{arguments}\n{indent})")
}

fn pretty_aggregate(aggregate: &Aggregate, level: usize, indent: &str) -> String {
    let mut text = format!("{indent}{}(\n", aggregate_head(aggregate));
    if let Some(parameter) = &aggregate.parameter {
        text += &format!("{},\n", pretty(parameter, level + 1));
    }
    text + &format!("{}\n{indent})", pretty(&aggregate.operand, level + 1))
}

fn pretty_binary(binary: &Binary, level: usize, indent: &str) -> String {
    let (left, right) = (
        pretty(&binary.left, level + 1),
        pretty(&binary.right, level + 1),
    );
    format!("{left}\n{indent}{}\n{right}", binary_operator(binary))
}

#[cfg(test)]
mod tests {
    use crate::{EvalOptions, parse};

    fn check(text: &str, expected: &str) {
        let options = EvalOptions::default();
        let pretty = parse(text, &options).expect("parses").pretty();
        assert_eq!(pretty, expected);
        let again = parse(&pretty, &options).expect("parses again").pretty();
        assert_eq!(again, expected);
    }

    #[test]
    fn what_fits_stays_on_its_line() {
        check("sum(foo)by(a)", "sum by (a) (foo)");
        check("a+b", "a + b");
    }

    #[test]
    fn what_does_not_fit_opens_at_its_brackets() {
        let (a, b) = ("a".repeat(60), "b".repeat(60));
        check(&format!("{a}+on(x){b}"), &format!("  {a}\n+ on (x)\n  {b}"));
        check(
            &format!("sum by(x)(rate({a}[5m])+{b})"),
            &format!("sum by (x) (\n    rate({a}[5m])\n  +\n    {b}\n)"),
        );
        check(
            &format!("topk(3,({a}-{b}))"),
            &format!("topk(\n  3,\n  (\n      {a}\n    -\n      {b}\n  )\n)"),
        );
        check(
            &format!("label_replace({a}, \"{b}\", \"c\", \"d\", \"e\")"),
            &format!("label_replace(\n  {a},\n  \"{b}\",\n  \"c\",\n  \"d\",\n  \"e\"\n)"),
        );
        check(
            &format!("-sum({a}-{b})"),
            &format!("-sum(\n    {a}\n  -\n    {b}\n)"),
        );
        check(
            &format!("max_over_time(({a}-{b})[1h:5m] offset 1m)"),
            &format!("max_over_time(\n  (\n      {a}\n    -\n      {b}\n  )[1h:5m] offset 1m\n)"),
        );
    }
}
