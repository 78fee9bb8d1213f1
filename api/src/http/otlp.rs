//! OpenTelemetry's metrics over HTTP.
//!
//! | answer | when |
//! |---|---|
//! | 200 | a majority of owners has everything on disk but what `partial_success` names |
//! | 400, 413, 415 | it cannot be read, is too large, or of another kind; nothing is stored |
//! | 429, 503 | send the same again later; repeating what was stored is harmless |
//!
//! Bodies are protobuf or JSON, and the answer is of the same kind, an error as `google.rpc.Status`. There is no
//! 500: exporters drop what was answered so, and a fault here is no fault of the data.

use super::{
    App, Shared,
    answer::{respond, with_retry_after},
    ingest::{Coding, DECODED_INLINE_BYTES_MAX, Intake, Written},
};
use crate::{
    ApiError,
    otlp::{
        Encoding, Export, Imported, Rejections, export_response, import_metrics, status_body,
        transcode_json,
    },
    remote_write::{Declarations, WriteRequest},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// What is held for a byte of a body at first: the byte itself. What is made of it is counted while it is made.
const BODY_FACTOR: usize = 1;

/// `google.rpc.Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RpcCode {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
}

/// `POST v1/metrics`.
pub(super) async fn metrics(State(app): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let encoding = match encoding_of(&parts.headers) {
        Ok(encoding) => encoding,
        Err(error) => return refuse(Encoding::Protobuf, error),
    };
    match handle(&app, encoding, &parts.headers, body).await {
        Ok(rejections) => {
            let body = export_response(encoding, &rejections);
            respond(StatusCode::OK, encoding.content_type(), body.into(), false)
        }
        Err(error) => refuse(encoding, error),
    }
}

async fn handle(
    app: &Arc<App>,
    encoding: Encoding,
    headers: &HeaderMap,
    body: Body,
) -> Result<Rejections, ApiError> {
    let coding = Coding::of(headers)?;
    let mut intake = Intake::begin(app, headers)?;
    let body = intake.collect(headers, body).await?;
    export(app, intake, encoding, coding, body).await
}

/// Stores an `ExportMetricsServiceRequest`. What was left out of it.
///
/// # Errors
/// As decoder and node say; [`ApiError::PartlyRefused`] is not among them.
pub(super) async fn export(
    app: &Arc<App>,
    mut intake: Intake<'_>,
    encoding: Encoding,
    coding: Coding,
    body: Bytes,
) -> Result<Rejections, ApiError> {
    let limits = intake.write_limits();
    let options = Arc::clone(&app.otlp);
    let accepted = app.backend.accepted_times(intake.tenant());
    let is_large = coding != Coding::Identity || body.len() > DECODED_INLINE_BYTES_MAX;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let decoded = intake.decode(is_large, move |buffers, held| {
        let content = coding.undo(&body, BODY_FACTOR, &limits, &mut buffers.text, held)?;
        let mut known = body.len() + content.len();
        let message = match encoding {
            Encoding::Protobuf => content,
            Encoding::Json => {
                let out = &mut buffers.message;
                transcode_json(Export::Metrics, content, out, &mut |bytes| {
                    held.hold(known + bytes)
                })?;
                known += out.len();
                &*out
            }
        };
        let mut out = Imported {
            request: std::mem::take(&mut buffers.request),
            ..Imported::default()
        };
        let mut grow = |bytes| held.hold(known + bytes);
        let imported = import_metrics(message, &options, &limits, accepted, &mut out, &mut grow);
        let held = grow(out.capacity_bytes());
        buffers.request = out.request;
        let rejections = imported?;
        held?;
        if limits.type_and_unit_labels {
            // The rest is labelled behind every decoder.
            Declarations::of(&buffers.request).label(&mut out.deltas);
        }
        // Nobody waits for it when the client has gone.
        sender.send((rejections, out.deltas)).ok();
        Ok(())
    });
    let buffers = decoded.await?;
    let (mut rejections, deltas) = receiver.await.unwrap_or_default();
    let rest = &buffers.request;
    let stored = match rest.is_empty() && rest.refusals().is_empty() && !deltas.is_empty() {
        true => Ok(()),
        false => {
            let (written, outcome) = intake.store_counted(&buffers.request).await;
            rejections.include(&buffers.request, written, outcome)
        }
    };
    app.buffers.give_back(buffers);
    stored?;
    if !deltas.is_empty() || !deltas.refusals().is_empty() {
        let (written, outcome) = intake.accumulate_counted(&deltas).await;
        rejections.include(&deltas, written, outcome)?;
    }
    Ok(rejections)
}

impl Rejections {
    /// Adds what was refused of a request behind the decoder: of its points only the samples are known.
    fn include(
        &mut self,
        request: &WriteRequest,
        written: Written,
        outcome: Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        match outcome {
            Err(ApiError::PartlyRefused(reason)) => {
                let stored = written.samples + written.histograms;
                self.points += (request.sample_count() as u64).saturating_sub(stored);
                self.reasons.push(reason);
                Ok(())
            }
            outcome => outcome,
        }
    }
}

/// What `Content-Type` says.
fn encoding_of(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let value = headers.get(header::CONTENT_TYPE);
    let content_type = value.map_or("", |value| value.to_str().unwrap_or("?"));
    match content_type.split(';').next().map(str::trim) {
        Some("application/x-protobuf" | "application/protobuf") => Ok(Encoding::Protobuf),
        Some("application/json") => Ok(Encoding::Json),
        _ => Err(ApiError::UnsupportedMediaType(format!(
            "Content-Type is {content_type:?}; application/x-protobuf and application/json are accepted"
        ))),
    }
}

fn refuse(encoding: Encoding, error: ApiError) -> Response {
    let error = retryable(error);
    tracing::debug!(%error, status = error.status(), "OTLP refused");
    let body = status_body(encoding, RpcCode::of(&error) as u32, &error.to_string());
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let response = respond(status, encoding.content_type(), body.into(), false);
    with_retry_after(response, &error)
}

/// A fault of the program as something that a retry may cure.
pub(super) fn retryable(error: ApiError) -> ApiError {
    match error {
        ApiError::Internal(message) => ApiError::Unavailable {
            message,
            retry_after: Duration::from_secs(1),
        },
        error => error,
    }
}

impl RpcCode {
    /// The code by which an exporter decides whether it sends again: with [`RpcCode::Unavailable`] it does, which
    /// is why rate limits have it too.
    pub(super) fn of(error: &ApiError) -> Self {
        match error.status() {
            413 => Self::ResourceExhausted,
            415 => Self::Unimplemented,
            429 | 500.. => Self::Unavailable,
            _ => Self::InvalidArgument,
        }
    }
}

impl Encoding {
    fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}
