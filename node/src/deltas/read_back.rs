//! The stored totals of series: which question finds them, and which of its answers are theirs.

use std::collections::{BTreeSet, HashMap};
use trefoil_api::remote_write::{Sample, SampleValue};
use trefoil_model::{Labels, Millis, SeriesHash, TenantId};
use trefoil_query_promql::{MatchOp, Matcher, QueryError, RawSeries};

/// Series are looked for by these labels, which all series of one process have in common.
const LABELS: [&str; 3] = ["__name__", "job", "instance"];
/// Alternatives of one question. A request of one process has as many as it has metrics.
const ALTERNATIVES_MAX: usize = 512;

/// The series that are looked for, and the newest sample of each that has one.
#[derive(Default)]
pub(crate) struct Wanted {
    series: HashMap<SeriesHash, Option<Sample>>,
    alternatives: BTreeSet<[String; 3]>,
    /// The earliest time at which a total of interest can stand.
    pub(crate) from: Option<Millis>,
}

impl Wanted {
    /// Looks for a series whose first delta begins or, if that is not known, ends at `from`.
    pub(crate) fn add(&mut self, series: SeriesHash, labels: &Labels, from: Millis) {
        let value = |name| labels.get(name).unwrap_or_default().to_owned();
        self.series.insert(series, None);
        self.alternatives.insert(LABELS.map(value));
        self.from = Some(self.from.map_or(from, |known| known.min(from)));
    }

    /// What to ask for, question by question: a series fits when it fits all matchers of one alternative.
    ///
    /// # Errors
    /// Never: matchers of equality have nothing to compile.
    pub(crate) fn questions(&self) -> Result<Vec<Vec<Vec<Matcher>>>, QueryError> {
        let alternative = |values: &[String; 3]| -> Result<Vec<Matcher>, QueryError> {
            let matchers = LABELS.into_iter().zip(values);
            // An empty value is that of a series without the label.
            let matcher =
                |(name, value): (&str, &String)| Matcher::new(name, MatchOp::Equal, value);
            matchers.map(matcher).collect()
        };
        let all: Result<Vec<_>, _> = self.alternatives.iter().map(alternative).collect();
        let all = all?;
        Ok(all.chunks(ALTERNATIVES_MAX).map(<[_]>::to_vec).collect())
    }

    /// Takes the newest sample of a series that was found, if it was looked for.
    pub(crate) fn found(&mut self, tenant: TenantId, series: &RawSeries) {
        let key = SeriesHash::of(tenant, series.labels.canonical());
        let Some(slot) = self.series.get_mut(&key) else {
            return;
        };
        let Some((time, value)) = series.timestamps.last().zip(series.values.last()) else {
            return;
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(3);

    fn hash(labels: &Labels) -> SeriesHash {
        SeriesHash::of(TENANT, labels.canonical())
    }

    #[test]
    fn series_are_found_among_others_of_their_process() {
        let of_path =
            |path: &str| Labels::from_pairs([("__name__", "n"), ("job", "j"), ("path", path)]);
        let (one, other, foreign) = (of_path("/1"), of_path("/2"), of_path("/3"));
        let mut wanted = Wanted::default();
        wanted.add(hash(&one), &one, 20);
        wanted.add(hash(&other), &other, 10);
        assert_eq!(wanted.from, Some(10));
        let questions = wanted.questions().expect("equality");
        let [question] = &questions[..] else {
            panic!("{questions:?}");
        };
        let [alternative] = &question[..] else {
            panic!("{question:?}");
        };
        let texts: Vec<String> = alternative.iter().map(ToString::to_string).collect();
        assert_eq!(texts, [r#"__name__="n""#, r#"job="j""#, r#"instance="""#]);
        for labels in [&one, &foreign] {
            let series = RawSeries {
                labels: labels.clone(),
                timestamps: vec![5, 6],
                values: vec![1.0, 2.0],
                histograms: Default::default(),
            };
            wanted.found(TENANT, &series);
        }
        assert_eq!(wanted.of(hash(&one)), Some(Some(&Sample::float(6, 2.0))));
        assert_eq!(wanted.of(hash(&other)), Some(None));
        assert_eq!(wanted.of(hash(&foreign)), None);
    }

    #[test]
    fn questions_are_bounded() {
        let mut wanted = Wanted::default();
        for number in 0..=ALTERNATIVES_MAX {
            let labels = Labels::from_pairs([("__name__", format!("n{number}").as_str())]);
            wanted.add(hash(&labels), &labels, 1);
        }
        let questions = wanted.questions().expect("equality");
        let sizes: Vec<usize> = questions.iter().map(Vec::len).collect();
        assert_eq!(sizes, [ALTERNATIVES_MAX, 1]);
    }
}
