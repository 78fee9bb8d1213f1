//! Reading JSON from a slice, one token after the other, by RFC 8259 to the letter.
//!
//! Numbers stay texts, so that whole numbers of 64 bits and floats lose nothing. Nothing is built that a
//! document could make large: the caller keeps what it wants and skips the rest. Nesting is bounded, so a
//! document cannot exhaust the stack.

use crate::ApiError;
use std::borrow::Cow;

/// Values inside one another; deeper documents are refused.
const DEPTH_MAX: usize = 100;

/// A position in a document.
pub(crate) struct JsonReader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

/// What stands next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonKind {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

impl<'a> JsonReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            depth: 0,
        }
    }

    /// What kind of value stands next. Moves over white space only.
    pub(crate) fn kind(&mut self) -> Result<JsonKind, ApiError> {
        Ok(match self.next_byte() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::Array,
            Some(b'"') => JsonKind::Text,
            Some(b'-' | b'0'..=b'9') => JsonKind::Number,
            Some(b't' | b'f') => JsonKind::Bool,
            Some(b'n') => JsonKind::Null,
            Some(_) => return Err(self.wrong("expected a value")),
            None => return Err(self.wrong("expected a value, found the end of the text")),
        })
    }

    /// Moves into an object or array.
    pub(crate) fn enter(&mut self, open: u8) -> Result<(), ApiError> {
        if self.next_byte() != Some(open) {
            let reason = match open {
                b'{' => "expected an object",
                _ => "expected an array",
            };
            return Err(self.wrong(reason));
        }
        if self.depth == DEPTH_MAX {
            return Err(self.wrong("values are nested too deeply"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Moves to the next item of an object or array; `false`: it ended here. `is_first` is `true` before the
    /// first call for it.
    pub(crate) fn next_item(&mut self, close: u8, is_first: &mut bool) -> Result<bool, ApiError> {
        let was_first = std::mem::replace(is_first, false);
        match self.next_byte() {
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !was_first => {
                self.at += 1;
                if self.next_byte() == Some(close) {
                    return Err(self.wrong("expected another item after the comma"));
                }
                Ok(true)
            }
            Some(_) if was_first => Ok(true),
            Some(_) => Err(self.wrong("expected a comma or the end")),
            None => Err(self.wrong("the text ends too early")),
        }
    }

    /// A member's name and the colon behind it.
    pub(crate) fn key(&mut self) -> Result<Cow<'a, str>, ApiError> {
        if self.next_byte() != Some(b'"') {
            return Err(self.wrong("expected a name in quotation marks"));
        }
        let key = self.text()?;
        if self.next_byte() != Some(b':') {
            return Err(self.wrong("expected a colon"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A text; borrowed where it has no escapes.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, ApiError> {
        if self.next_byte() != Some(b'"') {
            return Err(self.wrong("expected a text"));
        }
        self.at += 1;
        let mut owned = String::new();
        loop {
            let rest = &self.bytes[self.at..];
            let is_end = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let Some(length) = rest.iter().position(is_end) else {
                return Err(self.wrong("the quotation mark is never closed"));
            };
            let Ok(piece) = std::str::from_utf8(&rest[..length]) else {
                return Err(self.wrong("the text is not valid UTF-8"));
            };
            self.at += length;
            match rest[length] {
                b'"' => {
                    self.at += 1;
                    if owned.is_empty() {
                        return Ok(Cow::Borrowed(piece));
                    }
                    owned.push_str(piece);
                    return Ok(Cow::Owned(owned));
                }
                b'\\' => {
                    owned.push_str(piece);
                    let escaped = self.escape()?;
                    owned.push(escaped);
                }
                _ => return Err(self.wrong("a control character must be escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, ApiError> {
        let escaped = match self.bytes.get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.wrong("unknown escape")),
        };
        self.at += 2;
        Ok(escaped)
    }

    fn unicode_escape(&mut self) -> Result<char, ApiError> {
        let first = self.four_digits()?;
        let code = match first {
            0xd800..=0xdbff => match self.four_digits() {
                Ok(second @ 0xdc00..=0xdfff) => {
                    0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                }
                _ => return Err(self.wrong("half of a surrogate pair")),
            },
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.wrong("half of a surrogate pair"))
    }

    /// The number of `\uXXXX`.
    fn four_digits(&mut self) -> Result<u32, ApiError> {
        let rest = &self.bytes[self.at..];
        let digits = rest.strip_prefix(b"\\u").and_then(|rest| rest.get(..4));
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match text.and_then(|text| u32::from_str_radix(text, 16).ok()) {
            Some(number) => {
                self.at += 6;
                Ok(number)
            }
            None => Err(self.wrong("expected \\u and four hexadecimal digits")),
        }
    }

    /// A number as it is written.
    pub(crate) fn number(&mut self) -> Result<&'a str, ApiError> {
        self.next_byte();
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.digits() {
            0 => return Err(self.wrong("expected a number")),
            count if count > 1 && self.bytes[self.at - count] == b'0' => {
                return Err(self.wrong("a number does not begin with zeros"));
            }
            _ => {}
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.wrong("expected digits after the point"));
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.wrong("expected digits in the exponent"));
            }
        }
        // Only ASCII was accepted.
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default())
    }

    /// Moves behind digits and counts them.
    fn digits(&mut self) -> usize {
        let rest = self.bytes[self.at..].iter();
        let count = rest.take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// `true` or `false`.
    pub(crate) fn bool(&mut self) -> Result<bool, ApiError> {
        self.next_byte();
        for (word, value) in [("true", true), ("false", false)] {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("expected true or false"))
    }

    /// `null`.
    pub(crate) fn null(&mut self) -> Result<(), ApiError> {
        self.next_byte();
        if self.bytes[self.at..].starts_with(b"null") {
            self.at += 4;
            return Ok(());
        }
        Err(self.wrong("expected null"))
    }

    /// Moves behind a value of any kind, which is checked all the same.
    pub(crate) fn skip(&mut self) -> Result<(), ApiError> {
        match self.kind()? {
            JsonKind::Text => self.text().map(drop),
            JsonKind::Number => self.number().map(drop),
            JsonKind::Bool => self.bool().map(drop),
            JsonKind::Null => self.null(),
            JsonKind::Array => {
                self.enter(b'[')?;
                let mut is_first = true;
                while self.next_item(b']', &mut is_first)? {
                    self.skip()?;
                }
                Ok(())
            }
            JsonKind::Object => {
                self.enter(b'{')?;
                let mut is_first = true;
                while self.next_item(b'}', &mut is_first)? {
                    self.key()?;
                    self.skip()?;
                }
                Ok(())
            }
        }
    }

    /// Checks that nothing but white space is left.
    pub(crate) fn finish(&mut self) -> Result<(), ApiError> {
        match self.next_byte() {
            None => Ok(()),
            Some(_) => Err(self.wrong("expected the end of the document")),
        }
    }

    /// The next byte that is not white space, without moving over it.
    fn next_byte(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    /// The error for what stands here.
    #[cold]
    pub(crate) fn wrong(&self, reason: impl Into<String>) -> ApiError {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n');
        let line_text = &before[line_start.map_or(0, |at| at + 1)..];
        ApiError::BadLine {
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            column: String::from_utf8_lossy(line_text).chars().count() + 1,
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str, expected: &str) {
        let mut reader = JsonReader::new(text.as_bytes());
        assert_eq!(reader.text().unwrap(), expected, "{text}");
        reader.finish().unwrap();
    }

    #[test]
    fn texts() {
        check_text(r#" "" "#, "");
        check_text(r#""a é""#, "a é");
        check_text(
            r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00x""#,
            "\"\\/\u{8}\u{c}\n\r\té😀x",
        );
    }

    #[test]
    fn whole_documents_are_skipped() {
        let text = r#" {"a": [1, -0.5e+3, true, null, {"b": "c"}, [], {}], "d": false} "#;
        let mut reader = JsonReader::new(text.as_bytes());
        reader.skip().unwrap();
        reader.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, expected) in [
            (
                "",
                "line 1, column 1: expected a value, found the end of the text",
            ),
            ("{\n \"a\" 1}", "line 2, column 6: expected a colon"),
            (
                "[1,]",
                "line 1, column 4: expected another item after the comma",
            ),
            ("[1 2]", "line 1, column 4: expected a comma or the end"),
            (
                "[01]",
                "line 1, column 4: a number does not begin with zeros",
            ),
            ("[1.]", "line 1, column 4: expected digits after the point"),
            ("[-]", "line 1, column 3: expected a number"),
            ("[1e]", "line 1, column 4: expected digits in the exponent"),
            ("tru", "line 1, column 1: expected true or false"),
            ("nul", "line 1, column 1: expected null"),
            ("\"é\\x\"", "line 1, column 3: unknown escape"),
            ("\"\\ud83dx\"", "line 1, column 8: half of a surrogate pair"),
            ("\"\\ude00\"", "line 1, column 8: half of a surrogate pair"),
            (
                "\"a\nb\"",
                "line 1, column 3: a control character must be escaped",
            ),
            (
                "\"a",
                "line 1, column 2: the quotation mark is never closed",
            ),
            (
                "{a:1}",
                "line 1, column 2: expected a name in quotation marks",
            ),
            ("[", "line 1, column 2: the text ends too early"),
            ("1 2", "line 1, column 3: expected the end of the document"),
        ] {
            let mut reader = JsonReader::new(text.as_bytes());
            let outcome = reader.skip().and_then(|()| reader.finish());
            assert_eq!(outcome.unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let outcome = |text: &str| JsonReader::new(text.as_bytes()).skip();
        outcome(&nested(DEPTH_MAX)).unwrap();
        outcome(&nested(DEPTH_MAX + 1)).unwrap_err();
        outcome(&"[".repeat(1 << 20)).unwrap_err();
    }
}
