//! What the Raft log says, in memory: the result of its records in order. Reading a file and
//! writing to it go through the same [`Memory::apply`], so they cannot disagree.

use crate::engine::{Entry, LogId, Vote};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A record of the log file. Part of the format.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The newest vote.
    Vote(Vote),
    /// An entry; replaces one with the same index. Ignored at or below the purge.
    Entry(Entry),
    /// Entries from this index on are gone.
    TruncateFrom(u64),
    /// Entries up to this one are gone, because a snapshot holds their effect.
    Purge(LogId),
    /// Entries up to this one are committed. A hint: it may be older than the truth.
    Committed(Option<LogId>),
}

impl Record {
    /// The index of an entry.
    pub(super) fn index(&self) -> Option<u64> {
        match self {
            Self::Entry(entry) => Some(entry.log_id.index),
            _ => None,
        }
    }
}

struct Held {
    entry: Entry,
    bytes: usize,
}

/// The log's content.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Without gaps, all above `purged`.
    entries: BTreeMap<u64, Held>,
    bytes: u64,
}

impl Memory {
    /// Takes the effect of a record that has this encoded length.
    pub(super) fn apply(&mut self, record: Record, bytes: usize) {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(committed) => self.committed = committed,
            Record::Entry(entry) => {
                let index = entry.log_id.index;
                if self.purged.is_some_and(|purged| index <= purged.index) {
                    return;
                }
                self.bytes += bytes as u64;
                if let Some(replaced) = self.entries.insert(index, Held { entry, bytes }) {
                    self.bytes -= replaced.bytes as u64;
                }
            }
            Record::TruncateFrom(index) => {
                let gone = self.entries.split_off(&index);
                self.forget(&gone);
            }
            Record::Purge(upto) => {
                let kept = self.entries.split_off(&(upto.index + 1));
                let gone = std::mem::replace(&mut self.entries, kept);
                self.forget(&gone);
                self.purged = self.purged.max(Some(upto));
            }
        }
    }

    fn forget(&mut self, gone: &BTreeMap<u64, Held>) {
        self.bytes -= gone.values().map(|held| held.bytes as u64).sum::<u64>();
    }

    /// The newest entry's id; when there is none, the purge's.
    pub(super) fn last(&self) -> Option<LogId> {
        let newest = self.entries.last_key_value();
        newest.map(|(_, held)| held.entry.log_id).or(self.purged)
    }

    /// The entry at this index, if it is held.
    pub(super) fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(&index).map(|held| &held.entry)
    }

    /// Encoded bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entries from `start` on, ascending, below `end`, until about `bytes_max` bytes; at least
    /// one if there is one.
    pub(super) fn range(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Entry> {
        if start >= end {
            return Vec::new();
        }
        let mut sum = 0;
        let within = |held: &&Held| {
            let first = sum == 0;
            sum += held.bytes;
            first || sum <= bytes_max
        };
        let held = self.entries.range(start..end).map(|(_, held)| held);
        held.take_while(within)
            .map(|held| held.entry.clone())
            .collect()
    }

    /// The index behind the newest entry, or behind the purge, that would be missing if entries with these indexes were added,
    /// if one would.
    pub(super) fn gap_before(&self, indexes: impl Iterator<Item = u64>) -> Option<u64> {
        let mut next = self.last()?.index + 1;
        for index in indexes {
            if index > next {
                return Some(next);
            }
            next = next.max(index + 1);
        }
        None
    }

    /// The first index that is missing between the purge and the last entry, if any is.
    pub(super) fn gap(&self) -> Option<u64> {
        let first = self.purged.map_or(0, |purged| purged.index + 1);
        let expected = first..;
        let mut pairs = expected.zip(self.entries.keys());
        pairs
            .find(|(want, found)| want != *found)
            .map(|(want, _)| want)
    }

    /// Records that give this content when applied to nothing.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.entries.len() + 3);
        records.extend(self.vote.map(Record::Vote));
        records.extend(self.purged.map(Record::Purge));
        records.push(Record::Committed(self.committed));
        records.extend(
            self.entries
                .values()
                .map(|held| Record::Entry(held.entry.clone())),
        );
        records
    }
}
