//! What the outside protocols get from the node: acceptance of writes, queries over the cluster, answers
//! about the cluster. Decides what is acceptable once, before anything is sent to an owner.

mod budgets;
mod deltas;
mod held;

use crate::{
    cluster::{Cluster, known_series::RECALL_PATIENCE, replicas::Verdict},
    data_plane::NewWrite,
    deltas::totals::Totals,
    formats,
    held::Held,
    ingest::{
        Acceptance, Admission, Encoder,
        pairs::{Filter, HeldTimes, Sender, senders_of},
    },
    limits::{
        TenantGates,
        series::{Count, KnownElsewhere, SeriesGate, candidates},
    },
    query::{
        allowance::Allowance,
        attended::in_own_task,
        counts::Counts,
        pins::QueryKey,
        select::Select,
        source::{ClusterSource, Reach, owned_by},
    },
    telemetry::{Outcome, Telemetry},
};
use async_trait::async_trait;
use budgets::{query_options, with_warnings};
use futures::StreamExt;
use parking_lot::Mutex;
use std::{
    collections::HashSet,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, Semaphore};
use trefoil_api::{
    ApiError, Backend, BuildInfo, CountQuery, InstantQuery, LimitValues, ListingOptions,
    MetadataQuery, MetricMetadata, NodeInfo, RangeQuery, SelectQuery, SeriesCounts, SeriesDeletion,
    SeriesExemplars, SeriesPages, Snapshot, TenantLimits, TenantName, WriteOutcome, admin,
    limit_refusals,
    remote_write::{MetricKind, WriteRequest},
};
use trefoil_model::{DeletionVersion, Labels, Millis, SeriesHash, ShardId, Signal, TenantId};
use trefoil_query_promql::{
    Budget, Grid, Listing, QueryError, QueryResult, SeriesFilter, Source, query_instant,
    query_range,
};
use trefoil_shard::WriteOutcome as Replicated;

/// The node behind the protocols.
pub(crate) struct NodeBackend {
    cluster: Arc<Cluster>,
    encoder: Encoder,
    gates: TenantGates,
    known_elsewhere: KnownElsewhere,
    /// What senders of pairs sent that do not count.
    held: Mutex<Held<held::Content>>,
    telemetry: Arc<Telemetry>,
    /// What this node remembers while it adds deltas up.
    totals: Mutex<Totals>,
    /// KiB of deltas of peers that may be in work.
    delta_turns: Semaphore,
    /// Told when a request no longer works on series of deltas.
    delta_freed: Notify,
    /// Requests that may read totals of deltas back.
    read_backs: Semaphore,
    /// Queries that were begun here.
    queries: AtomicU64,
    begun: Instant,
}

/// Where a request comes from.
#[derive(Clone, Copy)]
enum Origin {
    Client,
    /// Totals of deltas, which were taken out of the tenant's rate, and whose times were looked at, as they came. They go on from
    /// what this deletion and those before it have left, and none is before `oldest`.
    Deltas {
        deletion: DeletionVersion,
        oldest: Millis,
    },
    /// It was held back, and is not older than this deletion. The rate has nothing to do with it: what is held is bounded, and a
    /// sender that counts was charged when it came. Its times are looked at as they came.
    Held {
        deletion: DeletionVersion,
        arrived: Millis,
    },
}

