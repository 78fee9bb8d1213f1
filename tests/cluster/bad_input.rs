//! Requests that are broken, hostile or too large: refused with a message that names what is wrong,
//! and nothing else is lost.

use crate::Scenario;
use anyhow::ensure;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{Clock, Cluster, Exclusive, ready_seconds_max};
use trefoil_model::Labels;

/// A request that must be refused: what it is, its body, the allowed statuses, and a word that the
/// message must contain (in any case).
struct Case {
    what: &'static str,
    body: Vec<u8>,
    statuses: &'static [u16],
    names: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_name_and_cost_nothing_else() -> anyhow::Result<()> {
    let run = Scenario::begin().await?;
    for case in cases() {
        for node in 0..3 {
            let (client, url) = (run.cluster.client(), run.cluster.url(node));
            let answer = client.remote_write(&url, case.body.clone()).await?;
            let text = answer.text();
            ensure!(
                case.statuses.contains(&answer.status),
                "{}: {} {text}, not {:?}",
                case.what,
                answer.status,
                case.statuses
            );
            let named = text.to_lowercase().contains(case.names);
            ensure!(
                named,
                "{}: the message does not name {}: {text}",
                case.what,
                case.names
            );
        }
    }
    // A bad series among good ones is left out alone.
    let kept = run.cluster.instant(2, "trefoil_test_kept").await?;
    ensure!(
        kept.as_array().is_some_and(|r| r.len() == 1),
        "the good series was lost: {kept}"
    );
    run.finish().await
}

fn cases() -> Vec<Case> {
    let now = Clock::now_millis();
    let labels = Labels::from_pairs([("__name__", "trefoil_test_bad"), ("a", "b")]);
    let good = encode([(&labels, [(now, 1.0)].as_slice())]);
    // Its labels are in no order, as many clients send them.
    let kept = [("__name__", "trefoil_test_kept"), ("z", "1"), ("b", "2")];
    let kept = series(&kept, now);
    let with_kept = |bad: Vec<u8>| compress(&[kept.as_slice(), &bad].concat());
    let apart = [("dup", "1"), ("__name__", "trefoil_test_bad"), ("dup", "2")];
    let twice = [("__name__", "trefoil_test_bad"), ("dup", "1"), ("dup", "2")];
    vec![
        Case {
            what: "truncated snappy",
            body: good[..good.len() - 3].to_vec(),
            statuses: &[400],
            names: "snappy",
        },
        Case {
            what: "corrupt protobuf",
            body: compress(&[0x0a, 0xff, 0xff, 0x03, 0x01]),
            statuses: &[400],
            names: "protobuf",
        },
        Case {
            what: "a label twice, apart",
            body: with_kept(series(&apart, now)),
            statuses: &[400],
            names: "err-mimir-duplicate-label-names",
        },
        Case {
            what: "a label twice",
            body: with_kept(series(&twice, now)),
            statuses: &[400],
            names: "dup",
        },
        Case {
            what: "a body that says it becomes 1 GB",
            body: bomb(1 << 30),
            statuses: &[400, 413],
            names: "1073741824",
        },
        Case {
            what: "a body that really becomes 1 GB",
            body: compress(&vec![0; 1 << 30]),
            statuses: &[400, 413],
            names: "body",
        },
        Case {
            what: "an oversized body",
            body: vec![0xff; 64 << 20],
            statuses: &[400, 413],
            names: "body",
        },
    ]
}

/// The preamble of a snappy block that promises `length` bytes, and next to nothing behind it.
fn bomb(length: u64) -> Vec<u8> {
    let mut body = Vec::new();
    trefoil_model::write_varint(&mut body, length);
    body.extend_from_slice(&[0x00, 0x0a]);
    body
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let compressed = snap::raw::Encoder::new().compress_vec(bytes);
    compressed.expect("far below snappy's limit of 4 GiB")
}

/// A time series of the write request with its labels as they are given, right or wrong.
fn series(labels: &[(&str, &str)], timestamp: i64) -> Vec<u8> {
    let mut message = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(&mut label, 1, name.as_bytes());
        field(&mut label, 2, value.as_bytes());
        field(&mut message, 1, &label);
    }
    let mut sample = vec![0x09];
    sample.extend_from_slice(&1.0f64.to_le_bytes());
    sample.push(0x10);
    trefoil_model::write_varint(&mut sample, timestamp as u64);
    field(&mut message, 2, &sample);
    let mut out = Vec::new();
    field(&mut out, 1, &message);
    out
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    trefoil_model::write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Queries that coordinators work on for seconds, more than there are processors.
#[tokio::test(flavor = "multi_thread")]
async fn long_queries_do_not_keep_others_waiting() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let (client, url) = (cluster.client(), cluster.url(0));
    let query = "quantile_over_time(0.5, (vector(1) + time() % 97)[15000s:1s])";
    let parameters = [
        ("query", query),
        ("start", "100000"),
        ("end", "103600"),
        ("step", "1"),
    ];
    let target = format!("{url}/api/v1/query_range");
    let begun = Instant::now();
    let processors = std::thread::available_parallelism().map_or(2, Into::into);
    let mut queries = JoinSet::new();
    for _ in 0..processors + 2 {
        let (client, target) = (client.clone(), target.clone());
        queries.spawn(async move { client.query(&target, &parameters).await });
    }
    let mut longest = Duration::ZERO;
    while !queries.is_empty() {
        let asked = Instant::now();
        let answer = client.get(&format!("{url}/-/healthy")).await?;
        ensure!(answer.status == 200, "it is not healthy");
        longest = longest.max(asked.elapsed());
        let ended = tokio::time::timeout(Duration::from_millis(20), queries.join_next());
        if let Ok(Some(answer)) = ended.await {
            answer??;
        }
    }
    let all = begun.elapsed();
    ensure!(longest < all / 4, "{longest:?} of {all:?}");
    Ok(())
}
