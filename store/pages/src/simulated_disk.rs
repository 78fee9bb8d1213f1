//! [`SimulatedDisk`]: a disk in memory that loses what was not synced, under a seed.
//!
//! It keeps each file twice: as programs see it, and as it would be found after a power cut, with
//! the list of writes between the two. At [`SimulatedDisk::crash`] the dice decide, per write and
//! per 512-byte sector, what of the list arrived, and per directory which renames, creations and
//! removals did. Directories themselves are durable at once, as the seam promises. Handles from
//! before a crash answer every call with an error, so a forgotten one is noticed.
//!
//! Same seed, same calls: same result. Nothing here sleeps or reads a clock.

use crate::{Disk, DiskFile};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The unit that a medium writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a crash does to work that was not synced. All but the first are power cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashLoss {
    /// A killed process; the machine lives. Unsynced work is seen by the next process, but is still
    /// unsynced: a later crash may lose it.
    Nothing,
    /// Nothing arrived.
    Everything,
    /// The dice choose among the above, a prefix, any subset of writes, and torn sectors.
    Dice,
}

/// A disk in memory. Clones are handles of the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    dice: u64,
    generation: u64,
    files: Vec<FileState>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    capacity_bytes: u64,
    syncs: u64,
    fail_sync_at: Option<u64>,
    dir_syncs: u64,
    fail_dir_sync_at: Option<u64>,
    writes: u64,
    fail_write_at: Option<u64>,
    unreadable: BTreeSet<(usize, u64)>,
    refuses_links: bool,
}

#[derive(Default)]
struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<PendingWrite>,
}

#[derive(Clone)]
struct PendingWrite {
    offset: usize,
    bytes: Vec<u8>,
}

/// One change of a directory: the names that it sets, atomically.
#[derive(Clone)]
struct NameChange {
    directory: PathBuf,
    names: Vec<(PathBuf, Option<usize>)>,
}

impl SimulatedDisk {
    /// An empty disk whose crashes follow the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            dice: seed,
            generation: 0,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            directories: BTreeSet::new(),
            capacity_bytes: u64::MAX,
            syncs: 0,
            fail_sync_at: None,
            dir_syncs: 0,
            fail_dir_sync_at: None,
            writes: 0,
            fail_write_at: None,
            unreadable: BTreeSet::new(),
            refuses_links: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A power cut or kill: decides what unsynced work arrived and makes all open handles useless.
    pub fn crash(&self, loss: CrashLoss) {
        self.state.lock().crash(loss);
    }

    /// Lets one `sync_data` fail with `EIO`: the `nth` from now on (1: the next). What it should have
    /// synced arrives or not by the dice, but programs go on seeing it until the crash.
    pub fn fail_sync(&self, nth: u64) {
        let mut state = self.state.lock();
        state.fail_sync_at = Some(state.syncs + nth);
    }

    /// From now on no file gets a second name, as between two file systems.
    pub fn refuse_links(&self) {
        self.state.lock().refuses_links = true;
    }

    /// Lets one `sync_dir` fail with `EIO`: the `nth` from now on (1: the next). The names stay unsynced.
    pub fn fail_sync_dir(&self, nth: u64) {
        let mut state = self.state.lock();
        state.fail_dir_sync_at = Some(state.dir_syncs + nth);
    }

    /// Takes back every failure that was asked for and has not happened yet.
    pub fn stop_failing(&self) {
        let mut state = self.state.lock();
        state.fail_sync_at = None;
        state.fail_dir_sync_at = None;
        state.fail_write_at = None;
    }

    /// Lets one `write_at` fail with `EIO` after a part of it: the `nth` from now on (1: the next).
    pub fn fail_write(&self, nth: u64) {
        let mut state = self.state.lock();
        state.fail_write_at = Some(state.writes + nth);
    }

