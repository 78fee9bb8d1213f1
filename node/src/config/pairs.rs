//! Settings of pairs of senders that measure the same. What they do is in `cluster/replicas.rs`.

use super::LimitsSection;
use std::time::Duration;

/// Pairs of senders that measure the same. The keys are Mimir's; all nodes need the same.
#[derive(Clone, Debug)]
pub(crate) struct PairSettings {
    /// Whether pairs are told (`accept_ha_samples`). Off, both senders' samples are stored as they come.
    pub(crate) accepted: bool,
    /// The label that names a pair (`ha_cluster_label`).
    pub(crate) cluster_label: String,
    /// The label that names a sender and is not stored (`ha_replica_label`).
    pub(crate) replica_label: String,
    /// Pairs of one tenant (`ha_max_clusters`), 0: no limit. Series of more are refused and named. Each pair is kept in
    /// memory by all nodes.
    pub(crate) clusters_max: usize,
    /// How often it is recorded that the elected sender was heard.
    pub(crate) update_interval: Duration,
    /// When nothing was heard of the elected sender for so long, another one takes its place; longer than the
    /// update interval and the distance of the senders' requests together, or senders that are well take turns.
    pub(crate) failover_timeout: Duration,
    /// Bytes of this node's memory for requests that are held back of senders that do not count (`ha_held_bytes_max`), 0:
    /// nothing is, and a change leaves a gap. The oldest of the largest sender go when there are more, and are missing at
    /// a change. 64 MiB are enough for some 200,000 samples/s of such senders at this node. Nothing is taken where pairs are not told.
    pub(crate) held_bytes_max: usize,
    /// Whether what a sender that counts sends from before its election is held, too, and compared (`ha_held_late_samples`). Off by
    /// default, it is stored as it comes, and nothing of that change is compared.
    pub(crate) holds_late: bool,
}

impl Default for PairSettings {
    fn default() -> Self {
        Self {
            accepted: false,
            cluster_label: "cluster".to_owned(),
            replica_label: "__replica__".to_owned(),
            clusters_max: 100,
            update_interval: Duration::from_secs(15),
            failover_timeout: Duration::from_secs(30),
            held_bytes_max: HELD_BYTES_MAX,
            holds_late: false,
        }
    }
}

/// The usual memory for what is held, bytes.
const HELD_BYTES_MAX: usize = 64 << 20;

/// What is held back is kept for so many times the time-out at most, while no sender counts, and may be so old when it comes.
const TIMEOUTS_KEPT_MAX: u32 = 20;

/// Samples that are so far in the future are held back in any case: clocks of senders differ.
const AHEAD_MIN: Duration = Duration::from_secs(5);

impl PairSettings {
    /// Whether requests are held.
    pub(crate) fn holds(&self) -> bool {
        self.accepted && self.held_bytes_max > 0
    }

    /// How far in the future samples may be that are held back.
    pub(crate) fn ahead(&self) -> Duration {
        self.apart().max(AHEAD_MIN)
    }

    /// How long something is held back at most, and how old or late its samples may be. Longer: what it is compared with grows.
    pub(crate) fn kept(&self) -> Duration {
        self.failover_timeout.saturating_mul(TIMEOUTS_KEPT_MAX)
    }

    /// Half of the time between update interval and time-out. A sender is not accepted any more, unless that is recorded, for so long
    /// before another one can be elected; so what was accepted of it is told from what the other one sends then.
    pub(crate) fn apart(&self) -> Duration {
        self.failover_timeout.saturating_sub(self.update_interval) / 2
    }
}

impl LimitsSection {
    /// What the section says of them.
    pub(super) fn pairs(&self) -> PairSettings {
        let usual = PairSettings::default();
        let seconds = |value: Option<u64>, usual| value.map_or(usual, Duration::from_secs);
        PairSettings {
            accepted: self.accept_ha_samples.unwrap_or(usual.accepted),
            cluster_label: self.ha_cluster_label.clone().unwrap_or(usual.cluster_label),
            replica_label: self.ha_replica_label.clone().unwrap_or(usual.replica_label),
            clusters_max: self.ha_max_clusters.unwrap_or(usual.clusters_max),
            update_interval: seconds(
                self.ha_tracker_update_timeout_seconds,
                usual.update_interval,
            ),
            failover_timeout: seconds(
                self.ha_tracker_failover_timeout_seconds,
                usual.failover_timeout,
            ),
            held_bytes_max: self.ha_held_bytes_max.unwrap_or(usual.held_bytes_max),
            holds_late: self.ha_held_late_samples.unwrap_or(usual.holds_late),
        }
    }
}
