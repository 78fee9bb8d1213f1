//! Views that peers copy: pinned when the core asks for them, read chunk by chunk, one behind the other.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{ShardSet, Signal, TimeRange};
use trefoil_shard::{Event, ExportId, ExportedItems, Offset};
use trefoil_store_metrics::{Export, MetricsEngine, MetricsError, View};

/// About how many bytes of a body one sample takes.
const BYTES_PER_SAMPLE: usize = 4;

struct Pinned {
    walk: Export,
    /// The number of the chunk that comes next.
    next: u64,
    /// The chunk before it; empty when nothing was left.
    given: Vec<ExportedItems>,
    shards: ShardSet,
}

/// The views that are pinned. Their number is bounded by the core.
#[derive(Default)]
pub(super) struct Exports {
    open: Mutex<BTreeMap<ExportId, Pinned>>,
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
        let view: Arc<View> = Arc::new(engine.view());
        let range = range.unwrap_or(TimeRange {
            start: i64::MIN,
            end: i64::MAX,
        });
        // Small pieces, so that a crash falls between them.
        match view.export(&shards, range, 64, None) {
            Ok(walk) => {
                let pinned = Pinned {
                    walk,
                    next: 0,
                    given: Vec::new(),
                    shards,
                };
                self.open.lock().insert(export, pinned);
                Event::ExportOpened { export, covers }
            }
            Err(_) => Event::ExportFailed { export },
        }
    }

    /// Reads a chunk of a view: the next one, or the one before it again.
    ///
    /// # Errors
    /// When the store cannot be read; the view is unpinned then.
    pub(super) fn read(
        &self,
        id: ExportId,
        cursor: u64,
        bytes_max: usize,
    ) -> Result<Option<Event>, MetricsError> {
        debug_assert!(bytes_max >= BYTES_PER_SAMPLE);
        let mut open = self.open.lock();
        let Some(pinned) = open.get_mut(&id) else {
            return Ok(Some(Event::ExportFailed { export: id }));
        };
        if cursor > pinned.next {
            return Ok(Some(Event::ExportFailed { export: id }));
        }
        if cursor + 1 < pinned.next {
            return Ok(None);
        }
        if cursor == pinned.next
            && let Err(error) = pinned.advance()
        {
            open.remove(&id);
            return Err(error);
        }
        let items = pinned.given.clone();
        Ok(Some(Event::Exported {
            export: id,
            cursor,
            next: (!items.is_empty()).then_some(pinned.next),
            items,
        }))
    }

    pub(super) fn close(&self, export: ExportId) {
        self.open.lock().remove(&export);
    }
}

impl Pinned {
    fn advance(&mut self) -> Result<(), MetricsError> {
        let body = self.walk.next_body()?;
        self.given.clear();
        if let Some(body) = body {
            self.given.push(ExportedItems {
                tenant: body.tenant,
                signal: Signal::Metrics,
                deletion: body.deletion_version,
                shards: self.shards.clone(),
                body: body.body.into(),
            });
        }
        self.next += 1;
        Ok(())
    }
}
