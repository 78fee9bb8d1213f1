//! The text of `/federate`: the newest sample of each series, family by family, in Prometheus' text format or in
//! OpenMetrics.
//!
//! ```text
//! # TYPE name untyped                          # TYPE name unknown
//! name{label="value",instance=""} 1.5 1000     name{label="value",instance=""} 1.5 1.000
//!                                              # EOF
//! ```
//! Every sample has its time. A series without `instance` gets an empty one, so that the scraper does not put its own
//! there. Stale markers, series without a name and native histograms, for which the texts have no form, are left out.

use crate::number::{write_float, write_time};
use trefoil_model::{LABEL_NAME_METRIC, Labels, Millis};
use trefoil_query_promql::{RawSeries, is_histogram, is_stale};

/// A label that every series has.
const INSTANCE: &str = "instance";

/// How the samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FederationFormat {
    /// OpenMetrics 1.0 instead of the text format.
    pub(crate) is_open_metrics: bool,
    /// Names that need quotation marks are written in them; else their odd characters become underscores.
    pub(crate) takes_quoted_names: bool,
}

impl FederationFormat {
    /// What an `Accept` header asks for: the first OpenMetrics or plain text in it, the text format without one.
    pub(crate) fn of_accept(accept: &str) -> Self {
        let mut format = Self {
            is_open_metrics: false,
            takes_quoted_names: false,
        };
        for entry in accept.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("");
            let is_open_metrics = kind.eq_ignore_ascii_case("application/openmetrics-text");
            if is_open_metrics || kind.eq_ignore_ascii_case("text/plain") {
                format.is_open_metrics = is_open_metrics;
                format.takes_quoted_names = parts.any(|part| part == "escaping=allow-utf-8");
                break;
            }
        }
        format
    }

    /// The `Content-Type` of what is written.
    pub(crate) fn content_type(self) -> &'static str {
        match (self.is_open_metrics, self.takes_quoted_names) {
            (false, false) => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            (false, true) => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            (true, false) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            (true, true) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
        }
    }
}

/// The newest sample of a series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Newest {
    labels: Labels,
    time: Millis,
    value: f64,
}

impl Newest {
    /// The newest sample of a series, if a text has a form for it.
    pub(crate) fn of(series: RawSeries) -> Option<Self> {
        let (time, value) = (*series.timestamps.last()?, *series.values.last()?);
        let has_name = name_of(&series.labels).is_some();
        (has_name && !is_stale(value) && !is_histogram(value)).then_some(Self {
            labels: series.labels,
            time,
            value,
        })
    }

    /// The memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.labels.canonical().len()
    }
}

fn name_of(labels: &Labels) -> Option<&str> {
    let mut pairs = labels.iter();
    pairs
        .find(|(name, _)| *name == LABEL_NAME_METRIC)
        .map(|(_, value)| value)
}

/// The whole text.
pub(crate) fn write_federation(mut newest: Vec<Newest>, format: FederationFormat) -> Vec<u8> {
    // What looks alike in the end belongs to one family.
    newest.sort_by_cached_key(|one| {
        let name = name_of(&one.labels).unwrap_or_default();
        (name.to_owned(), one.labels.clone())
    });
    let mut out = Vec::new();
    let mut family = None;
    for one in &newest {
        let name = name_of(&one.labels).unwrap_or_default();
        if family != Some(name) {
            family = Some(name);
            out.extend_from_slice(b"# TYPE ");
            write_name(&mut out, name, true, format);
            let kind = if format.is_open_metrics {
                "unknown"
            } else {
                "untyped"
            };
            out.extend_from_slice(format!(" {kind}\n").as_bytes());
        }
        write_sample(&mut out, one, name, format);
    }
    if format.is_open_metrics {
        out.extend_from_slice(b"# EOF\n");
    }
    out
}

fn write_sample(out: &mut Vec<u8>, one: &Newest, name: &str, format: FederationFormat) {
    let is_inside = format.takes_quoted_names && !is_plain(name, true);
    if !is_inside {
        write_name(out, name, true, format);
    }
    out.push(b'{');
    if is_inside {
        write_name(out, name, true, format);
        out.push(b',');
    }
    let mut has_instance = false;
    for (name, value) in one.labels.iter().filter(|(n, _)| *n != LABEL_NAME_METRIC) {
        has_instance |= name == INSTANCE;
        write_name(out, name, false, format);
        out.push(b'=');
        write_quoted(out, value);
        out.push(b',');
    }
    if !has_instance {
        out.extend_from_slice(b"instance=\"\",");
    }
    out.pop();
    out.extend_from_slice(b"} ");
    write_float(out, one.value);
    out.push(b' ');
    match format.is_open_metrics {
        true => write_time(out, one.time),
        false => out.extend_from_slice(one.time.to_string().as_bytes()),
    }
    out.push(b'\n');
}

fn is_plain(name: &str, colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fits)
}

fn write_name(out: &mut Vec<u8>, name: &str, colons: bool, format: FederationFormat) {
    if is_plain(name, colons) {
        out.extend_from_slice(name.as_bytes());
    } else if format.takes_quoted_names {
        write_quoted(out, name);
    } else {
        for (at, c) in name.chars().enumerate() {
            let fits = c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
            let fits = fits || (at > 0 && c.is_ascii_digit());
            out.push(if fits { c as u8 } else { b'_' });
        }
    }
}

fn write_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_query_promql::{Histograms, STALE_MARKER_BITS};

    fn newest(pairs: &[(&str, &str)], value: f64) -> Option<Newest> {
        Newest::of(RawSeries {
            labels: Labels::from_pairs(pairs.iter().copied()),
            timestamps: vec![500, 1500],
            values: vec![7.0, value],
            histograms: Histograms::default(),
        })
    }

    fn examples() -> Vec<Newest> {
        let series = [
            newest(
                &[("A", "1"), ("__name__", "b_total"), ("instance", "i")],
                2.5,
            ),
            newest(&[("__name__", "b_total"), ("x", "a\\\"\n")], f64::INFINITY),
            newest(&[("__name__", "a.b"), ("c d", "e")], 1.0),
            newest(&[("__name__", "gone")], f64::from_bits(STALE_MARKER_BITS)),
            newest(&[("job", "nameless")], 1.0),
        ];
        series.into_iter().flatten().collect()
    }

    #[test]
    fn golden_texts() {
        let check = |accept: &str, expected: &str| {
            let text = write_federation(examples(), FederationFormat::of_accept(accept));
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        };
        check(
            "",
            "# TYPE a_b untyped\n\
             a_b{c_d=\"e\",instance=\"\"} 1 1500\n\
             # TYPE b_total untyped\n\
             b_total{A=\"1\",instance=\"i\"} 2.5 1500\n\
             b_total{x=\"a\\\\\\\"\\n\",instance=\"\"} +Inf 1500\n",
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.1",
            "# TYPE \"a.b\" unknown\n\
             {\"a.b\",\"c d\"=\"e\",instance=\"\"} 1 1.500\n\
             # TYPE b_total unknown\n\
             b_total{A=\"1\",instance=\"i\"} 2.5 1.500\n\
             b_total{x=\"a\\\\\\\"\\n\",instance=\"\"} +Inf 1.500\n\
             # EOF\n",
        );
    }

    #[test]
    fn the_first_known_format_is_taken() {
        let is_open = |accept| FederationFormat::of_accept(accept).is_open_metrics;
        assert!(is_open(
            "application/json, application/openmetrics-text, text/plain"
        ));
        assert!(!is_open(
            "text/plain;version=0.0.4;q=0.5, application/openmetrics-text"
        ));
        assert!(!is_open("*/*"));
    }
}
