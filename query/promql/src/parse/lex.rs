//! Cuts a query into tokens.
//!
//! What a character means depends on where it stands: inside `[...]` a colon separates a range from
//! a step and few words have a meaning, elsewhere a colon is part of a name; inside `{...}` operators are
//! those of matchers. Comments run from `#` to the end of the line.

use super::{ParseError, number, quote::unquote};
use crate::{StringLiteral, ast::Span, literal::QuotedChar};

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
    /// There was no number yet behind the last `[`; there are other messages then.
    before_duration: bool,
    /// There was a number behind some `[`.
    duration_seen: bool,
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
        before_duration: false,
        duration_seen: false,
        tokens: Vec::new(),
    };
    let error = lexer.run().err();
    (lexer.tokens, error)
}

pub(super) fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

pub(super) fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_ascii_digit()
}

/// The words that mean something inside brackets.
const DURATION_WORDS: [&str; 4] = ["step", "range", "min_of", "max_of"];

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
        if self.before_duration {
            return self.fail_at_end("unexpected end of input in duration expression");
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
        if self.before_duration && !is_name_start(c) && !"+-*/%^,()]:".contains(c) {
            return self.not_of_duration(start, c);
        }
        if matches!(c, '"' | '\'' | '`') {
            return self.quoted(c);
        }
        match c {
            ':' if self.in_brackets => return self.colon(),
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
                (self.in_brackets, self.before_duration) = (false, false);
                self.at += 1;
                self.push(start, TokenKind::Symbol("]"));
                return Ok(());
            }
            c if is_name_start(c) || c == ':' => return self.word(c),
            _ => {}
        }
        self.symbol(c)
    }

    fn word(&mut self, first: char) -> Result<(), ParseError> {
        let (start, colon) = (self.at, !self.in_brackets);
        self.take_while(|c| is_name_part(c) || (colon && c == ':'));
        let word = &self.text[start..self.at];
        let mut known = DURATION_WORDS.iter();
        if self.in_brackets && !known.any(|known| known.eq_ignore_ascii_case(word)) {
            return self.not_of_duration(start, first);
        }
        self.push(start, TokenKind::Word);
        Ok(())
    }

    /// A colon inside brackets.
    fn colon(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        self.at += 1;
        if self.before_duration && !self.duration_seen {
            let text = "unexpected colon before duration in duration expression";
            return self.fail(self.at, text);
        }
        if self.colon_seen {
            return self.fail(start, "unexpected colon ':'");
        }
        self.colon_seen = true;
        self.push(start, TokenKind::Symbol(":"));
        Ok(())
    }

    /// A character that has no meaning inside brackets.
    fn not_of_duration(&self, start: usize, c: char) -> Result<(), ParseError> {
        let c = QuotedChar(c);
        let text = match self.before_duration {
            true => format!("unexpected character in duration expression: {c}"),
            false => format!("unexpected character: {c}, expected ':'"),
        };
        self.fail(start, &text)
    }

    fn symbol(&mut self, c: char) -> Result<(), ParseError> {
        let start = self.at;
        if self.rest().starts_with("=~") {
            return self.fail(start, "unexpected character after '=': '~'");
        }
        let Some(symbol) = SYMBOLS.iter().find(|s| self.rest().starts_with(**s)) else {
            if c == '!' {
                let after = self.rest()[1..].chars().next();
                let after = QuotedChar(after.unwrap_or('\u{fffd}'));
                return self.fail(start, &format!("unexpected character after '!': {after}"));
            }
            return self.fail(start, &format!("unexpected character: {}", QuotedChar(c)));
        };
        match *symbol {
            "(" => self.parentheses += 1,
            ")" if self.parentheses == 0 => {
                // Prometheus has stepped over it when it complains.
                return self.fail(start + 1, "unexpected right parenthesis ')'");
            }
            ")" => self.parentheses -= 1,
            "[" if self.in_brackets => return self.fail(start, "unexpected left bracket '['"),
            "[" => {
                (self.in_brackets, self.before_duration) = (true, true);
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
                    let after = QuotedChar(after);
                    format!("unexpected character after '!' inside braces: {after}")
                }
                c => format!("unexpected character inside braces: {}", QuotedChar(c)),
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
        self.before_duration = false;
        self.duration_seen |= self.in_brackets;
        let (length, kind) = number::scan(self.rest());
        self.at += length;
        let Some(kind) = kind else {
            let bad = &self.text[start..self.at];
            return self.fail(start, &format!("bad number or duration syntax: {bad:?}"));
        };
        self.push(start, kind);
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), ParseError> {
        let start = self.at;
        let (mut escaped, mut end) = (false, None);
        for (offset, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' if quote != '`' => {
                    end = Some((start + offset, c));
                    break;
                }
                _ if escaped => escaped = false,
                '\\' if quote != '`' => escaped = true,
                c if c == quote => {
                    end = Some((start + offset, c));
                    break;
                }
                _ => {}
            }
        }
        let (inner_end, behind) = end.map_or((self.text.len(), None), |(at, c)| (at, Some(c)));
        let text = match unquote(&self.text[start + 1..inner_end], quote, behind) {
            Ok(text) => text,
            Err(text) => return self.fail(start, &text),
        };
        if behind != Some(quote) {
            let text = match quote {
                '`' => "unterminated raw string",
                _ => "unterminated quoted string",
            };
            return self.fail(start, text);
        }
        self.at = inner_end + 1;
        self.push(start, TokenKind::Text(text));
        Ok(())
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
        TokenKind::Word => describe_word(source, &text[token.span.end as usize..]),
    }
}

fn describe_word(word: &str, behind: &str) -> String {
    let lower = word.to_ascii_lowercase();
    if crate::ast::AggregateOp::by_name(word).is_some() {
        return format!("<aggr:{word}>");
    }
    match lower.as_str() {
        "and" | "or" | "unless" | "atan2" => format!("<op:{word}>"),
        "offset" | "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" | "bool"
        | "anchored" | "smoothed" => format!("<{word}>"),
        "fill" | "fill_left" | "fill_right" if behind.trim_start().starts_with('(') => {
            format!("<{word}>")
        }
        "start" | "end" | "step" | "range" => format!("{word:?}"),
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
