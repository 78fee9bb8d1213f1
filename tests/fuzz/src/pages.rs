//! Page files, of which journals and the Raft log are made.

use crate::Target;
use std::path::Path;
use trefoil_store_pages::{
    Disk, FileHeader, PAGE_BYTES, PageReader, PageWriter, PagesError, RecordGroup, SimulatedDisk,
};

const PURPOSE: [u8; 4] = *b"fuzz";
const FILE: &str = "pages/file";

pub(crate) const PAGES: Target = Target {
    name: "pages",
    run: |bytes| {
        let disk = SimulatedDisk::new(1);
        let written = write(&disk, &[]).and_then(|()| overwrite(&disk, bytes));
        written.expect("the disk takes everything");
        let reader = PageReader::open(&disk, Path::new(FILE), PURPOSE);
        // The checksum of a page hides what is behind it, so that is looked at without it, too.
        read(&reader.expect("the header page is whole"));
        let reader = PageReader::open(&disk, Path::new(FILE), PURPOSE);
        read(&reader.expect("the header page is whole").unchecked());
    },
    seeds: || {
        let disk = SimulatedDisk::new(1);
        let long = vec![7; 3 * PAGE_BYTES];
        write(&disk, &[b"one", b"", &long, b"two"]).expect("the disk takes everything");
        let file = disk.open(Path::new(FILE)).expect("it was written");
        let mut bytes = vec![0; 6 * PAGE_BYTES];
        let length = file
            .read_at(&mut bytes, PAGE_BYTES as u64)
            .expect("it was written");
        bytes.truncate(length);
        vec![bytes]
    },
};

/// Makes the file with these records.
fn write(disk: &SimulatedDisk, records: &[&[u8]]) -> Result<(), PagesError> {
    let header = FileHeader {
        purpose: PURPOSE,
        lineage: 1,
        number: 1,
        base: 0,
        note: Vec::new(),
    };
    let folder = Path::new(FILE).parent().unwrap_or(Path::new(""));
    disk.create_dir_all(folder).expect("a folder of memory");
    let mut writer = PageWriter::create(disk, Path::new(FILE), header, 0)?;
    let mut group = RecordGroup::new(0);
    for record in records {
        group.push(&[record]);
    }
    match records.is_empty() {
        true => Ok(()),
        false => writer.append(&mut group),
    }
}

/// Puts the bytes behind the header page.
fn overwrite(disk: &SimulatedDisk, bytes: &[u8]) -> Result<(), PagesError> {
    let file = disk.open(Path::new(FILE)).expect("it was written");
    file.write_at(bytes, PAGE_BYTES as u64)
        .expect("the disk takes everything");
    Ok(())
}

/// Whatever a file holds, records lie one behind the other, and each is found again at its place.
fn read(reader: &PageReader) {
    let mut starts = Vec::new();
    let summary = reader.scan(&mut |start, bytes| starts.push((start, bytes.len())));
    summary.expect("the disk gives everything back");
    assert!(
        starts.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "{starts:?}"
    );
    for &(start, length) in starts.iter().take(16) {
        if let Ok(records) = reader.read(start, u64::MAX, 1) {
            let found = records
                .first()
                .map(|record| (record.start, record.bytes.len()));
            assert_eq!(found, Some((start, length)));
        }
    }
}
