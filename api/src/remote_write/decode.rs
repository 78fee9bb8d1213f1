//! From compressed bytes to a [`WriteRequest`], checking on the way.
//!
//! What cannot be read at all (snappy, protobuf) refuses the whole request and nothing is stored. A
//! series that can be read but breaks a rule is left out and reported; the others are kept, as
//! Prometheus and Mimir do, because a retry of the same request would never help them.

use super::{
    exemplar,
    extras::{FoundExemplars, Grant, RefusedHistograms},
    histogram,
    request::{MetricKind, WriteRequest},
    series::{LabelsState, finish_series},
    snappy,
    symbols::{self, Symbol},
};
use crate::{
    ApiError, WriteLimits,
    wire::{Reader, WireType},
};

/// Tags of the fields that matter, as they appear in every encoder's output.
const TAG_LABELS: u8 = 1 << 3 | 2;
const TAG_SAMPLES: u8 = 2 << 3 | 2;
const TAG_NAME: u8 = 1 << 3 | 2;
const TAG_VALUE: u8 = 2 << 3 | 2;
const TAG_SAMPLE_VALUE: u8 = 1 << 3 | 1;
const TAG_SAMPLE_TIMESTAMP: u8 = 2 << 3;

/// Decodes write requests one after another; keeps the memory of the largest one it met.
#[derive(Debug, Default)]
pub struct Decoder {
    body: Vec<u8>,
    symbols: Vec<Symbol>,
}

impl Decoder {
    /// As [`Decoder::decode_within`], with as much memory as the limits allow.
    ///
    /// # Errors
    /// As for [`Decoder::decode_within`].
    pub fn decode(
        &mut self,
        compressed: &[u8],
        limits: &WriteLimits,
        out: &mut WriteRequest,
    ) -> Result<(), ApiError> {
        self.decode_within(compressed, limits, out, &mut |_| Ok(()))
    }

    /// Decompresses and decodes a body of remote write 1.0 into `out`, whose former content is lost. Histograms and
    /// exemplars may take many times the body's size, each kind at most `decompressed_bytes_max`; `grow` is asked for
    /// their bytes, and its error ends the decoding.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`], [`ApiError::CorruptSnappy`], [`ApiError::CorruptProtobuf`], and what `grow` says; `out`
    /// is empty then.
    pub fn decode_within(
        &mut self,
        compressed: &[u8],
        limits: &WriteLimits,
        out: &mut WriteRequest,
        grow: &mut dyn FnMut(usize) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        out.clear();
        let length = snappy::decompress(compressed, limits, &mut self.body)?;
        let outcome = decode_body(&self.body, length, limits, out, &mut Grant::new(grow));
        if outcome.is_err() {
            out.clear();
        }
        outcome
    }

    /// Decompresses and decodes a body of remote write 2.0 into `out`, whose former content is lost. The
    /// labels, histograms and exemplars may take many times the body's size, each at most `decompressed_bytes_max`;
    /// `grow` is asked for their bytes, and its error ends the decoding.
    ///
    /// # Errors
    /// As [`Decoder::decode`], [`ApiError::BadData`] for a table of symbols that does not begin with an
    /// empty one, and the errors of `grow`.
    pub fn decode_symbols(
        &mut self,
        compressed: &[u8],
        limits: &WriteLimits,
        out: &mut WriteRequest,
        grow: &mut dyn FnMut(usize) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        out.clear();
        let length = snappy::decompress(compressed, limits, &mut self.body)?;
        let symbols = &mut self.symbols;
        let outcome = symbols::decode_request(&self.body, length, symbols, limits, out, grow);
        if outcome.is_err() {
            out.clear();
        }
        outcome
    }

    /// Bytes of memory that the decoder holds for the next request.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.body.capacity() + self.symbols.capacity() * size_of::<Symbol>()
    }
}

/// Decodes the first `length` bytes of a padded buffer.
fn decode_body(
    body: &[u8],
    length: usize,
    limits: &WriteLimits,
    out: &mut WriteRequest,
    grant: &mut Grant<'_>,
) -> Result<(), ApiError> {
    let mut reader = Reader::new(body, length);
    while !reader.is_at_end() {
        match reader.tag("WriteRequest")? {
            (1, WireType::Bytes) => {
                let series = reader.message("WriteRequest.timeseries")?;
                decode_series(series, limits, out, grant)?;
            }
            (3, WireType::Bytes) => {
                let metadata = reader.message("WriteRequest.metadata")?;
                decode_metadata(metadata, limits, out)?;
            }
            (_, wire_type) => reader.skip(wire_type, "WriteRequest")?,
        }
    }
    Ok(())
}

