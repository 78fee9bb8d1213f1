//! What a regular expression asks of a whole text, as far as it can be said without one: a list of texts, or literals with
//! gaps between them. Dashboards ask little else, and an index answers both much faster.

use memchr::memmem::Finder;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::{Extractor, Seq};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Texts that a pattern is unfolded to; one that stands for more stays a pattern.
const TEXTS_MAX: usize = 250;

/// Characters that do not stand for themselves.
const SYNTAX: &[char] = &[
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

/// What a pattern means for a whole text.
#[derive(Debug)]
pub(super) enum Meaning {
    /// One of these texts, in no order.
    Texts(Vec<Vec<u8>>),
    Gapped(Gapped),
    /// Only a regular expression tells; what every match starts with.
    Other {
        prefix: Vec<u8>,
    },
}

/// Literals with gaps of any characters between them, like `a.*b.+`: at least one gap.
#[derive(Clone, Debug)]
pub(super) struct Gapped {
    first: Vec<u8>,
    /// Each literal with the least number of characters in front of it.
    middle: Vec<(usize, Finder<'static>)>,
    /// The least number of characters in front of the last literal.
    gap: usize,
    last: Vec<u8>,
}

impl Gapped {
    /// What every match starts with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.first
    }

    /// Whether every text that is not empty matches.
    pub(super) fn is_any_text(&self) -> bool {
        let no_literal = self.first.is_empty() && self.last.is_empty() && self.middle.is_empty();
        no_literal && self.gap <= 1
    }

    /// Whether a text, which is UTF-8, matches. A literal is taken where it comes first: what is left for those
    /// behind it is never longer anywhere else.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(&self.first[..]) else {
            return false;
        };
        let rest = self.middle.iter().try_fold(rest, |rest, (gap, literal)| {
            let rest = behind(rest, *gap)?;
            let at = literal.find(rest)?;
            Some(&rest[at + literal.needle().len()..])
        });
        rest.and_then(|rest| behind(rest, self.gap))
            .is_some_and(|rest| rest.ends_with(&self.last))
    }
}

/// The text behind its first characters, if there are so many.
fn behind(text: &[u8], characters: usize) -> Option<&[u8]> {
    if characters == 0 {
        return Some(text);
    }
    let is_first = |byte: &u8| byte & 0xc0 != 0x80;
    let mut starts = (0..text.len()).filter(|at| is_first(&text[*at]));
    match starts.nth(characters) {
        Some(at) => Some(&text[at..]),
        None => (text.iter().filter(|byte| is_first(byte)).count() == characters)
            .then_some(&text[text.len()..]),
    }
}

/// What a pattern means, dots matching line feeds.
///
/// # Errors
/// When it is malformed by itself, even if the brackets that are put around it to compile it make something of it.
pub(super) fn meaning(pattern: &str) -> Result<Meaning, Box<regex_syntax::Error>> {
    if let Some(texts) = plain_alternatives(pattern) {
        return Ok(Meaning::Texts(texts));
    }
    let mut parser = ParserBuilder::new();
    let parsed = parser
        .utf8(false)
        .dot_matches_new_line(true)
        .build()
        .parse(pattern);
    let hir = parsed.map_err(Box::new)?;
    let mut parts = Vec::new();
    flatten(&hir, &mut parts);
    let is_anchor = |part: &&Hir, look| matches!(part.kind(), HirKind::Look(one) if *one == look);
    // The whole text is matched, with or without anchors around the pattern.
    let start = parts
        .iter()
        .take_while(|part| is_anchor(part, Look::Start))
        .count();
    let parts = &parts[start..];
    let end = parts
        .iter()
        .rev()
        .take_while(|part| is_anchor(part, Look::End))
        .count();
    let parts = &parts[..parts.len() - end];
    let sequence = texts(parts);
    let has_looks = parts
        .iter()
        .any(|part| !part.properties().look_set().is_empty());
    if !has_looks
        && sequence.is_exact()
        && let Some(literals) = sequence.literals()
    {
        let texts = literals.iter().map(|one| one.as_bytes().to_vec());
        return Ok(Meaning::Texts(texts.collect()));
    }
    if let Some(gapped) = gapped(parts) {
        return Ok(Meaning::Gapped(gapped));
    }
    let prefix = sequence.longest_common_prefix();
    Ok(Meaning::Other {
        prefix: prefix.unwrap_or_default().to_vec(),
    })
}

/// The alternatives of a pattern like `a|b|c` that has no other syntax in it; there may be thousands.
fn plain_alternatives(pattern: &str) -> Option<Vec<Vec<u8>>> {
    let plain = |text: &str| !text.contains(SYNTAX);
    pattern
        .split('|')
        .map(|text| plain(text).then(|| text.as_bytes().to_vec()))
        .collect()
}

/// The parts of a pattern one behind the other, without groups around them.
fn flatten<'a>(hir: &'a Hir, parts: &mut Vec<&'a Hir>) {
    match hir.kind() {
        HirKind::Concat(several) => several.iter().for_each(|one| flatten(one, parts)),
        HirKind::Capture(group) => flatten(&group.sub, parts),
        HirKind::Empty => {}
        _ => parts.push(hir),
    }
}

/// What the parts together begin with; exact when that is all.
fn texts(parts: &[&Hir]) -> Seq {
    let mut extractor = Extractor::new();
    extractor.limit_total(TEXTS_MAX).limit_class(TEXTS_MAX);
    let whole = Hir::concat(parts.iter().map(|part| (*part).clone()).collect());
    extractor.extract(&whole)
}

