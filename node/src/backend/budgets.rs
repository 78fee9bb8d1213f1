//! What queries of tenants may use at this node, what is counted of them and what is said with their answers. And how many
//! write requests may come.

use super::NodeBackend;
use crate::{
    query::source::ClusterSource,
    telemetry::{Outcome, Telemetry},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use trefoil_api::{ApiError, Backend, TenantLimits, TenantName, limit_refusals};
use trefoil_model::Millis;
use trefoil_query_promql::{Budget, EvalOptions, QueryError, QueryOptions, QueryResult};

impl NodeBackend {
    /// Takes a write request out of the tenant's rate of requests.
    pub(super) fn take_request(
        &self,
        tenant: &TenantName,
        limits: &TenantLimits,
    ) -> Result<(), ApiError> {
        let (parts, now) = (self.cluster.nodes_that_write(), Instant::now());
        let admitted = self
            .gates
            .admit_request(tenant.as_str(), limits, parts, now);
        admitted.map_err(|retry_after| ApiError::TooManyRequests {
            message: limit_refusals::too_many_requests(limits),
            retry_after,
        })
    }

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

    /// Counts a query that begins, if it is one of the user's, until what is returned is dropped.
    pub(super) fn begin_query(&self, counts_samples: bool, deadline: Instant) -> Option<Running> {
        (!counts_samples).then(|| {
            self.telemetry.queries_running.inc();
            Running {
                telemetry: Arc::clone(&self.telemetry),
                begun: Instant::now(),
                deadline,
                outcome: None,
            }
        })
    }
}

/// A query that is counted as running, and when this is dropped among those with its outcome.
pub(super) struct Running {
    telemetry: Arc<Telemetry>,
    begun: Instant,
    deadline: Instant,
    outcome: Option<&'static str>,
}

impl Running {
    pub(super) fn end<T>(mut self, result: &Result<T, QueryError>) {
        self.outcome = Some(match result {
            Ok(_) => "ok",
            Err(error) => error.error_type(),
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without an outcome nobody waits for it any more: the time is over, or the client has left.
        let given_up = || match Instant::now() >= self.deadline {
            true => QueryError::Timeout.error_type(),
            false => QueryError::Canceled.error_type(),
        };
        let outcome = self.outcome.unwrap_or_else(given_up);
        let Telemetry {
            queries_running,
            query_duration,
            queries,
            ..
        } = &*self.telemetry;
        queries_running.dec();
        query_duration.observe(self.begun.elapsed().as_secs_f64());
        queries.get_or_create(&Outcome { outcome }).inc();
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
