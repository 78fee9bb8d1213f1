//! Workload `set`: at every node one client adds elements and one reads them back.
//!
//! An element is one sample for each of a few series, all at one time, in one request. Reads are about stretches of one
//! writer's elements: mostly the newest, sometimes older ones, sometimes with `partial_response=true`.

use super::{Client, unknown, wall_millis};
use crate::{
    Ledger,
    history::{Action, Found, Outcome},
    samples::read_samples,
};
use anyhow::ensure;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;
use trefoil_model::Millis;

/// Series of a writer; their shards differ.
const SERIES: usize = 8;
/// Between two elements of a writer.
const ADD_EVERY: Duration = Duration::from_millis(100);
/// Between two reads of a reader.
const READ_EVERY: Duration = Duration::from_millis(250);
/// Elements that a read is about, but for last reads.
const READ_ELEMENTS_MAX: u64 = 300;
/// One read of so many is about older elements.
const OLDER_ONE_IN: u32 = 4;
/// One read of so many may be answered incompletely, if the answer says so.
const PARTIAL_ONE_IN: u32 = 8;
/// Elements that a page of a last read has.
const PAGE_ELEMENTS: u64 = 20_000;
/// How far before the first and behind the last element a last read looks for what was never sent.
const BEYOND: Millis = 600_000;
/// Strange samples that are kept in words.
const STRANGE_KEPT_MAX: usize = 5;

pub(super) fn ledger(node: usize) -> Ledger {
    Ledger::new(&format!("set-{}", node + 1), SERIES)
}

