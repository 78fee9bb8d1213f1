//! The file that holds this node's exemplars while it does not run: written anew by each flush that finds other ones in memory.
//! Knows nothing of what is in a record. Drawn in docs/formats/exemplars.md.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};
use trefoil_model::LineageId;
use trefoil_store_blocks::BlocksError;
use trefoil_store_metrics::{ExemplarsFile, MetricsEngine, SavedExemplars};
use trefoil_store_pages::{
    Disk, FileHeader, PAGE_BYTES, PageReader, PageWriter, PagesError, RecordGroup,
};

const FILE: &str = "exemplars";
const FILE_NEW: &str = "exemplars.new";
const PURPOSE: [u8; 4] = *b"exem";

/// Stands for what could not be read, so that the next save replaces it.
const UNREADABLE: Vec<u8> = Vec::new();

/// The file.
pub(super) struct File {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
}

/// Gives the engine what the file holds, and has it written from now on. What cannot be read of it is said and left out: exemplars
/// are examples, and no reason not to start.
pub(super) fn keep(engine: &MetricsEngine, disk: &Arc<dyn Disk>, directory: &Path) {
    // A flush that was killed leaves it.
    disk.remove(&directory.join(FILE_NEW)).ok();
    let (found, damage) = match read(&**disk, &directory.join(FILE)) {
        Ok((found, is_damaged)) => (found, is_damaged.then(|| "the file is damaged".to_owned())),
        Err(error) => {
            let unreadable = SavedExemplars {
                records: vec![UNREADABLE],
                ..SavedExemplars::default()
            };
            (unreadable, Some(format!("{error:#}")))
        }
    };
    let file = File {
        disk: Arc::clone(disk),
        directory: directory.to_owned(),
    };
    let is_whole = engine.keep_exemplars(Arc::new(file), &found);
    if let Some(why) = damage {
        tracing::warn!(why, "exemplars of before the start are lost here");
    } else if !is_whole {
        let why = "they are not those of the last flush, or of another program";
        tracing::warn!(why, "exemplars of before the start are left out");
    }
}

/// Also says whether the file is damaged. A file that is not there is an empty one.
fn read(disk: &dyn Disk, path: &Path) -> anyhow::Result<(SavedExemplars, bool)> {
    let reader = match PageReader::open(disk, path, PURPOSE) {
        Err(PagesError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok((SavedExemplars::default(), false));
        }
        opened => opened?,
    };
    let mut records = Vec::new();
    let found = reader.scan(&mut |_, record| records.push(record.to_vec()))?;
    if !found.damage.is_empty() {
        records.push(UNREADABLE);
    }
    let saved = SavedExemplars {
        lineage: LineageId(reader.header().lineage),
        position: reader.header().number,
        records,
    };
    Ok((saved, !found.damage.is_empty()))
}

impl ExemplarsFile for File {
    fn replace(&self, saved: &SavedExemplars) -> Result<(), BlocksError> {
        let path = self.directory.join(FILE_NEW);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(BlocksError::Io {
                    action: "remove leftover",
                    path,
                    source: error,
                });
            }
            _ => {}
        }
        let mut group = RecordGroup::new(0);
        for record in &saved.records {
            group.push(&[record]);
        }
        let header = FileHeader {
            purpose: PURPOSE,
            lineage: saved.lineage.0,
            number: saved.position,
            base: 0,
            note: Vec::new(),
        };
        let bytes = (group.disk_bytes() + 3 * PAGE_BYTES) as u64;
        let disk = &*self.disk;
        let written = PageWriter::create(disk, &path, header, bytes).and_then(|mut writer| {
            writer.append(&mut group)?;
            // The mark makes damage of what is in front of it provable.
            writer.append(&mut RecordGroup::new(group.end()))?;
            writer.rename(disk, &self.directory.join(FILE))
        });
        written.map_err(|error| {
            // On a full disk it would take the space that others wait for.
            disk.remove(&path).ok();
            error.into()
        })
    }
}
