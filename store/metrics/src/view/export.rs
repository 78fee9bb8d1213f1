//! The content of shards as parcel bodies, for copying it to another owner.
//!
//! ```text
//! tenant: metadata entries, ascending | series in label order, each with its samples in order of time
//! ```
//! A body ends anywhere: between entries, between series, or inside a series. Every body says behind what it
//! ends ([`ExportCursor`]), and an export of the same view that begins there gives exactly the rest. "Nothing is
//! left" is not a cursor: [`Export::next_body`] gives no body then.

use super::{SeriesCursor, View};
use crate::MetricsError;
use crate::body::{BodyWriter, MetricMetadata};
use crate::columns::Column;
use crate::histogram::pack;
use crate::order::write_label_key;
use std::collections::VecDeque;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, ShardId, ShardSet, TenantId, TimeRange};

/// Most samples of a body, whatever was asked for: together with one series' labels they fit into a body.
const SAMPLES_MAX: usize = 1 << 20;

/// A body ends when it has so many uncompressed bytes for each sample that it may have: about twice what a sample
/// takes, so that bodies of many labels or of metadata alone are bounded as well.
const CONTENT_BYTES_PER_SAMPLE: usize = 16;

/// Samples in memory between two bodies, about: 16 MiB. An export lives as long as its copy.
const BATCH_SAMPLES: u64 = 1 << 20;

/// Behind what a body ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportCursor {
    tenant: TenantId,
    place: Place,
}

/// A place in what is given of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Behind this entry of the metadata.
    Metadata(ShardId, MetricMetadata),
    /// Behind the metadata, the series before this one, and its samples up to and including `through`.
    Series { canonical: Vec<u8>, through: Millis },
}

/// A part of an export.
pub struct ExportedBody {
    /// The tenant whose series the body has.
    pub tenant: TenantId,
    /// All deletions up to this version have been applied.
    pub deletion_version: DeletionVersion,
    /// To be read by [`crate::BodyReader`].
    pub body: Vec<u8>,
    /// How many samples the body has; none in a body of metadata.
    pub samples: usize,
    /// Behind what the body ends. There may be nothing behind it.
    pub end: ExportCursor,
}

/// Gives the content of shards in bodies of bounded size. Holds its view.
pub struct Export {
    view: Arc<View>,
    shards: ShardSet,
    range: TimeRange,
    samples_max: usize,
    /// Those that have not begun, descending.
    tenants: Vec<TenantId>,
    open: Option<OpenTenant>,
    /// Where the first tenant goes on.
    after: Option<ExportCursor>,
    writer: BodyWriter,
}

/// What is left of a tenant that has begun.
struct OpenTenant {
    tenant: TenantId,
    /// The deletions that the view has applied.
    applied: DeletionVersion,
    metadata: VecDeque<(ShardId, MetricMetadata)>,
    series: SeriesCursor,
    /// The series in which the export stands.
    rest: Option<Rest>,
    /// In the series with these labels, samples up to and including this time were given before.
    given: Option<(Vec<u8>, Millis)>,
}

struct Rest {
    canonical: Vec<u8>,
    shard: ShardId,
    samples: Column,
    /// How many of them were given; not all.
    given: usize,
}

impl View {
    /// Exports the content of `shards` in `range`, about `samples_max` (at most 2^20) samples per body, behind `after`:
    /// a cursor of an export of the same view, shards and range, with any `samples_max`.
    ///
    /// # Errors
    /// [`MetricsError::Compression`] when memory is short.
    pub fn export(
        self: &Arc<Self>,
        shards: &ShardSet,
        range: TimeRange,
        samples_max: usize,
        after: Option<ExportCursor>,
    ) -> Result<Export, MetricsError> {
        let first = after.as_ref().map(|cursor| cursor.tenant);
        let tenants = self.tenants().into_iter();
        let tenants = tenants.filter(|t| first.is_none_or(|first| *t >= first));
        Ok(Export {
            view: Arc::clone(self),
            shards: shards.clone(),
            range,
            samples_max: samples_max.clamp(1, SAMPLES_MAX),
            tenants: tenants.rev().collect(),
            open: None,
            after,
            writer: BodyWriter::new()?,
        })
    }
}

impl Export {
    /// The next body, or `None` when nothing is left. Every body has a sample or an entry of metadata.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`], [`MetricsError::UnknownDeletion`]; the export must not be used further.
    pub fn next_body(&mut self) -> Result<Option<ExportedBody>, MetricsError> {
        loop {
            let Some(open) = &mut self.open else {
                match self.tenants.pop() {
                    Some(tenant) => self.open = Some(self.begin(tenant)?),
                    None => return Ok(None),
                }
                continue;
            };
            let (tenant, deletion_version) = (open.tenant, open.applied);
            let Some(place) = open.fill(&mut self.writer, self.samples_max)? else {
                self.open = None;
                continue;
            };
            let samples = self.writer.samples();
            return Ok(Some(ExportedBody {
                tenant,
                deletion_version,
                body: self.writer.finish()?,
                samples,
                end: ExportCursor { tenant, place },
            }));
        }
    }

