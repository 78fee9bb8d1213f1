//! Rust source with everything blanked that is not code: comments, contents of literals, and on
//! request the `#[cfg(test)]` modules. Lines keep their numbers.
//!
//! This is not a parser: it knows comments (nested too), strings (raw and byte ones too), character
//! literals against lifetimes, and matching braces. That is enough to look for words in code.

/// `text` with comments and the contents of string and character literals replaced by blanks.
pub(crate) fn code_only(text: &str) -> String {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
        out: String::with_capacity(text.len()),
    };
    scanner.run();
    scanner.out
}

/// [`code_only`], without the modules behind `#[cfg(test)]`.
pub(crate) fn product_code(text: &str) -> String {
    let mut code = code_only(text);
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = item_end(&code, start);
        let blank: String = code[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        code.replace_range(start..end, &blank);
    }
    code
}

/// Where the item that begins at `start` ends: behind its braces, or behind its semicolon.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (offset, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return start + offset + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return start + offset + 1,
            _ => {}
        }
    }
    code.len()
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    out: String,
}

impl Scanner<'_> {
    fn run(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'/' if self.peek(1) == Some(b'/') => self.blank_line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.blank_block_comment(),
                b'"' => self.blank_string(),
                b'r' | b'b' | b'c' if self.starts_literal() => self.blank_prefixed(),
                b'\'' => self.blank_character(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        let byte = self.bytes[self.at];
        self.out.push(if byte.is_ascii() {
            char::from(byte)
        } else {
            ' '
        });
        self.at += 1;
    }

    fn blank(&mut self) {
        let newline = self.bytes.get(self.at) == Some(&b'\n');
        self.out.push(if newline { '\n' } else { ' ' });
        self.at += 1;
    }

    fn blank_line_comment(&mut self) {
        while self.at < self.bytes.len() && self.bytes[self.at] != b'\n' {
            self.blank();
        }
    }

    fn blank_block_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.bytes.len() {
            let pair = (self.bytes[self.at], self.peek(1));
            match pair {
                (b'/', Some(b'*')) => depth += 1,
                (b'*', Some(b'/')) => depth -= 1,
                _ => {
                    self.blank();
                    continue;
                }
            }
            self.blank();
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    fn blank_string(&mut self) {
        self.keep();
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'"' => return self.keep(),
                b'\\' => {
                    self.blank();
                    if self.at < self.bytes.len() {
                        self.blank();
                    }
                }
                _ => self.blank(),
            }
        }
    }

    /// Whether a literal with a prefix (`r"`, `r#"`, `b"`, `br"`, `b'`, `c"`) begins here.
    fn starts_literal(&self) -> bool {
        let inside_word = self.at > 0 && {
            let before = self.bytes[self.at - 1];
            before.is_ascii_alphanumeric() || before == b'_'
        };
        if inside_word {
            return false;
        }
        let rest = &self.bytes[self.at..];
        let letters = rest
            .iter()
            .take(2)
            .take_while(|b| b"rbc".contains(b))
            .count();
        let hashes = rest[letters..].iter().take_while(|b| **b == b'#').count();
        match rest.get(letters + hashes) {
            Some(b'"') => hashes == 0 || rest[..letters].contains(&b'r'),
            Some(b'\'') => hashes == 0 && rest[..letters] == *b"b",
            _ => false,
        }
    }

    fn blank_prefixed(&mut self) {
        let mut raw = false;
        while b"rbc".contains(&self.bytes[self.at]) {
            raw |= self.bytes[self.at] == b'r';
            self.keep();
        }
        if self.bytes[self.at] == b'\'' {
            return self.blank_character();
        }
        if !raw {
            return self.blank_string();
        }
        let mut hashes = 0;
        while self.bytes[self.at] == b'#' {
            hashes += 1;
            self.keep();
        }
        self.keep();
        let end: Vec<u8> = std::iter::once(b'"')
            .chain(std::iter::repeat_n(b'#', hashes))
            .collect();
        while self.at < self.bytes.len() && !self.bytes[self.at..].starts_with(&end) {
            self.blank();
        }
        for _ in 0..end.len().min(self.bytes.len() - self.at) {
            self.keep();
        }
    }

    /// A character literal is blanked, a lifetime kept.
    fn blank_character(&mut self) {
        let escaped = self.peek(1) == Some(b'\\');
        let first = self.peek(1).unwrap_or(b' ');
        let width = match first {
            0..=0x7f => 1,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            _ => 4,
        };
        self.keep();
        if !escaped && self.peek(width) != Some(b'\'') {
            return;
        }
        if escaped {
            self.blank();
            self.blank();
        }
        while self.at < self.bytes.len() && self.bytes[self.at] != b'\'' {
            self.blank();
        }
        if self.at < self.bytes.len() {
            self.keep();
        }
    }
}

#[test]
fn comments_and_literals_are_blanked() {
    let text = "let a = \"x // y\"; // tokio\n/* a /* b */ tokio */ let c = '\"'; let d: &'a u8;\n";
    let code = code_only(text);
    assert!(!code.contains("tokio") && !code.contains("//"), "{code}");
    assert!(
        code.contains("let c = ' ';") && code.contains("&'a u8"),
        "{code}"
    );
    assert_eq!(code.lines().count(), 2);
}

#[test]
fn raw_strings_end_where_they_end() {
    let code = code_only("r#\"a \" b\"# + br\"\\\" + b'x' + '\\'' + after");
    assert!(code.ends_with("+ after"), "{code}");
    assert!(!code.contains('x') && !code.contains(" b\""), "{code}");
    assert_eq!(code_only("for number in 0..3"), "for number in 0..3");
}

#[test]
fn test_modules_are_left_out() {
    let code = product_code("fn a() {}\n#[cfg(test)]\nmod tests { fn b() { c(); } }\nfn d() {}\n");
    assert!(
        code.contains("fn a") && code.contains("fn d") && !code.contains("fn b"),
        "{code}"
    );
    let code = product_code("#[cfg(test)]\nmod tests;\nfn d() {}\n");
    assert!(code.contains("fn d") && !code.contains("tests"), "{code}");
}
