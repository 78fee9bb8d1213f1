//! [`Manifest`]: the durable log of which blocks exist.
//!
//! A commit checks the edit, syncs the directory (so that the names of new block files are durable),
//! appends one record, syncs, and publishes the new state. At a crash the record is found whole or
//! not at all. When it is opened, and when the log has grown, the state is written as a snapshot to
//! `manifest.new`, which is synced and renamed over `manifest`: the log is bounded, and a file that
//! was open at a crash is never appended to.
//!
//! A commit that fails while it writes ends the manifest, because it is unknown whether the record
//! will be found after a restart; reading goes on. A full disk is noticed before anything is written
//! and ends nothing.
//!
//! One thing cannot be seen: damage in the record of the very last commit looks like a torn tail.
//! The state is then the one before; the node notices when the journal's floor is above
//! `flushed_to`.

mod links;

pub use links::LinkedBlocks;

use crate::codec::{Operation, decode_record, encode_record};
use crate::files::{block_of, file_name};
use crate::state::ManifestState;
use crate::{
    BlockFile, BlockFileEntry, BlockFileWriter, BlockId, BlockMeta, BlocksError, DamagedBlock,
    PinnedVersion,
};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trefoil_model::{LineageId, ShardSet};
use trefoil_store_pages::{
    Disk, FileHeader, PAGE_BYTES, PageReader, PageWriter, PagesError, RecordGroup,
};

const PURPOSE: [u8; 4] = *b"mfst";
const MANIFEST_NAME: &str = "manifest";
const MANIFEST_NEW_NAME: &str = "manifest.new";

/// Longest reason kept for a damaged block, in bytes: for people, in every snapshot.
const WHY_BYTES_MAX: usize = 512;

/// How a manifest is opened.
#[derive(Clone, Debug)]
pub struct ManifestOptions {
    /// The lineage of a manifest that does not exist yet; an existing one keeps its own.
    pub lineage_if_new: LineageId,
    /// The log is rewritten as a snapshot when it is larger than this and than four snapshots. Small
    /// values write more, large ones read more at a start. Default 4 MiB.
    pub rewrite_above_bytes: u64,
    /// Names of files that are made from other files of their block: without them a block is whole, and can have them made
    /// again. Default none.
    pub derived_files: &'static [&'static str],
}

impl Default for ManifestOptions {
    fn default() -> Self {
        Self {
            lineage_if_new: LineageId(0),
            rewrite_above_bytes: 4 << 20,
            derived_files: &[],
        }
    }
}

/// What was found when a manifest was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestRecovery {
    /// Whether there was none and an empty one was made.
    pub fresh: bool,
    /// Bytes of a commit in flight at the crash that were cut.
    pub torn_bytes: u64,
    /// Files without a record that were removed.
    pub orphans_removed: u64,
    /// Blocks found missing or cut short now; they have been marked damaged.
    pub damaged: Vec<DamagedBlock>,
    /// Blocks with a derived file that is missing, cut short or cannot be opened, and what is wrong with it. They are in use, and
    /// whoever derives the file replaces the block.
    pub derived_lost: Vec<(BlockId, String)>,
}

/// A change of the manifest: all of it becomes durable together, or none.
#[derive(Clone, Debug, Default)]
pub struct ManifestEdit {
    /// Blocks whose files are finished.
    pub add: Vec<BlockMeta>,
    /// Blocks that go; their files are removed when no view needs them.
    pub remove: Vec<BlockId>,
    /// For an edit that puts `add` in place of `remove`: the version of the view that the work was
    /// done from. A removed block that has changed since makes the edit stale.
    pub basis: Option<u64>,
    /// Shards of blocks that become invisible for ever. Of blocks that do not exist: no effect.
    pub tombstones: Vec<(BlockId, ShardSet)>,
    /// New flushed position. Positions only grow, unless the lineage changes in the same edit.
    pub flushed_to: Option<u64>,
    /// New checkpoint of the replication protocol.
    pub checkpoint: Option<Vec<u8>>,
    /// New lineage: the node lost data that it had acknowledged.
    pub lineage: Option<LineageId>,
    /// Damaged blocks whose content has been fetched again.
    pub resolve_damaged: Vec<BlockId>,
}

