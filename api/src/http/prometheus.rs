//! Prometheus' query API. Source: `docs/querying/api.md` of Prometheus 3.

use super::{
    App, Shared,
    answer::{error_answer, json_answer, takes_gzip},
    limited::{self, Limited},
    parameters::Parameters,
    stats::{Asked, Stats},
    tenant,
};
use crate::{
    ApiError, InstantQuery, MetadataQuery, MetricMetadata, RangeQuery, TenantName,
    json::{self, Pieces},
    number::parse_duration,
};
use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use std::{future::Future, iter, time::Instant};
use trefoil_query_promql::{Grid, Listing, QueryData, QueryError, QueryResult};

/// What Prometheus says when `limit` cut an answer.
const CUT: &str = "results truncated due to limit";

/// `GET|POST query`.
pub(super) async fn query(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let limit = parameters.limit("limit")?;
        let query = InstantQuery {
            query: parameters.get("query").unwrap_or("").to_owned(),
            time: parameters
                .time("time")?
                .unwrap_or_else(|| app.backend.now()),
            look_back: parameters.look_back()?,
            source_resolution_max_ms: parameters.source_resolution_max_ms()?,
            deadline,
            partial: parameters.partial()?,
            anew: parameters.anew(),
            limit,
            counts_samples: false,
        };
        let times = iter::once(query.time);
        let stats = Stats::begin(&parameters, &app, deadline, times)?;
        let limits = app.backend.limits(&tenant);
        let (result, asked) = match limited::instant(&limits, query, app.backend.now())? {
            Limited::Ask(query) => {
                let asked = stats.is_some().then(|| Asked::Instant(query.clone()));
                (app.backend.query_instant(&tenant, query).await, asked)
            }
            Limited::Nothing => (Ok(limited::empty_vector()), None),
        };
        let result = result.map_err(wrong_query)?;
        Ok(answer((&app, &tenant), result, (stats, asked), limit).await)
    })
    .await
}

/// The answer with its statistics, if they are asked for.
async fn answer(
    (app, tenant): (&App, &TenantName),
    mut result: QueryResult,
    (stats, asked): (Option<Stats>, Option<Asked>),
    limit: usize,
) -> Pieces {
    let stats = match stats {
        Some(stats) => Some(stats.end(app, tenant, asked, &mut result).await),
        None => None,
    };
    json::query_answer(cut(result, limit), stats.as_ref())
}

/// `GET|POST query_range`.
pub(super) async fn query_range(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let limit = parameters.limit("limit")?;
        let (start, end) = (
            parameters.required_time("start")?,
            parameters.required_time("end")?,
        );
        // Prometheus looks at the order of the times before it reads the step.
        Grid::range(start, end, 1)?;
        let step = parse_duration("step", parameters.get("step").unwrap_or(""))?;
        Grid::range(start, end, step)?.check_resolution()?;
        let query = RangeQuery {
            query: parameters.get("query").unwrap_or("").to_owned(),
            start,
            end,
            step,
            look_back: parameters.look_back()?,
            source_resolution_max_ms: parameters.source_resolution_max_ms()?,
            deadline,
            partial: parameters.partial()?,
            anew: parameters.anew(),
            limit,
            counts_samples: false,
        };
        let times = (start..=end).step_by(step as usize);
        let stats = Stats::begin(&parameters, &app, deadline, times)?;
        let limits = app.backend.limits(&tenant);
        let (result, asked) = match limited::range(&limits, query, app.backend.now())? {
            Limited::Ask(query) => {
                let asked = stats.is_some().then(|| Asked::Range(query.clone()));
                (app.backend.query_range(&tenant, query).await, asked)
            }
            Limited::Nothing => (Ok(limited::empty_matrix()), None),
        };
        let result = result.map_err(wrong_query)?;
        Ok(answer((&app, &tenant), result, (stats, asked), limit).await)
    })
    .await
}

