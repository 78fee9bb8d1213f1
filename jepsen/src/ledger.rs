//! Numbered samples, and what became of each request: the truth that answers are held against.
//!
//! A request holds one sample for each of the ledger's series, all at the request's own timestamp.
//! The value names request and series, so an answer that mixes anything up is seen. What is kept is
//! one entry per request, whatever the number of series.

use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};
use trefoil_api::remote_write::encode;
use trefoil_model::{Labels, Millis};

/// The metric that all ledgers write; the label `writer` tells them apart.
pub(crate) const METRIC: &str = "trefoil_test_ledger";
/// Series that share a value of the label `group`: what one question of a querier looks at.
const GROUP_SERIES: usize = 64;

/// What a client knows about a request. There is no fourth case: an error of the server may have
/// stored all, some or nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may be stored: under way, answered with a server error, or not answered at all.
    Unknown,
    /// It was answered with success: every answer from now on must contain it.
    Acknowledged,
    /// It was answered with a client error: a failure of the test.
    Refused,
}

/// The requests of one writer, by their timestamps.
pub struct Ledger {
    writer: String,
    series: Vec<Labels>,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    fates: BTreeMap<Millis, (u64, Fate)>,
    /// The times of the requests, by their numbers.
    times: Vec<Millis>,
    acknowledged: usize,
    refused: Option<String>,
}

/// A request that was begun: what to send, as often as wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names it in [`Ledger::settle`].
    pub timestamp: Millis,
    /// Its place among the ledger's requests, from 0.
    pub number: u64,
    /// The compressed body.
    pub body: Bytes,
}

/// What a ledger expects of a count, asked before and after a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Requests that had been acknowledged.
    pub acknowledged: usize,
    /// Requests that had been begun.
    pub begun: usize,
}

impl Ledger {
    /// An empty ledger of so many series. Names of writers are unique in a cluster.
    #[must_use]
    pub fn new(writer: &str, series: usize) -> Self {
        let labels = (0..series).map(|number| {
            let (number, group) = (number.to_string(), (number / GROUP_SERIES).to_string());
            Labels::from_pairs([
                ("__name__", METRIC),
                ("group", group.as_str()),
                ("series", number.as_str()),
                ("writer", writer),
            ])
        });
        Self {
            writer: writer.to_owned(),
            series: labels.collect(),
            requests: Mutex::default(),
        }
    }

    /// Begins a request at `now`, or just after the last one. Its fate is unknown until
    /// [`Ledger::settle`].
    pub fn begin(&self, now: Millis) -> Request {
        let mut requests = self.requests();
        let last = requests.fates.last_key_value();
        let timestamp = last.map_or(now, |(last, _)| now.max(last + 1));
        let number = requests.fates.len() as u64;
        requests.fates.insert(timestamp, (number, Fate::Unknown));
        requests.times.push(timestamp);
        drop(requests);
        let samples: Vec<[(Millis, f64); 1]> = (0..self.series.len())
            .map(|series| [(timestamp, self.value(number, series))])
            .collect();
        let series = self.series.iter().zip(samples.iter().map(|s| s.as_slice()));
        Request {
            timestamp,
            number,
            body: encode(series).into(),
        }
    }

    /// Records what became of the request at `timestamp`; of one that is sent again, what its last
    /// sending told.
    pub fn settle(&self, timestamp: Millis, fate: Fate, text: &str) {
        let mut requests = self.requests();
        if let Some((_, known)) = requests.fates.get_mut(&timestamp) {
            *known = fate;
        }
        match fate {
            Fate::Acknowledged => requests.acknowledged += 1,
            Fate::Refused => requests.refused = Some(text.to_owned()),
            Fate::Unknown => {}
        }
    }

