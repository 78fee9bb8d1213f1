//! What a node says about itself: `/metrics`.
//!
//! Counters that live where they are counted (journal, engine, protocol) are read at each scrape by
//! collectors; only request durations are kept here.

pub(crate) mod collectors;
mod process;

use crate::held::{Loss, Uncompared};
use collectors::NodeCollector;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// Bounds of request durations, seconds.
const DURATION_BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Labels of one kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    /// `ok`, or what refused it.
    pub(crate) outcome: &'static str,
}

/// Why something was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    /// One of those that the documentation of the metric lists.
    pub(crate) reason: &'static str,
}

/// The node's registry and what is counted directly into it.
pub(crate) struct Telemetry {
    registry: Registry,
    pub(crate) samples: Counter,
    pub(crate) deduplicated_samples: Counter,
    pub(crate) held_bytes: Gauge,
    pub(crate) stored_held_samples: Counter,
    pub(crate) dropped_held_samples: Family<Reason, Counter>,
    pub(crate) uncompared_samples: Family<Reason, Counter>,
    pub(crate) left_out_exemplars: Counter,
    pub(crate) refused_deltas: Counter,
    pub(crate) delta_series: Gauge,
    pub(crate) delta_waiting_series: Gauge,
    pub(crate) delta_read_backs: Gauge,
    pub(crate) writes: Family<Outcome, Counter>,
    pub(crate) write_duration: Histogram,
    pub(crate) queries: Family<Outcome, Counter>,
    pub(crate) query_duration: Histogram,
    pub(crate) queries_running: Gauge,
}

impl Telemetry {
    /// A registry with the numbers of the node's parts and of its process.
    pub(crate) fn new(node: NodeCollector) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(node));
        registry.register_collector(Box::new(process::ProcessCollector));
        let all = &mut registry;
        let duration = || Histogram::new(DURATION_BOUNDS);
        let help = "Samples taken from clients";
        let samples = add(all, "trefoil_ingested_samples", help, Counter::default());
        let help =
            "Samples not stored as they came because another sender of their pair is elected";
        let name = "trefoil_deduplicated_samples";
        let deduplicated_samples = add(all, name, help, Counter::default());
        let help =
            "Bytes of requests that are held back because another sender of their pair is elected";
        let held_bytes = add(all, "trefoil_held_bytes", help, Gauge::default());
        let help = "Samples that were held back and stored when their sender was elected";
        let name = "trefoil_stored_held_samples";
        let stored_held_samples = add(all, name, help, Counter::default());
        let help = "Samples that were held back, or to be held back, and dropped, by reason";
        let name = "trefoil_dropped_held_samples";
        let dropped_held_samples = add(all, name, help, Family::<Reason, Counter>::default());
        let help = "Samples that senders that count sent from before their election, and that were stored without \
                    being compared, by reason";
        let name = "trefoil_uncompared_samples";
        let uncompared_samples = add(all, name, help, Family::<Reason, Counter>::default());
        // All are shown before something happens.
        for reason in Loss::ALL.map(Loss::as_str) {
            dropped_held_samples
                .get_or_create(&Reason { reason })
                .inc_by(0);
        }
        for reason in Uncompared::ALL.map(Uncompared::as_str) {
            uncompared_samples
                .get_or_create(&Reason { reason })
                .inc_by(0);
        }
        let help =
            "Exemplars left out for their time or series, or because a member cannot read them yet";
        let name = "trefoil_left_out_exemplars";
        let left_out_exemplars = add(all, name, help, Counter::default());
        let help = "Deltas that were left out of totals, with the reason in their answers";
        let refused_deltas = add(all, "trefoil_refused_deltas", help, Counter::default());
        let help = "Series of which this node adds deltas up; 0 where another one does";
        let delta_series = add(all, "trefoil_delta_series", help, Gauge::default());
        let help =
            "Those of them that get no deltas, and are kept because totals may not be stored";
        let name = "trefoil_delta_waiting_series";
        let delta_waiting_series = add(all, name, help, Gauge::default());
        let help = "Requests with deltas for which totals are read back now";
        let delta_read_backs = add(all, "trefoil_delta_read_backs", help, Gauge::default());
        let help = "Write requests by outcome";
        let writes = add(all, "trefoil_write_requests", help, Family::default());
        let help = "Time from a write request to its acknowledgement";
        let name = "trefoil_write_request_duration_seconds";
        let write_duration = add(all, name, help, duration());
        let help = "Queries by outcome";
        let queries = add(all, "trefoil_queries", help, Family::default());
        let help = "Time from a query to its answer";
        let query_duration = add(all, "trefoil_query_duration_seconds", help, duration());
        let help = "Queries being evaluated";
        let queries_running = add(all, "trefoil_queries_running", help, Gauge::default());
        Self {
            registry,
            samples,
            deduplicated_samples,
            held_bytes,
            stored_held_samples,
            dropped_held_samples,
            uncompared_samples,
            left_out_exemplars,
            refused_deltas,
            delta_series,
            delta_waiting_series,
            delta_read_backs,
            writes,
            write_duration,
            queries,
            query_duration,
            queries_running,
        }
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When a collector fails to write its numbers.
    pub(crate) fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Registers a metric and gives it back, to be counted in.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}