/// `GET|POST series`.
pub(super) async fn series(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        if parameters.all("match[]").next().is_none() {
            return Err(ApiError::BadData(
                "no match[] parameter provided".to_owned(),
            ));
        }
        let filter = parameters.series_filter(true)?;
        let mut limit = parameters.limit("limit")?;
        let options = parameters.listing_options(deadline)?;
        let limits = app.backend.limits(&tenant);
        let listing = match limited::listing(&limits, filter, app.backend.now()) {
            Limited::Ask(mut filter) => {
                if limits.max_series_query_limit > 0 {
                    let most = limits.max_series_query_limit;
                    limit = if limit == 0 { most } else { limit.min(most) };
                    // One more shows whether there are more.
                    filter.limit = limit.saturating_add(1);
                }
                app.backend.series(&tenant, filter, options).await?
            }
            Limited::Nothing => nothing(),
        };
        let listing = cut_listing(listing, limit);
        Ok(json::series_answer(listing.items, &listing.warnings))
    })
    .await
}

/// `GET|POST labels`.
pub(super) async fn labels(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let (filter, limit) = (parameters.series_filter(false)?, parameters.limit("limit")?);
        let options = parameters.listing_options(deadline)?;
        let limits = app.backend.limits(&tenant);
        let listing = match limited::listing(&limits, filter, app.backend.now()) {
            Limited::Ask(filter) => app.backend.label_names(&tenant, filter, options).await?,
            Limited::Nothing => nothing(),
        };
        let listing = cut_listing(listing, limit);
        Ok(json::texts_answer(listing.items, &listing.warnings))
    })
    .await
}

/// `GET label/<name>/values`.
pub(super) async fn label_values(
    State(app): Shared,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        // A name that is not UTF-8 is rejected before this.
        let name = name.map_or_else(|_| String::new(), |Path(name)| unescape_name(&name));
        if name.is_empty() {
            return Err(ApiError::BadData(format!("invalid label name: {name:?}")));
        }
        let (filter, limit) = (parameters.series_filter(false)?, parameters.limit("limit")?);
        let options = parameters.listing_options(deadline)?;
        let limits = app.backend.limits(&tenant);
        let listing = match limited::listing(&limits, filter, app.backend.now()) {
            Limited::Ask(filter) => {
                let backend = &app.backend;
                backend
                    .label_values(&tenant, &name, filter, options)
                    .await?
            }
            Limited::Nothing => nothing(),
        };
        let listing = cut_listing(listing, limit);
        Ok(json::texts_answer(listing.items, &listing.warnings))
    })
    .await
}

/// `GET metadata`.
pub(super) async fn metadata(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        // Without a limit, or with a negative one, everything is wanted; here 0 means none.
        let limit = |name| match parameters.get(name) {
            None => Ok(None),
            Some(text) => match text.parse::<i64>() {
                Ok(number) => Ok(usize::try_from(number).ok()),
                Err(_) => Err(ApiError::BadData(format!("{name} must be a number"))),
            },
        };
        let query = MetadataQuery {
            metric: parameters.get("metric").map(str::to_owned),
            limit: limit("limit")?,
            limit_per_metric: limit("limit_per_metric")?.filter(|limit| *limit > 0),
        };
        let entries = app
            .backend
            .metadata(&tenant, query.clone(), deadline)
            .await?;
        Ok(json::data_answer(&metadata_json(&entries, &query)))
    })
    .await
}

/// What all of these have in common: tenant, parameters, deadline, a turn in the queue, the answer.
pub(super) async fn serve<F>(
    app: &App,
    request: Request,
    handle: impl FnOnce(TenantName, Parameters, Instant) -> F,
) -> Response
where
    F: Future<Output = Result<Pieces, ApiError>>,
{
    let gzip = takes_gzip(request.headers());
    let outcome = async {
        let tenant = tenant(request.headers())?;
        let parameters = Parameters::of(request, app).await?;
        let deadline = parameters.deadline(app.limits.query_timeout)?;
        let _turn = app.query_turn(deadline).await?;
        let handled = handle(tenant, parameters, deadline);
        match tokio::time::timeout_at(deadline.into(), handled).await {
            Ok(outcome) => outcome,
            Err(_) => Err(QueryError::Timeout.into()),
        }
    };
    match outcome.await {
        Ok(pieces) => json_answer(pieces, gzip),
        Err(error) => error_answer(&error),
    }
}