    /// Sets the size of the disk; growing files beyond it fails with `ENOSPC`.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.state.lock().capacity_bytes = capacity_bytes;
    }

    /// Flips one bit of a file, durably: silent corruption. Says whether the file has that byte.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(&id) = state.names.get(path) else {
            return false;
        };
        let file = &mut state.files[id];
        for content in [&mut file.live, &mut file.durable] {
            if let Some(target) = content.get_mut(byte as usize) {
                *target ^= 1 << (bit % 8);
            }
        }
        (byte as usize) < file.live.len()
    }

    /// Makes the sector that holds this byte answer reads with `EIO` until the file is removed.
    pub fn make_unreadable(&self, path: &Path, byte: u64) {
        let mut state = self.state.lock();
        if let Some(&id) = state.names.get(path) {
            state.unreadable.insert((id, byte / SECTOR_BYTES as u64));
        }
    }

    /// A disk of its own that holds, durably, what programs see on this one now: the copy that somebody made of a
    /// directory. Its crashes follow the seed.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        {
            let from = self.state.lock();
            let mut to = copy.state.lock();
            for (path, &id) in &from.names {
                let content = from.files[id].live.clone();
                let file = FileState {
                    live: content.clone(),
                    durable: content,
                    pending: Vec::new(),
                };
                let id = to.files.len();
                to.files.push(file);
                to.names.insert(path.clone(), id);
            }
            to.durable_names = to.names.clone();
            to.directories.clone_from(&from.directories);
        }
        copy
    }

    /// The files as programs see them now: path and length in bytes.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state.lock();
        let named = state.names.iter();
        named
            .map(|(path, &id)| (path.clone(), state.files[id].live.len() as u64))
            .collect()
    }

    /// How many syncs of files were asked for since the disk was made.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }
}

impl State {
    /// The next number of the dice (splitmix64).
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn crash(&mut self, loss: CrashLoss) {
        self.generation += 1;
        if loss == CrashLoss::Nothing {
            return;
        }
        let changes = std::mem::take(&mut self.pending_names);
        let style = self.style(loss);
        for change in self.surviving(changes, style) {
            apply_names(&mut self.durable_names, &change);
        }
        self.names = self.durable_names.clone();
        for id in 0..self.files.len() {
            let style = self.style(loss);
            let writes = std::mem::take(&mut self.files[id].pending);
            let writes = self.surviving(writes, style);
            let torn = style == Style::Torn;
            for write in writes {
                self.settle(id, &write, torn);
            }
            let file = &mut self.files[id];
            file.live.clone_from(&file.durable);
        }
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        for (id, file) in self.files.iter_mut().enumerate() {
            if !named.contains(&id) {
                *file = FileState::default();
            }
        }
    }

    fn style(&mut self, loss: CrashLoss) -> Style {
        match loss {
            CrashLoss::Everything => Style::None,
            CrashLoss::Nothing | CrashLoss::Dice => {
                let styles = [Style::All, Style::None, Style::Prefix, Style::Subset];
                let roll = self.roll(styles.len() as u64 + 2) as usize;
                styles.get(roll).copied().unwrap_or(Style::Torn)
            }
        }
    }

    /// Which of the pending changes arrive, in their order.
    fn surviving<T>(&mut self, changes: Vec<T>, style: Style) -> Vec<T> {
        match style {
            Style::All | Style::Torn => changes,
            Style::None => Vec::new(),
            Style::Prefix => {
                let kept = self.roll(changes.len() as u64 + 1) as usize;
                changes.into_iter().take(kept).collect()
            }
            Style::Subset => {
                let kept = changes.into_iter().filter(|_| self.roll(2) == 0);
                kept.collect()
            }
        }
    }

    /// Lets a write reach the medium, sector by sector; a torn one loses sectors or parts of them.
    fn settle(&mut self, id: usize, write: &PendingWrite, torn: bool) {
        let mut at = 0;
        while at < write.bytes.len() {
            let position = write.offset + at;
            let length = (SECTOR_BYTES - position % SECTOR_BYTES).min(write.bytes.len() - at);
            let arrived = match if torn { self.roll(8) } else { 7 } {
                0..=1 => 0,
                2 => self.roll(length as u64 + 1) as usize,
                _ => length,
            };
            let sector = &write.bytes[at..at + arrived];
            overwrite(&mut self.files[id].durable, position, sector);
            at += length;
        }
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        named
            .iter()
            .map(|&id| self.files[id].live.len() as u64)
            .sum()
    }

