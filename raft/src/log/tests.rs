//! The Raft log under crashes: what was acknowledged is there afterwards, what was not is there as
//! a prefix.

use super::*;
use crate::engine::Batch;
use crate::machine::SnapshotFiles;
use openraft::storage::RaftLogStorageExt;
use openraft::{CommittedLeaderId, EntryPayload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use trefoil_store_pages::{CrashLoss, SimulatedDisk};

const NODE: NodeId = NodeId(7);

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Batch::default()),
    }
}

fn open(disk: &SimulatedDisk) -> Result<LogStore, MetadataError> {
    LogStore::open(
        Arc::new(disk.clone()),
        Path::new("/log"),
        NODE,
        &DiskWork::Threads,
        PlaneFaults::default(),
    )
}

/// What the log should say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<LogId>,
}

impl Model {
    fn of(log: &LogStore) -> Self {
        let memory = log.memory.lock();
        let entries = memory.range(0, u64::MAX, usize::MAX);
        Self {
            vote: memory.vote,
            purged: memory.purged,
            entries: entries.iter().map(|entry| entry.log_id).collect(),
        }
    }

    fn next_index(&self) -> u64 {
        let last = self.entries.last().or(self.purged.as_ref());
        last.map_or(0, |id| id.index + 1)
    }
}

/// One random change, on the log and on the model of what it becomes if it succeeds.
async fn change(log: &mut LogStore, model: &mut Model, dice: &mut StdRng, term: u64) -> bool {
    let result = match dice.random_range(0..6) {
        0 => {
            let vote = Vote::new(term, dice.random_range(1..4));
            model.vote = Some(vote);
            log.save_vote(&vote).await
        }
        1 if !model.entries.is_empty() => {
            let at = dice.random_range(0..model.entries.len());
            let since = model.entries[at];
            model.entries.truncate(at);
            log.truncate(since).await
        }
        2 if !model.entries.is_empty() => {
            let at = dice.random_range(0..model.entries.len());
            let upto = model.entries[at];
            model.purged = Some(upto);
            model.entries.drain(..=at);
            log.purge(upto).await
        }
        _ => {
            let first = model.next_index();
            let count = dice.random_range(1..5);
            let entries: Vec<Entry> = (first..first + count)
                .map(|index| entry(term, index))
                .collect();
            model
                .entries
                .extend(entries.iter().map(|entry| entry.log_id));
            log.blocking_append(entries).await
        }
    };
    result.is_ok()
}

#[test]
fn acknowledged_changes_survive_crashes() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for seed in 0..60 {
        runtime.block_on(crash_schedule(seed));
    }
}

async fn crash_schedule(seed: u64) {
    let disk = SimulatedDisk::new(seed);
    let mut dice = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    let mut log = open(&disk).unwrap();
    for term in 1..8 {
        for _ in 0..dice.random_range(0..12) {
            assert!(
                change(&mut log, &mut model, &mut dice, term).await,
                "seed {seed}"
            );
        }
        assert_eq!(Model::of(&log), model, "seed {seed}");
        let mut with_last = model.clone();
        if dice.random_bool(0.5) {
            disk.fail_sync(1);
            let succeeded = change(&mut log, &mut with_last, &mut dice, term).await;
            assert!(!succeeded, "seed {seed}: a failed sync is no success");
            let again = log.save_vote(&Vote::new(term, 9)).await;
            assert!(again.is_err(), "seed {seed}: a failed log stays failed");
        }
        disk.crash(CrashLoss::Dice);
        log.close();
        log = open(&disk).unwrap();
        let found = Model::of(&log);
        let partly = found.vote == with_last.vote
            && found.purged == with_last.purged
            && found.entries.len() >= model.entries.len()
            && with_last.entries.starts_with(&found.entries);
        assert!(
            found == model || found == with_last || partly,
            "seed {seed}: {found:?}"
        );
        model = found;
    }
}

