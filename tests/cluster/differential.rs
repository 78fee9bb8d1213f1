//! Generated queries, asked of Prometheus 2.42 and of a three-node cluster over the same samples: the answers must be
//! the same but for the last bits. What is not asked, and why, is the list `LEFT_OUT` beside the generator.
//!
//! 2,000 queries by default, a few milliseconds each; `TREFOIL_DIFFERENTIAL_QUERIES` asks for more and
//! `TREFOIL_DIFFERENTIAL_SEED` for others.

use crate::answers::same_numbers;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{env, time::Duration};
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{Clock, Cluster, Exclusive, HttpClient, ready_seconds_max};
use trefoil_model::{Labels, Millis};
use trefoil_tests::{
    LEFT_OUT, Peer, Prometheus, QueryGenerator, REMAINDER_SECONDS, is_left_out, peer_program,
};

/// Queries unless the environment says how many.
const QUERIES: u64 = 2_000;
const SEED: u64 = 1;
/// Answers may differ by so much of their value: sums of some hundred terms in another order.
const RELATIVE_ERROR_MAX: f64 = 1e-9;
/// Two hours of samples, so that no query looks at times before them.
const SAMPLES: i64 = 480;
const INTERVAL_MS: Millis = 15_000;
/// Queries are asked at this time after the first samples, and up to 25 minutes later.
const ASKED_AFTER_MS: Millis = 90 * 60_000;
/// The stale marker of remote write.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// Differences that are shown.
const SHOWN_MAX: usize = 10;
/// Characters of an answer that are shown.
const SHOWN_CHARS_MAX: usize = 600;

type Series = (Labels, Vec<(Millis, f64)>);

