//! A series' samples in memory: timestamps and values side by side, and what only some samples have in columns that are
//! empty for series without any.

use crate::histogram::pack;
use crate::value::{HISTOGRAM_BITS, prefer, preference};
use crate::view::COMPARED_WITHIN;
use std::cmp::Ordering;
use std::sync::Arc;
use trefoil_model::{Histogram, Millis, ResetHint};

/// The samples of a series, borrowed. Timestamps and values have equal length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SampleSlice<'a> {
    /// Milliseconds.
    pub timestamps: &'a [Millis],
    /// As many values; [`HISTOGRAM_BITS`] where the sample is a histogram.
    pub values: &'a [f64],
    /// Native histograms: empty, or a place for each value.
    pub histograms: &'a [Option<Arc<Histogram>>],
    /// When each sample's counter began, in milliseconds, or 0 where that is not known: empty, or one for each value.
    pub starts: &'a [Millis],
}

/// One sample, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct SampleRef<'a> {
    /// Milliseconds.
    pub time: Millis,
    /// The number; of no meaning beside a histogram.
    pub value: f64,
    /// The histogram, when it is one.
    pub histogram: Option<&'a Arc<Histogram>>,
    /// When its counter began, in milliseconds, or 0.
    pub start: Millis,
}

impl<'a> SampleSlice<'a> {
    /// Whether there are only numbers without start timestamps.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.histograms.is_empty() && self.starts.is_empty()
    }

    /// The samples of a range of places. Only plain ones are plain, also out of a column that has other ones.
    #[must_use]
    pub fn cut(&self, from: usize, to: usize) -> Self {
        Self {
            timestamps: &self.timestamps[from..to],
            values: &self.values[from..to],
            histograms: some_of(self.histograms, from, to, Option::is_some),
            starts: some_of(self.starts, from, to, |start| *start != 0),
        }
    }

    /// The sample at a place.
    #[must_use]
    pub fn at(&self, place: usize) -> SampleRef<'a> {
        SampleRef {
            time: self.timestamps[place],
            value: self.values[place],
            histogram: self.histograms.get(place).and_then(Option::as_ref),
            start: self.starts.get(place).copied().unwrap_or(0),
        }
    }

    /// All samples.
    pub fn iter(self) -> impl ExactSizeIterator<Item = SampleRef<'a>> {
        (0..self.timestamps.len()).map(move |place| self.at(place))
    }
}

/// A part of a column that is empty where no sample needs it.
fn some_of<T>(column: &[T], from: usize, to: usize, is_needed: impl Fn(&T) -> bool) -> &[T] {
    let part = column.get(from..to).unwrap_or_default();
    if part.iter().any(is_needed) {
        part
    } else {
        &[]
    }
}

impl SampleRef<'_> {
    /// Which of two samples with one timestamp stays: the greater one. The order of [`prefer`], with histograms above
    /// all numbers; of two histograms the one with more observations, then the one with the greater bytes; of what is
    /// equal otherwise, the later start. A total order, so that the order of arrival does not matter.
    fn compare(&self, other: &Self) -> Ordering {
        let values = match (self.histogram, other.histogram) {
            (None, None) => preference(self.value).cmp(&preference(other.value)),
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (Some(own), Some(other)) => preference(own.count)
                .cmp(&preference(other.count))
                .then_with(|| packed(own).cmp(&packed(other))),
        };
        values.then_with(|| self.start.cmp(&other.start))
    }
}

fn packed(histogram: &Histogram) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(histogram, &mut bytes);
    bytes
}

/// Timestamps and as many values, with the columns of [`SampleSlice`] beside them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Column {
    pub(crate) timestamps: Vec<Millis>,
    pub(crate) values: Vec<f64>,
    pub(crate) histograms: Vec<Option<Arc<Histogram>>>,
    pub(crate) starts: Vec<Millis>,
}

impl Column {
    /// One with room for so many plain samples.
    pub(crate) fn with_capacity(samples: usize) -> Self {
        Self {
            timestamps: Vec::with_capacity(samples),
            values: Vec::with_capacity(samples),
            ..Self::default()
        }
    }

