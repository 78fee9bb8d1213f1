//! The state machine's rows in sled, behind a fence.
//!
//! sled 0.34 loses and damages data at power cuts: its `flush` never calls fsync, it panics on some
//! damage, and it opens an empty database when its configuration file is damaged. So nothing
//! depends on what is in here:
//! * it holds only what snapshot and Raft log can rebuild, and node-local notes that may be lost;
//! * a *sentinel* row, written in one batch with every change, says for which node and log position
//!   the rows are; at opening it must be there, be this node's, and lie between the newest snapshot
//!   and the log's end;
//! * opening runs under `catch_unwind`; whatever goes wrong, the directory is moved aside and a new
//!   one begun;
//! * [`Materialised::close`] and a timer make it durable by `flush` *and* fsync of sled's file;
//! * sled's own threads hold the database, and with it the lock of its file, for a while after the
//!   last handle is gone, so closing waits for the lock: who opens the directory next finds it free.
//!
//! A thread of its own writes the difference between the newest state and the one it wrote last, so
//! applying never waits for sled, and a burst of commands costs one batch.

use super::Version;
use crate::engine::{LogId, StoredMembership};
use crate::state::{LogPosition, rows};
use crate::{MetadataError, codec};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trefoil_model::NodeId;

const TREE_ROWS: &str = "rows";
const TREE_LOCAL: &str = "local";
const SENTINEL: &[u8] = b"\0sentinel";
/// How long changes may stay without fsync. A power cut then costs a rebuild at most.
const DURABLE_EVERY: Duration = Duration::from_secs(2);
/// The name of sled's data file, which it locks while the database is open.
const DATABASE_FILE: &str = "db";
/// How long closing waits for sled's threads. They only finish writes that were begun; should they
/// take longer, the next opening in this process finds the file locked and rebuilds the rows.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Time between two looks at the lock. sled does not tell when it lets go.
const RELEASE_POLL: Duration = Duration::from_millis(1);
/// sled's cache. The rows are read once, at the start.
const CACHE_BYTES: u64 = 4 << 20;

/// What the rows are for.
#[derive(Serialize, Deserialize)]
struct Sentinel {
    node: NodeId,
    last: Option<LogId>,
    membership: StoredMembership,
    /// Number of rows; a database that lost some is noticed.
    rows: u64,
}

/// What the writer thread has to do.
#[derive(Default)]
struct Work {
    newest: Option<Version>,
    closing: bool,
}