    fn check_room(&self, id: usize, end: usize) -> io::Result<()> {
        let growth = end.saturating_sub(self.files[id].live.len()) as u64;
        if growth > 0 && self.used_bytes().saturating_add(growth) > self.capacity_bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    fn change_names(&mut self, directory_of: &Path, names: Vec<(PathBuf, Option<usize>)>) {
        let change = NameChange {
            directory: parent(directory_of),
            names,
        };
        apply_names(&mut self.names, &change);
        self.pending_names.push(change);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    All,
    None,
    Prefix,
    Subset,
    Torn,
}

fn apply_names(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    for (path, id) in &change.names {
        match id {
            Some(id) => names.insert(path.clone(), *id),
            None => names.remove(path),
        };
    }
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if !bytes.is_empty() && content.len() < end {
        content.resize(end, 0);
    }
    if !bytes.is_empty() {
        content[offset..end].copy_from_slice(bytes);
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        if !state.directories.contains(&parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.len();
        state.files.push(FileState::default());
        state.change_names(path, vec![(path.to_owned(), Some(id))]);
        Ok(self.handle(id, state.generation))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        let id = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(*id, state.generation))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_names(to, vec![(from.to_owned(), None), (to.to_owned(), Some(id))]);
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.refuses_links {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_names(to, vec![(to.to_owned(), Some(id))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(path, vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        if !state.directories.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| parent(path) == dir);
        let names = inside.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let ancestors = dir.ancestors().map(Path::to_owned);
        state.directories.extend(ancestors);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.dir_syncs += 1;
        if state.fail_dir_sync_at == Some(state.dir_syncs) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let changes = std::mem::take(&mut state.pending_names);
        let (synced, pending): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|change| change.directory == dir);
        for change in &synced {
            apply_names(&mut state.durable_names, change);
        }
        state.pending_names = pending;
        Ok(())
    }
}

impl SimulatedDisk {
    fn handle(&self, id: usize, generation: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile {
            state: self.state.clone(),
            id,
            generation,
        })
    }
}

struct SimulatedFile {
    state: Arc<Mutex<State>>,
    id: usize,
    generation: u64,
}

impl SimulatedFile {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.generation != self.generation {
            return Err(io::Error::other("the handle is from before a crash"));
        }
        Ok(state)
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state()?;
        let content = &state.files[self.id].live;
        let start = (offset as usize).min(content.len());
        let length = buffer.len().min(content.len() - start);
        let sector = SECTOR_BYTES as u64;
        let sectors = offset / sector..(offset + length as u64).div_ceil(sector);
        let mut bad = sectors.filter(|sector| state.unreadable.contains(&(self.id, *sector)));
        if bad.next().is_some() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        buffer[..length].copy_from_slice(&content[start..start + length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let offset = offset as usize;
        state.check_room(self.id, offset + bytes.len())?;
        state.writes += 1;
        let fails = state.fail_write_at == Some(state.writes);
        let part = match fails {
            true => state.roll(bytes.len() as u64 + 1) as usize,
            false => bytes.len(),
        };
        let write = PendingWrite {
            offset,
            bytes: bytes[..part].to_vec(),
        };
        let file = &mut state.files[self.id];
        overwrite(&mut file.live, offset, &write.bytes);
        file.pending.push(write);
        if fails {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.syncs += 1;
        let fails = state.fail_sync_at == Some(state.syncs);
        let writes = std::mem::take(&mut state.files[self.id].pending);
        if fails {
            // The page cache now calls these bytes clean: no later sync writes them.
            for write in state.surviving(writes, Style::Subset) {
                state.settle(self.id, &write, true);
            }
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        for write in writes {
            state.settle(self.id, &write, false);
        }
        Ok(())
    }

    fn preallocate(&self, length_bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let length = length_bytes as usize;
        state.check_room(self.id, length)?;
        let file = &mut state.files[self.id];
        if file.live.len() < length {
            let zeros = vec![0; length - file.live.len()];
            let offset = file.live.len();
            overwrite(&mut file.live, offset, &zeros);
            file.pending.push(PendingWrite {
                offset,
                bytes: zeros,
            });
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.state()?.files[self.id].live.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_file(seed: u64) -> (SimulatedDisk, Arc<dyn DiskFile>) {
        let disk = SimulatedDisk::new(seed);
        disk.create_dir_all(Path::new("d")).unwrap();
        let file = disk.create(Path::new("d/f")).unwrap();
        (disk, file)
    }

    fn content(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(Path::new(path)).ok()?;
        let mut bytes = vec![0; file.length().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    #[test]
    fn synced_work_survives_and_unsynced_work_may_not() {
        let (disk, file) = disk_with_file(1);
        file.write_at(b"synced", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        file.write_at(b"unsynced", 6).unwrap();
        disk.rename(Path::new("d/f"), Path::new("d/g")).unwrap();
        disk.crash(CrashLoss::Everything);
        assert_eq!(content(&disk, "d/f").unwrap(), b"synced");
        assert_eq!(content(&disk, "d/g"), None);
        assert!(file.sync_data().is_err(), "old handles are dead");
    }

    #[test]
    fn a_kill_loses_nothing_and_syncs_nothing() {
        let (disk, file) = disk_with_file(1);
        file.write_at(b"x", 0).unwrap();
        disk.crash(CrashLoss::Nothing);
        assert_eq!(content(&disk, "d/f").unwrap(), b"x");
        assert!(file.length().is_err(), "old handles are dead");
        disk.crash(CrashLoss::Everything);
        assert_eq!(content(&disk, "d/f"), None);
    }

    #[test]
    fn dice_reach_loss_survival_and_tearing() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..200 {
            let (disk, file) = disk_with_file(seed);
            disk.sync_dir(Path::new("d")).unwrap();
            file.write_at(&[1; 2048], 0).unwrap();
            disk.crash(CrashLoss::Dice);
            let bytes = content(&disk, "d/f").unwrap();
            let kept = bytes.iter().filter(|&&b| b == 1).count();
            outcomes.insert(if kept % 512 == 0 { kept } else { 1 });
        }
        assert_eq!(outcomes, BTreeSet::from([0, 1, 512, 1024, 1536, 2048]));
    }

    #[test]
    fn after_a_failed_sync_the_cache_lies() {
        let lost = (0..50).any(|seed| {
            let (disk, file) = disk_with_file(seed);
            disk.sync_dir(Path::new("d")).unwrap();
            file.write_at(b"x", 0).unwrap();
            disk.fail_sync(1);
            assert!(file.sync_data().is_err());
            file.sync_data().unwrap();
            assert_eq!(content(&disk, "d/f").unwrap(), b"x");
            disk.crash(CrashLoss::Dice);
            content(&disk, "d/f").unwrap().is_empty()
        });
        assert!(lost, "a sync after a failed one proves nothing");
    }

    #[test]
    fn a_copy_is_durable_and_apart() {
        let (disk, file) = disk_with_file(1);
        file.write_at(b"unsynced", 0).unwrap();
        let copy = disk.copy(2);
        file.write_at(b"later...", 0).unwrap();
        copy.crash(CrashLoss::Everything);
        assert_eq!(content(&copy, "d/f").unwrap(), b"unsynced");
        assert_eq!(content(&disk, "d/f").unwrap(), b"later...");
    }

    #[test]
    fn a_full_disk_refuses() {
        let (disk, file) = disk_with_file(1);
        disk.set_capacity(100);
        file.preallocate(100).unwrap();
        assert_eq!(
            file.write_at(&[0; 101], 0).unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
        file.write_at(&[0; 100], 0).unwrap();
    }
}
