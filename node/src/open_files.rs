//! The process' limit of open files: every segment of the journal and every block is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is left for connections, blocks and the metadata plane when the journal has all of its segments.
const RESERVED: u64 = 512;

/// Raises the soft limit to the hard one, which is what systemd and shells leave to the program. Returns
/// how many files may be open; `u64::MAX` for no limit.
pub(crate) fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "raise the limit of open files");
            limit.current.unwrap_or(u64::MAX)
        }
    }
}

/// How many bytes the journal may keep so that it is not stopped by the limit of open files: what was asked
/// for, or less.
pub(crate) fn journal_bytes_within(limit: u64, asked: u64, segment_bytes: u64) -> u64 {
    let segments = limit.saturating_sub(RESERVED).max(limit / 4);
    let possible = segments.saturating_mul(segment_bytes);
    if possible < asked {
        tracing::warn!(
            open_files = limit,
            journal_bytes_max = asked,
            possible,
            "the limit of open files is too low for the journal; it keeps less for absent owners (ulimit -n)"
        );
    }
    asked.min(possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_limit();
        assert_eq!(
            getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            limit
        );
    }

    #[test]
    fn a_low_limit_leaves_the_journal_less() {
        let segment = 4 << 20;
        assert_eq!(journal_bytes_within(100_000, 8 << 30, segment), 8 << 30);
        assert_eq!(journal_bytes_within(1024, 8 << 30, segment), 512 * segment);
        assert_eq!(journal_bytes_within(256, 8 << 30, segment), 64 * segment);
    }
}