#[test]
fn a_crash_while_a_generation_begins_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for seed in 0..40 {
        let disk = SimulatedDisk::new(seed);
        let mut log = open(&disk).unwrap();
        let entries: Vec<Entry> = (0..5).map(|index| entry(1, index)).collect();
        runtime.block_on(log.blocking_append(entries)).unwrap();
        let model = Model::of(&log);
        log.close();
        disk.fail_sync(1 + seed % 2);
        drop(open(&disk));
        disk.crash(CrashLoss::Dice);
        assert_eq!(Model::of(&open(&disk).unwrap()), model, "seed {seed}");
    }
}

#[test]
fn purged_entries_cost_no_space() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let disk = SimulatedDisk::new(1);
    let mut log = open(&disk).unwrap();
    let payload = |index| {
        let command = crate::Command::SetLimits {
            tenant: trefoil_model::TenantId(0),
            limits: Some("x".repeat(1 << 20)),
        };
        let proposal = crate::Proposal {
            client: 1,
            serial: index,
            leader_elapsed_ms: 0,
            command,
        };
        Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(Batch {
                proposals: vec![proposal],
            }),
        }
    };
    for index in 0..64 {
        runtime
            .block_on(log.blocking_append([payload(index)]))
            .unwrap();
        runtime.block_on(log.purge(log_id(1, index))).unwrap();
    }
    let bytes: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes < 20 << 20, "{bytes} bytes for an empty log");
    assert_eq!(log.bytes(), 0);
    let mut reopened = {
        log.close();
        open(&disk).unwrap()
    };
    assert_eq!(reopened.purged(), Some(log_id(1, 63)));
    runtime
        .block_on(reopened.blocking_append([entry(1, 64)]))
        .unwrap();
    assert_eq!(reopened.id_at(64), Some(log_id(1, 64)));
}

#[test]
fn messages_are_limited_in_bytes() {
    let mut memory = Memory::default();
    for index in 0..10 {
        memory.apply(Record::Entry(entry(1, index)), 100);
    }
    assert_eq!(memory.range(0, 10, 250).len(), 2);
    assert_eq!(memory.range(3, 10, 1).len(), 1, "never nothing");
    assert_eq!(memory.bytes(), 1000);
}

#[test]
fn another_nodes_log_and_damage_are_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let disk = SimulatedDisk::new(1);
    let mut log = open(&disk).unwrap();
    for index in 0..3 {
        runtime
            .block_on(log.blocking_append([entry(1, index)]))
            .unwrap();
    }
    log.close();
    let other = LogStore::open(
        Arc::new(disk.clone()),
        Path::new("/log"),
        NodeId(8),
        &DiskWork::Threads,
        PlaneFaults::default(),
    );
    assert!(matches!(other, Err(MetadataError::Damaged { .. })));
    let (path, _) = disk.files().pop().unwrap();
    assert!(disk.flip_bit(&path, 2 * 4096 + 50, 3));
    assert!(matches!(open(&disk), Err(MetadataError::Damaged { .. })));
}

#[test]
fn a_full_disk_makes_the_log_wait_and_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let disk = SimulatedDisk::new(3);
    let mut log = open(&disk).unwrap();
    runtime
        .block_on(log.blocking_append([entry(1, 0)]))
        .unwrap();
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(used);
    let (appended, waits) = std::sync::mpsc::channel();
    let appending = std::thread::spawn(move || {
        // A page each: more than was reserved ahead.
        for index in 1..=100 {
            let appended = log.blocking_append([entry(1, index)]);
            runtime.block_on(appended).unwrap();
        }
        appended.send(()).unwrap();
        log.close();
    });
    let early = waits.recv_timeout(std::time::Duration::from_millis(300));
    assert!(early.is_err(), "there is no space for it");
    disk.set_capacity(u64::MAX);
    waits
        .recv_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    appending.join().unwrap();
    disk.crash(CrashLoss::Everything);
    assert_eq!(Model::of(&open(&disk).unwrap()).entries.len(), 101);
}

