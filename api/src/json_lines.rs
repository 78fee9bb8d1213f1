//! JSON lines: one series with its samples in each line, as VictoriaMetrics exports and imports them.
//!
//! ```text
//! {"metric":{"__name__":"up","job":"a"},"values":[1,null,"Infinity"],"timestamps":[1700000000000,...]}
//! ```
//! Times are milliseconds, values are spelled as in `value`. Lists of different lengths and unknown names are errors:
//! what was meant cannot be guessed. What is exported is imported to the bit, but for start times of counters, which
//! the lines have no place for.

mod export;
mod histogram;
mod value;

use crate::{
    ApiError, WriteLimits,
    exposition::ImportOptions,
    json_reader::JsonReader,
    number::{TIME_MAX, TIME_MIN},
    recycle,
    remote_write::{Sample, SampleValue, WriteRequest},
};
pub use export::{Lines, ROWS_MAX};
use std::{borrow::Cow, sync::Arc};
use trefoil_model::{Histogram, Millis};
use value::Value;

/// Labels of a line; more refuse the request. A series has far fewer, but one that has too many is left out by name.
const LABELS_MAX: usize = 1024;

/// One line, in memory that is used again.
#[derive(Default)]
struct Line<'a> {
    labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// A histogram's place holds 0.
    values: Vec<f64>,
    /// Histograms with their places, ascending.
    histograms: Vec<(usize, Arc<Histogram>)>,
    histogram_bytes: usize,
    times: Vec<Millis>,
}

/// Reads lines into `out`, whose former content is lost. Empty lines are skipped.
///
/// # Errors
/// [`ApiError::BadLine`], [`ApiError::TooLarge`] by the number of samples; `out` is empty then.
pub fn import_json_lines(
    text: &[u8],
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    out.clear();
    let outcome = read_lines(text, options, limits, out);
    if outcome.is_err() {
        out.clear();
    }
    outcome
}

fn read_lines(
    text: &[u8],
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    let mut line = Line::default();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (index, bytes) in text.split(|byte| *byte == b'\n').enumerate() {
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let read = line.read(bytes, limits);
        // The reader counts the lines of what it was given, which is this one.
        read.map_err(|error| match error {
            ApiError::BadLine { column, reason, .. } => ApiError::BadLine {
                line: index + 1,
                column,
                reason,
            },
            error => error,
        })?;
        let mut reused = recycle(pairs);
        let labels = line.labels.iter();
        reused.extend(labels.map(|(name, value)| (name.as_ref(), value.as_ref())));
        options.add_labels(&mut reused);
        let floats = line.times.iter().copied().zip(line.values.iter().copied());
        if line.histograms.is_empty() {
            out.push_series(&mut reused, floats, limits)?;
        } else {
            let mut histograms = line.histograms.drain(..).peekable();
            let samples = floats.enumerate().map(|(at, (time, value))| {
                match histograms.next_if(|(place, _)| *place == at) {
                    Some((_, histogram)) => Sample {
                        time,
                        start: 0,
                        value: SampleValue::Histogram(histogram),
                    },
                    None => Sample::float(time, value),
                }
            });
            out.push_samples(&mut reused, samples, limits)?;
        }
        pairs = recycle(reused);
    }
    Ok(())
}

impl<'a> Line<'a> {
    fn read(&mut self, text: &'a [u8], limits: &WriteLimits) -> Result<(), ApiError> {
        self.labels.clear();
        self.values.clear();
        self.histograms.clear();
        self.histogram_bytes = 0;
        self.times.clear();
        let mut reader = JsonReader::new(text);
        let mut seen = [false; 3];
        reader.enter(b'{')?;
        let mut is_first = true;
        while reader.next_item(b'}', &mut is_first)? {
            let key = reader.key()?;
            let part = match &*key {
                "metric" => 0,
                "values" => 1,
                "timestamps" => 2,
                other => {
                    let reason =
                        format!("unknown name {other:?}; metric, values and timestamps are known");
                    return Err(reader.wrong(reason));
                }
            };
            if std::mem::replace(&mut seen[part], true) {
                return Err(reader.wrong(format!("{key:?} is there twice")));
            }
            match part {
                0 => self.read_labels(&mut reader)?,
                1 => self.read_values(&mut reader, limits)?,
                _ => read_list(&mut reader, &mut self.times, limits, |reader, _| {
                    read_time(reader)
                })?,
            }
        }
        reader.finish()?;
        for (name, seen) in ["metric", "values", "timestamps"].iter().zip(seen) {
            if !seen {
                return Err(reader.wrong(format!("{name:?} is missing")));
            }
        }
        let (values, times) = (self.values.len(), self.times.len());
        if values != times {
            return Err(reader.wrong(format!("there are {values} values and {times} timestamps")));
        }
        Ok(())
    }

    fn read_values(
        &mut self,
        reader: &mut JsonReader<'a>,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        let (histograms, bytes) = (&mut self.histograms, &mut self.histogram_bytes);
        read_list(reader, &mut self.values, limits, |reader, at| {
            let histogram = match value::read(reader)? {
                Value::Float(value) => return Ok(value),
                Value::Histogram(histogram) => histogram,
            };
            *bytes += histogram.bytes();
            if *bytes > limits.decompressed_bytes_max {
                return Err(ApiError::TooLarge {
                    what: "size of all histograms of the request",
                    size: *bytes as u64,
                    size_max: limits.decompressed_bytes_max as u64,
                });
            }
            histograms.push((at, histogram));
            Ok(0.0)
        })
    }

