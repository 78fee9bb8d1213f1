//! The thread (in simulations a task) that writes the log file, and the file's generations.

use super::memory::{Memory, Record};
use crate::engine::Types;
use crate::patience::{FULL_DISK_RETRY, Patience};
use crate::{DiskWork, MetadataError, PlaneFaults, codec, files};
use openraft::storage::LogFlushed;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use trefoil_model::NodeId;
use trefoil_store_pages::{
    Disk, FileHeader, PageReader, PageWriter, PagesError, RecordGroup, is_full_disk,
};

/// Tag of the log's page files.
const PURPOSE: [u8; 4] = *b"rlog";
/// Name of a generation that is not complete yet.
const NEXT: &str = "next";
/// Jobs that wait for the writer. openraft has one append and one vote in flight, so this is not
/// reached; if it were, the Raft task would wait.
const JOBS_WAITING_MAX: usize = 256;
/// A file below this size is not worth copying, however little of it is still true.
const COPY_BYTES_MIN: u64 = 16 << 20;
/// Space that is reserved ahead of what is written.
const RESERVE_BYTES: u64 = 256 << 10;

/// Whom to tell that a job is durable.
pub(super) enum Done {
    /// openraft, about appended entries.
    Flushed(LogFlushed<Types>),
    /// A waiting caller.
    Signal(oneshot::Sender<io::Result<()>>),
    /// Nobody: it is written together with the next job that somebody waits for.
    Hint,
}

/// Records that become durable together.
pub(super) struct Job {
    pub(super) records: Vec<Vec<u8>>,
    pub(super) done: Done,
}

impl Job {
    /// Tells whoever waits before anything is written; for a planted mistake.
    fn complete_early(self) -> Self {
        let (nobody, _) = oneshot::channel();
        let records = self.records.clone();
        if let Done::Hint = self.done {
            return self;
        }
        self.complete(&Ok(()));
        Self {
            records,
            done: Done::Signal(nobody),
        }
    }

    fn complete(self, result: &Result<(), String>) {
        let result = result.clone().map_err(io::Error::other);
        match self.done {
            Done::Flushed(callback) => callback.log_io_completed(result),
            // A caller that went away does not need to know.
            Done::Signal(sender) => drop(sender.send(result)),
            Done::Hint => {}
        }
    }
}

/// Who writes.
enum Hand {
    Thread(SyncSender<Job>, JoinHandle<()>),
    Task(tokio::sync::mpsc::Sender<Job>),
}

/// The writer: a thread of its own, or a task in simulations.
pub(super) struct Writer {
    hand: Mutex<Option<Hand>>,
    patience: Patience,
}

impl Writer {
    pub(super) fn start(
        file: LogFile,
        memory: Arc<Mutex<Memory>>,
        disk_work: &DiskWork,
        faults: PlaneFaults,
    ) -> Result<Self, MetadataError> {
        let patience = file.patience.clone();
        let writing = Writing {
            file,
            memory,
            hint: None,
            failed: None,
            faults,
        };
        let hand = match disk_work {
            DiskWork::Threads => {
                let (sender, receiver) = sync_channel(JOBS_WAITING_MAX);
                let thread = std::thread::Builder::new()
                    .name("raft-log".to_owned())
                    .spawn(move || writing.run(&receiver))
                    .map_err(|source| {
                        MetadataError::disk("start writer of the Raft log", source)
                    })?;
                Hand::Thread(sender, thread)
            }
            DiskWork::Tasks(pause) => {
                let (sender, receiver) = tokio::sync::mpsc::channel(JOBS_WAITING_MAX);
                tokio::spawn(writing.run_as_task(receiver, Arc::clone(pause)));
                Hand::Task(sender)
            }
        };
        Ok(Self {
            hand: Mutex::new(Some(hand)),
            patience,
        })
    }

    /// Hands a job over; called in the order of the log. After `close` the job fails.
    pub(super) fn submit(&self, job: Job) {
        let rejected = match &*self.hand.lock() {
            Some(Hand::Thread(sender, _)) => sender.send(job).map_err(|error| error.0),
            Some(Hand::Task(sender)) => sender.try_send(job).map_err(TrySendError::into_inner),
            None => Err(job),
        };
        if let Err(job) = rejected {
            job.complete(&Err("the Raft log is closed".to_owned()));
        }
    }

    /// From now on a full disk is a failure: nobody will make space in time.
    pub(super) fn stop_waiting(&self) {
        self.patience.end();
    }

