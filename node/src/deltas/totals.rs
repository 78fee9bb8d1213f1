//! The counters that the holder of the lease remembers, as many as are allowed, and which of them requests work on.
//!
//! ```text
//! ask -> its turn -> (not remembered: read back, found, recall) -> what is unstored is stored -> take -> what is unstored is stored -> end
//! ```
//! One request works on a series at a time: what it takes goes on from what is stored. A request may end at any step, also by
//! being dropped: what is unstored then is stored by the next one, before it takes anything, and what was found is used by it. What
//! was found a while ago is as good as what was found slowly: nobody else adds under the same fencing number.

use super::{
    counter::{Bounds, Counter, Refusal},
    turns::{Ticket, Turns},
};
use crate::cluster::clocks::OFFSET_MAX;
use std::{collections::HashMap, time::Duration};
use trefoil_api::remote_write::{Sample, SampleValue};
use trefoil_model::{DeletionVersion, Millis, SeriesHash};

/// Bytes of memory for all counters together, about. What does not fit has to come again.
const BYTES_MAX: usize = 256 << 20;
/// Deltas of a series that are counted in one step, and bytes of all that is to be stored of a request behind it, about.
const STEP_DELTAS_MAX: usize = 256;
const STEP_BYTES_MAX: usize = 8 << 20;
/// Bytes that a counter takes beside what [`Counter::bytes`] says, about.
const COUNTER_BYTES: usize = size_of::<SeriesHash>() + size_of::<Remembered>() + 8;
/// Bytes of what was found of a series beside its histogram, about.
const FOUND_BYTES: usize = size_of::<SeriesHash>() + size_of::<Found>() + 8;
/// A counter that got nothing for so long is forgotten, as OpenTelemetry's collector does by default.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// One that has samples that may not be stored, and got nothing for so long, is forgotten as well: its sender has given up, and what
/// it had tried is read back like what a former holder had tried.
const UNSTORED_MAX: Duration = Duration::from_secs(6 * 3600);
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
    /// The newest stored sample, if there is one.
    stored: Option<Sample>,
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
    series_max: usize,
    bytes_max: usize,
    counters: HashMap<SeriesHash, Remembered>,
    /// None of these is remembered.
    found: HashMap<SeriesHash, Found>,
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
            series_max,
            bytes_max: BYTES_MAX,
            counters: HashMap::new(),
            found: HashMap::new(),
            bytes: 0,
            swept: Duration::ZERO,
            waiting: 0,
            turns: Turns::default(),
        }
    }

    /// What is remembered under this fencing number; nothing of what was remembered under another one, because other
    /// nodes may have added in between. `false`: this number is an old one.
    pub(crate) fn begin(&mut self, fencing: u64, now: Now) -> bool {
        if fencing > self.fencing {
            self.counters.clear();
            self.found.clear();
            (self.fencing, self.bytes, self.waiting) = (fencing, 0, 0);
            self.doubtful_until = now.time + DOUBTFUL_FOR;
        }
        self.sweep(now, SWEEP_INTERVAL, IDLE_MAX);
        fencing == self.fencing
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
    /// `erases` says; it is told the deletion that was taken account of, and where the newest total stands.
    pub(crate) fn heed(
        &mut self,
        series: SeriesHash,
        deletion: DeletionVersion,
        erases: impl FnOnce(DeletionVersion, Millis) -> bool,
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
        let newest = remembered.counter.newest_at();
        match newest.is_some_and(|at| erases(remembered.deletion, at)) {
            // What may not be stored of it was sent before the deletion, which erases that as well.
            true => self.forget(series),
            false => remembered.deletion = deletion,
        }
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

    /// Keeps what was read back of a series that is not remembered, until it is recalled: its newest sample at `from` or later.
    /// `deletion`: the one of its tenant that was known before.
    ///
    /// # Errors
    /// When memory is short.
    pub(crate) fn keep_found(
        &mut self,
        series: SeriesHash,
        stored: Option<Sample>,
        from: Millis,
        deletion: DeletionVersion,
        now: Now,
    ) -> Result<(), NoRoom> {
        if !self.has_room(self.series_bytes_max(), now) {
            return Err(NoRoom::Bytes);
        }
        self.lose(series);
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
            return Err(NoRoom::Series(FULL));
        }
        if !self.has_room(self.series_bytes_max(), now) {
            return Err(NoRoom::Bytes);
        }
        let found = self.lose(series).ok_or(NoRoom::Bytes)?;
        let bounds = self.bounds();
        let read_back = |stored: Sample| Counter::read_back(stored, deltas, bounds);
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
            let is_kept = now.boot.saturating_sub(found.at) < idle_max || self.turns.wants(*series);
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
        let histogram = self
            .stored
            .as_ref()
            .map_or(0, |stored| match &stored.value {
                SampleValue::Float(_) => 0,
                SampleValue::Histogram(histogram) => histogram.bytes(),
            });
        FOUND_BYTES + histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use trefoil_model::{Histogram, histogram::Buckets};

    const A: SeriesHash = SeriesHash(1);
    const B: SeriesHash = SeriesHash(2);

    fn at(seconds: u64) -> Now {
        Now {
            boot: Duration::from_secs(seconds),
            time: seconds as Millis * 1000,
            oldest: Millis::MIN,
        }
    }

    fn delta(start: i64, time: i64, value: f64) -> Sample {
        Sample {
            start,
            ..Sample::float(time, value)
        }
    }

    /// Remembers a series of which nothing is stored.
    fn recall(
        totals: &mut Totals,
        series: SeriesHash,
        deltas: &[Sample],
        now: Now,
    ) -> Result<(), NoRoom> {
        totals.keep_found(series, None, 0, DeletionVersion(0), now)?;
        totals.recall(series, deltas, now)
    }

    /// Takes deltas of a series of which nothing is stored; how many samples are to be stored, and the refusals.
    fn take(totals: &mut Totals, series: SeriesHash, deltas: &[Sample]) -> (usize, Vec<Refusal>) {
        let ticket = totals.ask(&[series]);
        if !totals.remembers(series)
            && let Err(reason) = recall(totals, series, deltas, at(1))
        {
            let NoRoom::Series(reason) = reason else {
                panic!("memory is short");
            };
            totals.end(ticket, &[series]);
            return (0, vec![reason]);
        }
        let mut refused = Vec::new();
        let taken = totals.take(series, deltas, at(1), &mut Step::default(), &mut refused);
        assert_eq!(taken, Some(deltas.len()));
        let samples = totals.unstored(series).len();
        totals.stored(series);
        totals.end(ticket, &[series]);
        (samples, refused)
    }

    #[test]
    fn further_series_are_refused_until_idle_ones_are_forgotten() {
        let mut totals = Totals::new(1);
        assert!(totals.begin(1, at(0)));
        assert_eq!(take(&mut totals, A, &[delta(5, 10, 1.0)]), (2, vec![]));
        assert_eq!(take(&mut totals, B, &[delta(5, 10, 1.0)]), (0, vec![FULL]));
        assert_eq!(take(&mut totals, A, &[delta(20, 30, 1.0)]), (2, vec![]));
        assert!(totals.begin(1, at(300)));
        assert!(totals.remembers(A));
        let ticket = totals.ask(&[A]);
        assert!(totals.begin(1, at(331)));
        assert!(totals.remembers(A), "a request works on it");
        totals.end(ticket, &[A]);
        assert!(totals.begin(1, at(362)));
        assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
        assert_eq!(take(&mut totals, B, &[delta(5, 10, 1.0)]), (2, vec![]));
        totals.forget(B);
        assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
    }

    #[test]
    fn what_may_not_be_stored_is_kept_while_it_can_be() {
        let mut totals = Totals::new(9);
        assert!(totals.begin(1, at(0)));
        let ticket = totals.ask(&[A, B]);
        for series in [A, B] {
            let deltas = [delta(5, if series == A { 10 } else { 20 }, 1.0)];
            assert_eq!(recall(&mut totals, series, &deltas, at(1)), Ok(()));
            let mut step = Step::default();
            totals.take(series, &deltas, at(1), &mut step, &mut vec![]);
        }
        totals.end(ticket, &[A, B]);
        assert!(totals.begin(1, at(400)));
        assert_eq!((totals.counters.len(), totals.waiting), (2, 2));
        let with = |seconds, oldest| Now {
            oldest,
            ..at(seconds)
        };
        assert!(totals.begin(1, with(500, 11)));
        assert!(!totals.remembers(A), "nobody writes it any more");
        assert_eq!((totals.counters.len(), totals.waiting), (1, 1));
        // Who comes again finds it, however old it is.
        let ticket = totals.ask(&[B]);
        assert!(totals.begin(1, with(600, 21)) && totals.remembers(B));
        totals.end(ticket, &[B]);
        assert!(totals.begin(1, at(6 * 3600)) && totals.remembers(B));
        assert!(totals.begin(1, at(6 * 3600 + 31)));
        assert_eq!(
            (totals.counters.len(), totals.bytes, totals.waiting),
            (0, 0, 0)
        );
    }

    /// A delta of a histogram with buckets of its own.
    fn large(number: i64) -> Sample {
        let buckets = Buckets::from_spans(&[(number as i32 * 100, 100)], vec![1.0; 100]);
        let histogram = Histogram {
            schema: 3,
            count: 100.0,
            positive: buckets.expect("one span"),
            ..Histogram::default()
        };
        Sample {
            value: SampleValue::Histogram(Arc::new(histogram)),
            ..delta(number * 10, number * 10 + 10, 0.0)
        }
    }

    #[test]
    fn a_step_is_bounded() {
        let mut totals = Totals::new(2);
        totals.begin(1, at(0));
        let deltas: Vec<Sample> = (1..=600).map(|n| delta(n * 10, n * 10 + 10, 1.0)).collect();
        assert_eq!(recall(&mut totals, A, &deltas, at(1)), Ok(()));
        let (mut taken, mut refused) = (0, Vec::new());
        for expected in [256, 512, 600] {
            let left = &deltas[taken..];
            taken += totals
                .take(A, left, at(1), &mut Step::default(), &mut refused)
                .expect("remembered");
            assert_eq!(taken, expected);
            totals.stored(A);
        }
        assert_eq!(refused, [] as [Refusal; 0]);
        assert_eq!(recall(&mut totals, B, &[], at(1)), Ok(()));
        let deltas: Vec<Sample> = (1..=600).map(large).collect();
        let mut step = Step {
            bytes: 100_000,
            ..Step::default()
        };
        let taken = totals.take(B, &deltas, at(1), &mut step, &mut refused);
        assert!(
            taken.is_some_and(|taken| (2..100).contains(&taken)),
            "{taken:?}"
        );
        assert!(!step.is_full && totals.bytes < 200_000, "{}", totals.bytes);
    }

    #[test]
    fn what_memory_has_no_room_for_comes_again() {
        let mut totals = Totals::new(99);
        totals.begin(1, at(0));
        totals.bytes_max = 200_000;
        let series = |number| SeriesHash(number);
        let ticket = totals.ask(&[series(1)]);
        let (mut step, mut refused) = (Step::default(), Vec::new());
        let deltas: Vec<Sample> = (1..=200).map(large).collect();
        assert_eq!(recall(&mut totals, series(1), &deltas, at(1)), Ok(()));
        let taken = totals.take(series(1), &deltas, at(1), &mut step, &mut refused);
        let taken = taken.expect("remembered");
        assert!(step.is_full && (2..100).contains(&taken), "{taken}");
        assert!((200_000..300_000).contains(&totals.bytes));
        assert_eq!(
            recall(&mut totals, series(2), &[], at(1)),
            Err(NoRoom::Bytes)
        );
        // It may not be stored: it is kept, however long.
        totals.end(ticket, &[series(1)]);
        assert_eq!(
            recall(&mut totals, series(2), &[], at(999)),
            Err(NoRoom::Bytes)
        );
        assert!(totals.remembers(series(1)));
        totals.stored(series(1));
        let mut step = Step::default();
        let next = totals.take(
            series(1),
            &deltas[taken..],
            at(999),
            &mut step,
            &mut refused,
        );
        assert!(
            next.is_some_and(|next| next > 0),
            "it goes on once that is stored"
        );
        assert!(refused.is_empty());
        totals.stored(series(1));
        assert_eq!(recall(&mut totals, series(2), &[], at(999)), Ok(()));
        // Many totals fill it as well, until those are forgotten that were not used just now.
        let mut number = 3;
        while totals.bytes < totals.series_bytes_max() {
            assert_eq!(recall(&mut totals, series(number), &[], at(1005)), Ok(()));
            let mut step = Step::default();
            totals.take(
                series(number),
                &deltas[..1],
                at(1005),
                &mut step,
                &mut refused,
            );
            totals.stored(series(number));
            number += 1;
        }
        assert_eq!(
            recall(&mut totals, series(98), &[], at(1006)),
            Err(NoRoom::Bytes)
        );
        assert_eq!(recall(&mut totals, series(98), &[], at(1016)), Ok(()));
        assert_eq!(totals.counters.len(), 1);
    }

    #[test]
    fn nothing_is_remembered_under_another_fencing_number() {
        let mut totals = Totals::new(9);
        totals.begin(3, at(0));
        take(&mut totals, A, &[delta(5, 10, 1.0)]);
        assert!(!totals.begin(2, at(0)), "an old holder");
        assert!(totals.remembers(A));
        assert!(totals.begin(4, at(0)));
        assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
        let mut refused = Vec::new();
        let deltas = [delta(10, 20, 1.0)];
        let mut step = Step::default();
        let taken = totals.take(A, &deltas, at(0), &mut step, &mut refused);
        assert_eq!(taken, None);
        assert!(refused.is_empty());
    }

    #[test]
    fn a_refused_first_delta_leaves_room_for_the_next() {
        let mut totals = Totals::new(1);
        totals.begin(1, at(0));
        let (stored, refused) = take(&mut totals, A, &[delta(30, 20, 1.0)]);
        assert_eq!((stored, refused.len(), totals.counters.len()), (0, 1, 0));
        let deltas = [delta(30, 20, 1.0), delta(20, 30, 2.0)];
        let (stored, refused) = take(&mut totals, B, &deltas);
        assert_eq!((stored, refused.len()), (2, 1));
    }

    #[test]
    fn one_request_works_on_a_series() {
        let mut totals = Totals::new(9);
        let first = totals.ask(&[A]);
        let second = totals.ask(&[B, A]);
        assert!(totals.has_turn(first, &[A]));
        assert!(totals.begin(1, at(0)), "which does not change that");
        assert!(!totals.has_turn(second, &[B, A]));
        assert_eq!(recall(&mut totals, A, &[], at(0)), Ok(()));
        totals.end(second, &[B, A]);
        assert!(totals.remembers(A), "who waited changes nothing");
        totals.end(first, &[A]);
        assert!(!totals.remembers(A), "nothing is in it");
    }

    #[test]
    fn what_was_found_is_there_for_the_next_try() {
        let mut totals = Totals::new(9);
        totals.begin(1, at(0));
        let ticket = totals.ask(&[A, B]);
        let (stored, known) = (Sample::float(20, 7.0), DeletionVersion(2));
        assert!(totals.lacks(A, 20) && totals.lacks(B, 20));
        let kept = totals.keep_found(A, Some(stored.clone()), 20, known, at(1));
        assert_eq!(kept, Ok(()));
        // The rest could not be read.
        totals.end(ticket, &[A, B]);
        assert!(!totals.lacks(A, 20) && !totals.remembers(A) && totals.lacks(B, 20));
        assert_eq!(totals.recall(B, &[], at(2)), Err(NoRoom::Bytes));
        let delta = delta(20, 30, 1.0);
        let deltas = std::slice::from_ref(&delta);
        assert_eq!(totals.recall(A, deltas, at(2)), Ok(()));
        assert_eq!(totals.unstored(A), [stored]);
        totals.forget(A);
        assert_eq!((totals.counters.len(), totals.bytes), (0, 0));
        // Not for ever, and not under another fencing number.
        assert_eq!(totals.keep_found(A, None, 20, known, at(3)), Ok(()));
        assert!(totals.begin(1, at(303)) && totals.lacks(A, 20));
        assert_eq!(totals.bytes, 0);
        assert_eq!(totals.keep_found(A, None, 20, known, at(304)), Ok(()));
        assert!(totals.begin(2, at(305)) && totals.lacks(A, 20));
        assert_eq!(totals.bytes, 0);
    }

    #[test]
    fn nothing_found_says_nothing_of_what_is_in_front() {
        let mut totals = Totals::new(9);
        totals.begin(1, at(0));
        let none = DeletionVersion(0);
        let ticket = totals.ask(&[A, B]);
        assert_eq!(totals.keep_found(A, None, 70, none, at(1)), Ok(()));
        let total = Sample::float(80, 7.0);
        let kept = totals.keep_found(B, Some(total), 70, none, at(1));
        assert_eq!(kept, Ok(()));
        totals.end(ticket, &[A, B]);
        // Of the next request: deltas in front of those that were looked for.
        assert!(totals.lacks(A, 50) && !totals.lacks(A, 70) && !totals.lacks(A, 90));
        assert!(!totals.lacks(B, 50), "the newest one is there");
        let total = Sample::float(60, 6.0);
        let kept = totals.keep_found(A, Some(total.clone()), 50, none, at(2));
        assert_eq!(kept, Ok(()));
        assert_eq!(totals.recall(A, &[delta(50, 60, 1.0)], at(2)), Ok(()));
        assert_eq!(totals.unstored(A), [total]);
    }

    #[test]
    fn what_a_deletion_erases_is_forgotten() {
        let mut totals = Totals::new(9);
        totals.begin(1, at(0));
        let of = DeletionVersion;
        for series in [A, B] {
            take(&mut totals, series, &[delta(5, 10, 1.0)]);
        }
        totals.heed(A, of(0), |_, _| panic!("there is none"));
        totals.heed(A, of(2), |known, at| (known, at) != (of(0), 10));
        assert!(totals.remembers(A), "it is another one's");
        totals.heed(A, of(2), |_, _| panic!("that is known"));
        totals.heed(B, of(2), |known, at| (known, at) == (of(0), 10));
        assert!(totals.lacks(B, 20));
        // What was read back before it may be erased by it.
        assert_eq!(totals.keep_found(B, None, 20, of(2), at(1)), Ok(()));
        totals.heed(B, of(2), |_, _| panic!("nothing is remembered"));
        assert!(!totals.lacks(B, 20));
        totals.heed(B, of(3), |_, _| panic!("nothing is remembered"));
        assert!(totals.lacks(B, 20));
    }
}
