//! What a tenant may do: limits by Mimir's names, and the texts in which their violation is told.
//!
//! ```text
//! effective = built-in defaults <- the cluster's defaults <- the tenant's own    (JSON objects, key by key)
//! ```
//! A limit of 0 is none, except where its sense is another. Every refusal names its id (`err-mimir-...`), by which
//! Mimir's users find what it means, and the limit to change. Where the numbers live, and who counts series and
//! rates, is the node's business.

use crate::number::{TIME_MAX, parse_units};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};
use trefoil_model::Millis;
use trefoil_query_promql::format_duration;

/// Limits that were set, by name.
pub type LimitValues = Map<String, Value>;

/// A length of time; in JSON a text such as `1h30m`, or a number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(
    /// Milliseconds, not negative.
    pub Millis,
);

impl Span {
    /// The length, if it is not none.
    #[must_use]
    pub fn some(self) -> Option<Millis> {
        (self.0 > 0).then_some(self.0)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let millis = match &value {
            Value::String(text) if text == "0" => Some(0),
            Value::String(text) => parse_units(text),
            Value::Number(seconds) => seconds.as_u64().and_then(|s| (s as i64).checked_mul(1000)),
            _ => None,
        };
        let refuse = || D::Error::custom(format!("{value} is not a length of time such as \"1h\""));
        millis
            .filter(|millis| (0..=TIME_MAX).contains(millis))
            .map(Self)
            .ok_or_else(refuse)
    }
}

/// The limits of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    /// Write requests per second over all nodes; each node admits its part.
    pub request_rate: f64,
    /// Write requests that a node admits at once, after a pause.
    pub request_burst_size: u64,
    /// Samples per second over all nodes; each node admits its part.
    pub ingestion_rate: f64,
    /// Samples that a node admits at once, after a pause; not below what one request has.
    pub ingestion_burst_size: u64,
    /// Series in memory in the whole cluster, each counted once.
    pub max_global_series_per_user: u64,
    /// Series of one metric name in memory in the whole cluster.
    pub max_global_series_per_metric: u64,
    /// Labels of a series.
    pub max_label_names_per_series: usize,
    /// Labels of a series whose metric's name ends in `_info`; no effect below the one above.
    pub max_label_names_per_info_series: usize,
    /// Bytes of a label's name.
    pub max_label_name_length: usize,
    /// Bytes of a label's value.
    pub max_label_value_length: usize,
    /// Bytes of a metric's help or unit; longer ones are cut.
    pub max_metadata_length: usize,
    /// How far in the future a sample may be.
    pub creation_grace_period: Span,
    /// How old a sample may be beyond `out_of_order_time_window`.
    pub past_grace_period: Span,
    /// How old a sample may be; none: as the node's configuration says.
    pub out_of_order_time_window: Span,
    /// Whether native histograms are taken.
    pub native_histograms_ingestion_enabled: bool,
    /// Buckets of a native histogram.
    pub max_native_histogram_buckets: usize,
    /// Whether one with more is taken at a coarser resolution.
    pub reduce_native_histogram_over_max_buckets: bool,
    /// Bytes of the text of a query.
    pub max_query_expression_size_bytes: usize,
    /// From the start to the end of a range query.
    pub max_total_query_length: Span,
    /// How far back queries see; what is older is as if it were not there.
    pub max_query_lookback: Span,
    /// From the start to the end of a question about labels or series; a longer one is cut at its start.
    pub max_labels_query_length: Span,
    /// Series that a question about series answers.
    pub max_series_query_limit: usize,
    /// Bytes of results that a query holds, at most what the node allows.
    pub max_estimated_memory_consumption_per_query: u64,
    /// Series that a query finds with its selectors.
    pub max_fetched_series_per_query: u64,
    /// Bytes of samples that it reads of them.
    pub max_fetched_chunk_bytes_per_query: u64,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            request_rate: 0.0,
            request_burst_size: 0,
            ingestion_rate: 0.0,
            ingestion_burst_size: 200_000,
            max_global_series_per_user: 0,
            max_global_series_per_metric: 0,
            max_label_names_per_series: 30,
            max_label_names_per_info_series: 80,
            max_label_name_length: 1024,
            max_label_value_length: 2048,
            max_metadata_length: 1024,
            creation_grace_period: Span(10 * 60 * 1000),
            past_grace_period: Span(0),
            out_of_order_time_window: Span(0),
            native_histograms_ingestion_enabled: true,
            max_native_histogram_buckets: 0,
            reduce_native_histogram_over_max_buckets: true,
            max_query_expression_size_bytes: 0,
            max_total_query_length: Span(0),
            max_query_lookback: Span(0),
            max_labels_query_length: Span(0),
            max_series_query_limit: 0,
            max_estimated_memory_consumption_per_query: 0,
            max_fetched_series_per_query: 0,
            max_fetched_chunk_bytes_per_query: 0,
        }
    }
}

