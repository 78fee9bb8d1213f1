//! The metrics engine of a node: head, blocks, and the work that moves samples from one to the other.
//!
//! ```text
//! journal --apply--> head --flush--> small blocks --merge--> one block per window
//!                      \______________ view ______________/
//! ```
//! * There is one applier. A view sees everything whose `apply` had returned when the view was made.
//! * A flush freezes the head's generations, writes them as one block per window touched, and commits
//!   blocks, journal position and checkpoint as one manifest record. A crash before the record leaves
//!   the blocks before it and the journal behind the old position; a crash after it, the new ones.
//!   If a flush fails, the frozen generations stay in the head and the next flush takes them along.
//! * Merging, retention and dropping shards only change which blocks the manifest names. Readers keep what they pinned.
//! * Deletions and retention cut-offs come from the metadata plane and are given again at every start. A view applies
//!   them to what it reads; flushes and merges apply them to what they write.

mod backfill;
mod digest_cache;
mod flush;
mod limited;
mod merge;
mod policy;
mod readers;
mod scan;
mod spoilt;
#[cfg(test)]
mod tests;
mod unselected;

pub use backfill::{AggregateOutcome, AggregatesBacklog};
pub(crate) use digest_cache::DigestCache;
pub use flush::FlushOutcome;
pub use merge::MergeOutcome;
pub(crate) use policy::Policy;
pub(crate) use readers::BlockReaders;
pub use readers::DERIVED_FILES;
pub(crate) use unselected::Unselected;

use crate::MetricsError;
use crate::block::{BlockVersion, pieces_of};
use crate::body::{Body, BodyReader};
use crate::deletion::{Deletion, SelectedCutOff};
use crate::exemplars::{Exemplars, FoundExemplar, read_saved};
use crate::head::{HeadIndex, HeadPart, Samples, TenantHead};
use crate::view::View;
use limited::Limited;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use trefoil_model::{
    DeletionVersion, LineageId, Millis, ShardSet, Signal, TenantId, TimeRange, Window,
};
use trefoil_store_blocks::{BlockId, BlocksError, Manifest, ManifestEdit, VisibleBlock};

/// How the engine works. The defaults suit a node with a few hundred thousand series.
#[derive(Clone, Debug)]
pub struct MetricsOptions {
    /// zstd level of flushed blocks, which live for minutes to hours. Default 1.
    pub flush_compression: i32,
    /// zstd level of merged blocks. Higher ones cost CPU in the background. Default 3.
    pub merge_compression: i32,
    /// Blocks of one level in a window that is still written to, before they are merged. Default 4.
    pub merge_fan_in: usize,
    /// Whether merged blocks of closed windows get the aggregates of their samples at every resolution, for long queries: more
    /// disk, and more CPU in merges. Default false.
    pub down_sampling: bool,
    /// Exemplars of each tenant that a node keeps, in memory. Default 100,000, as Prometheus.
    pub exemplars_per_tenant: usize,
    /// Of so many series a question looks up one by one whether they have samples; of more it asks a set. Default 4,096,
    /// where the set becomes faster.
    pub series_looked_up_max: u64,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self {
            flush_compression: 1,
            merge_compression: 3,
            merge_fan_in: 4,
            down_sampling: false,
            exemplars_per_tenant: 100_000,
            series_looked_up_max: 4_096,
        }
    }
}

/// What one [`MetricsEngine::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Samples that went to the head, duplicates included.
    pub samples: u64,
    /// Series that the head had not known.
    pub series_new: u64,
    /// Samples that were left out because their histograms are none.
    pub samples_malformed: u64,
    /// Declarations of metrics that were left out because their tenant has too many.
    pub declarations_dropped: u64,
}

