//! Telling a full disk from a broken one: the first passes, so it is waited for.

use std::{error::Error, io};

/// Whether an error comes of a disk that is full or over quota; looks through whatever it is wrapped in.
#[must_use]
pub fn is_full_disk(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
            return match error.get_ref() {
                Some(inner) => is_full_disk(inner),
                None => full.contains(&error.kind()),
            };
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PagesError;

    #[test]
    fn only_a_full_disk_is_full_however_it_is_wrapped() {
        let of = |code| {
            let source = io::Error::from_raw_os_error(code);
            PagesError::Io {
                action: "append",
                path: "/file".into(),
                source,
            }
        };
        for (code, full) in [
            (libc::ENOSPC, true),
            (libc::EDQUOT, true),
            (libc::EIO, false),
        ] {
            assert_eq!(is_full_disk(&of(code)), full);
            assert_eq!(is_full_disk(&io::Error::other(of(code))), full);
        }
        assert!(!is_full_disk(&io::Error::other("another reason")));
    }
}
