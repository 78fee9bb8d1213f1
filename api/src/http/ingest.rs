//! What all writing addresses have in common: a turn, a tenant, a deadline, bytes that are counted before
//! they exist, reused buffers, and the way to the node.

use super::{
    App,
    body::{self, HeldBytes},
    parameters::declared_length,
    tenant,
};
use crate::{
    ApiError, TenantLimits, TenantName, WriteLimits, WriteOutcome,
    remote_write::{Declarations, Decoder, Refusals, WriteRequest},
};
use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::SemaphorePermit;

/// Labels of a series, whatever a tenant's limit says; the store takes no more.
const LABEL_NAMES_MOST: usize = 1024;
/// Bytes of a name, a value or a help text, whatever a tenant's limit says.
const LABEL_BYTES_MOST: usize = 64 << 10;
/// The node ends at the deadline by itself and says what is missing; this much later the API gives up.
const NODE_GRACE: Duration = Duration::from_millis(500);
/// Bodies above this are decoded on a thread of their own, so that they do not hold up other requests.
pub(super) const DECODED_INLINE_BYTES_MAX: usize = 256 << 10;
/// Buffers kept for the next requests.
const BUFFERS_KEPT_MAX: usize = 16;
/// Buffers that grew beyond this are given back to the system.
const BUFFERS_BYTES_MAX: usize = 32 << 20;
/// Bytes that are decompressed before their number is looked at again.
const PIECE_BYTES: u64 = 64 << 10;
/// Largest window of a zstd frame, as a power of two; RFC 8878 asks decoders to take 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Memory that outlives a request.
#[derive(Default)]
pub(super) struct Buffers {
    /// For remote write.
    pub(super) decoder: Decoder,
    /// What a body says when it is no longer compressed.
    pub(super) text: Vec<u8>,
    /// The same as protobuf, where the body is JSON.
    pub(super) message: Vec<u8>,
    /// What is to be stored.
    pub(super) request: WriteRequest,
}

/// Buffers that wait for the next request.
#[derive(Default)]
pub(super) struct BufferPool(Mutex<Vec<Buffers>>);

impl BufferPool {
    fn take(&self) -> Buffers {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut buffers: Buffers) {
        // What its histograms and exemplars take is no buffer.
        buffers.request.clear();
        let bytes = buffers.decoder.capacity_bytes()
            + buffers.text.capacity()
            + buffers.message.capacity()
            + buffers.request.capacity_bytes();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= BUFFERS_BYTES_MAX && kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffers);
        }
    }
}

/// A write request in work. Ends its turn and gives back its bytes when dropped.
pub(super) struct Intake<'a> {
    app: &'a Arc<App>,
    tenant: TenantName,
    limits: Arc<TenantLimits>,
    deadline: Instant,
    held: HeldBytes,
    _turn: SemaphorePermit<'a>,
}

impl<'a> Intake<'a> {
    /// Takes a turn, and the request out of the tenant's rate of requests.
    ///
    /// # Errors
    /// [`ApiError::BadData`] of the tenant, [`ApiError::Unavailable`] when too many are in work,
    /// [`ApiError::TooManyRequests`] over the rate.
    pub(super) fn begin(app: &'a Arc<App>, headers: &HeaderMap) -> Result<Self, ApiError> {
        let tenant = tenant(headers)?;
        let turn = app.writes.try_acquire();
        let turn = turn.map_err(|_| later("too many write requests are in work"))?;
        let limits = app.backend.limits(&tenant);
        if limits.request_rate > 0.0 {
            app.backend.admit_request(&tenant, &limits)?;
        }
        Ok(Self {
            app,
            limits,
            tenant,
            deadline: Instant::now() + app.limits.write_timeout,
            held: app.write_bytes.hold_none(),
            _turn: turn,
        })
    }

    /// Whose samples these are.
    pub(super) fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The bounds of the request: those of the server, with the tenant's own for labels.
    pub(super) fn write_limits(&self) -> WriteLimits {
        // 0 is no limit of the tenant; what a series may have at all stays.
        let within = |limit: usize, most: usize| match limit {
            0 => most,
            limit => limit.min(most),
        };
        WriteLimits {
            label_names_max: within(self.limits.max_label_names_per_series, LABEL_NAMES_MOST),
            info_label_names_max: within(
                self.limits.max_label_names_per_info_series,
                LABEL_NAMES_MOST,
            ),
            label_name_bytes_max: within(self.limits.max_label_name_length, LABEL_BYTES_MOST),
            label_value_bytes_max: within(self.limits.max_label_value_length, LABEL_BYTES_MOST),
            metadata_bytes_max: within(self.limits.max_metadata_length, LABEL_BYTES_MOST),
            native_histograms: self.limits.native_histograms_ingestion_enabled,
            native_buckets_max: self.limits.max_native_histogram_buckets,
            reduces_native_buckets: self.limits.reduce_native_histogram_over_max_buckets,
            ..self.app.limits.write
        }
    }

