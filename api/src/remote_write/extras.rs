//! What only some series of a request have: native histograms, start timestamps, exemplars.

use super::{
    histogram::settle_within,
    request::WriteRequest,
    sample::{Exemplar, Sample, SampleValue},
    series::{LabelsState, describe, keeps_rules},
};
use crate::{ApiError, WriteLimits, limit_refusals};
use std::sync::Arc;
use trefoil_model::{Histogram, Labels, Millis};

/// What a sample has beside time and number.
#[derive(Clone, Debug)]
pub(super) struct Extra {
    /// Its place in `samples`; the number there has no meaning beside a histogram.
    pub(super) sample: u32,
    pub(super) start: Millis,
    pub(super) histogram: Option<Arc<Histogram>>,
    /// Whether it came as a histogram: the stale marker of one is a number.
    pub(super) was_histogram: bool,
}

/// Histograms of a series that cannot be stored.
#[derive(Debug, Default)]
pub(super) struct RefusedHistograms {
    count: u64,
    /// Why the first of them cannot.
    reason: Option<String>,
}

impl RefusedHistograms {
    pub(super) fn add(&mut self, reason: String) {
        self.count += 1;
        self.reason.get_or_insert(reason);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// Memory grows by at least so many bytes before the caller is asked again.
const GROWTH_BYTES: usize = 1 << 20;

/// Asks the caller of a decoder before a request takes more memory than the message that it came in.
pub(super) struct Grant<'g> {
    grow: &'g mut dyn FnMut(usize) -> Result<(), ApiError>,
    granted_bytes: usize,
}

impl<'g> Grant<'g> {
    /// `grow` is told of all bytes that there will be, and its error ends the decoding.
    pub(super) fn new(grow: &'g mut dyn FnMut(usize) -> Result<(), ApiError>) -> Self {
        Self {
            grow,
            granted_bytes: 0,
        }
    }

    /// Makes sure that so many bytes in all are granted.
    ///
    /// # Errors
    /// Those of `grow`.
    #[inline]
    pub(super) fn ask(&mut self, wanted: usize) -> Result<(), ApiError> {
        if wanted <= self.granted_bytes {
            return Ok(());
        }
        self.granted_bytes = wanted + GROWTH_BYTES;
        (self.grow)(self.granted_bytes)
    }
}

/// Exemplars of a series whose labels are not all known yet.
#[derive(Default)]
pub(super) struct FoundExemplars {
    kept: Vec<Exemplar>,
    bytes: usize,
    skipped: u64,
}

impl FoundExemplars {
    /// Adds one; `None` is counted.
    ///
    /// # Errors
    /// As for [`WriteRequest::push_exemplar`], at once and not when the series ends.
    pub(super) fn push(
        &mut self,
        exemplar: Option<Exemplar>,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        let Some(exemplar) = exemplar else {
            self.skipped += 1;
            return Ok(());
        };
        self.bytes += size_of::<(Labels, Exemplar)>() + exemplar.labels.canonical().len();
        self.kept.push(exemplar);
        check_exemplar_bytes(self.bytes, limits)
    }

    /// Memory of those that are kept, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the series had none.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.skipped == 0
    }
}

fn check_exemplar_bytes(bytes: usize, limits: &WriteLimits) -> Result<(), ApiError> {
    if bytes <= limits.decompressed_bytes_max {
        return Ok(());
    }
    Err(ApiError::TooLarge {
        what: "size of all exemplars of the request",
        size: bytes as u64,
        size_max: limits.decompressed_bytes_max as u64,
    })
}

impl WriteRequest {
    /// As [`WriteRequest::push_series`], for samples that may be native histograms and know when their counters began.
    /// A histogram that cannot be stored is refused by name, and the others are kept.
    ///
    /// # Errors
    /// As for [`WriteRequest::push_series`].
    pub fn push_samples(
        &mut self,
        pairs: &mut [(&str, &str)],
        samples: impl IntoIterator<Item = Sample>,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        let (labels_start, samples_start) = (self.canonical.len(), self.samples.len());
        let state = self.push_labels(pairs, limits);
        let mut refused = RefusedHistograms::default();
        for sample in samples {
            self.push_sample(sample, &mut refused, limits)?;
        }
        self.refuse_histograms(&state, limits, refused, (labels_start, samples_start));
        self.finish_pushed(&state, (labels_start, samples_start), limits)
    }

