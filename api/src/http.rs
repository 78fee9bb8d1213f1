//! The HTTP server's routes: who is asked what, under which bounds.
//!
//! | base | what |
//! |---|---|
//! | `/prometheus` and the root | Prometheus' API, remote write, imports, OpenTelemetry's metrics |
//! | `/trefoil/api/v1` | administration |
//! | the root | `/` (what there is), `/-/healthy`, `/-/ready`, `/metrics` |
//!
//! Every request is bounded in size, number and time. A client that goes away takes its request's
//! future with it.

mod admin;
mod answer;
mod body;
mod cardinality;
mod cors;
mod deletion;
mod exemplars;
mod export;
mod facts;
mod features;
mod federate;
mod grpc;
mod import;
mod influx;
mod ingest;
mod language;
mod limited;
mod metrics;
mod monitoring;
mod otlp;
mod parameters;
mod prometheus;
mod pumped;
mod read;
mod snapshot;
mod starting;
mod stats;
mod status;
mod write;

use crate::{ApiError, ApiLimits, Backend, TenantName, otlp::OtlpOptions};
use axum::{
    Router,
    extract::{Request, State},
    http::HeaderMap,
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use body::ByteBudget;
pub use grpc::grpc_starting_router;
use ingest::BufferPool;
use metrics::{CountedStatus, HttpMetrics, InWork};
pub use starting::{StartingReason, starting_router};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whether the process answers.
pub const HEALTHY_PATH: &str = "/-/healthy";
/// Whether the node's replicas serve.
pub const READY_PATH: &str = "/-/ready";
/// The node's own metrics.
pub const METRICS_PATH: &str = "/metrics";

/// What all handlers share.
pub(crate) struct App {
    backend: Arc<dyn Backend>,
    limits: ApiLimits,
    writes: Semaphore,
    write_bytes: ByteBudget,
    queries: Arc<Semaphore>,
    queries_waiting: AtomicUsize,
    buffers: BufferPool,
    metrics: HttpMetrics,
    otlp: Arc<OtlpOptions>,
}

type Shared = State<Arc<App>>;

/// The node's protocols over one backend. What they share (turns, budgets, counters) is theirs together, whatever
/// address a request came in at.
pub struct Api(Arc<App>);

impl Api {
    /// Protocols under these bounds.
    pub fn new(backend: Arc<dyn Backend>, limits: ApiLimits, otlp: OtlpOptions) -> Self {
        Self(Arc::new(App {
            backend,
            writes: Semaphore::new(limits.writes_at_once_max),
            write_bytes: ByteBudget::new(limits.write_bytes_at_once_max),
            queries: Arc::new(Semaphore::new(limits.queries_at_once_max)),
            queries_waiting: AtomicUsize::new(0),
            buffers: BufferPool::default(),
            metrics: HttpMetrics::default(),
            otlp: Arc::new(otlp),
            limits,
        }))
    }

    /// All routes of the HTTP server.
    pub fn http(&self) -> Router {
        all_routes(&self.0)
    }

    /// OpenTelemetry's routes alone, for the port that its exporters use by default.
    pub fn otlp_http(&self) -> Router {
        counted(Router::new().merge(otlp_routes()), &self.0)
    }

    /// OpenTelemetry's services, for a server that speaks HTTP/2.
    pub fn otlp_grpc(&self) -> Router {
        counted(grpc::routes(), &self.0)
    }
}

/// All routes of the node's HTTP server, with the usual translation of OpenTelemetry's metrics.
pub fn router(backend: Arc<dyn Backend>, limits: ApiLimits) -> Router {
    Api::new(backend, limits, OtlpOptions::default()).http()
}

fn otlp_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/metrics", post(otlp::metrics))
        .route("/otlp/v1/metrics", post(otlp::metrics))
        .route("/api/v1/otlp/v1/metrics", post(otlp::metrics))
}

