//! Numbers and times as Prometheus writes and reads them.

use crate::ApiError;
use std::{io::Write, time::Duration};
use trefoil_model::Millis;

/// The latest time that requests can name; with it nanoseconds still fit 64 bits.
pub(crate) const TIME_MAX: Millis = i64::MAX / 1_000_000;
/// The earliest time that requests can name.
pub(crate) const TIME_MIN: Millis = -TIME_MAX;

/// Prometheus' own bounds of time, as its clients send them.
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Numbers with a fraction between these are written without an exponent by `zmij`, too.
const PLAIN_MIN: f64 = 1e-5;
const PLAIN_MAX: f64 = 1e15;

/// Appends a sample's value: the shortest digits that read back the same, plain between 1e-6 and
/// 1e21 and with an exponent of at least two digits outside, `NaN`, `+Inf`, `-Inf`.
///
/// Source: `jsonutil.MarshalFloat` of Prometheus over Go's `strconv.AppendFloat`.
pub(crate) fn write_float(out: &mut Vec<u8>, value: f64) {
    // Writing into memory does not fail.
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.fract() == 0.0 && value.abs() < 1e15 && value.to_bits() != 1 << 63 {
        write_integer(out, value as i64);
    } else if (PLAIN_MIN..PLAIN_MAX).contains(&value.abs()) {
        let mut digits = zmij::Buffer::new();
        out.extend_from_slice(digits.format_finite(value).as_bytes());
    } else if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        drop(write!(out, "{digits}e{sign}{exponent:0>2}"));
    } else {
        drop(write!(out, "{value}"));
    }
}

/// Appends a whole number.
pub(crate) fn write_integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A bucket's bound or a quantile as label value: the shortest digits, always with a point or an
/// exponent (`1.0`, `0.005`, `1e+06`), `+Inf`.
///
/// Source: `FormatOpenMetricsFloat` of Prometheus over Go's format `g`.
pub(crate) fn write_bound(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Go turns to exponents where the digits before the point would be more than 21, or 6 for `%g` of
    // the shortest form; it is the latter here.
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    match value.fract() == 0.0 {
        true => format!("{value:.1}"),
        false => format!("{value}"),
    }
}

/// Appends a time as seconds, with three digits behind the point unless they are all zero.
///
/// Source: `jsonutil.MarshalTimestamp` of Prometheus.
pub(crate) fn write_time(out: &mut Vec<u8>, time: Millis) {
    if time < 0 {
        out.push(b'-');
    }
    let (seconds, millis) = (time.unsigned_abs() / 1000, time.unsigned_abs() % 1000);
    write_integer(out, seconds);
    if millis != 0 {
        let digit = |unit: u64| b'0' + (millis / unit % 10) as u8;
        out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
    }
}

/// A time as RFC 3339 in UTC, in whole milliseconds where they are not zero.
#[must_use]
pub fn format_rfc3339(time: Millis) -> String {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let (days, in_day) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    // Days of a calendar that begins on the first of March of year 0, in which leap days end years.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year_of_era, month + 3),
        _ => (era * 400 + year_of_era + 1, month - 9),
    };
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let date = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match millis {
        0 => format!("{date}Z"),
        millis => format!("{date}.{millis:03}Z"),
    }
}

/// Reads the time parameter `name`: seconds since 1970 with a fraction, or RFC 3339.
///
/// # Errors
/// [`ApiError::BadData`] in Prometheus' words.
pub(crate) fn parse_time(name: &str, text: &str) -> Result<Millis, ApiError> {
    read_time(text).map_err(|reason| ApiError::parameter(name, reason))
}

/// As [`parse_time`], where Prometheus says for which parameter the time was once more: where it need not be there.
///
/// # Errors
/// [`ApiError::BadData`] in Prometheus' words.
pub(crate) fn parse_optional_time(name: &str, text: &str) -> Result<Millis, ApiError> {
    read_time(text).map_err(|reason| {
        ApiError::parameter(name, format!("invalid time value for '{name}': {reason}"))
    })
}

fn read_time(text: &str) -> Result<Millis, String> {
    if let Some(seconds) = parse_finite(text) {
        let whole = seconds.trunc();
        let millis = ((seconds - whole) * 1000.0).round();
        // `as` saturates, and the clamp keeps later arithmetic from overflowing.
        let time = (whole as i64)
            .saturating_mul(1000)
            .saturating_add(millis as i64);
        return Ok(time.clamp(TIME_MIN, TIME_MAX));
    }
    match text {
        MIN_TIME_TEXT => Some(TIME_MIN),
        MAX_TIME_TEXT => Some(TIME_MAX),
        _ => parse_rfc3339(text),
    }
    .ok_or_else(|| format!("cannot parse {text:?} to a valid timestamp"))
}

