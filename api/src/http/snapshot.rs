//! Snapshots, as Prometheus' administration has them. Source: `docs/querying/api.md` of Prometheus 3.

use super::{Shared, answer::document, parameters::Parameters};
use crate::Snapshot;
use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};

/// `POST|PUT admin/tsdb/snapshot?skip_head=...`: the snapshot's name, and in `warnings` which nodes have no part of it.
pub(super) async fn snapshot(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let parameters = Parameters::of(request, &app).await?;
        app.backend.snapshot(parameters.truth("skip_head")?).await
    };
    document(outcome.await.map(envelope), false)
}

fn envelope(snapshot: Snapshot) -> Value {
    let mut answer = json!({"status": "success", "data": {"name": snapshot.name}});
    if !snapshot.warnings.is_empty() {
        answer["warnings"] = json!(snapshot.warnings);
    }
    answer
}
