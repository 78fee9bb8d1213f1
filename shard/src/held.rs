//! Which batches stand in this node's journal.
//!
//! A number is *seen* once its record is appended and *held* once that record is durable; both are one entry
//! here, with the offset that has to be durable. The memory is bounded: per coordinator run only the
//! newest numbers are kept. Below them nothing is known: a push is refused, a pulled batch is applied again.
//! Nothing of this is written anywhere; it is rebuilt from the journal, and what is forgotten by that is
//! merely stored twice.

use crate::{Offset, RequestNumber};
use std::collections::BTreeMap;
use trefoil_model::{Incarnation, RequestSequence, ShardSet};

/// What is remembered of one request.
#[derive(Clone, Debug)]
struct Entry {
    shards: ShardSet,
    /// The end of the last record that brought one of the shards.
    at: Offset,
}

#[derive(Clone, Debug, Default)]
struct Run {
    /// Numbers below were forgotten.
    kept_from: RequestSequence,
    numbers: BTreeMap<RequestSequence, Entry>,
    /// For forgetting the run that was quiet for longest.
    touched: u64,
}

/// The numbers that this node holds or has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldNumbers {
    runs: BTreeMap<Incarnation, Run>,
    touches: u64,
    numbers_max: usize,
    runs_max: usize,
}

impl HeldNumbers {
    pub(crate) fn new(numbers_max: usize, runs_max: usize) -> Self {
        Self {
            numbers_max: numbers_max.max(1),
            runs_max: runs_max.max(1),
            ..Self::default()
        }
    }

    /// Whether the number is below those that are remembered of its run.
    pub(crate) fn is_below_kept(&self, number: RequestNumber) -> bool {
        let run = self.runs.get(&number.incarnation);
        run.is_some_and(|run| number.sequence < run.kept_from)
    }

    /// Those of `shards` that were not seen under this number.
    pub(crate) fn lacking(&self, number: RequestNumber, shards: &ShardSet) -> ShardSet {
        match self.entry(number) {
            Some(entry) => shards.difference(&entry.shards),
            None => shards.clone(),
        }
    }

    /// What has to be durable for the number to be held; nothing if it was never seen.
    pub(crate) fn durable_at(&self, number: RequestNumber) -> Offset {
        self.entry(number).map_or(Offset(0), |entry| entry.at)
    }

    fn entry(&self, number: RequestNumber) -> Option<&Entry> {
        let run = self.runs.get(&number.incarnation)?;
        run.numbers.get(&number.sequence)
    }

    /// Notes a record with these batches that ends at `at`.
    pub(crate) fn insert(&mut self, number: RequestNumber, shards: &ShardSet, at: Offset) {
        self.touches += 1;
        let run = self.runs.entry(number.incarnation).or_default();
        run.touched = self.touches;
        if number.sequence < run.kept_from {
            return;
        }
        match run.numbers.get_mut(&number.sequence) {
            Some(entry) => {
                entry.shards = entry.shards.union(shards);
                entry.at = entry.at.max(at);
            }
            None => {
                let shards = shards.clone();
                run.numbers.insert(number.sequence, Entry { shards, at });
            }
        }
        while run.numbers.len() > self.numbers_max {
            if let Some((sequence, _)) = run.numbers.pop_first() {
                run.kept_from = sequence.next();
            }
        }
        if self.runs.len() > self.runs_max {
            let quiet = self.runs.iter().min_by_key(|(_, run)| run.touched);
            if let Some(incarnation) = quiet.map(|(incarnation, _)| *incarnation) {
                self.runs.remove(&incarnation);
            }
        }
    }

    /// Forgets these shards under all numbers: their batches are not here any more.
    pub(crate) fn forget(&mut self, shards: &ShardSet) {
        for run in self.runs.values_mut() {
            for entry in run.numbers.values_mut() {
                entry.shards = entry.shards.difference(shards);
            }
            run.numbers.retain(|_, entry| !entry.shards.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::ShardId;

    fn number(sequence: u64) -> RequestNumber {
        RequestNumber {
            incarnation: Incarnation(1),
            sequence: RequestSequence(sequence),
        }
    }

    #[test]
    fn numbers_below_the_kept_range_are_unknown() {
        let mut held = HeldNumbers::new(2, 2);
        let shard = ShardSet::from_iter([ShardId(5)]);
        for sequence in 1..=3 {
            held.insert(number(sequence), &shard, Offset(sequence));
        }
        assert!(held.is_below_kept(number(1)));
        assert_eq!(held.lacking(number(1), &shard), shard);
        assert!(held.lacking(number(2), &shard).is_empty());
        assert_eq!(held.durable_at(number(3)), Offset(3));
        held.forget(&shard);
        assert_eq!(held.lacking(number(3), &shard), shard);
    }

    #[test]
    fn runs_are_bounded() {
        let mut held = HeldNumbers::new(2, 2);
        let shard = ShardSet::from_iter([ShardId(5)]);
        for run in 1..=5 {
            let number = RequestNumber {
                incarnation: Incarnation(run),
                sequence: RequestSequence(1),
            };
            held.insert(number, &shard, Offset(run as u64));
        }
        assert_eq!(held.runs.len(), 2);
        assert!(held.runs.contains_key(&Incarnation(5)));
    }
}
