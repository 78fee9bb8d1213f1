//! Prometheus' own tools at the query API: `promtool` asks, a Prometheus reads remotely and answers with what it read, another
//! scrapes the federation; federation, chunks and cardinality are the same at every node of three.

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{Clock, Cluster, Exclusive, HttpClient, ready_seconds_max, wait_until};
use trefoil_model::{Labels, read_varint};
use trefoil_tests::{Peer, Prometheus, peer_program};

const METRIC: &str = "trefoil_test_api";
/// A native histogram.
const NATIVE: &str = "trefoil_test_api_native";
/// Floats, whose other labels and times are those of the histogram.
const OTHER: &str = "trefoil_test_api_other";
const SERIES: usize = 20;
/// More than a chunk takes.
const SAMPLES: i64 = 130;
const STEP: i64 = 1000;
/// A stale marker.
const ENDED: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

const FEATURES: &str = "enable_admin_api: true\nenable_feature: [promql-experimental-functions, \
    promql-extended-range-selectors, promql-binop-fill-modifiers]\n";

/// Experimental parts of PromQL, and how many series they answer.
async fn check_features(cluster: &Cluster, node: usize, newest: i64) -> anyhow::Result<()> {
    for (query, count) in [
        (format!("limitk(2, {METRIC})"), 2),
        (format!("ts_of_max_over_time({METRIC}{{id=\"0\"}}[1m])"), 1),
        (format!("rate({METRIC}{{id=\"0\"}}[1m] smoothed)"), 1),
        (format!("{METRIC}{{id=\"0\"}} + fill(1) nothing"), 1),
    ] {
        let time = format!("{}.{:03}", newest / 1000, newest % 1000);
        let parameters = [("query", query.as_str()), ("time", time.as_str())];
        let url = format!("{}/api/v1/query", cluster.url(node));
        let data = cluster.client().query(&url, &parameters).await?;
        let found = data["result"].as_array().map(Vec::len);
        ensure!(found == Some(count), "{query}: {data}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_api_serves_the_tools_of_prometheus() -> anyhow::Result<()> {
    let Peer::Found(promtool) = peer_program("promtool")? else {
        return Ok(());
    };
    let Peer::Found(program) = peer_program("prometheus")? else {
        return Ok(());
    };
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, FEATURES)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let newest = Clock::now_millis() / STEP * STEP;
    write(&cluster, newest).await?;
    for node in 0..3 {
        check_federation(&cluster, node, newest).await?;
        check_cardinality(&cluster, node).await?;
        check_chunks(&cluster, node, newest).await?;
        check_reports(&cluster, node).await?;
        check_features(&cluster, node, newest).await?;
        let queries = [
            (format!("sum({METRIC})"), [SERIES; 3]),
            (format!("sum(rate({METRIC}[10s])) / 2"), [10 * SERIES; 3]),
        ];
        check_stats(&cluster, node, newest, &queries).await?;
    }
    write_native(&cluster, newest).await?;
    for node in 0..3 {
        let frames = read_frames(&cluster, node, NATIVE, newest).await?;
        // The kind of the chunk stands in front of its data.
        let is_native = |frame: &Bytes| frame.windows(3).any(|w| w == b"\x18\x02\x22");
        ensure!(frames.len() == 1 && is_native(&frames[0]), "{frames:x?}");
        let both = format!("last_over_time({{__name__=~\"{NATIVE}|{OTHER}\"}}[10s])");
        check_stats(&cluster, node, newest, &[(both, [0, 2, 4])]).await?;
    }
    check_promtool(&promtool, &cluster, newest).await?;
    let folder = tempfile::tempdir()?;
    let read = format!("{}/api/v1/read", cluster.url(1));
    let prometheus = Prometheus::start_reading(&program, folder.path(), &read).await?;
    let client = cluster.client();
    let read = wait_until(
        "Prometheus reads remotely",
        Duration::from_secs(10),
        || async { check_read(client, &prometheus.url, newest).await },
    );
    read.await?;
    drop(prometheus);
    let folder = tempfile::tempdir()?;
    let target = cluster.url(2).replace("http://", "");
    let prometheus = Prometheus::start_federating(&program, folder.path(), &target, NATIVE).await?;
    let federated = wait_until(
        "Prometheus scrapes the federation",
        Duration::from_secs(10),
        || async { check_native(client, &prometheus.url, newest).await },
    );
    federated.await?;
    crate::check_end(&cluster, &[]).await
}

fn series(id: usize) -> Labels {
    Labels::from_pairs([("__name__", METRIC), ("id", &id.to_string()), ("job", "a")])
}

/// Twenty series, and one that has ended.
async fn write(cluster: &Cluster, newest: i64) -> anyhow::Result<()> {
    let samples: Vec<(i64, f64)> = (0..SAMPLES)
        .map(|at| (newest - (SAMPLES - 1 - at) * STEP, at as f64 * 0.5))
        .collect();
    let ended = Labels::from_pairs([("__name__", "trefoil_test_api_ended"), ("job", "a")]);
    let end = [(newest - STEP, 1.0), (newest, ENDED)];
    let mut all: Vec<(Labels, &[(i64, f64)])> =
        (0..SERIES).map(|id| (series(id), &samples[..])).collect();
    all.push((ended, &end));
    let body = encode(all.iter().map(|(labels, samples)| (labels, *samples)));
    let written = cluster.client().remote_write(&cluster.url(0), body).await?;
    ensure!(written.is_success(), "{}", written.text());
    Ok(())
}

async fn check_federation(cluster: &Cluster, node: usize, newest: i64) -> anyhow::Result<()> {
    let url = cluster.url(node);
    let url = format!("{url}/federate?match[]={METRIC}&match[]=%7Bjob%3D%22a%22%7D");
    let answer = cluster.client().get(&url).await?;
    let text = std::str::from_utf8(&answer.body)?;
    let value = (SAMPLES - 1) as f64 * 0.5;
    let mut expected: Vec<String> = (0..SERIES)
        .map(|id| format!("{METRIC}{{id=\"{id}\",job=\"a\",instance=\"\"}} {value} {newest}"))
        .collect();
    expected.push(format!("# TYPE {METRIC} untyped"));
    expected.sort();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    ensure!(lines == expected, "{text}");
    Ok(())
}

async fn check_cardinality(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    let base = format!("{}/prometheus/api/v1", cluster.url(node));
    let get = |path: &'static str| {
        let url = format!("{base}/{path}");
        async move { cluster.client().get(&url).await?.json() }
    };
    let names = get("cardinality/label_names").await?;
    let expected = json!({
        "label_values_count_total": SERIES + 3,
        "label_names_count": 3,
        "cardinality": [
            {"label_name": "id", "label_values_count": SERIES},
            {"label_name": "__name__", "label_values_count": 2},
            {"label_name": "job", "label_values_count": 1},
        ],
    });
    ensure!(names == expected, "{names}");
    for method in ["inmemory", "active"] {
        let url = format!(
            "{base}/cardinality/label_values?label_names[]=job&label_names[]=id&limit=1\
             &selector={METRIC}&count_method={method}"
        );
        let values = cluster.client().get(&url).await?.json()?;
        let label = |name: &str, values: usize, first: &str, series: usize| {
            json!({
                "label_name": name, "label_values_count": values, "series_count": SERIES,
                "cardinality": [{"label_value": first, "series_count": series}],
            })
        };
        let expected = json!({
            "series_count_total": SERIES + 1,
            "labels": [label("id", SERIES, "0", 1), label("job", 1, "a", SERIES)],
        });
        ensure!(values == expected, "{method}: {values}");
    }
    let active = get("cardinality/active_series?selector=trefoil_test_api").await?;
    let count = active["data"].as_array().map(Vec::len);
    ensure!(count == Some(SERIES), "{active}");
    let status = get("status/tsdb").await?;
    let data = &status["data"];
    ensure!(data["headStats"]["numSeries"] == SERIES + 1, "{status}");
    let first = &data["seriesCountByMetricName"][0];
    ensure!(
        *first == json!({"name": METRIC, "value": SERIES}),
        "{status}"
    );
    Ok(())
}

