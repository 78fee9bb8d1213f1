//! One host: what runs on it, and what can be done to it.

use super::{
    damage::{DamagePlace, Tear, copy_folder, flip_bits, tear_tail},
    disk::Disk,
    faults::{CONTROL_VARIABLE, FaultCounts, Faults},
    group::Groups,
    launch,
};
use crate::{Process, net::inside, trefoil_binary};
use anyhow::{Context, bail, ensure};
use std::{
    fmt, fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the threads of a stopped process may be inside the kernel.
const FREEZE_MAX: Duration = Duration::from_secs(10);
/// How long a new process may take until it has loaded the faults.
const LOAD_MAX: Duration = Duration::from_secs(5);

/// What all hosts of a site share.
pub(super) struct Environment {
    pub(super) record: PathBuf,
    /// The faults library, or why there is none.
    pub(super) library: Result<PathBuf, String>,
    pub(super) seed: u64,
}

/// Where a host is.
pub(super) struct Place {
    pub(super) http: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) advertised: SocketAddr,
    pub(super) namespace: Option<PathBuf>,
    pub(super) disk: Option<Disk>,
    pub(super) groups: Groups,
}

/// Faults that not every site can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// [`Host::power_cut`].
    PowerCut,
    /// [`Host::fill_disk`].
    FullDisk,
    /// [`Host::make_read_only`].
    ReadOnlyDisk,
    /// [`Host::slow_syncs`].
    SlowSyncs,
    /// [`Host::fail_syncs`].
    FailingSyncs,
    /// [`Host::set_clock_offset`] and [`Host::set_clock_rate`].
    WrongClock,
}

/// A host. What runs on it is killed when it is dropped.
pub struct Host {
    /// Its name, `node-1` for the first.
    pub name: String,
    /// Where its HTTP server listens.
    pub http: SocketAddr,
    /// Where it listens for its peers.
    pub peer: SocketAddr,
    /// Where its peers look for it: the same but on loopback, where a relay listens there.
    pub advertised: SocketAddr,
    /// Its failure zone, where it has one.
    pub zone: Option<String>,
    /// How many other addresses it has had.
    pub(super) generation: u8,
    pub(super) environment: Arc<Environment>,
    folder: PathBuf,
    log: PathBuf,
    namespace: Option<PathBuf>,
    disk: Option<Disk>,
    groups: Groups,
    faults: Faults,
    /// How often the faults had been loaded when the process was started.
    loads_before: u64,
    process: Option<Process>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.http)
    }
}

impl Host {
    pub(super) fn new(
        name: String,
        zone: Option<String>,
        folder: PathBuf,
        log: PathBuf,
        place: Place,
        faults: Faults,
        environment: Arc<Environment>,
    ) -> Self {
        Self {
            name,
            http: place.http,
            peer: place.peer,
            advertised: place.advertised,
            zone,
            generation: 0,
            environment,
            folder,
            log,
            namespace: place.namespace,
            disk: place.disk,
            groups: place.groups,
            faults,
            loads_before: 0,
            process: None,
        }
    }

    /// The base URL of its HTTP server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Its data directory, on its disk. It is there after the first start.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where its disk is mounted.
    #[must_use]
    pub fn disk(&self) -> &Path {
        &self.folder
    }

    /// The file with all that its processes have said. It stays after the run.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The file of its network namespace; `None` on loopback.
    #[must_use]
    pub fn namespace(&self) -> Option<&Path> {
        self.namespace.as_deref()
    }

    /// Whether a fault can be made here.
    ///
    /// # Errors
    /// With what is missing.
    pub fn supports(&self, fault: HostFault) -> Result<(), String> {
        match fault {
            HostFault::PowerCut | HostFault::FullDisk | HostFault::ReadOnlyDisk => {
                let disk = self.disk.as_ref();
                disk.map(drop).ok_or("needs a disk of its own".to_owned())
            }
            HostFault::SlowSyncs | HostFault::FailingSyncs | HostFault::WrongClock => {
                self.environment.library.as_ref().map_err(String::clone)?;
                self.check_loaded().map_err(|error| format!("{error:#}"))
            }
        }
    }

