//! Turning expositions into write requests: a time for samples that name none, labels that the request adds to all of
//! them, and start timestamps where OpenMetrics says when counters began.

use super::{Dialect, Entry, Fact, Parser, line::MILLIS_MAX, protobuf};
use crate::{
    ApiError, WriteLimits, recycle,
    remote_write::{Exemplar, MetricKind, WriteRequest},
};
use trefoil_model::{LABEL_NAME_METRIC, Millis};

/// What a request says beside its body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportOptions {
    /// The time of samples that name none.
    pub time: Millis,
    /// Labels that every series gets; they replace its own of the same name. Names are unique.
    pub extra_labels: Vec<(String, String)>,
}

/// Reads a text into `out`, whose former content is lost. Each line becomes a series with one sample, but for the
/// `_created` of OpenMetrics: that is the start timestamp of the point's other samples.
///
/// # Errors
/// [`ApiError::BadLine`], [`ApiError::TooLarge`] by the number of samples; `out` is empty then.
pub fn import_text(
    text: &[u8],
    dialect: Dialect,
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    out.clear();
    let outcome = read_text(text, dialect, options, limits, out);
    if outcome.is_err() {
        out.clear();
    }
    outcome
}

/// Reads a sequence of delimited `io.prometheus.client.MetricFamily` into `out`, whose former content
/// is lost.
///
/// # Errors
/// [`ApiError::CorruptProtobuf`], [`ApiError::TooLarge`]; `out` is empty then.
pub fn import_protobuf(
    body: &[u8],
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    out.clear();
    let outcome = protobuf::read_families(body, options, limits, out);
    if outcome.is_err() {
        out.clear();
    }
    outcome
}

/// What was said about a family in the lines before.
#[derive(Default)]
struct Declared {
    family: String,
    help: String,
    unit: String,
    kind: MetricKind,
}

impl Declared {
    fn flush(&mut self, limits: &WriteLimits, out: &mut WriteRequest) {
        let texts = [&self.family, &self.help, &self.unit].map(|text| text.as_bytes());
        out.push_metadata(self.kind, texts, limits);
    }
}

/// The point of a metric that is read. Its samples are the last ones of the request.
#[derive(Default)]
struct Point {
    samples_start: usize,
    /// When its counters began, in milliseconds; 0 until a line says it.
    start: Millis,
}

impl Point {
    /// Gives its samples their start: the line that says it may stand behind them.
    fn finish(&mut self, out: &mut WriteRequest) {
        if self.start != 0 {
            out.set_start(self.samples_start, self.start);
        }
        *self = Self {
            samples_start: out.sample_count(),
            start: 0,
        };
    }
}

/// Milliseconds of seconds since 1970; 0, which says nothing, for what is no such time.
fn start_of(seconds: f64) -> Millis {
    let millis = (seconds * 1000.0).round();
    match (1.0..=MILLIS_MAX).contains(&millis) {
        true => millis as Millis,
        false => 0,
    }
}

fn read_text(
    text: &[u8],
    dialect: Dialect,
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    let mut parser = Parser::new(text, dialect)?;
    let mut point = Point::default();
    let mut declared = Declared::default();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    while let Some(entry) = parser.next_entry()? {
        match entry {
            Entry::Declaration { family, fact } => {
                if declared.family != family {
                    declared.flush(limits, out);
                    declared = Declared {
                        family: family.into_owned(),
                        ..Declared::default()
                    };
                }
                match fact {
                    Fact::Help(help) => declared.help = help.into_owned(),
                    Fact::Kind(kind) => declared.kind = kind,
                    Fact::Unit(unit) => unit.clone_into(&mut declared.unit),
                }
            }
            Entry::Sample(line) => {
                if line.place.begins_point {
                    point.finish(out);
                }
                if line.place.is_created {
                    point.start = start_of(line.value);
                    continue;
                }
                // The vector's memory is reused; the texts live only as long as the line.
                let mut reused = recycle(pairs);
                reused.push((LABEL_NAME_METRIC, line.metric.as_ref()));
                reused.extend(line.labels.iter().map(|(n, v)| (n.as_ref(), v.as_ref())));
                options.add_labels(&mut reused);
                let sample = (line.time.unwrap_or(options.time), line.value);
                out.push_series(&mut reused, [sample], limits)?;
                if let Some(exemplar) = &line.exemplar {
                    let labels = exemplar
                        .labels
                        .iter()
                        .map(|(n, v)| (n.as_ref(), v.as_ref()));
                    let time = exemplar.time.unwrap_or(sample.0);
                    let exemplar = Exemplar::of_pairs(labels, exemplar.value, time);
                    out.push_exemplar(&mut reused, exemplar, limits)?;
                }
                pairs = recycle(reused);
            }
        }
    }
    point.finish(out);
    declared.flush(limits, out);
    Ok(())
}

impl ImportOptions {
    /// Adds the request's own labels to a series.
    pub(crate) fn add_labels<'b>(&'b self, pairs: &mut Vec<(&'b str, &'b str)>) {
        for (name, value) in &self.extra_labels {
            pairs.retain(|(other, _)| other != name);
            pairs.push((name, value));
        }
    }
}
