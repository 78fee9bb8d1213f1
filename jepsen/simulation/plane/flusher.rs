//! Maintenance: flushes, merges and comparison of quiet windows, each at times that the dice choose.

use super::Plane;
use crate::coverage::Seen;
use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use trefoil_model::{Millis, Window};
use trefoil_shard::{Event, Offset};
use trefoil_store_blocks::VisibleBlock;
use trefoil_store_metrics::{AggregateOutcome, DERIVED_FILES, MetricsError};

/// How long after its end a window counts as closed.
const CLOSED_AFTER: Duration = Duration::from_secs(30 * 60);
/// How long a flush waits for journal and applier.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// How often a flush looks whether what it waits for has been applied.
const FLUSH_LOOK: Duration = Duration::from_millis(5);

impl Plane {
    /// Starts the tasks; they end with the process.
    pub(crate) fn start_maintenance(self: &Arc<Self>) {
        let process = &self.process;
        process.spawn(self.clone().commit());
        process.spawn(self.clone().apply());
        let plane = self.clone();
        process.spawn(async move { plane.tick().await });
        process.spawn(self.clone().flush_often());
        process.spawn(self.clone().maintain_often());
        // What a start appended or found durable.
        self.queue.arrived.notify_one();
        self.queue.durable.notify_one();
    }

    async fn flush_often(self: Arc<Self>) {
        let world = &self.process.world;
        loop {
            let pause = match self.would_lose_again() {
                true => Duration::from_millis(200),
                false => world.roll(|dice| dice.millis(400, 5_000)),
            };
            tokio::time::sleep(pause).await;
            let (_, samples) = self.engine.head_size();
            if samples == 0 && !self.would_lose_again() {
                continue;
            }
            self.flush().await;
        }
    }

    /// Writes what is applied into blocks, with a checkpoint of the core. Tried again later when that fails.
    async fn flush(&self) {
        let world = &self.process.world;
        match self.cut().await {
            Ok(true) => world.saw(Seen::Flush),
            Ok(false) => {
                let name = self.process.name();
                world.tell(format_args!("{name} does not flush yet"));
            }
            Err(error) => self.store_failed(&error, "flush the head"),
        }
    }

    /// Says whether everything that it takes was there in time.
    async fn cut(&self) -> Result<bool, MetricsError> {
        let until = self.boot() + FLUSH_PATIENCE;
        let Some((checkpoint, covers)) = self.core.lock().replication.checkpoint() else {
            // A block would claim deletions that the store has not been told of yet.
            return Ok(false);
        };
        // The checkpoint speaks of records up to `covers`: they are durable before it is.
        while self.queue.applied() < covers.0 {
            if self.boot() >= until {
                return Ok(false);
            }
            tokio::time::sleep(FLUSH_LOOK).await;
        }
        self.engine.passed(covers.0);
        let through = self.engine.applied_position();
        self.engine.flush(through, Some(checkpoint))?;
        self.flushed_to
            .fetch_max(through.min(covers.0), Ordering::Relaxed);
        self.feed(Event::Flushed {
            through: covers.min(Offset(through)),
        });
        Ok(true)
    }

    /// Whether another start would take damage of the journal that was found for a new loss.
    pub(crate) fn would_lose_again(&self) -> bool {
        self.journal_lost_to > self.flushed_to.load(Ordering::Relaxed)
    }

    async fn maintain_often(self: Arc<Self>) {
        loop {
            let pause = self.process.world.roll(|dice| dice.millis(700, 3_000));
            tokio::time::sleep(pause).await;
            self.settle_damages();
            self.verify_some_block();
            let closed_before = self.closed_before();
            loop {
                match self.engine.merge_once(closed_before) {
                    Ok(Some(_)) => self.process.world.saw(Seen::Merge),
                    Ok(None) => break,
                    Err(error) => {
                        self.store_failed(&error, "merge blocks");
                        break;
                    }
                }
            }
            self.make_aggregates(closed_before);
            self.feed(Event::Windows(self.quiet_windows(closed_before)));
        }
    }

    /// Makes the aggregates of a block that lacks them, at once: simulated time does not pass meanwhile.
    fn make_aggregates(&self, closed_before: Millis) {
        let world = &self.process.world;
        for (block, why) in self.engine.lost_aggregates() {
            let name = self.process.name();
            world.tell(format_args!("{name} has lost aggregates of {block}: {why}"));
        }
        let go_on = &mut |_| ControlFlow::Continue(());
        match self.engine.aggregate_once(closed_before, go_on) {
            Ok(AggregateOutcome::Made) => world.saw(Seen::AggregatesMade),
            Ok(_) => {}
            Err(error) => self.store_failed(&error, "make aggregates"),
        }
    }

    /// Reads all files of a block against their checksums, any block: a short life has no time for all in turn.
    fn verify_some_block(&self) {
        let pin = self.manifest.pin();
        let blocks: Vec<VisibleBlock> = pin.all_blocks().collect();
        if blocks.is_empty() {
            return;
        }
        let which = self
            .process
            .world
            .roll(|dice| dice.below(blocks.len() as u64));
        let meta = &blocks[which as usize].meta;
        for file in &meta.files {
            let opened = self.manifest.open_file(meta, &file.name);
            let read = opened.and_then(|file| file.verify());
            let Err(error) = read.map_err(MetricsError::from) else {
                continue;
            };
            if DERIVED_FILES.contains(&file.name.as_str()) {
                self.engine.lose_aggregates(meta.id, &error.to_string());
                continue;
            }
            return self.store_failed(&error, "verify a block");
        }
    }

    /// Windows that end before this are closed, by the cluster's clock; none are while that is not known.
    fn closed_before(&self) -> Millis {
        let offset = self.process.member.clock_offset();
        let wall = self.process.world.wall(self.process.machine);
        offset.map_or(Millis::MIN, |offset| {
            wall + offset - CLOSED_AFTER.as_millis() as Millis
        })
    }

    /// The windows that nobody writes to any more, the newest first.
    fn quiet_windows(&self, closed_before: Millis) -> Vec<Window> {
        let view = self.engine.view();
        let tenants = view.tenants().into_iter();
        let windows = tenants.flat_map(|tenant| view.windows(tenant));
        let quiet: BTreeSet<Window> = windows
            .filter(|window| window.range().end <= closed_before)
            .collect();
        quiet.into_iter().rev().collect()
    }
}
