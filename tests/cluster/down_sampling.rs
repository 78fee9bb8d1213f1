//! Aggregates at a real node: old samples are imported, flushed and merged; then queries are answered from aggregates as they are from
//! samples, before and after a restart and late samples.

use anyhow::ensure;
use serde_json::Value;
use std::{fmt::Write as _, time::Duration};
use trefoil_jepsen::{Clock, Cluster, Exclusive, ready_seconds_max, wait_until};

const HOUR: i64 = 3_600_000;
/// How long flushes and merges may take.
const MERGED_MAX: Duration = Duration::from_secs(60);

/// A counter that is reset every now and then, and a gauge, every 30 s; some samples lie at the ends of buckets.
fn samples(from: i64, to: i64) -> String {
    let mut body = String::new();
    for at in 0..(to - from) / 30_000 {
        let time = from + at * 30_000;
        let (count, level) = (at % 300 * 7, (at * 37 % 101) - 50);
        writeln!(
            body,
            "ds_count_total {count} {time}\nds_level {level} {time}"
        )
        .expect("memory");
    }
    body
}

async fn import(cluster: &Cluster, body: String) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/import/prometheus", cluster.url(0));
    let headers = [("content-type", "text/plain")];
    let answer = cluster.client().post(&url, &headers, body).await?;
    let text = answer.text();
    ensure!(answer.is_success(), "{}: {text}", answer.status);
    Ok(())
}

/// How many blocks have aggregates.
fn aggregated(cluster: &Cluster) -> anyhow::Result<usize> {
    let blocks = cluster.nodes()[0].data().join("blocks");
    let mut found = 0;
    for entry in std::fs::read_dir(blocks)? {
        let name = entry?.file_name();
        found += usize::from(name.to_string_lossy().ends_with("-aggregates"));
    }
    Ok(found)
}

async fn ask(cluster: &Cluster, query: &str, times: [i64; 3], most: &str) -> anyhow::Result<Value> {
    let url = format!("{}/api/v1/query_range", cluster.url(0));
    let [start, end, step] = times.map(|time| (time / 1_000).to_string());
    let parameters = [
        ("query", query),
        ("start", start.as_str()),
        ("end", end.as_str()),
        ("step", step.as_str()),
        ("max_source_resolution", most),
    ];
    cluster.client().post_form(&url, &parameters).await?.json()
}

/// Compares the answers to queries whose numbers are the same to the last digit.
async fn check(cluster: &Cluster, first: i64) -> anyhow::Result<()> {
    let times = [first + 2 * HOUR, first + 5 * HOUR, HOUR];
    for (query, length) in [
        ("rate(ds_count_total[1h])", "1h"),
        ("increase(ds_count_total[5m])", "5m"),
        ("sum_over_time(ds_level[2h])", "1h"),
        (
            "count_over_time(ds_level[1h]) + max_over_time(ds_level[1h])",
            "1h",
        ),
        ("min_over_time(ds_level[10m])", "5m"),
        ("ds_level", "1h"),
    ] {
        let samples = ask(cluster, query, times, "0s").await?;
        let aggregates = ask(cluster, query, times, "auto").await?;
        ensure!(
            samples["data"] == aggregates["data"] && samples["data"]["result"][0].is_object(),
            "{query}: {samples}, and from aggregates {aggregates}"
        );
        let infos = aggregates["infos"].to_string();
        let says = format!("answered from aggregates of {length} instead of samples");
        ensure!(
            infos.contains(&says) && samples.get("infos").is_none(),
            "{query}: {infos}"
        );
    }
    let unaligned = ask(cluster, "rate(ds_count_total[7m])", times, "auto").await?;
    ensure!(unaligned.get("infos").is_none(), "{unaligned}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_answer_as_samples_do() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let config = "storage:\n  down_sampling: true\n  flush_interval_seconds: 1\n";
    let mut cluster = Cluster::start_configured(1, config)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let first = Clock::now_millis() / HOUR * HOUR - 12 * HOUR;
    import(&cluster, samples(first, first + 6 * HOUR)).await?;
    check(&cluster, first).await?;
    let merged = wait_until("aggregates", MERGED_MAX, || async {
        let found = aggregated(&cluster)?;
        ensure!(found >= 3, "{found} blocks have aggregates");
        Ok(())
    });
    merged.await?;
    check(&cluster, first).await?;
    // Late samples, of another phase: windows with two blocks are answered from samples, and then merged again.
    import(&cluster, samples(first + HOUR + 7_000, first + 4 * HOUR)).await?;
    check(&cluster, first).await?;
    cluster.stop(0)?;
    cluster.start_node(0)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    check(&cluster, first).await?;
    Ok(())
}
