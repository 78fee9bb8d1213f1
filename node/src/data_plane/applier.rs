//! Applies durable records to the store, in journal order, on a thread of its own.

use super::{DataPlane, flusher::end_with_the_manifest};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};
use trefoil_shard::{Event, Record, Span};
use trefoil_store_metrics::{MetricsEngine, MetricsError};

/// How often somebody who waits looks whether the journal still moves.
const STALL_CHECK: Duration = Duration::from_millis(50);
/// How long after a failure a drop is tried again. A full disk is the likely cause.
const DROP_RETRY: Duration = Duration::from_millis(500);

/// That declarations of metrics find no room is told no more often than this: agents repeat them each minute.
const DROPS_TOLD_EVERY: Duration = Duration::from_secs(600);
/// When it was told last by this process.
static DROPS_TOLD: Mutex<Option<Instant>> = Mutex::new(None);

/// Records between journal and store. Bounded by the journal's pending bytes and the applier's speed:
/// what is not applied is not acknowledged to queries, and writes are refused when it grows too long.
#[derive(Clone, Default)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    records: VecDeque<(Span, Record)>,
    /// End of the last record that was appended.
    appended: u64,
    durable: u64,
    applied: u64,
    stopped: bool,
}

impl Queue {
    /// Notes a record that was appended.
    pub(super) fn push(&self, span: Span, record: Record) {
        let mut state = self.shared.state.lock();
        state.appended = span.end.0;
        state.records.push_back((span, record));
    }

    /// Says that the journal is durable up to `end`. Calls may come out of order.
    pub(super) fn wake(&self, end: u64) {
        let mut state = self.shared.state.lock();
        state.durable = state.durable.max(end);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The end of the last record that was appended in this run.
    pub(super) fn appended(&self) -> u64 {
        self.shared.state.lock().appended
    }

    /// Bytes of records that were appended and are not applied yet.
    pub(super) fn pending_bytes(&self) -> u64 {
        let state = self.shared.state.lock();
        state.appended.saturating_sub(state.applied)
    }

    /// Waits until everything up to `end` is applied; `false` when it will not be for now: the thread has
    /// ended, or `stalled` says that the journal has.
    pub(super) fn wait_until_applied(&self, end: u64, stalled: impl Fn() -> bool) -> bool {
        let mut state = self.shared.state.lock();
        while state.applied < end {
            if state.stopped || stalled() {
                return false;
            }
            self.shared.changed.wait_for(&mut state, STALL_CHECK);
        }
        true
    }

    /// Waits for a while; `false` when the thread should end.
    fn pause(&self, time: Duration) -> bool {
        let mut state = self.shared.state.lock();
        let until = Instant::now() + time;
        while !state.stopped {
            if self
                .shared
                .changed
                .wait_until(&mut state, until)
                .timed_out()
            {
                break;
            }
        }
        !state.stopped
    }

    fn applied(&self, end: u64) {
        self.shared.state.lock().applied = end;
        self.shared.changed.notify_all();
    }

    /// Ends the thread after what is durable now.
    pub(super) fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_all();
    }

    /// The durable records that wait; empty when the thread should end.
    fn take(&self) -> Vec<(Span, Record)> {
        let mut state = self.shared.state.lock();
        loop {
            let durable = state.durable;
            let count = state
                .records
                .partition_point(|(span, _)| span.end.0 <= durable);
            if count > 0 {
                return state.records.drain(..count).collect();
            }
            if state.stopped {
                return Vec::new();
            }
            self.shared.changed.wait(&mut state);
        }
    }
}

/// Runs until the queue is stopped.
pub(super) fn run(plane: &DataPlane, queue: &Queue) {
    loop {
        let records = queue.take();
        let Some((last, _)) = records.last() else {
            return;
        };
        let end = last.end;
        for (span, record) in &records {
            if !apply_surely(plane, queue, *span, record) {
                // The next start replays it.
                return;
            }
        }
        queue.applied(end.0);
        plane.feed(Event::Applied { end });
    }
}

/// Applies a record, however often it takes: were a later one applied first, the replica could have come back by
/// then, and a drop would erase it. `false` when the queue was stopped before it was applied.
fn apply_surely(plane: &DataPlane, queue: &Queue, span: Span, record: &Record) -> bool {
    let mut told = false;
    while let Err(error) = apply(&plane.engine, span, record) {
        end_with_the_manifest(&error);
        if !told {
            told = true;
            tracing::error!(%error, "drop the replicas of shards; nothing is applied before that");
        }
        if !queue.pause(DROP_RETRY) {
            return false;
        }
    }
    true
}

/// Applies what a durable record does to the store.
///
/// # Errors
/// When the store could not drop what the record says; nothing has changed, and it may be tried again.
pub(super) fn apply(
    engine: &MetricsEngine,
    span: Span,
    record: &Record,
) -> Result<(), MetricsError> {
    match record {
        Record::Parcel {
            accepted, parcel, ..
        } => {
            let header = parcel.header();
            let (end, tenant, deletion) = (span.end.0, header.tenant, header.deletion);
            let applied = match header.import {
                None => engine.apply(end, tenant, deletion, parcel.body(), accepted),
                // Not what a client has just sent, for limits.
                Some(_) => engine.apply_copied(end, tenant, deletion, parcel.body(), accepted),
            };
            // The coordinator made the body, and its checksum held: a fault is a bug, not bad input.
            match applied {
                // What the body holds up to the fault is applied; nothing else is lost.
                Err(error) => tracing::error!(%error, offset = span.end.0, "apply a parcel"),
                Ok(applied) if applied.samples_malformed > 0 => tracing::error!(
                    samples = applied.samples_malformed,
                    offset = span.end.0,
                    "leave out malformed histograms of a parcel"
                ),
                Ok(applied) if applied.declarations_dropped > 0 => {
                    if is_due(&mut DROPS_TOLD.lock(), Instant::now()) {
                        tracing::warn!(
                            tenant = tenant.0,
                            declarations = applied.declarations_dropped,
                            "drop declarations of metrics: the tenant has no room for more; \
                             trefoil_dropped_declarations_total counts them"
                        );
                    }
                }
                Ok(_) => {}
            }
        }
        Record::Drop { shards } => {
            // Everything in front of this record is applied, so the head may go into blocks with it.
            engine.drop_shards(shards, engine.applied_position(), None)?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether something is to be told again, which it is then.
fn is_due(told: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = told.is_none_or(|at| now.saturating_duration_since(at) >= DROPS_TOLD_EVERY);
    if is_due {
        *told = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_told_now_and_then() {
        let (mut told, now) = (None, Instant::now());
        assert!(is_due(&mut told, now));
        assert!(!is_due(&mut told, now + DROPS_TOLD_EVERY / 2));
        assert!(is_due(&mut told, now + DROPS_TOLD_EVERY));
        assert!(!is_due(&mut told, now + DROPS_TOLD_EVERY));
    }
}
