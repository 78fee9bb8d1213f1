//! The messages of metrics, read one data point at a time.

use super::{
    exponential::{Exponential, zigzag},
    message::{KeyValue, push_attribute},
};
use crate::{
    ApiError,
    wire::{Reader, WireType},
};

/// A flag of data points: there was nothing to measure, and the series pauses here.
const FLAG_NO_RECORDED_VALUE: u64 = 1;
/// Buckets of a histogram and quantiles of a summary that are kept of a point; one with more is rejected. Each becomes
/// a series, and real ones have some hundreds.
pub(super) const PARTS_MAX: usize = 16 << 10;
/// Exemplars of a point that are looked at, the others are left out: SDKs keep one for each bucket at most.
const EXEMPLARS_MAX: usize = 1024;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataKind {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

/// What the values of a metric count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temporality {
    Unspecified,
    /// From the point before.
    Delta,
    /// From the start.
    Cumulative,
}

/// A metric without its data points.
#[derive(Clone, Copy)]
pub(super) struct Metric<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) unit: &'a str,
    pub(super) data: Option<Data<'a>>,
}

/// The data points of a metric.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    pub(super) kind: DataKind,
    pub(super) temporality: Temporality,
    pub(super) is_monotonic: bool,
    reader: Reader<'a>,
}

/// A data point of any kind. What its kind does not have stays empty.
#[derive(Default)]
pub(super) struct Point<'a> {
    pub(super) attributes: Vec<KeyValue<'a>>,
    /// When counting began, nanoseconds since 1970; 0 when the point does not say.
    pub(super) start: u64,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    flags: u64,
    /// The messages of its exemplars.
    pub(super) exemplars: Vec<Reader<'a>>,
    /// How many it had more than are looked at.
    pub(super) exemplars_beyond: u64,
    pub(super) value: Option<f64>,
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    /// Of the buckets, each for itself; the last one has no bound.
    pub(super) counts: Vec<u64>,
    /// Upper bounds, inclusive.
    pub(super) bounds: Vec<f64>,
    /// Quantiles and their values.
    pub(super) quantiles: Vec<(f64, f64)>,
    /// Whether it had more of them than are kept.
    pub(super) has_too_many_parts: bool,
    pub(super) exponential: Exponential,
}

impl<'a> Metric<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, ApiError> {
        let (mut name, mut description, mut unit, mut data) = ("", "", "", None);
        while !reader.is_at_end() {
            let (number, wire_type) = reader.tag("Metric")?;
            let kind = match (number, wire_type) {
                (1, WireType::Bytes) => {
                    name = reader.text("Metric.name")?;
                    continue;
                }
                (2, WireType::Bytes) => {
                    description = reader.text("Metric.description")?;
                    continue;
                }
                (3, WireType::Bytes) => {
                    unit = reader.text("Metric.unit")?;
                    continue;
                }
                (5, WireType::Bytes) => DataKind::Gauge,
                (7, WireType::Bytes) => DataKind::Sum,
                (9, WireType::Bytes) => DataKind::Histogram,
                (10, WireType::Bytes) => DataKind::Exponential,
                (11, WireType::Bytes) => DataKind::Summary,
                (_, wire_type) => {
                    reader.skip(wire_type, "Metric")?;
                    continue;
                }
            };
            data = Some(Data::read(kind, reader.message("Metric.data")?)?);
        }
        Ok(Self {
            name,
            description,
            unit,
            data,
        })
    }
}

impl<'a> Data<'a> {
    /// Reads what stands beside the data points.
    fn read(kind: DataKind, message: Reader<'a>) -> Result<Self, ApiError> {
        let mut reader = message;
        let (mut temporality, mut is_monotonic) = (0, false);
        while !reader.is_at_end() {
            match reader.tag("Metric.data")? {
                (2, WireType::Varint) => temporality = reader.varint("aggregation_temporality")?,
                (3, WireType::Varint) => is_monotonic = reader.varint("is_monotonic")? != 0,
                (_, wire_type) => reader.skip(wire_type, "Metric.data")?,
            }
        }
        Ok(Self {
            kind,
            temporality: match temporality {
                1 => Temporality::Delta,
                2 => Temporality::Cumulative,
                _ => Temporality::Unspecified,
            },
            is_monotonic,
            reader: message,
        })
    }

    /// Whether values of this kind count from something.
    pub(super) fn has_temporality(&self) -> bool {
        !matches!(self.kind, DataKind::Gauge | DataKind::Summary)
    }

    /// The messages of the data points.
    pub(super) fn points(&self) -> impl Iterator<Item = Result<Reader<'a>, ApiError>> {
        let mut reader = self.reader;
        let mut next = move || {
            while !reader.is_at_end() {
                match reader.tag("data_points")? {
                    (1, WireType::Bytes) => return reader.message("data_points").map(Some),
                    (_, wire_type) => reader.skip(wire_type, "data_points")?,
                }
            }
            Ok(None)
        };
        std::iter::from_fn(move || next().transpose())
    }
}

