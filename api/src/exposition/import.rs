//! Turning expositions into write requests: a time for samples that name none, labels that the request
//! adds to all of them.

use super::{Dialect, Entry, Fact, Parser, protobuf};
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

/// Reads a text into `out`, whose former content is lost. Each line becomes a series with one sample.
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

fn read_text(
    text: &[u8],
    dialect: Dialect,
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    let mut parser = Parser::new(text, dialect)?.taking_long_exemplars();
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