/// Sizes now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsStatistics {
    /// Series in the head's label indexes, by tenant.
    pub series_active: BTreeMap<TenantId, u64>,
    /// Active series of tenants about which a limit asks.
    pub series_counted: u64,
    /// Samples in the head.
    pub head_samples: u64,
    /// Memory of the head, in bytes.
    pub head_bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of all blocks.
    pub block_bytes: u64,
    /// Memory of what queries have kept of blocks, in bytes.
    pub kept_bytes: u64,
    /// Exemplars in memory.
    pub exemplars: u64,
    /// Declarations of metrics that found no room in the head or in a merged block, each time that they were to be put there, since
    /// the engine was opened.
    pub declarations_dropped: u64,
    /// Samples in all blocks; `block_bytes / block_samples` is what a sample costs on disk.
    pub block_samples: u64,
    /// Bytes of the files of aggregates, which are part of `block_bytes`.
    pub aggregates_bytes: u64,
    /// Selectors for which aggregates of at least one block were taken instead of its samples, since the engine was opened.
    pub aggregates_selectors: u64,
    /// Files of aggregates found unreadable since the engine was opened.
    pub aggregates_damaged: u64,
    /// Those of them in whose place others have come since, or which went with their blocks.
    pub aggregates_repaired: u64,
    /// Blocks that have been rewritten for their aggregates since the engine was opened.
    pub aggregates_made: u64,
    /// Blocks of closed windows that wait for it.
    pub aggregates_backlog: AggregatesBacklog,
}

/// The head's structure. Its contents have locks of their own.
#[derive(Default)]
struct Heads {
    tenants: BTreeMap<TenantId, TenantHead>,
    /// Generations that a flush has frozen and no block holds yet, oldest first.
    frozen: Vec<(TenantId, HeadPart)>,
}

/// The metrics engine of a node. Every method may be called from any thread.
pub struct MetricsEngine {
    manifest: Arc<Manifest>,
    options: MetricsOptions,
    heads: RwLock<Heads>,
    policy: RwLock<Arc<Policy>>,
    applier: Mutex<BodyReader>,
    /// Journal position behind the last parcel applied.
    applied: AtomicU64,
    /// What limits of series ask about.
    limited: Limited,
    /// Held by a flush, which is alone.
    flushing: Mutex<()>,
    /// Held by whatever replaces or removes blocks; by what only adds aggregates, for its record alone.
    merging: Mutex<()>,
    /// Windows with a series that is too large for one block: not merged any more.
    unmerged: Mutex<BTreeSet<(Millis, Millis)>>,
    /// As the last look at all blocks found it.
    backlog: Mutex<AggregatesBacklog>,
    aggregates_made: AtomicU64,
    declarations_dropped: AtomicU64,
    readers: Arc<BlockReaders>,
    digests: Arc<DigestCache>,
    unselected: Arc<Unselected>,
    exemplars: Arc<Exemplars>,
    saving: Mutex<Saving>,
    /// Whether new blocks have packed values.
    packs: AtomicBool,
}

/// Where exemplars are while no process runs.
pub trait ExemplarsFile: Send + Sync {
    /// Puts these in the place of those before, durably.
    ///
    /// # Errors
    /// When the disk refuses; those before are still there.
    fn replace(&self, saved: &SavedExemplars) -> Result<(), BlocksError>;
}

/// Exemplars as they are saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedExemplars {
    /// That of the blocks beside them.
    pub lineage: LineageId,
    /// The flushed position that the blocks have then: with a greater one others have flushed without them since.
    pub position: u64,
    /// The exemplars.
    pub records: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Saving {
    file: Option<Arc<dyn ExemplarsFile>>,
    /// The number of the last change that is in the file, if that is known.
    saved: Option<u64>,
    /// The position in the file: a flush may be about to commit it.
    position: u64,
}

impl MetricsEngine {
    /// The engine over the metrics blocks of an open manifest, with an empty head. Replay the journal from the
    /// manifest's flushed position through [`MetricsEngine::apply`], after deletions and cut-offs were given.
    ///
    /// # Errors
    /// [`MetricsError::Compression`] when memory is short. Damaged blocks are found when they are read.
    pub fn open(manifest: Arc<Manifest>, options: MetricsOptions) -> Result<Self, MetricsError> {
        let applied = AtomicU64::new(manifest.pin().flushed_to());
        Ok(Self {
            readers: Arc::new(BlockReaders::new(Arc::clone(&manifest))),
            exemplars: Arc::new(Exemplars::new(options.exemplars_per_tenant)),
            saving: Mutex::default(),
            packs: AtomicBool::new(false),
            manifest,
            options,
            heads: RwLock::default(),
            policy: RwLock::default(),
            applier: Mutex::new(BodyReader::new()?),
            applied,
            limited: Limited::default(),
            flushing: Mutex::new(()),
            merging: Mutex::new(()),
            unmerged: Mutex::default(),
            backlog: Mutex::default(),
            aggregates_made: AtomicU64::new(0),
            declarations_dropped: AtomicU64::new(0),
            digests: Arc::default(),
            unselected: Arc::default(),
        })
    }

