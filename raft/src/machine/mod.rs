//! The state machine as openraft drives it: applies entries to [`State`], publishes each version to
//! readers, makes and installs snapshots, and keeps the materialised rows in step.
//!
//! Durability: applying is not durable by itself. The log keeps every entry until a durable
//! snapshot has its effect; at a start the newest of (materialised rows, snapshot) is loaded and
//! openraft applies the rest.

mod materialised;
mod snapshot;
mod snapshot_files;

#[cfg(test)]
mod tests;

pub(crate) use materialised::Materialised;
pub(crate) use snapshot::SnapshotBytes;
#[cfg(test)]
pub(crate) use snapshot::head_of;
pub(crate) use snapshot_files::{DurableEnd, SnapshotFiles};

use crate::engine::{
    Batch, Entry, LogId, Replies, Snapshot, SnapshotMeta, StorageError, StoredMembership, Types,
    storage_error,
};
use crate::patience::Patience;
#[cfg(test)]
pub(crate) use crate::state::rows::all as rows_of;
use crate::state::{LogPosition, State};
use crate::{DiskWork, MetadataError};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

impl From<LogId> for LogPosition {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            index: id.index,
        }
    }
}

/// A version of the state with what Raft has to know about it.
#[derive(Clone, Default)]
pub(crate) struct Version {
    pub(crate) state: State,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

/// The state machine. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Machine {
    version: Arc<Mutex<Version>>,
    snapshots: SnapshotFiles,
    published: Arc<watch::Sender<Arc<State>>>,
    materialised: Option<Arc<Materialised>>,
    disk_work: DiskWork,
    patience: Patience,
}

impl Machine {
    /// A state machine that goes on from `version`.
    pub(crate) fn new(
        version: Version,
        snapshots: SnapshotFiles,
        materialised: Option<Materialised>,
        disk_work: DiskWork,
    ) -> Self {
        let (published, _) = watch::channel(Arc::new(version.state.clone()));
        Self {
            version: Arc::new(Mutex::new(version)),
            snapshots,
            published: Arc::new(published),
            materialised: materialised.map(Arc::new),
            disk_work,
            patience: Patience::default(),
        }
    }

    /// Follows the versions of the state; the newest one is always there.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.published.subscribe()
    }

    /// The materialised rows, if they are kept.
    pub(crate) fn materialised(&self) -> Option<&Arc<Materialised>> {
        self.materialised.as_ref()
    }

    /// The newest version.
    pub(crate) fn version(&self) -> Version {
        self.version.lock().clone()
    }

    /// The snapshots on disk.
    pub(crate) fn snapshots(&self) -> &SnapshotFiles {
        &self.snapshots
    }

    /// Lets what waits for space on a full disk fail.
    pub(crate) fn stop_waiting(&self) {
        self.patience.end();
    }

    /// Makes the materialised rows durable and stops following. Blocks.
    pub(crate) fn close(&self) {
        if let Some(materialised) = &self.materialised {
            materialised.close();
        }
    }

    fn publish(&self, version: &Version) {
        self.published.send_replace(Arc::new(version.state.clone()));
        if let Some(materialised) = &self.materialised {
            materialised.follow(version.clone());
        }
    }
}

impl Version {
    /// Applies an entry that follows the last one.
    pub(crate) fn apply(&mut self, entry: Entry) -> Replies {
        self.last = Some(entry.log_id);
        let at = LogPosition::from(entry.log_id);
        self.state.applied = at;
        match entry.payload {
            EntryPayload::Blank => Replies::default(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Replies::default()
            }
            EntryPayload::Normal(Batch { proposals }) => {
                let replies = proposals
                    .iter()
                    .map(|proposal| self.state.apply(at, proposal));
                Replies(replies.collect())
            }
        }
    }

    /// Makes this version the newest snapshot, durably. Blocks.
    pub(crate) fn store(&self, snapshots: &SnapshotFiles) -> Result<Snapshot, MetadataError> {
        let meta = self.meta();
        let bytes = snapshot::encode(&self.state, &meta)?;
        snapshots.store(self.last, &bytes)?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(bytes),
        })
    }

    fn meta(&self) -> SnapshotMeta {
        let last = self.last.map_or_else(String::new, |id| id.to_string());
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: last,
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let version = self.version.lock();
        Ok((version.last, version.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut version = self.version.lock();
        let replies = entries
            .into_iter()
            .map(|entry| version.apply(entry))
            .collect();
        self.publish(&version);
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotBytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<SnapshotBytes>,
    ) -> Result<(), StorageError> {
        let failed = |error: MetadataError| {
            storage_error(ErrorSubject::Snapshot(None), ErrorVerb::Write, &error)
        };
        let files = self.snapshots.clone();
        let last = meta.last_log_id;
        let snapshot = Arc::new(snapshot);
        let state = self.storing(move || {
            let (_, state) = snapshot::decode(&snapshot.0)?;
            files.store(last, &snapshot)?;
            Ok(state)
        });
        let state = state.await.map_err(failed)?;
        let mut version = self.version.lock();
        *version = Version {
            state,
            last,
            membership: meta.last_membership.clone(),
        };
        self.publish(&version);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let files = self.snapshots.clone();
        let newest = self.disk_work.run(move || files.newest()).await;
        let newest = newest.and_then(|newest| newest).map_err(|error| {
            storage_error(ErrorSubject::Snapshot(None), ErrorVerb::Read, &error)
        })?;
        Ok(newest.map(|stored| Snapshot {
            meta: stored.meta,
            snapshot: Box::new(stored.bytes),
        }))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let version = self.version.lock().clone();
        let files = self.snapshots.clone();
        let built = self.storing(move || version.store(&files));
        built
            .await
            .map_err(|error| storage_error(ErrorSubject::Snapshot(None), ErrorVerb::Write, &error))
    }
}

impl Machine {
    /// Stores a snapshot where it does not hold up the Raft task; waits on a full disk. openraft ends when it fails.
    async fn storing<T: Send + 'static>(
        &self,
        work: impl Fn() -> Result<T, MetadataError> + Clone + Send + 'static,
    ) -> Result<T, MetadataError> {
        let stored = self
            .patience
            .run(&self.disk_work, "store a snapshot of the metadata", work)
            .await;
        if stored.is_err() {
            self.snapshots.give_up();
        }
        stored
    }
}
