//! The table of functions: names, types, and how each is evaluated.

use crate::ast::ValueType;
use ValueType::{Matrix, Scalar, String as Text, Vector};

/// A function of the language.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub kind: FunctionKind,
    /// The types of its arguments.
    pub arguments: &'static [ValueType],
    /// How many of the last arguments are optional; -1: the last may be repeated and left out.
    pub variadic: i8,
    /// The type of its value.
    pub returns: ValueType,
    /// Whether it needs the setting for experimental functions.
    pub experimental: bool,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Function {
    /// The function with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Function> {
        let at = FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok()?;
        Some(&FUNCTIONS[at])
    }
}

/// What a function does, by the way in which it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// Per series, from a range of samples.
    Window(WindowFunction),
    /// Per sample.
    Sample(SampleFunction),
    /// Per sample, the date of the value, or of the evaluation time without argument.
    Date(DateField),
    /// `timestamp`
    Timestamp,
    /// `start_timestamp`
    StartTimestamp,
    /// `info`
    Info,
    /// `absent` and `absent_over_time`
    Absent,
    /// `label_replace`
    LabelReplace,
    /// `label_join`
    LabelJoin,
    /// `histogram_quantile`
    HistogramQuantile,
    /// `histogram_quantiles`
    HistogramQuantiles,
    /// `histogram_fraction`
    HistogramFraction,
    /// `sort`, `sort_desc`
    Sort {
        /// Largest first.
        descending: bool,
    },
    /// `sort_by_label`, `sort_by_label_desc`
    SortByLabel {
        /// Last first.
        descending: bool,
    },
    /// `scalar`
    Scalar,
    /// `vector`
    Vector,
    /// A scalar that depends on the evaluation times only.
    Time(TimeFunction),
    /// `max_of`, `min_of`
    OfScalars {
        /// The larger one.
        max: bool,
    },
}

/// Functions of a range of samples. Their names are those of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum WindowFunction {
    AvgOverTime,
    Changes,
    CountOverTime,
    Delta,
    Deriv,
    DoubleExponentialSmoothing,
    FirstOverTime,
    Idelta,
    Increase,
    Irate,
    LastOverTime,
    MadOverTime,
    MaxOverTime,
    MinOverTime,
    PredictLinear,
    PresentOverTime,
    QuantileOverTime,
    Rate,
    Resets,
    StddevOverTime,
    StdvarOverTime,
    SumOverTime,
    TsOfFirstOverTime,
    TsOfLastOverTime,
    TsOfMaxOverTime,
    TsOfMinOverTime,
}

/// Functions of a sample's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum SampleFunction {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Clamp,
    ClampMax,
    ClampMin,
    Cos,
    Cosh,
    Deg,
    Exp,
    Floor,
    Ln,
    Log10,
    Log2,
    Rad,
    Round,
    Sgn,
    Sin,
    Sinh,
    Sqrt,
    Tan,
    Tanh,
    // Functions of native histograms, which yield nothing for floats.
    HistogramAvg,
    HistogramCount,
    HistogramStddev,
    HistogramStdvar,
    HistogramSum,
}

/// Parts of a date, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DateField {
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    DaysInMonth,
    Hour,
    Minute,
    Month,
    Year,
}

/// Scalars without arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum TimeFunction {
    Time,
    Pi,
    Start,
    End,
    Step,
    Range,
}

const V: &[ValueType] = &[Vector];
const M: &[ValueType] = &[Matrix];

const fn function(
    name: &'static str,
    kind: FunctionKind,
    arguments: &'static [ValueType],
) -> Function {
    Function {
        name,
        kind,
        arguments,
        variadic: 0,
        returns: Vector,
        experimental: false,
    }
}

const fn window(name: &'static str, kind: WindowFunction) -> Function {
    function(name, FunctionKind::Window(kind), M)
}

const fn sample(name: &'static str, kind: SampleFunction) -> Function {
    function(name, FunctionKind::Sample(kind), V)
}

const fn date(name: &'static str, field: DateField) -> Function {
    function(name, FunctionKind::Date(field), V).variadic(1)
}

const fn time(name: &'static str, kind: TimeFunction) -> Function {
    function(name, FunctionKind::Time(kind), &[]).scalar()
}

impl Function {
    const fn variadic(mut self, count: i8) -> Self {
        self.variadic = count;
        self
    }

    const fn scalar(mut self) -> Self {
        self.returns = Scalar;
        self
    }

    const fn takes(mut self, arguments: &'static [ValueType]) -> Self {
        self.arguments = arguments;
        self
    }

    const fn experimental(mut self) -> Self {
        self.experimental = true;
        self
    }
}

