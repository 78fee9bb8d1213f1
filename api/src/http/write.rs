//! Prometheus remote write 1.0 and 2.0, the receiving end.
//!
//! | answer | when |
//! |---|---|
//! | 204 | a majority of owners has everything on disk |
//! | 400 | nothing could be read and nothing is stored; or some series were refused and **all others are stored** |
//! | 413, 415 | too large; another encoding or message; nothing is stored |
//! | 429, 503 | send the same again later; repeating what was stored is harmless |
//!
//! 2.0 is told by `proto=io.prometheus.write.v2.Request` in the `Content-Type`; its answers say in
//! headers how much was written.

use super::{
    App, Shared,
    answer::{accepted, no_content, text_error},
    ingest::{DECODED_INLINE_BYTES_MAX, Intake, Written},
};
use crate::ApiError;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use std::sync::Arc;

/// What was written, by the headers that remote write 2.0 demands.
const WRITTEN: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// The message in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// `prometheus.WriteRequest`.
    One,
    /// `io.prometheus.write.v2.Request`.
    Two,
}

/// `POST write`.
pub(super) async fn write(State(app): Shared, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let version = match Version::of(&parts.headers) {
        Ok(version) => version,
        Err(error) => return text_error(&error),
    };
    let (written, outcome) = match handle(&app, version, &parts.headers, body).await {
        Ok(stored) => stored,
        Err(error) => (Written::default(), Err(error)),
    };
    let mut response = match outcome {
        // As Mimir: a sender that does not count sees it, and does not try again.
        Ok(()) if written.is_dropped => accepted(),
        Ok(()) => no_content(),
        Err(error) => {
            tracing::debug!(%error, status = error.status(), "remote write refused");
            text_error(&error)
        }
    };
    if version == Version::Two {
        let counts = [written.samples, written.histograms, written.exemplars];
        for (name, count) in WRITTEN.into_iter().zip(counts) {
            response
                .headers_mut()
                .insert(name, HeaderValue::from(count));
        }
    }
    response
}

/// Stores a body. How much a majority holds, and what was refused.
async fn handle(
    app: &Arc<App>,
    version: Version,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Written, Result<(), ApiError>), ApiError> {
    let mut intake = Intake::begin(app, headers)?;
    let body = intake.collect(headers, body).await?;
    let limits = intake.write_limits();
    let declared = snap::raw::decompress_len(&body).unwrap_or(0);
    let decoded = intake.decode(declared > DECODED_INLINE_BYTES_MAX, move |buffers, held| {
        if declared <= limits.decompressed_bytes_max {
            held.hold(body.len() + declared)?;
        }
        let (decoder, out) = (&mut buffers.decoder, &mut buffers.request);
        let mut grow = |more| held.hold(body.len() + declared + more);
        match version {
            Version::One => decoder.decode_within(&body, &limits, out, &mut grow),
            Version::Two => decoder.decode_symbols(&body, &limits, out, &mut grow),
        }
    });
    let buffers = decoded.await?;
    let stored = intake.store_counted(&buffers.request).await;
    app.buffers.give_back(buffers);
    Ok(stored)
}

impl Version {
    /// What the headers say. Absent ones are taken for those of 1.0, as by Prometheus.
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if let Some(encoding) = text(header::CONTENT_ENCODING)
            && !encoding.is_empty()
            && !encoding.eq_ignore_ascii_case("snappy")
        {
            return Err(ApiError::UnsupportedMediaType(format!(
                "Content-Encoding is {encoding:?}; only snappy is accepted"
            )));
        }
        let Some(content_type) = text(header::CONTENT_TYPE) else {
            return Ok(Self::One);
        };
        let mut parts = content_type.split(';').map(str::trim);
        let is_protobuf = parts.next() == Some("application/x-protobuf");
        match parts.find_map(|part| part.strip_prefix("proto=")) {
            None | Some("prometheus.WriteRequest") if is_protobuf => Ok(Self::One),
            Some("io.prometheus.write.v2.Request") if is_protobuf => Ok(Self::Two),
            _ => Err(ApiError::UnsupportedMediaType(format!(
                "Content-Type is {content_type:?}; only application/x-protobuf with \
                 prometheus.WriteRequest (remote write 1.0) or io.prometheus.write.v2.Request (2.0) \
                 is accepted"
            ))),
        }
    }
}
