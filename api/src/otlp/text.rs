//! Values of attributes as texts.
//!
//! A text has a bound, and the writing stops there: a value of many megabytes, or one that grows by its escapes, costs
//! no more than the label that it cannot become.
//!
//! Source: `pcommon.Value.AsString` of OpenTelemetry's collector over Go's `encoding/json`, but for numbers that JSON
//! does not have: inside lists and maps they are `null` here, where Go gives up the whole value.

use super::message::{AnyValue, KeyValue};
use crate::{ApiError, number::write_float, wire::WireType};

/// Lists and maps inside one another in an attribute; deeper ones are refused.
const DEPTH_MAX: usize = 32;

impl AnyValue<'_> {
    /// Appends the value as OpenTelemetry writes it where a text is wanted: lists and maps as JSON, bytes in base64.
    /// `false`: `out` would have more than `bytes_max` bytes; what it has is of no use.
    ///
    /// # Errors
    /// [`ApiError::CorruptProtobuf`], [`ApiError::BadData`] when it is nested too deeply.
    pub(super) fn write(self, out: &mut String, bytes_max: usize) -> Result<bool, ApiError> {
        let mut text = Text { out, bytes_max };
        match self {
            Self::Empty => Ok(true),
            Self::Text(value) => Ok(text.push(value)),
            Self::Bytes(bytes) => Ok(text.push_base64(bytes)),
            Self::Double(value) => Ok(text.push_float(value)),
            value => text.push_json(value, 0),
        }
    }
}

/// A text with a bound. What adds to it says whether all of it fitted.
struct Text<'o> {
    out: &'o mut String,
    bytes_max: usize,
}

