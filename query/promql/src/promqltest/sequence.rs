//! Series in test files: `name{label="value"} 1 2+3x5 _x2 stale {{count:1}}x3`, and `name@st -30s` for start timestamps.

use super::histogram::{Literal, literal};
use crate::{MatchOp, parse::duration_seconds, parse_selector, storage::STALE_MARKER_BITS};
use std::sync::Arc;
use trefoil_model::{Histogram, Labels, LabelsBuilder, Millis};

/// One value of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Value(f64),
    /// No sample.
    Gap,
    Histogram(Literal),
}

/// A series with its values in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sequence {
    pub(super) labels: Labels,
    pub(super) items: Vec<Item>,
    /// The line gives start timestamps instead of values: how far behind the samples' times, in milliseconds.
    pub(super) starts: Option<Vec<Option<Millis>>>,
}

/// Parses the line of a series.
pub(super) fn series(line: &str) -> Result<Sequence, String> {
    let (metric, values) = split_metric(line)?;
    let labels = labels(metric)?;
    Ok(match values.strip_prefix("@st") {
        Some(offsets) => Sequence {
            labels,
            items: Vec::new(),
            starts: Some(starts(offsets)?),
        },
        None => Sequence {
            labels,
            items: items(values)?,
            starts: None,
        },
    })
}

/// The offsets of start timestamps: `_ -30s-1mx2 0`.
fn starts(text: &str) -> Result<Vec<Option<Millis>>, String> {
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        let bad = || format!("cannot read the start timestamp {word:?}");
        if let Some(gap) = word.strip_prefix('_') {
            let count = gap.strip_prefix('x').map_or(Ok(1), str::parse);
            all.extend(std::iter::repeat_n(None, count.map_err(|_| bad())?));
            continue;
        }
        let (offsets, count) = match word.rsplit_once('x') {
            Some((offsets, count)) => (offsets, count.parse::<i64>().map_err(|_| bad())?),
            None => (word, 0),
        };
        let sign = offsets[1..].find(['+', '-']).map(|at| at + 1);
        let (first, step) = offsets.split_at(sign.unwrap_or(offsets.len()));
        let first = offset(first).ok_or_else(bad)?;
        let step = if step.is_empty() {
            0
        } else {
            offset(step).ok_or_else(bad)?
        };
        all.extend((0..=count).map(|index| Some(first + index * step)));
    }
    Ok(all)
}

/// `-30s`, `+1m`, `0`: milliseconds.
fn offset(text: &str) -> Option<Millis> {
    if let Some(positive) = text.strip_prefix('-') {
        return offset(positive).map(|offset| -offset);
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let seconds = match number(text) {
        Some(seconds) => seconds,
        None => duration_seconds(text).ok()?,
    };
    Some((seconds * 1000.0).round() as Millis)
}

/// Cuts a line behind the metric: behind its braces, or at the first blank.
fn split_metric(line: &str) -> Result<(&str, &str), String> {
    let open = line.find('{');
    let blank = line.find([' ', '\t']).unwrap_or(line.len());
    let end = match open {
        Some(open) if open < blank || line[blank..].trim_start().starts_with('{') => {
            if line[open..].starts_with("{{") {
                blank
            } else {
                closing_brace(line, open)?
            }
        }
        _ => line[..blank].find('@').unwrap_or(blank),
    };
    Ok((line[..end].trim(), line[end..].trim()))
}

/// The byte behind the brace that closes the one at `open`.
fn closing_brace(line: &str, open: usize) -> Result<usize, String> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices().skip_while(|(at, _)| *at < open) {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quote = Some(c),
            (None, '}') => return Ok(at + 1),
            (None, _) => {}
        }
    }
    Err(format!("no closing brace in {line:?}"))
}

fn labels(metric: &str) -> Result<Labels, String> {
    if metric.is_empty() || metric == "{}" {
        return Ok(Labels::empty());
    }
    let empty = metric.strip_suffix("{}").unwrap_or(metric);
    // A label set may be one that no selector can be, such as one with empty values only.
    let selector = if empty.ends_with('}') {
        let body = empty.strip_suffix('}').unwrap_or(empty).trim_end();
        let comma = if body.ends_with(['{', ',']) { "" } else { "," };
        format!("{body}{comma}__test__=\"x\"}}")
    } else {
        empty.to_owned()
    };
    let matchers = parse_selector(&selector).map_err(|error| error.to_string())?;
    let mut builder = LabelsBuilder::new();
    for matcher in matchers {
        if matcher.op() != MatchOp::Equal {
            return Err(format!("{metric:?} is not a set of labels"));
        }
        builder.set(matcher.name(), matcher.value());
    }
    Ok(builder.remove("__test__").build())
}

fn items(values: &str) -> Result<Vec<Item>, String> {
    let mut all = Vec::new();
    let mut rest = values.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            rest = histograms(rest, &mut all)?.trim_start();
            continue;
        }
        let end = rest.find([' ', '\t']).unwrap_or(rest.len());
        item(&rest[..end], &mut all)?;
        rest = rest[end..].trim_start();
    }
    Ok(all)
}

