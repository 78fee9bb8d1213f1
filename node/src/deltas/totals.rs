//! The counters that the holder of the lease remembers, as many as are allowed, and which of them requests work on.
//!
//! ```text
//! reserve -> (not remembered: read back, recall) -> what is unstored is stored -> take -> what is unstored is stored -> release
//! ```
//! One request works on a series at a time: what it takes goes on from what is stored. A request may end at any step, also by
//! being dropped: what is unstored then is stored by the next one, before it takes anything.

use super::counter::{Bounds, Counter, Refusal};
use crate::cluster::clocks::OFFSET_MAX;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use trefoil_api::remote_write::Sample;
use trefoil_model::{Millis, SeriesHash};

/// Bytes of memory for all counters together, about. Further series are refused.
const BYTES_MAX: usize = 256 << 20;
/// Bytes that a counter takes beside what [`Counter::bytes`] says, about.
const COUNTER_BYTES: usize = size_of::<SeriesHash>() + size_of::<Remembered>() + 8;
/// A counter that got nothing for so long is forgotten, as OpenTelemetry's collector does by default.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How often idle ones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How much later than the lease was taken a delta may end that another holder has tried, by the clocks of its sender and of
/// this node, of which each may be as far off as a clock that judges.
const DOUBTFUL_FOR: Millis = 2 * OFFSET_MAX;

const FULL: Refusal =
    "would be one series more than are added up at the same time (otlp.delta_series_max)";

struct Remembered {
    counter: Counter,
    /// When it got something, by the boot clock.
    used: Duration,
}

/// What the holder of a lease remembers under its fencing number.
pub(crate) struct Totals {
    fencing: u64,
    /// What ends before this may have been tried by another holder.
    doubtful_until: Millis,
    series_max: usize,
    counters: HashMap<SeriesHash, Remembered>,
    bytes: usize,
    swept: Duration,
    /// Series that a request works on, under whichever fencing number.
    reserved: HashSet<SeriesHash>,
}

/// The present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// By the boot clock.
    pub(crate) boot: Duration,
    /// UTC, in milliseconds.
    pub(crate) time: Millis,
}

impl Totals {
    /// Remembers nothing. `series_max` series at most.
    pub(crate) fn new(series_max: usize) -> Self {
        Self {
            fencing: 0,
            doubtful_until: Millis::MIN,
            series_max,
            counters: HashMap::new(),
            bytes: 0,
            swept: Duration::ZERO,
            reserved: HashSet::new(),
        }
    }

    /// What is remembered under this fencing number; nothing of what was remembered under another one, because other
    /// nodes may have added in between. `false`: this number is an old one.
    pub(crate) fn begin(&mut self, fencing: u64, now: Now) -> bool {
        if fencing > self.fencing {
            self.counters.clear();
            (self.fencing, self.bytes) = (fencing, 0);
            self.doubtful_until = now.time + DOUBTFUL_FOR;
        }
        if now.boot.saturating_sub(self.swept) >= SWEEP_INTERVAL {
            self.swept = now.boot;
            self.forget_idle(now.boot);
        }
        fencing == self.fencing
    }

    /// Reserves series for a request, all or none. `false`: another one works on some.
    pub(crate) fn reserve(&mut self, series: &[SeriesHash]) -> bool {
        let is_free = !series.iter().any(|one| self.reserved.contains(one));
        if is_free {
            self.reserved.extend(series);
        }
        is_free
    }

    /// Gives series that were reserved to the next request.
    pub(crate) fn release(&mut self, series: &[SeriesHash]) {
        for one in series {
            self.reserved.remove(one);
        }
    }

    pub(crate) fn remembers(&self, series: SeriesHash) -> bool {
        self.counters.contains_key(&series)
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.counters.len()
    }

