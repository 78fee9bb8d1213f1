//! The committer: takes what is pending, writes it as one group, syncs, publishes, reports.
//!
//! State machine: *open* -> (full disk) *stalled* -> *open*, and from any state -> *ended*, which is
//! final. The locks, always taken in this order: files (held while committing and trimming), pending,
//! view, account. Only files is held while the disk works, and only committing and trimming take it. No
//! lock of the journal is held while an event is delivered, so that its receiver may call anything.

use crate::events::Events;
use crate::segments::SegmentFiles;
use crate::view::View;
use crate::{AppendedRecord, CommitMode, DurableEvent, JournalError, JournalOptions, OnDurable};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trefoil_model::LineageId;
use trefoil_store_pages::{RECORD_BYTES_MAX, RecordGroup};

/// How often a stalled journal looks whether there is space again.
const STALLED_RETRY: Duration = Duration::from_millis(500);

/// Everything that the handle and the thread share.
pub(crate) struct Shared {
    pub(crate) options: JournalOptions,
    pub(crate) files: Mutex<Files>,
    pub(crate) account: Mutex<FilesAccount>,
    pub(crate) pending: Mutex<Pending>,
    pub(crate) view: RwLock<View>,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    arrived: Condvar,
    events: Events,
}

pub(crate) struct Files {
    pub(crate) segments: SegmentFiles,
    /// A group that found no space; it goes first.
    stalled: Option<RecordGroup>,
}

/// What is told about the files. Apart from them, so that asking never waits for the disk.
#[derive(Clone, Copy, Default)]
pub(crate) struct FilesAccount {
    pub(crate) commits: CommitCounters,
    pub(crate) segments_begun: u64,
    pub(crate) spare_bytes: u64,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct CommitCounters {
    pub(crate) records: u64,
    pub(crate) groups: u64,
    pub(crate) group_records_max: u64,
    pub(crate) written_bytes: u64,
    pub(crate) commit_time: Duration,
    pub(crate) commit_time_max: Duration,
}

pub(crate) struct Pending {
    group: RecordGroup,
    state: State,
    /// What the system said when the journal stalled; none when it does not.
    stalled_by: Option<String>,
    /// The thread ends as soon as it sees this.
    stop: bool,
    pub(crate) refused_full: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Stalled,
    Ended,
}

impl Shared {
    pub(crate) fn new(
        options: JournalOptions,
        segments: SegmentFiles,
        view: View,
        on_durable: OnDurable,
    ) -> Self {
        let pending = Pending {
            group: RecordGroup::new(view.durable_end),
            state: State::Open,
            stalled_by: None,
            stop: false,
            refused_full: 0,
        };
        let account = FilesAccount {
            spare_bytes: segments.spare_bytes(),
            ..FilesAccount::default()
        };
        Self {
            options,
            files: Mutex::new(Files {
                segments,
                stalled: None,
            }),
            account: Mutex::new(account),
            pending: Mutex::new(pending),
            view: RwLock::new(view),
            cache_hits: AtomicU64::new(0),
            cache_misses: AtomicU64::new(0),
            arrived: Condvar::new(),
            events: Events::new(on_durable),
        }
    }

    pub(crate) fn append(&self, parts: &[&[u8]]) -> Result<AppendedRecord, JournalError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let bytes_max = self.options.pending_bytes_max.min(RECORD_BYTES_MAX);
        if bytes > bytes_max {
            return Err(JournalError::RecordTooLarge { bytes, bytes_max });
        }
        let mut pending = self.pending.lock();
        if pending.state == State::Ended {
            return Err(JournalError::Ended);
        }
        let waiting = pending.group.disk_bytes();
        if waiting > 0 && waiting + bytes > self.options.pending_bytes_max {
            pending.refused_full += 1;
            let pending_bytes = waiting;
            return Err(JournalError::Full { pending_bytes });
        }
        // A stalled journal looks for space by itself; waking it for every record would only burn time.
        let first = pending.group.records() == 0 && pending.state == State::Open;
        let (start, end) = pending.group.push(parts);
        drop(pending);
        if first && self.options.mode == CommitMode::Thread {
            self.arrived.notify_one();
        }
        Ok(AppendedRecord { start, end })
    }

    /// Commits what is pending. Says whether anything was.
    pub(crate) fn commit(&self) -> Result<bool, JournalError> {
        let result = self.commit_group();
        self.events.deliver();
        result
    }

    fn commit_group(&self) -> Result<bool, JournalError> {
        let mut files = self.files.lock();
        let Some(mut group) = self.take(&mut files)? else {
            return Ok(false);
        };
        if files.segments.is_full_for(group.disk_bytes() as u64)
            && let Err(error) = self.begin_segment(&mut files, &group)
        {
            if error.is_full_disk() {
                self.stall(&mut files, group, &error);
                return Err(JournalError::NoSpace);
            }
            return Err(self.end(error));
        }
        let began = Instant::now();
        if let Err(error) = files.segments.writer.append(&mut group) {
            return Err(self.end(error.into()));
        }
        self.account.lock().commits.count(&group, began.elapsed());
        let end = group.end();
        self.view.write().advance(group);
        self.events.post(DurableEvent::Advanced { end });
        Ok(true)
    }

