//! Sums that carry their rounding errors.

/// Adds `value` to a compensated sum; what rounding takes goes to `lost` (Neumaier 1974). The sum's value is
/// `sum + lost`. An infinite sum forgets what was lost, so that it stays infinite.
#[inline]
pub fn add_compensated(sum: &mut f64, lost: &mut f64, value: f64) {
    let total = *sum + value;
    if total.is_infinite() {
        *lost = 0.0;
    } else if sum.abs() >= value.abs() {
        *lost += (*sum - total) + value;
    } else {
        *lost += (value - total) + *sum;
    }
    *sum = total;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_survive_large_ones() {
        let (mut sum, mut lost) = (0.0, 0.0);
        for value in [1.0, 1e100, 1.0, -1e100] {
            add_compensated(&mut sum, &mut lost, value);
        }
        assert_eq!(sum + lost, 2.0);
        add_compensated(&mut sum, &mut lost, f64::INFINITY);
        assert_eq!((sum, lost), (f64::INFINITY, 0.0));
    }
}
