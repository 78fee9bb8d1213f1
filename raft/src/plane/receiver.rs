//! The receiving side of a snapshot transfer: one snapshot at a time, part by part.

use super::wire::{SnapshotAnswer, SnapshotChunk};
use crate::MetadataError;
use crate::engine::{Raft, Snapshot};
use crate::machine::{SnapshotBytes, SnapshotFiles};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Largest snapshot that is accepted: it is held in memory while it arrives. Metadata are far
/// smaller; reaching this means that something stores bulk data here.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// A snapshot that is arriving.
struct Incoming {
    snapshot_id: String,
    total_bytes: u64,
    bytes: Vec<u8>,
}

/// Puts parts together.
#[derive(Default)]
pub(super) struct Receiver {
    incoming: Arc<Mutex<Option<Incoming>>>,
}

impl Receiver {
    /// Takes a part; installs the snapshot when it was the last one.
    ///
    /// # Errors
    /// [`MetadataError::Encoding`] for a part that does not fit, [`MetadataError::Stopped`] when
    /// Raft has stopped.
    pub(super) async fn take(
        &self,
        raft: &Raft,
        snapshots: &SnapshotFiles,
        chunk: SnapshotChunk,
    ) -> Result<SnapshotAnswer, MetadataError> {
        let mut slot = Arc::clone(&self.incoming).lock_owned().await;
        if chunk.total_bytes > SNAPSHOT_BYTES_MAX {
            return Err(malformed("it is too large"));
        }
        if crc32c::crc32c(&chunk.bytes) != chunk.checksum {
            return Err(malformed("the checksum of a part is wrong"));
        }
        let same = |incoming: &Incoming| {
            incoming.snapshot_id == chunk.meta.snapshot_id
                && incoming.total_bytes == chunk.total_bytes
        };
        let mut incoming = match slot.take().filter(same) {
            Some(incoming) => incoming,
            None => Incoming {
                snapshot_id: chunk.meta.snapshot_id.clone(),
                total_bytes: chunk.total_bytes,
                bytes: Vec::new(),
            },
        };
        if chunk.offset == incoming.bytes.len() as u64 {
            if incoming.bytes.len() as u64 + chunk.bytes.len() as u64 > incoming.total_bytes {
                return Err(malformed("it is longer than announced"));
            }
            incoming.bytes.extend_from_slice(&chunk.bytes);
        }
        let offset = incoming.bytes.len() as u64;
        if offset < incoming.total_bytes {
            *slot = Some(incoming);
            return Ok(SnapshotAnswer::Continue { offset });
        }
        // Checked here, because openraft stops for good when installing fails.
        let bytes = SnapshotBytes(incoming.bytes.into());
        bytes.check()?;
        let end = chunk.meta.last_log_id;
        let snapshot = Snapshot {
            meta: chunk.meta,
            snapshot: Box::new(bytes),
        };
        // A task of its own: a sender that gives up drops this call, but the snapshot is with openraft then. The next
        // one is neither announced nor taken before this one has been installed.
        let (raft, snapshots, vote) = (raft.clone(), snapshots.clone(), chunk.vote);
        let installing = tokio::spawn(async move {
            // openraft purges the log as soon as it has passed the snapshot on.
            snapshots.announce(end);
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            snapshots.announce(None);
            drop(slot);
            installed
        });
        let stopped = |reason: String| MetadataError::Stopped { reason };
        let installed = installing
            .await
            .map_err(|error| stopped(error.to_string()))?;
        let installed = installed.map_err(|error| stopped(error.to_string()))?;
        Ok(SnapshotAnswer::Installed {
            vote: installed.vote,
        })
    }
}

fn malformed(reason: &str) -> MetadataError {
    MetadataError::Encoding {
        what: "snapshot transfer",
        reason: reason.to_owned(),
    }
}
