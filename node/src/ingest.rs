//! From a decoded write request to parcels: one body for each group of shards that has the same owners.
//!
//! With three nodes all shards have the same owners, so a request is encoded once and the same bytes go
//! to all of them. A request that is too large for one message and one journal record is cut into several *rounds*,
//! each a write of its own; the client gets its success when all of them are held.

pub(crate) mod pairs;

use bytes::Bytes;
use pairs::{Filter, Kept};
use parking_lot::Mutex;
use std::borrow::Cow;
use trefoil_api::remote_write::{
    MetricKind, Refusals, Sample, SampleValue, SeriesRef, WriteRequest,
};
use trefoil_model::{Millis, ShardId, ShardSet, TenantId, key_hash, shard_of};
use trefoil_shard::Routing;
use trefoil_store_metrics::{
    BodyWriter, Exemplar, MetricMetadata, MetricType, MetricsError, SampleRef, metadata_shard,
};

/// Writers that are kept for the next request, with their memory.
const WRITERS_KEPT_MAX: usize = 16;
/// Uncompressed bytes of a round, all bodies together; the series that passes it is the round's last. One owner may
/// get all of them in one message, so this is far below what a body and a message may have.
const ROUND_CONTENT_BYTES_MAX: usize = 16 << 20;
/// Samples of one series that are added at once: at most 1.2 MiB, by which a round may pass its bound. The rest of a
/// longer series goes on in the next round.
const SAMPLES_AT_ONCE_MAX: usize = 1 << 16;

/// Memory of histograms of one series that are added at once, as [`SAMPLES_AT_ONCE_MAX`]; one histogram may have more.
const HISTOGRAM_BYTES_AT_ONCE_MAX: usize = 1 << 20;

/// Encodes requests; keeps writers between them.
#[derive(Default)]
pub(crate) struct Encoder {
    writers: Mutex<Vec<BodyWriter>>,
}

/// What acceptance decided about a request's times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acceptance {
    /// Samples before this are too old.
    pub(crate) oldest: Millis,
    /// Samples behind this are too far in the future.
    pub(crate) newest: Millis,
}

/// A request in the form in which it travels.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// To be written one after the other: one body per group, with the shards of which it has a batch. No round
    /// is empty.
    pub(crate) rounds: Vec<Vec<(ShardSet, Bytes)>>,
    /// Samples in the bodies.
    pub(crate) samples: u64,
    /// Samples left out because of their time, and the first of them in words.
    pub(crate) out_of_bounds: u64,
    /// Samples left out because another sender of their pair counts.
    pub(crate) deduplicated: u64,
    /// Series left out because nobody can tell which sender of their pair counts.
    pub(crate) refusals: Refusals,
    pub(crate) first_out_of_bounds: Option<String>,
    /// How many of those left out are histograms.
    pub(crate) histograms_out_of_bounds: u64,
    /// Exemplars left out because of their time.
    pub(crate) exemplars_out_of_bounds: u64,
}

impl Acceptance {
    fn accepts(&self, time: Millis) -> bool {
        (self.oldest..=self.newest).contains(&time)
    }
}

fn is_histogram(sample: &Sample) -> bool {
    matches!(sample.value, SampleValue::Histogram(_))
}

/// How many of these samples are added at once; one at least.
fn added_at_once(samples: &[Sample]) -> usize {
    let mut bytes = 0;
    let fits = samples
        .iter()
        .take(SAMPLES_AT_ONCE_MAX)
        .take_while(|sample| {
            let fits = bytes <= HISTOGRAM_BYTES_AT_ONCE_MAX;
            if let SampleValue::Histogram(histogram) = &sample.value {
                bytes += histogram.bytes();
            }
            fits
        });
    fits.count()
}

fn borrowed(sample: &Sample) -> SampleRef<'_> {
    let (value, histogram) = match &sample.value {
        SampleValue::Float(value) => (*value, None),
        SampleValue::Histogram(histogram) => (0.0, Some(histogram)),
    };
    SampleRef {
        time: sample.time,
        value,
        histogram,
        start: sample.start,
    }
}