/// What each step of a query loads. The counts are none of the user's queries.
async fn check_stats(
    cluster: &Cluster,
    node: usize,
    newest: i64,
    queries: &[(String, [usize; 3])],
) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/query_range", cluster.url(node));
    let seconds = |time: i64| format!("{}", time / 1000);
    let (start, end) = (seconds(newest - 2 * STEP), seconds(newest));
    for (query, samples) in queries {
        let parameters = [
            ("query", query.as_str()),
            ("start", start.as_str()),
            ("end", end.as_str()),
            ("step", "1"),
            ("stats", "all"),
        ];
        let before = answered(cluster, node).await?;
        let data = cluster.client().query(&url, &parameters).await?;
        let at = |step: usize| json!([newest / 1000 - 2 + step as i64, samples[step]]);
        let found = &data["stats"]["samples"];
        let steps = &found["totalQueryableSamplesPerStep"];
        ensure!(*steps == json!([at(0), at(1), at(2)]), "{query}: {data}");
        let all: usize = samples.iter().sum();
        ensure!(found["totalQueryableSamples"] == all, "{data}");
        let counted = answered(cluster, node).await? - before;
        ensure!(counted == 1.0, "{query} counts as {counted} queries");
    }
    Ok(())
}

/// Users' queries that a node has answered.
async fn answered(cluster: &Cluster, node: usize) -> anyhow::Result<f64> {
    let url = format!("{}/metrics", cluster.url(node));
    let answer = cluster.client().get(&url).await?;
    let text = std::str::from_utf8(&answer.body)?;
    let of_queries = |line: &str| line.starts_with("trefoil_queries_total{");
    let values = text.lines().filter(|line| of_queries(line));
    let values = values.filter_map(|line| line.split_whitespace().nth(1));
    let numbers = values.map(|value| Ok(value.parse::<f64>()?));
    numbers.sum()
}

