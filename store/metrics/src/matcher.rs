//! Label matchers: what a selector asks of a label's value, and how an index finds the values that satisfy it.

mod pattern;

use crate::MetricsError;
use pattern::{Gapped, Meaning, meaning};
use regex::bytes::Regex;
use trefoil_model::write_varint;

/// Compiled size of one regular expression, in bytes. A larger one is refused as too expensive.
const REGEX_BYTES_MAX: usize = 4 << 20;

/// Asks something of one label. A label that a series lacks has the empty value.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    negated: bool,
    test: Test,
    /// The pattern, when the test is none of literals.
    pattern: Box<str>,
}

#[derive(Clone, Debug)]
enum Test {
    /// Equal to one of these, ascending.
    Literals(Vec<Vec<u8>>),
    /// Literals with gaps between them.
    Gapped(Box<Gapped>),
    /// Matches the whole value; every match starts with the prefix.
    Regex { regex: Regex, prefix: Vec<u8> },
}

/// How the key of a matcher begins.
const KEY_LITERALS: u8 = 0;
const KEY_PATTERN: u8 = 2;

/// The values that tell series apart for a matcher: those whose answer is not that of the empty value, which series have that
/// lack the label.
#[derive(Debug)]
pub(crate) enum Telling<'a> {
    /// None: all series have the same answer.
    Nothing,
    /// All that are not empty.
    Everything,
    /// These, ascending; none is empty.
    OneOf(Vec<&'a [u8]>),
    /// All that are not empty but these, which ascend.
    AllBut(Vec<&'a [u8]>),
    /// Those that [`Matcher::tells`]; all lie between these two, both inclusive, if they are known.
    Some(Option<(Vec<u8>, Vec<u8>)>),
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
            pattern: "".into(),
        }
    }

    fn of_pattern(name: &str, negated: bool, pattern: &str) -> Result<Self, MetricsError> {
        let malformed = |error: Box<regex_syntax::Error>| MetricsError::Regex {
            pattern: pattern.to_owned(),
            source: regex::Error::Syntax(error.to_string()),
        };
        let test = match meaning(pattern).map_err(malformed)? {
            Meaning::Texts(texts) => return Ok(Self::literals_of(name, negated, texts)),
            Meaning::Gapped(gapped) => Test::Gapped(Box::new(gapped)),
            Meaning::Other { prefix } => Test::Regex {
                regex: compile(pattern)?,
                prefix,
            },
        };
        Ok(Self {
            name: name.to_owned(),
            negated,
            test,
            pattern: pattern.into(),
        })
    }

    /// Appends bytes that are equal only for matchers that ask the same, and do not begin those of others.
    pub(crate) fn write_key(&self, out: &mut Vec<u8>) {
        fn write_text(text: &[u8], out: &mut Vec<u8>) {
            write_varint(out, text.len() as u64);
            out.extend_from_slice(text);
        }
        let (kind, texts) = match &self.test {
            Test::Literals(literals) => (KEY_LITERALS, &literals[..]),
            Test::Gapped(_) | Test::Regex { .. } => (KEY_PATTERN, &[][..]),
        };
        out.push(kind | u8::from(self.negated));
        write_text(self.name.as_bytes(), out);
        write_text(self.pattern.as_bytes(), out);
        write_varint(out, texts.len() as u64);
        texts.iter().for_each(|text| write_text(text, out));
    }

    /// Whether only values that it names satisfy it.
    pub(crate) fn names_its_values(&self) -> bool {
        match &self.test {
            Test::Literals(literals) => !self.negated && literals.iter().all(|one| !one.is_empty()),
            Test::Gapped(_) | Test::Regex { .. } => false,
        }
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
            Test::Gapped(gapped) => gapped.matches(value),
            Test::Regex { regex, prefix } => value.starts_with(prefix) && regex.is_match(value),
        };
        found != self.negated
    }

    /// Whether a value's answer is not that of the empty value.
    pub(crate) fn tells(&self, value: &[u8]) -> bool {
        self.matches(value) != self.matches(b"")
    }

    /// The values that tell series apart.
    pub(crate) fn telling(&self) -> Telling<'_> {
        match &self.test {
            Test::Literals(literals) => {
                let others = literals.iter().map(Vec::as_slice);
                let others = others.filter(|literal| !literal.is_empty()).collect();
                match literals.first().is_some_and(Vec::is_empty) {
                    true => Telling::AllBut(others),
                    false => Telling::OneOf(others),
                }
            }
            Test::Gapped(gapped) if gapped.is_any_text() => match gapped.matches(b"") {
                true => Telling::Nothing,
                false => Telling::Everything,
            },
            Test::Gapped(gapped) => self.telling_with(gapped.prefix()),
            Test::Regex { prefix, .. } => self.telling_with(prefix),
        }
    }

    fn telling_with(&self, prefix: &[u8]) -> Telling<'_> {
        // With a prefix the empty value does not match, so that only values that do tell.
        Telling::Some((!prefix.is_empty()).then(|| {
            let mut high = prefix.to_vec();
            // Labels are UTF-8, which has no byte 0xff: all texts with the prefix are below.
            high.push(0xff);
            (prefix.to_vec(), high)
        }))
    }
}

