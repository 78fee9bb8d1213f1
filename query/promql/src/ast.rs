//! The syntax tree of PromQL. Every node knows the bytes of the query that it spans.
//!
//! Two different nodes of one query never span the same bytes, so that a span names a node between
//! nodes of the cluster (see [`crate::Part`]).

use crate::{Matcher, StringLiteral, function::Function};
use serde::{Deserialize, Serialize};
use std::fmt;
use trefoil_model::Millis;

/// A range of bytes of the query's text, end exclusive.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// First byte behind.
    pub end: u32,
}

impl Span {
    /// The bytes from `start` up to `end`.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// From the start of this span to the end of `other`.
    #[must_use]
    pub fn to(self, other: Span) -> Self {
        Self {
            start: self.start,
            end: other.end,
        }
    }

    /// `line:column` of the start, both counted from one, columns in bytes, as Prometheus shows them.
    #[must_use]
    pub fn position(self, text: &str) -> String {
        let start = self.start as usize;
        let Some(before) = text.as_bytes().get(..start) else {
            return "invalid position".to_owned();
        };
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let line_start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        format!("{line}:{}", start - line_start + 1)
    }
}

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number per time.
    Scalar,
    /// A text.
    String,
    /// Series with at most one sample per time.
    Vector,
    /// Series with a range of samples per time.
    Matrix,
}

impl ValueType {
    /// The word that Prometheus' messages use.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }
}

/// An expression and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// The bytes that it spans.
    pub span: Span,
}

/// The kinds of expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `1.5`, `0x1f`, `1h30m` (as seconds), `Inf`.
    Number(f64),
    /// `"text"`.
    String(StringLiteral),
    /// `name{label="value"} offset 5m @ 10`.
    Selector(VectorSelector),
    /// `selector[5m]`; the modifiers are kept in the selector.
    Range(Box<RangeSelector>),
    /// `expression[1h:5m]`.
    SubQuery(Box<SubQuery>),
    /// `function(arguments)`.
    Call(Call),
    /// `left + right`.
    Binary(Box<Binary>),
    /// `-expression`, or `+expression`.
    Unary {
        /// Whether the sign is `-`.
        negative: bool,
        /// What it applies to.
        operand: Box<Expr>,
    },
    /// `(expression)`.
    Paren(Box<Expr>),
    /// `sum by (label) (expression)`.
    Aggregate(Box<Aggregate>),
}

/// A selector of series.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The metric's name as written before or as the first thing inside the braces.
    pub name: Option<String>,
    /// All conditions, the one on the name included (last, if it was written before the braces).
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub time: TimeModifier,
    /// `anchored` or `smoothed`.
    pub extension: Option<Extension>,
}

/// How a selector looks beyond the ends of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The last sample in front of the range stands at its start.
    Anchored,
    /// Values at both ends are interpolated between the samples around them.
    Smoothed,
}

impl Extension {
    /// The modifier as it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}

impl VectorSelector {
    /// The metric's name when an equality fixes it.
    #[must_use]
    pub fn fixed_name(&self) -> Option<&str> {
        self.matchers
            .iter()
            .find(|m| {
                m.name() == trefoil_model::LABEL_NAME_METRIC && m.op() == crate::MatchOp::Equal
            })
            .map(Matcher::value)
            .filter(|name| !name.is_empty())
    }
}

/// `offset` and `@` of a selector or sub-query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TimeModifier {
    /// How far to look back (negative: ahead).
    pub offset: Option<DurationExpr>,
    /// The fixed time of evaluation.
    pub at: Option<At>,
}

impl TimeModifier {
    /// Whether there is neither.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offset.is_none() && self.at.is_none()
    }
}

/// The time of an `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds.
    Time(Millis),
    /// The first time of the query.
    Start,
    /// The last time of the query.
    End,
}

/// A selector with a range.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeSelector {
    /// What is selected; its span excludes the range, but its modifiers apply to the range.
    pub selector: VectorSelector,
    /// The bytes of the selector without range.
    pub selector_span: Span,
    /// The length of the range, left-open.
    pub range: DurationExpr,
}