    pub(super) fn close(&self) {
        self.stop_waiting();
        let Some(Hand::Thread(sender, thread)) = self.hand.lock().take() else {
            return;
        };
        drop(sender);
        if thread.join().is_err() {
            tracing::error!("the writer of the Raft log panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the writer works on.
struct Writing {
    file: LogFile,
    memory: Arc<Mutex<Memory>>,
    /// Hints that wait for company: at most the newest one matters.
    hint: Option<Vec<u8>>,
    /// After a failed write nothing more is written; every job is told so.
    failed: Option<String>,
    faults: PlaneFaults,
}

impl Writing {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut batch = vec![first];
            batch.extend(jobs.try_iter().take(JOBS_WAITING_MAX));
            let group = self.gather(&batch);
            let mut told = false;
            while self.lacks_room(&group, &mut told) {
                std::thread::sleep(FULL_DISK_RETRY);
            }
            self.write(batch, group);
        }
        self.write_hint();
    }

    async fn run_as_task(
        mut self,
        mut jobs: tokio::sync::mpsc::Receiver<Job>,
        pause: Arc<dyn Fn() -> Duration + Send + Sync>,
    ) {
        let mut batch = Vec::new();
        while jobs.recv_many(&mut batch, JOBS_WAITING_MAX).await > 0 {
            let mut batch = std::mem::take(&mut batch);
            if self.faults.log_acknowledges_early {
                batch = batch.into_iter().map(Job::complete_early).collect();
            }
            tokio::time::sleep(pause()).await;
            let group = self.gather(&batch);
            let mut told = false;
            while self.lacks_room(&group, &mut told) {
                tokio::time::sleep(FULL_DISK_RETRY).await;
            }
            self.write(batch, group);
        }
        self.write_hint();
    }

    /// Whether these records have to wait for space. A full disk is no failure: what waits is not durable, and nobody has
    /// been told that it is, so this node is only a slow voter until there is space again. Says so the first time.
    fn lacks_room(&mut self, group: &Option<RecordGroup>, told: &mut bool) -> bool {
        let Some(group) = group.as_ref().filter(|_| self.failed.is_none()) else {
            return false;
        };
        let closing = self.file.patience.has_ended();
        match self.file.reserve(group.disk_bytes() as u64) {
            Err(error) if is_full_disk(&error) && !closing => {
                if !std::mem::replace(told, true) {
                    tracing::error!(%error, "the Raft log waits for space");
                }
                true
            }
            // Any other error is met again by the write itself.
            Ok(()) | Err(_) => {
                if *told {
                    tracing::info!("the Raft log goes on");
                }
                false
            }
        }
    }

    /// Writes what arrived together, with one sync, and tells those who wait.
    fn write(&mut self, batch: Vec<Job>, group: Option<RecordGroup>) {
        let result = match (&self.failed, group) {
            (Some(why), _) => Err(why.clone()),
            (None, Some(mut group)) => self.file.append(&mut group, &self.memory),
            (None, None) => Ok(()),
        };
        if let (Err(why), None) = (&result, &self.failed) {
            tracing::error!(
                why,
                "the Raft log cannot be written; the node must be restarted"
            );
            self.failed = Some(why.clone());
        }
        for job in batch {
            job.complete(&result);
        }
    }

    /// The records of jobs that somebody waits for, with the last hint before them; none when nobody waits.
    fn gather(&mut self, batch: &[Job]) -> Option<RecordGroup> {
        let mut group = RecordGroup::new(self.file.writer.end());
        let mut wanted = false;
        for job in batch {
            if let Done::Hint = job.done {
                self.hint = job.records.last().cloned().or(self.hint.take());
                continue;
            }
            wanted = true;
            if let Some(bytes) = self.hint.take() {
                group.push(&[&bytes]);
            }
            for bytes in &job.records {
                group.push(&[bytes]);
            }
        }
        wanted.then_some(group)
    }

    /// Writes the last hint, when nobody comes any more.
    fn write_hint(&mut self) {
        let Some(bytes) = self.hint.take().filter(|_| self.failed.is_none()) else {
            return;
        };
        let mut group = RecordGroup::new(self.file.writer.end());
        group.push(&[&bytes]);
        if let Err(reason) = self.file.append(&mut group, &self.memory) {
            tracing::warn!(reason, "the last hint of the Raft log was not written");
        }
    }
}

/// The file that is the log now.
pub(super) struct LogFile {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    node: NodeId,
    generation: u64,
    writer: PageWriter,
    /// The file is copied when it has grown beyond this.
    copy_at_bytes: u64,
    /// Up to here the file has its space on the disk.
    reserved_bytes: u64,
    /// Nobody waits for what is being written any more.
    patience: Patience,
}

impl LogFile {
    fn append(&mut self, group: &mut RecordGroup, memory: &Mutex<Memory>) -> Result<(), String> {
        self.reserve(group.disk_bytes() as u64)
            .map_err(|error| error.to_string())?;
        self.writer
            .append(group)
            .map_err(|error| error.to_string())?;
        if self.writer.used_bytes() < self.copy_at_bytes {
            return Ok(());
        }
        // The content may be ahead of what is written; records that follow have their effect twice,
        // which is the same as once.
        let records = memory.lock().records();
        let next = begin(
            &self.disk,
            &self.directory,
            self.node,
            self.generation + 1,
            &records,
        );
        match next {
            Ok(file) => {
                let old = self.directory.join(name(self.generation));
                let patience = self.patience.clone();
                *self = LogFile { patience, ..file };
                remove(&*self.disk, &old);
                Ok(())
            }
            // The file is only longer than it need be.
            Err(error) if is_full_disk(&error) => {
                tracing::warn!(%error, "the Raft log is copied later");
                self.copy_at_bytes = self.writer.used_bytes() + COPY_BYTES_MIN;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes sure that so many bytes more fit.
    fn reserve(&mut self, bytes: u64) -> Result<(), PagesError> {
        let used = self.writer.used_bytes();
        if used + bytes <= self.reserved_bytes {
            return Ok(());
        }
        let wanted = bytes.max(RESERVE_BYTES);
        self.writer.reserve(wanted)?;
        self.reserved_bytes = used + wanted;
        Ok(())
    }
}

/// The numbers of the generations in a directory, ascending.
pub(super) fn generations(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, MetadataError> {
    let names = disk
        .list(directory)
        .map_err(|source| MetadataError::disk("list Raft log", source))?;
    let parse = |name: &String| {
        u64::from_str_radix(name, 16)
            .ok()
            .filter(|_| name.len() == 16)
    };
    let mut found: Vec<u64> = names.iter().filter_map(parse).collect();
    found.sort_unstable();
    Ok(found)
}

/// Reads the newest generation and copies it to the next one.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    directory: &Path,
    node: NodeId,
) -> Result<(Memory, LogFile), MetadataError> {
    disk.create_dir_all(directory)
        .map_err(|source| MetadataError::disk("create directory of the Raft log", source))?;
    let found = generations(&*disk, directory)?;
    let memory = match found.last() {
        Some(newest) => read(&*disk, &directory.join(name(*newest)), node)?,
        None => Memory::default(),
    };
    let next = found.last().map_or(1, |newest| newest + 1);
    let file = begin(&disk, directory, node, next, &memory.records())?;
    for old in found {
        remove(&*disk, &directory.join(name(old)));
    }
    Ok((memory, file))
}

fn read(disk: &dyn Disk, path: &Path, node: NodeId) -> Result<Memory, MetadataError> {
    let damaged = |reason: String| MetadataError::Damaged { reason };
    let reader =
        PageReader::open(disk, path, PURPOSE).map_err(|error| damaged(error.to_string()))?;
    if reader.header().lineage != u128::from(node.0) {
        return Err(damaged(format!(
            "{} is not node {node}'s Raft log",
            path.display()
        )));
    }
    let mut memory = Memory::default();
    let mut malformed = None;
    let summary = reader
        .scan(
            &mut |_, bytes| match codec::decode::<Record>(codec::Kind::LogRecord, bytes) {
                Ok(record) => memory.apply(record, bytes.len()),
                Err(error) => malformed = malformed.take().or(Some(error)),
            },
        )
        .map_err(|error| damaged(error.to_string()))?;
    if let Some(error) = malformed {
        return Err(damaged(format!("{}: {error}", path.display())));
    }
    if let Some(range) = summary.damage.first() {
        let (start, end) = (range.start, range.end);
        return Err(damaged(format!(
            "{}: bytes {start}..{end} are lost",
            path.display()
        )));
    }
    if let Some(index) = memory.gap() {
        return Err(damaged(format!(
            "{}: entry {index} is missing",
            path.display()
        )));
    }
    Ok(memory)
}

/// Makes a generation with this content and lets it become the log.
fn begin(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    node: NodeId,
    generation: u64,
    records: &[Record],
) -> Result<LogFile, MetadataError> {
    let pages = |error: trefoil_store_pages::PagesError| {
        MetadataError::disk("begin Raft log file", io::Error::other(error))
    };
    let path = directory.join(NEXT);
    files::remove_unfinished(&**disk, &path)?;
    let header = FileHeader {
        purpose: PURPOSE,
        lineage: u128::from(node.0),
        number: generation,
        base: 0,
        note: Vec::new(),
    };
    let mut group = RecordGroup::new(0);
    for record in records {
        group.push(&[&codec::encode(codec::Kind::LogRecord, record)?]);
    }
    let written = PageWriter::create(&**disk, &path, header, 0).and_then(|mut writer| {
        writer.append(&mut group)?;
        writer.rename(&**disk, &directory.join(name(generation)))?;
        Ok(writer)
    });
    let writer = written.map_err(|error| {
        // On a full disk it would take the space that others wait for.
        files::drop_unfinished(&**disk, &path);
        pages(error)
    })?;
    let copy_at_bytes = COPY_BYTES_MIN.max(writer.used_bytes().saturating_mul(2));
    Ok(LogFile {
        disk: Arc::clone(disk),
        directory: directory.to_owned(),
        node,
        generation,
        reserved_bytes: writer.used_bytes(),
        writer,
        copy_at_bytes,
        patience: Patience::default(),
    })
}

fn name(generation: u64) -> String {
    format!("{generation:016x}")
}

/// Removes a file that is not needed; one that stays is removed at the next start.
fn remove(disk: &dyn Disk, path: &Path) {
    if let Err(error) = disk.remove(path) {
        tracing::warn!(path = %path.display(), %error, "an old Raft log file stays for now");
    }
}
