//! The parser: text to syntax tree, by operator precedence, with the messages of Prometheus.
//!
//! Grammar: Prometheus 3.14, `docs/querying/basics.md` and `operators.md`. The nesting of a tree is
//! bounded by [`DEPTH_MAX`], because everything that walks it is recursive.

mod check;
mod duration;
mod expression;
mod lex;
mod number;
mod quote;
mod selector;
#[cfg(test)]
mod tests;

use crate::{
    EvalOptions, Matcher, QueryError,
    ast::{Expr, Span},
    matcher::REGEX_BYTES_PER_QUERY,
};
pub(crate) use duration::duration_seconds;
use lex::{Token, TokenKind};
use std::collections::BTreeSet;

/// Deepest nesting of a query. A deeper one is refused; no dashboard comes near.
pub const DEPTH_MAX: usize = 256;

/// What is wrong with a query and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ParseError {
    span: Span,
    text: String,
}

impl ParseError {
    fn at(span: Span, text: impl Into<String>) -> Self {
        Self {
            span,
            text: text.into(),
        }
    }

    fn shown(&self, text: &str) -> QueryError {
        let position = self.span.position(text);
        QueryError::BadData(format!("{position}: parse error: {}", self.text))
    }
}

/// Parses and type-checks a query.
///
/// # Errors
/// [`QueryError::BadData`] with `line:column: parse error: ...` of the first mistake.
pub fn parse(text: &str, options: &EvalOptions) -> Result<Expr, QueryError> {
    let mut parser = Parser::new(text, *options);
    let mut expr = parser.query().map_err(|error| parser.shown(error))?;
    // As in Prometheus types are looked at when there is nothing wrong with the syntax.
    check::check(&mut expr, text).map_err(|error| error.shown(text))?;
    Ok(expr)
}

/// Parses a selector without range and modifiers, as in `match[]`.
///
/// The matchers may all fit series without their labels.
///
/// # Errors
/// As for [`parse`].
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, QueryError> {
    selector_within(text, &mut { REGEX_BYTES_PER_QUERY })
}

/// A selector in a form of its own: selectors with the same matchers, in any order and spelling, have the same.
///
/// # Errors
/// As for [`parse_selector`].
pub fn normal_selector(text: &str) -> Result<String, QueryError> {
    let is_bare = |name: &str| {
        let mut bytes = name.bytes();
        let begins = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        begins && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let matchers = parse_selector(text)?.into_iter();
    let matchers = matchers.map(|matcher| match is_bare(matcher.name()) {
        true => matcher.to_string(),
        false => format!(
            "{:?}{}{:?}",
            matcher.name(),
            matcher.op().text(),
            matcher.value()
        ),
    });
    let matchers: BTreeSet<String> = matchers.collect();
    let matchers: Vec<String> = matchers.into_iter().collect();
    Ok(format!("{{{}}}", matchers.join(",")))
}

/// Parses the selectors of one request, in their order. Their expressions have the bounds of one query together.
///
/// # Errors
/// As for [`parse`], of the first that cannot be.
pub fn parse_selectors<'a>(
    texts: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Vec<Matcher>>, QueryError> {
    let mut bytes_left = REGEX_BYTES_PER_QUERY;
    let texts = texts.into_iter();
    texts
        .map(|text| selector_within(text, &mut bytes_left))
        .collect()
}

fn selector_within(text: &str, bytes_left: &mut usize) -> Result<Vec<Matcher>, QueryError> {
    let mut parser = Parser::new(text, EvalOptions::default());
    parser.regex_bytes_left = *bytes_left;
    let selector = parser.lone_selector();
    *bytes_left = parser.regex_bytes_left;
    selector.map_err(|error| parser.shown(error))
}

/// A cursor over the tokens of a query.
struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    options: EvalOptions,
    lexical: Option<ParseError>,
    /// Aggregations whose brackets are open; messages name them.
    aggregations: usize,
    /// Memory that further expressions of the query may take.
    regex_bytes_left: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, options: EvalOptions) -> Self {
        let (mut tokens, lexical) = lex::tokens(text);
        if let Some(error) = &lexical {
            // The parser works on what is in front of the mistake, so that an earlier one is found first.
            let span = Span::new(error.span.start as usize, error.span.start as usize);
            tokens.push(Token {
                kind: TokenKind::End,
                span,
            });
        }
        Self {
            text,
            tokens,
            at: 0,
            depth: 0,
            options,
            lexical,
            aggregations: 0,
            regex_bytes_left: REGEX_BYTES_PER_QUERY,
        }
    }

    fn query(&mut self) -> Result<Expr, ParseError> {
        if self.peek().kind == TokenKind::End && self.lexical.is_none() {
            return Err(ParseError::at(
                Span::default(),
                "no expression found in input",
            ));
        }
        let expr = self.expression(0)?;
        if self.peek().kind != TokenKind::End {
            return Err(self.unexpected("", ""));
        }
        if let Some(error) = &self.lexical {
            return Err(error.clone());
        }
        Ok(expr)
    }

    /// The error for the client. A mistake of the lexer lies behind all tokens, but it explains an unexpected end.
    fn shown(&self, error: ParseError) -> QueryError {
        let at_end = error.span.start >= self.end().start;
        let lexical = self.lexical.as_ref().filter(|_| at_end);
        lexical.unwrap_or(&error).shown(self.text)
    }

    fn peek(&self) -> &Token {
        // The last token is the end, and nothing steps over it.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn end(&self) -> Span {
        self.tokens[self.tokens.len() - 1].span
    }

    fn peek_behind(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(&self.peek().kind, TokenKind::Symbol(s) if *s == symbol)
    }

    /// Takes the symbol if it is next.
    fn take(&mut self, symbol: &str) -> Option<Span> {
        self.is_symbol(symbol).then(|| self.next().span)
    }

    /// The next token's text if it is a word.
    fn word(&self) -> Option<&'a str> {
        let token = self.peek();
        (token.kind == TokenKind::Word).then(|| self.source(token.span))
    }

    fn is_word(&self, word: &str) -> bool {
        self.word().is_some_and(|w| w.eq_ignore_ascii_case(word))
    }

    fn source(&self, span: Span) -> &'a str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// The end of the token before the next one.
    fn last_end(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }

    fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let mut text = format!("unexpected {}", lex::describe(self.peek(), self.text));
        let context = match context {
            "" if self.aggregations > 0 => "aggregation",
            context => context,
        };
        if !context.is_empty() {
            text.push_str(" in ");
            text.push_str(context);
        }
        if !expected.is_empty() {
            text.push_str(", expected ");
            text.push_str(expected);
        }
        ParseError::at(self.peek().span, text)
    }

    /// Runs `inner` one level deeper.
    fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        if self.depth >= DEPTH_MAX {
            let text = format!("expression is nested more than {DEPTH_MAX} levels deep");
            return Err(ParseError::at(self.peek().span, text));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}
