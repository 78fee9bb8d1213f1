//! Numbered samples, and what became of each request: the truth that answers are held against.
//!
//! A request holds one sample for each of the ledger's series, all at the request's own timestamp.
//! The value names request and series, so an answer that mixes anything up is seen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use trefoil_api::remote_write::encode;
use trefoil_model::{Labels, Millis};

/// The metric that all ledgers write; the label `writer` tells them apart.
pub(crate) const METRIC: &str = "trefoil_test_ledger";

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
    acknowledged: usize,
    refused: Option<String>,
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
            let number = number.to_string();
            Labels::from_pairs([
                ("__name__", METRIC),
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

    /// Begins a request at `now`, or just after the last one: its timestamp and its body. Its fate
    /// is unknown until [`Ledger::settle`].
    pub fn begin(&self, now: Millis) -> (Millis, Vec<u8>) {
        let mut requests = self.requests();
        let last = requests.fates.last_key_value();
        let timestamp = last.map_or(now, |(last, _)| now.max(last + 1));
        let number = requests.fates.len() as u64;
        requests.fates.insert(timestamp, (number, Fate::Unknown));
        drop(requests);
        let samples: Vec<[(Millis, f64); 1]> = (0..self.series.len())
            .map(|series| [(timestamp, self.value(number, series))])
            .collect();
        let series = self.series.iter().zip(samples.iter().map(|s| s.as_slice()));
        (timestamp, encode(series))
    }

    /// Records what became of the request at `timestamp`.
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

    /// Holds the samples of one series, as an answer has them, against the ledger.
    ///
    /// # Errors
    /// Says how many acknowledged samples are missing (and the first), or which sample was never sent.
    pub fn check_series(&self, series: usize, samples: &[(Millis, f64)]) -> Result<(), String> {
        let requests = self.requests();
        let answered: BTreeMap<Millis, f64> = samples.iter().copied().collect();
        if answered.len() != samples.len() {
            return Err("a timestamp is twice in the answer".to_owned());
        }
        for (timestamp, value) in &answered {
            let sent = requests.fates.get(timestamp);
            if sent.is_none_or(|(number, _)| self.value(*number, series) != *value) {
                return Err(format!("({timestamp}, {value}) was never sent"));
            }
        }
        let mut missing = requests
            .fates
            .iter()
            .filter(|(timestamp, (_, fate))| {
                *fate == Fate::Acknowledged && !answered.contains_key(timestamp)
            })
            .peekable();
        match missing.peek() {
            None => Ok(()),
            Some((first, _)) => {
                let first = **first;
                let count = missing.count();
                Err(format!(
                    "{count} acknowledged samples are missing, the first at {first}"
                ))
            }
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
    let (first, _) = ledger.begin(1000);
    let (second, _) = ledger.begin(1000);
    assert_eq!((first, second), (1000, 1001));
    ledger.settle(first, Fate::Acknowledged, "");
    assert!(ledger.check_series(0, &[(1000, 0.0)]).is_ok());
    assert!(ledger.check_series(1, &[(1000, 1.0), (1001, 3.0)]).is_ok());
    assert!(
        ledger
            .check_series(0, &[])
            .is_err_and(|e| e.contains("missing"))
    );
    assert!(
        ledger
            .check_series(0, &[(1000, 1.0)])
            .is_err_and(|e| e.contains("never"))
    );
    assert!(ledger.check_series(0, &[(1000, 0.0), (1002, 4.0)]).is_err());
    assert_eq!(
        ledger.counts(),
        Counts {
            acknowledged: 1,
            begun: 2
        }
    );
}