pub(super) async fn add(client: Client, node: usize, ledger: Arc<Ledger>) {
    let mut ticks = tokio::time::interval(ADD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !client.office.is_stopping() {
        ticks.tick().await;
        let Some(url) = client.office.addresses.url(node) else {
            continue;
        };
        let request = ledger.begin(wall_millis());
        let action = Action::Add {
            writer: ledger.writer().to_owned(),
            number: request.number,
            series: SERIES as u32,
        };
        let work = async {
            match client.http.remote_write(&url, request.body).await {
                Ok(answer) if answer.is_success() => Outcome::Done,
                Ok(answer) if answer.status >= 500 || answer.status == 429 => {
                    Outcome::Unknown(format!("{} {}", answer.status, answer.text()))
                }
                // For good: nothing is wrong with these requests, so somebody is wrong about them.
                Ok(answer) => Outcome::Failed(format!("{} {}", answer.status, answer.text())),
                Err(error) => unknown(&error),
            }
        };
        client.operate(node, action, work).await;
    }
}

pub(super) async fn read(client: Client, node: usize, ledgers: Vec<Arc<Ledger>>, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut ticks = tokio::time::interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !client.office.is_stopping() {
        ticks.tick().await;
        let ledger = &ledgers[dice.random_range(0..ledgers.len())];
        let begun = ledger.begun();
        let Some(url) = client.office.addresses.url(node).filter(|_| begun > 0) else {
            continue;
        };
        let last = match dice.random_ratio(1, OLDER_ONE_IN) {
            true => dice.random_range(0..begun),
            false => begun - 1,
        };
        let first = last.saturating_sub(dice.random_range(0..READ_ELEMENTS_MAX));
        let partial = dice.random_ratio(1, PARTIAL_ONE_IN);
        let action = read_action(ledger, first, last);
        let work = async {
            let times = (ledger.time_of(first), ledger.time_of(last));
            let (Some(from), Some(to)) = times else {
                return Outcome::Unknown("numbers without times".to_owned());
            };
            match find(&client, &url, ledger, (from - 1, to), partial).await {
                Ok(found) => Outcome::Found(found.finish()),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            }
        };
        client.operate(node, action, work).await;
    }
}

fn read_action(ledger: &Ledger, first: u64, last: u64) -> Action {
    Action::Read {
        writer: ledger.writer().to_owned(),
        first,
        last,
    }
}

/// Samples of elements as they come in, and what does not belong to any.
#[derive(Default)]
struct Gathered {
    /// Samples of each element.
    counts: BTreeMap<u64, usize>,
    strange: Vec<String>,
    warnings: bool,
}

impl Gathered {
    fn take(&mut self, ledger: &Ledger, series: usize, samples: &[(Millis, f64)]) {
        let mut last = None;
        for &(at, value) in samples {
            let request = ledger.request_of(series, (at, value));
            match request.filter(|_| series < SERIES && last < Some(at)) {
                Some(number) => *self.counts.entry(number).or_default() += 1,
                None if self.strange.len() < STRANGE_KEPT_MAX => {
                    let what = format!("series {series} has {value} at {at}");
                    self.strange.push(what);
                }
                None => {}
            }
            last = Some(at);
        }
    }

    fn finish(self) -> Found {
        let mut found = Found {
            strange: self.strange,
            declared_incomplete: self.warnings,
            ..Found::default()
        };
        for (number, count) in self.counts {
            match (count == SERIES, found.whole.last_mut()) {
                (false, _) => found.partial.push(number),
                (true, Some((_, last))) if *last + 1 == number => *last = number,
                (true, _) => found.whole.push((number, number)),
            }
        }
        found
    }
}

/// Reads what a node has after `from` and up to `to`.
async fn find(
    client: &Client,
    url: &str,
    ledger: &Ledger,
    (from, to): (Millis, Millis),
    partial: bool,
) -> anyhow::Result<Gathered> {
    let answer = read_samples(&client.http, url, ledger.writer(), (from, to), partial).await?;
    let mut gathered = Gathered {
        warnings: !answer.warnings.is_empty(),
        ..Gathered::default()
    };
    let mut seen = [false; SERIES];
    for (series, samples) in &answer.series {
        if let Some(seen) = seen.get_mut(*series) {
            ensure!(!*seen, "series {series} is there twice");
            *seen = true;
        }
        gathered.take(ledger, *series, samples);
    }
    Ok(gathered)
}

/// The last reads of a run: everything that was ever written, from every node.
pub struct LastReads {
    client: Client,
    ledgers: Vec<Arc<Ledger>>,
}

impl LastReads {
    pub(super) fn new(client: Client, ledgers: Vec<Arc<Ledger>>) -> Self {
        Self { client, ledgers }
    }

    /// Reads all elements of all writers from a node; records one operation per writer.
    pub async fn read_all(&self, node: usize) {
        let Some(url) = self.client.office.addresses.url(node) else {
            return;
        };
        for ledger in &self.ledgers {
            let Some(last) = ledger.begun().checked_sub(1) else {
                continue;
            };
            let work = async {
                match self.pages(&url, ledger, last).await {
                    Ok(found) => Outcome::Found(found.finish()),
                    Err(error) => Outcome::Failed(format!("{error:#}")),
                }
            };
            let action = read_action(ledger, 0, last);
            self.client.operate(node, action, work).await;
        }
    }

    async fn pages(&self, url: &str, ledger: &Ledger, last: u64) -> anyhow::Result<Gathered> {
        let mut all = Gathered::default();
        let mut from = ledger.time_of(0).unwrap_or_default() - BEYOND;
        for first in (0..=last).step_by(PAGE_ELEMENTS as usize) {
            let end = first + PAGE_ELEMENTS - 1;
            let to = match ledger.time_of(end).filter(|_| end < last) {
                Some(time) => time,
                None => ledger.time_of(last).unwrap_or_default() + BEYOND,
            };
            let page = find(&self.client, url, ledger, (from, to), false).await?;
            ensure!(!page.warnings, "a last read was answered incompletely");
            all.counts.extend(page.counts);
            all.strange.extend(page.strange);
            from = to;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_make_whole_partial_and_strange_elements() {
        let ledger = ledger(0);
        let times: Vec<Millis> = (0..3).map(|_| ledger.begin(1000).timestamp).collect();
        let value = |number: usize, series: usize| (number * SERIES + series) as f64;
        let mut gathered = Gathered::default();
        for series in 0..SERIES {
            let mut samples = vec![(times[0], value(0, series)), (times[1], value(1, series))];
            if series > 0 {
                samples.push((times[2], value(2, series)));
            }
            gathered.take(&ledger, series, &samples);
        }
        gathered.take(&ledger, 0, &[(times[0], value(1, 0))]);
        gathered.take(&ledger, 0, &[(times[0] - 1, value(0, 0))]);
        gathered.take(&ledger, SERIES, &[(times[0], value(1, 0))]);
        let found = gathered.finish();
        assert_eq!((found.whole, found.partial), (vec![(0, 1)], vec![2]));
        assert_eq!(found.strange.len(), 3);
        let mut twice = Gathered::default();
        twice.take(
            &ledger,
            0,
            &[(times[0], value(0, 0)), (times[0], value(0, 0))],
        );
        assert_eq!(twice.strange.len(), 1);
    }
}
