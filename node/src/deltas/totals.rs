//! The counters that the holder of the lease remembers, as many as are allowed.

use super::interval::{Counter, Refusal};
use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};
use trefoil_api::remote_write::Sample;
use trefoil_model::SeriesHash;

/// Bytes of memory for all counters together, about. Further series are refused.
const BYTES_MAX: usize = 256 << 20;
/// Bytes that a counter takes beside what its histogram and its gaps take, about.
const COUNTER_BYTES: usize = size_of::<SeriesHash>() + size_of::<Remembered>() + 8;
/// A counter that got nothing for so long is forgotten, as OpenTelemetry's collector does by default.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How often idle ones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

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
    series_max: usize,
    counters: HashMap<SeriesHash, Remembered>,
    bytes: usize,
    swept: Duration,
}

/// Whether a series goes on.
pub(crate) enum Known<'a> {
    /// It must be remembered.
    Remembered,
    /// It was looked for in what is stored: its newest sample there, if it has one.
    ReadBack(Option<&'a Sample>),
}

/// A series that should be remembered is not: its deltas have to be sent again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forgotten;

impl Totals {
    /// Remembers nothing. `series_max` series at most.
    pub(crate) fn new(series_max: usize) -> Self {
        Self {
            fencing: 0,
            series_max,
            counters: HashMap::new(),
            bytes: 0,
            swept: Duration::ZERO,
        }
    }

    /// What is remembered under this fencing number; nothing of what was remembered under another one, because other
    /// nodes may have added in between. `false`: this number is an old one.
    pub(crate) fn begin(&mut self, fencing: u64, now: Duration) -> bool {
        if fencing > self.fencing {
            self.counters.clear();
            (self.fencing, self.bytes) = (fencing, 0);
        }
        if now.saturating_sub(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.forget_idle(now);
        }
        fencing == self.fencing
    }

    pub(crate) fn remembers(&self, series: SeriesHash) -> bool {
        self.counters.contains_key(&series)
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.counters.len()
    }

    /// Counts deltas of a series, ascending by time. What is to be stored is added to `out`, and why a delta does not
    /// count to `refused`.
    ///
    /// # Errors
    /// [`Forgotten`]; nothing has changed then.
    pub(crate) fn take(
        &mut self,
        series: SeriesHash,
        deltas: &[Sample],
        known: Known<'_>,
        now: Duration,
        out: &mut Vec<Sample>,
        refused: &mut Vec<Refusal>,
    ) -> Result<(), Forgotten> {
        let is_full = self.counters.len() >= self.series_max || self.bytes >= BYTES_MAX;
        let mut deltas = deltas.iter();
        let remembered = match self.counters.entry(series) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(room) => {
                let Known::ReadBack(stored) = known else {
                    return Err(Forgotten);
                };
                if is_full {
                    refused.extend(deltas.map(|_| FULL));
                    return Ok(());
                }
                let begun = deltas.find_map(|delta| match Counter::begin(delta, stored, out) {
                    Ok(counter) => Some(counter),
                    Err(reason) => {
                        refused.push(reason);
                        None
                    }
                });
                let Some(counter) = begun else {
                    return Ok(());
                };
                self.bytes += COUNTER_BYTES + counter.bytes();
                let used = now;
                room.insert(Remembered { counter, used })
            }
        };
        let before = remembered.counter.bytes();
        for delta in deltas {
            if let Err(reason) = remembered.counter.take(delta, out) {
                refused.push(reason);
            }
        }
        remembered.used = now;
        self.bytes = self.bytes + remembered.counter.bytes() - before;
        Ok(())
    }

    /// The series pauses: what comes next begins anew.
    pub(crate) fn forget(&mut self, series: SeriesHash) {
        if let Some(remembered) = self.counters.remove(&series) {
            self.bytes -= COUNTER_BYTES + remembered.counter.bytes();
        }
    }

    fn forget_idle(&mut self, now: Duration) {
        let bytes = &mut self.bytes;
        self.counters.retain(|_, remembered| {
            let is_kept = now.saturating_sub(remembered.used) < IDLE_MAX;
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

    fn delta(start: i64, time: i64, value: f64) -> Sample {
        Sample {
            start,
            ..Sample::float(time, value)
        }
    }

    /// Takes deltas of a series of which nothing is stored; the values to be stored and the refusals.
    fn take(totals: &mut Totals, series: SeriesHash, deltas: &[Sample]) -> (usize, Vec<Refusal>) {
        let (mut out, mut refused) = (Vec::new(), Vec::new());
        let now = Duration::from_secs(1);
        let known = Known::ReadBack(None);
        let taken = totals.take(series, deltas, known, now, &mut out, &mut refused);
        taken.expect("it was looked for");
        (out.len(), refused)
    }

    #[test]
    fn further_series_are_refused_until_idle_ones_are_forgotten() {
        let mut totals = Totals::new(1);
        assert!(totals.begin(1, Duration::ZERO));
        assert_eq!(take(&mut totals, A, &[delta(0, 10, 1.0)]), (1, vec![]));
        assert_eq!(take(&mut totals, B, &[delta(0, 10, 1.0)]), (0, vec![FULL]));
        assert_eq!(take(&mut totals, A, &[delta(10, 20, 1.0)]), (1, vec![]));
        assert!(totals.begin(1, Duration::from_secs(300)));
        assert!(totals.remembers(A));
        assert!(totals.begin(1, Duration::from_secs(331)));
        assert_eq!((totals.len(), totals.bytes), (0, 0));
        assert_eq!(take(&mut totals, B, &[delta(0, 10, 1.0)]), (1, vec![]));
        totals.forget(B);
        assert_eq!((totals.len(), totals.bytes), (0, 0));
    }

    #[test]
    fn memory_is_bounded_too() {
        let mut totals = Totals::new(2);
        totals.begin(1, Duration::ZERO);
        totals.bytes = BYTES_MAX;
        assert_eq!(take(&mut totals, A, &[delta(0, 10, 1.0)]), (0, vec![FULL]));
    }

    #[test]
    fn nothing_is_remembered_under_another_fencing_number() {
        let mut totals = Totals::new(9);
        totals.begin(3, Duration::ZERO);
        take(&mut totals, A, &[delta(0, 10, 1.0)]);
        assert!(!totals.begin(2, Duration::ZERO), "an old holder");
        assert!(totals.remembers(A));
        assert!(totals.begin(4, Duration::ZERO));
        assert_eq!((totals.len(), totals.bytes), (0, 0));
        let (mut out, mut refused) = (Vec::new(), Vec::new());
        let deltas = [delta(10, 20, 1.0)];
        let now = Duration::ZERO;
        let taken = totals.take(A, &deltas, Known::Remembered, now, &mut out, &mut refused);
        assert_eq!(taken, Err(Forgotten));
        assert!(out.is_empty() && refused.is_empty());
    }

    #[test]
    fn a_refused_first_delta_leaves_room_for_the_next() {
        let mut totals = Totals::new(9);
        totals.begin(1, Duration::ZERO);
        let deltas = [delta(30, 20, 1.0), delta(20, 30, 2.0)];
        let (stored, refused) = take(&mut totals, A, &deltas);
        assert_eq!((stored, refused.len()), (2, 1));
    }
}
