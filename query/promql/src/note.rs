//! Remarks that show only with the data, collected while a series or a group is worked on.

use crate::{Annotations, Span};

/// Something to say about samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Floats and histograms in a range whose function needs one kind.
    MixedTypes,
    /// Floats and histograms in an aggregation.
    MixedTypesInAggregation,
    /// Exponential and custom buckets meet.
    MixedKinds,
    /// A gauge where a counter is expected.
    NotCounter,
    /// A counter where a gauge is expected.
    NotGauge,
    /// Custom bounds differ; the word says what was done with the histograms.
    BoundsReconciled(&'static str),
    /// Reset hints contradict each other.
    ResetsCollide(&'static str),
    /// Histograms in a range whose function takes floats only.
    IgnoredInRange,
    /// Histograms in an aggregation of floats.
    IgnoredInAggregation(&'static str),
    /// An operator has no meaning for these kinds of samples.
    IncompatibleTypes(&'static str, &'static str, &'static str),
    /// An operator meets exponential and custom buckets.
    IncompatibleBuckets(&'static str),
    /// A counter began before the sample in front of it was taken.
    StartOverlaps,
    /// `histogram_quantile` of a histogram with NaN observations.
    QuantileIsNan,
    /// The same, where the quantile is a number.
    QuantileIsSkewed,
    /// `histogram_fraction` of such a histogram.
    FractionWithoutNan,
    /// A classic and a native histogram with the same labels.
    MixedHistograms,
}

/// What was done with histograms, for [`Note::BoundsReconciled`] and [`Note::ResetsCollide`].
pub(crate) const ADDITION: &str = "addition";
/// See [`ADDITION`].
pub(crate) const SUBTRACTION: &str = "subtraction";
/// See [`ADDITION`].
pub(crate) const AGGREGATION: &str = "aggregation";

/// Notes about one series or group, each once.
#[derive(Debug, Default)]
pub(crate) struct Notes(Vec<(Note, Span)>);

impl Notes {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, note: Note, span: Span) {
        if !self.0.contains(&(note, span)) {
            self.0.push((note, span));
        }
    }

    /// Moves the notes into `annotations`, about a metric with this name (empty: none).
    pub(crate) fn tell(&mut self, metric: &str, annotations: &mut Annotations) {
        for (note, span) in self.0.drain(..) {
            note.tell(span, metric, annotations);
        }
    }
}

impl Note {
    pub(crate) fn tell(self, span: Span, metric: &str, annotations: &mut Annotations) {
        let named = |text: &str| match metric {
            "" => text.to_owned(),
            metric => format!("{text} for metric name {metric:?}"),
        };
        match self {
            Self::MixedTypes => {
                annotations.warn(span, named("encountered a mix of histograms and floats"));
            }
            Self::MixedTypesInAggregation => annotations.warn(
                span,
                "encountered a mix of histograms and floats for aggregation",
            ),
            Self::MixedKinds => annotations.warn(
                span,
                named(
                    "vector contains a mix of histograms with exponential and custom buckets schemas",
                ),
            ),
            Self::NotCounter => annotations.warn(
                span,
                format!("this native histogram metric is not a counter: {metric:?}"),
            ),
            Self::NotGauge => annotations.warn(
                span,
                format!("this native histogram metric is not a gauge: {metric:?}"),
            ),
            Self::BoundsReconciled(done) => annotations.info(
                span,
                format!("mismatched custom buckets were reconciled during {done}"),
            ),
            Self::ResetsCollide(done) => annotations.warn(
                span,
                format!("conflicting counter resets during histogram {done}"),
            ),
            Self::IgnoredInRange => annotations.info(
                span,
                named("ignored histograms in a range containing both floats and histograms"),
            ),
            Self::IgnoredInAggregation(operation) => {
                annotations.info(span, format!("ignored histogram in {operation} aggregation"));
            }
            Self::IncompatibleTypes(left, op, right) => annotations.info(
                span,
                format!(
                    "incompatible sample types encountered for binary operator {op:?}: {left} {op} {right}"
                ),
            ),
            Self::IncompatibleBuckets(op) => annotations.warn(
                span,
                format!("incompatible bucket layout encountered for binary operator {op}"),
            ),
            Self::StartOverlaps => annotations.warn(
                span,
                format!(
                    "sample has start time that overlaps with previous sample timestamp for metric {metric:?}"
                ),
            ),
            Self::QuantileIsNan => annotations.info(
                span,
                named("input to histogram_quantile has NaN observations, result is NaN"),
            ),
            Self::QuantileIsSkewed => annotations.info(
                span,
                named("input to histogram_quantile has NaN observations, result is skewed higher"),
            ),
            Self::FractionWithoutNan => annotations.info(
                span,
                named(
                    "input to histogram_fraction has NaN observations, which are excluded from all fractions",
                ),
            ),
            Self::MixedHistograms => annotations.warn(
                span,
                named("vector contains a mix of classic and native histograms"),
            ),
        }
    }
}