    /// Fails when what runs does not load the faults. It may just be about to.
    fn check_loaded(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.process.is_some() && self.faults.counts()?.loads == self.loads_before {
            ensure!(
                begun.elapsed() < LOAD_MAX,
                "what runs on {} does not load the faults: it is linked statically, or has ended",
                self.name
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Starts a node on it: `trefoil serve` with its data directory, addresses and zone. Does not wait for it.
    ///
    /// # Errors
    /// When something runs already, or the program cannot be built or started.
    pub fn start(
        &mut self,
        seeds: &[SocketAddr],
        expect: usize,
        extra: &[&str],
    ) -> anyhow::Result<()> {
        let mut arguments = vec!["serve".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--data-dir", self.data().display().to_string());
        flag("--node-name", self.name.clone());
        flag("--http", self.http.to_string());
        flag("--peer", self.peer.to_string());
        flag("--otlp-grpc", "off".to_owned());
        flag("--otlp-http", "off".to_owned());
        flag("--advertise", self.advertised.ip().to_string());
        flag("--bootstrap-expect", expect.to_string());
        if let Some(zone) = &self.zone {
            flag("--zone", zone.clone());
        }
        if !seeds.is_empty() {
            let seeds: Vec<String> = seeds.iter().map(SocketAddr::to_string).collect();
            flag("--seeds", seeds.join(","));
        }
        arguments.extend(extra.iter().map(|&word| word.to_owned()));
        self.start_program(&trefoil_binary()?, &arguments)
    }

    /// Starts any program on it in place of a node, under the same faults.
    ///
    /// # Errors
    /// When something runs already, or it cannot be started.
    pub fn start_program(&mut self, program: &Path, arguments: &[String]) -> anyhow::Result<()> {
        ensure!(!self.is_running(), "{} runs already", self.name);
        let mut command = self.command(program);
        command.args(arguments);
        self.loads_before = self.faults.counts()?.loads;
        let started = self.inside(|| Process::start(&mut command, &self.log, None));
        self.process = Some(started?);
        Ok(())
    }

    /// Runs a program on it to its end, beside what else runs, under the same faults.
    ///
    /// # Errors
    /// When it cannot be started; its own failure is in its status.
    pub fn output(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.command(Path::new(program));
        command.args(arguments);
        self.inside(|| command.output().with_context(|| format!("run {program}")))
    }

    /// The command of a program on this host. Ctrl-C in a terminal is for the harness alone.
    fn command(&self, program: &Path) -> Command {
        let preload = self.environment.library.as_ref().ok();
        let record = &self.environment.record;
        let mut command = launch(record, preload.map(PathBuf::as_path), &self.groups, program);
        // What is set for the harness is not meant for the nodes.
        let settings = std::env::vars_os().map(|(name, _)| name);
        for name in settings.filter(|name| name.to_string_lossy().starts_with("TREFOIL_")) {
            command.env_remove(name);
        }
        command.env(CONTROL_VARIABLE, self.faults.path());
        command.process_group(0);
        command
    }

    /// Does something in the host's network: what it starts belongs there.
    fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        match &self.namespace {
            Some(namespace) => inside(namespace, work),
            None => work(),
        }
    }

    /// Whether its process is there; a paused one is.
    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| matches!(process.status(), Ok(None)))
    }

    /// How its process ended, when it did so by itself and nothing was started since.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.status().ok()?
    }

