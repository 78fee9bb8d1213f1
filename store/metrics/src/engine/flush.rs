//! Flushing: what was applied leaves the head as one block per window touched. Histograms of a series that are more than a
//! block takes go on in further blocks of the window.
//!
//! Metadata has no time. It goes into every block that gets samples of its tenant; where no sample came with it, into
//! the block of a window that the tenant or the node has written to before (see `homeless`).

mod homeless;

use super::readers::{AGGREGATES_FILE, BLOCK_FILE};
use super::{MetricsEngine, Policy};
use crate::MetricsError;
use crate::block::{BlockSummary, BlockWriter, fitting};
use crate::body::{MetadataRoom, MetricMetadata};
use crate::columns::{Column, SampleSlice};
use crate::head::{Gathered, HeadPart};
use crate::order::write_block_key;
use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{DeletionVersion, ShardId, ShardSet, Signal, TenantId, TimeRange, Window};
use trefoil_store_blocks::{BlockId, BlockMeta, ManifestEdit, TenantSummary};

/// Series copied out of the head at once: the applier waits that long for the label index.
const GATHERED_SERIES: usize = 256;

/// What a flush wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushOutcome {
    /// Blocks written: mostly one per window touched.
    pub blocks: usize,
    /// Samples in them, without duplicates.
    pub samples: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What metrics are declared as, by shard.
type Entries = BTreeSet<(ShardId, MetricMetadata)>;

/// The same for several tenants.
type ByTenant = BTreeMap<TenantId, Entries>;

/// Series whose samples did not fit into a block: canonical labels, shard and the samples that are left, in block order.
type Remainders = Vec<(Vec<u8>, ShardId, Column)>;

/// A block in work, and what it does not take.
struct Target {
    writer: BlockWriter,
    remainders: BTreeMap<TenantId, Remainders>,
}

/// The frozen generations of each tenant, oldest first.
pub(super) type Frozen = BTreeMap<TenantId, Vec<HeadPart>>;

impl MetricsEngine {
    /// Writes everything applied so far, which includes everything up to journal position `position`, to blocks, has the
    /// exemplars saved, and records blocks, position and checkpoint together. The head stays queryable meanwhile. The position stays where it
    /// is when another flush has brought it further: whoever waited for that one could not know.
    ///
    /// # Errors
    /// [`MetricsError::Blocks`], [`MetricsError::UnknownDeletion`]; the samples stay in the head and the next flush takes
    /// them along.
    ///
    /// # Panics
    /// When `position` has not been applied.
    pub fn flush(
        &self,
        position: u64,
        checkpoint: Option<Vec<u8>>,
    ) -> Result<FlushOutcome, MetricsError> {
        let _flushing = self.flushing.lock();
        self.flush_alone(position, checkpoint)
    }

    /// [`MetricsEngine::flush`] for a caller that holds `flushing`.
    pub(super) fn flush_alone(
        &self,
        position: u64,
        checkpoint: Option<Vec<u8>>,
    ) -> Result<FlushOutcome, MetricsError> {
        assert!(
            position <= self.applied_position(),
            "a flush cannot be ahead of what was applied"
        );
        let position = position.max(self.manifest.pin().flushed_to());
        // Those of all parcels up to the position are in memory, and no replay brings them again.
        self.save_exemplars_at(position, true)?;
        let frozen = self.freeze();
        self.note_active(&frozen);
        let policy = self.policy();
        let mut edit = ManifestEdit {
            flushed_to: Some(position),
            checkpoint,
            ..ManifestEdit::default()
        };
        if let Err(error) = self.write_windows(&frozen, &policy, &mut edit.add) {
            self.abandon(edit.add.iter().map(|meta| meta.id));
            return Err(error);
        }
        let outcome = FlushOutcome {
            blocks: edit.add.len(),
            samples: edit.add.iter().map(|meta| meta.items).sum(),
            bytes: edit.add.iter().map(BlockMeta::bytes).sum(),
        };
        self.commit(edit)?;
        // Freeing a generation takes a while, and nobody waits for it.
        let flushed = std::mem::take(&mut self.heads.write().frozen);
        drop(flushed);
        Ok(outcome)
    }

    /// Puts new generations in the place of those with samples, and gives all that are not in blocks. A label index
    /// with many idle series goes with its generation, and so does a tenant that sent nothing: the head's memory follows
    /// what is written to. What is still written to is indexed anew when it comes.
    fn freeze(&self) -> Frozen {
        // The applier takes parts of the head without the outer lock; stopping it makes the cut clean.
        let _applier = self.applier.lock();
        let mut heads = self.heads.write();
        let heads = &mut *heads;
        heads
            .tenants
            .retain(|_, head| !head.samples.read().is_empty());
        for (tenant, head) in &mut heads.tenants {
            let part = head.freeze(*tenant);
            heads.frozen.push((*tenant, part));
        }
        let mut frozen = Frozen::new();
        for (tenant, part) in &heads.frozen {
            frozen.entry(*tenant).or_default().push(part.clone());
        }
        frozen
    }

