//! Cuts a query into tokens.
//!
//! What a character means depends on where it stands: inside `[...]` a colon separates a range from
//! a step, elsewhere it is part of a name; inside `{...}` operators are those of matchers. Comments run
//! from `#` to the end of the line.

use super::{ParseError, quote::unquote};
use crate::{StringLiteral, ast::Span};

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// A word: name, keyword, function, aggregation, `inf`, `nan`.
    Word,
    /// A number without unit.
    Number,
    /// A number with units of time, such as `1h30m`.
    Duration,
    /// A quoted text, unquoted.
    Text(StringLiteral),
    /// An operator or a bracket.
    Symbol(&'static str),
    /// The end.
    End,
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Span,
}

/// Symbols outside of braces and brackets, longer ones first.
const SYMBOLS: [&str; 20] = [
    "==", "!=", "<=", ">=", "</", ">/", "<", ">", "=", "+", "-", "*", "/", "%", "^", ",", "(", ")",
    "@", "[",
];
const SYMBOLS_IN_BRACES: [&str; 6] = ["=~", "!~", "!=", "=", ",", "}"];
const OPERATORS: [&str; 17] = [
    "==", "!=", "<=", ">=", "</", ">/", "<", ">", "+", "-", "*", "/", "%", "^", "@", "=~", "!~",
];

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    parentheses: usize,
    in_braces: bool,
    in_brackets: bool,
    colon_seen: bool,
    tokens: Vec<Token>,
}

/// All tokens of `text`, the last one being [`TokenKind::End`].
///
/// # Errors
/// The tokens in front of the first character that starts none, and what is wrong with it.
pub(super) fn tokens(text: &str) -> (Vec<Token>, Option<ParseError>) {
    let mut lexer = Lexer {
        text,
        at: 0,
        parentheses: 0,
        in_braces: false,
        in_brackets: false,
        colon_seen: false,
        tokens: Vec::new(),
    };
    let error = lexer.run().err();
    (lexer.tokens, error)
}

