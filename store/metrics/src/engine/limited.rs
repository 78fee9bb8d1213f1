//! What limits of series ask the engine: which series of a tenant are there, and how many are active.
//!
//! Nothing is kept of a tenant until [`MetricsEngine::recall_series`] was called for it. From then on the applier tells of series
//! that are new in the head, and flushes of those that still get samples; neither has any other lock meanwhile for longer
//! than some series take.

use super::MetricsEngine;
use super::flush::Frozen;
use crate::active::{ACTIVE_FOR, Active, Seen, metric_hash};
use crate::head::{HeadPart, SEEN_AT_ONCE, TenantHead};
use crate::known::{KnownSeries, metric_of};
use crate::{MetricsError, View};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use trefoil_model::{Millis, SeriesHash, ShardSet, TenantId, TimeRange};

/// What is kept of tenants about which a limit asks.
#[derive(Default)]
pub(super) struct Limited {
    tenants: RwLock<BTreeMap<TenantId, Arc<RwLock<Active>>>>,
    time: Mutex<Time>,
}

/// How late it is.
#[derive(Clone, Copy, Default)]
struct Time {
    now: Duration,
    /// Of the clock by which samples are.
    wall: Millis,
}

impl Time {
    /// Samples from here on make a series active.
    fn oldest(self) -> Millis {
        self.wall - ACTIVE_FOR.as_millis() as Millis
    }
}

impl Limited {
    fn of(&self, tenant: TenantId) -> Option<Arc<RwLock<Active>>> {
        self.tenants.read().get(&tenant).cloned()
    }

    fn time(&self) -> Time {
        *self.time.lock()
    }

    /// Lets the series from `first` on be active, whatever the times of their samples: a client has just sent them.
    pub(super) fn see_new(&self, tenant: TenantId, head: &TenantHead, first: u32) {
        let end = head.index.length();
        let Some(active) = self.of(tenant).filter(|_| first < end) else {
            return;
        };
        let now = self.time().now;
        for first in (first..end).step_by(SEEN_AT_ONCE as usize) {
            let some = first..end.min(first.saturating_add(SEEN_AT_ONCE));
            let index = head.index.read();
            let seen: Vec<Seen> = some.map(|number| index.seen(number)).collect();
            drop(index);
            see(&active, &seen, now);
        }
    }

    /// Lets the series of a generation be active that have a sample which is not old.
    fn see_generation(&self, active: &RwLock<Active>, part: &HeadPart) {
        let time = self.time();
        part.each_since(time.oldest(), |seen| see(active, seen, time.now));
    }

    /// Active series of all tenants, and the memory that it takes to know them.
    pub(super) fn size(&self) -> (usize, usize) {
        let tenants = self.tenants.read();
        let sizes = tenants.values().map(|active| {
            let active = active.read();
            (active.len(), active.memory_bytes())
        });
        sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

fn see(active: &RwLock<Active>, seen: &[Seen], now: Duration) {
    let mut active = active.write();
    for one in seen {
        active.see(*one, now);
    }
}

impl MetricsEngine {
    /// Says how late it is, on a clock that only goes forward and on the one by which samples are, and takes out series that
    /// are not active any more. To be called every few seconds.
    pub fn set_time(&self, now: Duration, wall: Millis) {
        *self.limited.time.lock() = Time { now, wall };
        let tenants: Vec<_> = self.limited.tenants.read().values().cloned().collect();
        for active in tenants {
            if active.read().has_expired(now) {
                active.write().expire(now);
            }
        }
    }

    /// What the node has of a tenant's series, for limits; none before [`MetricsEngine::recall_series`].
    pub fn known_series(&self, tenant: TenantId) -> Option<KnownSeries> {
        let active = self.limited.of(tenant)?;
        let heads = self.heads.read();
        let index = heads.tenants.get(&tenant).map(|head| &head.index);
        Some(KnownSeries::new(index.cloned(), active))
    }

    /// Finds out which series of a tenant are active, and keeps knowing it from now on. Of blocks it sees only that they
    /// have some samples of the last while: with them, series count that ended within a block's length before.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`]; some of the series are known.
    pub fn recall_series(&self, tenant: TenantId) -> Result<(), MetricsError> {
        let mut tenants = self.limited.tenants.write();
        let active = Arc::clone(tenants.entry(tenant).or_default());
        drop(tenants);
        let time = self.limited.time();
        let view = self.view();
        for part in view.heads.get(&tenant).into_iter().flatten() {
            self.limited.see_generation(&active, part);
        }
        let range = TimeRange {
            start: time.oldest(),
            end: Millis::MAX,
        };
        recall_blocks(&view, tenant, range, |some| see(&active, some, time.now))
    }

    /// Notes which series of frozen generations are active.
    pub(super) fn note_active(&self, frozen: &Frozen) {
        for (tenant, parts) in frozen {
            if let Some(active) = self.limited.of(*tenant) {
                for part in parts {
                    self.limited.see_generation(&active, part);
                }
            }
        }
    }
}

/// The series of all blocks that have something in `range`, some at a time and those of several blocks several times.
fn recall_blocks(
    view: &View,
    tenant: TenantId,
    range: TimeRange,
    mut each: impl FnMut(&[Seen]),
) -> Result<(), MetricsError> {
    let mut some = Vec::new();
    view.each_series_of_blocks(
        tenant,
        range,
        &ShardSet::all(u16::MAX),
        |canonical, shard| {
            some.push(Seen {
                series: SeriesHash::of(tenant, canonical).0 as u64,
                metric: metric_hash(metric_of(canonical).unwrap_or_default()),
                shard,
            });
            if some.len() >= SEEN_AT_ONCE as usize {
                each(&some);
                some.clear();
            }
        },
    )?;
    each(&some);
    Ok(())
}
