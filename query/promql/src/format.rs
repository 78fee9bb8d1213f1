//! How numbers and durations are written.

use trefoil_model::Millis;

/// A number as Prometheus' API and labels show it: shortest form that reads back the same, without exponent.
#[must_use]
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value}")
}

/// A number as Go's `%g` writes it: with an exponent below 1e-4 and from 1e6 on.
#[must_use]
pub(crate) fn general(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() || magnitude == 0.0 || (1e-4..1e6).contains(&magnitude) {
        return number(value);
    }
    let text = format!("{value:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A number as OpenMetrics writes it in labels: with a decimal point or an exponent, `0.0` for zero.
#[must_use]
pub(crate) fn open_metrics(value: f64) -> String {
    let text = general(value);
    if value.is_finite() && !text.contains(['.', 'e']) {
        return text + ".0";
    }
    text
}

/// A duration as Prometheus writes it: `1h30m`, `500ms`, `0s`.
#[must_use]
pub fn duration(milliseconds: Millis) -> String {
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let mut text = if milliseconds < 0 { "-" } else { "" }.to_owned();
    let mut rest = milliseconds.unsigned_abs();
    // Years and weeks only when they are exact, as months and leap years would mislead otherwise.
    for (unit, length, exact) in [
        ("y", 31_536_000_000, true),
        ("w", 604_800_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ] {
        if (exact && !rest.is_multiple_of(length)) || rest < length {
            continue;
        }
        text.push_str(&format!("{}{unit}", rest / length));
        rest %= length;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_those_of_the_peer() {
        assert_eq!(number(1e21), "1000000000000000000000");
        assert_eq!(number(f64::INFINITY), "+Inf");
        assert_eq!(general(1.1), "1.1");
        assert_eq!(general(1.5e-7), "1.5e-07");
        assert_eq!(general(999_999.5), "999999.5");
        assert_eq!(general(-1_234_567.0), "-1.234567e+06");
        assert_eq!(general(1e22), "1e+22");
        assert_eq!(open_metrics(1.0), "1.0");
        assert_eq!(open_metrics(0.25), "0.25");
        assert_eq!(duration(5_400_000), "1h30m");
        assert_eq!(duration(604_800_000), "1w");
        assert_eq!(duration(691_200_000), "8d");
        assert_eq!(duration(-1_500), "-1s500ms");
    }
}
