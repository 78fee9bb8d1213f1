//! How long metrics are kept: one fact of the whole cluster, in its metadata plane, and those of single tenants
//! (`tenant_retention`).
//!
//! What is too old is removed from all nodes and never comes back, so it must not depend on which node leads. The
//! first leader records what its own file says; from then on only an operator changes it. A node whose file says
//! something else goes by the cluster and says so.

use super::{Cluster, tenant_retention};
use crate::config::{RETENTION_HOURS, SHARDS};
use std::{sync::Arc, time::Duration};
use trefoil_api::{ApiError, admin};
use trefoil_model::{Millis, Signal, TenantId};
use trefoil_raft::{Change, Command, Condition, State, Tenant, state::limits::CUT_OFFS_MAX};

/// The key in the metadata plane; the value is in milliseconds, 8 bytes little-endian, 0 for ever.
const KEY: &str = "setting//metrics_retention_ms";
/// Smallest step of a cut-off, milliseconds; larger ones are a hundredth of the time that is kept.
const STEP_MIN: Millis = 10 * 60 * 1000;
/// Longest retention that can be set: about a thousand years.
pub(super) const HOURS_MAX: u64 = 1000 * 365 * 24;

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

/// Records the retention when nobody has, else advances every tenant's cut-offs. Only the leader calls it.
pub(super) async fn advance(cluster: &Cluster, state: &State) {
    if Retention::of(state).is_none() {
        let own = Retention(cluster.settings.retention);
        tracing::info!(hours = own.hours(), "records how long metrics are kept");
        let absent = Condition::Absent {
            key: KEY.to_owned(),
        };
        if let Err(error) = cluster.metadata.propose(write(vec![absent], own)).await {
            tracing::warn!(%error, "record the retention");
        }
        return;
    }
    // A cut-off cannot be taken back, so it follows the median of the clocks, and nobody's who is far from it.
    if cluster.check_clock().is_err() {
        return;
    }
    let Some(now) = cluster.clock.now() else {
        return;
    };
    let ids: Vec<TenantId> = state.tenants().map(|tenant| tenant.id).collect();
    for id in ids {
        // Each step follows from the times that hold when it is proposed, and only as long as this node leads: times may have
        // been made longer meanwhile.
        for _ in 0..=CUT_OFFS_MAX {
            let Some(command) = next_step(&cluster.metadata.state(), id, now) else {
                break;
            };
            if let Err(error) = cluster.metadata.propose_as_leader(command).await {
                tracing::warn!(%error, "advance the retention");
                return;
            }
        }
    }
}

/// The first of a tenant's cut-offs that goes on now.
fn next_step(state: &State, id: TenantId, now: Millis) -> Option<Command> {
    let tenant = state.tenant(id)?;
    let whole = tenant_retention::of_tenant(state, &tenant.name)?;
    let selected = tenant_retention::of_selectors(state, &tenant.name);
    let mut all = std::iter::once((String::new(), whole)).chain(selected);
    all.find_map(|(selector, kept)| {
        let before = next_cut_off(tenant, &selector, kept, now)?;
        Some(Command::AdvanceRetention {
            tenant: id,
            signal: Signal::Metrics,
            selector,
            before,
        })
    })
}

/// Where a cut-off goes now, if it goes on. It advances in steps of a hundredth of the time that is kept, and one of a selector
/// is not made where the tenant's own is as far.
fn next_cut_off(tenant: &Tenant, selector: &str, kept: Retention, now: Millis) -> Option<Millis> {
    let too_old = kept.too_old_at(now)?;
    let step = (kept.0.unwrap_or_default().as_millis() as Millis / 100).max(STEP_MIN);
    let before = too_old.div_euclid(step) * step;
    let present = tenant.cut_offs.iter().filter(|cut_off| {
        let fits = cut_off.selector.is_empty() || cut_off.selector == selector;
        cut_off.signal == Signal::Metrics && fits
    });
    let present = present.map(|cut_off| cut_off.before).max();
    (present.is_none_or(|present| present < before)).then_some(before)
}

/// Whether a file names another number of shards than the cluster has; 0: it has not begun. The usual number says nothing: it
/// counts where a file is silent.
fn names_other_shards(of_file: u16, of_cluster: usize) -> bool {
    of_cluster > 0 && of_file != SHARDS && usize::from(of_file) != of_cluster
}

/// Whether a file names another time than the cluster goes by. The usual time says nothing: it counts where a file is silent.
fn names_other_time(of_file: Retention, recorded: Retention) -> bool {
    of_file != recorded && of_file.hours() != RETENTION_HOURS
}

