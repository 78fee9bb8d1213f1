//! Where a number or a duration ends, and whether it may stand there. The scanner is as lenient as Prometheus' own: what it
//! lets through may still be no number, which is said where the value is read.

use super::lex::{TokenKind, is_name_part};

/// A position in a text.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// How many bytes the number in front of `text` takes, and what it is. `None`: it is none; the bytes are those to show.
pub(super) fn scan(text: &str) -> (usize, Option<TokenKind>) {
    let mut scanner = Scanner { text, at: 0 };
    let kind = if scanner.number() {
        Some(TokenKind::Number)
    } else {
        scanner.units().then_some(TokenKind::Duration)
    };
    (scanner.at, kind)
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Takes the next character if it is one of these.
    fn accept(&mut self, allowed: &str) -> bool {
        let next = self.peek().filter(|c| allowed.contains(*c));
        self.at += next.map_or(0, char::len_utf8);
        next.is_some()
    }

    /// Takes a number. `false`: something behind it does not belong there.
    fn number(&mut self) -> bool {
        let mut digits = "0123456789";
        if self.accept("0") && self.accept("xX") {
            self.accept("_");
            digits = "0123456789abcdefABCDEF";
        }
        let is_hexadecimal = digits.len() > 10;
        let (mut dot_seen, mut exponent_seen) = (false, false);
        while let Some(c) = self.peek() {
            if digits.contains(c) {
                self.at += 1;
            } else if c == '.' {
                self.at += 1;
                // Neither a second one nor one of a hexadecimal number.
                if dot_seen || self.accept("_.") || is_hexadecimal {
                    return false;
                }
                dot_seen = true;
            } else if c == 'e' || c == 'E' {
                self.at += 1;
                if exponent_seen {
                    return false;
                }
                exponent_seen = true;
                self.accept("+-");
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else if c == '_' {
                self.at += 1;
                if self.accept("._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                break;
            }
        }
        self.at > 0 && !self.peek().is_some_and(is_name_part)
    }

    /// Takes `h30m` and the like behind digits.
    fn units(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept("0123456789") {
            while self.accept("0123456789") {}
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        match self.peek().filter(|c| is_name_part(*c)) {
            Some(c) => {
                self.at += c.len_utf8();
                false
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_they_end_for_the_peer() {
        let number = Some(TokenKind::Number);
        let duration = Some(TokenKind::Duration);
        let check = |text: &str, taken: &str, kind: &Option<TokenKind>| {
            assert_eq!(scan(text), (taken.len(), kind.clone()), "{text}");
        };
        for whole in [
            "1", "1.", ".5", "1e5", "1E-5", "0x1F", "0x_1f", "1_000", "08",
        ] {
            check(whole, whole, &number);
        }
        check("1:a", "1", &number);
        check("12)", "12", &number);
        // Of these the value is refused where it is read.
        for whole in ["5m", "1h30m", "1.5h", "5ms", "5hs", "0x5m"] {
            check(whole, whole, &duration);
        }
        for (text, shown) in [
            ("5q", "5"),
            ("5mm", "5mm"),
            ("5m5", "5m5"),
            ("5m5)", "5m5"),
            ("0b11", "0"),
            ("0xg", "0x"),
            ("0x1.5", "0x1."),
            ("1..2", "1.."),
            ("1.2.3", "1.2."),
            ("1e", "1e"),
            ("1e+", "1e+"),
            ("1e5e5", "1e5e"),
            ("1_", "1_"),
            ("1__0", "1__"),
        ] {
            check(text, shown, &None);
        }
    }
}