#[tokio::test(flavor = "multi_thread")]
async fn generated_queries_have_prometheus_answers() -> anyhow::Result<()> {
    let Peer::Found(prometheus) = peer_program("prometheus")? else {
        return Ok(());
    };
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let folder = tempfile::tempdir()?;
    let prometheus = Prometheus::start_receiver(&prometheus, folder.path()).await?;
    let client = HttpClient::new(Duration::from_secs(10));
    // A whole hour, so that sub-queries are asked at the same places of the samples in every run.
    let hour = 3_600_000;
    let begin = (Clock::now_millis() / hour - 3) * hour;
    let all = series(begin);
    let body = encode(
        all.iter()
            .map(|(labels, samples)| (labels, samples.as_slice())),
    );
    for url in [&prometheus.url, &cluster.url(0)] {
        let answer = client.remote_write(url, body.clone()).await?;
        ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    }
    let count = number_from("TREFOIL_DIFFERENTIAL_QUERIES")?.unwrap_or(QUERIES);
    let seed = number_from("TREFOIL_DIFFERENTIAL_SEED")?.unwrap_or(SEED);
    let asked = begin + ASKED_AFTER_MS + REMAINDER_SECONDS * 1000;
    let fixed = [60, 600].map(|later| asked / 1000 + later);
    let mut generator = QueryGenerator::new(seed, fixed);
    let mut tally = Tally::default();
    for number in 0..count {
        let question = Question::make(&mut generator, asked);
        if is_left_out(&question.query) {
            continue;
        }
        let expected = question.ask(&client, &prometheus.url).await?;
        let node = cluster.url(number as usize % 3);
        let answer = question.ask(&client, &node).await?;
        tally.compare(&question, &expected, &answer);
    }
    eprintln!("seed {seed}: {tally:?}");
    let shown: Vec<_> = tally.differences.iter().take(SHOWN_MAX).collect();
    ensure!(
        shown.is_empty(),
        "{} of {count} queries differ:\n{}\nleft out are: {LEFT_OUT:?}",
        tally.differences.len(),
        shown
            .iter()
            .map(|text| text.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    );
    // A comparison of errors and empty answers would prove little.
    ensure!(tally.filled * 2 > tally.asked, "too few answers: {tally:?}");
    ensure!(
        tally.refused * 10 < tally.asked,
        "too many errors: {tally:?}"
    );
    Ok(())
}

fn number_from(variable: &str) -> anyhow::Result<Option<u64>> {
    let text = env::var(variable).ok();
    let number = text.map(|text| text.parse());
    number
        .transpose()
        .with_context(|| format!("read {variable}"))
}

/// What the comparisons were worth.
#[derive(Debug, Default)]
struct Tally {
    asked: usize,
    /// Queries that both answered with samples.
    filled: usize,
    /// Queries that both refused.
    refused: usize,
    differences: Vec<String>,
}

impl Tally {
    fn compare(&mut self, question: &Question, expected: &Reply, answer: &Reply) {
        self.asked += 1;
        let same = match (expected, answer) {
            (Reply::Data(expected), Reply::Data(answer)) => {
                let samples = expected.as_array().is_some_and(|list| !list.is_empty());
                self.filled += usize::from(samples);
                same_numbers(expected, answer, RELATIVE_ERROR_MAX)
            }
            (Reply::Refused(_), Reply::Refused(_)) => {
                self.refused += 1;
                true
            }
            _ => false,
        };
        if !same {
            let (expected, got) = (expected.shown(), answer.shown());
            let text = format!("{question:?}\n  expected {expected}\n  got {got}");
            self.differences.push(text);
        }
    }
}

/// An answer, or the reason of a 4xx.
enum Reply {
    Data(Value),
    Refused(String),
}

impl Reply {
    /// For people who read the failure.
    fn shown(&self) -> String {
        match self {
            Self::Data(data) => data.to_string().chars().take(SHOWN_CHARS_MAX).collect(),
            Self::Refused(reason) => format!("an error: {reason}"),
        }
    }
}

/// A query with its times in seconds.
#[derive(Debug)]
struct Question {
    query: String,
    start: i64,
    /// End and step of a range query.
    range: Option<(i64, i64)>,
}

impl Question {
    fn make(generator: &mut QueryGenerator, asked: Millis) -> Self {
        let query = generator.query();
        let start = asked / 1000 + 15 * generator.below(40) as i64;
        let range = match generator.below(2) {
            0 => None,
            _ => {
                let step = [15, 60, 90, 150][generator.below(4)];
                Some((start + step * generator.below(6) as i64, step))
            }
        };
        Self {
            query,
            start,
            range,
        }
    }

    async fn ask(&self, client: &HttpClient, base: &str) -> anyhow::Result<Reply> {
        let start = self.start.to_string();
        let (end, step) = self.range.unwrap_or_default();
        let (end, step) = (end.to_string(), step.to_string());
        let query = ("query", self.query.as_str());
        let answer = match self.range {
            None => {
                let url = format!("{base}/api/v1/query");
                client.post_form(&url, &[query, ("time", &start)]).await?
            }
            Some(_) => {
                let url = format!("{base}/api/v1/query_range");
                let times = [query, ("start", &start), ("end", &end), ("step", &step)];
                client.post_form(&url, &times).await?
            }
        };
        if (400..500).contains(&answer.status) {
            return Ok(Reply::Refused(answer.text()));
        }
        let mut data = answer.complete_data().with_context(|| self.query.clone())?;
        Ok(Reply::Data(data["result"].take()))
    }
}

/// Two hours of gauges, counters with resets, a metric with gaps and stale markers, classic histograms and an info metric.
///
/// Values are multiples of 1/128, so that sums of samples are exact; those of one metric differ from series to series.
/// No sample lies at a whole second.
fn series(begin: Millis) -> Vec<Series> {
    let mut all = Vec::new();
    let mut number = 0;
    for job in ["api", "db"] {
        for instance in ["a:1", "b:1", "c:2"] {
            let labels = |name, more: &[(&str, &str)]| {
                let own = [("__name__", name), ("job", job), ("instance", instance)];
                Labels::from_pairs(own.iter().chain(more).copied())
            };
            number += 1;
            let own = f64::from(number) / 64.0;
            let wave = move |at: i64, size: i64| ((at * (7 + i64::from(number))) % size) as f64;
            let samples = |value: &dyn Fn(i64) -> Option<f64>| {
                let time = |at| begin + at * INTERVAL_MS + 100 + Millis::from(number) * 37;
                let values = (0..SAMPLES).filter_map(|at| Some((time(at), value(at)?)));
                values.collect::<Vec<_>>()
            };
            all.push((
                labels("temperature", &[]),
                samples(&|at| Some(wave(at, 41) - 20.0 + own)),
            ));
            for zone in ["x", "y"] {
                let (size, own) = match zone {
                    "x" => (97, own),
                    _ => (31, own + 1.0 / 128.0),
                };
                all.push((
                    labels("memory_bytes", &[("zone", zone)]),
                    samples(&|at| Some(1000.0 + 8.0 * wave(at, size) + own)),
                ));
                let reset = |at: i64| if at > 300 { at - 300 } else { at };
                all.push((
                    labels("requests_total", &[("zone", zone)]),
                    samples(&|at| Some((reset(at) * size) as f64 + wave(at, 5) / 8.0 + own)),
                ));
            }
            all.push((
                labels("errors_total", &[]),
                samples(&|at| Some((at / 7) as f64 + own)),
            ));
            all.push((
                labels("gappy", &[]),
                samples(&|at| match (at + i64::from(number)) % 60 {
                    0..=19 => Some(wave(at, 11) + own),
                    20 if number % 2 == 0 => Some(STALE),
                    _ => None,
                }),
            ));
            all.push((
                labels("build_info", &[("version", "1.2")]),
                samples(&|_| Some(1.0)),
            ));
            for (le, share) in [("0.1", 2), ("0.5", 5), ("2", 9), ("+Inf", 10)] {
                all.push((
                    labels("latency_bucket", &[("le", le)]),
                    samples(&|at| Some((at * share * i64::from(number)) as f64)),
                ));
            }
        }
    }
    all
}