/// Two samples of a native histogram whose counts are whole, and two floats.
async fn write_native(cluster: &Cluster, newest: i64) -> anyhow::Result<()> {
    let histogram = |count: u64| {
        json!({
            "schema": 1, "count": count + 3, "sum": 7.5, "zero_threshold": 0.001, "zero_count": 1,
            "positive": {"spans": [[-2, 1], [3, 1]], "counts": [2, count]},
        })
    };
    let line = |name: &str, values: [Value; 2]| {
        let line = json!({
            "metric": {"__name__": name, "instance": "i"},
            "values": values,
            "timestamps": [newest - STEP, newest],
        });
        format!("{line}\n")
    };
    let url = format!("{}/api/v1/import", cluster.url(0));
    let native = line(NATIVE, [histogram(4), histogram(9)]);
    let body = (native + &line(OTHER, [json!(1), json!(2)])).into_bytes();
    let written = cluster.client().post(&url, &[], body).await?;
    ensure!(written.is_success(), "{}", written.text());
    Ok(())
}

/// Asks a Prometheus that has the native histogram from the cluster.
async fn check_native(client: &HttpClient, prometheus: &str, newest: i64) -> anyhow::Result<()> {
    let url = format!("{prometheus}/api/v1/query");
    let time = format!("{}", newest / 1000);
    for (query, expected) in [
        (format!("histogram_count({NATIVE}{{instance=\"i\"}})"), "12"),
        (format!("histogram_sum({NATIVE})"), "7.5"),
        // The upper bound of bucket 2 of schema 1: the largest quantile.
        (format!("histogram_quantile(1, {NATIVE})"), "2"),
    ] {
        let parameters = [("query", query.as_str()), ("time", time.as_str())];
        let data = client.query(&url, &parameters).await?;
        let value = &data["result"][0]["value"][1];
        ensure!(*value == expected, "{query}: {data}");
    }
    Ok(())
}

/// Reads everything as chunks: one frame for each series.
async fn check_chunks(cluster: &Cluster, node: usize, newest: i64) -> anyhow::Result<()> {
    let frames = read_frames(cluster, node, METRIC, newest).await?;
    ensure!(frames.len() == SERIES, "{} frames", frames.len());
    Ok(())
}

/// The frames of a metric, whole, with the checksums that they carry.
async fn read_frames(
    cluster: &Cluster,
    node: usize,
    metric: &str,
    newest: i64,
) -> anyhow::Result<Vec<Bytes>> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let matcher = [field(2, b"__name__"), field(3, metric.as_bytes())].concat();
    let mut query = vec![0x10];
    trefoil_model::write_varint(&mut query, newest as u64);
    query.extend(field(3, &matcher));
    let request = [field(1, &query), field(2, &[1, 0])].concat();
    let body = snap::raw::Encoder::new().compress_vec(&request)?;
    let url = format!("{}/api/v1/read", cluster.url(node));
    let headers = [("content-encoding", "snappy")];
    let answer = cluster.client().post(&url, &headers, body).await?;
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    let (mut at, mut frames) = (0, Vec::new());
    let body: &Bytes = &answer.body;
    while at < body.len() {
        let length = read_varint(body, &mut at).context("a frame's length")? as usize;
        let frame = body.get(at + 4..at + 4 + length).context("a whole frame")?;
        let sum: [u8; 4] = body[at..at + 4].try_into()?;
        let is_sound = crc32c(frame) == u32::from_be_bytes(sum);
        ensure!(is_sound, "a frame whose checksum differs");
        let has_name = frame.windows(metric.len()).any(|w| w == metric.as_bytes());
        ensure!(has_name, "a frame of another metric");
        frames.push(body.slice(at + 4..at + 4 + length));
        at += 4 + length;
    }
    Ok(frames)
}