impl NodeBackend {
    pub(crate) fn new(cluster: Arc<Cluster>, telemetry: Arc<Telemetry>) -> Self {
        let totals = Totals::new(cluster.settings.delta_series_max);
        let held = Held::new(held::rules(&cluster.settings));
        Self {
            cluster,
            encoder: Encoder::default(),
            gates: TenantGates::default(),
            known_elsewhere: KnownElsewhere::default(),
            held: Mutex::new(held),
            telemetry,
            totals: Mutex::new(totals),
            delta_turns: Semaphore::new(deltas::IN_WORK_KIB_MAX),
            delta_freed: Notify::new(),
            read_backs: Semaphore::new(deltas::READ_BACKS_MAX),
            queries: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    fn source(&self, tenant: TenantId, deadline: Instant, budget: Budget) -> ClusterSource {
        let reach = Reach {
            node: self.cluster.identity.node,
            plane: self.cluster.plane.clone(),
            connections: self.cluster.connections.clone(),
            directory: self.cluster.directory.clone(),
            state: self.cluster.metadata.state(),
            query: QueryKey {
                coordinator: self.cluster.identity.incarnation,
                number: self.queries.fetch_add(1, Ordering::Relaxed),
            },
            reuse: Arc::clone(&self.cluster.evaluator.reuse),
        };
        ClusterSource::new(reach, tenant, deadline, budget)
    }

    /// A source of what the tenant wrote; a name that never wrote gets an id that no item carries.
    async fn source_of(
        &self,
        tenant: &TenantName,
        deadline: Instant,
    ) -> Result<ClusterSource, QueryError> {
        let known = self.cluster.tenant_for_query(tenant.as_str()).await;
        let known = known.map_err(|error| {
            QueryError::Unavailable(format!(
                "this node does not know whether tenant {:?} has data: {error}",
                tenant.as_str()
            ))
        })?;
        let limits = self.limits(tenant);
        let budget = self.budget(&limits, deadline);
        let source = self.source(known.unwrap_or(TenantId(u32::MAX)), deadline, budget);
        let is_told = formats::asks_within(&self.cluster.metadata.state());
        let allowance = Allowance::of(&limits, self.cluster.now());
        Ok(source.within(allowance.filter(|_| is_told)))
    }

    /// Whether all evaluators understand that earlier answers are not to be used.
    fn tells_anew(&self) -> bool {
        formats::asks_anew(&self.cluster.metadata.state())
    }

    fn acceptance(&self, tenant: Option<TenantId>, limits: &TenantLimits) -> Acceptance {
        let now = self.cluster.now();
        let oldest = self.cluster.oldest_accepted(tenant, now);
        let window = limits.out_of_order_time_window.some();
        let oldest = window.map_or(oldest, |window| oldest.max(now - window));
        let grace = limits.past_grace_period.some();
        let past = grace.map_or(Millis::MIN, |grace| now - grace - window.unwrap_or(0));
        Acceptance {
            oldest: oldest.max(past),
            past,
            newest: now + limits.creation_grace_period.0,
            held: HeldTimes::NONE,
        }
    }

    /// Takes a request's samples out of the tenant's rate.
    fn admit(
        &self,
        tenant: &TenantName,
        limits: &TenantLimits,
        request: &WriteRequest,
        filter: Option<&Filter<'_>>,
    ) -> Result<(), ApiError> {
        if limits.ingestion_rate <= 0.0 {
            return Ok(());
        }
        // What another sender of a pair counts for costs the tenant nothing.
        let (samples, exemplars) = match filter {
            None => (request.sample_count() as u64, request.exemplars().len()),
            Some(filter) => (filter.samples_stored(request), 0),
        };
        // As Mimir counts them.
        let samples = samples + (request.metadata().len() + exemplars) as u64;
        let parts = self.cluster.nodes_that_write();
        let admitted = self
            .gates
            .admit(tenant.as_str(), limits, samples, parts, Instant::now());
        admitted.map_err(|retry_after| ApiError::TooManyRequests {
            message: limit_refusals::too_fast(limits),
            retry_after,
        })
    }

    async fn replicate(
        &self,
        tenant: &TenantName,
        request: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError> {
        self.cluster.check_clock().map_err(unavailable)?;
        self.store(tenant, request, Origin::Client, deadline).await
    }

    async fn store(
        &self,
        name: &TenantName,
        request: &WriteRequest,
        origin: Origin,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError> {
        let mut refused = Vec::new();
        self.store_telling(name, request, origin, deadline, &mut refused)
            .await
    }

    /// Stores a request, and takes its samples out of the tenant's rate if that was not done before. What it holds back is held
    /// when all else is stored: a request that fails is sent again, and judged again as a whole. The series that limits refuse
    /// are added to `refused`.
    async fn store_telling(
        &self,
        name: &TenantName,
        request: &WriteRequest,
        origin: Origin,
        deadline: Instant,
        refused: &mut Vec<SeriesHash>,
    ) -> Result<WriteOutcome, ApiError> {
        let limits = self.limits(name);
        let tenant = self
            .cluster
            .tenant_for_write(name.as_str())
            .await
            .map_err(|error| unavailable(format!("the tenant cannot be recorded now: {error}")))?;
        let routing = self.cluster.plane.routing();
        if routing.shards() == 0 {
            return Err(unavailable("the cluster has not begun yet".to_owned()));
        }
        // The state that the tenant was found in, or a later one.
        let state = self.cluster.metadata.state();
        if let Some(reason) = formats::refusal(&state, request) {
            return Err(unavailable(reason));
        }
        let takes_exemplars = formats::takes_exemplars(&state);
        let deletion = match origin {
            Origin::Client => self.cluster.newest_deletion(tenant),
            Origin::Deltas { deletion, .. } | Origin::Held { deletion, .. } => deletion,
        };
        let verdicts = self.verdicts(tenant, request).await?;
        let filter = verdicts.as_ref();
        let mut filter = filter.map(|verdicts| Filter::new(&self.cluster.settings.pairs, verdicts));
        let late = match &mut filter {
            Some(filter) => self.pack_late(name, tenant, request, filter).await,
            None => None,
        };
        if let Origin::Client = origin {
            self.admit(name, &limits, request, filter.as_ref())?;
        }
        let mut series = self
            .series_gate(tenant, &limits, request, filter.as_ref())
            .await;
        let mut gate = |canonical: &[u8]| series.admit(canonical);
        let mut acceptance = self.acceptance(Some(tenant), &limits);
        match origin {
            Origin::Client => {}
            Origin::Deltas { oldest, .. } => acceptance.oldest = oldest,
            Origin::Held { arrived, .. } => {
                let waited = (self.cluster.now() - arrived).max(0);
                acceptance.oldest = acceptance.oldest.saturating_sub(waited);
            }
        }
        acceptance.past = acceptance.past.min(acceptance.oldest);
        let admission = Admission {
            acceptance,
            filter: filter.as_ref(),
            takes_exemplars,
            gate: &mut gate,
        };
        let encoded = self
            .encoder
            .encode(tenant, request, &routing, admission)
            .map_err(|error| ApiError::BadData(error.to_string()))?;
        if let (Origin::Deltas { .. }, Some(first)) = (origin, &encoded.first_out_of_bounds) {
            // They were acceptable as they came. A total that is not stored must not be gone on from.
            return Err(unavailable(format!(
                "totals of deltas cannot be stored now: {first}"
            )));
        }
        let samples = encoded.samples;
        refused.extend(encoded.refused);
        let whose = filter.as_ref().map(|filter| held::Whose {
            name,
            tenant,
            filter,
            deletion,
        });
        let has_senders = verdicts.as_ref().is_some_and(|all| !all.is_empty());
        let is_judged = has_senders || matches!(origin, Origin::Held { .. });
        // One after the other, so that a large request does not fill the owners' windows at once. What was
        // stored before a failure is harmless: the client sends all of it again.
        for parcels in encoded.rounds {
            let timeout = deadline.saturating_duration_since(Instant::now());
            if timeout.is_zero() && is_judged && self.cluster.settings.pairs.holds() {
                // Who was to be stored when it was judged may not be any more.
                return Err(unavailable("the request has taken too long".to_owned()));
            }
            let write = NewWrite {
                tenant,
                signal: Signal::Metrics,
                deletion,
                parcels,
                timeout,
            };
            if self.cluster.plane.write(write).await != Replicated::Held {
                let own = self.cluster.plane.refuses_items();
                return Err(unavailable(match own {
                    Some(why) => format!("this node takes no writes: {why}; send them again"),
                    None => "no majority of the owners has the samples on disk; send them again"
                        .to_owned(),
                }));
            }
        }
        if let (Some(whose), Some(late)) = (whose, late) {
            self.hold_late(whose, late);
        }
        if let Some(whose) = whose.filter(|whose| whose.filter.holds()) {
            self.hold(whose, request, encoded.deduplicated - encoded.behind);
        }
        self.known_elsewhere
            .keep(series.admitted_elsewhere(), Instant::now());
        self.telemetry.samples.inc_by(samples);
        self.telemetry
            .deduplicated_samples
            .inc_by(encoded.deduplicated);
        self.telemetry
            .left_out_exemplars
            .inc_by(encoded.skipped_exemplars);
        let mut outcome = WriteOutcome {
            refusals: encoded.refusals,
            deduplicated: encoded.deduplicated,
            refused_histograms: encoded.refused_histograms,
            skipped_exemplars: encoded.skipped_exemplars,
        };
        if let Some(first) = encoded.first_out_of_bounds {
            let count = encoded.out_of_bounds;
            let series = encoded.out_of_bounds_series;
            let reason = || match count {
                1 => first.clone(),
                _ => format!("{count} samples were refused, the first: {first}"),
            };
            outcome.refusals.add_series(series, count, reason);
        }
        Ok(outcome)
    }

    /// What decides which series of a request may begin.
    async fn series_gate<'l>(
        &self,
        tenant: TenantId,
        limits: &'l TenantLimits,
        request: &WriteRequest,
        filter: Option<&Filter<'_>>,
    ) -> SeriesGate<'l> {
        let open = || SeriesGate::new(tenant, limits, [], Count::default());
        let counts_metrics = limits.max_global_series_per_metric > 0;
        if limits.max_global_series_per_user == 0 && !counts_metrics {
            return open();
        }
        let known = self.cluster.known_here(tenant, RECALL_PATIENCE).await;
        let Some(known) = known else {
            // Soon after a start: what is not known yet is not refused.
            return open();
        };
        self.known_elsewhere.turn(Instant::now());
        let routing = self.cluster.plane.routing();
        let own = owned_by(&routing, self.cluster.identity.node);
        let of_request = |all: &[(u64, ShardId)]| {
            let is_own = |(hash, shard): &(u64, ShardId)| own.contains(*shard).then_some(*hash);
            let others = all.iter().filter(|one| is_own(one).is_none());
            let mut found = HashSet::from_iter(known.present(all.iter().filter_map(is_own)));
            self.known_elsewhere
                .present(others.map(|(hash, _)| *hash), &mut found);
            found
        };
        let unknown = candidates(tenant, request, routing.shards(), filter, of_request);
        if unknown.is_empty() {
            return open();
        }
        let judged = self
            .cluster
            .judge_series(tenant, &known, &unknown, counts_metrics);
        let verdict = judged.await;
        let elsewhere = unknown.iter().filter(|one| !own.contains(one.shard));
        let elsewhere: HashSet<u64> = elsewhere.map(|one| one.hash).collect();
        let known = verdict.known.intersection(&elsewhere);
        self.known_elsewhere.keep(known.copied(), Instant::now());
        SeriesGate::new(tenant, limits, verdict.fresh, verdict.count).keeping(elsewhere)
    }

    /// What becomes of the samples of each sender; none when pairs of senders are not told.
    async fn verdicts(
        &self,
        tenant: TenantId,
        request: &WriteRequest,
    ) -> Result<Option<Vec<(Sender, Verdict)>>, ApiError> {
        let settings = &self.cluster.settings.pairs;
        if !settings.accepted {
            return Ok(None);
        }
        let mut verdicts = Vec::new();
        for sender in senders_of(request, settings) {
            let verdict = self.cluster.verdict(tenant, &sender.0, &sender.1).await?;
            verdicts.push((sender, verdict));
        }
        Ok(Some(verdicts))
    }

    fn finish_write<T>(&self, begun: Instant, result: &Result<T, ApiError>) {
        let outcome = match result {
            Ok(_) => "ok",
            Err(error) => error.error_type(),
        };
        self.telemetry
            .writes
            .get_or_create(&Outcome { outcome })
            .inc();
        self.telemetry
            .write_duration
            .observe(begun.elapsed().as_secs_f64());
    }
}

fn unavailable(message: String) -> ApiError {
    ApiError::Unavailable {
        message,
        retry_after: Duration::from_secs(1),
    }
}

#[async_trait]
impl Backend for NodeBackend {
    fn now(&self) -> Millis {
        self.cluster.now()
    }

    fn accepted_times(&self, tenant: &TenantName) -> RangeInclusive<Millis> {
        let state = self.cluster.metadata.state();
        let limits = self.limits(tenant);
        let acceptance = self.acceptance(state.tenant_id(tenant.as_str()), &limits);
        acceptance.oldest..=acceptance.newest
    }

    async fn write(
        &self,
        tenant: &TenantName,
        request: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError> {
        let begun = Instant::now();
        let result = self.replicate(tenant, request, deadline).await;
        self.finish_write(begun, &result);
        result
    }

    async fn accumulate(
        &self,
        tenant: &TenantName,
        deltas: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError> {
        let begun = Instant::now();
        let result = self.accumulate_deltas(tenant, deltas, deadline).await;
        self.finish_write(begun, &result);
        result
    }

    async fn query_instant(
        &self,
        tenant: &TenantName,
        query: InstantQuery,
    ) -> Result<QueryResult, QueryError> {
        let running = self.begin_query(query.counts_samples, query.deadline);
        let options = query_options(
            self,
            tenant,
            (query.look_back, query.source_resolution_max_ms),
            query.counts_samples,
            query.deadline,
        );
        let result = async {
            let source = self.source_of(tenant, query.deadline).await?;
            let source = source
                .partial(query.partial)
                .anew(query.anew, self.tells_anew());
            let budgets = vec![options.budget.clone(), source.budget().clone()];
            let work = async move {
                let answer = query_instant(&source, &query.query, query.time, &options).await?;
                Ok(with_warnings(answer, &source, query.counts_samples))
            };
            in_own_task(budgets, work).await
        };
        let result = result.await.map_err(|e| self.naming_limit(tenant, e));
        if let Some(running) = running {
            running.end(&result);
        }
        result
    }

    async fn query_range(
        &self,
        tenant: &TenantName,
        query: RangeQuery,
    ) -> Result<QueryResult, QueryError> {
        let running = self.begin_query(query.counts_samples, query.deadline);
        let options = query_options(
            self,
            tenant,
            (query.look_back, query.source_resolution_max_ms),
            query.counts_samples,
            query.deadline,
        );
        let result = async {
            let grid = Grid::range(query.start, query.end, query.step)?;
            let source = self.source_of(tenant, query.deadline).await?;
            let source = source
                .partial(query.partial)
                .anew(query.anew, self.tells_anew());
            let budgets = vec![options.budget.clone(), source.budget().clone()];
            let work = async move {
                let answer = query_range(&source, &query.query, grid, &options).await?;
                Ok(with_warnings(answer, &source, query.counts_samples))
            };
            in_own_task(budgets, work).await
        };
        let result = result.await.map_err(|e| self.naming_limit(tenant, e));
        if let Some(running) = running {
            running.end(&result);
        }
        result
    }

    async fn select(
        &self,
        tenant: &TenantName,
        query: SelectQuery,
    ) -> Result<SeriesPages, QueryError> {
        let source = self.source_of(tenant, query.deadline).await?;
        let select = Select {
            alternatives: query.alternatives,
            start: query.start,
            end: query.end,
            newest: u8::from(query.newest_only),
            after: None,
            bytes_max: 0,
        };
        let source = match query.is_limited {
            true => source,
            false => source.within(None),
        };
        Ok(source
            .accepting_loss(query.accepts_loss)
            .select(select)
            .boxed())
    }

    async fn series(
        &self,
        tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<Labels>, QueryError> {
        let source = self.source_of(tenant, options.deadline).await?;
        source.partial(options.partial).series(filter).await
    }

    async fn label_names(
        &self,
        tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<String>, QueryError> {
        let source = self.source_of(tenant, options.deadline).await?;
        source.partial(options.partial).label_names(filter).await
    }

    async fn label_values(
        &self,
        tenant: &TenantName,
        name: &str,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<String>, QueryError> {
        let source = self.source_of(tenant, options.deadline).await?;
        source
            .partial(options.partial)
            .label_values(name, filter)
            .await
    }

    async fn metadata(
        &self,
        tenant: &TenantName,
        query: MetadataQuery,
        deadline: Instant,
    ) -> Result<Vec<MetricMetadata>, QueryError> {
        let source = self.source_of(tenant, deadline).await?;
        let families = source.metadata(query.metric).await?;
        let kind = |name: &str| {
            MetricKind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == name)
                .unwrap_or_default()
        };
        let families = families.into_iter().map(|family| MetricMetadata {
            kind: kind(&family.metric_type),
            metric: family.metric,
            help: family.help,
            unit: family.unit,
        });
        Ok(families.collect())
    }

    async fn exemplars(
        &self,
        tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<SeriesExemplars>, QueryError> {
        let source = self.source_of(tenant, options.deadline).await?;
        source.partial(options.partial).exemplars(filter).await
    }

    async fn count_series(
        &self,
        tenant: &TenantName,
        query: CountQuery,
    ) -> Result<SeriesCounts, QueryError> {
        let source = self.source_of(tenant, query.deadline).await?;
        let counts = Counts {
            alternatives: query.alternatives,
            start: query.start,
            end: query.end,
            names: query.names,
            is_exact: query.is_exact,
        };
        let source = source.accepting_loss(query.accepts_loss);
        let counted = source.count(counts).await?;
        Ok(SeriesCounts {
            series: counted.series,
            labels: counted.labels,
        })
    }

    fn limits(&self, tenant: &TenantName) -> Arc<TenantLimits> {
        let state = self.cluster.metadata.state();
        self.gates.limits(&state, tenant.as_str())
    }

    fn admit_request(&self, tenant: &TenantName, limits: &TenantLimits) -> Result<(), ApiError> {
        self.take_request(tenant, limits)
    }

    async fn limits_set(&self, tenant: Option<&TenantName>) -> Result<admin::Limits, ApiError> {
        self.cluster.limits_set(tenant).await
    }

    async fn set_limits(
        &self,
        tenant: Option<&TenantName>,
        values: LimitValues,
        expected: Option<LimitValues>,
    ) -> Result<admin::Accepted, ApiError> {
        self.cluster.set_limits(tenant, values, expected).await
    }

    fn config_text(&self) -> String {
        self.cluster.settings.to_yaml()
    }

    fn node_info(&self) -> NodeInfo {
        let running = self.begun.elapsed().as_millis() as Millis;
        NodeInfo {
            name: self.cluster.node_name(self.cluster.identity.node),
            started: self.cluster.now() - running,
            retention_hours: self.cluster.retention_hours(),
            query_samples_max: self.cluster.settings.query_samples,
            features: self.cluster.settings.features.clone(),
            eval: self.cluster.settings.eval,
            admin_api: self.cluster.settings.enable_admin_api,
        }
    }

    async fn delete_series(
        &self,
        tenant: &TenantName,
        deletion: SeriesDeletion,
    ) -> Result<(), ApiError> {
        self.cluster.delete_series(tenant, deletion).await
    }

    async fn clean_tombstones(&self) -> Result<(), ApiError> {
        self.cluster.clean_tombstones().await
    }

    async fn snapshot(&self, skip_head: bool) -> Result<Snapshot, ApiError> {
        // A task of its own: a client that goes away leaves no parts behind that nobody knows of.
        let made = tokio::spawn(self.cluster.clone().snapshot(skip_head));
        made.await
            .map_err(|error| ApiError::Internal(error.to_string()))?
    }

    fn build_info(&self) -> BuildInfo {
        BuildInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..BuildInfo::default()
        }
    }

    fn readiness(&self) -> Result<(), String> {
        self.cluster.readiness()
    }

    fn metrics_text(&self) -> String {
        let (series, waiting) = match self.cluster.adds_up() {
            true => self.totals.lock().counts(),
            false => (0, 0),
        };
        self.telemetry.delta_series.set(series as i64);
        self.telemetry.delta_waiting_series.set(waiting as i64);
        let read_backs = deltas::READ_BACKS_MAX - self.read_backs.available_permits();
        self.telemetry.delta_read_backs.set(read_backs as i64);
        self.telemetry
            .render()
            .unwrap_or_else(|_| "# the metrics could not be rendered\n".to_owned())
    }

    async fn cluster(&self) -> Result<admin::Cluster, ApiError> {
        Ok(self.cluster.describe().await)
    }

    async fn digests(&self, request: admin::DigestsRequest) -> Result<admin::Digests, ApiError> {
        self.cluster.compare(&request).await
    }

    async fn movements(&self) -> Result<admin::Movements, ApiError> {
        Ok(self.cluster.describe_movements().await)
    }

    async fn set_retention(
        &self,
        wanted: admin::RetentionRequest,
    ) -> Result<admin::Accepted, ApiError> {
        self.cluster.set_retention(wanted).await
    }

    async fn retention(&self) -> Result<admin::Retention, ApiError> {
        self.cluster.retention().await
    }

    async fn value(&self, key: &str) -> Result<admin::KeyValue, ApiError> {
        self.cluster.value(key).await
    }

    async fn put_value(&self, put: admin::PutValue) -> Result<admin::WrittenValue, ApiError> {
        self.cluster.put_value(put).await
    }

    async fn prepare_stop(&self, wait: Duration) -> Result<admin::Accepted, ApiError> {
        self.cluster.prepare_stop(wait).await
    }

    async fn drain(&self, node: &str) -> Result<admin::Accepted, ApiError> {
        self.cluster.drain(node).await
    }

    async fn undrain(&self, node: &str) -> Result<admin::Accepted, ApiError> {
        self.cluster.undrain(node).await
    }

    async fn remove(&self, node: &str) -> Result<admin::Accepted, ApiError> {
        self.cluster.remove(node).await
    }
}
