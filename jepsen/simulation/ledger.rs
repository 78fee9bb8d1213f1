//! What clients sent, what was acknowledged, and what every answer must contain.

use std::collections::{BTreeMap, BTreeSet};
use trefoil_model::{Labels, ShardId, ShardSet, TenantId, TimeRange, key_hash, shard_of};

/// The tenant's name.
pub(crate) const TENANT: &str = "simulated";
/// How many series there are.
const SERIES: u64 = 24;

/// A sample that was sent: always the same value for the same series and time.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) canonical: Vec<u8>,
    pub(crate) at: i64,
    pub(crate) bits: u64,
}

/// Everything that clients remember.
#[derive(Default)]
pub(crate) struct Ledger {
    items: Vec<Item>,
    by_place: BTreeMap<(Vec<u8>, i64), usize>,
    /// In the order of the acknowledgements.
    acknowledged: Vec<usize>,
    known: BTreeSet<usize>,
}

impl Ledger {
    /// Notes that a sample is about to be sent; gives its number.
    pub(crate) fn send(&mut self, series: u64, at: i64) -> usize {
        let number = self.items.len();
        let name = (series % SERIES).to_string();
        let labels = Labels::from_pairs([("__name__", "simulated"), ("series", name.as_str())]);
        let canonical = labels.canonical().to_vec();
        // Unlike all others.
        let bits = (number as f64 + 0.5).to_bits();
        self.by_place.insert((canonical.clone(), at), number);
        self.items.push(Item {
            canonical,
            at,
            bits,
        });
        number
    }

    pub(crate) fn item(&self, number: usize) -> Item {
        self.items[number].clone()
    }

    /// How many samples were sent: the next one's number.
    pub(crate) fn sent(&self) -> usize {
        self.items.len()
    }

    /// A majority of the owners holds these.
    pub(crate) fn acknowledge(&mut self, numbers: &[usize]) {
        for number in numbers {
            if self.known.insert(*number) {
                self.acknowledged.push(*number);
            }
        }
    }

    /// How many acknowledgements there were so far: what a query that begins now must see.
    pub(crate) fn mark(&self) -> usize {
        self.acknowledged.len()
    }

    /// Checks an answer about these shards and times, given to a query that began at `mark`.
    ///
    /// # Errors
    /// What is missing, or was never sent.
    pub(crate) fn check(
        &self,
        mark: usize,
        place: (TenantId, u16),
        shards: &ShardSet,
        range: TimeRange,
        answer: &[crate::plane::Series],
    ) -> Result<(), String> {
        let (tenant, count) = place;
        let shard = |canonical: &[u8]| -> ShardId { shard_of(key_hash(tenant, canonical), count) };
        let mut found = BTreeSet::new();
        for (canonical, samples) in answer {
            for (at, bits) in samples {
                let number = self.by_place.get(&(canonical.clone(), *at));
                match number.filter(|number| self.items[**number].bits == *bits) {
                    Some(number) => found.insert(*number),
                    None => {
                        let value = f64::from_bits(*bits);
                        return Err(format!("sample {value} at {at} was never sent"));
                    }
                };
            }
        }
        let must = self.acknowledged[..mark].iter().filter(|number| {
            let item = &self.items[**number];
            range.contains(item.at) && shards.contains(shard(&item.canonical))
        });
        let lacking: Vec<&usize> = must.filter(|number| !found.contains(number)).collect();
        match lacking.first() {
            None => Ok(()),
            Some(first) => Err(format!(
                "{} acknowledged samples are missing from a complete answer, first number {first} of shard {}",
                lacking.len(),
                shard(&self.items[**first].canonical)
            )),
        }
    }
}
