//! The stored totals of series: which question finds them, and which of its answers are theirs.
//!
//! One question for all series of a request: of each metric, those whose labels have values that series of the request have. A
//! single series is found alone, and all of a process are found by few matchers; between the two some are read in vain.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use trefoil_api::remote_write::{Sample, SampleValue};
use trefoil_model::{LABEL_NAME_METRIC, Labels, Millis, SeriesHash, TenantId};
use trefoil_query_promql::{MatchOp, Matcher, RawSeries};

/// Values of a label that are asked for; a label with more tells nothing. Patterns are compiled at every evaluator, and of those
/// series that have more different values most are asked for anyway.
const VALUES_MAX: usize = 32;
/// Bytes of a pattern, beyond which a label tells nothing either.
const PATTERN_BYTES_MAX: usize = 4096;
/// Alternatives of one question. A request of one process has as many as it has metrics.
const ALTERNATIVES_MAX: usize = 512;
/// Characters that do not stand for themselves in a pattern.
const SYNTAX: &[char] = &[
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

/// The series that are looked for, and the newest sample of each that has one.
#[derive(Default)]
pub(crate) struct Wanted {
    series: HashMap<SeriesHash, Option<Sample>>,
    /// By their metrics' names.
    metrics: BTreeMap<String, Metric>,
    /// The earliest time at which a total of interest can stand.
    pub(crate) from: Option<Millis>,
}

/// The series of a metric that are looked for.
#[derive(Default)]
struct Metric {
    series: usize,
    labels: BTreeMap<String, Values>,
}

/// What series have as the value of a label.
#[derive(Default)]
struct Values {
    series: usize,
    /// Up to one more than are asked for.
    different: BTreeSet<String>,
}

impl Wanted {
    /// Looks for a series, whose total is of interest if it stands at `from` or later.
    pub(crate) fn add(&mut self, series: SeriesHash, labels: &Labels, from: Millis) {
        self.series.insert(series, None);
        self.from = Some(self.from.map_or(from, |known| known.min(from)));
        let name = labels.get(LABEL_NAME_METRIC).unwrap_or_default();
        let metric = self.metrics.entry(name.to_owned()).or_default();
        metric.series += 1;
        for (name, value) in labels.iter() {
            let values = metric.labels.entry(name.to_owned()).or_default();
            values.series += 1;
            if values.different.len() <= VALUES_MAX {
                values.different.insert(value.to_owned());
            }
        }
    }

    /// What to ask for, question by question: a series fits when it fits all matchers of one alternative.
    pub(crate) fn questions(&self) -> Vec<Vec<Vec<Matcher>>> {
        let all: Vec<_> = self.metrics.values().map(Metric::matchers).collect();
        all.chunks(ALTERNATIVES_MAX).map(<[_]>::to_vec).collect()
    }

    /// Takes the newest sample of a series that was found, if it was looked for. Of several answers the newest one counts.
    pub(crate) fn found(&mut self, tenant: TenantId, series: &RawSeries) {
        let key = SeriesHash::of(tenant, series.labels.canonical());
        let Some(slot) = self.series.get_mut(&key) else {
            return;
        };
        let Some((time, value)) = series.timestamps.last().zip(series.values.last()) else {
            return;
        };
        if slot.as_ref().is_some_and(|known| known.time >= *time) {
            return;
        }
        let histogram = series.histograms.at(series.values.len() - 1);
        let value = match histogram {
            Some(histogram) => SampleValue::Histogram(histogram.clone()),
            None => SampleValue::Float(*value),
        };
        *slot = Some(Sample {
            time: *time,
            // When its counter began travels to evaluations only; 0 says that it is not known.
            start: 0,
            value,
        });
    }

    /// The newest stored sample of a series; nothing at all if it was not looked for.
    pub(crate) fn of(&self, series: SeriesHash) -> Option<Option<&Sample>> {
        self.series.get(&series).map(Option::as_ref)
    }
}

impl Metric {
    /// What all its series that are looked for fit.
    fn matchers(&self) -> Vec<Matcher> {
        let labels = self.labels.iter();
        let telling = labels.filter(|(_, values)| {
            values.series == self.series && values.different.len() <= VALUES_MAX
        });
        let matcher = |(name, values): (&String, &Values)| {
            let mut texts = values.different.iter();
            if let (Some(only), None) = (texts.next(), texts.next()) {
                return Matcher::new(name, MatchOp::Equal, only).ok();
            }
            let patterns = values.different.iter().map(|text| literally(text));
            let pattern = patterns.collect::<Vec<_>>().join("|");
            let is_short = pattern.len() <= PATTERN_BYTES_MAX;
            // Without the matcher more series are found, those among them.
            is_short.then(|| Matcher::new(name, MatchOp::Regex, &pattern).ok())?
        };
        telling.filter_map(matcher).collect()
    }
}

/// A pattern that matches this text only.
fn literally(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if SYNTAX.contains(&character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(3);

    fn hash(labels: &Labels) -> SeriesHash {
        SeriesHash::of(TENANT, labels.canonical())
    }

    fn texts(wanted: &Wanted) -> Vec<String> {
        let questions = wanted.questions();
        let [question] = &questions[..] else {
            panic!("{questions:?}");
        };
        let alternative = |matchers: &Vec<Matcher>| {
            let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            texts.join(",")
        };
        question.iter().map(alternative).collect()
    }

    #[test]
    fn series_are_found_among_others_of_their_process() {
        let of_path =
            |path: &str| Labels::from_pairs([("__name__", "n"), ("job", "j"), ("path", path)]);
        let (one, other, foreign) = (of_path("/1"), of_path("/2.a"), of_path("/3"));
        let mut wanted = Wanted::default();
        wanted.add(hash(&one), &one, 20);
        let only = r#"__name__="n",job="j",path="/1""#;
        assert_eq!(texts(&wanted), [only]);
        wanted.add(hash(&other), &other, 10);
        assert_eq!(wanted.from, Some(10));
        let both = r#"__name__="n",job="j",path=~"/1|/2\\.a""#;
        assert_eq!(texts(&wanted), [both]);
        // It may be on several pages, in any order.
        for (labels, newest) in [(&one, 4), (&one, 6), (&foreign, 6), (&one, 5)] {
            let series = RawSeries {
                labels: labels.clone(),
                timestamps: vec![newest - 1, newest],
                values: vec![1.0, newest as f64],
                histograms: Default::default(),
            };
            wanted.found(TENANT, &series);
        }
        assert_eq!(wanted.of(hash(&one)), Some(Some(&Sample::float(6, 6.0))));
        assert_eq!(wanted.of(hash(&other)), Some(None));
        assert_eq!(wanted.of(hash(&foreign)), None);
    }

    #[test]
    fn labels_that_only_some_have_or_that_have_too_many_values_tell_nothing() {
        let mut wanted = Wanted::default();
        for number in 0..=VALUES_MAX {
            let id = number.to_string();
            let mut pairs = vec![("__name__", "n"), ("id", id.as_str())];
            pairs.extend((number > 0).then_some(("job", "j")));
            let labels = Labels::from_pairs(pairs);
            wanted.add(hash(&labels), &labels, 1);
        }
        assert_eq!(texts(&wanted), [r#"__name__="n""#]);
    }

    #[test]
    fn a_text_is_a_pattern_of_itself() {
        let text = r"a\.+*?()|[]{}^$-#&~ é";
        let matcher = Matcher::new("a", MatchOp::Regex, literally(text)).expect("a literal");
        assert!(matcher.matches(text) && !matcher.matches("a"));
    }

    #[test]
    fn questions_are_bounded() {
        let mut wanted = Wanted::default();
        for number in 0..=ALTERNATIVES_MAX {
            let labels = Labels::from_pairs([("__name__", format!("n{number}").as_str())]);
            wanted.add(hash(&labels), &labels, 1);
        }
        let questions = wanted.questions();
        let sizes: Vec<usize> = questions.iter().map(Vec::len).collect();
        assert_eq!(sizes, [ALTERNATIVES_MAX, 1]);
    }
}
