//! Reading what a `/metrics` address says: Prometheus' text format (0.0.4, and 1.0.0 with names in
//! quotation marks), OpenMetrics 1.0, and delimited `io.prometheus.client.MetricFamily`.
//!
//! ```text
//! # HELP name text                           # TYPE name counter       # UNIT name unit
//! name{label="value",...} value [timestamp]  {"utf-8.name",label="value"} value
//! OpenMetrics: timestamps in seconds, exemplars (name value # {labels} value [timestamp]), at the end # EOF
//! ```
//! [`Parser`] goes through a text line by line and lends out what it finds; it copies only texts with
//! escapes. OpenMetrics is read strictly, as its specification demands. The text format is read as
//! Prometheus reads it: blanks are free, other comments are skipped, a family's lines may stand anywhere.
//!
//! An error names line and column and ends the reading.

mod family;
mod import;
mod line;
mod protobuf;

use crate::{
    ApiError, MetricMetadata,
    remote_write::{EXEMPLAR_CHARACTERS_MAX, MetricKind},
};
use family::Families;
pub use import::{ImportOptions, import_protobuf, import_text};
use line::{Cursor, Pairs, Wrong, unescape};
use std::{borrow::Cow, collections::BTreeMap};
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder, Millis};

/// How strictly a text is read, and in which unit its timestamps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Prometheus' text format; timestamps in milliseconds.
    Text,
    /// OpenMetrics 1.0; timestamps in seconds.
    OpenMetrics,
}

/// What one line says.
#[derive(Debug)]
pub enum Entry<'p, 'a> {
    /// What a family is declared as.
    Declaration {
        /// The family's name.
        family: Cow<'a, str>,
        /// The one thing that the line says about it.
        fact: Fact<'a>,
    },
    /// A sample; valid until the next line is read.
    Sample(&'p SampleLine<'a>),
}

/// One thing about a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    /// One sentence for people.
    Help(Cow<'a, str>),
    /// Its type.
    Kind(MetricKind),
    /// Its base unit.
    Unit(&'a str),
}

/// A line with a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleLine<'a> {
    /// The metric's name as written, suffix included; not empty.
    pub metric: Cow<'a, str>,
    /// The other labels in the order of the line; names are unique.
    pub labels: Pairs<'a>,
    /// The value.
    pub value: f64,
    /// The time in milliseconds, where the line says one. Times beyond 9e15 become that.
    pub time: Option<Millis>,
    /// The exemplar, where the line has one.
    pub exemplar: Option<Exemplar<'a>>,
    /// Where the line stands in its family; of OpenMetrics only.
    pub place: Place,
    /// The time as written.
    seconds: Option<f64>,
    /// Byte of the line at which the value stands.
    value_at: usize,
}

/// Where a line stands in its family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Whether it begins another point: other labels (but those of buckets and quantiles) or another time than the line before.
    pub begins_point: bool,
    /// Whether the value is no sample, but says when the counters of the point began, in seconds (`_created`).
    pub is_created: bool,
}

/// An example of what a sample counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// Its labels, such as a trace's id; at most 128 characters in all.
    pub labels: Pairs<'a>,
    /// The value.
    pub value: f64,
    /// The time in milliseconds, where the line says one.
    pub time: Option<Millis>,
    /// Byte of the line at which the labels stand.
    labels_at: usize,
}

/// Goes through a text.
pub struct Parser<'a> {
    rest: &'a str,
    line: usize,
    dialect: Dialect,
    is_ended: bool,
    sample: SampleLine<'a>,
    families: Families,
}

impl<'a> Parser<'a> {
    /// Begins to read.
    ///
    /// # Errors
    /// [`ApiError::BadLine`] when the text is not UTF-8.
    pub fn new(text: &'a [u8], dialect: Dialect) -> Result<Self, ApiError> {
        let rest = std::str::from_utf8(text).map_err(|error| {
            let good = &text[..error.valid_up_to()];
            let line_start = good
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            ApiError::BadLine {
                line: good.iter().filter(|b| **b == b'\n').count() + 1,
                column: String::from_utf8_lossy(&good[line_start..]).chars().count() + 1,
                reason: "not valid UTF-8".to_owned(),
            }
        })?;
        Ok(Self {
            rest,
            line: 0,
            dialect,
            is_ended: false,
            sample: SampleLine::default(),
            families: Families::default(),
        })
    }

