//! The answer to a query in the forms of Prometheus' API.

use crate::{Annotations, Severity};
use std::sync::Arc;
use trefoil_model::{Histogram, Labels, Millis};

/// A sample's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A plain number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

impl Value {
    /// The number, if it is one.
    #[must_use]
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Histogram(_) => None,
        }
    }
}

/// A value at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Milliseconds.
    pub time: Millis,
    /// The value; never a stale marker.
    pub value: Value,
}

/// One series of an instant answer.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Its labels; unique in the answer.
    pub labels: Labels,
    /// Its value at the query's time.
    pub point: Point,
}

/// One series of a range answer.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    /// Its labels; unique in the answer.
    pub labels: Labels,
    /// Its points, ascending; at least one.
    pub points: Vec<Point>,
}

/// The data of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryData {
    /// A number at the query's time.
    Scalar(Point),
    /// A text at the query's time.
    String {
        /// Milliseconds.
        time: Millis,
        /// The text.
        text: String,
    },
    /// Series with one sample each: in the order of `sort` and the like, else ascending by labels.
    Vector(Vec<VectorSample>),
    /// Series with their samples, ascending by labels.
    Matrix(Vec<MatrixSeries>),
}

impl QueryData {
    /// The `resultType` of Prometheus' HTTP API.
    #[must_use]
    pub fn result_type(&self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            Self::String { .. } => "string",
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
        }
    }
}

/// A query's answer with its remarks.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryResult {
    /// The data.
    pub data: QueryData,
    /// Texts for the API's `warnings`.
    pub warnings: Vec<String>,
    /// Texts for the API's `infos`.
    pub infos: Vec<String>,
    /// Most samples held at one time by the coordinator's side.
    pub samples_peak: u64,
}

impl QueryResult {
    pub(crate) fn new(
        data: QueryData,
        annotations: &Annotations,
        text: &str,
        samples_peak: u64,
    ) -> Self {
        Self {
            data,
            warnings: annotations.texts(Severity::Warning, text),
            infos: annotations.texts(Severity::Info, text),
            samples_peak,
        }
    }
}
