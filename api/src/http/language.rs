//! What Prometheus' API says about the text of a query, without any data: `format_query` and `parse_query`.

use super::{App, Shared, prometheus::serve};
use crate::{
    ApiError,
    http::parameters::Parameters,
    json::{self, Pieces},
    syntax_tree::syntax_tree,
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::Value;
use trefoil_query_promql::{Expr, parse};

/// `GET|POST format_query`.
pub(super) async fn format_query(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, parameters, _| {
        Ok(data(&Value::from(query(&app, &parameters)?.pretty())))
    })
    .await
}

/// `GET|POST parse_query`.
pub(super) async fn parse_query(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, parameters, _| {
        Ok(data(&syntax_tree(&query(&app, &parameters)?)))
    })
    .await
}

fn query(app: &App, parameters: &Parameters) -> Result<Expr, ApiError> {
    let text = parameters.get("query").unwrap_or("");
    parse(text, &app.backend.node_info().eval).map_err(|error| ApiError::parameter("query", error))
}

pub(super) fn data(data: &Value) -> Pieces {
    json::data_answer(data.to_string().as_bytes())
}
