//! Which series of a request may begin, where the number of a tenant's series is limited.
//!
//! ```text
//! series of the request -> known here, or to the owner that is asked -> stored
//!                       -> fresh: known to nobody -> stored while the cluster's count is below the limit
//! ```
//! A series that is there is never refused; neither is one of whose shard no owner can speak now. The count is the sum
//! over all shards of what one owner of each has, so it is that of the cluster, each series once. What is on its way to
//! the heads is not counted yet: requests that arrive together may pass the limit by their fresh series.

use crate::ingest::pairs::{Filter, HeldTimes, Kept};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use trefoil_api::{TenantLimits, limit_refusals, remote_write::WriteRequest};
use trefoil_model::{SeriesHash, ShardId, TenantId, key_hash, shard_of};
use trefoil_store_metrics::{ACTIVE_FOR, metric_of};

/// Series of shards that other nodes store which are kept as known, in each of two halves: some 40 MB in all when full.
/// Beyond it the older half is forgotten early, and owners are asked again.
const KEPT_MAX: usize = 1 << 20;
/// How long a half is filled. Both together are well within what counts as active for an owner.
const KEPT_FOR: Duration = Duration::from_secs(ACTIVE_FOR.as_secs() / 4);

/// A series of a request, as limits see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The low half of its hash.
    pub(crate) hash: u64,
    pub(crate) shard: ShardId,
    /// Its metric name; empty without one.
    pub(crate) metric: Vec<u8>,
}

/// The low half of a series' hash, by which limits know it.
pub(crate) fn hash_of(tenant: TenantId, canonical: &[u8]) -> u64 {
    SeriesHash::of(tenant, canonical).0 as u64
}

/// The series of a request that are not known, each once, in order. `known` is asked once, about all of them.
pub(crate) fn candidates(
    tenant: TenantId,
    request: &WriteRequest,
    shards: u16,
    filter: Option<&Filter<'_>>,
    known: impl FnOnce(&[(u64, ShardId)]) -> HashSet<u64>,
) -> Vec<Candidate> {
    let place = |labels: &[u8]| {
        let shard = shard_of(key_hash(tenant, labels), shards);
        (hash_of(tenant, labels), shard)
    };
    let mut all = Vec::new();
    each_stored(request, filter, |labels| all.push(place(labels)));
    let mut seen = known(&all);
    if all.iter().all(|(hash, _)| seen.contains(hash)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    each_stored(request, filter, |labels| {
        let (hash, shard) = place(labels);
        if seen.insert(hash) {
            let metric = metric_of(labels).unwrap_or_default().to_vec();
            found.push(Candidate {
                hash,
                shard,
                metric,
            });
        }
    });
    found
}

/// The labels under which the series of a request are stored, those of exemplars, too.
fn each_stored(request: &WriteRequest, filter: Option<&Filter<'_>>, mut each: impl FnMut(&[u8])) {
    let mut memory = Vec::new();
    let mut look = |canonical: &[u8]| {
        let kept = match filter {
            None => Kept::Stored(canonical, HeldTimes::NONE),
            Some(filter) => filter.keep(canonical, &mut memory),
        };
        if let Kept::Stored(labels, _) = kept {
            each(labels);
        }
    };
    request.series().for_each(|series| look(series.canonical()));
    let exemplars = request.exemplars().iter();
    exemplars.for_each(|(series, _)| look(series.canonical()));
}

/// Why a series may not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RefusedSeries {
    /// The tenant has so many.
    OfTenant(u64),
    /// The metric has so many.
    OfMetric(String, u64),
}

impl RefusedSeries {
    /// For the client.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::OfTenant(limit) => limit_refusals::too_many_series(*limit),
            Self::OfMetric(metric, limit) => {
                limit_refusals::too_many_series_of_metric(metric, *limit)
            }
        }
    }
}

/// How many series there are in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Of the tenant.
    pub(crate) series: u64,
    /// Of the metrics that were asked about.
    pub(crate) of_metric: HashMap<Vec<u8>, u64>,
}