/// Takes `{{...}}`, `{{...}}x3` or `{{...}}+{{...}}x3` and returns what is behind.
fn histograms<'t>(text: &'t str, into: &mut Vec<Item>) -> Result<&'t str, String> {
    let (first, mut rest) = braced(text)?;
    let mut step = None;
    if rest.starts_with("+{{") || rest.starts_with("-{{") {
        let (histogram, behind) = braced(&rest[1..])?;
        step = Some((rest.starts_with('-'), histogram));
        rest = behind;
    }
    let end = rest.find([' ', '\t']).unwrap_or(rest.len());
    let (count, behind) = rest.split_at(end);
    let count: usize = match count.strip_prefix('x') {
        Some(count) => count.parse().map_err(|_| format!("cannot read {text:?}"))?,
        None if count.is_empty() => 0,
        None => return Err(format!("cannot read {text:?}")),
    };
    let mut current = first;
    into.push(Item::Histogram(current.clone()));
    for _ in 0..count {
        if let Some((negative, step)) = &step {
            let mut next = Histogram::clone(&current.histogram);
            let combined = match negative {
                true => next.subtract(&step.histogram),
                false => next.add(&step.histogram),
            };
            combined.map_err(|error| error.to_string())?;
            current.histogram = Arc::new(next);
        }
        into.push(Item::Histogram(current.clone()));
    }
    Ok(behind)
}

/// Takes `{{...}}` and returns what is behind.
fn braced(text: &str) -> Result<(Literal, &str), String> {
    let unclosed = || format!("an unclosed histogram in {text:?}");
    let inner = text.strip_prefix("{{").ok_or_else(unclosed)?;
    let (inner, behind) = inner.split_once("}}").ok_or_else(unclosed)?;
    Ok((literal(inner)?, behind))
}

fn item(text: &str, into: &mut Vec<Item>) -> Result<(), String> {
    let bad = || format!("cannot read the value {text:?}");
    if text == "stale" {
        into.push(Item::Value(f64::from_bits(STALE_MARKER_BITS)));
        return Ok(());
    }
    if let Some(gap) = text.strip_prefix('_') {
        let count = match gap.strip_prefix('x') {
            Some(count) => count.parse().map_err(|_| bad())?,
            None if gap.is_empty() => 1,
            None => return Err(bad()),
        };
        into.extend(std::iter::repeat_n(Item::Gap, count));
        return Ok(());
    }
    if let Some(value) = number(text) {
        into.push(Item::Value(value));
        return Ok(());
    }
    let (value, count) = text.rsplit_once('x').ok_or_else(bad)?;
    let count: usize = count.parse().map_err(|_| bad())?;
    let (start, step) = match number(value) {
        Some(start) => (start, 0.0),
        None => start_and_step(value).ok_or_else(bad)?,
    };
    let mut current = start;
    for _ in 0..=count {
        into.push(Item::Value(current));
        current += step;
    }
    Ok(())
}

/// `1+2` and `-5-2`.
fn start_and_step(text: &str) -> Option<(f64, f64)> {
    let signs = text
        .char_indices()
        .skip(1)
        .filter(|(_, c)| matches!(c, '+' | '-'));
    signs.into_iter().find_map(|(at, _)| {
        let step = text[at..].strip_prefix('+').unwrap_or(&text[at..]);
        Some((number(&text[..at])?, number(step)?))
    })
}

/// A number as in Go; never a repetition such as `0x5`.
pub(super) fn number(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    if lower.contains('x') || lower.contains('_') {
        return None;
    }
    lower.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, labels: &str, expected: &[f64]) {
        let sequence = series(line).expect("parses");
        assert_eq!(sequence.labels.to_string(), labels);
        let expected: Vec<Item> = expected.iter().map(|v| Item::Value(*v)).collect();
        assert_eq!(sequence.items, expected, "{line}");
    }

    #[test]
    fn sequences_are_expanded() {
        check("a 1 2+3x2", "a", &[1.0, 2.0, 5.0, 8.0]);
        check("a{b=\"c d}\"} -5-2x1", r#"a{b="c d}"}"#, &[-5.0, -7.0]);
        check("{} 0x2", "{}", &[0.0, 0.0, 0.0]);
        check(
            "{x=\"y\"} 1e3 -Inf",
            "{x=\"y\"}",
            &[1000.0, f64::NEG_INFINITY],
        );
        assert_eq!(
            series("a _x2").expect("parses").items,
            [Item::Gap, Item::Gap]
        );
        let histogram = series("a {{sum:1 count:2}}+{{count:1}}x2 5").expect("parses");
        let count = |item: &Item| match item {
            Item::Histogram(literal) => literal.histogram.count,
            _ => 0.0,
        };
        let counts: Vec<f64> = histogram.items.iter().map(count).collect();
        assert_eq!(counts, [2.0, 3.0, 4.0, 0.0]);
        let starts = series("a@st _ -30s-1mx1 0").expect("parses").starts;
        assert_eq!(
            starts,
            Some(vec![None, Some(-30_000), Some(-90_000), Some(0)])
        );
        assert!(series("a{b=\"c\" 1").is_err());
    }
}
