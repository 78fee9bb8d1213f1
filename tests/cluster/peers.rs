//! Beside Prometheus: it scrapes itself and a node exporter, remote-writes to one node, and every
//! node must answer as it does.
//!
//! Questions are asked for times at which no sample lies, because Prometheus 2.42 includes both ends
//! of a range and 3.x only the later one.

use crate::answers::{elements, same_numbers};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use trefoil_jepsen::{Clock, Cluster, Exclusive, HttpClient, ready_seconds_max, wait_until};
use trefoil_tests::{Exporter, Peer, Prometheus, peer_program};

/// From the start of Prometheus to equal answers of all nodes.
const EQUAL_WAIT_MAX: Duration = Duration::from_secs(30);
/// Sums may differ in the last bits by the order of their terms.
const RELATIVE_ERROR_MAX: f64 = 1e-9;
/// Questions look back this far at most: a range of ten seconds, at four steps before a time that is two
/// seconds ago. Before that they would reach back to before the first samples.
const HISTORY: Duration = Duration::from_secs(16);

const QUESTIONS: &str = include_str!("../cases/peers/questions.promql");
/// How many questions there must be at least.
const QUESTIONS_MIN: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_answer_as_prometheus_does() -> anyhow::Result<()> {
    let Peer::Found(prometheus) = peer_program("prometheus")? else {
        return Ok(());
    };
    let Peer::Found(exporter) = peer_program("prometheus-node-exporter")? else {
        return Ok(());
    };
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let folder = tempfile::tempdir()?;
    let exporter = Exporter::start(&exporter, folder.path()).await?;
    let write = format!("{}/api/v1/write", cluster.url(0));
    let targets = [exporter.address.as_str()];
    let begun = Instant::now();
    let prometheus = Prometheus::start(&prometheus, folder.path(), &targets, &write).await?;
    let client = HttpClient::new(Duration::from_secs(10));
    // Counters of questions begin now, before the windows of the questions do: 2.42 and 3.x guess
    // differently what was before a counter's first sample.
    for form in [Form::Instant, Form::Range] {
        ask(&client, &prometheus.url, form, "up", Clock::now_millis()).await?;
    }
    // The questions need some history, which has to come to be first.
    let history = wait_until("history of a few seconds", EQUAL_WAIT_MAX, || async {
        ensure!(
            begun.elapsed() > HISTORY + Duration::from_secs(3),
            "it is too early"
        );
        Ok(())
    });
    history.await?;
    let left = EQUAL_WAIT_MAX.saturating_sub(begun.elapsed());
    let equal = wait_until("all nodes answer as Prometheus does", left, || async {
        compare_all(&client, &prometheus.url, &cluster).await
    });
    equal.await?;
    Ok(())
}

async fn compare_all(
    client: &HttpClient,
    prometheus: &str,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let time = quiet_time(client, prometheus).await?;
    let questions: Vec<&str> = questions().collect();
    ensure!(
        questions.len() >= QUESTIONS_MIN,
        "only {} questions",
        questions.len()
    );
    for question in questions {
        for form in [Form::Instant, Form::Range] {
            let expected = ask(client, prometheus, form, question, time).await?;
            let empty = expected.as_array().is_none_or(Vec::is_empty);
            ensure!(!empty, "Prometheus has no answer to {question}");
            let mut answers = Vec::new();
            for url in cluster.running_urls() {
                let answer = ask(client, &url, form, question, time).await?;
                let same = same_numbers(&expected, &answer, RELATIVE_ERROR_MAX);
                ensure!(same, "{question} at {time}: {answer} instead of {expected}");
                answers.push(elements(&answer));
            }
            let alike = answers.iter().all(|answer| *answer == answers[0]);
            ensure!(alike, "{question} at {time}: nodes differ: {answers:?}");
        }
    }
    Ok(())
}

/// An instant query, or a range query over the four seconds before, second by second.
#[derive(Clone, Copy)]
enum Form {
    Instant,
    Range,
}

fn questions() -> impl Iterator<Item = &'static str> {
    let lines = QUESTIONS.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A recent time, in milliseconds, that is as far as possible from the scrapes of a second: they
/// come at the same milliseconds of each.
async fn quiet_time(client: &HttpClient, prometheus: &str) -> anyhow::Result<i64> {
    let now = Clock::now_millis();
    let data = ask(client, prometheus, Form::Instant, "up[5s]", now).await?;
    let mut taken: Vec<i64> = Vec::new();
    for series in data.as_array().context("series of up")? {
        for pair in series["values"].as_array().context("samples of up")? {
            let at = pair[0].as_f64().context("a timestamp")?;
            taken.push((at * 1000.0).round() as i64 % 1000);
        }
    }
    let distance = |ms: i64| {
        let near = taken
            .iter()
            .map(|t| (t - ms).rem_euclid(1000).min((ms - t).rem_euclid(1000)));
        near.min().unwrap_or(1000)
    };
    let quiet = (0..1000).max_by_key(|ms| distance(*ms)).unwrap_or(0);
    // Two seconds back: what was scraped until then has been sent.
    Ok((now / 1000 - 2) * 1000 + quiet)
}

async fn ask(
    client: &HttpClient,
    url: &str,
    form: Form,
    question: &str,
    time: i64,
) -> anyhow::Result<Value> {
    let seconds = |time: i64| format!("{:.3}", time as f64 / 1000.0);
    let (end, start) = (seconds(time), seconds(time - 4000));
    let (path, times) = match form {
        Form::Instant => ("query", vec![("time", end.as_str())]),
        Form::Range => {
            let times = [("start", start.as_str()), ("end", &end), ("step", "1")];
            ("query_range", times.to_vec())
        }
    };
    let parameters = [vec![("query", question)], times].concat();
    let url = format!("{url}/api/v1/{path}");
    let data = client.query(&url, &parameters).await;
    Ok(data.with_context(|| question.to_owned())?["result"].take())
}