    /// Adds an exemplar of the series with these labels, which need not be in the request. `None`, and one of a series that
    /// breaks a rule, is counted and left out.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`] when all exemplars are larger than a body may be.
    pub fn push_exemplar(
        &mut self,
        pairs: &mut [(&str, &str)],
        exemplar: Option<Exemplar>,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        let labels_start = self.canonical.len();
        let state = self.push_labels(pairs, limits);
        let mut found = FoundExemplars::default();
        found.push(exemplar, limits)?;
        self.keep_exemplars(&state, limits, labels_start, found)?;
        self.canonical.truncate(labels_start);
        Ok(())
    }

    /// Counts exemplars that a decoder leaves out.
    pub fn skip_exemplars(&mut self, count: u64) {
        self.skipped_exemplars += count;
    }

    /// Keeps the exemplars of the series whose labels begin at `labels_start` and end the buffer.
    ///
    /// # Errors
    /// As for [`WriteRequest::push_exemplar`].
    pub(super) fn keep_exemplars(
        &mut self,
        state: &LabelsState<'_>,
        limits: &WriteLimits,
        labels_start: usize,
        found: FoundExemplars,
    ) -> Result<(), ApiError> {
        self.skipped_exemplars += found.skipped;
        if found.kept.is_empty() {
            return Ok(());
        }
        let canonical = &self.canonical.as_slice()[labels_start..];
        let series = keeps_rules(state, limits, canonical);
        let series = series.and_then(|()| Labels::from_canonical(canonical).ok());
        let Some(series) = series else {
            self.skipped_exemplars += found.kept.len() as u64;
            return Ok(());
        };
        // Each of them has the series' labels for itself: bounded before they are copied.
        self.exemplar_bytes += found.bytes + found.kept.len() * series.canonical().len();
        check_exemplar_bytes(self.exemplar_bytes, limits)?;
        let kept = found.kept.into_iter();
        self.exemplars.extend(kept.map(|one| (series.clone(), one)));
        Ok(())
    }

    /// Appends a sample of the series in work, or notes why it cannot be stored.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`] when there are more samples, or more memory of histograms, than a request may have.
    pub(super) fn push_sample(
        &mut self,
        sample: Sample,
        refused: &mut RefusedHistograms,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        let value = match sample.value {
            SampleValue::Histogram(histogram) => {
                settle_within(Arc::unwrap_or_clone(histogram), limits)
            }
            float => Ok(float),
        };
        match value {
            Ok(SampleValue::Float(value)) => self.push_number(sample.time, value, sample.start),
            Ok(SampleValue::Histogram(histogram)) => {
                self.histogram_bytes += histogram.bytes();
                self.extras.push(Extra {
                    sample: self.samples.len() as u32,
                    start: sample.start,
                    histogram: Some(histogram),
                    was_histogram: true,
                });
                self.samples.push((sample.time, f64::NAN));
            }
            Err(reason) => refused.add(reason),
        }
        self.check_sample_count(limits)
    }

    /// Appends a sample that came as a histogram.
    ///
    /// # Errors
    /// As for [`WriteRequest::push_sample`].
    pub(super) fn push_histogram(
        &mut self,
        sample: Sample,
        refused: &mut RefusedHistograms,
        limits: &WriteLimits,
    ) -> Result<(), ApiError> {
        let SampleValue::Float(marker) = sample.value else {
            return self.push_sample(sample, refused, limits);
        };
        if !limits.native_histograms {
            refused.add(limit_refusals::no_native_histograms());
            return Ok(());
        }
        self.extras.push(Extra {
            sample: self.samples.len() as u32,
            start: sample.start,
            histogram: None,
            was_histogram: true,
        });
        self.samples.push((sample.time, marker));
        self.check_sample_count(limits)
    }