/// CRC-32C bit by bit: not the code that made the sums.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum))
    });
    !sum
}

/// What clients ask before they ask for data.
async fn check_reports(cluster: &Cluster, node: usize) -> anyhow::Result<()> {
    for (path, expected) in [
        (
            "format_query?query=sum(up)by(job)",
            json!("sum by (job) (up)"),
        ),
        ("rules", json!({"groups": []})),
        ("alerts", json!({"alerts": []})),
        (
            "status/walreplay",
            json!({"min": 0, "max": 0, "current": 0, "state": "done"}),
        ),
    ] {
        let url = format!("{}/prometheus/api/v1/{path}", cluster.url(node));
        let data = cluster.client().get(&url).await?.complete_data()?;
        ensure!(data == expected, "{path}: {data}");
    }
    let url = format!("{}/api/v1/status/runtimeinfo", cluster.url(node));
    let data = cluster.client().get(&url).await?.complete_data()?;
    let name = format!("node-{}", node + 1);
    ensure!(data["hostname"] == name, "{data}");
    Ok(())
}

async fn check_promtool(promtool: &Path, cluster: &Cluster, newest: i64) -> anyhow::Result<()> {
    let url = cluster.url(1);
    let seconds = |time: i64| format!("{}", time / 1000);
    let (start, end) = (seconds(newest - 10_000), seconds(newest));
    let (from, to) = (format!("--start={start}"), format!("--end={end}"));
    let time = format!("--time={end}");
    let sum = format!("sum({METRIC})");
    let expected = (SAMPLES - 1) as f64 * 0.5 * SERIES as f64;
    let at_end = format!("{expected} @[{end}");
    let at_end = at_end.as_str();
    for (arguments, holds) in [
        (vec!["query", "instant", &time, &url, &sum], at_end),
        (
            vec!["query", "range", &from, &to, "--step=5s", &url, &sum],
            at_end,
        ),
        (
            vec!["query", "series", "--match", METRIC, &url],
            "id=\"19\"",
        ),
        (vec!["query", "labels", &url, "id"], "19"),
    ] {
        let output = Command::new(promtool).args(&arguments).output()?;
        let text = texts(&output);
        ensure!(
            output.status.success() && text.contains(holds),
            "{arguments:?}: {text}"
        );
    }
    for page in ["metrics", "federate?match[]=trefoil_test_api"] {
        let answer = cluster.client().get(&format!("{url}/{page}")).await?;
        let output = check_metrics(promtool, &answer.body)?;
        let text = texts(&output);
        // 3: it was read, and there are remarks about it, for example that there is no help.
        let is_read = matches!(output.status.code(), Some(0 | 3));
        ensure!(
            is_read && !text.contains("error while linting"),
            "{page}: {text}"
        );
    }
    Ok(())
}

fn check_metrics(promtool: &Path, text: &[u8]) -> anyhow::Result<Output> {
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = command.stderr(Stdio::piped()).spawn()?;
    let mut stdin = running.stdin.take().context("the standard input")?;
    stdin.write_all(text)?;
    drop(stdin);
    Ok(running.wait_with_output()?)
}

fn texts(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Asks the Prometheus that has nothing but what it reads remotely.
async fn check_read(client: &HttpClient, prometheus: &str, newest: i64) -> anyhow::Result<()> {
    let seconds = |time: i64| format!("{}", time / 1000);
    let (start, end) = (seconds(newest - 4 * STEP), seconds(newest));
    let query = format!("sum({METRIC})");
    let range = [
        ("query", query.as_str()),
        ("start", start.as_str()),
        ("end", end.as_str()),
        ("step", "1"),
    ];
    let url = format!("{prometheus}/api/v1/query_range");
    let data = client.query(&url, &range).await?;
    let values = data["result"][0]["values"].as_array().context("values")?;
    let expected: Vec<Value> = (0..5)
        .map(|back| {
            let at = SAMPLES - 5 + back;
            let value = at as f64 * 0.5 * SERIES as f64;
            json!([newest / 1000 - 4 + back, format!("{value}")])
        })
        .collect();
    ensure!(*values == expected, "{data}");
    let query = format!("count(count_over_time({METRIC}[200s]) == {SAMPLES})");
    let instant = [("query", query.as_str()), ("time", end.as_str())];
    let data = client
        .query(&format!("{prometheus}/api/v1/query"), &instant)
        .await?;
    let count = &data["result"][0]["value"][1];
    ensure!(*count == format!("{SERIES}"), "{data}");
    Ok(())
}
