//! `POST read`: Prometheus' remote read, as samples in one message or as a stream of chunks.
//!
//! Chunks go out page by page as they are read, so that memory is bounded whatever is asked for. An error behind the
//! first page breaks the connection off, which clients take for an error; nothing looks complete that is not. The same
//! happens at the deadline to a client that does not read (`pumped`).

use super::{
    App, Shared,
    answer::{respond, text_error},
    body, limited,
    parameters::{Parameters, declared_length},
    pumped::{PieceStream, until},
    tenant,
};
use crate::{
    ApiError, SelectQuery, SeriesPages, TenantName, WriteLimits,
    remote_read::{Frames, ReadQuery, ReadRequest, Response as Samples},
    remote_write::decompress_snappy,
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{sync::Arc, time::Instant};
use trefoil_query_promql::QueryError;

/// Bytes of a compressed request: matchers only.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of a request as it is read.
const DECOMPRESSED_BYTES_MAX: usize = 4 << 20;
const CHUNKS: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// `POST read`.
pub(super) async fn read(State(app): Shared, request: Request) -> Response {
    match handle(&app, request).await {
        Ok(response) => response,
        Err(error) => text_error(&error),
    }
}

async fn handle(app: &Arc<App>, request: Request) -> Result<Response, ApiError> {
    let (parts, request_body) = request.into_parts();
    let tenant = tenant(&parts.headers)?;
    let accepts_loss = Parameters::of_address(&parts.uri).partial()?;
    let declared = declared_length(&parts.headers);
    let compressed = body::collect(request_body, declared, REQUEST_BYTES_MAX, None).await?;
    let deadline = Instant::now() + app.limits.query_timeout;
    let turn = app.query_turn(deadline).await?;
    let request = decode(app, &compressed)?;
    let limits = app.backend.limits(&tenant);
    for query in &request.queries {
        limited::seen_length(&limits, (query.start, query.end), app.backend.now())?;
    }
    let asked = Asked {
        tenant: &tenant,
        deadline,
        accepts_loss,
    };
    if request.wants_chunks {
        let frames = chunks(app, asked, request.queries).await?;
        let body = Body::from_stream(until(deadline, frames, turn));
        return Ok(respond(StatusCode::OK, CHUNKS, body, false));
    }
    let samples = samples(app, asked, request.queries);
    let samples = tokio::time::timeout_at(deadline.into(), samples).await;
    let body = Body::from(samples.map_err(|_| QueryError::Timeout)??);
    let mut response = respond(StatusCode::OK, "application/x-protobuf", body, false);
    let snappy = HeaderValue::from_static("snappy");
    response
        .headers_mut()
        .insert(header::CONTENT_ENCODING, snappy);
    Ok(response)
}

/// Reads what was asked. Expressions are compiled here, so it happens in a turn.
fn decode(app: &App, compressed: &[u8]) -> Result<ReadRequest, ApiError> {
    let limits = WriteLimits {
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        ..app.limits.write
    };
    let mut decompressed = Vec::new();
    let length = decompress_snappy(compressed, &limits, &mut decompressed)?;
    ReadRequest::decode(&decompressed[..length])
}

/// Who asks, until when, and whether it accepts that data is lost.
#[derive(Clone, Copy)]
struct Asked<'a> {
    tenant: &'a TenantName,
    deadline: Instant,
    accepts_loss: bool,
}

async fn select(app: &App, asked: Asked<'_>, query: ReadQuery) -> Result<SeriesPages, QueryError> {
    let query = SelectQuery {
        alternatives: vec![query.matchers],
        start: query.start,
        end: query.end,
        newest_only: false,
        deadline: asked.deadline,
        accepts_loss: asked.accepts_loss,
        is_limited: true,
    };
    app.backend.select(asked.tenant, query).await
}

async fn samples(
    app: &App,
    asked: Asked<'_>,
    queries: Vec<ReadQuery>,
) -> Result<Vec<u8>, ApiError> {
    let mut samples = Samples::default();
    for query in queries {
        let mut pages = select(app, asked, query).await?;
        while let Some(page) = pages.next().await {
            samples.add(&page?)?;
        }
        samples.end_query();
    }
    samples.finish()
}

/// The frames of all queries, a page at a time; the first page is there already, so that what fails at once has a
/// status.
async fn chunks(
    app: &App,
    asked: Asked<'_>,
    queries: Vec<ReadQuery>,
) -> Result<PieceStream, ApiError> {
    let mut all = Vec::new();
    for (number, query) in queries.into_iter().enumerate() {
        let pages = select(app, asked, query).await?;
        all.push(pages.map_ok(move |page| (number, page)));
    }
    let mut frames = Frames::default();
    let pages = stream::iter(all).flatten();
    let mut frames = pages
        .map_ok(move |(number, page)| frames.page(number, &page))
        .boxed();
    let first = frames.try_next().await?;
    Ok(stream::iter(first.map(Ok)).chain(frames).boxed())
}