    pub(crate) fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    pub(crate) fn slice(&self) -> SampleSlice<'_> {
        SampleSlice {
            timestamps: &self.timestamps,
            values: &self.values,
            histograms: &self.histograms,
            starts: &self.starts,
        }
    }

    /// Appends a number without start timestamp.
    #[inline]
    pub(crate) fn push(&mut self, time: Millis, value: f64) {
        self.timestamps.push(time);
        self.values.push(value);
        self.pad();
    }

    /// Brings the columns that are in use to the length of the others.
    #[inline]
    pub(crate) fn pad(&mut self) {
        if !self.histograms.is_empty() {
            self.histograms.resize(self.values.len(), None);
        }
        if !self.starts.is_empty() {
            self.starts.resize(self.values.len(), 0);
        }
    }

    /// Makes the last sample a histogram.
    pub(crate) fn set_last_histogram(&mut self, histogram: Arc<Histogram>) {
        self.histograms.resize(self.values.len(), None);
        if let (Some(place), Some(value)) = (self.histograms.last_mut(), self.values.last_mut()) {
            *place = Some(histogram);
            *value = f64::from_bits(HISTOGRAM_BITS);
        }
    }

    /// Says when the last sample's counter began.
    pub(crate) fn set_last_start(&mut self, start: Millis) {
        if start == 0 && self.starts.is_empty() {
            return;
        }
        self.starts.resize(self.values.len(), 0);
        if let Some(last) = self.starts.last_mut() {
            *last = start;
        }
    }

    pub(crate) fn push_sample(&mut self, sample: SampleRef<'_>) {
        self.push(sample.time, sample.value);
        if let Some(histogram) = sample.histogram {
            self.set_last_histogram(Arc::clone(histogram));
        }
        self.set_last_start(sample.start);
    }

    pub(crate) fn extend(&mut self, samples: SampleSlice<'_>) {
        let before = self.values.len();
        self.timestamps.extend_from_slice(samples.timestamps);
        self.values.extend_from_slice(samples.values);
        if !samples.histograms.is_empty() {
            self.histograms.resize(before, None);
            self.histograms.extend_from_slice(samples.histograms);
        }
        if !samples.starts.is_empty() {
            self.starts.resize(before, 0);
            self.starts.extend_from_slice(samples.starts);
        }
        self.pad();
    }

    /// Notes in the hints which histograms go on from the sample in front of them, if that is [near](COMPARED_WITHIN), so that it does
    /// not matter where a column begins, and cuts off what is before `start`. For answers only: what is stored and compared between owners has the hints that came with it.
    pub(crate) fn compare_and_cut(&mut self, start: Millis) {
        for at in 1..self.histograms.len() {
            let (before, behind) = self.histograms.split_at_mut(at);
            if let (Some(Some(before)), Some(Some(histogram))) = (before.last(), behind.first_mut())
                && histogram.reset_hint == ResetHint::Unknown
                && self.timestamps[at] - self.timestamps[at - 1] <= COMPARED_WITHIN
                && histogram.continues(before)
            {
                Arc::make_mut(histogram).reset_hint = ResetHint::NotReset;
            }
        }
        if self.timestamps.first().is_none_or(|first| *first >= start) {
            return;
        }
        let cut = self.timestamps.partition_point(|time| *time < start);
        self.timestamps.drain(..cut);
        self.values.drain(..cut);
        self.histograms.drain(..cut.min(self.histograms.len()));
        self.starts.drain(..cut.min(self.starts.len()));
        if self.histograms.iter().all(Option::is_none) {
            self.histograms.clear();
        }
    }

    /// Brings samples into order of time, with one value, the preferred one, per timestamp.
    pub(crate) fn normalize(&mut self) {
        // Looks at all of them without a branch at each: nearly always they are in order.
        let pairs = self.timestamps.windows(2);
        if pairs.fold(true, |so_far, pair| so_far & (pair[0] < pair[1])) {
            return;
        }
        if !self.slice().is_plain() {
            self.normalize_all();
            return;
        }
        let mut samples: Vec<(Millis, f64)> = self
            .timestamps
            .iter()
            .copied()
            .zip(self.values.iter().copied())
            .collect();
        samples.sort_by_key(|(time, _)| *time);
        self.clear();
        for (time, value) in samples {
            match self.timestamps.last() {
                Some(last) if *last == time => {
                    let kept = self.values.len() - 1;
                    self.values[kept] = prefer(self.values[kept], value);
                }
                _ => self.push(time, value),
            }
        }
    }

    /// [`Column::normalize`] with histograms and start timestamps.
    fn normalize_all(&mut self) {
        let all = std::mem::take(self);
        let samples = all.slice();
        let mut order: Vec<usize> = (0..all.values.len()).collect();
        order.sort_by_key(|place| all.timestamps[*place]);
        for same_time in order.chunk_by(|a, b| all.timestamps[*a] == all.timestamps[*b]) {
            let of_time = same_time.iter().map(|place| samples.at(*place));
            if let Some(kept) = of_time.max_by(SampleRef::compare) {
                self.push_sample(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::tests::random_histogram;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn counting(count: f64, reset_hint: ResetHint) -> Histogram {
        Histogram {
            count,
            zero_count: count,
            reset_hint,
            ..Histogram::default()
        }
    }

    #[test]
    fn histograms_are_compared_with_what_is_in_front_of_the_range() {
        use ResetHint::{Gauge, NotReset, Reset, Unknown};
        let mut column = Column::default();
        let mut push = |time, count, hint| {
            column.push(time, 0.0);
            column.set_last_histogram(Arc::new(counting(count, hint)));
        };
        push(1, 5.0, Unknown);
        push(2, 6.0, Unknown);
        push(3, 6.0, Reset);
        push(4, 7.0, Unknown);
        push(5, 2.0, Unknown);
        push(6, 3.0, Gauge);
        push(7, 4.0, Unknown);
        column.push(8, 1.0);
        column.push(9, 1.0);
        column.set_last_histogram(Arc::new(counting(9.0, Unknown)));
        let shared: Vec<_> = column.histograms.clone();
        column.compare_and_cut(2);
        let hints = column
            .histograms
            .iter()
            .map(|h| h.as_ref().map(|h| h.reset_hint));
        let expected = [NotReset, Reset, NotReset, Unknown, Gauge, Unknown].map(Some);
        let expected = expected.into_iter().chain([None, Some(Unknown)]);
        assert!(hints.eq(expected), "{:?}", column.histograms);
        assert_eq!((column.timestamps[0], column.values.len()), (2, 8));
        let stored = shared[1].as_ref().map(|h| h.reset_hint);
        assert_eq!(stored, Some(Unknown), "what others hold stays as it is");
        column.compare_and_cut(10);
        assert_eq!(column, Column::default());
    }

    #[test]
    fn what_stays_does_not_depend_on_the_order_of_arrival() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..300 {
            let histograms: Vec<_> = (0..3)
                .map(|_| Arc::new(random_histogram(&mut random)))
                .collect();
            let mut samples: Vec<SampleRef<'_>> = (0..20)
                .map(|_| SampleRef {
                    time: random.random_range(0..8),
                    value: f64::from(random.random_range(0..3u32)),
                    histogram: histograms.get(random.random_range(0..6)),
                    start: random.random_range(0..3),
                })
                .collect();
            let normal = |samples: &[SampleRef<'_>]| {
                let mut column = Column::default();
                samples.iter().for_each(|s| column.push_sample(*s));
                column.normalize();
                let samples = column.slice().iter();
                let content = samples.map(|s| {
                    let value = s.histogram.map_or_else(Vec::new, |h| packed(h));
                    (s.time, s.value.to_bits(), value, s.start)
                });
                content.collect::<Vec<_>>()
            };
            let expected = normal(&samples);
            assert!(expected.is_sorted_by(|a, b| a.0 < b.0));
            samples.shuffle(&mut random);
            assert_eq!(normal(&samples), expected);
        }
    }
}
