//! The answer of `/federate`: the newest sample of each series, family by family, in Prometheus' text format, in
//! OpenMetrics or in protobuf (`protobuf`).
//!
//! ```text
//! # TYPE name untyped                          # TYPE name unknown
//! name{label="value",instance=""} 1.5 1000     name{label="value",instance=""} 1.5 1.000
//!                                              # EOF
//! ```
//! Every sample has its time. A series without `instance` gets an empty one, so that the scraper does not put its own
//! there. Stale markers and series without a name are left out, and what a form cannot say: all native histograms in the texts,
//! few in protobuf.

mod protobuf;

use crate::number::{write_float, write_time};
use std::{borrow::Cow, sync::Arc};
use trefoil_model::{LABEL_NAME_METRIC, Labels, Millis, ResetHint};
use trefoil_query_promql::{RawSeries, Value, is_histogram, is_stale};

/// A label that every series has.
const INSTANCE: &str = "instance";

/// What an answer is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FederationForm {
    /// Prometheus' text format.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily`.
    Protobuf,
}

/// How the samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FederationFormat {
    pub(crate) form: FederationForm,
    /// Names that are not plain are written as they are; else their odd characters become underscores.
    pub(crate) takes_odd_names: bool,
}

impl FederationFormat {
    /// What `Accept` asks for (several headers are one, with commas between): of the forms that there are the one with the
    /// highest quality, and of those that are alike the first; the text format without any. A quality outside of 0 to 1 is the nearer of these.
    pub(crate) fn of_accept(accept: &str) -> Self {
        let mut best = None;
        for entry in accept.split(',') {
            let entry = Entry::of(entry);
            let quality = entry.parameter("q").map_or(Ok(1.0), str::parse::<f64>);
            let quality = quality.map_or(0.0, |quality| quality.clamp(0.0, 1.0));
            let Some(form) = entry.form().filter(|_| quality > 0.0) else {
                continue;
            };
            if best.is_none_or(|(_, best)| quality > best) {
                let takes_odd_names = entry.is("escaping", "allow-utf-8");
                let format = Self {
                    form,
                    takes_odd_names,
                };
                best = Some((format, quality));
            }
        }
        let usual = Self {
            form: FederationForm::Text,
            takes_odd_names: false,
        };
        best.map_or(usual, |(format, _)| format)
    }

    /// The `Content-Type` of what is written.
    pub(crate) fn content_type(self) -> &'static str {
        use FederationForm::{OpenMetrics, Protobuf, Text};
        match (self.form, self.takes_odd_names) {
            (Text, false) => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            (Text, true) => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            (OpenMetrics, false) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            (OpenMetrics, true) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (Protobuf, false) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited; escaping=underscores"
            }
            (Protobuf, true) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited; escaping=allow-utf-8"
            }
        }
    }
}

/// An entry of an `Accept` header: `kind; name=value; name="value"`. Names do not care about case.
struct Entry<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Entry<'a> {
    fn of(entry: &'a str) -> Self {
        let mut parts = entry.split(';').map(str::trim);
        let kind = parts.next().unwrap_or("");
        let parameters = parts.filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            let value = value.trim();
            let unquoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            Some((name.trim(), unquoted.unwrap_or(value)))
        });
        Self {
            kind,
            parameters: parameters.collect(),
        }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let mut all = self.parameters.iter();
        all.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(*value))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        let found = self.parameter(name);
        found.is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    /// The form that it is about.
    fn form(&self) -> Option<FederationForm> {
        let is = |name: &str| self.kind.eq_ignore_ascii_case(name);
        let is_families = self.is("proto", "io.prometheus.client.MetricFamily")
            && self.is("encoding", "delimited");
        if is("application/openmetrics-text") {
            Some(FederationForm::OpenMetrics)
        } else if is("application/vnd.google.protobuf") && is_families {
            Some(FederationForm::Protobuf)
        } else {
            is("text/plain").then_some(FederationForm::Text)
        }
    }
}

/// The newest sample of a series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Newest {
    labels: Labels,
    time: Millis,
    value: Value,
}

/// What the samples of a family are; in the order in which families of one name follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Number,
    Histogram,
    GaugeHistogram,
}

