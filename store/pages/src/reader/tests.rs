//! Scans of sound, torn, damaged, recycled and random files, and a crash loop under seeds.

use super::*;
use crate::{CrashLoss, PageWriter, RecordGroup, SimulatedDisk, copy_to_fresh};

const PURPOSE: [u8; 4] = *b"test";

fn header(number: u64) -> FileHeader {
    FileHeader {
        purpose: PURPOSE,
        lineage: 42,
        number,
        base: 500,
        note: vec![],
    }
}

fn new_disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.create_dir_all(Path::new("d")).unwrap();
    disk
}

fn path() -> &'static Path {
    Path::new("d/file")
}

/// A file of one group per entry; each entry lists the sizes of its records.
fn write_file(disk: &SimulatedDisk, groups: &[&[usize]]) -> (PageWriter, Vec<(u64, Vec<u8>)>) {
    let mut writer = PageWriter::create(disk, path(), header(1), 1 << 18).unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    let mut records = vec![];
    for sizes in groups {
        let mut group = RecordGroup::new(writer.end());
        for &size in *sizes {
            let bytes = vec![records.len() as u8 + 1; size];
            records.push((group.push(&[&bytes]).0, bytes));
        }
        writer.append(&mut group).unwrap();
    }
    (writer, records)
}

fn scan(disk: &SimulatedDisk) -> (ScanSummary, Vec<(u64, Vec<u8>)>) {
    let mut records = vec![];
    let reader = PageReader::open(disk, path(), PURPOSE).unwrap();
    let summary = reader
        .scan(&mut |start, bytes| records.push((start, bytes.to_vec())))
        .unwrap();
    (summary, records)
}

/// First byte of a page in the file.
fn at_page(number: u64) -> u64 {
    number * PAGE_BYTES as u64
}

#[test]
fn a_sound_file_gives_every_record() {
    let disk = new_disk(1);
    let (writer, written) = write_file(&disk, &[&[10, 0, 5000], &[3], &[9000, 1]]);
    let (summary, read) = scan(&disk);
    assert_eq!(read, written);
    let expected = ScanSummary {
        end: writer.end(),
        records: 6,
        ..ScanSummary::default()
    };
    assert_eq!(summary, expected);
    let reader = writer.reader();
    for (index, (start, bytes)) in written.iter().enumerate() {
        let from_here = reader.read(*start, writer.end(), usize::MAX).unwrap();
        assert_eq!(from_here.len(), written.len() - index);
        assert_eq!(&from_here[0].bytes, bytes);
        assert_eq!(
            reader.read(*start, writer.end(), 1).unwrap()[0].start,
            *start
        );
    }
    for nowhere in [
        499,
        501,
        written[2].0 + 1,
        writer.end(),
        writer.end() + 9999,
    ] {
        let error = reader.read(nowhere, u64::MAX, 10).unwrap_err();
        assert!(matches!(error, PagesError::NoRecordAt { .. }), "{nowhere}");
    }
}

#[test]
fn a_group_page_is_frozen() {
    let disk = new_disk(1);
    write_file(&disk, &[&[5, 2]]);
    let file = disk.open(path()).unwrap();
    let mut page = [0; 64];
    file.read_at(&mut page, at_page(1)).unwrap();
    let hexadecimal: String = page.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hexadecimal, include_str!("../golden/data_page.hex").trim());
}

#[test]
fn a_bad_page_of_the_last_group_is_a_torn_tail() {
    let disk = new_disk(1);
    let (_, written) = write_file(&disk, &[&[10], &[100, 9000, 7]]);
    disk.flip_bit(path(), at_page(3) + 100, 0);
    let (summary, read) = scan(&disk);
    assert_eq!(read, written[..2], "whole records before the hole stay");
    assert_eq!(summary.end, written[2].0);
    assert!(summary.torn_bytes >= at_page(1));
    assert!(summary.damage.is_empty());
}

