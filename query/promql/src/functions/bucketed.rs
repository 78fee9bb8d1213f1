//! Functions of a range that is made of whole buckets, worked out from aggregates instead of samples.
//!
//! Only functions for which that is exact: aggregates have the range's first and last sample, their number, sum, extremes and what
//! resets of a counter took away, which is all that extrapolation asks for. The answers are those of the samples, apart from the
//! order in which numbers are added.

use super::window::{Extent, extrapolation_of};
use crate::function::WindowFunction;
use trefoil_model::{Aggregate, Millis};

/// Whether a function can be worked out from aggregates.
pub(crate) fn is_exact(function: WindowFunction) -> bool {
    use WindowFunction as F;
    matches!(
        function,
        F::Rate
            | F::Increase
            | F::Delta
            | F::AvgOverTime
            | F::SumOverTime
            | F::CountOverTime
            | F::MinOverTime
            | F::MaxOverTime
            | F::PresentOverTime
            | F::FirstOverTime
            | F::LastOverTime
            | F::TsOfFirstOverTime
            | F::TsOfLastOverTime
    )
}

/// The function's value over the range `(start, end]` with these buckets; `None` when it has too few samples, or for a function that
/// is not [exact](is_exact).
pub(crate) fn apply(
    function: WindowFunction,
    buckets: &[Aggregate],
    (start, end): (Millis, Millis),
) -> Option<f64> {
    use WindowFunction as F;
    let (first, more) = buckets.split_first()?;
    let mut all = *first;
    more.iter().for_each(|bucket| all.join(bucket));
    if all.count == 0 {
        return None;
    }
    let seconds = |time: Millis| time as f64 / 1000.0;
    Some(match function {
        F::Rate => return extrapolated(&all, (start, end), true, true),
        F::Increase => return extrapolated(&all, (start, end), true, false),
        F::Delta => return extrapolated(&all, (start, end), false, false),
        F::AvgOverTime => all.sum / all.count as f64,
        F::SumOverTime => all.sum,
        F::CountOverTime => all.count as f64,
        F::MinOverTime => all.min,
        F::MaxOverTime => all.max,
        F::PresentOverTime => 1.0,
        F::FirstOverTime => all.first,
        F::LastOverTime => all.last,
        F::TsOfFirstOverTime => seconds(all.first_time),
        F::TsOfLastOverTime => seconds(all.last_time),
        _ => return None,
    })
}

fn extrapolated(
    all: &Aggregate,
    (start, end): (Millis, Millis),
    counter: bool,
    per_second: bool,
) -> Option<f64> {
    let gaps = usize::try_from(all.count).ok()?.checked_sub(1)?;
    if gaps == 0 {
        return None;
    }
    let mut increase = all.last - all.first;
    if counter {
        increase += all.dropped;
    }
    let extent = Extent {
        first: all.first_time,
        last: all.last_time,
        gaps,
        start,
        end,
    };
    let of_counter = counter.then_some((all.first, increase));
    Some(increase * extrapolation_of(&extent, of_counter, None, per_second))
}
