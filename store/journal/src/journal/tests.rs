//! Group commit, restarts, trimming, damage, full disks, failing disks, and crash loops under seeds.

mod known_end;
mod panics;

use super::*;
use crate::{DamagedRange, DurableEvent};
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trefoil_store_pages::{CrashLoss, RealDisk, SimulatedDisk};

fn dir() -> &'static Path {
    Path::new("node/journal")
}

fn options() -> JournalOptions {
    JournalOptions {
        lineage_if_new: LineageId(7),
        segment_bytes: 64 << 10,
        pending_bytes_max: 128 << 10,
        cache_bytes_max: 40 << 10,
        mode: CommitMode::Manual,
        ..JournalOptions::default()
    }
}

type Events = Arc<Mutex<Vec<DurableEvent>>>;

fn try_open(
    disk: &SimulatedDisk,
    options: JournalOptions,
) -> Result<(Journal, Recovery, Events), JournalError> {
    let events = Events::default();
    let sink = events.clone();
    let on_durable: OnDurable = Arc::new(move |event| sink.lock().push(event));
    let (journal, recovery) = Journal::open(Arc::new(disk.clone()), dir(), options, on_durable)?;
    Ok((journal, recovery, events))
}

fn open(disk: &SimulatedDisk) -> (Journal, Recovery) {
    let (journal, recovery, _) = try_open(disk, options()).unwrap();
    (journal, recovery)
}

/// Appends a record of this size, filled with a byte that follows from `tag`, and commits it.
fn put(journal: &Journal, tag: u64, size: usize) -> (AppendedRecord, Vec<u8>) {
    let bytes = vec![tag as u8; size];
    let record = journal.append(&[&bytes]).unwrap();
    assert!(journal.commit_now().unwrap());
    (record, bytes)
}

fn read_all(journal: &Journal, from: u64, bytes_max: usize) -> Vec<(u64, Vec<u8>)> {
    let mut at = from;
    let mut all = vec![];
    loop {
        let records = journal.read(at, bytes_max).unwrap();
        let Some(last) = records.last() else {
            return all;
        };
        assert_eq!(records[0].start, at);
        at = last.end;
        all.extend(
            records
                .into_iter()
                .map(|record| (record.start, record.bytes)),
        );
    }
}

fn file_names(disk: &SimulatedDisk) -> Vec<String> {
    let files = disk.files().into_iter();
    files
        .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn segment_path(base: u64) -> PathBuf {
    dir().join(format!("{base:016x}.segment"))
}

/// Pins what docs/formats/journal.md draws: the names and the first bytes of a segment.
#[test]
fn golden_directory() {
    let disk = SimulatedDisk::new(1);
    several_segments(&disk);
    let names = file_names(&disk).join("\n");
    assert_eq!(names, include_str!("../golden/names.txt").trim());
    let file = disk.open(&segment_path(0)).unwrap();
    let mut bytes = [0; 80];
    file.read_at(&mut bytes, 0).unwrap();
    let hexadecimal: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hexadecimal, include_str!("../golden/segment.hex").trim());
}

#[test]
fn durable_records_are_read_back_and_pending_ones_are_not() {
    let disk = SimulatedDisk::new(1);
    let (journal, recovery, events) = try_open(&disk, options()).unwrap();
    assert!(recovery.fresh);
    assert!(!journal.commit_now().unwrap());
    let first = journal.append(&[b"he", b"", b"llo"]).unwrap();
    let second = journal.append(&[b""]).unwrap();
    assert_eq!((first.start, first.end, second.start), (0, 9, 9));
    assert_eq!(journal.durable_end(), 0);
    assert!(journal.read(0, 100).unwrap().is_empty());
    let beyond = journal.read(9, 100);
    assert!(matches!(
        beyond,
        Err(JournalError::BeyondEnd { end: 0, .. })
    ));
    assert!(journal.commit_now().unwrap());
    assert_eq!(*events.lock(), [DurableEvent::Advanced { end: 13 }]);
    let records = read_all(&journal, 0, 1);
    assert_eq!(records, [(0, b"hello".to_vec()), (9, vec![])]);
    assert!(matches!(
        journal.read(3, 10),
        Err(JournalError::Unreadable { offset: 3 })
    ));
    drop(journal);
    disk.crash(CrashLoss::Everything);

    let (journal, recovery) = open(&disk);
    let expected = Recovery {
        lineage: LineageId(7),
        end: 13,
        ..Recovery::default()
    };
    assert_eq!(recovery, expected);
    assert_eq!(read_all(&journal, 0, 100), records);
    assert!(matches!(
        journal.read(3, 10),
        Err(JournalError::Unreadable { offset: 3 })
    ));
    assert_eq!(journal.append(&[b"x"]).unwrap().start, 13);
}

