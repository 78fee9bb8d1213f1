//! The core's records on their way into the journal and, once durable, into the store.
//!
//! The core relies on every record being taken. While the disk is full or slow, records wait in memory; the data plane
//! lets no items in then ([`super::DataPlane::refuses_items`]), so that what waits is the core's own small
//! records and stays far below the journal's bound.

use super::applier;
use std::sync::Arc;
use trefoil_shard::{JournalPort, Offset, Record, Span};
use trefoil_store_journal::Journal;

/// Appends records to the journal's buffer and notes for the applier what they do to the store.
pub(super) struct Port {
    journal: Arc<Journal>,
    applier: applier::Queue,
    encoded: Vec<u8>,
}

impl Port {
    pub(super) fn new(journal: Arc<Journal>, applier: applier::Queue) -> Self {
        Self {
            journal,
            applier,
            encoded: Vec::new(),
        }
    }
}

impl JournalPort for Port {
    fn append(&mut self, record: Record) -> Span {
        self.encoded.clear();
        record.encode(&mut self.encoded);
        let appended = match self.journal.append(&[&self.encoded]) {
            Ok(appended) => appended,
            Err(error) => {
                // A failed fsync: the page cache may lie, so only a restart, which replays what the disk
                // really has, is safe. Or the bound, which only a mistake of ours reaches.
                tracing::error!(%error, "the journal takes no more records; this process ends");
                std::process::abort();
            }
        };
        let span = Span {
            start: Offset(appended.start),
            end: Offset(appended.end),
        };
        self.applier.push(span, record);
        span
    }
}
