//! [`Journal`]: the handle that the data plane holds.

use crate::committer::Shared;
use crate::segments::SegmentFiles;
use crate::view::{Place, View};
use crate::{
    AppendedRecord, CommitMode, JournalError, JournalOptions, JournalStatistics, OnDurable, Record,
    Recovery,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use trefoil_model::LineageId;
use trefoil_store_pages::{Disk, RecordGroup};

/// The journal of one node. Share it with `Arc`; every method may be called from any thread.
///
/// Dropping it stops the thread without committing what is pending, as a crash would; [`Journal::close`]
/// commits first.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal in `dir`, or makes an empty one at offset 0. Everything in
    /// `Recovery::floor..end` is durable in fresh files when this returns.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: JournalOptions,
        on_durable: OnDurable,
    ) -> Result<(Self, Recovery), JournalError> {
        let (files, segments, recovery) = SegmentFiles::recover(disk, dir, &options)?;
        let view = View::new(segments, recovery.end, options.cache_bytes_max);
        let mode = options.mode;
        let shared = Arc::new(Shared::new(options, files, view, on_durable));
        let thread = match mode {
            CommitMode::Manual => None,
            CommitMode::Thread => {
                let shared = shared.clone();
                let builder = std::thread::Builder::new().name("journal".to_owned());
                let thread = builder.spawn(move || {
                    let _ends = EndsByPanic(&shared);
                    shared.run();
                });
                Some(thread.map_err(JournalError::Thread)?)
            }
        };
        Ok((Self { shared, thread }, recovery))
    }

    /// Puts a record, made of `parts`, behind all others. It is copied; it is *not* durable when this
    /// returns, only when the durable end has reached [`AppendedRecord::end`]. While the journal is stalled
    /// ([`Journal::stalled_by`]) records wait for space within the same bound. After an error nothing was
    /// appended.
    pub fn append(&self, parts: &[&[u8]]) -> Result<AppendedRecord, JournalError> {
        self.shared.append(parts)
    }

    /// Commits what is pending, in the calling thread: one write, one fsync. Says whether anything was
    /// pending. For [`CommitMode::Manual`]; harmless beside the thread.
    pub fn commit_now(&self) -> Result<bool, JournalError> {
        self.shared.commit()
    }

    /// Why nothing becomes durable at present: the disk has no room for another segment. None: it has. The
    /// journal looks again by itself and goes on; until then its owner should take nothing in.
    #[must_use]
    pub fn stalled_by(&self) -> Option<String> {
        self.shared.stalled_by()
    }

    /// Offset behind the last durable record.
    #[must_use]
    pub fn durable_end(&self) -> u64 {
        self.shared.view.read().durable_end
    }

    /// First offset that is kept.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.shared.view.read().floor()
    }

    /// Durable records from the offset `from` on, in order and without a gap: at least one if there is
    /// one, then no more than about `bytes_max` bytes. Empty only at the durable end. Call again with the
    /// last record's end.
    pub fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<Record>, JournalError> {
        let Some(place) = self.shared.view.read().locate(from, bytes_max)? else {
            return Ok(Vec::new());
        };
        self.shared.count_read(matches!(place, Place::Memory(_)));
        place.read(from, bytes_max).map_err(|error| {
            // The segment may have been trimmed and used again while it was being read.
            let floor = self.floor();
            if from < floor {
                let offset = from;
                return JournalError::BelowFloor { offset, floor };
            }
            error
        })
    }

    /// The first offset behind `offset` where a readable record starts, or the durable end: where to go on
    /// after [`JournalError::Unreadable`]. Reads the segment from its beginning.
    pub fn next_readable(&self, offset: u64) -> Result<u64, JournalError> {
        let (segments, end) = {
            let view = self.shared.view.read();
            let first = view.segments.partition_point(|s| s.end <= offset);
            (view.segments[first..].to_vec(), view.durable_end)
        };
        for segment in segments {
            let Some(reader) = &segment.reader else {
                continue;
            };
            let mut found = None;
            reader.scan(&mut |start, _| {
                if start > offset && start < end && found.is_none() {
                    found = Some(start);
                }
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(end)
    }

    /// Gives up records below `below`, as far as whole segments reach; the one being written stays.
    /// An error leaves the rest untouched and may be tried again.
    pub fn trim(&self, below: u64) -> Result<(), JournalError> {
        let mut files = self.shared.files.lock();
        loop {
            let oldest = {
                let mut view = self.shared.view.write();
                if view.segments.len() < 2 || view.segments[0].end > below {
                    break;
                }
                let oldest = view.segments.remove(0);
                view.trim_cache();
                oldest
            };
            if let Err(error) = files.segments.retire(&oldest) {
                self.shared.view.write().segments.insert(0, oldest);
                return Err(error);
            }
            self.shared.note_files(&files);
        }
        files.segments.keep_a_spare();
        self.shared.note_files(&files);
        Ok(())
    }

    /// Commits what is pending and begins a segment of another lineage: the node has lost data that it
    /// had acknowledged and goes on as a new history. Offsets go on. After [`JournalError::NoSpace`]
    /// nothing has changed.
    pub fn begin_lineage(&self, lineage: LineageId) -> Result<(), JournalError> {
        self.shared.begin_lineage(lineage)
    }

    /// Bytes of all segment files and spares. Never waits for the disk.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        let spares = self.shared.account.lock().spare_bytes;
        let view = self.shared.view.read();
        spares + view.segments.iter().map(|s| s.file_bytes).sum::<u64>()
    }

    /// Counters and sizes. Never waits for the disk.
    #[must_use]
    pub fn statistics(&self) -> JournalStatistics {
        let bytes_on_disk = self.bytes_on_disk();
        let account = *self.shared.account.lock();
        let (counters, segments_begun) = (account.commits, account.segments_begun);
        JournalStatistics {
            records: counters.records,
            groups: counters.groups,
            group_records_max: counters.group_records_max,
            written_bytes: counters.written_bytes,
            commit_time: counters.commit_time,
            commit_time_max: counters.commit_time_max,
            segments_begun,
            cache_hits: self.shared.cache_hits.load(Ordering::Relaxed),
            cache_misses: self.shared.cache_misses.load(Ordering::Relaxed),
            refused_full: self.shared.pending.lock().refused_full,
            cache_bytes: self.shared.view.read().cache_bytes() as u64,
            bytes_on_disk,
        }
    }

    /// Commits what is pending, marks the end so that later damage of the last records is noticed, and
    /// stops. Every call after it fails with [`JournalError::Ended`], except reading.
    pub fn close(&self) -> Result<(), JournalError> {
        while self.shared.commit()? {}
        self.shared.close();
        let mut files = self.shared.files.lock();
        let end = files.segments.writer.end();
        files.segments.writer.append(&mut RecordGroup::new(end))?;
        Ok(())
    }
}

/// Ends the journal when it is dropped by a panic.
struct EndsByPanic<'a>(&'a Shared);

impl Drop for EndsByPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end_by_panic();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.close();
        // A receiver of events may have held the last handle: then this is the thread itself, which ends next.
        let own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| !own(thread)) {
            // A panic of the thread has already been reported by the runtime; there is nobody to tell.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests;
