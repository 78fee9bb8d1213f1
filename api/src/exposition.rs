//! Reading what a `/metrics` address says: Prometheus' text format 0.0.4 and the basics of OpenMetrics
//! 1.0 (`# EOF`, `# UNIT`, timestamps in seconds, exemplars, which are skipped).
//!
//! ```text
//! # HELP name text                           # TYPE name counter
//! name{label="value",...} value [timestamp]  {"utf-8.name",label="value"} value
//! ```
//! Timestamps are milliseconds, or seconds with a fraction when the text ends with `# EOF`.

use crate::{ApiError, MetricMetadata, remote_write::MetricKind};
use std::collections::BTreeMap;
use trefoil_model::{LABEL_NAME_METRIC, Labels, LabelsBuilder, Millis};

/// One line's sample.
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

/// Reads a whole text.
///
/// # Errors
/// [`ApiError::BadData`] that names the line and what was expected there.
pub fn parse(text: &str) -> Result<Exposition, ApiError> {
    let is_open_metrics = text.trim_end().ends_with("# EOF");
    let mut families: BTreeMap<&str, MetricMetadata> = BTreeMap::new();
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let outcome = if line.is_empty() {
            Ok(())
        } else if let Some(comment) = line.strip_prefix('#') {
            read_comment(comment, &mut families)
        } else {
            read_sample(line, is_open_metrics).map(|sample| samples.push(sample))
        };
        outcome.map_err(|reason| ApiError::BadData(format!("line {}: {reason}", index + 1)))?;
    }
    Ok(Exposition {
        samples,
        metadata: families.into_values().collect(),
    })
}

fn read_comment<'a>(
    comment: &'a str,
    families: &mut BTreeMap<&'a str, MetricMetadata>,
) -> Result<(), String> {
    let mut words = comment.trim_start().splitn(3, [' ', '\t']);
    let (keyword, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if !matches!(keyword, "HELP" | "TYPE" | "UNIT") {
        return Ok(());
    }
    if name.is_empty() {
        return Err(format!("{keyword} without the name of a metric"));
    }
    let rest = words.next().unwrap_or("").trim();
    let family = families.entry(name).or_insert_with(|| MetricMetadata {
        metric: name.trim_matches('"').to_owned(),
        kind: MetricKind::Unknown,
        help: String::new(),
        unit: String::new(),
    });
    match keyword {
        "HELP" => family.help = unescape(rest),
        "UNIT" => family.unit = rest.to_owned(),
        _ if rest == "untyped" => family.kind = MetricKind::Unknown,
        _ => {
            let known = MetricKind::ALL.iter().find(|kind| kind.as_str() == rest);
            family.kind = *known.ok_or_else(|| format!("{rest:?} is not a type of metric"))?;
        }
    }
    Ok(())
}

fn read_sample(line: &str, is_open_metrics: bool) -> Result<Sample, String> {
    let mut builder = LabelsBuilder::new();
    let name_end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
    let (name, mut rest) = line.split_at(name_end);
    let mut has_name = !name.is_empty();
    if has_name {
        builder.set(LABEL_NAME_METRIC, name);
    }
    if let Some(labels) = rest.strip_prefix('{') {
        rest = read_labels(labels, &mut builder, &mut has_name)?;
    }
    if !has_name {
        return Err("expected the name of a metric".to_owned());
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().ok_or("expected a value")?;
    let value: f64 = value
        .parse()
        .map_err(|_| format!("{value:?} is not a number"))?;
    let timestamp = match words.next() {
        None | Some("#") => None,
        Some(word) => Some(read_timestamp(word, is_open_metrics)?),
    };
    if timestamp.is_some() && words.next().is_some_and(|word| word != "#") {
        return Err("expected the end of the line behind the timestamp".to_owned());
    }
    Ok(Sample {
        labels: builder.build(),
        value,
        timestamp,
    })
}

fn read_timestamp(word: &str, is_open_metrics: bool) -> Result<Millis, String> {
    let malformed = || format!("{word:?} is not a timestamp");
    if !is_open_metrics {
        return word.parse().map_err(|_| malformed());
    }
    let seconds: f64 = word.parse().map_err(|_| malformed())?;
    let millis = (seconds * 1000.0).round();
    if !millis.is_finite() || millis.abs() > 9e15 {
        return Err(malformed());
    }
    Ok(millis as Millis)
}

/// Reads `name="value",...}` and returns what stands behind the brace.
fn read_labels<'a>(
    mut text: &'a str,
    builder: &mut LabelsBuilder,
    has_name: &mut bool,
) -> Result<&'a str, String> {
    let mut seen: Vec<String> = Vec::new();
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, rest) = read_label_name(text)?;
        let rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('=') {
            let (value, rest) = read_quoted(rest.trim_start())?;
            if seen.contains(&name) {
                return Err(format!("label {name:?} appears twice"));
            }
            builder.set(&name, &value);
            seen.push(name);
            text = rest;
        } else if text.starts_with('"') && !*has_name {
            // A quoted name on its own is the metric's.
            builder.set(LABEL_NAME_METRIC, &name);
            *has_name = true;
            text = rest;
        } else {
            return Err(format!("expected \"=\" behind label {name:?}"));
        }
        text = text.trim_start();
        match text.strip_prefix(',') {
            Some(rest) => text = rest,
            None if text.starts_with('}') => {}
            None => return Err("expected \",\" or \"}\" behind a label".to_owned()),
        }
    }
}

