//! The Raft log and vote, durable before they are acknowledged.
//!
//! One page file holds everything (`raft-log/<generation>`); its records are applied in order
//! ([`memory::Record`]). A thread of its own writes: what arrived while the last `fdatasync` ran
//! becomes durable with the next one, and callbacks run in order after it. When the file is much
//! larger than what it still says, and at every start, its content is copied to a file of the next
//! generation, which becomes the log by a rename; so a file that was open at a crash is never
//! appended to again, and purged entries cost no space.
//!
//! Crash behaviour: what was acknowledged is there; what was not may be there, as a prefix. A
//! failed write or sync ends the log for good: openraft stops, and the process must be restarted.

mod memory;
mod writer;

#[cfg(test)]
mod tests;

use crate::engine::{Entry, LogId, StorageError, Types, Vote, storage_error};
use crate::machine::DurableEnd;
use crate::{DiskWork, MetadataError, PlaneFaults, codec};
use memory::Memory;
pub(crate) use memory::Record;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use trefoil_model::NodeId;
use trefoil_store_pages::Disk;
use writer::{Done, Job, Writer};

/// Entries of one `AppendEntries` message, in encoded bytes, unless a single one is larger.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A handle of the Raft log. Clones are handles of the same log; when the last one goes, the writer
/// ends after it has written what it was given.
#[derive(Clone)]
pub(crate) struct LogStore {
    memory: Arc<Mutex<Memory>>,
    writer: Arc<Writer>,
    /// Up to where durable snapshots reach, where there are any.
    snapshots: Option<watch::Receiver<DurableEnd>>,
}

impl LogStore {
    /// Whether there is a log in this directory.
    ///
    /// # Errors
    /// [`MetadataError::Disk`].
    pub(crate) fn exists(disk: &dyn Disk, directory: &Path) -> Result<bool, MetadataError> {
        disk.create_dir_all(directory)
            .map_err(|source| MetadataError::disk("create directory of the Raft log", source))?;
        Ok(!writer::generations(disk, directory)?.is_empty())
    }

    /// Opens the log of this node, or begins one. Blocks.
    ///
    /// # Errors
    /// [`MetadataError::Damaged`] when the log is another node's or unreadable before its end.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        node: NodeId,
        disk_work: &DiskWork,
        faults: PlaneFaults,
    ) -> Result<Self, MetadataError> {
        let (memory, file) = writer::open(disk, directory, node)?;
        let memory = Arc::new(Mutex::new(memory));
        let writer = Writer::start(file, Arc::clone(&memory), disk_work, faults)?;
        Ok(Self {
            memory,
            writer: Arc::new(writer),
            snapshots: None,
        })
    }

    /// The same log, which is never purged ahead of a snapshot that is coming.
    pub(crate) fn behind(self, snapshots: watch::Receiver<DurableEnd>) -> Self {
        Self {
            snapshots: Some(snapshots),
            ..self
        }
    }

    /// Waits until the snapshot that ends here is durable, if one is coming. openraft asks for a purge as soon as it has
    /// handed a snapshot that it received to the state machine; a power cut in between should find the log as it
    /// was. A purge behind a snapshot that was made here, or with another reason, has nothing to wait for.
    async fn covered(&self, upto: LogId) -> Result<(), MetadataError> {
        let Some(mut snapshots) = self.snapshots.clone() else {
            return Ok(());
        };
        let awaited =
            |durable: &DurableEnd| durable.coming == Some(upto) && durable.last < Some(upto);
        let decided = snapshots.wait_for(|durable| durable.failed || !awaited(durable));
        match decided.await {
            Ok(durable) if awaited(&durable) => Err(MetadataError::Stopped {
                reason: format!("the snapshot behind which the log is purged to {upto} failed"),
            }),
            Ok(_) => Ok(()),
            Err(_) => Err(MetadataError::Stopped {
                reason: "the state machine has ended".to_owned(),
            }),
        }
    }

    /// Encoded bytes of the entries that are not purged.
    pub(crate) fn bytes(&self) -> u64 {
        self.memory.lock().bytes()
    }

    /// The id of the entry at `index`, if it is held.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        self.memory.lock().entry(index).map(|entry| entry.log_id)
    }

    /// The id of the newest entry, or of the purge when there is none.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.memory.lock().last()
    }

    /// The id up to which entries were purged.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.memory.lock().purged
    }

    /// Lets what waits for space on a full disk fail.
    pub(crate) fn stop_waiting(&self) {
        self.writer.stop_waiting();
    }

    /// Ends the writer after everything that it was given. Blocks.
    pub(crate) fn close(&self) {
        self.writer.close();
    }

    /// Writes one record and waits until it is durable.
    async fn write(&self, record: Record, what: &'static str) -> Result<(), MetadataError> {
        let bytes = codec::encode(codec::Kind::LogRecord, &record)?;
        let (sender, receiver) = oneshot::channel();
        // openraft makes one change at a time, so the order in memory is the order of the file. The
        // lock is not held while the writer's queue may be full, because the writer takes it too.
        self.memory.lock().apply(record, bytes.len());
        self.writer.submit(Job {
            records: vec![bytes],
            done: Done::Signal(sender),
        });
        let ended = || io::Error::other("the writer of the Raft log has ended");
        receiver
            .await
            .unwrap_or_else(|_| Err(ended()))
            .map_err(|source| MetadataError::disk(what, source))
    }
}

