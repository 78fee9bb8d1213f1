//! What is held back of a request, as compact as it travels: bodies as owners get them, without places in the cluster.
//!
//! The labels are those under which the series may be stored later. Declarations of metrics have no sender and are never
//! held.

use super::{
    Encoder, added_at_once, borrowed,
    pairs::{Filter, HeldBack},
};
use bytes::Bytes;
use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive, sync::Arc};
use trefoil_api::{
    ApiError, WriteLimits,
    remote_write::{Exemplar as ApiExemplar, Sample, SampleValue, SeriesRef, WriteRequest},
};
use trefoil_model::{Labels, Millis, ShardId, ShardSet};
use trefoil_store_metrics::{BodyReader, BodyWriter, Exemplar, MetricsError};

/// All items are in one: where they belong is found when they are stored.
const SHARD: ShardId = ShardId(0);
/// Uncompressed bytes of a body; what passes it is its last item. Bodies are stored one by one.
const CONTENT_BYTES_MAX: usize = 4 << 20;
/// Samples of a body: what is stored at once, and done again when that fails.
pub(crate) const SAMPLES_MAX: usize = 10_000;

/// All times.
const ALWAYS: RangeInclusive<Millis> = Millis::MIN..=Millis::MAX;

/// A part of a request of one sender.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) body: Bytes,
    pub(crate) samples: u64,
}

/// Bodies that are being filled, by the place of their sender.
struct Packing<'a> {
    encoder: &'a Encoder,
    open: BTreeMap<usize, BodyWriter>,
    /// With the places of their senders.
    parts: Vec<(usize, Packed)>,
}

impl Encoder {
    /// What a filter holds back of a request that comes now, with the places of the senders: of those that do not count, or of those
    /// that do. Nothing is lost of a series by its form.
    ///
    /// # Errors
    /// When a series is larger than a body takes, or memory is short.
    pub(crate) fn pack_held(
        &self,
        request: &WriteRequest,
        filter: &Filter<'_>,
        (counts, now): (bool, Millis),
    ) -> Result<Vec<(usize, Packed)>, MetricsError> {
        self.pack(request, |canonical, labels| {
            let held = filter.held(canonical, labels, now);
            held.filter(|held| held.is_all != counts)
        })
    }

    /// All of a request; its declarations are left out.
    ///
    /// # Errors
    /// As for [`Encoder::pack_held`].
    pub(crate) fn pack_all(&self, request: &WriteRequest) -> Result<Vec<Packed>, MetricsError> {
        let packed = self.pack(request, |canonical, labels| {
            labels.clear();
            labels.extend_from_slice(canonical);
            Some(HeldBack {
                place: 0,
                times: ALWAYS,
                is_all: true,
            })
        });
        let parts = packed?.into_iter();
        Ok(parts.map(|(_, packed)| packed).collect())
    }

    /// `held` says what of a series is packed, and writes its labels; nothing for one that is left out.
    fn pack(
        &self,
        request: &WriteRequest,
        mut held: impl FnMut(&[u8], &mut Vec<u8>) -> Option<HeldBack>,
    ) -> Result<Vec<(usize, Packed)>, MetricsError> {
        let mut packing = Packing {
            encoder: self,
            open: BTreeMap::new(),
            parts: Vec::new(),
        };
        let mut labels = Vec::new();
        for series in request.series() {
            if let Some(held) = held(series.canonical(), &mut labels) {
                packing.add_series(&held, &series, &labels)?;
            }
        }
        for (series, exemplar) in request.exemplars() {
            let held = held(series.canonical(), &mut labels);
            // Those of a sender that counts are stored: they say nothing about the run of a series.
            let held = held.filter(|held| held.is_all);
            if let Some(place) = held.map(|held| held.place) {
                let exemplar = Exemplar {
                    labels: exemplar.labels.clone(),
                    value: exemplar.value,
                    time: exemplar.time,
                };
                packing.add(place, |writer| {
                    writer.add_exemplar(SHARD, &labels, &exemplar)
                })?;
            }
        }
        packing.finish()
    }
}

