//! The selectors of an expression: what it names, whatever it does with it.

use crate::{Expr, Matcher, ast::ExprKind};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalOptions, parse};

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
}
