//! A steady load: for every node a writer with a ledger of its own and a querier that counts all
//! ledgers, each with one request under way at a time.
//!
//! The querier holds every count between what had been acknowledged when it asked and what had been
//! sent when it got its answer, for each series: an incomplete answer is seen at once. What counts
//! cannot show (one sample lost, an unacknowledged one in its place) the final check does.

use crate::{
    Attempt, Clock, Fate, HttpClient, Ledger,
    ledger::{Counts, METRIC},
    longest_error_window,
};
use anyhow::{Context, bail};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

/// Longer than the deadline of the nodes' own writes and queries, so that their answers are seen.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

/// What a load does.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Series of each writer, and so samples of each request.
    pub series: usize,
    /// Between two requests of a writer.
    pub write_every: Duration,
    /// Between two questions of a querier.
    pub query_every: Duration,
}

impl Default for LoadPlan {
    /// 64 series over the shards, 5 requests and 2 questions per second and node: enough to see
    /// errors of a fifth of a second, little enough that full counts stay cheap for minutes.
    fn default() -> Self {
        Self {
            series: 64,
            write_every: Duration::from_millis(200),
            query_every: Duration::from_millis(500),
        }
    }
}

/// What one writer or querier has seen.
#[derive(Clone, Default)]
struct Seen {
    attempts: Vec<Attempt>,
    /// Reasons of failures, the first 20.
    reasons: Vec<String>,
    /// Answers that were wrong or incomplete. There must be none.
    wrong: Vec<String>,
}

impl Seen {
    fn record(&mut self, begun: Instant, outcome: Result<(), String>) {
        self.attempts.push(Attempt {
            begun,
            ended: Instant::now(),
            success: outcome.is_ok(),
        });
        if let Err(reason) = outcome
            && self.reasons.len() < 20
        {
            self.reasons.push(reason);
        }
    }
}

struct Station {
    node: usize,
    writes: Arc<Mutex<Seen>>,
    queries: Arc<Mutex<Seen>>,
}

/// A load that runs until [`Load::stop`].
pub struct Load {
    ledgers: Vec<Arc<Ledger>>,
    stations: Vec<Station>,
    tasks: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl Load {
    /// Starts a writer and a querier for each (node number, base URL). `round` makes the names of the
    /// writers unique when a cluster gets several loads.
    #[must_use]
    pub fn start(round: &str, nodes: &[(usize, String)], plan: &LoadPlan) -> Self {
        let ledgers: Vec<Arc<Ledger>> = nodes
            .iter()
            .map(|(node, _)| Ledger::new(&format!("{round}-{}", node + 1), plan.series))
            .map(Arc::new)
            .collect();
        let stopping = Arc::new(AtomicBool::new(false));
        let (mut stations, mut tasks) = (Vec::new(), Vec::new());
        for ((node, url), ledger) in nodes.iter().zip(&ledgers) {
            let station = Station {
                node: *node,
                writes: Arc::default(),
                queries: Arc::default(),
            };
            let writer = Writer {
                client: HttpClient::new(ANSWER_WAIT_MAX),
                url: url.clone(),
                ledger: Arc::clone(ledger),
                seen: Arc::clone(&station.writes),
            };
            tasks.push(tokio::spawn(
                writer.run(plan.write_every, Arc::clone(&stopping)),
            ));
            let querier = Querier {
                client: HttpClient::new(ANSWER_WAIT_MAX),
                url: url.clone(),
                ledgers: ledgers.clone(),
                seen: Arc::clone(&station.queries),
            };
            tasks.push(tokio::spawn(
                querier.run(plan.query_every, Arc::clone(&stopping)),
            ));
            stations.push(station);
        }
        Self {
            ledgers,
            stations,
            tasks,
            stopping,
        }
    }

    /// The ledgers of all writers.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Arc<Ledger>> {
        self.ledgers.clone()
    }

