//! Settings of the engine that a query carries with it to every evaluator.

use serde::{Deserialize, Serialize};
use trefoil_model::Millis;

/// How a query is read and evaluated. The defaults are those of Prometheus 3.14.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EvalOptions {
    /// How old a sample may be and still count for an instant selector; left-open. Milliseconds.
    pub look_back_ms: Millis,
    /// The step of sub-queries without one: the global evaluation interval. Milliseconds.
    pub sub_query_step_ms: Millis,
    /// Keep metric names through functions and remove them only at the end of the query.
    pub delayed_name_removal: bool,
    /// Accept experimental functions and aggregations.
    pub experimental_functions: bool,
    /// Accept `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// Accept `fill`, `fill_left` and `fill_right`.
    pub fill_modifiers: bool,
    /// Take a start timestamp behind the sample in front for a reset of the counter.
    pub use_start_timestamps: bool,
    /// The longest buckets whose aggregates may stand for samples where that is exact; 0: samples only. Milliseconds.
    pub source_resolution_max_ms: Millis,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self {
            look_back_ms: 5 * 60 * 1000,
            sub_query_step_ms: 60 * 1000,
            delayed_name_removal: false,
            experimental_functions: false,
            extended_range_selectors: false,
            fill_modifiers: false,
            use_start_timestamps: false,
            source_resolution_max_ms: 0,
        }
    }
}
