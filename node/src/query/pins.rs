//! Views that are kept for the further parts of a query: its parts at one node see one state.
//!
//! Only queries with several selectors have further parts. A view is kept until nobody has used it for a while; its
//! loss (a restart, too many of them) costs that the next part sees newer items, never that it lacks acknowledged ones.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;
use trefoil_model::{Incarnation, ShardSet};

/// Views kept at once; a further one takes the place of the one that was unused for longest.
const PINS_MAX: usize = 64;
/// How long a view is kept that no part uses. A coordinator asks for the next part as soon as it has what the part
/// depends on.
const KEPT_UNUSED: Duration = Duration::from_secs(10);

/// Names one query among all of all coordinators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueryKey {
    /// The coordinator's run.
    pub(crate) coordinator: Incarnation,
    /// Its count of queries.
    pub(crate) number: u64,
}

/// The kept views.
pub(crate) struct Pins<V> {
    kept: Mutex<Kept<V>>,
}

struct Kept<V> {
    pins: Vec<Pin<V>>,
    /// A task forgets what is not used.
    is_looked_after: bool,
}

/// Empty while the barrier runs, and when it could not be had.
type Cell<V> = Arc<OnceCell<Arc<V>>>;

struct Pin<V> {
    query: QueryKey,
    /// The shards that were asked for; the view promises those of them that are complete.
    shards: ShardSet,
    cell: Cell<V>,
    used: Instant,
}

impl<V: Send + Sync + 'static> Pins<V> {
    /// Without views.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(Kept {
                pins: Vec::new(),
                is_looked_after: false,
            }),
        })
    }

    /// The view of a query for these shards: the one on which an earlier part was answered, or else what `pin` makes.
    pub(crate) async fn view(
        self: &Arc<Self>,
        query: QueryKey,
        shards: &ShardSet,
        pin: impl Future<Output = Option<Arc<V>>>,
    ) -> Option<Arc<V>> {
        let cell = self.cell(query, shards);
        let ready = cell.get_or_try_init(|| async { pin.await.ok_or(()) });
        ready.await.ok().cloned()
    }

    /// How many views are kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.lock().pins.len()
    }

    fn cell(self: &Arc<Self>, query: QueryKey, shards: &ShardSet) -> Cell<V> {
        let mut kept = self.kept.lock();
        let fits =
            |pin: &&mut Pin<V>| pin.query == query && shards.difference(&pin.shards).is_empty();
        let used = Instant::now();
        if let Some(pin) = kept.pins.iter_mut().find(fits) {
            pin.used = used;
            return pin.cell.clone();
        }
        if kept.pins.len() >= PINS_MAX {
            let oldest = (0..kept.pins.len()).min_by_key(|at| kept.pins[*at].used);
            oldest.map(|oldest| kept.pins.swap_remove(oldest));
        }
        let cell = Cell::default();
        kept.pins.push(Pin {
            query,
            shards: shards.clone(),
            cell: cell.clone(),
            used,
        });
        if !kept.is_looked_after {
            kept.is_looked_after = true;
            tokio::spawn(forget_unused(Arc::downgrade(self)));
        }
        cell
    }

    /// Forgets the views that are not in use and were not used for so long. Returns whether any is left.
    fn forget_unused(&self, unused: Duration) -> bool {
        let mut kept = self.kept.lock();
        let now = Instant::now();
        kept.pins.retain_mut(|pin| {
            let view = pin.cell.get();
            let in_use =
                Arc::strong_count(&pin.cell) > 1 || view.is_some_and(|v| Arc::strong_count(v) > 1);
            if in_use {
                pin.used = now;
            }
            in_use || now.duration_since(pin.used) < unused
        });
        kept.is_looked_after = !kept.pins.is_empty();
        kept.is_looked_after
    }
}

/// Looks after the views until there is none.
async fn forget_unused<V: Send + Sync + 'static>(pins: Weak<Pins<V>>) {
    loop {
        tokio::time::sleep(KEPT_UNUSED).await;
        let pins = pins.upgrade();
        if !pins.is_some_and(|pins| pins.forget_unused(KEPT_UNUSED)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;

    fn key(number: u64) -> QueryKey {
        QueryKey {
            coordinator: Incarnation(1),
            number,
        }
    }

    /// Asks for a view where a new one would be `new`.
    async fn view(pins: &Arc<Pins<u32>>, number: u64, shards: u16, new: u32) -> Option<u32> {
        let shards = ShardSet::all(shards);
        let view = pins.view(key(number), &shards, ready(Some(Arc::new(new))));
        view.await.map(|view| *view)
    }

    #[tokio::test]
    async fn parts_of_one_query_see_one_view() {
        let pins = Pins::new();
        assert_eq!(view(&pins, 1, 4, 10).await, Some(10));
        assert_eq!(view(&pins, 1, 4, 11).await, Some(10));
        assert_eq!(view(&pins, 1, 2, 12).await, Some(10), "fewer shards");
        assert_eq!(view(&pins, 1, 8, 13).await, Some(13), "more shards");
        assert_eq!(view(&pins, 2, 4, 14).await, Some(14), "another query");
        let none = pins.view(key(3), &ShardSet::all(1), ready(None)).await;
        assert_eq!(none, None);
        assert_eq!(view(&pins, 3, 1, 15).await, Some(15), "it can be had now");
    }

    #[tokio::test]
    async fn views_are_forgotten_when_unused_and_when_there_are_many() {
        let pins = Pins::new();
        for number in 0..PINS_MAX as u64 + 1 {
            view(&pins, number, 1, 1).await;
        }
        assert_eq!(pins.len(), PINS_MAX);
        assert_eq!(
            view(&pins, 0, 1, 2).await,
            Some(2),
            "the oldest one has gone"
        );
        let used = pins.view(key(0), &ShardSet::all(1), ready(None)).await;
        assert!(pins.forget_unused(Duration::ZERO));
        assert_eq!(pins.len(), 1, "the one that is in use");
        drop(used);
        assert!(!pins.forget_unused(Duration::ZERO));
        assert_eq!(pins.len(), 0);
    }
}
