//! What queries of tenants may use at this node, what is counted of them and what is said with their answers.

use super::NodeBackend;
use crate::{query::source::ClusterSource, telemetry::Outcome};
use std::time::{Duration, Instant};
use trefoil_api::{Backend, TenantLimits, TenantName, limit_refusals};
use trefoil_model::Millis;
use trefoil_query_promql::{Budget, EvalOptions, QueryError, QueryOptions, QueryResult};

impl NodeBackend {
    /// The error; where the tenant's limit is why, in its words.
    pub(super) fn naming_limit(&self, tenant: &TenantName, error: QueryError) -> QueryError {
        let limit = self
            .limits(tenant)
            .max_estimated_memory_consumption_per_query;
        let is_its = (1..=self.cluster.settings.query_bytes).contains(&limit);
        match is_its && error.is_too_many_bytes() {
            true => QueryError::Execution(limit_refusals::too_much_memory(limit)),
            false => error,
        }
    }

    /// What a query of a tenant may use at this node.
    pub(super) fn budget(&self, limits: &TenantLimits, deadline: Instant) -> Budget {
        let settings = &self.cluster.settings;
        let bytes = match limits.max_estimated_memory_consumption_per_query {
            0 => settings.query_bytes,
            limit => limit.min(settings.query_bytes),
        };
        let is_late = move || Instant::now() >= deadline;
        Budget::with_deadline(settings.query_samples, bytes, is_late)
    }

    /// When a query begins, which is counted, if it is one of the user's.
    pub(super) fn begin_query(&self, counts_samples: bool) -> Option<Instant> {
        (!counts_samples).then(|| {
            self.telemetry.queries_running.inc();
            Instant::now()
        })
    }

    pub(super) fn finish_query<T>(&self, begun: Option<Instant>, result: &Result<T, QueryError>) {
        let Some(begun) = begun else { return };
        self.telemetry.queries_running.dec();
        self.telemetry
            .query_duration
            .observe(begun.elapsed().as_secs_f64());
        let outcome = match result {
            Ok(_) => "ok",
            Err(error) => error.error_type(),
        };
        self.telemetry
            .queries
            .get_or_create(&Outcome { outcome })
            .inc();
    }
}

/// How a query of a tenant is evaluated.
pub(super) fn query_options(
    backend: &NodeBackend,
    tenant: &TenantName,
    (look_back, source_resolution_max_ms): (Option<Duration>, Millis),
    counts_samples: bool,
    deadline: Instant,
) -> QueryOptions {
    let mut eval = EvalOptions {
        source_resolution_max_ms,
        ..backend.cluster.settings.eval
    };
    if let Some(look_back) = look_back {
        eval.look_back_ms = look_back.as_millis() as Millis;
    }
    if counts_samples {
        eval = eval.for_counts();
    }
    let budget = backend.budget(&backend.limits(tenant), deadline);
    QueryOptions { eval, budget }
}

/// The answer with what the source says that it may lack.
pub(super) fn with_warnings(
    mut answer: QueryResult,
    source: &ClusterSource,
    counts_samples: bool,
) -> QueryResult {
    if counts_samples {
        // Remarks about a text that the client has never seen.
        answer.warnings.clear();
    }
    answer.warnings.extend(source.warnings());
    answer
}
