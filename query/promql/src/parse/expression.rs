//! Expressions: operators by precedence, calls, aggregations, modifiers.

use super::{ParseError, Parser, lex::TokenKind, selector::utf8};
use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Extension,
    RangeSelector, Span, SubQuery, TimeModifier, ValueType, VectorMatching,
};
use crate::function::{Function, FunctionKind};

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
            let op_span = self.next().span;
            let (return_bool, matching) = self.binary_modifiers()?;
            let right_precedence = op.precedence() + u8::from(op != BinaryOp::Pow);
            let right = self.expression(right_precedence)?;
            let span = left.span.to(right.span);
            let binary = Binary {
                op,
                left,
                right,
                return_bool,
                matching,
            };
            left = self.check_binary(binary, span, op_span)?;
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
            let span = self.next().span;
            if !self.options.fill_modifiers {
                let text = format!(
                    "{word} modifier is experimental and must be enabled with \
                     --enable-feature=promql-binop-fill-modifiers"
                );
                return Err(ParseError::at(span, text));
            }
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
        let value_type = operand.value_type();
        if !matches!(value_type, ValueType::Scalar | ValueType::Vector) {
            let text = format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                value_type.text()
            );
            return Err(ParseError::at(span, text));
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
        if !self.options.extended_range_selectors {
            let text = format!(
                "{name} modifier is experimental and must be enabled with \
                 --enable-feature=promql-extended-range-selectors"
            );
            return Err(ParseError::at(keyword, text));
        }
        let slot = match &mut expr.kind {
            ExprKind::Selector(selector) if extension == Extension::Smoothed => {
                Some(&mut selector.extension)
            }
            ExprKind::Range(range) => Some(&mut range.selector.extension),
            _ => None,
        };
        let Some(slot) = slot else {
            let text = format!("{name} modifier not implemented for this expression");
            return Err(ParseError::at(keyword, text));
        };
        if slot.replace(extension).is_some() {
            let text = "anchored and smoothed may not be set multiple times";
            return Err(ParseError::at(keyword, text));
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
        if opens && !word.contains(':') {
            self.next();
            return self.call(word, span);
        }
        match word.to_ascii_lowercase().as_str() {
            "inf" => self.special_number(f64::INFINITY),
            "nan" => self.special_number(f64::NAN),
            "on" | "ignoring" | "bool" | "group_left" | "group_right" | "atan2" => {
                Err(self.unexpected("", ""))
            }
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
        let Some(function) = Function::by_name(&name.to_ascii_lowercase()) else {
            let text = format!("unknown function with name {name:?}");
            return Err(ParseError::at(start, text));
        };
        if function.experimental && !self.options.experimental_functions {
            return Err(ParseError::at(start, experimental(function.name)));
        }
        let arguments = self.arguments(function.kind == FunctionKind::Info)?;
        let span = start.to(self.last_end());
        self.check_call(function, arguments, span)
            .map(|arguments| Expr {
                kind: ExprKind::Call(Call {
                    function,
                    arguments,
                }),
                span,
            })
    }

    /// The arguments of a call; those of `info` behind the first may select by labels that no series needs to have.
    fn arguments(&mut self, of_info: bool) -> Result<Vec<Expr>, ParseError> {
        let mut arguments = Vec::new();
        self.next();
        if self.take(")").is_some() {
            return Ok(arguments);
        }
        loop {
            let before = self.allows_empty_selector;
            self.allows_empty_selector = of_info && !arguments.is_empty();
            let argument = self.expression(0);
            self.allows_empty_selector = before;
            arguments.push(argument?);
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
        let is_experimental = matches!(op, AggregateOp::LimitK | AggregateOp::LimitRatio);
        if is_experimental && !self.options.experimental_functions {
            return Err(ParseError::at(start, experimental(op.text())));
        }
        let mut modifier = self.aggregate_modifier()?;
        if !self.is_symbol("(") {
            return Err(self.unexpected("aggregation", ""));
        }
        let mut arguments = self.arguments(false)?;
        if modifier.is_none() {
            modifier = self.aggregate_modifier()?;
        }
        let span = start.to(self.last_end());
        let (without, grouping) = modifier.unwrap_or_default();
        if arguments.is_empty() {
            let text = "no arguments for aggregate expression provided";
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
        self.check_aggregate(&aggregate)?;
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
                TokenKind::Word if !self.source(token.span).contains(':') => {
                    labels.push(self.source(token.span).to_owned());
                }
                TokenKind::Text(label) if label.text() != Some("") => {
                    labels.push(utf8(&label, token.span)?);
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
        range: crate::ast::DurationExpr,
        step: Option<crate::ast::DurationExpr>,
        close: Span,
    ) -> Result<Expr, ParseError> {
        let span = operand.span.to(close);
        let value_type = operand.value_type();
        if value_type != ValueType::Vector {
            let text = format!(
                "subquery is only allowed on instant vector, got {} instead",
                value_type.text()
            );
            return Err(ParseError::at(span, text));
        }
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
        let keyword = self.next().span;
        let offset = self.offset_duration()?;
        let end = self.last_end();
        let Some(time) = time_modifier(&mut expr) else {
            let text = "offset modifier must be preceded by an instant vector selector or range \
                        vector selector or a subquery";
            return Err(ParseError::at(keyword, text));
        };
        if time.offset.replace(offset).is_some() {
            let text = "offset may not be set multiple times";
            return Err(ParseError::at(expr.span.to(end), text));
        }
        expr.span = expr.span.to(end);
        Ok(expr)
    }

    fn at_modifier(&mut self, mut expr: Expr) -> Result<Expr, ParseError> {
        let symbol = self.next().span;
        let at = self.at_time()?;
        let end = self.last_end();
        let Some(time) = time_modifier(&mut expr) else {
            let text = "@ modifier must be preceded by an instant vector selector or range vector \
                        selector or a subquery";
            return Err(ParseError::at(symbol, text));
        };
        if time.at.replace(at).is_some() {
            let text = "@ <timestamp> may not be set multiple times";
            return Err(ParseError::at(expr.span.to(end), text));
        }
        expr.span = expr.span.to(end);
        Ok(expr)
    }

    fn at_time(&mut self) -> Result<At, ParseError> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.is_word(word) {
                self.next();
                if self.take("(").is_none() || self.take(")").is_none() {
                    return Err(self.unexpected("@", "timestamp"));
                }
                return Ok(at);
            }
        }
        let start = self.peek().span;
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
            let text = format!("timestamp out of bounds for @ modifier: {seconds:.6}");
            return Err(ParseError::at(start, text));
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

fn experimental(name: &str) -> String {
    format!(
        "{name}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
    )
}