    /// Memory of what only some samples have, and of exemplars, about: what may be many times the message.
    pub(super) fn extra_bytes(&self) -> usize {
        self.histogram_bytes + self.exemplar_bytes + self.extras.len() * size_of::<Extra>()
    }

    /// Appends a number of the series in work.
    pub(super) fn push_number(&mut self, time: Millis, value: f64, start: Millis) {
        if start != 0 {
            self.extras.push(Extra {
                sample: self.samples.len() as u32,
                start,
                histogram: None,
                was_histogram: false,
            });
        }
        self.samples.push((time, value));
    }

    /// Gives the samples from a place on, which end the buffer, this start timestamp where they have none.
    pub(crate) fn set_start(&mut self, samples_start: usize, start: Millis) {
        let of_series = |extra: &Extra| (extra.sample as usize) < samples_start;
        let known = self
            .extras
            .split_off(self.extras.partition_point(of_series));
        let mut known = known.into_iter().peekable();
        for sample in samples_start as u32..self.samples.len() as u32 {
            let extra = known.next_if(|extra| extra.sample == sample);
            let mut extra = extra.unwrap_or(Extra {
                sample,
                start,
                histogram: None,
                was_histogram: false,
            });
            if extra.start == 0 {
                extra.start = start;
            }
            self.extras.push(extra);
        }
    }

    /// Takes the samples from a place on out again.
    pub(super) fn truncate_samples(&mut self, length: usize) {
        self.samples.truncate(length);
        while let Some(last) = self.extras.pop_if(|last| last.sample as usize >= length) {
            self.histogram_bytes -= last.histogram.map_or(0, |h| h.bytes());
        }
    }

    /// Reports the histograms that were refused of the series whose labels and samples begin at these places and end the
    /// buffers. A series that breaks a rule is refused as a whole, when it ends, and is no second one here.
    pub(super) fn refuse_histograms(
        &mut self,
        state: &LabelsState<'_>,
        limits: &WriteLimits,
        refused: RefusedHistograms,
        (labels_start, samples_start): (usize, usize),
    ) {
        let Some(reason) = refused.reason else {
            return;
        };
        let canonical = &self.canonical.as_slice()[labels_start..];
        if keeps_rules(state, limits, canonical).is_none() {
            self.refusals.samples += refused.count;
            return;
        }
        let partly = u64::from(self.samples.len() > samples_start);
        self.refusals.add_series((1, partly), refused.count, || {
            let series = describe(canonical);
            let reason = reason.strip_suffix('.').unwrap_or(&reason);
            format!("{reason}, in series {series}")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_keep_what_they_have_and_leave_with_their_series() {
        let histogram = |schema| Sample {
            time: 2,
            start: 1,
            value: SampleValue::Histogram(Arc::new(Histogram {
                schema,
                ..Histogram::default()
            })),
        };
        let mut request = WriteRequest::default();
        let limits = WriteLimits::default();
        let mut push = |pairs: &mut [(&str, &str)], samples: Vec<Sample>| {
            request
                .push_samples(pairs, samples, &limits)
                .expect("a small request");
        };
        let good = || vec![Sample::float(1, 4.0), histogram(0), histogram(99)];
        push(&mut [("job", "a"), ("__name__", "m")], good());
        push(&mut [("job", "has no metric name")], vec![histogram(0)]);
        push(
            &mut [("job", "has no metric name, either")],
            vec![histogram(99)],
        );
        push(&mut [("__name__", "o")], vec![histogram(99)]);
        push(&mut [("__name__", "n")], vec![Sample::float(3, 5.0)]);
        let series: Vec<Vec<Sample>> = request
            .series()
            .map(|s| s.whole_samples().collect())
            .collect();
        let expected = [
            vec![Sample::float(1, 4.0), histogram(0)],
            vec![Sample::float(3, 5.0)],
        ];
        assert_eq!(series, expected);
        assert_eq!(request.histogram_count(), 1);
        let refusals = request.refusals();
        let counts = (refusals.series, refusals.partly, refusals.samples);
        assert_eq!(counts, (4, 1, 4));
        assert!(refusals.reasons[0].ends_with(r#"in series m{job="a"}"#));
    }
}