pub(super) fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit()
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), ParseError> {
        loop {
            self.skip_blanks();
            let Some(c) = self.peek() else {
                return self.end();
            };
            if self.in_braces {
                self.token_in_braces(c)?;
            } else {
                self.token(c)?;
            }
        }
    }

    fn end(&mut self) -> Result<(), ParseError> {
        if self.in_braces {
            return self.fail_at_end("unexpected end of input inside braces");
        }
        if self.parentheses > 0 {
            return self.fail_at_end("unclosed left parenthesis");
        }
        if self.in_brackets {
            return self.fail_at_end("unclosed left bracket");
        }
        self.push(self.at, TokenKind::End);
        Ok(())
    }

    fn token(&mut self, c: char) -> Result<(), ParseError> {
        let start = self.at;
        let after = self.rest()[c.len_utf8()..].chars().next();
        if c.is_ascii_digit() || (c == '.' && after.is_some_and(|d| d.is_ascii_digit())) {
            return self.number();
        }
        if matches!(c, '"' | '\'' | '`') {
            return self.quoted(c);
        }
        match c {
            ':' if self.in_brackets => {
                if self.colon_seen {
                    return self.fail(start, "unexpected colon ':'");
                }
                self.colon_seen = true;
                self.at += 1;
                self.push(start, TokenKind::Symbol(":"));
                return Ok(());
            }
            '{' => {
                self.in_braces = true;
                self.at += 1;
                self.push(start, TokenKind::Symbol("{"));
                return Ok(());
            }
            ']' => {
                if !self.in_brackets {
                    return self.fail(start, "unexpected right bracket ']'");
                }
                self.in_brackets = false;
                self.at += 1;
                self.push(start, TokenKind::Symbol("]"));
                return Ok(());
            }
            c if is_name_start(c) || c == ':' => {
                let colon = !self.in_brackets;
                self.take_while(|c| is_name_part(c) || (colon && c == ':'));
                self.push(start, TokenKind::Word);
                return Ok(());
            }
            _ => {}
        }
        self.symbol(c)
    }

    fn symbol(&mut self, c: char) -> Result<(), ParseError> {
        let start = self.at;
        if self.rest().starts_with("=~") {
            return self.fail(start, "unexpected character after '=': '~'");
        }
        let Some(symbol) = SYMBOLS.iter().find(|s| self.rest().starts_with(**s)) else {
            if c == '!' {
                let after = self.rest()[1..].chars().next();
                let after = after.map_or("'\\ufffd'".to_owned(), |c| format!("{c:?}"));
                return self.fail(start, &format!("unexpected character after '!': {after}"));
            }
            return self.fail(start, &format!("unexpected character: {c:?}"));
        };
        match *symbol {
            "(" => self.parentheses += 1,
            ")" if self.parentheses == 0 => {
                return self.fail(start, "unexpected right parenthesis ')'");
            }
            ")" => self.parentheses -= 1,
            "[" if self.in_brackets => return self.fail(start, "unexpected left bracket '['"),
            "[" => {
                self.in_brackets = true;
                self.colon_seen = false;
            }
            _ => {}
        }
        self.at += symbol.len();
        self.push(start, TokenKind::Symbol(symbol));
        Ok(())
    }

    fn token_in_braces(&mut self, c: char) -> Result<(), ParseError> {
        let start = self.at;
        if matches!(c, '"' | '\'' | '`') {
            return self.quoted(c);
        }
        if is_name_start(c) {
            self.take_while(is_name_part);
            self.push(start, TokenKind::Word);
            return Ok(());
        }
        let symbol = SYMBOLS_IN_BRACES
            .iter()
            .find(|s| self.rest().starts_with(**s));
        let Some(symbol) = symbol else {
            let text = match c {
                '{' => "unexpected left brace '{'".to_owned(),
                '!' => {
                    let after = self.rest()[1..].chars().next().unwrap_or('\u{fffd}');
                    format!("unexpected character after '!' inside braces: {after:?}")
                }
                c => format!("unexpected character inside braces: {c:?}"),
            };
            return self.fail(start, &text);
        };
        if *symbol == "}" {
            self.in_braces = false;
        }
        self.at += symbol.len();
        self.push(start, TokenKind::Symbol(symbol));
        Ok(())
    }

    /// `12`, `0x1f`, `1.5e3`, `1_000`, `1h30m`. A letter right behind it is an error.
    fn number(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        let rest = self.rest();
        let hexadecimal = rest.starts_with("0x") || rest.starts_with("0X");
        if hexadecimal {
            self.at += 2;
            self.take_while(|c| c.is_ascii_hexdigit() || c == '_');
        } else {
            self.take_while(|c| c.is_ascii_digit() || c == '_');
            if self.units() {
                return self.number_end(start, TokenKind::Duration);
            }
            if self.peek() == Some('.') {
                self.at += 1;
                self.take_while(|c| c.is_ascii_digit() || c == '_');
            }
            let exponent = self.rest().trim_start_matches(['e', 'E']);
            let digits = exponent.trim_start_matches(['+', '-']);
            let is_exponent = exponent.len() + 1 == self.rest().len()
                && digits.len() + 1 >= exponent.len()
                && digits.starts_with(|c: char| c.is_ascii_digit());
            if is_exponent {
                self.at = self.text.len() - digits.len();
                self.take_while(|c| c.is_ascii_digit() || c == '_');
            }
        }
        self.number_end(start, TokenKind::Number)
    }

    /// Takes `h30m` and the like behind digits. `false`: there is no unit, and nothing is taken.
    fn units(&mut self) -> bool {
        let mut any = false;
        loop {
            let rest = self.rest();
            let unit = ["ms", "s", "m", "h", "d", "w", "y"]
                .iter()
                .find(|unit| rest.starts_with(**unit));
            let Some(unit) = unit else {
                return any;
            };
            self.at += unit.len();
            any = true;
            if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return true;
            }
            self.take_while(|c| c.is_ascii_digit());
        }
    }

    fn number_end(&mut self, start: usize, kind: TokenKind) -> Result<(), ParseError> {
        let follows = |c: char| is_name_part(c) || (c == ':' && !self.in_brackets);
        let mut rest = self.rest().chars();
        if rest.next().is_some_and(follows) {
            let bad = &self.text[start..self.text.len() - rest.as_str().len()];
            return self.fail(start, &format!("bad number or duration syntax: {bad:?}"));
        }
        let word = &self.text[start..self.at];
        if kind == TokenKind::Duration && word.ends_with(|c: char| c.is_ascii_digit()) {
            return self.fail(start, &format!("bad number or duration syntax: {word:?}"));
        }
        self.push(start, kind);
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), ParseError> {
        let start = self.at;
        let mut escaped = false;
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' if quote != '`' => escaped = true,
                '\n' if quote != '`' => break,
                c if c == quote => {
                    self.at = start + offset + 1;
                    let inner = &self.text[start + 1..self.at - 1];
                    let text = unquote(inner, quote).map_err(|text| ParseError {
                        span: Span::new(start, self.at),
                        text,
                    })?;
                    self.push(start, TokenKind::Text(text));
                    return Ok(());
                }
                _ => {}
            }
        }
        let text = if escaped {
            "escape sequence not terminated"
        } else if quote == '`' {
            "unterminated raw string"
        } else {
            "unterminated quoted string"
        };
        self.fail(start, text)
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n' && c != '\r');
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !keep(c)).unwrap_or(rest.len());
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn push(&mut self, start: usize, kind: TokenKind) {
        self.tokens.push(Token {
            kind,
            span: Span::new(start, self.at),
        });
    }

    fn fail(&self, start: usize, text: &str) -> Result<(), ParseError> {
        Err(ParseError {
            span: Span::new(start, self.text.len()),
            text: text.to_owned(),
        })
    }

    fn fail_at_end(&self, text: &str) -> Result<(), ParseError> {
        self.fail(self.at, text)
    }
}

/// How messages name a token: `identifier "x"`, `<op:+>`, `end of input`.
pub(super) fn describe(token: &Token, text: &str) -> String {
    let source = &text[token.span.start as usize..token.span.end as usize];
    match &token.kind {
        TokenKind::End => "end of input".to_owned(),
        TokenKind::Number => format!("number {}", shortened(source)),
        TokenKind::Duration => format!("duration {}", shortened(source)),
        TokenKind::Text(_) => format!("string {}", shortened(source)),
        TokenKind::Symbol(symbol) if OPERATORS.contains(symbol) => format!("<op:{symbol}>"),
        TokenKind::Symbol(symbol) => format!("{symbol:?}"),
        TokenKind::Word => describe_word(source),
    }
}

fn describe_word(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    if crate::ast::AggregateOp::by_name(word).is_some() {
        return format!("<aggr:{word}>");
    }
    match lower.as_str() {
        "and" | "or" | "unless" | "atan2" => format!("<op:{word}>"),
        "offset" | "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" | "bool" => {
            format!("<{word}>")
        }
        "inf" | "nan" => format!("number {word:?}"),
        _ if word.contains(':') => format!("metric identifier {word:?}"),
        _ => format!("identifier {word:?}"),
    }
}

fn shortened(source: &str) -> String {
    if source.len() <= 10 {
        return format!("{source:?}");
    }
    let short: String = source.chars().take(10).collect();
    format!("{short:?}...")
}
