//! Tenants' limits as this node enforces them: what is in effect, how fast samples may come, which series may begin.
//!
//! The numbers are facts of the metadata plane: a tenant's own with the tenant, the cluster's defaults in a key. Two
//! counts are estimates. *Rates*: every ready node admits an equal part of the tenant's rate and a whole burst, as in
//! Mimir. *Series*: hashing spreads a tenant's series evenly over the shards, so the node takes those that its head
//! has for the shards that it stores, and scales by the share of shards that it stores: with three nodes or fewer, where every
//! node stores all shards, the count is that of the cluster, each series once. Series that the head has are always
//! admitted, and so are those of shards that the node does not store, which it knows nothing of.
//! What is on its way to the head is not counted yet, so requests that arrive together may pass the limit by their
//! new series.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use trefoil_api::{LimitValues, TenantLimits, limit_refusals};
use trefoil_raft::State;
use trefoil_store_metrics::{KnownSeries, metric_of};

/// The key of the cluster's defaults in the metadata plane: a JSON object.
pub(crate) const DEFAULTS_KEY: &str = "setting//tenant_limits";
/// Largest number of tenants whose state is kept; beyond it all are forgotten and begin anew.
const TENANTS_KEPT_MAX: usize = 100_000;

/// What was set for a tenant, as it stands in the metadata plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The cluster's defaults.
    pub(crate) defaults: Option<String>,
    /// The tenant's own.
    pub(crate) own: Option<String>,
}

impl Stored {
    /// What a state has for a tenant's name.
    pub(crate) fn of(state: &State, tenant: &str) -> Self {
        let defaults = state.value(DEFAULTS_KEY);
        let tenant = state.tenant_id(tenant).and_then(|id| state.tenant(id));
        Self {
            defaults: defaults.map(|v| String::from_utf8_lossy(&v.bytes).into_owned()),
            own: tenant.and_then(|tenant| tenant.limits.clone()),
        }
    }

    /// The limits in effect. What cannot be read was written by a newer program and counts as not set.
    pub(crate) fn resolve(&self) -> TenantLimits {
        let layers = [&self.defaults, &self.own].map(|text| read(text.as_deref()));
        TenantLimits::resolve(&layers).unwrap_or_else(|error| {
            tracing::warn!(
                error,
                "limits of a tenant cannot be read, the defaults count"
            );
            TenantLimits::default()
        })
    }
}

/// Limits that were set, out of their JSON.
pub(crate) fn read(text: Option<&str>) -> LimitValues {
    let values = text.map(serde_json::from_str::<LimitValues>);
    values.and_then(Result::ok).unwrap_or_default()
}

/// What this node keeps of the tenants that it serves.
#[derive(Default)]
pub(crate) struct TenantGates {
    tenants: Mutex<BTreeMap<String, TenantGate>>,
}

struct TenantGate {
    stored: Stored,
    limits: Arc<TenantLimits>,
    bucket: Bucket,
}

impl TenantGates {
    /// The limits in effect for a tenant.
    pub(crate) fn limits(&self, state: &State, tenant: &str) -> Arc<TenantLimits> {
        let stored = Stored::of(state, tenant);
        let mut tenants = self.tenants.lock();
        if let Some(gate) = tenants.get_mut(tenant) {
            if gate.stored != stored {
                gate.limits = Arc::new(stored.resolve());
                gate.stored = stored;
            }
            return gate.limits.clone();
        }
        if tenants.len() >= TENANTS_KEPT_MAX {
            tenants.clear();
        }
        let limits = Arc::new(stored.resolve());
        let gate = TenantGate {
            stored,
            limits: limits.clone(),
            bucket: Bucket::default(),
        };
        tenants.insert(tenant.to_owned(), gate);
        limits
    }

    /// Takes samples out of the tenant's rate, of which this node has one of `parts` equal parts.
    ///
    /// # Errors
    /// After how long it may be tried again; nothing was taken.
    pub(crate) fn admit(
        &self,
        tenant: &str,
        limits: &TenantLimits,
        samples: u64,
        parts: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        if limits.ingestion_rate <= 0.0 {
            return Ok(());
        }
        let mut tenants = self.tenants.lock();
        let Some(gate) = tenants.get_mut(tenant) else {
            return Ok(());
        };
        let rate = limits.ingestion_rate / parts.max(1) as f64;
        let burst = limits.ingestion_burst_size as f64;
        gate.bucket.take(samples as f64, rate, burst, now)
    }
}

/// Samples that may come at once. Fills with the rate up to the burst.
#[derive(Default)]
struct Bucket {
    /// What was taken and has not flowed back; 0 when the bucket is full.
    taken: f64,
    at: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, samples: f64, rate: f64, burst: f64, now: Instant) -> Result<(), Duration> {
        let passed = self
            .at
            .map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.taken = (self.taken - passed * rate).max(0.0);
        if self.taken + samples <= burst {
            self.taken += samples;
            return Ok(());
        }
        let missing = (self.taken + samples - burst).min(burst);
        Err(Duration::from_secs_f64((missing / rate).clamp(1.0, 60.0)))
    }
}

