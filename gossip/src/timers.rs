//! Pending timeouts of the membership protocol, in the order in which they are due.
//!
//! The clock of the protocol stands still while the process does: when the node was stopped (or
//! starved) for longer than [`LAG_MAX`], everything pending moves back by the lag. Otherwise a node
//! that wakes up would declare the others dead before it reads what they sent meanwhile.

use crate::{Identity, Now};
use foca::Timer;
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::NodeId;

/// A timeout that is handled later than this shows that the process did not run.
const LAG_MAX: Duration = Duration::from_millis(250);

/// What happens at a timeout.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// foca's own.
    Swim(Timer<Identity>),
    /// Tell everybody about oneself again.
    Refresh,
}

/// Bounded: foca keeps a handful of periodic timers and one or two per member; of the day-long ones
/// that forget dead members, only the newest per node is kept.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Now, u64), Event>,
    sequence: u64,
    forgets: BTreeMap<NodeId, (Now, u64)>,
}

impl Timers {
    pub(crate) fn schedule(&mut self, at: Now, event: Event) {
        self.sequence += 1;
        let key = (at, self.sequence);
        if let Event::Swim(Timer::RemoveDown(identity)) = &event
            && let Some(earlier) = self.forgets.insert(identity.node, key)
        {
            self.due.remove(&earlier);
        }
        self.due.insert(key, event);
    }

    pub(crate) fn next(&self) -> Option<Now> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first event that is due, after a pause of the process has been taken out.
    pub(crate) fn pop_due(&mut self, now: Now) -> Option<Event> {
        let (at, _) = *self.due.keys().next()?;
        let lag = now.checked_sub(at)?;
        if lag > LAG_MAX {
            self.postpone_all(lag);
            return None;
        }
        let (key, event) = self.due.pop_first()?;
        if let Event::Swim(Timer::RemoveDown(identity)) = &event
            && self.forgets.get(&identity.node) == Some(&key)
        {
            self.forgets.remove(&identity.node);
        }
        Some(event)
    }

    fn postpone_all(&mut self, by: Duration) {
        let due = std::mem::take(&mut self.due);
        self.due = due
            .into_iter()
            .map(|((at, sequence), event)| ((at + by, sequence), event))
            .collect();
        for (at, _) in self.forgets.values_mut() {
            *at += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_postpones_everything() {
        let mut timers = Timers::default();
        let second = Duration::from_secs(1);
        timers.schedule(second, Event::Refresh);
        timers.schedule(2 * second, Event::Refresh);
        assert!(timers.pop_due(second / 2).is_none());
        assert!(timers.pop_due(20 * second).is_none());
        assert_eq!(timers.next(), Some(20 * second));
        assert!(timers.pop_due(20 * second).is_some());
        assert!(timers.pop_due(20 * second).is_none());
        assert_eq!(timers.next(), Some(21 * second));
    }
}
