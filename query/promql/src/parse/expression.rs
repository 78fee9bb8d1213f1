//! Expressions: operators by precedence, calls, aggregations, modifiers.

use super::{ParseError, Parser, lex::TokenKind, selector::may_name_metric};
use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, DurationExpr, DurationKind,
    Expr, ExprKind, Extension, RangeSelector, Span, SubQuery, TimeModifier, VectorMatching,
};
use crate::function::Function;

/// The precedence of a sign: that of `*`, so that its operand may be a power.
const SIGN_OPERAND: u8 = 6;

impl Parser<'_> {
    /// Parses operators that bind at least as tightly as `precedence`.
    pub(super) fn expression(&mut self, precedence: u8) -> Result<Expr, ParseError> {
        self.nested(|parser| parser.binary(precedence))
    }

    fn binary(&mut self, precedence: u8) -> Result<Expr, ParseError> {
        let mut left = self.unary()?;
        let depth = self.depth;
        while let Some(op) = self.binary_op().filter(|op| op.precedence() >= precedence) {
            // A chain of operators nests to the left, so every operator is a level.
            self.depth += 1;
            self.next();
            let (return_bool, matching) = self.binary_modifiers()?;
            let right_precedence = op.precedence() + u8::from(op != BinaryOp::Pow);
            let right = self.expression(right_precedence)?;
            let span = left.span.to(right.span);
            let fills = matching.as_ref().is_some_and(VectorMatching::fills);
            if fills && !self.options.fill_modifiers {
                let text = "binop fill modifiers are experimental and not enabled";
                return Err(ParseError::at(span, text));
            }
            let binary = Binary {
                op,
                left,
                right,
                return_bool,
                matching,
            };
            left = Expr {
                kind: ExprKind::Binary(Box::new(binary)),
                span,
            };
        }
        self.depth = depth;
        Ok(left)
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        use BinaryOp::*;
        let token = self.peek();
        let text = self.source(token.span);
        match &token.kind {
            TokenKind::Symbol(symbol) => Some(match *symbol {
                "+" => Add,
                "-" => Sub,
                "*" => Mul,
                "/" => Div,
                "%" => Mod,
                "^" => Pow,
                "==" => Equal,
                "!=" => NotEqual,
                "<" => Less,
                "<=" => LessEqual,
                ">" => Greater,
                ">=" => GreaterEqual,
                "</" => TrimUpper,
                ">/" => TrimLower,
                _ => return None,
            }),
            TokenKind::Word => Some(match text.to_ascii_lowercase().as_str() {
                "and" => And,
                "or" => Or,
                "unless" => Unless,
                "atan2" => Atan2,
                _ => return None,
            }),
            _ => None,
        }
    }

    fn binary_modifiers(&mut self) -> Result<(bool, Option<VectorMatching>), ParseError> {
        let return_bool = self.take_word("bool").is_some();
        let on = self.is_word("on");
        let mut matching = VectorMatching {
            cardinality: Cardinality::OneToOne,
            on,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        if !on && !self.is_word("ignoring") {
            let filled = self.fill_modifiers(&mut matching)?;
            return Ok((return_bool, filled.then_some(matching)));
        }
        self.next();
        matching.labels = self.grouping_labels()?;
        let left = self.is_word("group_left");
        if left || self.is_word("group_right") {
            self.next();
            matching.cardinality = if left {
                Cardinality::ManyToOne
            } else {
                Cardinality::OneToMany
            };
            if self.is_symbol("(") {
                matching.include = self.grouping_labels()?;
            }
        }
        self.fill_modifiers(&mut matching)?;
        Ok((return_bool, Some(matching)))
    }

    /// Takes `fill(0)`, `fill_left(0)` and `fill_right(0)`; whether there was any. Without a parenthesis
    /// behind it the word is a metric's name.
    fn fill_modifiers(&mut self, matching: &mut VectorMatching) -> Result<bool, ParseError> {
        let mut any = false;
        loop {
            let word = self.word().unwrap_or_default().to_ascii_lowercase();
            let (left, right) = match word.as_str() {
                "fill" => (true, true),
                "fill_left" => (true, false),
                "fill_right" => (false, true),
                _ => return Ok(any),
            };
            if self.peek_behind().kind != TokenKind::Symbol("(") {
                return Ok(any);
            }
            self.next();
            self.next();
            let value = self.unary()?;
            let ExprKind::Number(value) = value.kind else {
                return Err(ParseError::at(value.span, "fill value must be a number"));
            };
            if self.take(")").is_none() {
                return Err(self.unexpected(&word, "\")\""));
            }
            if left {
                matching.fill_left = Some(value);
            }
            if right {
                matching.fill_right = Some(value);
            }
            any = true;
        }
    }

    fn unary(&mut self) -> Result<Expr, ParseError> {
        let negative = self.is_symbol("-");
        if !negative && !self.is_symbol("+") {
            return self.postfix();
        }
        let sign = self.next().span;
        let operand = self.expression(SIGN_OPERAND)?;
        let span = sign.to(operand.span);
        if let ExprKind::Number(value) = operand.kind {
            let value = if negative { -value } else { value };
            return Ok(Expr {
                kind: ExprKind::Number(value),
                span,
            });
        }
        let operand = Box::new(operand);
        Ok(Expr {
            kind: ExprKind::Unary { negative, operand },
            span,
        })
    }

    fn postfix(&mut self) -> Result<Expr, ParseError> {
        let mut expr = self.primary()?;
        let depth = self.depth;
        loop {
            expr = if self.is_symbol("[") {
                self.depth += 1;
                self.nested(|parser| parser.range(expr))?
            } else if self.is_word("offset") {
                self.offset(expr)?
            } else if self.is_symbol("@") {
                self.at_modifier(expr)?
            } else if let Some(extension) = self.extension() {
                self.extended(expr, extension)?
            } else {
                self.depth = depth;
                return Ok(expr);
            };
        }
    }

    fn extension(&self) -> Option<Extension> {
        let all = [Extension::Anchored, Extension::Smoothed];
        all.into_iter().find(|e| self.is_word(e.text()))
    }

    fn extended(&mut self, mut expr: Expr, extension: Extension) -> Result<Expr, ParseError> {
        let keyword = self.next().span;
        let name = extension.text();
        let fail = |reason: &str| {
            Err(ParseError::at(
                expr.span,
                format!("{name} modifier {reason}"),
            ))
        };
        if !self.options.extended_range_selectors {
            return fail("is experimental and not enabled");
        }
        let slot = match &mut expr.kind {
            ExprKind::Selector(selector) if extension == Extension::Smoothed => {
                &mut selector.extension
            }
            ExprKind::Range(range) => &mut range.selector.extension,
            ExprKind::SubQuery(_) => return fail("is not supported for subqueries"),
            _ => return fail("not implemented"),
        };
        if slot
            .replace(extension)
            .is_some_and(|other| other != extension)
        {
            let text = "anchored and smoothed modifiers cannot be used together";
            return Err(ParseError::at(expr.span, text));
        }
        expr.span = expr.span.to(keyword);
        Ok(expr)
    }

    fn primary(&mut self) -> Result<Expr, ParseError> {
        let token = self.peek().clone();
        let simple = |kind| Expr {
            kind,
            span: token.span,
        };
        match &token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let value = self.seconds()?;
                Ok(simple(ExprKind::Number(value)))
            }
            TokenKind::Text(text) => {
                self.next();
                Ok(simple(ExprKind::String(text.clone())))
            }
            TokenKind::Symbol("(") => {
                self.next();
                let inner = Box::new(self.expression(0)?);
                let Some(close) = self.take(")") else {
                    return Err(self.unexpected("", ""));
                };
                Ok(Expr {
                    kind: ExprKind::Paren(inner),
                    span: token.span.to(close),
                })
            }
            TokenKind::Symbol("{") => self.selector(None),
            TokenKind::Word => self.word_expression(),
            _ => Err(self.unexpected("", "")),
        }
    }

    fn word_expression(&mut self) -> Result<Expr, ParseError> {
        let span = self.peek().span;
        let word = self.source(span);
        let behind = self.peek_behind().clone();
        let opens = behind.kind == TokenKind::Symbol("(");
        if let Some(op) = AggregateOp::by_name(word) {
            let behind_word = self.source(behind.span).to_ascii_lowercase();
            if opens || matches!(behind_word.as_str(), "by" | "without") {
                self.next();
                return self.aggregate(op, span);
            }
        }
        if opens && !word.contains(':') && !is_keyword(word) {
            self.next();
            return self.call(word, span);
        }
        match word.to_ascii_lowercase().as_str() {
            "inf" => self.special_number(f64::INFINITY),
            "nan" => self.special_number(f64::NAN),
            _ if !may_name_metric(word) => Err(self.unexpected("", "")),
            "fill" | "fill_left" | "fill_right" if opens => Err(self.unexpected("", "")),
            _ => {
                self.next();
                self.selector(Some(span))
            }
        }
    }

    fn special_number(&mut self, value: f64) -> Result<Expr, ParseError> {
        let span = self.next().span;
        Ok(Expr {
            kind: ExprKind::Number(value),
            span,
        })
    }

    fn call(&mut self, name: &str, start: Span) -> Result<Expr, ParseError> {
        let arguments = self.arguments()?;
        let Some(function) = Function::by_name(name) else {
            let text = format!("unknown function with name {name:?}");
            return Err(ParseError::at(start, text));
        };
        if function.experimental && !self.options.experimental_functions {
            let text = format!("function {name:?} is not enabled");
            return Err(ParseError::at(start, text));
        }
        Ok(Expr {
            kind: ExprKind::Call(Call {
                function,
                arguments,
            }),
            span: start.to(self.last_end()),
        })
    }

    /// The arguments of a call, from the bracket on.
    fn arguments(&mut self) -> Result<Vec<Expr>, ParseError> {
        let mut arguments = Vec::new();
        self.next();
        if self.take(")").is_some() {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expression(0)?);
            if self.take(")").is_some() {
                return Ok(arguments);
            }
            let Some(comma) = self.take(",") else {
                return Err(self.unexpected("", ""));
            };
            if self.is_symbol(")") {
                let text = "trailing commas not allowed in function call args";
                return Err(ParseError::at(comma, text));
            }
        }
    }

    fn aggregate(&mut self, op: AggregateOp, start: Span) -> Result<Expr, ParseError> {
        let mut modifier = self.aggregate_modifier()?;
        if !self.is_symbol("(") {
            return Err(self.unexpected("aggregation", ""));
        }
        self.aggregations += 1;
        let arguments = self.arguments();
        self.aggregations -= 1;
        let mut arguments = arguments?;
        if modifier.is_none() {
            modifier = self.aggregate_modifier()?;
        }
        let span = start.to(self.last_end());
        let (without, grouping) = modifier.unwrap_or_default();
        if arguments.is_empty() {
            let text = "no arguments for aggregate expression provided";
            return Err(ParseError::at(span, text));
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let text = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.text()
            );
            return Err(ParseError::at(span, text));
        }
        let expected = 1 + usize::from(op.has_parameter());
        let got = arguments.len();
        let operand = arguments.pop().filter(|_| got == expected);
        let Some(operand) = operand else {
            let text = format!(
                "wrong number of arguments for aggregate expression provided, expected {expected}, got {got}"
            );
            return Err(ParseError::at(span, text));
        };
        let aggregate = Aggregate {
            op,
            operand,
            parameter: arguments.pop(),
            grouping,
            without,
        };
        Ok(Expr {
            kind: ExprKind::Aggregate(Box::new(aggregate)),
            span,
        })
    }

    fn aggregate_modifier(&mut self) -> Result<Option<(bool, Vec<String>)>, ParseError> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.next();
        Ok(Some((without, self.grouping_labels()?)))
    }

    fn grouping_labels(&mut self) -> Result<Vec<String>, ParseError> {
        let mut labels = Vec::new();
        if self.take("(").is_none() {
            return Err(self.unexpected("grouping opts", "\"(\""));
        }
        loop {
            if self.take(")").is_some() {
                return Ok(labels);
            }
            let token = self.peek().clone();
            match token.kind {
                TokenKind::Word if !is_special_number(self.source(token.span)) => {
                    labels.push(self.source(token.span).to_owned());
                }
                TokenKind::Text(label) => {
                    let label = label.text().filter(|name| !name.is_empty());
                    let invalid = || {
                        format!(
                            "invalid label name for grouping: {}",
                            self.source(token.span)
                        )
                    };
                    let label = label.ok_or_else(|| ParseError::at(token.span, invalid()))?;
                    labels.push(label.to_owned());
                }
                _ => return Err(self.unexpected("grouping opts", "label")),
            }
            self.next();
            if self.take(",").is_none() && !self.is_symbol(")") {
                return Err(self.unexpected("grouping opts", "\",\" or \")\""));
            }
        }
    }

    fn range(&mut self, expr: Expr) -> Result<Expr, ParseError> {
        let open = self.next().span;
        let range = self.positive_duration("subquery or range selector")?;
        if self.take(":").is_some() {
            let step = if self.is_symbol("]") {
                None
            } else {
                Some(self.positive_duration("subquery selector")?)
            };
            let Some(close) = self.take("]") else {
                return Err(self.unexpected("subquery selector", "\"]\""));
            };
            return self.sub_query(expr, range, step, close);
        }
        let Some(close) = self.take("]") else {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        };
        let span = expr.span.to(close);
        let selector_span = expr.span;
        let fail = |text: &str| Err(ParseError::at(open.to(close), text));
        match expr.kind {
            ExprKind::Selector(selector) if selector.time.offset.is_some() => {
                fail("no offset modifiers allowed before range")
            }
            ExprKind::Selector(selector) if selector.time.at.is_some() => {
                fail("no @ modifiers allowed before range")
            }
            ExprKind::Selector(selector) => Ok(Expr {
                kind: ExprKind::Range(Box::new(RangeSelector {
                    selector,
                    selector_span,
                    range,
                })),
                span,
            }),
            _ => fail("ranges only allowed for vector selectors"),
        }
    }

    fn sub_query(
        &mut self,
        operand: Expr,
        range: DurationExpr,
        step: Option<DurationExpr>,
        close: Span,
    ) -> Result<Expr, ParseError> {
        let span = operand.span.to(close);
        let time = TimeModifier::default();
        Ok(Expr {
            kind: ExprKind::SubQuery(Box::new(SubQuery {
                operand,
                range,
                step,
                time,
            })),
            span,
        })
    }

    fn offset(&mut self, mut expr: Expr) -> Result<Expr, ParseError> {
        self.next();
        let offset = self.offset_duration()?;
        let end = self.last_end();
        let Some(time) = time_modifier(&mut expr) else {
            let text = "offset modifier must be preceded by an instant vector selector or range \
                        vector selector or a subquery";
            return Err(ParseError::at(expr.span, text));
        };
        // An offset of nothing is none.
        let before = time.offset.replace(offset);
        if before.is_some_and(|before| before.kind != DurationKind::Literal(0.0)) {
            let text = "offset may not be set multiple times";
            return Err(ParseError::at(expr.span, text));
        }
        expr.span = expr.span.to(end);
        Ok(expr)
    }

    fn at_modifier(&mut self, mut expr: Expr) -> Result<Expr, ParseError> {
        self.next();
        let at = self.at_time(expr.span)?;
        let end = self.last_end();
        let Some(time) = time_modifier(&mut expr) else {
            let text = "@ modifier must be preceded by an instant vector selector or range vector \
                        selector or a subquery";
            return Err(ParseError::at(expr.span, text));
        };
        if time.at.replace(at).is_some() {
            let text = "@ <timestamp> may not be set multiple times";
            return Err(ParseError::at(expr.span, text));
        }
        expr.span = expr.span.to(end);
        Ok(expr)
    }

    /// The time behind `@`; one that cannot be is reported at what it belongs to.
    fn at_time(&mut self, of: Span) -> Result<At, ParseError> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.is_word(word) {
                self.next();
                if self.take("(").is_none() || self.take(")").is_none() {
                    return Err(self.unexpected("@", "timestamp"));
                }
                return Ok(at);
            }
        }
        let negative = self.is_symbol("-");
        if negative || self.is_symbol("+") {
            self.next();
        }
        let special = match self.word() {
            Some(word) if word.eq_ignore_ascii_case("inf") => Some(f64::INFINITY),
            Some(word) if word.eq_ignore_ascii_case("nan") => Some(f64::NAN),
            _ => None,
        };
        let seconds = match special {
            Some(value) => {
                self.next();
                value
            }
            None if matches!(self.peek().kind, TokenKind::Number | TokenKind::Duration) => {
                self.seconds()?
            }
            None => return Err(self.unexpected("@", "timestamp")),
        };
        let seconds = if negative { -seconds } else { seconds };
        let milliseconds = (seconds * 1000.0).round();
        if !milliseconds.is_finite() || milliseconds.abs() >= i64::MAX as f64 {
            let shown = match seconds.is_finite() {
                true => format!("{seconds:.6}"),
                false => crate::format::number(seconds),
            };
            let text = format!("timestamp out of bounds for @ modifier: {shown}");
            return Err(ParseError::at(of, text));
        }
        Ok(At::Time(milliseconds as i64))
    }

    pub(super) fn take_word(&mut self, word: &str) -> Option<Span> {
        self.is_word(word).then(|| self.next().span)
    }
}

fn time_modifier(expr: &mut Expr) -> Option<&mut TimeModifier> {
    match &mut expr.kind {
        ExprKind::Selector(selector) => Some(&mut selector.time),
        ExprKind::Range(range) => Some(&mut range.selector.time),
        ExprKind::SubQuery(sub_query) => Some(&mut sub_query.time),
        _ => None,
    }
}

/// Whether the word is the number `Inf` or `NaN`.
fn is_special_number(word: &str) -> bool {
    word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan")
}

/// Whether the word cannot be the name of a function.
fn is_keyword(word: &str) -> bool {
    const KEYWORDS: [&str; 17] = [
        "and",
        "or",
        "unless",
        "atan2",
        "offset",
        "anchored",
        "smoothed",
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
        "fill",
        "fill_left",
        "fill_right",
        "bool",
    ];
    let mut keywords = KEYWORDS.iter();
    is_special_number(word) || keywords.any(|keyword| keyword.eq_ignore_ascii_case(word))
}