    fn read_labels(&mut self, reader: &mut JsonReader<'a>) -> Result<(), ApiError> {
        reader.enter(b'{')?;
        let mut is_first = true;
        while reader.next_item(b'}', &mut is_first)? {
            if self.labels.len() == LABELS_MAX {
                return Err(reader.wrong(format!("there are more than {LABELS_MAX} labels")));
            }
            let name = reader.key()?;
            self.labels.push((name, reader.text()?));
        }
        Ok(())
    }
}

/// Reads a list of samples' parts. `read` is told the place of each.
fn read_list<T>(
    reader: &mut JsonReader<'_>,
    out: &mut Vec<T>,
    limits: &WriteLimits,
    mut read: impl FnMut(&mut JsonReader<'_>, usize) -> Result<T, ApiError>,
) -> Result<(), ApiError> {
    reader.enter(b'[')?;
    let mut is_first = true;
    while reader.next_item(b']', &mut is_first)? {
        if out.len() == limits.samples_max {
            return Err(ApiError::TooLarge {
                what: "number of samples in the request",
                size: out.len() as u64 + 1,
                size_max: limits.samples_max as u64,
            });
        }
        out.push(read(reader, out.len())?);
    }
    Ok(())
}

fn read_time(reader: &mut JsonReader<'_>) -> Result<Millis, ApiError> {
    let text = reader.number()?;
    let time = text.parse().ok();
    let time = time.filter(|time| (TIME_MIN..=TIME_MAX).contains(time));
    time.ok_or_else(|| reader.wrong(format!("{text} is not a time in whole milliseconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(text: &str) -> Result<Vec<String>, ApiError> {
        let mut out = WriteRequest::default();
        let options = ImportOptions {
            time: 0,
            extra_labels: vec![("job".to_owned(), "x".to_owned())],
        };
        import_json_lines(text.as_bytes(), &options, &WriteLimits::default(), &mut out)?;
        let series = out.series();
        Ok(series
            .map(|series| format!("{} {:?}", series.to_labels(), series.samples()))
            .collect())
    }

    #[test]
    fn lines_become_series() {
        let text = "{\"metric\":{\"__name__\":\"up\",\"job\":\"a\"},\"values\":[1,-2.5e3],\"timestamps\":[1,2]}\r\n\n \
                    { \"timestamps\" : [-3, 4, 5, 6], \"values\": [null,\"Infinity\",\"-Infinity\",\"NaN\"], \"metric\": \
                    {\"a\\u00e9\":\"\\\"\",\"__name__\":\"b\"} }";
        assert_eq!(
            import(text).unwrap(),
            [
                "up{job=\"x\"} [(1, 1.0), (2, -2500.0)]",
                "b{a\u{e9}=\"\\\"\", job=\"x\"} [(-3, NaN), (4, inf), (5, -inf), (6, NaN)]"
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = "{\"metric\":{\"__name__\":\"a\"},\"values\":[1],\"timestamps\":[1]}\n";
        for (line, expected) in [
            (
                "{\"metric\":{}",
                "line 2, column 13: the text ends too early",
            ),
            (
                "{\"metrics\":{}}",
                "line 2, column 12: unknown name \"metrics\"; metric, values and timestamps are known",
            ),
            (
                "{\"values\":[],\"values\":[]}",
                "line 2, column 23: \"values\" is there twice",
            ),
            (
                "{\"values\":[],\"metric\":{}}",
                "line 2, column 26: \"timestamps\" is missing",
            ),
            (
                "{\"metric\":{},\"values\":[1],\"timestamps\":[]}",
                "line 2, column 43: there are 1 values and 0 timestamps",
            ),
            (
                "{\"values\":[\"x\"]}",
                "line 2, column 15: \"x\" is not a value",
            ),
            (
                "{\"values\":[1e400]}",
                "line 2, column 17: 1e400 is not a value",
            ),
            (
                "{\"values\":[true]}",
                "line 2, column 12: expected a number",
            ),
            (
                "{\"timestamps\":[1.5]}",
                "line 2, column 19: 1.5 is not a time in whole milliseconds",
            ),
            (
                "{\"metric\":{\"a\":1}}",
                "line 2, column 16: expected a text",
            ),
            (
                "{} {}",
                "line 2, column 4: expected the end of the document",
            ),
        ] {
            let error = import(&format!("{good}{line}")).unwrap_err();
            assert_eq!(error.to_string(), expected, "{line}");
        }
    }

    #[test]
    fn the_number_of_labels_is_bounded() {
        let line = |count: usize| {
            let labels: Vec<_> = (0..count).map(|i| format!("\"l{i}\":\"x\"")).collect();
            let labels = labels.join(",");
            format!("{{\"metric\":{{{labels}}},\"values\":[1],\"timestamps\":[1]}}")
        };
        // One series with too many labels is left out.
        assert_eq!(import(&line(LABELS_MAX)).unwrap(), [""; 0]);
        let error = import(&line(LABELS_MAX + 1)).unwrap_err().to_string();
        assert!(
            error.ends_with("there are more than 1024 labels"),
            "{error}"
        );
    }

    #[test]
    fn the_number_of_samples_is_bounded() {
        let limits = WriteLimits {
            samples_max: 1,
            ..WriteLimits::default()
        };
        let mut out = WriteRequest::default();
        let text = b"{\"metric\":{\"__name__\":\"a\"},\"values\":[1,2],\"timestamps\":[1,2]}";
        let outcome = import_json_lines(text, &ImportOptions::default(), &limits, &mut out);
        assert_eq!(outcome.unwrap_err().status(), 413);
        assert!(out.is_empty());
    }
}
