//! OpenTelemetry's protocol (OTLP): reading its messages, and metrics of it as series.
//!
//! ```text
//! JSON --transcode--> protobuf --Attributes, AnyValue (message)--> logs and traces later
//!                        \--metrics--> data points --translate--> WriteRequest
//! ```
//! There is one decoder, of protobuf: a JSON body is written as protobuf first, by a table of fields, so
//! both mean the same and neither builds a tree. The decoder keeps one data point at a time, so what it
//! holds is bounded by what it makes, which is counted.
//!
//! Source: opentelemetry-proto 1.x; the translation follows Prometheus' OTLP receiver.

mod custom;
mod exemplar;
mod exponential;
mod flaw;
mod json;
mod labels;
mod message;
mod metrics;
mod name;
mod origin;
mod response;
mod same_time;
mod schema;
mod text;
mod translate;

pub use json::{Export, transcode_json};
pub use name::TranslationStrategy;
pub(crate) use response::{Encoding, export_response, status_body};
pub use translate::{Imported, Rejections, import_metrics};

/// What becomes of points of delta temporality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deltas {
    /// The node adds them up, and stores the totals.
    #[default]
    Accumulate,
    /// They are stored as they are.
    Store,
    /// They are rejected.
    Refuse,
}

impl Deltas {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Accumulate, Self::Store, Self::Refuse];

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accumulate => "accumulate",
            Self::Store => "store",
            Self::Refuse => "refuse",
        }
    }
}

/// Resource attributes that every series of the resource gets as labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// These (`promote_resource_attributes`), in this order where names become the same.
    Only(Vec<String>),
    /// All but these (`promote_all_resource_attributes`, `ignore_resource_attributes`).
    AllBut(Vec<String>),
}

impl Default for Promotion {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// How OTLP becomes series. An operator's choice, the same on all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtlpOptions {
    /// How names of metrics and attributes become names of series and labels.
    pub strategy: TranslationStrategy,
    /// Which attributes of the resource become labels.
    pub promoted: Promotion,
    /// Whether `target_info` gets the attributes too that `job` and `instance` are made of
    /// (`keep_identifying_resource_attributes`).
    pub keeps_identifying_attributes: bool,
    /// Whether histograms with explicit bounds become native ones with custom buckets, instead of series of buckets
    /// (`convert_histograms_to_nhcb`).
    pub converts_histograms: bool,
    /// What becomes of points of delta temporality (`deltas`).
    pub deltas: Deltas,
    /// Whether series get `otel_scope_name`, `otel_scope_version`, `otel_scope_schema_url` and the scope's
    /// attributes as labels (`promote_scope_metadata`).
    pub promotes_scope: bool,
}