/// Reads the duration parameter `name`: seconds with a fraction, or `1h30m` as in PromQL. Negative
/// ones are possible as numbers. Returns milliseconds.
///
/// # Errors
/// [`ApiError::BadData`] in Prometheus' words.
pub(crate) fn parse_duration(name: &str, text: &str) -> Result<Millis, ApiError> {
    let refuse = |more: &str| {
        let reason = format!("cannot parse {text:?} to a valid duration{more}");
        ApiError::parameter(name, reason)
    };
    if let Some(seconds) = parse_finite(text) {
        if seconds.abs() * 1e9 > i64::MAX as f64 {
            return Err(refuse(". It overflows int64"));
        }
        return Ok((seconds * 1000.0) as i64);
    }
    parse_units(text).ok_or_else(|| refuse(""))
}

/// As [`parse_duration`], for durations that cannot be negative.
pub(crate) fn parse_span(name: &str, text: &str) -> Result<Duration, ApiError> {
    let millis = parse_duration(name, text)?;
    u64::try_from(millis)
        .map(Duration::from_millis)
        .map_err(|_| ApiError::parameter(name, "duration must not be negative"))
}

/// A number as Go reads it, without infinities and NaN.
fn parse_finite(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// `1w2d3h4m5s6ms`: every unit at most once, from large to small.
pub(crate) fn parse_units(text: &str) -> Option<Millis> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 24 * 60 * 60 * 1000),
        ("w", 7 * 24 * 60 * 60 * 1000),
        ("d", 24 * 60 * 60 * 1000),
        ("h", 60 * 60 * 1000),
        ("m", 60 * 1000),
        ("s", 1000),
        ("ms", 1),
    ];
    let mut rest = text;
    let mut total = 0i64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let length = behind
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(length);
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        let part = number.parse::<i64>().ok()?.checked_mul(*factor)?;
        total = total.checked_add(part)?;
        rest = behind;
    }
    (!text.is_empty() && total <= TIME_MAX).then_some(total)
}

/// `2006-01-02T15:04:05[.999](Z|+01:00)`.
fn parse_rfc3339(text: &str) -> Option<Millis> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return None;
    }
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators
        .iter()
        .any(|(at, separator)| bytes[*at] != *separator)
    {
        return None;
    }
    let number = |from: usize, to: usize, max: i64| digits(&text[from..to], max);
    let (year, month) = (number(0, 4, 9999)?, number(5, 7, 12)?);
    let day = number(8, 10, days_of_month(year, month)?)?;
    let (hour, minute, second) = (
        number(11, 13, 23)?,
        number(14, 16, 59)?,
        number(17, 19, 59)?,
    );
    if day == 0 {
        return None;
    }
    let (millis, zone) = read_fraction(&text[19..])?;
    let offset = read_zone(zone)?;
    let days = days_since_1970(year, month, day);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(seconds * 1000 + millis)
}

/// A number of decimal digits only, up to `max`.
fn digits(text: &str, max: i64) -> Option<i64> {
    let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number: i64 = text.parse().ok().filter(|_| all_digits)?;
    (number <= max).then_some(number)
}

/// Reads `.123456` into milliseconds, cut, and returns what stands behind it.
fn read_fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix(['.', ',']) else {
        return Some((0, text));
    };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    if end == 0 {
        return None;
    }
    let millis = format!("{:0<3}", &rest[..end]);
    Some((digits(&millis[..3], 999)?, &rest[end..]))
}

/// Reads `Z` or `+01:30` into seconds east of UTC.
fn read_zone(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    Some(sign * (digits(hours, 23)? * 3600 + digits(minutes, 59)? * 60))
}

