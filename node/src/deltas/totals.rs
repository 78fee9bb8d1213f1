//! The counters that the holder of the lease remembers, as many as are allowed, and which of them requests work on.
//!
//! ```text
//! ask -> its turn -> (not remembered: read back, found, recall) -> what is unstored is stored -> take -> what is unstored is stored -> end
//! ```
//! One request works on a series at a time: what it takes goes on from what is stored. A request may end at any step, also by
//! being dropped: what is unstored then is stored by the next one, before it takes anything, and what was found is used by it. What
//! was found a while ago is as good as what was found slowly: nobody else adds under the same fencing number.

use super::{
    counter::{Bounds, Counter, Refusal, Stored},
    turns::{Ticket, Turns},
};
use crate::cluster::clocks::OFFSET_MAX;
use std::{collections::HashMap, time::Duration};
use trefoil_api::remote_write::Sample;
use trefoil_model::{DeletionVersion, Millis, SeriesHash};

/// Bytes of memory for all counters together, about. What does not fit has to come again.
const BYTES_MAX: usize = 256 << 20;
/// Deltas of a series that are counted in one step, and bytes of all that is to be stored of a request behind it, about.
const STEP_DELTAS_MAX: usize = 256;
const STEP_BYTES_MAX: usize = 8 << 20;
/// Bytes that a counter takes beside what [`Counter::bytes`] says, about.
const COUNTER_BYTES: usize = size_of::<SeriesHash>() + size_of::<Remembered>() + 8;
/// Bytes that what was found of a series takes beside what [`Stored::bytes`] says, about.
const FOUND_BYTES: usize = size_of::<SeriesHash>() + size_of::<Found>() + 8;
/// A counter that got nothing for so long is forgotten, as OpenTelemetry's collector does by default.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// One that has samples that may not be stored, and got nothing for so long, is forgotten as well: its sender has given up, and what
/// it had tried is read back like what a former holder had tried.
const UNSTORED_MAX: Duration = Duration::from_secs(6 * 3600);
/// The same while less than half of what there may be is used: a sender that comes once in a while need not be read back each time,
/// of which few can be at the same time.
const IDLE_MAX_WITH_ROOM: Duration = Duration::from_secs(3600);
/// How often idle ones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// The same where memory is short: what was forgotten is read back.
const IDLE_MAX_WHEN_FULL: Duration = Duration::from_secs(10);
const SWEEP_INTERVAL_WHEN_FULL: Duration = Duration::from_secs(1);
/// How much later than the lease was taken a delta may end that another holder has tried, by the clocks of its sender and of
/// this node, of which each may be as far off as a clock that judges.
const DOUBTFUL_FOR: Millis = 2 * OFFSET_MAX;

const FULL: Refusal =
    "would be one series more than are added up at the same time (otlp.delta_series_max)";

struct Remembered {
    counter: Counter,
    /// When it got something, by the boot clock.
    used: Duration,
    /// The deletions of its tenant that it takes account of.
    deletion: DeletionVersion,
}

/// What was read back of a series that is not remembered yet.
struct Found {
    /// The newest stored samples, if there are some.
    stored: Option<Stored>,
    /// Where it was looked for: there may be one in front of this.
    from: Millis,
    at: Duration,
    /// The deletion of its tenant that was known before.
    deletion: DeletionVersion,
}

/// What the holder of a lease remembers under its fencing number.
pub(crate) struct Totals {
    fencing: u64,
    /// What ends before this may have been tried by another holder.
    doubtful_until: Millis,
    /// How much later than the lease was taken that is, in milliseconds.
    doubtful_for: Millis,
    series_max: usize,
    bytes_max: usize,
    counters: HashMap<SeriesHash, Remembered>,
    /// None of these is remembered.
    found: HashMap<SeriesHash, Found>,
    /// Whether what is in front of a newest sample was asked for as well.
    has_before: bool,
    /// Of both.
    bytes: usize,
    swept: Duration,
    /// Series that are idle, and kept for what may not be stored of them, as of then.
    waiting: usize,
    /// Who works on which series, under whichever fencing number.
    turns: Turns,
}

