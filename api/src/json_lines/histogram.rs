//! Native histograms in JSON lines, where other lines have a number.
//!
//! ```text
//! {"schema":3,"count":6,"sum":7.5,"zero_threshold":0.001,"zero_count":1,
//!  "positive":{"spans":[[-2,1],[3,2]],"counts":[1,2,2]},"negative":{...},"bounds":[0.5,1],"reset_hint":"gauge"}
//! ```
//! Spans are runs of buckets: the distance from the end of the run before (the first: its first index) and a length.
//! `bounds` are those of custom buckets (schema -53). `reset_hint` is `reset`, `not_reset` or `gauge`. Schema, count and
//! sum must be there, what else is absent is zero or empty. The form is ours: VictoriaMetrics has no native histograms.

use super::value::{read_number, write_number};
use crate::{
    ApiError,
    json_reader::JsonReader,
    remote_write::{HistogramParts, SampleValue, SideParts},
};
use std::{io::Write, sync::Arc};
use trefoil_model::{
    Histogram, ResetHint,
    histogram::{BUCKETS_INGESTED_MAX, Buckets},
};

/// What a histogram must have.
const REQUIRED: [&str; 3] = ["schema", "count", "sum"];
/// The hints by number, from 1.
const HINTS: [(ResetHint, &str); 3] = [
    (ResetHint::Reset, "reset"),
    (ResetHint::NotReset, "not_reset"),
    (ResetHint::Gauge, "gauge"),
];

/// Appends a histogram.
pub(super) fn write(out: &mut Vec<u8>, histogram: &Histogram) {
    // Writing into memory does not fail.
    drop(write!(out, "{{\"schema\":{}", histogram.schema));
    for (name, value) in [
        ("count", histogram.count),
        ("sum", histogram.sum),
        ("zero_threshold", histogram.zero_threshold),
        ("zero_count", histogram.zero_count),
    ] {
        drop(write!(out, ",\"{name}\":"));
        write_number(out, value);
    }
    write_side(out, "positive", &histogram.positive);
    write_side(out, "negative", &histogram.negative);
    if !histogram.custom_bounds.is_empty() {
        out.extend_from_slice(b",\"bounds\":");
        write_numbers(out, &histogram.custom_bounds);
    }
    for (hint, name) in HINTS {
        if histogram.reset_hint == hint {
            drop(write!(out, ",\"reset_hint\":\"{name}\""));
        }
    }
    out.push(b'}');
}

fn write_side(out: &mut Vec<u8>, name: &str, buckets: &Buckets) {
    if buckets.is_empty() {
        return;
    }
    drop(write!(out, ",\"{name}\":{{\"spans\":["));
    for (index, (offset, length)) in buckets.spans().iter().enumerate() {
        let separator = if index > 0 { "," } else { "" };
        drop(write!(out, "{separator}[{offset},{length}]"));
    }
    out.extend_from_slice(b"],\"counts\":");
    write_numbers(out, buckets.counts());
    out.push(b'}');
}

fn write_numbers(out: &mut Vec<u8>, values: &[f64]) {
    out.push(b'[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_number(out, *value);
    }
    out.push(b']');
}

/// Reads a histogram and checks it as those of all protocols are.
///
/// # Errors
/// [`ApiError::BadLine`].
pub(super) fn read(reader: &mut JsonReader<'_>) -> Result<Arc<Histogram>, ApiError> {
    let mut parts = HistogramParts {
        is_float: true,
        ..HistogramParts::default()
    };
    // What every histogram has: so one in memory is no more than some times its text.
    let mut required = [false; 3];
    reader.enter(b'{')?;
    let mut is_first = true;
    while reader.next_item(b'}', &mut is_first)? {
        let key = reader.key()?;
        for (name, seen) in REQUIRED.iter().zip(&mut required) {
            *seen |= *name == key;
        }
        match &*key {
            "schema" => parts.schema = whole(reader)?,
            "count" => parts.count = read_number(reader)?,
            "sum" => parts.sum = read_number(reader)?,
            "zero_threshold" => parts.zero_threshold = read_number(reader)?,
            "zero_count" => parts.zero_count = read_number(reader)?,
            "positive" => parts.positive = read_side(reader)?,
            "negative" => parts.negative = read_side(reader)?,
            "bounds" => {
                parts.custom_bounds.clear();
                read_list(reader, &mut parts.custom_bounds, read_number)?;
            }
            "reset_hint" => {
                let name = reader.text()?;
                let hint = HINTS.iter().position(|(_, known)| *known == name);
                let unknown = || reader.wrong(format!("{name:?} is not a reset hint"));
                parts.reset_hint = hint.ok_or_else(unknown)? as u64 + 1;
            }
            other => {
                let reason = format!("unknown name {other:?} in a histogram");
                return Err(reader.wrong(reason));
            }
        }
    }
    if let Some(missing) = required.iter().position(|seen| !seen) {
        let reason = format!("{:?} is missing in a histogram", REQUIRED[missing]);
        return Err(reader.wrong(reason));
    }
    match parts.into_value() {
        Ok(SampleValue::Histogram(histogram)) => Ok(histogram),
        Ok(SampleValue::Float(_)) => {
            Err(reader.wrong("a histogram cannot be the stale marker; null is"))
        }
        Err(reason) => Err(reader.wrong(reason)),
    }
}

