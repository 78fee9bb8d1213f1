//! Delivery of [`DurableEvent`]s: in order, one at a time, with no lock of the journal held.

use crate::{DurableEvent, OnDurable};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Events on their way to the receiver.
pub(crate) struct Events {
    sink: OnDurable,
    /// At most one `Advanced` in a row, and the others come once per stall and once for ever: short.
    waiting: Mutex<VecDeque<DurableEvent>>,
    delivering: Mutex<()>,
}

impl Events {
    pub(crate) fn new(sink: OnDurable) -> Self {
        Self {
            sink,
            waiting: Mutex::new(VecDeque::new()),
            delivering: Mutex::new(()),
        }
    }

    /// Notes an event. Called with the journal's files locked, so the order is that of the commits.
    pub(crate) fn post(&self, event: DurableEvent) {
        let mut waiting = self.waiting.lock();
        let advances = matches!(event, DurableEvent::Advanced { .. });
        if advances && matches!(waiting.back(), Some(DurableEvent::Advanced { .. })) {
            waiting.pop_back();
        }
        waiting.push_back(event);
    }

    /// Hands over what waits. If another thread is doing that, or this one is in the middle of it, that
    /// delivery takes these events along.
    pub(crate) fn deliver(&self) {
        while !self.waiting.lock().is_empty() {
            let Some(turn) = self.delivering.try_lock() else {
                return;
            };
            while let Some(event) = self.next() {
                (self.sink)(event);
            }
            drop(turn);
        }
    }

    fn next(&self) -> Option<DurableEvent> {
        self.waiting.lock().pop_front()
    }
}