#[test]
fn segments_fill_are_trimmed_and_used_again() {
    let disk = SimulatedDisk::new(1);
    let (mut journal, _) = open(&disk);
    let mut written = vec![];
    for round in 0..300 {
        let (record, bytes) = put(&journal, round, 3000);
        written.push((record.start, bytes));
        if round % 50 == 17 {
            // Everything is read across segments, from files and from memory.
            let floor = journal.floor();
            written.retain(|(start, _)| *start >= floor);
            assert_eq!(read_all(&journal, floor, 10_000), written);
            journal.trim(record.start.saturating_sub(60_000)).unwrap();
            assert!(journal.floor() > floor || round == 17);
            let below = journal.read(0, 1);
            assert_eq!(below.is_err(), journal.floor() > 0);
        }
        if round == 150 {
            drop(journal);
            journal = open(&disk).0;
        }
    }
    let files = file_names(&disk);
    assert!(files.len() <= 9, "old segments are gone: {files:?}");
    let on_disk: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(journal.bytes_on_disk(), on_disk);
    let statistics = journal.statistics();
    assert!(statistics.cache_bytes <= 40 << 10);
    assert!(statistics.segments_begun > 5);
    assert!(statistics.cache_hits > 0 && statistics.cache_misses > 0);
}

#[test]
fn limits_refuse_and_change_nothing() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    let too_large = journal.append(&[&vec![0; (128 << 10) + 1]]);
    assert!(matches!(
        too_large,
        Err(JournalError::RecordTooLarge { .. })
    ));
    // Larger than a segment, yet allowed: it gets a file of its own size.
    let (large, bytes) = put(&journal, 3, 128 << 10);
    assert_eq!(journal.read(large.start, 0).unwrap()[0].bytes, bytes);
    while journal.append(&[&[1; 1000]]).is_ok() {}
    let full = journal.append(&[&[1; 1000]]);
    assert!(matches!(full, Err(JournalError::Full { .. })));
    assert_eq!(journal.statistics().refused_full, 2);
    journal.commit_now().unwrap();
    let next = journal.append(&[&[1; 1000]]).unwrap();
    assert_eq!(next.start, journal.durable_end());
    drop(journal);
    let (journal, _) = open(&disk);
    assert_eq!(journal.read(large.start, 0).unwrap()[0].bytes, bytes);
}

#[test]
fn a_failed_sync_ends_the_journal_once_and_for_all() {
    let disk = SimulatedDisk::new(1);
    let (journal, _, events) = try_open(&disk, options()).unwrap();
    put(&journal, 1, 10);
    disk.fail_sync(1);
    journal.append(&[b"lost"]).unwrap();
    assert!(journal.commit_now().is_err());
    assert!(matches!(journal.commit_now(), Err(JournalError::Ended)));
    assert!(matches!(journal.append(&[b"x"]), Err(JournalError::Ended)));
    let events = events.lock().clone();
    assert_eq!(events[0], DurableEvent::Advanced { end: 14 });
    assert!(matches!(events[1..], [DurableEvent::Ended { .. }]));
    assert_eq!(journal.durable_end(), 14);
    assert_eq!(journal.read(0, 10).unwrap().len(), 1, "reading goes on");
}