/// What a leader sends to a node that once had more: its directory was replaced by an older copy of it.
fn lacking(missing: u64) -> io::Error {
    io::Error::other(format!(
        "entry {missing} is missing in front of what the leader sends, so this node has lost entries that it had \
         acknowledged; remove its data directory and let it join anew"
    ))
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.memory.lock().range(start, end, usize::MAX))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.memory.lock().range(start, end, MESSAGE_BYTES_MAX))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let memory = self.memory.lock();
        Ok(LogState {
            last_purged_log_id: memory.purged,
            last_log_id: memory.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.write(Record::Vote(*vote), "write Raft vote")
            .await
            .map_err(|error| storage_error(ErrorSubject::Vote, ErrorVerb::Write, &error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.memory.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let record = Record::Committed(committed);
        let bytes = codec::encode(codec::Kind::LogRecord, &record)
            .map_err(|error| storage_error(ErrorSubject::Logs, ErrorVerb::Write, &error))?;
        self.memory.lock().apply(record, bytes.len());
        self.writer.submit(Job {
            records: vec![bytes],
            done: Done::Hint,
        });
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        // A crash may keep the hint and lose the entries of the group after it; openraft would look
        // for them.
        let memory = self.memory.lock();
        Ok(memory.committed.min(memory.last()))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        for entry in entries {
            let record = Record::Entry(entry);
            let bytes = codec::encode(codec::Kind::LogRecord, &record)
                .map_err(|error| storage_error(ErrorSubject::Logs, ErrorVerb::Write, &error))?;
            records.push((record, bytes));
        }
        let mut encoded = Vec::with_capacity(records.len());
        {
            let mut memory = self.memory.lock();
            let indexes = records.iter().filter_map(|(record, _)| record.index());
            if let Some(missing) = memory.gap_before(indexes) {
                return Err(storage_error(
                    ErrorSubject::Logs,
                    ErrorVerb::Write,
                    &MetadataError::disk("append to the Raft log", lacking(missing)),
                ));
            }
            for (record, bytes) in records {
                memory.apply(record, bytes.len());
                encoded.push(bytes);
            }
        }
        self.writer.submit(Job {
            records: encoded,
            done: Done::Flushed(callback),
        });
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.write(Record::TruncateFrom(since.index), "truncate Raft log")
            .await
            .map_err(|error| storage_error(ErrorSubject::Logs, ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let purged = async {
            self.covered(upto).await?;
            self.write(Record::Purge(upto), "purge Raft log").await
        };
        purged
            .await
            .map_err(|error| storage_error(ErrorSubject::Logs, ErrorVerb::Delete, &error))
    }
}