#[test]
fn a_bad_page_before_a_later_group_is_damage() {
    for unreadable in [false, true] {
        let disk = new_disk(1);
        let (_, written) = write_file(&disk, &[&[10], &[100, 9000, 7], &[20], &[30]]);
        match unreadable {
            true => disk.make_unreadable(path(), at_page(3) + 100),
            false => assert!(disk.flip_bit(path(), at_page(3) + 100, 0)),
        }
        let (summary, read) = scan(&disk);
        let mut expected = written.clone();
        expected.remove(2);
        assert_eq!(read, expected, "only the record on the bad page is lost");
        let lost = DamagedRange {
            start: written[2].0,
            end: written[3].0,
        };
        assert_eq!(summary.damage, [lost]);
        assert_eq!(summary.torn_bytes, 0);
        let reader = PageReader::open(&disk, path(), PURPOSE).unwrap();
        assert!(reader.read(written[2].0, u64::MAX, 1).is_err());
        let before = reader.read(written[0].0, u64::MAX, usize::MAX).unwrap();
        assert_eq!(before.len(), 2, "a read stops before the damage");
        let behind = reader.read(written[3].0, u64::MAX, usize::MAX).unwrap();
        assert_eq!(behind.len(), 3);
    }
}

#[test]
fn an_empty_group_makes_the_last_records_provable() {
    let disk = new_disk(1);
    let (mut writer, written) = write_file(&disk, &[&[10], &[20]]);
    writer.append(&mut RecordGroup::new(writer.end())).unwrap();
    disk.flip_bit(path(), at_page(2) + 50, 3);
    let (summary, read) = scan(&disk);
    assert_eq!(read, written[..1]);
    let lost = DamagedRange {
        start: written[1].0,
        end: writer.end(),
    };
    assert_eq!(summary.damage, [lost]);
    assert_eq!(summary.end, writer.end());
}

#[test]
fn a_copy_keeps_offsets_and_gaps() {
    let disk = new_disk(1);
    let (_, written) = write_file(&disk, &[&[10], &[20], &[30, 40], &[50]]);
    disk.flip_bit(path(), at_page(2) + 50, 3);
    let (before, read) = scan(&disk);
    let source = PageReader::open(&disk, path(), PURPOSE).unwrap();
    let mut visited = vec![];
    let (mut copy, summary) = copy_to_fresh(
        &disk,
        &source,
        Path::new("d/copy"),
        header(2),
        0,
        &mut |start, bytes| visited.push((start, bytes.to_vec())),
    )
    .unwrap();
    assert_eq!((&summary, &visited), (&before, &read));
    copy.rename(&disk, path()).unwrap();
    let mut group = RecordGroup::new(copy.end());
    let added = group.push(&[b"new"]).0;
    copy.append(&mut group).unwrap();
    disk.crash(CrashLoss::Everything);
    let (after, mut records) = scan(&disk);
    assert_eq!(records.pop(), Some((added, b"new".to_vec())));
    assert_eq!(records, read);
    assert_eq!(after.damage, before.damage, "a gap is reported again");
    assert_eq!(written.len(), records.len() + 1);
}

#[test]
fn stale_pages_of_a_recycled_file_never_show() {
    let disk = new_disk(1);
    write_file(&disk, &[&[10], &[20], &[9000], &[40]]);
    let mut writer = PageWriter::recycle(&disk, path(), header(2), 0).unwrap();
    let mut group = RecordGroup::new(writer.end());
    group.push(&[b"only"]);
    writer.append(&mut group).unwrap();
    let (summary, records) = scan(&disk);
    assert_eq!(records, [(500, b"only".to_vec())]);
    assert_eq!((summary.torn_bytes, summary.damage), (0, vec![]));
}

#[test]
fn a_failed_sync_ends_the_writer() {
    let disk = new_disk(1);
    let (mut writer, _) = write_file(&disk, &[&[10]]);
    disk.fail_sync(1);
    let mut group = RecordGroup::new(writer.end());
    group.push(&[b"x"]);
    assert!(matches!(
        writer.append(&mut group.clone()),
        Err(PagesError::Io { .. })
    ));
    let mut next = RecordGroup::new(group.end());
    assert!(matches!(
        writer.append(&mut next),
        Err(PagesError::WriterEnded { .. })
    ));
}

#[test]
fn other_files_are_refused() {
    let disk = new_disk(1);
    write_file(&disk, &[]);
    let wrong = PageReader::open(&disk, path(), *b"else").err();
    assert!(matches!(wrong, Some(PagesError::WrongPurpose { .. })));
    disk.flip_bit(path(), 4, 1);
    let foreign = PageReader::open(&disk, path(), PURPOSE).err();
    assert!(matches!(
        foreign,
        Some(PagesError::UnsupportedVersion { found: 3, .. })
    ));
    disk.flip_bit(path(), 4, 1);
    disk.flip_bit(path(), 50, 1);
    let damaged = PageReader::open(&disk, path(), PURPOSE).err();
    assert!(matches!(damaged, Some(PagesError::NoHeader { .. })));
}