/// Fills the disk until the journal stalls; the start of the first record that waits.
fn stall(disk: &SimulatedDisk, journal: &Journal) -> u64 {
    while journal.statistics().segments_begun < 2 {
        put(journal, 1, 5000);
    }
    disk.set_capacity(disk.files().iter().map(|(_, bytes)| bytes).sum());
    let stalled = (0..100).find_map(|_| {
        let start = journal.append(&[&[1; 5000]]).unwrap().start;
        journal.commit_now().is_err().then_some(start)
    });
    assert!(journal.stalled_by().is_some());
    stalled.unwrap()
}

#[test]
fn a_full_disk_stalls_the_journal_until_there_is_space() {
    let disk = SimulatedDisk::new(1);
    let (journal, _, events) = try_open(&disk, options()).unwrap();
    let last = stall(&disk, &journal);
    // What comes now waits behind what could not be written, within the same bound.
    let waiting = journal.append(&[b"x"]).unwrap();
    while journal.append(&[&[2; 5000]]).is_ok() {}
    assert!(matches!(
        journal.append(&[&[2; 5000]]),
        Err(JournalError::Full { .. })
    ));
    assert!(matches!(journal.commit_now(), Err(JournalError::NoSpace)));
    let stalls = |events: &Events| {
        let events = events.lock();
        events
            .iter()
            .filter(|event| matches!(event, DurableEvent::Stalled { .. }))
            .count()
    };
    assert_eq!(stalls(&events), 1);
    assert_eq!(journal.durable_end(), last);
    // Trimming makes the room that the stalled group was waiting for.
    journal.trim(last).unwrap();
    assert!(journal.commit_now().unwrap());
    assert_eq!(journal.read(last, 1).unwrap()[0].bytes, [1; 5000]);
    assert_eq!(journal.stalled_by(), None);
    disk.set_capacity(u64::MAX);
    assert!(journal.commit_now().unwrap());
    assert_eq!(journal.read(waiting.start, 1).unwrap()[0].bytes, b"x");
    assert!(journal.durable_end() > waiting.end);
}

#[test]
fn a_stalled_journal_can_be_opened_again() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    let last = stall(&disk, &journal);
    for _ in 0..3 {
        disk.crash(CrashLoss::Everything);
        let (journal, recovery) = open(&disk);
        assert_eq!((recovery.end, &recovery.damage), (last, &vec![]));
        assert_eq!(journal.read(0, 1).unwrap()[0].bytes, [1; 5000]);
    }
}

#[test]
fn asking_for_sizes_never_waits_for_the_disk() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    put(&journal, 1, 100);
    let (told, answered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // As a commit does while its fsync takes long.
        let _files = journal.shared.files.lock();
        scope.spawn(|| {
            let records = journal.statistics().records;
            told.send((records, journal.bytes_on_disk())).unwrap();
        });
        let (records, bytes) = answered.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(records, 1);
        assert_eq!(bytes, disk.files().iter().map(|(_, length)| length).sum());
    });
}

#[test]
fn a_restart_on_a_full_disk_has_room_for_its_copy() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    let (record, bytes) = put(&journal, 1, 100);
    drop(journal);
    disk.set_capacity(0);
    for _ in 0..3 {
        let (journal, _) = open(&disk);
        assert_eq!(journal.read(0, 1).unwrap()[0].bytes, bytes);
        assert_eq!(journal.durable_end(), record.end);
        disk.set_capacity(disk.files().iter().map(|(_, bytes)| bytes).sum::<u64>() + (64 << 10));
    }
}

/// A journal of several segments: the records, and the bases of the segments.
fn several_segments(disk: &SimulatedDisk) -> (Vec<(u64, Vec<u8>)>, Vec<u64>) {
    let (journal, _) = open(disk);
    let written = (0..60).map(|tag| {
        let (record, bytes) = put(&journal, tag, 3000);
        (record.start, bytes)
    });
    let written = written.collect();
    let names = file_names(disk).into_iter();
    let bases =
        names.filter_map(|name| u64::from_str_radix(name.strip_suffix(".segment")?, 16).ok());
    (written, bases.collect())
}

