//! A decoded write request in flat buffers.
//!
//! ```text
//! series[i]  -> labels:  canonical[labels_end of i-1 .. labels_end of i]   (model::Labels' bytes)
//!            -> samples: samples[samples_end of i-1 .. samples_end of i]   (as they came)
//! ```
//! Histograms and start timestamps stand beside the samples, by their places; a request without any pays nothing.
//! Only series that passed the checks are here; the others are in [`Refusals`].

use super::{
    extras::Extra,
    sample::{Exemplar, Sample, SampleValue},
    series::{LabelsState, describe, finish_series},
    short_copy::PaddedBuffer,
};
use crate::{ApiError, WriteLimits};
use trefoil_model::{Labels, Millis, read_varint};

/// Longest text kept about a refused series.
const REFUSAL_BYTES_MAX: usize = 1024;
/// How many refusals are kept as text; all are counted.
const REFUSALS_KEPT_MAX: usize = 10;

/// What a client sent, checked. Reusable: decoding into it again keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct WriteRequest {
    pub(super) canonical: PaddedBuffer,
    pub(super) samples: Vec<(Millis, f64)>,
    pub(super) series: Vec<SeriesEnd>,
    pub(super) metadata_text: Vec<u8>,
    pub(super) metadata: Vec<MetadataEnds>,
    pub(super) refusals: Refusals,
    pub(super) skipped_exemplars: u64,
    /// What only some samples have, ascending by sample.
    pub(super) extras: Vec<Extra>,
    /// Memory of all histograms, about.
    pub(super) histogram_bytes: usize,
    /// Exemplars with their series.
    pub(super) exemplars: Vec<(Labels, Exemplar)>,
    /// Memory of all exemplars, about.
    pub(super) exemplar_bytes: usize,
}

/// Where a series' parts end; they begin where those of the series before it end.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesEnd {
    pub(super) labels: u32,
    pub(super) samples: u32,
}

/// Where the texts of a metadata entry end.
#[derive(Clone, Copy, Debug)]
pub(super) struct MetadataEnds {
    pub(super) kind: MetricKind,
    pub(super) metric: u32,
    pub(super) help: u32,
    pub(super) unit: u32,
}

/// What a metric family is declared as. The numbers are those of `prometheus.MetricMetadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum MetricKind {
    /// Not declared.
    #[default]
    Unknown = 0,
    /// Only rises.
    Counter = 1,
    /// Rises and falls.
    Gauge = 2,
    /// Buckets, count and sum.
    Histogram = 3,
    /// Buckets of a gauge.
    GaugeHistogram = 4,
    /// Quantiles, count and sum.
    Summary = 5,
    /// A constant 1 whose labels inform.
    Info = 6,
    /// One of several states.
    StateSet = 7,
}

impl MetricKind {
    /// All kinds, by number.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// The kind with this number; an unknown number is [`MetricKind::Unknown`].
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        Self::ALL.get(index).copied().unwrap_or_default()
    }

    /// The name in Prometheus' metadata API and in the exposition format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

/// Series that were left out of a request, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// How many series were left out, or some of their samples.
    pub series: u64,
    /// Those of them that keep other samples.
    pub partly: u64,
    /// How many samples were left out.
    pub samples: u64,
    /// The first of them with the reason, for the client.
    pub reasons: Vec<String>,
}

impl Refusals {
    /// Counts a refused series and keeps the first few reasons.
    pub fn add(&mut self, samples: u64, reason: impl FnOnce() -> String) {
        self.add_series((1, 0), samples, reason);
    }

    /// Counts series that are refused for one reason, all of them and those that keep other samples.
    pub fn add_series(
        &mut self,
        (series, partly): (u64, u64),
        samples: u64,
        reason: impl FnOnce() -> String,
    ) {
        self.series += series;
        self.partly += partly;
        self.samples += samples;
        if self.reasons.len() < REFUSALS_KEPT_MAX {
            let mut reason = reason();
            if reason.len() > REFUSAL_BYTES_MAX {
                reason.truncate(reason.floor_char_boundary(REFUSAL_BYTES_MAX));
                reason.push_str("...");
            }
            self.reasons.push(reason);
        }
    }

    /// Whether every series was accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series == 0
    }

    pub(super) fn clear(&mut self) {
        self.series = 0;
        self.partly = 0;
        self.samples = 0;
        self.reasons.clear();
    }
}

/// Why something of a series is refused, with its labels.
#[must_use]
pub fn refused_of_series(reason: &str, labels: &Labels) -> String {
    // Reasons that say what to do are whole sentences.
    let reason = reason.strip_suffix('.').unwrap_or(reason);
    format!("{reason}, in series {labels}")
}

/// One series of a request with at least one sample.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRef<'a> {
    canonical: &'a [u8],
    samples: &'a [(Millis, f64)],
    /// The place of its first sample in the request.
    first: u32,
    extras: &'a [Extra],
}