/// An expression evaluated at several times.
#[derive(Clone, Debug, PartialEq)]
pub struct SubQuery {
    /// What is evaluated.
    pub operand: Expr,
    /// The length of the range, left-open.
    pub range: DurationExpr,
    /// The distance of the times; the engine's default where absent.
    pub step: Option<DurationExpr>,
    /// `offset` and `@`.
    pub time: TimeModifier,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which one.
    pub function: &'static Function,
    /// As many and of such types as the function takes.
    pub arguments: Vec<Expr>,
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left side.
    pub left: Expr,
    /// Right side.
    pub right: Expr,
    /// Whether a comparison yields 0 and 1 instead of filtering.
    pub return_bool: bool,
    /// How series find each other, if both sides are vectors.
    pub matching: Option<VectorMatching>,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
    Unless,
    /// `</`: trims a native histogram to what is below.
    TrimUpper,
    /// `>/`: trims a native histogram to what is above.
    TrimLower,
}

impl BinaryOp {
    /// All of them.
    pub const ALL: [Self; 18] = {
        use BinaryOp::*;
        [
            Add,
            Sub,
            Mul,
            Div,
            Mod,
            Pow,
            Atan2,
            Equal,
            NotEqual,
            Less,
            LessEqual,
            Greater,
            GreaterEqual,
            And,
            Or,
            Unless,
            TrimUpper,
            TrimLower,
        ]
    };

    /// The operator as it is written.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// Whether the operator compares.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        matches!(
            self,
            Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual
        )
    }

    /// Whether the operator trims histograms.
    #[must_use]
    pub fn is_trim(self) -> bool {
        matches!(self, Self::TrimUpper | Self::TrimLower)
    }

    /// Whether the result is another quantity than the operands, so that it cannot keep their name.
    #[must_use]
    pub fn changes_meaning(self) -> bool {
        !self.is_comparison() && !self.is_trim() && !self.is_set()
    }

    /// Whether the operator works on sets of series.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// How tightly the operator binds; more is tighter.
    #[must_use]
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::TrimUpper | Self::TrimLower => 3,
            op if op.is_comparison() => 3,
            Self::Add | Self::Sub => 4,
            Self::Pow => 6,
            _ => 5,
        }
    }
}

/// How many series of one side meet how many of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Cardinality {
    OneToOne,
    ManyToOne,
    OneToMany,
    ManyToMany,
}

/// `on`, `ignoring`, `group_left`, `group_right`.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatching {
    /// How many meet how many.
    pub cardinality: Cardinality,
    /// Whether `labels` are those that count (`on`) or those that do not (`ignoring`).
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels that the "one" side gives to the result.
    pub include: Vec<String>,
    /// The value of a series that is missing on the left.
    pub fill_left: Option<f64>,
    /// The value of a series that is missing on the right.
    pub fill_right: Option<f64>,
}

impl VectorMatching {
    /// Whether series that are missing are filled in on any side.
    #[must_use]
    pub fn fills(&self) -> bool {
        self.fill_left.is_some() || self.fill_right.is_some()
    }
}

/// An aggregation over series.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which one.
    pub op: AggregateOp,
    /// What is aggregated.
    pub operand: Expr,
    /// The `k` of `topk` and the like.
    pub parameter: Option<Expr>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether `grouping` are the labels to drop.
    pub without: bool,
}

/// The aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    Quantile,
    CountValues,
    LimitK,
    LimitRatio,
}

