//! The syntax tree of a query as JSON, in the form that Prometheus' web interface reads from `parse_query`.
//!
//! Every node is an object with a `type`; durations are whole milliseconds, those that are only known with a query's
//! step are 0. Source: the answers of Prometheus 3 and the types of its web interface.

use serde_json::{Value, json};
use trefoil_query_promql::{
    Expr, Matcher,
    ast::{
        At, Binary, Call, Cardinality, DurationExpr, DurationKind, ExprKind, Extension,
        TimeModifier, ValueType, VectorMatching, VectorSelector,
    },
};

/// The tree below an expression.
pub(crate) fn syntax_tree(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number(value) => number(*value),
        ExprKind::String(text) => json!({"type": "stringLiteral", "val": text.shown()}),
        ExprKind::Selector(of) => selector("vectorSelector", of),
        ExprKind::Range(range) => {
            let mut node = selector("matrixSelector", &range.selector);
            node["range"] = milliseconds(Some(&range.range));
            node
        }
        ExprKind::SubQuery(sub_query) => json!({
            "type": "subquery",
            "expr": syntax_tree(&sub_query.operand),
            "range": milliseconds(Some(&sub_query.range)),
            "offset": milliseconds(sub_query.time.offset.as_ref()),
            "step": milliseconds(sub_query.step.as_ref()),
            "timestamp": timestamp(&sub_query.time),
            "startOrEnd": start_or_end(&sub_query.time),
        }),
        ExprKind::Call(of) => call(of),
        ExprKind::Binary(of) => binary(of),
        // Prometheus' parser makes one number of a sign and a number.
        ExprKind::Unary { negative, operand } => match (&operand.kind, *negative) {
            (ExprKind::Number(value), true) => number(-value),
            (ExprKind::Number(value), false) => number(*value),
            (_, negative) => json!({
                "type": "unaryExpr",
                "op": if negative { "-" } else { "+" },
                "expr": syntax_tree(operand),
            }),
        },
        ExprKind::Paren(inner) => json!({"type": "parenExpr", "expr": syntax_tree(inner)}),
        ExprKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.text(),
            "expr": syntax_tree(&aggregate.operand),
            "param": aggregate.parameter.as_ref().map(syntax_tree),
            "grouping": aggregate.grouping,
            "without": aggregate.without,
        }),
    }
}

fn number(value: f64) -> Value {
    let text = match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    };
    json!({"type": "numberLiteral", "val": text})
}

fn selector(kind: &str, selector: &VectorSelector) -> Value {
    let matchers: Vec<Value> = selector.matchers.iter().map(matcher).collect();
    json!({
        "type": kind,
        "name": selector.name.as_deref().unwrap_or(""),
        "offset": milliseconds(selector.time.offset.as_ref()),
        "matchers": matchers,
        "timestamp": timestamp(&selector.time),
        "startOrEnd": start_or_end(&selector.time),
        "anchored": selector.extension == Some(Extension::Anchored),
        "smoothed": selector.extension == Some(Extension::Smoothed),
    })
}

fn matcher(matcher: &Matcher) -> Value {
    json!({"name": matcher.name(), "value": matcher.value(), "type": matcher.op().text()})
}

fn call(call: &Call) -> Value {
    let arguments: Vec<Value> = call.arguments.iter().map(syntax_tree).collect();
    let types = call.function.arguments.iter();
    let types: Vec<&str> = types.map(|of| value_type(*of)).collect();
    json!({
        "type": "call",
        "func": {
            "name": call.function.name,
            "argTypes": types,
            "variadic": call.function.variadic,
            "returnType": value_type(call.function.returns),
        },
        "args": arguments,
    })
}

fn value_type(of: ValueType) -> &'static str {
    match of {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}

fn binary(binary: &Binary) -> Value {
    json!({
        "type": "binaryExpr",
        "op": binary.op.text(),
        "lhs": syntax_tree(&binary.left),
        "rhs": syntax_tree(&binary.right),
        "matching": binary.matching.as_ref().map(matching),
        "bool": binary.return_bool,
    })
}

fn matching(matching: &VectorMatching) -> Value {
    let cardinality = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({
        "card": cardinality,
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    })
}

fn milliseconds(duration: Option<&DurationExpr>) -> Value {
    match duration.map(|duration| &duration.kind) {
        Some(DurationKind::Literal(seconds) | DurationKind::Number(seconds)) => {
            json!((seconds * 1000.0).round() as i64)
        }
        Some(DurationKind::Negative(inner)) => {
            json!(-milliseconds(Some(inner)).as_i64().unwrap_or(0))
        }
        Some(DurationKind::Paren(inner)) => milliseconds(Some(inner)),
        _ => json!(0),
    }
}

fn timestamp(time: &TimeModifier) -> Value {
    match time.at {
        Some(At::Time(time)) => json!(time),
        _ => Value::Null,
    }
}

fn start_or_end(time: &TimeModifier) -> Value {
    match time.at {
        Some(At::Start) => json!("start"),
        Some(At::End) => json!("end"),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_query_promql::{EvalOptions, parse};

    fn check(query: &str, expected: Value) {
        let expr = parse(query, &EvalOptions::default()).unwrap();
        assert_eq!(syntax_tree(&expr), expected, "{query}");
    }

    fn foo() -> Value {
        json!({
            "type": "vectorSelector", "name": "foo", "offset": 0, "timestamp": null,
            "startOrEnd": null, "anchored": false, "smoothed": false,
            "matchers": [{"name": "__name__", "value": "foo", "type": "="}],
        })
    }

    #[test]
    fn trees_have_the_form_of_prometheus() {
        check("foo", foo());
        check("-1.5e3", json!({"type": "numberLiteral", "val": "-1500"}));
        check(
            "(\"a\")",
            json!({"type": "parenExpr", "expr": {"type": "stringLiteral", "val": "a"}}),
        );
        check(
            "-foo",
            json!({"type": "unaryExpr", "op": "-", "expr": foo()}),
        );
        check(
            "topk by (a) (2, foo)",
            json!({
                "type": "aggregation", "op": "topk", "expr": foo(), "grouping": ["a"], "without": false,
                "param": {"type": "numberLiteral", "val": "2"},
            }),
        );
        check(
            "foo > bool on (a) group_left (b) foo",
            json!({
                "type": "binaryExpr", "op": ">", "bool": true, "lhs": foo(), "rhs": foo(),
                "matching": {
                    "card": "many-to-one", "labels": ["a"], "on": true, "include": ["b"],
                    "fillValues": {"lhs": null, "rhs": null},
                },
            }),
        );
        let mut behind = foo();
        behind["offset"] = json!(300_000);
        check("foo offset (300)", behind);
        check(
            "2 + 3",
            json!({
                "type": "binaryExpr", "op": "+", "bool": false, "matching": null,
                "lhs": {"type": "numberLiteral", "val": "2"}, "rhs": {"type": "numberLiteral", "val": "3"},
            }),
        );
        let mut range = foo();
        range["type"] = json!("matrixSelector");
        range["range"] = json!(300_000);
        range["offset"] = json!(-60_000);
        range["timestamp"] = json!(10_500);
        check(
            "rate(foo[5m] @ 10.5 offset -1m)",
            json!({
                "type": "call", "args": [range],
                "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
            }),
        );
        check(
            "foo[1h:5m] @ end()",
            json!({
                "type": "subquery", "expr": foo(), "range": 3_600_000, "offset": 0, "step": 300_000,
                "timestamp": null, "startOrEnd": "end",
            }),
        );
    }
}
