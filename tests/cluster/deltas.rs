//! Deltas behind a load balancer: any node takes them, each interval counts once, and counters rise by what was acknowledged, also
//! when the node dies that adds them up.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use trefoil_jepsen::{
    Cluster, Exclusive, HttpClient, percent_encode, ready_seconds_max, wait_until,
};

/// How long deltas may wait for another node to add them up: a lease of 10 s, which a new leader counts anew, and an
/// election.
const HOLDER_GONE_MAX: Duration = Duration::from_secs(40);
/// Series that each point of [`request`] stands for.
const SERIES: usize = 6;
/// Senders that wait for the answer to a point before they send the next, and such that send two at once.
const SENDERS: [usize; 2] = [6, 3];
/// Points of each sender that have to be answered between two faults.
const POINTS_BETWEEN: u64 = 5;
/// No node, as one that senders leave out.
const NONE: usize = usize::MAX;

/// A sender, and what came of its points.
struct Sender {
    name: String,
    client: HttpClient,
    urls: Vec<String>,
    /// The node that is asked for nothing.
    left_out: Arc<AtomicUsize>,
    /// Where the next point begins.
    begin: u64,
    sent: f64,
    acknowledged: f64,
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_are_added_up_whichever_node_gets_them() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let begin = now() - 120_000;
    let mut sender = Sender::new(&cluster, "one", begin);
    let time = |point: u64| begin + point * 1000;
    for point in 0..9 {
        sender.send(point as usize % 3, time(point + 1)).await?;
        // The answer was lost on its way, and a load balancer chooses another node for the next try.
        sender
            .repeat((point as usize + 1) % 3, time(point), time(point + 1))
            .await?;
    }
    sender.check(&cluster).await?;

    let holder = holder(&cluster).await?;
    cluster.kill(holder)?;
    let others = [(holder + 1) % 3, (holder + 2) % 3];
    // Nobody knows whether the dead node stored it.
    sender.repeat(others[0], time(8), time(9)).await?;
    for point in 9..12 {
        sender
            .send(others[point as usize % 2], time(point + 1))
            .await?;
    }
    cluster.start_node(holder)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    sender.send(holder, time(13)).await?;
    sender.check(&cluster).await?;

    // Two exports overtake each other: the earlier one is refused, and nothing else is counted or lost by that.
    sender.begin = time(14);
    sender.send(0, time(15)).await?;
    let late = sender.ask(1, time(13), time(14)).await?;
    ensure!(
        late.contains("comes too late") && late.contains("\"rejectedDataPoints\":\"6\""),
        "{late}"
    );
    sender.send(2, time(16)).await?;
    let overlap = sender.ask(1, time(15) + 500, time(16) + 500).await?;
    ensure!(
        overlap.contains("two senders have the same labels")
            && overlap.contains("\"rejectedDataPoints\":\"6\""),
        "{overlap}"
    );
    sender.check(&cluster).await?;
    nothing_goes_on_from_what_was_deleted(&cluster, &mut sender).await?;
    what_a_limit_refuses_is_not_added_up(&cluster).await
}

async fn nothing_goes_on_from_what_was_deleted(
    cluster: &Cluster,
    sender: &mut Sender,
) -> anyhow::Result<()> {
    let selector = percent_encode(&format!("{{sender=\"{}\"}}", sender.name));
    let path = format!("/api/v1/admin/tsdb/delete_series?match[]={selector}");
    let url = format!("{}{path}", cluster.url(0));
    let answer = sender.client.post(&url, &[], "").await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    (sender.sent, sender.acknowledged) = (0.0, 0.0);
    for node in [1, 2] {
        sender.send(node, sender.begin + 1000).await?;
    }
    sender.check(cluster).await
}

