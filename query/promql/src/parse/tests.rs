//! What parses, how it nests, and what the messages say.

use super::*;
use crate::ast::ExprKind;

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
        "1:3: parse error: comparisons between scalars must use BOOL modifier",
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
        "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once",
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
        "1:1: parse error: offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    );
    fails(
        "a{x=~\"(\"}",
        "1:3: parse error: error parsing regexp: missing closing ): `(`",
    );
    fails(
        "a{x=~\"a)|(?:b\"}",
        "1:3: parse error: error parsing regexp: unexpected ): `a)|(?:b`",
    );
    fails(
        "5m5",
        "1:1: parse error: bad number or duration syntax: \"5m5\"",
    );
    fails(
        "foo\n  + )",
        "2:6: parse error: unexpected right parenthesis ')'",
    );
    fails(
        "a{__name__=\"b\"}",
        "1:1: parse error: metric name must not be set twice: \"a\" or \"b\"",
    );
}

#[test]
fn mistakes_of_characters() {
    for (text, expected) in [
        (")", "2: parse error: unexpected right parenthesis ')'"),
        (
            "foo{",
            "5: parse error: unexpected end of input inside braces",
        ),
        ("foo{{", "5: parse error: unexpected left brace '{'"),
        (
            "{1",
            "2: parse error: unexpected character inside braces: '1'",
        ),
        (
            "foo\u{3000}bar",
            r"4: parse error: unexpected character: '\u3000'",
        ),
        (
            r#""a\x4""#,
            r#"1: parse error: illegal character U+0022 '"' in escape sequence"#,
        ),
        (r#""a\x4"#, "1: parse error: escape sequence not terminated"),
        (
            r#""a\'""#,
            "1: parse error: unknown escape sequence U+0027 '''",
        ),
        (
            "\"a\\\n\"",
            "1: parse error: unknown escape sequence U+000A",
        ),
        ("'a", "1: parse error: unterminated quoted string"),
        ("`a", "1: parse error: unterminated raw string"),
        (
            "5q",
            r#"1: parse error: bad number or duration syntax: "5""#,
        ),
        (
            "1.5h",
            r#"1: parse error: not a valid duration string: "1.5h""#,
        ),
        (
            "1e1000",
            r#"1: parse error: error parsing number: strconv.ParseFloat: parsing "1e1000": value out of range"#,
        ),
    ] {
        fails(text, &format!("1:{expected}"));
    }
}

#[test]
fn mistakes_inside_brackets() {
    for (text, expected) in [
        (
            "foo[",
            "5: parse error: unexpected end of input in duration expression",
        ),
        (
            "foo[x]",
            "5: parse error: unexpected character in duration expression: 'x'",
        ),
        (
            r#"foo["5m"]"#,
            r#"5: parse error: unexpected character in duration expression: '"'"#,
        ),
        (
            "foo[[5m]",
            "5: parse error: unexpected character in duration expression: '['",
        ),
        (
            "foo[:5m]",
            "6: parse error: unexpected colon before duration in duration expression",
        ),
        (
            "foo[5m:x]",
            "8: parse error: unexpected character: 'x', expected ':'",
        ),
        ("foo[5m:1m:]", "10: parse error: unexpected colon ':'"),
        (
            "foo[]",
            r#"5: parse error: unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
        ),
        (
            "foo[1h][5m:]",
            "1: parse error: subquery is only allowed on instant vector, got matrix instead",
        ),
    ] {
        fails(text, &format!("1:{expected}"));
    }
}

#[test]
fn mistakes_of_words_and_modifiers() {
    for (text, expected) in [
        (
            "Rate(foo[5m])",
            r#"1: parse error: unknown function with name "Rate""#,
        ),
        (
            "nope(nada(1))",
            r#"6: parse error: unknown function with name "nada""#,
        ),
        ("nope(", "6: parse error: unclosed left parenthesis"),
        (
            "a + group_left(x) b",
            "5: parse error: unexpected <group_left>",
        ),
        ("inf()", r#"4: parse error: unexpected "(""#),
        ("fill(1)", "1: parse error: unexpected <fill>"),
        ("foo start", r#"5: parse error: unexpected "start""#),
        (
            "sum (foo bar)",
            r#"10: parse error: unexpected identifier "bar" in aggregation"#,
        ),
        (
            "sum by (inf)(foo)",
            r#"9: parse error: unexpected number "inf" in grouping opts, expected label"#,
        ),
        (
            r#"sum by ("")(foo)"#,
            r#"9: parse error: invalid label name for grouping: """#,
        ),
        (
            "foo @ inf",
            "1: parse error: timestamp out of bounds for @ modifier: +Inf",
        ),
        (
            "a + fill(1) b",
            "1: parse error: binop fill modifiers are experimental and not enabled",
        ),
        (
            "rate(foo[5m] smoothed)",
            "6: parse error: smoothed modifier is experimental and not enabled",
        ),
    ] {
        fails(text, &format!("1:{expected}"));
    }
}

#[test]
fn types_come_behind_the_syntax() {
    fails(
        "rate(foo) bar",
        "1:11: parse error: unexpected identifier \"bar\"",
    );
    fails(
        "abs(rate(foo), 1)",
        "1:1: parse error: expected 1 argument(s) in call to \"abs\", got 2",
    );
    fails(
        "sum(-(foo[5m]))",
        "1:5: parse error: unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
    );
    fails(
        "(1 == 1) + on(x) rate(y)",
        "1:4: parse error: comparisons between scalars must use BOOL modifier",
    );
    let plain = EvalOptions::default();
    let error = parse("ts_of_max_over_time(foo[5m])", &plain).expect_err("experimental");
    let expected = "1:1: parse error: function \"ts_of_max_over_time\" is not enabled";
    assert_eq!(error.to_string(), expected);
    assert!(parse("foo offset 0s offset 5m", &plain).is_ok());
    assert!(parse("sum by (a:b) (foo)", &plain).is_ok());
}

#[test]
fn lone_selectors() {
    let check = |text: &str, expected: &str| {
        let error = parse_selector(text).expect_err(text).to_string();
        assert_eq!(error, format!("1:{expected}"), "{text}");
    };
    check("", "1: parse error: unexpected end of input");
    check("foo(1)", "4: parse error: unexpected \"(\"");
    check("foo offset 5m", "5: parse error: unexpected <offset>");
    check("foo[5m]", "4: parse error: unexpected \"[\"");
    check("1", "1: parse error: unexpected number \"1\"");
    check(
        "foo{",
        "5: parse error: unexpected end of input inside braces",
    );
    for text in ["{}", "foo", "sum", "{a=~\".*\"}", "offset{a=\"b\"}"] {
        assert!(parse_selector(text).is_ok(), "{text}");
    }
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