    /// What a query that begins or ends now may be held against.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let requests = self.requests();
        Counts {
            acknowledged: requests.acknowledged,
            begun: requests.fates.len(),
        }
    }

    /// How many requests were begun, and so the number of the next.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.requests().times.len() as u64
    }

    /// The time of the request of this number, if it was begun.
    #[must_use]
    pub fn time_of(&self, number: u64) -> Option<Millis> {
        self.requests()
            .times
            .get(usize::try_from(number).ok()?)
            .copied()
    }

    /// Which request a sample of a series belongs to; none if no request ever had such a sample.
    #[must_use]
    pub fn request_of(&self, series: usize, (at, value): (Millis, f64)) -> Option<u64> {
        let (number, _) = *self.requests().fates.get(&at)?;
        // Bit for bit: what was stored is what was sent.
        (self.value(number, series).to_bits() == value.to_bits()).then_some(number)
    }

    /// What a server said when it refused a request for good, if one did.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.requests().refused.clone()
    }

    /// The writer's name.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// How many series a request has.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// How many values the label `group` has, `0` and so on.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.series.len().div_ceil(GROUP_SERIES)
    }

    /// How many series have the group of this number.
    #[must_use]
    pub fn group_series_count(&self, group: usize) -> usize {
        let before = group * GROUP_SERIES;
        self.series.len().saturating_sub(before).min(GROUP_SERIES)
    }

    /// Ends of stretches of time, ascending, each with at most so many requests since the one before
    /// it. The last is the last request's time.
    #[must_use]
    pub fn page_ends(&self, requests_max: usize) -> Vec<Millis> {
        let requests = self.requests();
        let times: Vec<Millis> = requests.fates.keys().copied().collect();
        let pages = times.chunks(requests_max.max(1));
        pages.filter_map(|page| page.last().copied()).collect()
    }

    /// The times of the requests that are acknowledged now: what answers to later questions must have.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeSet<Millis> {
        let requests = self.requests();
        let fates = requests.fates.iter();
        let acknowledged = fates.filter(|(_, (_, fate))| *fate == Fate::Acknowledged);
        acknowledged.map(|(timestamp, _)| *timestamp).collect()
    }

    /// Holds the samples that an answer has of one series after `from` and up to `to` against the
    /// ledger. They are in the order of time; `due` is what was acknowledged before the question.
    ///
    /// # Errors
    /// Says how many acknowledged samples are missing (and the first), or which sample was never sent.
    pub fn check_series(
        &self,
        series: usize,
        (from, to): (Millis, Millis),
        due: &BTreeSet<Millis>,
        samples: &[(Millis, f64)],
    ) -> Result<(), String> {
        let requests = self.requests();
        let mut answered = samples.iter().copied().peekable();
        let mut missing = (0, None);
        for (timestamp, (number, _)) in requests.fates.range(from + 1..=to) {
            let value = self.value(*number, series);
            match answered.next_if(|(at, _)| at <= timestamp) {
                Some(sample) if sample == (*timestamp, value) => {}
                Some((at, value)) => return Err(format!("({at}, {value}) was never sent")),
                None if due.contains(timestamp) => {
                    missing = (missing.0 + 1, missing.1.or(Some(timestamp)));
                }
                None => {}
            }
        }
        if let Some((at, value)) = answered.next() {
            return Err(format!("({at}, {value}) was never sent, or is there twice"));
        }
        match missing {
            (_, None) => Ok(()),
            (count, Some(first)) => Err(format!(
                "{count} acknowledged samples are missing, the first at {first}"
            )),
        }
    }

    fn value(&self, request: u64, series: usize) -> f64 {
        // Both are far below 2^53 / series.
        (request * self.series.len() as u64 + series as u64) as f64
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[test]
fn answers_are_held_against_what_was_sent() {
    let ledger = Ledger::new("a", 2);
    let (first, second) = (ledger.begin(1000).timestamp, ledger.begin(1000).timestamp);
    assert_eq!((first, second), (1000, 1001));
    ledger.settle(first, Fate::Acknowledged, "");
    let due = ledger.acknowledged();
    // What is acknowledged after the question may be in the answer or not.
    ledger.settle(second, Fate::Acknowledged, "");
    let check = |series, samples: &[_]| ledger.check_series(series, (0, 5000), &due, samples);
    assert_eq!(check(0, &[(1000, 0.0)]), Ok(()));
    assert_eq!(check(1, &[(1000, 1.0), (1001, 3.0)]), Ok(()));
    assert!(check(0, &[]).is_err_and(|e| e.contains("missing")));
    assert!(check(0, &[(1001, 2.0)]).is_err_and(|e| e.contains("missing")));
    for wrong in [
        &[(1000, 1.0)][..],
        &[(999, 0.0), (1000, 0.0)],
        &[(1000, 0.0), (1000, 0.0)],
        &[(1000, 0.0), (1001, 2.0), (1001, 2.0)],
        &[(1000, 0.0), (1002, 4.0)],
    ] {
        assert!(check(0, wrong).is_err_and(|e| e.contains("never")));
    }
    assert_eq!(ledger.check_series(0, (1000, 1001), &due, &[]), Ok(()));
    assert_eq!(ledger.page_ends(1), [1000, 1001]);
    assert_eq!(ledger.page_ends(5), [1001]);
    let counts = Counts {
        acknowledged: 2,
        begun: 2,
    };
    assert_eq!(ledger.counts(), counts);
}

#[test]
fn groups_have_all_series() {
    let ledger = Ledger::new("a", 130);
    let groups = (0..ledger.group_count()).map(|group| ledger.group_series_count(group));
    assert_eq!(groups.collect::<Vec<usize>>(), [64, 64, 2]);
}
