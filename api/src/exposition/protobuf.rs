//! Prometheus' protobuf exposition.
//!
//! ```text
//! body          = *(varint length | MetricFamily)
//! MetricFamily    string name = 1, string help = 2, enum type = 3, repeated Metric = 4, string unit = 5
//! Metric          repeated LabelPair = 1, Gauge = 2, Counter = 3, Summary = 4, Untyped = 5,
//!                 int64 timestamp_ms = 6, Histogram = 7
//! LabelPair       string name = 1, string value = 2
//! Gauge, Counter, Untyped  double value = 1, (Counter) Exemplar = 2, (Counter) Timestamp created_timestamp = 3
//! Summary         uint64 sample_count = 1, double sample_sum = 2, repeated Quantile = 3,
//!                 Timestamp created_timestamp = 4
//! Timestamp       int64 seconds = 1, int32 nanos = 2
//! Exemplar        repeated LabelPair = 1, double value = 2, Timestamp = 3
//! Quantile        double quantile = 1, double value = 2
//! Histogram       uint64 sample_count = 1, double sample_sum = 2, repeated Bucket = 3,
//!                 double sample_count_float = 4, sint32 schema = 5, double zero_threshold = 6,
//!                 uint64 zero_count = 7, double zero_count_float = 8, negative spans, deltas, counts = 9 to 11,
//!                 positive ones = 12 to 14, Timestamp created_timestamp = 15, repeated Exemplar = 16
//! Bucket          uint64 cumulative_count = 1, double upper_bound = 2, Exemplar = 3,
//!                 double cumulative_count_float = 4
//! ```
//! Source: `metrics.proto` of the Prometheus client model.

use super::import::ImportOptions;
use crate::{
    ApiError, WriteLimits,
    number::write_bound,
    remote_write::{
        Exemplar, HistogramParts, MetricKind, Sample, SampleValue, WriteRequest, double, signed,
    },
    wire::{Reader, WireType},
};
use trefoil_model::{LABEL_NAME_METRIC, Millis};

/// "Gauge" among the reset hints of remote write.
const GAUGE_HINT: u64 = 3;

/// What all series of a metric share.
struct Metric<'a> {
    family: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    time: Millis,
}

/// Where series go.
struct Sink<'s> {
    options: &'s ImportOptions,
    limits: &'s WriteLimits,
    out: &'s mut WriteRequest,
}

/// Reads all families of a body.
pub(super) fn read_families(
    body: &[u8],
    options: &ImportOptions,
    limits: &WriteLimits,
    out: &mut WriteRequest,
) -> Result<(), ApiError> {
    let mut reader = Reader::new(body, body.len());
    let mut sink = Sink {
        options,
        limits,
        out,
    };
    while !reader.is_at_end() {
        let family = reader.message("MetricFamily")?;
        read_family(family, &mut sink)?;
    }
    Ok(())
}

fn text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, ApiError> {
    let bytes = reader.bytes(field)?;
    std::str::from_utf8(bytes).map_err(|_| reader.corrupt(field))
}

/// Reads a family in two passes, because its name may stand behind its metrics.
fn read_family(family: Reader<'_>, sink: &mut Sink<'_>) -> Result<(), ApiError> {
    let (mut name, mut help, mut unit, mut kind) = ("", "", "", 0);
    let mut reader = family;
    while !reader.is_at_end() {
        match reader.tag("MetricFamily")? {
            (1, WireType::Bytes) => name = text(&mut reader, "MetricFamily.name")?,
            (2, WireType::Bytes) => help = text(&mut reader, "MetricFamily.help")?,
            (3, WireType::Varint) => kind = reader.varint("MetricFamily.type")?,
            (5, WireType::Bytes) => unit = text(&mut reader, "MetricFamily.unit")?,
            (_, wire_type) => reader.skip(wire_type, "MetricFamily")?,
        }
    }
    if name.is_empty() {
        return Err(family.corrupt("MetricFamily.name"));
    }
    let kind = match kind {
        0 => MetricKind::Counter,
        1 => MetricKind::Gauge,
        2 => MetricKind::Summary,
        4 => MetricKind::Histogram,
        5 => MetricKind::GaugeHistogram,
        _ => MetricKind::Unknown,
    };
    let texts = [name, help, unit].map(str::as_bytes);
    sink.out.push_metadata(kind, texts, sink.limits);
    let mut reader = family;
    while !reader.is_at_end() {
        match reader.tag("MetricFamily")? {
            (4, WireType::Bytes) => {
                let metric = reader.message("MetricFamily.metric")?;
                read_metric(name, kind, metric, sink)?;
            }
            (_, wire_type) => reader.skip(wire_type, "MetricFamily")?,
        }
    }
    Ok(())
}

