//! `GET features`: which features are on, by the names that Prometheus 3.8 and later have for them.
//!
//! ```text
//! {"status": "success", "data": {category: {feature: true | false}}}
//! ```
//! Of Prometheus' categories those are absent of which Trefoil has nothing: rules, scraping, service discovery,
//! templates, pages. Source: `util/features` of Prometheus and what registers there.

use super::{App, Shared, language::data, prometheus::serve};
use crate::otlp::Deltas;
use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::{Map, Value, json};
use trefoil_query_promql::{
    EvalOptions,
    ast::{AggregateOp, BinaryOp},
    function::FUNCTIONS,
};

/// `GET features`.
pub(super) async fn features(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |_, _, _| Ok(data(&all(&app)))).await
}

fn all(app: &App) -> Value {
    let info = app.backend.node_info();
    let eval = &info.eval;
    let has = |name: &str| info.features.iter().any(|feature| feature == name);
    json!({
        "api": {
            "admin": info.admin_api,
            "exclude_alerts": true,
            "label_values_match": true,
            "lifecycle": false,
            "openapi_3.1": false,
            "openapi_3.2": false,
            "otlp_write_receiver": true,
            "query_stats": true,
            "query_warnings": true,
            "remote_write_receiver": true,
            "time_range_labels": true,
            "time_range_series": true,
        },
        "otlp_receiver": {
            "delta_conversion": app.otlp.deltas == Deltas::Accumulate,
            "native_delta_ingestion": app.otlp.deltas == Deltas::Store,
        },
        "prometheus": {
            "agent_mode": false,
            "auto_reload_config": false,
            "server_mode": true,
        },
        "promql": promql(eval, has("type-and-unit-labels")),
        "promql_functions": functions(eval),
        "promql_operators": operators(eval),
        "tsdb": {
            "exemplar_storage": true,
            "native_histograms": true,
        },
    })
}

fn promql(eval: &EvalOptions, type_and_unit_labels: bool) -> Value {
    json!({
        "anchored": eval.extended_range_selectors,
        "at_modifier": true,
        "bool": true,
        "by": true,
        "delayed_name_removal": eval.delayed_name_removal,
        "duration_expr": true,
        "fill": eval.fill_modifiers,
        "fill_left": eval.fill_modifiers,
        "fill_right": eval.fill_modifiers,
        "group_left": true,
        "group_right": true,
        "ignoring": true,
        "negative_offset": true,
        "offset": true,
        "on": true,
        "per_query_lookback_delta": true,
        "per_step_stats": true,
        "smoothed": eval.extended_range_selectors,
        "subqueries": true,
        "type_and_unit_labels": type_and_unit_labels,
        "use_start_timestamps": eval.use_start_timestamps,
        "without": true,
    })
}

fn functions(eval: &EvalOptions) -> Value {
    let is_on = |is_experimental: bool| !is_experimental || eval.experimental_functions;
    let all = FUNCTIONS.iter();
    let all = all.map(|function| {
        (
            function.name.to_owned(),
            is_on(function.experimental).into(),
        )
    });
    Value::Object(all.collect::<Map<_, _>>())
}

/// Operators, those of matchers and `@` among them, and aggregations.
fn operators(eval: &EvalOptions) -> Value {
    let operators = BinaryOp::ALL.iter().map(|op| op.text());
    let operators = operators.chain(["=~", "!~", "@"]);
    let operators = operators.map(|text| (text.to_owned(), true.into()));
    let aggregations = AggregateOp::ALL.iter().map(|(op, text)| {
        let is_on = !op.is_experimental() || eval.experimental_functions;
        ((*text).to_owned(), is_on.into())
    });
    Value::Object(operators.chain(aggregations).collect::<Map<_, _>>())
}
