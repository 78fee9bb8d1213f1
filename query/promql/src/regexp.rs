//! What is wrong with a regular expression, in the words of Go's `regexp/syntax`, which Prometheus passes on.

use std::ops::Range;

/// The message for `error`, which compiling `pattern` gave.
pub(crate) fn explain(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines().rev();
    let reason = lines.next().unwrap_or_default().trim();
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    let marked_at = lines.next().map_or(0..0, |marks| marked(pattern, marks));
    let (marked, behind) = (&pattern[marked_at.clone()], &pattern[marked_at.start..]);
    let (reason, shown) = match reason {
        "unclosed group" => ("missing closing )", pattern),
        "unopened group" => ("unexpected )", pattern),
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
    use super::*;

    #[test]
    fn mistakes_have_the_texts_of_go() {
        let check = |expression: &str, expected: &str| {
            let pattern = format!("^(?s:{expression})$");
            let error = regex::Regex::new(&pattern).expect_err(expression);
            let expected = format!("error parsing regexp: {expected}");
            assert_eq!(explain(&pattern, &error), expected);
        };
        check("(", "missing closing ): `^(?s:()$`");
        check("\\", "missing closing ): `^(?s:\\)$`");
        check("a)b", "unexpected ): `^(?s:a)b)$`");
        check("é[a", "missing closing ]: `[a)$`");
        check("*", "missing argument to repetition operator: `*`");
        check("é+|*a", "missing argument to repetition operator: `*`");
        check("é[z-a]", "invalid character class range: `z-a`");
        check("a\\C", "invalid escape sequence: `\\C`");
        check("a\n(", "missing closing ): `^(?s:a\n()$`");
    }
}
