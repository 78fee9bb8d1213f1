//! Workload `register`: compare-and-set on keys of the metadata plane, at every node one client.
//!
//! Values are unique in a run, so a value stands for the version that the product keeps with it: a client that has
//! read `v` asks to put its next value if the key has `v`'s version. Keys change every [`EPOCH`], which keeps the search
//! for a linear order short.

use super::{Client, unknown};
use crate::{
    Answer,
    history::{Action, Outcome},
};
use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::time::MissedTickBehavior;

/// Keys that are in use at a time.
const KEYS: u64 = 3;
/// Between two operations of a client.
const EVERY: Duration = Duration::from_millis(200);
/// How long keys are in use.
const EPOCH: Duration = Duration::from_secs(15);

/// Which keys are in use.
#[derive(Clone, Copy)]
pub(super) struct Epochs(Instant);

impl Epochs {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    fn key(self, dice: &mut StdRng) -> String {
        let epoch = self.0.elapsed().as_secs() / EPOCH.as_secs();
        format!("jepsen/{epoch}/{}", dice.random_range(0..KEYS))
    }
}

/// A value that a client has seen, and the version that it had.
type Seen = Option<(u64, u64)>;

pub(super) async fn work(client: Client, node: usize, epochs: Epochs, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut next = (node as u64 + 1) << 40;
    while !client.office.is_stopping() {
        ticks.tick().await;
        let Some(url) = client.office.addresses.url(node) else {
            continue;
        };
        let key = epochs.key(&mut dice);
        let url = format!("{url}/trefoil/api/v1/values");
        match seen.get(&key).copied().filter(|_| dice.random_bool(0.6)) {
            Some(expected) => {
                next += 1;
                let found = compare_and_set(&client, node, &url, &key, expected, next).await;
                match found {
                    Some(found) => seen.insert(key, found),
                    // Somebody else was faster, or nobody knows: read again.
                    None => seen.remove(&key),
                };
            }
            None => {
                if let Some(found) = get(&client, node, &url, &key).await {
                    // Keys of earlier epochs are not asked for again.
                    seen.retain(|other, _| other.split('/').nth(1) == key.split('/').nth(1));
                    seen.insert(key, found);
                }
            }
        }
    }
}

async fn get(client: &Client, node: usize, url: &str, key: &str) -> Option<Seen> {
    let action = Action::Get {
        key: key.to_owned(),
    };
    let mut seen = None;
    let work = async {
        let answer = client.http.get(&format!("{url}?key={key}")).await;
        match answer.and_then(|answer| held(&answer)) {
            Ok(held) => {
                seen = Some(held);
                Outcome::Value(held.map(|(value, _)| value))
            }
            // A read that failed changed nothing.
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    };
    client.operate(node, action, work).await;
    seen
}

/// The value and version in the answer to a read.
fn held(answer: &Answer) -> anyhow::Result<Seen> {
    let document = answer.json()?;
    let version = document["version"].as_u64().context("a version")?;
    match &document["value"] {
        Value::Null => Ok(None),
        value => {
            let value = value.as_str().context("a value")?;
            Ok(Some((value.parse()?, version)))
        }
    }
}

async fn compare_and_set(
    client: &Client,
    node: usize,
    url: &str,
    key: &str,
    expected: Seen,
    new: u64,
) -> Option<Seen> {
    let action = Action::CompareAndSet {
        key: key.to_owned(),
        expected: expected.map(|(value, _)| value),
        new,
    };
    let body = json!({
        "key": key,
        "value": new.to_string(),
        "expected_version": expected.map_or(0, |(_, version)| version),
    });
    let mut seen = None;
    let work = async {
        let headers = [("content-type", "application/json")];
        let answer = client.http.post(url, &headers, body.to_string()).await;
        match answer {
            Ok(answer) if answer.is_success() => match written(&answer) {
                Ok(version) => {
                    seen = Some(Some((new, version)));
                    Outcome::Done
                }
                Err(error) => unknown(&error),
            },
            Ok(answer) if answer.status == 412 => Outcome::Mismatch,
            Ok(answer) => Outcome::Unknown(format!("{} {}", answer.status, answer.text())),
            Err(error) => unknown(&error),
        }
    };
    client.operate(node, action, work).await;
    seen
}

fn written(answer: &Answer) -> anyhow::Result<u64> {
    answer.json()?["version"].as_u64().context("a version")
}
