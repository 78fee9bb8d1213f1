//! How long metrics are kept: one fact of the whole cluster, in its metadata plane.
//!
//! What is too old is removed from all nodes and never comes back, so it must not depend on which node leads. The
//! first leader records what its own file says; from then on only an operator changes it. A node whose file says
//! something else goes by the cluster and says so.

use super::Cluster;
use std::{sync::Arc, time::Duration};
use trefoil_api::{ApiError, admin};
use trefoil_model::{Millis, Signal, TenantId};
use trefoil_raft::{Change, Command, Condition, State, Tenant};

/// The key in the metadata plane; the value is in milliseconds, 8 bytes little-endian, 0 for ever.
const KEY: &str = "setting//metrics_retention_ms";
/// Smallest step of a cut-off, milliseconds.
const STEP_MIN: Millis = 10 * 60 * 1000;
/// Longest retention that can be set: about a thousand years.
const HOURS_MAX: u64 = 1000 * 365 * 24;

/// How long items are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention(pub(crate) Option<Duration>);

impl Retention {
    /// What the cluster goes by; none before the first leader has recorded it.
    pub(crate) fn of(state: &State) -> Option<Self> {
        state.value(KEY).map(|value| Self::decode(&value.bytes))
    }

    /// A value that a newer program wrote in another form deletes nothing.
    fn decode(bytes: &[u8]) -> Self {
        let millis = <[u8; 8]>::try_from(bytes).map_or(0, u64::from_le_bytes);
        Self((millis > 0).then(|| Duration::from_millis(millis)))
    }

    fn encode(self) -> Vec<u8> {
        let millis = self.0.map_or(0, |kept| kept.as_millis() as u64);
        millis.to_le_bytes().to_vec()
    }

    /// In whole hours, for people and files; 0 for ever.
    pub(crate) fn hours(self) -> u64 {
        self.0.map_or(0, |kept| kept.as_secs() / 3600)
    }

    /// The newest item that is too old at `now`.
    fn too_old_at(self, now: Millis) -> Option<Millis> {
        self.0
            .map(|kept| now.saturating_sub(kept.as_millis() as Millis))
    }
}

/// The cut-off of all of a tenant's metrics, if it has one: older samples are gone.
pub(crate) fn cut_off(tenant: &Tenant) -> Option<Millis> {
    let whole = tenant
        .cut_offs
        .iter()
        .filter(|cut_off| cut_off.signal == Signal::Metrics && cut_off.selector.is_empty());
    whole.map(|cut_off| cut_off.before).max()
}

/// Records the retention when nobody has, else advances every tenant's cut-off in steps of a hundredth of it, at
/// least ten minutes. Only the leader calls it.
pub(super) async fn advance(cluster: &Cluster, state: &State) {
    let Some(retention) = Retention::of(state) else {
        let own = Retention(cluster.settings.retention);
        tracing::info!(hours = own.hours(), "records how long metrics are kept");
        let absent = Condition::Absent {
            key: KEY.to_owned(),
        };
        if let Err(error) = cluster.metadata.propose(write(vec![absent], own)).await {
            tracing::warn!(%error, "record the retention");
        }
        return;
    };
    // A cut-off cannot be taken back, so it follows the median of the clocks, and nobody's who is far from it.
    if cluster.check_clock().is_err() {
        return;
    }
    let Some(too_old) = cluster
        .clock
        .now()
        .and_then(|now| retention.too_old_at(now))
    else {
        return;
    };
    let kept = retention.0.unwrap_or_default().as_millis() as Millis;
    let step = (kept / 100).max(STEP_MIN);
    let before = too_old.div_euclid(step) * step;
    for tenant in state.tenants() {
        if cut_off(tenant).is_some_and(|present| present >= before) {
            continue;
        }
        let command = Command::AdvanceRetention {
            tenant: tenant.id,
            signal: Signal::Metrics,
            selector: String::new(),
            before,
        };
        if let Err(error) = cluster.metadata.propose(command).await {
            tracing::warn!(%error, "advance the retention");
        }
    }
}

/// Says when the cluster keeps metrics for another time than this node's file says, once for each.
pub(super) async fn compare(cluster: Arc<Cluster>) {
    let mut states = cluster.metadata.watch();
    let mut told = Retention(cluster.settings.retention);
    loop {
        let recorded = Retention::of(&states.borrow_and_update());
        if let Some(recorded) = recorded.filter(|recorded| *recorded != told) {
            told = recorded;
            tracing::warn!(
                cluster_hours = recorded.hours(),
                file_hours = Retention(cluster.settings.retention).hours(),
                "the cluster's retention is another one than this node's retention_hours; the cluster's counts \
                 (change it with: trefoil cluster retention)"
            );
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

impl Cluster {
    /// How long the cluster keeps metrics, in hours, 0 for ever; none before that was recorded.
    pub(crate) fn retention_hours(&self) -> Option<u64> {
        Retention::of(&self.metadata.state()).map(Retention::hours)
    }

    /// The oldest sample of a tenant that is taken at `now`, milliseconds of UTC: what is older than the
    /// retention, or is cut off already, would vanish at once.
    pub(crate) fn oldest_accepted(&self, tenant: Option<TenantId>, now: Millis) -> Millis {
        let state = self.metadata.state();
        let retention = Retention::of(&state).unwrap_or(Retention(self.settings.retention));
        let window = Retention(self.settings.out_of_order_window);
        let bounds = [
            retention.too_old_at(now),
            window.too_old_at(now),
            tenant
                .and_then(|tenant| state.tenant(tenant))
                .and_then(|tenant| cut_off(tenant)),
        ];
        bounds.into_iter().flatten().max().unwrap_or(Millis::MIN)
    }

    /// Changes how long the cluster keeps metrics.
    ///
    /// # Errors
    /// When the number is too large or the metadata plane does not take it now.
    pub(crate) async fn set_retention(&self, hours: u64) -> Result<admin::Accepted, ApiError> {
        if hours > HOURS_MAX {
            return Err(ApiError::BadData(format!(
                "{hours} hours are too many, the most is {HOURS_MAX}; 0 keeps metrics for ever"
            )));
        }
        let wanted = Retention((hours > 0).then(|| Duration::from_secs(hours * 3600)));
        self.command(write(Vec::new(), wanted)).await?;
        let message = match hours {
            0 => "the cluster keeps metrics for ever from now on".to_owned(),
            _ => format!(
                "the cluster keeps metrics for {hours} hours from now on; older ones are removed for good"
            ),
        };
        Ok(admin::Accepted { message })
    }
}

fn write(conditions: Vec<Condition>, retention: Retention) -> Command {
    Command::Write {
        conditions,
        changes: vec![Change::Put {
            key: KEY.to_owned(),
            value: retention.encode(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_back_and_the_unknown_keeps_everything() {
        for kept in [None, Some(Duration::from_secs(3600))] {
            let retention = Retention(kept);
            assert_eq!(Retention::decode(&retention.encode()), retention);
        }
        assert_eq!(Retention::decode(b"forever"), Retention(None));
        let day = Retention(Some(Duration::from_secs(86_400)));
        assert_eq!(day.encode(), [0x00, 0x5c, 0x26, 0x05, 0, 0, 0, 0]);
        assert_eq!(Retention(None).encode(), [0; 8]);
    }

    #[test]
    fn only_a_bounded_retention_makes_items_too_old() {
        assert_eq!(Retention(None).too_old_at(5), None);
        let hour = Retention(Some(Duration::from_secs(3600)));
        assert_eq!(hour.too_old_at(3_600_007), Some(7));
        assert_eq!(hour.hours(), 1);
    }
}