fn read_metric(
    family: &str,
    kind: MetricKind,
    message: Reader<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), ApiError> {
    let mut metric = Metric {
        family,
        labels: Vec::new(),
        time: sink.options.time,
    };
    let mut reader = message;
    while !reader.is_at_end() {
        match reader.tag("Metric")? {
            (1, WireType::Bytes) => {
                let mut pair = reader.message("Metric.label")?;
                metric.labels.push(read_label(&mut pair)?);
            }
            (6, WireType::Varint) => {
                metric.time = reader.varint("Metric.timestamp_ms")? as i64;
            }
            (_, wire_type) => reader.skip(wire_type, "Metric")?,
        }
    }
    let mut reader = message;
    while !reader.is_at_end() {
        match reader.tag("Metric")? {
            (2 | 3 | 5, WireType::Bytes) => {
                let (value, start, exemplar) =
                    read_value(reader.message("Metric.value")?, metric.time)?;
                let sample = Sample {
                    time: metric.time,
                    start,
                    value: SampleValue::Float(value),
                };
                sink.push_sample(&metric, "", None, sample)?;
                sink.push_exemplars(&metric, "", None, exemplar)?;
            }
            (4, WireType::Bytes) => read_summary(&metric, reader.message("Metric.summary")?, sink)?,
            (7, WireType::Bytes) => {
                let histogram = reader.message("Metric.histogram")?;
                read_histogram(&metric, kind, histogram, sink)?;
            }
            (_, wire_type) => reader.skip(wire_type, "Metric")?,
        }
    }
    Ok(())
}

fn read_label<'a>(pair: &mut Reader<'a>) -> Result<(&'a str, &'a str), ApiError> {
    let (mut name, mut value) = ("", "");
    while !pair.is_at_end() {
        match pair.tag("LabelPair")? {
            (1, WireType::Bytes) => name = text(pair, "LabelPair.name")?,
            (2, WireType::Bytes) => value = text(pair, "LabelPair.value")?,
            (_, wire_type) => pair.skip(wire_type, "LabelPair")?,
        }
    }
    Ok((name, value))
}

/// An exemplar that was read; `None` inside when it cannot be kept.
type FoundExemplar = Option<Exemplar>;

/// The value of a gauge, a counter or an untyped metric, when a counter began, and its exemplar.
fn read_value(
    mut reader: Reader<'_>,
    time: Millis,
) -> Result<(f64, Millis, Option<FoundExemplar>), ApiError> {
    let (mut value, mut start, mut exemplar) = (0.0, 0, None);
    while !reader.is_at_end() {
        match reader.tag("Counter")? {
            (1, WireType::Fixed64) => value = double(&mut reader, "Counter.value")?,
            (3, WireType::Bytes) => {
                start = read_time(reader.message("Counter.created_timestamp")?)?;
            }
            (2, WireType::Bytes) => {
                exemplar = Some(read_exemplar(reader.message("Counter.exemplar")?, time)?);
            }
            (_, wire_type) => reader.skip(wire_type, "Counter")?,
        }
    }
    Ok((value, start, exemplar))
}

/// An exemplar; without a time it has that of the metric.
fn read_exemplar(mut reader: Reader<'_>, time: Millis) -> Result<FoundExemplar, ApiError> {
    let (mut labels, mut value, mut time) = (Vec::new(), 0.0, time);
    while !reader.is_at_end() {
        match reader.tag("Exemplar")? {
            (1, WireType::Bytes) => {
                labels.push(read_label(&mut reader.message("Exemplar.label")?)?);
            }
            (2, WireType::Fixed64) => value = double(&mut reader, "Exemplar.value")?,
            (3, WireType::Bytes) => time = read_time(reader.message("Exemplar.timestamp")?)?,
            (_, wire_type) => reader.skip(wire_type, "Exemplar")?,
        }
    }
    Ok(Exemplar::of_pairs(labels, value, time))
}

/// Milliseconds of a `google.protobuf.Timestamp`.
fn read_time(mut reader: Reader<'_>) -> Result<Millis, ApiError> {
    let (mut seconds, mut nanos) = (0, 0);
    while !reader.is_at_end() {
        match reader.tag("Timestamp")? {
            (1, WireType::Varint) => seconds = reader.varint("Timestamp.seconds")? as i64,
            (2, WireType::Varint) => nanos = reader.varint("Timestamp.nanos")? as i64,
            (_, wire_type) => reader.skip(wire_type, "Timestamp")?,
        }
    }
    Ok(seconds
        .saturating_mul(1_000)
        .saturating_add(nanos / 1_000_000))
}

