//! What parses, how it nests, and what the messages say.

use super::*;

fn options() -> EvalOptions {
    EvalOptions {
        experimental_functions: true,
        ..EvalOptions::default()
    }
}

/// Checks that a query fails with this message.
fn fails(text: &str, expected: &str) {
    match parse(text, &options()) {
        Ok(expr) => panic!("{text} parses as {expr:?}"),
        Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
    }
}

#[test]
fn mistakes_have_positions_and_the_peers_texts() {
    fails("", "1:1: parse error: no expression found in input");
    fails("sum(", "1:5: parse error: unclosed left parenthesis");
    fails("1 +", "1:4: parse error: unexpected end of input");
    fails("foo bar", "1:5: parse error: unexpected identifier \"bar\"");
    fails(
        "foo{a=1}",
        "1:7: parse error: unexpected character inside braces: '1'",
    );
    fails(
        "foo{a=\"b\"",
        "1:10: parse error: unexpected end of input inside braces",
    );
    fails(
        "nope(1)",
        "1:1: parse error: unknown function with name \"nope\"",
    );
    fails(
        "rate(foo)",
        "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
    );
    fails(
        "rate()",
        "1:1: parse error: expected 1 argument(s) in call to \"rate\", got 0",
    );
    fails(
        "{}",
        "1:1: parse error: vector selector must contain at least one non-empty matcher",
    );
    fails(
        "1 == 1",
        "1:1: parse error: comparisons between scalars must use BOOL modifier",
    );
    fails(
        "a + bool b",
        "1:3: parse error: bool modifier can only be used on comparison operators",
    );
    fails(
        "a and 1",
        "1:1: parse error: set operator \"and\" not allowed in binary scalar expression",
    );
    fails(
        "a + on(x) group_left(x) b",
        "1:1: parse error: label \"x\" must not occur in ON and GROUP clause at once",
    );
    fails(
        "a and on(x) group_left b",
        "1:1: parse error: no grouping allowed for \"and\" operation",
    );
    fails(
        "sum(1)",
        "1:5: parse error: expected type instant vector in aggregation expression, got scalar",
    );
    fails(
        "topk(a)",
        "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
    );
    fails("foo[5m", "1:7: parse error: unclosed left bracket");
    fails(
        "foo[0s]",
        "1:5: parse error: duration must be greater than 0",
    );
    fails(
        "1[5m]",
        "1:2: parse error: ranges only allowed for vector selectors",
    );
    fails(
        "foo offset 5m offset 5m",
        "1:1: parse error: offset may not be set multiple times",
    );
    fails(
        "1 offset 5m",
        "1:3: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    );
    fails(
        "a{x=~\"(\"}",
        "1:3: parse error: error parsing regexp: unclosed group: `^(?s:()$`",
    );
    fails(
        "5m5",
        "1:1: parse error: bad number or duration syntax: \"5m5\"",
    );
    fails(
        "foo\n  + )",
        "2:5: parse error: unexpected right parenthesis ')'",
    );
    fails(
        "a{__name__=\"b\"}",
        "1:1: parse error: metric name must not be set twice: \"a\" or \"b\"",
    );
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{}1{}", "(".repeat(2000), ")".repeat(2000));
    assert!(parse(&deep, &options()).is_err());
    let chain = vec!["a"; 2000].join(" + ");
    assert!(parse(&chain, &options()).is_err());
    let signs = format!("{}1", "-".repeat(5000));
    assert!(parse(&signs, &options()).is_err());
    let wide = format!("max({})", vec!["a"; 200].join(" or "));
    assert!(parse(&wide, &options()).is_ok());
}

#[test]
fn spans_name_nodes() {
    let text = "sum by (x) (rate(foo{a=\"b\"}[5m] offset 1m)) / -bar";
    let expr = parse(text, &options()).expect("parses");
    let mut pending = vec![&expr];
    while let Some(node) = pending.pop() {
        assert!(std::ptr::eq(expr.find(node.span).expect("found"), node));
        pending.extend(node.children());
    }
    let ExprKind::Binary(binary) = &expr.kind else {
        panic!("not binary")
    };
    assert_eq!(
        &text[binary.left.span.start as usize..binary.left.span.end as usize],
        "sum by (x) (rate(foo{a=\"b\"}[5m] offset 1m))"
    );
}
