//! Label matchers: what a selector says about one label.
//!
//! A label that a series does not have matches as the empty text. Regular expressions are anchored
//! at both ends, and `.` matches line breaks, as in Prometheus.

use crate::{QueryError, regexp};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::fmt;
use trefoil_model::Labels;

/// Memory that one expression may take when it is compiled, as the `regex` crate has it by default.
const REGEX_BYTES_MAX: usize = 10 << 20;
/// Sizes in which an expression is tried, ascending. It counts as the first that it fits into; most fit into the first.
const REGEX_BYTES: [usize; 3] = [64 << 10, 1 << 20, REGEX_BYTES_MAX];
/// Memory of all expressions of one query; more are refused. 512 ordinary ones, or three of the largest.
pub const REGEX_BYTES_PER_QUERY: usize = 32 << 20;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// One condition on one label. Travels as (name, operator, value) and is compiled where it arrives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "MatcherText", into = "MatcherText")]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    compiled: Compiled,
}

#[derive(Clone, Debug)]
enum Compiled {
    Plain,
    /// The expression is `a|b|c` without any special character.
    Set(Vec<String>),
    Anything,
    Regex(Regex),
}

#[derive(Clone, Serialize, Deserialize)]
struct MatcherText {
    name: String,
    op: MatchOp,
    value: String,
}

impl Matcher {
    /// Makes a matcher; compiles its expression.
    ///
    /// # Errors
    /// [`QueryError::BadData`] for a regular expression that does not compile.
    pub fn new(
        name: impl Into<String>,
        op: MatchOp,
        value: impl Into<String>,
    ) -> Result<Self, QueryError> {
        Self::new_within(name, op, value, &mut { REGEX_BYTES_PER_QUERY })
    }

    /// As [`Matcher::new`], with what the query has left of [`REGEX_BYTES_PER_QUERY`] for its expressions, which becomes less.
    ///
    /// # Errors
    /// As there, and when it is not enough.
    pub fn new_within(
        name: impl Into<String>,
        op: MatchOp,
        value: impl Into<String>,
        bytes_left: &mut usize,
    ) -> Result<Self, QueryError> {
        let (name, value) = (name.into(), value.into());
        let compiled = match op {
            MatchOp::Equal | MatchOp::NotEqual => Compiled::Plain,
            MatchOp::Regex | MatchOp::NotRegex => compile(&value, bytes_left)?,
        };
        Ok(Self {
            name,
            op,
            value,
            compiled,
        })
    }

    /// The label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator.
    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The text or expression on the right.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label with this value fits; an absent label has the value `""`.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Regex => self.expression_matches(value),
            MatchOp::NotRegex => !self.expression_matches(value),
        }
    }

    /// Whether a series with these labels fits.
    #[must_use]
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }

    /// Whether a series without the label fits, so that an index must not be asked for its values only.
    #[must_use]
    pub fn matches_absent(&self) -> bool {
        self.matches("")
    }

    /// For `=` and for `=~` with plain alternatives: the values that fit, and no others do.
    #[must_use]
    pub fn exact_values(&self) -> Option<Vec<&str>> {
        match (self.op, &self.compiled) {
            (MatchOp::Equal, _) => Some(vec![&self.value]),
            (MatchOp::Regex, Compiled::Set(values)) => {
                Some(values.iter().map(String::as_str).collect())
            }
            _ => None,
        }
    }

    fn expression_matches(&self, value: &str) -> bool {
        match &self.compiled {
            Compiled::Plain => value == self.value,
            Compiled::Set(values) => values.iter().any(|v| v == value),
            Compiled::Anything => true,
            Compiled::Regex(regex) => regex.is_match(value),
        }
    }
}

fn compile(expression: &str, bytes_left: &mut usize) -> Result<Compiled, QueryError> {
    if expression == ".*" {
        return Ok(Compiled::Anything);
    }
    let plain = |c: char| !"\\.+*?()[]{}^$".contains(c);
    if expression.chars().all(plain) {
        let values = expression.split('|').map(str::to_owned).collect();
        return Ok(Compiled::Set(values));
    }
    regexp::check(expression).map_err(QueryError::BadData)?;
    let pattern = format!("^(?s:{expression})$");
    for bytes in REGEX_BYTES {
        if bytes > *bytes_left {
            return Err(QueryError::BadData(format!(
                "the regular expressions of the query take more than {REGEX_BYTES_PER_QUERY} bytes"
            )));
        }
        match RegexBuilder::new(&pattern).size_limit(bytes).build() {
            Ok(regex) => {
                *bytes_left -= bytes;
                return Ok(Compiled::Regex(regex));
            }
            Err(regex::Error::CompiledTooBig(_)) if bytes < REGEX_BYTES_MAX => {}
            Err(error) => return Err(QueryError::BadData(regexp::explain(expression, &error))),
        }
    }
    Err(QueryError::Internal("no size for an expression".to_owned()))
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.text(), self.value)
    }
}

impl From<Matcher> for MatcherText {
    fn from(matcher: Matcher) -> Self {
        Self {
            name: matcher.name,
            op: matcher.op,
            value: matcher.value,
        }
    }
}

impl TryFrom<MatcherText> for Matcher {
    type Error = QueryError;
    fn try_from(text: MatcherText) -> Result<Self, QueryError> {
        Self::new(text.name, text.op, text.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(op: MatchOp, expression: &str, value: &str, expected: bool) {
        let matcher = Matcher::new("x", op, expression).expect("compiles");
        assert_eq!(matcher.matches(value), expected, "{matcher} on {value:?}");
    }

    #[test]
    fn expressions_are_anchored() {
        check(MatchOp::Regex, "a|b", "b", true);
        check(MatchOp::Regex, "a|b", "ab", false);
        check(MatchOp::Regex, "a.*", "a\nb", true);
        check(MatchOp::Regex, "b.?", "ab", false);
        check(MatchOp::Regex, "", "", true);
        check(MatchOp::NotRegex, ".+", "", true);
        check(MatchOp::NotEqual, "", "x", true);
        check(MatchOp::Regex, "(?i)ab", "AB", true);
    }

    #[test]
    fn the_expressions_of_a_query_have_a_bound_together() {
        let regexes = |count: usize, expression: &str| {
            let matchers = (0..count).map(|at| format!("a{at}=~\"{expression}\""));
            let text = format!("up{{{}}}", matchers.collect::<Vec<_>>().join(","));
            crate::parse_selector(&text).map(|matchers| matchers.len())
        };
        assert_eq!(regexes(400, "a.*b"), Ok(401));
        let large = "(a|b.){2000}";
        assert_eq!(regexes(3, large), Ok(4));
        let alone = format!("up{{a=~\"{large}\"}}");
        assert!(crate::parse_selectors([&*alone; 3]).is_ok());
        assert!(crate::parse_selectors([&*alone; 40]).is_err());
        let error = regexes(40, large).expect_err("40 large ones");
        let text = error.to_string();
        assert!(text.contains("take more than 33554432 bytes"), "{text}");
    }

    #[test]
    fn bad_expressions_are_refused_and_travel_as_text() {
        let error = Matcher::new("x", MatchOp::Regex, "(").expect_err("unclosed");
        assert!(
            error.to_string().contains("error parsing regexp"),
            "{error}"
        );
        let matcher = Matcher::new("x", MatchOp::Regex, "a.+").expect("compiles");
        let bytes = bincode::serialize(&matcher).expect("serialises");
        let back: Matcher = bincode::deserialize(&bytes).expect("deserialises");
        assert_eq!(back, matcher);
        assert!(back.matches("abc"));
        assert_eq!(back.exact_values(), None);
    }
}