/// Which series of a request may be stored.
pub(crate) struct SeriesGate<'a> {
    limits: &'a TenantLimits,
    /// What the head has; nothing when it has none of the tenant, or nothing is limited.
    known: Option<KnownSeries>,
    is_limited: bool,
    /// Shards of the cluster for each one that is stored here.
    scale: f64,
    /// New series of the request that were admitted.
    admitted: HashSet<Vec<u8>>,
    /// Series of each metric that was asked about: in the head, and admitted.
    of_metric: BTreeMap<Vec<u8>, u64>,
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

impl<'a> SeriesGate<'a> {
    /// A gate for one request. `known` is what the head has of the tenant.
    pub(crate) fn new(
        limits: &'a TenantLimits,
        known: impl FnOnce() -> Option<KnownSeries>,
        (shards, stored): (usize, usize),
    ) -> Self {
        let is_limited =
            limits.max_global_series_per_user > 0 || limits.max_global_series_per_metric > 0;
        Self {
            limits,
            known: if is_limited { known() } else { None },
            is_limited,
            scale: shards as f64 / stored.max(1) as f64,
            admitted: HashSet::new(),
            of_metric: BTreeMap::new(),
        }
    }

    /// Whether a series of a shard that is stored here may be stored.
    ///
    /// # Errors
    /// Which limit it would pass.
    pub(crate) fn admit(&mut self, canonical: &[u8]) -> Result<(), RefusedSeries> {
        if !self.is_limited || self.is_there(canonical) {
            return Ok(());
        }
        let known = self.known.as_ref();
        let limit = self.limits.max_global_series_per_user;
        let here = known.map_or(0, KnownSeries::count) + self.admitted.len() as u64;
        if self.is_reached(limit, here) {
            return Err(RefusedSeries::OfTenant(limit));
        }
        let limit = self.limits.max_global_series_per_metric;
        if limit > 0
            && let Some(metric) = metric_of(canonical)
        {
            let counted = self.of_metric.get(metric).copied();
            let here = match counted {
                Some(here) => here,
                None => {
                    // Counting costs; once for all series of the request, also if none is admitted.
                    let here = known.map_or(0, |known| known.count_of_metric(metric));
                    self.of_metric.insert(metric.to_vec(), here);
                    here
                }
            };
            if self.is_reached(limit, here) {
                let metric = String::from_utf8_lossy(metric).into_owned();
                return Err(RefusedSeries::OfMetric(metric, limit));
            }
            self.of_metric.insert(metric.to_vec(), here + 1);
        }
        self.admitted.insert(canonical.to_vec());
        Ok(())
    }

    fn is_there(&self, canonical: &[u8]) -> bool {
        let in_head = |known: &KnownSeries| known.contains(canonical);
        self.known.as_ref().is_some_and(in_head) || self.admitted.contains(canonical)
    }

    /// Whether the cluster has as many as it may, if so many are here.
    fn is_reached(&self, limit: u64, here: u64) -> bool {
        limit > 0 && (here as f64 * self.scale) as u64 >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::Labels;

    #[test]
    fn a_bucket_fills_with_its_rate() {
        let mut bucket = Bucket::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(bucket.take(100.0, 10.0, 100.0, at(0)), Ok(()));
        assert_eq!(
            bucket.take(20.0, 10.0, 100.0, at(0)),
            Err(Duration::from_secs(2))
        );
        assert_eq!(
            bucket.take(20.0, 10.0, 100.0, at(1)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(bucket.take(20.0, 10.0, 100.0, at(2)), Ok(()));
        // More than the burst never comes through, and a later one does.
        assert!(bucket.take(101.0, 10.0, 100.0, at(1000)).is_err());
        assert_eq!(bucket.take(100.0, 10.0, 100.0, at(1000)), Ok(()));
    }

    #[test]
    fn what_a_newer_program_wrote_counts_as_not_set() {
        let stored = Stored {
            defaults: Some(r#"{"ingestion_rate": 7}"#.into()),
            own: Some(r#"{"max_global_series_per_user": 3}"#.into()),
        };
        let limits = stored.resolve();
        assert_eq!(
            (limits.ingestion_rate, limits.max_global_series_per_user),
            (7.0, 3)
        );
        let newer = Stored {
            defaults: Some(r#"{"dreams": 7}"#.into()),
            own: Some("[]".into()),
        };
        assert_eq!(newer.resolve(), TenantLimits::default());
    }

    #[test]
    fn new_series_are_admitted_up_to_the_limit() {
        let limits = TenantLimits {
            max_global_series_per_user: 6,
            max_global_series_per_metric: 4,
            ..TenantLimits::default()
        };
        let series = |metric: &str, id: usize| {
            let labels = Labels::from_pairs([("__name__", metric), ("id", &id.to_string())]);
            labels.canonical().to_vec()
        };
        // Half of the shards are here, so each series stands for two.
        let mut gate = SeriesGate::new(&limits, || None, (8, 4));
        for _ in 0..2 {
            for id in 0..2 {
                assert_eq!(gate.admit(&series("a", id)), Ok(()), "a series counts once");
            }
        }
        let refused = RefusedSeries::OfMetric("a".into(), 4);
        assert_eq!(gate.admit(&series("a", 2)), Err(refused));
        assert_eq!(gate.admit(&series("b", 0)), Ok(()));
        assert_eq!(gate.admit(&series("b", 1)), Err(RefusedSeries::OfTenant(6)));
        let none = TenantLimits::default();
        let mut gate = SeriesGate::new(&none, || None, (8, 8));
        assert!((0..100).all(|id| gate.admit(&series("a", id)).is_ok()));
    }
}
