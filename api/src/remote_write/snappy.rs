//! Undoing snappy's block format without trusting the length that it declares.

use super::short_copy::PADDING;
use crate::{ApiError, WriteLimits};

/// Decompresses `compressed` into the beginning of `out` and returns the length of the content; at
/// least [`PADDING`] bytes of no meaning follow it. The buffer grows only after the declared length was checked, so a small body that declares a gigabyte costs nothing.
///
/// # Errors
/// [`ApiError::TooLarge`] by the declared length, [`ApiError::CorruptSnappy`] for anything else.
pub(crate) fn decompress(
    compressed: &[u8],
    limits: &WriteLimits,
    out: &mut Vec<u8>,
) -> Result<usize, ApiError> {
    let corrupt = |error: snap::Error| ApiError::CorruptSnappy {
        reason: error.to_string(),
    };
    if compressed.len() > limits.compressed_bytes_max {
        return Err(ApiError::TooLarge {
            what: "compressed request body",
            size: compressed.len() as u64,
            size_max: limits.compressed_bytes_max as u64,
        });
    }
    if compressed.is_empty() {
        return Err(corrupt(snap::Error::Empty));
    }
    let length = snap::raw::decompress_len(compressed).map_err(corrupt)?;
    if length > limits.decompressed_bytes_max {
        return Err(ApiError::TooLarge {
            what: "decompressed request body",
            size: length as u64,
            size_max: limits.decompressed_bytes_max as u64,
        });
    }
    // Only ever longer, so that a reused buffer is not cleared for every request.
    if out.len() < length + PADDING {
        out.resize(length + PADDING, 0);
    }
    snap::raw::Decoder::new()
        .decompress(compressed, &mut out[..length])
        .map_err(corrupt)
}