impl AggregateOp {
    /// All of them with their names.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::Sum, "sum"),
        (Self::Avg, "avg"),
        (Self::Min, "min"),
        (Self::Max, "max"),
        (Self::Count, "count"),
        (Self::Group, "group"),
        (Self::Stddev, "stddev"),
        (Self::Stdvar, "stdvar"),
        (Self::TopK, "topk"),
        (Self::BottomK, "bottomk"),
        (Self::Quantile, "quantile"),
        (Self::CountValues, "count_values"),
        (Self::LimitK, "limitk"),
        (Self::LimitRatio, "limit_ratio"),
    ];

    /// The aggregation's name.
    #[must_use]
    pub fn text(self) -> &'static str {
        let found = Self::ALL.iter().find(|(op, _)| *op == self);
        found.map_or("", |(_, name)| name)
    }

    /// The aggregation of this name, in any case of letters.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(_, n)| n.eq_ignore_ascii_case(name))
            .map(|(op, _)| *op)
    }

    /// Whether it needs the setting for experimental functions.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::LimitK | Self::LimitRatio)
    }

    /// Whether the aggregation takes a parameter before its operand.
    #[must_use]
    pub fn has_parameter(self) -> bool {
        use AggregateOp::{BottomK, CountValues, LimitK, LimitRatio, Quantile, TopK};
        matches!(
            self,
            TopK | BottomK | Quantile | CountValues | LimitK | LimitRatio
        )
    }

    /// Whether the result consists of input series.
    #[must_use]
    pub fn selects_series(self) -> bool {
        matches!(
            self,
            Self::TopK | Self::BottomK | Self::LimitK | Self::LimitRatio
        )
    }
}

/// A duration, or an expression that yields one where the query's step is known.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of [`DurationExpr`].
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// `5m`, or a `300` that stands alone: seconds, maybe negative.
    Literal(f64),
    /// `2` inside an expression: seconds or a factor, maybe negative.
    Number(f64),
    /// `step()`: the query's step.
    Step,
    /// `range()`: the query's end minus its start.
    Range,
    /// `-x`.
    Negative(Box<DurationExpr>),
    /// `a + b` and the like.
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `min_of(a, b)`.
    Min(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`.
    Max(Box<DurationExpr>, Box<DurationExpr>),
    /// `(x)`.
    Paren(Box<DurationExpr>),
}

impl Expr {
    /// The type of the expression's value.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Range(_) | ExprKind::SubQuery(_) => ValueType::Matrix,
            ExprKind::Call(call) => call.function.returns,
            ExprKind::Binary(binary) => {
                let scalar = |e: &Expr| e.value_type() == ValueType::Scalar;
                if scalar(&binary.left) && scalar(&binary.right) {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            ExprKind::Unary { operand, .. } => operand.value_type(),
            ExprKind::Paren(inner) => inner.value_type(),
        }
    }

    /// The expression without parentheses around it.
    #[must_use]
    pub fn unwrap_parens(&self) -> &Expr {
        match &self.kind {
            ExprKind::Paren(inner) => inner.unwrap_parens(),
            _ => self,
        }
    }

    /// The direct sub-expressions, in the order of the text.
    #[must_use]
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Number(_)
            | ExprKind::String(_)
            | ExprKind::Selector(_)
            | ExprKind::Range(_) => vec![],
            ExprKind::SubQuery(sub_query) => vec![&sub_query.operand],
            ExprKind::Call(call) => call.arguments.iter().collect(),
            ExprKind::Binary(binary) => vec![&binary.left, &binary.right],
            ExprKind::Unary { operand, .. } => vec![operand],
            ExprKind::Paren(inner) => vec![inner],
            ExprKind::Aggregate(aggregate) => {
                let parameter = aggregate.parameter.iter();
                parameter.chain([&aggregate.operand]).collect()
            }
        }
    }

    /// The sub-expression (or the expression itself) that spans these bytes.
    #[must_use]
    pub fn find(&self, span: Span) -> Option<&Expr> {
        if self.span == span {
            return Some(self);
        }
        self.children()
            .into_iter()
            .find_map(|child| child.find(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_bytes() {
        let check = |start: usize, expected: &str| {
            assert_eq!(Span::new(start, start).position("ab\ncd"), expected);
        };
        check(0, "1:1");
        check(2, "1:3");
        check(3, "2:1");
        check(5, "2:3");
        check(9, "invalid position");
    }
}
