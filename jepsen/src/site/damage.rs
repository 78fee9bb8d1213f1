//! Damage to the files of a node that is not running: torn ends, flipped bits, lost and old data directories.
//!
//! What is damaged is chosen by a seed and described, so that a run can say and repeat it. Of the product only its
//! documented files are known: folders of the data directory, and page files (`docs/formats/pages.md`).

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{
    fs,
    path::{Path, PathBuf},
};

const PAGE_BYTES: usize = 4096;
const PAGE_MAGIC: &[u8] = b"TFpg";
/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;
/// Bits that are flipped at once.
const FLIPPED_BITS: usize = 8;

/// Whose bytes are damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagePlace {
    /// Segments of the journal.
    Journal,
    /// Block files.
    Blocks,
    /// The Raft log.
    RaftLog,
}

impl DamagePlace {
    /// The folder below a data directory, and how the names of its files end.
    fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Journal => ("journal", ".segment"),
            Self::Blocks => ("blocks", "-data"),
            Self::RaftLog => ("meta/raft-log", ""),
        }
    }
}

/// How the end of a page file is torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// A write that had begun when the power failed left some sectors behind the end. Nothing that was synced is
    /// touched: a node must cut it off.
    Unsynced,
    /// The last group of records loses its second half although it had been synced: a disk that lied about its cache.
    Synced,
}

/// Tears the end of the newest file of the place; what was done, in words. `None` when there is no file, or
/// nothing in it yet.
///
/// # Errors
/// When it cannot be read or written.
pub(super) fn tear_tail(
    data: &Path,
    place: DamagePlace,
    tear: Tear,
    seed: u64,
) -> anyhow::Result<Option<String>> {
    // Names are numbers that grow.
    let Some(path) = files_of(data, place)?.pop() else {
        return Ok(None);
    };
    let mut bytes = fs::read(&path)?;
    let Some(group) = last_group(&bytes) else {
        return Ok(None);
    };
    let mut random = StdRng::seed_from_u64(seed);
    let done = match tear {
        Tear::Unsynced => {
            // The first sectors of what could have been the next group: a copy of the last, cut in its middle.
            let mut torn = bytes[group.first * PAGE_BYTES..group.end * PAGE_BYTES].to_vec();
            let sectors = torn.len() / SECTOR_BYTES;
            torn.truncate(random.random_range(1..sectors) * SECTOR_BYTES);
            let at = group.written_end * PAGE_BYTES;
            bytes.resize(bytes.len().max(at + torn.len()), 0);
            bytes[at..at + torn.len()].copy_from_slice(&torn);
            format!("{} torn bytes behind {at}", torn.len())
        }
        Tear::Synced => {
            let from = (group.first + group.end) * PAGE_BYTES / 2;
            let to = group.written_end * PAGE_BYTES;
            bytes[from..to].fill(0);
            format!("bytes {from}..{to} zeroed")
        }
    };
    fs::write(&path, bytes)?;
    Ok(Some(format!("{}: {done}", path.display())))
}

/// Flips some bits close to each other, where a file of the place says something; what was done, in words.
/// `None` when there is no such file.
///
/// # Errors
/// When it cannot be read or written.
pub(super) fn flip_bits(
    data: &Path,
    place: DamagePlace,
    seed: u64,
) -> anyhow::Result<Option<String>> {
    let mut random = StdRng::seed_from_u64(seed);
    let files = files_of(data, place)?;
    let Some(path) = files.choose(&mut random) else {
        return Ok(None);
    };
    let mut bytes = fs::read(path)?;
    // Of a page file only what lies before the last group: whatever is wrong with that one is a torn tail.
    let end = match place {
        DamagePlace::Blocks => bytes.len(),
        DamagePlace::Journal | DamagePlace::RaftLog => {
            last_group(&bytes).map_or(0, |group| group.first * PAGE_BYTES)
        }
    };
    let carrying: Vec<usize> = (0..end).filter(|&at| bytes[at] != 0).collect();
    let Some(&at) = carrying.choose(&mut random) else {
        return Ok(None);
    };
    for _ in 0..FLIPPED_BITS {
        let byte = random.random_range(at..end.min(at + SECTOR_BYTES));
        bytes[byte] ^= 1 << random.random_range(0..8);
    }
    fs::write(path, bytes)?;
    Ok(Some(format!(
        "{}: {FLIPPED_BITS} bits from byte {at} on",
        path.display()
    )))
}

/// Copies a folder with all that it has, holes and times included, to a place where nothing is yet.
///
/// # Errors
/// When it cannot be copied.
pub(super) fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    ensure!(!to.exists(), "{} exists", to.display());
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("a path that is text")
    };
    super::run("cp", &["-a", &text(from)?, &text(to)?])?;
    Ok(())
}