fn days_of_month(year: i64, month: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if is_leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Source: H. Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn times_are_written_as_dates() {
        for (time, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(format_rfc3339(time), expected);
            assert_eq!(parse_time("t", expected).ok(), Some(time), "{expected}");
        }
    }

    #[test]
    fn floats() {
        let check = |value: f64, expected: &str| {
            let mut out = Vec::new();
            write_float(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(0.0, "0");
        check(-0.0, "-0");
        check(1.0, "1");
        check(-12.5, "-12.5");
        check(0.1 + 0.2, "0.30000000000000004");
        check(1e15, "1000000000000000");
        check(123_456_789_012_345_680.0, "123456789012345680");
        check(1e20, "100000000000000000000");
        check(1e21, "1e+21");
        check(1.5e300, "1.5e+300");
        check(-2e-7, "-2e-07");
        check(1e-6, "0.000001");
        check(9.9e-7, "9.9e-07");
        check(5e-324, "5e-324");
        check(f64::MAX, "1.7976931348623157e+308");
        check(f64::NAN, "NaN");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
        check(1_700_000_000.123, "1700000000.123");
        check(930_729_824_134_286.0 + 0.25, "930729824134286.2");
    }

    #[test]
    fn random_floats_are_the_shortest_digits() {
        let mut random = StdRng::seed_from_u64(5);
        for _ in 0..200_000 {
            let value = match random.random_range(0..3) {
                0 => f64::from_bits(random.random::<u64>() & !(1 << 62)),
                1 => f64::from(random.random::<i32>()) / 10f64.powi(random.random_range(0..18)),
                _ => random.random_range(-1e18..1e18),
            };
            let mut out = Vec::new();
            write_float(&mut out, value);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(
                text.parse().map(f64::to_bits),
                Ok(value.to_bits()),
                "{text}"
            );
            if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
                // Of two that are equally near, `std` takes the greater one and Go the even one.
                assert_eq!(text.len(), format!("{value}").len(), "{text}");
            }
        }
    }

    #[test]
    fn written_times() {
        let check = |time: i64, expected: &str| {
            let mut out = Vec::new();
            write_time(&mut out, time);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(0, "0");
        check(1_700_000_000_000, "1700000000");
        check(1_700_000_000_500, "1700000000.500");
        check(1_001, "1.001");
        check(1_020, "1.020");
        check(-1_500, "-1.500");
        check(-1, "-0.001");
        check(i64::MIN, "-9223372036854775.808");
    }

    #[test]
    fn read_times() {
        let check = |text: &str, expected: i64| {
            assert_eq!(parse_time("time", text), Ok(expected), "{text}");
        };
        check("0", 0);
        check("1435781430.781", 1_435_781_430_781);
        check("-1.5", -1500);
        check("1e3", 1_000_000);
        check("1e300", TIME_MAX);
        check("2015-07-01T20:10:30.781Z", 1_435_781_430_781);
        check("2015-07-01T22:10:30+02:00", 1_435_781_430_000);
        check("2015-07-01T18:40:30-01:30", 1_435_781_430_000);
        check("1970-01-01T00:00:00Z", 0);
        check("1969-12-31T23:59:59.5Z", -500);
        check("2024-02-29T00:00:00.1234567Z", 1_709_164_800_123);
        check(MIN_TIME_TEXT, TIME_MIN);
        check(MAX_TIME_TEXT, TIME_MAX);
        for bad in [
            "",
            "now",
            "NaN",
            "inf",
            "2015-07-01",
            "2015-13-01T00:00:00Z",
            "2015-02-29T00:00:00Z",
            "2015-07-01T24:00:00Z",
            "2015-07-01T20:10:30",
            "2015-07-01T20:10:30.Z",
            "2015-07-00T20:10:30Z",
            "2015-07-01 20:10:30Z",
            "2015-07-01T20:10:30+1:00",
            "+015-07-01T20:10:30Z",
        ] {
            let error = parse_time("time", bad).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("invalid parameter \"time\": cannot parse {bad:?} to a valid timestamp")
            );
        }
    }

    #[test]
    fn read_durations() {
        let check = |text: &str, expected: i64| {
            assert_eq!(parse_duration("step", text), Ok(expected), "{text}");
        };
        check("15", 15_000);
        check("0.5", 500);
        check("-3", -3000);
        check("15s", 15_000);
        check("1h30m", 5_400_000);
        check("1y2w3d4h5m6s7ms", 33_019_506_007);
        check("100ms", 100);
        check("0s", 0);
        for bad in [
            "",
            "x",
            "s",
            "1m1h",
            "1s1s",
            "1.5h",
            "-5m",
            "1e400",
            "99999999999999y",
        ] {
            let error = parse_duration("step", bad).unwrap_err().to_string();
            assert!(
                error.contains(&format!("cannot parse {bad:?} to a valid duration")),
                "{error}"
            );
        }
        let error = parse_duration("step", "1e12").unwrap_err().to_string();
        assert!(error.ends_with("It overflows int64"), "{error}");
        assert!(parse_span("timeout", "-1").is_err());
    }
    #[test]
    fn random_texts_never_panic() {
        let mut random = StdRng::seed_from_u64(4);
        let characters: Vec<char> = "0123456789-+:.TZeEsmhdwy \u{e9}".chars().collect();
        let real = "2015-07-01T20:10:30.781+02:00";
        for _ in 0..50_000 {
            let mut text: Vec<char> = real.chars().collect();
            for _ in 0..random.random_range(0..6) {
                let at = random.random_range(0..text.len());
                text[at] = characters[random.random_range(0..characters.len())];
            }
            text.truncate(random.random_range(0..=text.len()));
            let text: String = text.into_iter().collect();
            drop(parse_time("time", &text));
            drop(parse_duration("step", &text));
        }
    }
}
