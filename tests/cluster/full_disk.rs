//! A node whose disk fills up: it refuses, the others go on, nothing is lost, and it comes back by itself.
//!
//! Needs the right to mount a small file system; says so and does nothing where it is lacking.

use crate::{FAULT, SETTLE, check_end, stations};
use anyhow::{Context, ensure};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{
    Clock, Cluster, Exclusive, Load, LoadPlan, check_answers, ready_seconds_max, wait_until,
};
use trefoil_model::Labels;

/// Room for some of the journal's segments: what it reserves for each (4 MiB, or a large group).
const SMALL: &str = "24m";
/// Room for a whole data directory after some seconds of a small load.
const SMALL_DATA: &str = "128m";
/// Room for all that follows.
const LARGE: &str = "1g";
/// Series per request of what fills the disk, and the bytes of each one's label, which compress badly.
const FILLING_SERIES: u64 = 2_000;
const FILLING_LABEL_BYTES: usize = 1_500;
/// Requests after which a segment must be full several times over.
const FILLING_REQUESTS_MAX: u64 = 200;
/// How long a stalled node may take to notice that there is space, and to fetch what it lacks.
const BACK_SECONDS_MAX: u64 = 60;
/// No request may fail for longer than this at a node that nothing happened to.
const ERROR_WINDOW_MAX: Duration = Duration::from_secs(1);

/// A file system in memory; detached when dropped.
struct Mount(PathBuf);

impl Mount {
    fn small(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .status();
        let mounted = status.is_ok_and(|status| status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    fn enlarge(&self) -> anyhow::Result<()> {
        let options = format!("remount,size={LARGE}");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status()?;
        ensure!(status.success(), "enlarge the file system: {status}");
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the node still runs when a test fails. There is nobody to tell.
        let _detached = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Puts the journal of a stopped node on a small file system.
fn move_journal(data: &Path) -> anyhow::Result<Option<Mount>> {
    let (journal, aside) = (data.join("journal"), data.join("journal.aside"));
    fs::rename(&journal, &aside)?;
    fs::create_dir(&journal)?;
    let Some(mount) = Mount::small(&journal, SMALL) else {
        return Ok(None);
    };
    for entry in fs::read_dir(&aside)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(".segment") {
            fs::copy(entry.path(), journal.join(name)).context("copy the journal")?;
        }
    }
    fs::remove_dir_all(&aside)?;
    Ok(Some(mount))
}

/// Puts everything that a stopped node has on a small file system, and fills that to its end.
fn move_data(data: &Path) -> anyhow::Result<Option<Mount>> {
    let aside = data.with_extension("aside");
    fs::rename(data, &aside)?;
    fs::create_dir(data)?;
    let Some(mount) = Mount::small(data, SMALL_DATA) else {
        return Ok(None);
    };
    let copied = Command::new("cp")
        .arg("-a")
        .arg(aside.join("."))
        .arg(data)
        .status()?;
    ensure!(copied.success(), "copy the data: {copied}");
    fs::remove_dir_all(&aside)?;
    let mut filler = fs::File::create(data.join("filler"))?;
    let refused = loop {
        if let Err(error) = filler.write_all(&[0; 4096]) {
            break error;
        }
    };
    ensure!(
        refused.kind() == io::ErrorKind::StorageFull,
        "fill the file system: {refused}"
    );
    Ok(Some(mount))
}

/// A request that takes some megabytes in a journal.
fn filling(request: u64) -> Vec<u8> {
    let mut state = request;
    let mut letter = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        char::from(b'0' + ((state >> 33) % 64) as u8)
    };
    let series: Vec<Labels> = (0..FILLING_SERIES)
        .map(|_| {
            let text: String = (0..FILLING_LABEL_BYTES).map(|_| letter()).collect();
            Labels::from_pairs([("__name__", "trefoil_test_filling"), ("text", &text)])
        })
        .collect();
    let samples = [(Clock::now_millis(), 1.0)];
    encode(series.iter().map(|labels| (labels, samples.as_slice())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_one_owner_and_nothing_else() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut load = Load::start("load", &stations(&cluster, &[0, 2]), &LoadPlan::default());
    load.go_on(SETTLE).await;
    cluster.stop(1)?;
    let Some(mount) = move_journal(cluster.nodes()[1].data())? else {
        println!("not run: a file system cannot be mounted here");
        return load.stop().await;
    };
    cluster.start_node(1)?;
    cluster.wait_ready(BACK_SECONDS_MAX).await?;

    let mut requests = 0;
    let ready = format!("{}/-/ready", cluster.url(1));
    let full = loop {
        let body = filling(requests);
        cluster.client().remote_write(&cluster.url(0), body).await?;
        requests += 1;
        let answer = cluster.client().get(&ready).await?;
        if !answer.is_success() && answer.text().contains("full") {
            break std::time::Instant::now();
        }
        ensure!(
            requests < FILLING_REQUESTS_MAX,
            "the disk is not full: {}",
            answer.text()
        );
    };
    load.go_on(FAULT).await;
    load.check_windows(&[0, 2], (full, std::time::Instant::now()), ERROR_WINDOW_MAX)?;
    // The full node still answers completely, with the others' help.
    check_answers(&cluster, &load.ledgers()).await?;

    // A restart needs no more space than there is, and ends as it should.
    cluster.stop(1)?;
    cluster.start_node(1)?;
    let answers = wait_until(
        "it is back and still full",
        Duration::from_secs(BACK_SECONDS_MAX),
        || async {
            let answer = cluster.client().get(&ready).await?;
            ensure!(answer.text().contains("full"), "{}", answer.text());
            Ok(())
        },
    );
    answers.await?;

    mount.enlarge()?;
    cluster.wait_ready(BACK_SECONDS_MAX).await?;
    load.go_on(SETTLE).await;
    load.stop().await?;
    load.check_honesty()?;
    check_end(&cluster, &load.ledgers()).await?;
    cluster.stop(1)
}

/// Starts copy logs to fresh files. Without space for that a node waits: it lives, says why it is not ready, ends when it
/// is told to, and goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_on_a_full_disk_when_there_is_space() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut load = Load::start("load", &stations(&cluster, &[0, 2]), &LoadPlan::default());
    load.go_on(SETTLE).await;
    cluster.stop(1)?;
    let Some(mount) = move_data(cluster.nodes()[1].data())? else {
        println!("not run: a file system cannot be mounted here");
        return load.stop().await;
    };
    for _ in 0..2 {
        cluster.start_node(1)?;
        let url = cluster.url(1);
        let waits = wait_until(
            "it waits for space",
            Duration::from_secs(BACK_SECONDS_MAX),
            || async {
                let answer = cluster.client().get(&format!("{url}/-/ready")).await?;
                ensure!(answer.text().contains("space"), "{}", answer.text());
                let answer = cluster.client().get(&format!("{url}/-/healthy")).await?;
                ensure!(answer.is_success(), "{}", answer.text());
                Ok(())
            },
        );
        waits.await?;
        cluster.stop(1)?;
    }
    cluster.start_node(1)?;
    mount.enlarge()?;
    cluster.wait_ready(BACK_SECONDS_MAX).await?;
    load.go_on(SETTLE).await;
    load.stop().await?;
    load.check_honesty()?;
    check_end(&cluster, &load.ledgers()).await?;
    cluster.stop(1)
}
