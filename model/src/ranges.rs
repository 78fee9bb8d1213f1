//! A set of shards as a bitmap, the unit in which the data plane speaks of many shards at once.

use crate::ShardId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A set of shards. Grows to the largest shard that was inserted; equal sets compare equal.
#[derive(Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardSet {
    /// Bit `s % 64` of word `s / 64`; no trailing zero word, so that equal sets have equal words.
    words: Vec<u64>,
}

impl ShardSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The set `0..shards`.
    #[must_use]
    pub fn all(shards: u16) -> Self {
        (0..shards).map(ShardId).collect()
    }

    /// Adds a shard; says whether it was new.
    pub fn insert(&mut self, shard: ShardId) -> bool {
        let (word, bit) = position(shard);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let was = self.words[word];
        self.words[word] |= bit;
        was != self.words[word]
    }

    /// Removes a shard; says whether it was there.
    pub fn remove(&mut self, shard: ShardId) -> bool {
        let (word, bit) = position(shard);
        let Some(slot) = self.words.get_mut(word) else {
            return false;
        };
        let was = *slot & bit != 0;
        *slot &= !bit;
        self.trim();
        was
    }

    /// Whether the set has the shard.
    #[must_use]
    pub fn contains(&self, shard: ShardId) -> bool {
        let (word, bit) = position(shard);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// How many shards the set has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The shards in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let bits = (0..64u16).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| ShardId(index as u16 * 64 + bit))
        })
    }

    /// The shards in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// The shards in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// The shards here that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// Whether every shard here is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// The bitmap's words, lowest shards first, without trailing zeros: the form on disk and wire.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The set with these words.
    #[must_use]
    pub fn from_words(words: Vec<u64>) -> Self {
        let mut set = Self { words };
        set.trim();
        set
    }

    fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        let length = self.words.len().max(other.words.len());
        let at = |words: &[u64], index: usize| words.get(index).copied().unwrap_or(0);
        let words = (0..length).map(|i| combine(at(&self.words, i), at(&other.words, i)));
        Self::from_words(words.collect())
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }
}

fn position(shard: ShardId) -> (usize, u64) {
    (usize::from(shard.0 / 64), 1 << (shard.0 % 64))
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        let mut set = Self::new();
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|s| s.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_operations() {
        let a: ShardSet = [1, 64, 200].map(ShardId).into_iter().collect();
        let b: ShardSet = [64, 255].map(ShardId).into_iter().collect();
        assert_eq!(
            a.intersection(&b).iter().collect::<Vec<_>>(),
            vec![ShardId(64)]
        );
        assert_eq!(a.union(&b).len(), 4);
        assert_eq!(a.difference(&b).len(), 2);
        assert!(!a.is_subset(&b));
        let mut c = b.clone();
        assert!(c.remove(ShardId(255)));
        assert_eq!(c, [ShardId(64)].into_iter().collect());
    }
}