    /// Lets the load go on for so long.
    pub async fn go_on(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Ends the load after the requests that are under way.
    ///
    /// # Errors
    /// When a task has panicked.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.context("a writer or querier")?;
        }
        Ok(())
    }

    /// Fails when, at one of the named nodes, writes or queries that began in `from..to` failed for
    /// longer than `longest`.
    ///
    /// # Errors
    /// Says where, for how long and why.
    pub fn check_windows(
        &self,
        nodes: &[usize],
        (from, to): (Instant, Instant),
        longest: Duration,
    ) -> anyhow::Result<()> {
        for station in &self.stations {
            if !nodes.contains(&station.node) {
                continue;
            }
            for (what, seen) in [("writes", &station.writes), ("queries", &station.queries)] {
                let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let window = longest_error_window(&seen.attempts, from, to);
                if window > longest {
                    bail!(
                        "{what} at node {} failed for {window:?}, longer than {longest:?}: {:?}",
                        station.node + 1,
                        seen.reasons
                    );
                }
            }
        }
        Ok(())
    }

    /// Fails when an answer was wrong, a request was refused for good, or nothing was acknowledged.
    ///
    /// # Errors
    /// Says which.
    pub fn check_honesty(&self) -> anyhow::Result<()> {
        for ledger in &self.ledgers {
            if let Some(text) = ledger.refusal() {
                bail!("writer {}: refused for good: {text}", ledger.writer());
            }
            if ledger.counts().acknowledged == 0 {
                bail!("writer {}: nothing was acknowledged", ledger.writer());
            }
        }
        for station in &self.stations {
            let seen = station
                .queries
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if !seen.attempts.iter().any(|attempt| attempt.success) {
                bail!(
                    "node {}: no query was answered: {:?}",
                    station.node + 1,
                    seen.reasons
                );
            }
            if let Some(first) = seen.wrong.first() {
                bail!(
                    "node {}: {} wrong answers: {first}",
                    station.node + 1,
                    seen.wrong.len()
                );
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Writer {
    client: HttpClient,
    url: String,
    ledger: Arc<Ledger>,
    seen: Arc<Mutex<Seen>>,
}

impl Writer {
    async fn run(self, every: Duration, stopping: Arc<AtomicBool>) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stopping.load(Ordering::Relaxed) {
            ticks.tick().await;
            let begun = Instant::now();
            let outcome = self.write().await;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.record(begun, outcome);
        }
    }

    async fn write(&self) -> Result<(), String> {
        let (timestamp, body) = self.ledger.begin(Clock::now_millis());
        let (fate, text) = match self.client.remote_write(&self.url, body).await {
            Ok(answer) if answer.is_success() => (Fate::Acknowledged, String::new()),
            Ok(answer) if answer.status >= 500 || answer.status == 429 => (
                Fate::Unknown,
                format!("{} {}", answer.status, answer.text()),
            ),
            Ok(answer) => (
                Fate::Refused,
                format!("{} {}", answer.status, answer.text()),
            ),
            Err(error) => (Fate::Unknown, format!("{error:#}")),
        };
        self.ledger.settle(timestamp, fate, &text);
        match fate {
            Fate::Acknowledged => Ok(()),
            Fate::Unknown | Fate::Refused => Err(text),
        }
    }
}

struct Querier {
    client: HttpClient,
    url: String,
    ledgers: Vec<Arc<Ledger>>,
    seen: Arc<Mutex<Seen>>,
}

impl Querier {
    async fn run(self, every: Duration, stopping: Arc<AtomicBool>) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stopping.load(Ordering::Relaxed) {
            ticks.tick().await;
            let begun = Instant::now();
            for ledger in &self.ledgers {
                let outcome = self.count(ledger).await;
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(Ok(())) => seen.record(begun, Ok(())),
                    Ok(Err(wrong)) => seen.wrong.push(wrong),
                    Err(error) => seen.record(begun, Err(format!("{error:#}"))),
                }
            }
        }
    }

    /// The outer error: no answer. The inner one: a wrong answer.
    async fn count(&self, ledger: &Ledger) -> anyhow::Result<Result<(), String>> {
        let before = ledger.counts();
        // Ten seconds ahead, so that every sample is inside the range whatever the clocks say.
        let time = Clock::now_millis() as f64 / 1000.0 + 10.0;
        let query = format!(
            "count_over_time({METRIC}{{writer=\"{}\"}}[1h])",
            ledger.writer()
        );
        let url = format!("{}/api/v1/query", self.url);
        let parameters = [("query", query.as_str()), ("time", &format!("{time:.3}"))];
        let data = self.client.query(&url, &parameters).await?;
        let after = ledger.counts();
        let result = data["result"].as_array().context("a result list")?;
        let counts = result.iter().map(|series| {
            let count = series["value"][1]
                .as_str()
                .and_then(|text| text.parse().ok());
            count.unwrap_or(0)
        });
        Ok(check_counts(
            ledger,
            (before, after),
            &counts.collect::<Vec<usize>>(),
        ))
    }
}

fn check_counts(
    ledger: &Ledger,
    (before, after): (Counts, Counts),
    found: &[usize],
) -> Result<(), String> {
    let writer = ledger.writer();
    if before.acknowledged > 0 && found.len() != ledger.series_count() {
        let expected = ledger.series_count();
        return Err(format!(
            "writer {writer}: {} series instead of {expected}",
            found.len()
        ));
    }
    let expected = before.acknowledged..=after.begun;
    match found.iter().find(|count| !expected.contains(count)) {
        None => Ok(()),
        Some(count) => Err(format!(
            "writer {writer}: a series has {count} samples, not {expected:?}"
        )),
    }
}