/// The files of a place below a data directory, ordered by their paths.
fn files_of(data: &Path, place: DamagePlace) -> anyhow::Result<Vec<PathBuf>> {
    let (folder, ending) = place.files();
    let mut files = Vec::new();
    let mut folders = vec![data.join(folder)];
    while let Some(folder) = folders.pop() {
        if !folder.exists() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with(ending) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Pages of the last group that has records.
struct Group {
    first: usize,
    end: usize,
    /// Where the next group would go: marks without records may lie between.
    written_end: usize,
}

/// Looks for the last group of a page file; `None` when no group has records.
fn last_group(bytes: &[u8]) -> Option<Group> {
    let salt = &bytes.get(..PAGE_BYTES)?[8..16];
    let pages = bytes.chunks_exact(PAGE_BYTES).enumerate().skip(1);
    let valid = pages.take_while(|(number, page)| {
        page.starts_with(PAGE_MAGIC) && &page[8..16] == salt && number_at(page, 16) == *number
    });
    let mut last: Option<Group> = None;
    for (number, page) in valid {
        let used = usize::from(u16::from_le_bytes([page[6], page[7]]));
        if let Some(group) = &mut last {
            group.written_end = number + 1;
        }
        if used > 0 {
            last = Some(Group {
                first: number_at(page, 20),
                end: number + 1,
                written_end: number + 1,
            });
        }
    }
    last
}

fn number_at(page: &[u8], at: usize) -> usize {
    let bytes = [page[at], page[at + 1], page[at + 2], page[at + 3]];
    u32::from_le_bytes(bytes) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page file: a header, a group of two pages, one of one page, a mark, and room that is reserved.
    fn page_file() -> Vec<u8> {
        let salt = [9; 8];
        let mut bytes = vec![0; 8 * PAGE_BYTES];
        // Of each page: its number, the first of its group, and the bytes in use.
        for (number, first, used) in [
            (0, 0, 50),
            (1, 1, 4056),
            (2, 1, 100),
            (3, 3, 700),
            (4, 4, 0),
        ] {
            let page = &mut bytes[number * PAGE_BYTES..][..PAGE_BYTES];
            page.fill(u8::try_from(number + 1).unwrap_or_default());
            page[..4].copy_from_slice(PAGE_MAGIC);
            page[6..8].copy_from_slice(&u16::to_le_bytes(used));
            page[8..16].copy_from_slice(&salt);
            page[16..20].copy_from_slice(&u32::to_le_bytes(number as u32));
            page[20..24].copy_from_slice(&u32::to_le_bytes(first));
        }
        // What an earlier use of the file left: the right number, another salt.
        let (used, stale) = bytes.split_at_mut(5 * PAGE_BYTES);
        stale[..PAGE_BYTES].copy_from_slice(&used[PAGE_BYTES..2 * PAGE_BYTES]);
        stale[8] = 0;
        bytes
    }

    /// The pages that differ after something was done to a file of a place.
    fn changed(
        place: DamagePlace,
        path: &str,
        work: impl Fn(&Path) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<Vec<usize>> {
        let data = tempfile::tempdir()?;
        let path = data.path().join(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        assert_eq!(work(data.path())?, None, "{place:?}");
        fs::write(&path, page_file())?;
        work(data.path())?.context("nothing was done")?;
        let (before, after) = (page_file(), fs::read(&path)?);
        let pages = before.chunks(PAGE_BYTES).zip(after.chunks(PAGE_BYTES));
        let differ = pages
            .enumerate()
            .filter(|(_, (before, after))| before != after);
        Ok(differ.map(|(number, _)| number).collect())
    }

    #[test]
    fn a_tail_is_torn_behind_or_at_the_end() -> anyhow::Result<()> {
        for (place, path) in [
            (DamagePlace::Journal, "journal/0000000000000000.segment"),
            (DamagePlace::RaftLog, "meta/raft-log/0000000000000001"),
        ] {
            for seed in 0..10 {
                let tear = |tear| move |data: &Path| tear_tail(data, place, tear, seed);
                assert_eq!(changed(place, path, tear(Tear::Unsynced))?, [5]);
                // The mark goes with the group: it says that the group was durable.
                assert_eq!(changed(place, path, tear(Tear::Synced))?, [3, 4]);
                let flip = |data: &Path| flip_bits(data, place, seed);
                let flipped = changed(place, path, flip)?;
                assert!(flipped.iter().all(|page| *page < 3), "{flipped:?}");
            }
        }
        Ok(())
    }
}