fn check_damage(disk: &SimulatedDisk, written: &[(u64, Vec<u8>)], lost: DamagedRange) {
    for _start in 0..2 {
        let (journal, recovery) = open(disk);
        assert_eq!(recovery.damage, [lost], "reported at every start");
        for (start, bytes) in written {
            let found = journal.read(*start, 1);
            if (lost.start..lost.end).contains(start) {
                assert!(matches!(found, Err(JournalError::Unreadable { .. })));
            } else {
                assert_eq!(found.unwrap()[0].bytes, *bytes);
            }
        }
        assert!(recovery.end >= lost.end);
        let behind = written.iter().map(|w| w.0).find(|start| *start >= lost.end);
        let behind = behind.unwrap_or(recovery.end);
        assert_eq!(journal.next_readable(lost.start).unwrap(), behind);
    }
}

#[test]
fn damage_in_a_sealed_segment_is_reported() {
    let disk = SimulatedDisk::new(1);
    let (written, bases) = several_segments(&disk);
    assert!(bases.len() >= 3);
    // The first group of the second segment.
    disk.flip_bit(&segment_path(bases[1]), 4096 + 100, 0);
    let lost = DamagedRange {
        start: bases[1],
        end: bases[1] + 3004,
    };
    check_damage(&disk, &written, lost);
    let skipping = JournalOptions {
        verify_from: bases[2],
        ..options()
    };
    let (_, recovery, _) = try_open(&disk, skipping).unwrap();
    assert_eq!(
        recovery.damage,
        [],
        "below the flushed position nothing is verified"
    );
}

#[test]
fn damage_in_the_last_group_of_a_sealed_segment_is_reported() {
    let disk = SimulatedDisk::new(1);
    let (written, bases) = several_segments(&disk);
    let groups = (bases[1] - bases[0]) / 3004;
    disk.flip_bit(&segment_path(0), groups * 4096 + 100, 0);
    let lost = DamagedRange {
        start: bases[1] - 3004,
        end: bases[1],
    };
    check_damage(&disk, &written, lost);
}

#[test]
fn an_unreadable_segment_is_reported() {
    for index in [0, 1] {
        let disk = SimulatedDisk::new(1);
        let (written, bases) = several_segments(&disk);
        disk.make_unreadable(&segment_path(bases[index]), 0);
        let lost = DamagedRange {
            start: bases[index],
            end: bases[index + 1],
        };
        check_damage(&disk, &written, lost);
    }
}

#[test]
fn offsets_go_on_behind_an_unreadable_last_segment() {
    let disk = SimulatedDisk::new(1);
    let (written, bases) = several_segments(&disk);
    let last = *bases.last().unwrap();
    disk.flip_bit(&segment_path(last), 45, 0);
    let lost = DamagedRange {
        start: last,
        end: last + (64 << 10),
    };
    check_damage(&disk, &written, lost);
    let (journal, _) = open(&disk);
    let (record, bytes) = put(&journal, 9, 10);
    assert_eq!(record.start, lost.end);
    journal.trim(lost.end).unwrap();
    drop(journal);
    let (journal, recovery) = open(&disk);
    assert_eq!((recovery.floor, recovery.damage), (lost.end, vec![]));
    assert_eq!(journal.read(record.start, 1).unwrap()[0].bytes, bytes);
}

#[test]
fn damage_in_the_last_segment_is_reported_and_survives_the_copy() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    let written: Vec<_> = (0..4).map(|tag| put(&journal, tag, 100)).collect();
    let written: Vec<_> = written
        .into_iter()
        .map(|(r, bytes)| (r.start, bytes))
        .collect();
    drop(journal);
    disk.flip_bit(&segment_path(0), 2 * 4096 + 100, 0);
    let lost = DamagedRange {
        start: 104,
        end: 208,
    };
    check_damage(&disk, &written, lost);
}