impl<'a> Point<'a> {
    fn clear(&mut self) {
        self.attributes.clear();
        self.counts.clear();
        self.bounds.clear();
        self.quantiles.clear();
        self.exponential.clear();
        self.start = 0;
        self.exemplars.clear();
        (self.time, self.flags, self.exemplars_beyond, self.count) = (0, 0, 0, 0);
        (self.value, self.sum) = (None, None);
        self.has_too_many_parts = false;
    }

    /// Whether the series pauses here.
    pub(super) fn is_stale(&self) -> bool {
        self.flags & FLAG_NO_RECORDED_VALUE != 0
    }

    /// Reads a data point over what was here.
    pub(super) fn read(&mut self, kind: DataKind, reader: Reader<'a>) -> Result<(), ApiError> {
        self.clear();
        match kind {
            DataKind::Gauge | DataKind::Sum => self.read_number(reader),
            DataKind::Histogram => self.read_histogram(reader),
            DataKind::Exponential => self.read_exponential(reader),
            DataKind::Summary => self.read_summary(reader),
        }
    }

    fn read_number(&mut self, mut reader: Reader<'a>) -> Result<(), ApiError> {
        const NAME: &str = "NumberDataPoint";
        while !reader.is_at_end() {
            match reader.tag(NAME)? {
                (2, WireType::Fixed64) => self.start = reader.fixed64(NAME)?,
                (3, WireType::Fixed64) => self.time = reader.fixed64(NAME)?,
                (4, WireType::Fixed64) => {
                    self.value = Some(f64::from_bits(reader.fixed64(NAME)?));
                }
                (6, WireType::Fixed64) => self.value = Some(reader.fixed64(NAME)? as i64 as f64),
                (7, WireType::Bytes) => {
                    push_attribute(reader.message(NAME)?, &mut self.attributes)?;
                }
                (8, WireType::Varint) => self.flags = reader.varint(NAME)?,
                (5, WireType::Bytes) => {
                    let exemplar = reader.message(NAME)?;
                    push_exemplar(exemplar, &mut self.exemplars, &mut self.exemplars_beyond);
                }
                (_, wire_type) => reader.skip(wire_type, NAME)?,
            }
        }
        Ok(())
    }

    fn read_histogram(&mut self, mut reader: Reader<'a>) -> Result<(), ApiError> {
        const NAME: &str = "HistogramDataPoint";
        while !reader.is_at_end() {
            match reader.tag(NAME)? {
                (2, WireType::Fixed64) => self.start = reader.fixed64(NAME)?,
                (3, WireType::Fixed64) => self.time = reader.fixed64(NAME)?,
                (4, WireType::Fixed64) => self.count = reader.fixed64(NAME)?,
                (5, WireType::Fixed64) => self.sum = Some(f64::from_bits(reader.fixed64(NAME)?)),
                (6, wire_type) => {
                    let (counts, too_many) = (&mut self.counts, &mut self.has_too_many_parts);
                    let push = |count| push_part(counts, count, too_many);
                    each_fixed64(&mut reader, wire_type, NAME, push)?;
                }
                (7, wire_type) => {
                    let (bounds, too_many) = (&mut self.bounds, &mut self.has_too_many_parts);
                    let push = |bits| push_part(bounds, f64::from_bits(bits), too_many);
                    each_fixed64(&mut reader, wire_type, NAME, push)?;
                }
                (9, WireType::Bytes) => {
                    push_attribute(reader.message(NAME)?, &mut self.attributes)?;
                }
                (10, WireType::Varint) => self.flags = reader.varint(NAME)?,
                (8, WireType::Bytes) => {
                    let exemplar = reader.message(NAME)?;
                    push_exemplar(exemplar, &mut self.exemplars, &mut self.exemplars_beyond);
                }
                (_, wire_type) => reader.skip(wire_type, NAME)?,
            }
        }
        Ok(())
    }

    fn read_exponential(&mut self, mut reader: Reader<'a>) -> Result<(), ApiError> {
        const NAME: &str = "ExponentialHistogramDataPoint";
        let exponential = &mut self.exponential;
        while !reader.is_at_end() {
            match reader.tag(NAME)? {
                (1, WireType::Bytes) => {
                    push_attribute(reader.message(NAME)?, &mut self.attributes)?;
                }
                (2, WireType::Fixed64) => self.start = reader.fixed64(NAME)?,
                (3, WireType::Fixed64) => self.time = reader.fixed64(NAME)?,
                (4, WireType::Fixed64) => self.count = reader.fixed64(NAME)?,
                (5, WireType::Fixed64) => self.sum = Some(f64::from_bits(reader.fixed64(NAME)?)),
                (6, WireType::Varint) => exponential.scale = zigzag(reader.varint(NAME)?),
                (7, WireType::Fixed64) => exponential.zero_count = reader.fixed64(NAME)?,
                (8, WireType::Bytes) => exponential.positive.read(reader.message(NAME)?)?,
                (9, WireType::Bytes) => exponential.negative.read(reader.message(NAME)?)?,
                (10, WireType::Varint) => self.flags = reader.varint(NAME)?,
                (14, WireType::Fixed64) => {
                    exponential.zero_threshold = f64::from_bits(reader.fixed64(NAME)?);
                }
                (11, WireType::Bytes) => {
                    let exemplar = reader.message(NAME)?;
                    push_exemplar(exemplar, &mut self.exemplars, &mut self.exemplars_beyond);
                }
                (_, wire_type) => reader.skip(wire_type, NAME)?,
            }
        }
        Ok(())
    }

