//! openraft's own suite on log and state machine, and the fence around sled.

use super::*;
use crate::engine::storage_error;
use crate::log::LogStore;
use crate::plane::{PlaneOptions, stores};
use crate::state::{Command, Proposal};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, ErrorSubject};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use trefoil_model::NodeId;
use trefoil_store_pages::{Disk, RealDisk, SimulatedDisk};

const NODE: NodeId = NodeId(7);

fn open(disk: Arc<dyn Disk>, directory: &Path, materialise: bool) -> stores::Stores {
    let options = PlaneOptions {
        materialise,
        ..PlaneOptions::new(directory)
    };
    stores::open(&disk, &options, NODE, true).unwrap()
}

struct OnRealDisk;

impl StoreBuilder<Types, LogStore, Machine, tempfile::TempDir> for OnRealDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let directory = tempfile::tempdir().map_err(|source| {
            let error = MetadataError::disk("make test directory", source);
            storage_error(ErrorSubject::Store, ErrorVerb::Write, &error)
        })?;
        let stores = open(Arc::new(RealDisk), directory.path(), true);
        Ok((directory, stores.log, stores.machine))
    }
}

#[derive(Default)]
struct OnSimulatedDisk(AtomicU64);

impl StoreBuilder<Types, LogStore, Machine, ()> for OnSimulatedDisk {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError> {
        let seed = self.0.fetch_add(1, Ordering::Relaxed);
        let disk = Arc::new(SimulatedDisk::new(seed));
        let stores = open(disk, Path::new("/meta"), false);
        Ok(((), stores.log, stores.machine))
    }
}

#[test]
fn openrafts_suite_passes_on_a_real_disk() {
    Suite::test_all(OnRealDisk).unwrap();
}

#[test]
fn openrafts_suite_passes_on_a_simulated_disk() {
    Suite::test_all(OnSimulatedDisk::default()).unwrap();
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, NODE.0), index)
}

fn tenant(index: u64) -> Entry {
    let proposal = Proposal {
        client: 1,
        serial: index + 1,
        leader_elapsed_ms: index,
        command: Command::CreateTenant {
            name: format!("tenant-{index}"),
        },
    };
    Entry {
        log_id: log_id(index),
        payload: EntryPayload::Normal(Batch {
            proposals: vec![proposal],
        }),
    }
}

/// Appends entries to the log and applies them.
async fn advance(stores: &mut stores::Stores, indexes: std::ops::Range<u64>) {
    use openraft::storage::RaftLogStorageExt;
    let entries: Vec<Entry> = indexes.map(tenant).collect();
    stores.log.blocking_append(entries.clone()).await.unwrap();
    stores.machine.apply(entries).await.unwrap();
}

fn close(stores: stores::Stores) {
    stores.log.close();
    stores.machine.close();
}

#[tokio::test]
async fn rows_bring_the_state_back_without_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut stores = open(Arc::new(RealDisk), directory.path(), true);
    advance(&mut stores, 0..50).await;
    let before = stores.machine.version.lock().state.clone();
    stores
        .machine
        .materialised()
        .unwrap()
        .keep_note("cursor", b"5")
        .unwrap();
    close(stores);
    let reopened = open(Arc::new(RealDisk), directory.path(), true);
    assert_eq!(reopened.machine.version.lock().state, before);
    let note = reopened.machine.materialised().unwrap().note("cursor");
    assert_eq!(note.as_deref(), Some(&b"5"[..]));
}

#[tokio::test]
async fn closed_rows_can_be_opened_again_at_once() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..30 {
        let mut stores = open(Arc::new(RealDisk), directory.path(), true);
        let first = stores.machine.version().last.map_or(0, |id| id.index + 1);
        assert_eq!(first, round * 20, "the rows were rebuilt from nothing");
        advance(&mut stores, first..first + 20).await;
        // A handle that somebody keeps does not hold the directory.
        let kept = stores.machine.clone();
        close(stores);
        assert_eq!(kept.materialised().unwrap().note("cursor"), None);
    }
    let rows = directory.path().join(stores::ROWS_DIRECTORY);
    assert!(!rows.with_extension("damaged").exists());
}

#[tokio::test]
async fn damaged_or_missing_rows_are_moved_aside_and_rebuilt() {
    for damage in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let mut stores = open(Arc::new(RealDisk), directory.path(), true);
        advance(&mut stores, 0..50).await;
        stores.machine.build_snapshot().await.unwrap();
        let before = stores.machine.version.lock().state.clone();
        close(stores);
        let rows = directory.path().join(stores::ROWS_DIRECTORY);
        match damage {
            0 => {
                let bytes = std::fs::read(rows.join("db")).unwrap();
                let damaged: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x55).collect();
                std::fs::write(rows.join("db"), damaged).unwrap();
            }
            1 => std::fs::write(rows.join("conf"), b"nonsense").unwrap(),
            _ => std::fs::remove_file(rows.join("db")).unwrap(),
        }
        let reopened = open(Arc::new(RealDisk), directory.path(), true);
        assert_eq!(
            reopened.machine.version.lock().state,
            before,
            "damage {damage}"
        );
        // sled replaces a damaged configuration by itself; the sentinel then tells whether the rows
        // are there.
        if damage != 1 {
            assert!(rows.with_extension("damaged").exists(), "damage {damage}");
        }
    }
}