#[test]
fn after_a_close_damage_of_the_last_group_is_noticed() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    put(&journal, 1, 100);
    journal.append(&[b"pending"]).unwrap();
    journal.close().unwrap();
    assert!(matches!(journal.append(&[b"x"]), Err(JournalError::Ended)));
    assert_eq!(journal.durable_end(), 115, "what was pending is committed");
    drop(journal);
    disk.flip_bit(&segment_path(0), 2 * 4096 + 45, 0);
    let (_, recovery) = open(&disk);
    let lost = DamagedRange {
        start: 104,
        end: 115,
    };
    assert_eq!(recovery.damage, [lost]);
}

#[test]
fn a_new_lineage_is_durable_and_offsets_go_on() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    journal.begin_lineage(LineageId(8)).unwrap();
    let (record, bytes) = put(&journal, 1, 100);
    journal.append(&[b"pending"]).unwrap();
    journal.begin_lineage(LineageId(9)).unwrap();
    drop(journal);
    disk.crash(CrashLoss::Everything);
    let (journal, recovery) = open(&disk);
    assert_eq!(recovery.lineage, LineageId(9));
    assert_eq!(recovery.end, record.end + 11);
    assert_eq!(journal.read(0, 1).unwrap()[0].bytes, bytes);
    assert_eq!(journal.append(&[b"x"]).unwrap().start, recovery.end);
}

#[test]
fn the_thread_commits_in_groups_and_reports_in_order() {
    let root = tempfile::tempdir().unwrap();
    let state = Arc::new((Mutex::new(0u64), Condvar::new()));
    let sink = state.clone();
    let on_durable: OnDurable = Arc::new(move |event| {
        if let DurableEvent::Advanced { end } = event {
            let mut durable = sink.0.lock();
            assert!(*durable < end);
            *durable = end;
            sink.1.notify_all();
        }
    });
    let options = JournalOptions {
        mode: CommitMode::Thread,
        segment_bytes: 1 << 20,
        ..options()
    };
    let path = root.path().join("journal");
    let opened = Journal::open(
        Arc::new(RealDisk),
        &path,
        options.clone(),
        on_durable.clone(),
    );
    let (journal, _) = opened.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let (journal, state) = (&journal, &state);
            scope.spawn(move || {
                for _ in 0..100 {
                    let record = journal.append(&[&[writer; 777]]).unwrap();
                    let mut durable = state.0.lock();
                    while *durable < record.end {
                        assert!(Instant::now() < deadline, "durable in time");
                        state.1.wait_for(&mut durable, Duration::from_secs(1));
                    }
                    drop(durable);
                    assert_eq!(
                        journal.read(record.start, 1).unwrap()[0].bytes,
                        [writer; 777]
                    );
                }
            });
        }
    });
    let statistics = journal.statistics();
    assert_eq!(statistics.records, 400);
    assert!(statistics.groups <= 400);
    journal.close().unwrap();
    drop(journal);
    *state.0.lock() = 0;
    let (journal, recovery) =
        Journal::open(Arc::new(RealDisk), &path, options, on_durable).unwrap();
    assert_eq!((recovery.end, recovery.damage), (400 * 781, vec![]));
    assert_eq!(read_all(&journal, 0, 100_000).len(), 400);
}

