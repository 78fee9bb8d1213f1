//! Maintenance: the clock of the core, flushes, merges and retention, on threads of their own.

use super::{
    DataPlane, aggregator::Aggregator, applier, panics::EndsWithProcess, ticker, verifier::Verifier,
};
use crate::clock;
use anyhow::{Context, bail};
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak, atomic::Ordering},
    thread,
    time::Duration,
};
use trefoil_model::{Millis, Window};
use trefoil_shard::{Event, Offset};
use trefoil_store_blocks::BlocksError;
use trefoil_store_metrics::MetricsError;

/// How often the head's size is looked at. A busy node adds some 100,000 samples (2 MB) meanwhile.
const FLUSH_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// A head with fewer samples per series is not flushed for its size. Bounds what a restart replays to some
/// seconds for a million series.
const FLUSH_SAMPLES_PER_SERIES: u64 = 8;
/// How long a flush waits for the journal and the applier before it gives up; the next one tries again.
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);
/// How long the last flush may wait: nothing that was acknowledged depends on it.
const LAST_FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// How often the blocks are looked at.
const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(500);
/// How long after its end a window counts as closed: late samples have mostly come by then.
const CLOSED_AFTER: Duration = Duration::from_secs(30 * 60);
/// How often a flush that keeps failing says so.
const FAILURE_TELL_INTERVAL: Duration = Duration::from_secs(10);
/// How often quiet windows are offered for comparison with the other owners.
const OFFER_INTERVAL: Duration = Duration::from_secs(10);

impl DataPlane {
    /// Starts the threads; they end when the data plane is closed.
    pub(crate) fn start_maintenance(self: &Arc<Self>) {
        let plane = self.clone();
        spawn("applier", move || applier::run(&plane, &plane.applier));
        let plane = Arc::downgrade(self);
        let clock = self.ticker.clone();
        spawn("ticker", move || ticker::run(&plane, &clock));
        let plane = Arc::downgrade(self);
        let mut flushing = Flushing {
            flushed_at: clock::boot(),
            failure_told_at: None,
        };
        spawn("flusher", move || {
            every(FLUSH_CHECK_INTERVAL, &plane, |plane| flushing.run(plane));
        });
        let plane = Arc::downgrade(self);
        let mut offered_at = clock::boot();
        let mut verifier = Verifier::default();
        let verified = plane.clone();
        spawn("verifier", move || {
            every(MAINTENANCE_INTERVAL, &verified, |plane| verifier.run(plane));
        });
        let mut aggregator = Aggregator::default();
        let aggregated = plane.clone();
        spawn("aggregator", move || {
            every(MAINTENANCE_INTERVAL, &aggregated, |plane| {
                aggregator.run(plane)
            });
        });
        spawn("merger", move || {
            every(MAINTENANCE_INTERVAL, &plane, |plane| {
                if let Err(error) = maintain(plane, &mut offered_at) {
                    tracing::error!(error = format!("{error:#}"), "maintain the blocks");
                }
            });
        });
    }

    /// Flushes what is applied and stops the journal. Nothing that was acknowledged depends on it.
    pub(crate) fn close(&self) {
        self.closed
            .store(true, std::sync::atomic::Ordering::Relaxed);
        self.settle_damages();
        if let Err(error) = self.flush_within(LAST_FLUSH_PATIENCE) {
            tracing::warn!(error = format!("{error:#}"), "flush before the stop");
        }
        self.applier.stop();
        // Peers go on sending: what the core does about it would find no journal.
        self.core.lock().closed = true;
        if let Err(error) = self.journal.close() {
            tracing::warn!(%error, "close the journal");
        }
    }

    /// Writes what is applied into blocks, with a checkpoint of the core.
    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.flush_within(FLUSH_PATIENCE)
    }

    pub(super) fn flush_within(&self, patience: Duration) -> anyhow::Result<()> {
        let until = clock::boot() + patience;
        // Alone, so that no older checkpoint comes behind a newer one whose records may be trimmed already.
        let Some(_flushing) = self.flushing.try_lock_for(patience) else {
            bail!("another flush does not end");
        };
        let Some((checkpoint, covers)) = self.core.lock().replication.checkpoint() else {
            // A block would claim deletions that the store has not been told of yet.
            bail!("the metadata plane has not said yet what was deleted");
        };
        // The checkpoint speaks of records up to `covers`: they are durable before it is.
        let stalled = || self.journal.stalled_by().is_some() || clock::boot() >= until;
        if !self.applier.wait_until_applied(covers.0, stalled) {
            bail!("the journal or the applier does not move");
        }
        // What else stands there is in the checkpoint.
        self.engine.passed(covers.0);
        let through = self.engine.applied_position();
        self.engine
            .flush(through, Some(checkpoint))
            .context("flush the head")?;
        self.flushed_to
            .fetch_max(through.min(covers.0), Ordering::Relaxed);
        // What the core recorded behind the checkpoint is nowhere but in the journal.
        self.feed(Event::Flushed {
            through: covers.min(Offset(through)),
        });
        Ok(())
    }
}

