//! Prometheus' `status/...`: what the node runs with and what a tenant has, as far as Trefoil has what is asked for.

use super::{App, Shared, language::data, prometheus::serve};
use crate::{
    ApiError, CountQuery, SeriesCounts, http::parameters::Parameters, number::format_rfc3339,
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use trefoil_model::{LABEL_NAME_METRIC, Millis};
use trefoil_query_promql::{EvalOptions, format_duration};

/// Entries of the lists of `status/tsdb`, unless `limit` says more.
const TOP_DEFAULT: usize = 10;
/// The most that `limit` can say; Prometheus' bound.
const TOP_MAX: usize = 10_000;
/// What counts as present in `status/tsdb`: as much as a Prometheus has in its head.
pub(super) const HEAD_SPAN: Millis = 2 * 60 * 60 * 1000;

/// `GET status/config`: the settings of this node, in Prometheus' envelope. Nothing is scraped and there are no external
/// labels, which is what clients look for in it.
pub(super) async fn config(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, _, _| {
        Ok(data(&json!({"yaml": app.backend.config_text()})))
    })
    .await
}

/// `GET status/flags`: settings of this node by the names of Prometheus' flags.
pub(super) async fn flags(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, _, _| {
        let (limits, info) = (&app.limits, app.backend.node_info());
        let look_back = EvalOptions::default().look_back_ms;
        Ok(data(&json!({
            "query.lookback-delta": format_duration(look_back),
            "query.max-concurrency": limits.queries_at_once_max.to_string(),
            "query.max-samples": info.query_samples_max.to_string(),
            "query.timeout": format_duration(limits.query_timeout.as_millis() as Millis),
            "storage.tsdb.retention.time": retention(info.retention_hours),
            "enable-feature": info.features.join(","),
            "web.enable-admin-api": info.admin_api.to_string(),
            "web.enable-remote-write-receiver": "true",
        })))
    })
    .await
}

/// `GET status/runtimeinfo`. What belongs to Go's runtime is absent.
pub(super) async fn runtime_info(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, _, _| {
        let info = app.backend.node_info();
        let threads = std::thread::available_parallelism().map_or(0, usize::from);
        Ok(data(&json!({
            "startTime": format_rfc3339(info.started),
            "CWD": "",
            "hostname": info.name,
            "serverTime": format_rfc3339(app.backend.now()),
            "reloadConfigSuccess": true,
            "lastConfigTime": format_rfc3339(info.started),
            "corruptionCount": 0,
            "goroutineCount": 0,
            "GOMAXPROCS": threads,
            "GOMEMLIMIT": 0,
            "GOGC": "",
            "GODEBUG": "",
            "storageRetention": retention(info.retention_hours),
        })))
    })
    .await
}

/// `GET status/walreplay`: a node answers behind its replay only.
pub(super) async fn replay(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, _, _| {
        Ok(data(
            &json!({"min": 0, "max": 0, "current": 0, "state": "done"}),
        ))
    })
    .await
}

/// `GET status/tsdb`: what the tenant's series of the last two hours are made of, over the whole cluster, each series
/// counted once.
pub(super) async fn tsdb(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let limit = top_limit(&parameters)?;
        let query = CountQuery {
            alternatives: Vec::new(),
            start: app.backend.now() - HEAD_SPAN,
            end: app.backend.now(),
            names: Vec::new(),
            is_exact: false,
            deadline,
            accepts_loss: parameters.partial()?,
        };
        let counts = app.backend.count_series(&tenant, query.clone()).await?;
        Ok(data(&tsdb_status(&counts, (query.start, query.end), limit)))
    })
    .await
}

fn top_limit(parameters: &Parameters) -> Result<usize, ApiError> {
    let Some(text) = parameters.get("limit") else {
        return Ok(TOP_DEFAULT);
    };
    match text.parse() {
        Ok(limit) if (1..=TOP_MAX).contains(&limit) => Ok(limit),
        Ok(_) => Err(ApiError::BadData(format!(
            "limit must be between 1 and {TOP_MAX}"
        ))),
        Err(_) => Err(ApiError::BadData("limit must be a positive number".into())),
    }
}

fn tsdb_status(counts: &SeriesCounts, (start, end): (Millis, Millis), limit: usize) -> Value {
    let top = |entries: Vec<(String, u64)>| {
        let entries = largest_first(entries).into_iter().take(limit);
        let entries = entries.map(|(name, value)| json!({"name": name, "value": value}));
        entries.collect::<Vec<_>>()
    };
    let each = |count: fn(&BTreeMap<String, u64>) -> u64| {
        let names = counts.labels.iter();
        names
            .map(|(name, values)| (name.clone(), count(values)))
            .collect()
    };
    let no_values = BTreeMap::new();
    let metrics = counts.labels.get(LABEL_NAME_METRIC).unwrap_or(&no_values);
    let metrics = metrics.iter().map(|(name, count)| (name.clone(), *count));
    let pairs = counts.labels.iter().flat_map(|(name, values)| {
        let values = values.iter();
        values.map(move |(value, count)| (format!("{name}={value}"), *count))
    });
    let bytes = |values: &BTreeMap<String, u64>| values.keys().map(|v| v.len() as u64).sum::<u64>();
    let values = |values: &BTreeMap<String, u64>| values.len() as u64;
    let pair_count: usize = counts.labels.values().map(BTreeMap::len).sum();
    json!({
        "headStats": {
            "numSeries": counts.series,
            "numLabelPairs": pair_count,
            "chunkCount": counts.series,
            "minTime": start,
            "maxTime": end,
        },
        "seriesCountByMetricName": top(metrics.collect()),
        "labelValueCountByLabelName": top(each(values)),
        "memoryInBytesByLabelName": top(each(bytes)),
        "seriesCountByLabelValuePair": top(pairs.collect()),
    })
}

/// Entries by descending number, equal ones by name.
pub(super) fn largest_first(mut entries: Vec<(String, u64)>) -> Vec<(String, u64)> {
    entries.sort_by(|(a, count_a), (b, count_b)| count_b.cmp(count_a).then_with(|| a.cmp(b)));
    entries
}

fn retention(hours: Option<u64>) -> String {
    match hours {
        None | Some(0) => "0s".to_owned(),
        Some(hours) => format_duration(hours as Millis * 60 * 60 * 1000),
    }
}

/// The turn of a whole question is taken by [`serve`]; this only asks.
pub(super) async fn count(
    app: &App,
    tenant: &crate::TenantName,
    query: CountQuery,
) -> Result<SeriesCounts, ApiError> {
    Ok(app.backend.count_series(tenant, query).await?)
}
