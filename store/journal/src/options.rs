//! What a journal is opened with, what was found, and what it tells about itself: plain data.

use crate::DamagedRange;
use std::sync::Arc;
use std::time::Duration;
use trefoil_model::LineageId;

/// Who commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// A thread of the journal's own.
    Thread,
    /// Whoever calls [`crate::Journal::commit_now`]: for simulations.
    Manual,
}

/// How a journal is opened.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The lineage of a journal that does not exist yet; an existing one keeps its own.
    pub lineage_if_new: LineageId,
    /// Bytes of a segment file, reserved when it is begun. Large segments are trimmed late and idle
    /// nodes keep them reserved, small ones switch often (a switch costs two fsyncs). Default 4 MiB:
    /// some seconds of a busy node.
    pub segment_bytes: u64,
    /// Bytes that may wait for the disk, and the largest record. Twice as much memory is in use while
    /// the disk is slow. Default 16 MiB.
    pub pending_bytes_max: usize,
    /// Bytes of recent groups kept in memory for peers that are a little behind; reads of older
    /// ones go to the segments, mostly in the page cache. Default 8 MiB: some seconds of a busy node.
    pub cache_bytes_max: usize,
    /// Trimmed segments kept for reuse; at least one is kept ready, so that a restart on a full disk
    /// has room for its copy. Default 2.
    pub spares_max: usize,
    /// Segments that end at or below this offset are not verified at the start: everything in them is
    /// in blocks (the manifest's flushed position). Damage there shows when it is read. Default 0.
    pub verify_from: u64,
    /// Something outside of the journal durably speaks of offsets up to here (the manifest's flushed position and
    /// checkpoint). A journal that ends below has lost its end; it goes on *behind* this offset, so that no offset
    /// is used twice, and what lies between is reported as damage. Default 0.
    pub known_end: u64,
    /// Where a journal begins that does not exist yet, if `known_end` does not say more. Above 0 where one must have
    /// been lost: a journal that begins at 0 is one of which nothing ever was lost. Default 0.
    pub begin_if_new: u64,
    /// Who commits.
    pub mode: CommitMode,
    /// Mistakes that tests plant. No setting reaches them.
    pub faults: JournalFaults,
}

/// Mistakes that a test can plant, to show that a simulation finds them. All are false in production.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalFaults {
    /// Pages are taken for whole whatever their checksums say.
    pub torn_pages_applied: bool,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            lineage_if_new: LineageId(0),
            segment_bytes: 4 << 20,
            pending_bytes_max: 16 << 20,
            cache_bytes_max: 8 << 20,
            spares_max: 2,
            verify_from: 0,
            known_end: 0,
            begin_if_new: 0,
            mode: CommitMode::Thread,
            faults: JournalFaults::default(),
        }
    }
}

/// What was found when a journal was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether there was none and an empty one was made.
    pub fresh: bool,
    /// The lineage of the newest segment.
    pub lineage: LineageId,
    /// First offset that is kept.
    pub floor: u64,
    /// Offset behind the last record; the next append starts here.
    pub end: u64,
    /// Bytes of the group in flight at the crash that were cut.
    pub torn_bytes_cut: u64,
    /// Durable records at or above `floor` that cannot be read: the node is amnesiac, unless it has
    /// dealt with these ranges before. In order.
    pub damage: Vec<DamagedRange>,
}

/// Where an appended record lies. It is held only when the durable end has reached `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendedRecord {
    /// Its offset.
    pub start: u64,
    /// The offset behind it.
    pub end: u64,
}

/// What the committer reports, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurableEvent {
    /// Everything below `end` is durable. Several commits may be reported as one.
    Advanced {
        /// The new durable end.
        end: u64,
    },
    /// There is no room for another segment; what is pending waits. Reported once per stall.
    Stalled {
        /// The operating system's reason, for people.
        why: String,
    },
    /// A write or fsync failed: the last event. The node stops taking writes and restarts.
    Ended {
        /// The operating system's reason, for people.
        why: String,
    },
}

/// Receives [`DurableEvent`]s in order on the committing thread, with no lock of the journal held. It
/// should be quick: the next group waits for it.
pub type OnDurable = Arc<dyn Fn(DurableEvent) + Send + Sync>;

/// Counters since the journal was opened, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStatistics {
    /// Records that became durable.
    pub records: u64,
    /// Groups committed: one `fdatasync` each.
    pub groups: u64,
    /// Most records in one group.
    pub group_records_max: u64,
    /// Bytes written in groups, page headers and padding included.
    pub written_bytes: u64,
    /// Time spent writing and syncing groups.
    pub commit_time: Duration,
    /// Longest commit.
    pub commit_time_max: Duration,
    /// Segments begun.
    pub segments_begun: u64,
    /// Reads answered from memory.
    pub cache_hits: u64,
    /// Reads that went to the files.
    pub cache_misses: u64,
    /// Appends refused because too much was waiting.
    pub refused_full: u64,
    /// Bytes of groups in the cache.
    pub cache_bytes: u64,
    /// Bytes of all segment files and spares.
    pub bytes_on_disk: u64,
}
