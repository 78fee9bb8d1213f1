//! `GET|POST export`: samples as JSON lines, as VictoriaMetrics exports them and `import` takes them.
//!
//! Lines go out page by page as they are read, so that memory is bounded whatever is asked for. An error behind the
//! first page breaks the connection off, which clients take for an error; nothing looks complete that is not. The same
//! happens at the deadline to a client that does not read (`pumped`).

use super::{
    App, Shared,
    answer::{respond, text_error},
    parameters::Parameters,
    pumped::{PieceStream, until},
    tenant,
};
use crate::{
    ApiError, SelectQuery, SeriesPages,
    json_lines::{Lines, ROWS_MAX},
    number::{TIME_MAX, TIME_MIN},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

const JSON_LINES: &str = "application/stream+json; charset=utf-8";

/// `GET|POST export`.
pub(super) async fn export(State(app): Shared, request: Request) -> Response {
    match handle(&app, request).await {
        Ok(response) => response,
        Err(error) => text_error(&error),
    }
}

async fn handle(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let tenant = tenant(request.headers())?;
    let parameters = Parameters::of(request, app).await?;
    let rows_max = match parameters.limit("max_rows_per_line")? {
        0 => ROWS_MAX,
        rows => rows,
    };
    if let Some(format) = parameters.get("format") {
        let reason = format!("{format:?} is not known; JSON lines are what there is without it");
        return Err(ApiError::parameter("format", reason));
    }
    let query = select_query(app, &parameters)?;
    let deadline = query.deadline;
    let turn = app.query_turn(deadline).await?;
    let pages = app.backend.select(&tenant, query);
    let lines = lines(pages.await?, rows_max).await?;
    let body = Body::from_stream(until(deadline, lines, turn));
    Ok(respond(StatusCode::OK, JSON_LINES, body, false))
}

fn select_query(app: &App, parameters: &Parameters) -> Result<SelectQuery, ApiError> {
    let alternatives = parameters.any_selectors()?;
    if alternatives.is_empty() {
        let reason = "no match[] parameter provided".to_owned();
        return Err(ApiError::BadData(reason));
    }
    let start = parameters.time("start")?.unwrap_or(TIME_MIN);
    let end = parameters.time("end")?.unwrap_or(TIME_MAX);
    if end < start {
        let reason = "end timestamp must not be before start time";
        return Err(ApiError::parameter("end", reason));
    }
    Ok(SelectQuery {
        alternatives,
        start,
        end,
        newest_only: false,
        deadline: parameters.deadline(app.limits.query_timeout)?,
        accepts_loss: parameters.partial()?,
        // A backup is whole, or it is none.
        is_limited: false,
    })
}

/// The first page is there already, so that what fails at once has a status.
async fn lines(mut pages: SeriesPages, rows_max: usize) -> Result<PieceStream, ApiError> {
    let first = pages.try_next().await?;
    let pages = stream::iter(first.map(Ok)).chain(pages);
    let pieces = pages.flat_map(move |page| {
        let (lines, error) = match page {
            Ok(series) => (Some(Lines::of(series, rows_max)), None),
            Err(error) => (None, Some(Err(error))),
        };
        stream::iter(lines.into_iter().flatten().map(Ok).chain(error))
    });
    Ok(pieces.boxed())
}
