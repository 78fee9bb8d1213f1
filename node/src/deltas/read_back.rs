//! The stored totals of series: which question finds them, and which of its answers are theirs.
//!
//! Few questions for all series of a request: of each metric, those whose labels have values that series of the request have. A
//! single series is found alone, and all of a process are found by few matchers; between the two some are read in vain. Answers
//! come by pages in the order of labels, so that each page settles what is in front of its end: who is interrupted has to ask for
//! the rest only, from the first series of it on.

use super::counter::Stored;
use std::collections::{BTreeMap, BTreeSet};
use trefoil_api::remote_write::{Sample, SampleValue};
use trefoil_model::{LABEL_NAME_METRIC, Labels, Millis, SeriesHash};
use trefoil_query_promql::{MatchOp, Matcher, RawSeries};

/// Values of a label that are asked for; a label with more tells nothing. Patterns are compiled at every evaluator, and of those
/// series that have more different values most are asked for anyway.
const VALUES_MAX: usize = 32;
/// Bytes of a pattern, beyond which a label tells nothing either.
const PATTERN_BYTES_MAX: usize = 4096;
/// Alternatives of one question. A request of one process has as many as it has metrics, and an evaluator makes a page of each.
const ALTERNATIVES_MAX: usize = 64;
/// Deltas of a series in a request of which everything is read back: the one that was in work when the holder changed may have had
/// more of them than the next one. Those with more than a hundred are rare.
const DELTAS: std::ops::RangeInclusive<usize> = 3..=100;
/// Characters that do not stand for themselves in a pattern.
const SYNTAX: &[char] = &[
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

/// The series that are looked for.
#[derive(Default)]
pub(crate) struct Wanted {
    /// By their metrics' names.
    metrics: BTreeMap<String, Metric>,
    /// The earliest time at which a total of interest can stand.
    pub(crate) from: Option<Millis>,
    /// The most deltas of one of them.
    pub(crate) deltas_max: usize,
}

/// The series of a metric that are looked for.
#[derive(Default)]
struct Metric {
    series: Vec<(Labels, Missing)>,
    labels: BTreeMap<String, Values>,
}

/// A series that is looked for.
#[derive(Clone)]
struct Missing {
    series: SeriesHash,
    /// How many of its newest samples are wanted. An answer has as many of each series as one of them needs.
    newest: usize,
    found: Option<Stored>,
}

/// What is asked for at once, and the newest samples that were found so far.
pub(crate) struct Question {
    /// A series fits when it fits all matchers of one of these.
    pub(crate) alternatives: Vec<Vec<Matcher>>,
    /// What is looked for and not settled.
    series: BTreeMap<Labels, Missing>,
}

/// A series that was looked for, and its newest stored samples if there are some.
pub(crate) type Settled = (SeriesHash, Option<Stored>);

/// What series have as the value of a label.
#[derive(Default)]
struct Values {
    series: usize,
    /// Up to one more than are asked for.
    different: BTreeSet<String>,
}

impl Wanted {
    /// Looks for a series, of which there are so many deltas, and whose total is of interest if it stands at `from` or later.
    pub(crate) fn add(&mut self, series: SeriesHash, labels: &Labels, from: Millis, deltas: usize) {
        self.deltas_max = self.deltas_max.max(deltas);
        self.from = Some(self.from.map_or(from, |known| known.min(from)));
        let name = labels.get(LABEL_NAME_METRIC).unwrap_or_default();
        let metric = self.metrics.entry(name.to_owned()).or_default();
        let missing = Missing {
            series,
            newest: newest_for(deltas).into(),
            found: None,
        };
        metric.series.push((labels.clone(), missing));
        for (name, value) in labels.iter() {
            let values = metric.labels.entry(name.to_owned()).or_default();
            values.series += 1;
            if values.different.len() <= VALUES_MAX {
                values.different.insert(value.to_owned());
            }
        }
    }

    /// What to ask for, one after the other. A page has the same part of each alternative of its question, and of what is behind its end
    /// an evaluator finds everything again: a metric that may have many pages is asked for alone, with pages that are larger.
    pub(crate) fn questions(self) -> Vec<Question> {
        let metrics = self.metrics.into_values();
        let (large, small): (Vec<Metric>, Vec<Metric>) = metrics.partition(Metric::is_large);
        let small = small.chunks(ALTERNATIVES_MAX);
        small.chain(large.chunks(1)).map(Question::new).collect()
    }
}

impl Question {
    fn new(metrics: &[Metric]) -> Self {
        let series = metrics.iter().flat_map(|metric| &metric.series);
        Self {
            alternatives: metrics.iter().map(Metric::matchers).collect(),
            series: series.cloned().collect(),
        }
    }

    /// Labels in front of all that is looked for, and not far from it.
    pub(crate) fn after(&self) -> Option<Labels> {
        let (first, _) = self.series.first_key_value()?;
        let mut pairs: Vec<(&str, &str)> = first.iter().collect();
        let (name, value) = pairs.pop()?;
        let shorter = value.char_indices().next_back();
        let shorter = shorter.map_or("", |(last, _)| &value[..last]);
        if !shorter.is_empty() {
            pairs.push((name, shorter));
        }
        (!pairs.is_empty()).then(|| Labels::from_pairs(pairs))
    }

    /// Takes the newest samples of a series that was found, if it was looked for. Of several answers the newest one counts.
    pub(crate) fn found(&mut self, series: &RawSeries) {
        let Some(missing) = self.series.get_mut(&series.labels) else {
            return;
        };
        let known = missing.found.as_ref().map(Stored::time);
        if series.timestamps.last().copied() <= known {
            return;
        }
        let end = series.timestamps.len();
        let newest = end.saturating_sub(missing.newest)..end;
        missing.found = Stored::of(newest.map(|at| sample(series, at)).collect());
    }

    /// What is known once a page was taken that ends with these labels, and there is nothing more in front of them. `None`: there
    /// is no further page.
    pub(crate) fn settle(&mut self, end: Option<&Labels>) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some(first) = self.series.first_entry() {
            if end.is_some_and(|end| first.key() > end) {
                break;
            }
            let missing = first.remove();
            settled.push((missing.series, missing.found));
        }
        settled
    }
}