    /// Remembers a series again, of which this is the newest stored sample, for these deltas.
    ///
    /// # Errors
    /// When there are too many series.
    pub(crate) fn recall(
        &mut self,
        series: SeriesHash,
        stored: Option<&Sample>,
        deltas: &[Sample],
        (oldest, now): (Millis, Now),
    ) -> Result<(), Refusal> {
        if self.counters.len() >= self.series_max || self.bytes >= BYTES_MAX {
            return Err(FULL);
        }
        let bounds = self.bounds(oldest);
        let read_back = |stored: &Sample| Counter::read_back(stored.clone(), deltas, bounds);
        let counter = stored.map(read_back).unwrap_or_default();
        self.forget(series);
        self.bytes += COUNTER_BYTES + counter.bytes();
        let used = now.boot;
        self.counters.insert(series, Remembered { counter, used });
        Ok(())
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

    /// Counts deltas of a series, ascending by time; what comes of them is unstored then. Why a delta does not count is added
    /// to `refused`. `false`: the series is not remembered, and nothing was done.
    pub(crate) fn take(
        &mut self,
        series: SeriesHash,
        deltas: &[Sample],
        (oldest, now): (Millis, Now),
        refused: &mut Vec<Refusal>,
    ) -> bool {
        let bounds = self.bounds(oldest);
        let Some(remembered) = self.counters.get_mut(&series) else {
            return false;
        };
        let before = remembered.counter.bytes();
        let taken = deltas
            .iter()
            .map(|delta| remembered.counter.take(delta, bounds));
        refused.extend(taken.filter_map(Result::err));
        remembered.used = now.boot;
        self.bytes = self.bytes + remembered.counter.bytes() - before;
        if remembered.counter.is_empty() {
            self.forget(series);
        }
        true
    }

    /// Forgets a series, whose newest sample is read back when its next delta comes.
    pub(crate) fn forget(&mut self, series: SeriesHash) {
        if let Some(remembered) = self.counters.remove(&series) {
            self.bytes -= COUNTER_BYTES + remembered.counter.bytes();
        }
    }

    fn bounds(&self, oldest: Millis) -> Bounds {
        Bounds {
            oldest,
            doubtful_until: self.doubtful_until,
        }
    }

    fn forget_idle(&mut self, now: Duration) {
        let bytes = &mut self.bytes;
        self.counters.retain(|series, remembered| {
            let is_kept =
                now.saturating_sub(remembered.used) < IDLE_MAX || self.reserved.contains(series);
            if !is_kept {
                *bytes -= COUNTER_BYTES + remembered.counter.bytes();
            }
            is_kept
        });
        self.counters.shrink_to(self.counters.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SeriesHash = SeriesHash(1);
    const B: SeriesHash = SeriesHash(2);
    const OLDEST: Millis = Millis::MIN;

    fn at(seconds: u64) -> Now {
        Now {
            boot: Duration::from_secs(seconds),
            time: seconds as Millis * 1000,
        }
    }

    fn delta(start: i64, time: i64, value: f64) -> Sample {
        Sample {
            start,
            ..Sample::float(time, value)
        }
    }

    /// Takes deltas of a series of which nothing is stored; how many samples are to be stored, and the refusals.
    fn take(totals: &mut Totals, series: SeriesHash, deltas: &[Sample]) -> (usize, Vec<Refusal>) {
        if !totals.remembers(series)
            && let Err(reason) = totals.recall(series, None, deltas, (OLDEST, at(1)))
        {
            return (0, vec![reason]);
        }
        let mut refused = Vec::new();
        assert!(totals.take(series, deltas, (OLDEST, at(1)), &mut refused));
        let samples = totals.unstored(series).len();
        totals.stored(series);
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
        assert!(totals.reserve(&[A]));
        assert!(totals.begin(1, at(331)));
        assert!(totals.remembers(A), "a request works on it");
        totals.release(&[A]);
        assert!(totals.begin(1, at(362)));
        assert_eq!((totals.len(), totals.bytes), (0, 0));
        assert_eq!(take(&mut totals, B, &[delta(5, 10, 1.0)]), (2, vec![]));
        totals.forget(B);
        assert_eq!((totals.len(), totals.bytes), (0, 0));
    }

    #[test]
    fn memory_is_bounded_too() {
        let mut totals = Totals::new(2);
        totals.begin(1, at(0));
        totals.bytes = BYTES_MAX;
        assert_eq!(take(&mut totals, A, &[delta(5, 10, 1.0)]), (0, vec![FULL]));
    }

    #[test]
    fn nothing_is_remembered_under_another_fencing_number() {
        let mut totals = Totals::new(9);
        totals.begin(3, at(0));
        take(&mut totals, A, &[delta(5, 10, 1.0)]);
        assert!(!totals.begin(2, at(0)), "an old holder");
        assert!(totals.remembers(A));
        assert!(totals.begin(4, at(0)));
        assert_eq!((totals.len(), totals.bytes), (0, 0));
        let mut refused = Vec::new();
        let deltas = [delta(10, 20, 1.0)];
        assert!(!totals.take(A, &deltas, (OLDEST, at(0)), &mut refused));
        assert!(refused.is_empty());
    }

    #[test]
    fn a_refused_first_delta_leaves_room_for_the_next() {
        let mut totals = Totals::new(1);
        totals.begin(1, at(0));
        let (stored, refused) = take(&mut totals, A, &[delta(30, 20, 1.0)]);
        assert_eq!((stored, refused.len(), totals.len()), (0, 1, 0));
        let deltas = [delta(30, 20, 1.0), delta(20, 30, 2.0)];
        let (stored, refused) = take(&mut totals, B, &deltas);
        assert_eq!((stored, refused.len()), (2, 1));
    }

    #[test]
    fn one_request_works_on_a_series() {
        let mut totals = Totals::new(9);
        assert!(totals.reserve(&[A]));
        assert!(!totals.reserve(&[B, A]));
        assert!(totals.begin(1, at(0)), "which does not change that");
        assert!(totals.reserve(&[B]));
        totals.release(&[A]);
        assert!(totals.reserve(&[A]));
        assert!(!totals.reserve(&[B]));
    }
}
