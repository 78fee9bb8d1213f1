//! Journals that end before what is known of them.

use super::*;

fn open_knowing(disk: &SimulatedDisk, known_end: u64) -> (Journal, Recovery) {
    let options = JournalOptions {
        known_end,
        ..options()
    };
    let (journal, recovery, _) = try_open(disk, options).unwrap();
    (journal, recovery)
}

/// What the manifest speaks of is never overwritten, and every later start hears of the loss again.
#[test]
fn a_lost_end_is_left_out_and_reported() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    let (first, _) = put(&journal, 1, 100);
    let (second, _) = put(&journal, 2, 100);
    drop(journal);
    // The last group of a journal that was not closed: nothing behind it proves that it was durable.
    assert!(disk.flip_bit(&segment_path(0), 2 * 4096 + 100, 0));
    let lost = DamagedRange {
        start: first.end,
        end: second.end + 1,
    };
    let (journal, recovery) = open_knowing(&disk, second.end);
    assert_eq!((recovery.end, &*recovery.damage), (lost.end, &[lost][..]));
    assert_eq!(journal.durable_end(), lost.end);
    let unreadable = journal.read(first.end, 1);
    assert!(matches!(unreadable, Err(JournalError::Unreadable { .. })));
    assert_eq!(journal.next_readable(first.end).unwrap(), lost.end);
    let (third, bytes) = put(&journal, 3, 10);
    assert_eq!(third.start, lost.end);
    drop(journal);
    disk.crash(CrashLoss::Everything);

    let (journal, recovery) = open_knowing(&disk, second.end);
    assert_eq!((recovery.end, &*recovery.damage), (third.end, &[lost][..]));
    assert_eq!(journal.next_readable(first.end).unwrap(), third.start);
    assert_eq!(journal.read(third.start, 1).unwrap()[0].bytes, bytes);
    assert_eq!(journal.read(0, 1).unwrap()[0].start, first.start);
}

/// A crash right after such a start, before anything was appended.
#[test]
fn a_lost_end_is_found_again_after_a_crash() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    put(&journal, 1, 100);
    drop(journal);
    let lost = DamagedRange {
        start: 104,
        end: 501,
    };
    for _ in 0..3 {
        let (journal, recovery) = open_knowing(&disk, 500);
        assert_eq!((recovery.end, &*recovery.damage), (501, &[lost][..]));
        drop(journal);
        disk.crash(CrashLoss::Everything);
    }
}

/// A journal that ends where it should has lost nothing.
#[test]
fn a_known_end_that_is_reached_changes_nothing() {
    let disk = SimulatedDisk::new(1);
    let (journal, _) = open(&disk);
    let (record, _) = put(&journal, 1, 100);
    drop(journal);
    let (_, recovery) = open_knowing(&disk, record.end);
    assert_eq!((recovery.end, recovery.damage), (record.end, vec![]));
}

#[test]
fn a_journal_that_is_gone_begins_behind_what_is_known() {
    let disk = SimulatedDisk::new(1);
    let (journal, recovery) = open_knowing(&disk, 700);
    assert!(recovery.fresh);
    assert_eq!((recovery.floor, recovery.end), (701, 701));
    assert_eq!(put(&journal, 1, 10).0.start, 701);
}

/// A journal that replaces a lost one never looks like one that nothing was ever written to.
#[test]
fn a_journal_that_replaces_another_begins_above_zero_and_stays_there() {
    let disk = SimulatedDisk::new(1);
    for fresh in [true, false] {
        let options = JournalOptions {
            begin_if_new: 1,
            ..options()
        };
        let (journal, recovery, _) = try_open(&disk, options).unwrap();
        assert_eq!(recovery.fresh, fresh);
        assert_eq!((recovery.floor, recovery.end), (1, 1));
        assert_eq!(recovery.damage, []);
        drop(journal);
        disk.crash(CrashLoss::Everything);
    }
}

#[test]
fn a_journal_that_exists_is_not_asked_where_to_begin() {
    let disk = SimulatedDisk::new(1);
    drop(open(&disk));
    let options = JournalOptions {
        begin_if_new: 1,
        ..options()
    };
    let (_journal, recovery, _) = try_open(&disk, options).unwrap();
    assert_eq!((recovery.floor, recovery.end), (0, 0));
}