/// What a request may count before that is stored.
#[derive(Debug)]
pub(crate) struct Step {
    /// Deltas of each series.
    pub(crate) deltas_max: usize,
    /// Bytes that are left.
    pub(crate) bytes: usize,
    /// Whether the memory of all counters was too short for a delta.
    pub(crate) is_full: bool,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            deltas_max: STEP_DELTAS_MAX,
            bytes: STEP_BYTES_MAX,
            is_full: false,
        }
    }
}

/// Why a series is not remembered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// There are too many.
    Series(Refusal),
    /// Memory is short now.
    Bytes,
}

/// The present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// By the boot clock.
    pub(crate) boot: Duration,
    /// UTC, in milliseconds.
    pub(crate) time: Millis,
    /// What is older is written for no tenant, in milliseconds.
    pub(crate) oldest: Millis,
}

impl Totals {
    /// Remembers nothing. `series_max` series at most.
    pub(crate) fn new(series_max: usize) -> Self {
        Self {
            fencing: 0,
            doubtful_until: Millis::MIN,
            doubtful_for: DOUBTFUL_FOR,
            series_max,
            bytes_max: BYTES_MAX,
            counters: HashMap::new(),
            found: HashMap::new(),
            has_before: false,
            bytes: 0,
            swept: Duration::ZERO,
            waiting: 0,
            turns: Turns::default(),
        }
    }

    /// Totals of deltas whose sender has the clock of this node.
    #[cfg(test)]
    pub(super) fn without_clock_offset(series_max: usize) -> Self {
        Self {
            doubtful_for: 1,
            ..Self::new(series_max)
        }
    }

    /// What is remembered under this fencing number; nothing of what was remembered under another one, because other
    /// nodes may have added in between. `false`: this number is an old one.
    pub(crate) fn begin(&mut self, fencing: u64, now: Now) -> bool {
        if fencing > self.fencing {
            self.counters.clear();
            self.found.clear();
            (self.fencing, self.bytes, self.waiting) = (fencing, 0, 0);
            self.doubtful_until = now.time + self.doubtful_for;
        }
        self.sweep(now, SWEEP_INTERVAL, self.idle_max());
        fencing == self.fencing
    }

    fn idle_max(&self) -> Duration {
        let has_room = self.bytes < self.bytes_max / 2 && self.counters.len() < self.series_max / 2;
        match has_room {
            true => IDLE_MAX_WITH_ROOM,
            false => IDLE_MAX,
        }
    }

    /// Asks for series, each given once, for a request.
    pub(crate) fn ask(&mut self, series: &[SeriesHash]) -> Ticket {
        self.turns.ask(series)
    }

    /// Whether a request may work on the series that it asked for.
    pub(crate) fn has_turn(&self, ticket: Ticket, series: &[SeriesHash]) -> bool {
        self.turns.has_come(ticket, series)
    }

    /// Gives series that were asked for to the next request.
    pub(crate) fn end(&mut self, ticket: Ticket, series: &[SeriesHash]) {
        if self.turns.has_come(ticket, series) {
            series.iter().for_each(|one| self.settle(*one));
        }
        self.turns.end(ticket, series);
    }

    fn settle(&mut self, series: SeriesHash) {
        let Some(remembered) = self.counters.get_mut(&series) else {
            return;
        };
        let before = remembered.counter.bytes();
        remembered.counter.settle();
        self.bytes = self.bytes + remembered.counter.bytes() - before;
        if remembered.counter.is_empty() {
            self.forget(series);
        }
    }

    /// Forgets what is remembered, or was found, of a series before this deletion of its tenant, if it is one of those that
    /// `erases` says; it is told the deletion that was taken account of, and where the newest total stands. Of one that goes on,
    /// what may not be stored and is erased is not written again: it would bear a stamp behind the deletion.
    pub(crate) fn heed(
        &mut self,
        series: SeriesHash,
        deletion: DeletionVersion,
        mut erases: impl FnMut(DeletionVersion, Millis) -> bool,
    ) {
        if (self.found.get(&series)).is_some_and(|found| found.deletion < deletion) {
            self.lose(series);
        }
        let Some(remembered) = self.counters.get_mut(&series) else {
            return;
        };
        if remembered.deletion >= deletion {
            return;
        }
        let known = std::mem::replace(&mut remembered.deletion, deletion);
        let newest = remembered.counter.newest_at();
        if newest.is_some_and(|at| erases(known, at)) {
            // What may not be stored of it was sent before the deletion, which erases that as well.
            return self.forget(series);
        }
        let before = remembered.counter.bytes();
        remembered.counter.drop_unstored(|at| erases(known, at));
        self.bytes = self.bytes + remembered.counter.bytes() - before;
    }

