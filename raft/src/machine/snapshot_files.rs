//! Snapshots on disk: `snapshots/<term>-<index>`, each written whole before it has its name.
//!
//! The newest one is what the log was purged up to, so it must be readable; the one before it is
//! kept until the next is made, for people.

use super::snapshot::{self, SnapshotBytes};
use crate::engine::{LogId, SnapshotMeta};
use crate::state::State;
use crate::{MetadataError, files};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use trefoil_store_pages::Disk;

/// How many snapshots are kept.
const KEPT: usize = 2;

/// The directory of snapshots.
#[derive(Clone)]
pub(crate) struct SnapshotFiles {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    durable: Arc<watch::Sender<DurableEnd>>,
}

/// Up to where durable snapshots reach, and what will take them further.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DurableEnd {
    /// The last entry in the newest one.
    pub(crate) last: Option<LogId>,
    /// The last entry of one that has arrived and is being handed to openraft.
    pub(crate) coming: Option<LogId>,
    /// A snapshot could not be written, for another reason than space: there will be no later one.
    pub(crate) failed: bool,
}

/// A snapshot that was read.
pub(crate) struct Stored {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: State,
    pub(crate) bytes: SnapshotBytes,
}

impl SnapshotFiles {
    pub(crate) fn open(disk: Arc<dyn Disk>, directory: PathBuf) -> Result<Self, MetadataError> {
        disk.create_dir_all(&directory)
            .map_err(|source| MetadataError::disk("create snapshot directory", source))?;
        files::clean(&*disk, &directory)?;
        Ok(Self {
            disk,
            directory,
            durable: Arc::default(),
        })
    }

    /// Writes a snapshot durably, then removes those that are no longer needed.
    pub(crate) fn store(
        &self,
        last: Option<LogId>,
        bytes: &SnapshotBytes,
    ) -> Result<(), MetadataError> {
        let written = files::replace(&*self.disk, &self.directory, &name(last), &bytes.0);
        written?;
        self.durable
            .send_modify(|durable| durable.last = durable.last.max(last));
        let names = self.names()?;
        for old in names.iter().rev().skip(KEPT) {
            if let Err(error) = self.disk.remove(&self.directory.join(old)) {
                tracing::warn!(name = old, %error, "an old snapshot stays for now");
            }
        }
        Ok(())
    }

    /// Says which snapshot is being handed to openraft; none: whatever has arrived is durable or was refused.
    pub(crate) fn announce(&self, coming: Option<LogId>) {
        self.durable.send_modify(|durable| durable.coming = coming);
    }

    /// Tells who waits for a later snapshot that there will be none.
    pub(crate) fn give_up(&self) {
        self.durable.send_modify(|durable| durable.failed = true);
    }

    /// The newest snapshot; none when there is none.
    ///
    /// # Errors
    /// [`MetadataError::Damaged`] when the newest one cannot be read: the log may have been purged
    /// up to it.
    pub(crate) fn newest(&self) -> Result<Option<Stored>, MetadataError> {
        let Some(name) = self.names()?.pop() else {
            return Ok(None);
        };
        let Some(bytes) = files::read(&*self.disk, &self.directory.join(&name))? else {
            return Ok(None);
        };
        let (meta, state) = snapshot::decode(&bytes).map_err(|error| MetadataError::Damaged {
            reason: format!("snapshot {name}: {error}"),
        })?;
        Ok(Some(Stored {
            meta,
            state,
            bytes: SnapshotBytes(bytes.into()),
        }))
    }

    /// Follows up to where durable snapshots reach, from one that was read at the start.
    pub(crate) fn follow(&self, read: Option<LogId>) -> watch::Receiver<DurableEnd> {
        self.durable
            .send_modify(|durable| durable.last = durable.last.max(read));
        self.durable.subscribe()
    }

    /// Complete snapshots, oldest first.
    fn names(&self) -> Result<Vec<String>, MetadataError> {
        let names = self
            .disk
            .list(&self.directory)
            .map_err(|source| MetadataError::disk("list snapshots", source))?;
        let complete = |name: &String| {
            name.len() == 33
                && name
                    .bytes()
                    .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
        };
        Ok(names.into_iter().filter(complete).collect())
    }
}

/// Sorts by term first: an index can go back across a recovery, a term never does.
fn name(last: Option<LogId>) -> String {
    let (term, index) = last.map_or((0, 0), |id| (id.leader_id.term, id.index));
    format!("{term:016x}-{index:016x}")
}
