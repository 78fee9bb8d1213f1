//! Numbers, durations and expressions of durations.

use super::{ParseError, Parser, lex::TokenKind};
use crate::ast::{BinaryOp, DurationExpr, DurationKind, Span};

/// Most milliseconds of a duration that Prometheus' nanoseconds can hold.
const SECONDS_MAX: f64 = 9_223_372_036.0;

impl Parser<'_> {
    /// Takes a number or a duration: its value in seconds.
    pub(super) fn seconds(&mut self) -> Result<f64, ParseError> {
        let token = self.next();
        let source = self.source(token.span);
        let value = if token.kind == TokenKind::Duration {
            duration_seconds(source).map_err(|text| ParseError::at(token.span, text))?
        } else {
            let value = number(source).filter(|value| value.is_finite());
            value.ok_or_else(|| {
                let reason = match number(source) {
                    Some(_) => "value out of range",
                    None => "invalid syntax",
                };
                let text = format!(
                    "error parsing number: strconv.ParseFloat: parsing {source:?}: {reason}"
                );
                ParseError::at(token.span, text)
            })?
        };
        Ok(value)
    }

    /// The duration of a range or step, inside brackets.
    pub(super) fn positive_duration(&mut self, context: &str) -> Result<DurationExpr, ParseError> {
        let start = self.peek().span;
        if matches!(
            self.peek().kind,
            TokenKind::Symbol("]" | ":") | TokenKind::End
        ) {
            return Err(self.unexpected(context, "number, duration, step(), or range()"));
        }
        let duration = alone(self.duration_sum(4, context)?);
        if let DurationKind::Literal(seconds) = duration.kind {
            check_range(seconds, start)?;
            if seconds <= 0.0 {
                return Err(ParseError::at(start, "duration must be greater than 0"));
            }
        }
        Ok(duration)
    }

    /// The duration behind `offset`: a signed literal, call or parenthesised expression.
    pub(super) fn offset_duration(&mut self) -> Result<DurationExpr, ParseError> {
        let start = self.peek().span;
        let duration = alone(self.duration_signed("offset")?);
        if let DurationKind::Literal(seconds) = duration.kind {
            check_range(seconds, start)?;
        }
        Ok(duration)
    }

    fn duration_sum(&mut self, precedence: u8, context: &str) -> Result<DurationExpr, ParseError> {
        let mut left = self.duration_signed(context)?;
        let depth = self.depth;
        loop {
            let op = match self.peek().kind {
                TokenKind::Symbol("+") => BinaryOp::Add,
                TokenKind::Symbol("-") => BinaryOp::Sub,
                TokenKind::Symbol("*") => BinaryOp::Mul,
                TokenKind::Symbol("/") => BinaryOp::Div,
                TokenKind::Symbol("%") => BinaryOp::Mod,
                TokenKind::Symbol("^") => BinaryOp::Pow,
                _ => break,
            };
            if op.precedence() < precedence {
                break;
            }
            self.next();
            self.depth += 1;
            let right_precedence = op.precedence() + u8::from(op != BinaryOp::Pow);
            let right = self.nested(|p| p.duration_sum(right_precedence, context))?;
            left = DurationExpr {
                span: left.span.to(right.span),
                kind: DurationKind::Binary(op, Box::new(left), Box::new(right)),
            };
        }
        self.depth = depth;
        Ok(left)
    }

    fn duration_signed(&mut self, context: &str) -> Result<DurationExpr, ParseError> {
        if self.take("+").is_some() {
            return self.nested(|p| p.duration_signed(context));
        }
        let Some(sign) = self.take("-") else {
            return self.duration_primary(context);
        };
        // Inside brackets a power binds tighter than the sign in front of it.
        let operand = self.nested(|p| match context {
            "offset" => p.duration_signed(context),
            _ => p.duration_sum(BinaryOp::Pow.precedence(), context),
        })?;
        Ok(DurationExpr {
            span: sign.to(operand.span),
            kind: match operand.kind {
                DurationKind::Literal(seconds) => DurationKind::Literal(-seconds),
                DurationKind::Number(value) => DurationKind::Number(-value),
                _ => DurationKind::Negative(Box::new(operand)),
            },
        })
    }

    fn duration_primary(&mut self, context: &str) -> Result<DurationExpr, ParseError> {
        let start = self.peek().span;
        let literal = match self.peek().kind {
            TokenKind::Duration => Some(DurationKind::Literal as fn(f64) -> DurationKind),
            TokenKind::Number => Some(DurationKind::Number as fn(f64) -> DurationKind),
            _ => None,
        };
        if let Some(literal) = literal {
            let kind = self.seconds().map(literal)?;
            return Ok(DurationExpr { kind, span: start });
        }
        if self.take("(").is_some() {
            let inner = self.nested(|p| p.duration_sum(0, "parentheses"))?;
            if self.take(")").is_none() {
                return Err(self.unexpected(context, "\")\""));
            }
            return Ok(DurationExpr {
                kind: DurationKind::Paren(Box::new(inner)),
                span: start.to(self.last_end()),
            });
        }
        let word = self.word().map(str::to_ascii_lowercase);
        let kind = match word.as_deref() {
            Some("step") => self.duration_call(context, DurationKind::Step),
            Some("range") => self.duration_call(context, DurationKind::Range),
            Some("min_of") => self.duration_pair(context, DurationKind::Min),
            Some("max_of") => self.duration_pair(context, DurationKind::Max),
            _ => Err(self.unexpected(context, "number, duration, step(), or range()")),
        }?;
        Ok(DurationExpr {
            kind,
            span: start.to(self.last_end()),
        })
    }

    fn duration_call(
        &mut self,
        context: &str,
        value: DurationKind,
    ) -> Result<DurationKind, ParseError> {
        self.next();
        if self.take("(").is_none() {
            return Err(self.unexpected(context, "\"(\""));
        }
        if self.take(")").is_none() {
            return Err(self.unexpected(context, "\")\""));
        }
        Ok(value)
    }

    fn duration_pair(
        &mut self,
        context: &str,
        make: impl FnOnce(Box<DurationExpr>, Box<DurationExpr>) -> DurationKind,
    ) -> Result<DurationKind, ParseError> {
        self.next();
        if self.take("(").is_none() {
            return Err(self.unexpected(context, "\"(\""));
        }
        let left = self.nested(|p| p.duration_sum(0, "arguments"))?;
        if self.take(",").is_none() {
            return Err(self.unexpected(context, "\",\""));
        }
        let right = self.nested(|p| p.duration_sum(0, "arguments"))?;
        if self.take(")").is_none() {
            return Err(self.unexpected(context, "\")\""));
        }
        Ok(make(Box::new(left), Box::new(right)))
    }
}