impl Packing<'_> {
    fn add_series(
        &mut self,
        held: &HeldBack,
        series: &SeriesRef<'_>,
        labels: &[u8],
    ) -> Result<(), MetricsError> {
        let place = held.place;
        let is_held = |(time, _): &(Millis, f64)| held.times.contains(time);
        let all = series.samples();
        if series.is_plain() {
            let samples: Cow<'_, [_]> = match all.iter().all(is_held) {
                true => all.into(),
                false => all.iter().filter(|s| is_held(s)).copied().collect(),
            };
            let mut parts = samples.chunks(SAMPLES_MAX);
            return parts.try_for_each(|samples| {
                self.add(place, |writer| {
                    writer.add_series(SHARD, labels, samples.iter().copied())
                })
            });
        }
        let all = series.whole_samples();
        let samples: Vec<Sample> = all.filter(|s| held.times.contains(&s.time)).collect();
        let mut parts = samples.chunks(SAMPLES_MAX);
        parts.try_for_each(|mut rest| {
            while !rest.is_empty() {
                let (some, behind) = rest.split_at(added_at_once(rest));
                rest = behind;
                self.add(place, |writer| {
                    writer.add_samples(SHARD, labels, some.iter().map(borrowed))
                })?;
            }
            Ok(())
        })
    }

    fn add(
        &mut self,
        place: usize,
        add: impl FnOnce(&mut BodyWriter) -> Result<(), MetricsError>,
    ) -> Result<(), MetricsError> {
        let mut writer = match self.open.remove(&place) {
            Some(writer) => writer,
            None => self.encoder.take_writer()?,
        };
        add(&mut writer)?;
        if writer.samples() >= SAMPLES_MAX || writer.content_bytes() >= CONTENT_BYTES_MAX {
            return self.end(place, writer);
        }
        self.open.insert(place, writer);
        Ok(())
    }

    fn end(&mut self, place: usize, mut writer: BodyWriter) -> Result<(), MetricsError> {
        let samples = writer.samples() as u64;
        let body = Bytes::from(writer.finish()?);
        let packed = Packed { body, samples };
        self.parts.push((place, packed));
        self.encoder.keep_writer(writer);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<(usize, Packed)>, MetricsError> {
        while let Some((place, writer)) = self.open.pop_first() {
            self.end(place, writer)?;
        }
        Ok(self.parts)
    }
}

/// Shows each series of a body, by its canonical labels, with the times of its samples.
///
/// # Errors
/// When the body is malformed.
pub(crate) fn times_of(
    reader: &mut BodyReader,
    body: &[u8],
    mut each: impl FnMut(&[u8], &mut dyn Iterator<Item = Millis>),
) -> Result<(), MetricsError> {
    let (mut body, shards) = (reader.open(body)?, own_shard());
    while let Some(series) = body.next_series(&shards)? {
        each(series.canonical, &mut series.samples.map(|(time, _)| time));
    }
    Ok(())
}

/// The request that a body stands for: the samples and exemplars that `keep` wants, by canonical labels and time.
///
/// # Errors
/// When the body is malformed, or is larger than a request may be.
pub(crate) fn unpack(
    reader: &mut BodyReader,
    body: &[u8],
    limits: &WriteLimits,
    keep: impl FnMut(&[u8], Millis) -> bool,
) -> Result<WriteRequest, ApiError> {
    let mut request = WriteRequest::default();
    unpack_into(&mut request, reader, body, limits, keep)?;
    Ok(request)
}

