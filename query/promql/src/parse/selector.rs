//! Selectors: `name{label="value", "utf8 label"!~"x.*"}`.

use super::{ParseError, Parser, lex::TokenKind};
use crate::ast::{Expr, ExprKind, Span, TimeModifier, VectorSelector};
use crate::{MatchOp, Matcher, StringLiteral};
use trefoil_model::LABEL_NAME_METRIC;

impl Parser<'_> {
    /// A selector that is the whole text.
    pub(super) fn lone_selector(&mut self) -> Result<Vec<Matcher>, ParseError> {
        let name = match self.word() {
            Some(word) if may_name_metric(word) => Some(self.next().span),
            _ if self.is_symbol("{") => None,
            _ => return Err(self.unexpected("", "")),
        };
        let expr = self.selector(name)?;
        if self.peek().kind != TokenKind::End || self.lexical.is_some() {
            return Err(self.unexpected("", ""));
        }
        match expr.kind {
            ExprKind::Selector(selector) => Ok(selector.matchers),
            _ => Err(self.unexpected("", "")),
        }
    }

    /// A selector whose name, if any, has been taken; its braces have not.
    pub(super) fn selector(&mut self, name_span: Option<Span>) -> Result<Expr, ParseError> {
        let start = name_span.unwrap_or(self.peek().span);
        let mut name = name_span.map(|span| self.source(span).to_owned());
        let mut matchers = Vec::new();
        if self.take("{").is_some() {
            let inner = self.matchers(&mut matchers)?;
            if let (Some(first), Some(second)) = (&name, &inner) {
                return Err(named_twice(start.to(self.last_end()), first, second));
            }
            name = name.or(inner);
        }
        let span = start.to(self.last_end());
        if let Some(name) = &name {
            let matcher = Matcher::new(LABEL_NAME_METRIC, MatchOp::Equal, name);
            matchers.push(matcher.map_err(|error| ParseError::at(span, error.to_string()))?);
        }
        let time = TimeModifier::default();
        Ok(Expr {
            kind: ExprKind::Selector(VectorSelector {
                name,
                matchers,
                time,
                extension: None,
            }),
            span,
        })
    }

    /// What is between the braces; returns a quoted metric name if there is one.
    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Result<Option<String>, ParseError> {
        let mut name: Option<String> = None;
        loop {
            if self.take("}").is_some() {
                return Ok(name);
            }
            let token = self.peek().clone();
            let label = match &token.kind {
                TokenKind::Word => self.source(token.span).to_owned(),
                TokenKind::Text(text) => utf8(text, token.span)?,
                _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
            };
            self.next();
            let quoted = matches!(token.kind, TokenKind::Text(_));
            if quoted && (self.is_symbol(",") || self.is_symbol("}")) {
                if let Some(first) = &name {
                    return Err(named_twice(token.span, first, &label));
                }
                name = Some(label);
            } else {
                let span = token.span;
                matchers.push(self.matcher_of(&label, span)?);
            }
            if self.take(",").is_none() && !self.is_symbol("}") {
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
        }
    }

    fn matcher_of(&mut self, label: &str, start: Span) -> Result<Matcher, ParseError> {
        let op = match self.peek().kind {
            TokenKind::Symbol("=") => MatchOp::Equal,
            TokenKind::Symbol("!=") => MatchOp::NotEqual,
            TokenKind::Symbol("=~") => MatchOp::Regex,
            TokenKind::Symbol("!~") => MatchOp::NotRegex,
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.next();
        let TokenKind::Text(value) = self.peek().kind.clone() else {
            return Err(self.unexpected("label matching", "string"));
        };
        let end = self.next().span;
        let (value, span) = (utf8(&value, end)?, start.to(end));
        Matcher::new_within(label, op, value, &mut self.regex_bytes_left)
            .map_err(|error| ParseError::at(span, error.to_string()))
    }
}

/// Whether a word that is no function's can be the name of a metric.
pub(super) fn may_name_metric(word: &str) -> bool {
    let never = [
        "inf",
        "nan",
        "on",
        "ignoring",
        "bool",
        "group_left",
        "group_right",
        "atan2",
    ];
    !never
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(word))
}

/// A literal where a name or a label's value is wanted.
fn utf8(literal: &StringLiteral, span: Span) -> Result<String, ParseError> {
    let text = literal.text().map(str::to_owned);
    text.ok_or_else(|| ParseError::at(span, "invalid UTF-8 in quoted string"))
}

fn named_twice(span: Span, first: &str, second: &str) -> ParseError {
    let text = format!("metric name must not be set twice: {first:?} or {second:?}");
    ParseError::at(span, text)
}
