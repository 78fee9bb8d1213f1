//! What a tenant's limits leave of a question: which times it sees, and how much it may fetch.
//!
//! The coordinator sends them with a question, and adds up what its evaluators have fetched; each of them also stops by
//! itself at the limit.
//!
//! ```text
//! series   those that a selector of PromQL, remote read or federation found with samples; one that two selectors find counts twice
//! bytes    16 for each of their samples that was read, and the memory of histograms and aggregates
//! ```

use super::question::{Answer, Filter, Question};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use trefoil_api::{TenantLimits, limit_refusals};
use trefoil_model::Millis;
use trefoil_query_promql::QueryError;

/// Bytes that a sample counts.
const SAMPLE_BYTES: u64 = 16;

/// What a query may see and fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allowance {
    /// Samples before this are as if they were not there.
    pub(crate) oldest: Millis,
    /// Most series; 0 is no limit.
    pub(crate) series_max: u64,
    /// Most bytes of samples; 0 is no limit.
    pub(crate) bytes_max: u64,
}

/// What was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetched {
    pub(crate) series: u64,
    pub(crate) bytes: u64,
}

impl Fetched {
    /// Counts a series of so many samples, whose histograms take this memory.
    pub(crate) fn add_series(&mut self, samples: usize, histogram_bytes: usize) {
        self.series += 1;
        self.bytes += samples as u64 * SAMPLE_BYTES + histogram_bytes as u64;
    }

    /// Adds what was fetched elsewhere.
    pub(crate) fn add(&mut self, other: Self) {
        self.series += other.series;
        self.bytes += other.bytes;
    }
}

/// Counts what is fetched for an answer, on one thread or several.
#[derive(Default)]
pub(super) struct Meter {
    allowance: Option<Allowance>,
    fetched: Mutex<Fetched>,
}

impl Meter {
    /// Counts within an allowance, or nothing.
    pub(super) fn new(allowance: Option<Allowance>) -> Self {
        Self {
            allowance,
            fetched: Mutex::default(),
        }
    }

    /// As [`Allowance::confine`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn confine(&self, question: Question) -> Result<Question, Answer> {
        match self.allowance {
            None => Ok(question),
            Some(allowance) => allowance.confine(question),
        }
    }

    /// As [`Allowance::begin`].
    pub(super) fn begin(&self, start: &mut Millis, end: Millis) -> bool {
        self.allowance.is_none_or(|one| one.begin(start, end))
    }

    /// Counts a series of so many samples, beside which it takes so many bytes.
    ///
    /// # Errors
    /// As [`Allowance::check`].
    pub(super) fn count(
        &self,
        samples: usize,
        beside: impl FnOnce() -> usize,
    ) -> Result<(), QueryError> {
        let Some(allowance) = self.allowance else {
            return Ok(());
        };
        let mut fetched = self.fetched.lock();
        fetched.add_series(samples, beside());
        allowance.check(*fetched)
    }

    /// Counts again from what had been counted at an earlier time.
    pub(super) fn go_back(&self, earlier: Fetched) {
        *self.fetched.lock() = earlier;
    }

    /// What has been counted.
    pub(super) fn fetched(&self) -> Fetched {
        *self.fetched.lock()
    }
}

impl Allowance {
    /// What the limits leave of a query at a time; none when they limit nothing.
    pub(crate) fn of(limits: &TenantLimits, now: Millis) -> Option<Self> {
        let oldest = limits.max_query_lookback.some().map(|back| now - back);
        let allowance = Self {
            oldest: oldest.unwrap_or(Millis::MIN),
            series_max: limits.max_fetched_series_per_query,
            bytes_max: limits.max_fetched_chunk_bytes_per_query,
        };
        let is_limited = oldest.is_some() || allowance.series_max > 0 || allowance.bytes_max > 0;
        is_limited.then_some(allowance)
    }

