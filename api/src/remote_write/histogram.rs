//! Native histograms as the protocols carry them: read, checked and turned into the model's form.
//!
//! ```text
//! Histogram   uint64 count_int = 1 | double count_float = 2, double sum = 3, sint32 schema = 4,
//!             double zero_threshold = 5, uint64 zero_count_int = 6 | double zero_count_float = 7,
//!             repeated BucketSpan negative_spans = 8, repeated sint64 negative_deltas = 9,
//!             repeated double negative_counts = 10, positive ones = 11 to 13, enum reset_hint = 14,
//!             int64 timestamp = 15, repeated double custom_values = 16, (2.0) int64 start_timestamp = 17
//! BucketSpan  sint32 offset = 1, uint32 length = 2
//! ```
//! Both versions of remote write have the same message. Counts that are integers on the wire are numbers here, exact up
//! to 2^53.
//!
//! Source: `prompb/types.proto`, `io/prometheus/write/v2/types.proto` and the checks of `model/histogram` of Prometheus,
//! whose texts the refusals have.

use super::sample::{Sample, SampleValue};
use crate::{
    ApiError, WriteLimits, limit_refusals,
    wire::{Reader, WireType},
};
use std::sync::Arc;
use trefoil_model::{
    Histogram, Millis, ResetHint, STALE_MARKER_BITS,
    histogram::{BUCKETS_INGESTED_MAX, Buckets, SCHEMA_CUSTOM, SCHEMA_MAX, SCHEMA_MIN},
};

const NEGATIVE_COUNT: &str = "histogram has a bucket whose observation count is negative";

/// A histogram as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistogramParts {
    pub(crate) is_float: bool,
    pub(crate) count: f64,
    pub(crate) sum: f64,
    pub(crate) schema: i64,
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: f64,
    pub(crate) positive: SideParts,
    pub(crate) negative: SideParts,
    pub(crate) reset_hint: u64,
    pub(crate) custom_bounds: Vec<f64>,
}

/// The buckets of one side: integers as differences, or numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct SideParts {
    pub(crate) spans: Vec<(i32, u32)>,
    pub(crate) deltas: Vec<i64>,
    pub(crate) counts: Vec<f64>,
}

/// Reads a histogram of remote write. `Err` inside: why it is refused.
///
/// # Errors
/// [`ApiError::CorruptProtobuf`].
pub(crate) fn read_sample(mut reader: Reader<'_>) -> Result<Result<Sample, String>, ApiError> {
    let mut parts = HistogramParts::default();
    let (mut time, mut start): (Millis, Millis) = (0, 0);
    while !reader.is_at_end() {
        match reader.tag("Histogram")? {
            (1, WireType::Varint) => parts.count = reader.varint("Histogram.count")? as f64,
            (2, WireType::Fixed64) => {
                parts.count = double(&mut reader, "Histogram.count")?;
                parts.is_float = true;
            }
            (3, WireType::Fixed64) => parts.sum = double(&mut reader, "Histogram.sum")?,
            (4, WireType::Varint) => parts.schema = signed(&mut reader, "Histogram.schema")?,
            (5, WireType::Fixed64) => {
                parts.zero_threshold = double(&mut reader, "Histogram.zero_threshold")?;
            }
            (6, WireType::Varint) => {
                parts.zero_count = reader.varint("Histogram.zero_count")? as f64;
            }
            (7, WireType::Fixed64) => {
                parts.zero_count = double(&mut reader, "Histogram.zero_count")?
            }
            (field @ 8..=10, wire_type) => {
                parts.negative.read(field - 8, wire_type, &mut reader)?;
            }
            (field @ 11..=13, wire_type) => {
                parts.positive.read(field - 11, wire_type, &mut reader)?;
            }
            (14, WireType::Varint) => parts.reset_hint = reader.varint("Histogram.reset_hint")?,
            (15, WireType::Varint) => time = reader.varint("Histogram.timestamp")? as Millis,
            (16, wire_type) => {
                let bounds = &mut parts.custom_bounds;
                read_doubles(wire_type, &mut reader, "Histogram.custom_values", bounds)?;
            }
            (17, WireType::Varint) => start = reader.varint("Histogram.start_timestamp")? as Millis,
            (_, wire_type) => reader.skip(wire_type, "Histogram")?,
        }
    }
    Ok(parts
        .into_value()
        .map(|value| Sample { time, start, value }))
}

pub(crate) fn double(reader: &mut Reader<'_>, field: &'static str) -> Result<f64, ApiError> {
    reader.fixed64(field).map(f64::from_bits)
}

/// A number of one of protobuf's `sint` types.
pub(crate) fn signed(reader: &mut Reader<'_>, field: &'static str) -> Result<i64, ApiError> {
    let coded = reader.varint(field)?;
    Ok((coded >> 1) as i64 ^ -((coded & 1) as i64))
}