impl TenantLimits {
    /// The limits in effect where `layers` were set, later ones over earlier ones.
    ///
    /// # Errors
    /// What is wrong with a name or a value, in words.
    pub fn resolve<'a>(layers: impl IntoIterator<Item = &'a LimitValues>) -> Result<Self, String> {
        let mut all = LimitValues::new();
        for layer in layers {
            all.extend(
                layer
                    .iter()
                    .map(|(name, value)| (present_name(name).to_owned(), value.clone())),
            );
        }
        Self::read(all)
    }

    /// As [`TenantLimits::resolve`], for what the metadata plane keeps: a name or value that this program does not know was
    /// written by a newer one, and counts as not set. The others count. Gives what was left out, in words.
    pub fn resolve_known<'a>(
        layers: impl IntoIterator<Item = &'a LimitValues>,
    ) -> (Self, Vec<String>) {
        let mut known = LimitValues::new();
        let mut unknown = Vec::new();
        for (name, value) in layers.into_iter().flatten() {
            let name = present_name(name);
            let single = LimitValues::from_iter([(name.to_owned(), value.clone())]);
            match Self::read(single) {
                Ok(_) => {
                    known.insert(name.to_owned(), value.clone());
                }
                Err(error) => unknown.push(error),
            }
        }
        (Self::read(known).unwrap_or_default(), unknown)
    }

    /// The values under the names that limits have today.
    ///
    /// # Errors
    /// Two names of one limit.
    pub fn with_present_names(values: LimitValues) -> Result<LimitValues, String> {
        let mut present = LimitValues::new();
        for (name, value) in values {
            let name = present_name(&name);
            if present.insert(name.to_owned(), value).is_some() {
                return Err(format!("{name} has another name, and is set twice"));
            }
        }
        Ok(present)
    }

    fn read(values: LimitValues) -> Result<Self, String> {
        let limits: Self = serde_json::from_value(Value::Object(values.clone()))
            .map_err(|error| named(values, &error))?;
        let rates = [
            ("ingestion_rate", limits.ingestion_rate),
            ("request_rate", limits.request_rate),
        ];
        let is_wrong = |(_, rate): &(&str, f64)| !rate.is_finite() || *rate < 0.0;
        if let Some((name, rate)) = rates.into_iter().find(is_wrong) {
            return Err(format!("{name}: {rate} is no rate"));
        }
        Ok(limits)
    }
}

/// The error with the name of the limit that it is about, which serde says only of unknown ones.
fn named(values: LimitValues, error: &serde_json::Error) -> String {
    let text = error.to_string();
    // The names of types are ours.
    let text = text.replace("expected f64", "expected a number");
    let text = text.replace("expected u64", "expected a whole number, 0 or more");
    let text = text.replace("expected usize", "expected a whole number, 0 or more");
    let wrong = values.into_iter().find(|(name, value)| {
        let one = LimitValues::from_iter([(name.clone(), value.clone())]);
        serde_json::from_value::<TenantLimits>(Value::Object(one)).is_err()
    });
    match wrong {
        Some((name, value)) if !text.contains(&name) => format!("{name}={value}: {text}"),
        _ => text,
    }
}

/// The name that a limit has today. `max_query_length`, which Mimir has given up, is taken for `max_total_query_length`.
fn present_name(name: &str) -> &str {
    match name {
        "max_query_length" => "max_total_query_length",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(value: Value) -> LimitValues {
        match value {
            Value::Object(values) => values,
            _ => LimitValues::new(),
        }
    }

    #[test]
    fn later_layers_win() {
        let cluster = values(json!({"ingestion_rate": 5, "max_query_lookback": "1d"}));
        let tenant = values(json!({"max_query_lookback": 3600, "creation_grace_period": "0"}));
        let limits = TenantLimits::resolve([&cluster, &tenant]).unwrap();
        let expected = TenantLimits {
            ingestion_rate: 5.0,
            max_query_lookback: Span(3_600_000),
            creation_grace_period: Span(0),
            ..TenantLimits::default()
        };
        assert_eq!(limits, expected);
        let text = serde_json::to_value(&limits).unwrap();
        assert_eq!(text["max_query_lookback"], "1h");
        let back = TenantLimits::resolve([&values(text)]).unwrap();
        assert_eq!(back, limits);
    }

    #[test]
    fn an_older_name_is_known() {
        let cluster = values(json!({"max_total_query_length": "1d"}));
        let tenant = values(json!({"max_query_length": "2d"}));
        let limits = TenantLimits::resolve([&cluster, &tenant]).unwrap();
        assert_eq!(limits.max_total_query_length, Span(2 * 86_400_000));
        assert_eq!(TenantLimits::resolve_known([&cluster, &tenant]).0, limits);
        let stored = TenantLimits::with_present_names(tenant).unwrap();
        assert_eq!(stored, values(json!({"max_total_query_length": "2d"})));
        let twice = values(json!({"max_query_length": "2d", "max_total_query_length": "1d"}));
        TenantLimits::with_present_names(twice).unwrap_err();
    }

    #[test]
    fn what_a_newer_program_set_leaves_the_others() {
        let cluster = values(json!({"ingestion_rate": 5, "max_dreams": 1}));
        let tenant = values(json!({"max_query_lookback": {"soon": 1}, "ingestion_rate": "fast"}));
        let (limits, unknown) = TenantLimits::resolve_known([&cluster, &tenant]);
        let expected = TenantLimits {
            ingestion_rate: 5.0,
            ..TenantLimits::default()
        };
        assert_eq!(limits, expected);
        assert_eq!(unknown.len(), 3, "{unknown:?}");
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for (wrong, word) in [
            (json!({"ingestion_rat": 5}), "ingestion_rat"),
            (json!({"ingestion_rate": "abc"}), "expected a number"),
            (
                json!({"max_metadata_length": "abc"}),
                "expected a whole number",
            ),
            (
                json!({"ingestion_rate": -1}),
                "ingestion_rate: -1 is no rate",
            ),
            (json!({"request_rate": -1}), "request_rate: -1 is no rate"),
            (
                json!({"native_histograms_ingestion_enabled": 1}),
                "native_histograms_ingestion_enabled",
            ),
            (json!({"max_query_lookback": "soon"}), "length of time"),
            (json!({"max_global_series_per_user": -4}), "-4"),
            (
                json!({"creation_grace_period": i64::MAX / 1000}),
                "length of time",
            ),
        ] {
            let error = TenantLimits::resolve([&values(wrong)]).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