struct Group {
    writer: BodyWriter,
    shards: ShardSet,
}

/// The round that is being filled.
struct Round {
    groups: Vec<Option<Group>>,
    /// Uncompressed bytes in all groups.
    content_bytes: usize,
}

impl Round {
    fn new(groups: usize) -> Self {
        Self {
            groups: std::iter::repeat_with(|| None).take(groups).collect(),
            content_bytes: 0,
        }
    }
}

impl Encoder {
    /// Cuts a request into parcels' bodies.
    ///
    /// # Errors
    /// When a series or a declaration is larger than a body takes, or memory is short; nothing was sent.
    pub(crate) fn encode(
        &self,
        tenant: TenantId,
        request: &WriteRequest,
        routing: &Routing,
        acceptance: Acceptance,
        filter: Option<&Filter<'_>>,
    ) -> Result<Encoded, MetricsError> {
        let mut encoded = Encoded::default();
        let mut memory = Vec::new();
        let mut round = Round::new(routing.groups().len());
        for series in request.series() {
            let kept = match filter {
                None => Kept::Stored(series.canonical()),
                Some(filter) => filter.keep(series.canonical(), &mut memory),
            };
            let count = series.samples().len() as u64;
            let labels = match kept {
                Kept::Stored(labels) => labels,
                Kept::Dropped => {
                    encoded.deduplicated += count;
                    continue;
                }
                Kept::Refused(reason) => {
                    let explain = || format!("{reason}, in series {}", series.to_labels());
                    encoded.refusals.add(count, explain);
                    continue;
                }
            };
            let shard = shard_of(key_hash(tenant, labels), routing.shards());
            let group = routing.group_of(shard);
            if !series.is_plain() {
                self.add_whole(
                    &mut round,
                    &mut encoded,
                    (group, shard),
                    (&series, labels),
                    acceptance,
                )?;
                continue;
            }
            let accepted = encoded.accepted(&series, acceptance);
            for samples in accepted.chunks(SAMPLES_AT_ONCE_MAX) {
                self.add(&mut round, &mut encoded, group, shard, |writer| {
                    writer.add_series(shard, labels, samples.iter().copied())
                })?;
                encoded.samples += samples.len() as u64;
            }
        }
        for entry in request.metadata() {
            let shard = metadata_shard(tenant, entry.metric, routing.shards());
            let metadata = MetricMetadata {
                metric: entry.metric.to_owned(),
                metric_type: metric_type(entry.kind),
                help: entry.help.to_owned(),
                unit: entry.unit.to_owned(),
            };
            let group = routing.group_of(shard);
            self.add(&mut round, &mut encoded, group, shard, |writer| {
                writer.add_metadata(shard, &metadata)
            })?;
        }
        for (series, exemplar) in request.exemplars() {
            if !acceptance.accepts(exemplar.time) {
                encoded.exemplars_out_of_bounds += 1;
                continue;
            }
            let kept = match filter {
                None => Kept::Stored(series.canonical()),
                Some(filter) => filter.keep(series.canonical(), &mut memory),
            };
            let Kept::Stored(canonical) = kept else {
                continue;
            };
            let shard = shard_of(key_hash(tenant, canonical), routing.shards());
            let group = routing.group_of(shard);
            let exemplar = Exemplar {
                labels: exemplar.labels.clone(),
                value: exemplar.value,
                time: exemplar.time,
            };
            self.add(&mut round, &mut encoded, group, shard, |writer| {
                writer.add_exemplar(shard, canonical, &exemplar)
            })?;
        }
        self.finish(&mut round, &mut encoded)?;
        Ok(encoded)
    }