    pub(crate) fn remembers(&self, series: SeriesHash) -> bool {
        self.counters.contains_key(&series)
    }

    /// Whether a series has to be read back, for deltas whose total may stand at `from` or later. That another request, whose
    /// deltas begin later, has found nothing says nothing of what is in front of them.
    pub(crate) fn lacks(&self, series: SeriesHash, from: Millis) -> bool {
        let says = |found: &Found| found.stored.is_some() || found.from <= from;
        !self.remembers(series) && !self.found.get(&series).is_some_and(says)
    }

    /// Whether what is in front of the newest samples is asked for from now on. What was found without it is not used any more: it
    /// does not say which totals are the first of a counter.
    pub(crate) fn ask_for_before(&mut self, has_before: bool) {
        if self.has_before != has_before {
            self.has_before = has_before;
            let lost = self.found.drain().map(|(_, found)| found.bytes());
            self.bytes -= lost.sum::<usize>();
        }
    }

    /// Keeps what was read back of a series that is not remembered, until it is recalled: its newest sample if it stands at `from` or
    /// later, and what is to be written again with it; where memory is short, no more of that than tells what the newest is.
    /// `deletion`: the one of its tenant that was known before.
    ///
    /// # Errors
    /// When memory is short.
    pub(crate) fn keep_found(
        &mut self,
        series: SeriesHash,
        mut stored: Option<Stored>,
        from: Millis,
        deletion: DeletionVersion,
        now: Now,
    ) -> Result<(), NoRoom> {
        if !self.has_room(self.series_bytes_max(), now) {
            return Err(NoRoom::Bytes);
        }
        self.lose(series);
        if self.bytes >= self.whole_bytes_max() {
            stored.iter_mut().for_each(Stored::shorten);
        }
        let at = now.boot;
        let found = Found {
            stored,
            from,
            at,
            deletion,
        };
        self.bytes += found.bytes();
        self.found.insert(series, found);
        Ok(())
    }