    /// Whether so much may be fetched.
    ///
    /// # Errors
    /// [`QueryError::Execution`] with the id of the limit.
    pub(crate) fn check(&self, fetched: Fetched) -> Result<(), QueryError> {
        if self.series_max > 0 && fetched.series > self.series_max {
            let reason = limit_refusals::too_many_fetched_series(self.series_max);
            return Err(QueryError::Execution(reason));
        }
        if self.bytes_max > 0 && fetched.bytes > self.bytes_max {
            let reason = limit_refusals::too_many_fetched_bytes(self.bytes_max);
            return Err(QueryError::Execution(reason));
        }
        Ok(())
    }

    /// The question about the times that are seen. Parts of PromQL see them where they read samples.
    ///
    /// # Errors
    /// The empty answer, when none of its times is seen.
    pub(crate) fn confine(&self, mut question: Question) -> Result<Question, Answer> {
        let is_seen = match &mut question {
            Question::Series(filter)
            | Question::LabelNames(filter)
            | Question::LabelValues(_, filter)
            | Question::Exemplars(filter) => self.begin(&mut filter.start, filter.end),
            Question::Select(select) => self.begin(&mut select.start, select.end),
            Question::Counts(counts) => self.begin(&mut counts.start, counts.end),
            Question::Part(_) | Question::Metadata(_) => true,
        };
        match is_seen {
            true => Ok(question),
            false => Err(nothing(&question)),
        }
    }

    /// Moves the start to what is seen. Says whether anything is left.
    pub(crate) fn begin(&self, start: &mut Millis, end: Millis) -> bool {
        *start = (*start).max(self.oldest);
        *start <= end
    }
}

fn nothing(question: &Question) -> Answer {
    match question {
        Question::Series(Filter { .. }) => Answer::Series(Vec::new()),
        Question::Exemplars(_) => Answer::Exemplars(Vec::new()),
        Question::Select(_) => Answer::Page(Default::default()),
        Question::Counts(_) => Answer::Counts(Default::default()),
        _ => Answer::Texts(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_api::Span;

    #[test]
    fn limits_are_told_by_their_ids() {
        let none = TenantLimits::default();
        assert_eq!(Allowance::of(&none, 5), None);
        let limits = TenantLimits {
            max_fetched_series_per_query: 2,
            max_fetched_chunk_bytes_per_query: 64,
            ..TenantLimits::default()
        };
        let allowance = Allowance::of(&limits, 5).expect("it is limited");
        let mut fetched = Fetched::default();
        fetched.add_series(1, 0);
        fetched.add_series(3, 0);
        assert_eq!(allowance.check(fetched), Ok(()));
        let more = |series, bytes| {
            let mut fetched = fetched;
            fetched.add(Fetched { series, bytes });
            let error = allowance.check(fetched).expect_err("it is above the limit");
            error.to_string()
        };
        assert!(more(1, 0).contains("(err-mimir-max-series-per-query)"));
        assert!(more(0, 1).contains("(err-mimir-max-chunks-bytes-per-query)"));
    }

    #[test]
    fn old_times_are_not_asked_about() {
        let limits = TenantLimits {
            max_query_lookback: Span(100),
            ..TenantLimits::default()
        };
        let allowance = Allowance::of(&limits, 1000).expect("it is limited");
        let asked = |start, end| {
            let filter = Filter {
                alternatives: Vec::new(),
                start,
                end,
                limit: 0,
            };
            match allowance.confine(Question::Series(filter)) {
                Ok(Question::Series(filter)) => Some((filter.start, filter.end)),
                Ok(_) => None,
                Err(answer) => {
                    assert!(matches!(answer, Answer::Series(series) if series.is_empty()));
                    None
                }
            }
        };
        assert_eq!(asked(0, 950), Some((900, 950)));
        assert_eq!(asked(930, 950), Some((930, 950)));
        assert_eq!(asked(0, 899), None);
    }
}
