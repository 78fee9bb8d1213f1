//! Go's quoted texts: escapes as in Go's `strconv.Unquote`.

use crate::StringLiteral;

/// The bytes that are meant by what stands between two quotes; `quote` is one of `"`, `'`, `` ` ``, and `behind` is what
/// ends the text: the quote, a line's end, or nothing at the end of the query.
///
/// # Errors
/// What is wrong with an escape, in the words of Prometheus.
pub(super) fn unquote(
    inner: &str,
    quote: char,
    behind: Option<char>,
) -> Result<StringLiteral, String> {
    if quote == '`' {
        return Ok(StringLiteral::new(inner.replace('\r', "").into_bytes()));
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
            continue;
        }
        rest = escape(rest, quote, behind, &mut bytes)?;
    }
    Ok(StringLiteral::new(bytes))
}

/// Decodes the escape whose backslash is in front of `rest`; returns what is behind it.
fn escape<'a>(
    rest: &'a str,
    quote: char,
    behind: Option<char>,
    bytes: &mut Vec<u8>,
) -> Result<&'a str, String> {
    let unknown = |c: char| format!("unknown escape sequence {}", code_point(c));
    let Some(kind) = rest.chars().next() else {
        return Err(behind.map_or_else(|| "escape sequence not terminated".to_owned(), unknown));
    };
    let after = &rest[kind.len_utf8()..];
    let simple = match kind {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        c if c == quote => c as u8,
        'x' => return number(after, behind, (2, 16), bytes, true),
        'u' => return number(after, behind, (4, 16), bytes, false),
        'U' => return number(after, behind, (8, 16), bytes, false),
        '0'..='7' => return number(rest, behind, (3, 8), bytes, true),
        c => return Err(unknown(c)),
    };
    bytes.push(simple);
    Ok(after)
}

fn number<'a>(
    rest: &'a str,
    behind: Option<char>,
    (digits, radix): (usize, u32),
    bytes: &mut Vec<u8>,
    is_byte: bool,
) -> Result<&'a str, String> {
    let no_digit = rest.chars().find(|c| !c.is_digit(radix)).or(behind);
    let wrong = || match no_digit {
        Some(c) => format!("illegal character {} in escape sequence", code_point(c)),
        None => "escape sequence not terminated".to_owned(),
    };
    let all_digits = |text: &&str| text.chars().all(|c| c.is_digit(radix));
    let text = rest.get(..digits).filter(all_digits).ok_or_else(wrong)?;
    let value = u32::from_str_radix(text, radix).map_err(|_| wrong())?;
    if is_byte {
        bytes.push(
            u8::try_from(value)
                .map_err(|_| "escape sequence is an invalid Unicode code point".to_owned())?,
        );
    } else {
        let c = char::from_u32(value)
            .ok_or_else(|| "escape sequence is an invalid Unicode code point".to_owned())?;
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(&rest[digits..])
}

/// As Go's `%#U`: the number, and the character itself where it can be shown.
fn code_point(c: char) -> String {
    match c.is_control() {
        true => format!("U+{:04X}", c as u32),
        false => format!("U+{:04X} '{c}'", c as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_those_of_go() {
        let check = |inner: &str, expected: &str| {
            let literal = unquote(inner, '"', Some('"')).expect(inner);
            assert_eq!(literal.text(), Some(expected), "{inner}");
        };
        check(r#"a\n\t\\\"b"#, "a\n\t\\\"b");
        check(r"\u00e9\x41\101", "éAA");
        check(r"\xc3\xa9", "é");
        assert!(unquote(r"\q", '"', Some('"')).is_err());
        assert!(unquote(r"\x4", '"', Some('"')).is_err());
        assert!(unquote(r"\'", '"', Some('"')).is_err());
        let raw = unquote(r"\n", '`', Some('`')).expect("no escapes");
        assert_eq!(raw.text(), Some(r"\n"));
        let bytes = unquote(r"\xff", '"', Some('"')).expect("any byte is allowed");
        assert_eq!(
            (bytes.text(), bytes.to_string().as_str()),
            (None, r#""\xff""#)
        );
    }
}
