//! What a node says about itself: `/metrics`.
//!
//! Counters that live where they are counted (journal, engine, protocol) are read at each scrape by
//! collectors; only request durations are kept here.

pub(crate) mod collectors;
mod process;

use collectors::NodeCollector;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
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

/// The node's registry and what is counted directly into it.
pub(crate) struct Telemetry {
    registry: Registry,
    pub(crate) samples: Counter,
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
        let duration = || Histogram::new(DURATION_BOUNDS);
        let telemetry = Self {
            registry: Registry::default(),
            samples: Counter::default(),
            writes: Family::default(),
            write_duration: duration(),
            queries: Family::default(),
            query_duration: duration(),
            queries_running: Gauge::default(),
        };
        registry.register(
            "trefoil_ingested_samples",
            "Samples taken from clients",
            telemetry.samples.clone(),
        );
        registry.register(
            "trefoil_write_requests",
            "Write requests by outcome",
            telemetry.writes.clone(),
        );
        registry.register(
            "trefoil_write_request_duration_seconds",
            "Time from a write request to its acknowledgement",
            telemetry.write_duration.clone(),
        );
        registry.register(
            "trefoil_queries",
            "Queries by outcome",
            telemetry.queries.clone(),
        );
        registry.register(
            "trefoil_query_duration_seconds",
            "Time from a query to its answer",
            telemetry.query_duration.clone(),
        );
        registry.register(
            "trefoil_queries_running",
            "Queries being evaluated",
            telemetry.queries_running.clone(),
        );
        registry.register_collector(Box::new(node));
        registry.register_collector(Box::new(process::ProcessCollector));
        Self {
            registry,
            ..telemetry
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
