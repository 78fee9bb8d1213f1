//! What the text formats say, and how their errors read.

use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

fn check(text: &str, expected: &[(&str, f64, Option<i64>)]) {
    let parsed = parse(text).unwrap();
    let found: Vec<_> = parsed
        .samples
        .iter()
        .map(|s| (s.labels.to_string(), s.value, s.timestamp))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(labels, value, time)| ((*labels).to_owned(), *value, *time))
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn text_format() {
    check(
        "# HELP up Whether\n# TYPE up gauge\nup 1\nup{job=\"a\"} 0 1234\n\n# any comment\n",
        &[("up", 1.0, None), (r#"up{job="a"}"#, 0.0, Some(1234))],
    );
    check(
        "x{a=\"q\\\"\\\\\\n\", b=\"}\",} +Inf",
        &[("x{a=\"q\\\"\\\\\\n\", b=\"}\"}", f64::INFINITY, None)],
    );
    check("x -1.5e3 -7", &[("x", -1500.0, Some(-7))]);
    check(
        "{\"my.metric\",\"a.b\"=\"c\"} 2",
        &[(r#"my.metric{a.b="c"}"#, 2.0, None)],
    );
    check("\tx  \t 3 \t 4 ", &[("x", 3.0, Some(4))]);
}

#[test]
fn open_metrics() {
    let text = "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                a_seconds_total 5 1.5 # {trace=\"1\"} 1 2\na_seconds_created 1e3 1.5\n\
                b_bucket{le=\"1\"} 3 -0.001\n{\"c.d\",\"e.f\"=\"g\"} 1\n# EOF\n";
    check(
        text,
        &[
            ("a_seconds_total", 5.0, Some(1500)),
            ("a_seconds_created", 1000.0, Some(1500)),
            (r#"b_bucket{le="1"}"#, 3.0, Some(-1)),
            (r#"c.d{e.f="g"}"#, 1.0, None),
        ],
    );
    let metadata = parse(text).unwrap().metadata;
    assert_eq!(metadata.len(), 1);
    assert_eq!(metadata[0].kind, MetricKind::Counter);
    assert_eq!(metadata[0].unit, "seconds");
}

#[test]
fn exemplars_are_lent() {
    let text = b"# TYPE a counter\na_total 5 # {trace=\"x\\ny\"} 0.5 2\n# EOF";
    let mut parser = Parser::new(text, Dialect::OpenMetrics).unwrap();
    parser.next_entry().unwrap();
    let Some(Entry::Sample(line)) = parser.next_entry().unwrap() else {
        panic!("the second line is a sample");
    };
    let exemplar = line.exemplar.as_ref().unwrap();
    assert_eq!(exemplar.labels, [("trace".into(), "x\ny".into())]);
    assert_eq!((exemplar.value, exemplar.time), (0.5, Some(2000)));
}

#[test]
fn errors_name_line_and_column() {
    let check = |text: &str, expected: &str| {
        let error = parse(text).unwrap_err().to_string();
        assert_eq!(error, expected, "{text}");
    };
    check("up 1\nup x\n", "line 2, column 4: \"x\" is not a number");
    check(
        "up",
        "line 1, column 3: expected a space, found the end of the line",
    );
    check(
        "up{a=\"b} 1",
        "line 1, column 6: the quotation mark is never closed",
    );
    check(
        "up{a=b} 1",
        "line 1, column 6: expected a quotation mark, found 'b'",
    );
    check(
        "up{a\"b\"} 1",
        "line 1, column 5: expected \"=\" behind the label \"a\", found '\"'",
    );
    check(
        "up{a=\"\u{e9}\" b=\"2\"} 1",
        "line 1, column 10: expected \",\" or \"}\", found 'b'",
    );
    check(
        "up{a=\"1\",a=\"2\"} 1",
        "line 1, column 10: the label \"a\" appears twice",
    );
    check(
        "{a=\"1\"} 1",
        "line 1, column 8: expected the name of a metric, found ' '",
    );
    check(
        "up 1 x",
        "line 1, column 6: \"x\" is not a timestamp in whole milliseconds",
    );
    check(
        "up 1 2 3",
        "line 1, column 8: expected the end of the line, found '3'",
    );
    check(
        "# TYPE up thing",
        "line 1, column 11: \"thing\" is not a type of metric",
    );
    check(
        "# HELP",
        "line 1, column 3: a line of metadata without the name of a metric",
    );
    check(
        "# TYPE a histogram\na_bucket{le=\"1\"} 2\nb 1\n# EOF",
        "line 3, column 1: the histogram \"a\" before this line has no bucket +Inf",
    );
    check(
        "a -1\n# EOF x\n\n# EOF",
        "line 2, column 3: expected HELP, TYPE, UNIT or EOF: OpenMetrics has no other comments",
    );
    let error = Parser::new(b"a 1\nb{\xc3\xa9=\"\xff\"} 1", Dialect::Text).err();
    assert_eq!(
        error.unwrap().to_string(),
        "line 2, column 6: not valid UTF-8"
    );
}

/// What the specification forbids, beside the cases of the OpenMetrics project.
#[test]
fn open_metrics_is_strict() {
    for text in [
        "a{a=\"1\",} 1",
        "a{\"\"} 1",
        "a{b=\"1\"c} 1",
        "#HELP a x",
        "# HELP a x\n# HELP a x",
        "#\ta",
        "# TYPE a gauge ",
        "a a",
        "a 1\t",
        "a 0b1",
        "a -NaN",
        "a 1 z",
        "a 1 +Inf",
        "0a 1",
        "# TYPE a counter\na_total NaN",
        "# TYPE a summary\na{quantile=\"NaN\"} 0",
        "# TYPE a summary\na_count -1",
        "# TYPE a histogram\na_sum 1",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 0.5",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1# {} 1",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1 # {}1",
        "# TYPE a histogram\na_sum 1 # {a=\"b\"} 0.5",
        "# TYPE a info\na_info{foo=\"bar\"} 2",
        "# TYPE a gauge\na 0\na 0 0",
        "# TYPE a gauge\na{b=\"1\"} 0\na{b=\"2\"} 0\na{b=\"1\"} 0",
    ] {
        let whole = format!("{text}\n# EOF\n");
        assert!(parse(&whole).is_err(), "{text}");
    }
    for text in [
        "# TYPE a_s gauge\n# UNIT a_s s\na_s 1",
        "# TYPE a info\na_info{b=\"c\"} 1",
        "# TYPE a summary\na_count 1\na_sum 2",
        "# TYPE a histogram\na_bucket{le=\"-1.0\"} 0\na_bucket{le=\"+Inf\"} 3",
        "# TYPE a gauge\na 1.\na{b=\"c\"} .5",
    ] {
        let whole = format!("{text}\n# EOF\n");
        assert!(parse(&whole).is_ok(), "{text}");
    }
}

#[test]
fn random_texts_never_panic() {
    let mut random = StdRng::seed_from_u64(3);
    let pieces = [
        "up", "{", "}", "a=", "\"", "\\", ",", " ", "1.5", "# TYPE ", "\n", "\u{e9}", "-", "# EOF",
    ];
    for _ in 0..20_000 {
        let count = random.random_range(0..20);
        let text: String = (0..count)
            .map(|_| pieces[random.random_range(0..pieces.len())])
            .collect();
        drop(parse(&text));
    }
}
