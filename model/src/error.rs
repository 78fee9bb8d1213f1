//! Why a value of the model was refused. No state changes when one of these is returned.

use thiserror::Error;

/// A value from outside that is not a valid noun of the model. Retrying the same bytes never helps.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelError {
    /// The canonical bytes of a label set end early or carry an impossible length.
    #[error("label bytes are malformed at byte {at}")]
    MalformedLabels {
        /// Byte position of the first field that could not be read.
        at: usize,
    },
    /// A label name or value is not UTF-8.
    #[error("label text at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Byte position of the text.
        at: usize,
    },
    /// Label names are not in ascending order.
    #[error("label {name:?} is out of order")]
    OutOfOrder {
        /// The first name that is smaller than the one before it.
        name: String,
    },
    /// The same label name appears twice.
    #[error("label {name:?} appears twice")]
    DuplicateName {
        /// The repeated name.
        name: String,
    },
    /// An id in text form has the wrong length or a character that is not hexadecimal.
    #[error("{text:?} is not a {what} (expected {digits} hexadecimal digits)")]
    MalformedId {
        /// What was expected, for example `node id`.
        what: &'static str,
        /// The text that was given.
        text: String,
        /// How many digits the id has.
        digits: usize,
    },
    /// A native histogram has a shape that no operation could work with.
    #[error("{0}")]
    Histogram(&'static str),
    /// A histogram with custom buckets meets one with exponential buckets.
    #[error("histograms with exponential and with custom buckets cannot be combined")]
    HistogramKinds,
}