impl Count {
    /// Adds what was counted for other shards.
    pub(crate) fn add(&mut self, other: Self) {
        self.series += other.series;
        for (metric, series) in other.of_metric {
            *self.of_metric.entry(metric).or_default() += series;
        }
    }

    /// Makes what was counted for some of the shards an estimate for all: hashing spreads series evenly.
    pub(crate) fn scale(&mut self, counted: usize, all: usize) {
        let (all, counted) = (all as u64, counted.max(1) as u64);
        let scaled = |series: u64| series.saturating_mul(all) / counted;
        self.series = scaled(self.series);
        let metrics = self.of_metric.values_mut();
        metrics.for_each(|series| *series = scaled(*series));
    }
}

/// The gate for one request.
pub(crate) struct SeriesGate<'a> {
    tenant: TenantId,
    limits: &'a TenantLimits,
    /// Those that nobody knows, and whether they were admitted.
    fresh: HashMap<u64, bool>,
    count: Count,
    /// Those of them that other nodes store.
    elsewhere: HashSet<u64>,
}

impl<'a> SeriesGate<'a> {
    /// A gate that lets everything through but `fresh` series, of which it admits as many as there is room for.
    pub(crate) fn new(
        tenant: TenantId,
        limits: &'a TenantLimits,
        fresh: impl IntoIterator<Item = u64>,
        count: Count,
    ) -> Self {
        Self {
            tenant,
            limits,
            fresh: fresh.into_iter().map(|hash| (hash, false)).collect(),
            count,
            elsewhere: HashSet::new(),
        }
    }

    /// The same gate, which knows which of the series other nodes store.
    pub(crate) fn keeping(self, elsewhere: HashSet<u64>) -> Self {
        Self { elsewhere, ..self }
    }

    /// Whether a series may be stored.
    ///
    /// # Errors
    /// Which limit it would pass.
    pub(crate) fn admit(&mut self, canonical: &[u8]) -> Result<(), RefusedSeries> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let Some(admitted) = self.fresh.get_mut(&hash_of(self.tenant, canonical)) else {
            return Ok(());
        };
        if *admitted {
            return Ok(());
        }
        let limit = self.limits.max_global_series_per_user;
        if limit > 0 && self.count.series >= limit {
            return Err(RefusedSeries::OfTenant(limit));
        }
        let limit = self.limits.max_global_series_per_metric;
        if limit > 0
            && let Some(metric) = metric_of(canonical)
        {
            let count = self.count.of_metric.entry(metric.to_vec()).or_default();
            if *count >= limit {
                let metric = String::from_utf8_lossy(metric).into_owned();
                return Err(RefusedSeries::OfMetric(metric, limit));
            }
            *count += 1;
        }
        self.count.series += 1;
        *admitted = true;
        Ok(())
    }

    /// The fresh series that were admitted, and that other nodes store.
    pub(crate) fn admitted_elsewhere(&self) -> impl Iterator<Item = u64> {
        let admitted = self.fresh.iter().filter(|(_, admitted)| **admitted);
        let admitted = admitted.map(|(hash, _)| *hash);
        admitted.filter(|hash| self.elsewhere.contains(hash))
    }
}

/// Series of shards that other nodes store, which an owner knew not long ago: it need not be asked for each request.
#[derive(Default)]
pub(crate) struct KnownElsewhere {
    halves: Mutex<Halves>,
}

#[derive(Default)]
struct Halves {
    newer: HashSet<u64>,
    older: HashSet<u64>,
    begun: Option<Instant>,
}

impl KnownElsewhere {
    /// Those of the series that are known.
    pub(crate) fn present(&self, hashes: impl Iterator<Item = u64>, known: &mut HashSet<u64>) {
        let halves = self.halves.lock();
        known.extend(hashes.filter(|hash| halves.contains(*hash)));
    }

    /// Keeps series as known.
    pub(crate) fn keep(&self, hashes: impl Iterator<Item = u64>, now: Instant) {
        let mut halves = self.halves.lock();
        halves.turn(now);
        for hash in hashes {
            if halves.newer.len() >= KEPT_MAX {
                halves.older = std::mem::take(&mut halves.newer);
                halves.begun = Some(now);
            }
            halves.newer.insert(hash);
        }
    }