    /// The next thing that the text says; `None` at its end.
    ///
    /// # Errors
    /// [`ApiError::BadLine`]; the rest cannot be read then.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_, 'a>>, ApiError> {
        loop {
            let Some(line) = self.next_line() else {
                return self.end().map(|()| None);
            };
            let wrong = |wrong: Wrong| bad_line(self.line, line, &wrong);
            if self.is_ended {
                return Err(wrong(Wrong {
                    at: 0,
                    reason: "a line behind \"# EOF\"".to_owned(),
                }));
            }
            let is_strict = self.dialect == Dialect::OpenMetrics;
            let first = match is_strict {
                true => line,
                false => line.trim_start_matches([' ', '\t']),
            };
            if first.is_empty() {
                if is_strict {
                    return Err(wrong(Wrong {
                        at: 0,
                        reason: "a blank line".to_owned(),
                    }));
                }
            } else if first.starts_with('#') {
                if is_strict && line == "# EOF" {
                    self.is_ended = true;
                    continue;
                }
                let declared = read_declaration(line, self.dialect, &mut self.families);
                if let Some((family, fact)) = declared.map_err(wrong)? {
                    return Ok(Some(Entry::Declaration { family, fact }));
                }
            } else {
                let read = Cursor::new(line, self.dialect).sample(&mut self.sample);
                read.map_err(wrong)?;
                if is_strict {
                    let checked = check_length(self.sample.exemplar.as_ref());
                    let placed = checked.and_then(|()| self.families.sample(&self.sample));
                    self.sample.place = placed.map_err(|w| bad_line(self.line, line, &w))?;
                }
                return Ok(Some(Entry::Sample(&self.sample)));
            }
        }
    }

    fn next_line(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        match self.dialect {
            Dialect::Text => Some(line.strip_suffix('\r').unwrap_or(line)),
            Dialect::OpenMetrics => Some(line),
        }
    }

    /// What can only be judged at the end.
    fn end(&mut self) -> Result<(), ApiError> {
        if self.dialect == Dialect::Text {
            return Ok(());
        }
        let line = self.line + 1;
        let finished = self.families.finish();
        finished.map_err(|wrong| bad_line(self.line, "", &wrong))?;
        match self.is_ended {
            true => Ok(()),
            false => Err(ApiError::BadLine {
                line,
                column: 1,
                reason: "expected \"# EOF\", found the end of the text".to_owned(),
            }),
        }
    }
}

/// A text as UTF-8.
///
/// # Errors
/// [`ApiError::BadLine`] that names the first place where it is not.
pub(crate) fn read_utf8(text: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(text).map_err(|error| {
        let good = String::from_utf8_lossy(&text[..error.valid_up_to()]);
        let (before, line) = good.rsplit_once('\n').unwrap_or(("", &good));
        let has_before = good.len() > line.len();
        ApiError::BadLine {
            line: before.matches('\n').count() + 1 + usize::from(has_before),
            column: line.chars().count() + 1,
            reason: "not valid UTF-8".to_owned(),
        }
    })
}

/// Refuses an exemplar with labels that are longer than OpenMetrics allows.
fn check_length(exemplar: Option<&Exemplar<'_>>) -> Result<(), Wrong> {
    let Some(exemplar) = exemplar else {
        return Ok(());
    };
    let characters = |text: &str| text.chars().count();
    let labels = exemplar.labels.iter();
    let length: usize = labels.map(|(n, v)| characters(n) + characters(v)).sum();
    match length > EXEMPLAR_CHARACTERS_MAX {
        true => Err(Wrong {
            at: exemplar.labels_at,
            reason: format!(
                "the labels of the exemplar have {length} characters, more than {EXEMPLAR_CHARACTERS_MAX}"
            ),
        }),
        false => Ok(()),
    }
}

#[cold]
fn bad_line(number: usize, line: &str, wrong: &Wrong) -> ApiError {
    let before = line.get(..wrong.at).unwrap_or(line);
    ApiError::BadLine {
        line: number,
        column: before.chars().count() + 1,
        reason: wrong.reason.clone(),
    }
}