/// Adds to a request what [`unpack`] makes of a body.
///
/// # Errors
/// As for [`unpack`]; some of the body may be added then.
pub(crate) fn unpack_into(
    request: &mut WriteRequest,
    reader: &mut BodyReader,
    body: &[u8],
    limits: &WriteLimits,
    mut keep: impl FnMut(&[u8], Millis) -> bool,
) -> Result<(), ApiError> {
    let malformed = |error: MetricsError| ApiError::BadData(error.to_string());
    let (mut body, shards) = (reader.open(body).map_err(malformed)?, own_shard());
    let mut samples = Vec::new();
    while let Some(series) = body.next_series(&shards).map_err(malformed)? {
        while let Some(sample) = series.samples.next_with_extras().map_err(malformed)? {
            if keep(series.canonical, sample.time) {
                let histogram = sample.histogram().map(Arc::new);
                samples.push(Sample {
                    time: sample.time,
                    start: sample.start,
                    value: histogram
                        .map_or(SampleValue::Float(sample.value), SampleValue::Histogram),
                });
            }
        }
        if !samples.is_empty() {
            let labels = labels_of(series.canonical)?;
            let mut pairs: Vec<(&str, &str)> = labels.iter().collect();
            request.push_samples(&mut pairs, samples.drain(..), limits)?;
        }
    }
    for found in body.exemplars(&shards).map_err(malformed)? {
        if keep(&found.series, found.time) {
            let labels = labels_of(&found.series)?;
            let mut pairs: Vec<(&str, &str)> = labels.iter().collect();
            let exemplar = ApiExemplar {
                labels: labels_of(&found.labels)?,
                value: found.value,
                time: found.time,
            };
            request.push_exemplar(&mut pairs, Some(exemplar), limits)?;
        }
    }
    Ok(())
}

fn labels_of(canonical: &[u8]) -> Result<Labels, ApiError> {
    let labels = Labels::from_canonical(canonical);
    labels.map_err(|error| ApiError::BadData(error.to_string()))
}

