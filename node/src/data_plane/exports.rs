//! Views that peers copy: pinned when the core asks for them, read chunk by chunk.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{ShardSet, Signal, TimeRange};
use trefoil_shard::{Event, ExportId, ExportedItems, Offset};
use trefoil_store_metrics::{ExportCursor, MetricsEngine, MetricsError, View};

/// About how many bytes of a body one sample takes; decides how many go into a chunk.
const BYTES_PER_SAMPLE: usize = 4;
/// Everything, where no range is asked for.
const ALL_TIME: TimeRange = TimeRange {
    start: i64::MIN,
    end: i64::MAX,
};

struct Export {
    view: View,
    shards: ShardSet,
    range: TimeRange,
    /// Where the chunks begin that were given so far: chunk `i` begins behind element `i - 1`. Asking for a
    /// chunk again gives the same items, because the view does not change.
    cursors: Mutex<Vec<ExportCursor>>,
}

/// The items of a chunk and the cursor of the next one, if there is one.
type Chunk = (Vec<ExportedItems>, Option<u64>);

/// The views that are pinned. Their number is bounded by the core.
#[derive(Default)]
pub(super) struct Exports {
    open: Mutex<BTreeMap<ExportId, Arc<Export>>>,
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
        let view = engine.view();
        let range = range.unwrap_or(ALL_TIME);
        let cursors = Mutex::default();
        self.open.lock().insert(
            export,
            Arc::new(Export {
                view,
                shards,
                range,
                cursors,
            }),
        );
        Event::ExportOpened { export, covers }
    }

    /// Reads a chunk of a view.
    ///
    /// # Errors
    /// When the store cannot be read; the view is unpinned then.
    pub(super) fn read(
        &self,
        id: ExportId,
        cursor: u64,
        bytes_max: usize,
    ) -> Result<Event, MetricsError> {
        let Some(export) = self.open.lock().get(&id).cloned() else {
            return Ok(Event::ExportFailed { export: id });
        };
        match export.chunk(cursor, bytes_max) {
            Ok(Some((items, next))) => Ok(Event::Exported {
                export: id,
                cursor,
                items,
                next,
            }),
            Ok(None) => Ok(Event::ExportFailed { export: id }),
            Err(error) => {
                self.open.lock().remove(&id);
                Err(error)
            }
        }
    }

    /// Unpins a view.
    pub(super) fn close(&self, export: ExportId) {
        self.open.lock().remove(&export);
    }
}

impl Export {
    /// One chunk and the next one's cursor; nothing when no chunk begins at this cursor.
    fn chunk(&self, cursor: u64, bytes_max: usize) -> Result<Option<Chunk>, MetricsError> {
        let index = usize::try_from(cursor).unwrap_or(usize::MAX);
        let after = match index {
            0 => None,
            _ => match self.cursors.lock().get(index - 1) {
                Some(after) => Some(after.clone()),
                None => return Ok(None),
            },
        };
        let samples_max = (bytes_max / BYTES_PER_SAMPLE).max(1);
        let mut export = self
            .view
            .export(&self.shards, self.range, samples_max, after.as_ref())?;
        let Some(body) = export.next_body()? else {
            return Ok(Some((Vec::new(), None)));
        };
        let next = body.cursor.map(|behind| {
            let mut cursors = self.cursors.lock();
            if cursors.len() == index {
                cursors.push(behind);
            }
            cursor + 1
        });
        let items = ExportedItems {
            tenant: body.tenant,
            signal: Signal::Metrics,
            deletion: body.deletion_version,
            shards: self.shards.clone(),
            body: body.body.into(),
        };
        Ok(Some((vec![items], next)))
    }
}
