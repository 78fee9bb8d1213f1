//! The folders of snapshots in a node's data directory: made, given their names, and removed when they have come to nothing.

use super::about::About;
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

/// Removes what a crash has left of snapshots that were being made; says how many.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn clean(directory: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(directory.join(FOLDER)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(PART) {
            remove(&entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
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
        assert_eq!(clean(path).expect("nothing there"), 0);
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
        assert_eq!(clean(path).expect("one part"), 1);
        assert!(folder.exists() && !part(path, &about.name).exists());
        discard(path, &about.name).expect("it is there");
        assert!(!folder.exists());
        discard(path, &about.name).expect("nothing is no error");
    }
}
