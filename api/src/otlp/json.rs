//! OTLP's JSON as OTLP's protobuf.
//!
//! Whole numbers may be texts or numbers, floats may be `"NaN"`, `"Infinity"` and `"-Infinity"`, ids of
//! traces and spans are hexadecimal, other bytes base64, values of enumerations numbers or names; names of fields are
//! in lowerCamelCase, unknown ones are ignored, and `null` is the same as absent. Lengths of messages are written in five bytes, because they
//! are known only behind the message.
//!
//! Source: the JSON encoding of the OTLP specification 1.x, and protobuf's JSON mapping.

use super::schema::{self, Field, Kind, Schema};
use crate::{
    ApiError,
    json_reader::{JsonKind, JsonReader},
};
use trefoil_model::write_varint;

/// Bytes of the length of a message: seven bits each, enough for 32 GiB.
const LENGTH_BYTES: usize = 5;
/// Most bytes of a tag, and of a number with its tag.
const TAG_BYTES_MAX: usize = 5;
const NUMBER_BYTES_MAX: usize = TAG_BYTES_MAX + 10;
/// Bytes by which the output grows at least.
const GROWTH_BYTES_MIN: usize = 64 << 10;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// `ExportMetricsServiceRequest`.
    Metrics,
}

/// Writes a JSON body as protobuf into `out`, whose former content is lost. `grow` is asked before `out` takes more
/// memory, with the bytes that it will have then, and its error ends it.
///
/// # Errors
/// [`ApiError::BadLine`], and the errors of `grow`; `out` is of no use then.
pub fn transcode_json(
    export: Export,
    body: &[u8],
    out: &mut Vec<u8>,
    grow: &mut dyn FnMut(usize) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    out.clear();
    let schema = match export {
        Export::Metrics => &schema::EXPORT_METRICS,
    };
    let mut transcoder = Transcoder {
        reader: JsonReader::new(body),
        out,
        grow,
    };
    transcoder.message(schema)?;
    transcoder.reader.finish()
}

struct Transcoder<'a, 'o> {
    reader: JsonReader<'a>,
    out: &'o mut Vec<u8>,
    grow: &'o mut dyn FnMut(usize) -> Result<(), ApiError>,
}

impl Transcoder<'_, '_> {
    /// The fields of a message, without its length.
    fn message(&mut self, schema: &'static Schema) -> Result<(), ApiError> {
        self.reader.enter(b'{')?;
        let mut is_first = true;
        while self.reader.next_item(b'}', &mut is_first)? {
            let key = self.reader.key()?;
            match schema.field(&key) {
                None => self.reader.skip()?,
                Some(_) if self.reader.kind()? == JsonKind::Null => self.reader.null()?,
                Some(field) if field.repeated => {
                    self.reader.enter(b'[')?;
                    let mut is_first = true;
                    while self.reader.next_item(b']', &mut is_first)? {
                        self.value(field)?;
                    }
                }
                Some(field) => self.value(field)?,
            }
        }
        Ok(())
    }

    /// Makes room for more bytes. Every write asks for it before, so that a number of two bytes that becomes nine is
    /// counted as well as a message.
    fn reserve(&mut self, more: usize) -> Result<(), ApiError> {
        let needed = self.out.len() + more;
        if needed > self.out.capacity() {
            let doubled = self.out.capacity() * 2;
            let bytes = needed.max(doubled).max(GROWTH_BYTES_MIN);
            (self.grow)(bytes)?;
            self.out.reserve_exact(bytes - self.out.len());
        }
        Ok(())
    }