/// The materialised rows. Dropping it without [`Materialised::close`] loses nothing that cannot be
/// rebuilt.
pub(crate) struct Materialised {
    /// None after [`Materialised::close`].
    database: Mutex<Option<sled::Db>>,
    /// The file that sled locks.
    file: PathBuf,
    work: Arc<(Mutex<Work>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Materialised {
    /// Opens the rows in this directory. Gives the version that they hold, if `acceptable` accepts
    /// its log position; otherwise the directory is moved aside, a new one is begun with
    /// `fallback`, and nothing is given. Blocks.
    ///
    /// # Errors
    /// [`MetadataError::Disk`] when not even a new database can be made.
    pub(crate) fn open(
        directory: &Path,
        node: NodeId,
        fallback: Version,
        acceptable: impl Fn(Option<LogId>) -> bool,
    ) -> Result<(Self, Version), MetadataError> {
        let kept = match directory.exists() {
            true => load_or_move_aside(directory, node, &acceptable)?,
            false => None,
        };
        let (database, version, rows) = match kept {
            Some(kept) => kept,
            None => {
                let (database, rows) = fenced(|| {
                    let database = open_database(directory)?;
                    let rows = write_all(&database, node, &fallback)?;
                    Ok((database, rows))
                })
                .map_err(|reason| {
                    MetadataError::disk("begin sled database", io::Error::other(reason))
                })?;
                (database, fallback, rows)
            }
        };
        let file = directory.join(DATABASE_FILE);
        let work = Arc::new((Mutex::new(Work::default()), Condvar::new()));
        let writer = RowWriter {
            database: database.clone(),
            file: file.clone(),
            node,
            written: version.clone(),
            rows,
            work: Arc::clone(&work),
        };
        let thread = std::thread::Builder::new()
            .name("raft-rows".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| {
                MetadataError::disk("start writer of the materialised state", source)
            })?;
        let materialised = Self {
            database: Mutex::new(Some(database)),
            file,
            work,
            thread: Mutex::new(Some(thread)),
        };
        Ok((materialised, version))
    }

    /// Lets the rows follow to this version, soon. Only the newest version is written.
    pub(crate) fn follow(&self, version: Version) {
        let (work, changed) = &*self.work;
        work.lock().newest = Some(version);
        changed.notify_one();
    }

    /// A node-local note; none after closing. It may be lost at a power cut.
    pub(crate) fn note(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.with_notes(|tree| tree.get(key));
        found.ok().flatten().map(|bytes| bytes.to_vec())
    }

    /// Keeps a node-local note. It may be lost at a power cut.
    ///
    /// # Errors
    /// [`MetadataError::Disk`]; nothing was kept.
    pub(crate) fn keep_note(&self, key: &str, bytes: &[u8]) -> Result<(), MetadataError> {
        self.with_notes(|tree| tree.insert(key, bytes))
            .map(drop)
            .map_err(|reason| MetadataError::disk("keep node-local note", io::Error::other(reason)))
    }

    fn with_notes<T>(
        &self,
        work: impl FnOnce(&sled::Tree) -> sled::Result<T>,
    ) -> Result<T, String> {
        let database = self.database.lock();
        let database = database.as_ref().ok_or("the database is closed")?;
        let in_tree = || work(&database.open_tree(TREE_LOCAL)?);
        fenced(|| in_tree().map_err(|error| error.to_string()))
    }

    /// Writes and fsyncs what is outstanding, ends the thread, and gives the directory back: it can
    /// be opened again. Blocks.
    pub(crate) fn close(&self) {
        let (work, changed) = &*self.work;
        work.lock().closing = true;
        changed.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::warn!(
                "the writer of the materialised state panicked; it is rebuilt at the next start"
            );
        }
        if let Some(database) = self.database.lock().take() {
            drop(database);
            wait_until_released(&self.file);
        }
    }
}

impl Drop for Materialised {
    fn drop(&mut self) {
        self.close();
    }
}

struct RowWriter {
    database: sled::Db,
    file: PathBuf,
    node: NodeId,
    /// What the rows hold.
    written: Version,
    /// How many rows there are, the sentinel included.
    rows: u64,
    work: Arc<(Mutex<Work>, Condvar)>,
}

impl RowWriter {
    fn run(mut self) {
        let mut durable_at = Instant::now();
        let mut dirty = false;
        loop {
            let (newest, closing) = self.next(dirty);
            if let Some(version) = newest {
                if let Err(reason) = self.write(version) {
                    // The sentinel no longer changes, so the next start sees how far the rows go.
                    tracing::warn!(%reason, "the materialised state no longer follows");
                    return;
                }
                dirty = true;
            }
            if dirty && (closing || durable_at.elapsed() >= DURABLE_EVERY) {
                if let Err(reason) = durable_flush(&self.database, &self.file) {
                    tracing::warn!(%reason, "the materialised state is not durable");
                    return;
                }
                durable_at = Instant::now();
                dirty = false;
            }
            if closing {
                return;
            }
        }
    }

    /// Waits for work; when something is not durable yet, no longer than until it should be.
    fn next(&self, dirty: bool) -> (Option<Version>, bool) {
        let (work, changed) = &*self.work;
        let mut work = work.lock();
        if work.newest.is_none() && !work.closing {
            match dirty {
                true => {
                    changed.wait_for(&mut work, DURABLE_EVERY);
                }
                false => changed.wait(&mut work),
            }
        }
        (work.newest.take(), work.closing)
    }

    fn write(&mut self, version: Version) -> Result<(), String> {
        let changes = rows::changes(&self.written.state, &version.state);
        let changes = changes.map_err(|error| error.to_string())?;
        self.rows = fenced(|| {
            let tree = self
                .database
                .open_tree(TREE_ROWS)
                .map_err(|error| error.to_string())?;
            let mut batch = sled::Batch::default();
            let mut count = self.rows;
            for (key, value) in changes {
                let present = tree.contains_key(&key).map_err(|error| error.to_string())?;
                match value {
                    Some(value) => {
                        count += u64::from(!present);
                        batch.insert(key, value);
                    }
                    None => {
                        count -= u64::from(present);
                        batch.remove(key);
                    }
                }
            }
            batch.insert(SENTINEL, sentinel(self.node, &version, count)?);
            tree.apply_batch(batch).map_err(|error| error.to_string())?;
            Ok(count)
        })?;
        self.written = version;
        Ok(())
    }
}

/// Runs sled's code; turns its panics into errors.
fn fenced<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(_) => Err("sled panicked".to_owned()),
    }
}

