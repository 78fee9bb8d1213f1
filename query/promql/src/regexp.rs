//! What is wrong with a regular expression, in the words of Go's `regexp/syntax`, which Prometheus passes on.

use std::fmt::Display;
use std::ops::Range;

/// Whether an expression is one by itself. Otherwise the brackets that are put around it could make one of it, as of `a)|(?:b`,
/// which then would not match at both ends.
///
/// # Errors
/// What is wrong, for the client.
pub(crate) fn check(expression: &str) -> Result<(), String> {
    let mut parser = regex_syntax::ParserBuilder::new()
        .dot_matches_new_line(true)
        .build();
    let parsed = parser.parse(expression);
    parsed
        .map(|_| ())
        .map_err(|error| explain(expression, &error))
}

/// The message for `error`, which parsing or compiling `pattern` gave.
pub(crate) fn explain(pattern: &str, error: &impl Display) -> String {
    let text = error.to_string();
    let mut lines = text.lines().rev();
    let reason = lines.next().unwrap_or_default().trim();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    let marked_at = lines.next().map_or(0..0, |marks| marked(pattern, marks));
    let (marked, behind) = (&pattern[marked_at.clone()], &pattern[marked_at.start..]);
    let (reason, shown) = match reason {
        "unclosed group" => ("missing closing )", pattern),
        "unopened group" => ("unexpected )", pattern),
        "incomplete escape sequence, reached end of pattern prematurely" => {
            ("trailing backslash at end of expression", "")
        }
        "unclosed character class" => ("missing closing ]", behind),
        "repetition operator missing expression" => {
            ("missing argument to repetition operator", marked)
        }
        "unrecognized escape sequence" => ("invalid escape sequence", marked),
        _ if reason.starts_with("invalid character class range") => {
            ("invalid character class range", marked)
        }
        _ if reason.starts_with("invalid repetition count") => ("invalid repeat count", marked),
        other => (other, pattern),
    };
    format!("error parsing regexp: {reason}: `{shown}`")
}

/// Which bytes of the pattern are above the marks. All when it has several lines, which are shown in another way.
fn marked(pattern: &str, marks: &str) -> Range<usize> {
    /// How far the pattern is indented.
    const INDENT: usize = 4;
    let count = marks.chars().filter(|c| *c == '^').count();
    let first = marks.find('^').and_then(|at| at.checked_sub(INDENT));
    let Some(first) = first.filter(|_| !pattern.contains('\n')) else {
        return 0..pattern.len();
    };
    let starts = pattern.char_indices().map(|(at, _)| at);
    let mut starts = starts.skip(first);
    let start = starts.next().unwrap_or(pattern.len());
    let end = starts.nth(count.saturating_sub(1));
    start..end.unwrap_or(pattern.len())
}

#[cfg(test)]
mod tests {
    #[test]
    fn mistakes_have_the_texts_of_go() {
        let check = |expression: &str, expected: &str| {
            let error = super::check(expression).expect_err(expression);
            assert_eq!(error, format!("error parsing regexp: {expected}"));
        };
        check("(", "missing closing ): `(`");
        check("a\\", "trailing backslash at end of expression: ``");
        check("a)b", "unexpected ): `a)b`");
        check("a)|(?:b", "unexpected ): `a)|(?:b`");
        check("é[a", "missing closing ]: `[a`");
        check("*", "missing argument to repetition operator: `*`");
        check("é+|*a", "missing argument to repetition operator: `*`");
        check("é[z-a]", "invalid character class range: `z-a`");
        check("a\\C", "invalid escape sequence: `\\C`");
        check("a\n(", "missing closing ): `a\n(`");
    }
}
