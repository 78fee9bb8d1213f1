//! The node's own endpoints: whether it lives, whether it serves, what it counts, what it is.

use super::{
    Shared,
    answer::{json_answer, respond, takes_gzip, whole_answer},
};
use crate::json;
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::json;
use std::collections::BTreeSet;

/// The Prometheus whose query API this is. Clients such as Grafana choose what they use by it, so
/// `version` in the build information begins with it and names our own version behind the plus sign.
const PROMETHEUS_VERSION: &str = "3.5.0";

const PLAIN: &str = "text/plain; charset=utf-8";

/// `GET /-/healthy`: the process answers. Nothing else is asked: a restart helps a process that hangs, and makes
/// everything worse for one that waits for a leader, a disk or its peers.
pub(super) async fn healthy() -> Response {
    respond(
        StatusCode::OK,
        PLAIN,
        Body::from("Trefoil is Healthy.\n"),
        false,
    )
}

/// `GET /-/ready`: 200 only while the node's replicas serve.
pub(super) async fn ready(State(app): Shared) -> Response {
    match app.backend.readiness() {
        Ok(()) => respond(
            StatusCode::OK,
            PLAIN,
            Body::from("Trefoil is Ready.\n"),
            false,
        ),
        Err(reason) => not_ready(&reason),
    }
}

/// The answer of a node that should get no requests now.
pub(super) fn not_ready(reason: &str) -> Response {
    let body = Body::from(format!("Trefoil is not ready: {reason}\n"));
    respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, body, false)
}

/// `GET /metrics`: the node's metrics and those of this server.
pub(super) async fn metrics(State(app): Shared, headers: HeaderMap) -> Response {
    let node = app.backend.metrics_text();
    let mut text = classic_text(&node);
    app.metrics.render(&app.in_work(), &mut text);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    whole_answer(
        StatusCode::OK,
        content_type,
        text.into_bytes(),
        takes_gzip(&headers),
    )
}

/// OpenMetrics as the text format that came before it: families of counters are called as their samples, and there are neither
/// units nor an end mark.
fn classic_text(text: &str) -> String {
    let family = |line: &str| line.split(' ').nth(2).unwrap_or_default().to_owned();
    let is_counter = |line: &&str| line.starts_with("# TYPE ") && line.ends_with(" counter");
    let counters: BTreeSet<String> = text.lines().filter(is_counter).map(family).collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" || line.is_empty() {
            continue;
        }
        let name = family(line);
        if line.starts_with("# ") && counters.contains(&name) && !name.ends_with("_total") {
            classic.push_str(&line.replacen(&name, &format!("{name}_total"), 1));
        } else {
            classic.push_str(line);
        }
        classic.push('\n');
    }
    classic
}

/// `GET status/buildinfo`.
pub(super) async fn build_info(State(app): Shared) -> Response {
    let info = app.backend.build_info();
    let data = json!({
        "application": "Trefoil",
        "version": format!("{PROMETHEUS_VERSION}+trefoil.{}", info.version),
        "revision": info.revision,
        "branch": info.branch,
        "buildUser": "",
        "buildDate": info.build_date,
        "goVersion": "",
    });
    json_answer(json::data_answer(data.to_string().as_bytes()), false)
}

/// `GET /`: what this is, and where to go from here.
pub(super) async fn root(State(app): Shared) -> Response {
    let version = app.backend.build_info().version;
    let text = format!(
        "Trefoil {version}: metrics on a cluster of identical nodes; any of them answers.\n\
         \n\
         /prometheus               Prometheus' HTTP API: use it as a Grafana data source; also at /api/v1/...\n\
         /api/v1/write             remote write\n\
         /trefoil/api/v1/cluster   nodes and owners (trefoil cluster status)\n\
         /-/ready, /-/healthy      whether this node serves, whether it lives\n\
         /metrics                  this node's own metrics\n"
    );
    respond(StatusCode::OK, PLAIN, Body::from(text), false)
}

/// Everything without a route.
pub(super) async fn not_found() -> Response {
    respond(
        StatusCode::NOT_FOUND,
        PLAIN,
        Body::from("404 page not found\n"),
        false,
    )
}

#[cfg(test)]
mod tests {
    use super::classic_text;

    #[test]
    fn counters_are_called_as_their_samples() {
        let text = "# HELP a Some.\n# TYPE a counter\n# UNIT a bytes\na_total{b=\"a\"} 1\n# HELP c Other.\n\
                    # TYPE c histogram\nc_sum 1\n# EOF\n";
        let classic = "# HELP a_total Some.\n# TYPE a_total counter\na_total{b=\"a\"} 1\n# HELP c Other.\n\
                       # TYPE c histogram\nc_sum 1\n";
        assert_eq!(classic_text(text), classic);
        assert_eq!(classic_text(classic), classic);
    }
}