    /// The process id of what was started last, if nobody ended it.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    fn process(&mut self) -> anyhow::Result<&mut Process> {
        let name = &self.name;
        self.process
            .as_mut()
            .with_context(|| format!("nothing was started on {name}"))
    }

    /// SIGKILL; the process is gone afterwards. One that has ended by itself is forgotten.
    ///
    /// # Errors
    /// When nothing was started.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// SIGTERM; how the process ended.
    ///
    /// # Errors
    /// When nothing was started, or it does not end within 30 s (it is killed then).
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = self.process()?.stop();
        self.process = None;
        ended
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When nothing was started.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.process()?.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When nothing was started.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.process()?.resume()
    }

    /// Pauses the process, if there is one, and waits until none of its threads does anything.
    pub(super) fn freeze_before_cut(&mut self) -> anyhow::Result<()> {
        self.mounted()?;
        if !self.is_running() {
            return Ok(());
        }
        self.pause()?;
        let tasks = format!("/proc/{}/task", self.process()?.id());
        let begun = Instant::now();
        while !all_stopped(Path::new(&tasks))? {
            if begun.elapsed() > FREEZE_MAX {
                bail!("{} does not stop within {FREEZE_MAX:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn mounted(&self) -> anyhow::Result<&Disk> {
        let disk = self.disk.as_ref();
        disk.with_context(|| format!("{} has no disk of its own", self.name))
    }

    /// Cuts its power: the process is gone, and of its disk is left what was synced. The disk is mounted again.
    ///
    /// # Errors
    /// When it has no disk of its own, or the disk does not come back.
    pub fn power_cut(&mut self) -> anyhow::Result<()> {
        self.freeze_before_cut()?;
        self.mounted()?.cut()?;
        self.end_process()?;
        self.mounted()?.renew()
    }

    /// Kills what runs, if anything does.
    fn end_process(&mut self) -> anyhow::Result<()> {
        match self.process {
            Some(_) => self.kill(),
            None => Ok(()),
        }
    }

    /// Takes all space of its disk but so many bytes.
    ///
    /// # Errors
    /// When it has no disk of its own.
    pub fn fill_disk(&self, left_bytes: u64) -> anyhow::Result<()> {
        self.mounted()?.fill(left_bytes)
    }

    /// Gives back what [`Host::fill_disk`] took.
    ///
    /// # Errors
    /// When it has no disk of its own.
    pub fn free_disk(&self) -> anyhow::Result<()> {
        self.mounted()?.free()
    }

    /// Its disk becomes read-only under whatever runs, as after an error of the device: what was not synced may be lost.
    ///
    /// # Errors
    /// When it has no disk of its own, or the kernel cannot do this.
    pub fn make_read_only(&self) -> anyhow::Result<()> {
        self.mounted()?.make_read_only()
    }

    /// Kills what runs, checks and repairs the disk, and mounts it writable again, as an operator would.
    ///
    /// # Errors
    /// When it has no disk of its own, or the disk cannot be repaired.
    pub fn make_writable(&mut self) -> anyhow::Result<()> {
        self.end_process()?;
        self.mounted()?.make_writable()
    }

    /// From now on every sync takes longer by this; zero: as usual.
    ///
    /// # Errors
    /// When it cannot be done here.
    pub fn slow_syncs(&self, delay: Duration) -> anyhow::Result<()> {
        self.need(HostFault::SlowSyncs)?;
        self.faults.delay_syncs(delay)
    }

    /// From now on every sync fails with `EIO` and does nothing, or no longer.
    ///
    /// # Errors
    /// When it cannot be done here.
    pub fn fail_syncs(&self, fail: bool) -> anyhow::Result<()> {
        self.need(HostFault::FailingSyncs)?;
        self.faults.fail_syncs(fail)
    }

    /// Its wall clock is from now on ahead by so many nanoseconds (behind, if negative), and drifts on as before. Monotonic
    /// time stays honest.
    ///
    /// # Errors
    /// When it cannot be done here.
    pub fn set_clock_offset(&mut self, offset_ns: i64) -> anyhow::Result<()> {
        self.need(HostFault::WrongClock)?;
        self.faults.set_clock_offset(offset_ns)
    }

    /// Its wall clock is from now on too fast by so many billionths (too slow, if negative), without a jump.
    ///
    /// # Errors
    /// When it cannot be done here.
    pub fn set_clock_rate(&mut self, rate_ppb: i64) -> anyhow::Result<()> {
        self.need(HostFault::WrongClock)?;
        self.faults.set_clock_rate(rate_ppb)
    }

    fn need(&self, fault: HostFault) -> anyhow::Result<()> {
        let supported = self.supports(fault);
        supported.map_err(|reason| anyhow::anyhow!("{fault:?} on {}: {reason}", self.name))
    }

    fn stopped_data(&mut self) -> anyhow::Result<PathBuf> {
        ensure!(!self.is_running(), "{} runs", self.name);
        Ok(self.data())
    }

    /// Tears the end of the newest file of a place, while nothing runs; what was done. `None`: there was nothing to tear.
    ///
    /// # Errors
    /// When something runs, or a file cannot be written.
    pub fn tear_tail(
        &mut self,
        place: DamagePlace,
        tear: Tear,
        choice: u64,
    ) -> anyhow::Result<Option<String>> {
        let seed = self.environment.seed ^ choice;
        tear_tail(&self.stopped_data()?, place, tear, seed)
    }

    /// Flips some bits of what is stored in a place, while nothing runs; what was done. `None`: there was nothing.
    ///
    /// # Errors
    /// When something runs, or a file cannot be written.
    pub fn flip_bits(&mut self, place: DamagePlace, choice: u64) -> anyhow::Result<Option<String>> {
        let seed = self.environment.seed ^ choice;
        flip_bits(&self.stopped_data()?, place, seed)
    }

    /// Deletes its data directory, while nothing runs.
    ///
    /// # Errors
    /// When something runs, or it cannot be deleted.
    pub fn delete_data(&mut self) -> anyhow::Result<()> {
        fs::remove_dir_all(self.stopped_data()?).context("delete a data directory")
    }

    /// Keeps a copy of its data directory outside of its disk, in place of an earlier one, while nothing runs.
    ///
    /// # Errors
    /// When something runs, or it cannot be copied.
    pub fn copy_data(&mut self) -> anyhow::Result<()> {
        let data = self.stopped_data()?;
        let copy = self.copy_path();
        if copy.exists() {
            fs::remove_dir_all(&copy).context("delete an old copy")?;
        }
        copy_folder(&data, &copy)
    }

    /// Puts the copy in place of its data directory, as who restores an old backup of a disk, while nothing runs.
    ///
    /// # Errors
    /// When something runs, there is no copy, or it does not fit.
    pub fn restore_data(&mut self) -> anyhow::Result<()> {
        let data = self.stopped_data()?;
        let copy = self.copy_path();
        ensure!(copy.exists(), "{} has no copy of its data", self.name);
        fs::remove_dir_all(&data).context("delete a data directory")?;
        copy_folder(&copy, &data)
    }

    fn copy_path(&self) -> PathBuf {
        self.folder.with_extension("copy")
    }

    /// What the faults inside its processes have done so far.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn fault_counts(&self) -> anyhow::Result<FaultCounts> {
        self.faults.counts()
    }

    /// All that its processes have said.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        fs::read_to_string(&self.log).context("read a log")
    }
}

/// Whether every thread is stopped, or about to be gone.
fn all_stopped(tasks: &Path) -> anyhow::Result<bool> {
    for task in fs::read_dir(tasks)? {
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 't' | 'Z' | 'X')) {
            return Ok(false);
        }
    }
    Ok(true)
}