/// The engine knows mistakes of the text, the API which parameter it came in.
fn wrong_query(error: QueryError) -> ApiError {
    match error {
        QueryError::BadData(reason) if !reason.starts_with("invalid parameter") => {
            ApiError::parameter("query", reason)
        }
        error => error.into(),
    }
}

fn cut(mut result: QueryResult, limit: usize) -> QueryResult {
    let length = match &result.data {
        QueryData::Vector(samples) => samples.len(),
        QueryData::Matrix(series) => series.len(),
        QueryData::Scalar(_) | QueryData::String { .. } => 0,
    };
    if limit == 0 || length <= limit {
        return result;
    }
    match &mut result.data {
        QueryData::Vector(samples) => samples.truncate(limit),
        QueryData::Matrix(series) => series.truncate(limit),
        QueryData::Scalar(_) | QueryData::String { .. } => {}
    }
    result.warnings.push(CUT.to_owned());
    result
}

fn nothing<T>() -> Listing<T> {
    Listing {
        items: Vec::new(),
        warnings: Vec::new(),
    }
}

fn cut_listing<T>(mut listing: Listing<T>, limit: usize) -> Listing<T> {
    if limit > 0 && listing.items.len() > limit {
        listing.items.truncate(limit);
        listing.warnings.push(CUT.to_owned());
    }
    listing
}

/// `{"metric":[{"type":...,"help":...,"unit":...},...],...}`.
fn metadata_json(entries: &[MetricMetadata], query: &MetadataQuery) -> Vec<u8> {
    let mut out = vec![b'{'];
    let families = entries.chunk_by(|a, b| a.metric == b.metric);
    for (index, family) in families.take(query.limit.unwrap_or(usize::MAX)).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_string(&mut out, &family[0].metric);
        out.extend_from_slice(b":[");
        let wanted = query.limit_per_metric.unwrap_or(usize::MAX);
        for (index, entry) in family.iter().take(wanted).enumerate() {
            out.extend_from_slice(if index > 0 {
                b",{\"type\":"
            } else {
                b"{\"type\":"
            });
            json::write_string(&mut out, entry.kind.as_str());
            out.extend_from_slice(b",\"help\":");
            json::write_string(&mut out, &entry.help);
            out.extend_from_slice(b",\"unit\":");
            json::write_string(&mut out, &entry.unit);
            out.push(b'}');
        }
        out.push(b']');
    }
    out.push(b'}');
    out
}

/// Undoes the escaping of UTF-8 names in addresses: `U__` in front, `_HEX_` for a character, `__` for
/// an underscore. Names that are not of this form stay as they are.
fn unescape_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else {
        return name.to_owned();
    };
    let mut out = String::new();
    let mut rest = escaped;
    while let Some((before, behind)) = rest.split_once('_') {
        out.push_str(before);
        let Some((code, after)) = behind.split_once('_') else {
            return name.to_owned();
        };
        if code.is_empty() {
            out.push('_');
        } else {
            match u32::from_str_radix(code, 16).ok().and_then(char::from_u32) {
                Some(c) => out.push(c),
                None => return name.to_owned(),
            }
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names() {
        let check = |name: &str, expected: &str| assert_eq!(unescape_name(name), expected);
        check("job", "job");
        check("U__my_2e_label", "my.label");
        check("U__a__b", "a_b");
        check("U___1F600_x", "\u{1F600}x");
        check("U__a_zz_", "U__a_zz_");
        check("U__a_2e", "U__a_2e");
    }
}
