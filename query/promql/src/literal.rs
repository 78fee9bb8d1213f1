//! String literals of queries. As in Go they are bytes, which are UTF-8 nearly always; where a name or a label's value
//! is needed, [`StringLiteral::text`] says whether they are.

use crate::QueryError;
use std::fmt::{self, Debug, Display, Formatter, Write};

/// What a quoted text stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct StringLiteral(Vec<u8>);

impl StringLiteral {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The text, if the bytes are UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The label name that this is.
    ///
    /// # Errors
    /// When it is empty or not UTF-8, in Prometheus' words.
    pub(crate) fn label_name(&self) -> Result<&str, QueryError> {
        let name = self.text().filter(|name| !name.is_empty());
        name.ok_or_else(|| QueryError::execution(format!("invalid label name {self}")))
    }

    /// The text with U+FFFD for what is not UTF-8, as Prometheus' API shows it.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// In quotes, as Go's `strconv.Quote` writes it.
impl Display for StringLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_quoted(f, &self.0)
    }
}

impl Debug for StringLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_quoted(f, &self.0)
    }
}

/// A text in quotes, as Go's `strconv.Quote` writes it: the query language reads it back as the same.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_quoted(f, self.0.as_bytes())
    }
}

/// A character in single quotes, as Go's `%q` writes it.
pub(crate) struct QuotedChar(pub(crate) char);

impl Display for QuotedChar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('\'')?;
        match self.0 {
            '\'' => f.write_str("\\'")?,
            '"' => f.write_char('"')?,
            '\u{fffd}' => f.write_str("\\ufffd")?,
            c => write_char(f, c)?,
        }
        f.write_char('\'')
    }
}

fn write_quoted(f: &mut Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_char('"')?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            write_char(f, c)?;
        }
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    f.write_char('"')
}

fn write_char(f: &mut Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '"' => f.write_str("\\\""),
        '\\' => f.write_str("\\\\"),
        '\u{7}' => f.write_str("\\a"),
        '\u{8}' => f.write_str("\\b"),
        '\u{c}' => f.write_str("\\f"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\u{b}' => f.write_str("\\v"),
        c if is_shown(c) => f.write_char(c),
        c if c.is_ascii() => write!(f, "\\x{:02x}", c as u32),
        c if (c as u32) < 0x1_0000 => write!(f, "\\u{:04x}", c as u32),
        c => write!(f, "\\U{:08x}", c as u32),
    }
}

/// Go's `IsPrint`, but for characters that are assigned to nothing: those are shown here.
fn is_shown(c: char) -> bool {
    let is_blank = c.is_whitespace() && c != ' ';
    let is_format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}');
    let is_private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
    !(c.is_control() || is_blank || is_format || is_private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_quoted_as_in_go() {
        let check = |bytes: &[u8], expected: &str| {
            assert_eq!(StringLiteral::new(bytes.to_vec()).to_string(), expected);
        };
        check(b"a\xc5z", r#""a\xc5z""#);
        check("é \"\\\n\u{7f}".as_bytes(), r#""é \"\\\n\x7f""#);
        check(
            "e\u{301}\u{a0}\u{1f600}".as_bytes(),
            "\"e\u{301}\\u00a0\u{1f600}\"",
        );
        let quoted = ['a', '\'', '"', '\u{3000}', '\n'].map(|c| QuotedChar(c).to_string());
        assert_eq!(quoted, ["'a'", r"'\''", "'\"'", r"'\u3000'", r"'\n'"]);
        let odd = StringLiteral::new(b"a\xc5z".to_vec());
        assert_eq!((odd.text(), odd.shown().as_str()), (None, "a\u{fffd}z"));
    }
}
