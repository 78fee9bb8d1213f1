//! The active series of a tenant, for limits of series: those to which something was written not long ago.
//!
//! ```text
//! new in the label index  -> active, unless it came with a copy of what another owner has
//! a flush                 -> active for longer, when it has a sample that is not older than that
//! 20 minutes without      -> not active any more
//! ```
//! So the number depends neither on how long the head's label indexes keep idle series nor on history that is copied. It is
//! kept for tenants about which a limit asks, 24 bytes for each series and up to as much again for the room of the table. Nothing
//! is on disk: after a start, head and blocks say which series were active ([`crate::MetricsEngine::recall_series`]).

use hashbrown::HashTable;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use trefoil_model::{ShardId, ShardSet};
use xxhash_rust::xxh3::xxh3_64;

/// How long a series counts behind its last sample: Mimir's `active_series_idle_timeout`, so that scrapes every ten minutes
/// keep a series.
pub const ACTIVE_FOR: Duration = Duration::from_secs(20 * 60);

/// How often old ones are looked for: a series counts so much longer at most.
const EXPIRY_INTERVAL_SECONDS: u32 = 30;

/// A series to which something was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The low half of its hash.
    pub(crate) series: u64,
    /// Hash of its metric name; see [`metric_hash`].
    pub(crate) metric: u64,
    pub(crate) shard: ShardId,
}

struct Entry {
    series: u64,
    metric: u64,
    /// On the clock of [`crate::MetricsEngine::set_time`].
    at_seconds: u32,
    shard: ShardId,
}

/// Active series, by hash.
#[derive(Default)]
pub(crate) struct Active {
    entries: HashTable<Entry>,
    counts: Counts,
    /// When it was looked for old ones.
    expired_seconds: u32,
}

#[derive(Default)]
struct Counts {
    of_shard: BTreeMap<ShardId, u64>,
    of_metric: HashMap<u64, BTreeMap<ShardId, u64>>,
}

/// The hash of a metric's name; of the empty one for series without.
pub(crate) fn metric_hash(metric: &[u8]) -> u64 {
    xxh3_64(metric)
}

impl Active {
    /// Lets a series be active from `now` on.
    pub(crate) fn see(&mut self, seen: Seen, now: Duration) {
        let at_seconds = seconds(now);
        let known = self
            .entries
            .find_mut(seen.series, |entry| entry.series == seen.series);
        if let Some(entry) = known {
            entry.at_seconds = at_seconds.max(entry.at_seconds);
            return;
        }
        let Seen {
            series,
            metric,
            shard,
        } = seen;
        self.counts.add(metric, shard);
        let entry = Entry {
            series,
            metric,
            at_seconds,
            shard,
        };
        self.entries
            .insert_unique(series, entry, |entry| entry.series);
    }

    /// Whether it is time for [`Active::expire`], which looks at all of them.
    pub(crate) fn has_expired(&self, now: Duration) -> bool {
        seconds(now).saturating_sub(self.expired_seconds) >= EXPIRY_INTERVAL_SECONDS
    }

    /// Takes out what was seen last long before `now`.
    pub(crate) fn expire(&mut self, now: Duration) {
        let now = seconds(now);
        self.expired_seconds = now;
        let Self {
            entries, counts, ..
        } = self;
        entries.retain(|entry| {
            let age = u64::from(now.saturating_sub(entry.at_seconds));
            let stays = age < ACTIVE_FOR.as_secs();
            if !stays {
                counts.remove(entry.metric, entry.shard);
            }
            stays
        });
        if entries.len() * 4 < entries.capacity() {
            entries.shrink_to(entries.len() * 2, |entry| entry.series);
        }
    }

    pub(crate) fn contains(&self, series: u64) -> bool {
        let found = self.entries.find(series, |entry| entry.series == series);
        found.is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many series of these shards there are.
    pub(crate) fn count(&self, shards: &ShardSet) -> u64 {
        count(&self.counts.of_shard, shards)
    }

    /// How many of them have a metric name with this hash.
    pub(crate) fn count_of_metric(&self, metric: u64, shards: &ShardSet) -> u64 {
        let counts = self.counts.of_metric.get(&metric);
        counts.map_or(0, |counts| count(counts, shards))
    }

    /// Memory held, in bytes, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        /// A metric's map with a few shards.
        const METRIC_BYTES: usize = 250;
        self.entries.capacity() * (size_of::<Entry>() + 2)
            + self.counts.of_metric.len() * METRIC_BYTES
    }
}

impl Counts {
    fn add(&mut self, metric: u64, shard: ShardId) {
        *self.of_shard.entry(shard).or_default() += 1;
        let of_metric = self.of_metric.entry(metric).or_default();
        *of_metric.entry(shard).or_default() += 1;
    }

    fn remove(&mut self, metric: u64, shard: ShardId) {
        take_one(&mut self.of_shard, shard);
        if let Some(of_metric) = self.of_metric.get_mut(&metric) {
            take_one(of_metric, shard);
            if of_metric.is_empty() {
                self.of_metric.remove(&metric);
            }
        }
    }
}

fn count(counts: &BTreeMap<ShardId, u64>, shards: &ShardSet) -> u64 {
    let wanted = counts.iter().filter(|(shard, _)| shards.contains(**shard));
    wanted.map(|(_, count)| count).sum()
}

fn take_one(counts: &mut BTreeMap<ShardId, u64>, shard: ShardId) {
    if let Some(count) = counts.get_mut(&shard) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&shard);
        }
    }
}

/// Whole seconds; a machine is restarted before they are too many.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_count_while_they_are_seen() {
        let at = Duration::from_secs;
        let mut active = Active::default();
        let seen = |series, metric, shard| Seen {
            series,
            metric,
            shard: ShardId(shard),
        };
        for (series, metric, shard) in [(1, 7, 0), (2, 7, 1), (3, 8, 1)] {
            active.see(seen(series, metric, shard), at(series));
        }
        active.see(seen(2, 7, 1), at(100));
        let (all, first) = (ShardSet::all(2), ShardSet::all(1));
        assert_eq!((active.count(&all), active.count(&first)), (3, 1));
        assert_eq!(active.count_of_metric(7, &all), 2);
        assert_eq!(active.count_of_metric(7, &first), 1);
        active.expire(at(2) + ACTIVE_FOR);
        assert!(!active.contains(1) && active.contains(2) && active.contains(3));
        assert_eq!(active.count_of_metric(7, &first), 0);
        active.expire(at(99) + ACTIVE_FOR);
        assert_eq!((active.len(), active.count(&all)), (1, 1));
        active.expire(at(100) + ACTIVE_FOR);
        assert_eq!(active.len(), 0);
        assert!(active.counts.of_shard.is_empty() && active.counts.of_metric.is_empty());
    }
}