    /// Bytes with their tag.
    fn bytes(&mut self, field: &'static Field, bytes: &[u8]) -> Result<(), ApiError> {
        self.reserve(NUMBER_BYTES_MAX + bytes.len())?;
        write_varint(self.out, u64::from(field.number << 3 | 2));
        write_varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// One value with its tag.
    fn value(&mut self, field: &'static Field) -> Result<(), ApiError> {
        let tag = |wire_type: u32| u64::from(field.number << 3 | wire_type);
        match field.kind {
            Kind::Message(schema) => {
                self.reserve(TAG_BYTES_MAX + LENGTH_BYTES)?;
                write_varint(self.out, tag(2));
                let start = self.out.len();
                self.out.extend_from_slice(&[0; LENGTH_BYTES]);
                self.message(schema)?;
                let length = (self.out.len() - start - LENGTH_BYTES) as u64;
                for (index, byte) in self.out[start..start + LENGTH_BYTES].iter_mut().enumerate() {
                    let more = if index + 1 < LENGTH_BYTES { 0x80 } else { 0 };
                    *byte = (length >> (7 * index)) as u8 & 0x7f | more;
                }
            }
            Kind::Text => {
                let text = self.reader.text()?;
                self.bytes(field, text.as_bytes())?;
            }
            Kind::Bytes | Kind::Id => {
                let text = self.reader.text()?;
                let decoded = match field.kind {
                    Kind::Id => hexadecimal(&text),
                    _ => base64(&text),
                };
                let Some(bytes) = decoded else {
                    let name = field.name;
                    return Err(self
                        .reader
                        .wrong(format!("{name} is not encoded as it should be")));
                };
                self.bytes(field, &bytes)?;
            }
            Kind::Bool => {
                let value = self.reader.bool()?;
                self.reserve(NUMBER_BYTES_MAX)?;
                write_varint(self.out, tag(0));
                self.out.push(u8::from(value));
            }
            Kind::Double => {
                let value = self.float(field)?;
                self.reserve(NUMBER_BYTES_MAX)?;
                write_varint(self.out, tag(1));
                self.out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            kind => self.whole_number(field, kind)?,
        }
        Ok(())
    }

    fn whole_number(&mut self, field: &'static Field, kind: Kind) -> Result<(), ApiError> {
        let (min, max): (i128, i128) = match kind {
            Kind::Uint64 | Kind::Fixed64 => (0, u64::MAX.into()),
            Kind::Uint32 => (0, u32::MAX.into()),
            Kind::Sint32 | Kind::Enum(_) => (i32::MIN.into(), i32::MAX.into()),
            _ => (i64::MIN.into(), i64::MAX.into()),
        };
        let text = match self.reader.kind()? {
            JsonKind::Text => self.reader.text()?,
            _ => self.reader.number()?.into(),
        };
        let number = match kind {
            // A name, which may be of a later version: what is unknown costs its metric, not the request.
            Kind::Enum(names) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let known = names.iter().position(|name| *name == text);
                Some(known.unwrap_or(0) as i128)
            }
            _ => parse_whole(&text).filter(|number| (min..=max).contains(number)),
        };
        let Some(number) = number else {
            let name = field.name;
            return Err(self
                .reader
                .wrong(format!("{name} is not a whole number from {min} to {max}")));
        };
        self.reserve(NUMBER_BYTES_MAX)?;
        let is_fixed = matches!(kind, Kind::Fixed64 | Kind::Sfixed64);
        write_varint(self.out, u64::from(field.number << 3 | u32::from(is_fixed)));
        // Of negative numbers the lower 64 bits, as protobuf wants them.
        match kind {
            Kind::Fixed64 | Kind::Sfixed64 => {
                self.out.extend_from_slice(&(number as u64).to_le_bytes());
            }
            Kind::Sint32 => {
                let number = number as i32;
                let zigzag = (number << 1 ^ number >> 31) as u32;
                write_varint(self.out, zigzag.into());
            }
            _ => write_varint(self.out, number as u64),
        }
        Ok(())
    }

    fn float(&mut self, field: &'static Field) -> Result<f64, ApiError> {
        let text = match self.reader.kind()? {
            JsonKind::Text => self.reader.text()?,
            _ => self.reader.number()?.into(),
        };
        let value = match &*text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            // Not what is too large for a float, or would be an infinity in other words.
            text => text.parse().ok().filter(|value: &f64| value.is_finite()),
        };
        value.ok_or_else(|| self.reader.wrong(format!("{} is not a number", field.name)))
    }
}

/// A whole number, also written as `1e3` or `5.0`, as protobuf's mapping allows.
fn parse_whole(text: &str) -> Option<i128> {
    if let Ok(number) = text.parse::<i128>() {
        return Some(number);
    }
    let float: f64 = text.parse().ok()?;
    (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i128)
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}

/// Base64 in either alphabet, with or without padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        if group.len() == 1 {
            return None;
        }
        let mut bits = 0u32;
        for byte in group {
            bits = bits << 6 | base64_digit(*byte)?;
        }
        bits <<= 6 * (4 - group.len());
        out.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

