//! Queries that nobody waits for any more, because the client has left or the time is over: they end in the middle of the
//! coordinator's work, and another query gets their turn.

use anyhow::{Context, ensure};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{
    Answer, Clock, Cluster, Exclusive, HttpClient, ready_seconds_max, wait_until,
};
use trefoil_model::Labels;

const CONFIG: &str =
    "limits: {query_concurrency: 1}\nenable_feature: [promql-experimental-functions]\n";

/// Series, as many that describe each of them, and times: five thousand million looks, which are one piece of work of minutes.
const SERIES: usize = 1000;
const STEPS: i64 = 5000;
const LONG: &str =
    r#"info({__name__="trefoil_test_given_up"}, {__name__=~"trefoil_test_describes_.+"})"#;

/// Processor seconds that only that piece takes: what is in front of it takes some tenths.
const IN_PIECE_CPU_SECONDS: f64 = 2.0;

/// How soon a query ends that must: far above what it takes, and far below what is left of it.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_nobody_waits_for_gives_its_turn_back() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(1, CONFIG)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let newest = Clock::now_millis();
    write(&cluster, newest).await?;

    // The time is over in the middle of the piece.
    let begun = Instant::now();
    let late = ask_long(cluster.url(0), newest, "3s").await?;
    let text = late.text();
    ensure!(late.status == 503, "{}: {text}", late.status);
    ensure!(
        text.contains("query timed out in expression evaluation"),
        "{text}"
    );
    ensure!(begun.elapsed() < SOON, "late by {:?}", begun.elapsed());
    wait_for_rest(&cluster).await?;
    ensure!(number(&cluster, OUTCOME_TIMEOUT).await? == 1.0, "a timeout");

    // The client leaves in the middle of it.
    let before = number(&cluster, "process_cpu_seconds_total").await?;
    let asked = tokio::spawn(ask_long(cluster.url(0), newest, "110s"));
    let working = wait_until(
        "the query is in its piece",
        Duration::from_secs(60),
        || async {
            ensure!(
                number(&cluster, "trefoil_queries_running").await? == 1.0,
                "it has ended"
            );
            let taken = number(&cluster, "process_cpu_seconds_total").await? - before;
            ensure!(taken > IN_PIECE_CPU_SECONDS, "{taken} s of processor time");
            Ok(())
        },
    );
    working.await?;
    let waits = ask(&cluster, "1s").await?;
    ensure!(waits.status == 503, "there was a turn: {}", waits.text());
    asked.abort();
    let begun = Instant::now();
    let served = ask(&cluster, "60s").await?;
    ensure!(served.is_success(), "{}", served.text());
    ensure!(
        begun.elapsed() < SOON,
        "a turn only after {:?}",
        begun.elapsed()
    );
    wait_for_rest(&cluster).await?;
    ensure!(
        number(&cluster, OUTCOME_CANCELED).await? == 1.0,
        "a canceled query"
    );
    crate::check_end(&cluster, &[]).await
}

const OUTCOME_TIMEOUT: &str = "trefoil_queries_total{outcome=\"timeout\"}";
const OUTCOME_CANCELED: &str = "trefoil_queries_total{outcome=\"canceled\"}";

async fn write(cluster: &Cluster, newest: i64) -> anyhow::Result<()> {
    let samples = [(newest, 1.0)];
    let all: Vec<Labels> = (0..SERIES)
        .flat_map(|id| {
            let (id, name) = (id.to_string(), format!("trefoil_test_describes_{id}"));
            let own = [
                ("__name__", "trefoil_test_given_up"),
                ("id", &id),
                ("instance", "a"),
                ("job", "a"),
            ];
            let describing = [("__name__", &*name), ("instance", "a"), ("job", "a")];
            [Labels::from_pairs(own), Labels::from_pairs(describing)]
        })
        .collect();
    let body = encode(all.iter().map(|labels| (labels, &samples[..])));
    let written = cluster.client().remote_write(&cluster.url(0), body).await?;
    ensure!(written.is_success(), "{}", written.text());
    Ok(())
}

/// Asks the long query, whose times are within what looks back at the samples.
async fn ask_long(url: String, newest: i64, timeout: &'static str) -> anyhow::Result<Answer> {
    let client = HttpClient::new(Duration::from_secs(120));
    let (start, end) = (newest, newest + (STEPS - 1) * 100);
    let seconds = |time: i64| format!("{}.{:03}", time / 1000, time % 1000);
    let parameters = [
        ("query", LONG),
        ("start", &seconds(start)),
        ("end", &seconds(end)),
        ("step", "0.1"),
        ("timeout", timeout),
    ];
    let url = format!("{url}/api/v1/query_range");
    client.post_form(&url, &parameters).await
}

/// Asks a short query, which takes a turn as every other.
async fn ask(cluster: &Cluster, timeout: &str) -> anyhow::Result<Answer> {
    let client = HttpClient::new(Duration::from_secs(120));
    let url = format!("{}/api/v1/query", cluster.url(0));
    client
        .post_form(&url, &[("query", "1"), ("timeout", timeout)])
        .await
}

/// Waits until no thread works on a query any more: since the last look the process has taken less than half of a processor.
async fn wait_for_rest(cluster: &Cluster) -> anyhow::Result<()> {
    let last = Cell::new((Instant::now(), 0.0));
    let at_rest = wait_until("nothing is worked on", SOON, || async {
        let taken = number(cluster, "process_cpu_seconds_total").await?;
        let (before, taken_before) = last.replace((Instant::now(), taken));
        let of_time = (taken - taken_before) / before.elapsed().as_secs_f64();
        ensure!(of_time < 0.5, "{of_time} of a processor");
        ensure!(
            number(cluster, "trefoil_queries_running").await? == 0.0,
            "one is running"
        );
        Ok(())
    });
    at_rest.await.map(|_| ())
}

/// A number of the node's metrics.
async fn number(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    let url = format!("{}/metrics", cluster.url(0));
    let answer = cluster.client().get(&url).await?;
    let text = std::str::from_utf8(&answer.body)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.with_context(|| format!("no {name} in the metrics"))?;
    Ok(value.trim().parse()?)
}
