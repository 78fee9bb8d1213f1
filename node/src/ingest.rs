//! From a decoded write request to parcels: one body for each group of shards that has the same owners.
//!
//! With three nodes all shards have the same owners, so a request is encoded once and the same bytes go
//! to all of them.

use bytes::Bytes;
use parking_lot::Mutex;
use trefoil_api::remote_write::{MetricKind, WriteRequest};
use trefoil_model::{Millis, ShardSet, TenantId, key_hash, shard_of};
use trefoil_shard::Routing;
use trefoil_store_metrics::{BodyWriter, MetricMetadata, MetricType, MetricsError, metadata_shard};

/// Writers that are kept for the next request, with their memory.
const WRITERS_KEPT_MAX: usize = 16;

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
    /// One body per group, with the shards of which it has a batch.
    pub(crate) parcels: Vec<(ShardSet, Bytes)>,
    /// Samples in the bodies.
    pub(crate) samples: u64,
    /// Samples left out because of their time, and the first of them in words.
    pub(crate) out_of_bounds: u64,
    pub(crate) first_out_of_bounds: Option<String>,
}

struct Group {
    writer: BodyWriter,
    shards: ShardSet,
}

impl Encoder {
    /// Cuts a request into parcels' bodies.
    ///
    /// # Errors
    /// When the request does not fit the bodies' limits; nothing was sent.
    pub(crate) fn encode(
        &self,
        tenant: TenantId,
        request: &WriteRequest,
        routing: &Routing,
        acceptance: Acceptance,
    ) -> Result<Encoded, MetricsError> {
        let mut encoded = Encoded::default();
        let mut groups: Vec<Option<Group>> = Vec::new();
        groups.resize_with(routing.groups().len(), || None);
        for series in request.series() {
            let shard = shard_of(key_hash(tenant, series.canonical()), routing.shards());
            let fits =
                |(at, _): &(Millis, f64)| (acceptance.oldest..=acceptance.newest).contains(at);
            let accepted = series
                .samples()
                .iter()
                .filter(|sample| fits(sample))
                .copied();
            let count = accepted.clone().count();
            let refused = series.samples().len() - count;
            if refused > 0 {
                encoded.out_of_bounds += refused as u64;
                encoded.first_out_of_bounds.get_or_insert_with(|| {
                    let first = series.samples().iter().find(|sample| !fits(sample));
                    let at = first.map_or(0, |(at, _)| *at);
                    format!(
                        "timestamp {at} of series {} is out of bounds",
                        series.to_labels()
                    )
                });
            }
            if count > 0 {
                let group = self.group(&mut groups, routing.group_of(shard))?;
                group.shards.insert(shard);
                group
                    .writer
                    .add_series(shard, series.canonical(), accepted)?;
                encoded.samples += count as u64;
            }
        }
        for entry in request.metadata() {
            let shard = metadata_shard(tenant, entry.metric, routing.shards());
            let group = self.group(&mut groups, routing.group_of(shard))?;
            group.shards.insert(shard);
            group.writer.add_metadata(
                shard,
                &MetricMetadata {
                    metric: entry.metric.to_owned(),
                    metric_type: metric_type(entry.kind),
                    help: entry.help.to_owned(),
                    unit: entry.unit.to_owned(),
                },
            )?;
        }
        for mut group in groups.into_iter().flatten() {
            let body = group.writer.finish()?;
            encoded.parcels.push((group.shards, Bytes::from(body)));
            let mut kept = self.writers.lock();
            if kept.len() < WRITERS_KEPT_MAX {
                kept.push(group.writer);
            }
        }
        Ok(encoded)
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
