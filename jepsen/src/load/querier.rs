//! A querier: counts a group of all ledgers' series, another group each time.

use super::{destination::Destination, seen::Seen};
use crate::{
    Clock, HttpClient, Ledger,
    ledger::{Counts, METRIC},
};
use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;

/// Asks about all ledgers.
pub(super) struct Querier {
    pub(super) client: HttpClient,
    pub(super) destination: Destination,
    /// Matches the writers of the ledgers and no others.
    pub(super) writers: String,
    pub(super) ledgers: Vec<Arc<Ledger>>,
    pub(super) seen: Seen,
}

impl Querier {
    pub(super) async fn run(self, every: Duration, stopping: Arc<AtomicBool>) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let groups = self.ledgers.iter().map(|ledger| ledger.group_count()).max();
        for group in (0..groups.unwrap_or(0)).cycle() {
            if stopping.load(Ordering::Relaxed) {
                break;
            }
            ticks.tick().await;
            let begun = Instant::now();
            match self.count(group).await {
                Ok(wrong) => {
                    self.seen.record(begun, Ok(()));
                    self.seen.get().wrong.extend(wrong);
                }
                Err(error) => self.seen.record(begun, Err(format!("{error:#}"))),
            }
        }
    }

    /// What is wrong with the answer about a group of series; an error when there is no answer.
    async fn count(&self, group: usize) -> anyhow::Result<Vec<String>> {
        let before: Vec<Counts> = self.ledgers.iter().map(|ledger| ledger.counts()).collect();
        // Ten seconds ahead, so that every sample is inside the range whatever the clocks say.
        let time = Clock::now_millis() as f64 / 1000.0 + 10.0;
        let query = format!(
            "count_over_time({METRIC}{{group=\"{group}\",writer=~\"{}\"}}[1h])",
            self.writers
        );
        let time = format!("{time:.3}");
        let parameters = &[("query", query.as_str()), ("time", time.as_str())];
        let send = |url: String| async move {
            let url = format!("{url}/api/v1/query");
            self.client.post_form(&url, parameters).await
        };
        let data = self.destination.ask(send).await?.complete_data()?;
        let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for series in data["result"].as_array().context("a result list")? {
            let writer = series["metric"]["writer"].as_str().context("a writer")?;
            let Some(count) = series["value"][1].as_str().and_then(|n| n.parse().ok()) else {
                bail!("a count that is no number: {series}");
            };
            found.entry(writer).or_default().push(count);
        }
        let checked = self.ledgers.iter().zip(before).map(|(ledger, before)| {
            let counts = found.remove(ledger.writer()).unwrap_or_default();
            check_counts(ledger, group, (before, ledger.counts()), &counts)
        });
        let mut wrong: Vec<String> = checked.filter_map(Result::err).collect();
        if let Some(writer) = found.keys().next() {
            wrong.push(format!("writer {writer} does not exist"));
        }
        Ok(wrong)
    }
}

fn check_counts(
    ledger: &Ledger,
    group: usize,
    (before, after): (Counts, Counts),
    found: &[usize],
) -> Result<(), String> {
    let writer = ledger.writer();
    let series = ledger.group_series_count(group);
    if before.acknowledged > 0 && found.len() != series {
        return Err(format!(
            "writer {writer}: {} series of group {group} instead of {series}",
            found.len()
        ));
    }
    let expected = before.acknowledged..=after.begun;
    match found.iter().find(|count| !expected.contains(count)) {
        None => Ok(()),
        Some(count) => Err(format!(
            "writer {writer}: a series of group {group} has {count} samples, not {expected:?}"
        )),
    }
}