    pub(super) fn abandon(&self, blocks: impl Iterator<Item = BlockId>) {
        blocks.for_each(|block| self.manifest.abandon(block, &[BLOCK_FILE, AGGREGATES_FILE]));
    }

    fn write_windows(
        &self,
        frozen: &Frozen,
        policy: &Policy,
        blocks: &mut Vec<BlockMeta>,
    ) -> Result<(), MetricsError> {
        let parts = || frozen.values().flatten();
        let mut windows: BTreeSet<Window> = parts()
            .flat_map(|part| part.generation().read().windows().collect::<Vec<_>>())
            .collect();
        let mut homeless = self.homeless_metadata(frozen, &windows, policy);
        windows.extend(homeless.keys());
        for window in windows {
            let id = self.manifest.reserve_block();
            let homeless = homeless.remove(&window).unwrap_or_default();
            let written = self.write_window(id, window.range(), frozen, homeless, policy);
            let mut remainders = self.keep_block(id, window.range(), written, blocks)?;
            while !remainders.is_empty() {
                let id = self.manifest.reserve_block();
                let written = self.write_remainders(id, window.range(), remainders, frozen, policy);
                remainders = self.keep_block(id, window.range(), written, blocks)?;
            }
        }
        Ok(())
    }

    /// Takes a block that was written to `blocks`, or its file away. Gives what the block did not take.
    fn keep_block(
        &self,
        id: BlockId,
        window: TimeRange,
        written: Result<Written, MetricsError>,
        blocks: &mut Vec<BlockMeta>,
    ) -> Result<BTreeMap<TenantId, Remainders>, MetricsError> {
        let (summary, remainders) = written.inspect_err(|_| self.abandon(std::iter::once(id)))?;
        match block_meta(id, window, 0, summary) {
            Some(meta) => blocks.push(meta),
            // Everything in this window was deleted or cut off, and nothing was declared.
            None => self.abandon(std::iter::once(id)),
        }
        Ok(remainders)
    }

    fn write_remainders(
        &self,
        id: BlockId,
        window: TimeRange,
        remainders: BTreeMap<TenantId, Remainders>,
        frozen: &Frozen,
        policy: &Policy,
    ) -> Result<Written, MetricsError> {
        let file = self.manifest.create_file(id, BLOCK_FILE)?;
        let level = self.options.flush_compression;
        let version = self.block_version(false);
        let mut target = Target::new(BlockWriter::new(file, window, level, version)?);
        for (tenant, of_tenant) in remainders {
            let parts = frozen.get(&tenant).map_or(&[][..], Vec::as_slice);
            begin_tenant(&mut target.writer, tenant, parts, policy)?;
            for (canonical, shard, column) in of_tenant {
                target.add_series(tenant, &canonical, shard, column.slice())?;
            }
        }
        target.finish()
    }

    fn write_window(
        &self,
        id: BlockId,
        range: TimeRange,
        frozen: &Frozen,
        mut homeless: ByTenant,
        policy: &Policy,
    ) -> Result<Written, MetricsError> {
        let file = self.manifest.create_file(id, BLOCK_FILE)?;
        let mut parts = frozen.values().flatten();
        let version = self.block_version(parts.all(|part| part.is_plain()));
        let level = self.options.flush_compression;
        let mut target = Target::new(BlockWriter::new(file, range, level, version)?);
        for (tenant, parts) in frozen {
            let touched = |part: &HeadPart| {
                let samples = part.generation().read();
                samples.windows().any(|window| window.range() == range)
            };
            if parts.iter().any(touched) {
                write_tenant(&mut target, *tenant, parts, range, policy)?;
            } else if let Some(entries) = homeless.remove(tenant) {
                begin_tenant(&mut target.writer, *tenant, parts, policy)?;
                write_metadata(&mut target.writer, entries)?;
            }
        }
        target.finish()
    }
}

/// A finished block, and what it did not take.
type Written = (BlockSummary, BTreeMap<TenantId, Remainders>);

impl Target {
    fn new(writer: BlockWriter) -> Self {
        Self {
            writer,
            remainders: BTreeMap::new(),
        }
    }

    /// Adds as many samples of a series of the present tenant as the block takes.
    fn add_series(
        &mut self,
        tenant: TenantId,
        canonical: &[u8],
        shard: ShardId,
        samples: SampleSlice<'_>,
    ) -> Result<(), MetricsError> {
        let (fits, all) = (fitting(samples), samples.timestamps.len());
        self.writer
            .add_series(canonical, shard, samples.cut(0, fits))?;
        if fits < all {
            let mut left = Column::default();
            left.extend(samples.cut(fits, all));
            let of_tenant = self.remainders.entry(tenant).or_default();
            of_tenant.push((canonical.to_vec(), shard, left));
        }
        Ok(())
    }