impl Text<'_> {
    fn push(&mut self, piece: &str) -> bool {
        let fits = piece.len() <= self.bytes_max.saturating_sub(self.out.len());
        if fits {
            self.out.push_str(piece);
        }
        fits
    }

    fn push_json(&mut self, value: AnyValue<'_>, depth: usize) -> Result<bool, ApiError> {
        if depth > DEPTH_MAX {
            return Err(ApiError::BadData(
                "the value of an attribute is nested too deeply".to_owned(),
            ));
        }
        Ok(match value {
            AnyValue::Empty => self.push("null"),
            AnyValue::Text(text) => self.push_quoted(text),
            AnyValue::Bool(value) => self.push(if value { "true" } else { "false" }),
            AnyValue::Int(value) => self.push(&value.to_string()),
            AnyValue::Double(value) if !value.is_finite() => self.push("null"),
            AnyValue::Double(value) => self.push_float(value),
            AnyValue::Bytes(bytes) => self.push("\"") && self.push_base64(bytes) && self.push("\""),
            AnyValue::Array(mut reader) => {
                let mut fits = self.push("[");
                let mut separator = "";
                while fits && !reader.is_at_end() {
                    match reader.tag("ArrayValue")? {
                        (1, WireType::Bytes) => {
                            let item = AnyValue::read(reader.message("ArrayValue.values")?)?;
                            fits = self.push(separator) && self.push_json(item, depth + 1)?;
                            separator = ",";
                        }
                        (_, wire_type) => reader.skip(wire_type, "ArrayValue")?,
                    }
                }
                fits && self.push("]")
            }
            AnyValue::Map(mut reader) => {
                let mut items = Vec::new();
                while !reader.is_at_end() {
                    match reader.tag("KeyValueList")? {
                        // Each takes some bytes of the text.
                        (1, WireType::Bytes) if items.len() == self.bytes_max => return Ok(false),
                        (1, WireType::Bytes) => {
                            items.push(KeyValue::read(reader.message("KeyValueList.values")?)?);
                        }
                        (_, wire_type) => reader.skip(wire_type, "KeyValueList")?,
                    }
                }
                self.push_map(&mut items, depth)?
            }
        })
    }

    /// A map by ascending keys; of equal keys the last one counts.
    fn push_map(&mut self, items: &mut [KeyValue<'_>], depth: usize) -> Result<bool, ApiError> {
        items.sort_by_key(|item| item.key);
        let mut fits = self.push("{");
        let mut separator = "";
        for (index, item) in items.iter().enumerate() {
            if items
                .get(index + 1)
                .is_some_and(|next| next.key == item.key)
            {
                continue;
            }
            fits = fits && self.push(separator) && self.push_quoted(item.key) && self.push(":");
            if !fits || !self.push_json(item.value, depth + 1)? {
                return Ok(false);
            }
            separator = ",";
        }
        Ok(fits && self.push("}"))
    }

    /// With an exponent of one digit where that is enough.
    fn push_float(&mut self, value: f64) -> bool {
        let mut digits = Vec::new();
        write_float(&mut digits, value);
        self.push(&String::from_utf8_lossy(&digits).replace("e-0", "e-"))
    }

    /// A text of JSON, also safe inside HTML, as Go writes it.
    fn push_quoted(&mut self, text: &str) -> bool {
        if text.len() > self.bytes_max {
            return false;
        }
        // A text can always be written.
        let quoted = serde_json::to_string(text).unwrap_or_default();
        quoted.chars().all(|c| match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                self.push(&format!("\\u{:04x}", u32::from(c)))
            }
            c => self.push(c.encode_utf8(&mut [0; 4])),
        })
    }

    fn push_base64(&mut self, bytes: &[u8]) -> bool {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        bytes.chunks(3).all(|group| {
            let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            let digit = |index: usize| match index <= group.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * index) & 63) as usize]),
                false => '=',
            };
            (0..4).all(|index| self.push(digit(index).encode_utf8(&mut [0; 4])))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Reader;

    const BYTES_MAX: usize = 40;

    /// The message of a value as a text, if it fits.
    fn written(message: &[u8]) -> Option<String> {
        let value = AnyValue::read(Reader::new(message, message.len())).unwrap();
        let mut text = String::new();
        let fits = value.write(&mut text, BYTES_MAX).unwrap();
        assert!(text.len() <= BYTES_MAX, "{text}");
        fits.then_some(text)
    }

    fn check(message: &[u8], expected: &str) {
        assert_eq!(written(message).as_deref(), Some(expected));
    }

    /// A field that holds these messages, each as field 1 of it.
    fn nested(field: u8, messages: &[&[u8]]) -> Vec<u8> {
        let mut inner = Vec::new();
        for message in messages {
            inner.push(0x0a);
            trefoil_model::write_varint(&mut inner, message.len() as u64);
            inner.extend_from_slice(message);
        }
        let mut out = vec![field];
        trefoil_model::write_varint(&mut out, inner.len() as u64);
        out.extend_from_slice(&inner);
        out
    }

    fn double(value: f64) -> Vec<u8> {
        [&[0x21], &value.to_le_bytes()[..]].concat()
    }

    #[test]
    fn values_as_texts() {
        check(b"", "");
        check(b"\x0a\x03a\"b", "a\"b");
        check(b"\x10\x01", "true");
        check(b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "-1");
        check(&double(1.5), "1.5");
        check(&double(1e-7), "1e-7");
        check(&double(1e-10), "1e-10");
        check(&double(1e21), "1e+21");
        check(&double(f64::NAN), "NaN");
        check(b"\x3a\x01\xff", "/w==");
        check(b"\x3a\x02\xff\xef", "/+8=");
        check(b"\x3a\x03abc", "YWJj");
    }

    #[test]
    fn lists_and_maps_are_json() {
        let map = nested(0x32, &[b"\x0a\x01k\x12\x03\x3a\x01\xff"]);
        let list = nested(0x2a, &[b"\x0a\x01a", b"\x18\x07", b"", &map]);
        check(&list, r#"["a",7,null,{"k":"/w=="}]"#);
        check(&nested(0x2a, &[]), "[]");
        check(&nested(0x32, &[]), "{}");
    }

    #[test]
    fn json_is_as_go_writes_it() {
        let numbers = [double(1e-7), double(f64::NAN), double(f64::NEG_INFINITY)];
        let numbers = numbers.each_ref().map(Vec::as_slice);
        check(&nested(0x2a, &numbers), "[1e-7,null,null]");
        check(
            &nested(0x2a, &[b"\x0a\x03<\x01&"]),
            r#"["\u003c\u0001\u0026"]"#,
        );
        // By key, and of equal keys the last one.
        let items = [
            &b"\x0a\x01b\x12\x02\x18\x01"[..],
            b"\x0a\x01a\x12\x02\x18\x02",
            b"\x0a\x01b\x12\x02\x18\x03",
        ];
        check(&nested(0x32, &items), r#"{"a":2,"b":3}"#);
    }

    #[test]
    fn the_length_is_bounded() {
        let long = "x".repeat(BYTES_MAX + 1);
        let text = [&b"\x0a\x29"[..], long.as_bytes()].concat();
        assert_eq!(written(&text), None);
        check(
            &text[..1]
                .iter()
                .chain(b"\x28")
                .chain(&text[3..])
                .copied()
                .collect::<Vec<_>>(),
            &long[1..],
        );
        let bytes = [&b"\x3a\x29"[..], long.as_bytes()].concat();
        assert_eq!(written(&bytes), None);
        // Escapes make a text longer.
        let escaped = [&b"\x0a\x08"[..], b"<<<<<<<<"].concat();
        assert_eq!(written(&nested(0x2a, &[&escaped])), None);
        assert_eq!(written(&nested(0x2a, &[b"".as_slice(); BYTES_MAX])), None);
        assert_eq!(
            written(&nested(0x32, &[b"".as_slice(); BYTES_MAX + 1])),
            None
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let mut message = Vec::new();
        for _ in 0..DEPTH_MAX + 2 {
            message = nested(0x2a, &[&message]);
        }
        let value = AnyValue::read(Reader::new(&message, message.len())).unwrap();
        let error = value.write(&mut String::new(), 1000).unwrap_err();
        assert!(error.to_string().contains("nested too deeply"), "{error}");
    }
}