    /// Takes the body, compressed as it is.
    ///
    /// # Errors
    /// As for [`body::collect`], and [`ApiError::Unavailable`] when it does not arrive in time.
    pub(super) async fn collect(
        &mut self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Bytes, ApiError> {
        let declared = declared_length(headers);
        let bytes_max = self.app.limits.write.compressed_bytes_max;
        let collected = body::collect(body, declared, bytes_max, Some(&mut self.held));
        match tokio::time::timeout_at(self.deadline.into(), collected).await {
            Ok(body) => body,
            // Not the sender's fault: it or the network may have been paused.
            Err(_) => Err(later("the body did not arrive in time; send it again")),
        }
    }

    /// Runs a decoder over reused buffers; a large one on a thread of its own. It counts what it
    /// decompresses.
    ///
    /// # Errors
    /// What the decoder says.
    pub(super) async fn decode(
        &mut self,
        is_large: bool,
        decode: impl FnOnce(&mut Buffers, &mut HeldBytes) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<Buffers, ApiError> {
        let mut buffers = self.app.buffers.take();
        let mut held = std::mem::replace(&mut self.held, self.app.write_bytes.hold_none());
        let labels_types = self.app.limits.write.type_and_unit_labels;
        let run = move || {
            let outcome = decode(&mut buffers, &mut held);
            if labels_types && outcome.is_ok() {
                Declarations::of(&buffers.request).label(&mut buffers.request);
            }
            (buffers, held, outcome)
        };
        let (buffers, held, outcome) = if is_large {
            tokio::task::spawn_blocking(run)
                .await
                .map_err(|error| ApiError::Internal(format!("decode a write request: {error}")))?
        } else {
            run()
        };
        self.held = held;
        match outcome {
            Ok(()) => Ok(buffers),
            Err(error) => {
                self.app.buffers.give_back(buffers);
                Err(error)
            }
        }
    }

    /// Hands a request to the node and waits until a majority has it, or the deadline.
    ///
    /// # Errors
    /// [`ApiError::PartlyRefused`] about all refused series, with all others stored; else what the node
    /// says.
    pub(super) async fn store(&self, request: &WriteRequest) -> Result<(), ApiError> {
        self.store_counted(request).await.1
    }

    /// As [`Intake::store`], and how much of the request a majority holds.
    pub(super) async fn store_counted(
        &self,
        request: &WriteRequest,
    ) -> (Written, Result<(), ApiError>) {
        let stored = self.app.backend.write(&self.tenant, request, self.deadline);
        self.count(request, stored).await
    }

    /// As [`Intake::store_counted`], of deltas that the node adds up first.
    pub(super) async fn accumulate_counted(
        &self,
        deltas: &WriteRequest,
    ) -> (Written, Result<(), ApiError>) {
        let backend = &self.app.backend;
        let stored = backend.accumulate(&self.tenant, deltas, self.deadline);
        self.count(deltas, stored).await
    }

    /// Waits for what the node makes of a request, or the deadline.
    async fn count(
        &self,
        request: &WriteRequest,
        stored: impl Future<Output = Result<WriteOutcome, ApiError>>,
    ) -> (Written, Result<(), ApiError>) {
        let stored = tokio::time::timeout_at((self.deadline + NODE_GRACE).into(), stored);
        let mut written = Written::default();
        let outcome = match stored.await {
            Ok(Ok(outcome)) => {
                let accepted = request.sample_count() as u64;
                let all = accepted.saturating_sub(outcome.refusals.samples);
                let histograms = request.histogram_count() as u64;
                written.histograms = histograms.saturating_sub(outcome.refused_histograms);
                written.samples = all.saturating_sub(written.histograms);
                written.refused = request.refusals().samples + outcome.refusals.samples;
                written.is_dropped = accepted > 0 && outcome.deduplicated == accepted;
                let exemplars = request.exemplars().len() as u64;
                written.exemplars = exemplars.saturating_sub(outcome.skipped_exemplars);
                report(request, &outcome.refusals)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(later("not stored by a majority in time; send it again")),
        };
        self.app.metrics.count_write(request, &outcome);
        (written, outcome)
    }
}

/// How much of a request a majority holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Numbers.
    pub(super) samples: u64,
    /// Native histograms.
    pub(super) histograms: u64,
    /// Exemplars.
    pub(super) exemplars: u64,
    /// Samples and histograms that were refused, with all others stored.
    pub(super) refused: u64,
    /// Whether there were samples and another sender of their pair counts, for all of them.
    pub(super) is_dropped: bool,
}

fn later(message: &str) -> ApiError {
    ApiError::Unavailable {
        message: message.to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

/// Success, or one message about all refused series.
fn report(request: &WriteRequest, later: &Refusals) -> Result<(), ApiError> {
    let first = request.refusals();
    // The node judges the series that came through.
    let total = request.series_count() as u64 + first.series - first.partly;
    let refused = (first.series + later.series).min(total);
    if first.is_empty() && later.is_empty() {
        return Ok(());
    }
    let partly = (first.partly + later.partly).min(refused);
    let kept = match partly {
        0 if refused == total => "nothing of them was stored".to_owned(),
        0 => "all others were stored".to_owned(),
        _ if partly == refused => "each in part, all else was stored".to_owned(),
        _ => format!("{partly} of them in part, all else was stored"),
    };
    let reasons: Vec<&str> = [first, later]
        .iter()
        .flat_map(|refusals| refusals.reasons.iter().map(String::as_str))
        .collect();
    Err(ApiError::PartlyRefused(format!(
        "{refused} of {total} series were refused, {kept}: {}",
        reasons.join("; ")
    )))
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
    Snappy,
}

impl Coding {
    /// What `Content-Encoding` says.
    ///
    /// # Errors
    /// [`ApiError::UnsupportedMediaType`] for another one.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let value = headers.get(header::CONTENT_ENCODING);
        match value.map(|value| value.to_str().unwrap_or("?")) {
            None | Some("" | "identity") => Ok(Self::Identity),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some("snappy") => Ok(Self::Snappy),
            Some(other) => Err(ApiError::UnsupportedMediaType(format!(
                "Content-Encoding is {other:?}; gzip, zstd, snappy and none are accepted"
            ))),
        }
    }

    /// The body's content, in `out` when it was compressed. What exists is counted in `held`, `factor`
    /// times: for the content and for what is made of it.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`] as soon as the content passes the limit, [`ApiError::BadData`] when it
    /// is corrupt, [`ApiError::Unavailable`] by the budget.
    pub(super) fn undo<'b>(
        self,
        body: &'b [u8],
        factor: usize,
        limits: &WriteLimits,
        out: &'b mut Vec<u8>,
        held: &mut HeldBytes,
    ) -> Result<&'b [u8], ApiError> {
        out.clear();
        let corrupt = |error: std::io::Error| ApiError::BadData(format!("decompress: {error}"));
        match self {
            Self::Identity => {
                held.hold_about(body.len() * (1 + factor))?;
                return Ok(body);
            }
            Self::Gzip => {
                let mut reader = flate2::bufread::MultiGzDecoder::new(body);
                read_within(&mut reader, body.len(), factor, limits, out, held)?;
            }
            Self::Zstd => {
                let mut reader = zstd::stream::read::Decoder::with_buffer(body).map_err(corrupt)?;
                reader
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(corrupt)?;
                read_within(&mut reader, body.len(), factor, limits, out, held)?;
            }
            Self::Snappy => {
                let declared = snap::raw::decompress_len(body).unwrap_or(0);
                if declared <= limits.decompressed_bytes_max {
                    held.hold_about(body.len() + declared * factor)?;
                }
                let length = crate::remote_write::decompress_snappy(body, limits, out)?;
                out.truncate(length);
            }
        }
        Ok(out)
    }
}

/// Reads to the end, looking at the size after every piece.
fn read_within(
    reader: &mut impl Read,
    body_bytes: usize,
    factor: usize,
    limits: &WriteLimits,
    out: &mut Vec<u8>,
    held: &mut HeldBytes,
) -> Result<(), ApiError> {
    loop {
        let piece = reader.take(PIECE_BYTES).read_to_end(out);
        let piece = piece.map_err(|error| ApiError::BadData(format!("decompress: {error}")))?;
        if piece == 0 {
            return Ok(());
        }
        if out.len() > limits.decompressed_bytes_max {
            return Err(ApiError::TooLarge {
                what: "decompressed request body",
                size: out.len() as u64,
                size_max: limits.decompressed_bytes_max as u64,
            });
        }
        held.hold_about(body_bytes + out.len() * factor)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote_write::{Sample, SampleValue};
    use trefoil_model::Histogram;

    /// What is said about a request with a series of these samples and a good one, of which the node refuses some.
    fn said(samples: Vec<Sample>, (series, partly): (u64, u64)) -> String {
        let limits = WriteLimits::default();
        let mut request = WriteRequest::default();
        for (name, samples) in [("a", samples), ("b", vec![Sample::float(1, 1.0)])] {
            let pushed = request.push_samples(&mut [("__name__", name)], samples, &limits);
            pushed.expect("a small request");
        }
        let mut later = Refusals::default();
        if series > 0 {
            later.add_series((series, partly), series, || "too old".to_owned());
        }
        let text = report(&request, &later).expect_err("refused").to_string();
        text.split(": ").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn refused_series_are_counted_once() {
        let wrong = || Sample {
            time: 1,
            start: 0,
            value: SampleValue::Histogram(Arc::new(Histogram {
                schema: 99,
                ..Histogram::default()
            })),
        };
        let good = || Sample::float(2, 1.0);
        let whole = "1 of 2 series were refused, all others were stored";
        assert_eq!(said(vec![wrong()], (0, 0)), whole);
        assert_eq!(said(vec![good()], (1, 0)), whole);
        let partly = "1 of 2 series were refused, each in part, all else was stored";
        assert_eq!(said(vec![good(), wrong()], (0, 0)), partly);
        assert_eq!(said(vec![good()], (1, 1)), partly);
        let mixed = "2 of 2 series were refused, 1 of them in part, all else was stored";
        assert_eq!(said(vec![wrong()], (1, 1)), mixed);
    }
}
