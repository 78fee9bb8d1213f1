//! The final checks: every acknowledged sample in every node's answer, none that was never sent, and
//! equal replicas.

use crate::{Clock, Cluster, HttpClient, Ledger, samples::read_samples, wait_until};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use trefoil_model::Millis;

/// Samples that one question asks for: some megabytes of answer.
const PAGE_SAMPLES: usize = 500_000;
/// How far before its first request a ledger is searched for samples that were never sent.
const BEFORE: Millis = 2 * 3_600_000;
/// How far behind the present: clocks may differ.
const BEHIND: Millis = 10_000;

/// Holds every running node's raw samples of all ledgers against the ledgers.
///
/// # Errors
/// Says at which node which series lacks what, or has what was never sent.
pub async fn check_answers(cluster: &Cluster, ledgers: &[Arc<Ledger>]) -> anyhow::Result<()> {
    for node in cluster.nodes().iter().filter(|node| node.is_running()) {
        check_answers_of(cluster.client(), &node.name, &node.url(), ledgers).await?;
    }
    Ok(())
}

/// Holds one node's raw samples of all ledgers against the ledgers.
///
/// # Errors
/// Says which series lacks what, or has what was never sent.
pub async fn check_answers_of(
    client: &HttpClient,
    name: &str,
    url: &str,
    ledgers: &[Arc<Ledger>],
) -> anyhow::Result<()> {
    let (begun, mut samples) = (Instant::now(), 0);
    for ledger in ledgers {
        let place = || format!("{name}, writer {}", ledger.writer());
        let checked = check_ledger(client, url, ledger).await;
        samples += checked.with_context(place)?;
    }
    let took = begun.elapsed();
    eprintln!("{name}: {samples} samples checked in {took:.1?}");
    Ok(())
}

/// How many samples were there.
async fn check_ledger(client: &HttpClient, url: &str, ledger: &Ledger) -> anyhow::Result<usize> {
    // A load that goes on has requests under way whose fate changes meanwhile.
    let due = ledger.acknowledged();
    let mut ends = ledger.page_ends(PAGE_SAMPLES / ledger.series_count());
    ends.push(Clock::now_millis() + BEHIND);
    let (mut from, mut samples) = (ends[0] - BEFORE, 0);
    for to in ends {
        samples += check_page(client, url, ledger, &due, (from, to)).await?;
        from = to;
    }
    Ok(samples)
}

/// Checks all series of a ledger after `from` and up to `to`; how many samples they have there.
async fn check_page(
    client: &HttpClient,
    url: &str,
    ledger: &Ledger,
    due: &BTreeSet<Millis>,
    (from, to): (Millis, Millis),
) -> anyhow::Result<usize> {
    let answer = read_samples(client, url, ledger.writer(), (from, to), false).await?;
    ensure!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    let mut found: Vec<Option<Vec<(Millis, f64)>>> = vec![None; ledger.series_count()];
    for (number, samples) in answer.series {
        let place = found.get_mut(number);
        let place = place.with_context(|| format!("series {number} was never sent"))?;
        ensure!(place.is_none(), "series {number} is there twice");
        *place = Some(samples);
    }
    let mut count = 0;
    for (number, samples) in found.into_iter().enumerate() {
        let samples = samples.unwrap_or_default();
        count += samples.len();
        let checked = ledger.check_series(number, (from, to), due, &samples);
        checked.map_err(|reason| anyhow::anyhow!("series {number}: {reason}"))?;
    }
    Ok(count)
}

/// Waits until `trefoil cluster verify` finds all replicas equal; how long that took.
///
/// # Errors
/// When they are not equal within the deadline: with what the command said last.
pub async fn wait_until_equal(
    cluster: &Cluster,
    node: usize,
    deadline: Duration,
) -> anyhow::Result<Duration> {
    let equal = wait_until("cluster verify finds equal replicas", deadline, || async {
        let output = cluster.command(node, &["cluster", "verify"])?;
        ensure!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    });
    let took = equal.await?.1;
    ensure!(took <= deadline, "equal only after {took:?}");
    eprintln!("equal replicas after {took:.1?}");
    Ok(took)
}