/// The database that is there, with the version that it holds and the number of its rows. One that
/// is of no use is moved aside, and nothing is given.
fn load_or_move_aside(
    directory: &Path,
    node: NodeId,
    acceptable: &impl Fn(Option<LogId>) -> bool,
) -> Result<Option<(sled::Db, Version, u64)>, MetadataError> {
    let attempt = fenced(|| {
        let database = open_database(directory)?;
        let (version, rows) = load(&database, node, acceptable)?;
        Ok((database, version, rows))
    });
    match attempt {
        Ok(opened) => Ok(Some(opened)),
        Err(reason) => {
            tracing::warn!(
                %reason,
                "the materialised state is moved aside and rebuilt from snapshot and log"
            );
            move_aside(directory)?;
            Ok(None)
        }
    }
}

/// Waits until nobody holds sled's lock, which is a lock of the whole file.
fn wait_until_released(file: &Path) {
    let deadline = Instant::now() + RELEASE_WAIT_MAX;
    loop {
        let held = match File::open(file).map(|opened| opened.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => true,
            // A file that is gone or cannot be locked is nobody's.
            Ok(Ok(()) | Err(TryLockError::Error(_))) | Err(_) => false,
        };
        if !held {
            return;
        }
        if Instant::now() >= deadline {
            tracing::warn!("sled still holds its file; the rows may have to be rebuilt");
            return;
        }
        std::thread::sleep(RELEASE_POLL);
    }
}

fn open_database(directory: &Path) -> Result<sled::Db, String> {
    sled::Config::default()
        .path(directory)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .open()
        .map_err(|error| error.to_string())
}

fn sentinel(node: NodeId, version: &Version, rows: u64) -> Result<Vec<u8>, String> {
    let sentinel = Sentinel {
        node,
        last: version.last,
        membership: version.membership.clone(),
        rows,
    };
    codec::encode(codec::Kind::Sentinel, &sentinel).map_err(|error| error.to_string())
}

fn load(
    database: &sled::Db,
    node: NodeId,
    acceptable: &impl Fn(Option<LogId>) -> bool,
) -> Result<(Version, u64), String> {
    let tree = database
        .open_tree(TREE_ROWS)
        .map_err(|error| error.to_string())?;
    let bytes = tree.get(SENTINEL).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("there is no sentinel")?;
    let sentinel: Sentinel =
        codec::decode(codec::Kind::Sentinel, &bytes).map_err(|error| error.to_string())?;
    if sentinel.node != node {
        return Err(format!("the rows are node {}'s", sentinel.node));
    }
    if !acceptable(sentinel.last) {
        return Err(format!(
            "the rows are at {:?}, outside snapshot and log",
            sentinel.last
        ));
    }
    let mut rebuild = rows::Rebuild::default();
    let mut count = 0;
    for row in &tree {
        let (key, value) = row.map_err(|error| error.to_string())?;
        count += 1;
        if key != SENTINEL {
            rebuild
                .row(&key, &value)
                .map_err(|error| error.to_string())?;
        }
    }
    if count != sentinel.rows {
        return Err(format!(
            "{count} rows were found, {} were written",
            sentinel.rows
        ));
    }
    let applied = sentinel.last.map(LogPosition::from).unwrap_or_default();
    let state = rebuild.finish(applied).map_err(|error| error.to_string())?;
    let version = Version {
        state,
        last: sentinel.last,
        membership: sentinel.membership,
    };
    Ok((version, count))
}

/// Fills a new database; gives the number of rows.
fn write_all(database: &sled::Db, node: NodeId, version: &Version) -> Result<u64, String> {
    let tree = database
        .open_tree(TREE_ROWS)
        .map_err(|error| error.to_string())?;
    let all = rows::all(&version.state).map_err(|error| error.to_string())?;
    let mut batch = sled::Batch::default();
    let count = all.len() as u64 + 1;
    for (key, value) in all {
        batch.insert(key, value);
    }
    batch.insert(SENTINEL, sentinel(node, version, count)?);
    tree.apply_batch(batch).map_err(|error| error.to_string())?;
    Ok(count)
}

/// `flush` hands sled's buffers to the operating system; only fsync of its file makes them durable.
fn durable_flush(database: &sled::Db, file: &Path) -> Result<(), String> {
    fenced(|| {
        database
            .flush()
            .map(drop)
            .map_err(|error| error.to_string())
    })?;
    let sync = || {
        File::open(file)?.sync_all()?;
        let directory = file.parent().unwrap_or(Path::new("."));
        let configuration = directory.join("conf");
        if configuration.exists() {
            File::open(configuration)?.sync_all()?;
        }
        File::open(directory)?.sync_all()
    };
    sync().map_err(|error: io::Error| error.to_string())
}

/// Renames a damaged database, in place of the one that was damaged before it.
fn move_aside(directory: &Path) -> Result<(), MetadataError> {
    let aside = directory.with_extension("damaged");
    let moved = match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::rename(directory, &aside),
    };
    moved.map_err(|source| MetadataError::disk("move damaged sled database aside", source))
}
