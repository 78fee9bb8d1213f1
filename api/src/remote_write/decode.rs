//! From compressed bytes to a [`WriteRequest`], checking on the way.
//!
//! What cannot be read at all (snappy, protobuf) refuses the whole request and nothing is stored. A
//! series that can be read but breaks a rule is left out and reported; the others are kept, as
//! Prometheus and Mimir do, because a retry of the same request would never help them.

use super::{
    request::{MetadataEnds, MetricKind, SeriesEnd, WriteRequest, pairs_of},
    short_copy::PaddedBuffer,
    snappy,
    wire::{Reader, UsualPair, WireType},
};
use crate::{ApiError, WriteLimits};
use std::cmp::Ordering;
use trefoil_model::LABEL_NAME_METRIC;

/// Tags of the fields that matter, as they appear in every encoder's output.
const TAG_LABELS: u8 = 1 << 3 | 2;
const TAG_SAMPLES: u8 = 2 << 3 | 2;
const TAG_NAME: u8 = 1 << 3 | 2;
const TAG_VALUE: u8 = 2 << 3 | 2;
const TAG_SAMPLE_VALUE: u8 = 1 << 3 | 1;
const TAG_SAMPLE_TIMESTAMP: u8 = 2 << 3;

/// What [`sort_key`] gives for `__name__`, which has just eight bytes.
const METRIC_NAME_KEY: u64 = u64::from_be_bytes(*b"__name__");
/// Bytes of a label's name that are shown in a message.
const NAME_SHOWN_BYTES_MAX: usize = 200;

/// Decodes write requests one after another; keeps the memory of the largest one it met.
#[derive(Debug, Default)]
pub struct Decoder {
    body: Vec<u8>,
}

/// Why a series is left out, before it is put into words.
#[derive(Clone, Copy)]
enum Broken {
    NoMetricName,
    EmptyName,
    OutOfOrder,
    Duplicate,
    NotUtf8,
    TooManyLabels,
    NameTooLong,
    ValueTooLong,
}

/// The labels of a series while they are read.
struct LabelsState<'a> {
    previous_name: &'a [u8],
    /// The first bytes of that name, as [`sort_key`] gives them.
    previous_key: u64,
    count: usize,
    has_metric_name: bool,
    /// The first broken rule, and the name and value at which it broke.
    broken: Option<(Broken, &'a [u8], &'a [u8])>,
}

impl Decoder {
    /// Decompresses and decodes a body of remote write 1.0 into `out`, whose former content is lost.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`], [`ApiError::CorruptSnappy`], [`ApiError::CorruptProtobuf`]; `out` is
    /// empty then.
    pub fn decode(
        &mut self,
        compressed: &[u8],
        limits: &WriteLimits,
        out: &mut WriteRequest,
    ) -> Result<(), ApiError> {
        out.clear();
        let length = snappy::decompress(compressed, limits, &mut self.body)?;
        let outcome = decode_body(&self.body, length, limits, out);
        if outcome.is_err() {
            out.clear();
        }
        outcome
    }

    /// Bytes of memory that the decoder holds for the next request.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.body.capacity()
    }
}