fn decode_series(
    mut series: Reader<'_>,
    limits: &WriteLimits,
    out: &mut WriteRequest,
    grant: &mut Grant<'_>,
) -> Result<(), ApiError> {
    let labels_start = out.canonical.len();
    let samples_start = out.samples.len();
    // Canonical labels are never longer than the message, so no later append has to grow the buffer.
    out.canonical.reserve(series.remaining());
    let mut state = LabelsState::default();
    let mut unusual = Unusual::default();
    loop {
        match series.peek() {
            TAG_LABELS => {
                series.skip_byte();
                if let Some(pair) = series.usual_pair() {
                    state.push_usual(series.buffer(), pair, limits, &mut out.canonical);
                    continue;
                }
                let label = series.message("TimeSeries.labels")?;
                let (name, value) = decode_label(label)?;
                state.push(name, value, limits, &mut out.canonical);
            }
            TAG_SAMPLES => {
                series.skip_byte();
                let sample = series.message("TimeSeries.samples")?;
                out.samples.push(decode_sample(sample)?);
            }
            _ if series.is_at_end() => break,
            _ => {
                read_unusual(&mut series, limits, out, &mut unusual)?;
                grant.ask(out.extra_bytes() + unusual.exemplars.bytes())?;
            }
        }
    }
    state.sort(limits, labels_start, &mut out.canonical);
    out.check_sample_count(limits)?;
    if !unusual.exemplars.is_empty() {
        out.keep_exemplars(&state, limits, labels_start, unusual.exemplars)?;
        grant.ask(out.extra_bytes())?;
    }
    out.refuse_histograms(
        &state,
        limits,
        unusual.refused,
        (labels_start, samples_start),
    );
    finish_series(&state, limits, labels_start, samples_start, out);
    Ok(())
}

/// What few series have.
#[derive(Default)]
struct Unusual {
    refused: RefusedHistograms,
    exemplars: FoundExemplars,
}

/// Fields that few series have, and those that are not known.
#[cold]
fn read_unusual(
    series: &mut Reader<'_>,
    limits: &WriteLimits,
    out: &mut WriteRequest,
    unusual: &mut Unusual,
) -> Result<(), ApiError> {
    let (field, wire_type) = series.tag("TimeSeries")?;
    match (field, wire_type) {
        (3, WireType::Bytes) => {
            let parts = exemplar::read(series.message("TimeSeries.exemplars")?)?;
            unusual.exemplars.push(parts.with_labels()?, limits)?;
        }
        (4, WireType::Bytes) => {
            let message = series.message("TimeSeries.histograms")?;
            match histogram::read_sample(message)? {
                Ok(sample) => out.push_histogram(sample, &mut unusual.refused, limits)?,
                Err(reason) => unusual.refused.add(reason),
            }
        }
        (1..=4, _) => return Err(series.corrupt("TimeSeries")),
        _ => series.skip(wire_type, "TimeSeries")?,
    }
    Ok(())
}

#[inline(always)]
fn decode_label<'a>(mut label: Reader<'a>) -> Result<(&'a [u8], &'a [u8]), ApiError> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    loop {
        match label.peek() {
            TAG_NAME => {
                label.skip_byte();
                name = label.bytes("Label.name")?;
            }
            TAG_VALUE => {
                label.skip_byte();
                value = label.bytes("Label.value")?;
            }
            _ if label.is_at_end() => return Ok((name, value)),
            _ => skip_unknown(&mut label, "Label")?,
        }
    }
}

#[inline(always)]
fn decode_sample(mut sample: Reader<'_>) -> Result<(i64, f64), ApiError> {
    let (mut timestamp, mut value) = (0, 0.0);
    loop {
        match sample.peek() {
            TAG_SAMPLE_VALUE => {
                sample.skip_byte();
                value = f64::from_bits(sample.fixed64("Sample.value")?);
            }
            TAG_SAMPLE_TIMESTAMP => {
                sample.skip_byte();
                timestamp = sample.varint("Sample.timestamp")? as i64;
            }
            _ if sample.is_at_end() => return Ok((timestamp, value)),
            _ => skip_unknown(&mut sample, "Sample")?,
        }
    }
}

/// A field of a later version of the protocol. A known field with another layout is corrupt.
#[cold]
fn skip_unknown(reader: &mut Reader<'_>, message: &'static str) -> Result<(), ApiError> {
    let (field, wire_type) = reader.tag(message)?;
    if field <= 2 {
        return Err(reader.corrupt(message));
    }
    reader.skip(wire_type, message)
}

fn decode_metadata(
    mut reader: Reader<'_>,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    let (mut kind, mut metric, mut help, mut unit) = (0, &b""[..], &b""[..], &b""[..]);
    while !reader.is_at_end() {
        match reader.tag("MetricMetadata")? {
            (1, WireType::Varint) => kind = reader.varint("MetricMetadata.type")?,
            (2, WireType::Bytes) => metric = reader.bytes("MetricMetadata.metric_family_name")?,
            (4, WireType::Bytes) => help = reader.bytes("MetricMetadata.help")?,
            (5, WireType::Bytes) => unit = reader.bytes("MetricMetadata.unit")?,
            (_, wire_type) => reader.skip(wire_type, "MetricMetadata")?,
        }
    }
    out.push_metadata(MetricKind::from_number(kind), [metric, help, unit], limits);
    Ok(())
}
