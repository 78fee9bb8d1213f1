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

/// What Prometheus' `--enable-feature` names of PromQL, and what it sets.
type Feature = (&'static str, fn(&mut EvalOptions));

const FEATURES: [Feature; 5] = [
    ("promql-experimental-functions", |o| {
        o.experimental_functions = true
    }),
    ("promql-extended-range-selectors", |o| {
        o.extended_range_selectors = true
    }),
    ("promql-binop-fill-modifiers", |o| o.fill_modifiers = true),
    ("promql-delayed-name-removal", |o| {
        o.delayed_name_removal = true
    }),
    ("use-start-timestamps", |o| o.use_start_timestamps = true),
];

/// Names of features that are always there, as in Prometheus 3.14 or because nothing else makes sense here.
const ALWAYS_ON: [&str; 7] = [
    "created-timestamp-zero-ingestion",
    "exemplar-storage",
    "native-histograms",
    "promql-at-modifier",
    "promql-duration-expr",
    "promql-negative-offset",
    "st-storage",
];

impl EvalOptions {
    /// The same options for the queries of [`crate::sample_counts`]: names stay to the end. Else a window over two metrics whose
    /// other labels are equal would be an error in the count, though it need not be one in the expression.
    #[must_use]
    pub fn for_counts(self) -> Self {
        Self {
            delayed_name_removal: true,
            ..self
        }
    }

    /// The same options with a feature that Prometheus' `--enable-feature` names.
    ///
    /// # Errors
    /// For names that mean nothing here: the text says which do.
    pub fn with_feature(mut self, name: &str) -> Result<Self, String> {
        if let Some((_, enable)) = FEATURES.iter().find(|(known, _)| *known == name) {
            enable(&mut self);
            return Ok(self);
        }
        if ALWAYS_ON.contains(&name) {
            return Ok(self);
        }
        let known: Vec<&str> = FEATURES.iter().map(|(known, _)| *known).collect();
        Err(format!(
            "unknown feature {name:?}; known are: {}; always enabled are: {}",
            known.join(", "),
            ALWAYS_ON.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_the_names_of_prometheus() {
        let mut options = EvalOptions::default();
        for name in FEATURES.iter().map(|(name, _)| *name).chain(ALWAYS_ON) {
            options = options.with_feature(name).expect(name);
        }
        let all = EvalOptions {
            delayed_name_removal: true,
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            use_start_timestamps: true,
            ..EvalOptions::default()
        };
        assert_eq!(options, all);
        let error = options.with_feature("wombat").expect_err("there is none");
        assert!(error.contains("promql-experimental-functions"), "{error}");
    }
}
