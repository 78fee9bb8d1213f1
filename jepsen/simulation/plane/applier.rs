//! Records between journal and store: a commit makes what was appended durable, then it is applied, in order.

use super::Plane;
use crate::coverage::Seen;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::Notify;
use trefoil_shard::{Event, Offset, Record, Span};
use trefoil_store_journal::JournalError;
use trefoil_store_metrics::{MetricsEngine, MetricsError};

/// How long a commit waits after there was no space.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(100);
/// The longest time between a commit and its application, milliseconds, and the same on a slow machine.
const APPLY_PAUSE_MS_MAX: u64 = 8;
const APPLY_PAUSE_SLOW_MS_MAX: u64 = 80;

/// Records that were appended and are not applied.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    pub(super) arrived: Notify,
    pub(super) durable: Notify,
}

#[derive(Default)]
struct State {
    records: VecDeque<(Span, Record)>,
    appended: u64,
    durable: u64,
    applied: u64,
}

impl Queue {
    pub(super) fn push(&self, span: Span, record: Record) {
        let mut state = self.state.lock();
        state.appended = span.end.0;
        state.records.push_back((span, record));
        self.arrived.notify_one();
    }

    /// The end of the last record that was appended in this run.
    pub(super) fn appended(&self) -> u64 {
        self.state.lock().appended
    }

    pub(super) fn applied(&self) -> u64 {
        self.state.lock().applied
    }

    pub(super) fn wake(&self, end: u64) {
        let mut state = self.state.lock();
        state.durable = state.durable.max(end);
        self.durable.notify_one();
    }

    fn take(&self) -> Vec<(Span, Record)> {
        let mut state = self.state.lock();
        let durable = state.durable;
        let count = state
            .records
            .partition_point(|(span, _)| span.end.0 <= durable);
        state.records.drain(..count).collect()
    }
}

impl Plane {
    /// The journal's commits: what arrives while the disk works makes the next group.
    pub(super) async fn commit(self: Arc<Self>) {
        loop {
            self.queue.arrived.notified().await;
            tokio::time::sleep(self.process.world.disk_pause()).await;
            match self.journal.commit_now() {
                Ok(true) => self.process.world.saw(Seen::Commit),
                Ok(false) => {}
                Err(JournalError::NoSpace) => {
                    self.process.world.saw(Seen::NoSpaceForJournal);
                    // What waits is tried again, whether anything arrives or not.
                    tokio::time::sleep(NO_SPACE_PAUSE).await;
                    self.queue.arrived.notify_one();
                }
                Err(error) => {
                    self.process
                        .end(&format!("the journal has ended: {error}"), false);
                    return;
                }
            }
        }
    }

    /// The journal is durable up to here.
    pub(super) fn durable(&self, end: u64) {
        self.feed(Event::Durable { end: Offset(end) });
        self.queue.wake(end);
    }

    /// Applies what is durable.
    pub(super) async fn apply(self: Arc<Self>) {
        loop {
            self.queue.durable.notified().await;
            let world = &self.process.world;
            let most = match world.setup.slow_disks {
                true => APPLY_PAUSE_SLOW_MS_MAX,
                false => APPLY_PAUSE_MS_MAX,
            };
            let pause = world.roll(|dice| dice.millis(0, most));
            tokio::time::sleep(pause).await;
            let records = self.queue.take();
            let Some((last, _)) = records.last() else {
                continue;
            };
            let end = last.end;
            for (span, record) in &records {
                if let Err(error) = apply(&self.engine, *span, record) {
                    // The next start replays it.
                    self.process
                        .end(&format!("cannot apply a record: {error}"), false);
                    return;
                }
                if matches!(record, Record::Drop { .. }) {
                    self.process.world.saw(Seen::ReplicaEnded);
                }
            }
            self.queue.state.lock().applied = end.0;
            self.feed(Event::Applied { end });
        }
    }
}

/// Applies what a durable record does to the store.
///
/// # Errors
/// When the store could not drop what the record says.
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
            let body: &Bytes = parcel.body();
            engine.apply(span.end.0, header.tenant, header.deletion, body, accepted)?;
        }
        Record::Drop { shards } => {
            // Everything in front of this record is applied, so the head may go into blocks with it.
            engine.drop_shards(shards, engine.applied_position(), None)?;
        }
        _ => {}
    }
    Ok(())
}
