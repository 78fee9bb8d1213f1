//! From a decoded write request to parcels: one body for each group of shards that has the same owners.
//!
//! With three nodes all shards have the same owners, so a request is encoded once and the same bytes go
//! to all of them. A request that is too large for one message and one journal record is cut into several *rounds*,
//! each a write of its own; the client gets its success when all of them are held.

pub(crate) mod held;
pub(crate) mod pairs;

use crate::limits::series::RefusedSeries;
use bytes::Bytes;
use pairs::{Filter, HeldTimes, Kept};
use parking_lot::Mutex;
use std::borrow::Cow;
use trefoil_api::{
    limit_refusals,
    remote_write::{
        MetricKind, Refusals, Sample, SampleValue, SeriesRef, WriteRequest, refused_of_series,
    },
};
use trefoil_model::{Millis, SeriesHash, ShardId, ShardSet, TenantId, key_hash, shard_of};
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
    /// Samples before this are too far in the past by a limit of the tenant; not behind `oldest`.
    pub(crate) past: Millis,
    /// Samples behind this are too far in the future.
    pub(crate) newest: Millis,
    /// Samples of these times are held back, whatever the others say: another sender of the pair may have stored there.
    pub(crate) held: HeldTimes,
}

/// Decides whether a series may be stored.
pub(crate) type Gate<'a> = dyn FnMut(&[u8]) -> Result<(), RefusedSeries> + 'a;

/// What decides which items of a request are stored.
pub(crate) struct Admission<'a> {
    pub(crate) acceptance: Acceptance,
    /// Which sender of a pair counts; nothing when pairs are not told.
    pub(crate) filter: Option<&'a Filter<'a>>,
    /// Whether all members read exemplars.
    pub(crate) takes_exemplars: bool,
    pub(crate) gate: &'a mut Gate<'a>,
}

impl Admission<'_> {
    fn keep<'b>(&self, canonical: &'b [u8], memory: &'b mut Vec<u8>) -> Kept<'b> {
        match self.filter {
            None => Kept::Stored(canonical, HeldTimes::NONE),
            Some(filter) => filter.keep(canonical, memory),
        }
    }
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
    /// Series that have such samples, and those of them that keep others.
    pub(crate) out_of_bounds_series: (u64, u64),
    /// Samples left out, or held back, because another sender of their pair counts or has counted then.
    pub(crate) deduplicated: u64,
    /// Those among them whose sender counts now.
    pub(crate) behind: u64,
    pub(crate) first_out_of_bounds: Option<String>,
    /// Series left out because there are too many, or because nobody can tell which sender of their pair counts.
    pub(crate) refusals: Refusals,
    /// Those of them that are too many.
    pub(crate) refused: Vec<SeriesHash>,
    /// How many of all samples left out are histograms.
    pub(crate) refused_histograms: u64,
    /// Exemplars left out because of their time, because their series may not begin, or because a member cannot read
    /// them yet.
    pub(crate) skipped_exemplars: u64,
}

impl Acceptance {
    pub(crate) fn accepts(&self, time: Millis) -> bool {
        !self.held.contain(time) && (self.oldest..=self.newest).contains(&time)
    }