#[tokio::test]
async fn rows_behind_the_snapshot_or_beyond_the_log_are_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let mut stores = open(Arc::new(RealDisk), directory.path(), true);
    advance(&mut stores, 0..10).await;
    close(stores);
    let mut without = open(Arc::new(RealDisk), directory.path(), false);
    without
        .machine
        .apply((0..10).map(tenant).collect::<Vec<_>>())
        .await
        .unwrap();
    advance(&mut without, 10..20).await;
    without.machine.build_snapshot().await.unwrap();
    close(without);
    let newer = open(Arc::new(RealDisk), directory.path(), true);
    assert_eq!(
        newer.machine.version.lock().last,
        Some(log_id(19)),
        "the snapshot is newer"
    );
    close(newer);
    std::fs::remove_dir_all(directory.path().join(stores::LOG_DIRECTORY)).unwrap();
    let mut again = open(Arc::new(RealDisk), directory.path(), true);
    again.machine.apply([tenant(20)]).await.unwrap();
    close(again);
    let beyond = open(Arc::new(RealDisk), directory.path(), true);
    assert_eq!(
        beyond.machine.version.lock().last,
        Some(log_id(19)),
        "the log has no entry 20"
    );
}

/// How long something is watched that should not happen.
const A_WHILE: Duration = Duration::from_millis(300);
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn unfinished(disk: &SimulatedDisk) -> Vec<std::path::PathBuf> {
    let names = disk.files().into_iter().map(|(path, _)| path);
    let unfinished = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|end| end == "unfinished") || path.ends_with("next")
    };
    names.filter(unfinished).collect()
}

fn used(disk: &SimulatedDisk) -> u64 {
    disk.files().iter().map(|(_, bytes)| bytes).sum()
}

#[tokio::test]
async fn a_snapshot_waits_for_space_and_leaves_nothing_behind_meanwhile() {
    let disk = SimulatedDisk::new(1);
    let mut stores = open(Arc::new(disk.clone()), Path::new("/meta"), false);
    advance(&mut stores, 0..200).await;
    disk.set_capacity(used(&disk) + 100);
    let mut machine = stores.machine.clone();
    let mut building = tokio::spawn(async move { machine.build_snapshot().await });
    let early = tokio::time::timeout(A_WHILE, &mut building).await;
    assert!(early.is_err(), "there is no space for it");
    assert_eq!(unfinished(&disk), [] as [&Path; 0]);
    disk.set_capacity(u64::MAX);
    let built = tokio::time::timeout(PATIENCE, building).await;
    built.expect("it goes on").unwrap().unwrap();
    // Another that is installed, and then nobody waits any more.
    let newest = stores.machine.get_current_snapshot().await.unwrap();
    let newest = newest.unwrap();
    disk.set_capacity(used(&disk) + 100);
    let mut machine = stores.machine.clone();
    let later = SnapshotMeta {
        last_log_id: Some(log_id(300)),
        ..newest.meta
    };
    let mut installing =
        tokio::spawn(async move { machine.install_snapshot(&later, newest.snapshot).await });
    let early = tokio::time::timeout(A_WHILE, &mut installing).await;
    assert!(early.is_err(), "there is no space for it");
    stores.machine.stop_waiting();
    let installed = tokio::time::timeout(PATIENCE, installing).await;
    assert!(installed.expect("it ends").unwrap().is_err());
    assert_eq!(unfinished(&disk), [] as [&Path; 0]);
}

#[tokio::test]
async fn a_start_on_a_full_disk_is_refused_and_succeeds_when_there_is_space() {
    let disk = SimulatedDisk::new(1);
    let mut stores = open(Arc::new(disk.clone()), Path::new("/meta"), false);
    advance(&mut stores, 0..200).await;
    close(stores);
    disk.set_capacity(used(&disk) + 4096);
    let files: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = PlaneOptions {
        materialise: false,
        ..PlaneOptions::new("/meta")
    };
    for _ in 0..2 {
        let refused = stores::open(&files, &options, NODE, false);
        let error = refused.err().expect("there is no space for a copy");
        assert!(trefoil_store_pages::is_full_disk(&error), "{error}");
        assert_eq!(unfinished(&disk), [] as [&Path; 0]);
    }
    disk.set_capacity(u64::MAX);
    let reopened = open(Arc::new(disk), Path::new("/meta"), false);
    assert_eq!(reopened.log.last(), Some(log_id(199)));
}

#[test]
fn what_a_crash_left_unfinished_is_removed_at_the_next_start() {
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(1));
    let directory = Path::new("/snapshots");
    disk.create_dir_all(directory).unwrap();
    let path = directory.join("0000000000000001-0000000000000002.unfinished");
    disk.create(&path).unwrap();
    SnapshotFiles::open(Arc::clone(&disk), directory.to_owned()).unwrap();
    assert!(disk.list(directory).unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_snapshot_is_reported() {
    let disk = SimulatedDisk::new(1);
    let mut stores = open(Arc::new(disk.clone()), Path::new("/meta"), false);
    advance(&mut stores, 0..10).await;
    stores.machine.build_snapshot().await.unwrap();
    close(stores);
    let snapshots = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/meta/snapshots"));
    for (path, bytes) in snapshots {
        assert!(disk.flip_bit(&path, bytes / 2, 1));
    }
    let options = PlaneOptions {
        materialise: false,
        ..PlaneOptions::new("/meta")
    };
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let opened = stores::open(&disk, &options, NODE, true);
    assert!(matches!(opened, Err(MetadataError::Damaged { .. })));
}

#[test]
fn snapshots_are_whole_or_refused() {
    let mut version = Version::default();
    for index in 0..20 {
        version.apply(tenant(index));
    }
    let bytes = snapshot::encode(&version.state, &version.meta()).unwrap();
    let (meta, state) = snapshot::decode(&bytes.0).unwrap();
    assert_eq!(state, version.state);
    assert_eq!(meta, version.meta());
    for cut in 0..bytes.0.len() {
        assert!(snapshot::decode(&bytes.0[..cut]).is_err(), "cut at {cut}");
    }
}