async fn what_a_limit_refuses_is_not_added_up(cluster: &Cluster) -> anyhow::Result<()> {
    let limit = |value: &str| {
        let limit = format!("max_global_series_per_user={value}");
        let output = cluster.command(0, &["tenant", "set-limits", &limit])?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    limit("6")?;
    let tries = AtomicU64::new(0);
    let refused = wait_until("new series are refused", HOLDER_GONE_MAX, || async {
        let name = format!("further{}", tries.fetch_add(1, Ordering::Relaxed));
        let sender = Sender::new(cluster, &name, now() - 60_000);
        let text = sender.ask(0, sender.begin, sender.begin + 1000).await?;
        ensure!(text.contains("err-mimir-max-series-per-user"), "{text}");
        ensure!(text.contains("\"rejectedDataPoints\":\"6\""), "{text}");
        Ok(sender)
    });
    let mut sender = refused.await?.0;
    limit("0")?;
    // What was refused was not counted.
    sender.begin += 1000;
    sender.send(0, sender.begin + 1000).await?;
    sender.check(cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_count_once_when_nodes_die_under_load() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let load = Load::begin(&cluster);
    load.goes_on().await?;
    // One of them adds up, and changes only when it dies.
    for node in 0..3 {
        cluster.kill(node)?;
        let took = load.goes_on().await?;
        eprintln!("all senders go on {took:.1?} after the death of node {node}");
        cluster.start_node(node)?;
        cluster.wait_ready(ready_seconds_max()).await?;
        load.goes_on().await?;
    }
    load.end(&cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn deltas_count_once_when_the_node_that_adds_them_up_is_paused() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let load = Load::begin(&cluster);
    for round in 1..=2 {
        load.goes_on().await?;
        let holder = holder(&cluster).await?;
        // In the middle of what it does for them.
        cluster.pause(holder)?;
        load.left_out.store(holder, Ordering::Relaxed);
        all_else_is_stored(&cluster, (holder + 1) % 3, round).await?;
        let took = load.goes_on().await?;
        eprintln!("all senders go on {took:.1?} after the pause of node {holder} was met");
        // It goes on where it was, and has lost its place.
        cluster.resume(holder)?;
        load.left_out.store(NONE, Ordering::Relaxed);
        cluster.wait_ready(ready_seconds_max()).await?;
        load.goes_on().await?;
    }
    load.end(&cluster).await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_totals_are_read_back_by_the_next_node() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let client = HttpClient::new(Duration::from_secs(20));
    let begin = now() - 60_000;
    // More questions than one, and of each metric more values than are asked for.
    let (metrics, points) = (80, 100);
    let urls: Vec<String> = (0..3).map(|node| cluster.url(node)).collect();
    let send = async |node: usize, number: u64| {
        let url = format!("{}/v1/metrics", urls[node]);
        let json = [("content-type", "application/json")];
        let body = many(metrics, points, begin + number * 1000);
        let begun = Instant::now();
        let answer = client.post(&url, &json, body).await?;
        let (status, text) = (answer.status, answer.text());
        ensure!(status == 200 && text == "{}", "{status}: {text}");
        Ok(begun.elapsed())
    };
    let deadline = HOLDER_GONE_MAX;
    wait_until("the first are taken", deadline, || send(0, 0)).await?;
    wait_until("the second are taken", deadline, || send(1, 1)).await?;
    let holder = holder(&cluster).await?;
    cluster.kill(holder)?;
    let other = (holder + 1) % 3;
    let (took, _) = wait_until("another one takes them", deadline, || send(other, 2)).await?;
    let all = metrics * points;
    eprintln!("{all} totals are read back and added to in {took:.1?}");
    let query = percent_encode("count({__name__=~\"many_.*\"} == 3)");
    let url = format!("{}/api/v1/query?query={query}", cluster.url(other));
    let found = client.get(&url).await?.text();
    ensure!(
        found.contains(&format!("\"{all}\"")),
        "not {all} go on: {found}"
    );
    Ok(())
}

/// A delta of one, of a second that begins then, of so many points of so many metrics.
fn many(metrics: usize, points: usize, begin: u64) -> String {
    let times = format!(
        r#""startTimeUnixNano": "{}", "timeUnixNano": "{}", "asInt": 1"#,
        begin * 1_000_000,
        (begin + 1000) * 1_000_000
    );
    let point = |point: usize| {
        let value = format!(r#""value": {{"stringValue": "p{point}"}}"#);
        format!(r#"{{"attributes": [{{"key": "point", {value}}}], {times}}}"#)
    };
    let points: Vec<String> = (0..points).map(point).collect();
    let points = points.join(",");
    let metric = |metric: usize| {
        let rest = r#""aggregationTemporality": 1, "isMonotonic": true"#;
        format!(r#"{{"name": "many.m{metric}", "sum": {{{rest}, "dataPoints": [{points}]}}}}"#)
    };
    let metrics: Vec<String> = (0..metrics).map(metric).collect();
    let metrics = metrics.join(",");
    format!(r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [{metrics}]}}]}}]}}"#)
}

