//! A node that keeps what is written in memory and answers certain query texts in certain ways.

use async_trait::async_trait;
use futures::{StreamExt, stream};
use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use trefoil_api::{
    ApiError, Backend, BuildInfo, CountQuery, InstantQuery, LimitValues, ListingOptions,
    MetadataQuery, MetricMetadata, NodeInfo, RangeQuery, SelectQuery, SeriesCounts, SeriesDeletion,
    SeriesExemplars, SeriesPages, Snapshot, TenantLimits, TenantName, WriteOutcome, admin,
    limit_refusals,
    remote_write::{Exemplar, MetricKind, Refusals, SampleValue, WriteRequest},
};
use trefoil_model::{Histogram, Labels, Millis};
use trefoil_query_promql::{
    EvalOptions, HISTOGRAM, Histograms, Listing, MatrixSeries, Point, QueryData, QueryError,
    QueryResult, RawSeries, STALE_MARKER_BITS, SeriesFilter, Value, VectorSample,
};

/// How the node behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    NoMajority,
    /// Nobody knows which node adds deltas up.
    NoHolder,
    RateLimited,
    Hangs,
    RefusesOld,
    /// Another sender of the pair counts.
    DropsPair,
    /// The series are native histograms.
    HasHistograms,
    NotReady,
}

/// The limits of the tenant `limited`.
const LIMITS: &str = r#"{
    "max_label_value_length": 3, "max_query_expression_size_bytes": 8, "max_total_query_length": "1h",
    "max_query_lookback": "30s", "max_series_query_limit": 1
}"#;

pub(crate) struct FakeNode {
    mood: Mood,
    stored: Mutex<Vec<String>>,
    query: Mutex<String>,
    /// Told when a query began to hang.
    pub(crate) hanging: Arc<Notify>,
    /// Told when a hanging query was dropped.
    pub(crate) canceled: Arc<Notify>,
}

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(Mood::Good)
    }

    pub(crate) fn with(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood,
            stored: Mutex::default(),
            query: Mutex::default(),
            hanging: Arc::default(),
            canceled: Arc::default(),
        })
    }

    pub(crate) fn stored(&self) -> Vec<String> {
        self.stored.lock().unwrap().clone()
    }

    pub(crate) fn last_query(&self) -> String {
        self.query.lock().unwrap().clone()
    }

    fn note(&self, query: String) {
        *self.query.lock().unwrap() = query;
    }

    async fn hang(&self) {
        let _guard = Canceled(Arc::clone(&self.canceled));
        self.hanging.notify_one();
        std::future::pending::<()>().await;
    }
}

struct Canceled(Arc<Notify>);

impl Drop for Canceled {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// What is noted of a question whose answer may be partial.
fn partial(partial: bool) -> &'static str {
    if partial { " partial" } else { "" }
}

/// What is noted of a question that counts the samples of another.
fn counting(counts_samples: bool, anew: bool) -> &'static str {
    match (counts_samples, anew) {
        (true, true) => " counting anew",
        (true, false) => " counting",
        (false, _) => "",
    }
}

fn up() -> Labels {
    Labels::from_pairs([("__name__", "up")])
}

fn result(data: QueryData, warnings: Vec<String>) -> QueryResult {
    QueryResult {
        data,
        warnings,
        infos: vec![],
        samples_peak: 0,
    }
}

fn listing<T>(items: Vec<T>) -> Listing<T> {
    Listing {
        items,
        warnings: vec![],
    }
}

#[async_trait]
impl Backend for FakeNode {
    fn now(&self) -> Millis {
        42_000
    }

    fn accepted_times(&self, _tenant: &TenantName) -> RangeInclusive<Millis> {
        0..=Millis::MAX
    }