    /// From now on blocks are written with packed values, which older programs cannot read.
    pub fn pack_blocks(&self) {
        self.packs.store(true, Ordering::Relaxed);
    }

    /// Of new blocks.
    fn block_version(&self, is_plain: bool) -> BlockVersion {
        BlockVersion::new(is_plain, self.packs.load(Ordering::Relaxed))
    }

    /// Applies the series of `accepted` in the body of a parcel whose record ends at journal position
    /// `position`. Applying a parcel again changes nothing that a view shows.
    ///
    /// # Errors
    /// When the body is malformed; its series before the damage were applied, and the position was taken:
    /// the same body is malformed on every owner, and replaying it would not help.
    pub fn apply(
        &self,
        position: u64,
        tenant: TenantId,
        version: DeletionVersion,
        body: &[u8],
        accepted: &ShardSet,
    ) -> Result<Applied, MetricsError> {
        self.apply_one((position, tenant, version), (body, accepted), false)
    }

    /// As [`MetricsEngine::apply`], for a parcel that was copied from another owner: its series are active only if their
    /// samples say so.
    ///
    /// # Errors
    /// As there.
    pub fn apply_copied(
        &self,
        position: u64,
        tenant: TenantId,
        version: DeletionVersion,
        body: &[u8],
        accepted: &ShardSet,
    ) -> Result<Applied, MetricsError> {
        self.apply_one((position, tenant, version), (body, accepted), true)
    }

    fn apply_one(
        &self,
        (position, tenant, version): (u64, TenantId, DeletionVersion),
        body: (&[u8], &ShardSet),
        is_copy: bool,
    ) -> Result<Applied, MetricsError> {
        let mut reader = self.applier.lock();
        let head = self.head(tenant);
        let before = head.index.length();
        let keep = |found| self.exemplars.add(tenant, version, found);
        let result = apply_body(&mut reader, &head, version, body, keep);
        let dropped = result
            .as_ref()
            .map_or(0, |applied| applied.declarations_dropped);
        self.declarations_dropped
            .fetch_add(dropped, Ordering::Relaxed);
        if !is_copy {
            self.limited.see_new(tenant, &head, before);
        }
        self.applied.fetch_max(position, Ordering::Release);
        result
    }

    /// Takes what was saved, before anything is applied and before deletions are given, and from now on has every flush save
    /// exemplars to `file`. What is of another lineage, or of a time before the last flush, is left out: dropped shards and
    /// forgotten deletions may have taken some of it. Says whether all of it was taken.
    pub fn keep_exemplars(&self, file: Arc<dyn ExemplarsFile>, found: &SavedExemplars) -> bool {
        let pin = self.manifest.pin();
        let is_of_now = found.lineage == pin.lineage() && found.position >= pin.flushed_to();
        let mut is_whole = is_of_now || found.records.is_empty();
        for record in found.records.iter().filter(|_| is_of_now) {
            match read_saved(record) {
                Some((tenant, version, found)) => self.exemplars.add(tenant, version, found),
                None => is_whole = false,
            }
        }
        // Nothing is saved where nothing was and nothing came.
        let saved = found.records.is_empty().then(|| self.exemplars.changes());
        *self.saving.lock() = Saving {
            file: Some(file),
            saved,
            position: pin.flushed_to(),
        };
        is_whole
    }

    /// Has the exemplars saved as they are now, if they have changed. Deletions that are known, and retention, are applied to them: what the
    /// metadata plane forgets must have been.
    ///
    /// # Errors
    /// [`MetricsError::Blocks`]; nothing has changed.
    pub fn save_exemplars(&self) -> Result<(), MetricsError> {
        self.save_exemplars_at(self.manifest.pin().flushed_to(), false)
    }

    /// The same before the flushed position becomes `position`. A flush writes what there is even if it has not changed.
    fn save_exemplars_at(&self, position: u64, is_flush: bool) -> Result<(), MetricsError> {
        let mut saving = self.saving.lock();
        let Some(file) = saving.file.clone() else {
            return Ok(());
        };
        self.exemplars.enforce(&self.policy());
        let is_empty = self.exemplars.size().0 == 0;
        let is_same = saving.saved == Some(self.exemplars.changes());
        if is_same && (is_empty || !is_flush) {
            return Ok(());
        }
        let (changes, records) = self.exemplars.save()?;
        saving.position = saving.position.max(position);
        file.replace(&SavedExemplars {
            lineage: self.manifest.pin().lineage(),
            position: saving.position,
            records,
        })?;
        saving.saved = Some(changes);
        Ok(())
    }

