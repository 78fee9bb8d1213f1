//! What the server counts about itself, in Prometheus' text format.

use crate::{ApiError, remote_write::WriteRequest};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Upper bounds of the duration buckets in seconds; the last one is open.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];

/// The handlers by the end of their path. Few and fixed, so that the number of series is bounded.
const HANDLERS: [&str; 61] = [
    "/",
    "/api/v1/write",
    "/api/v1/push",
    "/api/v1/import/prometheus",
    "/api/v1/import",
    "/api/v1/export",
    "/write",
    "/api/v2/write",
    "/api/v1/push/influx/write",
    "/ping",
    "/v1/metrics",
    "/otlp/v1/metrics",
    "/api/v1/otlp/v1/metrics",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/metadata",
    "/api/v1/admin/tsdb/delete_series",
    "/api/v1/admin/tsdb/clean_tombstones",
    "/api/v1/admin/tsdb/snapshot",
    "/api/v1/status/buildinfo",
    "/api/v1/read",
    "/federate",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/targets",
    "/api/v1/targets/metadata",
    "/api/v1/scrape_pools",
    "/api/v1/alertmanagers",
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/notifications",
    "/api/v1/features",
    "/api/v1/status/config",
    "/api/v1/status/flags",
    "/api/v1/status/runtimeinfo",
    "/api/v1/status/tsdb",
    "/api/v1/status/walreplay",
    "/api/v1/cardinality/label_names",
    "/api/v1/cardinality/label_values",
    "/api/v1/cardinality/active_native_histogram_metrics",
    "/api/v1/cardinality/active_series",
    "/-/healthy",
    "/-/ready",
    "/metrics",
    "/trefoil/api/v1/cluster",
    "/trefoil/api/v1/cluster/drain",
    "/trefoil/api/v1/cluster/undrain",
    "/trefoil/api/v1/cluster/remove",
    "/trefoil/api/v1/digests",
    "/trefoil/api/v1/movements",
    "/trefoil/api/v1/node/prepare-stop",
    "/trefoil/api/v1/retention",
    "/trefoil/api/v1/retention/tenants",
    "/trefoil/api/v1/limits",
    "/api/v1/user_limits",
    "/trefoil/api/v1/values",
    "/api/v1/label/:name/values",
];

/// The handler's name for a path, without the values in it.
pub(super) fn handler_of(path: &str) -> &'static str {
    let path = match path.strip_prefix("/prometheus") {
        Some("") => "/",
        Some(path) => path,
        None => path,
    };
    match HANDLERS.iter().find(|handler| **handler == path) {
        Some(handler) => handler,
        None => "/api/v1/label/:name/values",
    }
}

/// The status by which an answer is counted, for protocols whose errors are not in the status line.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountedStatus(pub(super) u16);

/// How much of each bounded thing is in use.
pub(super) struct InWork {
    pub(super) writes: usize,
    pub(super) write_bytes: usize,
    pub(super) queries: usize,
    pub(super) queries_waiting: usize,
}

/// Durations of the requests of one handler.
#[derive(Default)]
struct Durations {
    /// Requests at most as long as the bound with the same index; the last one takes the rest.
    buckets: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

#[derive(Default)]
struct Requests {
    counts: BTreeMap<(&'static str, u16), u64>,
    durations: BTreeMap<&'static str, Durations>,
}

/// Counters of the HTTP server. The lock is held for a map entry's update only.
#[derive(Default)]
pub(super) struct HttpMetrics {
    requests: Mutex<Requests>,
    samples: AtomicU64,
    refused_samples: AtomicU64,
    refused_series: AtomicU64,
    skipped_exemplars: AtomicU64,
}

impl HttpMetrics {
    pub(super) fn count(&self, handler: &'static str, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.counts.entry((handler, status)).or_default() += 1;
        let durations = requests.durations.entry(handler).or_default();
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        durations.buckets[bucket.unwrap_or(BUCKETS.len())] += 1;
        durations.seconds += seconds;
    }

    /// Counts what became of the samples of a decoded write request.
    pub(super) fn count_write(&self, request: &WriteRequest, outcome: &Result<(), ApiError>) {
        let add = |counter: &AtomicU64, more: u64| {
            counter.fetch_add(more, Ordering::Relaxed);
        };
        if matches!(outcome, Ok(()) | Err(ApiError::PartlyRefused(_))) {
            add(&self.samples, request.sample_count() as u64);
        }
        add(&self.refused_samples, request.refusals().samples);
        add(&self.refused_series, request.refusals().series);
        add(&self.skipped_exemplars, request.skipped_exemplars());
    }

    /// Appends everything.
    pub(super) fn render(&self, in_work: &InWork, out: &mut String) {
        // Writing into memory does not fail.
        self.render_requests(out).ok();
        let gauge = "gauge";
        let mut single = |name: &str, kind: &str, help: &str, value: u64| {
            let name = format!("trefoil_{name}");
            out.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            ));
        };
        for (name, help, value) in [
            (
                "http_writes_in_work",
                "Write requests in work.",
                in_work.writes,
            ),
            (
                "http_write_bytes_held",
                "Bytes of write requests in work.",
                in_work.write_bytes,
            ),
            ("http_queries_in_work", "Queries in work.", in_work.queries),
            (
                "http_queries_waiting",
                "Queries that wait for their turn.",
                in_work.queries_waiting,
            ),
        ] {
            single(name, gauge, help, value as u64);
        }
        for (name, help, counter) in [
            ("samples", "Samples stored by a majority.", &self.samples),
            (
                "refused_samples",
                "Samples refused for the form of their series.",
                &self.refused_samples,
            ),
            (
                "refused_series",
                "Series refused for their form.",
                &self.refused_series,
            ),
            (
                "skipped_exemplars",
                "Exemplars that were not kept, because their labels are too long or wrong.",
                &self.skipped_exemplars,
            ),
        ] {
            let name = format!("remote_write_{name}_total");
            let help = format!("Remote write: {help}");
            single(&name, "counter", &help, counter.load(Ordering::Relaxed));
        }
    }

    fn render_requests(&self, out: &mut String) -> std::fmt::Result {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "trefoil_http_requests_total";
        writeln!(out, "# HELP {name} HTTP requests.\n# TYPE {name} counter")?;
        for ((handler, status), count) in &requests.counts {
            writeln!(
                out,
                "{name}{{handler=\"{handler}\",code=\"{status}\"}} {count}"
            )?;
        }
        let name = "trefoil_http_request_duration_seconds";
        writeln!(
            out,
            "# HELP {name} Duration of HTTP requests until their answer began."
        )?;
        writeln!(out, "# TYPE {name} histogram")?;
        for (handler, durations) in &requests.durations {
            let mut count = 0;
            for (index, in_bucket) in durations.buckets.iter().enumerate() {
                count += in_bucket;
                let bound = BUCKETS.get(index).map_or("+Inf".to_owned(), f64::to_string);
                writeln!(
                    out,
                    "{name}_bucket{{handler=\"{handler}\",le=\"{bound}\"}} {count}"
                )?;
            }
            let seconds = durations.seconds;
            writeln!(out, "{name}_sum{{handler=\"{handler}\"}} {seconds}")?;
            writeln!(out, "{name}_count{{handler=\"{handler}\"}} {count}")?;
        }
        Ok(())
    }
}
