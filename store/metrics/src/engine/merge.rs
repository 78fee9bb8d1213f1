//! Merging: blocks of one window become fewer, without duplicates, deleted samples and dropped shards.
//!
//! A window that is still written to is merged in tiers: a few blocks of one level become one of the next.
//! A closed window becomes exactly one block. Blocks that a deletion or a tombstone has not been applied to yet, and those
//! that lie wholly behind the cut-off of a selector which selects some of their series, are rewritten when nothing else is to
//! be done. A window in which a series has more histograms than a block takes keeps its blocks; a start tries once more.
//!
//! The one block of a closed window gets the aggregates of its samples as its second file, where the options want it; one that has
//! none, or whose aggregates cannot be read, is rewritten apart from all this (`backfill`). So late samples, deletions and tombstones, all of which make a new block, make new aggregates, too.

use super::flush::block_meta;
use super::readers::{AGGREGATES_FILE, BLOCK_FILE};
use super::scan::Scan;
use super::{MetricsEngine, Policy};
use crate::MetricsError;
use crate::block::{
    AggregatesWriter, BlockReader, BlockSummary, BlockVersion, BlockWriter, Pieces,
};
use crate::body::{MetadataRoom, MetricMetadata};
use crate::columns::{Column, SampleSlice};
use crate::deletion::Deletion;
use crate::view::extend_without;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use trefoil_model::{DeletionVersion, Millis, ShardId, ShardSet, Signal, TenantId, TimeRange};
use trefoil_store_blocks::{
    BlockFileEntry, BlockId, BlocksError, ManifestEdit, PinnedVersion, VisibleBlock,
};

/// Most blocks merged at once: each holds one decoded data piece, some megabytes.
const MERGE_BLOCKS_MAX: usize = 32;

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergeOutcome {
    /// Blocks that went.
    pub merged: usize,
    /// Samples in the block that came in their place.
    pub samples: u64,
    /// Bytes of the blocks that went.
    pub bytes_before: u64,
    /// Bytes of the block that came.
    pub bytes_after: u64,
}

impl MetricsEngine {
    /// Does the most useful merge, if any is useful. Windows that end at or before `closed_before` are closed.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`] names the block to be marked damaged; [`MetricsError::Blocks`],
    /// [`MetricsError::UnknownDeletion`]. Nothing has changed, unless the manifest has ended.
    pub fn merge_once(&self, closed_before: Millis) -> Result<Option<MergeOutcome>, MetricsError> {
        let _merging = self.merging.lock();
        let pin = self.manifest.pin();
        let policy = self.policy();
        let Some(chosen) = self.choose(&pin, &policy, closed_before)? else {
            return Ok(None);
        };
        let go_on = &mut |_| ControlFlow::Continue(());
        let written = self.write_replacement(&chosen, &policy, go_on)?;
        let merged = match written {
            Some(written) => self.put_in_place(&pin, &chosen, written)?,
            None => None,
        };
        // Without one, the next call sees what has changed.
        Ok(Some(merged.unwrap_or_default()))
    }

