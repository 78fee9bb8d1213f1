//! Quantiles of plain values.

use std::cmp::Ordering;

/// Orders NaN before all numbers.
pub(crate) fn nan_first(a: &f64, b: &f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
    }
}

/// The `q`-quantile by linear interpolation; sorts `values`. NaN without values or for a NaN `q`;
/// infinite for a `q` outside of 0 to 1.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(nan_first);
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = rank.floor();
    let weight = rank - lower;
    let lower = lower as usize;
    let upper = (lower + 1).min(last);
    values[lower] * (1.0 - weight) + values[upper] * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let check = |q: f64, values: &[f64], expected: f64| {
            assert_eq!(quantile(q, &mut values.to_vec()), expected);
        };
        check(0.5, &[3.0, 1.0], 2.0);
        check(0.25, &[1.0, 2.0, 3.0, 4.0, 5.0], 2.0);
        check(1.0, &[1.0, f64::NAN, 7.0], 7.0);
        check(-0.1, &[1.0], f64::NEG_INFINITY);
        check(1.1, &[1.0], f64::INFINITY);
        assert!(quantile(f64::NAN, &mut [1.0]).is_nan());
    }
}
