//! A tenant's limits on what it asks: length of the text, length and age of the times, number of series.

use crate::{
    ApiError, InstantQuery, RangeQuery, TenantLimits,
    limit_refusals::{expression_too_large, query_too_long},
};
use trefoil_model::Millis;
use trefoil_query_promql::{QueryData, QueryError, QueryResult, SeriesFilter};

/// What is left of a question within the limits.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Limited<T> {
    /// To be asked, perhaps about shorter times.
    Ask(T),
    /// All of it is about times that the tenant does not see: the answer is empty.
    Nothing,
}

/// An instant query within the limits.
///
/// # Errors
/// [`QueryError::Execution`] for a text that is too long.
pub(super) fn instant(
    limits: &TenantLimits,
    query: InstantQuery,
    now: Millis,
) -> Result<Limited<InstantQuery>, ApiError> {
    check_expression(limits, &query.query)?;
    let is_too_old = oldest(limits, now).is_some_and(|oldest| query.time < oldest);
    Ok(if is_too_old {
        Limited::Nothing
    } else {
        Limited::Ask(query)
    })
}

/// A range query within the limits: it begins at the first of its steps that the tenant sees.
///
/// # Errors
/// [`QueryError::Execution`] for a text that is too long, or too long a time.
pub(super) fn range(
    limits: &TenantLimits,
    mut query: RangeQuery,
    now: Millis,
) -> Result<Limited<RangeQuery>, ApiError> {
    check_expression(limits, &query.query)?;
    if let Some(oldest) = oldest(limits, now).filter(|oldest| query.start < *oldest) {
        let steps = (oldest - query.start + query.step - 1) / query.step;
        query.start += steps * query.step;
        if query.start > query.end {
            return Ok(Limited::Nothing);
        }
    }
    length(limits, query.start, query.end)?;
    Ok(Limited::Ask(query))
}

/// Whether a query may be about what the tenant sees of these times.
///
/// # Errors
/// As [`length`].
pub(super) fn seen_length(
    limits: &TenantLimits,
    (start, end): (Millis, Millis),
    now: Millis,
) -> Result<(), ApiError> {
    let oldest = oldest(limits, now).unwrap_or(Millis::MIN);
    length(limits, start.max(oldest), end)
}

/// Whether a query may be about so long a time.
///
/// # Errors
/// [`QueryError::Execution`] when it may not.
pub(super) fn length(limits: &TenantLimits, start: Millis, end: Millis) -> Result<(), ApiError> {
    let length = end.saturating_sub(start);
    let longest = limits.max_total_query_length;
    match longest.some().is_some_and(|longest| length > longest) {
        true => Err(refused(query_too_long(length, longest))),
        false => Ok(()),
    }
}

/// A question about labels or series within the limits.
pub(super) fn listing(
    limits: &TenantLimits,
    mut filter: SeriesFilter,
    now: Millis,
) -> Limited<SeriesFilter> {
    let of_length = limits.max_labels_query_length.some();
    let of_length = of_length.map(|length| filter.end.min(now) - length);
    let first = oldest(limits, now).into_iter().chain(of_length).max();
    filter.start = first.map_or(filter.start, |first| filter.start.max(first));
    if filter.start > filter.end {
        return Limited::Nothing;
    }
    Limited::Ask(filter)
}

/// The empty answer to an instant query.
pub(super) fn empty_vector() -> QueryResult {
    empty(QueryData::Vector(Vec::new()))
}

/// The empty answer to a range query.
pub(super) fn empty_matrix() -> QueryResult {
    empty(QueryData::Matrix(Vec::new()))
}

fn empty(data: QueryData) -> QueryResult {
    QueryResult {
        data,
        warnings: Vec::new(),
        infos: Vec::new(),
        samples_peak: 0,
    }
}

fn oldest(limits: &TenantLimits, now: Millis) -> Option<Millis> {
    limits.max_query_lookback.some().map(|back| now - back)
}

fn check_expression(limits: &TenantLimits, text: &str) -> Result<(), ApiError> {
    let limit = limits.max_query_expression_size_bytes;
    if limit > 0 && text.len() > limit {
        return Err(refused(expression_too_large(text.len(), limit)));
    }
    Ok(())
}

fn refused(reason: String) -> ApiError {
    QueryError::Execution(reason).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Span;
    use std::time::Instant;

    fn query(start: Millis, end: Millis) -> RangeQuery {
        RangeQuery {
            query: "up".into(),
            start,
            end,
            step: 10,
            look_back: None,
            source_resolution_max_ms: 0,
            deadline: Instant::now(),
            partial: false,
            anew: false,
            limit: 0,
            counts_samples: false,
        }
    }

    #[test]
    fn old_times_are_not_seen() {
        let limits = TenantLimits {
            max_query_lookback: Span(100),
            max_labels_query_length: Span(50),
            max_total_query_length: Span(90),
            ..TenantLimits::default()
        };
        let range = |start, end| match range(&limits, query(start, end), 1000) {
            Ok(Limited::Ask(query)) => Ok(Some((query.start, query.end))),
            Ok(Limited::Nothing) => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(range(950, 1000), Ok(Some((950, 1000))));
        // Its steps stay where they were.
        assert_eq!(range(855, 980), Ok(Some((905, 980))));
        assert_eq!(range(100, 200), Ok(None));
        assert_eq!(range(895, 899), Ok(None));
        let error = range(905, 1000).unwrap_err();
        assert!(
            error.contains("err-mimir-max-total-query-length"),
            "{error}"
        );
        let listing = |start, end| {
            let filter = SeriesFilter {
                alternatives: Vec::new(),
                start,
                end,
                limit: 0,
            };
            match listing(&limits, filter, 1000) {
                Limited::Ask(filter) => Some((filter.start, filter.end)),
                Limited::Nothing => None,
            }
        };
        assert_eq!(listing(990, 1000), Some((990, 1000)));
        assert_eq!(listing(0, 960), Some((910, 960)));
        assert_eq!(listing(0, 5000), Some((950, 5000)));
        assert_eq!(listing(0, 899), None);
    }

    #[test]
    fn long_texts_are_refused() {
        let limits = TenantLimits {
            max_query_expression_size_bytes: 1,
            ..TenantLimits::default()
        };
        let error = range(&limits, query(1, 2), 3).unwrap_err();
        assert_eq!(error.status(), 422);
        assert!(range(&TenantLimits::default(), query(1, 2), 3).is_ok());
    }
}
