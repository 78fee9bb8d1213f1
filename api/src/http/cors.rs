//! Requests from scripts of other sites: the headers by which Prometheus allows them, for what its API answers.
//!
//! Nothing is allowed that a tool without a browser could not do: there are no credentials in cookies. Writing addresses
//! send no such headers, as in Prometheus.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// What Prometheus sends with its default `--web.cors.origin`.
const ALLOWED: [(HeaderName, &str); 4] = [
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Accept, Authorization, Content-Type, Origin",
    ),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
];

/// Answers `OPTIONS`, and adds the headers where the request says which site it comes from.
pub(super) async fn allow_other_sites(request: Request, next: Next) -> Response {
    let has_origin = request.headers().contains_key(header::ORIGIN);
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    if has_origin {
        allow(response.headers_mut());
    }
    response
}

fn allow(headers: &mut HeaderMap) {
    for (name, value) in ALLOWED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}