impl<'a> SeriesRef<'a> {
    /// The labels in the canonical bytes of [`Labels`]: sorted, unique, UTF-8, none empty, with a
    /// metric name.
    #[must_use]
    pub fn canonical(&self) -> &'a [u8] {
        self.canonical
    }

    /// The samples (time in milliseconds, value) in the order in which they came; at least one. The value has no meaning
    /// for a histogram.
    #[must_use]
    pub fn samples(&self) -> &'a [(Millis, f64)] {
        self.samples
    }

    /// Whether there are only numbers without start timestamps.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let is_number = |extra: &Extra| extra.histogram.is_none() && extra.start == 0;
        self.extras.iter().all(is_number)
    }

    /// The samples with all that they have, in the order in which they came.
    pub fn whole_samples(&self) -> impl Iterator<Item = Sample> + use<'a> {
        let mut extras = self.extras.iter().peekable();
        (self.first..)
            .zip(self.samples)
            .map(move |(place, &(time, value))| {
                let extra = extras.next_if(|extra| extra.sample == place);
                let histogram = extra.and_then(|extra| extra.histogram.clone());
                Sample {
                    time,
                    start: extra.map_or(0, |extra| extra.start),
                    value: histogram.map_or(SampleValue::Float(value), SampleValue::Histogram),
                }
            })
    }

    /// The labels as a value of their own. Allocates.
    #[must_use]
    pub fn to_labels(&self) -> Labels {
        // The bytes were checked when the request was decoded, so this cannot fail.
        Labels::from_canonical(self.canonical).unwrap_or_default()
    }
}

/// A metric family's declaration in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataRef<'a> {
    /// Name of the family.
    pub metric: &'a str,
    /// Declared kind.
    pub kind: MetricKind,
    /// One sentence for people; may be empty.
    pub help: &'a str,
    /// Base unit; may be empty.
    pub unit: &'a str,
}