fn read_label_name(text: &str) -> Result<(String, &str), String> {
    if text.starts_with('"') {
        return read_quoted(text);
    }
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    if end == 0 || text.as_bytes()[0].is_ascii_digit() {
        return Err("expected the name of a label".to_owned());
    }
    Ok((text[..end].to_owned(), &text[end..]))
}

/// Reads a text in quotation marks and returns it without its escapes, and what stands behind it.
fn read_quoted(text: &str) -> Result<(String, &str), String> {
    let Some(inner) = text.strip_prefix('"') else {
        return Err("expected a text in quotation marks".to_owned());
    };
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok((unescape(&inner[..at]), &inner[at + 1..])),
            _ => {}
        }
    }
    Err("a quotation mark is missing".to_owned())
}

/// Undoes `\\`, `\"` and `\n`; other escapes stay as they are.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some(c @ ('\\' | '"')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
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
        let text = "# TYPE a counter\n# UNIT a seconds\na_total 5 1.5 # {trace=\"1\"} 1 2\n\
                    b_bucket{le=\"1\"} 3 # {t=\"2\"} 0.5\n# EOF\n";
        check(
            text,
            &[
                ("a_total", 5.0, Some(1500)),
                (r#"b_bucket{le="1"}"#, 3.0, None),
            ],
        );
        let metadata = parse(text).unwrap().metadata;
        assert_eq!(metadata.len(), 1);
        assert_eq!(metadata[0].kind, MetricKind::Counter);
        assert_eq!(metadata[0].unit, "seconds");
    }

    #[test]
    fn errors_name_the_line() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("up 1\nup x\n", "line 2: \"x\" is not a number");
        check("up", "line 1: expected a value");
        check("up{a=\"b} 1", "line 1: a quotation mark is missing");
        check("up{a=b} 1", "line 1: expected a text in quotation marks");
        check("up{a\"b\"} 1", "expected \"=\" behind label \"a\"");
        check("up{a=\"1\" b=\"2\"} 1", "expected \",\" or \"}\"");
        check("up{a=\"1\",a=\"2\"} 1", "label \"a\" appears twice");
        check("{a=\"1\"} 1", "expected the name of a metric");
        check("up 1 x", "\"x\" is not a timestamp");
        check("up 1 2 3", "expected the end of the line");
        check("# TYPE up thing", "\"thing\" is not a type of metric");
        check("# HELP", "HELP without the name");
    }
    #[test]
    fn random_texts_never_panic() {
        let mut random = StdRng::seed_from_u64(3);
        let pieces = [
            "up", "{", "}", "a=", "\"", "\\", ",", " ", "1.5", "# TYPE ", "\n", "\u{e9}", "-",
            "# EOF",
        ];
        for _ in 0..20_000 {
            let count = random.random_range(0..20);
            let text: String = (0..count)
                .map(|_| pieces[random.random_range(0..pieces.len())])
                .collect();
            drop(parse(&text));
        }
    }
}
