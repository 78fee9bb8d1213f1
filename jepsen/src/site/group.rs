//! A control group for one host: its share of the processors, and its memory.
//!
//! Version 1 and 2 of the kernel's interface; where neither may be written the limit is refused, never ignored.

use super::record::{Made, Record};
use anyhow::{Context, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The period over which a quota is counted, in microseconds (the kernel's default).
const PERIOD_US: u64 = 100_000;

/// The groups of one host; version 1 has one for each kind of limit. The record removes them.
#[derive(Default)]
pub(super) struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes what the limits need; nothing where there are none.
    ///
    /// # Errors
    /// When the kernel does not let this process set one of them.
    pub(super) fn create(
        record: &Record,
        name: &str,
        cores: Option<f64>,
        memory_bytes: Option<u64>,
    ) -> anyhow::Result<Self> {
        let mut groups = Self::default();
        if let Some(cores) = cores {
            let quota_us = (cores * PERIOD_US as f64) as u64;
            let first = ("cpu", "cpu.cfs_quota_us", quota_us.to_string());
            let second = ("cpu.max", format!("{quota_us} {PERIOD_US}"));
            groups.limit(record, name, first, second)?;
        }
        if let Some(bytes) = memory_bytes {
            let first = ("memory", "memory.limit_in_bytes", bytes.to_string());
            let second = ("memory.max", bytes.to_string());
            groups.limit(record, name, first, second)?;
        }
        Ok(groups)
    }

    fn limit(
        &mut self,
        record: &Record,
        name: &str,
        (kind, first_file, first_value): (&str, &str, String),
        (second_file, second_value): (&str, String),
    ) -> anyhow::Result<()> {
        let root = Path::new("/sys/fs/cgroup");
        let of_kind = root.join(kind);
        let (folder, file, value) = if of_kind.is_dir() {
            (of_kind.join(name), first_file, first_value)
        } else if root.join("cgroup.controllers").is_file() {
            (root.join(name), second_file, second_value)
        } else {
            bail!("no control groups are mounted");
        };
        if !self.0.contains(&folder) {
            record.note(Made::Group, &folder)?;
            fs::create_dir(&folder).context("make a control group")?;
            self.0.push(folder.clone());
        }
        fs::write(folder.join(file), value).with_context(|| format!("set {file}"))
    }

    /// Their folders.
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.0
    }
}
