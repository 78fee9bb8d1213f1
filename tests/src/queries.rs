//! Generated PromQL: queries over a small set of metrics, made from a seed, for comparisons of two engines.
//!
//! Whatever Prometheus 2.42 has is generated, but for what 3.x answers differently, and for what rounding decides: both are
//! named in [`LEFT_OUT`]. Times are left to the asker, who must ask at whole seconds that leave a remainder of
//! [`REMAINDER_SECONDS`] by 15: no sample and no step of a sub-query then lies on an end of a range.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// What is not generated, each with its reason.
pub const LEFT_OUT: [(&str, &str); 10] = [
    (
        "ends of ranges",
        "2.42 includes samples at the left end, 3.x does not: times and ranges are such that none lies there",
    ),
    (
        "rate and increase over gaps",
        "2.42 applies the zero point of counters before the limit of extrapolation, 3.x behind it: no counter \
         function over metrics and sub-queries with gaps",
    ),
    (
        "atan2",
        "2.42 keeps the metric's name, 3.x removes it as for other arithmetic",
    ),
    (
        "variances of times",
        "2.42 loses the small differences of large values, 3.x compensates",
    ),
    (
        "holt_winters",
        "3.x calls it double_exponential_smoothing and hides it behind a flag",
    ),
    (
        "functions of 3.x",
        "2.42 has no limitk, limit_ratio, sort_by_label, mad_over_time, info, first_over_time and ts_of functions",
    ),
    (
        "native histograms",
        "2.42 stores them behind a flag only, in an older form",
    ),
    (
        "ties of topk and bottomk",
        "the order of equal values is nobody's promise: their operands have different values",
    ),
    (
        "modulo, equality, rounding and changes of computed values",
        "the last bit of a sum decides: their operands are samples as they were written",
    ),
    (
        "count_values of computed values",
        "the last bit shows in a label",
    ),
];

/// Whether a generated query is one of those that are [`LEFT_OUT`] though they can be generated.
#[must_use]
pub fn is_left_out(query: &str) -> bool {
    let of_times = query.contains("timestamp(") || query.contains("time()");
    let variance = query.contains("stddev") || query.contains("stdvar");
    query.contains(" atan2 ") || (of_times && variance)
}

/// Ask at times that leave this remainder by 15 seconds.
pub const REMAINDER_SECONDS: i64 = 4;

/// Metrics without gaps, and what grouping labels they have.
const GAUGES: [&str; 2] = ["temperature", "memory_bytes"];
const COUNTERS: [&str; 2] = ["requests_total", "errors_total"];
const WITH_GAPS: &str = "gappy";
const BUCKETS: &str = "latency_bucket";
const INFO: &str = "build_info";

/// Ranges that are no multiples of any step, in seconds more than whole minutes.
const RANGES: [&str; 5] = ["1m1s", "2m2s", "5m1s", "7m7s", "11m2s"];
/// Steps of sub-queries; multiples of 15 s, as offsets are.
const STEPS: [&str; 4] = ["15s", "30s", "1m", ""];
const OFFSETS: [&str; 4] = ["30s", "1m", "5m", "-1m"];

/// Makes queries, the same ones from the same seed.
pub struct QueryGenerator {
    random: StdRng,
    /// Seconds that `@` may name.
    fixed_times: [i64; 2],
}