    fn head(&self, tenant: TenantId) -> TenantHead {
        if let Some(head) = self.heads.read().tenants.get(&tenant) {
            return head.clone();
        }
        let mut heads = self.heads.write();
        let head = heads.tenants.entry(tenant);
        let samples = Samples::new(self.options.series_looked_up_max);
        head.or_insert_with(|| TenantHead::new(tenant, samples))
            .clone()
    }

    /// Journal position behind the last parcel applied, or what was [passed](Self::passed); at first, the manifest's flushed position.
    #[must_use]
    pub fn applied_position(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Says that the journal up to here has no parcel that is not applied.
    pub fn passed(&self, position: u64) {
        self.applied.fetch_max(position, Ordering::Release);
    }

    /// Sets a tenant's deletions: the newest one that is known, and those that the metadata plane still holds, in any
    /// order. What it has forgotten of those up to `newest` is applied to everything that is stored here.
    pub fn set_deletions(&self, tenant: TenantId, newest: DeletionVersion, pending: Vec<Deletion>) {
        let known = self.policy();
        self.exemplars.erase(tenant, known.deletions(tenant));
        self.exemplars.erase(tenant, &pending);
        let mut policy = self.policy.write();
        *policy = Arc::new(policy.with_deletions(tenant, newest, pending));
    }

    /// Sets a tenant's retention cut-off: samples before it are gone. Cut-offs only grow.
    pub fn set_cut_off(&self, tenant: TenantId, cut_off: Millis) {
        let mut policy = self.policy.write();
        *policy = Arc::new(policy.with_cut_off(tenant, cut_off));
    }

    /// Sets the cut-offs of a tenant's selectors. One that is left out must be behind the tenant's own cut-off, and none may
    /// go back: what was hidden may be gone from the disk.
    pub fn set_selected_cut_offs(&self, tenant: TenantId, selected: Vec<SelectedCutOff>) {
        let known = self.policy();
        if SelectedCutOff::are_same(known.selected(tenant), &selected) {
            return;
        }
        let erased: Vec<Deletion> = selected.iter().map(SelectedCutOff::deletion).collect();
        self.exemplars.erase(tenant, &erased);
        let mut policy = self.policy.write();
        *policy = Arc::new(policy.with_selected(tenant, selected));
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read())
    }

    /// What the engine holds now. Waits for no flush, no merge and no body that is being applied.
    #[must_use]
    pub fn view(&self) -> View {
        // The head first: a flush that commits in between shows its samples twice, which the view merges. The
        // other way round it could miss them.
        let heads = {
            let heads = self.heads.read();
            let mut parts: BTreeMap<TenantId, Vec<HeadPart>> = BTreeMap::new();
            for (tenant, part) in &heads.frozen {
                parts.entry(*tenant).or_default().push(part.clone());
            }
            for (tenant, head) in &heads.tenants {
                parts.entry(*tenant).or_default().push(head.part());
            }
            parts
        };
        View {
            heads,
            blocks: self.blocks(),
            policy: self.policy(),
            readers: Arc::clone(&self.readers),
            digests: Arc::clone(&self.digests),
            unselected: Arc::clone(&self.unselected),
            exemplars: Arc::clone(&self.exemplars),
        }
    }

    /// All pieces of all blocks, as [`read_block_piece`](crate::read_block_piece) reads them: what fuzzing begins from.
    ///
    /// # Errors
    /// When a block is damaged.
    #[doc(hidden)]
    pub fn block_pieces(&self) -> Result<Vec<Vec<u8>>, MetricsError> {
        let mut pieces = Vec::new();
        for block in self.blocks() {
            let reader = self.readers.get(&block.meta)?;
            pieces.extend(pieces_of(&reader)?);
        }
        Ok(pieces)
    }

    /// The visible metrics blocks in order of time.
    fn blocks(&self) -> Vec<VisibleBlock> {
        let pin = self.manifest.pin();
        let everything = TimeRange {
            start: Millis::MIN,
            end: Millis::MAX,
        };
        let mut blocks: Vec<VisibleBlock> = pin.blocks(Signal::Metrics, everything).collect();
        blocks.sort_by_key(|block| (block.meta.window.start, block.meta.id));
        blocks
    }