fn own_shard() -> ShardSet {
    ShardSet::all(SHARD.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::replicas::Verdict, config::PairSettings};
    use trefoil_api::ApiLimits;

    fn limits() -> WriteLimits {
        ApiLimits::default().write
    }

    fn samples_of(request: &WriteRequest) -> Vec<(String, Vec<Sample>)> {
        let series = request.series();
        let of_series =
            |one: SeriesRef<'_>| (one.to_labels().to_string(), one.whole_samples().collect());
        series.map(of_series).collect()
    }

    /// A histogram with one observation in its zero bucket.
    fn histogram() -> trefoil_model::Histogram {
        trefoil_model::Histogram {
            count: 1.0,
            zero_count: 1.0,
            sum: 0.5,
            zero_threshold: 1.0,
            ..trefoil_model::Histogram::default()
        }
    }

    /// Series of numbers only, and of everything.
    fn kinds() -> [(&'static str, Vec<Sample>); 2] {
        let started = Sample {
            start: 5,
            ..Sample::float(20, 2.0)
        };
        let observed = Sample {
            time: 30,
            start: 0,
            value: SampleValue::Histogram(Arc::new(histogram())),
        };
        let plain = vec![Sample::float(10, 1.0), Sample::float(20, f64::NAN)];
        let whole = vec![Sample::float(10, 1.0), started, observed];
        [("plain", plain), ("whole", whole)]
    }

    #[test]
    fn everything_of_the_sender_that_does_not_count_is_packed_and_comes_back() {
        let mut request = WriteRequest::default();
        let exemplar = ApiExemplar {
            labels: Labels::from_pairs([("trace_id", "x")]),
            value: 1.0,
            time: 15,
        };
        for replica in ["a", "b"] {
            for (name, samples) in kinds() {
                let labels = &mut [
                    ("__name__", name),
                    ("__replica__", replica),
                    ("cluster", "c"),
                ];
                let pushed = request.push_samples(labels, samples, &limits());
                pushed.expect("a small request");
                let pushed = request.push_exemplar(labels, Some(exemplar.clone()), &limits());
                pushed.expect("a small request");
            }
        }
        let settings = PairSettings::default();
        let sender = |replica: &str| ("c".to_owned(), replica.to_owned());
        let stored = Verdict::Stored(Millis::MIN);
        let verdicts = [(sender("a"), stored), (sender("b"), Verdict::Held)];
        let filter = Filter::new(&settings, &verdicts);
        let packed = Encoder::default().pack_held(&request, &filter, (false, 0));
        let packed = packed.expect("it fits");
        let [(1, packed)] = &packed[..] else {
            panic!("{packed:?}");
        };
        assert_eq!(packed.samples, 5);
        let mut reader = BodyReader::new().expect("memory");
        let mut times: Vec<Vec<Millis>> = Vec::new();
        times_of(&mut reader, &packed.body, |_, own| {
            times.push(own.collect())
        })
        .expect("whole");
        assert_eq!(times, [vec![10, 20], vec![10, 20, 30]]);
        let all = unpack(&mut reader, &packed.body, &limits(), |_, _| true).expect("whole");
        let of = |name| Labels::from_pairs([("__name__", name), ("cluster", "c")]).to_string();
        let expected = kinds().map(|(name, samples)| (of(name), samples));
        // As texts NaNs are equal.
        assert_eq!(format!("{:?}", samples_of(&all)), format!("{expected:?}"));
        assert_eq!(all.exemplars().len(), 2);
        assert_eq!(all.exemplars()[0].1, exemplar);
        let late = unpack(&mut reader, &packed.body, &limits(), |_, time| time > 15);
        let late = late.expect("whole");
        let counts = (late.sample_count(), late.histogram_count());
        assert_eq!((counts, late.exemplars().len()), ((3, 1), 0));
        // Packed again it is the same.
        let again = Encoder::default().pack_all(&all).expect("it fits");
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].body, packed.body);
    }

    #[test]
    fn what_is_far_from_its_time_is_left_out() {
        let mut request = WriteRequest::default();
        for (name, samples) in kinds() {
            let labels = &mut [("__name__", name), ("__replica__", "a"), ("cluster", "c")];
            let pushed = request.push_samples(labels, samples, &limits());
            pushed.expect("a small request");
        }
        let settings = PairSettings {
            accepted: true,
            held_bytes_max: 1,
            ..PairSettings::default()
        };
        let kept = settings.kept().as_millis() as Millis;
        // What is packed, as times by series.
        let check = |verdict: Verdict, now, expected: &[&[Millis]]| {
            let counts = matches!(verdict, Verdict::Stored(_));
            let verdicts = [(("c".to_owned(), "a".to_owned()), verdict)];
            let filter = Filter::new(&settings, &verdicts);
            let pack = |counts| {
                let packed = Encoder::default().pack_held(&request, &filter, (counts, now));
                packed.expect("it fits")
            };
            assert_eq!(pack(!counts), []);
            let packed = pack(counts);
            let mut times: Vec<Vec<Millis>> = Vec::new();
            let mut reader = BodyReader::new().expect("memory");
            for (_, part) in &packed {
                let add = |_: &[u8], own: &mut dyn Iterator<Item = _>| times.push(own.collect());
                times_of(&mut reader, &part.body, add).expect("whole");
            }
            assert_eq!(times, expected);
        };
        check(Verdict::Held, 0, &[&[10, 20], &[10, 20, 30]]);
        check(Verdict::Held, kept + 11, &[&[20], &[20, 30]]);
        check(Verdict::Held, 20 - 7_500, &[&[10, 20], &[10, 20]]);
        check(Verdict::Held, kept + 31, &[]);
        // What its sender adds behind the change is stored, and neither held nor lost; so is what is too old to be held.
        check(Verdict::Stored(20), 0, &[&[10, 20], &[10, 20]]);
        check(Verdict::Stored(kept + 11), 0, &[&[20], &[20, 30]]);
        check(Verdict::Stored(9), 0, &[]);
    }

    #[test]
    fn a_large_request_becomes_several_bodies() {
        let mut request = WriteRequest::default();
        let samples = (0..2 * SAMPLES_MAX as Millis + 1).map(|time| Sample::float(time, 1.0));
        let labels = &mut [("__name__", "m")];
        let pushed = request.push_samples(labels, samples, &limits());
        pushed.expect("below the limits");
        let packed = Encoder::default().pack_all(&request).expect("it fits");
        let samples: Vec<u64> = packed.iter().map(|packed| packed.samples).collect();
        assert_eq!(samples, [10_000, 10_000, 1]);
        let mut reader = BodyReader::new().expect("memory");
        let mut body = packed[0].body.to_vec();
        body.truncate(9);
        assert!(unpack(&mut reader, &body, &limits(), |_, _| true).is_err());
    }
}
