//! Turning results into responses: one body when it is small, pieces of bounded size when it is not,
//! compressed when the client takes gzip.

use crate::{
    ApiError,
    json::{self, Pieces},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use serde::Serialize;
use std::{convert::Infallible, io::Write};

/// A piece of a long body ends when it is longer than this.
const CHUNK_BYTES: usize = 64 << 10;
/// Shorter bodies are not worth compressing.
const COMPRESSED_FROM_BYTES: usize = 1 << 10;

/// Whether the client takes gzip. `identity` and everything else mean plain.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        is_gzip && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// A successful JSON answer.
pub(super) fn json_answer(mut pieces: Pieces, gzip: bool) -> Response {
    let mut chunk = Vec::with_capacity(1024);
    if !fill(&mut pieces, &mut chunk) {
        return whole_answer(StatusCode::OK, "application/json", chunk, gzip);
    }
    let mut encoder = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
    let mut state = Some((chunk, true));
    let chunks = std::iter::from_fn(move || {
        let (chunk, has_more) = state.take()?;
        if has_more {
            let mut next = Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 2));
            let has_more = fill(&mut pieces, &mut next);
            state = Some((next, has_more));
        }
        Some(match &mut encoder {
            None => Bytes::from(chunk),
            Some(encoder) => compress_chunk(encoder, &chunk, state.is_none()),
        })
    });
    let body = Body::from_stream(stream::iter(chunks.map(Ok::<_, Infallible>)));
    respond(StatusCode::OK, "application/json", body, gzip)
}

/// Appends pieces until the chunk is full. `false`: there are no more.
fn fill(pieces: &mut Pieces, chunk: &mut Vec<u8>) -> bool {
    while chunk.len() < CHUNK_BYTES {
        if !pieces(chunk) {
            return false;
        }
    }
    true
}

/// What the encoder gives for a chunk. Writing into memory does not fail.
fn compress_chunk(encoder: &mut GzEncoder<Vec<u8>>, chunk: &[u8], is_last: bool) -> Bytes {
    drop(encoder.write_all(chunk));
    if is_last {
        drop(encoder.try_finish());
    }
    Bytes::from(std::mem::take(encoder.get_mut()))
}

/// An answer whose body is known.
pub(super) fn whole_answer(
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    gzip: bool,
) -> Response {
    if !gzip || body.len() < COMPRESSED_FROM_BYTES {
        return respond(status, content_type, Body::from(body), false);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let compressed = compress_chunk(&mut encoder, &body, true);
    respond(status, content_type, Body::from(compressed), true)
}

/// A document of the administration API.
pub(super) fn document(outcome: Result<impl Serialize, ApiError>, gzip: bool) -> Response {
    let encoded = outcome.and_then(|document| {
        serde_json::to_vec(&document).map_err(|error| ApiError::Internal(error.to_string()))
    });
    match encoded {
        Ok(body) => whole_answer(StatusCode::OK, "application/json", body, gzip),
        Err(error) => error_answer(&error),
    }
}

/// An error in Prometheus' envelope.
pub(super) fn error_answer(error: &ApiError) -> Response {
    let body = json::error_body(error.error_type(), &error.to_string());
    let response = respond(
        status_of(error),
        "application/json",
        Body::from(body),
        false,
    );
    with_retry_after(response, error)
}

/// Success without words.
pub(super) fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Success, of which nothing is kept.
pub(super) fn accepted() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// An error as plain text, as remote write answers it.
pub(super) fn text_error(error: &ApiError) -> Response {
    let body = Body::from(format!("{error}\n"));
    let response = respond(status_of(error), "text/plain; charset=utf-8", body, false);
    with_retry_after(response, error)
}

/// An error as InfluxDB 1 (`error`) and 2 (`code`, `message`) answer it.
pub(super) fn influx_error(error: &ApiError) -> Response {
    let code = match error.status() {
        413 => "request too large",
        415 => "unsupported media type",
        429 => "too many requests",
        503 => "unavailable",
        500 => "internal error",
        _ => "invalid",
    };
    let message = error.to_string();
    let body = serde_json::json!({"code": code, "message": message, "error": message});
    let body = Body::from(body.to_string());
    with_retry_after(
        respond(status_of(error), "application/json", body, false),
        error,
    )
}

fn status_of(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn with_retry_after(mut response: Response, error: &ApiError) -> Response {
    if let Some(seconds) = error.retry_after_seconds() {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: Body,
    is_gzip: bool,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