    /// Makes everything that the node holds of `shards` invisible, for ever: blocks and head items up to now. What is
    /// applied for them later is visible. Flushes first, so `position` and `checkpoint` are those of
    /// [`MetricsEngine::flush`].
    ///
    /// # Errors
    /// As [`MetricsEngine::flush`]. After an error the shards may still be visible: call again.
    pub fn drop_shards(
        &self,
        shards: &ShardSet,
        position: u64,
        checkpoint: Option<Vec<u8>>,
    ) -> Result<(), MetricsError> {
        let _merging = self.merging.lock();
        // Without another flush until the tombstones are written: it would bring newer items under them.
        let _flushing = self.flushing.lock();
        self.flush_alone(position, checkpoint)?;
        self.exemplars.drop_shards(shards);
        self.save_exemplars()?;
        let blocks = self.blocks().into_iter();
        let tombstones: Vec<(BlockId, ShardSet)> = blocks
            .map(|block| (block.meta.id, block.shards.intersection(shards)))
            .filter(|(_, shards)| !shards.is_empty())
            .collect();
        if !tombstones.is_empty() {
            self.commit(ManifestEdit {
                tombstones,
                ..ManifestEdit::default()
            })?;
        }
        Ok(())
    }

    /// Removes blocks in which no tenant has samples behind its cut-off, and blocks without visible shards. Says
    /// how many. Also removes the files of blocks that went before and that no view holds any more.
    ///
    /// # Errors
    /// [`MetricsError::Blocks`]; nothing was removed, or the manifest has ended.
    pub fn enforce_retention(&self) -> Result<usize, MetricsError> {
        let _merging = self.merging.lock();
        let policy = self.policy();
        let pin = self.manifest.pin();
        let metrics = pin
            .all_blocks()
            .filter(|b| b.meta.signal == Signal::Metrics);
        let gone = metrics.filter(|block| {
            let over = |tenant| block.meta.time_max < policy.cut_off(tenant);
            block.shards.is_empty() || block.meta.tenants.iter().all(|t| over(t.tenant))
        });
        let remove: Vec<BlockId> = gone.map(|block| block.meta.id).collect();
        let removed = remove.len();
        drop(pin);
        if removed == 0 {
            self.manifest.collect_garbage();
        } else {
            self.commit(ManifestEdit {
                remove,
                ..ManifestEdit::default()
            })?;
        }
        Ok(removed)
    }

    /// Commits an edit. The files of blocks that it would have added do not stay behind when it certainly did not
    /// happen: on a full disk every attempt would leave some.
    fn commit(&self, edit: ManifestEdit) -> Result<(), MetricsError> {
        let added: Vec<BlockId> = edit.add.iter().map(|meta| meta.id).collect();
        let pin = match self.manifest.commit(edit) {
            Ok(pin) => pin,
            Err(error) => {
                if error.is_before_the_record() {
                    self.abandon(added.into_iter());
                }
                return Err(error.into());
            }
        };
        let ids: BTreeSet<BlockId> = pin.all_blocks().map(|block| block.meta.id).collect();
        self.readers.retain(&ids);
        self.unselected.retain(&ids);
        Ok(())
    }

    /// Says that a block's file of aggregates is lost or not as it was written. Its samples answer, and when its window is closed
    /// the block is rewritten with others.
    pub fn lose_aggregates(&self, block: BlockId, why: &str) {
        if self.manifest.pin().block(block).is_some() {
            self.readers.spoilt().note(block, why);
        }
    }

    /// The blocks whose aggregates were found unreadable since the last call, each once, with what is wrong.
    #[must_use]
    pub fn lost_aggregates(&self) -> Vec<(BlockId, String)> {
        self.readers.spoilt().take_news()
    }

    /// The windows that the head has samples in, ascending: what the next flush makes blocks of.
    #[must_use]
    pub fn head_windows(&self) -> BTreeSet<Window> {
        let heads = self.heads.read();
        let mut windows = BTreeSet::new();
        for head in heads.tenants.values() {
            windows.extend(head.samples.read().windows());
        }
        windows
    }

    /// Series in the head's label indexes, and samples in the head, a histogram counted as the plain samples that take as
    /// much memory. At no cost.
    #[must_use]
    pub fn head_size(&self) -> (u64, u64) {
        let heads = self.heads.read();
        let (mut series, mut samples) = (0, 0);
        for head in heads.tenants.values() {
            series += u64::from(head.index.length());
            samples += head.samples.weight();
        }
        let frozen = heads.frozen.iter();
        let waiting: u64 = frozen.map(|(_, part)| part.generation().weight()).sum();
        (series, samples + waiting)
    }

