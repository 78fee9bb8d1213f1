//! The final checks: every acknowledged sample in every node's answer, none that was never sent, and
//! equal replicas.

use crate::{Clock, Cluster, Ledger, ledger::METRIC, wait_until};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use trefoil_model::Millis;

/// Holds every running node's raw samples of all ledgers against the ledgers.
///
/// # Errors
/// Says at which node which series lacks what, or has what was never sent.
pub async fn check_answers(cluster: &Cluster, ledgers: &[Arc<Ledger>]) -> anyhow::Result<()> {
    for (number, node) in cluster.nodes().iter().enumerate() {
        if !node.is_running() {
            continue;
        }
        for ledger in ledgers {
            let place = || format!("{}, writer {}", node.name, ledger.writer());
            check_ledger(cluster, number, ledger)
                .await
                .with_context(place)?;
        }
    }
    Ok(())
}

async fn check_ledger(cluster: &Cluster, node: usize, ledger: &Ledger) -> anyhow::Result<()> {
    let query = format!("{METRIC}{{writer=\"{}\"}}[2h]", ledger.writer());
    let time = format!("{:.3}", Clock::now_millis() as f64 / 1000.0 + 10.0);
    let url = format!("{}/api/v1/query", cluster.url(node));
    let parameters = [("query", query.as_str()), ("time", time.as_str())];
    let data = cluster.client().query(&url, &parameters).await?;
    let result = data["result"].as_array().context("a result list")?;
    if result.len() != ledger.series_count() && ledger.counts().acknowledged > 0 {
        bail!(
            "{} series instead of {}",
            result.len(),
            ledger.series_count()
        );
    }
    for series in result {
        let number = series["metric"]["series"]
            .as_str()
            .context("the label series")?;
        let samples = samples(series).context("the samples of a series")?;
        let checked = ledger.check_series(number.parse()?, &samples);
        checked.map_err(|reason| anyhow::anyhow!("series {number}: {reason}"))?;
    }
    Ok(())
}

fn samples(series: &Value) -> Option<Vec<(Millis, f64)>> {
    let values = series["values"].as_array()?;
    values
        .iter()
        .map(|pair| {
            let timestamp = (pair[0].as_f64()? * 1000.0).round() as Millis;
            Some((timestamp, pair[1].as_str()?.parse().ok()?))
        })
        .collect()
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
        if !output.status.success() {
            bail!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    });
    Ok(equal.await?.1)
}
