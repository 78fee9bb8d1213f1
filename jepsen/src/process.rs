//! A child process with its log in a file, signals, and free ports for it.

use crate::CpuQuota;
use anyhow::{Context, bail};
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a process may take to end by itself before it is killed.
const STOP_WAIT_MAX: Duration = Duration::from_secs(30);
/// Lines of a log that a failure shows.
const LOG_LINES_SHOWN: usize = 40;

/// Below the ports that Linux gives to outgoing connections (from 32768 on): those could be taken in the moment between
/// a look and a node's start, or while a node is down.
const PORTS: Range<u16> = 10_000..32_000;

/// Loopback ports that are free at the moment.
pub struct FreePort;

impl FreePort {
    /// A port that is free for TCP and UDP, and that this process was not given before (but after 22,000 others).
    /// Another program could take it before it is used, yet only one that asks for this very port.
    ///
    /// # Errors
    /// When none is found in a hundred tries.
    pub fn find() -> anyhow::Result<SocketAddr> {
        /// Begins anywhere: other processes look for ports, too.
        static TRIED: LazyLock<AtomicUsize> =
            LazyLock::new(|| AtomicUsize::new(rand::random_range(0..PORTS.len())));
        for _ in 0..100 {
            let place = TRIED.fetch_add(1, Ordering::Relaxed) % PORTS.len();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + place as u16));
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return Ok(address);
            }
        }
        bail!("no loopback port is free for both TCP and UDP")
    }
}

/// A running child. Killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    quota: Option<CpuQuota>,
}

impl Process {
    /// Starts the program; what it says is appended to `log`.
    ///
    /// # Errors
    /// When the log or the process cannot be made.
    pub fn start(command: &mut Command, log: &Path, quota: Option<f64>) -> anyhow::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {:?}", command.get_program()))?;
        let quota = quota.and_then(|cores| CpuQuota::give(child.id(), cores));
        Ok(Self {
            child,
            log: log.to_owned(),
            quota,
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether a processor quota was wanted and is in force.
    #[must_use]
    pub fn has_quota(&self) -> bool {
        self.quota.is_some()
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    /// With the status and the log's last lines.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended with {status}; its log:\n{}", log_tail(&self.log)),
        }
    }

    /// How the process has ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("look at a process")
    }

    /// SIGKILL, and waits until the process is gone.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill a process")?;
        self.child.wait().context("wait for a killed process")?;
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal("CONT")
    }

    /// SIGTERM; waits for the process to end by itself. One that has ended already did so.
    ///
    /// # Errors
    /// When it does not end within 30 s (it is killed then).
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal("TERM")?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_WAIT_MAX {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()?;
        bail!(
            "did not end within {STOP_WAIT_MAX:?} of SIGTERM; its log:\n{}",
            log_tail(&self.log)
        )
    }

    /// Signals through the shell, which needs no unsafe code. The child was not waited for, so its id
    /// is its own.
    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.child.id())])
            .status()
            .context("signal a process")?;
        if !status.success() {
            bail!("signal {name}: {status}");
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The last lines of a log file, for a failure's message.
pub(crate) fn log_tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