/// Decodes the first `length` bytes of a padded buffer.
fn decode_body(
    body: &[u8],
    length: usize,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    let mut reader = Reader::new(body, length);
    while !reader.is_at_end() {
        match reader.tag("WriteRequest")? {
            (1, WireType::Bytes) => {
                let series = reader.message("WriteRequest.timeseries")?;
                decode_series(series, limits, out)?;
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
) -> Result<(), ApiError> {
    let labels_start = out.canonical.len();
    let samples_start = out.samples.len();
    // Canonical labels are never longer than the message, so no later append has to grow the buffer.
    out.canonical.reserve(series.remaining());
    let mut state = LabelsState {
        previous_name: &[],
        previous_key: 0,
        count: 0,
        has_metric_name: false,
        broken: None,
    };
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
            _ => skip_unusual(&mut series, out)?,
        }
    }
    if out.samples.len() > limits.samples_max {
        return Err(ApiError::TooLarge {
            what: "number of samples in the request",
            size: out.samples.len() as u64,
            size_max: limits.samples_max as u64,
        });
    }
    finish_series(&state, limits, labels_start, samples_start, out);
    Ok(())
}

/// Fields of a series that are not kept yet, or not known.
#[cold]
fn skip_unusual(series: &mut Reader<'_>, out: &mut WriteRequest) -> Result<(), ApiError> {
    let (field, wire_type) = series.tag("TimeSeries")?;
    match field {
        1 | 2 => return Err(series.corrupt("TimeSeries")),
        3 => out.skipped_exemplars += 1,
        4 => out.skipped_histograms += 1,
        _ => {}
    }
    series.skip(wire_type, "TimeSeries")
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

impl<'a> LabelsState<'a> {
    /// Checks a label of the usual form and appends it: what [`LabelsState::push`] does, faster.
    #[inline(always)]
    fn push_usual(
        &mut self,
        buffer: &'a [u8],
        pair: UsualPair,
        limits: &WriteLimits,
        canonical: &mut PaddedBuffer,
    ) {
        let name = &buffer[pair.name_at..pair.name_at + pair.name_length];
        let key = sort_key(buffer, pair.name_at, pair.name_length);
        let is_allowed = pair.name_length <= limits.label_name_bytes_max
            && pair.value_length <= limits.label_value_bytes_max;
        if key <= self.previous_key || !is_allowed || pair.value_length == 0 {
            // Equal first bytes, or a broken rule: the slower way finds out.
            let value = &buffer[pair.value_at..pair.value_at + pair.value_length];
            self.push(name, value, limits, canonical);
            self.previous_key = key;
            return;
        }
        self.previous_name = name;
        self.previous_key = key;
        self.count += 1;
        self.has_metric_name |= key == METRIC_NAME_KEY && pair.name_length == 8;
        canonical.push_short(buffer, pair.name_at - 1, pair.name_length + 1);
        canonical.push_short(buffer, pair.value_at - 1, pair.value_length + 1);
    }

    /// Checks a label against the rules and the one before it, and appends it.
    fn push(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        limits: &WriteLimits,
        canonical: &mut PaddedBuffer,
    ) {
        let order = self.previous_name.cmp(name);
        if order != Ordering::Less
            || name.len() > limits.label_name_bytes_max
            || value.len() > limits.label_value_bytes_max
        {
            self.note_broken(name, value, order, limits);
        }
        self.previous_name = name;
        self.previous_key = u64::MAX;
        if value.is_empty() {
            // A label without a value is the same as no label.
            return;
        }
        self.count += 1;
        self.has_metric_name |= name == LABEL_NAME_METRIC.as_bytes();
        canonical.push_text(name);
        canonical.push_text(value);
    }

    #[cold]
    fn note_broken(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        order: Ordering,
        limits: &WriteLimits,
    ) {
        let rule = match order {
            _ if name.is_empty() => Broken::EmptyName,
            Ordering::Greater => Broken::OutOfOrder,
            Ordering::Equal => Broken::Duplicate,
            Ordering::Less if name.len() > limits.label_name_bytes_max => Broken::NameTooLong,
            Ordering::Less => Broken::ValueTooLong,
        };
        self.broken.get_or_insert((rule, name, value));
    }
}

/// The first eight bytes of a name as a number; a shorter name is filled up with zeros. Of two names
/// with different keys the one with the smaller key is the smaller name.
#[inline(always)]
fn sort_key(buffer: &[u8], at: usize, length: usize) -> u64 {
    let first = buffer[at..].first_chunk::<8>();
    // The buffer's padding is longer than eight bytes.
    let key = u64::from_be_bytes(*first.unwrap_or(&[0; 8]));
    if length >= 8 {
        key
    } else {
        key & !(u64::MAX >> (8 * length))
    }
}

/// Keeps the series or takes its parts out again.
fn finish_series(
    state: &LabelsState<'_>,
    limits: &WriteLimits,
    labels_start: usize,
    samples_start: usize,
    out: &mut WriteRequest,
) {
    let canonical = &out.canonical.as_slice()[labels_start..];
    let samples = out.samples.len() - samples_start;
    match find_broken(state, limits, canonical) {
        None if samples > 0 => {
            out.series.push(SeriesEnd {
                labels: out.canonical.len() as u32,
                samples: out.samples.len() as u32,
            });
            return;
        }
        None => {}
        Some((rule, name, value)) => out.refusals.add(samples as u64, || {
            let series = describe(canonical);
            explain(rule, name, value, &series, state.count, limits)
        }),
    }
    out.canonical.truncate(labels_start);
    out.samples.truncate(samples_start);
}

/// The first rule that the series breaks, with the name and value at which it breaks it.
#[inline(always)]
fn find_broken<'a>(
    state: &LabelsState<'a>,
    limits: &WriteLimits,
    canonical: &'a [u8],
) -> Option<(Broken, &'a [u8], &'a [u8])> {
    if state.broken.is_some() {
        return state.broken;
    }
    if !state.has_metric_name {
        return Some((Broken::NoMetricName, &[], &[]));
    }
    if state.count > limits.label_names_max {
        return Some((Broken::TooManyLabels, &[], &[]));
    }
    // Lengths below 128 are ASCII too, so one look at all labels is nearly always enough.
    if canonical.is_ascii() {
        return None;
    }
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    pairs_of(canonical)
        .find(|(name, value)| !is_text(name) || !is_text(value))
        .map(|(name, value)| (Broken::NotUtf8, name, value))
}

/// A series as people write it: `name{label="value", ...}`.
fn describe(canonical: &[u8]) -> String {
    let text = String::from_utf8_lossy;
    let is_name = |(name, _): &(&[u8], &[u8])| *name == LABEL_NAME_METRIC.as_bytes();
    let metric = pairs_of(canonical).find(is_name);
    let mut out = metric.map_or_else(String::new, |(_, value)| text(value).into_owned());
    out.push('{');
    for (index, (name, value)) in pairs_of(canonical).filter(|p| !is_name(p)).enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        out.push_str(&format!("{}={:?}", text(name), text(value)));
    }
    out.push('}');
    out
}

