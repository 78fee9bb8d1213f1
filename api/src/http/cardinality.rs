//! Mimir's cardinality API: how many values a label has, and how many series each of them. The numbers are over the
//! whole cluster, and every series counts once, however many replicas it has.
//!
//! | `count_method` | which series count |
//! |---|---|
//! | `inmemory` (default) | those of the storage windows of the last two hours |
//! | `active` | those with a sample in the last twenty minutes |

use super::{
    Shared,
    facts::{HEAD_SPAN, count, largest_first},
    prometheus::serve,
};
use crate::{ApiError, CountQuery, SelectQuery, SeriesCounts, http::parameters::Parameters, json};
use axum::{
    extract::{Request, State},
    response::Response,
};
use futures::StreamExt;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Instant};
use trefoil_model::Millis;
use trefoil_query_promql::{Matcher, QueryError, parse_selector};

/// Entries of a list, unless `limit` says more.
const LIMIT_DEFAULT: usize = 20;
/// The most that `limit` can say (`cardinality_analysis_max_results`).
const LIMIT_MAX: usize = 500;
/// Labels that one question may name (`label_values_max_cardinality_label_names_per_request`).
const NAMES_MAX: usize = 100;
/// A series without samples for so long is not active, as in Mimir.
const ACTIVE_SPAN: Millis = 20 * 60 * 1000;
/// Bytes of labels of an answer (`active_series_results_max_size_bytes`).
const ACTIVE_BYTES_MAX: usize = 400 << 20;

/// `GET|POST cardinality/label_names`.
pub(super) async fn label_names(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let limit = limit(&parameters)?;
        let query = question(&parameters, app.backend.now(), deadline)?;
        let counts = count(&app, &tenant, query).await?;
        let names = counts.labels.iter();
        let names = names.map(|(name, values)| (name.clone(), values.len() as u64));
        let names = largest_first(names.collect());
        let total: u64 = names.iter().map(|(_, values)| values).sum();
        let listed = names
            .iter()
            .take(limit)
            .map(|(name, values)| json!({"label_name": name, "label_values_count": values}));
        Ok(json::plain_answer(&json!({
            "label_values_count_total": total,
            "label_names_count": names.len(),
            "cardinality": listed.collect::<Vec<_>>(),
        })))
    })
    .await
}

/// `GET|POST cardinality/label_values`.
pub(super) async fn label_values(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let limit = limit(&parameters)?;
        let names = wanted_names(&parameters)?;
        let mut query = question(&parameters, app.backend.now(), deadline)?;
        query.names = names.clone();
        let counts = count(&app, &tenant, query.clone()).await?;
        let total = match query.alternatives.is_empty() {
            true => counts.series,
            false => {
                query.alternatives.clear();
                count(&app, &tenant, query).await?.series
            }
        };
        Ok(json::plain_answer(&json!({
            "series_count_total": total,
            "labels": labels(&names, &counts, limit),
        })))
    })
    .await
}

/// `GET|POST cardinality/active_series`.
pub(super) async fn active_series(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let query = active(&parameters, app.backend.now(), deadline)?;
        let mut pages = app.backend.select(&tenant, query).await?;
        let (mut series, mut bytes) = (Vec::new(), 0);
        while let Some(page) = pages.next().await {
            for one in page? {
                bytes += one.labels.canonical().len();
                series.push(one.labels);
            }
            if bytes > ACTIVE_BYTES_MAX {
                return Err(QueryError::Execution(format!(
                    "the active series have more than {ACTIVE_BYTES_MAX} bytes of labels; use a narrower selector"
                ))
                .into());
            }
        }
        Ok(json::plain_series_answer(series))
    })
    .await
}

/// `GET|POST cardinality/active_native_histogram_metrics`: how many buckets the newest native histograms of metrics have.
pub(super) async fn active_histograms(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let query = active(&parameters, app.backend.now(), deadline)?;
        let mut pages = app.backend.select(&tenant, query).await?;
        let mut buckets_by_metric: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        while let Some(page) = pages.next().await {
            for series in page? {
                let newest = series.values.len().checked_sub(1);
                let Some(newest) = newest.and_then(|at| series.histograms.at(at)) else {
                    continue;
                };
                let sides = [&newest.positive, &newest.negative];
                let buckets = sides.iter().map(|side| side.counts().len()).sum();
                let metric = series.labels.metric_name().unwrap_or_default();
                buckets_by_metric
                    .entry(metric.to_owned())
                    .or_default()
                    .push(buckets);
            }
        }
        let metrics = buckets_by_metric.iter().map(|(metric, buckets)| {
            let all: usize = buckets.iter().sum();
            json!({
                "metric": metric,
                "series_count": buckets.len(),
                "bucket_count": all,
                "avg_bucket_count": all as f64 / buckets.len() as f64,
                "min_bucket_count": buckets.iter().min(),
                "max_bucket_count": buckets.iter().max(),
            })
        });
        let metrics: Vec<Value> = metrics.collect();
        Ok(json::plain_answer(&json!({"data": metrics})))
    })
    .await
}

