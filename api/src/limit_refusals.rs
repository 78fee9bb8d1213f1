//! How the violation of a tenant's limit is told: a sentence, Mimir's id of it (`err-mimir-...`), by which its users
//! find what it means, and the limit to change.

use crate::{Span, TenantLimits};
use trefoil_model::Millis;
use trefoil_query_promql::format_duration;

/// A refusal's id, and which limit to change.
fn refusal(reason: String, id: &str, limits: &str) -> String {
    format!("{reason} (err-mimir-{id}). To adjust it, change the tenant's limit {limits}.")
}

/// 429: too many requests in a short time.
#[must_use]
pub fn too_many_requests(limits: &TenantLimits) -> String {
    let (rate, burst) = (limits.request_rate, limits.request_burst_size);
    let reason = format!(
        "the request has been rejected because the tenant exceeded the request rate limit, set to {rate} requests/s \
         across all nodes with a maximum allowed burst of {burst}"
    );
    let names = "request_rate or request_burst_size";
    refusal(reason, "tenant-max-request-rate", names)
}

/// 429: too many samples in a short time.
#[must_use]
pub fn too_fast(limits: &TenantLimits) -> String {
    let (rate, burst) = (limits.ingestion_rate, limits.ingestion_burst_size);
    let reason = format!(
        "the request has been rejected because the tenant exceeded the ingestion rate limit, set to {rate} samples/s \
         with a maximum allowed burst of {burst}"
    );
    let names = "ingestion_rate or ingestion_burst_size";
    refusal(reason, "tenant-max-ingestion-rate", names)
}

/// 400: one series too many.
#[must_use]
pub fn too_many_series(limit: u64) -> String {
    let reason = format!("per-user series limit of {limit} exceeded");
    refusal(reason, "max-series-per-user", "max_global_series_per_user")
}

/// 400: one series of a metric too many.
#[must_use]
pub fn too_many_series_of_metric(metric: &str, limit: u64) -> String {
    let reason = format!("per-metric series limit of {limit} exceeded for metric {metric}");
    refusal(
        reason,
        "max-series-per-metric",
        "max_global_series_per_metric",
    )
}

/// 400: a sample from the future.
#[must_use]
pub fn too_far_in_future(time: Millis, series: &str) -> String {
    let reason = format!(
        "received a sample whose timestamp is too far in the future, timestamp: {time} series: {series}"
    );
    refusal(reason, "too-far-in-future", "creation_grace_period")
}

/// 400: a sample from too far in the past.
#[must_use]
pub fn too_far_in_past(time: Millis, series: &str) -> String {
    let reason = format!(
        "received a sample whose timestamp is too far in the past, timestamp: {time} series: {series}"
    );
    refusal(reason, "too-far-in-past", "past_grace_period")
}

/// 400: a native histogram where none are taken. Mimir leaves them out without a word, and has no id for it.
#[must_use]
pub fn no_native_histograms() -> String {
    "native histograms are not taken of this tenant (native_histograms_ingestion_enabled)"
        .to_owned()
}

/// 400: a native histogram of too many buckets, of which nobody wants fewer.
#[must_use]
pub fn too_many_native_buckets(buckets: usize, limit: usize) -> String {
    let reason = format!(
        "received a native histogram sample with too many buckets, buckets: {buckets} limit: {limit}"
    );
    let names = "max_native_histogram_buckets or reduce_native_histogram_over_max_buckets";
    refusal(reason, "max-native-histogram-buckets", names)
}

/// 400: a native histogram of too many buckets, also at the coarsest resolution.
#[must_use]
pub fn not_reducible_native_buckets(buckets: usize, limit: usize) -> String {
    let reason = format!(
        "received a native histogram sample with too many buckets, which cannot be reduced enough, buckets: {buckets} \
         limit: {limit}"
    );
    let name = "max_native_histogram_buckets";
    refusal(reason, "not-reducible-native-histogram", name)
}

/// 400: a sample that is too old.
#[must_use]
pub fn too_old(time: Millis, series: &str) -> String {
    let reason = format!(
        "the sample has been rejected because it is older than the retention or the out-of-order time window: \
         timestamp {time} is out of bounds, from series {series}"
    );
    refusal(
        reason,
        "sample-timestamp-too-old",
        "out_of_order_time_window, the retention (trefoil cluster retention) or the node's out_of_order_window_hours, whichever is shortest",
    )
}

/// 422: a range query over too long a time.
#[must_use]
pub fn query_too_long(length: Millis, limit: Span) -> String {
    let reason = format!(
        "the total query time range exceeds the limit (query length: {}, limit: {})",
        format_duration(length),
        format_duration(limit.0)
    );
    refusal(reason, "max-total-query-length", "max_total_query_length")
}

/// 422: too many series in one query.
#[must_use]
pub fn too_many_fetched_series(limit: u64) -> String {
    let reason = format!("the query exceeded the maximum number of series (limit: {limit} series)");
    refusal(
        reason,
        "max-series-per-query",
        "max_fetched_series_per_query",
    )
}

/// 422: too many samples in one query.
#[must_use]
pub fn too_many_fetched_bytes(limit: u64) -> String {
    let reason =
        format!("the query exceeded the aggregated chunks size limit (limit: {limit} bytes)");
    let name = "max_fetched_chunk_bytes_per_query";
    refusal(reason, "max-chunks-bytes-per-query", name)
}

/// 422: results that take too much memory.
#[must_use]
pub fn too_much_memory(limit: u64) -> String {
    let reason = format!(
        "the query exceeded the maximum allowed estimated amount of memory consumed by a single query (limit: {limit} bytes)"
    );
    let name = "max_estimated_memory_consumption_per_query";
    refusal(reason, "max-estimated-memory-consumption-per-query", name)
}

/// 422: too long a text.
#[must_use]
pub fn expression_too_large(bytes: usize, limit: usize) -> String {
    let reason = format!(
        "the raw query size in bytes exceeds the limit (query size: {bytes}, limit: {limit})"
    );
    let name = "max_query_expression_size_bytes";
    refusal(reason, "max-query-expression-size-bytes", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_the_id() {
        let text = too_many_series(7);
        let expected = "per-user series limit of 7 exceeded (err-mimir-max-series-per-user). To adjust it, change \
                        the tenant's limit max_global_series_per_user.";
        assert_eq!(text, expected);
        let text = crate::remote_write::refused_of_series(&text, &trefoil_model::Labels::empty());
        assert!(
            text.ends_with("max_global_series_per_user, in series {}"),
            "{text}"
        );
    }
}