/// Counters since the manifest was opened, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManifestStatistics {
    /// Successful commits.
    pub commits: u64,
    /// Rewrites of the log as a snapshot.
    pub rewrites: u64,
    /// Blocks marked damaged.
    pub blocks_damaged: u64,
    /// Removed blocks whose files are still there for a view.
    pub blocks_retired: u64,
    /// Files that could not be removed; tried again at the next collection and at the next start.
    pub file_removals_failed: u64,
    /// Bytes of the manifest log.
    pub log_bytes: u64,
    /// Visible blocks.
    pub blocks: u64,
    /// Bytes of their files.
    pub block_bytes: u64,
}

/// The blocks of one node. Shared between threads; commits are one after another.
pub struct Manifest {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: ManifestOptions,
    published: RwLock<Arc<ManifestState>>,
    /// None: opened to read only, every change is refused.
    log: Mutex<Option<Log>>,
    /// Removed blocks; their files go when nothing but this list holds them.
    retired: Mutex<Vec<Arc<BlockMeta>>>,
    next_block: AtomicU64,
    counters: Mutex<ManifestStatistics>,
}

struct Log {
    writer: PageWriter,
    /// Bytes of the file after its last rewrite.
    snapshot_bytes: u64,
    ended: bool,
}

impl Manifest {
    /// Opens the manifest in `dir`, or makes an empty one in an empty directory. Removes orphans,
    /// checks that every block's files are there in full length, and marks the others damaged, unless only derived files are
    /// lost.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: ManifestOptions,
    ) -> Result<(Self, ManifestRecovery), BlocksError> {
        disk.create_dir_all(dir)
            .map_err(BlocksError::io("create directory", dir))?;
        let names = disk.list(dir).map_err(BlocksError::io("list", dir))?;
        let mut recovery = ManifestRecovery::default();
        let (state, number) = if names.iter().any(|name| name == MANIFEST_NAME) {
            read_log(&*disk, &dir.join(MANIFEST_NAME), &mut recovery)?
        } else {
            let files = names.iter().filter(|name| block_of(name).is_some()).count();
            if files > 0 {
                let path = dir.to_owned();
                return Err(BlocksError::ManifestLost { path, files });
            }
            recovery.fresh = true;
            let state = ManifestState {
                lineage: options.lineage_if_new,
                next_block: 1,
                ..ManifestState::default()
            };
            (state, 0)
        };
        let writer = write_snapshot(&*disk, dir, &state, number + 1)?;
        recovery.orphans_removed = remove_orphans(&*disk, dir, &names, &state)?;
        let counters = ManifestStatistics {
            log_bytes: writer.used_bytes(),
            ..ManifestStatistics::default()
        };
        let log = Log {
            snapshot_bytes: writer.used_bytes(),
            writer,
            ended: false,
        };
        let manifest = Self {
            disk,
            dir: dir.to_owned(),
            options,
            next_block: AtomicU64::new(state.next_block),
            published: RwLock::new(Arc::new(state)),
            log: Mutex::new(Some(log)),
            retired: Mutex::new(Vec::new()),
            counters: Mutex::new(counters),
        };
        manifest.find_incomplete_blocks(&mut recovery)?;
        Ok((manifest, recovery))
    }

    /// Opens a manifest to read only, as it lies there: nothing is rewritten, removed or marked. Every change is
    /// [`BlocksError::Ended`]. Blocks are as they were when their files were there; reading finds what is missing.
    ///
    /// # Errors
    /// When there is none, or it cannot be read or understood.
    pub fn open_read_only(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, BlocksError> {
        let mut recovery = ManifestRecovery::default();
        let (state, _) = read_log(&*disk, &dir.join(MANIFEST_NAME), &mut recovery)?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            options: ManifestOptions::default(),
            next_block: AtomicU64::new(state.next_block),
            published: RwLock::new(Arc::new(state)),
            log: Mutex::new(None),
            retired: Mutex::default(),
            counters: Mutex::default(),
        })
    }

    /// The present view.
    #[must_use]
    pub fn pin(&self) -> PinnedVersion {
        PinnedVersion {
            state: self.published.read().clone(),
        }
    }

    /// A block id that nothing else will get. Not durable: an id whose block is never committed may be
    /// given again after a restart, when its files are gone.
    #[must_use]
    pub fn reserve_block(&self) -> BlockId {
        BlockId(self.next_block.fetch_add(1, Ordering::Relaxed))
    }

    /// Starts a file of a reserved block. `name`: lower-case letters, digits and `-`.
    pub fn create_file(&self, block: BlockId, name: &str) -> Result<BlockFileWriter, BlocksError> {
        BlockFileWriter::create(&*self.disk, &self.dir, block, name)
    }

    /// Writes a whole file of a reserved block.
    pub fn write_file(
        &self,
        block: BlockId,
        name: &str,
        bytes: &[u8],
    ) -> Result<BlockFileEntry, BlocksError> {
        let mut writer = self.create_file(block, name)?;
        writer.write(bytes)?;
        writer.finish()
    }

    /// Opens a file of a block that a view holds.
    pub fn open_file(&self, meta: &BlockMeta, name: &str) -> Result<BlockFile, BlocksError> {
        let entry = meta.file(name).ok_or_else(|| BlocksError::DamagedFile {
            block: meta.id,
            name: name.to_owned(),
            what: "the block has no such file",
        })?;
        BlockFile::open(&*self.disk, &self.dir, meta.id, entry)
    }

    /// Removes the files of a reserved block that will not be committed. Files that stay behind are
    /// removed at the next start.
    pub fn abandon(&self, block: BlockId, names: &[&str]) {
        for name in names {
            let path = self.dir.join(file_name(block, name));
            if let Err(error) = self.disk.remove(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                self.counters.lock().file_removals_failed += 1;
            }
        }
    }

    /// Makes an edit durable (one record, one fsync) and visible, and gives the new view.
    ///
    /// Nothing has changed where [`BlocksError::is_before_the_record`]. After [`BlocksError::Pages`] the
    /// manifest has ended, and only a restart tells whether the edit took place.
    ///
    /// # Panics
    /// If the flushed position goes back without a new lineage, an added block's id is in use, or an
    /// edit adds and removes without a basis.
    pub fn commit(&self, edit: ManifestEdit) -> Result<PinnedVersion, BlocksError> {
        let mut log = self.log.lock();
        let log = log.as_mut().ok_or(BlocksError::Ended)?;
        let before = self.published.read().clone();
        check_edit(&before, &edit)?;
        if !edit.add.is_empty() {
            self.disk
                .sync_dir(&self.dir)
                .map_err(BlocksError::io("sync directory", &self.dir))?;
        }
        self.write(log, &before, operations(edit))
    }

    /// Takes a block out of the visible set because it cannot be read, durably, and says what is lost.
    /// `None`: the block was not there (any more).
    pub fn mark_damaged(
        &self,
        block: BlockId,
        why: &str,
    ) -> Result<Option<DamagedBlock>, BlocksError> {
        let mut log = self.log.lock();
        let log = log.as_mut().ok_or(BlocksError::Ended)?;
        let before = self.published.read().clone();
        let Some(meta) = before.blocks.get(&block).cloned() else {
            return Ok(None);
        };
        let damaged = DamagedBlock {
            shards: before.visible_shards(&meta),
            meta,
            why: why.chars().take(WHY_BYTES_MAX / 4).collect(),
        };
        self.write(log, &before, vec![Operation::Damaged(damaged.clone())])?;
        self.counters.lock().blocks_damaged += 1;
        Ok(Some(damaged))
    }

    /// Removes the files of retired blocks that no view holds any more; says how many blocks went.
    /// Also done after every commit.
    pub fn collect_garbage(&self) -> usize {
        // Not under the lock: removing large files takes its time.
        let mut retired = std::mem::take(&mut *self.retired.lock());
        let before = retired.len();
        retired.retain(|meta| Arc::strong_count(meta) > 1 || !self.remove_files(meta));
        let removed = before - retired.len();
        self.retired.lock().append(&mut retired);
        removed
    }

    /// Puts the blocks of a view into an empty directory: a second name for each file, a copy where that cannot be had, and a
    /// manifest of them without checkpoint. Durable when it returns, but for the directory's own name. After an error the
    /// directory is worthless.
    ///
    /// # Errors
    /// [`BlocksError::Io`], [`BlocksError::Pages`] and, for a file that is copied, [`BlocksError::DamagedFile`].
    pub fn link_into(&self, view: &PinnedVersion, dir: &Path) -> Result<LinkedBlocks, BlocksError> {
        links::link_into(&self.disk, &self.dir, view, dir)
    }

    /// Counters and sizes. Never waits for the disk.
    #[must_use]
    pub fn statistics(&self) -> ManifestStatistics {
        let state = self.published.read().clone();
        ManifestStatistics {
            blocks_retired: self.retired.lock().len() as u64,
            blocks: state.blocks.len() as u64,
            block_bytes: state.blocks.values().map(|meta| meta.bytes()).sum(),
            ..*self.counters.lock()
        }
    }

    fn write(
        &self,
        log: &mut Log,
        before: &Arc<ManifestState>,
        operations: Vec<Operation>,
    ) -> Result<PinnedVersion, BlocksError> {
        if log.ended {
            return Err(BlocksError::Ended);
        }
        let mut group = RecordGroup::new(log.writer.end());
        group.push(&[&encode_record(&operations)]);
        log.writer
            .reserve(group.disk_bytes() as u64)
            .map_err(BlocksError::NoSpace)?;
        log.ended = true;
        log.writer.append(&mut group)?;
        log.ended = false;
        let mut after = ManifestState::clone(before);
        after.version += 1;
        for operation in operations {
            after.apply(operation);
        }
        let after = Arc::new(after);
        self.publish(before, after.clone());
        self.counters.lock().commits += 1;
        self.rewrite_if_large(log, &after)?;
        self.counters.lock().log_bytes = log.writer.used_bytes();
        Ok(PinnedVersion { state: after })
    }

    fn publish(&self, before: &ManifestState, after: Arc<ManifestState>) {
        let gone = before.blocks.iter();
        let gone = gone.filter(|(id, _)| !after.blocks.contains_key(id));
        self.retired
            .lock()
            .extend(gone.map(|(_, meta)| meta.clone()));
        *self.published.write() = after;
        self.collect_garbage();
    }

    /// The commit before has happened whatever comes of this: without space the log just stays large.
    fn rewrite_if_large(&self, log: &mut Log, state: &ManifestState) -> Result<(), BlocksError> {
        let limit = self.options.rewrite_above_bytes.max(4 * log.snapshot_bytes);
        if log.writer.used_bytes() <= limit {
            return Ok(());
        }
        let number = log.writer.header().number + 1;
        match write_snapshot(&*self.disk, &self.dir, state, number) {
            Ok(writer) => {
                log.snapshot_bytes = writer.used_bytes();
                log.writer = writer;
                self.counters.lock().rewrites += 1;
                Ok(())
            }
            Err(BlocksError::Pages(PagesError::Io { source, .. }))
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                // Try again when the log has doubled.
                log.snapshot_bytes = log.writer.used_bytes() / 2;
                Ok(())
            }
            Err(_) => {
                // The old log may or may not have been replaced: nothing more may be appended to it.
                log.ended = true;
                Ok(())
            }
        }
    }

    fn find_incomplete_blocks(&self, recovery: &mut ManifestRecovery) -> Result<(), BlocksError> {
        for block in self.pin().all_blocks() {
            let meta = &block.meta;
            let is_derived =
                |file: &&BlockFileEntry| self.options.derived_files.contains(&file.name.as_str());
            let (derived, own): (Vec<_>, Vec<_>) = meta.files.iter().partition(is_derived);
            let open = |file: &BlockFileEntry| self.open_file(meta, &file.name).map(drop);
            match own.into_iter().try_for_each(open) {
                Err(error @ BlocksError::DamagedFile { .. }) => {
                    let marked = self.mark_damaged(meta.id, &error.to_string())?;
                    recovery.damaged.extend(marked);
                    continue;
                }
                other => other?,
            }
            if let Err(error) = derived.into_iter().try_for_each(open) {
                recovery.derived_lost.push((meta.id, error.to_string()));
            }
        }
        Ok(())
    }

    /// Says whether all files of the block are gone.
    fn remove_files(&self, meta: &BlockMeta) -> bool {
        let mut all_gone = true;
        for file in &meta.files {
            let path = self.dir.join(file_name(meta.id, &file.name));
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.counters.lock().file_removals_failed += 1;
                    all_gone = false;
                }
                _ => {}
            }
        }
        all_gone
    }
}