    /// Forgets what is old.
    pub(crate) fn turn(&self, now: Instant) {
        self.halves.lock().turn(now);
    }
}

impl Halves {
    fn contains(&self, hash: u64) -> bool {
        self.newer.contains(&hash) || self.older.contains(&hash)
    }

    fn turn(&mut self, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let passed = now.saturating_duration_since(begun);
        if passed < KEPT_FOR {
            return;
        }
        self.older = std::mem::take(&mut self.newer);
        if passed >= 2 * KEPT_FOR {
            self.older.clear();
        }
        self.begun = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_api::{ApiLimits, remote_write::Sample};
    use trefoil_model::Labels;

    const TENANT: TenantId = TenantId(3);

    fn series(metric: &str, id: usize) -> Labels {
        Labels::from_pairs([("__name__", metric), ("id", &id.to_string())])
    }

    fn hash(metric: &str, id: usize) -> u64 {
        hash_of(TENANT, series(metric, id).canonical())
    }

    #[test]
    fn fresh_series_are_admitted_up_to_the_limit() {
        let limits = TenantLimits {
            max_global_series_per_user: 6,
            max_global_series_per_metric: 4,
            ..TenantLimits::default()
        };
        let of_a = (0..3).map(|id| hash("a", id));
        let fresh = of_a.chain((0..3).map(|id| hash("b", id)));
        let mut count = Count {
            series: 1,
            of_metric: HashMap::from([(b"a".to_vec(), 1)]),
        };
        count.scale(4, 8);
        let elsewhere = HashSet::from([hash("a", 0), hash("a", 2)]);
        let mut gate = SeriesGate::new(TENANT, &limits, fresh, count).keeping(elsewhere);
        let mut admit = |metric, id| gate.admit(series(metric, id).canonical());
        for _ in 0..2 {
            for id in 0..2 {
                assert_eq!(admit("a", id), Ok(()), "a series counts once");
            }
        }
        let refused = RefusedSeries::OfMetric("a".into(), 4);
        assert_eq!(admit("a", 2), Err(refused));
        assert_eq!((admit("b", 0), admit("b", 1)), (Ok(()), Ok(())));
        assert_eq!(admit("b", 2), Err(RefusedSeries::OfTenant(6)));
        assert_eq!(admit("a", 9), Ok(()), "one that is there is never refused");
        assert!(gate.admitted_elsewhere().eq([hash("a", 0)]));
    }

    #[test]
    fn what_a_request_brings_is_asked_about_once() {
        let mut request = WriteRequest::default();
        let limits = ApiLimits::default().write;
        for id in [1, 2, 1] {
            let labels = &mut [("__name__", "a"), ("id", &id.to_string())];
            let pushed = request.push_samples(labels, [Sample::float(1, 1.0)], &limits);
            pushed.expect("a small request");
        }
        let known = hash("a", 2);
        let found = candidates(TENANT, &request, 4, None, |_| HashSet::from([known]));
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.hash, &one.metric[..]))
            .collect();
        assert_eq!(found, [(hash("a", 1), &b"a"[..])]);
    }

    #[test]
    fn known_series_are_kept_for_a_while() {
        let kept = KnownElsewhere::default();
        let contains = |hash| kept.halves.lock().contains(hash);
        let begun = Instant::now();
        kept.keep([1].into_iter(), begun);
        kept.keep([2].into_iter(), begun + KEPT_FOR);
        assert!(contains(1) && contains(2) && !contains(3));
        kept.keep([3].into_iter(), begun + 2 * KEPT_FOR);
        assert!(!contains(1) && contains(2));
        kept.keep([4].into_iter(), begun + 9 * KEPT_FOR);
        assert!(!contains(3) && contains(4));
        // With the one that is there: twice as many as fit into a half.
        kept.keep(5..4 + 2 * KEPT_MAX as u64, begun + 9 * KEPT_FOR);
        let halves = kept.halves.lock();
        assert_eq!(
            (halves.newer.len(), halves.older.len()),
            (KEPT_MAX, KEPT_MAX)
        );
    }
}
