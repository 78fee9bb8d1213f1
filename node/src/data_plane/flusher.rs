//! Maintenance: the clock of the core, flushes, merges and retention, on threads of their own.

use super::{
    DataPlane, aggregator::Aggregator, applier, damage::damaged_block, panics::EndsWithProcess,
    ticker, verifier::Verifier,
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
use trefoil_store_pages::is_full_disk;

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
/// How long nothing is merged after it failed, at first and at most; each failure doubles it.
const SETBACK_MIN: Duration = Duration::from_secs(1);
const SETBACK_MAX: Duration = Duration::from_secs(30);
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
        let mut merging = Merging {
            offered_at: clock::boot(),
            setback: Setback::default(),
        };
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
            every(MAINTENANCE_INTERVAL, &plane, |plane| merging.run(plane));
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

/// Merges, and drops what is too old, on a thread of its own.
struct Merging {
    offered_at: Duration,
    setback: Setback,
}

impl Merging {
    fn run(&mut self, plane: &DataPlane) {
        plane.settle_damages();
        for (block, why) in plane.engine.lost_aggregates() {
            tracing::warn!(%block, why, "aggregates cannot be read; samples answer until they are made anew");
        }
        let now = clock::boot();
        let closed_before = plane.closed_before();
        if self.setback.is_over(now) {
            match rewrite(plane, closed_before) {
                Ok(()) => {
                    if self.setback.ends() {
                        tracing::info!("the blocks are maintained again");
                    }
                }
                Err(error) => {
                    if self.setback.begins(is_full_disk(error.as_ref()), now) {
                        let error = format!("{error:#}");
                        tracing::error!(error, "maintain the blocks; it is tried again");
                    }
                }
            }
        }
        if now.saturating_sub(self.offered_at) >= OFFER_INTERVAL {
            self.offered_at = now;
            plane.confirm_deletions();
            plane.feed(Event::Windows(quiet_windows(plane, closed_before)));
        }
    }
}

/// Keeps work that fails from being tried, and told, without end: on a full disk all of it fails until there is space.
#[derive(Debug, Default)]
struct Setback {
    /// Whether the disk was full, how long the pause is, and until when.
    failing: Option<(bool, Duration, Duration)>,
}

impl Setback {
    fn is_over(&self, now: Duration) -> bool {
        self.failing.is_none_or(|(_, _, until)| now >= until)
    }

    /// Notes a failure; whether it is another one than the last.
    fn begins(&mut self, is_full: bool, now: Duration) -> bool {
        let (is_news, pause) = match self.failing {
            None => (true, SETBACK_MIN),
            Some((was_full, pause, _)) => (was_full != is_full, (pause * 2).min(SETBACK_MAX)),
        };
        self.failing = Some((is_full, pause, now + pause));
        is_news
    }

    /// Notes a success; whether there was a failure before.
    fn ends(&mut self) -> bool {
        self.failing.take().is_some()
    }
}

/// Drops what is too old and merges as long as there is something to merge.
fn rewrite(plane: &DataPlane, closed_before: Millis) -> anyhow::Result<()> {
    plane
        .engine
        .enforce_retention()
        .inspect_err(end_with_the_manifest)
        .context("drop what is too old")?;
    loop {
        match plane.engine.merge_once(closed_before) {
            Ok(Some(_)) if !plane.is_closed() => {}
            // It is told soon, unless this node cannot reach the metadata plane.
            Ok(_) | Err(MetricsError::UnknownDeletion { .. }) => return Ok(()),
            // A damaged block is chosen again until it has left the manifest.
            Err(error) => match damaged_block(&error) {
                Some((block, piece)) => {
                    plane.damaged(block, piece);
                    return Ok(());
                }
                None => {
                    end_with_the_manifest(&error);
                    return Err(error).context("merge blocks");
                }
            },
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_work_pauses_longer_and_longer_and_is_told_once() {
        let mut setback = Setback::default();
        let (mut tried, mut told) = (0, 0);
        // Ten minutes of a full disk, looked at twice a second.
        for half_seconds in 0..1200 {
            let now = Duration::from_millis(500 * half_seconds);
            if setback.is_over(now) {
                tried += 1;
                told += u32::from(setback.begins(true, now));
            }
        }
        assert_eq!(told, 1);
        assert!((20..30).contains(&tried), "{tried}");
        assert!(
            setback.begins(false, Duration::from_secs(600)),
            "another one"
        );
        assert!(setback.ends() && !setback.ends());
        assert!(setback.is_over(Duration::ZERO));
        assert!(setback.begins(true, Duration::from_secs(601)));
        assert!(
            setback.is_over(Duration::from_secs(602)),
            "the pause begins anew"
        );
    }
}