/// Every request that has a route is counted and timed.
fn counted(routes: Router<Arc<App>>, app: &Arc<App>) -> Router {
    routes
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), count))
        .with_state(Arc::clone(app))
}

fn all_routes(app: &Arc<App>) -> Router {
    let prometheus = Router::new()
        .route("/api/v1/write", post(write::write))
        .route("/api/v1/push", post(write::write))
        .route("/api/v1/import/prometheus", post(import::import))
        .route(
            "/api/v1/import",
            // `curl -T` sends files with PUT.
            post(import::import_lines).put(import::import_lines),
        )
        .route("/api/v1/export", get(export::export).post(export::export))
        .route("/write", post(influx::write))
        .route("/api/v2/write", post(influx::write))
        .route("/api/v1/push/influx/write", post(influx::write))
        .route("/ping", get(influx::ping))
        .merge(otlp_routes())
        .route("/api/v1/read", post(read::read))
        .route(
            "/federate",
            get(federate::federate).post(federate::federate),
        )
        .route(
            "/api/v1/admin/tsdb/delete_series",
            post(deletion::delete_series).put(deletion::delete_series),
        )
        .route(
            "/api/v1/admin/tsdb/clean_tombstones",
            post(deletion::clean_tombstones).put(deletion::clean_tombstones),
        )
        .route(
            "/api/v1/admin/tsdb/snapshot",
            post(snapshot::snapshot).put(snapshot::snapshot),
        )
        .merge(queries());
    let own = Router::new()
        .route("/", get(status::root))
        .route(HEALTHY_PATH, get(status::healthy))
        .route(READY_PATH, get(status::ready))
        .route(METRICS_PATH, get(status::metrics))
        .route("/trefoil/api/v1/cluster", get(admin::cluster))
        .route("/trefoil/api/v1/cluster/drain", post(admin::drain))
        .route("/trefoil/api/v1/cluster/undrain", post(admin::undrain))
        .route("/trefoil/api/v1/cluster/remove", post(admin::remove))
        .route("/trefoil/api/v1/digests", get(admin::digests))
        .route("/trefoil/api/v1/movements", get(admin::movements))
        .route(
            "/trefoil/api/v1/node/prepare-stop",
            post(admin::prepare_stop),
        )
        .route(
            "/trefoil/api/v1/retention",
            get(admin::retention).post(admin::set_retention),
        )
        .route(
            "/trefoil/api/v1/retention/tenants",
            post(admin::set_tenant_retention),
        )
        .route(
            "/trefoil/api/v1/limits",
            get(admin::limits).post(admin::set_limits),
        )
        .route(
            "/trefoil/api/v1/values",
            get(admin::value).post(admin::put_value),
        );
    let ends = Router::new()
        .route("/prometheus", get(status::root))
        .route("/prometheus/", get(status::root))
        .route("/prometheus/-/healthy", get(status::healthy))
        .route("/prometheus/-/ready", get(status::ready));
    let routes = Router::new()
        .nest("/prometheus", prometheus.clone())
        .merge(prometheus)
        .merge(ends)
        .merge(own)
        .fallback(status::not_found);
    counted(routes, app)
}

/// What scripts of other sites may ask, too.
fn queries() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/api/v1/query",
            get(prometheus::query).post(prometheus::query),
        )
        .route(
            "/api/v1/query_range",
            get(prometheus::query_range).post(prometheus::query_range),
        )
        .route(
            "/api/v1/series",
            get(prometheus::series).post(prometheus::series),
        )
        .route(
            "/api/v1/labels",
            get(prometheus::labels).post(prometheus::labels),
        )
        .route(
            "/api/v1/query_exemplars",
            get(exemplars::query_exemplars).post(exemplars::query_exemplars),
        )
        .route("/api/v1/label/{name}/values", get(prometheus::label_values))
        .route("/api/v1/metadata", get(prometheus::metadata))
        .merge(reports())
        .route_layer(middleware::from_fn(cors::allow_other_sites))
}

