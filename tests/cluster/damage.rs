//! A disk that gives back other bytes than it was given: reported, counted, and repaired from the
//! other owners.

use crate::{SETTLE, Scenario, check_end, ready_seconds_max};
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{Answer, Clock, Cluster, Exclusive, percent_encode, wait_until};
use trefoil_model::Labels;

/// Bytes that are overwritten: more than one page, less than a segment.
const DAMAGED_BYTES: usize = 64;
/// How long a repair of little data may take.
const REPAIR_SECONDS_MAX: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_page_is_repaired_from_the_others() -> anyhow::Result<()> {
    check("journal", ".segment").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_repaired_from_the_others() -> anyhow::Result<()> {
    check("blocks", "-data").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_damaged_under_a_running_node_is_evaluated_elsewhere() -> anyhow::Result<()> {
    let mut run = loaded().await?;
    // The stop flushes the head into blocks.
    run.cluster.stop(1)?;
    run.cluster.start_node(1)?;
    run.cluster.wait_ready(REPAIR_SECONDS_MAX).await?;
    // All that follows: it may have been verified just now, and which pieces a query reads is its own business.
    let folder = run.cluster.nodes()[1].data().join("blocks");
    let damaged = damage(&folder, "-data", usize::MAX)?;
    eprintln!("damaged {}", damaged.display());
    check_repaired(&mut run).await
}

/// Two of three owners have lost the same old block and the third is away: questions about those days cannot be
/// answered, all others are answered in full, by the two with the damage.
#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_only_the_answers_that_need_it() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let now = Clock::now_millis();
    let old = now - 3 * 24 * 3_600_000;
    // Many, so that their block is the largest.
    write(&cluster, "trefoil_test_old", 5_000, old).await?;
    write(&cluster, "trefoil_test_new", 50, now).await?;
    let count = |name: &str, at: i64| format!("count({name} @ {}.{:03})", at / 1000, at % 1000);
    let (of_old, of_new) = (
        count("trefoil_test_old", old),
        count("trefoil_test_new", now),
    );
    for node in 0..3 {
        cluster.stop(node)?;
    }
    for node in 0..2 {
        damage(
            &cluster.nodes()[node].data().join("blocks"),
            "-data",
            usize::MAX,
        )?;
        cluster.start_node(node)?;
    }
    for node in 0..2 {
        // The first ones find the damage, and wait until both have it recorded.
        let what = format!("node {node} answers outside of the damage");
        let answers = wait_until(&what, Duration::from_secs(60), || async {
            let refused = answer(&cluster, node, &of_old).await?;
            ensure!(
                refused.status == 503,
                "{} {}",
                refused.status,
                refused.text()
            );
            let found = cluster.instant(node, &of_new).await?;
            ensure!(found[0]["value"][1] == "50", "{found}");
            Ok(())
        });
        answers.await?;
    }
    // What reaches into the damage with an offset or a range is refused as well.
    let days = "count_over_time(trefoil_test_new[4d])";
    for query in [
        "trefoil_test_new offset 3d",
        days,
        "sum_over_time(vector(1)[4d:1d])",
    ] {
        let refused = answer(&cluster, 0, query).await?;
        let needs_data = query.contains("new");
        ensure!(
            (refused.status == 503) == needs_data,
            "{query}: {} {}",
            refused.status,
            refused.text()
        );
    }
    // Two of three disks have lost the same: what the third has may be less than what was acknowledged, so it does
    // not answer for these days either, until an operator accepts the loss.
    cluster.start_node(2)?;
    let answers = wait_until("the third answers", Duration::from_secs(60), || async {
        let found = cluster.instant(2, &of_new).await?;
        ensure!(found[0]["value"][1] == "50", "{found}");
        Ok(())
    });
    answers.await?;
    let refused = answer(&cluster, 2, &of_old).await?;
    ensure!(
        refused.status == 503,
        "{} {}",
        refused.status,
        refused.text()
    );
    Ok(())
}

/// Writes one sample of so many series of a metric.
async fn write(cluster: &Cluster, name: &str, count: usize, at: i64) -> anyhow::Result<()> {
    let series =
        |number: usize| Labels::from_pairs([("__name__", name), ("id", &number.to_string())]);
    let series: Vec<Labels> = (0..count).map(series).collect();
    let samples = [(at, 1.0)];
    let body = encode(series.iter().map(|labels| (labels, samples.as_slice())));
    let answer = cluster.client().remote_write(&cluster.url(0), body).await?;
    ensure!(answer.is_success(), "{}", answer.text());
    Ok(())
}

/// What a node says to an instant query, success or not, within few seconds.
async fn answer(cluster: &Cluster, node: usize, query: &str) -> anyhow::Result<Answer> {
    let query = percent_encode(query);
    let url = format!(
        "{}/api/v1/query?timeout=5s&query={query}",
        cluster.url(node)
    );
    cluster.client().get(&url).await
}

/// Damages the largest file of a kind in a folder of node 2, behind its first third, while it is stopped.
async fn check(folder: &str, kind: &str) -> anyhow::Result<()> {
    let mut run = loaded().await?;
    // SIGTERM flushes heads into blocks; SIGKILL leaves them in the journal.
    match folder {
        "blocks" => run.cluster.stop(1)?,
        _ => run.cluster.kill(1)?,
    }
    let folder = run.cluster.nodes()[1].data().join(folder);
    let damaged = damage(&folder, kind, DAMAGED_BYTES)?;
    eprintln!("damaged {}", damaged.display());
    run.cluster.start_node(1)?;
    run.cluster.wait_ready(REPAIR_SECONDS_MAX).await?;
    check_repaired(&mut run).await
}

/// Three nodes that have taken a load for some seconds.
async fn loaded() -> anyhow::Result<Scenario> {
    let mut run = Scenario::begin().await?;
    run.load.go_on(SETTLE).await;
    run.load.stop().await?;
    Ok(run)
}

/// Answers are complete all the time, node 2 reports and counts the damage, and in the end all are equal again.
async fn check_repaired(run: &mut Scenario) -> anyhow::Result<()> {
    run.load.check_honesty()?;
    trefoil_jepsen::check_answers(&run.cluster, &run.load.ledgers()).await?;
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
    run.cluster.wait_ready(REPAIR_SECONDS_MAX).await?;
    check_end(&run.cluster, &run.load.ledgers()).await
}

/// Whether a counter whose name speaks of damage is above zero.
fn counts_damage(page: &str) -> bool {
    page.lines()
        .filter(|line| line.starts_with("trefoil_") && line.contains("damage"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .any(|value| value > 0.0)
}

/// Overwrites so many bytes in the largest file below a folder whose name ends so, behind its first third.
fn damage(folder: &Path, kind: &str, bytes_max: usize) -> anyhow::Result<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    // Spares of the journal are as large as segments and hold nothing; the manifest is no block.
    files.retain(|(_, path)| path.to_string_lossy().ends_with(kind));
    let (_, path) = files.into_iter().max().context("a file to damage")?;
    let mut bytes = fs::read(&path)?;
    // Preallocated zeros behind the data carry nothing.
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    ensure!(used > 3 * DAMAGED_BYTES, "{} is too small", path.display());
    // The zeros that fill a page carry nothing either.
    let at = (used / 3..used - DAMAGED_BYTES)
        .find(|at| carries(&bytes[*at..*at + DAMAGED_BYTES]))
        .context("bytes that carry something")?;
    for byte in bytes[at..used].iter_mut().take(bytes_max) {
        *byte ^= 0x5a;
    }
    fs::write(&path, bytes)?;
    Ok(path)
}

/// Whether most of the bytes say something.
fn carries(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte != 0).count() > bytes.len() / 2
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