/// Why a series was left out, for the client.
fn explain(
    rule: Broken,
    name: &[u8],
    value: &[u8],
    series: &str,
    count: usize,
    limits: &WriteLimits,
) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    if text.len() > NAME_SHOWN_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NAME_SHOWN_BYTES_MAX));
        text.push_str("...");
    }
    let reason = match rule {
        Broken::NoMetricName => "has no metric name (label __name__)".to_owned(),
        Broken::EmptyName => {
            let value = String::from_utf8_lossy(value);
            format!("has a label with an empty name (value {value:?})")
        }
        Broken::OutOfOrder => format!("label {text:?} is out of order"),
        Broken::Duplicate => format!("label {text:?} appears twice"),
        Broken::NotUtf8 => format!("label {text:?} is not valid UTF-8"),
        Broken::TooManyLabels => format!(
            "has {count} labels, more than {} (max_label_names_per_series)",
            limits.label_names_max
        ),
        Broken::NameTooLong => format!(
            "label name {text:?} has {} bytes, more than {} (max_label_name_length)",
            name.len(),
            limits.label_name_bytes_max
        ),
        Broken::ValueTooLong => format!(
            "value of label {text:?} has {} bytes, more than {} (max_label_value_length)",
            value.len(),
            limits.label_value_bytes_max
        ),
    };
    format!("{reason}, in series {series}")
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
    let is_text = [metric, help, unit]
        .iter()
        .all(|text| std::str::from_utf8(text).is_ok());
    // Declarations are a courtesy: one that cannot be kept is no reason to refuse samples.
    if metric.is_empty() || !is_text || metric.len() > limits.label_value_bytes_max {
        return Ok(());
    }
    let cut = |text: &[u8]| {
        let text = std::str::from_utf8(text).unwrap_or_default();
        text.floor_char_boundary(limits.metadata_bytes_max)
    };
    let (help, unit) = (&help[..cut(help)], &unit[..cut(unit)]);
    let mut ends = [0; 3];
    for (end, text) in ends.iter_mut().zip([metric, help, unit]) {
        out.metadata_text.extend_from_slice(text);
        *end = out.metadata_text.len() as u32;
    }
    out.metadata.push(MetadataEnds {
        kind: MetricKind::from_number(kind),
        metric: ends[0],
        help: ends[1],
        unit: ends[2],
    });
    Ok(())
}
