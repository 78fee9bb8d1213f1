//! The blocks of a view under a second name: what a snapshot of a node is made of.
//!
//! A block's files never change, so a second name is as good as a copy until the medium fails. What is made here is never
//! appended to; it is opened with [`super::Manifest::open_read_only`].

use super::write_snapshot;
use crate::files::file_name;
use crate::state::ManifestState;
use crate::{BlockFile, BlockFileEntry, BlockId, BlocksError, PinnedVersion};
use std::io;
use std::path::Path;
use std::sync::Arc;
use trefoil_store_pages::{Disk, DiskFile};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// What was put into a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkedBlocks {
    /// Blocks with a visible shard.
    pub blocks: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Files that had to be copied.
    pub files_copied: u64,
}

pub(super) fn link_into(
    disk: &Arc<dyn Disk>,
    from: &Path,
    view: &PinnedVersion,
    dir: &Path,
) -> Result<LinkedBlocks, BlocksError> {
    let state = &view.state;
    let mut linked = LinkedBlocks::default();
    let mut kept = ManifestState {
        lineage: state.lineage,
        next_block: state.next_block,
        ..ManifestState::default()
    };
    for meta in state.blocks.values() {
        if state.visible_shards(meta).is_empty() {
            continue;
        }
        for file in &meta.files {
            linked.files_copied += u64::from(put(disk, (from, dir), meta.id, file)?);
        }
        linked.blocks += 1;
        linked.bytes += meta.bytes();
        kept.blocks.insert(meta.id, meta.clone());
        if let Some(invisible) = state.tombstones.get(&meta.id) {
            kept.tombstones.insert(meta.id, invisible.clone());
        }
    }
    // Syncs the names of all files, too.
    write_snapshot(&**disk, dir, &kept, 1)?;
    Ok(linked)
}

/// Gives one file its second name; says whether it was copied instead.
fn put(
    disk: &Arc<dyn Disk>,
    (from, to): (&Path, &Path),
    block: BlockId,
    entry: &BlockFileEntry,
) -> Result<bool, BlocksError> {
    let name = file_name(block, &entry.name);
    let target = to.join(&name);
    match disk.link(&from.join(&name), &target) {
        Ok(()) => return Ok(false),
        Err(error) if is_for_good(&error) => {
            return Err(BlocksError::io("link block file", &target)(error));
        }
        Err(_) => {}
    }
    let source = BlockFile::open(&**disk, from, block, entry)?;
    let copy = disk
        .create(&target)
        .map_err(BlocksError::io("create block file", &target))?;
    copy_file(&source, &*copy).map_err(|error| match error {
        CopyError::Read(error) => error,
        CopyError::Write(error) => BlocksError::io("copy block file", &target)(error),
    })?;
    Ok(true)
}

/// Whether a copy would not succeed where a link has failed.
fn is_for_good(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, NotFound, StorageFull};
    matches!(error.kind(), AlreadyExists | NotFound | StorageFull)
}

enum CopyError {
    Read(BlocksError),
    Write(io::Error),
}

fn copy_file(source: &BlockFile, copy: &dyn DiskFile) -> Result<(), CopyError> {
    let mut chunk = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < source.length() {
        let length = (source.length() - at).min(COPY_BYTES as u64) as usize;
        let chunk = &mut chunk[..length];
        source.read_exact_at(chunk, at).map_err(CopyError::Read)?;
        copy.write_at(chunk, at).map_err(CopyError::Write)?;
        at += length as u64;
    }
    copy.sync_data().map_err(CopyError::Write)
}
