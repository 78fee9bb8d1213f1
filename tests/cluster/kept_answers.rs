//! Answers of past times that nodes keep: the same query, moved by a step, is answered with their help at every node, and what
//! changes the past shows at once, wherever it was written.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::{fmt::Write as _, time::Duration};
use trefoil_jepsen::{Clock, Cluster, Exclusive, ready_seconds_max, wait_until};

const HOUR: i64 = 3_600_000;
const STEP: i64 = 60_000;
/// Enough series that each node has more to do than what is not worth keeping.
const SERIES: i64 = 400;
/// How long flushes, merges and a new format level may take.
const SETTLED_MAX: Duration = Duration::from_secs(60);
const QUERY: &str = "sum by (group) (count_over_time(ka_level[5m]))";

fn samples(from: i64, to: i64) -> String {
    let mut body = String::new();
    for series in 0..SERIES {
        for time in (from..to).step_by(STEP as usize) {
            let group = series % 3;
            writeln!(
                body,
                "ka_level{{id=\"{series}\",group=\"{group}\"}} {} {time}",
                time % 97 + series
            )
            .expect("memory");
        }
    }
    body
}

async fn import(cluster: &Cluster, node: usize, body: String) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/import/prometheus", cluster.url(node));
    let headers = [("content-type", "text/plain")];
    let answer = cluster.client().post(&url, &headers, body).await?;
    let text = answer.text();
    ensure!(answer.is_success(), "{}: {text}", answer.status);
    Ok(())
}

/// The answer of a node between two times.
async fn ask(cluster: &Cluster, node: usize, times: [i64; 2], more: &str) -> anyhow::Result<Value> {
    let url = format!("{}/api/v1/query_range", cluster.url(node));
    let [start, end] = times.map(|time| (time / 1_000).to_string());
    let parameters = [
        ("query", QUERY),
        ("start", start.as_str()),
        ("end", end.as_str()),
        ("step", "60"),
        ("nocache", more),
    ];
    let answer = cluster.client().post_form(&url, &parameters).await?;
    answer.complete_data()
}

/// The answer with the help of what is kept, which is the one without.
async fn checked(cluster: &Cluster, node: usize, times: [i64; 2]) -> anyhow::Result<Value> {
    let kept = ask(cluster, node, times, "").await?;
    let anew = ask(cluster, node, times, "1").await?;
    ensure!(kept == anew, "node {node}: {kept} is not {anew}");
    Ok(kept)
}

/// A number of all nodes.
async fn count(cluster: &Cluster, name: &str) -> anyhow::Result<u64> {
    let mut all = 0.0;
    for node in 0..3 {
        let url = format!("{}/metrics", cluster.url(node));
        let answer = cluster.client().get(&url).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("{name} ")));
        let value: f64 = value.with_context(|| name.to_owned())?.parse()?;
        all += value;
    }
    Ok(all as u64)
}

async fn hits(cluster: &Cluster) -> anyhow::Result<u64> {
    count(cluster, "trefoil_kept_answers_hits_total").await
}

/// Waits until parts at so many nodes at least are answered with what is kept.
async fn used(
    cluster: &Cluster,
    node: usize,
    times: [i64; 2],
    nodes: u64,
) -> anyhow::Result<Value> {
    let used = wait_until("earlier answers are used", SETTLED_MAX, || async {
        let before = hits(cluster).await?;
        let answer = checked(cluster, node, times).await?;
        let found = hits(cluster).await? - before;
        ensure!(found >= nodes, "{found} parts");
        Ok(answer)
    });
    Ok(used.await?.0)
}

/// How many samples an answer counts in all.
fn total(answer: &Value) -> anyhow::Result<f64> {
    let mut total = 0.0;
    for series in answer["result"].as_array().context("series")? {
        for point in series["values"].as_array().context("points")? {
            total += point[1].as_str().context("a number")?.parse::<f64>()?;
        }
    }
    Ok(total)
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_answers_are_used_and_never_old() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let config = "storage:\n  flush_interval_seconds: 1\n";
    let mut cluster = Cluster::start_configured(3, config)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let first = Clock::now_millis() / HOUR * HOUR - 10 * HOUR;
    for part in 0..6 {
        let from = first + part * HOUR;
        import(&cluster, part as usize % 3, samples(from, from + HOUR)).await?;
    }
    let flushed = wait_until("an empty head", SETTLED_MAX, || async {
        let waiting = count(&cluster, "trefoil_head_samples").await?;
        ensure!(waiting == 0, "{waiting} samples");
        Ok(())
    });
    flushed.await?;
    let times = [first + HOUR, first + 6 * HOUR - STEP];
    let moved = times.map(|time| time + STEP);
    checked(&cluster, 0, times).await?;
    for node in 0..3 {
        used(&cluster, node, moved, 1).await?;
    }

    // Who asks for an answer anew gets one, from all nodes.
    let anew = wait_until("nocache is understood", SETTLED_MAX, || async {
        let looked =
            hits(&cluster).await? + count(&cluster, "trefoil_kept_answers_misses_total").await?;
        ask(&cluster, 1, moved, "1").await?;
        let after =
            hits(&cluster).await? + count(&cluster, "trefoil_kept_answers_misses_total").await?;
        ensure!(looked == after, "{} parts looked", after - looked);
        Ok(())
    });
    anew.await?;

    // A late sample of each group, written at another node, counts at five steps.
    let before = used(&cluster, 0, moved, 1).await?;
    let mut late = String::new();
    for id in 0..3 {
        let time = first + 2 * HOUR + 1;
        writeln!(late, "ka_level{{id=\"{id}\",group=\"{id}\"}} 1 {time}")?;
    }
    import(&cluster, 1, late).await?;
    for node in 0..3 {
        let after = checked(&cluster, node, moved).await?;
        let more = total(&after)? - total(&before)?;
        ensure!(more == 15.0, "node {node}: {more} samples more");
    }

    // So does a deletion, which every node knows of.
    let before = used(&cluster, 0, moved, 1).await?;
    let url = format!(
        "{}/prometheus/api/v1/admin/tsdb/delete_series",
        cluster.url(2)
    );
    let begin = ((first + 3 * HOUR) / 1_000).to_string();
    let form = [("match[]", "{id=\"7\"}"), ("start", &begin)];
    let answer = cluster.client().post_form(&url, &form).await?;
    ensure!(answer.status == 204, "{}", answer.text());
    for node in 0..3 {
        let after = checked(&cluster, node, moved).await?;
        ensure!(total(&after)? < total(&before)?, "node {node}: {after}");
    }
    used(&cluster, 0, moved, 1).await?;
    let kept = count(&cluster, "trefoil_kept_answers_bytes").await?;
    ensure!(kept > 0, "nothing is kept");

    // A node that comes back has kept nothing, and what is not proven is neither kept nor taken from there.
    cluster.kill(0)?;
    cluster.start_node(0)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    checked(&cluster, 0, moved).await?;
    Ok(())
}
