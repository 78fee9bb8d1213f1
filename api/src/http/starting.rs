//! What a node answers before it can do anything: that it lives, and why it is not ready yet.
//!
//! Everything else is 503 with `Retry-After`, so that clients ask another node at once instead of
//! waiting for an answer that does not come.

use super::{
    HEALTHY_PATH, READY_PATH,
    answer::error_answer,
    status::{healthy, not_ready},
};
use crate::ApiError;
use axum::{Router, extract::State, response::Response, routing::get};
use std::{sync::Arc, time::Duration};

/// Says why the node is not ready yet, in words; asked for every answer.
pub type StartingReason = Arc<dyn Fn() -> String + Send + Sync>;

/// The routes of a node that is starting.
pub fn starting_router(reason: StartingReason) -> Router {
    Router::new()
        .route(HEALTHY_PATH, get(healthy))
        .route(READY_PATH, get(ready))
        .fallback(refuse)
        .with_state(reason)
}

async fn ready(State(reason): State<StartingReason>) -> Response {
    not_ready(&reason())
}

async fn refuse(State(reason): State<StartingReason>) -> Response {
    error_answer(&ApiError::Unavailable {
        message: format!("this node is starting: {}", reason()),
        retry_after: Duration::from_secs(1),
    })
}