impl DataPlane {
    /// Windows that end at or before this are closed. By a clock of its own that is ahead this node would rewrite windows that are
    /// still written to. None is closed while the cluster's time is not known.
    pub(super) fn closed_before(&self) -> Millis {
        let now = self.clock.now();
        now.map_or(Millis::MIN, |now| now - CLOSED_AFTER.as_millis() as Millis)
    }

    /// Whether another start would take damage of the journal that was found for a new loss: what is in blocks and in
    /// the checkpoint is not lost with its page.
    pub(super) fn would_lose_again(&self) -> bool {
        self.journal_lost_to > self.flushed_to.load(Ordering::Relaxed)
    }
}

/// Flushes on a thread of its own: a long merge must not let the head grow.
struct Flushing {
    flushed_at: Duration,
    /// When a flush last failed and said so: on a full disk every one does.
    failure_told_at: Option<Duration>,
}

impl Flushing {
    /// Flushes a head that is old or large, and what a start has found damaged.
    fn run(&mut self, plane: &DataPlane) {
        let (series, samples) = plane.engine.head_size();
        // A block repeats the labels of its series: with many series, few samples of each would cost more than
        // themselves.
        let large = (plane.settings.flush_samples).max(series * FLUSH_SAMPLES_PER_SERIES);
        let old = clock::boot().saturating_sub(self.flushed_at) >= plane.settings.flush_interval;
        plane.engine.set_time(clock::boot(), clock::wall());
        // A head can hold nothing but what was declared of metrics, or what a deletion has left of it.
        let worth = || samples > 0 || plane.core.lock().replication.deletions_wait_for_flush();
        if samples >= large || (old && worth()) || plane.would_lose_again() {
            match plane.flush() {
                Ok(()) => self.flushed_at = clock::boot(),
                Err(error) => self.note_failure(&error),
            }
        }
    }

    fn note_failure(&mut self, error: &anyhow::Error) {
        if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref()) {
            end_with_the_manifest(error);
        }
        let now = clock::boot();
        let quiet = self
            .failure_told_at
            .is_some_and(|told| now.saturating_sub(told) < FAILURE_TELL_INTERVAL);
        if !quiet {
            self.failure_told_at = Some(now);
            tracing::warn!(error = format!("{error:#}"), "the head stays in memory");
        }
    }
}

/// A manifest takes nothing more after a write of it has failed: its end on disk is not known. A restart
/// reads what the disk has. To go on would let the head grow for ever.
pub(super) fn end_with_the_manifest(error: &MetricsError) {
    if matches!(error, MetricsError::Blocks(BlocksError::Ended)) {
        tracing::error!("the manifest takes no more changes; this process ends");
        std::process::abort();
    }
}

fn maintain(plane: &DataPlane, offered_at: &mut Duration) -> anyhow::Result<()> {
    plane.settle_damages();
    for (block, why) in plane.engine.lost_aggregates() {
        tracing::warn!(%block, why, "aggregates cannot be read; samples answer until they are made anew");
    }
    plane
        .engine
        .enforce_retention()
        .inspect_err(end_with_the_manifest)
        .context("drop what is too old")?;
    let closed_before = plane.closed_before();
    loop {
        match plane.engine.merge_once(closed_before) {
            Ok(Some(_)) if !plane.is_closed() => {}
            // It is told soon, unless this node cannot reach the metadata plane.
            Ok(_) | Err(MetricsError::UnknownDeletion { .. }) => break,
            Err(error) => {
                // A damaged block is chosen again until it has left the manifest.
                plane.store_failed(&error, "merge blocks");
                break;
            }
        }
    }
    let now = clock::boot();
    if now.saturating_sub(*offered_at) >= OFFER_INTERVAL {
        *offered_at = now;
        plane.confirm_deletions();
        plane.feed(Event::Windows(quiet_windows(plane, closed_before)));
    }
    Ok(())
}

/// The windows that nobody writes to any more, the newest first.
fn quiet_windows(plane: &DataPlane, closed_before: Millis) -> Vec<Window> {
    let view = plane.engine.view();
    let windows = view
        .tenants()
        .into_iter()
        .flat_map(|tenant| view.windows(tenant));
    let quiet: BTreeSet<Window> = windows
        .filter(|window| window.range().end <= closed_before)
        .collect();
    quiet.into_iter().rev().collect()
}

fn every(interval: Duration, plane: &Weak<DataPlane>, mut work: impl FnMut(&DataPlane)) {
    loop {
        let Some(plane) = plane.upgrade() else { return };
        if plane.is_closed() {
            return;
        }
        work(&plane);
        drop(plane);
        thread::sleep(interval);
    }
}

pub(super) fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) {
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ends = EndsWithProcess::new(name);
        work();
    });
    // A process that cannot start its threads cannot run a node.
    assert!(started.is_ok(), "start the {name} thread");
}