    fn begin(&mut self, tenant: TenantId) -> Result<OpenTenant, MetricsError> {
        let (view, range, shards) = (&self.view, self.range, &self.shards);
        let applied = view.applied_deletions(tenant)?;
        let mut series = view.cursor_with_shards(tenant, range, shards)?;
        series.read_in_batches_of(BATCH_SAMPLES);
        let mut metadata = VecDeque::new();
        let mut given = None;
        let after = self.after.take_if(|after| after.tenant == tenant);
        match after.map(|after| after.place) {
            None => metadata.extend(view.metadata_with_shards(tenant, range, shards)?),
            Some(Place::Metadata(shard, entry)) => {
                let all = view.metadata_with_shards(tenant, range, shards)?;
                let given = (shard, entry);
                metadata.extend(all.into_iter().filter(|entry| *entry > given));
            }
            Some(Place::Series { canonical, through }) => {
                let key = key_of(&canonical);
                series.skip_until(&|canonical| key_of(canonical) >= key);
                given = Some((canonical, through));
            }
        }
        Ok(OpenTenant {
            tenant,
            applied,
            metadata,
            series,
            rest: None,
            given,
        })
    }
}

impl OpenTenant {
    /// Fills a body and says behind what it ends; `None` and an empty body when nothing is left.
    fn fill(
        &mut self,
        writer: &mut BodyWriter,
        samples_max: usize,
    ) -> Result<Option<Place>, MetricsError> {
        let mut place = None;
        let content_max = samples_max * CONTENT_BYTES_PER_SAMPLE;
        let is_full = |writer: &BodyWriter| {
            writer.samples() >= samples_max
                || (!writer.is_empty() && writer.content_bytes() >= content_max)
        };
        while !is_full(writer) {
            let Some((shard, entry)) = self.metadata.pop_front() else {
                break;
            };
            writer.add_metadata(shard, &entry)?;
            place = Some(Place::Metadata(shard, entry));
        }
        while !is_full(writer) {
            let Some(mut rest) = self.next_rest()? else {
                break;
            };
            let all = rest.samples.slice();
            let content_left = content_max.saturating_sub(writer.content_bytes());
            let end = rest.end(samples_max - writer.samples(), content_left);
            let through = all.timestamps[end - 1];
            let some = all.cut(rest.given, end);
            let (shard, canonical) = (rest.shard, &rest.canonical[..]);
            if some.is_plain() {
                let times = some.timestamps.iter().copied();
                let numbers = times.zip(some.values.iter().copied());
                writer.add_series(shard, canonical, numbers)?;
            } else {
                writer.add_samples(shard, canonical, some.iter())?;
            }
            rest.given = end;
            let canonical = rest.canonical.clone();
            place = Some(Place::Series { canonical, through });
            self.rest = Some(rest).filter(|rest| rest.given < rest.samples.timestamps.len());
        }
        Ok(place)
    }

    /// The series in which the export stands, or the next one, without the samples that were given.
    fn next_rest(&mut self) -> Result<Option<Rest>, MetricsError> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        while let Some(series) = self.series.next_series()? {
            let given = self.given.take();
            let given = given.filter(|(canonical, _)| canonical == series.canonical);
            let first = given.map_or(0, |(_, through)| {
                series.timestamps.partition_point(|time| *time <= through)
            });
            let all = series.samples();
            let samples = all.cut(first, all.timestamps.len());
            if !samples.timestamps.is_empty() {
                let mut rest = Rest {
                    canonical: series.canonical.to_vec(),
                    shard: series.shard,
                    samples: Column::default(),
                    given: 0,
                };
                rest.samples.extend(samples);
                return Ok(Some(rest));
            }
        }
        Ok(None)
    }
}

impl Rest {
    /// Behind the last of at most `samples_max` samples that fit into so many bytes of a body; one always does.
    fn end(&self, samples_max: usize, content_left: usize) -> usize {
        let all = self.samples.slice();
        let end = all.timestamps.len().min(self.given + samples_max);
        if all.histograms.is_empty() {
            return end;
        }
        let (mut bytes, mut packed) = (0, Vec::new());
        let fits = all.cut(self.given, end).iter().take_while(|sample| {
            let is_first = bytes == 0;
            packed.clear();
            if let Some(histogram) = sample.histogram {
                pack(histogram, &mut packed);
            }
            bytes += 1 + packed.len();
            is_first || bytes <= content_left
        });
        self.given + fits.count()
    }
}

fn key_of(canonical: &[u8]) -> Vec<u8> {
    let mut key = Vec::new();
    write_label_key(canonical, &mut key);
    key
}
