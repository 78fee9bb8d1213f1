//! Why a request was not served. The HTTP status follows from the variant.

use std::time::Duration;
use thiserror::Error;
use trefoil_query_promql::QueryError;

/// A refusal. Unless a variant says otherwise nothing changed, and sending the same again does not help.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ApiError {
    /// 400: a parameter, header or document is wrong.
    #[error("{0}")]
    BadData(String),
    /// 400: the body is not a snappy block.
    #[error("{reason}")]
    CorruptSnappy {
        /// What the decoder says; it names snappy itself.
        reason: String,
    },
    /// 400: the body is not the protobuf message that it should be.
    #[error("corrupt protobuf in field {field} at byte {at} of the decompressed body")]
    CorruptProtobuf {
        /// The message or field that could not be read.
        field: &'static str,
        /// Position of the first byte that could not be read.
        at: usize,
    },
    /// 400: a text is wrong at one place.
    #[error("line {line}, column {column}: {reason}")]
    BadLine {
        /// The line, from 1.
        line: usize,
        /// The character of the line, from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// 400: some series of a write request were refused; **all others were stored**.
    #[error("{0}")]
    PartlyRefused(String),
    /// 404: there is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// 409: the state of the cluster does not allow it now.
    #[error("{0}")]
    Conflict(String),
    /// 412: the condition that the request names does not hold.
    #[error("{0}")]
    PreconditionFailed(String),
    /// 413: the request is larger than a limit.
    #[error("{what} is {size}, more than {size_max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, or declares to be.
        size: u64,
        /// The limit.
        size_max: u64,
    },
    /// 415: the body is of a kind that this address does not take.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// 429: the tenant is over a limit. A retry helps after a while.
    #[error("{message}")]
    TooManyRequests {
        /// Which limit.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// 503: not now; for a write some of it may have been stored, which a retry does not duplicate.
    #[error("{message}")]
    Unavailable {
        /// What is missing.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// 503: all of the query's time went by before it could begin.
    #[error("query timed out in query queue")]
    QueueTimeout,
    /// A query failed; the status follows from its kind.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// 500: a fault of the program.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// A wrong parameter, in Prometheus' words.
    #[must_use]
    pub fn parameter(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::BadData(format!("invalid parameter {name:?}: {reason}"))
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BadData(_)
            | Self::CorruptSnappy { .. }
            | Self::CorruptProtobuf { .. }
            | Self::BadLine { .. }
            | Self::PartlyRefused(_) => 400,
            Self::NotFound(_) => 404,
            Self::Conflict(_) => 409,
            Self::PreconditionFailed(_) => 412,
            Self::TooLarge { .. } => 413,
            Self::UnsupportedMediaType(_) => 415,
            Self::TooManyRequests { .. } => 429,
            Self::Unavailable { .. } | Self::QueueTimeout => 503,
            Self::Internal(_) => 500,
            Self::Query(error) => match error {
                QueryError::BadData(_) => 400,
                QueryError::Execution(_) => 422,
                QueryError::Canceled => 499,
                QueryError::Timeout | QueryError::Unavailable(_) | QueryError::Damaged(_) => 503,
                QueryError::Internal(_) => 500,
            },
        }
    }

    /// The `errorType` of Prometheus' envelope.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Query(error) => error.error_type(),
            Self::QueueTimeout => "timeout",
            Self::NotFound(_) => "not_found",
            Self::PreconditionFailed(_) => "precondition_failed",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal(_) => "internal",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::BadData(_)
            | Self::CorruptSnappy { .. }
            | Self::CorruptProtobuf { .. }
            | Self::BadLine { .. }
            | Self::PartlyRefused(_)
            | Self::Conflict(_)
            | Self::TooLarge { .. }
            | Self::UnsupportedMediaType(_) => "bad_data",
        }
    }

    /// Seconds for `Retry-After`, where a retry helps.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                Some(retry_after.as_secs().max(1))
            }
            Self::Query(QueryError::Unavailable(_) | QueryError::Damaged(_)) => Some(1),
            _ => None,
        }
    }
}
