//! Remote write 2.0: series that name their labels by numbers of a table of symbols.
//!
//! ```text
//! Request     repeated string symbols = 4, repeated TimeSeries = 5
//! TimeSeries  packed uint32 labels_refs = 1, repeated Sample = 2, repeated Histogram = 3,
//!             repeated Exemplar = 4, Metadata = 5, int64 created_timestamp = 6 (before 2.0 was final)
//! Sample      double value = 1, int64 timestamp = 2, int64 start_timestamp = 3
//! Metadata    enum type = 1, uint32 help_ref = 3, uint32 unit_ref = 4
//! ```
//! A few bytes can name long labels, so what comes out may be much larger than what came in: it is
//! announced to the caller before it grows, and ends at a bound. Histograms are drawn in `histogram`, exemplars in
//! `exemplar`.
//!
//! Source: the remote write 2.0 specification and `io/prometheus/write/v2/types.proto` of Prometheus.

use super::{
    exemplar,
    extras::{FoundExemplars, Grant, RefusedHistograms},
    histogram,
    request::{MetricKind, WriteRequest},
    series::{LabelsState, finish_series},
};
use crate::{
    ApiError, WriteLimits,
    wire::{Reader, UsualPair, WireType},
};
use std::collections::HashSet;
use trefoil_model::Millis;

/// Longer texts have more than one byte for their length.
const SHORT_BYTES: usize = 0x80;

/// Where a symbol stands in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    at: u32,
    length: u32,
}

/// A series' declaration, by symbols: type, metric's name, help, unit.
type Declaration = (u64, Symbol, u64, u64);

/// A request in work.
struct Decoding<'d> {
    buffer: &'d [u8],
    symbols: &'d [Symbol],
    limits: &'d WriteLimits,
    out: &'d mut WriteRequest,
    /// What was declared already: type, and places of metric, help and unit.
    declared: HashSet<[u64; 4]>,
    /// Asked before labels, histograms and exemplars take more bytes.
    grant: Grant<'d>,
}

/// Decodes the first `length` bytes of a padded buffer. `grow` is asked before the labels, histograms and exemplars of
/// all series take so many bytes.
///
/// # Errors
/// [`ApiError::CorruptProtobuf`], [`ApiError::BadData`], [`ApiError::TooLarge`], and what `grow` says.
pub(super) fn decode_request(
    buffer: &[u8],
    length: usize,
    symbols: &mut Vec<Symbol>,
    limits: &WriteLimits,
    out: &mut WriteRequest,
    grow: &mut dyn FnMut(usize) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    read_symbols(Reader::new(buffer, length), symbols)?;
    let mut decoding = Decoding {
        buffer,
        symbols,
        limits,
        out,
        declared: HashSet::new(),
        grant: Grant::new(grow),
    };
    let mut reader = Reader::new(buffer, length);
    while !reader.is_at_end() {
        match reader.tag("Request")? {
            (5, WireType::Bytes) => decoding.series(reader.message("Request.timeseries")?)?,
            (_, wire_type) => reader.skip(wire_type, "Request")?,
        }
    }
    Ok(())
}

/// Finds all symbols. They may stand behind the series.
fn read_symbols(mut reader: Reader<'_>, symbols: &mut Vec<Symbol>) -> Result<(), ApiError> {
    symbols.clear();
    while !reader.is_at_end() {
        match reader.tag("Request")? {
            (4, WireType::Bytes) => {
                let text = reader.bytes("Request.symbols")?;
                symbols.push(Symbol {
                    at: (reader.position() - text.len()) as u32,
                    length: text.len() as u32,
                });
            }
            (_, wire_type) => reader.skip(wire_type, "Request")?,
        }
    }
    match symbols.first() {
        Some(first) if first.length > 0 => Err(ApiError::BadData(
            "the first symbol of the request must be empty".to_owned(),
        )),
        _ => Ok(()),
    }
}

impl<'d> Decoding<'d> {
    fn symbol(&self, reference: u64) -> Option<Symbol> {
        let index = usize::try_from(reference).ok()?;
        self.symbols.get(index).copied()
    }