#[test]
fn the_receiver_of_events_may_hold_the_last_handle() {
    let disk = SimulatedDisk::new(1);
    let (kept, told) = std::sync::mpsc::channel();
    let handle = Arc::new(Mutex::new(None::<Journal>));
    let last = handle.clone();
    let on_durable: OnDurable = Arc::new(move |_| {
        drop(last.lock().take());
        kept.send(()).unwrap();
    });
    let options = JournalOptions {
        mode: CommitMode::Thread,
        ..options()
    };
    let mut held = handle.lock();
    let (journal, _) = Journal::open(Arc::new(disk), dir(), options, on_durable).unwrap();
    journal.append(&[b"x"]).unwrap();
    *held = Some(journal);
    drop(held);
    told.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn the_receiver_of_events_may_call_the_journal() {
    let disk = SimulatedDisk::new(1);
    let journal = Arc::new(Mutex::new(None::<Arc<Journal>>));
    let (inside, ends) = (journal.clone(), Events::default());
    let sink = ends.clone();
    let on_durable: OnDurable = Arc::new(move |event| {
        let DurableEvent::Advanced { end } = event else {
            return;
        };
        sink.lock().push(DurableEvent::Advanced { end });
        let journal = inside.lock().clone().unwrap();
        assert_eq!(journal.statistics().records, sink.lock().len() as u64);
        journal.trim(end).unwrap();
        if end < 30 {
            journal.append(&[b"again"]).unwrap();
            assert!(journal.commit_now().unwrap());
        }
    });
    let opened = Journal::open(Arc::new(disk), dir(), options(), on_durable);
    let opened = Arc::new(opened.unwrap().0);
    *journal.lock() = Some(opened.clone());
    put(&opened, 1, 5);
    let expected = [9, 18, 27, 36].map(|end| DurableEvent::Advanced { end });
    assert_eq!(*ends.lock(), expected);
    *journal.lock() = None;
}

#[test]
fn the_thread_ends_with_the_journal() {
    let disk = SimulatedDisk::new(1);
    let options = JournalOptions {
        mode: CommitMode::Thread,
        ..options()
    };
    let (journal, _, events) = try_open(&disk, options).unwrap();
    disk.fail_sync(1);
    journal.append(&[b"x"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while events.lock().is_empty() {
        assert!(Instant::now() < deadline, "the failure is reported in time");
        std::thread::yield_now();
    }
    assert!(matches!(events.lock()[..], [DurableEvent::Ended { .. }]));
    assert!(matches!(journal.append(&[b"x"]), Err(JournalError::Ended)));
}

#[test]
fn random_files_are_damage_and_never_panic() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new(seed);
        let (_, bases) = several_segments(&disk);
        for _ in 0..1 + random.below(3) {
            // A run of random bytes over a segment, or a file of nothing else.
            let base = bases[random.below(bases.len() as u64) as usize];
            let path = match random.below(4) {
                0 => segment_path(random.below(300_000)),
                1 => dir().join(format!("{:016x}.spare", random.below(9))),
                _ => segment_path(base),
            };
            let file = disk.open(&path).or_else(|_| disk.create(&path)).unwrap();
            let bytes: Vec<u8> = (0..random.below(9000))
                .map(|_| random.below(256) as u8)
                .collect();
            file.write_at(&bytes, random.below(60_000)).unwrap();
        }
        if let Ok((journal, recovery, _)) = try_open(&disk, options()) {
            let (record, bytes) = put(&journal, 1, 100);
            assert!(record.start >= recovery.end, "seed {seed}");
            assert_eq!(
                journal.read(record.start, 1).unwrap()[0].bytes,
                bytes,
                "seed {seed}"
            );
        }
    }
}

/// A segment was retired, but its spare name never became durable. If the next start used the file at
/// once and failed, a power cut would bring the old name back over a foreign header.
#[test]
fn a_spare_is_not_used_before_its_name_is_durable() {
    let disk = SimulatedDisk::new(1);
    let (written, bases) = several_segments(&disk);
    // A restart without room for another spare uses the last one.
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(used - 1);
    let (journal, _) = open(&disk);
    disk.set_capacity(u64::MAX);
    let names = file_names(&disk);
    assert!(!names.iter().any(|name| name.ends_with(".spare")));
    disk.fail_sync_dir(1);
    assert!(journal.trim(bases[1]).is_err());
    drop(journal);
    disk.crash(CrashLoss::Nothing);
    disk.fail_sync(2);
    assert!(
        try_open(&disk, options()).is_err(),
        "the copy fails behind the header"
    );
    disk.crash(CrashLoss::Everything);
    let (journal, recovery) = open(&disk);
    assert_eq!(recovery.damage, []);
    let from = journal.floor();
    assert_eq!(
        read_all(&journal, from, 1),
        written[written.iter().position(|w| w.0 == from).unwrap()..]
    );
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a journal must hold after a crash.
#[derive(Default)]
struct Expected {
    durable: Vec<(u64, Vec<u8>)>,
    in_doubt: Vec<(u64, Vec<u8>)>,
    lineages: Vec<LineageId>,
}

impl Expected {
    /// Works with the journal until something fails or the dice say that the power goes.
    fn work(&mut self, random: &mut Random, journal: &Journal) {
        for _ in 0..random.below(30) {
            match random.below(12) {
                0 if !self.durable.is_empty() => {
                    let at = random.below(self.durable.len() as u64) as usize;
                    if journal.trim(self.durable[at].0).is_err() {
                        return;
                    }
                }
                1 => {
                    let lineage = LineageId(u128::from(random.below(1000)));
                    self.lineages.push(lineage);
                    if journal.begin_lineage(lineage).is_err() {
                        return;
                    }
                    self.durable.append(&mut self.in_doubt);
                    self.lineages = vec![lineage];
                }
                2..=5 => {
                    if journal.commit_now().is_err() {
                        return;
                    }
                    self.durable.append(&mut self.in_doubt);
                }
                _ => {
                    let size = [10, 300, 5000, 20_000][random.below(4) as usize];
                    let bytes = vec![random.below(256) as u8; random.below(size) as usize];
                    match journal.append(&[&bytes]) {
                        Ok(record) => self.in_doubt.push((record.start, bytes)),
                        Err(JournalError::Full { .. }) => {}
                        Err(_) => return,
                    }
                }
            }
        }
    }

    /// Compares with what was found; from now on exactly that is durable.
    fn check(&mut self, seed: u64, journal: &Journal, recovery: &Recovery) {
        assert_eq!(recovery.damage, [], "seed {seed}");
        let found = read_all(journal, recovery.floor, 30_000);
        let kept = self
            .durable
            .iter()
            .position(|(start, _)| *start >= recovery.floor);
        let kept = &self.durable[kept.unwrap_or(self.durable.len())..];
        assert!(
            found.starts_with(kept),
            "seed {seed}: every durable record is back"
        );
        let more = &found[kept.len()..];
        assert!(
            self.in_doubt.starts_with(more),
            "seed {seed}: no phantom record"
        );
        assert!(self.lineages.contains(&recovery.lineage), "seed {seed}");
        *self = Self {
            durable: found,
            in_doubt: vec![],
            lineages: vec![recovery.lineage],
        };
    }
}

#[test]
fn every_durable_record_survives_crashes_and_no_phantom_appears() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new(seed);
        let mut expected = Expected {
            lineages: vec![LineageId(7)],
            ..Expected::default()
        };
        for _crash in 0..8 {
            match random.below(5) {
                0 => disk.fail_sync(1 + random.below(15)),
                1 => disk.fail_write(1 + random.below(15)),
                2 => disk.fail_sync_dir(1 + random.below(8)),
                3 if random.below(4) == 0 => {
                    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
                    disk.set_capacity(used + random.below(100_000));
                }
                _ => {}
            }
            // The crash may come while opening.
            if let Ok((journal, recovery, _)) = try_open(&disk, options()) {
                expected.check(seed, &journal, &recovery);
                expected.work(&mut random, &journal);
            }
            // A killed process leaves unsynced work to the page cache; the next crash may take it.
            let losses = [CrashLoss::Nothing, CrashLoss::Dice, CrashLoss::Dice];
            disk.crash(losses[random.below(3) as usize]);
            disk.stop_failing();
            disk.set_capacity(u64::MAX);
            let (journal, recovery) = open(&disk);
            expected.check(seed, &journal, &recovery);
            assert!(
                file_names(&disk).len() < 30,
                "seed {seed}: files do not pile up"
            );
        }
    }
}