    fn finish(self) -> Result<Written, MetricsError> {
        Ok((self.writer.finish()?, self.remainders))
    }
}

fn write_tenant(
    target: &mut Target,
    tenant: TenantId,
    parts: &[HeadPart],
    range: TimeRange,
    policy: &Policy,
) -> Result<(), MetricsError> {
    begin_tenant(&mut target.writer, tenant, parts, policy)?;
    let cut = TimeRange {
        start: range.start.max(policy.cut_off(tenant)),
        end: range.end,
    };
    if let [part] = parts {
        write_part(target, part, cut, policy, tenant)?;
    } else {
        write_parts(target, parts, cut, policy, tenant)?;
    }
    write_metadata(&mut target.writer, declared(parts))
}

fn begin_tenant(
    writer: &mut BlockWriter,
    tenant: TenantId,
    parts: &[HeadPart],
    policy: &Policy,
) -> Result<(), MetricsError> {
    let of_parts = parts
        .iter()
        .map(|part| part.generation().read().version_max());
    writer.begin_tenant(tenant, policy.claim(tenant, of_parts)?)
}

/// What a tenant's generations declare.
fn declared(parts: &[HeadPart]) -> Entries {
    let (mut entries, mut room) = (Entries::new(), MetadataRoom::new());
    for part in parts {
        room.extend(&mut entries, part.generation().read().metadata());
    }
    entries
}

fn write_metadata(writer: &mut BlockWriter, entries: Entries) -> Result<(), MetricsError> {
    if entries.is_empty() {
        return Ok(());
    }
    writer.add_metadata(&entries.into_iter().collect::<Vec<_>>())
}

/// The common case, one generation: series go from the head to the block in the block's order.
fn write_part(
    target: &mut Target,
    part: &HeadPart,
    range: TimeRange,
    policy: &Policy,
    tenant: TenantId,
) -> Result<(), MetricsError> {
    let mut gathered = Gathered::default();
    let order = part.in_block_order();
    let mut rest = &order[..];
    while !rest.is_empty() {
        let some = &rest[..rest.len().min(GATHERED_SERIES)];
        let taken = part.gather(some, range, policy.erasing(tenant), &mut gathered);
        rest = &rest[taken..];
        for series in gathered.iter() {
            target.add_series(tenant, series.canonical, series.shard, series.samples)?;
        }
    }
    Ok(())
}

/// After a flush that failed: series of several generations are gathered first.
fn write_parts(
    target: &mut Target,
    parts: &[HeadPart],
    range: TimeRange,
    policy: &Policy,
    tenant: TenantId,
) -> Result<(), MetricsError> {
    let mut all: BTreeMap<Vec<u8>, (Vec<u8>, ShardId, Column)> = BTreeMap::new();
    let mut gathered = Gathered::default();
    for part in parts {
        let order = part.in_block_order();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let some = &rest[..rest.len().min(GATHERED_SERIES)];
            let taken = part.gather(some, range, policy.erasing(tenant), &mut gathered);
            rest = &rest[taken..];
            for series in gathered.iter() {
                let mut key = Vec::new();
                write_block_key(series.canonical, &mut key);
                let new = || (series.canonical.to_vec(), series.shard, Column::default());
                let (_, _, column) = all.entry(key).or_insert_with(new);
                column.extend(series.samples);
            }
        }
    }
    for (canonical, shard, mut column) in all.into_values() {
        column.normalize();
        target.add_series(tenant, &canonical, shard, column.slice())?;
    }
    Ok(())
}

/// The manifest's entry for a finished block; `None` when nothing is in it. Metadata alone lies in the whole window.
pub(super) fn block_meta(
    id: BlockId,
    window: TimeRange,
    level: u8,
    summary: BlockSummary,
) -> Option<BlockMeta> {
    let items: u64 = summary.tenants.iter().map(|tenant| tenant.samples).sum();
    let all = |all: ShardSet, one: &ShardSet| all.union(one);
    let shards = (summary.tenants.iter().map(|t| &t.shards)).fold(ShardSet::new(), all);
    if shards.is_empty() {
        return None;
    }
    let (time_min, time_max) = match items {
        0 => (window.start, window.end - 1),
        _ => (summary.time_min, summary.time_max),
    };
    Some(BlockMeta {
        id,
        signal: Signal::Metrics,
        window,
        level,
        shards,
        tenants: summary.tenants.iter().map(tenant_summary).collect(),
        time_min,
        time_max,
        items,
        files: vec![summary.file],
        note: Vec::new(),
    })
}

fn tenant_summary(entry: &crate::block::TenantEntry) -> TenantSummary {
    TenantSummary {
        tenant: entry.tenant,
        deletion_version: DeletionVersion(entry.deletion_version.0),
        items: entry.samples,
    }
}
