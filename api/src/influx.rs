//! InfluxDB's line protocol.
//!
//! ```text
//! line   = measurement *("," tag "=" value) 1*space field "=" number *("," field "=" number) [1*space time]
//! number = 1.5 / 1i / 1u / true / "a text"
//! ```
//! Each field becomes a series called `measurement_field`, or `measurement` when the field is called
//! `value`; tags become labels. Truth values are 1 and 0; texts are no numbers and are counted as
//! skipped. Names stay as they are, in UTF-8. A line that cannot be read is left out as a whole and
//! named; the others are kept, as InfluxDB does.
//!
//! Source: InfluxDB's "Line protocol reference"; the names follow Mimir and Telegraf.

use crate::{
    ApiError, WriteLimits,
    exposition::{ImportOptions, read_utf8},
    recycle,
    remote_write::WriteRequest,
};
use std::borrow::Cow;
use trefoil_model::{LABEL_NAME_METRIC, Millis};

/// Bad lines that are named; all are counted.
const BAD_LINES_NAMED_MAX: usize = 10;

/// The unit of a request's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    Nanoseconds,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Precision {
    /// As the parameter `precision` spells it in InfluxDB 1 and 2.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "n" | "ns" => Self::Nanoseconds,
            "u" | "us" => Self::Microseconds,
            "ms" => Self::Milliseconds,
            "s" => Self::Seconds,
            "m" => Self::Minutes,
            "h" => Self::Hours,
            _ => return None,
        })
    }

    /// Milliseconds of a time; `None` beyond 64 bits.
    fn millis(self, time: i64) -> Option<Millis> {
        match self {
            Self::Nanoseconds => Some(time.div_euclid(1_000_000)),
            Self::Microseconds => Some(time.div_euclid(1000)),
            Self::Milliseconds => Some(time),
            Self::Seconds => time.checked_mul(1000),
            Self::Minutes => time.checked_mul(60_000),
            Self::Hours => time.checked_mul(3_600_000),
        }
    }
}

/// Lines that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadLines {
    /// How many.
    pub count: u64,
    /// The first of them: line, column and what is wrong there.
    pub reasons: Vec<String>,
    /// Fields that were left out because they hold a text.
    pub skipped_texts: u64,
}

/// Reads lines into `out`, whose former content is lost.
///
/// # Errors
/// [`ApiError::BadLine`] when the text is not UTF-8, [`ApiError::TooLarge`] by the number of samples;
/// `out` is empty then.
pub fn import_lines(
    text: &[u8],
    precision: Precision,
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<BadLines, ApiError> {
    out.clear();
    let mut bad = BadLines::default();
    let mut cursor = Cursor {
        text: read_utf8(text)?,
        at: 0,
        line: 1,
        line_start: 0,
    };
    let mut point = Point::default();
    let mut pairs = Vec::new();
    while cursor.begin_line() {
        match cursor.point(precision, &mut point) {
            Ok(()) => {
                bad.skipped_texts += point.skipped_texts;
                let mut reused = recycle(pairs);
                let stored = point.store(&mut reused, options, limits, out);
                pairs = recycle(reused);
                if let Err(error) = stored {
                    out.clear();
                    return Err(error);
                }
            }
            Err(reason) => {
                bad.count += 1;
                if bad.reasons.len() < BAD_LINES_NAMED_MAX {
                    let error = cursor.bad_line(reason);
                    bad.reasons.push(error.to_string());
                }
                cursor.skip_line();
            }
        }
    }
    Ok(bad)
}

/// One line.
#[derive(Default)]
struct Point<'a> {
    measurement: Cow<'a, str>,
    tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    fields: Vec<(Cow<'a, str>, f64)>,
    skipped_texts: u64,
    time: Option<Millis>,
}

impl Point<'_> {
    fn store<'b>(
        &'b self,
        pairs: &mut Vec<(&'b str, &'b str)>,
        options: &'b ImportOptions,
        limits: &WriteLimits,
        out: &mut WriteRequest,
    ) -> Result<(), ApiError> {
        pairs.extend(self.tags.iter().map(|(n, v)| (n.as_ref(), v.as_ref())));
        options.add_labels(pairs);
        let time = self.time.unwrap_or(options.time);
        for (field, value) in &self.fields {
            let name = match field.as_ref() {
                "value" => Cow::Borrowed(self.measurement.as_ref()),
                field => Cow::Owned(format!("{}_{field}", self.measurement)),
            };
            let mut named = Vec::with_capacity(pairs.len() + 1);
            named.push((LABEL_NAME_METRIC, name.as_ref()));
            named.extend_from_slice(pairs);
            out.push_series(&mut named, [(time, *value)], limits)?;
        }
        Ok(())
    }
}