    fn text(&self, symbol: Symbol) -> &'d [u8] {
        let at = symbol.at as usize;
        &self.buffer[at..at + symbol.length as usize]
    }

    fn series(&mut self, mut reader: Reader<'d>) -> Result<(), ApiError> {
        let (labels_start, samples_start) = (self.out.canonical.len(), self.out.samples.len());
        let mut labels = LabelsState::default();
        let (mut wrong, mut declaration) = (None, None);
        let (mut refused, mut exemplars) =
            (RefusedHistograms::default(), FoundExemplars::default());
        let (mut metric, mut created) = (None, 0);
        while !reader.is_at_end() {
            match reader.tag("TimeSeries")? {
                (1, WireType::Bytes) => {
                    let references = reader.message("TimeSeries.labels_refs")?;
                    let read = self.labels(references, &mut labels, &mut metric)?;
                    wrong = wrong.or(read);
                }
                (2, WireType::Bytes) => {
                    let message = reader.message("TimeSeries.samples")?;
                    let (time, value, start) = read_sample(message)?;
                    self.out.push_number(time, value, start);
                }
                (3, WireType::Bytes) => {
                    let message = reader.message("TimeSeries.histograms")?;
                    match histogram::read_sample(message)? {
                        Ok(sample) => {
                            self.out.push_histogram(sample, &mut refused, self.limits)?;
                        }
                        Err(reason) => refused.add(reason),
                    }
                    self.grant_extras(&exemplars)?;
                }
                (4, WireType::Bytes) => {
                    let parts = exemplar::read(reader.message("TimeSeries.exemplars")?)?;
                    let text = |reference| self.symbol(reference).map(|s| self.text(s));
                    exemplars.push(parts.with_symbols(text)?, self.limits)?;
                    self.grant_extras(&exemplars)?;
                }
                (5, WireType::Bytes) => {
                    declaration = Some(read_metadata(reader.message("TimeSeries.metadata")?)?);
                }
                (6, WireType::Varint) => {
                    created = reader.varint("TimeSeries.created_timestamp")? as Millis;
                }
                (1..=5, _) => return Err(reader.corrupt("TimeSeries")),
                (_, wire_type) => reader.skip(wire_type, "TimeSeries")?,
            }
        }
        self.out.check_sample_count(self.limits)?;
        if created != 0 {
            self.out.set_start(samples_start, created);
        }
        let samples = (self.out.samples.len() - samples_start) as u64;
        if let Some(reason) = wrong {
            self.out.canonical.truncate(labels_start);
            self.out.truncate_samples(samples_start);
            let samples = samples + refused.count();
            self.out.refusals.add(samples, || reason);
            return Ok(());
        }
        labels.sort(self.limits, labels_start, &mut self.out.canonical);
        let before = self.out.series.len();
        if samples + refused.count() == 0 && exemplars.is_empty() {
            self.out.refuse_empty(labels_start);
        }
        self.out
            .keep_exemplars(&labels, self.limits, labels_start, exemplars)?;
        self.grant_extras(&FoundExemplars::default())?;
        let starts = (labels_start, samples_start);
        self.out
            .refuse_histograms(&labels, self.limits, refused, starts);
        finish_series(&labels, self.limits, labels_start, samples_start, self.out);
        if let (true, Some(declared), Some(metric)) =
            (self.out.series.len() > before, declaration, metric)
        {
            self.declare((declared.0, metric, declared.1, declared.2));
        }
        Ok(())
    }

    /// Reads pairs of references and appends their labels. Returns why the series cannot be kept when
    /// they do not name labels.
    fn labels(
        &mut self,
        mut references: Reader<'d>,
        state: &mut LabelsState<'d>,
        metric: &mut Option<Symbol>,
    ) -> Result<Option<String>, ApiError> {
        let field = "TimeSeries.labels_refs";
        while !references.is_at_end() {
            let name = references.varint(field)?;
            if references.is_at_end() {
                return Ok(Some("a series has an odd number of references".to_owned()));
            }
            let value = references.varint(field)?;
            let (Some(name), Some(value)) = (self.symbol(name), self.symbol(value)) else {
                let count = self.symbols.len();
                let reason = format!(
                    "a series refers to the symbols {name} and {value}, but there are {count}"
                );
                return Ok(Some(reason));
            };
            // A series with too many labels is refused; its rest is not written out.
            if state.count() > self.limits.label_names_most() {
                state.count_only();
                continue;
            }
            self.grant(name.length as usize + value.length as usize)?;
            let is_short = name.length < SHORT_BYTES as u32 && value.length < SHORT_BYTES as u32;
            if is_short {
                let pair = UsualPair {
                    name_at: name.at as usize,
                    name_length: name.length as usize,
                    value_at: value.at as usize,
                    value_length: value.length as usize,
                };
                let room = pair.name_length + pair.value_length + 2;
                self.out.canonical.reserve(room);
                state.push_usual(self.buffer, pair, self.limits, &mut self.out.canonical);
            } else {
                let (name, value) = (self.text(name), self.text(value));
                state.push(name, value, self.limits, &mut self.out.canonical);
            }
            if value.length > 0 && self.text(name) == b"__name__" {
                *metric = Some(value);
            }
        }
        Ok(None)
    }

    /// Asks for bytes of labels before they are written.
    fn grant(&mut self, more: usize) -> Result<(), ApiError> {
        let wanted = self.out.canonical.len() + more;
        let size_max = self.limits.decompressed_bytes_max;
        if wanted > size_max {
            return Err(ApiError::TooLarge {
                what: "size of all labels of the request",
                size: wanted as u64,
                size_max: size_max as u64,
            });
        }
        self.grant.ask(wanted + self.out.extra_bytes())
    }

    /// Asks for the bytes of what only some series have, with the exemplars of the series in work.
    fn grant_extras(&mut self, found: &FoundExemplars) -> Result<(), ApiError> {
        let extra_bytes = self.out.extra_bytes() + found.bytes();
        self.grant.ask(self.out.canonical.len() + extra_bytes)
    }

    /// Keeps a declaration, once.
    fn declare(&mut self, (kind, metric, help, unit): Declaration) {
        let (Some(help), Some(unit)) = (self.symbol(help), self.symbol(unit)) else {
            return;
        };
        let is_empty = kind == 0 && help.length == 0 && unit.length == 0;
        let place = |symbol: Symbol| u64::from(symbol.at) << 32 | u64::from(symbol.length);
        let key = [kind, place(metric), place(help), place(unit)];
        if is_empty || !self.declared.insert(key) {
            return;
        }
        let texts = [metric, help, unit].map(|symbol| self.text(symbol));
        self.out
            .push_metadata(MetricKind::from_number(kind), texts, self.limits);
    }
}