    /// Adds a series that has histograms or start timestamps.
    fn add_whole(
        &self,
        round: &mut Round,
        encoded: &mut Encoded,
        (group, shard): (usize, ShardId),
        (series, labels): (&SeriesRef<'_>, &[u8]),
        acceptance: Acceptance,
    ) -> Result<(), MetricsError> {
        let mut accepted: Vec<Sample> = Vec::new();
        for sample in series.whole_samples() {
            if acceptance.accepts(sample.time) {
                accepted.push(sample);
            } else {
                encoded.refuse(series, sample.time);
                encoded.histograms_out_of_bounds += u64::from(is_histogram(&sample));
            }
        }
        let mut rest = &accepted[..];
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(added_at_once(rest));
            rest = behind;
            self.add(round, encoded, group, shard, |writer| {
                writer.add_samples(shard, labels, some.iter().map(borrowed))
            })?;
            encoded.samples += some.len() as u64;
        }
        Ok(())
    }

    /// Adds items of a shard to the round; ends the round when it is full.
    fn add(
        &self,
        round: &mut Round,
        encoded: &mut Encoded,
        group: usize,
        shard: ShardId,
        add: impl FnOnce(&mut BodyWriter) -> Result<(), MetricsError>,
    ) -> Result<(), MetricsError> {
        let group = self.group(&mut round.groups, group)?;
        group.shards.insert(shard);
        let before = group.writer.content_bytes();
        add(&mut group.writer)?;
        round.content_bytes += group.writer.content_bytes() - before;
        if round.content_bytes >= ROUND_CONTENT_BYTES_MAX {
            self.finish(round, encoded)?;
        }
        Ok(())
    }

    /// Ends the round, if there is anything in it, and begins the next.
    fn finish(&self, round: &mut Round, encoded: &mut Encoded) -> Result<(), MetricsError> {
        let mut parcels = Vec::new();
        for slot in &mut round.groups {
            let Some(mut group) = slot.take() else {
                continue;
            };
            let body = group.writer.finish()?;
            parcels.push((group.shards, Bytes::from(body)));
            let mut kept = self.writers.lock();
            if kept.len() < WRITERS_KEPT_MAX {
                kept.push(group.writer);
            }
        }
        round.content_bytes = 0;
        if !parcels.is_empty() {
            encoded.rounds.push(parcels);
        }
        Ok(())
    }

    fn group<'a>(
        &self,
        groups: &'a mut [Option<Group>],
        index: usize,
    ) -> Result<&'a mut Group, MetricsError> {
        let slot = &mut groups[index];
        if let Some(group) = slot {
            return Ok(group);
        }
        let kept = self.writers.lock().pop();
        let writer = match kept {
            Some(writer) => writer,
            None => BodyWriter::new()?,
        };
        Ok(slot.insert(Group {
            writer,
            shards: ShardSet::new(),
        }))
    }
}

impl Encoded {
    /// The samples of a series whose times are acceptable; the others are counted.
    fn accepted<'a>(
        &mut self,
        series: &SeriesRef<'a>,
        acceptance: Acceptance,
    ) -> Cow<'a, [(Millis, f64)]> {
        let fits = |(at, _): &(Millis, f64)| acceptance.accepts(*at);
        let samples = series.samples();
        if samples.iter().all(fits) {
            return Cow::Borrowed(samples);
        }
        let refused = samples.iter().filter(|sample| !fits(sample));
        refused.for_each(|sample| self.refuse(series, sample.0));
        Cow::Owned(samples.iter().filter(|s| fits(s)).copied().collect())
    }

    /// Counts a sample whose time is not acceptable.
    fn refuse(&mut self, series: &SeriesRef<'_>, time: Millis) {
        self.out_of_bounds += 1;
        self.first_out_of_bounds.get_or_insert_with(|| {
            let labels = series.to_labels();
            format!("timestamp {time} of series {labels} is out of bounds")
        });
    }
}

fn metric_type(kind: MetricKind) -> MetricType {
    match kind {
        MetricKind::Unknown => MetricType::Unknown,
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
        MetricKind::GaugeHistogram => MetricType::GaugeHistogram,
        MetricKind::Summary => MetricType::Summary,
        MetricKind::Info => MetricType::Info,
        MetricKind::StateSet => MetricType::StateSet,
    }
}