    async fn write(
        &self,
        tenant: &TenantName,
        request: &WriteRequest,
        _deadline: Instant,
    ) -> Result<WriteOutcome, ApiError> {
        let retry_after = Duration::from_secs(2);
        let mut outcome = WriteOutcome::default();
        match self.mood {
            Mood::NoMajority => {
                return Err(ApiError::Unavailable {
                    message: "1 of 3 owners of shard 7 answered".to_owned(),
                    retry_after,
                });
            }
            Mood::RateLimited => {
                return Err(ApiError::TooManyRequests {
                    message: "ingestion rate limit".to_owned(),
                    retry_after,
                });
            }
            Mood::Hangs => self.hang().await,
            Mood::RefusesOld => {
                let mut refusals = Refusals::default();
                refusals.add(1, || "sample is too old, in series up".to_owned());
                outcome.refusals = refusals;
            }
            Mood::DropsPair => {
                outcome.deduplicated = request.sample_count() as u64;
                return Ok(outcome);
            }
            Mood::Good | Mood::NoHolder | Mood::NotReady | Mood::HasHistograms => {}
        }
        let mut stored = self.stored.lock().unwrap();
        for series in request.series() {
            let labels = series.to_labels();
            stored.extend(series.whole_samples().map(|sample| {
                let value = match &sample.value {
                    SampleValue::Float(value) => value.to_string(),
                    SampleValue::Histogram(h) => {
                        format!("{} of {}: {:?} {:?}", h.schema, h.count, h.positive, h.sum)
                    }
                };
                let since = match sample.start {
                    0 => String::new(),
                    start => format!(" since {start}"),
                };
                format!("{tenant} {labels} {} {value}{since}", sample.time)
            }));
        }
        for (labels, exemplar) in request.exemplars() {
            let Exemplar {
                labels: own,
                value,
                time,
            } = exemplar;
            stored.push(format!("{tenant} {labels} {time} exemplar {own} {value}"));
        }
        Ok(outcome)
    }

