//! OpenTelemetry's metrics over gRPC, as routes for a server that speaks HTTP/2.
//!
//! ```text
//! message = compressed (1 byte, 0 or 1) | length (4 bytes, big-endian) | body     exactly one each way
//! ```
//! The same bounds, turns and budgets hold as for HTTP, because it is the same way from here on. The status stands in
//! trailers, or in the headers when there is no message. What a retry can cure is `UNAVAILABLE`.
//!
//! Source: gRPC over HTTP/2, and OTLP 1.x.

use super::{
    App, Shared,
    ingest::{Coding, Intake},
    metrics::CountedStatus,
    otlp::{RpcCode, export, retryable},
};
use crate::{
    ApiError,
    otlp::{Encoding, Rejections, export_response},
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use std::{convert::Infallible, fmt::Write, sync::Arc};

const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// Bytes before a message.
const PREFIX_BYTES: usize = 5;
/// Longest message about an error, so that it fits the headers that clients take.
const MESSAGE_BYTES_MAX: usize = 4096;

/// All services.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(EXPORT_METRICS, post(export_metrics))
        .fallback(unknown)
}

/// Answers every call that the node is not ready, because of `reason`.
pub fn grpc_starting_router(reason: &'static str) -> Router {
    let answer = move || async move {
        status(
            RpcCode::Unavailable,
            &format!("the node is not ready: {reason}"),
        )
    };
    Router::new().fallback(answer)
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    status(
        RpcCode::Unimplemented,
        &format!("there is no method {path}"),
    )
}

async fn export_metrics(State(app): Shared, request: Request) -> Response {
    match handle(&app, request).await {
        Ok(rejections) => message(&export_response(Encoding::Protobuf, &rejections)),
        Err(error) => {
            let error = retryable(error);
            tracing::debug!(%error, "OTLP over gRPC refused");
            let mut response = status(RpcCode::of(&error), &error.to_string());
            let counted = CountedStatus(error.status());
            response.extensions_mut().insert(counted);
            response
        }
    }
}

async fn handle(app: &Arc<App>, request: Request) -> Result<Rejections, ApiError> {
    let (parts, body) = request.into_parts();
    let coding = coding_of(&parts.headers)?;
    let mut intake = Intake::begin(app, &parts.headers)?;
    let body = intake.collect(&parts.headers, body).await?;
    let (is_compressed, body) = unframe(body)?;
    let coding = match is_compressed {
        true => coding,
        false => Coding::Identity,
    };
    export(app, intake, Encoding::Protobuf, coding, body).await
}

/// How messages are compressed that say that they are.
fn coding_of(headers: &HeaderMap) -> Result<Coding, ApiError> {
    let value = headers.get(ENCODING);
    match value.map(|value| value.to_str().unwrap_or("?")) {
        None | Some("identity") => Ok(Coding::Identity),
        Some("gzip") => Ok(Coding::Gzip),
        Some("zstd") => Ok(Coding::Zstd),
        Some(other) => Err(ApiError::UnsupportedMediaType(format!(
            "grpc-encoding is {other:?}; gzip, zstd and identity are accepted"
        ))),
    }
}

/// The one message of a call, and whether it is compressed.
fn unframe(body: Bytes) -> Result<(bool, Bytes), ApiError> {
    let Some([flag, length @ ..]) = body.first_chunk::<PREFIX_BYTES>() else {
        let count = body.len();
        return Err(ApiError::BadData(format!(
            "the call ends after {count} bytes of a message"
        )));
    };
    let length = u32::from_be_bytes(*length) as usize;
    let count = body.len() - PREFIX_BYTES;
    match flag {
        0 | 1 if length == count => Ok((*flag == 1, body.slice(PREFIX_BYTES..))),
        0 | 1 => Err(ApiError::BadData(format!(
            "the call has {count} bytes for one message of {length}"
        ))),
        flag => Err(ApiError::BadData(format!(
            "a message is marked {flag}, neither 0 nor 1"
        ))),
    }
}

/// A message and success.
fn message(body: &[u8]) -> Response {
    let mut framed = vec![0];
    framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
    framed.extend_from_slice(body);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(0));
    let trailers = std::future::ready(Some(Ok::<_, Infallible>(trailers)));
    let body = Full::new(Bytes::from(framed)).with_trailers(trailers);
    with_headers(Body::new(body))
}

/// An error, which has no message but its status.
fn status(code: RpcCode, text: &str) -> Response {
    let mut response = with_headers(Body::empty());
    let headers = response.headers_mut();
    headers.insert(STATUS, HeaderValue::from(code as u32));
    if let Ok(text) = HeaderValue::try_from(escape(text)) {
        headers.insert(MESSAGE, text);
    }
    response
}

fn with_headers(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(
        ACCEPT_ENCODING,
        HeaderValue::from_static("identity,gzip,zstd"),
    );
    response
}

/// A text as gRPC writes it into headers: other bytes than visible ASCII, and the percent sign, in hexadecimal.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes().take(MESSAGE_BYTES_MAX) {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            // Writing into memory does not fail.
            byte => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_unframed() {
        let unframed = |body: &'static [u8]| unframe(Bytes::from_static(body));
        assert_eq!(
            unframed(b"\0\0\0\0\x02ab").unwrap(),
            (false, Bytes::from("ab"))
        );
        assert_eq!(unframed(b"\x01\0\0\0\0").unwrap(), (true, Bytes::new()));
        for body in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\x02\0\0\0\0",
        ] {
            assert_eq!(unframed(body).unwrap_err().status(), 400);
        }
    }

    #[test]
    fn texts_in_headers() {
        assert_eq!(escape("a b%\u{e9}\n"), "a b%25%C3%A9%0A");
        assert_eq!(
            escape(&"x".repeat(MESSAGE_BYTES_MAX + 1)).len(),
            MESSAGE_BYTES_MAX
        );
    }
}
