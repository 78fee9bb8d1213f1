//! A disk of one host: an ext4 image behind a loop device, which can lose its power, fill up and become read-only.
//!
//! A power cut is the file system's own: its shutdown call lets nothing more reach the image, not even its log in
//! memory; after mounting it again exactly what was synced is there. It does not model a disk that lies about its
//! cache, nor sectors torn by the cut; [`super::damage`] has those.

use super::{
    commands::run,
    record::{Made, Record},
};
use anyhow::{Context, bail, ensure};
use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
    ioctl::{Setter, ioctl},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a file system may be busy after its last process has ended.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// Between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// What takes the space of a full disk.
const BALLAST: &str = "ballast";
/// `FS_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)` (include/uapi/linux/fs.h since 6.14, before that ext4.h and xfs_fs.h).
const SHUTDOWN: u32 = 0x8004_587d;
/// `FS_SHUTDOWN_FLAGS_NOLOGFLUSH`: at once, and without writing the file system's log.
const WITHOUT_LOG: u32 = 2;

/// One image, attached to a loop device and mounted. The record removes it.
pub(super) struct Disk {
    device: String,
    at: PathBuf,
}

impl Disk {
    /// Makes a sparse image of so many bytes and mounts it at `at`, which it makes too.
    ///
    /// # Errors
    /// When this is not allowed; the record undoes what was made.
    pub(super) fn create(
        record: &Record,
        image: &Path,
        at: &Path,
        bytes: u64,
    ) -> anyhow::Result<Self> {
        File::create_new(image)?.set_len(bytes)?;
        fs::create_dir(at)?;
        let text = path_text(image)?;
        // No blocks are kept for root, as whom the nodes run; an error makes it read-only, as Debian sets it.
        run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-e", "remount-ro", text],
        )?;
        record.note(Made::Loop, image)?;
        let device = run("losetup", &["--find", "--show", text])?;
        let disk = Self {
            device,
            at: at.to_owned(),
        };
        record.note(Made::Mount, at)?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> anyhow::Result<()> {
        let at = path_text(&self.at)?;
        run("mount", &["-t", "ext4", "-o", "noatime", &self.device, at])?;
        Ok(())
    }

    fn unmount(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match run("umount", &[path_text(&self.at)?]) {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > BUSY_MAX => return Err(error),
                Err(_) => std::thread::sleep(BUSY_PAUSE),
            }
        }
    }

    /// From now on nothing reaches the image; every write and sync fails. Processes may run on.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn cut(&self) -> anyhow::Result<()> {
        let folder = File::open(&self.at)?;
        // SAFETY: the kernel reads one u32 through the pointer, which the setter keeps alive for the call.
        let done = unsafe { ioctl(&folder, Setter::<SHUTDOWN, u32>::new(WITHOUT_LOG)) };
        done.context("shut a file system down")
    }

    /// Unmounts, which nothing may use any more, and mounts again.
    ///
    /// # Errors
    /// When it stays busy, or is damaged beyond what a mount repairs.
    pub(super) fn renew(&self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Takes all free space but `left_bytes`.
    ///
    /// # Errors
    /// When the space cannot be taken.
    pub(super) fn fill(&self, left_bytes: u64) -> anyhow::Result<()> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(self.at.join(BALLAST))?;
        loop {
            let taken = file.metadata()?.len();
            let space = statvfs(&self.at)?;
            let free = space.f_bavail * space.f_frsize;
            if free <= left_bytes {
                return Ok(());
            }
            // The file system needs some blocks of its own for what it gives: come closer in steps.
            let mut wanted = free - left_bytes;
            while let Err(error) = fallocate(&file, FallocateFlags::empty(), taken, wanted) {
                ensure!(error == Errno::NOSPC, "fill the disk: {error}");
                wanted /= 2;
                if wanted < space.f_frsize {
                    return Ok(());
                }
            }
        }
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Errors
    /// When that cannot be deleted.
    pub(super) fn free(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.at.join(BALLAST)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("give space back")
            }
            _ => Ok(()),
        }
    }

    /// Makes it read-only under whoever writes to it, as the kernel does after an error of the device.
    ///
    /// # Errors
    /// When the kernel has no such switch, or nothing came of it.
    pub(super) fn make_read_only(&self) -> anyhow::Result<()> {
        let trigger = self.control("trigger_fs_error")?;
        fs::write(trigger, "requested by the harness").context("request a file system error")?;
        match File::create(self.at.join("probe")) {
            Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            Err(error) => Err(error).context("probe a read-only file system"),
            Ok(_) => bail!("{} is still writable", self.at.display()),
        }
    }

    /// Repairs what [`Disk::make_read_only`] did, as an operator would; nothing may use the disk.
    ///
    /// # Errors
    /// When it is busy, or `e2fsck` cannot repair it.
    pub(super) fn make_writable(&self) -> anyhow::Result<()> {
        self.unmount()?;
        // It also says with its status that it has repaired something, so its word is not asked for: the mount's is.
        let checked = std::process::Command::new("e2fsck")
            .args(["-p", &self.device])
            .output()
            .context("run e2fsck")?;
        // 0: clean, 1: repaired; all others ask for a human.
        ensure!(
            matches!(checked.status.code(), Some(0 | 1)),
            "e2fsck: {}: {}",
            checked.status,
            String::from_utf8_lossy(&checked.stdout)
        );
        self.mount()
    }

    /// A file below `/sys/fs/ext4` for this device.
    fn control(&self, name: &str) -> anyhow::Result<PathBuf> {
        let device = Path::new(&self.device).file_name();
        let device = device.context("a loop device without a name")?;
        Ok(Path::new("/sys/fs/ext4").join(device).join(name))
    }
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is text")
}
