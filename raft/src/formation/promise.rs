//! The promise file: the one founding that this node has promised, for ever.

use super::Founding;
use crate::{MetadataError, codec, files};
use std::path::Path;
use trefoil_store_pages::Disk;

const NAME: &str = "promise";

/// The promise in the directory `meta/`; none when none was made.
///
/// # Errors
/// [`MetadataError::Damaged`] when there is one that cannot be read.
pub(crate) fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Founding>, MetadataError> {
    let Some(bytes) = files::read(disk, &directory.join(NAME))? else {
        return Ok(None);
    };
    let founding = codec::decode(codec::Kind::Promise, &bytes);
    founding.map(Some).map_err(|error| MetadataError::Damaged {
        reason: format!("promise: {error}"),
    })
}

/// Makes the promise, durably.
///
/// # Errors
/// [`MetadataError::Disk`]; the promise may be there after a restart, and holds then.
pub(crate) fn write(
    disk: &dyn Disk,
    directory: &Path,
    founding: &Founding,
) -> Result<(), MetadataError> {
    let bytes = codec::encode(codec::Kind::Promise, founding)?;
    files::replace(disk, directory, NAME, &bytes)
}

/// Takes a promise back, when the cluster that it was for has begun and the node gives up its vote
/// in it. The node still belongs to that cluster, so it does not found another.
///
/// # Errors
/// [`MetadataError::Disk`].
pub(crate) fn withdraw(disk: &dyn Disk, directory: &Path) -> Result<(), MetadataError> {
    let failed = |source| MetadataError::disk("withdraw promise", source);
    match disk.remove(&directory.join(NAME)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(()) => disk.sync_dir(directory).map_err(failed),
    }
}