    /// Sizes now.
    #[must_use]
    pub fn statistics(&self) -> MetricsStatistics {
        let mut statistics = MetricsStatistics::default();
        // Copied, so that nobody waits for this while it waits for the applier.
        let (tenants, frozen) = {
            let heads = self.heads.read();
            (heads.tenants.clone(), heads.frozen.clone())
        };
        for (tenant, head) in &tenants {
            let index = head.index.read();
            let samples = head.samples.read();
            statistics
                .series_active
                .insert(*tenant, u64::from(index.len()));
            statistics.head_samples += u64::from(samples.len());
            statistics.head_bytes += (index.memory_bytes() + samples.memory_bytes()) as u64;
        }
        for (_, part) in &frozen {
            let samples = part.generation().read();
            statistics.head_samples += u64::from(samples.len());
            statistics.head_bytes += samples.memory_bytes() as u64;
        }
        let (counted, counted_bytes) = self.limited.size();
        statistics.series_counted = counted as u64;
        statistics.head_bytes += counted_bytes as u64;
        let (exemplars, bytes) = self.exemplars.size();
        statistics.exemplars = exemplars as u64;
        statistics.declarations_dropped = self.declarations_dropped.load(Ordering::Relaxed);
        statistics.kept_bytes = self.readers.kept().bytes() as u64;
        statistics.head_bytes += bytes as u64;
        (
            statistics.aggregates_damaged,
            statistics.aggregates_repaired,
        ) = self.readers.spoilt().counts();
        statistics.aggregates_selectors = self.readers.aggregated();
        statistics.aggregates_made = self.aggregates_made.load(Ordering::Relaxed);
        statistics.aggregates_backlog = *self.backlog.lock();
        for block in self.blocks() {
            statistics.blocks += 1;
            statistics.block_bytes += block.meta.bytes();
            statistics.block_samples += block.meta.items;
            let aggregates = block.meta.file(readers::AGGREGATES_FILE);
            statistics.aggregates_bytes += aggregates.map_or(0, |file| file.length);
        }
        statistics
    }
}

fn apply_body(
    reader: &mut BodyReader,
    head: &TenantHead,
    version: DeletionVersion,
    (body, accepted): (&[u8], &ShardSet),
    keep: impl FnOnce(Vec<FoundExemplar>),
) -> Result<Applied, MetricsError> {
    let mut body = reader.open(body)?;
    let metadata = body.metadata(accepted)?;
    let exemplars = body.exemplars(accepted)?;
    if !exemplars.is_empty() {
        keep(exemplars);
    }
    let mut index = head.index.write();
    let mut samples = head.samples.write();
    let (before, samples_before) = (index.len(), samples.len());
    samples.set_version(version);
    let declarations_dropped = samples.add_metadata(&metadata);
    let result = add_series(&mut body, &mut index, &mut samples, accepted);
    samples.note_windows();
    // Also what came before a damage. The index first: a view takes them in the other order.
    head.index.publish(index.len());
    head.samples.publish_weight(samples.weight() as u64);
    head.samples.publish(samples.len());
    let samples_malformed = result?;
    Ok(Applied {
        samples: u64::from(samples.len() - samples_before),
        series_new: u64::from(index.len() - before),
        samples_malformed,
        declarations_dropped,
    })
}

/// Says how many samples were left out because their histograms are none. One of them is no reason to lose others.
fn add_series(
    body: &mut Body<'_>,
    index: &mut HeadIndex,
    samples: &mut Samples,
    accepted: &ShardSet,
) -> Result<u64, MetricsError> {
    let mut malformed = 0;
    while let Some(series) = body.next_series(accepted)? {
        let number = index.find_or_add(series.canonical, series.shard);
        if series.samples.is_plain() {
            for (time, value) in series.samples {
                samples.append(number, time, value);
            }
            continue;
        }
        loop {
            let sample = match series.samples.next_with_extras() {
                Ok(Some(sample)) => sample,
                Ok(None) => break,
                Err(_) => {
                    malformed += 1;
                    continue;
                }
            };
            let (histogram, start) = (sample.histogram, sample.start);
            samples.append_with_extras(number, (sample.time, sample.value), histogram, start);
        }
    }
    Ok(malformed)
}