    /// Writes the block that is to come in place of others; `None` when there is none, for now or for ever.
    pub(super) fn write_replacement(
        &self,
        chosen: &Chosen,
        policy: &Policy,
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<Replacement>, MetricsError> {
        let window = chosen.inputs[0].meta.window;
        let id = self.manifest.reserve_block();
        let written = self.write_merged(id, window, chosen, policy, go_on);
        if !matches!(written, Ok(Some(_))) {
            self.abandon(std::iter::once(id));
        }
        match written {
            Ok(files) => Ok(files.map(|files| Replacement { id, files })),
            Err(MetricsError::SeriesTooLarge) => {
                let mut unmerged = self.unmerged.lock();
                unmerged.insert((window.start, window.end));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Commits a replacement that was made on this pin; `None` when one of the blocks has changed since. The caller holds the lock
    /// of those who replace blocks.
    pub(super) fn put_in_place(
        &self,
        pin: &PinnedVersion,
        chosen: &Chosen,
        Replacement { id, files }: Replacement,
    ) -> Result<Option<MergeOutcome>, MetricsError> {
        let inputs = &chosen.inputs;
        let window = inputs[0].meta.window;
        let (summary, aggregates) = files;
        let level = inputs
            .iter()
            .map(|block| block.meta.level)
            .max()
            .unwrap_or(0);
        let mut merged = block_meta(id, window, level.saturating_add(1), summary);
        if let Some(merged) = &mut merged {
            merged.files.extend(aggregates);
        }
        let outcome = MergeOutcome {
            merged: inputs.len(),
            samples: merged.as_ref().map_or(0, |meta| meta.items),
            bytes_before: inputs.iter().map(|block| block.meta.bytes()).sum(),
            bytes_after: merged.as_ref().map_or(0, |meta| meta.bytes()),
        };
        if merged.is_none() {
            self.abandon(std::iter::once(id));
        }
        let edit = ManifestEdit {
            add: merged.into_iter().collect(),
            remove: inputs.iter().map(|block| block.meta.id).collect(),
            basis: Some(pin.version()),
            ..ManifestEdit::default()
        };
        match self.commit(edit) {
            // A block got tombstones, was marked damaged or is gone.
            Err(MetricsError::Blocks(BlocksError::StaleEdit { .. })) => Ok(None),
            other => other.map(|()| Some(outcome)),
        }
    }

    fn choose(
        &self,
        pin: &PinnedVersion,
        policy: &Policy,
        closed_before: Millis,
    ) -> Result<Option<Chosen>, MetricsError> {
        let windows = windows_of(pin);
        let closed = |blocks: &[VisibleBlock]| blocks[0].meta.window.end <= closed_before;
        let mut unmerged = self.unmerged.lock();
        unmerged.retain(|window| windows.contains_key(window));
        // New data first: it is what queries ask for.
        for (window, blocks) in windows.iter().rev() {
            if unmerged.contains(window) {
                continue;
            }
            if closed(blocks) && blocks.len() > 1 {
                let mut blocks = blocks.clone();
                blocks.sort_by_key(|block| block.meta.items);
                let is_all = blocks.len() <= MERGE_BLOCKS_MAX;
                blocks.truncate(MERGE_BLOCKS_MAX);
                return Ok(Some(Chosen {
                    inputs: blocks,
                    completes: is_all,
                }));
            }
            let mut levels: BTreeMap<u8, Vec<VisibleBlock>> = BTreeMap::new();
            for block in blocks {
                levels
                    .entry(block.meta.level)
                    .or_default()
                    .push(block.clone());
            }
            for (_, mut level) in levels {
                if level.len() >= self.options.merge_fan_in.max(2) {
                    level.truncate(MERGE_BLOCKS_MAX);
                    return Ok(Some(Chosen {
                        inputs: level,
                        completes: false,
                    }));
                }
            }
        }
        self.choose_stale(&windows, &unmerged, policy, closed_before)
    }

    /// A block that is to be rewritten by itself.
    fn choose_stale(
        &self,
        windows: &Windows,
        unmerged: &BTreeSet<(Millis, Millis)>,
        policy: &Policy,
        closed_before: Millis,
    ) -> Result<Option<Chosen>, MetricsError> {
        let is_stale =
            |block: &VisibleBlock| block.shards != block.meta.shards || has_pending(block, policy);
        let completes = |window: &(Millis, Millis), blocks: &[VisibleBlock]| {
            blocks.len() == 1 && window.1 <= closed_before && !unmerged.contains(window)
        };
        let chosen = |window, blocks: &[VisibleBlock], block: &VisibleBlock| Chosen {
            inputs: vec![block.clone()],
            completes: completes(window, blocks),
        };
        for (window, blocks) in windows {
            for block in blocks {
                if is_stale(block) || self.has_cut_off_series(block, policy)? {
                    return Ok(Some(chosen(window, blocks, block)));
                }
            }
        }
        Ok(None)
    }

    fn write_merged(
        &self,
        id: BlockId,
        window: TimeRange,
        chosen: &Chosen,
        policy: &Policy,
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<Files>, MetricsError> {
        let inputs = &chosen.inputs;
        let mut readers = Vec::with_capacity(inputs.len());
        for input in inputs {
            readers.push((self.readers.get(&input.meta)?, input.shards.clone()));
        }
        let tenants: BTreeSet<TenantId> = inputs
            .iter()
            .flat_map(|input| input.meta.tenants.iter().map(|summary| summary.tenant))
            .collect();
        let file = self.manifest.create_file(id, BLOCK_FILE)?;
        let mut versions = readers.iter().map(|(block, _)| block.version());
        let version = self.block_version(versions.all(BlockVersion::is_plain));
        let level = self.options.merge_compression;
        let mut writer = MergedWriter {
            block: BlockWriter::new(file, window, level, version)?,
            aggregates: None,
            go_on,
            asked_at: 0,
            declarations_dropped: 0,
        };
        if chosen.completes && self.options.down_sampling {
            let file = self.manifest.create_file(id, AGGREGATES_FILE)?;
            writer.aggregates = Some(AggregatesWriter::new(file, window.start, level)?);
        }
        for tenant in tenants {
            if merge_tenant(&mut writer, tenant, window, &readers, policy)?.is_break() {
                return Ok(None);
            }
        }
        if writer.ask().is_break() {
            return Ok(None);
        }
        self.declarations_dropped
            .fetch_add(writer.declarations_dropped, Ordering::Relaxed);
        writer.finish().map(Some)
    }
}

/// Blocks by the start and end of their window.
pub(super) type Windows = BTreeMap<(Millis, Millis), Vec<VisibleBlock>>;

pub(super) fn windows_of(pin: &PinnedVersion) -> Windows {
    let mut windows = Windows::new();
    let of_metrics = |block: &VisibleBlock| block.meta.signal == Signal::Metrics;
    for block in pin.all_blocks().filter(of_metrics) {
        let window = block.meta.window;
        let blocks = windows.entry((window.start, window.end)).or_default();
        blocks.push(block);
    }
    windows
}

/// The blocks of a merge, of one window.
pub(super) struct Chosen {
    pub(super) inputs: Vec<VisibleBlock>,
    /// They are all that their closed window has.
    pub(super) completes: bool,
}

/// What was written of a block.
type Files = (BlockSummary, Option<BlockFileEntry>);

/// A block whose files are written, and which no record names yet.
pub(super) struct Replacement {
    id: BlockId,
    files: Files,
}

/// Bytes written after which whoever wants the merge is asked whether it may go on.
const ASK_BYTES: u64 = 64 << 10;

/// Writes the files of a merged block side by side.
struct MergedWriter<'a> {
    block: BlockWriter,
    aggregates: Option<AggregatesWriter>,
    go_on: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    /// How many bytes there were when it was asked last.
    asked_at: u64,
    /// Declarations of metrics that found no room.
    declarations_dropped: u64,
}

impl MergedWriter<'_> {
    /// Asks whether to go on, if enough has been written since the last time.
    fn go_on(&mut self) -> ControlFlow<()> {
        match self.position() < self.asked_at + ASK_BYTES {
            true => ControlFlow::Continue(()),
            false => self.ask(),
        }
    }

    fn ask(&mut self) -> ControlFlow<()> {
        self.asked_at = self.position();
        (self.go_on)(self.asked_at)
    }

    fn position(&self) -> u64 {
        let aggregates = self.aggregates.as_ref();
        self.block.position() + aggregates.map_or(0, AggregatesWriter::position)
    }

    fn begin_tenant(
        &mut self,
        tenant: TenantId,
        version: DeletionVersion,
    ) -> Result<(), MetricsError> {
        self.block.begin_tenant(tenant, version)?;
        let aggregates = self.aggregates.as_mut();
        aggregates.map_or(Ok(()), |aggregates| aggregates.begin_tenant(tenant))
    }

    fn add_series(
        &mut self,
        canonical: &[u8],
        shard: ShardId,
        samples: SampleSlice<'_>,
    ) -> Result<(), MetricsError> {
        self.block.add_series(canonical, shard, samples)?;
        let aggregates = self.aggregates.as_mut();
        aggregates.map_or(Ok(()), |aggregates| aggregates.add_series(samples))
    }

    fn finish(self) -> Result<Files, MetricsError> {
        let aggregates = self.aggregates.map(AggregatesWriter::finish).transpose()?;
        Ok((self.block.finish()?, aggregates))
    }
}

/// Whether a deletion waits to be applied to the block.
fn has_pending(block: &VisibleBlock, policy: &Policy) -> bool {
    block.meta.tenants.iter().any(|summary| {
        let waits = |deletion: &Deletion| deletion.version > summary.deletion_version;
        policy.deletions(summary.tenant).iter().any(waits)
    })
}

fn merge_tenant(
    writer: &mut MergedWriter<'_>,
    tenant: TenantId,
    window: TimeRange,
    readers: &[(Arc<BlockReader>, ShardSet)],
    policy: &Policy,
) -> Result<ControlFlow<()>, MetricsError> {
    let range = TimeRange {
        start: window.start.max(policy.cut_off(tenant)),
        end: window.end,
    };
    let mut scans: Vec<(Scan, Vec<Deletion>)> = Vec::new();
    let mut metadata: BTreeSet<(ShardId, MetricMetadata)> = BTreeSet::new();
    let mut room = MetadataRoom::new();
    let mut presupposed = Vec::with_capacity(readers.len());
    for (block, shards) in readers {
        let Some(reader) = block.tenant(tenant, Pieces::Read)? else {
            continue;
        };
        let applied: DeletionVersion = reader.entry().deletion_version;
        presupposed.push(applied);
        let pending = policy
            .erasing(tenant)
            .iter()
            .filter(|d| d.version > applied);
        let pending = pending.cloned().collect();
        scans.push((Scan::new(reader, shards.clone(), range)?, pending));
    }
    writer.begin_tenant(tenant, policy.claim(tenant, presupposed)?)?;
    if merge_series(writer, &mut scans)?.is_break() {
        return Ok(ControlFlow::Break(()));
    }
    // Where there is not room for all, what was declared last counts.
    for (block, shards) in readers.iter().rev() {
        if let Some(reader) = block.tenant(tenant, Pieces::Read)? {
            writer.declarations_dropped += room.extend(&mut metadata, &reader.metadata(shards)?);
        }
    }
    if !metadata.is_empty() {
        let entries: Vec<_> = metadata.into_iter().collect();
        writer.block.add_metadata(&entries)?;
    }
    Ok(ControlFlow::Continue(()))
}

fn merge_series(
    writer: &mut MergedWriter<'_>,
    scans: &mut [(Scan, Vec<Deletion>)],
) -> Result<ControlFlow<()>, MetricsError> {
    loop {
        let mut smallest: Option<Vec<u8>> = None;
        for (scan, _) in scans.iter_mut() {
            if let Some(series) = scan.peek()?
                && smallest.as_ref().is_none_or(|key| series.key < *key)
            {
                smallest = Some(series.key.clone());
            }
        }
        let Some(key) = smallest else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut column = Column::default();
        let mut labels = (Vec::new(), ShardId::default());
        for (scan, deletions) in scans.iter_mut() {
            if scan.peek()?.is_none_or(|series| series.key != key) {
                continue;
            }
            let Some(series) = scan.take() else { continue };
            let found = series.column.slice();
            extend_without(deletions, &series.canonical, found, &mut column);
            labels = (series.canonical, series.shard);
        }
        column.normalize();
        if !column.is_empty() {
            writer.add_series(&labels.0, labels.1, column.slice())?;
            if writer.go_on().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}
