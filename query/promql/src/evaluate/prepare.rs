//! What is done to the samples of a series before any function sees them.

use crate::{
    SampleColumns,
    row::{Cell, cell},
    storage::is_stale,
};
use std::sync::Arc;
use trefoil_model::{Histogram, ResetHint};

/// Removes stale markers, which ranges do not contain.
pub(crate) fn drop_stale(columns: &mut SampleColumns) {
    // No early end: so it is worked out for several at once.
    let any = |found, value: &f64| found | is_stale(*value);
    if !columns.values.iter().fold(false, any) {
        return;
    }
    if !columns.histograms.is_empty() || !columns.start_timestamps.is_empty() {
        return drop_stale_of_all(columns);
    }
    let mut kept = 0;
    for at in 0..columns.values.len() {
        if !is_stale(columns.values[at]) {
            columns.values[kept] = columns.values[at];
            columns.timestamps[kept] = columns.timestamps[at];
            kept += 1;
        }
    }
    columns.values.truncate(kept);
    columns.timestamps.truncate(kept);
}

/// The same for series with histograms or start timestamps.
fn drop_stale_of_all(columns: &mut SampleColumns) {
    let mut kept = SampleColumns::default();
    for at in 0..columns.values.len() {
        let time = columns.timestamps[at];
        match cell(&columns.values, &columns.histograms, at) {
            Cell::Absent => continue,
            Cell::Float(value) => kept.push(time, value),
            Cell::Histogram(histogram) => kept.push_histogram(time, histogram),
        }
        let start = columns.start_timestamps.get(at).copied();
        kept.set_last_start(start.unwrap_or(0));
    }
    *columns = kept;
}

/// Compares histograms of which nothing is known with the ones in front of them, and says in their hints what is found.
///
/// Prometheus does so where a query wants only counts and sums, so that its remarks about resets that collide depend on it.
pub(crate) fn detect_resets(columns: &mut SampleColumns) {
    let mut before: Option<Arc<Histogram>> = None;
    for at in 0..columns.values.len() {
        let Cell::Histogram(histogram) = cell(&columns.values, &columns.histograms, at) else {
            continue;
        };
        if let (ResetHint::Unknown, Some(before)) = (histogram.reset_hint, &before) {
            let mut hinted = Histogram::clone(&histogram);
            hinted.reset_hint = match histogram.is_below(before) {
                true => ResetHint::Reset,
                false => ResetHint::NotReset,
            };
            columns.histograms.put(at, Arc::new(hinted));
        }
        before = Some(histogram);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::STALE_MARKER_BITS;
    use trefoil_model::Millis;

    fn columns(samples: &[(Millis, f64)]) -> SampleColumns {
        let mut columns = SampleColumns::default();
        samples.iter().for_each(|(t, v)| columns.push(*t, *v));
        columns
    }

    #[test]
    fn stale_markers_are_dropped_from_ranges() {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        let mut samples = columns(&[(1, 1.0), (2, stale), (3, 3.0)]);
        drop_stale(&mut samples);
        assert_eq!(samples, columns(&[(1, 1.0), (3, 3.0)]));
    }
}