impl Newest {
    /// The newest sample of a series, if the form has one for it.
    pub(crate) fn of(series: RawSeries, format: FederationFormat) -> Option<Self> {
        let (time, value) = (*series.timestamps.last()?, *series.values.last()?);
        name_of(&series.labels)?;
        let value = match is_histogram(value) {
            true if format.form == FederationForm::Protobuf => {
                let histogram = series.histograms.at(series.values.len() - 1)?;
                if !protobuf::can_tell(histogram) {
                    return None;
                }
                Value::Histogram(Arc::clone(histogram))
            }
            true => return None,
            false => Value::Float(value),
        };
        let is_marker = matches!(value, Value::Float(value) if is_stale(value));
        (!is_marker).then_some(Self {
            labels: series.labels,
            time,
            value,
        })
    }

    /// The memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let histogram = match &self.value {
            Value::Float(_) => 0,
            Value::Histogram(histogram) => histogram.bytes(),
        };
        size_of::<Self>() + self.labels.canonical().len() + histogram
    }

    fn is_custom(&self) -> bool {
        matches!(&self.value, Value::Histogram(histogram) if histogram.is_custom())
    }

    fn kind(&self) -> Kind {
        match &self.value {
            Value::Float(_) => Kind::Number,
            Value::Histogram(histogram) if histogram.reset_hint == ResetHint::Gauge => {
                Kind::GaugeHistogram
            }
            Value::Histogram(_) => Kind::Histogram,
        }
    }

    /// The labels but for the name, with one for the instance in any case.
    fn other_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let others = self.labels.iter().filter(|(n, _)| *n != LABEL_NAME_METRIC);
        let has_instance = self.labels.iter().any(|(name, _)| name == INSTANCE);
        others.chain((!has_instance).then_some((INSTANCE, "")))
    }
}

fn name_of(labels: &Labels) -> Option<&str> {
    let mut pairs = labels.iter();
    pairs
        .find(|(name, _)| *name == LABEL_NAME_METRIC)
        .map(|(_, value)| value)
}

/// The name of a sample's family as the answer has it: metrics whose names differ only in odd characters are one family
/// for who does not take those.
fn family_of(one: &Newest, format: FederationFormat) -> Cow<'_, str> {
    shown(name_of(&one.labels).unwrap_or_default(), true, format)
}

/// A name without quotes and escapes, as the answer has it.
fn shown(name: &str, colons: bool, format: FederationFormat) -> Cow<'_, str> {
    match format.takes_odd_names {
        true => Cow::Borrowed(name),
        false => plain_name(name, colons),
    }
}

/// The whole answer.
pub(crate) fn write_federation(mut newest: Vec<Newest>, format: FederationFormat) -> Vec<u8> {
    // What looks alike in the end belongs to one family.
    newest.sort_by_cached_key(|one| {
        let family = family_of(one, format).into_owned();
        (family, one.kind(), one.labels.clone())
    });
    if format.form == FederationForm::Protobuf {
        return protobuf::write_families(&newest, format);
    }
    let is_open_metrics = format.form == FederationForm::OpenMetrics;
    let mut out = Vec::new();
    let mut family = None;
    for one in &newest {
        let Value::Float(value) = one.value else {
            continue;
        };
        let name = family_of(one, format);
        if family.as_ref() != Some(&name) {
            out.extend_from_slice(b"# TYPE ");
            write_name(&mut out, &name, true, format);
            family = Some(name);
            let kind = if is_open_metrics {
                "unknown"
            } else {
                "untyped"
            };
            out.extend_from_slice(format!(" {kind}\n").as_bytes());
        }
        write_sample(&mut out, one, value, format);
    }
    if is_open_metrics {
        out.extend_from_slice(b"# EOF\n");
    }
    out
}

fn write_sample(out: &mut Vec<u8>, one: &Newest, value: f64, format: FederationFormat) {
    let name = name_of(&one.labels).unwrap_or_default();
    let is_inside = format.takes_odd_names && !is_plain(name, true);
    if !is_inside {
        write_name(out, name, true, format);
    }
    out.push(b'{');
    if is_inside {
        write_name(out, name, true, format);
        out.push(b',');
    }
    for (name, value) in one.other_labels() {
        write_name(out, name, false, format);
        out.push(b'=');
        write_quoted(out, value);
        out.push(b',');
    }
    out.pop();
    out.extend_from_slice(b"} ");
    write_float(out, value);
    out.push(b' ');
    match format.form {
        FederationForm::OpenMetrics => write_time(out, one.time),
        _ => out.extend_from_slice(one.time.to_string().as_bytes()),
    }
    out.push(b'\n');
}