impl Telling<'_> {
    /// The more, the longer it takes to find the series, about.
    fn effort(&self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::OneOf(_) => 1,
            Self::Everything | Self::AllBut(_) => 2,
            Self::Some(Some(_)) => 3,
            Self::Some(None) => 4,
        }
    }
}

/// The matchers in the order in which an index best takes them: those that are easily answered leave fewer series to the others.
pub(crate) fn easiest_first(matchers: &[Matcher]) -> Vec<(&Matcher, Telling<'_>)> {
    let told = matchers.iter().map(|matcher| (matcher, matcher.telling()));
    let mut order: Vec<_> = told.collect();
    order.sort_by_key(|(_, telling)| telling.effort());
    order
}

fn compile(pattern: &str) -> Result<Regex, MetricsError> {
    regex::bytes::RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|source| MetricsError::Regex {
            pattern: pattern.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_matchers_have_equal_keys() {
        let regex = |name, pattern| Matcher::regex(name, pattern).expect("a sound pattern");
        let matchers = [
            Matcher::equal("a", "b"),
            Matcher::not_equal("a", "b"),
            Matcher::equal("ab", ""),
            regex("a", "b|c"),
            regex("a", "b.*"),
            regex("a", "b.+"),
            regex("a", "[0-9]+b"),
            Matcher::not_regex("a", "[0-9]+b").expect("a sound pattern"),
        ];
        let key = |matcher: &Matcher| {
            let mut key = Vec::new();
            matcher.write_key(&mut key);
            key
        };
        for (place, one) in matchers.iter().enumerate() {
            for other in &matchers[place + 1..] {
                assert!(!key(one).starts_with(&key(other)), "{one:?} {other:?}");
                assert!(!key(other).starts_with(&key(one)), "{one:?} {other:?}");
            }
        }
        assert_eq!(key(&regex("a", "c|b")), key(&regex("a", "b|c")));
    }

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
        // The second is one between the brackets of the anchors, and would match "ab" and "ba".
        for malformed in ["(", "a)|(?:b"] {
            assert!(Matcher::regex("a", malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn telling_values() {
        const VALUES: [&str; 6] = ["a", "ab", "ab1", "abc", "b", "x"];
        let check = |matcher: Matcher, expected: &str, telling: &[&str]| {
            let told = matcher.telling();
            let found = match &told {
                Telling::OneOf(values) => format!("one of {}", text(values)),
                Telling::AllBut(values) => format!("all but {}", text(values)),
                Telling::Some(Some((low, high))) => format!("some {}", text(&[low, high])),
                other => format!("{other:?}"),
            };
            assert_eq!(found, expected, "{matcher:?}");
            for value in VALUES.map(str::as_bytes) {
                let tells = telling.iter().any(|one| one.as_bytes() == value);
                assert_eq!(
                    matcher.tells(value),
                    tells,
                    "{matcher:?} {}",
                    text(&[value])
                );
                let may_tell = match &told {
                    Telling::Nothing => false,
                    Telling::Everything => true,
                    Telling::OneOf(values) => values.contains(&value),
                    Telling::AllBut(values) => !values.contains(&value),
                    Telling::Some(Some((low, high))) => (&low[..]..=&high[..]).contains(&value),
                    Telling::Some(None) => true,
                };
                let is_known = !matches!(told, Telling::Some(_));
                assert!(
                    may_tell == tells || (may_tell && !is_known),
                    "{matcher:?} {}",
                    text(&[value])
                );
            }
        };
        let regex = |pattern| Matcher::regex("l", pattern).expect("sound");
        let not_regex = |pattern| Matcher::not_regex("l", pattern).expect("sound");
        check(Matcher::equal("l", "a"), "one of a", &["a"]);
        check(Matcher::not_equal("l", "a"), "one of a", &["a"]);
        check(Matcher::equal("l", ""), "all but ", &VALUES);
        check(Matcher::not_equal("l", ""), "all but ", &VALUES);
        check(regex("b|a|b"), "one of a,b", &["a", "b"]);
        check(not_regex("b|a|"), "all but a,b", &["ab", "ab1", "abc", "x"]);
        check(regex(".*"), "Nothing", &[]);
        check(not_regex(".*"), "Nothing", &[]);
        check(regex(".+"), "Everything", &VALUES);
        check(not_regex(".+"), "Everything", &VALUES);
        check(regex("ab.*"), "some ab,ab\u{fffd}", &["ab", "ab1", "abc"]);
        check(not_regex("ab[0-9]+"), "some ab,ab\u{fffd}", &["ab1"]);
        check(regex(".*b.*"), "Some(None)", &["ab", "ab1", "abc", "b"]);
        check(regex("a?b?"), "all but a,ab,b", &["ab1", "abc", "x"]);
    }

    fn text(values: &[&[u8]]) -> String {
        let values = values.iter().map(|value| String::from_utf8_lossy(value));
        values.collect::<Vec<_>>().join(",")
    }
}
