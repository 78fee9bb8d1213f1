//! One line of an exposition: its words, names, labels and numbers, without a copy where the text needs
//! none.
//!
//! ```text
//! sample  = [name] ["{" [label *("," label)] "}"] gap value [gap timestamp] [gap "#" gap exemplar]
//! label   = name "=" quoted / quoted "=" quoted / quoted        (the last one: the metric's own name)
//! gap     = OpenMetrics: exactly one space; text: any number of spaces and tabs
//! ```

use super::{Dialect, Exemplar, Place, SampleLine};
use std::borrow::Cow;
use trefoil_model::Millis;

/// The latest time in milliseconds that is told apart; what is written beyond it becomes this.
pub(super) const MILLIS_MAX: f64 = 9e15;
/// Names and values of labels.
pub(super) type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// What is wrong, and at which byte of the line.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) reason: String,
}

/// A place in a line.
pub(super) struct Cursor<'a> {
    line: &'a str,
    at: usize,
    dialect: Dialect,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a str, dialect: Dialect) -> Self {
        Self {
            line,
            at: 0,
            dialect,
        }
    }

    /// An error here.
    #[cold]
    fn wrong(&self, reason: impl Into<String>) -> Wrong {
        Wrong {
            at: self.at,
            reason: reason.into(),
        }
    }

    /// The error for what stands here instead of what was expected.
    #[cold]
    fn expected(&self, what: &str) -> Wrong {
        match self.line[self.at..].chars().next() {
            Some(found) => self.wrong(format!("expected {what}, found {found:?}")),
            None => self.wrong(format!("expected {what}, found the end of the line")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn is_strict(&self) -> bool {
        self.dialect == Dialect::OpenMetrics
    }

    /// Skips blanks where the format allows any.
    fn blanks(&mut self) {
        if !self.is_strict() {
            while matches!(self.peek(), Some(b' ' | b'\t')) {
                self.at += 1;
            }
        }
    }

    /// Takes what separates two words. In the text format nothing needs to stand behind a brace.
    fn gap(&mut self) -> Result<(), Wrong> {
        if self.is_strict() {
            return if self.take(b' ') {
                Ok(())
            } else {
                Err(self.expected("a space"))
            };
        }
        let before = self.at;
        self.blanks();
        let follows_brace = before > 0 && self.line.as_bytes()[before - 1] == b'}';
        if self.at == before && !follows_brace {
            return Err(self.expected("a space"));
        }
        Ok(())
    }

    /// The bytes up to the next blank or the end.
    fn word(&mut self) -> &'a str {
        let rest = &self.line.as_bytes()[self.at..];
        let is_end = |byte: &u8| matches!(byte, b' ' | b'\t');
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        let word = &self.line[self.at..self.at + length];
        self.at += length;
        word
    }

    /// Reads a name without quotation marks; empty when none stands here.
    fn bare_name(&mut self, with_colon: bool) -> &'a str {
        let rest = &self.line.as_bytes()[self.at..];
        let fits = |(index, byte): (usize, &u8)| {
            byte.is_ascii_alphabetic()
                || *byte == b'_'
                || (*byte == b':' && with_colon)
                || (index > 0 && byte.is_ascii_digit())
        };
        let length = rest.iter().enumerate().take_while(|p| fits(*p)).count();
        let name = &self.line[self.at..self.at + length];
        self.at += length;
        name
    }

    /// Reads a text in quotation marks without its escapes.
    fn quoted(&mut self) -> Result<Cow<'a, str>, Wrong> {
        let open = self.at;
        if !self.take(b'"') {
            return Err(self.expected("a quotation mark"));
        }
        let bytes = self.line.as_bytes();
        let mut escapes = false;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
                None => {
                    self.at = open;
                    return Err(self.wrong("the quotation mark is never closed"));
                }
            }
        }
        let text = &self.line[open + 1..self.at];
        self.at += 1;
        Ok(if escapes {
            Cow::Owned(unescape(text, true))
        } else {
            Cow::Borrowed(text)
        })
    }

    /// Reads `{...}` into `pairs`. A quoted name on its own is returned: it is the metric's, and is
    /// taken only when `may_name` and in the first place.
    fn labels(
        &mut self,
        pairs: &mut Pairs<'a>,
        may_name: bool,
    ) -> Result<Option<Cow<'a, str>>, Wrong> {
        let mut metric = None;
        let mut is_first = true;
        loop {
            self.blanks();
            let may_end =
                is_first || !self.is_strict() || self.line.as_bytes()[self.at - 1] != b',';
            if may_end && self.take(b'}') {
                return Ok(metric);
            }
            let start = self.at;
            let is_quoted = self.peek() == Some(b'"');
            let name = match is_quoted {
                true => self.quoted()?,
                false => Cow::Borrowed(self.bare_name(false)),
            };
            if name.is_empty() {
                self.at = start;
                return Err(self.expected("the name of a label"));
            }
            self.blanks();
            if is_quoted && is_first && may_name && matches!(self.peek(), Some(b',' | b'}')) {
                metric = Some(name);
            } else {
                if !self.take(b'=') {
                    return Err(self.expected(&format!("\"=\" behind the label {name:?}")));
                }
                self.blanks();
                let value = self.quoted()?;
                if pairs.iter().any(|(other, _)| *other == name) {
                    self.at = start;
                    return Err(self.wrong(format!("the label {name:?} appears twice")));
                }
                pairs.push((name, value));
            }
            is_first = false;
            self.blanks();
            if !self.take(b',') && self.peek() != Some(b'}') {
                return Err(self.expected("\",\" or \"}\""));
            }
        }
    }

    fn value(&mut self) -> Result<f64, Wrong> {
        let start = self.at;
        let word = self.word();
        if word.is_empty() {
            return Err(self.expected("a value"));
        }
        // Rust reads what the formats allow, and a signed NaN, which OpenMetrics does not.
        let unsigned = word.get(1..).unwrap_or("");
        let is_odd = self.is_strict() && unsigned.eq_ignore_ascii_case("nan");
        match word.parse() {
            Ok(value) if !is_odd => Ok(value),
            _ => Err(Wrong {
                at: start,
                reason: format!("{word:?} is not a number"),
            }),
        }
    }

    /// Reads a timestamp: milliseconds in the text format, seconds with a fraction in OpenMetrics.
    /// Returns milliseconds and the number as written.
    fn timestamp(&mut self) -> Result<(Millis, f64), Wrong> {
        let start = self.at;
        let word = self.word();
        let wrong = |reason: &str| Wrong {
            at: start,
            reason: format!("{word:?} is not a timestamp{reason}"),
        };
        if !self.is_strict() {
            let millis: Millis = word.parse().map_err(|_| wrong(" in whole milliseconds"))?;
            return Ok((millis, millis as f64));
        }
        let seconds: f64 = word.parse().map_err(|_| wrong(" in seconds"))?;
        if !seconds.is_finite() {
            return Err(wrong(" in seconds"));
        }
        let millis = (seconds * 1000.0).round().clamp(-MILLIS_MAX, MILLIS_MAX);
        Ok((millis as Millis, seconds))
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.line.len()
    }

    /// Reads the exemplar behind its `#`.
    fn exemplar(&mut self) -> Result<Exemplar<'a>, Wrong> {
        self.gap()?;
        let labels_at = self.at;
        if !self.take(b'{') {
            return Err(self.expected("the labels of an exemplar"));
        }
        let mut labels = Vec::new();
        self.labels(&mut labels, false)?;
        self.gap()?;
        let value = self.value()?;
        let mut time = None;
        if !self.is_at_end() {
            self.gap()?;
            time = Some(self.timestamp()?.0);
        }
        Ok(Exemplar {
            labels,
            value,
            time,
            labels_at,
        })
    }

    /// Reads a sample's line into `out`, whose former content is lost.
    pub(super) fn sample(mut self, out: &mut SampleLine<'a>) -> Result<(), Wrong> {
        out.labels.clear();
        (out.time, out.seconds, out.exemplar) = (None, None, None);
        out.place = Place::default();
        self.blanks();
        out.metric = Cow::Borrowed(self.bare_name(true));
        if !out.metric.is_empty() {
            self.blanks();
        }
        if self.take(b'{') {
            let may_name = out.metric.is_empty();
            if let Some(name) = self.labels(&mut out.labels, may_name)? {
                out.metric = name;
            }
        }
        if out.metric.is_empty() {
            return Err(self.expected("the name of a metric"));
        }
        // The blanks behind a name were skipped already.
        let skipped = self.at > 0 && matches!(self.line.as_bytes()[self.at - 1], b' ' | b'\t');
        if !skipped {
            self.gap()?;
        }
        out.value_at = self.at;
        out.value = self.value()?;
        if self.is_at_end() {
            return Ok(());
        }
        self.gap()?;
        if self.is_at_end() && !self.is_strict() {
            return Ok(());
        }
        if self.peek() != Some(b'#') {
            let (time, seconds) = self.timestamp()?;
            (out.time, out.seconds) = (Some(time), Some(seconds));
            if self.is_at_end() {
                return Ok(());
            }
            self.gap()?;
        }
        if self.is_strict() && self.take(b'#') {
            out.exemplar = Some(self.exemplar()?);
        }
        if self.is_at_end() {
            return Ok(());
        }
        Err(self.expected("the end of the line"))
    }

    /// Reads the name of a family and the space behind it, in a line of metadata.
    pub(super) fn family(&mut self, at: usize) -> Result<Cow<'a, str>, Wrong> {
        self.at = at;
        self.blanks();
        let name = match self.peek() {
            Some(b'"') => self.quoted()?,
            _ => Cow::Borrowed(self.bare_name(true)),
        };
        if name.is_empty() {
            return Err(self.expected("the name of a metric"));
        }
        Ok(name)
    }

    /// What stands behind the name of a family. In OpenMetrics one space must stand between.
    pub(super) fn rest(&mut self) -> Result<(&'a str, usize), Wrong> {
        if self.is_strict() || !self.is_at_end() {
            self.gap()?;
        }
        let rest = &self.line[self.at..];
        Ok((
            if self.is_strict() {
                rest
            } else {
                rest.trim_end()
            },
            self.at,
        ))
    }
}

/// Undoes `\\`, `\n` and, in quotation marks, `\"`; other escapes stay as they are.
pub(super) fn unescape(text: &str, in_quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = behind.chars();
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') if in_quotes => out.push('"'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}
