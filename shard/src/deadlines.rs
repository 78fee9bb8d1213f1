//! When the core has to be told that time passed.
//!
//! Everything that a tick looks at says here when it will be due. What may become due by an event is looked at in
//! the step of that event, and the driver asks again after every step. What can only be found by looking (trust that
//! came back, peers that answer again) is looked at every [`crate::Settings::tick_max`].

use crate::Replication;
use std::time::Duration;

impl Replication {
    /// When the next [`crate::Event::Tick`] is due, on the boot clock. Ask after every step: it may come nearer. Never
    /// sooner after the last tick than [`crate::Settings::tick`], never later than [`crate::Settings::tick_max`].
    #[must_use]
    pub fn next_tick(&self) -> Duration {
        let last = self.ticked_at.unwrap_or_default();
        let (soonest, latest) = (last + self.settings.tick, last + self.settings.tick_max);
        let due = [
            self.writes_due(),
            self.barriers_due(),
            self.queries_due(),
            self.copies_due(),
            self.exports_due(),
            self.repeated_at
                .map(|at| at + self.settings.repeat_interval),
            self.scrub_due(),
        ];
        let due = due.into_iter().flatten().min().unwrap_or(latest);
        due.clamp(soonest, latest)
    }
}
