//! What can go wrong with a query, sorted by what the caller does about it.
//!
//! The texts are those of Prometheus where a client may look at them. Errors travel between nodes,
//! so they are plain serialisable data.

use serde::{Deserialize, Serialize};

/// Prometheus' text for a query that holds more samples than its limit.
pub(crate) const TOO_MANY_SAMPLES: &str =
    "query processing would load too many samples into memory in query execution";

/// How our own text for too many bytes begins.
const TOO_MANY_BYTES: &str =
    "query processing would load too much data into memory in query execution";

/// Why a query has no answer. No variant changes state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum QueryError {
    /// The text or a parameter is wrong. A retry does not help.
    #[error("{0}")]
    BadData(String),
    /// The data or a limit does not allow the query. A retry does not help.
    #[error("{0}")]
    Execution(String),
    /// The deadline passed. A retry may help.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The client went away, or the node stops.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// Some shard has no evaluator that can promise a complete answer. A retry helps later.
    #[error("{0}")]
    Unavailable(String),
    /// The evaluator met damage on its disk: the same part should go to another owner.
    #[error("{0}")]
    Damaged(String),
    /// The node failed in a way that has nothing to do with the query.
    #[error("{0}")]
    Internal(String),
}

impl QueryError {
    /// The `errorType` of Prometheus' HTTP API.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::BadData(_) => "bad_data",
            Self::Execution(_) => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Unavailable(_) | Self::Damaged(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether another evaluator may answer where this one could not.
    #[must_use]
    pub fn is_local_to_evaluator(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::Damaged(_) | Self::Internal(_)
        )
    }

    pub(crate) fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }

    pub(crate) fn too_many_bytes(bytes_max: u64) -> Self {
        Self::Execution(format!(
            "{TOO_MANY_BYTES}: more than {bytes_max} bytes of results"
        ))
    }

    /// Whether the query's results took more bytes than it may have.
    #[must_use]
    pub fn is_too_many_bytes(&self) -> bool {
        matches!(self, Self::Execution(text) if text.starts_with(TOO_MANY_BYTES))
    }

    pub(crate) fn too_many_samples() -> Self {
        Self::Execution(TOO_MANY_SAMPLES.to_owned())
    }
}