    /// Begins a segment with another lineage, durably. Commits what is pending first.
    pub(crate) fn begin_lineage(&self, lineage: LineageId) -> Result<(), JournalError> {
        while self.commit()? {}
        let result = self.begin_empty_segment(lineage);
        self.events.deliver();
        result
    }

    fn begin_empty_segment(&self, lineage: LineageId) -> Result<(), JournalError> {
        let mut files = self.files.lock();
        // Whatever was appended meanwhile may follow in the new segment.
        let empty = RecordGroup::new(files.segments.writer.end());
        let before = files.segments.set_lineage(lineage);
        match self.begin_segment(&mut files, &empty) {
            Err(error) if error.is_full_disk() => {
                files.segments.set_lineage(before);
                Err(JournalError::NoSpace)
            }
            other => other.map_err(|error| self.end(error)),
        }
    }

    /// Why nothing becomes durable at present, if the disk is full.
    pub(crate) fn stalled_by(&self) -> Option<String> {
        self.pending.lock().stalled_by.clone()
    }

    /// The group to write now. Leaves a fresh one for what arrives meanwhile.
    fn take(&self, files: &mut Files) -> Result<Option<RecordGroup>, JournalError> {
        let mut pending = self.pending.lock();
        if pending.state == State::Ended {
            return Err(JournalError::Ended);
        }
        if let Some(group) = files.stalled.take() {
            return Ok(Some(group));
        }
        if pending.group.records() == 0 {
            return Ok(None);
        }
        let next = RecordGroup::new(pending.group.end());
        Ok(Some(std::mem::replace(&mut pending.group, next)))
    }

    fn begin_segment(&self, files: &mut Files, group: &RecordGroup) -> Result<(), JournalError> {
        let bytes = group.disk_bytes() as u64;
        let segment = files.segments.begin(group.start(), bytes)?;
        self.note_files(files);
        let mut pending = self.pending.lock();
        pending.stalled_by = None;
        if pending.state == State::Stalled {
            pending.state = State::Open;
        }
        drop(pending);
        let mut view = self.view.write();
        // A segment without records is replaced: its name was taken over.
        if view.segments.last().is_some_and(|s| s.base == segment.base) {
            view.segments.pop();
        }
        view.segments.push(segment);
        Ok(())
    }

    /// Notes what the files are after a change of their set.
    pub(crate) fn note_files(&self, files: &Files) {
        let mut account = self.account.lock();
        account.segments_begun = files.segments.segments_begun;
        account.spare_bytes = files.segments.spare_bytes();
    }

    fn stall(&self, files: &mut Files, group: RecordGroup, error: &JournalError) {
        files.stalled = Some(group);
        let mut pending = self.pending.lock();
        let news = pending.state != State::Stalled;
        pending.state = State::Stalled;
        let why = error.to_string();
        pending.stalled_by = Some(why.clone());
        drop(pending);
        if news {
            self.events.post(DurableEvent::Stalled { why });
        }
    }

    fn end(&self, error: JournalError) -> JournalError {
        self.pending.lock().state = State::Ended;
        let why = error.to_string();
        self.events.post(DurableEvent::Ended { why });
        error
    }

    /// The thread has panicked: what it was about to make durable is in doubt, as after a failed write.
    pub(crate) fn end_by_panic(&self) {
        self.pending.lock().state = State::Ended;
        let why = "its thread has failed by a bug".to_owned();
        self.events.post(DurableEvent::Ended { why });
        self.events.deliver();
    }

    /// No append and no commit from now on; no event.
    pub(crate) fn close(&self) {
        let mut pending = self.pending.lock();
        pending.state = State::Ended;
        pending.stop = true;
        drop(pending);
        self.arrived.notify_one();
    }

    /// The thread: commits until the journal ends or is closed. What arrives during a commit makes the
    /// next group, so the group grows by itself when the disk is slow.
    pub(crate) fn run(&self) {
        loop {
            let mut pending = self.pending.lock();
            while pending.state == State::Open && pending.group.records() == 0 && !pending.stop {
                self.arrived.wait(&mut pending);
            }
            if pending.state == State::Stalled && !pending.stop {
                self.arrived.wait_for(&mut pending, STALLED_RETRY);
            }
            if pending.stop || pending.state == State::Ended {
                return;
            }
            drop(pending);
            match self.commit() {
                Ok(_) | Err(JournalError::NoSpace) => {}
                Err(_) => return,
            }
        }
    }

    pub(crate) fn count_read(&self, from_memory: bool) {
        let counter = match from_memory {
            true => &self.cache_hits,
            false => &self.cache_misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl CommitCounters {
    fn count(&mut self, group: &RecordGroup, took: Duration) {
        self.records += group.records();
        self.groups += 1;
        self.group_records_max = self.group_records_max.max(group.records());
        self.written_bytes += group.disk_bytes() as u64;
        self.commit_time += took;
        self.commit_time_max = self.commit_time_max.max(took);
    }
}