/// Reads a line that begins with `#`. `None`: a comment.
fn read_declaration<'a>(
    line: &'a str,
    dialect: Dialect,
    families: &mut Families,
) -> Result<Option<(Cow<'a, str>, Fact<'a>)>, Wrong> {
    let is_strict = dialect == Dialect::OpenMetrics;
    let mut keyword_at = line.find('#').map_or(0, |at| at + 1);
    let blanks: &[char] = if is_strict { &[' '] } else { &[' ', '\t'] };
    if is_strict && line[keyword_at..].starts_with(' ') {
        keyword_at += 1;
    } else if !is_strict {
        keyword_at = line.len() - line[keyword_at..].trim_start_matches(blanks).len();
    }
    let keywords = ["HELP", "TYPE", "UNIT"];
    let stands_here = |word: &&str| {
        let rest = line[keyword_at..].strip_prefix(*word);
        rest.is_some_and(|rest| rest.starts_with(blanks)) && (!is_strict || keyword_at == 2)
    };
    let keyword = keywords.into_iter().find(stands_here);
    let Some(keyword) = keyword else {
        let is_lone = keywords.contains(&line[keyword_at..].trim_end());
        let reason = match is_lone {
            true => "a line of metadata without the name of a metric",
            false => "expected HELP, TYPE, UNIT or EOF: OpenMetrics has no other comments",
        };
        return match is_strict || is_lone {
            true => Err(Wrong {
                at: keyword_at.min(line.len()),
                reason: reason.to_owned(),
            }),
            false => Ok(None),
        };
    };
    let mut cursor = Cursor::new(line, dialect);
    let family = cursor.family(keyword_at + keyword.len() + usize::from(is_strict))?;
    let (rest, rest_at) = cursor.rest()?;
    let fact = match keyword {
        "HELP" if rest.contains('\\') => Fact::Help(Cow::Owned(unescape(rest, is_strict))),
        "HELP" => Fact::Help(Cow::Borrowed(rest)),
        "UNIT" => Fact::Unit(rest),
        _ => Fact::Kind(read_kind(rest, is_strict).ok_or_else(|| Wrong {
            at: rest_at,
            reason: format!("{rest:?} is not a type of metric"),
        })?),
    };
    if is_strict {
        match &fact {
            Fact::Help(_) => families.help(&family),
            Fact::Kind(kind) => families.kind(&family, *kind),
            Fact::Unit(unit) => families.unit(&family, unit),
        }?;
    }
    Ok(Some((family, fact)))
}

fn read_kind(text: &str, is_strict: bool) -> Option<MetricKind> {
    if text == "untyped" && !is_strict {
        return Some(MetricKind::Unknown);
    }
    let mut kinds = MetricKind::ALL.into_iter();
    kinds.find(|kind| kind.as_str() == text)
}

/// One line's sample, owned.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The labels, the metric's name among them.
    pub labels: Labels,
    /// The value.
    pub value: f64,
    /// The time, where the line says one.
    pub timestamp: Option<Millis>,
}

/// What a text says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    /// The samples, in the order of their lines.
    pub samples: Vec<Sample>,
    /// What the families are declared as, ascending by name.
    pub metadata: Vec<MetricMetadata>,
}

impl IntoIterator for Exposition {
    type Item = Sample;
    type IntoIter = std::vec::IntoIter<Sample>;
    fn into_iter(self) -> Self::IntoIter {
        self.samples.into_iter()
    }
}

/// Reads a whole text: OpenMetrics when it ends with `# EOF`, else Prometheus' text format.
///
/// # Errors
/// [`ApiError::BadLine`] that names line, column and what was expected there.
pub fn parse(text: &str) -> Result<Exposition, ApiError> {
    let dialect = match text.trim_end().ends_with("# EOF") {
        true => Dialect::OpenMetrics,
        false => Dialect::Text,
    };
    let mut families: BTreeMap<String, MetricMetadata> = BTreeMap::new();
    let mut samples = Vec::new();
    let mut parser = Parser::new(text.as_bytes(), dialect)?;
    while let Some(entry) = parser.next_entry()? {
        match entry {
            Entry::Declaration { family, fact } => {
                let name = family.into_owned();
                let declared = families
                    .entry(name.clone())
                    .or_insert_with(|| MetricMetadata {
                        metric: name,
                        ..MetricMetadata::default()
                    });
                match fact {
                    Fact::Help(help) => declared.help = help.into_owned(),
                    Fact::Kind(kind) => declared.kind = kind,
                    Fact::Unit(unit) => declared.unit = unit.to_owned(),
                }
            }
            Entry::Sample(line) => {
                let mut builder = LabelsBuilder::new();
                builder.set(LABEL_NAME_METRIC, &line.metric);
                for (name, value) in &line.labels {
                    builder.set(name, value);
                }
                samples.push(Sample {
                    labels: builder.build(),
                    value: line.value,
                    timestamp: line.time,
                });
            }
        }
    }
    Ok(Exposition {
        samples,
        metadata: families.into_values().collect(),
    })
}

#[cfg(test)]
mod tests;
