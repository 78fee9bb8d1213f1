//! The values of JSON lines, to the bit.
//!
//! ```text
//! 1.5  -0  1e+300                the shortest digits that read back the same
//! "Infinity"  "-Infinity"
//! null                           the stale marker: the series pauses
//! "NaN"                          0x7ff8000000000000
//! "NaN(0x7ff8000000000001)"      any other NaN, by its bits
//! {"schema":...}                 a native histogram
//! ```
//! VictoriaMetrics keeps no other NaN than the stale marker and exports that as `null`; it knows neither the form with
//! bits nor histograms.

use super::histogram;
use crate::{
    ApiError,
    json_reader::{JsonKind, JsonReader},
    number::write_float,
};
use std::{io::Write, sync::Arc};
use trefoil_model::Histogram;
use trefoil_query_promql::{STALE_MARKER_BITS, is_stale};

/// A value of a line.
pub(super) enum Value {
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// Appends a number.
pub(super) fn write_number(out: &mut Vec<u8>, value: f64) {
    if is_stale(value) {
        out.extend_from_slice(b"null");
    } else if value.to_bits() == f64::NAN.to_bits() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_nan() {
        // Writing into memory does not fail.
        drop(write!(out, "\"NaN({:#018x})\"", value.to_bits()));
    } else if value.is_infinite() {
        let text: &[u8] = match value > 0.0 {
            true => b"\"Infinity\"",
            false => b"\"-Infinity\"",
        };
        out.extend_from_slice(text);
    } else {
        write_float(out, value);
    }
}

/// Reads a number or a histogram.
///
/// # Errors
/// [`ApiError::BadLine`].
pub(super) fn read(reader: &mut JsonReader<'_>) -> Result<Value, ApiError> {
    match reader.kind()? {
        JsonKind::Object => histogram::read(reader).map(Value::Histogram),
        _ => read_number(reader).map(Value::Float),
    }
}

/// Reads a number.
///
/// # Errors
/// [`ApiError::BadLine`].
pub(super) fn read_number(reader: &mut JsonReader<'_>) -> Result<f64, ApiError> {
    match reader.kind()? {
        JsonKind::Null => reader.null().map(|()| f64::from_bits(STALE_MARKER_BITS)),
        JsonKind::Text => match &*reader.text()? {
            "NaN" => Ok(f64::NAN),
            "Infinity" | "+Inf" | "Inf" => Ok(f64::INFINITY),
            "-Infinity" | "-Inf" => Ok(f64::NEG_INFINITY),
            other => {
                let nan = nan_of(other);
                nan.ok_or_else(|| reader.wrong(format!("{other:?} is not a value")))
            }
        },
        _ => {
            let text = reader.number()?;
            let value = text.parse().ok().filter(|value: &f64| value.is_finite());
            value.ok_or_else(|| reader.wrong(format!("{text} is not a value")))
        }
    }
}

/// `NaN(0x...)`: sixteen digits that stand for no number.
fn nan_of(text: &str) -> Option<f64> {
    let digits = text.strip_prefix("NaN(0x")?.strip_suffix(')')?;
    let are_digits = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = u64::from_str_radix(digits, 16).ok().filter(|_| are_digits);
    // The bits that hold a histogram's place inside are no value of anybody.
    let value = f64::from_bits(bits?);
    (value.is_nan() && !trefoil_query_promql::is_histogram(value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_reads_back_the_same() {
        let check = |bits: u64, expected: &str| {
            let mut out = Vec::new();
            write_number(&mut out, f64::from_bits(bits));
            assert_eq!(String::from_utf8_lossy(&out), expected);
            let read = read_number(&mut JsonReader::new(&out)).unwrap();
            assert_eq!(read.to_bits(), bits, "{expected}");
        };
        check(STALE_MARKER_BITS, "null");
        check(f64::NAN.to_bits(), "\"NaN\"");
        check(0x7ff8_0000_0000_0001, "\"NaN(0x7ff8000000000001)\"");
        check(0xfff8_0000_0000_0000, "\"NaN(0xfff8000000000000)\"");
        check(f64::INFINITY.to_bits(), "\"Infinity\"");
        check(f64::NEG_INFINITY.to_bits(), "\"-Infinity\"");
        check((-0.0f64).to_bits(), "-0");
        check(0.1f64.to_bits(), "0.1");
        check(f64::MAX.to_bits(), "1.7976931348623157e+308");
        check(1, "5e-324");
    }

    #[test]
    fn bits_of_numbers_are_no_nan() {
        for text in [
            "NaN(0x0000000000000000)",
            "NaN(0x7ff0000000000004)",
            "NaN(0x7ff800000000001)",
            "NaN(0x+ff8000000000000)",
            "NaN(0x7ff8000000000000",
        ] {
            assert!(nan_of(text).is_none(), "{text}");
        }
    }
}
