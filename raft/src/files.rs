//! Small files that are replaced as a whole: after a crash either the old or the new content is
//! there.

use crate::MetadataError;
use std::io;
use std::path::Path;
use trefoil_store_pages::Disk;

/// Suffix of a file that is not complete yet.
const UNFINISHED: &str = ".unfinished";

/// Replaces the content of `directory/name`, durably. The name's directory must exist.
///
/// # Errors
/// [`MetadataError::Disk`]; the old content may or may not be replaced.
pub(crate) fn replace(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), MetadataError> {
    let failed = |source| MetadataError::disk("replace file in the metadata directory", source);
    let unfinished = directory.join(format!("{name}{UNFINISHED}"));
    match disk.remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = disk.create(&unfinished).map_err(failed)?;
    file.write_at(bytes, 0).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    disk.rename(&unfinished, &directory.join(name))
        .map_err(failed)?;
    disk.sync_dir(directory).map_err(failed)
}

/// The content of a file; none when there is no such file.
///
/// # Errors
/// [`MetadataError::Disk`].
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, MetadataError> {
    let failed = |source| MetadataError::disk("read file in the metadata directory", source);
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let length = file.length().map_err(failed)?;
    let mut bytes = vec![0; length as usize];
    let read = file.read_at(&mut bytes, 0).map_err(failed)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
