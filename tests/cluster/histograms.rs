//! Native histograms with start timestamps and an exemplar at real nodes: remote write 2.0 to one, read at another, through a stop that
//! flushes them to blocks and a kill after which the journal brings them back.

use crate::Scenario;
use anyhow::{Context, ensure};
use serde_json::Value;
use trefoil_jepsen::{Clock, Cluster, ready_seconds_max};
use trefoil_model::write_varint;

/// Milliseconds between two samples.
const STEP: i64 = 15_000;
/// How many samples there are.
const SAMPLES: i64 = 8;

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    write_varint(out, field << 3);
    write_varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    write_varint(out, field << 3 | 2);
    write_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A request of remote write 2.0: a histogram of schema 0 that gets an observation in (0.5, 1] and two in (1, 2] with
/// each step.
fn request(first: i64) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    for symbol in ["", "__name__", "trefoil_test_histogram", "trace_id", "abc"] {
        bytes(&mut body, 4, symbol.as_bytes());
    }
    let mut series = Vec::new();
    bytes(&mut series, 1, &[1, 2]);
    for at in 0..SAMPLES {
        let mut histogram = Vec::new();
        let steps = at as u64 + 1;
        number(&mut histogram, 1, 3 * steps);
        write_varint(&mut histogram, 3 << 3 | 1);
        histogram.extend_from_slice(&(4.0 * steps as f64).to_bits().to_le_bytes());
        let mut span = Vec::new();
        number(&mut span, 2, 2);
        bytes(&mut histogram, 11, &span);
        let mut deltas = Vec::new();
        // Zigzag: a difference of n is 2 n. The second bucket has twice as many as the first.
        write_varint(&mut deltas, 2 * steps);
        write_varint(&mut deltas, 2 * steps);
        bytes(&mut histogram, 12, &deltas);
        number(&mut histogram, 15, (first + at * STEP) as u64);
        number(&mut histogram, 17, (first - STEP) as u64);
        bytes(&mut series, 3, &histogram);
    }
    let mut exemplar = Vec::new();
    bytes(&mut exemplar, 1, &[3, 4]);
    number(&mut exemplar, 3, first as u64);
    bytes(&mut series, 4, &exemplar);
    bytes(&mut body, 5, &series);
    snap::raw::Encoder::new()
        .compress_vec(&body)
        .context("compress")
}

/// Asks a node everything whose answer is known.
async fn check(cluster: &Cluster, node: usize, first: i64) -> anyhow::Result<()> {
    let last = (first + (SAMPLES - 1) * STEP) / 1_000;
    for (query, expected) in [
        ("histogram_count(trefoil_test_histogram @ T)", "24"),
        ("histogram_sum(trefoil_test_histogram @ T)", "32"),
        // A third of the observations is below 1; the others are spread exponentially from 1 to 2.
        (
            "histogram_fraction(0, 1, trefoil_test_histogram @ T)",
            "0.3333333333333333",
        ),
        (
            "histogram_count(increase(trefoil_test_histogram[1m] @ T))",
            "12",
        ),
    ] {
        let query = query.replace('T', &last.to_string());
        let found = cluster.instant(node, &query).await?;
        ensure!(
            found[0]["value"][1] == expected,
            "node {node}: {query}: {found}"
        );
    }
    let url = format!("{}/api/v1/query_range", cluster.url(node));
    let (start, end) = ((first / 1_000).to_string(), last.to_string());
    let times = [
        ("start", start.as_str()),
        ("end", end.as_str()),
        ("step", "15"),
    ];
    let ask = |query: &'static str| {
        let parameters = [&[("query", query)], &times[..]].concat();
        let url = url.clone();
        async move { cluster.client().query(&url, &parameters).await }
    };
    let found = ask("trefoil_test_histogram").await?;
    let histograms = found["result"][0]["histograms"]
        .as_array()
        .context("histograms")?;
    ensure!(histograms.len() == SAMPLES as usize, "node {node}: {found}");
    let buckets: Value = serde_json::json!([[0, "0.5", "1", "1"], [0, "1", "2", "2"]]);
    let oldest = &histograms[0][1];
    ensure!(
        oldest["count"] == "3" && oldest["sum"] == "4" && oldest["buckets"] == buckets,
        "{oldest}"
    );
    let found = ask("histogram_quantile(1, trefoil_test_histogram)").await?;
    let values = found["result"][0]["values"].as_array().context("values")?;
    ensure!(
        values.iter().all(|value| value[1] == "2"),
        "node {node}: {found}"
    );
    Ok(())
}

/// The exemplar that came with the histograms, which every owner got with them.
async fn check_exemplar(cluster: &Cluster, node: usize, first: i64) -> anyhow::Result<()> {
    let query = "histogram_quantile(0.9, trefoil_test_histogram)";
    let url = format!("{}/api/v1/query_exemplars", cluster.url(node));
    let start = (first / 1_000).to_string();
    let parameters = [("query", query), ("start", &start), ("end", &start)];
    let found = cluster.client().query(&url, &parameters).await?;
    let expected = serde_json::json!([{
        "seriesLabels": {"__name__": "trefoil_test_histogram"},
        "exemplars": [{"labels": {"trace_id": "abc"}, "value": "0", "timestamp": first / 1_000}],
    }]);
    ensure!(found == expected, "node {node}: {found}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn native_histograms_live_through_flushes_and_restarts() -> anyhow::Result<()> {
    let mut run = Scenario::begin().await?;
    let first = Clock::now_millis() / 1_000 * 1_000 - SAMPLES * STEP;
    let url = format!("{}/api/v1/write", run.cluster.url(0));
    let headers = [
        (
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        ),
        ("content-encoding", "snappy"),
    ];
    let client = run.cluster.client();
    let answer = client.post(&url, &headers, request(first)?).await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    check(&run.cluster, 1, first).await?;
    check_exemplar(&run.cluster, 1, first).await?;
    // A stop flushes to blocks; the others answer from memory.
    run.cluster.stop(0)?;
    run.cluster.start_node(0)?;
    run.cluster.kill(1)?;
    run.cluster.start_node(1)?;
    run.cluster.wait_ready(ready_seconds_max()).await?;
    for node in 0..3 {
        check(&run.cluster, node, first).await?;
    }
    // Node 0 has it of its file, node 1 of its journal, node 2 was never stopped.
    for node in 0..3 {
        check_exemplar(&run.cluster, node, first).await?;
    }
    run.finish().await
}