#[test]
fn a_log_that_ends_does_not_wait_for_space() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let disk = SimulatedDisk::new(4);
    let mut log = open(&disk).unwrap();
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(used);
    let ending = log.clone();
    let (appended, ends) = std::sync::mpsc::channel();
    let appending = std::thread::spawn(move || {
        // A page each: more than was reserved ahead.
        let refused = (1..=100).any(|index| {
            let appended = log.blocking_append([entry(1, index)]);
            runtime.block_on(appended).is_err()
        });
        appended.send(refused).unwrap();
        log.close();
    });
    ending.stop_waiting();
    let refused = ends.recv_timeout(std::time::Duration::from_secs(10));
    assert_eq!(refused, Ok(true), "it waits although nobody makes space");
    appending.join().unwrap();
}

#[tokio::test]
async fn a_log_is_purged_only_behind_a_durable_snapshot() {
    let (mut log, snapshots) = with_snapshots();
    log.blocking_append([entry(1, 0), entry(1, 1)])
        .await
        .unwrap();
    snapshots.announce(Some(log_id(1, 1)));
    let mut purging = log.clone();
    let purge = tokio::spawn(async move { purging.purge(log_id(1, 1)).await });
    // Whatever else is written meanwhile does not carry the purge along.
    log.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert_eq!(log.purged(), None);
    snapshots
        .store(Some(log_id(1, 1)), &Default::default())
        .unwrap();
    purge.await.unwrap().unwrap();
    assert_eq!(log.purged(), Some(log_id(1, 1)));
}

fn with_snapshots() -> (LogStore, SnapshotFiles) {
    let disk = SimulatedDisk::new(1);
    let files: Arc<dyn Disk> = Arc::new(disk.clone());
    let snapshots = SnapshotFiles::open(files, "/snapshots".into()).unwrap();
    let log = open(&disk).unwrap().behind(snapshots.follow(None));
    (log, snapshots)
}

/// A power cut between the two would leave neither.
#[tokio::test]
async fn a_purge_waits_however_long_a_snapshot_takes_and_fails_with_it() {
    let (mut log, snapshots) = with_snapshots();
    log.blocking_append([entry(1, 0), entry(1, 1)])
        .await
        .unwrap();
    snapshots.announce(Some(log_id(1, 1)));
    let mut purging = log.clone();
    let mut purge = tokio::spawn(async move { purging.purge(log_id(1, 1)).await });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut purge).await;
    assert!(early.is_err(), "the snapshot is not durable");
    snapshots.give_up();
    assert!(purge.await.unwrap().is_err());
    assert_eq!(log.purged(), None);
}

#[tokio::test]
async fn a_purge_waits_for_no_snapshot_that_is_not_coming() {
    let (mut log, snapshots) = with_snapshots();
    for index in 0..3 {
        log.blocking_append([entry(1, index)]).await.unwrap();
    }
    log.purge(log_id(1, 0)).await.unwrap();
    // One that was refused in the end.
    snapshots.announce(Some(log_id(1, 1)));
    let mut purging = log.clone();
    let purge = tokio::spawn(async move { purging.purge(log_id(1, 1)).await });
    snapshots.announce(None);
    purge.await.unwrap().unwrap();
    // One that ends elsewhere.
    snapshots.announce(Some(log_id(1, 9)));
    log.purge(log_id(1, 2)).await.unwrap();
    assert_eq!(log.purged(), Some(log_id(1, 2)));
}

#[tokio::test]
async fn an_entry_behind_a_gap_is_refused() {
    let disk = SimulatedDisk::new(1);
    let mut log = open(&disk).unwrap();
    log.blocking_append([entry(1, 0), entry(1, 1)])
        .await
        .unwrap();
    let before = Model::of(&log);
    // What a leader sends that knows of entry 2, which an older copy of the directory lacks.
    let refused = log.blocking_append([entry(1, 3)]).await.unwrap_err();
    assert!(refused.to_string().contains("entry 2 is missing"));
    assert_eq!(Model::of(&log), before);
    log.blocking_append([entry(1, 2), entry(1, 3)])
        .await
        .unwrap();
    log.blocking_append([entry(2, 3)]).await.unwrap();
    assert_eq!(Model::of(&log).next_index(), 4);
}
