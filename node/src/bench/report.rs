//! What a run did, for people and for programs.

use super::{BenchMetricsArgs, OutputForm, latency::Latencies, send::Outcome};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

/// The outcome of a run. Times are seconds of the generator's clock.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    url: String,
    series: u64,
    /// Time spent making requests while nothing was sent.
    pub(super) encode_seconds: f64,
    /// Time spent sending.
    pub(super) send_seconds: f64,
    outcome: Outcome,
}

/// The JSON form: a flat object whose names carry the units.
#[derive(Serialize)]
struct Flat<'a> {
    url: &'a str,
    series: u64,
    samples_acknowledged: u64,
    samples_failed: u64,
    samples_per_second: f64,
    requests: u64,
    retries: u64,
    body_bytes: u64,
    encode_seconds: f64,
    send_seconds: f64,
    latency_p50_ms: f64,
    latency_p99_ms: f64,
    latency_max_ms: f64,
    errors: &'a BTreeMap<String, u64>,
    first_error: Option<&'a str>,
}

impl Report {
    pub(super) fn new(args: &BenchMetricsArgs) -> Self {
        Self {
            url: args.url.clone(),
            series: args.series,
            encode_seconds: 0.0,
            send_seconds: 0.0,
            outcome: Outcome::new(Latencies::new()),
        }
    }

    pub(super) fn absorb(&mut self, outcome: Outcome) {
        self.outcome.absorb(outcome);
    }

    /// 0 when every sample was acknowledged, else 1. Retries that succeeded are no failure.
    #[must_use]
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self.outcome.samples_failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// The report in the asked form, ending with a newline.
    #[must_use]
    pub(crate) fn render(&self, form: OutputForm) -> String {
        let flat = self.flat();
        match form {
            OutputForm::Json => {
                let text = serde_json::to_string_pretty(&flat);
                text.expect("plain numbers and texts always serialize") + "\n"
            }
            OutputForm::Text => text(&flat),
        }
    }

    fn flat(&self) -> Flat<'_> {
        let outcome = &self.outcome;
        let seconds = self.send_seconds.max(1e-9);
        Flat {
            url: &self.url,
            series: self.series,
            samples_acknowledged: outcome.samples_acknowledged,
            samples_failed: outcome.samples_failed,
            samples_per_second: outcome.samples_acknowledged as f64 / seconds,
            requests: outcome.requests,
            retries: outcome.retries,
            body_bytes: outcome.body_bytes,
            encode_seconds: self.encode_seconds,
            send_seconds: self.send_seconds,
            latency_p50_ms: outcome.latencies.quantile_ms(0.5),
            latency_p99_ms: outcome.latencies.quantile_ms(0.99),
            latency_max_ms: outcome.latencies.longest_ms(),
            errors: &outcome.errors,
            first_error: outcome.first_error.as_deref(),
        }
    }
}

fn text(flat: &Flat<'_>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(out, "{name:<22}{value}");
    };
    line("samples/s", format!("{:.0}", flat.samples_per_second));
    line(
        "samples acknowledged",
        flat.samples_acknowledged.to_string(),
    );
    line("samples failed", flat.samples_failed.to_string());
    line("series", flat.series.to_string());
    let requests = format!("{} ({} retries)", flat.requests, flat.retries);
    line("requests", requests);
    let bytes = flat.body_bytes as f64 / (1024.0 * 1024.0);
    line(
        "sent",
        format!("{bytes:.1} MiB in {:.2} s", flat.send_seconds),
    );
    line(
        "encoded beforehand in",
        format!("{:.2} s", flat.encode_seconds),
    );
    let (p50, p99, max) = (
        flat.latency_p50_ms,
        flat.latency_p99_ms,
        flat.latency_max_ms,
    );
    line(
        "latency",
        format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"),
    );
    for (status, count) in flat.errors {
        line("errors", format!("{count} x {status}"));
    }
    if let Some(first) = flat.first_error {
        line("first error", first.to_owned());
    }
    out
}
