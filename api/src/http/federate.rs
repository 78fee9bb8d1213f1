//! `GET|POST federate`: the newest samples of some series, for another Prometheus to scrape.

use super::{
    App, Shared,
    answer::{takes_gzip, text_error, whole_answer},
    parameters::Parameters,
    tenant,
};
use crate::{
    ApiError, SelectQuery,
    federation::{FederationFormat, Newest, write_federation},
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use futures::StreamExt;
use trefoil_query_promql::{EvalOptions, QueryError};

/// Memory for the samples of an answer, which is sorted by family before it is written.
const BYTES_MAX: usize = 256 << 20;

/// `GET|POST federate`.
pub(super) async fn federate(State(app): Shared, request: Request) -> Response {
    let headers = request.headers().clone();
    let format = FederationFormat::of_accept(&accept(&headers));
    match handle(&app, request, format).await {
        Ok(text) => {
            let gzip = takes_gzip(&headers);
            whole_answer(StatusCode::OK, format.content_type(), text, gzip)
        }
        Err(error) => text_error(&error),
    }
}

fn accept(headers: &HeaderMap) -> String {
    let values = headers.get_all(header::ACCEPT).iter();
    let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    texts.join(",")
}

async fn handle(
    app: &App,
    request: Request,
    format: FederationFormat,
) -> Result<Vec<u8>, ApiError> {
    let tenant = tenant(request.headers())?;
    let parameters = Parameters::of(request, app).await?;
    let alternatives = parameters.any_selectors()?;
    if alternatives.is_empty() {
        return Ok(write_federation(Vec::new(), format));
    }
    let deadline = parameters.deadline(app.limits.query_timeout)?;
    let _turn = app.query_turn(deadline).await?;
    let now = app.backend.now();
    let look_back = parameters.look_back()?.map(|span| span.as_millis() as i64);
    let query = SelectQuery {
        alternatives,
        start: now - look_back.unwrap_or(EvalOptions::default().look_back_ms),
        end: now,
        newest_only: true,
        deadline,
        accepts_loss: parameters.partial()?,
        is_limited: true,
    };
    let collected = async {
        let mut pages = app.backend.select(&tenant, query).await?;
        let (mut newest, mut bytes) = (Vec::new(), 0);
        while let Some(page) = pages.next().await {
            let of = |series| Newest::of(series, format);
            for one in page?.into_iter().filter_map(of) {
                bytes += one.bytes();
                newest.push(one);
            }
            if bytes > BYTES_MAX {
                return Err(QueryError::Execution(format!(
                    "the series of a federation take more than {BYTES_MAX} bytes; select fewer"
                )));
            }
        }
        Ok(newest)
    };
    match tokio::time::timeout_at(deadline.into(), collected).await {
        Ok(newest) => Ok(write_federation(newest?, format)),
        Err(_) => Err(QueryError::Timeout.into()),
    }
}
