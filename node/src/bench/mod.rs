//! `trefoil bench metrics`: a seeded remote-write 1.0 load for any server that speaks it.
//!
//! The load looks like what a Prometheus sends that scrapes node exporters: targets with about seven
//! hundred series each, one timestamp per scrape, most series constant, requests of two thousand
//! samples. The same arguments give the same bytes, on any machine and in any version.
//!
//! Work goes in rounds, so that making the load does not disturb what is measured: requests are
//! encoded until the memory limit is reached or all are made, then sent by `concurrency` workers,
//! then the next ones are encoded. Only the sending counts as time. A target belongs to one worker,
//! which sends its requests in order and one at a time: every series arrives in order of time, which
//! some servers demand.
//!
//! A request that meets a status that allows it (5xx, 429) or no answer is retried for a bounded
//! time; what is refused, or still fails then, counts as an error. Nothing is kept between runs.

mod exporter;
mod latency;
mod population;
mod random;
mod report;
mod send;
mod wire;

pub(crate) use report::Report;

use anyhow::{Context, bail};
use hyper::Uri;
use population::Population;
use send::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The path of remote write, used where the URL names none.
const WRITE_PATH: &str = "/api/v1/write";

/// What `trefoil bench metrics` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BenchMetricsArgs {
    /// Where to write: `http://HOST:PORT`, with `/api/v1/write` added when it names no path.
    #[arg(long)]
    pub(crate) url: String,
    /// How many series.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) series: u64,
    /// How many samples of each series.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) samples: u64,
    /// How many requests are on their way at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) concurrency: u64,
    /// Chooses targets, values, scrape offsets and jitter; the same seed gives the same load.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time between two samples of a series, in milliseconds.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub(crate) interval_ms: u64,
    /// Time of the first scrape, in milliseconds since the Unix epoch. Default: as long before now as
    /// the samples take, so that the last ones are current.
    #[arg(long)]
    pub(crate) start: Option<i64>,
    /// How many series a request holds at most, each with one sample.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) batch_series: u64,
    /// Sends at most this many samples per second. Default: as many as the server takes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Keeps at most this many MiB of encoded requests in memory.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) memory_mib: u64,
    /// How long requests are retried while none is acknowledged, in seconds; then they count as errors.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) retry_seconds: u64,
    /// The form of the report.
    #[arg(short, long, value_enum, default_value_t = OutputForm::Text)]
    pub(crate) output: OutputForm,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputForm {
    /// Lines for people.
    Text,
    /// One JSON object.
    Json,
}

/// Makes the load and sends it. The report is complete also when requests failed; the caller prints
/// it with [`Report::render`] and ends with [`Report::exit_code`].
///
/// # Errors
/// When the URL cannot be used. Failed requests are no error of the run: they are in the report.
pub(crate) async fn run(args: BenchMetricsArgs) -> anyhow::Result<Report> {
    let uri = write_uri(&args.url)?;
    let start = match args.start {
        Some(start) => start,
        None => start_before_now(&args)?,
    };
    let mut population = Population::new(&args, start);
    let mut sender = Sender::new(uri, &args);
    let mut report = Report::new(&args);
    let bytes_max = args.memory_mib.saturating_mul(1024 * 1024);
    while !population.is_finished() {
        let begun = Instant::now();
        // The encoder is pure computing and nothing else runs meanwhile: it may hold this thread.
        let queues = population.encode(bytes_max);
        report.encode_seconds += begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        report.absorb(sender.send(queues).await);
        report.send_seconds += begun.elapsed().as_secs_f64();
    }
    Ok(report)
}

fn write_uri(url: &str) -> anyhow::Result<Uri> {
    let uri: Uri = url
        .parse()
        .with_context(|| format!("read the URL {url:?}"))?;
    if uri.scheme_str() != Some("http") || uri.authority().is_none() {
        bail!("the URL {url:?} must have the form http://HOST:PORT or http://HOST:PORT/PATH");
    }
    if uri.path() != "/" {
        return Ok(uri);
    }
    let whole = format!("{}{WRITE_PATH}", url.trim_end_matches('/'));
    whole
        .parse()
        .with_context(|| format!("read the URL {whole:?}"))
}

fn start_before_now(args: &BenchMetricsArgs) -> anyhow::Result<i64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("read the clock, which stands before 1970")?;
    let span = Duration::from_millis(args.interval_ms.saturating_mul(args.samples));
    let start = now.saturating_sub(span).as_millis();
    i64::try_from(start).context("read the clock, which stands in a far future")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_gets_the_one_of_remote_write() {
        let path = |url: &str| write_uri(url).map(|uri| uri.path().to_owned()).ok();
        assert_eq!(path("http://localhost:9190").as_deref(), Some(WRITE_PATH));
        assert_eq!(path("http://localhost:9190/").as_deref(), Some(WRITE_PATH));
        assert_eq!(path("http://localhost:9090/push").as_deref(), Some("/push"));
        assert_eq!(path("https://localhost:9090"), None);
        assert_eq!(path("localhost"), None);
    }
}