/// A repeated double of a histogram, packed or not. Keeps one more than a histogram may have.
pub(crate) fn read_doubles(
    wire_type: WireType,
    reader: &mut Reader<'_>,
    field: &'static str,
    out: &mut Vec<f64>,
) -> Result<(), ApiError> {
    match wire_type {
        WireType::Fixed64 => keep(out, double(reader, field)?),
        WireType::Bytes => {
            let mut packed = reader.message(field)?;
            while !packed.is_at_end() {
                keep(out, double(&mut packed, field)?);
            }
        }
        _ => return Err(reader.corrupt(field)),
    }
    Ok(())
}

impl SideParts {
    /// Reads one of a side's fields: 0 spans, 1 differences, 2 counts.
    pub(crate) fn read(
        &mut self,
        field: u64,
        wire_type: WireType,
        reader: &mut Reader<'_>,
    ) -> Result<(), ApiError> {
        match (field, wire_type) {
            (0, WireType::Bytes) => {
                let span = read_span(reader.message("Histogram.spans")?)?;
                keep(&mut self.spans, span);
            }
            (1, WireType::Varint) => keep(&mut self.deltas, signed(reader, "Histogram.deltas")?),
            (1, WireType::Bytes) => {
                let mut packed = reader.message("Histogram.deltas")?;
                while !packed.is_at_end() {
                    keep(&mut self.deltas, signed(&mut packed, "Histogram.deltas")?);
                }
            }
            (2, _) => read_doubles(wire_type, reader, "Histogram.counts", &mut self.counts)?,
            _ => return Err(reader.corrupt("Histogram")),
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.deltas.is_empty() && self.counts.is_empty()
    }

    /// The buckets, or why there are none.
    fn buckets(self, is_float: bool, may_skip_back: bool) -> Result<Buckets, String> {
        let Self {
            spans,
            deltas,
            mut counts,
        } = self;
        let most = spans.len().max(deltas.len()).max(counts.len());
        if most > BUCKETS_INGESTED_MAX {
            return Err(too_many_buckets());
        }
        if !is_float {
            counts.clear();
            let mut count = 0i64;
            for delta in deltas {
                count = count.wrapping_add(delta);
                counts.push(count as f64);
            }
        }
        let skips_back = |(index, (offset, _)): &(usize, &(i32, u32))| {
            *offset < 0 && (*index > 0 || !may_skip_back)
        };
        if let Some((index, (offset, _))) = spans.iter().enumerate().find(skips_back) {
            return Err(format!(
                "span number {} with offset {offset}: histogram has a span whose offset is negative",
                index + 1
            ));
        }
        let needed: u64 = spans.iter().map(|(_, length)| u64::from(*length)).sum();
        if needed != counts.len() as u64 {
            return Err(format!(
                "spans need {needed} buckets, have {} buckets: histogram spans specify different number of buckets than provided",
                counts.len()
            ));
        }
        let negative = counts.iter().position(|count| *count < 0.0);
        if let Some(index) = negative {
            return Err(format!(
                "bucket number {} has observation count of {}: {NEGATIVE_COUNT}",
                index + 1,
                counts[index]
            ));
        }
        Buckets::from_spans(&spans, counts).map_err(|error| error.to_string())
    }
}

fn read_span(mut span: Reader<'_>) -> Result<(i32, u32), ApiError> {
    let (mut offset, mut length) = (0, 0);
    while !span.is_at_end() {
        match span.tag("BucketSpan")? {
            (1, WireType::Varint) => offset = signed(&mut span, "BucketSpan.offset")?,
            (2, WireType::Varint) => length = span.varint("BucketSpan.length")?,
            (_, wire_type) => span.skip(wire_type, "BucketSpan")?,
        }
    }
    let fits = (i32::try_from(offset), u32::try_from(length));
    match fits {
        (Ok(offset), Ok(length)) => Ok((offset, length)),
        _ => Err(span.corrupt("BucketSpan")),
    }
}

impl HistogramParts {
    /// What is stored of it; `Err`: why it is refused.
    pub(crate) fn into_value(self) -> Result<SampleValue, String> {
        if self.sum.to_bits() == STALE_MARKER_BITS {
            return Ok(SampleValue::Float(self.sum));
        }
        let is_custom = self.schema == i64::from(SCHEMA_CUSTOM);
        let exponential = i64::from(SCHEMA_MIN)..=i64::from(SCHEMA_MAX);
        if is_custom {
            self.check_custom()?;
        } else if !exponential.contains(&self.schema) {
            return Err(format!(
                "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema {}",
                self.schema
            ));
        } else if !self.custom_bounds.is_empty() {
            return Err("histogram with exponential schema must not have custom bounds".to_owned());
        }
        let side = |name: &'static str| move |error: String| format!("{name} side: {error}");
        let is_float = self.is_float;
        let named = if is_custom { "custom" } else { "positive" };
        let histogram = Histogram {
            schema: self.schema as i8,
            reset_hint: match self.reset_hint {
                1 => ResetHint::Reset,
                2 => ResetHint::NotReset,
                3 => ResetHint::Gauge,
                _ => ResetHint::Unknown,
            },
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum: self.sum,
            positive: self
                .positive
                .buckets(is_float, !is_custom)
                .map_err(side(named))?,
            negative: self
                .negative
                .buckets(is_float, true)
                .map_err(side("negative"))?,
            custom_bounds: self.custom_bounds.into(),
        };
        if !is_float {
            check_count(&histogram)?;
        }
        if histogram.zero_count < 0.0 || histogram.count < 0.0 {
            return Err(NEGATIVE_COUNT.to_owned());
        }
        settle(histogram)
    }

