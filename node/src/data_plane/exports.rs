//! Views that peers copy: pinned when the core asks for them, read chunk by chunk, one behind the other.
//!
//! ```text
//! view pinned --read(0)--> walk stands behind chunk 0 --read(1)--> ... --read(n)--> nothing left
//! ```
//! A view is read in one pass: the walk over it stays where the last chunk ended, and is only begun anew, at the
//! cursor where it stood, when too many others were read meanwhile. One chunk of a view is computed at a time; whoever
//! asks again meanwhile gets no answer of his own, and whoever asks again afterwards gets the same bytes. Nothing
//! here is durable: after a restart peers begin their copies anew.

#[cfg(test)]
mod tests;

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use trefoil_model::{ShardSet, Signal, TimeRange};
use trefoil_shard::{Event, ExportId, ExportedItems, Offset};
use trefoil_store_metrics::{self as metrics, ExportCursor, MetricsEngine, MetricsError, View};

/// About how many bytes of a body one sample takes; decides how many go into a chunk.
const BYTES_PER_SAMPLE: usize = 4;
/// Views whose walk is kept between two chunks: each knows the labels of a tenant's series and holds some 16 MiB
/// of samples. A fifth receiver makes them begin anew at each chunk, which is slow and right.
const WALKS_MAX: usize = 4;
/// Everything, where no range is asked for.
const ALL_TIME: TimeRange = TimeRange {
    start: i64::MIN,
    end: i64::MAX,
};

/// A pinned view.
pub(super) struct Export {
    view: Arc<View>,
    shards: ShardSet,
    range: TimeRange,
    /// Held while a chunk is computed.
    reading: Mutex<Reading>,
}

/// How far a view was read.
#[derive(Default)]
struct Reading {
    /// The number of the chunk that comes next.
    next: u64,
    /// The chunk before it; empty when nothing was left.
    given: Vec<ExportedItems>,
    /// Behind what it ended; none before the first chunk.
    end: Option<ExportCursor>,
    /// The walk that stands there, unless it was given up.
    walk: Option<metrics::Export>,
}

/// The views that are pinned. Their number is bounded by the core.
#[derive(Default)]
pub(super) struct Exports {
    open: Mutex<BTreeMap<ExportId, Arc<Export>>>,
    /// Those that have a walk; the one that was read last stands at the end.
    walking: Mutex<VecDeque<ExportId>>,
}

impl Exports {
    /// Pins a view; the event says what it contains.
    pub(super) fn open(
        &self,
        engine: &MetricsEngine,
        export: ExportId,
        shards: ShardSet,
        range: Option<TimeRange>,
    ) -> Event {
        // In this order: what was applied before the view was made is in it.
        let covers = Offset(engine.applied_position());
        let pinned = Export {
            view: Arc::new(engine.view()),
            shards,
            range: range.unwrap_or(ALL_TIME),
            reading: Mutex::default(),
        };
        self.open.lock().insert(export, Arc::new(pinned));
        Event::ExportOpened { export, covers }
    }

    /// Reads a chunk of a view: the next one, or the one before it again. No event when it is being read already,
    /// or when nobody waits for it any more.
    ///
    /// # Errors
    /// When the store cannot be read; the view is unpinned then.
    pub(super) fn read(
        &self,
        id: ExportId,
        cursor: u64,
        bytes_max: usize,
    ) -> Result<Option<Event>, MetricsError> {
        let failed = Event::ExportFailed { export: id };
        let Some(export) = self.open.lock().get(&id).cloned() else {
            return Ok(Some(failed));
        };
        let Some(mut reading) = export.reading.try_lock() else {
            return Ok(None);
        };
        if cursor > reading.next {
            return Ok(Some(failed));
        }
        if cursor + 1 < reading.next {
            return Ok(None);
        }
        if cursor == reading.next {
            if let Err(error) = export.advance(&mut reading, bytes_max) {
                drop(self.close(id));
                return Err(error);
            }
            self.keep_walk(id);
        }
        let items = reading.given.clone();
        Ok(Some(Event::Exported {
            export: id,
            cursor,
            next: (!items.is_empty()).then_some(reading.next),
            items,
        }))
    }

    /// Gives up the walk that was not used for longest when there are too many.
    fn keep_walk(&self, id: ExportId) {
        let mut walking = self.walking.lock();
        walking.retain(|other| *other != id);
        walking.push_back(id);
        while walking.len() > WALKS_MAX {
            let oldest = walking.pop_front();
            let oldest = oldest.and_then(|id| self.open.lock().get(&id).cloned());
            // One that is being read is noted again when the chunk is there.
            if let Some(mut reading) = oldest.as_ref().and_then(|e| e.reading.try_lock()) {
                reading.walk = None;
            }
        }
    }

    /// Unpins a view. Whoever drops the last of it frees its memory, which takes a while.
    pub(super) fn close(&self, export: ExportId) -> Option<Arc<Export>> {
        self.walking.lock().retain(|other| *other != export);
        self.open.lock().remove(&export)
    }
}

impl Export {
    /// Reads the next chunk.
    fn advance(&self, reading: &mut Reading, bytes_max: usize) -> Result<(), MetricsError> {
        let samples_max = bytes_max / BYTES_PER_SAMPLE;
        let walk = match &mut reading.walk {
            Some(walk) => walk,
            none => {
                let after = reading.end.clone();
                none.insert((self.view).export(&self.shards, self.range, samples_max, after)?)
            }
        };
        let body = walk.next_body()?;
        reading.given.clear();
        if let Some(body) = body {
            reading.end = Some(body.end);
            reading.given.push(ExportedItems {
                tenant: body.tenant,
                signal: Signal::Metrics,
                deletion: body.deletion_version,
                shards: self.shards.clone(),
                body: body.body.into(),
            });
        }
        reading.next += 1;
        Ok(())
    }
}
