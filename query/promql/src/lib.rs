//! PromQL: parser, evaluator and the two seams through which it reaches data.
//!
//! ```text
//! text -> parse -> plan -> parts --(Source)--> evaluators: evaluate_part over a SeriesStorage
//!                            ^                                   |
//!                            +------- merge <- PartResult -------+
//! ```
//! The coordinator's side ([`query_instant`], [`query_range`]) is asynchronous and sees only merged
//! part results. The evaluator's side ([`evaluate_part`]) is synchronous and streams one series at a
//! time. Everything that is per series, and one mergeable aggregation on top, is evaluated where
//! the samples are. Answers are bit-identical on every node: series are visited in ascending order of
//! labels, merging does not depend on the order of arrival, and sums carry their rounding errors.
//!
//! This crate knows nothing of shards, nodes, replication, HTTP or files.

pub mod ast;
pub mod function;
pub mod parse;
pub mod promqltest;

mod annotation;
mod budget;
mod coordinate;
mod divided;
mod error;
mod evaluate;
mod format;
mod functions;
mod grid;
mod literal;
mod matcher;
mod memory;
mod merge;
mod note;
mod operators;
mod options;
mod pace;
mod part;
mod partial;
mod partial_histograms;
mod piece;
mod pretty;
mod printer;
mod reach;
mod regexp;
mod result;
mod row;
mod selectors;
mod source;
mod storage;

pub use annotation::{Annotation, Annotations, Severity};
pub use ast::{Expr, Span};
pub use budget::{Budget, SAMPLES_MAX_DEFAULT};
pub use coordinate::{QueryOptions, query_instant, query_range};
pub use divided::{Divided, PartKey};
pub use error::QueryError;
pub use evaluate::{evaluate_part, evaluate_part_in, part_selector};
pub use format::{duration as format_duration, number as format_number};
pub use grid::{Grid, POINTS_MAX};
pub use literal::StringLiteral;
pub use matcher::{MatchOp, Matcher, REGEX_BYTES_PER_QUERY};
pub use memory::{MemorySource, MemoryStorage, Sample};
pub use merge::merge;
pub use options::EvalOptions;
pub use parse::{normal_selector, parse, parse_selector, parse_selectors};
pub use part::{Binding, Part, PartBody, PartOutput, PartResult, RawSeries};
pub use partial::{GroupColumn, GroupPartial, MeanState};
pub use partial_histograms::GroupHistograms;
pub use piece::{Piece, Worked, join};
pub use result::{MatrixSeries, Point, QueryData, QueryResult, Value, VectorSample};
pub use row::{ABSENT, HISTOGRAM, Histograms, Row, is_absent, is_histogram};
pub use selectors::{sample_counts, selectors};
pub use source::{Listing, SeriesFilter, Source};
pub use storage::{
    STALE_MARKER_BITS, SampleColumns, SampleSource, Selector, SeriesStorage, SeriesVisitor,
    is_stale,
};
