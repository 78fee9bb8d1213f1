//! Prometheus remote write 1.0, the receiving end.
//!
//! | answer | when |
//! |---|---|
//! | 204 | a majority of owners has everything on disk |
//! | 400 | nothing could be read and nothing is stored; or some series were refused and **all others are stored** |
//! | 413, 415 | too large; another encoding or message; nothing is stored |
//! | 429, 503 | send the same again later; repeating what was stored is harmless |

use super::{
    App, Shared,
    answer::text_error,
    body::{self, HeldBytes},
    parameters::declared_length,
    tenant,
};
use crate::{
    ApiError,
    remote_write::{Decoder, Refusals, WriteRequest},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The node ends at the deadline by itself and says what is missing; this much later the API gives up.
const NODE_GRACE: Duration = Duration::from_millis(500);
/// Bodies above this are decoded on a thread of their own, so that they do not hold up other requests.
const DECODED_INLINE_BYTES_MAX: usize = 256 << 10;
/// Buffers kept for the next requests.
const DECODERS_KEPT_MAX: usize = 16;
/// Buffers that grew beyond this are given back to the system.
const DECODER_BYTES_MAX: usize = 32 << 20;

/// A decoder with the request that it fills.
type Buffers = Box<(Decoder, WriteRequest)>;

/// Buffers that wait for the next request.
#[derive(Default)]
pub(super) struct Decoders(Mutex<Vec<Buffers>>);

impl Decoders {
    fn take(&self) -> Buffers {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    fn give_back(&self, buffers: Buffers) {
        let bytes = buffers.0.capacity_bytes() + buffers.1.capacity_bytes();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= DECODER_BYTES_MAX && kept.len() < DECODERS_KEPT_MAX {
            kept.push(buffers);
        }
    }
}

/// `POST write`.
pub(super) async fn write(State(app): Shared, request: Request) -> Response {
    match handle(&app, request).await {
        Ok(()) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(error) => {
            tracing::debug!(%error, status = error.status(), "remote write refused");
            text_error(&error)
        }
    }
}

async fn handle(app: &Arc<App>, request: Request) -> Result<(), ApiError> {
    check_kind(request.headers())?;
    let tenant = tenant(request.headers())?;
    let deadline = Instant::now() + app.limits.write_timeout;
    let _turn = app
        .writes
        .try_acquire()
        .map_err(|_| ApiError::Unavailable {
            message: "too many write requests are in work".to_owned(),
            retry_after: Duration::from_secs(1),
        })?;
    let mut held = app.write_bytes.hold_none();
    let declared = declared_length(request.headers());
    let bytes_max = app.limits.write.compressed_bytes_max;
    let collected = body::collect(request.into_body(), declared, bytes_max, Some(&mut held));
    let body = match tokio::time::timeout_at(deadline.into(), collected).await {
        Ok(body) => body?,
        Err(_) => {
            // Not the sender's fault: it or the network may have been paused.
            return Err(ApiError::Unavailable {
                message: "the body did not arrive in time; send it again".to_owned(),
                retry_after: Duration::from_secs(1),
            });
        }
    };
    let buffers = decode(app, body, &mut held).await?;
    let stored = tokio::time::timeout_at(
        (deadline + NODE_GRACE).into(),
        app.backend.write(&tenant, &buffers.1, deadline),
    );
    let outcome = match stored.await {
        Ok(Ok(outcome)) => report(&buffers.1, &outcome.refusals),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ApiError::Unavailable {
            message: "not stored by a majority in time; send it again".to_owned(),
            retry_after: Duration::from_secs(1),
        }),
    };
    app.metrics.count_write(&buffers.1, &outcome);
    app.decoders.give_back(buffers);
    outcome
}

/// Decodes a body; the decompressed bytes are counted in `held` before they exist.
async fn decode(app: &Arc<App>, body: Bytes, held: &mut HeldBytes) -> Result<Buffers, ApiError> {
    let declared = snap::raw::decompress_len(&body).unwrap_or(0);
    if declared <= app.limits.write.decompressed_bytes_max {
        held.hold(body.len() + declared)?;
    }
    let mut buffers = app.decoders.take();
    let limits = app.limits.write;
    let run = move || {
        let (decoder, request) = &mut *buffers;
        let outcome = decoder.decode(&body, &limits, request);
        (buffers, outcome)
    };
    let (buffers, outcome) = if declared <= DECODED_INLINE_BYTES_MAX {
        run()
    } else {
        tokio::task::spawn_blocking(run)
            .await
            .map_err(|error| ApiError::Internal(format!("decode a write request: {error}")))?
    };
    match outcome {
        Ok(()) => Ok(buffers),
        Err(error) => {
            app.decoders.give_back(buffers);
            Err(error)
        }
    }
}

/// Refuses what is not remote write 1.0. Absent headers are taken for the right ones, as by Prometheus.
fn check_kind(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(encoding) = text(header::CONTENT_ENCODING)
        && encoding != "snappy"
    {
        return Err(ApiError::UnsupportedMediaType(format!(
            "Content-Encoding is {encoding:?}; only snappy is accepted"
        )));
    }
    let Some(content_type) = text(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let mut parts = content_type.split(';').map(str::trim);
    let is_protobuf = parts.next() == Some("application/x-protobuf");
    let proto = parts.find_map(|part| part.strip_prefix("proto="));
    if !is_protobuf || proto.is_some_and(|proto| proto != "prometheus.WriteRequest") {
        return Err(ApiError::UnsupportedMediaType(format!(
            "Content-Type is {content_type:?}; only application/x-protobuf with \
             prometheus.WriteRequest (remote write 1.0) is accepted"
        )));
    }
    Ok(())
}

/// Success, or one message about all refused series.
fn report(request: &WriteRequest, later: &Refusals) -> Result<(), ApiError> {
    let refused = request.refusals().series + later.series;
    if refused == 0 {
        return Ok(());
    }
    let total = request.series_count() as u64 + request.refusals().series;
    let reasons: Vec<&str> = [request.refusals(), later]
        .iter()
        .flat_map(|refusals| refusals.reasons.iter().map(String::as_str))
        .collect();
    Err(ApiError::PartlyRefused(format!(
        "{refused} of {total} series were refused, all others were stored: {}",
        reasons.join("; ")
    )))
}
