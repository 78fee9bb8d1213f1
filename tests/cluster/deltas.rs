//! Deltas behind a load balancer: any node takes them, each interval counts once, and totals go on when the node dies that
//! adds them up.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::{Duration, SystemTime};
use trefoil_jepsen::{Cluster, Exclusive, percent_encode, ready_seconds_max, wait_until};

/// How long deltas may wait for another node to add them up: a lease of 10 s, which a new leader counts anew, and an
/// election.
const HOLDER_GONE_MAX: Duration = Duration::from_secs(40);
/// Series that each point of [`request`] stands for.
const SERIES: usize = 6;

/// A sender of deltas, and what they must have come to: (time, total).
struct Sender {
    cluster: Cluster,
    begin: u64,
    stored: Vec<(u64, f64)>,
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_are_added_up_whichever_node_gets_them() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, "otlp:\n  deltas: accumulate\n")?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let begin = SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as u64 - 120_000;
    let mut sender = Sender {
        cluster,
        begin,
        stored: vec![(begin + 1, 0.0)],
    };
    for point in 0..9 {
        sender.count(point as usize % 3, point).await?;
        // The answer was lost on its way, and a load balancer chooses another node for the next try.
        sender.send((point as usize + 1) % 3, point).await?;
    }
    sender.check().await?;

    let holder = sender.holder().await?;
    sender.cluster.kill(holder)?;
    let others = [(holder + 1) % 3, (holder + 2) % 3];
    // Nobody knows whether the dead node stored it.
    sender.send(others[0], 8).await?;
    for point in 9..12 {
        sender.count(others[point as usize % 2], point).await?;
    }
    sender.cluster.start_node(holder)?;
    sender.cluster.wait_ready(ready_seconds_max()).await?;
    sender.count(holder, 12).await?;
    sender.check().await?;

    // Two exports overtake each other.
    sender.count(0, 14).await?;
    let total = sender.total() + value(13);
    sender.send(1, 13).await?;
    sender.stored.push((sender.time(15) + 1, total));
    sender.count(2, 15).await?;
    let text = sender
        .try_send(1, &sender.request(15_500, 16_500, 1.0))
        .await?;
    ensure!(
        text.contains("two senders have the same labels")
            && text.contains("\"rejectedDataPoints\":\"6\""),
        "{text}"
    );
    sender.check().await
}

fn value(point: u64) -> f64 {
    (point % 3 + 1) as f64
}

impl Sender {
    fn time(&self, point: u64) -> u64 {
        self.begin + point * 1000
    }

    fn total(&self) -> f64 {
        self.stored.last().map_or(0.0, |last| last.1)
    }

    /// Sends a point that has not been counted yet.
    async fn count(&mut self, node: usize, point: u64) -> anyhow::Result<()> {
        self.send(node, point).await?;
        let total = self.total() + value(point);
        self.stored.push((self.time(point + 1), total));
        Ok(())
    }

    /// Sends a point until it is taken.
    async fn send(&self, node: usize, point: u64) -> anyhow::Result<()> {
        let (from, to) = (point * 1000, (point + 1) * 1000);
        let request = self.request(from, to, value(point));
        let taken = wait_until("the deltas are taken", HOLDER_GONE_MAX, || async {
            let text = self.try_send(node, &request).await?;
            ensure!(text == "{}", "{text}");
            Ok(())
        });
        taken.await.map(drop)
    }

    async fn try_send(&self, node: usize, request: &str) -> anyhow::Result<String> {
        let url = format!("{}/v1/metrics", self.cluster.url(node));
        let json = [("content-type", "application/json")];
        let answer = self.cluster.client().post(&url, &json, request.to_owned());
        let answer = answer.await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(String::from_utf8(answer.body.to_vec())?)
    }

    /// A point of each kind, in each of which the value was counted; times are milliseconds behind the begin.
    fn request(&self, from: u64, to: u64, value: f64) -> String {
        let nanos = |at: u64| (self.begin + at) * 1_000_000;
        let times = format!(
            r#""startTimeUnixNano": "{}", "timeUnixNano": "{}""#,
            nanos(from),
            nanos(to)
        );
        let data = |rest: &str| {
            format!(
                r#"{{"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{{{times}, {rest}}}]}}"#
            )
        };
        let sum = data(&format!(r#""asDouble": {value}"#));
        let histogram = data(&format!(
            r#""count": {value}, "sum": {value}, "bucketCounts": [{value}, 0], "explicitBounds": [1]"#
        ));
        let exponential = data(&format!(
            r#""count": {value}, "sum": {value}, "positive": {{"offset": 2, "bucketCounts": [{value}]}}"#
        ));
        let metrics = format!(
            r#"{{"name": "deltas.s", "sum": {sum}}}, {{"name": "deltas.h", "histogram": {histogram}}},
               {{"name": "deltas.e", "exponentialHistogram": {exponential}}}"#
        );
        format!(r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [{metrics}]}}]}}]}}"#)
    }

    /// The node that adds up.
    async fn holder(&self) -> anyhow::Result<usize> {
        let mut holders = Vec::new();
        for node in 0..3 {
            let url = format!("{}/metrics", self.cluster.url(node));
            let answer = self.cluster.client().get(&url).await?;
            let text = String::from_utf8(answer.body.to_vec())?;
            let line = format!("trefoil_delta_series {SERIES}");
            if text.lines().any(|other| other == line) {
                holders.push(node);
            }
        }
        ensure!(holders.len() == 1, "nodes {holders:?} add up");
        holders.first().copied().context("nobody adds up")
    }

    /// Every series must have each total at its time, at all nodes.
    async fn check(&self) -> anyhow::Result<()> {
        for node in 0..3 {
            let selector = percent_encode("{__name__=~\"deltas_.*\"}");
            let url = format!(
                "{}/api/v1/export?match[]={selector}",
                self.cluster.url(node)
            );
            let answer = self.cluster.client().get(&url).await?;
            let text = String::from_utf8(answer.body.to_vec())?;
            ensure!(text.lines().count() == SERIES, "{text}");
            for line in text.lines() {
                let series: Value = serde_json::from_str(line)?;
                let list = |name: &str| series[name].as_array().cloned().unwrap_or_default();
                let number = |value: &Value| value.as_f64().or_else(|| value["count"].as_f64());
                let values = list("values").into_iter();
                let values: Option<Vec<f64>> = values.map(|value| number(&value)).collect();
                let times: Vec<_> = list("timestamps")
                    .iter()
                    .filter_map(Value::as_u64)
                    .collect();
                let values = values.context("a value is no number")?;
                let found: Vec<(u64, f64)> = times.into_iter().zip(values).collect();
                ensure!(
                    found == self.stored,
                    "node {node}: {line}\n{found:?}\nnot\n{:?}",
                    self.stored
                );
            }
        }
        Ok(())
    }
}
