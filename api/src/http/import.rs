//! Samples by `POST` in the formats of `/metrics` (text, OpenMetrics, protobuf) and as JSON lines.
//!
//! | answer | when |
//! |---|---|
//! | 204 | a majority of owners has everything on disk |
//! | 400 | the body is wrong at the line and column named, and nothing is stored; or some series were refused and **all others are stored** |
//! | 413, 415 | too large; another format or compression; nothing is stored |
//! | 429, 503 | send the same again later; with timestamps, repeating what was stored is harmless |

use super::{
    App, Shared,
    answer::{no_content, text_error},
    ingest::{Coding, DECODED_INLINE_BYTES_MAX, Intake},
    parameters::Parameters,
};
use crate::{
    ApiError,
    exposition::{Dialect, ImportOptions, import_protobuf, import_text},
    json_lines::import_json_lines,
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    response::Response,
};
use std::sync::Arc;

/// What is held for a byte of text at first: the text, and three times its size for what is made of it,
/// which is enough for usual lines. What was made is counted when it is there.
pub(super) const TEXT_FACTOR: usize = 4;

/// `POST import/prometheus`.
pub(super) async fn import(State(app): Shared, request: Request) -> Response {
    let format = Format::of(request.headers());
    answer(handle(&app, format, request).await)
}

/// `POST` and `PUT import`, JSON lines whatever the `Content-Type` says.
pub(super) async fn import_lines(State(app): Shared, request: Request) -> Response {
    answer(handle(&app, Ok(Format::JsonLines), request).await)
}

fn answer(outcome: Result<(), ApiError>) -> Response {
    match outcome {
        Ok(()) => no_content(),
        Err(error) => {
            tracing::debug!(%error, status = error.status(), "import refused");
            text_error(&error)
        }
    }
}

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text(Dialect),
    Protobuf,
    JsonLines,
}

async fn handle(
    app: &Arc<App>,
    format: Result<Format, ApiError>,
    request: Request,
) -> Result<(), ApiError> {
    let format = format?;
    let (parts, body) = request.into_parts();
    let coding = Coding::of(&parts.headers)?;
    let parameters = Parameters::of_address(&parts.uri);
    let options = ImportOptions {
        time: parameters
            .millis("timestamp")?
            .unwrap_or_else(|| app.backend.now()),
        extra_labels: parameters.extra_labels()?,
    };
    let mut intake = Intake::begin(app, &parts.headers)?;
    let body = intake.collect(&parts.headers, body).await?;
    let limits = intake.write_limits();
    let is_large = coding != Coding::Identity || body.len() > DECODED_INLINE_BYTES_MAX;
    let decoded = intake.decode(is_large, move |buffers, held| {
        let out = &mut buffers.request;
        let text = coding.undo(&body, TEXT_FACTOR, &limits, &mut buffers.text, held)?;
        match format {
            Format::Text(dialect) => import_text(text, dialect, &options, &limits, out),
            Format::Protobuf => import_protobuf(text, &options, &limits, out),
            Format::JsonLines => import_json_lines(text, &options, &limits, out),
        }?;
        let text_bytes = text.len();
        held.hold(body.len() + text_bytes + out.capacity_bytes())
    });
    let buffers = decoded.await.map_err(nothing_stored)?;
    let stored = intake.store(&buffers.request).await;
    app.buffers.give_back(buffers);
    stored
}

/// Says with a wrong line what became of the others.
pub(super) fn nothing_stored(error: ApiError) -> ApiError {
    match error {
        ApiError::BadLine { .. } | ApiError::CorruptProtobuf { .. } => {
            ApiError::BadData(format!("{error}; nothing of the request was stored"))
        }
        error => error,
    }
}

impl Format {
    /// What `Content-Type` says. What command-line clients send when nobody chose is taken for text.
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let value = headers.get(header::CONTENT_TYPE);
        let content_type = value.map_or("", |value| value.to_str().unwrap_or("?"));
        let mut parts = content_type.split(';').map(str::trim);
        let refuse = || {
            Err(ApiError::UnsupportedMediaType(format!(
                "Content-Type is {content_type:?}; text/plain, application/openmetrics-text and \
                 application/vnd.google.protobuf with proto=io.prometheus.client.MetricFamily and \
                 encoding=delimited are accepted"
            )))
        };
        match parts.next().unwrap_or("") {
            ""
            | "text/plain"
            | "application/x-www-form-urlencoded"
            | "application/octet-stream" => Ok(Self::Text(Dialect::Text)),
            "application/openmetrics-text" => Ok(Self::Text(Dialect::OpenMetrics)),
            "application/vnd.google.protobuf" => {
                let wanted = [
                    "proto=io.prometheus.client.MetricFamily",
                    "encoding=delimited",
                ];
                let is_other = |part: &str| {
                    let is_about = part.starts_with("proto=") || part.starts_with("encoding=");
                    is_about && !wanted.contains(&part)
                };
                match parts.any(is_other) {
                    true => refuse(),
                    false => Ok(Self::Protobuf),
                }
            }
            _ => refuse(),
        }
    }
}
