//! The record of what a site has made outside of its own memory, and its removal.
//!
//! Every namespace, mount, loop device, control group, folder and process is written to the record before it is
//! made (a process: by itself, before it becomes the program). A *reaper*, a shell in a process group of its own, waits for
//! the end of a pipe that only this process holds. So the same script removes everything when the site is
//! dropped, after a panic, Ctrl-C or SIGKILL. When the reaper was killed too, the record stays behind, under the
//! process id and start time of its owner; the next site removes what owners left that are gone.
//!
//! Records lie where only their user may write, since the script believes them.

use anyhow::{Context, ensure};
use std::{
    fs::{self, DirBuilder, File},
    io::Write,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Removes what a record names; its argument is the record.
const UNDO: &str = include_str!("undo.sh");
/// Precedes [`UNDO`] in the reaper: signals to a whole session must not end it, the pipe's end does.
const AWAIT_OWNER: &str = "trap '' HUP INT TERM\ncat >/dev/null\n";

/// Sites that this process has made.
static SITES: AtomicU32 = AtomicU32::new(0);

/// What must be removed at the end. Everything on it is removed when it is dropped.
pub(super) struct Record {
    path: PathBuf,
    name: String,
    reaper: Child,
}

impl Record {
    /// Opens a record for one more site of this process, after removing what dead owners left.
    ///
    /// # Errors
    /// When records cannot be kept here, or what another site left cannot be removed.
    pub(super) fn open() -> anyhow::Result<Self> {
        let folder = records_folder()?;
        remove_leftovers(&folder)?;
        let process = std::process::id();
        let started = start_time(process).context("read this process' start time")?;
        let site = SITES.fetch_add(1, Ordering::Relaxed);
        let name = format!("trefoil-{process}-{site}");
        // Other processes read what the name says at any time, and the file only when its owner is gone.
        let path = folder.join(format!("{name}.{started}"));
        File::create_new(&path).context("begin a record")?;
        let reaper = Command::new("sh")
            .args(["-c", &format!("{AWAIT_OWNER}{UNDO}"), "reaper"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the reaper")?;
        Ok(Self { path, name, reaper })
    }

    /// Begins the name of everything that the site makes: unique on this machine while this process lives.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The file, for [`super::launch`].
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The process that removes everything at the end.
    #[cfg(test)]
    pub(super) fn reaper_id(&self) -> u32 {
        self.reaper.id()
    }

    /// Notes what is about to be made.
    ///
    /// # Errors
    /// When it cannot be written; then it must not be made.
    pub(super) fn note(&self, kind: Made, what: &Path) -> anyhow::Result<()> {
        let what = what.to_str().context("a name that is text")?;
        ensure!(!what.contains('\n'), "a line break in {what:?}");
        let kind = match kind {
            Made::Namespace => "namespace",
            Made::Group => "group",
            Made::Mount => "mount",
            Made::Loop => "loop",
            Made::Folder => "folder",
        };
        let mut file = File::options().append(true).open(&self.path)?;
        file.write_all(format!("{kind} {what}\n").as_bytes())
            .context("write to the record")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Closing the pipe is the signal.
        drop(self.reaper.stdin.take());
        match self.reaper.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("what {} had made was not all removed: {status}", self.name),
            Err(error) => eprintln!("wait for the reaper of {}: {error}", self.name),
        }
    }
}

/// What can be on a record, apart from processes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Made {
    /// A network namespace, by its name. Processes in it are ended.
    Namespace,
    /// A control group, by its folder. Processes in it are ended.
    Group,
    /// Whatever is mounted at a path.
    Mount,
    /// Loop devices of an image.
    Loop,
    /// A folder with all that it has, except for what other file systems have there.
    Folder,
}

/// The folder for this user's records; made where it is missing.
fn records_folder() -> anyhow::Result<PathBuf> {
    let user = rustix::process::geteuid();
    let folder = if user.is_root() {
        PathBuf::from("/run/trefoil-jepsen")
    } else {
        std::env::temp_dir().join(format!("trefoil-jepsen-{}", user.as_raw()))
    };
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder);
    made.with_context(|| format!("make {}", folder.display()))?;
    let found = fs::symlink_metadata(&folder)?;
    let private = found.is_dir() && found.uid() == user.as_raw() && found.mode() & 0o022 == 0;
    ensure!(private, "others may write to {}", folder.display());
    Ok(folder)
}

/// Undoes the records of processes that are gone.
fn remove_leftovers(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let (process, started) =
            owner_of(&path).with_context(|| format!("{} is no record", path.display()))?;
        let alive = start_time(process) == Some(started);
        if alive {
            continue;
        }
        let status = Command::new("sh")
            .args(["-c", UNDO, "undo"])
            .arg(&path)
            .status()
            .context("remove what an earlier site left")?;
        ensure!(
            status.success(),
            "what {} names was not all removed",
            path.display()
        );
    }
    Ok(())
}

/// The process id and start time of a record's owner, from its name `trefoil-<process>-<site>.<start time>`.
fn owner_of(record: &Path) -> Option<(u32, u64)> {
    let name = record.file_name()?.to_str()?;
    let (name, started) = name.strip_prefix("trefoil-")?.split_once('.')?;
    let (process, _) = name.split_once('-')?;
    Some((process.parse().ok()?, started.parse().ok()?))
}

/// When a process was started, in ticks since the machine's start; `None` when there is none.
fn start_time(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The command's name may contain anything, even parentheses, but nothing after it does.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19)?.parse().ok()
}
