//! What Prometheus' API says about scraping, rules and alerts, of which there are none here: the answers of a Prometheus
//! with an empty configuration, so that its clients find what they look for.

use super::{Shared, language::data, prometheus::serve};
use crate::{ApiError, http::parameters::Parameters};
use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};

/// `GET targets`.
pub(super) async fn targets(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, parameters, _| {
        one_of(&parameters, "state", &["active", "dropped", "any"])?;
        Ok(data(&json!({
            "activeTargets": [],
            "droppedTargets": [],
            "droppedTargetCounts": {},
        })))
    })
    .await
}

/// `GET targets/metadata`.
pub(super) async fn target_metadata(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, parameters, _| {
        parameters.limit("limit")?;
        Ok(data(&json!([])))
    })
    .await
}

/// `GET scrape_pools`.
pub(super) async fn scrape_pools(State(app): Shared, request: Request) -> Response {
    nothing(&app, request, json!({"scrapePools": []})).await
}

/// `GET alertmanagers`.
pub(super) async fn alertmanagers(State(app): Shared, request: Request) -> Response {
    let data = json!({"activeAlertmanagers": [], "droppedAlertmanagers": []});
    nothing(&app, request, data).await
}

/// `GET rules`.
pub(super) async fn rules(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, parameters, _| {
        one_of(&parameters, "type", &["alert", "record"])?;
        parameters.selectors()?;
        Ok(data(&json!({"groups": []})))
    })
    .await
}

/// `GET alerts`.
pub(super) async fn alerts(State(app): Shared, request: Request) -> Response {
    nothing(&app, request, json!({"alerts": []})).await
}

/// `GET notifications`: remarks of Prometheus to its users.
pub(super) async fn notifications(State(app): Shared, request: Request) -> Response {
    nothing(&app, request, json!([])).await
}

async fn nothing(app: &super::App, request: Request, nothing: Value) -> Response {
    serve(app, request, async |_, _, _| Ok(data(&nothing))).await
}

/// A word of a list, or nothing.
fn one_of(parameters: &Parameters, name: &str, words: &[&str]) -> Result<(), ApiError> {
    match parameters.get(name).map(str::to_ascii_lowercase) {
        Some(word) if !words.contains(&word.as_str()) => {
            let reason = format!("not supported value {word:?}");
            Err(ApiError::parameter(name, reason))
        }
        _ => Ok(()),
    }
}