/// All functions, ascending by name.
pub static FUNCTIONS: &[Function] = {
    use DateField as D;
    use FunctionKind as K;
    use SampleFunction as S;
    use TimeFunction as T;
    use WindowFunction as W;
    &[
        sample("abs", S::Abs),
        function("absent", K::Absent, V),
        function("absent_over_time", K::Absent, M),
        sample("acos", S::Acos),
        sample("acosh", S::Acosh),
        sample("asin", S::Asin),
        sample("asinh", S::Asinh),
        sample("atan", S::Atan),
        sample("atanh", S::Atanh),
        window("avg_over_time", W::AvgOverTime),
        sample("ceil", S::Ceil),
        window("changes", W::Changes),
        sample("clamp", S::Clamp).takes(&[Vector, Scalar, Scalar]),
        sample("clamp_max", S::ClampMax).takes(&[Vector, Scalar]),
        sample("clamp_min", S::ClampMin).takes(&[Vector, Scalar]),
        sample("cos", S::Cos),
        sample("cosh", S::Cosh),
        window("count_over_time", W::CountOverTime),
        date("day_of_month", D::DayOfMonth),
        date("day_of_week", D::DayOfWeek),
        date("day_of_year", D::DayOfYear),
        date("days_in_month", D::DaysInMonth),
        sample("deg", S::Deg),
        window("delta", W::Delta),
        window("deriv", W::Deriv),
        window(
            "double_exponential_smoothing",
            W::DoubleExponentialSmoothing,
        )
        .takes(&[Matrix, Scalar, Scalar])
        .experimental(),
        time("end", T::End).experimental(),
        sample("exp", S::Exp),
        window("first_over_time", W::FirstOverTime),
        sample("floor", S::Floor),
        sample("histogram_avg", S::HistogramAvg),
        sample("histogram_count", S::HistogramCount),
        function(
            "histogram_fraction",
            K::HistogramFraction,
            &[Scalar, Scalar, Vector],
        ),
        function(
            "histogram_quantile",
            K::HistogramQuantile,
            &[Scalar, Vector],
        ),
        function(
            "histogram_quantiles",
            K::HistogramQuantiles,
            &[Vector, Text, Scalar, Scalar],
        )
        .variadic(9)
        .experimental(),
        sample("histogram_stddev", S::HistogramStddev),
        sample("histogram_stdvar", S::HistogramStdvar),
        sample("histogram_sum", S::HistogramSum),
        date("hour", D::Hour),
        window("idelta", W::Idelta),
        window("increase", W::Increase),
        function("info", K::Info, &[Vector, Vector])
            .variadic(1)
            .experimental(),
        window("irate", W::Irate),
        function("label_join", K::LabelJoin, &[Vector, Text, Text, Text]).variadic(-1),
        function(
            "label_replace",
            K::LabelReplace,
            &[Vector, Text, Text, Text, Text],
        ),
        window("last_over_time", W::LastOverTime),
        sample("ln", S::Ln),
        sample("log10", S::Log10),
        sample("log2", S::Log2),
        window("mad_over_time", W::MadOverTime).experimental(),
        function("max_of", K::OfScalars { max: true }, &[Scalar, Scalar])
            .scalar()
            .experimental(),
        window("max_over_time", W::MaxOverTime),
        function("min_of", K::OfScalars { max: false }, &[Scalar, Scalar])
            .scalar()
            .experimental(),
        window("min_over_time", W::MinOverTime),
        date("minute", D::Minute),
        date("month", D::Month),
        time("pi", T::Pi),
        window("predict_linear", W::PredictLinear).takes(&[Matrix, Scalar]),
        window("present_over_time", W::PresentOverTime),
        window("quantile_over_time", W::QuantileOverTime).takes(&[Scalar, Matrix]),
        sample("rad", S::Rad),
        time("range", T::Range).experimental(),
        window("rate", W::Rate),
        window("resets", W::Resets),
        sample("round", S::Round)
            .takes(&[Vector, Scalar])
            .variadic(1),
        function("scalar", K::Scalar, V).scalar(),
        sample("sgn", S::Sgn),
        sample("sin", S::Sin),
        sample("sinh", S::Sinh),
        function("sort", K::Sort { descending: false }, V),
        function(
            "sort_by_label",
            K::SortByLabel { descending: false },
            &[Vector, Text],
        )
        .variadic(-1)
        .experimental(),
        function(
            "sort_by_label_desc",
            K::SortByLabel { descending: true },
            &[Vector, Text],
        )
        .variadic(-1)
        .experimental(),
        function("sort_desc", K::Sort { descending: true }, V),
        sample("sqrt", S::Sqrt),
        time("start", T::Start).experimental(),
        function("start_timestamp", K::StartTimestamp, V).experimental(),
        window("stddev_over_time", W::StddevOverTime),
        window("stdvar_over_time", W::StdvarOverTime),
        time("step", T::Step).experimental(),
        window("sum_over_time", W::SumOverTime),
        sample("tan", S::Tan),
        sample("tanh", S::Tanh),
        time("time", T::Time),
        function("timestamp", K::Timestamp, V),
        window("ts_of_first_over_time", W::TsOfFirstOverTime).experimental(),
        window("ts_of_last_over_time", W::TsOfLastOverTime).experimental(),
        window("ts_of_max_over_time", W::TsOfMaxOverTime).experimental(),
        window("ts_of_min_over_time", W::TsOfMinOverTime).experimental(),
        function("vector", K::Vector, &[Scalar]),
        date("year", D::Year),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(Function::by_name("rate").map(|f| f.name), Some("rate"));
        assert!(Function::by_name("nope").is_none());
    }
}