/// A number with its time and, when the sender says it, the start of its counter.
fn read_sample(mut reader: Reader<'_>) -> Result<(Millis, f64, Millis), ApiError> {
    let (mut time, mut value, mut start) = (0, 0.0, 0);
    while !reader.is_at_end() {
        match reader.tag("Sample")? {
            (1, WireType::Fixed64) => value = f64::from_bits(reader.fixed64("Sample.value")?),
            (2, WireType::Varint) => time = reader.varint("Sample.timestamp")? as Millis,
            (3, WireType::Varint) => start = reader.varint("Sample.start_timestamp")? as Millis,
            (1..=3, _) => return Err(reader.corrupt("Sample")),
            (_, wire_type) => reader.skip(wire_type, "Sample")?,
        }
    }
    Ok((time, value, start))
}

/// Type, help and unit.
fn read_metadata(mut reader: Reader<'_>) -> Result<(u64, u64, u64), ApiError> {
    let (mut kind, mut help, mut unit) = (0, 0, 0);
    while !reader.is_at_end() {
        match reader.tag("Metadata")? {
            (1, WireType::Varint) => kind = reader.varint("Metadata.type")?,
            (3, WireType::Varint) => help = reader.varint("Metadata.help_ref")?,
            (4, WireType::Varint) => unit = reader.varint("Metadata.unit_ref")?,
            (_, wire_type) => reader.skip(wire_type, "Metadata")?,
        }
    }
    Ok((kind, help, unit))
}
