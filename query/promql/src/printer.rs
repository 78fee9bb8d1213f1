//! Writes a syntax tree as a query, in the form of Prometheus' own printer.

use crate::{
    ast::{
        Aggregate, At, Binary, Call, Cardinality, DurationExpr, DurationKind, Expr, ExprKind,
        SubQuery, TimeModifier, VectorMatching, VectorSelector,
    },
    format,
    literal::Quoted,
};
use std::fmt::{self, Display, Formatter};
use trefoil_model::LABEL_NAME_METRIC;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(value) => f.write_str(&format::general(*value)),
            ExprKind::String(text) => write!(f, "{text}"),
            ExprKind::Selector(selector) => {
                write_selector(f, selector)?;
                write_time(f, &selector.time)?;
                write_extension(f, selector)
            }
            ExprKind::Range(range) => {
                write_selector(f, &range.selector)?;
                write!(f, "[{}]", range.range)?;
                write_time(f, &range.selector.time)?;
                write_extension(f, &range.selector)
            }
            ExprKind::SubQuery(sub_query) => {
                write!(f, "{}{}", sub_query.operand, sub_query_suffix(sub_query))
            }
            ExprKind::Call(call) => write_call(f, call),
            ExprKind::Binary(binary) => write_binary(f, binary),
            ExprKind::Unary { negative, operand } => {
                let sign = if *negative { "-" } else { "+" };
                write!(f, "{sign}{operand}")
            }
            ExprKind::Paren(inner) => write!(f, "({inner})"),
            ExprKind::Aggregate(aggregate) => write_aggregate(f, aggregate),
        }
    }
}

fn is_plain_name(name: &str, colons: bool) -> bool {
    let start = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    name.starts_with(start) && name.chars().all(|c| start(c) || c.is_ascii_digit())
}

fn write_selector(f: &mut Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    let mut conditions: Vec<String> = Vec::new();
    match &selector.name {
        Some(name) if is_plain_name(name, true) => f.write_str(name)?,
        Some(name) => conditions.push(Quoted(name).to_string()),
        None => {}
    }
    for matcher in &selector.matchers {
        if selector.name.is_some() && matcher.name() == LABEL_NAME_METRIC {
            continue;
        }
        let (op, value) = (matcher.op().text(), matcher.value());
        conditions.push(format!("{}{op}{}", label(matcher.name()), Quoted(value)));
    }
    if conditions.is_empty() {
        return Ok(());
    }
    write!(f, "{{{}}}", conditions.join(","))
}

fn label(name: &str) -> String {
    if is_plain_name(name, false) {
        return name.to_owned();
    }
    Quoted(name).to_string()
}

fn labels(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| label(name)).collect();
    names.join(", ")
}

fn write_time(f: &mut Formatter<'_>, time: &TimeModifier) -> fmt::Result {
    match time.at {
        Some(At::Time(time)) => write!(f, " @ {:.3}", time as f64 / 1000.0)?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    match &time.offset {
        Some(offset) => write!(f, " offset {offset}"),
        None => Ok(()),
    }
}

fn write_extension(f: &mut Formatter<'_>, selector: &VectorSelector) -> fmt::Result {
    match selector.extension {
        Some(extension) => write!(f, " {}", extension.text()),
        None => Ok(()),
    }
}

fn write_call(f: &mut Formatter<'_>, call: &Call) -> fmt::Result {
    write!(f, "{}({})", call.function.name, joined(&call.arguments))
}

fn joined(exprs: &[Expr]) -> String {
    let texts: Vec<String> = exprs.iter().map(Expr::to_string).collect();
    texts.join(", ")
}

fn write_binary(f: &mut Formatter<'_>, binary: &Binary) -> fmt::Result {
    let (left, right) = (&binary.left, &binary.right);
    write!(f, "{left} {} {right}", binary_operator(binary))
}

/// A text that is written by one of the functions here.
struct Written<F>(F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Written<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0(f)
    }
}

/// The operator with everything that stands between the operands.
pub(crate) fn binary_operator(binary: &Binary) -> String {
    let operator = |f: &mut Formatter<'_>| {
        f.write_str(binary.op.text())?;
        if binary.return_bool {
            f.write_str(" bool")?;
        }
        match &binary.matching {
            Some(matching) => write_matching(f, matching),
            None => Ok(()),
        }
    };
    Written(operator).to_string()
}

/// What stands behind the expression of a sub-query.
pub(crate) fn sub_query_suffix(sub_query: &SubQuery) -> String {
    let suffix = |f: &mut Formatter<'_>| {
        write!(f, "[{}:", sub_query.range)?;
        if let Some(step) = &sub_query.step {
            write!(f, "{step}")?;
        }
        f.write_str("]")?;
        write_time(f, &sub_query.time)
    };
    Written(suffix).to_string()
}

