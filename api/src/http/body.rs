//! Taking request bodies within bounds: each one, and all that are held at once.

use crate::ApiError;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is read and dropped of a body that is too large, so that its sender gets to read the answer: a
/// server that closes while the client still sends shows it a broken connection instead.
const DROPPED_BYTES_MAX: u64 = 256 << 20;
/// How long that may take.
const DROPPED_WAIT_MAX: Duration = Duration::from_secs(5);
/// The budget counts in pieces of this many bytes, so that it fits the semaphore's numbers.
const PIECE_BYTES: usize = 4096;

/// Bytes that may be held at once.
#[derive(Clone)]
pub(super) struct ByteBudget {
    pieces: Arc<Semaphore>,
    pieces_max: usize,
}

/// Bytes that are held; given back when dropped.
pub(super) struct HeldBytes {
    budget: ByteBudget,
    permit: Option<OwnedSemaphorePermit>,
    pieces: usize,
}

impl ByteBudget {
    pub(super) fn new(bytes: usize) -> Self {
        let pieces_max = bytes / PIECE_BYTES;
        Self {
            pieces: Arc::new(Semaphore::new(pieces_max)),
            pieces_max,
        }
    }

    /// Bytes that are held now, in whole pieces.
    pub(super) fn held(&self) -> usize {
        (self.pieces_max - self.pieces.available_permits()) * PIECE_BYTES
    }

    pub(super) fn hold_none(&self) -> HeldBytes {
        HeldBytes {
            budget: self.clone(),
            permit: None,
            pieces: 0,
        }
    }
}

impl HeldBytes {
    /// As [`HeldBytes::hold`], for an estimate of what a request will take: one request may claim three quarters of the budget
    /// by it, so that the largest that is allowed is taken, too, and others beside it.
    ///
    /// # Errors
    /// As for [`HeldBytes::hold`].
    pub(super) fn hold_about(&mut self, bytes: usize) -> Result<(), ApiError> {
        let pieces_max = self.budget.pieces_max;
        let claimed_max = (pieces_max - pieces_max / 4) * PIECE_BYTES;
        self.hold(bytes.min(claimed_max))
    }

    /// Makes sure that `bytes` in all are held.
    ///
    /// # Errors
    /// [`ApiError::TooLarge`] when this request alone would hold more than all together may: sending it again would not help.
    /// [`ApiError::Unavailable`] when all requests together would hold too much.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), ApiError> {
        let pieces = bytes.div_ceil(PIECE_BYTES);
        let more = pieces.saturating_sub(self.pieces);
        if more == 0 {
            return Ok(());
        }
        if pieces > self.budget.pieces_max && self.budget.pieces_max > 0 {
            return Err(ApiError::TooLarge {
                what: "memory that the request takes",
                size: bytes as u64,
                size_max: (self.budget.pieces_max * PIECE_BYTES) as u64,
            });
        }
        let refuse = || ApiError::Unavailable {
            message: "too many bytes of write requests are in work".to_owned(),
            retry_after: Duration::from_secs(1),
        };
        let count = u32::try_from(more).map_err(|_| refuse())?;
        let permit = Arc::clone(&self.budget.pieces).try_acquire_many_owned(count);
        let permit = permit.map_err(|_| refuse())?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        self.pieces = pieces;
        Ok(())
    }
}

/// Collects a body of at most `bytes_max`; what it holds is counted in `held`.
///
/// # Errors
/// [`ApiError::TooLarge`] when the limit is passed (by the declared length before anything is kept;
/// the rest of the body is dropped first, within bounds), [`ApiError::Unavailable`] by the budget, [`ApiError::BadData`] when the client stops.
pub(super) async fn collect(
    body: Body,
    declared: Option<u64>,
    bytes_max: usize,
    mut held: Option<&mut HeldBytes>,
) -> Result<Bytes, ApiError> {
    let too_large = |size| ApiError::TooLarge {
        what: "request body",
        size,
        size_max: bytes_max as u64,
    };
    let declared = declared.unwrap_or(0);
    let mut body = body;
    if declared > bytes_max as u64 {
        drop_rest(body).await;
        return Err(too_large(declared));
    }
    let mut hold = |bytes| held.as_mut().map_or(Ok(()), |held| held.hold(bytes));
    hold(declared as usize)?;
    let mut collected = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::BadData(format!("read the body: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = first.as_ref().map_or(collected.len(), Bytes::len) + data.len();
        if length > bytes_max {
            drop_rest(body).await;
            return Err(too_large(length as u64));
        }
        hold(length)?;
        // A body of a single frame, which most are, is not copied.
        match first.take() {
            None if collected.is_empty() => first = Some(data),
            None => collected.extend_from_slice(&data),
            Some(earlier) => {
                collected.reserve(length.max(declared as usize));
                collected.extend_from_slice(&earlier);
                collected.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| collected.freeze()))
}

/// Reads and drops what is left of a body, at most [`DROPPED_BYTES_MAX`] and [`DROPPED_WAIT_MAX`].
async fn drop_rest(mut body: Body) {
    let dropping = async {
        let mut dropped = 0;
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, |data| data.len() as u64);
            if dropped > DROPPED_BYTES_MAX {
                break;
            }
        }
    };
    // Past the bounds the connection is closed on the sender.
    tokio::time::timeout(DROPPED_WAIT_MAX, dropping).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_never_fits_is_told_so() {
        let budget = ByteBudget::new(16 * PIECE_BYTES);
        let mut held = budget.hold_none();
        held.hold_about(100 * PIECE_BYTES).expect("an estimate");
        assert_eq!(budget.held(), 12 * PIECE_BYTES);
        let mut other = budget.hold_none();
        let status = |held: Result<(), ApiError>| held.expect_err("too many").status();
        assert_eq!(status(other.hold(5 * PIECE_BYTES)), 503);
        assert_eq!(status(other.hold(16 * PIECE_BYTES + 1)), 413);
        other.hold(4 * PIECE_BYTES).expect("as much as is left");
        drop(held);
        other.hold(16 * PIECE_BYTES).expect("all");
    }
}