impl Metric {
    /// Whether it is found by fewer labels than its series have, because one of them has too many values: series of other processes
    /// may be found in vain, however many.
    fn is_large(&self) -> bool {
        let mut labels = self.labels.values();
        labels.any(|values| values.different.len() > VALUES_MAX)
    }

    /// What all its series that are looked for fit.
    fn matchers(&self) -> Vec<Matcher> {
        let labels = self.labels.iter();
        let telling = labels.filter(|(_, values)| {
            values.series == self.series.len() && values.different.len() <= VALUES_MAX
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

/// How many newest samples are read back for a request with so many deltas of a series: each may have left two.
pub(crate) fn newest_for(deltas: usize) -> u8 {
    2 * deltas.clamp(*DELTAS.start(), *DELTAS.end()) as u8
}

/// A sample of a series that was found.
fn sample(series: &RawSeries, at: usize) -> Sample {
    let value = match series.histograms.at(at) {
        Some(histogram) => SampleValue::Histogram(histogram.clone()),
        None => SampleValue::Float(series.values[at]),
    };
    Sample {
        time: series.timestamps[at],
        // When its counter began travels to evaluations only; 0 says that it is not known.
        start: 0,
        value,
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
    use trefoil_model::TenantId;

    fn texts(wanted: Wanted) -> Vec<String> {
        let questions = wanted.questions();
        let [question] = &questions[..] else {
            panic!("{} questions", questions.len());
        };
        let alternative = |matchers: &Vec<Matcher>| {
            let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            texts.join(",")
        };
        question.alternatives.iter().map(alternative).collect()
    }

    fn of_path(path: &str) -> Labels {
        Labels::from_pairs([("__name__", "n"), ("job", "j"), ("path", path)])
    }

    fn wanted(paths: &[(&str, Millis)]) -> Wanted {
        let mut wanted = Wanted::default();
        for (number, (path, from)) in paths.iter().enumerate() {
            wanted.add(SeriesHash(number as u128), &of_path(path), *from, number);
        }
        wanted
    }

    #[test]
    fn series_are_found_among_others_of_their_process() {
        assert_eq!(
            texts(wanted(&[("/1", 20)])),
            [r#"__name__="n",job="j",path="/1""#]
        );
        let both = [("/1", 20), ("/2.a", 10)];
        assert_eq!(
            (wanted(&both).from, wanted(&both).deltas_max),
            (Some(10), 1)
        );
        assert_eq!(
            texts(wanted(&both)),
            [r#"__name__="n",job="j",path=~"/1|/2\\.a""#]
        );
    }

    #[test]
    fn each_page_settles_what_is_in_front_of_its_end() {
        let wanted = wanted(&[("/1", 1), ("/2", 1), ("/30", 1), ("/4", 1)]);
        let mut question = wanted.questions().pop().expect("one");
        assert_eq!(question.after(), Some(of_path("/")));
        // A series may be in several answers, in any order; others are found in vain.
        for (path, newest) in [("/1", 4), ("/1", 6), ("/25", 6), ("/1", 5)] {
            question.found(&RawSeries {
                labels: of_path(path),
                timestamps: vec![newest - 1, newest],
                values: vec![1.0, newest as f64],
                histograms: Default::default(),
            });
        }
        let settled = question.settle(Some(&of_path("/25")));
        let found = Stored::of(vec![Sample::float(5, 1.0), Sample::float(6, 6.0)]);
        assert_eq!(settled, [(SeriesHash(0), found), (SeriesHash(1), None)]);
        let after = question.after().expect("some are left");
        assert!(after == of_path("/3") && after < of_path("/30"));
        assert_eq!(question.settle(Some(&of_path("/25"))), []);
        assert_eq!(question.settle(None).len(), 2);
        assert_eq!(question.after(), None);
        let mut alone = Wanted::default();
        alone.add(
            SeriesHash(1),
            &Labels::from_pairs([("__name__", "n")]),
            1,
            1,
        );
        assert_eq!(alone.questions()[0].after(), None, "all is asked for");
    }

    /// One series of a request with many deltas is no reason to keep much of the others.
    #[test]
    fn as_much_is_kept_of_a_series_as_its_own_deltas_need() {
        let mut wanted = Wanted::default();
        for (number, deltas) in [1, 100].into_iter().enumerate() {
            let series = SeriesHash(number as u128);
            wanted.add(series, &of_path(&number.to_string()), 1, deltas);
        }
        let all = newest_for(wanted.deltas_max);
        assert_eq!(all, 200);
        let mut question = wanted.questions().pop().expect("one");
        // Totals and their covers in turn, behind a zero that the shorter one does not reach.
        let time = |at: u8| Millis::from(at / 2) * 1000 + Millis::from(at % 2);
        let value = |at: u8| f64::from(at / 2);
        for path in ["0", "1"] {
            question.found(&RawSeries {
                labels: of_path(path),
                timestamps: (1..=all).map(time).collect(),
                values: (1..=all).map(value).collect(),
                histograms: Default::default(),
            });
        }
        let of = |newest: u8| {
            let ats = all - newest + 1..=all;
            let samples = ats.map(|at| Sample::float(time(at), value(at)));
            samples.collect::<Vec<Sample>>()
        };
        let settled = question.settle(None);
        let found: Vec<Option<Stored>> = settled.into_iter().map(|(_, found)| found).collect();
        assert_eq!(found, [Stored::of(of(6)), Stored::of(of(200))]);
        let bytes = found.iter().flatten().map(Stored::bytes);
        let samples: Vec<usize> = bytes.map(|bytes| bytes / size_of::<Sample>()).collect();
        assert_eq!(samples, [5, 199]);
    }

    #[test]
    fn labels_that_only_some_have_or_that_have_too_many_values_tell_nothing() {
        let mut wanted = Wanted::default();
        for number in 0..=VALUES_MAX {
            let id = number.to_string();
            let mut pairs = vec![("__name__", "n"), ("id", id.as_str())];
            pairs.extend((number > 0).then_some(("job", "j")));
            let labels = Labels::from_pairs(pairs);
            wanted.add(SeriesHash(number as u128), &labels, 1, 1);
        }
        assert_eq!(texts(wanted), [r#"__name__="n""#]);
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
            wanted.add(SeriesHash(number as u128), &labels, 1, 1);
        }
        let questions = wanted.questions();
        let sizes = questions.iter().map(|one| one.alternatives.len());
        let sizes: Vec<usize> = sizes.collect();
        assert_eq!(sizes, [ALTERNATIVES_MAX, 1]);
    }

    #[test]
    fn a_metric_with_many_values_is_asked_for_alone() {
        let mut wanted = Wanted::default();
        for metric in ["a", "b", "c", "d"] {
            let values = match metric {
                "a" | "c" => VALUES_MAX + 1,
                _ => VALUES_MAX,
            };
            for number in 0..values {
                let path = number.to_string();
                let labels = Labels::from_pairs([("__name__", metric), ("path", path.as_str())]);
                wanted.add(
                    SeriesHash::of(TenantId(1), labels.canonical()),
                    &labels,
                    1,
                    1,
                );
            }
        }
        let questions = wanted.questions();
        let one = |question: &Question| (question.alternatives.len(), question.series.len());
        let sizes: Vec<(usize, usize)> = questions.iter().map(one).collect();
        let large = (1, VALUES_MAX + 1);
        assert_eq!(sizes, [(2, 2 * VALUES_MAX), large, large]);
        let first = questions[1].alternatives[0][0].to_string();
        assert_eq!(first, r#"__name__="a""#);
    }
}
