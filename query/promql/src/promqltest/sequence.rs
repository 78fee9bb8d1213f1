//! Series in test files: `name{label="value"} 1 2+3x5 _x2 stale`.

use crate::storage::STALE_NAN_BITS;
use crate::{MatchOp, parse_selector};
use trefoil_model::{Labels, LabelsBuilder};

/// One value of a sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item {
    Value(f64),
    /// No sample.
    Gap,
    /// A native histogram, which the engine does not have yet.
    Histogram,
}

/// A series with its values in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sequence {
    pub(super) labels: Labels,
    pub(super) items: Vec<Item>,
    /// The line gives start timestamps instead of values.
    pub(super) start_timestamps: bool,
}

/// Parses the line of a series.
pub(super) fn series(line: &str) -> Result<Sequence, String> {
    let (metric, values) = split_metric(line)?;
    let start_timestamps = values.starts_with("@st");
    let values = values.trim_start_matches("@st");
    let items = if start_timestamps {
        Vec::new()
    } else {
        items(values)?
    };
    Ok(Sequence {
        labels: labels(metric)?,
        items,
        start_timestamps,
    })
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
        let end = if rest.starts_with("{{") {
            let close = rest.rfind("}}").ok_or("an unclosed histogram")?;
            // Several histograms on a line are all of one kind to us.
            let behind = &rest[close..];
            close + behind.find([' ', '\t']).unwrap_or(behind.len())
        } else {
            rest.find([' ', '\t']).unwrap_or(rest.len())
        };
        if rest.starts_with("{{") {
            all.push(Item::Histogram);
        } else {
            item(&rest[..end], &mut all)?;
        }
        rest = rest[end..].trim_start();
    }
    Ok(all)
}

fn item(text: &str, into: &mut Vec<Item>) -> Result<(), String> {
    let bad = || format!("cannot read the value {text:?}");
    if text == "stale" {
        into.push(Item::Value(f64::from_bits(STALE_NAN_BITS)));
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
        assert_eq!(series("a _x2").expect("parses").items, [Item::Gap; 2]);
        let histogram = series("a {{sum:1 count:2}}x3 5").expect("parses");
        assert_eq!(histogram.items, [Item::Histogram, Item::Value(5.0)]);
        assert!(series("a{b=\"c\" 1").is_err());
    }
}