/// The question for the newest samples of active series.
fn active(
    parameters: &Parameters,
    now: Millis,
    deadline: Instant,
) -> Result<SelectQuery, ApiError> {
    let Some(selector) = selector(parameters)? else {
        return Err(ApiError::BadData("missing 'selector' parameter".to_owned()));
    };
    Ok(SelectQuery {
        alternatives: vec![selector],
        start: now - ACTIVE_SPAN,
        end: now,
        newest_only: true,
        deadline,
        accepts_loss: parameters.partial()?,
        // It is asked to find what is too much.
        is_limited: false,
    })
}

fn labels(names: &[String], counts: &SeriesCounts, limit: usize) -> Vec<Value> {
    let none = BTreeMap::new();
    let mut labels: Vec<(u64, &String, Value)> = names
        .iter()
        .map(|name| {
            let values = counts.labels.get(name).unwrap_or(&none);
            let series: u64 = values.values().sum();
            let all = values.iter().map(|(value, count)| (value.clone(), *count));
            let listed = largest_first(all.collect()).into_iter().take(limit);
            let listed =
                listed.map(|(value, count)| json!({"label_value": value, "series_count": count}));
            let label = json!({
                "label_name": name,
                "label_values_count": values.len(),
                "series_count": series,
                "cardinality": listed.collect::<Vec<_>>(),
            });
            (series, name, label)
        })
        .collect();
    labels.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    labels.into_iter().map(|(_, _, label)| label).collect()
}

fn wanted_names(parameters: &Parameters) -> Result<Vec<String>, ApiError> {
    let mut names: Vec<String> = parameters.all("label_names[]").map(str::to_owned).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        let text = "'label_names[]' param is required";
        return Err(ApiError::BadData(text.to_owned()));
    }
    if names.len() > NAMES_MAX {
        return Err(ApiError::BadData(format!(
            "label values cardinality request label names limit (limit: {NAMES_MAX} actual: {}) exceeded",
            names.len()
        )));
    }
    if let Some(empty) = names.iter().find(|name| name.is_empty()) {
        return Err(ApiError::BadData(format!(
            "invalid 'label_names' param '{empty}'"
        )));
    }
    Ok(names)
}

fn question(
    parameters: &Parameters,
    now: Millis,
    deadline: Instant,
) -> Result<CountQuery, ApiError> {
    let is_exact = match parameters.get("count_method") {
        None | Some("inmemory") => false,
        Some("active") => true,
        Some(other) => {
            return Err(ApiError::BadData(format!(
                "invalid 'count_method' param '{other}'. valid options are: [inmemory,active]"
            )));
        }
    };
    let span = if is_exact { ACTIVE_SPAN } else { HEAD_SPAN };
    Ok(CountQuery {
        alternatives: selector(parameters)?.into_iter().collect(),
        start: now - span,
        end: now,
        names: Vec::new(),
        is_exact,
        deadline,
        accepts_loss: parameters.partial()?,
    })
}

fn selector(parameters: &Parameters) -> Result<Option<Vec<Matcher>>, ApiError> {
    let wrong = |error: QueryError| ApiError::BadData(format!("failed to parse selector: {error}"));
    let selector = parameters.get("selector").map(parse_selector);
    selector.transpose().map_err(wrong)
}

fn limit(parameters: &Parameters) -> Result<usize, ApiError> {
    let Some(text) = parameters.get("limit") else {
        return Ok(LIMIT_DEFAULT);
    };
    match text.parse::<i64>() {
        Err(_) => Err(ApiError::BadData(format!("invalid 'limit' param '{text}'"))),
        Ok(limit) if limit < 0 => Err(ApiError::BadData(
            "'limit' param cannot be less than '0'.".to_owned(),
        )),
        Ok(limit) => match usize::try_from(limit) {
            Ok(limit) if limit <= LIMIT_MAX => Ok(limit),
            _ => Err(ApiError::BadData(format!(
                "'limit' param cannot be greater than '{LIMIT_MAX}'."
            ))),
        },
    }
}
