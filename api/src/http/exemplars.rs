//! `query_exemplars`: the exemplars of all series that an expression names.
//!
//! ```text
//! {"status":"success","data":[{"seriesLabels":{...},"exemplars":[{"labels":{...},"value":"6","timestamp":1600096945.479},...]},...]}
//! ```
//! Source: `docs/querying/api.md` of Prometheus 3.

use super::{Shared, prometheus::serve};
use crate::{
    ApiError, SeriesExemplars,
    json::{list_answer, write_labels, write_quoted},
    number::write_time,
};
use axum::{
    extract::{Request, State},
    response::Response,
};
use trefoil_query_promql::{QueryError, SeriesFilter, parse, selectors};

/// `GET|POST query_exemplars`.
pub(super) async fn query_exemplars(State(app): Shared, request: Request) -> Response {
    serve(&app, request, async |tenant, parameters, deadline| {
        let limit = parameters.limit("limit")?;
        let (start, end) = parameters.period()?;
        // Here Prometheus does not say which parameters are wrong.
        if end < start {
            let reason = "end timestamp must not be before start timestamp";
            return Err(ApiError::BadData(reason.to_owned()));
        }
        let query = parameters.get("query").unwrap_or("");
        let expression =
            parse(query, &app.backend.node_info().eval).map_err(|error| match error {
                QueryError::BadData(reason) => ApiError::BadData(reason),
                error => error.into(),
            })?;
        let filter = SeriesFilter {
            alternatives: selectors(&expression),
            start,
            end,
            // One more shows whether there are more.
            limit: match limit {
                0 => 0,
                limit => limit.saturating_add(1),
            },
        };
        if filter.alternatives.is_empty() {
            return Ok(list_answer(Vec::new(), &[], write_series));
        }
        let options = parameters.listing_options(deadline)?;
        let listing = app.backend.exemplars(&tenant, filter, options).await?;
        Ok(list_answer(listing.items, &listing.warnings, write_series))
    })
    .await
}

fn write_series(out: &mut Vec<u8>, series: &SeriesExemplars) {
    out.extend_from_slice(b"{\"seriesLabels\":");
    write_labels(out, &series.labels);
    out.extend_from_slice(b",\"exemplars\":[");
    for (index, exemplar) in series.exemplars.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"labels\":");
        write_labels(out, &exemplar.labels);
        out.extend_from_slice(b",\"value\":");
        write_quoted(out, exemplar.value);
        out.extend_from_slice(b",\"timestamp\":");
        write_time(out, exemplar.time);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}