fn read_summary(
    metric: &Metric<'_>,
    mut reader: Reader<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), ApiError> {
    let (mut count, mut sum, mut start) = (0, 0.0, 0);
    let samples_start = sink.out.sample_count();
    while !reader.is_at_end() {
        match reader.tag("Summary")? {
            (1, WireType::Varint) => count = reader.varint("Summary.sample_count")?,
            (2, WireType::Fixed64) => sum = double(&mut reader, "Summary.sample_sum")?,
            (3, WireType::Bytes) => {
                let quantile = reader.message("Summary.quantile")?;
                let (quantile, value) = read_quantile(quantile)?;
                sink.push(metric, "", Some(("quantile", quantile)), value)?;
            }
            (4, WireType::Bytes) => {
                start = read_time(reader.message("Summary.created_timestamp")?)?;
            }
            (_, wire_type) => reader.skip(wire_type, "Summary")?,
        }
    }
    sink.push(metric, "_sum", None, sum)?;
    sink.push(metric, "_count", None, count as f64)?;
    sink.set_start(samples_start, start);
    Ok(())
}

fn read_quantile(mut reader: Reader<'_>) -> Result<(f64, f64), ApiError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    while !reader.is_at_end() {
        match reader.tag("Quantile")? {
            (1, WireType::Fixed64) => quantile = double(&mut reader, "Quantile.quantile")?,
            (2, WireType::Fixed64) => value = double(&mut reader, "Quantile.value")?,
            (_, wire_type) => reader.skip(wire_type, "Quantile")?,
        }
    }
    Ok((quantile, value))
}

/// Reads a histogram: a native one when it has native buckets, classic series when it has classic buckets or nothing
/// else.
fn read_histogram(
    metric: &Metric<'_>,
    kind: MetricKind,
    mut reader: Reader<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), ApiError> {
    let (mut count, mut start, mut last_bound) = (0.0, 0, None);
    let samples_start = sink.out.sample_count();
    let mut exemplars = Vec::new();
    let mut native = HistogramParts::default();
    while !reader.is_at_end() {
        match reader.tag("Histogram")? {
            (1, WireType::Varint) => count = reader.varint("Histogram.sample_count")? as f64,
            (2, WireType::Fixed64) => native.sum = double(&mut reader, "Histogram.sample_sum")?,
            (3, WireType::Bytes) => {
                let bucket = reader.message("Histogram.bucket")?;
                let (bound, value, exemplar) = read_bucket(bucket, metric.time)?;
                let label = Some(("le", bound));
                sink.push(metric, "_bucket", label, value)?;
                sink.push_exemplars(metric, "_bucket", label, exemplar)?;
                last_bound = Some(bound);
            }
            (4, WireType::Fixed64) => {
                count = double(&mut reader, "Histogram.sample_count_float")?;
                native.is_float |= count > 0.0;
            }
            (field @ 5..=14, wire_type) => {
                read_native(&mut native, field, wire_type, &mut reader)?;
            }
            (15, WireType::Bytes) => {
                start = read_time(reader.message("Histogram.created_timestamp")?)?;
            }
            (16, WireType::Bytes) => {
                let exemplar = reader.message("Histogram.exemplars")?;
                exemplars.push(read_exemplar(exemplar, metric.time)?);
            }
            (_, wire_type) => reader.skip(wire_type, "Histogram")?,
        }
    }
    let sum = native.sum;
    if is_native(&native) {
        native.count = count;
        // One without observations may list buckets.
        let sides = [&native.positive, &native.negative];
        native.is_float |= sides.iter().any(|side| !side.counts.is_empty());
        native.reset_hint = match kind {
            MetricKind::GaugeHistogram => GAUGE_HINT,
            _ => 0,
        };
        sink.push_histogram(metric, start, native)?;
        sink.push_exemplars(metric, "", None, exemplars)?;
        if last_bound.is_none() {
            return Ok(());
        }
    }
    if last_bound != Some(f64::INFINITY) {
        sink.push(metric, "_bucket", Some(("le", f64::INFINITY)), count)?;
    }
    let suffixes = match kind {
        MetricKind::GaugeHistogram => ["_gsum", "_gcount"],
        _ => ["_sum", "_count"],
    };
    sink.push(metric, suffixes[0], None, sum)?;
    sink.push(metric, suffixes[1], None, count)?;
    sink.set_start(samples_start, start);
    Ok(())
}

/// Reads a field that only native histograms have: schema, zero bucket, spans, differences, counts.
fn read_native(
    native: &mut HistogramParts,
    field: u64,
    wire_type: WireType,
    reader: &mut Reader<'_>,
) -> Result<(), ApiError> {
    match (field, wire_type) {
        (5, WireType::Varint) => native.schema = signed(reader, "Histogram.schema")?,
        (6, WireType::Fixed64) => {
            native.zero_threshold = double(reader, "Histogram.zero_threshold")?;
        }
        (7, WireType::Varint) => native.zero_count = reader.varint("Histogram.zero_count")? as f64,
        (8, WireType::Fixed64) => {
            native.zero_count = double(reader, "Histogram.zero_count_float")?;
            native.is_float |= native.zero_count > 0.0;
        }
        (9..=11, _) => native.negative.read(field - 9, wire_type, reader)?,
        (12..=14, _) => native.positive.read(field - 12, wire_type, reader)?,
        _ => return Err(reader.corrupt("Histogram")),
    }
    Ok(())
}