/// What Prometheus' API and Mimir's say about texts, settings and amounts of data.
fn reports() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/api/v1/format_query",
            get(language::format_query).post(language::format_query),
        )
        .route(
            "/api/v1/parse_query",
            get(language::parse_query).post(language::parse_query),
        )
        .route("/api/v1/targets", get(monitoring::targets))
        .route("/api/v1/targets/metadata", get(monitoring::target_metadata))
        .route("/api/v1/scrape_pools", get(monitoring::scrape_pools))
        .route("/api/v1/alertmanagers", get(monitoring::alertmanagers))
        .route("/api/v1/rules", get(monitoring::rules))
        .route("/api/v1/alerts", get(monitoring::alerts))
        .route("/api/v1/user_limits", get(admin::user_limits))
        .route("/api/v1/notifications", get(monitoring::notifications))
        .route("/api/v1/features", get(features::features))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .route("/api/v1/status/config", get(facts::config))
        .route("/api/v1/status/flags", get(facts::flags))
        .route("/api/v1/status/runtimeinfo", get(facts::runtime_info))
        .route("/api/v1/status/tsdb", get(facts::tsdb))
        .route("/api/v1/status/walreplay", get(facts::replay))
        .route(
            "/api/v1/cardinality/label_names",
            get(cardinality::label_names).post(cardinality::label_names),
        )
        .route(
            "/api/v1/cardinality/label_values",
            get(cardinality::label_values).post(cardinality::label_values),
        )
        .route(
            "/api/v1/cardinality/active_series",
            get(cardinality::active_series).post(cardinality::active_series),
        )
        .route(
            "/api/v1/cardinality/active_native_histogram_metrics",
            get(cardinality::active_histograms).post(cardinality::active_histograms),
        )
}

/// Counts and times every request that has a route.
async fn count(State(app): Shared, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let handler = metrics::handler_of(path);
    let begun = Instant::now();
    let response = next.run(request).await;
    let counted = response.extensions().get::<CountedStatus>();
    let status = counted.map_or(response.status().as_u16(), |counted| counted.0);
    app.metrics.count(handler, status, begun.elapsed());
    response
}

/// The tenant that the headers name.
fn tenant(headers: &HeaderMap) -> Result<TenantName, ApiError> {
    match headers.get("x-scope-orgid") {
        None => Ok(TenantName::default()),
        Some(value) => {
            let refuse = |_| ApiError::BadData("tenant ID is not ASCII".to_owned());
            TenantName::new(value.to_str().map_err(refuse)?)
        }
    }
}

impl App {
    /// What is being worked on now.
    fn in_work(&self) -> InWork {
        let limits = &self.limits;
        InWork {
            writes: limits.writes_at_once_max - self.writes.available_permits(),
            write_bytes: self.write_bytes.held(),
            queries: limits.queries_at_once_max - self.queries.available_permits(),
            queries_waiting: self.queries_waiting.load(Ordering::Relaxed),
        }
    }

    /// Waits for the query's turn.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when too many wait already, [`ApiError::QueueTimeout`] behind the
    /// deadline.
    async fn query_turn(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(permit) = Arc::clone(&self.queries).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::begin(&self.queries_waiting, self.limits.queries_waiting_max)?;
        let turn = Arc::clone(&self.queries).acquire_owned();
        let turn = tokio::time::timeout_at(deadline.into(), turn).await;
        match turn {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed.
            Ok(Err(_)) => Err(ApiError::Internal("the query queue is closed".to_owned())),
            Err(_) => Err(ApiError::QueueTimeout),
        }
    }
}

/// One request in the queue; leaves it when dropped, also when its client goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, max: usize) -> Result<Self, ApiError> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= max {
            return Err(ApiError::Unavailable {
                message: format!("more than {max} queries are waiting"),
                retry_after: Duration::from_secs(1),
            });
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
