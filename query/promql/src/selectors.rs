//! The selectors of an expression: what it names, whatever it does with it, and how many samples that is.

use crate::{EvalOptions, Expr, Matcher, QueryError, ast::ExprKind, function::FunctionKind, parse};

/// The conditions of every selector in an expression, in the order of the text.
#[must_use]
pub fn selectors(expr: &Expr) -> Vec<Vec<Matcher>> {
    let mut found = Vec::new();
    collect(expr, &mut found);
    found
}

fn collect(expr: &Expr, found: &mut Vec<Vec<Matcher>>) {
    match &expr.kind {
        ExprKind::Selector(selector) => found.push(selector.matchers.clone()),
        ExprKind::Range(range) => found.push(range.selector.matchers.clone()),
        _ => {}
    }
    for child in expr.children() {
        collect(child, found);
    }
}

/// Queries that count the samples that an expression loads: added up, their values at a time are what Prometheus calls the
/// queryable samples of that time. To be evaluated under [`EvalOptions::for_counts`].
///
/// An instant selector loads one sample of each series, a range selector all in the range, a sub-query below a function the
/// values that the function sees, and one that is the expression itself what it loads at its own times. Unlike in
/// Prometheus a native histogram counts as one sample, whatever its size; what `anchored` and `smoothed` look at beyond
/// a range, and the info series of `info`, are not counted.
///
/// # Errors
/// [`QueryError::BadData`] for an expression that was read with other options.
pub fn sample_counts(expr: &Expr, options: &EvalOptions) -> Result<Vec<String>, QueryError> {
    let mut inner = expr;
    while let ExprKind::Paren(operand) = &inner.kind {
        inner = operand;
    }
    let ExprKind::SubQuery(sub_query) = &inner.kind else {
        let mut counts = Vec::new();
        count(expr, &mut counts);
        return Ok(counts);
    };
    let mut counts = sample_counts(&sub_query.operand, options)?;
    for text in &mut counts {
        let mut sub_query = sub_query.clone();
        sub_query.operand = parse(text, options)?;
        let kind = ExprKind::SubQuery(sub_query);
        let all = Expr {
            kind,
            span: expr.span,
        };
        *text = format!("sum_over_time({all})");
    }
    Ok(counts)
}

fn count(expr: &Expr, counts: &mut Vec<String>) {
    match &expr.kind {
        ExprKind::Selector(_) => counts.push(format!("count({})", plain(expr))),
        ExprKind::Range(_) => counts.push(format!("sum(count_over_time({}))", plain(expr))),
        ExprKind::SubQuery(_) => counts.push(format!("sum(count_over_time({expr}))")),
        ExprKind::Call(call) if call.function.kind == FunctionKind::Info => {
            call.arguments
                .iter()
                .take(1)
                .for_each(|argument| count(argument, counts));
        }
        _ => expr
            .children()
            .into_iter()
            .for_each(|child| count(child, counts)),
    }
}