/// A request of which the deltas cannot be added up, because who does that is away.
async fn all_else_is_stored(cluster: &Cluster, node: usize, value: u32) -> anyhow::Result<()> {
    let time = now();
    let point = format!(
        r#""timeUnixNano": "{}", "asInt": {value}"#,
        time * 1_000_000
    );
    let body = format!(
        r#"{{"resourceMetrics": [{{"scopeMetrics": [{{"metrics": [
            {{"name": "mixed.delta", "sum": {{"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": [{{{point}}}]}}}},
            {{"name": "mixed.gauge", "gauge": {{"dataPoints": [{{{point}}}]}}}}
        ]}}]}}]}}"#
    );
    let client = HttpClient::new(Duration::from_secs(20));
    let url = format!("{}/v1/metrics", cluster.url(node));
    let json = [("content-type", "application/json")];
    let answer = client.post(&url, &json, body).await?;
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
    let url = format!("{}/api/v1/query?query=mixed_gauge", cluster.url(node));
    let found = client.get(&url).await?.text();
    ensure!(found.contains(&format!("\"{value}\"")), "{found}");
    Ok(())
}

/// Senders that run until they are told to end.
struct Load {
    is_over: Arc<AtomicBool>,
    left_out: Arc<AtomicUsize>,
    /// How many points of each sender were answered.
    answered: Vec<Arc<AtomicU64>>,
    running: Vec<tokio::task::JoinHandle<anyhow::Result<Sender>>>,
}

impl Load {
    fn begin(cluster: &Cluster) -> Self {
        let mut load = Self {
            is_over: Arc::default(),
            left_out: Arc::new(AtomicUsize::new(NONE)),
            answered: Vec::new(),
            running: Vec::new(),
        };
        for number in 0..SENDERS[0] + SENDERS[1] {
            let mut sender = Sender::new(cluster, &format!("s{number}"), now());
            sender.left_out = Arc::clone(&load.left_out);
            let points = Arc::new(AtomicU64::new(0));
            load.answered.push(Arc::clone(&points));
            let at_once = if number < SENDERS[0] { 1 } else { 2 };
            let sends = sender.run(at_once, points, Arc::clone(&load.is_over));
            load.running.push(tokio::spawn(sends));
        }
        load
    }

    /// Waits until some more points of each sender are answered; how long that took.
    async fn goes_on(&self) -> anyhow::Result<Duration> {
        let answered = self.answered.iter();
        let before: Vec<u64> = answered.map(|n| n.load(Ordering::Relaxed)).collect();
        let all_did = || async {
            let mut both = self.answered.iter().zip(&before);
            let did = both.all(|(n, before)| n.load(Ordering::Relaxed) >= before + POINTS_BETWEEN);
            ensure!(did, "some senders wait");
            Ok(())
        };
        let waited = wait_until("all senders go on", HOLDER_GONE_MAX, all_did).await?;
        Ok(waited.1)
    }

    /// Ends all of them; what they sent must have been counted.
    async fn end(self, cluster: &Cluster) -> anyhow::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut sums = (0.0, 0.0);
        for sender in self.running {
            let sender = sender.await??;
            sender.check(cluster).await?;
            sums = (sums.0 + sender.acknowledged, sums.1 + sender.sent);
        }
        eprintln!("{} of {} acknowledged", sums.0, sums.1);
        Ok(())
    }
}

impl Sender {
    fn new(cluster: &Cluster, name: &str, begin: u64) -> Self {
        Self {
            name: name.to_owned(),
            client: HttpClient::new(Duration::from_secs(12)),
            urls: (0..3).map(|node| cluster.url(node)).collect(),
            left_out: Arc::new(AtomicUsize::new(NONE)),
            begin,
            sent: 0.0,
            acknowledged: 0.0,
        }
    }

    /// Sends points, some at once, until it is over.
    async fn run(
        mut self,
        at_once: usize,
        answered: Arc<AtomicU64>,
        is_over: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        while !is_over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let (from, to) = (self.begin, now());
            self.begin = to;
            if at_once == 1 {
                let is_taken = self.deliver(from, to).await?;
                ensure!(is_taken, "{} was refused in order", self.name);
                self.count(from, is_taken);
            } else {
                let middle = from + (to - from) / 2;
                let (one, other) =
                    tokio::join!(self.deliver(from, middle), self.deliver(middle, to));
                self.count(from, one?);
                self.count(middle, other?);
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self)
    }