/// A number that stands alone is so many seconds.
fn alone(duration: DurationExpr) -> DurationExpr {
    match duration.kind {
        DurationKind::Number(seconds) => DurationExpr {
            kind: DurationKind::Literal(seconds),
            ..duration
        },
        _ => duration,
    }
}

fn check_range(seconds: f64, span: Span) -> Result<(), ParseError> {
    if seconds.abs() > SECONDS_MAX || seconds.is_nan() {
        return Err(ParseError::at(span, "duration out of range"));
    }
    Ok(())
}

/// `12`, `1_000`, `0x1f`, `1e3`, `017` (octal, as in Go).
pub(crate) fn number(source: &str) -> Option<f64> {
    let digits = source.replace('_', "");
    let lower = digits.to_ascii_lowercase();
    if let Some(hexadecimal) = lower.strip_prefix("0x") {
        return i64::from_str_radix(hexadecimal, 16).ok().map(|v| v as f64);
    }
    let octal = lower.len() > 1 && lower.starts_with('0');
    if octal && lower.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return i64::from_str_radix(&lower, 8).ok().map(|v| v as f64);
    }
    lower.parse().ok()
}

/// `1h30m` in seconds; units from large to small, each at most once.
pub(crate) fn duration_seconds(source: &str) -> Result<f64, String> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let invalid = || format!("not a valid duration string: {source:?}");
    let mut rest = source;
    let mut total: i64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(invalid)?;
        let count: i64 = rest[..digits_end]
            .parse()
            .map_err(|_| "duration out of range".to_owned())?;
        rest = &rest[digits_end..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = &rest[..unit_end];
        rest = &rest[unit_end..];
        let factor = units.find(|(name, _)| *name == unit).ok_or_else(invalid)?.1;
        total = count
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total as f64 <= SECONDS_MAX * 1000.0)
            .ok_or_else(|| "duration out of range".to_owned())?;
    }
    Ok(total as f64 / 1000.0)
}
