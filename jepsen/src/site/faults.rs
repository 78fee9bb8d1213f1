//! Faults inside a host's process, by a small library that is preloaded into it: syncs that fail or are slow, and a
//! wall clock that is wrong. See `jepsen/faults/faults.c`.
//!
//! The library is compiled once per site with `cc`. It is steered by one page that it shares with the harness,
//! so a fault begins and ends while the process runs, and it counts there what it did. It needs no rights, but a
//! program that is linked dynamically with glibc: others do not load it, which the count of loads shows.
//!
//! Native byte order; the page lives as long as its host:
//!
//! ```text
//!  0 u32 magic "TFLT"       24 i64 clock rate, ppb    56 u64 loads
//!  4 u32 version            32 i64 clock anchor, ns   64 u64 syncs that failed
//!  8 u64 sequence           40 i64 sync delay, ns     72 u64 syncs that were delayed
//! 16 i64 clock offset, ns   48 i64 sync errno         80 u64 readings of the wall clock
//! ```
//!
//! The sequence is odd while offset, rate and anchor are written.

use anyhow::{Context, ensure};
use rustix::{
    io::Errno,
    time::{ClockId, clock_gettime},
};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const SOURCE: &str = include_str!("../../faults/faults.c");
const MAGIC: u32 = 0x544c_4654;
const VERSION: u32 = 1;
const PAGE_BYTES: usize = 4096;
/// Offsets in the page.
const SEQUENCE: u64 = 8;
const CLOCK: u64 = 16;
const SYNC_DELAY: u64 = 40;
const SYNC_ERRNO: u64 = 48;
const COUNTS: u64 = 56;

/// The variable that names the page to the library.
pub(super) const CONTROL_VARIABLE: &str = "FAULTS_CONTROL";

/// What the library did, over all processes of a host since the site was made. A run that asked for a fault checks
/// here that it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Processes that loaded it.
    pub loads: u64,
    /// Syncs that were made to fail.
    pub syncs_failed: u64,
    /// Syncs that were delayed.
    pub syncs_delayed: u64,
    /// How often the wall clock was read.
    pub clock_readings: u64,
}

/// Compiles the library into a folder; its path.
///
/// # Errors
/// When there is no working `cc`.
pub(super) fn compile(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (folder.join("faults.c"), folder.join("faults.so"));
    fs::write(&source, SOURCE)?;
    let compiled = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .context("run cc")?;
    ensure!(
        compiled.status.success(),
        "cc: {}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    Ok(library)
}

/// The page of one host.
pub(super) struct Faults {
    path: PathBuf,
    page: File,
    clock: ClockError,
}

/// How far a wall clock is wrong: by `offset_ns` at the anchor, and by `rate_ppb` more for each second since.
#[derive(Clone, Copy, Debug, Default)]
struct ClockError {
    offset_ns: i64,
    rate_ppb: i64,
    anchor_ns: i64,
}

impl ClockError {
    fn offset_at(&self, monotonic_ns: i64) -> i64 {
        let elapsed = i128::from(monotonic_ns - self.anchor_ns);
        let drifted = elapsed * i128::from(self.rate_ppb) / 1_000_000_000;
        self.offset_ns + i64::try_from(drifted).unwrap_or(0)
    }
}

impl Faults {
    /// A page without faults.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn create(path: PathBuf) -> anyhow::Result<Self> {
        let page = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        let mut bytes = [0; PAGE_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_ne_bytes());
        page.write_all_at(&bytes, 0)?;
        Ok(Self {
            path,
            page,
            clock: ClockError::default(),
        })
    }

    /// The page's file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the library did so far.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub(super) fn counts(&self) -> anyhow::Result<FaultCounts> {
        let mut bytes = [0; 32];
        self.page.read_exact_at(&mut bytes, COUNTS)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let [loads, syncs_failed, syncs_delayed, clock_readings] =
            [0, 1, 2, 3].map(|place| u64::from_ne_bytes(numbers[place]));
        Ok(FaultCounts {
            loads,
            syncs_failed,
            syncs_delayed,
            clock_readings,
        })
    }

    /// How long every sync takes longer.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub(super) fn delay_syncs(&self, delay: Duration) -> anyhow::Result<()> {
        self.write(SYNC_DELAY, &[i64::try_from(delay.as_nanos())?])
    }

    /// Whether every sync fails with `EIO`.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub(super) fn fail_syncs(&self, fail: bool) -> anyhow::Result<()> {
        let error = if fail { Errno::IO.raw_os_error() } else { 0 };
        self.write(SYNC_ERRNO, &[error.into()])
    }

    /// Sets how far the clock is ahead now; it goes on drifting as it did.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub(super) fn set_clock_offset(&mut self, offset_ns: i64) -> anyhow::Result<()> {
        self.write_clock(ClockError {
            offset_ns,
            rate_ppb: self.clock.rate_ppb,
            anchor_ns: monotonic_ns(),
        })
    }

    /// Sets by how many billionths the clock is too fast from now on; it does not jump.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub(super) fn set_clock_rate(&mut self, rate_ppb: i64) -> anyhow::Result<()> {
        let anchor_ns = monotonic_ns();
        self.write_clock(ClockError {
            offset_ns: self.clock.offset_at(anchor_ns),
            rate_ppb,
            anchor_ns,
        })
    }

    fn write_clock(&mut self, clock: ClockError) -> anyhow::Result<()> {
        let mut sequence = [0; 8];
        self.page.read_exact_at(&mut sequence, SEQUENCE)?;
        let sequence = i64::from_ne_bytes(sequence);
        self.write(SEQUENCE, &[sequence + 1])?;
        self.write(CLOCK, &[clock.offset_ns, clock.rate_ppb, clock.anchor_ns])?;
        self.write(SEQUENCE, &[sequence + 2])?;
        self.clock = clock;
        Ok(())
    }

    fn write(&self, offset: u64, numbers: &[i64]) -> anyhow::Result<()> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        self.page
            .write_all_at(&bytes, offset)
            .context("switch a fault")
    }
}

fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