    /// Why a sample of a time that is not acceptable is refused.
    pub(crate) fn refusal(&self, time: Millis, series: &str) -> String {
        match time {
            _ if time > self.newest => limit_refusals::too_far_in_future(time, series),
            _ if time < self.past => limit_refusals::too_far_in_past(time, series),
            _ => limit_refusals::too_old(time, series),
        }
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
        admission: Admission<'_>,
    ) -> Result<Encoded, MetricsError> {
        let mut encoded = Encoded::default();
        let mut memory = Vec::new();
        let mut round = Round::new(routing.groups().len());
        for series in request.series() {
            let (labels, held) = match admission.keep(series.canonical(), &mut memory) {
                Kept::Stored(labels, held) => (labels, held),
                Kept::Held => {
                    encoded.deduplicated += series.samples().len() as u64;
                    continue;
                }
                Kept::Refused(reason) => {
                    encoded.refuse_series(&series, || reason);
                    continue;
                }
            };
            let acceptance = Acceptance {
                held,
                ..admission.acceptance
            };
            let shard = shard_of(key_hash(tenant, labels), routing.shards());
            // A series of which nothing is stored takes no room from others.
            let mut times = series.samples().iter().map(|(at, _)| *at);
            if times.any(|at| acceptance.accepts(at))
                && let Err(reason) = (admission.gate)(labels)
            {
                encoded.refuse_series(&series, || reason.in_words());
                encoded
                    .refused
                    .push(SeriesHash::of(tenant, series.canonical()));
                continue;
            }
            let place = (routing.group_of(shard), shard);
            let before = encoded.out_of_bounds;
            let (samples, times) = ((&series, labels), acceptance);
            match series.is_plain() {
                true => self.add_plain(&mut round, &mut encoded, place, samples, times),
                false => self.add_whole(&mut round, &mut encoded, place, samples, times),
            }?;
            encoded.count_series(&series, encoded.out_of_bounds - before);
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
        self.add_exemplars(
            &mut round,
            &mut encoded,
            tenant,
            request,
            routing,
            admission,
        )?;
        self.finish(&mut round, &mut encoded)?;
        Ok(encoded)
    }

    fn add_exemplars(
        &self,
        round: &mut Round,
        encoded: &mut Encoded,
        tenant: TenantId,
        request: &WriteRequest,
        routing: &Routing,
        admission: Admission<'_>,
    ) -> Result<(), MetricsError> {
        let mut memory = Vec::new();
        if !admission.takes_exemplars {
            encoded.skipped_exemplars += request.exemplars().len() as u64;
            return Ok(());
        }
        for (series, exemplar) in request.exemplars() {
            if !admission.acceptance.accepts(exemplar.time) {
                encoded.skipped_exemplars += 1;
                continue;
            }
            let Kept::Stored(labels, _) = admission.keep(series.canonical(), &mut memory) else {
                continue;
            };
            let shard = shard_of(key_hash(tenant, labels), routing.shards());
            if (admission.gate)(labels).is_err() {
                encoded.skipped_exemplars += 1;
                continue;
            }
            let group = routing.group_of(shard);
            let exemplar = Exemplar {
                labels: exemplar.labels.clone(),
                value: exemplar.value,
                time: exemplar.time,
            };
            self.add(round, encoded, group, shard, |writer| {
                writer.add_exemplar(shard, labels, &exemplar)
            })?;
        }
        Ok(())
    }

    /// Adds a series that has numbers only.
    fn add_plain(
        &self,
        round: &mut Round,
        encoded: &mut Encoded,
        (group, shard): (usize, ShardId),
        (series, labels): (&SeriesRef<'_>, &[u8]),
        acceptance: Acceptance,
    ) -> Result<(), MetricsError> {
        let accepted = encoded.accepted(series, acceptance);
        for samples in accepted.chunks(SAMPLES_AT_ONCE_MAX) {
            self.add(round, encoded, group, shard, |writer| {
                writer.add_series(shard, labels, samples.iter().copied())
            })?;
            encoded.samples += samples.len() as u64;
        }
        Ok(())
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
            } else if encoded.refuse(series, sample.time, acceptance) {
                encoded.refused_histograms += u64::from(is_histogram(&sample));
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
            self.keep_writer(group.writer);
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
        let writer = self.take_writer()?;
        Ok(slot.insert(Group {
            writer,
            shards: ShardSet::new(),
        }))
    }

    /// A writer without a body, with the memory of an earlier request if there is one.
    fn take_writer(&self) -> Result<BodyWriter, MetricsError> {
        let kept = self.writers.lock().pop();
        kept.map_or_else(BodyWriter::new, Ok)
    }

    /// Keeps a writer whose body is finished.
    fn keep_writer(&self, writer: BodyWriter) {
        let mut kept = self.writers.lock();
        if kept.len() < WRITERS_KEPT_MAX {
            kept.push(writer);
        }
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
        for (time, _) in samples.iter().filter(|sample| !fits(sample)) {
            self.refuse(series, *time, acceptance);
        }
        Cow::Owned(samples.iter().filter(|s| fits(s)).copied().collect())
    }

    /// Counts the samples of a series that is not stored at all.
    fn refuse_series(&mut self, series: &SeriesRef<'_>, reason: impl FnOnce() -> String) {
        let samples = series.samples().len() as u64;
        let explain = || refused_of_series(&reason(), &series.to_labels());
        self.refusals.add(samples, explain);
        let histograms = series.whole_samples().filter(is_histogram).count();
        self.refused_histograms += histograms as u64;
    }

    /// Counts a series of which so many samples are out of bounds.
    fn count_series(&mut self, series: &SeriesRef<'_>, refused: u64) {
        let (all, partly) = &mut self.out_of_bounds_series;
        *all += u64::from(refused > 0);
        *partly += u64::from(refused > 0 && refused < series.samples().len() as u64);
    }

    /// Counts a sample whose time is not acceptable. Whether it is refused for that, not held back.
    fn refuse(&mut self, series: &SeriesRef<'_>, time: Millis, acceptance: Acceptance) -> bool {
        if acceptance.held.contain(time) {
            self.behind += 1;
            self.deduplicated += 1;
            return false;
        }
        self.out_of_bounds += 1;
        self.first_out_of_bounds.get_or_insert_with(|| {
            let labels = series.to_labels().to_string();
            acceptance.refusal(time, &labels)
        });
        true
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
