//! Label matchers: what a selector asks of a label's value, with the range of values that can satisfy it.

use crate::MetricsError;
use regex::bytes::Regex;

/// Compiled size of one regular expression, in bytes. A larger one is refused as too expensive.
const REGEX_BYTES_MAX: usize = 4 << 20;

/// Asks something of one label. A label that a series lacks has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    /// Equal to one of these, ascending.
    Literals(Vec<Vec<u8>>),
    /// Matches the whole value; every match starts with the prefix.
    Regex { regex: Regex, prefix: Vec<u8> },
}

impl Matcher {
    /// `name="value"`.
    #[must_use]
    pub fn equal(name: &str, value: &str) -> Self {
        Self::literals_of(name, false, vec![value.as_bytes().to_vec()])
    }

    /// `name!="value"`.
    #[must_use]
    pub fn not_equal(name: &str, value: &str) -> Self {
        Self::literals_of(name, true, vec![value.as_bytes().to_vec()])
    }

    /// `name=~"pattern"`: the pattern must match the whole value. RE2 syntax, dot matches a line feed.
    ///
    /// # Errors
    /// [`MetricsError::Regex`] when the pattern is malformed or too large.
    pub fn regex(name: &str, pattern: &str) -> Result<Self, MetricsError> {
        Self::of_pattern(name, false, pattern)
    }

    /// `name!~"pattern"`.
    ///
    /// # Errors
    /// As [`Matcher::regex`].
    pub fn not_regex(name: &str, pattern: &str) -> Result<Self, MetricsError> {
        Self::of_pattern(name, true, pattern)
    }

    fn literals_of(name: &str, negated: bool, mut literals: Vec<Vec<u8>>) -> Self {
        literals.sort_unstable();
        literals.dedup();
        Self {
            name: name.to_owned(),
            negated,
            test: Test::Literals(literals),
        }
    }

    fn of_pattern(name: &str, negated: bool, pattern: &str) -> Result<Self, MetricsError> {
        if let Some(literals) = plain_alternatives(pattern) {
            return Ok(Self::literals_of(name, negated, literals));
        }
        let regex = regex::bytes::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|source| MetricsError::Regex {
                pattern: pattern.to_owned(),
                source,
            })?;
        Ok(Self {
            name: name.to_owned(),
            negated,
            test: Test::Regex {
                regex,
                prefix: plain_prefix(pattern),
            },
        })
    }

    /// The label's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a value satisfies the matcher; the empty value stands for an absent label.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        let found = match &self.test {
            Test::Literals(literals) => literals
                .binary_search_by(|l| l.as_slice().cmp(value))
                .is_ok(),
            Test::Regex { regex, prefix } => value.starts_with(prefix) && regex.is_match(value),
        };
        found != self.negated
    }

    /// The only values that match, ascending; `None` when there may be others.
    pub(crate) fn literals(&self) -> Option<impl Iterator<Item = &[u8]>> {
        match &self.test {
            Test::Literals(literals) if !self.negated => Some(literals.iter().map(Vec::as_slice)),
            _ => None,
        }
    }

    /// Smallest and largest value that can match, both inclusive; `None` when any can.
    pub(crate) fn bounds(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.negated {
            return None;
        }
        match &self.test {
            Test::Literals(literals) => Some((literals.first()?.clone(), literals.last()?.clone())),
            Test::Regex { prefix, .. } if prefix.is_empty() => None,
            Test::Regex { prefix, .. } => {
                let mut high = prefix.clone();
                // Labels are UTF-8, which has no byte 0xff: all texts with the prefix are below.
                high.push(0xff);
                Some((prefix.clone(), high))
            }
        }
    }
}

/// The alternatives of a pattern like `a|b|c` that has no other syntax in it.
fn plain_alternatives(pattern: &str) -> Option<Vec<Vec<u8>>> {
    let plain = |text: &str| text.bytes().all(is_plain);
    pattern
        .split('|')
        .map(|text| plain(text).then(|| text.as_bytes().to_vec()))
        .collect()
}

/// What every match of the pattern starts with.
fn plain_prefix(pattern: &str) -> Vec<u8> {
    if pattern.contains('|') {
        return Vec::new();
    }
    let mut plain = pattern.bytes().take_while(|byte| is_plain(*byte)).count();
    // A quantifier behind the last character makes it optional.
    if matches!(
        pattern.as_bytes().get(plain),
        Some(b'*' | b'?' | b'{' | b'+')
    ) {
        plain = pattern[..plain]
            .char_indices()
            .next_back()
            .map_or(0, |(at, _)| at);
    }
    pattern.as_bytes()[..plain].to_vec()
}

fn is_plain(byte: u8) -> bool {
    !matches!(
        byte,
        b'\\'
            | b'.'
            | b'+'
            | b'*'
            | b'?'
            | b'('
            | b')'
            | b'|'
            | b'['
            | b']'
            | b'{'
            | b'}'
            | b'^'
            | b'$'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching() {
        let check = |matcher: Result<Matcher, MetricsError>, yes: &[&str], no: &[&str]| {
            let matcher = matcher.expect("a sound pattern");
            for value in yes {
                assert!(matcher.matches(value.as_bytes()), "{matcher:?} {value}");
            }
            for value in no {
                assert!(!matcher.matches(value.as_bytes()), "{matcher:?} {value}");
            }
        };
        check(Ok(Matcher::equal("a", "b")), &["b"], &["", "bb"]);
        check(Ok(Matcher::not_equal("a", "b")), &["", "bb"], &["b"]);
        check(Matcher::regex("a", "b|c|"), &["b", "c", ""], &["bc"]);
        check(Matcher::regex("a", "ab*"), &["a", "abbb"], &["", "xa"]);
        check(Matcher::regex("a", "(?i)ab"), &["AB"], &["abc"]);
        check(Matcher::regex("a", "ab.+"), &["abc", "ab\n"], &["ab"]);
        check(Matcher::not_regex("a", "x|y.*"), &["", "z"], &["x", "y1"]);
        check(Matcher::regex("a", "é?b"), &["b", "éb"], &["éé"]);
        assert!(Matcher::regex("a", "(").is_err());
    }

    #[test]
    fn value_ranges() {
        let check = |pattern: &str, low: &[u8], high: &[u8]| {
            let matcher = Matcher::regex("a", pattern).expect("a sound pattern");
            let expected = Some((low.to_vec(), high.to_vec()));
            assert_eq!(matcher.bounds(), expected, "{pattern}");
        };
        check("c|a|b", b"a", b"c");
        check("ab.*", b"ab", b"ab\xff");
        check("abc?.*", b"ab", b"ab\xff");
        assert_eq!(Matcher::regex("a", "a.*|b").expect("sound").bounds(), None);
    }
}
