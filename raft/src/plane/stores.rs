//! Opens the durable parts of the plane in the right order, and checks that they fit together.

use super::PlaneOptions;
use crate::MetadataError;
use crate::engine::LogId;
use crate::log::LogStore;
use crate::machine::{Machine, Materialised, SnapshotFiles, Version};
use std::path::Path;
use std::sync::Arc;
use trefoil_model::NodeId;
use trefoil_store_pages::Disk;

/// The log and the state machine of a node.
pub(crate) struct Stores {
    pub(crate) log: LogStore,
    pub(crate) machine: Machine,
}

/// Directory of the Raft log, under `meta/`.
pub(crate) const LOG_DIRECTORY: &str = "raft-log";
/// Directory of snapshots, under `meta/`.
pub(crate) const SNAPSHOT_DIRECTORY: &str = "snapshots";
/// Directory of sled, under `meta/`.
pub(crate) const ROWS_DIRECTORY: &str = "rows";

/// Opens what is there, or begins it. `may_begin` says whether the node may have no Raft log: one
/// that promised or joined must have the vote that it gave. Blocks.
///
/// # Errors
/// [`MetadataError::Damaged`] when what is there does not prove what the node promised.
pub(crate) fn open(
    disk: &Arc<dyn Disk>,
    options: &PlaneOptions,
    node: NodeId,
    may_begin: bool,
) -> Result<Stores, MetadataError> {
    let log_directory = options.directory.join(LOG_DIRECTORY);
    if !may_begin && !LogStore::exists(&**disk, &log_directory)? {
        return Err(MetadataError::Damaged {
            reason: "the node belongs to a cluster, but its Raft log is gone".to_owned(),
        });
    }
    let log = LogStore::open(
        Arc::clone(disk),
        &log_directory,
        node,
        &options.disk_work,
        options.faults,
    )?;
    let snapshots =
        SnapshotFiles::open(Arc::clone(disk), options.directory.join(SNAPSHOT_DIRECTORY))?;
    let stored = snapshots.newest()?;
    let from_snapshot = stored.map_or_else(Version::default, |stored| Version {
        state: stored.state,
        last: stored.meta.last_log_id,
        membership: stored.meta.last_membership,
    });
    let log = log.behind(snapshots.follow(from_snapshot.last));
    if log.purged() > from_snapshot.last {
        return Err(MetadataError::Damaged {
            reason: format!(
                "the Raft log begins after {:?}, but the newest snapshot ends at {:?}",
                log.purged(),
                from_snapshot.last
            ),
        });
    }
    let (materialised, version) = match options.materialise {
        true => {
            let directory = options.directory.join(ROWS_DIRECTORY);
            match open_rows(&directory, node, from_snapshot.clone(), &log) {
                Ok((rows, version)) => (Some(rows), version),
                // On a full disk, mostly. Nothing is in them that cannot be rebuilt by the next start.
                Err(error) => {
                    tracing::warn!(%error, "go on without the materialised state");
                    (None, from_snapshot)
                }
            }
        }
        false => (None, from_snapshot),
    };
    Ok(Stores {
        machine: Machine::new(version, snapshots, materialised, options.disk_work.clone()),
        log,
    })
}

/// Rows are of use when they are not behind the snapshot, and stand at an entry that the log has.
fn open_rows(
    directory: &Path,
    node: NodeId,
    fallback: Version,
    log: &LogStore,
) -> Result<(Materialised, Version), MetadataError> {
    let snapshot_last = fallback.last;
    let acceptable = |last: Option<LogId>| {
        last == snapshot_last
            || last > snapshot_last && last.is_some_and(|id| log.id_at(id.index) == Some(id))
    };
    Materialised::open(directory, node, fallback, acceptable)
}