impl WriteRequest {
    /// The accepted series, in the order in which they came. A series may appear more than once.
    pub fn series(&self) -> impl ExactSizeIterator<Item = SeriesRef<'_>> {
        let canonical = self.canonical.as_slice();
        let (mut labels, mut samples) = (0, 0);
        let mut extras = &self.extras[..];
        self.series.iter().map(move |end| {
            let of_series = extras.partition_point(|extra| extra.sample < end.samples);
            let (own, behind) = extras.split_at(of_series);
            extras = behind;
            let series = SeriesRef {
                canonical: &canonical[labels..end.labels as usize],
                samples: &self.samples[samples..end.samples as usize],
                first: samples as u32,
                extras: own,
            };
            (labels, samples) = (end.labels as usize, end.samples as usize);
            series
        })
    }

    /// The accepted exemplars with their series, in the order in which they came.
    #[must_use]
    pub fn exemplars(&self) -> &[(Labels, Exemplar)] {
        &self.exemplars
    }

    /// The declarations of metric families, in the order in which they came.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = MetadataRef<'_>> {
        let mut start = 0;
        self.metadata.iter().map(move |ends| {
            // Checked when the request was decoded.
            let text = |from: u32, to: u32| {
                let bytes = &self.metadata_text[from as usize..to as usize];
                std::str::from_utf8(bytes).unwrap_or_default()
            };
            let entry = MetadataRef {
                metric: text(start, ends.metric),
                kind: ends.kind,
                help: text(ends.metric, ends.help),
                unit: text(ends.help, ends.unit),
            };
            start = ends.unit;
            entry
        })
    }

    /// How many series were accepted.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// How many samples were accepted, histograms included.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.samples.len()
    }

    /// How many of them came as histograms, stale ones included.
    #[must_use]
    pub fn histogram_count(&self) -> usize {
        let extras = self.extras.iter();
        extras.filter(|extra| extra.was_histogram).count()
    }

    /// What was left out.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// How many exemplars were left out, because their labels are too long or wrong.
    #[must_use]
    pub fn skipped_exemplars(&self) -> u64 {
        self.skipped_exemplars
    }

    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty() && self.metadata.is_empty() && self.exemplars.is_empty()
    }

    /// Bytes of memory that the buffers hold.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.canonical.capacity()
            + self.samples.capacity() * size_of::<(Millis, f64)>()
            + self.extras.capacity() * size_of::<Extra>()
            + self.exemplars.capacity() * size_of::<(Labels, Exemplar)>()
            + self.histogram_bytes
            + self.exemplar_bytes
            + self.series.capacity() * size_of::<SeriesEnd>()
            + self.metadata_text.capacity()
            + self.metadata.capacity() * size_of::<MetadataEnds>()
    }

    /// Takes what was left out of another request over.
    pub(crate) fn take_refusals_of(&mut self, other: &mut Self) {
        self.refusals = std::mem::take(&mut other.refusals);
    }

    /// Adds a series under the same rules as remote write's: what breaks one is refused and counted, all
    /// else is kept. The pairs are sorted on the way; a series without samples is left out.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`] when the request has more samples than the limit, or when the labels of all
    /// series are longer than a body may be.
    pub(crate) fn push_series(
        &mut self,
        pairs: &mut [(&str, &str)],
        samples: impl IntoIterator<Item = (Millis, f64)>,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        let (labels_start, samples_start) = (self.canonical.len(), self.samples.len());
        let state = self.push_labels(pairs, limits);
        self.samples.extend(samples);
        self.finish_pushed(&state, (labels_start, samples_start), limits)
    }

    pub(super) fn push_labels<'p>(
        &mut self,
        pairs: &'p mut [(&str, &str)],
        limits: &WriteLimits,
    ) -> LabelsState<'p> {
        pairs.sort_unstable_by_key(|(name, _)| *name);
        let mut state = LabelsState::default();
        for (name, value) in pairs.iter() {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            state.push(name, value, limits, &mut self.canonical);
        }
        state
    }

    pub(super) fn finish_pushed(
        &mut self,
        state: &LabelsState<'_>,
        (labels_start, samples_start): (usize, usize),
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        self.check_sample_count(limits)?;
        // A line with many fields repeats its labels for each of them.
        if self.canonical.len() > limits.decompressed_bytes_max {
            return Err(ApiError::TooLarge {
                what: "size of all labels of the request",
                size: self.canonical.len() as u64,
                size_max: limits.decompressed_bytes_max as u64,
            });
        }
        finish_series(state, limits, labels_start, samples_start, self);
        Ok(())
    }

    /// Adds a declaration: name of the family, help, unit. One that cannot be kept is dropped and long
    /// texts are cut, because declarations are a courtesy and no reason to refuse samples.
    pub(crate) fn push_metadata(
        &mut self,
        kind: MetricKind,
        [metric, help, unit]: [&[u8]; 3],
        limits: &WriteLimits,
    ) {
        let is_text = [metric, help, unit]
            .iter()
            .all(|text| std::str::from_utf8(text).is_ok());
        if metric.is_empty() || !is_text || metric.len() > limits.label_value_bytes_max {
            return;
        }
        let cut = |text: &[u8]| {
            let text = std::str::from_utf8(text).unwrap_or_default();
            text.floor_char_boundary(limits.metadata_bytes_max)
        };
        let (help, unit) = (&help[..cut(help)], &unit[..cut(unit)]);
        let mut ends = [0; 3];
        for (end, text) in ends.iter_mut().zip([metric, help, unit]) {
            self.metadata_text.extend_from_slice(text);
            *end = self.metadata_text.len() as u32;
        }
        self.metadata.push(MetadataEnds {
            kind,
            metric: ends[0],
            help: ends[1],
            unit: ends[2],
        });
    }

    /// Refuses that series because it holds nothing.
    pub(super) fn refuse_empty(&mut self, labels_start: usize) {
        let canonical = &self.canonical.as_slice()[labels_start..];
        self.refusals.add(0, || {
            let series = describe(canonical);
            format!("has neither samples nor histograms, in series {series}")
        });
    }

    /// Refuses one sample.
    pub(crate) fn refuse(&mut self, reason: impl FnOnce() -> String) {
        self.refusals.add(1, reason);
    }

    /// # Errors
    /// [`ApiError::TooLarge`] when there are more samples, or more memory of histograms, than a request may have.
    pub(super) fn check_sample_count(&self, limits: &WriteLimits) -> Result<(), ApiError> {
        // A bucket takes a byte on the wire and twelve in memory.
        if self.histogram_bytes > limits.decompressed_bytes_max {
            return Err(ApiError::TooLarge {
                what: "size of all histograms of the request",
                size: self.histogram_bytes as u64,
                size_max: limits.decompressed_bytes_max as u64,
            });
        }
        if self.samples.len() <= limits.samples_max {
            return Ok(());
        }
        Err(ApiError::TooLarge {
            what: "number of samples in the request",
            size: self.samples.len() as u64,
            size_max: limits.samples_max as u64,
        })
    }

    pub(crate) fn clear(&mut self) {
        self.canonical.truncate(0);
        self.samples.clear();
        self.series.clear();
        self.metadata_text.clear();
        self.metadata.clear();
        self.refusals.clear();
        self.skipped_exemplars = 0;
        self.extras.clear();
        self.histogram_bytes = 0;
        self.exemplars.clear();
        self.exemplar_bytes = 0;
    }
}

/// The pairs of canonical bytes, as far as they can be read. For messages about refused series.
pub(super) fn pairs_of(canonical: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = 0;
    let mut text = move || {
        let length = usize::try_from(read_varint(canonical, &mut at)?).ok()?;
        let text = canonical.get(at..at.checked_add(length)?)?;
        at += length;
        Some(text)
    };
    std::iter::from_fn(move || Some((text()?, text()?)))
}