fn gapped(parts: &[&Hir]) -> Option<Gapped> {
    // Literals by turns with the gaps between them; the last one is open.
    let mut literals = vec![Vec::new()];
    let mut gaps: Vec<Gap> = Vec::new();
    for part in parts {
        if let HirKind::Literal(literal) = part.kind() {
            std::str::from_utf8(&literal.0).ok()?;
            literals.last_mut()?.extend_from_slice(&literal.0);
            continue;
        }
        let more = gap(part)?;
        match gaps.last_mut() {
            Some(gap) if literals.last().is_some_and(Vec::is_empty) => {
                gap.least = gap.least.checked_add(more.least)?;
                gap.is_open |= more.is_open;
            }
            _ => {
                gaps.push(more);
                literals.push(Vec::new());
            }
        }
    }
    if gaps.is_empty() || !gaps.iter().all(|gap| gap.is_open) {
        return None;
    }
    let last = literals.pop()?;
    let gap = gaps.pop()?.least;
    let mut literals = literals.into_iter();
    let first = literals.next()?;
    let middle = gaps.iter().zip(literals);
    let middle = middle.map(|(gap, literal)| (gap.least, Finder::new(&literal).into_owned()));
    Some(Gapped {
        first,
        middle: middle.collect(),
        gap,
        last,
    })
}

/// A stretch of any characters.
struct Gap {
    least: usize,
    /// Whether there may be more of them, as many as there are.
    is_open: bool,
}

fn gap(part: &Hir) -> Option<Gap> {
    if is_any_character(part) {
        return Some(Gap {
            least: 1,
            is_open: false,
        });
    }
    let HirKind::Repetition(repetition) = part.kind() else {
        return None;
    };
    if repetition.max.is_some() || !is_any_character(&repetition.sub) {
        return None;
    }
    Some(Gap {
        least: repetition.min as usize,
        is_open: true,
    })
}

fn is_any_character(part: &Hir) -> bool {
    let HirKind::Class(Class::Unicode(class)) = part.kind() else {
        return false;
    };
    matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn meanings() {
        let check = |pattern: &str, expected: &str| {
            let found = match meaning(pattern).expect("sound") {
                Meaning::Texts(mut texts) => {
                    texts.sort_unstable();
                    let texts = texts.iter().map(|text| String::from_utf8_lossy(text));
                    format!("texts {}", texts.collect::<Vec<_>>().join(","))
                }
                Meaning::Gapped(gapped) => {
                    let mut text = String::from_utf8_lossy(&gapped.first).into_owned();
                    for (gap, literal) in &gapped.middle {
                        text += &format!(" {gap} {}", String::from_utf8_lossy(literal.needle()));
                    }
                    let last = String::from_utf8_lossy(&gapped.last);
                    format!("gapped {text} {} {last}", gapped.gap)
                }
                Meaning::Other { prefix } => {
                    format!("other {}", String::from_utf8_lossy(&prefix))
                }
            };
            assert_eq!(found.trim_end(), expected.trim_end(), "{pattern}");
        };
        check("a|b|c", "texts a,b,c");
        check("^(?:foo|bar)$", "texts bar,foo");
        check("foo(bar|baz)?", "texts foo,foobar,foobaz");
        check("(?i)ab", "texts AB,Ab,aB,ab");
        check("v[12]", "texts v1,v2");
        check("a\\.b", "texts a.b");
        check("", "texts");
        check(".*", "gapped  0");
        check("^.+$", "gapped  1");
        check("(.*)", "gapped  0");
        check("..*", "gapped  1");
        check("1.+", "gapped 1 1");
        check(".*x.*", "gapped  0 x 0");
        check("a.*b.+c", "gapped a 0 b 1 c");
        check("[\\s\\S]*é", "gapped  0 é");
        check("abc?.*", "other ab");
        check("node-(1|2).*", "other node-");
        check("a.b", "other a");
        check("a\\b.*", "other a");
        check("a^b", "other ab");
        check("(?-u:\\xa9).*", "other \u{fffd}");
        check("[0-9]+", "other");
    }

    /// Whatever is found without a regular expression is what the expression says.
    #[test]
    fn meanings_are_those_of_the_expression() {
        let mut random = StdRng::seed_from_u64(3);
        let pieces = [
            "a", "b", "é", ".*", ".+", ".", "(a|b)", "a?", "[ab]", "^", "$", "\\n",
        ];
        let letters = ["a", "b", "é", "\n"];
        let mut seen = [0; 3];
        for _ in 0..3_000 {
            let pattern: String = (0..random.random_range(0..6))
                .map(|_| pieces[random.random_range(0..pieces.len())])
                .collect();
            let regex = regex::bytes::Regex::new(&format!("^(?s:{pattern})$")).expect("sound");
            let meaning = meaning(&pattern).expect("sound");
            for _ in 0..30 {
                let text: String = (0..random.random_range(0..7))
                    .map(|_| letters[random.random_range(0..letters.len())])
                    .collect();
                let expected = regex.is_match(text.as_bytes());
                let (kind, found) = match &meaning {
                    Meaning::Texts(texts) => (0, texts.iter().any(|t| t == text.as_bytes())),
                    Meaning::Gapped(gapped) => (1, gapped.matches(text.as_bytes())),
                    Meaning::Other { prefix } => {
                        let starts = text.as_bytes().starts_with(prefix);
                        (2, expected && starts)
                    }
                };
                seen[kind] += 1;
                assert_eq!(found, expected, "{pattern:?} {text:?}");
            }
        }
        assert!(seen.iter().all(|seen| *seen > 3_000), "{seen:?}");
    }
}
