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
    remove_unfinished(disk, &unfinished)?;
    let write = || {
        let file = disk.create(&unfinished)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        disk.rename(&unfinished, &directory.join(name))?;
        disk.sync_dir(directory)
    };
    write().map_err(|source| {
        // On a full disk it would take the space that others wait for.
        drop_unfinished(disk, &unfinished);
        failed(source)
    })
}

/// Removes what writes that never ended have left in a directory.
///
/// # Errors
/// [`MetadataError::Disk`].
pub(crate) fn clean(disk: &dyn Disk, directory: &Path) -> Result<(), MetadataError> {
    let names = disk
        .list(directory)
        .map_err(|source| MetadataError::disk("list metadata directory", source))?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        remove_unfinished(disk, &directory.join(name))?;
    }
    Ok(())
}

/// Removes a file that is not complete, if it is there.
///
/// # Errors
/// [`MetadataError::Disk`].
pub(crate) fn remove_unfinished(disk: &dyn Disk, path: &Path) -> Result<(), MetadataError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(MetadataError::disk("remove unfinished file", error))
        }
        _ => Ok(()),
    }
}

/// Removes a file whose writing has failed; one that stays is removed when it is begun again.
pub(crate) fn drop_unfinished(disk: &dyn Disk, path: &Path) {
    if let Err(error) = remove_unfinished(disk, path) {
        tracing::warn!(path = %path.display(), %error, "an unfinished file stays for now");
    }
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