fn check_edit(state: &ManifestState, edit: &ManifestEdit) -> Result<(), BlocksError> {
    let lineage_changes = edit.lineage.is_some_and(|lineage| lineage != state.lineage);
    if let Some(flushed_to) = edit.flushed_to {
        let grows = flushed_to >= state.flushed_to;
        assert!(grows || lineage_changes, "flushed positions only grow");
    }
    for meta in &edit.add {
        let in_use = state.blocks.contains_key(&meta.id) || state.damaged.contains_key(&meta.id);
        assert!(!in_use, "block ids are never used twice");
    }
    let Some(basis) = edit.basis else {
        let replaces = !edit.add.is_empty() && !edit.remove.is_empty();
        assert!(!replaces, "a replacement names the view it was made from");
        return Ok(());
    };
    for &block in &edit.remove {
        let changed = state.changed_at.get(&block);
        if !state.blocks.contains_key(&block) || changed.is_some_and(|&version| version > basis) {
            return Err(BlocksError::StaleEdit { block, basis });
        }
    }
    Ok(())
}

fn operations(edit: ManifestEdit) -> Vec<Operation> {
    let mut operations = Vec::new();
    operations.extend(edit.lineage.map(Operation::Lineage));
    operations.extend(edit.remove.into_iter().map(Operation::Remove));
    operations.extend(edit.add.into_iter().map(|m| Operation::Add(Arc::new(m))));
    let tombstones = edit.tombstones.into_iter();
    operations.extend(tombstones.map(|(block, shards)| Operation::Tombstone(block, shards)));
    operations.extend(edit.resolve_damaged.into_iter().map(Operation::Resolved));
    operations.extend(edit.flushed_to.map(Operation::FlushedTo));
    operations.extend(edit.checkpoint.map(Operation::Checkpoint));
    operations
}

