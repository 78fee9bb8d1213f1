//! A processor quota for one process, where the machine's cgroups may be written; else none.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The period over which a quota is counted, in microseconds (the kernel's default).
const PERIOD_US: u64 = 100_000;

/// A cgroup with one process. Removed when dropped, after the process has ended.
pub struct CpuQuota {
    folder: PathBuf,
}

impl CpuQuota {
    /// Limits the process to so many cores, with cgroups of version 1 or 2. `None` where that is not
    /// allowed: a quota makes a small machine fairer, no test depends on it.
    #[must_use]
    pub fn give(process: u32, cores: f64) -> Option<Self> {
        let quota_us = (cores * PERIOD_US as f64) as u64;
        let name = format!("trefoil-test-{process}");
        let candidates = [
            (
                "/sys/fs/cgroup/cpu",
                "cpu.cfs_quota_us",
                quota_us.to_string(),
            ),
            (
                "/sys/fs/cgroup",
                "cpu.max",
                format!("{quota_us} {PERIOD_US}"),
            ),
        ];
        for (parent, file, value) in candidates {
            let folder = Path::new(parent).join(&name);
            // Dropping a half-made one removes its folder.
            let quota = Self { folder };
            if quota.limit(process, file, &value).is_ok() {
                return Some(quota);
            }
        }
        None
    }

    fn limit(&self, process: u32, file: &str, value: &str) -> io::Result<()> {
        fs::create_dir(&self.folder)?;
        fs::write(self.folder.join(file), value)?;
        fs::write(self.folder.join("cgroup.procs"), process.to_string())
    }
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        // Best effort: an empty group that stays costs nothing.
        let _left = fs::remove_dir(&self.folder);
    }
}
