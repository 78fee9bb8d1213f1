//! Tenants' limits as this node enforces them: what is in effect, and how fast samples may come. Which series may begin is
//! in [`series`].
//!
//! The numbers are facts of the metadata plane: a tenant's own with the tenant, the cluster's defaults in a key. Every ready
//! node admits an equal part of the tenant's rate and a whole burst, as in Mimir.

pub(crate) mod series;

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use trefoil_api::{LimitValues, TenantLimits};
use trefoil_raft::State;

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

    /// The limits in effect. Those that this program does not know were written by a newer one and count as not set.
    pub(crate) fn resolve(&self) -> TenantLimits {
        let layers = [&self.defaults, &self.own].map(|text| read(text.as_deref()));
        let (limits, unknown) = TenantLimits::resolve_known(&layers);
        if !unknown.is_empty() {
            tracing::warn!(?unknown, "limits that this program does not know");
        }
        limits
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
    /// What was taken of the rate of samples.
    samples: Bucket,
    /// What was taken of the rate of requests.
    requests: Bucket,
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
            samples: Bucket::default(),
            requests: Bucket::default(),
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
        let rate = (limits.ingestion_rate, limits.ingestion_burst_size);
        self.take(tenant, |gate| &mut gate.samples, samples, rate, parts, now)
    }

    /// Takes a request out of the tenant's rate of requests, of which this node has one of `parts` equal parts.
    ///
    /// # Errors
    /// After how long it may be tried again; nothing was taken.
    pub(crate) fn admit_request(
        &self,
        tenant: &str,
        limits: &TenantLimits,
        parts: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        let rate = (limits.request_rate, limits.request_burst_size);
        self.take(tenant, |gate| &mut gate.requests, 1, rate, parts, now)
    }

    fn take(
        &self,
        tenant: &str,
        bucket: impl FnOnce(&mut TenantGate) -> &mut Bucket,
        count: u64,
        (rate, burst): (f64, u64),
        parts: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        if rate <= 0.0 {
            return Ok(());
        }
        let mut tenants = self.tenants.lock();
        let Some(gate) = tenants.get_mut(tenant) else {
            return Ok(());
        };
        let burst = match burst {
            0 => None,
            burst => Some(burst as f64),
        };
        bucket(gate).take(count as f64, rate / parts.max(1) as f64, burst, now)
    }
}

/// Samples or requests that may come at once. Fills with the rate up to the burst.
#[derive(Default)]
struct Bucket {
    /// What was taken and has not flowed back; 0 when the bucket is full.
    taken: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// Takes so many, at most `burst` at once. Without a burst any number, once the rate has paid for those before.
    fn take(
        &mut self,
        count: f64,
        rate: f64,
        burst: Option<f64>,
        now: Instant,
    ) -> Result<(), Duration> {
        let passed = self
            .at
            .map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.taken = (self.taken - passed * rate).max(0.0);
        let missing = match burst {
            Some(burst) => (self.taken + count - burst).min(burst),
            None => self.taken,
        };
        if missing <= 0.0 {
            self.taken += count;
            return Ok(());
        }
        Err(Duration::from_secs_f64((missing / rate).clamp(1.0, 60.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_with_its_rate() {
        let mut bucket = Bucket::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let burst = Some(100.0);
        assert_eq!(bucket.take(100.0, 10.0, burst, at(0)), Ok(()));
        assert_eq!(
            bucket.take(20.0, 10.0, burst, at(0)),
            Err(Duration::from_secs(2))
        );
        assert_eq!(
            bucket.take(20.0, 10.0, burst, at(1)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(bucket.take(20.0, 10.0, burst, at(2)), Ok(()));
        // More than the burst never comes through, and a later one does.
        assert!(bucket.take(101.0, 10.0, burst, at(1000)).is_err());
        assert_eq!(bucket.take(100.0, 10.0, burst, at(1000)), Ok(()));
    }

    #[test]
    fn requests_and_samples_have_rates_of_their_own() {
        let gates = TenantGates::default();
        gates.limits(&State::default(), "a");
        let limits = TenantLimits {
            request_rate: 4.0,
            request_burst_size: 2,
            ingestion_rate: 4.0,
            ingestion_burst_size: 2,
            ..TenantLimits::default()
        };
        let begun = Instant::now();
        let request = |seconds| {
            let now = begun + Duration::from_secs(seconds);
            gates.admit_request("a", &limits, 2, now)
        };
        // Of four in a second this node, one of two, has two.
        assert_eq!([request(0), request(0)], [Ok(()), Ok(())]);
        assert_eq!(request(0), Err(Duration::from_secs(1)));
        assert_eq!(gates.admit("a", &limits, 2, 2, begun), Ok(()));
        assert_eq!([request(1), request(1)], [Ok(()), Ok(())]);
        assert!(request(1).is_err());
        let free = TenantLimits::default();
        assert_eq!(gates.admit_request("a", &free, 2, begun), Ok(()));
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
            defaults: Some(r#"{"dreams": 7, "ingestion_rate": 7}"#.into()),
            own: Some("[]".into()),
        };
        let limits = newer.resolve();
        assert_eq!(limits.ingestion_rate, 7.0, "the others stay in force");
    }

    #[test]
    fn without_a_burst_the_rate_alone_decides() {
        let mut bucket = Bucket::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(bucket.take(50.0, 10.0, None, at(0)), Ok(()));
        let wait = bucket.take(1.0, 10.0, None, at(2));
        assert_eq!(wait, Err(Duration::from_secs(3)));
        assert_eq!(bucket.take(50.0, 10.0, None, at(5)), Ok(()));
    }
}
