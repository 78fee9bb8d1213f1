//! InfluxDB's line protocol by `POST`.
//!
//! | answer | when |
//! |---|---|
//! | 204 | a majority of owners has everything on disk |
//! | 400 | lines were left out, which the message names, and **all others are stored** |
//! | 413, 415, 429, 503 | as for remote write |
//!
//! Errors are JSON in the forms of both InfluxDB 1 (`error`) and 2 (`code`, `message`).

use super::{
    App, Shared,
    answer::{influx_error, no_content},
    import::TEXT_FACTOR,
    ingest::{Coding, DECODED_INLINE_BYTES_MAX, Intake},
    parameters::Parameters,
};
use crate::{
    ApiError,
    exposition::ImportOptions,
    influx::{BadLines, Precision, import_lines},
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use std::sync::Arc;

/// `POST write` of InfluxDB 1 and 2.
pub(super) async fn write(State(app): Shared, request: Request) -> Response {
    match handle(&app, request).await {
        Ok(()) => no_content(),
        Err(error) => {
            tracing::debug!(%error, status = error.status(), "influx write refused");
            influx_error(&error)
        }
    }
}

/// `GET ping`, by which clients look whether there is a server.
pub(super) async fn ping() -> Response {
    no_content()
}

async fn handle(app: &Arc<App>, request: Request) -> Result<(), ApiError> {
    let (parts, body) = request.into_parts();
    let coding = Coding::of(&parts.headers)?;
    let parameters = Parameters::of_address(&parts.uri);
    let precision = match parameters.get("precision") {
        None => Precision::default(),
        Some(name) => Precision::from_name(name).ok_or_else(|| {
            let reason = format!("{name:?} is none of ns, us, ms, s, m, h");
            ApiError::parameter("precision", reason)
        })?,
    };
    let options = ImportOptions {
        time: app.backend.now(),
        extra_labels: parameters.extra_labels()?,
    };
    let mut intake = Intake::begin(app, &parts.headers)?;
    let body = intake.collect(&parts.headers, body).await?;
    let limits = intake.write_limits();
    let is_large = coding != Coding::Identity || body.len() > DECODED_INLINE_BYTES_MAX;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let decoded = intake.decode(is_large, move |buffers, held| {
        let text = coding.undo(&body, TEXT_FACTOR, &limits, &mut buffers.text, held)?;
        let bad = import_lines(text, precision, &options, &limits, &mut buffers.request)?;
        let text_bytes = text.len();
        held.hold(body.len() + text_bytes + buffers.request.capacity_bytes())?;
        // Nobody waits for it when the client has gone.
        sender.send(bad).ok();
        Ok(())
    });
    let buffers = decoded.await?;
    let bad = receiver.await.unwrap_or_default();
    let (written, stored) = intake.store_counted(&buffers.request).await;
    app.buffers.give_back(buffers);
    match stored {
        Ok(()) => partial(&bad, None),
        Err(ApiError::PartlyRefused(reason)) => partial(&bad, Some((&reason, written.refused))),
        Err(error) => Err(error),
    }
}

/// Success, or which lines and series were left out. Of lines that can be read, the fields that are refused are counted.
fn partial(bad: &BadLines, refused: Option<(&str, u64)>) -> Result<(), ApiError> {
    if bad.count == 0 && refused.is_none() {
        return Ok(());
    }
    let mut reasons: Vec<&str> = bad.reasons.iter().map(String::as_str).collect();
    reasons.extend(refused.map(|(reason, _)| reason));
    let dropped = bad.count + refused.map_or(0, |(_, samples)| samples);
    Err(ApiError::PartlyRefused(format!(
        "partial write: {} (all other lines were stored) dropped={dropped}",
        reasons.join("; ")
    )))
}