    async fn accumulate(
        &self,
        tenant: &TenantName,
        deltas: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError> {
        if self.mood == Mood::NoHolder {
            return Err(ApiError::Unavailable {
                message: "the node that adds deltas up is changing".to_owned(),
                retry_after: Duration::from_secs(5),
            });
        }
        let outcome = self.write(tenant, deltas, deadline).await?;
        let mut stored = self.stored.lock().unwrap();
        let first = stored.len() - deltas.sample_count();
        let lines = stored[first..].iter_mut();
        lines.for_each(|line| line.push_str(" added up"));
        Ok(outcome)
    }

    async fn query_instant(
        &self,
        _tenant: &TenantName,
        query: InstantQuery,
    ) -> Result<QueryResult, QueryError> {
        let suffix = partial(query.partial).to_owned();
        let suffix = suffix + counting(query.counts_samples, query.anew);
        self.note(format!("instant {} at {}{suffix}", query.query, query.time));
        let sample = VectorSample {
            labels: up(),
            point: Point {
                time: query.time,
                value: Value::Float(1.0),
            },
        };
        match query.query.as_str() {
            "bad" => Err(QueryError::BadData("1:1: parse error: bad".to_owned())),
            "exec" => Err(QueryError::Execution("exec".to_owned())),
            "lost" | "count(unreachable)" => Err(QueryError::Unavailable("shard 3".to_owned())),
            "count(partly)" => Ok(result(
                QueryData::Vector(vec![sample]),
                vec!["partly".to_owned()],
            )),
            "hang" | "count(slow)" => {
                self.hang().await;
                Err(QueryError::Canceled)
            }
            "two" => Ok(result(QueryData::Vector(vec![sample; 2]), vec![])),
            _ => Ok(result(
                QueryData::Vector(vec![sample]),
                vec!["w".to_owned()],
            )),
        }
    }

    async fn query_range(
        &self,
        _tenant: &TenantName,
        query: RangeQuery,
    ) -> Result<QueryResult, QueryError> {
        let (start, end, step) = (query.start, query.end, query.step);
        self.note(format!(
            "range {} from {start} to {end} by {step}{}{}",
            query.query,
            partial(query.partial),
            counting(query.counts_samples, query.anew)
        ));
        let count = if query.query == "long" { 5000 } else { 1 };
        let series = (0..count).map(|i| MatrixSeries {
            labels: Labels::from_pairs([("__name__", "up"), ("i", &i.to_string())]),
            points: (0..5)
                .map(|time| Point {
                    time: time * 1000,
                    value: Value::Float(time as f64 + 0.5),
                })
                .collect(),
        });
        Ok(result(QueryData::Matrix(series.collect()), vec![]))
    }

    /// Three series in two pages: 200 samples every 15 s up to now, one that ended, one with an odd name.
    async fn select(
        &self,
        _tenant: &TenantName,
        query: SelectQuery,
    ) -> Result<SeriesPages, QueryError> {
        let newest = if query.newest_only { " newest" } else { "" };
        self.note(format!(
            "select {} from {} to {}{newest}",
            query.alternatives.len(),
            query.start,
            query.end
        ));
        let series = |name: &str, samples: &[(Millis, f64)]| RawSeries {
            labels: Labels::from_pairs([("__name__", name), ("instance", "a\"b")]),
            timestamps: samples.iter().map(|(time, _)| *time).collect(),
            values: samples.iter().map(|(_, value)| *value).collect(),
            histograms: Histograms::default(),
        };
        let many: Vec<(Millis, f64)> = (0..200)
            .map(|i| (i * 15_000, i as f64 * 0.5))
            .filter(|(time, _)| (query.start..=query.end).contains(time))
            .collect();
        let many = match (query.newest_only, many.last()) {
            (true, Some(last)) => vec![*last],
            _ => many,
        };
        if matches!(self.mood, Mood::HasHistograms) {
            let mut one = series("h", &[(41_000, HISTOGRAM)]);
            one.histograms.put(0, Arc::new(Histogram::default()));
            return Ok(stream::iter([Ok(vec![one])]).boxed());
        }
        let pages = [
            vec![
                series("busy_total", &many),
                series("ended", &[(41_000, f64::from_bits(STALE_MARKER_BITS))]),
            ],
            vec![series("odd.name", &[(40_500, f64::INFINITY)])],
        ];
        Ok(stream::iter(pages.map(Ok)).boxed())
    }

    async fn series(
        &self,
        _tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<Labels>, QueryError> {
        self.note(format!(
            "series of {} from {} to {} limit {}{}",
            filter.alternatives.len(),
            filter.start,
            filter.end,
            filter.limit,
            partial(options.partial)
        ));
        let other = Labels::from_pairs([("__name__", "x"), ("job", "a")]);
        Ok(listing(vec![up(), other]))
    }

    async fn label_names(
        &self,
        _tenant: &TenantName,
        filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<String>, QueryError> {
        self.note(format!("label names{}", partial(options.partial)));
        let names = ["__name__", "job", "zone"].map(str::to_owned).to_vec();
        let wanted = if filter.limit == 0 { 3 } else { filter.limit };
        Ok(listing(names.into_iter().take(wanted).collect()))
    }

    async fn label_values(
        &self,
        _tenant: &TenantName,
        name: &str,
        _filter: SeriesFilter,
        options: ListingOptions,
    ) -> Result<Listing<String>, QueryError> {
        self.note(format!("values of {name}{}", partial(options.partial)));
        Ok(listing(vec![name.to_owned()]))
    }

    async fn metadata(
        &self,
        _tenant: &TenantName,
        _query: MetadataQuery,
        _deadline: Instant,
    ) -> Result<Vec<MetricMetadata>, QueryError> {
        let entry = |metric: &str, kind, help: &str, unit: &str| MetricMetadata {
            metric: metric.to_owned(),
            kind,
            help: help.to_owned(),
            unit: unit.to_owned(),
        };
        Ok(vec![
            entry("a", MetricKind::Counter, "A.", "s"),
            entry("a", MetricKind::Gauge, "A2.", ""),
            entry("b", MetricKind::Unknown, "", ""),
        ])
    }

    async fn exemplars(
        &self,
        tenant: &TenantName,
        filter: SeriesFilter,
        _options: ListingOptions,
    ) -> Result<Listing<SeriesExemplars>, QueryError> {
        let asked = format!("{tenant} {} to {}", filter.start, filter.end);
        let series = filter.alternatives.iter().map(|matchers| SeriesExemplars {
            labels: Labels::from_pairs(matchers.iter().map(|m| (m.name(), m.value()))),
            exemplars: vec![Exemplar {
                labels: Labels::from_pairs([("asked", asked.as_str())]),
                value: 0.25,
                time: 1_500,
            }],
        });
        Ok(Listing {
            items: series.collect(),
            warnings: Vec::new(),
        })
    }

    /// Three series: two of `up` with a job each, one of `down`. With a selector, one less of `up`.
    async fn count_series(
        &self,
        _tenant: &TenantName,
        query: CountQuery,
    ) -> Result<SeriesCounts, QueryError> {
        let exact = if query.is_exact { " exact" } else { "" };
        let (alternatives, names) = (query.alternatives.len(), query.names.join(","));
        let (start, end) = (query.start, query.end);
        self.note(format!(
            "count {alternatives} [{names}] from {start} to {end}{exact}"
        ));
        let up = if query.alternatives.is_empty() { 2 } else { 1 };
        let count = |pairs: &[(&str, u64)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(value, count)| ((*value).to_owned(), *count))
                .collect()
        };
        let labels = [
            ("__name__", count(&[("down", 1), ("up", up)])),
            ("job", count(&[("a", 1), ("b", 1), ("cc", 1)])),
        ];
        let wanted = |name: &str| query.names.is_empty() || query.names.iter().any(|n| n == name);
        let labels = labels.into_iter().filter(|(name, _)| wanted(name));
        Ok(SeriesCounts {
            series: up + 1,
            labels: labels
                .map(|(name, counts)| (name.to_owned(), counts))
                .collect(),
        })
    }

    fn limits(&self, tenant: &TenantName) -> Arc<TenantLimits> {
        let set = match tenant.as_str() {
            "limited" => Some(LIMITS),
            "hurried" => Some(r#"{"request_rate": 0.5}"#),
            _ => None,
        };
        let set: LimitValues = serde_json::from_str(set.unwrap_or("{}")).unwrap();
        Arc::new(TenantLimits::resolve([&set]).unwrap())
    }

    /// As if the tenant had used its rate up.
    fn admit_request(&self, _tenant: &TenantName, limits: &TenantLimits) -> Result<(), ApiError> {
        Err(ApiError::TooManyRequests {
            message: limit_refusals::too_many_requests(limits),
            retry_after: Duration::from_secs(3),
        })
    }

    async fn limits_set(&self, tenant: Option<&TenantName>) -> Result<admin::Limits, ApiError> {
        Ok(admin::Limits {
            tenant: tenant.map(|tenant| tenant.as_str().to_owned()),
            ..admin::Limits::default()
        })
    }

    async fn set_limits(
        &self,
        tenant: Option<&TenantName>,
        values: LimitValues,
        _expected: Option<LimitValues>,
    ) -> Result<admin::Accepted, ApiError> {
        TenantLimits::resolve([&values]).map_err(ApiError::BadData)?;
        Ok(admin::Accepted {
            message: format!("{tenant:?} has {}", values.len()),
        })
    }

    fn config_text(&self) -> String {
        "global: {}\nshards: 8\n".to_owned()
    }

    fn node_info(&self) -> NodeInfo {
        NodeInfo {
            name: "n1".to_owned(),
            started: 1_000,
            retention_hours: Some(360),
            query_samples_max: 50_000_000,
            features: vec!["promql-binop-fill-modifiers".to_owned()],
            eval: EvalOptions::default(),
            admin_api: true,
        }
    }

    fn build_info(&self) -> BuildInfo {
        BuildInfo {
            version: "0.1.0".to_owned(),
            ..BuildInfo::default()
        }
    }

    fn readiness(&self) -> Result<(), String> {
        match self.mood {
            Mood::NotReady => Err("3 replicas are filling".to_owned()),
            _ => Ok(()),
        }
    }

    fn metrics_text(&self) -> String {
        "# TYPE fake_up gauge\nfake_up 1\n# EOF\n".to_owned()
    }

    async fn cluster(&self) -> Result<admin::Cluster, ApiError> {
        Ok(admin::Cluster {
            term: 7,
            ..admin::Cluster::default()
        })
    }

    async fn digests(&self, request: admin::DigestsRequest) -> Result<admin::Digests, ApiError> {
        assert_eq!((request.start, request.end), (Some(1000), Some(2000)));
        Ok(admin::Digests {
            equal: true,
            ..admin::Digests::default()
        })
    }

    async fn movements(&self) -> Result<admin::Movements, ApiError> {
        Ok(admin::Movements {
            waiting: Vec::new(),
            pace_bytes_per_second: 5,
            movements: vec![],
        })
    }

    async fn set_retention(
        &self,
        wanted: admin::RetentionRequest,
    ) -> Result<admin::Accepted, ApiError> {
        Ok(admin::Accepted {
            message: format!("{wanted:?}"),
        })
    }

    async fn retention(&self) -> Result<admin::Retention, ApiError> {
        Ok(admin::Retention {
            hours: Some(360),
            tenants: Vec::new(),
        })
    }

    async fn delete_series(
        &self,
        tenant: &TenantName,
        deletion: SeriesDeletion,
    ) -> Result<(), ApiError> {
        let SeriesDeletion { selectors, range } = deletion;
        self.note(format!(
            "{tenant} deletes {selectors:?} from {} to {}",
            range.start, range.end
        ));
        Ok(())
    }

    async fn clean_tombstones(&self) -> Result<(), ApiError> {
        self.note("blocks are rewritten".to_owned());
        Ok(())
    }

    async fn snapshot(&self, skip_head: bool) -> Result<Snapshot, ApiError> {
        let warnings = match skip_head {
            true => vec!["n2 has no part of it".to_owned()],
            false => Vec::new(),
        };
        Ok(Snapshot {
            name: "20261122T051500Z-0123456789abcdef".to_owned(),
            warnings,
        })
    }

    async fn value(&self, key: &str) -> Result<admin::KeyValue, ApiError> {
        Ok(admin::KeyValue {
            key: key.to_owned(),
            version: 7,
            value: Some("v".to_owned()),
        })
    }

    async fn put_value(&self, put: admin::PutValue) -> Result<admin::WrittenValue, ApiError> {
        match put.expected_version {
            None | Some(7) => Ok(admin::WrittenValue { version: 8 }),
            Some(_) => Err(ApiError::PreconditionFailed("it has version 7".to_owned())),
        }
    }

    async fn prepare_stop(&self, wait: Duration) -> Result<admin::Accepted, ApiError> {
        Ok(admin::Accepted {
            message: format!("waited {} s", wait.as_secs()),
        })
    }

    async fn undrain(&self, node: &str) -> Result<admin::Accepted, ApiError> {
        Ok(admin::Accepted {
            message: format!("{node} takes replicas again"),
        })
    }

    async fn drain(&self, node: &str) -> Result<admin::Accepted, ApiError> {
        Ok(admin::Accepted {
            message: format!("{node} is draining"),
        })
    }

    async fn remove(&self, node: &str) -> Result<admin::Accepted, ApiError> {
        Err(ApiError::NotFound(format!("there is no node {node}")))
    }
}
