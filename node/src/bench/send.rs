//! Sends encoded requests: one worker per queue, one request at a time and in order per worker, over
//! connections that stay open.

use super::{BenchMetricsArgs, latency::Latencies, population::Request};
use crate::http_client::in_words;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{StatusCode, Uri, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

/// An answer that takes longer counts as none: servers give up earlier themselves.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pauses between attempts double from the first to the last, as Prometheus' sender does it.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(30);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Of an error's body this much is read and shown.
const ERROR_BODY_BYTES_MAX: usize = 4096;

/// What became of requests. Every sample is either acknowledged or failed.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) samples_acknowledged: u64,
    pub(super) samples_failed: u64,
    /// Requests, each counted once however often it was tried.
    pub(super) requests: u64,
    pub(super) retries: u64,
    /// Compressed bytes of all attempts.
    pub(super) body_bytes: u64,
    /// Failed attempts by status, or by `no answer`. An attempt whose retry succeeded is among them.
    pub(super) errors: BTreeMap<String, u64>,
    /// What the server said first, of what it said against a request.
    pub(super) first_error: Option<String>,
    /// Of attempts that were acknowledged.
    pub(super) latencies: Latencies,
}

impl Outcome {
    pub(super) fn new(latencies: Latencies) -> Self {
        Self {
            samples_acknowledged: 0,
            samples_failed: 0,
            requests: 0,
            retries: 0,
            body_bytes: 0,
            errors: BTreeMap::new(),
            first_error: None,
            latencies,
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.samples_acknowledged += other.samples_acknowledged;
        self.samples_failed += other.samples_failed;
        self.requests += other.requests;
        self.retries += other.retries;
        self.body_bytes += other.body_bytes;
        for (status, count) in other.errors {
            *self.errors.entry(status).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
        self.latencies.absorb(&other.latencies);
    }
}

/// Why an attempt failed.
struct Refusal {
    /// The status, or `no answer`.
    kind: String,
    text: String,
    retryable: bool,
}

/// Sends queues of requests to one server.
pub(super) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    retry_for: Duration,
    rate: Option<u64>,
}

impl Sender {
    pub(super) fn new(uri: Uri, args: &BenchMetricsArgs) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            retry_for: Duration::from_secs(args.retry_seconds),
            rate: args.rate,
        }
    }

    /// Sends every queue with a worker of its own; returns when all are done.
    pub(super) async fn send(&mut self, queues: Vec<Vec<Request>>) -> Outcome {
        let pace = self.rate.map(|rate| Arc::new(Pace::new(rate)));
        let mut workers = JoinSet::new();
        for queue in queues {
            let worker = Worker {
                client: self.client.clone(),
                uri: self.uri.clone(),
                retry_for: self.retry_for,
                pace: pace.clone(),
                failing_since: None,
                outcome: Outcome::new(Latencies::new()),
            };
            workers.spawn(worker.run(queue));
        }
        let mut whole = Outcome::new(Latencies::new());
        for outcome in workers.join_all().await {
            whole.absorb(outcome);
        }
        whole
    }
}

/// Hands out times such that all workers together stay at or below a rate.
struct Pace {
    begun: Instant,
    rate: u64,
    samples: AtomicU64,
}

impl Pace {
    fn new(rate: u64) -> Self {
        Self {
            begun: Instant::now(),
            rate,
            samples: AtomicU64::new(0),
        }
    }

    /// When a request of so many samples may leave.
    fn due(&self, samples: u64) -> Instant {
        let before = self.samples.fetch_add(samples, Ordering::Relaxed);
        self.begun + Duration::from_secs_f64(before as f64 / self.rate as f64)
    }
}

struct Worker {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    retry_for: Duration,
    pace: Option<Arc<Pace>>,
    /// Since when nothing was acknowledged: a server that is gone is not waited for again and again.
    failing_since: Option<Instant>,
    outcome: Outcome,
}

impl Worker {
    async fn run(mut self, queue: Vec<Request>) -> Outcome {
        for request in queue {
            if let Some(pace) = &self.pace {
                sleep_until(pace.due(request.samples).into()).await;
            }
            self.outcome.requests += 1;
            match self.deliver(&request.body).await {
                true => self.outcome.samples_acknowledged += request.samples,
                false => self.outcome.samples_failed += request.samples,
            }
        }
        self.outcome
    }

    /// Tries until the request is acknowledged, refused for good, or the time for retries is over.
    async fn deliver(&mut self, body: &Bytes) -> bool {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let attempt = Instant::now();
            self.outcome.body_bytes += body.len() as u64;
            let Err(refusal) = self.attempt(body.clone()).await else {
                self.outcome.latencies.record(attempt.elapsed());
                self.failing_since = None;
                return true;
            };
            *self.outcome.errors.entry(refusal.kind).or_default() += 1;
            self.outcome.first_error.get_or_insert(refusal.text);
            if !refusal.retryable {
                return false;
            }
            let failing_since = *self.failing_since.get_or_insert(attempt);
            if failing_since.elapsed() + pause > self.retry_for {
                return false;
            }
            self.outcome.retries += 1;
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<(), Refusal> {
        let no_answer = |text: String| Refusal {
            kind: "no answer".to_owned(),
            text,
            retryable: true,
        };
        let request = hyper::Request::post(&self.uri)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "snappy")
            .header(
                header::USER_AGENT,
                concat!("trefoil-bench/", env!("CARGO_PKG_VERSION")),
            )
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .body(Full::new(body))
            .map_err(|error| no_answer(error.to_string()))?;
        let answer = timeout(ANSWER_WAIT_MAX, self.client.request(request)).await;
        let answer = answer
            .map_err(|_| no_answer(format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs())))?
            .map_err(|error| no_answer(crate::cli::explain(&in_words(error))))?;
        let status = answer.status();
        // The body is read even when it is not wanted: only then can the connection be used again.
        let text = Limited::new(answer.into_body(), ERROR_BODY_BYTES_MAX).collect();
        let text = match timeout(ANSWER_WAIT_MAX, text).await {
            Ok(Ok(text)) => String::from_utf8_lossy(&text.to_bytes()).trim().to_owned(),
            _ => String::new(),
        };
        if status.is_success() {
            return Ok(());
        }
        Err(Refusal {
            kind: status.as_u16().to_string(),
            text: format!("{status}: {text}"),
            retryable: status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS,
        })
    }
}