impl QueryGenerator {
    /// A generator whose `@` modifiers name one of these times, in seconds.
    #[must_use]
    pub fn new(seed: u64, fixed_times: [i64; 2]) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            fixed_times,
        }
    }

    /// The next query: an instant vector, seldom a scalar.
    pub fn query(&mut self) -> String {
        match self.below(12) {
            0 => self.scalar(1),
            _ => self.vector(3),
        }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.random.random_range(0..limit)
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.sample();
        }
        match self.below(22) {
            0 => self.sample(),
            1..=4 => self.window(depth),
            5..=8 => self.aggregation(depth),
            9 => self.selection(),
            10..=12 => self.with_scalar(depth),
            13 | 14 => self.joined(depth),
            15 => self.set_operation(depth),
            16 | 17 => self.function(depth),
            18 => self.relabelled(depth),
            19 => self.quantile_of_buckets(),
            20 => self.absent(depth),
            _ => self.of_time(depth),
        }
    }

    /// An instant selector of one metric.
    fn sample(&mut self) -> String {
        let metric = match self.below(7) {
            0..=2 => self.one_of(&GAUGES),
            3 | 4 => self.one_of(&COUNTERS),
            5 => WITH_GAPS,
            _ => INFO,
        };
        self.selector(metric)
    }

    /// A selector of a metric with samples at all times.
    fn dense(&mut self) -> String {
        let metrics = [GAUGES, COUNTERS].concat();
        let metric = self.one_of(&metrics);
        self.selector(metric)
    }

    fn selector(&mut self, metric: &str) -> String {
        let filter = self.filter();
        let time = self.time();
        format!("{metric}{filter}{time}")
    }

    fn filter(&mut self) -> String {
        let filters = [
            "",
            "",
            "",
            "{job=\"api\"}",
            "{instance!=\"b:1\"}",
            "{job=~\"a.*|db\"}",
            "{instance!~\"c.*\",job=\"db\"}",
            "{job=\"nobody\"}",
            "{zone=\"\"}",
        ];
        self.one_of(&filters).to_owned()
    }

    fn time(&mut self) -> String {
        let mut text = String::new();
        if self.chance(10) {
            let fixed = self.below(2);
            text = match self.below(3) {
                0 => " @ start()".to_owned(),
                1 => " @ end()".to_owned(),
                _ => format!(" @ {}", self.fixed_times[fixed]),
            };
        }
        if self.chance(6) {
            text += " offset ";
            text += self.one_of(&OFFSETS);
        }
        text
    }

    fn range(&mut self, metric: &str) -> String {
        let filter = self.filter();
        let range = self.one_of(&RANGES);
        let time = self.time();
        format!("{metric}{filter}[{range}]{time}")
    }

    fn sub_query(&mut self, operand: &str) -> String {
        let (range, step) = (self.one_of(&RANGES), self.one_of(&STEPS));
        let time = self.time();
        format!("({operand})[{range}:{step}]{time}")
    }

    /// A function over a range.
    fn window(&mut self, depth: usize) -> String {
        const OF_COUNTERS: [&str; 4] = ["rate", "increase", "irate", "resets"];
        const OF_ALL: [&str; 12] = [
            "avg_over_time",
            "sum_over_time",
            "min_over_time",
            "max_over_time",
            "count_over_time",
            "last_over_time",
            "present_over_time",
            "stddev_over_time",
            "stdvar_over_time",
            "delta",
            "idelta",
            "deriv",
        ];
        let range = match self.below(6) {
            0 | 1 => {
                let counter = self.one_of(&COUNTERS);
                let range = self.range(counter);
                return format!("{}({range})", self.one_of(&OF_COUNTERS));
            }
            2 => {
                let dense = self.dense();
                let range = self.sub_query(&dense);
                return format!("{}({range})", self.one_of(&OF_COUNTERS));
            }
            3 => {
                let inner = self.vector(depth - 1);
                self.sub_query(&inner)
            }
            _ => {
                let metric = self.one_of(&[GAUGES[0], GAUGES[1], COUNTERS[0], WITH_GAPS]);
                let range = self.range(metric);
                if self.chance(6) {
                    return format!("{}({range})", self.one_of(&["changes", "resets"]));
                }
                range
            }
        };
        match self.below(18) {
            0 => format!(
                "quantile_over_time({}, {range})",
                self.one_of(&["0.1", "0.5", "0.99"])
            ),
            1 => format!("predict_linear({range}, {})", self.one_of(&["60", "3600"])),
            _ => format!("{}({range})", self.one_of(&OF_ALL)),
        }
    }

    fn grouping(&mut self) -> String {
        let groupings = [
            "",
            " by (job)",
            " by (instance, job)",
            " by (zone)",
            " without (instance)",
            " without (instance, job)",
            " by ()",
        ];
        self.one_of(&groupings).to_owned()
    }

    fn aggregation(&mut self, depth: usize) -> String {
        let grouping = self.grouping();
        if self.chance(12) {
            let samples = self.sample();
            return format!("count_values{grouping} (\"value\", {samples})");
        }
        let operand = self.vector(depth - 1);
        if self.chance(8) {
            let quantile = self.one_of(&["0.25", "0.5", "0.9", "-1", "2"]);
            return format!("quantile{grouping} ({quantile}, {operand})");
        }
        let op = self.one_of(&[
            "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar",
        ]);
        format!("{op}{grouping} ({operand})")
    }

    /// `topk` and `bottomk`, over values of which no two are equal.
    fn selection(&mut self) -> String {
        let op = self.one_of(&["topk", "bottomk"]);
        let grouping = self.one_of(&["", " by (job)", " without (instance)"]);
        let operand = self.one_of(&GAUGES).to_owned();
        let count = self.below(4);
        format!("{op}{grouping} ({count}, {operand})")
    }

    fn scalar(&mut self, depth: usize) -> String {
        match self.below(8) {
            0 if depth > 0 => {
                let operand = self.vector(depth - 1);
                format!("scalar(sum({operand}))")
            }
            1 => "time()".to_owned(),
            2 => "pi()".to_owned(),
            3 if depth > 0 => {
                let (left, right) = (self.scalar(depth - 1), self.scalar(depth - 1));
                format!(
                    "({left} {} {right})",
                    self.one_of(&["+", "-", "*", "/", "> bool"])
                )
            }
            _ => self
                .one_of(&["2", "0.75", "-3", "100", "1e3", "40.37", "0"])
                .to_owned(),
        }
    }

    fn with_scalar(&mut self, depth: usize) -> String {
        let exact = ["%", "==", "!=", "== bool", "!= bool"];
        let any = [
            "+", "-", "*", "/", "^", "atan2", ">", "<", ">= bool", "<= bool",
        ];
        let (op, operand, scalar) = if self.chance(5) {
            let number = self.one_of(&["2", "3.5", "7"]).to_owned();
            (self.one_of(&exact), self.sample(), number)
        } else {
            (self.one_of(&any), self.vector(depth - 1), self.scalar(1))
        };
        match self.chance(3) {
            true => format!("{scalar} {op} ({operand})"),
            false => format!("({operand}) {op} {scalar}"),
        }
    }

    fn joined(&mut self, depth: usize) -> String {
        let op = self.one_of(&["+", "-", "*", "/", ">", "<= bool", "<"]);
        match self.below(5) {
            0 => {
                let (left, right) = (self.vector(depth - 1), self.vector(depth - 1));
                format!("({left}) {op} ({right})")
            }
            1 => {
                let left = self.dense();
                let filter = self.filter();
                let side = self.one_of(&["group_left", "group_left (version)"]);
                format!("{left} {op} on (job, instance) {side} {INFO}{filter}")
            }
            2 => {
                let right = self.dense();
                format!("sum by (job) ({right}) {op} on (job) group_right () ({right})")
            }
            _ => {
                let (left, right) = (self.vector(depth - 1), self.vector(depth - 1));
                let (one, other) = match self.below(3) {
                    0 => ("job", "on (job)"),
                    1 => ("job, instance", "ignoring (zone)"),
                    _ => ("job, instance", "on (instance, job)"),
                };
                format!("sum by ({one}) ({left}) {op} {other} max by ({one}) ({right})")
            }
        }
    }

    fn set_operation(&mut self, depth: usize) -> String {
        let (left, right) = (self.vector(depth - 1), self.vector(depth - 1));
        let op = self.one_of(&["and", "or", "unless"]);
        let matching = self.one_of(&["", " on (job, instance)", " ignoring (zone)", " on ()"]);
        format!("({left}) {op}{matching} ({right})")
    }

    fn function(&mut self, depth: usize) -> String {
        let operand = self.vector(depth - 1);
        match self.below(7) {
            0 => format!("clamp({operand}, {}, {})", self.scalar(0), self.scalar(0)),
            1 => format!("clamp_min({operand}, {})", self.scalar(0)),
            2 => format!("clamp_max({operand}, {})", self.scalar(0)),
            3 => format!("-({operand})"),
            4 => format!(
                "{}({operand})",
                self.one_of(&["sort", "sort_desc", "deg", "rad"])
            ),
            5 => {
                let function = self.one_of(&["ceil", "floor", "round", "sgn"]);
                format!("{function}({})", self.sample())
            }
            _ => {
                let functions = [
                    "abs", "exp", "ln", "log2", "log10", "sqrt", "sin", "atan", "tanh",
                ];
                format!("{}({operand})", self.one_of(&functions))
            }
        }
    }

    fn relabelled(&mut self, depth: usize) -> String {
        let operand = self.vector(depth - 1);
        match self.below(3) {
            0 => {
                format!("label_join({operand}, \"joined\", \"-\", \"job\", \"instance\", \"none\")")
            }
            1 => format!(
                "label_replace({operand}, \"host\", \"${{1}}!\", \"instance\", \"(.*):.*\")"
            ),
            _ => format!("label_replace({operand}, \"zone\", \"\", \"zone\", \".+\")"),
        }
    }

    fn quantile_of_buckets(&mut self) -> String {
        let quantile = self.one_of(&["0.1", "0.5", "0.95", "1"]);
        let range = self.range(BUCKETS);
        let grouping = self.one_of(&["le", "job, le"]);
        format!("histogram_quantile({quantile}, sum by ({grouping}) (rate({range})))")
    }

    fn absent(&mut self, depth: usize) -> String {
        match self.below(3) {
            0 => format!("absent({})", self.sample()),
            1 => format!("absent_over_time({})", self.range(WITH_GAPS)),
            _ => format!("absent({})", self.vector(depth - 1)),
        }
    }

    fn of_time(&mut self, depth: usize) -> String {
        match self.below(5) {
            0 => format!("timestamp({})", self.sample()),
            1 => format!("timestamp({})", self.vector(depth - 1)),
            2 => format!("vector({})", self.scalar(1)),
            3 => {
                let field =
                    self.one_of(&["hour", "minute", "day_of_week", "day_of_month", "month"]);
                format!("{field}()")
            }
            _ => format!(
                "{}(vector(time()))",
                self.one_of(&["year", "days_in_month", "minute"])
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_makes_the_same_queries_of_many_kinds() {
        let queries = |seed| {
            let mut generator = QueryGenerator::new(seed, [1, 2]);
            (0..2_000).map(|_| generator.query()).collect::<Vec<_>>()
        };
        let made = queries(7);
        assert_eq!(made, queries(7));
        assert_ne!(made, queries(8));
        let different: BTreeSet<&String> = made.iter().collect();
        assert!(
            different.len() > 1_500,
            "{} of 2000 differ",
            different.len()
        );
        for part in [
            "rate(",
            " by (",
            "[5m1s:",
            " offset ",
            " @ ",
            "group_left",
            " unless",
        ] {
            let count = made.iter().filter(|query| query.contains(part)).count();
            assert!(count >= 10, "{part} occurs {count} times");
        }
        let left_out = made.iter().filter(|query| is_left_out(query)).count();
        assert!((1..400).contains(&left_out), "{left_out} are left out");
    }
}
