//! The folders of snapshots in a node's data directory: made, given their names, and removed when they have come to nothing.

use super::{about::About, is_name};
use anyhow::Context;
use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};
use trefoil_model::NodeId;
use trefoil_store_blocks::{LinkedBlocks, Manifest, PinnedVersion};
use trefoil_store_pages::{Disk, RealDisk};

/// The folder of all snapshots in a data directory.
const FOLDER: &str = "snapshots";
/// What the name of one ends with that is not whole.
const PART: &str = ".part";

fn whole(directory: &Path, name: &str) -> PathBuf {
    directory.join(FOLDER).join(name)
}

fn part(directory: &Path, name: &str) -> PathBuf {
    directory.join(FOLDER).join(format!("{name}{PART}"))
}

/// Makes this node's part of a snapshot under its temporary name, durably; `about` is told how many blocks there are. What was begun is removed after an error.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn prepare(
    directory: &Path,
    manifest: &Manifest,
    view: &PinnedVersion,
    mut about: About,
    node: NodeId,
) -> anyhow::Result<LinkedBlocks> {
    let folder = part(directory, &about.name);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut made = || {
        disk.create_dir_all(&folder)
            .with_context(|| format!("make {}", folder.display()))?;
        let linked = manifest.link_into(view, &folder)?;
        about.blocks = linked.blocks;
        about.write(&*disk, &folder, node)?;
        disk.sync_dir(&folder)?;
        anyhow::Ok(linked)
    };
    made().inspect_err(|_| {
        // What stays is removed at the next start.
        drop(remove(&folder));
    })
}

/// Gives a part that was prepared its name.
///
/// # Errors
/// When it is not there, or the disk refuses.
pub(crate) fn keep(directory: &Path, name: &str) -> io::Result<()> {
    fs::rename(part(directory, name), whole(directory, name))?;
    File::open(directory.join(FOLDER))?.sync_all()
}

/// Removes a node's part of a snapshot, whole or not. None is no error.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn discard(directory: &Path, name: &str) -> io::Result<()> {
    let unnamed = discard_part(directory, name);
    let folder = whole(directory, name);
    // A crash in the middle leaves what is removed at a start, and nothing that looks whole.
    match fs::rename(&folder, part(directory, name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => unnamed,
        Err(error) => Err(error),
        Ok(()) => discard_part(directory, name),
    }
}

/// Removes a part that nobody has kept.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn discard_part(directory: &Path, name: &str) -> io::Result<()> {
    remove(&part(directory, name))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes what a crash has left of snapshots that were being made; says how many. What cannot be removed takes space, and is
/// no reason not to start.
pub(crate) fn clean(directory: &Path) -> usize {
    let folder = directory.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return 0,
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "look for unfinished snapshots");
            return 0;
        }
        Ok(entries) => entries,
    };
    // An entry that cannot be read is there at the next start, too.
    let names = entries.flatten().map(|entry| entry.file_name());
    let unfinished = names.filter(|name| is_part(&name.to_string_lossy()));
    let removed = unfinished.filter(|name| {
        let outcome = remove(&folder.join(name));
        if let Err(error) = &outcome {
            tracing::warn!(%error, ?name, "remove what is left of a snapshot");
        }
        outcome.is_ok()
    });
    removed.count()
}

/// Whether an entry is one that [`prepare`] could have made; others are somebody else's.
fn is_part(entry: &str) -> bool {
    entry.strip_suffix(PART).is_some_and(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::about::tests::about;
    use trefoil_store_blocks::ManifestOptions;

    #[test]
    fn what_is_not_kept_is_gone_after_a_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        assert_eq!(clean(path), 0);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let blocks = path.join("blocks");
        let (manifest, _) = Manifest::open(disk, &blocks, ManifestOptions::default()).expect("new");
        let about = about();
        let prepare = || {
            let pin = manifest.pin();
            prepare(path, &manifest, &pin, about.clone(), NodeId(9)).map(drop)
        };
        prepare().expect("space");
        let again = prepare().expect_err("its name is taken").to_string();
        assert!(
            again.contains("manifest") || again.contains("about"),
            "{again}"
        );
        // What was begun twice is worth nothing.
        assert!(keep(path, &about.name).is_err());

        prepare().expect("space");
        keep(path, &about.name).expect("it is there");
        assert!(keep(path, &about.name).is_err(), "once");
        let folder = whole(path, &about.name);
        assert_eq!(About::read(&RealDisk, &folder).expect("whole"), about);
        prepare().expect("space");
        assert_eq!(clean(path), 1);
        assert!(folder.exists() && !part(path, &about.name).exists());
        discard(path, &about.name).expect("it is there");
        assert!(!folder.exists());
        discard(path, &about.name).expect("nothing is no error");
    }

    #[test]
    fn a_leftover_that_cannot_be_removed_stops_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let folder = path.join(FOLDER);
        let name = |digit: char| {
            let number = String::from(digit).repeat(16);
            format!("20261122T051500Z-{number}{PART}")
        };
        // No folder, which nobody, not even root, can remove as one.
        let (stuck, foreign) = (folder.join(name('a')), folder.join(format!("mine{PART}")));
        for left in [name('0'), name('f')] {
            fs::create_dir_all(folder.join(left)).expect("space");
        }
        fs::create_dir_all(&foreign).expect("space");
        fs::write(&stuck, "").expect("space");
        assert_eq!(clean(path), 2);
        assert!(stuck.exists() && foreign.exists());
        assert_eq!(fs::read_dir(&folder).expect("readable").count(), 2);

        let other = tempfile::tempdir().expect("a directory");
        fs::write(other.path().join(FOLDER), "").expect("space");
        assert_eq!(clean(other.path()), 0, "no folder at all");
    }
}
