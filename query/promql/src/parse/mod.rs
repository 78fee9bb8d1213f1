//! The parser: text to syntax tree, by operator precedence, with the messages of Prometheus.
//!
//! Grammar: Prometheus 3.14, `docs/querying/basics.md` and `operators.md`. The nesting of a tree is
//! bounded by [`DEPTH_MAX`], because everything that walks it is recursive.

mod check;
mod duration;
mod expression;
mod lex;
mod quote;
mod selector;
#[cfg(test)]
mod tests;

use crate::{
    EvalOptions, Matcher, QueryError,
    ast::{Expr, ExprKind, Span},
};
pub(crate) use duration::duration_seconds;
use lex::{Token, TokenKind};

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
    let mut parser = Parser::new(text, *options).map_err(|e| e.shown(text))?;
    parser.query().map_err(|error| {
        // A mistake of the lexer lies behind all tokens, but it explains an unexpected end.
        let lexical = parser.lexical.as_ref();
        let at_end = error.span.start >= parser.end().start;
        let error = lexical.filter(|_| at_end).unwrap_or(&error);
        error.shown(text)
    })
}

/// Parses a selector without range and modifiers, as in `match[]`.
///
/// # Errors
/// As for [`parse`].
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, QueryError> {
    let expr = parse(text, &EvalOptions::default())?;
    match expr.kind {
        ExprKind::Selector(selector) if selector.time.is_empty() => Ok(selector.matchers),
        _ => Err(ParseError::at(expr.span, "expected a series selector").shown(text)),
    }
}

/// A cursor over the tokens of a query.
struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    options: EvalOptions,
    lexical: Option<ParseError>,
    /// A selector may fit series without any of its labels.
    allows_empty_selector: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, options: EvalOptions) -> Result<Self, ParseError> {
        let (mut tokens, lexical) = lex::tokens(text);
        if let Some(error) = &lexical {
            // The parser works on what is in front of the mistake, so that an earlier one is found first.
            let span = Span::new(error.span.start as usize, error.span.start as usize);
            tokens.push(Token {
                kind: TokenKind::End,
                span,
            });
        }
        Ok(Self {
            text,
            tokens,
            at: 0,
            depth: 0,
            options,
            lexical,
            allows_empty_selector: false,
        })
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