fn base64_digit(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcode(body: &str) -> Result<Vec<u8>, ApiError> {
        let mut out = Vec::new();
        transcode_json(Export::Metrics, body.as_bytes(), &mut out, &mut |_| Ok(()))?;
        Ok(out)
    }

    #[test]
    fn a_document_becomes_a_message() {
        let body = r#"{"unknown": [{"a": null}], "resourceMetrics": [{"schemaUrl": "u", "scopeMetrics": null}]}"#;
        assert_eq!(
            transcode(body).unwrap(),
            b"\x0a\x83\x80\x80\x80\x00\x1a\x01u"
        );
        assert_eq!(transcode("{}").unwrap(), b"");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let point = |field: &str| {
            format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"gauge":{{"dataPoints":[{{{field}}}]}}}}]}}]}}]}}"#
            )
        };
        for (field, expected) in [
            (
                r#""timeUnixNano":-1"#,
                "timeUnixNano is not a whole number from 0 to 18446744073709551615",
            ),
            (
                r#""timeUnixNano":"1x""#,
                "timeUnixNano is not a whole number from 0 to 18446744073709551615",
            ),
            (r#""asDouble":"x""#, "asDouble is not a number"),
            (r#""asDouble":1e400"#, "asDouble is not a number"),
            (r#""asDouble":"1e400""#, "asDouble is not a number"),
            (
                r#""flags":4294967296"#,
                "flags is not a whole number from 0 to 4294967295",
            ),
            (
                r#""exemplars":[{"spanId":"0g"}]"#,
                "spanId is not encoded as it should be",
            ),
            (r#""attributes":{}"#, "expected an array"),
        ] {
            let error = transcode(&point(field)).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        transcode(&point(
            r#""timeUnixNano":"18446744073709551615","asInt":-5,"asDouble":1e300"#,
        ))
        .unwrap();
        transcode("[]").unwrap_err();
        transcode("{}{}").unwrap_err();
    }

    #[test]
    fn enumerations_are_numbers_or_names() {
        let sum = |value: &str| {
            let body = format!(
                r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"sum":{{"aggregationTemporality":{value}}}}}]}}]}}]}}"#
            );
            transcode(&body)
        };
        let cumulative = sum("2").unwrap();
        assert!(cumulative.ends_with(b"\x10\x02"), "{cumulative:?}");
        for same in [r#""AGGREGATION_TEMPORALITY_CUMULATIVE""#, r#""2""#] {
            assert_eq!(sum(same).unwrap(), cumulative, "{same}");
        }
        let delta = sum(r#""AGGREGATION_TEMPORALITY_DELTA""#).unwrap();
        assert_eq!(delta, sum("1").unwrap());
        let none = sum("0").unwrap();
        for unknown in [r#""AGGREGATION_TEMPORALITY_UNSPECIFIED""#, r#""LATER""#] {
            assert_eq!(sum(unknown).unwrap(), none, "{unknown}");
        }
        for wrong in ["2147483648", "1.5", "true", "\"\""] {
            sum(wrong).unwrap_err();
        }
    }

    #[test]
    fn numbers_are_counted_before_they_take_memory() {
        let counts = vec!["1"; 100_000].join(",");
        let body = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"histogram":{{"dataPoints":[{{"bucketCounts":[{counts}]}}]}}}}]}}]}}]}}"#
        );
        let mut asked = Vec::new();
        let mut out = Vec::new();
        let mut grow = |bytes: usize| {
            asked.push(bytes);
            Ok(())
        };
        transcode_json(Export::Metrics, body.as_bytes(), &mut out, &mut grow).unwrap();
        assert!(out.len() > 900_000 && asked.last() == Some(&out.capacity()));
        let refuse = |bytes: usize| match bytes > 1 << 19 {
            true => Err(ApiError::BadData("full".to_owned())),
            false => Ok(()),
        };
        let mut out = Vec::new();
        transcode_json(Export::Metrics, body.as_bytes(), &mut out, &mut { refuse }).unwrap_err();
        assert!(out.capacity() <= 1 << 19);
    }

    #[test]
    fn encoded_bytes() {
        assert_eq!(base64("AQID").unwrap(), [1, 2, 3]);
        assert_eq!(base64("AQ==").unwrap(), [1]);
        assert_eq!(base64("_-8").unwrap(), [0xff, 0xef]);
        assert_eq!(base64("A"), None);
        assert_eq!(base64("A!=="), None);
        assert_eq!(hexadecimal("0aFf").unwrap(), [0x0a, 0xff]);
        assert_eq!(hexadecimal("0"), None);
        assert_eq!(hexadecimal("é"), None);
    }

    #[test]
    fn whole_numbers() {
        assert_eq!(parse_whole("1e3"), Some(1000));
        assert_eq!(parse_whole("5.0"), Some(5));
        assert_eq!(parse_whole("5.5"), None);
        assert_eq!(parse_whole("1e300"), None);
        assert_eq!(parse_whole("-9223372036854775808"), Some(i64::MIN.into()));
    }
}