    fn read_summary(&mut self, mut reader: Reader<'a>) -> Result<(), ApiError> {
        const NAME: &str = "SummaryDataPoint";
        while !reader.is_at_end() {
            match reader.tag(NAME)? {
                (2, WireType::Fixed64) => self.start = reader.fixed64(NAME)?,
                (3, WireType::Fixed64) => self.time = reader.fixed64(NAME)?,
                (4, WireType::Fixed64) => self.count = reader.fixed64(NAME)?,
                (5, WireType::Fixed64) => self.sum = Some(f64::from_bits(reader.fixed64(NAME)?)),
                (6, WireType::Bytes) => {
                    let quantile = read_quantile(reader.message(NAME)?)?;
                    push_part(&mut self.quantiles, quantile, &mut self.has_too_many_parts);
                }
                (7, WireType::Bytes) => {
                    push_attribute(reader.message(NAME)?, &mut self.attributes)?;
                }
                (8, WireType::Varint) => self.flags = reader.varint(NAME)?,
                (_, wire_type) => reader.skip(wire_type, NAME)?,
            }
        }
        Ok(())
    }
}

/// Keeps an exemplar, or counts it.
fn push_exemplar<'a>(exemplar: Reader<'a>, exemplars: &mut Vec<Reader<'a>>, beyond: &mut u64) {
    match exemplars.len() < EXEMPLARS_MAX {
        true => exemplars.push(exemplar),
        false => *beyond += 1,
    }
}

/// Keeps a bucket or quantile, or notes that there are too many.
fn push_part<T>(parts: &mut Vec<T>, part: T, has_too_many: &mut bool) {
    match parts.len() < PARTS_MAX {
        true => parts.push(part),
        false => *has_too_many = true,
    }
}

/// Numbers that stand for themselves or packed.
fn each_fixed64(
    reader: &mut Reader<'_>,
    wire_type: WireType,
    name: &'static str,
    mut push: impl FnMut(u64),
) -> Result<(), ApiError> {
    match wire_type {
        WireType::Fixed64 => push(reader.fixed64(name)?),
        WireType::Bytes => {
            let mut packed = reader.message(name)?;
            while !packed.is_at_end() {
                push(packed.fixed64(name)?);
            }
        }
        _ => return Err(reader.corrupt(name)),
    }
    Ok(())
}

fn read_quantile(mut reader: Reader<'_>) -> Result<(f64, f64), ApiError> {
    const NAME: &str = "ValueAtQuantile";
    let (mut quantile, mut value) = (0.0, 0.0);
    while !reader.is_at_end() {
        match reader.tag(NAME)? {
            (1, WireType::Fixed64) => quantile = f64::from_bits(reader.fixed64(NAME)?),
            (2, WireType::Fixed64) => value = f64::from_bits(reader.fixed64(NAME)?),
            (_, wire_type) => reader.skip(wire_type, NAME)?,
        }
    }
    Ok((quantile, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: DataKind, message: &[u8]) -> Point<'_> {
        let mut point = Point::default();
        let reader = Reader::new(message, message.len());
        point.read(kind, reader).unwrap();
        point
    }

    #[test]
    fn parts_are_bounded() {
        // Empty quantiles are two bytes each; a count is nine.
        let quantiles = |count: usize| b"\x32\x00".repeat(count);
        let most = quantiles(PARTS_MAX);
        assert!(!read(DataKind::Summary, &most).has_too_many_parts);
        let more = quantiles(PARTS_MAX + 1);
        let point = read(DataKind::Summary, &more);
        assert!(point.has_too_many_parts && point.quantiles.len() == PARTS_MAX);
        let counts = b"\x31\0\0\0\0\0\0\0\0".repeat(PARTS_MAX + 1);
        let point = read(DataKind::Histogram, &counts);
        assert!(point.has_too_many_parts && point.counts.len() == PARTS_MAX);
        let bounds = b"\x39\0\0\0\0\0\0\0\0".repeat(PARTS_MAX + 1);
        let point = read(DataKind::Histogram, &bounds);
        assert!(point.has_too_many_parts && point.bounds.len() == PARTS_MAX);
    }
}