/// Reads the log and gives the state and the file's number.
fn read_log(
    disk: &dyn Disk,
    path: &Path,
    recovery: &mut ManifestRecovery,
) -> Result<(ManifestState, u64), BlocksError> {
    let reader = PageReader::open(disk, path, PURPOSE)?;
    let mut state = ManifestState::default();
    let mut failure = None;
    let summary = reader.scan(&mut |offset, bytes| match decode_record(bytes) {
        Ok(operations) if failure.is_none() => {
            operations.into_iter().for_each(|o| state.apply(o));
        }
        Ok(_) => {}
        Err(what) => {
            failure.get_or_insert(BlocksError::UnknownRecord {
                path: path.to_owned(),
                offset,
                what,
            });
        }
    })?;
    recovery.torn_bytes = summary.torn_bytes;
    if !summary.damage.is_empty() {
        return Err(BlocksError::ManifestDamaged {
            path: path.to_owned(),
            damage: summary.damage,
        });
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok((state, reader.header().number)),
    }
}

/// Writes the state to `manifest.new`, makes it durable, and puts it in the place of `manifest`.
fn write_snapshot(
    disk: &dyn Disk,
    dir: &Path,
    state: &ManifestState,
    number: u64,
) -> Result<PageWriter, BlocksError> {
    let path = dir.join(MANIFEST_NEW_NAME);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(BlocksError::io("remove leftover", &path)(error));
        }
        _ => {}
    }
    let header = FileHeader {
        purpose: PURPOSE,
        lineage: state.lineage.0,
        number,
        base: 0,
        note: Vec::new(),
    };
    let mut group = RecordGroup::new(0);
    group.push(&[&encode_record(&state.snapshot())]);
    let bytes = (group.disk_bytes() + 3 * PAGE_BYTES) as u64;
    let written = PageWriter::create(disk, &path, header, bytes).and_then(|mut writer| {
        writer.append(&mut group)?;
        // The mark makes damage of the snapshot provable.
        writer.append(&mut RecordGroup::new(group.end()))?;
        writer.rename(disk, &dir.join(MANIFEST_NAME))?;
        Ok(writer)
    });
    written.map_err(|error| {
        // On a full disk it would take the space that others wait for. The next try removes it if this cannot.
        disk.remove(&path).ok();
        error.into()
    })
}

fn remove_orphans(
    disk: &dyn Disk,
    dir: &Path,
    names: &[String],
    state: &ManifestState,
) -> Result<u64, BlocksError> {
    let mut removed = 0;
    for name in names {
        let Some(block) = block_of(name) else {
            continue;
        };
        let known = state.blocks.get(&block).is_some_and(|meta| {
            let mut files = meta.files.iter();
            files.any(|file| file_name(block, &file.name) == *name)
        });
        if !known {
            let path = dir.join(name);
            disk.remove(&path)
                .map_err(BlocksError::io("remove orphan", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
