//! The file that holds this node's exemplars while it does not run: written anew by each flush that finds other ones in memory.
//! Knows nothing of what is in a record. Drawn in docs/formats/exemplars.md.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use trefoil_store_blocks::BlocksError;
use trefoil_store_metrics::{ExemplarsFile, MetricsEngine};
use trefoil_store_pages::{
    Disk, FileHeader, PAGE_BYTES, PageReader, PageWriter, PagesError, RecordGroup,
};

const FILE: &str = "exemplars";
const FILE_NEW: &str = "exemplars.new";
const PURPOSE: [u8; 4] = *b"exem";

/// The file.
pub(super) struct File {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// How often it was written.
    number: AtomicU64,
}

/// Gives the engine what the file holds, and has it written from now on. What cannot be read of it is said and left out: exemplars
/// are examples, and no reason not to start.
pub(super) fn keep(engine: &MetricsEngine, disk: &Arc<dyn Disk>, directory: &Path) {
    let mut records = Vec::new();
    let number = match read(&**disk, &directory.join(FILE), &mut records) {
        Ok(number) => number,
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the exemplars of before are lost here"
            );
            0
        }
    };
    let file = File {
        disk: Arc::clone(disk),
        directory: directory.to_owned(),
        number: AtomicU64::new(number),
    };
    let unreadable = engine.keep_exemplars(Arc::new(file), &records);
    if unreadable > 0 {
        tracing::warn!(unreadable, "some exemplars of before are lost here");
    }
}

/// Gives the file's number, 0 if there is none.
fn read(disk: &dyn Disk, path: &Path, records: &mut Vec<Vec<u8>>) -> anyhow::Result<u64> {
    let reader = match PageReader::open(disk, path, PURPOSE) {
        Err(PagesError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let found = reader.scan(&mut |_, record| records.push(record.to_vec()))?;
    if !found.damage.is_empty() {
        tracing::warn!(path = %path.display(), "some exemplars of before are lost here: the file is damaged");
    }
    Ok(reader.header().number)
}

impl ExemplarsFile for File {
    fn replace(&self, records: &[Vec<u8>]) -> Result<(), BlocksError> {
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
        for record in records {
            group.push(&[record]);
        }
        let header = FileHeader {
            purpose: PURPOSE,
            lineage: 0,
            number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
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