fn read_side(reader: &mut JsonReader<'_>) -> Result<SideParts, ApiError> {
    let mut side = SideParts::default();
    reader.enter(b'{')?;
    let mut is_first = true;
    while reader.next_item(b'}', &mut is_first)? {
        match &*reader.key()? {
            "spans" => {
                side.spans.clear();
                read_list(reader, &mut side.spans, read_span)?;
            }
            "counts" => {
                side.counts.clear();
                read_list(reader, &mut side.counts, read_number)?;
            }
            other => {
                let reason = format!("unknown name {other:?}; spans and counts are known");
                return Err(reader.wrong(reason));
            }
        }
    }
    Ok(side)
}

fn read_span(reader: &mut JsonReader<'_>) -> Result<(i32, u32), ApiError> {
    reader.enter(b'[')?;
    let mut is_first = true;
    let mut span = [0, 0];
    for number in &mut span {
        if !reader.next_item(b']', &mut is_first)? {
            return Err(reader.wrong("a span has two numbers"));
        }
        *number = whole(reader)?;
    }
    if reader.next_item(b']', &mut is_first)? {
        return Err(reader.wrong("a span has two numbers"));
    }
    match (i32::try_from(span[0]), u32::try_from(span[1])) {
        (Ok(offset), Ok(length)) => Ok((offset, length)),
        _ => Err(reader.wrong("a span is out of range")),
    }
}

/// Reads as many items as a histogram may have.
fn read_list<T>(
    reader: &mut JsonReader<'_>,
    out: &mut Vec<T>,
    read: impl Fn(&mut JsonReader<'_>) -> Result<T, ApiError>,
) -> Result<(), ApiError> {
    reader.enter(b'[')?;
    let mut is_first = true;
    while reader.next_item(b']', &mut is_first)? {
        if out.len() == BUCKETS_INGESTED_MAX {
            let reason = format!("a histogram has more than {BUCKETS_INGESTED_MAX} buckets");
            return Err(reader.wrong(reason));
        }
        out.push(read(reader)?);
    }
    Ok(())
}

fn whole(reader: &mut JsonReader<'_>) -> Result<i64, ApiError> {
    let text = reader.number()?;
    let number = text.parse();
    number.map_err(|_| reader.wrong(format!("{text} is not a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::histogram::SCHEMA_CUSTOM;

    fn exponential() -> Histogram {
        Histogram {
            schema: 3,
            reset_hint: ResetHint::Gauge,
            zero_threshold: 0.001,
            zero_count: 1.0,
            count: 7.5,
            sum: f64::NEG_INFINITY,
            positive: Buckets::from_spans(&[(-2, 1), (3, 2)], vec![1.0, 2.5, 2.0]).unwrap(),
            negative: Buckets::from_spans(&[(0, 1)], vec![1.0]).unwrap(),
            custom_bounds: [].into(),
        }
    }

    #[test]
    fn histograms_read_back_the_same() {
        let custom = Histogram {
            schema: SCHEMA_CUSTOM,
            count: 3.0,
            sum: 2.25,
            positive: Buckets::from_spans(&[(1, 2)], vec![1.0, 2.0]).unwrap(),
            custom_bounds: [0.5, 1.0].into(),
            ..Histogram::default()
        };
        let golden = r#"{"schema":3,"count":7.5,"sum":"-Infinity","zero_threshold":0.001,"zero_count":1,"positive":{"spans":[[-2,1],[3,2]],"counts":[1,2.5,2]},"negative":{"spans":[[0,1]],"counts":[1]},"reset_hint":"gauge"}"#;
        let other = r#"{"schema":-53,"count":3,"sum":2.25,"zero_threshold":0,"zero_count":0,"positive":{"spans":[[1,2]],"counts":[1,2]},"bounds":[0.5,1]}"#;
        for (histogram, expected) in [(exponential(), golden), (custom, other)] {
            let mut out = Vec::new();
            write(&mut out, &histogram);
            assert_eq!(String::from_utf8_lossy(&out), expected);
            let found = read(&mut JsonReader::new(&out)).unwrap();
            assert_eq!(*found, histogram);
        }
    }

    #[test]
    fn wrong_histograms_are_refused() {
        let many = format!("{{\"bounds\":[{}1]}}", "1,".repeat(BUCKETS_INGESTED_MAX));
        for (text, expected) in [
            ("{\"schema\":9,\"count\":0,\"sum\":0}", "invalid schema"),
            ("{\"schema\":0,\"count\":0,\"sum\":null}", "stale marker"),
            ("{\"schema\":0,\"count\":-1,\"sum\":0}", "negative"),
            (
                "{\"schema\":0,\"sum\":0}",
                "\"count\" is missing in a histogram",
            ),
            ("{\"x\":1}", "unknown name \"x\" in a histogram"),
            ("{\"positive\":{\"spans\":[[0]]}}", "a span has two numbers"),
            ("{\"positive\":{\"spans\":[[0,-1]]}}", "out of range"),
            (
                "{\"schema\":0,\"count\":1,\"sum\":1,\"positive\":{\"spans\":[[0,3]],\"counts\":[1]}}",
                "positive side",
            ),
            ("{\"reset_hint\":\"maybe\"}", "is not a reset hint"),
            (many.as_str(), "more than 2048 buckets"),
        ] {
            let error = read(&mut JsonReader::new(text.as_bytes()))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
