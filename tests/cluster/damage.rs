//! A disk that gives back other bytes than it was given: reported, counted, and repaired from the
//! other owners.

use crate::{Scenario, check_end, seconds};
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use trefoil_tests::wait_until;

/// Bytes that are overwritten: more than one page, less than a segment.
const DAMAGED_BYTES: usize = 64;
/// How long a repair of little data may take.
const REPAIR_SECONDS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_page_is_repaired_from_the_others() -> anyhow::Result<()> {
    check("journal").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_repaired_from_the_others() -> anyhow::Result<()> {
    check("blocks").await
}

/// Damages the first third of the largest file in a folder of node 2 while it is stopped.
async fn check(folder: &str) -> anyhow::Result<()> {
    let mut run = Scenario::begin().await?;
    run.load.go_on(seconds(3, 10)).await;
    run.load.stop().await?;
    // SIGTERM flushes heads into blocks; SIGKILL leaves them in the journal.
    match folder {
        "blocks" => run.cluster.stop(1)?,
        _ => run.cluster.kill(1)?,
    }
    let damaged = damage(&run.cluster.nodes()[1].data().join(folder))?;
    eprintln!("damaged {}", damaged.display());
    run.cluster.start_node(1)?;
    run.cluster.wait_ready(REPAIR_SECONDS_MAX).await?;
    run.load.check_honesty()?;
    trefoil_tests::check_answers(&run.cluster, &run.load.ledgers()).await?;
    let url = format!("{}/metrics", run.cluster.url(1));
    let counted = wait_until("the damage is counted", Duration::from_secs(30), || async {
        let page = run.cluster.client().get(&url).await?;
        let text = String::from_utf8_lossy(&page.body).into_owned();
        ensure!(counts_damage(&text), "no counter of damage is above zero");
        Ok(())
    });
    counted.await?;
    ensure!(
        run.cluster.nodes()[1].log()?.contains("damage"),
        "the damage was not reported"
    );
    check_end(&run.cluster, &run.load.ledgers()).await
}

/// Whether a counter whose name speaks of damage is above zero.
fn counts_damage(page: &str) -> bool {
    page.lines()
        .filter(|line| line.starts_with("trefoil_") && line.contains("damage"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .any(|value| value > 0.0)
}

/// Overwrites bytes in the largest file below a folder, behind its first third.
fn damage(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    let (_, path) = files.into_iter().max().context("a file to damage")?;
    let mut bytes = fs::read(&path)?;
    // Preallocated zeros behind the data carry nothing.
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    ensure!(used > 3 * DAMAGED_BYTES, "{} is too small", path.display());
    for byte in &mut bytes[used / 3..used / 3 + DAMAGED_BYTES] {
        *byte ^= 0x5a;
    }
    fs::write(&path, bytes)?;
    Ok(path)
}

/// All files with the bytes that are used in them.
fn collect(folder: &Path, files: &mut Vec<(u64, PathBuf)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push((metadata.len(), entry.path()));
        }
    }
    Ok(())
}