/// Says when the cluster keeps metrics for another time than this node's file names, and when it has another number of shards:
/// once in a run, for what is changed later is known to who changes it.
pub(super) async fn compare(cluster: Arc<Cluster>) {
    let mut states = cluster.metadata.watch();
    let of_file = Retention(cluster.settings.retention);
    let mut told = false;
    let mut told_shards = false;
    loop {
        let shards = states.borrow_and_update().placement().iter().count();
        if !told_shards && names_other_shards(cluster.settings.shards, shards) {
            told_shards = true;
            tracing::warn!(
                cluster_shards = shards,
                file_shards = cluster.settings.shards,
                "the cluster has another number of shards than this node's file says; the cluster's counts and never changes"
            );
        }
        let recorded = Retention::of(&states.borrow_and_update());
        let other = recorded.filter(|recorded| names_other_time(of_file, *recorded));
        if let (false, Some(recorded)) = (told, other) {
            told = true;
            tracing::warn!(
                cluster_hours = recorded.hours(),
                file_hours = of_file.hours(),
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
        let tenant = tenant.and_then(|tenant| state.tenant(tenant));
        let retention = match tenant {
            Some(tenant) => tenant_retention::of_tenant(&state, &tenant.name),
            None => Retention::of(&state),
        };
        let retention = retention.unwrap_or(Retention(self.settings.retention));
        let window = Retention(self.settings.out_of_order_window);
        let bounds = [
            retention.too_old_at(now),
            window.too_old_at(now),
            tenant.and_then(|tenant| cut_off(tenant)),
        ];
        bounds.into_iter().flatten().max().unwrap_or(Millis::MIN)
    }

    /// What is older is taken of no tenant at `now`, whatever is kept of it, milliseconds of UTC.
    pub(crate) fn oldest_written(&self, now: Millis) -> Millis {
        let window = Retention(self.settings.out_of_order_window);
        window.too_old_at(now).unwrap_or(Millis::MIN)
    }

    /// Changes how long the cluster keeps metrics, a tenant's, or those that a selector of a tenant selects.
    ///
    /// # Errors
    /// As `Backend::set_retention`.
    pub(crate) async fn set_retention(
        &self,
        wanted: admin::RetentionRequest,
    ) -> Result<admin::Accepted, ApiError> {
        let hours = wanted.hours;
        if hours.is_some_and(|hours| hours > HOURS_MAX) {
            return Err(ApiError::BadData(format!(
                "{} hours are too many, the most is {HOURS_MAX}; 0 keeps metrics for ever",
                hours.unwrap_or_default()
            )));
        }
        match (wanted.tenant, wanted.selector, hours) {
            (None, None, Some(hours)) => self.set_cluster_retention(hours).await,
            (None, None, None) => Err(ApiError::BadData(
                "say how many hours the cluster keeps metrics".to_owned(),
            )),
            (None, Some(_), _) => Err(ApiError::BadData(
                "name the tenant whose series the selector selects".to_owned(),
            )),
            (Some(tenant), selector, hours) => {
                self.set_tenant_retention(&tenant, selector.as_deref(), hours)
                    .await
            }
        }
    }

    async fn set_cluster_retention(&self, hours: u64) -> Result<admin::Accepted, ApiError> {
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
    fn cut_offs_advance_in_steps_and_only_where_they_hide_more() {
        let kept = |hours: u64| Retention(Some(Duration::from_secs(hours * 3600)));
        let hour: Millis = 3_600_000;
        let now = 1000 * hour;
        let cut_off = |selector: &str, before| trefoil_raft::CutOff {
            number: 1,
            signal: Signal::Metrics,
            selector: selector.to_owned(),
            before,
        };
        let mut tenant = Tenant {
            id: TenantId(1),
            name: "a".to_owned(),
            limits: None,
            retention_number: 1,
            cut_offs: vec![cut_off("", 900 * hour), cut_off("{a=\"b\"}", 950 * hour)],
            deletions_newest: trefoil_model::DeletionVersion(0),
            deletions_forgotten: trefoil_model::DeletionVersion(0),
        };
        let next = |tenant: &Tenant, selector: &str, hours| {
            next_cut_off(tenant, selector, kept(hours), now + 1)
        };
        assert_eq!(next(&tenant, "", 100), None, "no whole step");
        assert_eq!(next(&tenant, "", 50), Some(950 * hour));
        assert_eq!(next(&tenant, "{a=\"b\"}", 50), None);
        assert_eq!(next(&tenant, "{a=\"b\"}", 20), Some(980 * hour));
        assert_eq!(
            next(&tenant, "{a=\"c\"}", 200),
            None,
            "the tenant's is further"
        );
        assert_eq!(next_cut_off(&tenant, "", Retention(None), now), None);
        tenant.cut_offs.clear();
        assert_eq!(next(&tenant, "{a=\"c\"}", 200), Some(800 * hour));
    }

    #[test]
    fn another_number_of_shards_is_told_when_a_file_names_it() {
        for (of_file, of_cluster, told) in [
            (128, 256, true),
            (128, 0, false),
            (128, 128, false),
            (SHARDS, 128, false),
        ] {
            assert_eq!(names_other_shards(of_file, of_cluster), told);
        }
    }

    #[test]
    fn a_file_that_names_no_retention_contradicts_none() {
        let hours = |hours: u64| Retention(Some(Duration::from_secs(hours * 3600)));
        assert!(!names_other_time(hours(RETENTION_HOURS), hours(24)));
        assert!(!names_other_time(hours(24), hours(24)));
        assert!(names_other_time(hours(24), hours(RETENTION_HOURS)));
        assert!(names_other_time(Retention(None), hours(24)));
    }

    #[test]
    fn only_a_bounded_retention_makes_items_too_old() {
        assert_eq!(Retention(None).too_old_at(5), None);
        let hour = Retention(Some(Duration::from_secs(3600)));
        assert_eq!(hour.too_old_at(3_600_007), Some(7));
        assert_eq!(hour.hours(), 1);
    }
}