/// A selector without `anchored` or `smoothed`.
fn plain(selector: &Expr) -> Expr {
    let mut plain = selector.clone();
    match &mut plain.kind {
        ExprKind::Selector(selector) => selector.extension = None,
        ExprKind::Range(range) => range.selector.extension = None,
        _ => {}
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Grid, MemorySource, QueryData, QueryOptions, query_instant, query_range};
    use trefoil_model::{Labels, Millis};

    #[test]
    fn all_selectors_are_found_in_order() {
        let text = "sum by (a) (rate(b{c=\"d\"}[5m])) / 2 + max_over_time(e[1h:5m])";
        let expr = parse(text, &EvalOptions::default()).expect("a sound expression");
        let names: Vec<String> = selectors(&expr)
            .iter()
            .map(|matchers| {
                matchers
                    .iter()
                    .map(|m| m.value())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(names, ["d b", "e"]);
    }

    /// The series of Prometheus' test of its own counts: a sample every 10 s, of one series and of three; the one and the first
    /// of the three have equal labels but for the name.
    fn source() -> MemorySource {
        let mut source = MemorySource::new(2);
        let series = [("one", "1"), ("three", "1"), ("three", "2"), ("three", "3")];
        for (name, a) in series {
            let labels = Labels::from_pairs([("__name__", name), ("a", a)]);
            for at in 0..=100 {
                let sample = crate::Sample {
                    time: at * 10_000,
                    start: 0,
                    value: crate::Value::Float(at as f64),
                };
                source.append(&labels, &sample);
            }
        }
        source
    }

    /// The samples that a query loads at its times, in seconds.
    fn counted(text: &str, (start, end, step): (Millis, Millis, Millis)) -> Vec<u64> {
        let (source, mut options) = (source(), QueryOptions::default());
        options.eval = options.eval.for_counts();
        let expr = parse(text, &options.eval).expect(text);
        let grid = match step {
            0 => Grid::instant(start * 1000),
            _ => Grid::range(start * 1000, end * 1000, step * 1000).expect("a sound grid"),
        };
        let mut sums = vec![0; grid.steps()];
        for count in sample_counts(&expr, &options.eval).expect(text) {
            let points: Vec<_> = if step == 0 {
                let answer = query_instant(&source, &count, grid.start, &options);
                match futures::executor::block_on(answer).expect(&count).data {
                    QueryData::Vector(samples) => samples.into_iter().map(|s| s.point).collect(),
                    data => panic!("{count}: {data:?}"),
                }
            } else {
                let answer = query_range(&source, &count, grid, &options);
                match futures::executor::block_on(answer).expect(&count).data {
                    QueryData::Matrix(series) => {
                        series.into_iter().flat_map(|s| s.points).collect()
                    }
                    data => panic!("{count}: {data:?}"),
                }
            };
            for point in points {
                let at = (point.time - grid.start) / (step * 1000).max(1);
                sums[at as usize] += point.value.as_float().expect("a count") as u64;
            }
        }
        sums
    }

    /// Numbers that Prometheus' engine gives for the same samples (`TestQueryStatistics`), but for the last two.
    #[test]
    fn samples_are_counted_as_prometheus_counts_them() {
        let at = |time| (time, time, 0);
        let check =
            |text, times, expected: &[u64]| assert_eq!(counted(text, times), expected, "{text}");
        check("1", at(200), &[0]);
        check("\"literal string\"", at(201), &[0]);
        check("one", at(200), &[1]);
        check("one", (200, 230, 10), &[1; 4]);
        check("timestamp(one)", at(200), &[1]);
        check("one{a=\"1\"}[60s]", at(200), &[6]);
        check("three", at(200), &[3]);
        check("one + three", at(200), &[4]);
        check("one[60s:5s]", at(201), &[12]);
        check("max_over_time(one[60s])[20s:5s]", at(201), &[24]);
        check("max_over_time(three[60s:5s])", at(201), &[36]);
        check(
            "sum(max_over_time(three[60s:5s])) + sum(max_over_time(three[60s:5s]))",
            at(201),
            &[72],
        );
        check("rate(three[60s])", (201, 220, 5), &[18; 4]);
        check("one @ 10", (201, 220, 5), &[1; 4]);
        check("max_over_time(one[60s] @ 30)", (201, 220, 5), &[4; 4]);
        check("three offset 1000s", at(200), &[0]);
        check(
            "scalar(one) + vector(2) * on () topk(scalar(one), three)",
            at(200),
            &[5],
        );
        check(
            "((max_over_time((one[60s]))[20s:5s] offset 10s))",
            at(201),
            &[24],
        );
    }

    /// Expressions that are no error must not become one by being counted.
    #[test]
    fn metrics_with_equal_labels_are_counted_together() {
        let both = r#"{__name__=~"one|three",a="1"}"#;
        let check = |text: &str, expected: u64| {
            let text = text.replace("both", both);
            assert_eq!(counted(&text, (201, 201, 0)), [expected], "{text}");
            assert_eq!(counted(&text, (201, 221, 10)), [expected; 3], "{text}");
        };
        check("both", 2);
        check("last_over_time(both[60s])", 12);
        check("absent_over_time(both[60s])", 12);
        check("last_over_time(both[60s:5s])", 24);
        let range = format!("{both}[60s]");
        assert_eq!(counted(&range, (201, 201, 0)), [12]);
        let sub_query = format!("last_over_time({both}[60s])[20s:5s]");
        assert_eq!(counted(&sub_query, (201, 201, 0)), [48]);
    }

    #[test]
    fn counts_are_queries_of_what_an_expression_names() {
        let options = EvalOptions {
            experimental_functions: true,
            extended_range_selectors: true,
            ..EvalOptions::default()
        };
        let check = |text: &str, expected: &[&str]| {
            let expr = parse(text, &options).expect(text);
            let counts = sample_counts(&expr, &options).expect(text);
            assert_eq!(counts, expected, "{text}");
            counts
                .iter()
                .for_each(|count| drop(parse(count, &options).expect(count)));
        };
        check(
            r#"rate({"a.b", c=~"d|e"}[5m] offset -1m) / info(x @ start(), {y="z"})"#,
            &[
                r#"sum(count_over_time({"a.b",c=~"d|e"}[5m] offset -1m))"#,
                "count(x @ start())",
            ],
        );
        check(
            "increase(a[1m * 2] anchored) + b smoothed",
            &["sum(count_over_time(a[1m * 2]))", "count(b)"],
        );
        check(
            "min_over_time((a + b)[1h:] @ 5)",
            &["sum(count_over_time((a + b)[1h:] @ 5.000))"],
        );
        check(
            "(a + -b)[1h:1m]",
            &[
                "sum_over_time(count(a)[1h:1m])",
                "sum_over_time(count(b)[1h:1m])",
            ],
        );
        check("1 + time()", &[]);
    }
}