/// Whether there is a native histogram. One without observations has a span of length zero, so that it can be told.
fn is_native(parts: &HistogramParts) -> bool {
    let has_spans = !parts.positive.spans.is_empty() || !parts.negative.spans.is_empty();
    has_spans || parts.zero_threshold > 0.0 || parts.zero_count > 0.0
}

/// A bucket's bound, count and exemplar.
fn read_bucket(
    mut reader: Reader<'_>,
    time: Millis,
) -> Result<(f64, f64, Option<FoundExemplar>), ApiError> {
    let (mut bound, mut count, mut exemplar) = (0.0, 0.0, None);
    while !reader.is_at_end() {
        match reader.tag("Bucket")? {
            (1, WireType::Varint) => count = reader.varint("Bucket.cumulative_count")? as f64,
            (2, WireType::Fixed64) => bound = double(&mut reader, "Bucket.upper_bound")?,
            (4, WireType::Fixed64) => count = double(&mut reader, "Bucket.cumulative_count_float")?,
            (3, WireType::Bytes) => {
                exemplar = Some(read_exemplar(reader.message("Bucket.exemplar")?, time)?);
            }
            (_, wire_type) => reader.skip(wire_type, "Bucket")?,
        }
    }
    Ok((bound, count, exemplar))
}

impl Sink<'_> {
    /// Stores a sample of `family + suffix`, with a label that holds a number where the type has one.
    fn push(
        &mut self,
        metric: &Metric<'_>,
        suffix: &str,
        label: Option<(&str, f64)>,
        value: f64,
    ) -> Result<(), ApiError> {
        self.push_sample(metric, suffix, label, Sample::float(metric.time, value))
    }

    /// Gives the samples from a place on their start timestamp, if the metric says one: it may stand behind them.
    fn set_start(&mut self, samples_start: usize, start: Millis) {
        if start != 0 {
            self.out.set_start(samples_start, start);
        }
    }

    fn push_histogram(
        &mut self,
        metric: &Metric<'_>,
        start: Millis,
        parts: HistogramParts,
    ) -> Result<(), ApiError> {
        match parts.into_value() {
            Ok(value) => {
                let time = metric.time;
                self.push_sample(metric, "", None, Sample { time, start, value })
            }
            Err(reason) => {
                let family = metric.family;
                self.out
                    .refuse(|| format!("{reason}, in histogram {family}"));
                Ok(())
            }
        }
    }

    fn push_sample(
        &mut self,
        metric: &Metric<'_>,
        suffix: &str,
        label: Option<(&str, f64)>,
        sample: Sample,
    ) -> Result<(), ApiError> {
        let (out, limits) = (&mut *self.out, self.limits);
        with_labels(self.options, metric, suffix, label, |pairs| {
            out.push_samples(pairs, [sample], limits)
        })
    }

    /// Keeps exemplars of the series that [`Sink::push_sample`] makes of the same arguments.
    fn push_exemplars(
        &mut self,
        metric: &Metric<'_>,
        suffix: &str,
        label: Option<(&str, f64)>,
        exemplars: impl IntoIterator<Item = FoundExemplar>,
    ) -> Result<(), ApiError> {
        for exemplar in exemplars {
            let (out, limits) = (&mut *self.out, self.limits);
            with_labels(self.options, metric, suffix, label, |pairs| {
                out.push_exemplar(pairs, exemplar, limits)
            })?;
        }
        Ok(())
    }
}

/// Calls `then` with the labels of the series `family + suffix`.
fn with_labels<R>(
    options: &ImportOptions,
    metric: &Metric<'_>,
    suffix: &str,
    label: Option<(&str, f64)>,
    then: impl FnOnce(&mut [(&str, &str)]) -> R,
) -> R {
    let name = format!("{}{suffix}", metric.family);
    let bound = label.map(|(name, bound)| (name, write_bound(bound)));
    let mut pairs = Vec::with_capacity(metric.labels.len() + 2);
    pairs.push((LABEL_NAME_METRIC, name.as_str()));
    pairs.extend_from_slice(&metric.labels);
    if let Some((name, bound)) = &bound {
        pairs.push((*name, bound.as_str()));
    }
    options.add_labels(&mut pairs);
    then(&mut pairs)
}
