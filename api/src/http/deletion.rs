//! Deletion of series, as Prometheus' administration has it. Source: `docs/querying/api.md` of Prometheus 3.

use super::{Shared, answer::error_answer, parameters::Parameters, tenant};
use crate::{ApiError, SeriesDeletion};
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use trefoil_model::{Millis, TimeRange};
use trefoil_query_promql::parse_selector;

/// `POST|PUT admin/tsdb/delete_series?match[]=...&start=...&end=...`: 204. Both times are inclusive; without them all
/// times are meant.
pub(super) async fn delete_series(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let tenant = tenant(request.headers())?;
        let parameters = Parameters::of(request, &app).await?;
        app.backend
            .delete_series(&tenant, wanted(&parameters)?)
            .await
    };
    match outcome.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error_answer(&error),
    }
}

/// `POST|PUT admin/tsdb/clean_tombstones`: 204 when the blocks are rewritten.
pub(super) async fn clean_tombstones(State(app): Shared) -> Response {
    match app.backend.clean_tombstones().await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error_answer(&error),
    }
}

fn wanted(parameters: &Parameters) -> Result<SeriesDeletion, ApiError> {
    let mut selectors = Vec::new();
    for selector in parameters.all("match[]") {
        parse_selector(selector)
            .map_err(|error| ApiError::parameter("match[]", error.to_string()))?;
        selectors.push(selector.to_owned());
    }
    // One that selects everything is more likely a slip than a wish.
    parameters.selectors()?;
    if selectors.is_empty() {
        return Err(ApiError::BadData(
            "no match[] parameter provided".to_owned(),
        ));
    }
    let start = parameters.time("start")?.unwrap_or(Millis::MIN);
    let end = parameters.time("end")?.unwrap_or(Millis::MAX);
    if end < start {
        let reason = "end timestamp must not be before start time";
        return Err(ApiError::parameter("end", reason));
    }
    Ok(SeriesDeletion {
        selectors,
        range: TimeRange {
            start,
            end: end.saturating_add(1),
        },
    })
}