    fn check_custom(&self) -> Result<(), String> {
        let fail = |text: &str| Err(format!("custom buckets: {text}"));
        if self.custom_bounds.len() > BUCKETS_INGESTED_MAX {
            return Err(too_many_buckets());
        }
        if !self.custom_bounds.is_sorted_by(|a, b| a < b) {
            return fail("histogram custom bounds must be in strictly increasing order");
        }
        if self.custom_bounds.iter().any(|bound| !bound.is_finite()) {
            return fail("histogram custom bounds must be finite");
        }
        let spans = self.positive.spans.iter();
        let reach: i64 = spans
            .map(|(offset, length)| i64::from(*offset) + i64::from(*length))
            .sum();
        if reach > self.custom_bounds.len() as i64 + 1 {
            return fail("histogram custom bounds are too few");
        }
        if self.zero_count != 0.0 {
            return fail("must have zero count of 0");
        }
        if self.zero_threshold != 0.0 {
            return fail("must have zero threshold of 0");
        }
        if !self.negative.spans.is_empty() {
            return fail("must not have negative spans");
        }
        if !self.negative.is_empty() {
            return fail("must not have negative buckets");
        }
        Ok(())
    }
}

/// Compares the number of all observations with those in buckets; for counts that are whole numbers.
///
/// # Errors
/// In words, when they do not fit.
pub(crate) fn check_count(histogram: &Histogram) -> Result<(), String> {
    let sides = [&histogram.positive, &histogram.negative];
    let in_buckets: f64 = sides.iter().flat_map(|side| side.counts()).sum();
    let (found, count) = (in_buckets + histogram.zero_count, histogram.count);
    let reason = match histogram.sum.is_nan() {
        true if found > count => {
            "should be at least the number of observations found in the buckets"
        }
        false if found != count => {
            "should equal the number of observations found in the buckets (in absence of NaN)"
        }
        _ => return Ok(()),
    };
    Err(format!(
        "{found} observations found in buckets, but the Count field is {count}: histogram's observation count {reason}"
    ))
}

fn too_many_buckets() -> String {
    format!("has a histogram of more than {BUCKETS_INGESTED_MAX} buckets")
}

/// Keeps an item of a histogram, up to one more than a histogram may have of anything: it is refused by that.
fn keep<T>(items: &mut Vec<T>, item: T) {
    if items.len() <= BUCKETS_INGESTED_MAX {
        items.push(item);
    }
}

/// As [`settle`], within the limits of a tenant: of too many buckets, always two become one until they fit, if the tenant
/// wants that. Exponential buckets can be reduced so, custom ones cannot.
pub(super) fn settle_within(
    histogram: Histogram,
    limits: &WriteLimits,
) -> Result<SampleValue, String> {
    if !limits.native_histograms {
        return Err(limit_refusals::no_native_histograms());
    }
    let settled = settle(histogram)?;
    let most = limits.native_buckets_max;
    let SampleValue::Histogram(histogram) = &settled else {
        return Ok(settled);
    };
    let buckets = |histogram: &Histogram| histogram.positive.len() + histogram.negative.len();
    let found = buckets(histogram);
    if most == 0 || found <= most {
        return Ok(settled);
    }
    if !limits.reduces_native_buckets {
        return Err(limit_refusals::too_many_native_buckets(found, most));
    }
    let mut reduced = Histogram::clone(histogram);
    while buckets(&reduced) > most {
        if reduced.is_custom() || reduced.schema <= SCHEMA_MIN {
            return Err(limit_refusals::not_reducible_native_buckets(found, most));
        }
        reduced.reduce_schema(reduced.schema - 1);
    }
    Ok(SampleValue::Histogram(Arc::new(reduced)))
}

/// A histogram in the form in which it is stored; `Err`: why it cannot be. One whose sum is the stale marker is that
/// number. "There was no reset" says nothing that a comparison would not find, and would be wrong once a sample that
/// comes later lies in between.
fn settle(mut histogram: Histogram) -> Result<SampleValue, String> {
    if histogram.sum.to_bits() == STALE_MARKER_BITS {
        return Ok(SampleValue::Float(histogram.sum));
    }
    histogram.check().map_err(|error| error.to_string())?;
    let buckets = histogram.positive.len() + histogram.negative.len();
    if buckets.max(histogram.custom_bounds.len()) > BUCKETS_INGESTED_MAX {
        return Err(too_many_buckets());
    }
    if histogram.reset_hint == ResetHint::NotReset {
        histogram.reset_hint = ResetHint::Unknown;
    }
    Ok(SampleValue::Histogram(Arc::new(histogram)))
}