/// A place in the text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// From 1.
    line: usize,
    line_start: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Moves to the next line with content. `false`: there is none.
    fn begin_line(&mut self) -> bool {
        loop {
            match self.peek() {
                None => return false,
                Some(b'\n') => self.next_line(),
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'#') => self.skip_line(),
                Some(_) => return true,
            }
        }
    }

    /// Moves behind the newline that stands here.
    fn next_line(&mut self) {
        self.at += 1;
        self.line += 1;
        self.line_start = self.at;
    }

    /// Moves to the newline behind this place, or the end.
    fn skip_line(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        self.at += length.unwrap_or(rest.len());
    }

    #[cold]
    fn bad_line(&self, reason: String) -> ApiError {
        let before = self.text.get(self.line_start..self.at).unwrap_or("");
        ApiError::BadLine {
            line: self.line,
            column: before.chars().count() + 1,
            reason,
        }
    }

    #[cold]
    fn expected(&self, what: &str) -> String {
        match self.text[self.at..].chars().next() {
            Some('\n') => format!("expected {what}, found the end of the line"),
            Some(found) => format!("expected {what}, found {found:?}"),
            None => format!("expected {what}, found the end of the text"),
        }
    }

    /// Reads up to one of `ends` that no backslash stands before, or the end of the line, and takes the
    /// backslashes before `escaped` away.
    fn key(&mut self, ends: &[u8], escaped: &[char], what: &str) -> Result<Cow<'a, str>, String> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escapes = false;
        while let Some(byte) = bytes.get(self.at) {
            if *byte == b'\n' || ends.contains(byte) {
                break;
            }
            let next = bytes.get(self.at + 1).map_or(' ', |next| char::from(*next));
            if *byte == b'\\' && self.at + 1 < bytes.len() && escaped.contains(&next) {
                escapes = true;
                self.at += 1;
            }
            self.at += 1;
        }
        let key = &self.text[start..self.at];
        if key.is_empty() {
            return Err(self.expected(what));
        }
        if !escapes {
            return Ok(Cow::Borrowed(key));
        }
        let mut plain = String::with_capacity(key.len());
        let mut chars = key.chars().peekable();
        while let Some(c) = chars.next() {
            let taken = chars.next_if(|next| c == '\\' && escaped.contains(next));
            plain.push(taken.unwrap_or(c));
        }
        Ok(Cow::Owned(plain))
    }

    fn point(&mut self, precision: Precision, point: &mut Point<'a>) -> Result<(), String> {
        point.tags.clear();
        point.fields.clear();
        (point.time, point.skipped_texts) = (None, 0);
        point.measurement = self.key(b", ", &[',', ' '], "the name of a measurement")?;
        while self.take(b',') {
            let name = self.key(b"=, ", &[',', '=', ' '], "the name of a tag")?;
            if !self.take(b'=') {
                return Err(self.expected(&format!("\"=\" behind the tag {name:?}")));
            }
            let value = self.key(b"=, ", &[',', '=', ' '], "the value of a tag")?;
            if point.tags.iter().any(|(other, _)| *other == name) {
                return Err(format!("the tag {name:?} appears twice"));
            }
            point.tags.push((name, value));
        }
        self.spaces("a space before the fields")?;
        loop {
            let name = self.key(b"=, ", &[',', '=', ' '], "the name of a field")?;
            if !self.take(b'=') {
                return Err(self.expected(&format!("\"=\" behind the field {name:?}")));
            }
            match self.number()? {
                Some(number) => point.fields.push((name, number)),
                None => point.skipped_texts += 1,
            }
            if !self.take(b',') {
                break;
            }
        }
        self.time(precision, point)
    }

    fn spaces(&mut self, what: &str) -> Result<(), String> {
        if self.peek() != Some(b' ') {
            return Err(self.expected(what));
        }
        while self.take(b' ') {}
        Ok(())
    }

    /// The bytes up to a comma, a blank or the end of the line.
    fn word(&mut self) -> &'a str {
        let rest = &self.text.as_bytes()[self.at..];
        let is_end = |byte: &u8| matches!(byte, b',' | b' ' | b'\n' | b'\r');
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        let word = &self.text[self.at..self.at + length];
        self.at += length;
        word
    }

    /// A field's value; `None`: it is a text.
    fn number(&mut self) -> Result<Option<f64>, String> {
        if self.peek() == Some(b'"') {
            return self.skip_text().map(|()| None);
        }
        let start = self.at;
        let word = self.word();
        let number = match word {
            "t" | "T" | "true" | "True" | "TRUE" => Some(1.0),
            "f" | "F" | "false" | "False" | "FALSE" => Some(0.0),
            _ => match (word.strip_suffix('i'), word.strip_suffix('u')) {
                (Some(digits), _) => digits.parse::<i64>().ok().map(|number| number as f64),
                (_, Some(digits)) => digits.parse::<u64>().ok().map(|number| number as f64),
                _ => word.parse().ok().filter(|number: &f64| number.is_finite()),
            },
        };
        if number.is_none() {
            self.at = start;
            return Err(match word.is_empty() {
                true => self.expected("the value of a field"),
                false => format!("{word:?} is not the value of a field"),
            });
        }
        Ok(number)
    }

    /// Skips a text in quotation marks, which may go over several lines.
    fn skip_text(&mut self) -> Result<(), String> {
        let (start, line, line_start) = (self.at, self.line, self.line_start);
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\n') => self.next_line(),
                Some(b'\\') if self.text.as_bytes().get(self.at + 1) != Some(&b'\n') => {
                    self.at += 2;
                }
                Some(_) => self.at += 1,
                None => {
                    (self.at, self.line, self.line_start) = (start, line, line_start);
                    return Err("the quotation mark is never closed".to_owned());
                }
            }
        }
    }

    /// The time, and the end of the line.
    fn time(&mut self, precision: Precision, point: &mut Point<'a>) -> Result<(), String> {
        while self.take(b' ') {}
        if !matches!(self.peek(), None | Some(b'\n' | b'\r')) {
            let start = self.at;
            let word = self.word();
            let time = word.parse().ok().and_then(|time| precision.millis(time));
            if time.is_none() {
                self.at = start;
                return Err(format!("{word:?} is not a time"));
            }
            point.time = time;
        }
        while matches!(self.peek(), Some(b' ' | b'\r')) {
            self.at += 1;
        }
        match self.peek() {
            None | Some(b'\n') => Ok(()),
            Some(_) => Err(self.expected("the end of the line")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, precision: Precision) -> (Vec<String>, BadLines) {
        let options = ImportOptions {
            time: 42,
            ..ImportOptions::default()
        };
        let mut out = WriteRequest::default();
        let limits = WriteLimits::default();
        let bad = import_lines(text.as_bytes(), precision, &options, &limits, &mut out).unwrap();
        let series = out.series().map(|series| {
            let (time, value) = series.samples()[0];
            format!("{} {time} {value}", series.to_labels())
        });
        (series.collect(), bad)
    }

    #[test]
    fn lines_become_series() {
        let text = "cpu,host=a,zone=b\\ c usage=1.5,idle=2i,on=t,name=\"x, \\\" y\nz\" 1500000000\n\
                    # a comment\n\n  mem value=7u\r\ndisk\\,x,a\\=b=c\\d free=-1 -1";
        let (series, bad) = read(text, Precision::default());
        let expected = [
            "cpu_usage{host=\"a\", zone=\"b c\"} 1500 1.5",
            "cpu_idle{host=\"a\", zone=\"b c\"} 1500 2",
            "cpu_on{host=\"a\", zone=\"b c\"} 1500 1",
            "mem 42 7",
            "disk,x_free{a=b=\"c\\\\d\"} -1 -1",
        ];
        assert_eq!(series, expected);
        assert_eq!((bad.count, bad.skipped_texts), (0, 1));
    }

    #[test]
    fn precisions() {
        for (name, expected) in [
            ("ns", 3_i64),
            ("us", 3_600),
            ("ms", 3_600_000),
            ("s", 3_600_000_000),
            ("m", 216_000_000_000),
            ("h", 12_960_000_000_000),
        ] {
            let precision = Precision::from_name(name).unwrap();
            let (series, _) = read("a value=1 3600000", precision);
            assert_eq!(series, [format!("a {expected} 1")], "{name}");
        }
        assert_eq!(Precision::from_name("d"), None);
    }

    #[test]
    fn bad_lines_are_named_and_the_others_kept() {
        let check = |line: &str, expected: &str| {
            let (series, bad) = read(&format!("a x=1\n{line}\nb x=2"), Precision::Seconds);
            assert_eq!(series, ["a_x 42 1", "b_x 42 2"], "{line}");
            assert_eq!(bad.reasons, [format!("line 2, column {expected}")]);
            assert_eq!(bad.count, 1);
        };
        check(
            "cpu",
            "4: expected a space before the fields, found the end of the line",
        );
        check(
            "cpu ",
            "5: expected the name of a field, found the end of the line",
        );
        check(
            ",a=b x=1",
            "1: expected the name of a measurement, found ','",
        );
        check(
            "cpu,a x=1",
            "6: expected \"=\" behind the tag \"a\", found ' '",
        );
        check("cpu,a= x=1", "7: expected the value of a tag, found ' '");
        check("cpu,a=1,a=2 x=1", "12: the tag \"a\" appears twice");
        check("cpu x=nan", "7: \"nan\" is not the value of a field");
        check("cpu x=1.5i", "7: \"1.5i\" is not the value of a field");
        check(
            "cpu x=",
            "7: expected the value of a field, found the end of the line",
        );
        check("cpu x=1 y", "9: \"y\" is not a time");
        check(
            "cpu x=1 9223372036854775807",
            "9: \"9223372036854775807\" is not a time",
        );
        check("cpu x=1 1 2", "11: expected the end of the line, found '2'");
        let (series, bad) = read("a x=\"open\nb x=2", Precision::Seconds);
        assert_eq!((series, bad.count), (vec!["b_x 42 2".to_owned()], 1));
    }
}