    /// Sends a point to one node after the other until it is taken, or refused.
    async fn deliver(&self, from: u64, to: u64) -> anyhow::Result<bool> {
        let begun = Instant::now();
        for node in from as usize.. {
            if node % 3 == self.left_out.load(Ordering::Relaxed) {
                continue;
            }
            match self.ask(node % 3, from, to).await {
                Ok(text) if text == "{}" => return Ok(true),
                Ok(text) => {
                    ensure!(text.contains("\"rejectedDataPoints\":\"6\""), "{text}");
                    return Ok(false);
                }
                Err(error) if begun.elapsed() > HOLDER_GONE_MAX => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        bail!("no node is left")
    }

    /// Sends the next point until it is taken.
    async fn send(&mut self, node: usize, to: u64) -> anyhow::Result<()> {
        let from = self.begin;
        self.repeat(node, from, to).await?;
        self.begin = to;
        self.count(from, true);
        Ok(())
    }

    fn count(&mut self, from: u64, is_taken: bool) {
        self.sent += value(from);
        if is_taken {
            self.acknowledged += value(from);
        }
    }

    /// Sends a point until it is taken.
    async fn repeat(&self, node: usize, from: u64, to: u64) -> anyhow::Result<()> {
        let taken = wait_until("the deltas are taken", HOLDER_GONE_MAX, || async {
            let text = self.ask(node, from, to).await?;
            ensure!(text == "{}", "{text}");
            Ok(())
        });
        taken.await.map(drop)
    }

    async fn ask(&self, node: usize, from: u64, to: u64) -> anyhow::Result<String> {
        let url = format!("{}/v1/metrics", self.urls[node]);
        let json = [("content-type", "application/json")];
        let request = self.request(from, to, value(from));
        let answer = self.client.post(&url, &json, request).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(String::from_utf8(answer.body.to_vec())?)
    }

    /// A point of each kind, in each of which the value was counted; times are milliseconds.
    fn request(&self, from: u64, to: u64, value: f64) -> String {
        let nanos = |at: u64| at * 1_000_000;
        let times = format!(
            r#""attributes": [{{"key": "sender", "value": {{"stringValue": "{}"}}}}],
               "startTimeUnixNano": "{}", "timeUnixNano": "{}""#,
            self.name,
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

    /// Every series must have risen by what was acknowledged at least and by what was sent at most, at all nodes.
    async fn check(&self, cluster: &Cluster) -> anyhow::Result<()> {
        for node in 0..3 {
            let selector = format!("{{__name__=~\"deltas_.*\",sender=\"{}\"}}", self.name);
            let selector = percent_encode(&selector);
            let url = format!("{}/api/v1/export?match[]={selector}", cluster.url(node));
            let answer = cluster.client().get(&url).await?;
            let text = String::from_utf8(answer.body.to_vec())?;
            ensure!(text.lines().count() == SERIES, "{text}");
            for line in text.lines() {
                let risen = risen(line).with_context(|| format!("node {node}: {line}"))?;
                ensure!(
                    (self.acknowledged..=self.sent).contains(&risen),
                    "node {node}: risen by {risen}, {} of {} acknowledged: {line}",
                    self.acknowledged,
                    self.sent
                );
            }
        }
        Ok(())
    }
}

/// By how much a counter has risen, which begins at zero and falls to zero only.
fn risen(line: &str) -> anyhow::Result<f64> {
    let series: Value = serde_json::from_str(line)?;
    let list = |name: &str| series[name].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_f64().or_else(|| value["count"].as_f64());
    let values: Option<Vec<f64>> = list("values").iter().map(number).collect();
    let times: Option<Vec<u64>> = list("timestamps").iter().map(Value::as_u64).collect();
    let samples = times
        .into_iter()
        .flatten()
        .zip(values.into_iter().flatten());
    let samples: BTreeMap<u64, f64> = samples.collect();
    let mut last = 0.0;
    ensure!(
        samples
            .first_key_value()
            .is_some_and(|first| *first.1 == last),
        "no zero"
    );
    let mut risen = 0.0;
    for (time, value) in samples {
        ensure!(
            value >= last || value == 0.0,
            "falls from {last} to {value} at {time}"
        );
        risen += if value >= last { value - last } else { value };
        last = value;
    }
    Ok(risen)
}

/// What a point counts that begins then.
fn value(from: u64) -> f64 {
    (from % 7 + 1) as f64
}

fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_millis() as u64)
}

/// The node that adds up.
async fn holder(cluster: &Cluster) -> anyhow::Result<usize> {
    let mut holders = Vec::new();
    for node in 0..3 {
        let url = format!("{}/metrics", cluster.url(node));
        let answer = cluster.client().get(&url).await?;
        let text = String::from_utf8(answer.body.to_vec())?;
        let series = text
            .lines()
            .find_map(|line| line.strip_prefix("trefoil_delta_series "));
        if series.with_context(|| format!("no number of series: {text}"))? != "0" {
            holders.push(node);
        }
    }
    ensure!(holders.len() == 1, "nodes {holders:?} add up");
    holders.first().copied().context("nobody adds up")
}