/// A small generator for tests; the same splitmix64 that the simulated disk rolls.
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

#[test]
fn random_corruption_never_invents_records() {
    let groups: &[&[usize]] = &[&[10, 8000], &[0, 0, 4052], &[1], &[12_000], &[5; 40]];
    for seed in 0..400 {
        let mut random = Random(seed);
        let disk = new_disk(seed);
        let (writer, written) = write_file(&disk, groups);
        for _ in 0..=random.below(4) {
            let start = PAGE_BYTES as u64 + random.below(writer.used_bytes() - PAGE_BYTES as u64);
            for byte in start..start + 1 + random.below(6000) {
                disk.flip_bit(path(), byte, random.below(8) as u8);
            }
        }
        let (summary, read) = scan(&disk);
        assert!(
            read.iter().all(|record| written.contains(record)),
            "seed {seed}"
        );
        for (start, _) in written.iter().filter(|record| !read.contains(record)) {
            let covered = summary
                .damage
                .iter()
                .any(|d| d.start <= *start && *start < d.end);
            assert!(
                covered || *start >= summary.end,
                "seed {seed}, record {start}"
            );
        }
        for pair in summary.damage.windows(2) {
            assert!(pair[0].end < pair[1].start, "seed {seed}");
        }
    }
}

#[test]
fn random_pages_never_panic_whatever_they_claim() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let disk = new_disk(seed);
        let (writer, _) = write_file(&disk, &[&[10, 8000], &[9], &[5; 40]]);
        let file = disk.open(path()).unwrap();
        // Fields of page headers are changed and the checksum made right again.
        for _ in 0..1 + random.below(3) {
            let number = 1 + random.below(writer.used_bytes() / PAGE_BYTES as u64);
            let mut page = vec![0; PAGE_BYTES];
            file.read_at(&mut page, at_page(number)).unwrap();
            let at = [6, 16, 20, 24, 28, 32, 40][random.below(7) as usize];
            for byte in &mut page[at..at + 4] {
                *byte = random.below(256) as u8;
            }
            crate::page::correct_checksum(&mut page);
            file.write_at(&page, at_page(number)).unwrap();
        }
        let (summary, _) = scan(&disk);
        for range in summary.damage {
            assert!(range.start < range.end, "seed {seed}");
        }
        let reader = PageReader::open(&disk, path(), PURPOSE).unwrap();
        for _ in 0..20 {
            // Any answer is right, as long as there is one.
            drop(reader.read(500 + random.below(9000), u64::MAX, 5000));
        }
    }
}

#[test]
fn durable_records_survive_crashes_and_phantoms_never_appear() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let disk = new_disk(seed);
        let (mut writer, _) = write_file(&disk, &[]);
        let mut durable: Vec<(u64, Vec<u8>)> = vec![];
        let mut number = 1;
        for _crash in 0..6 {
            for _ in 0..random.below(6) {
                let mut group = RecordGroup::new(writer.end());
                for _ in 0..1 + random.below(4) {
                    let bytes = vec![random.below(256) as u8; random.below(9000) as usize];
                    durable.push((group.push(&[&bytes]).0, bytes));
                }
                writer.append(&mut group).unwrap();
            }
            // One more group is in flight at the crash: written, not synced.
            let mut group = RecordGroup::new(writer.end());
            let mut in_flight = vec![];
            for _ in 0..random.below(5) {
                let bytes = vec![random.below(256) as u8; random.below(9000) as usize];
                in_flight.push((group.push(&[&bytes]).0, bytes));
            }
            disk.fail_sync(1);
            assert!(writer.append(&mut group).is_err());
            // A killed process leaves unsynced work to the page cache; the next crash may take it.
            let losses = [CrashLoss::Nothing, CrashLoss::Dice, CrashLoss::Dice];
            disk.crash(losses[random.below(3) as usize]);

            let (summary, read) = scan(&disk);
            assert!(summary.damage.is_empty(), "seed {seed}: {summary:?}");
            assert_eq!(read[..durable.len()], durable[..], "seed {seed}");
            let more = &read[durable.len()..];
            assert_eq!(*more, in_flight[..more.len()], "seed {seed}");
            let source = PageReader::open(&disk, path(), PURPOSE).unwrap();
            number += 1;
            let to = Path::new("d/copy");
            let copied = copy_to_fresh(&disk, &source, to, header(number), 0, &mut |_, _| {});
            let (copy, _) = copied.unwrap();
            writer = copy;
            writer.rename(&disk, path()).unwrap();
            durable = read;
        }
    }
}