fn is_plain(name: &str, colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fits)
}

fn write_name(out: &mut Vec<u8>, name: &str, colons: bool, format: FederationFormat) {
    if format.takes_odd_names && !is_plain(name, colons) {
        write_quoted(out, name);
    } else {
        out.extend_from_slice(plain_name(name, colons).as_bytes());
    }
}

/// The name with underscores for odd characters.
fn plain_name(name: &str, colons: bool) -> Cow<'_, str> {
    if is_plain(name, colons) {
        return Cow::Borrowed(name);
    }
    let plain = name.chars().enumerate().map(|(at, c)| {
        let fits = c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
        let fits = fits || (at > 0 && c.is_ascii_digit());
        if fits { c } else { '_' }
    });
    Cow::Owned(plain.collect())
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
        let series = RawSeries {
            labels: Labels::from_pairs(pairs.iter().copied()),
            timestamps: vec![500, 1500],
            values: vec![7.0, value],
            histograms: Histograms::default(),
        };
        Newest::of(series, FederationFormat::of_accept(""))
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
    fn names_that_look_alike_are_one_family() {
        let all = ["a.b", "a_a", "a_b"].into_iter().flat_map(|name| {
            let pairs = |value| [("__name__", name), ("instance", value)];
            [newest(&pairs("2"), 1.0), newest(&pairs("1"), 1.0)]
        });
        let all: Vec<_> = all.flatten().collect();
        let families = |accept: &str| {
            let text = write_federation(all.clone(), FederationFormat::of_accept(accept));
            let text = String::from_utf8(text).unwrap();
            let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(families(""), ["a_a untyped", "a_b untyped"]);
        let odd = "text/plain;escaping=allow-utf-8";
        let expected = ["\"a.b\" untyped", "a_a untyped", "a_b untyped"];
        assert_eq!(families(odd), expected);
    }

    #[test]
    fn the_best_known_form_is_taken() {
        use FederationForm::{OpenMetrics, Protobuf, Text};
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let open = "application/openmetrics-text;version=1.0.0";
        let check = |accept: &str, form| {
            let found = FederationFormat::of_accept(accept);
            assert_eq!(found.form, form, "{accept}");
        };
        check("", Text);
        check("*/*", Text);
        check(
            "application/json, application/openmetrics-text, text/plain",
            OpenMetrics,
        );
        check(
            "text/plain;q=0.5, application/openmetrics-text",
            OpenMetrics,
        );
        check(
            "text/plain;q=0.5, application/openmetrics-text; q=0.5",
            Text,
        );
        // What Prometheus sends when it scrapes native histograms.
        let scrape = format!("{protobuf};escaping=allow-utf-8;q=0.6,{open};q=0.5,*/*;q=0.2");
        check(&scrape, Protobuf);
        assert!(FederationFormat::of_accept(&scrape).takes_odd_names);
        let kind = FederationFormat::of_accept(&scrape).content_type();
        assert!(
            kind.ends_with("encoding=delimited; escaping=allow-utf-8"),
            "{kind}"
        );
        check(&format!("{protobuf};q=0.4,{open};q=0.5"), OpenMetrics);
        check(&format!("{protobuf};q=0,{open};q=x"), Text);
        check(&protobuf.replace("delimited", "text"), Text);
        // Case, spaces, quotes, and qualities that are none.
        for quality in ["Q=0.4", " q = 0.4 ", "q=\"0.4\""] {
            check(&format!("{protobuf};{quality},{open};q=0.5"), OpenMetrics);
        }
        for quality in ["q=inf", "q=7"] {
            check(&format!("{open},{protobuf};{quality}"), OpenMetrics);
        }
        for quality in ["q=-inf", "q=NaN", "q="] {
            check(&format!("{protobuf};{quality}"), Text);
        }
        check(
            "application/vnd.google.protobuf; Proto=\"io.prometheus.client.MetricFamily\"; Encoding=Delimited",
            Protobuf,
        );
        let odd = FederationFormat::of_accept("text/plain; Escaping=\"allow-utf-8\"");
        assert!(odd.takes_odd_names);
    }
}