    /// How many series there are, and how many of them are idle and kept for what may not be stored of them, as was last looked for.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.counters.len(), self.waiting)
    }

    /// Remembers a series again for these deltas, by what was found of it.
    ///
    /// # Errors
    /// When there are too many series, or bytes, or what was found is lost since.
    pub(crate) fn recall(
        &mut self,
        series: SeriesHash,
        deltas: &[Sample],
        now: Now,
    ) -> Result<(), NoRoom> {
        if self.counters.len() >= self.series_max {
            // Some may have been kept for longer while there was room.
            self.sweep(now, SWEEP_INTERVAL_WHEN_FULL, IDLE_MAX);
        }
        if self.counters.len() >= self.series_max {
            return Err(NoRoom::Series(FULL));
        }
        // There was room for what was found, of which a counter is little more.
        if !self.has_room(self.bytes_max, now) {
            return Err(NoRoom::Bytes);
        }
        let found = self.lose(series).ok_or(NoRoom::Bytes)?;
        let read_back = |stored: Stored| Counter::read_back(stored, deltas);
        let counter = found.stored.map(read_back).unwrap_or_default();
        self.bytes += COUNTER_BYTES + counter.bytes();
        let remembered = Remembered {
            counter,
            used: now.boot,
            deletion: found.deletion,
        };
        self.counters.insert(series, remembered);
        Ok(())
    }

    /// A request with so many deltas of a series is to be counted: they are known again when it is repeated, unless memory is
    /// short.
    pub(crate) fn expect(&mut self, series: SeriesHash, deltas: usize) {
        let is_short = self.bytes >= self.bytes_max / 2;
        if let Some(remembered) = self.counters.get_mut(&series) {
            let before = remembered.counter.bytes();
            remembered.counter.expect(if is_short { 0 } else { deltas });
            self.bytes = self.bytes + remembered.counter.bytes() - before;
        }
    }

    /// What a majority may not have of a series, ascending.
    pub(crate) fn unstored(&self, series: SeriesHash) -> &[Sample] {
        let remembered = self.counters.get(&series);
        remembered.map_or(&[], |remembered| remembered.counter.unstored())
    }

    /// A majority has all of a series.
    pub(crate) fn stored(&mut self, series: SeriesHash) {
        if let Some(remembered) = self.counters.get_mut(&series) {
            let before = remembered.counter.bytes();
            remembered.counter.stored();
            self.bytes = self.bytes + remembered.counter.bytes() - before;
        }
    }

    /// Counts the first of these deltas of a series, ascending by time, as many as a step has room for; what comes of them is
    /// unstored then. Why a delta does not count is added to `refused`. How many were looked at; none: the series is not
    /// remembered, and nothing was done.
    pub(crate) fn take(
        &mut self,
        series: SeriesHash,
        deltas: &[Sample],
        now: Now,
        step: &mut Step,
        refused: &mut Vec<Refusal>,
    ) -> Option<usize> {
        let bounds = self.bounds();
        self.counters.get_mut(&series)?.used = now.boot;
        for (number, delta) in deltas.iter().enumerate() {
            if number >= step.deltas_max || step.bytes == 0 {
                return Some(number);
            }
            if !self.has_room(self.bytes_max, now) {
                step.is_full = true;
                return Some(number);
            }
            let counter = &mut self.counters.get_mut(&series)?.counter;
            let before = counter.bytes();
            refused.extend(counter.take(delta, bounds).err());
            let after = counter.bytes();
            self.bytes = self.bytes + after - before;
            step.bytes = step.bytes.saturating_sub(after.saturating_sub(before));
        }
        Some(deltas.len())
    }

    /// Forgets a series, whose newest sample is read back when its next delta comes.
    pub(crate) fn forget(&mut self, series: SeriesHash) {
        if let Some(remembered) = self.counters.remove(&series) {
            self.bytes -= COUNTER_BYTES + remembered.counter.bytes();
        }
    }

    /// Takes out what was found of a series.
    fn lose(&mut self, series: SeriesHash) -> Option<Found> {
        let found = self.found.remove(&series)?;
        self.bytes -= found.bytes();
        Some(found)
    }

    /// Bytes beyond which no further series are remembered: those that are grow.
    fn series_bytes_max(&self) -> usize {
        self.bytes_max / 4 * 3
    }

    /// Bytes beyond which less is kept of what is found: a request works on all its series at once, and has to find room for each.
    fn whole_bytes_max(&self) -> usize {
        self.bytes_max / 2
    }

    /// Whether there are fewer bytes, once what nobody needs now is forgotten.
    fn has_room(&mut self, bytes_max: usize, now: Now) -> bool {
        if self.bytes >= bytes_max {
            self.sweep(now, SWEEP_INTERVAL_WHEN_FULL, IDLE_MAX_WHEN_FULL);
        }
        self.bytes < bytes_max
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            doubtful_until: self.doubtful_until,
        }
    }

    /// Forgets what is idle, unless that was done just before. What may not be stored is kept, because it is not known elsewhere that
    /// it was tried, unless it is so old that nobody writes it any more, or nobody has come for it for hours.
    fn sweep(&mut self, now: Now, interval: Duration, idle_max: Duration) {
        if now.boot.saturating_sub(self.swept) < interval {
            return;
        }
        self.swept = now.boot;
        let bytes = &mut self.bytes;
        self.waiting = 0;
        self.counters.retain(|series, remembered| {
            let idle = now.boot.saturating_sub(remembered.used);
            let is_used = idle < idle_max || self.turns.wants(*series);
            let newest = remembered.counter.unstored().last();
            let waits = newest.is_some_and(|sample| sample.time >= now.oldest);
            let waits = !is_used && waits && idle < UNSTORED_MAX;
            self.waiting += usize::from(waits);
            let is_kept = is_used || waits;
            if !is_kept {
                *bytes -= COUNTER_BYTES + remembered.counter.bytes();
            }
            is_kept
        });
        self.counters.shrink_to(self.counters.len() * 2);
        self.found.retain(|series, found| {
            let age = now.boot.saturating_sub(found.at);
            let is_kept = age < idle_max.min(IDLE_MAX) || self.turns.wants(*series);
            if !is_kept {
                *bytes -= found.bytes();
            }
            is_kept
        });
        self.found.shrink_to(self.found.len() * 2);
    }
}

impl Found {
    fn bytes(&self) -> usize {
        FOUND_BYTES + self.stored.as_ref().map_or(0, Stored::bytes)
    }
}

#[cfg(test)]
mod tests;