fn write_matching(f: &mut Formatter<'_>, matching: &VectorMatching) -> fmt::Result {
    let group = match matching.cardinality {
        Cardinality::ManyToOne => " group_left",
        Cardinality::OneToMany => " group_right",
        Cardinality::OneToOne | Cardinality::ManyToMany => "",
    };
    if matching.on || !matching.labels.is_empty() || !group.is_empty() {
        let word = if matching.on { "on" } else { "ignoring" };
        write!(f, " {word} ({})", labels(&matching.labels))?;
    }
    if !group.is_empty() {
        write!(f, "{group} ({})", labels(&matching.include))?;
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            write!(f, " fill ({})", format::general(left))
        }
        (left, right) => {
            if let Some(left) = left {
                write!(f, " fill_left ({})", format::general(left))?;
            }
            if let Some(right) = right {
                write!(f, " fill_right ({})", format::general(right))?;
            }
            Ok(())
        }
    }
}

/// The aggregation with its labels, up to the bracket.
pub(crate) fn aggregate_head(aggregate: &Aggregate) -> String {
    let (op, grouping) = (aggregate.op.text(), labels(&aggregate.grouping));
    match (aggregate.without, aggregate.grouping.is_empty()) {
        (true, _) => format!("{op} without ({grouping}) "),
        (false, true) => op.to_owned(),
        (false, false) => format!("{op} by ({grouping}) "),
    }
}

fn write_aggregate(f: &mut Formatter<'_>, aggregate: &Aggregate) -> fmt::Result {
    f.write_str(&aggregate_head(aggregate))?;
    match &aggregate.parameter {
        Some(parameter) => write!(f, "({parameter}, {})", aggregate.operand),
        None => write!(f, "({})", aggregate.operand),
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationKind::Literal(seconds) => {
                let milliseconds = (seconds * 1000.0).round();
                f.write_str(&format::duration(milliseconds as i64))
            }
            DurationKind::Number(value) => f.write_str(&format::number(*value)),
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::Negative(inner) => write!(f, "-{inner}"),
            DurationKind::Paren(inner) => write!(f, "({inner})"),
            DurationKind::Min(a, b) => write!(f, "min_of({a}, {b})"),
            DurationKind::Max(a, b) => write!(f, "max_of({a}, {b})"),
            DurationKind::Binary(op, a, b) => write!(f, "{a} {} {b}", op.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{EvalOptions, parse};

    /// Checks that a query is printed in this form, and that the form is printed as itself.
    fn check(text: &str, expected: &str) {
        let options = EvalOptions {
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            ..EvalOptions::default()
        };
        let printed = parse(text, &options).expect("parses").to_string();
        assert_eq!(printed, expected);
        let again = parse(&printed, &options).expect("parses again").to_string();
        assert_eq!(again, expected);
    }

    #[test]
    fn queries_are_printed_in_one_form() {
        check("sum(foo)by(a,b)", "sum by (a, b) (foo)");
        check("foo[5m*2]", "foo[5m * 2]");
        check("foo[300]", "foo[5m]");
        check("foo offset (2*step())", "foo offset (2 * step())");
        check(
            "foo[200-min_of(step()+1,2)]",
            "foo[200 - min_of(step() + 1, 2)]",
        );
        check("topk without(x)(3,foo)", "topk without (x) (3, foo)");
        check(
            "foo{ a=\"b\",c!~'d'}[5m]offset 1h",
            "foo{a=\"b\",c!~\"d\"}[5m] offset 1h",
        );
        check("foo @ 10 offset -5m", "foo @ 10.000 offset -5m");
        check("rate(x[5m])[1h:] @ end()", "rate(x[5m])[1h:] @ end()");
        check("a+on(x)group_left(y)b", "a + on (x) group_left (y) b");
        check("a > bool ignoring(x) b", "a > bool ignoring (x) b");
        check("{\"a.b\",\"c d\"=\"e\"}", "{\"a.b\",\"c d\"=\"e\"}");
        check("-2 ^ -x", "-2 ^ -x");
        check("a + fill(1) b", "a + fill (1) b");
        check(
            "a*on(x)group_right()fill_left(-1)b",
            "a * on (x) group_right () fill_left (-1) b",
        );
        check(
            "rate(x[5m]smoothed offset 1m)",
            "rate(x[5m] offset 1m smoothed)",
        );
        check("x[step() + 1m:2 * 5s]", "x[step() + 1m:2 * 5s]");
        check(
            "label_replace(x,\"a\",'$1\\n',`b`,\"c\")",
            "label_replace(x, \"a\", \"$1\\n\", \"b\", \"c\")",
        );
    }
}
