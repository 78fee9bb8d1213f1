//! One series whose samples are sums of deltas: which intervals were counted, and what they came to.
//!
//! ```text
//! counted_from            gap                   newest
//!      |---- counted ----|    |---- counted ----|----| -> time
//! ```
//! Pure: deltas come in, samples go out.

use std::sync::Arc;
use trefoil_api::remote_write::{Sample, SampleValue};
use trefoil_model::{
    Histogram, Millis,
    histogram::{BUCKETS_INGESTED_MAX, Buckets, SCHEMA_MIN},
};

/// Gaps of a series that are remembered; the oldest go first, and what belongs into them is refused then.
const GAPS_MAX: usize = 4;
/// How much later than a delta ends its total may be stored, in milliseconds: one for each delta that came late.
const LATE_MAX: Millis = GAPS_MAX as Millis;

/// Why a delta does not count, in words.
pub(crate) type Refusal = &'static str;

const TWO_SENDERS: Refusal =
    "overlaps another delta of its series; two senders have the same labels";
const TOO_OLD: Refusal =
    "is older than the total of its series; it was counted already, or comes too late";
const NOT_FINITE: Refusal = "is no finite number";
const ENDS_BEFORE_IT_BEGINS: Refusal = "ends before it begins";
const OTHER_KIND: Refusal = "is of another kind than the total of its series";

/// A counter that is made of deltas.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    /// When it began; 0: not known.
    start: Millis,
    total: SampleValue,
    /// The time of the newest sample.
    stored: Millis,
    /// The interval of the newest delta, and a number of its own.
    newest: (Millis, Millis),
    newest_mark: u64,
    /// From here to `newest` everything was counted but the gaps, ascending.
    counted_from: Millis,
    gaps: Vec<(Millis, Millis)>,
}

impl Counter {
    /// The counter that begins with a delta, or goes on with it from a stored sample. What is to be stored is added to `out`.
    ///
    /// # Errors
    /// When the delta does not count.
    pub(crate) fn begin(
        delta: &Sample,
        known: Option<&Sample>,
        out: &mut Vec<Sample>,
    ) -> Result<Self, Refusal> {
        check(delta)?;
        let (start, time) = (delta.start, delta.time);
        let mut counter = Self {
            start,
            total: delta.value.clone(),
            stored: time,
            newest: (start, time),
            newest_mark: mark(&delta.value),
            counted_from: if start == 0 { time } else { start },
            gaps: Vec::new(),
        };
        let goes_on = |known: &&Sample| is_same_kind(&known.value, &delta.value);
        match known {
            Some(known) if time < known.time => return Err(TOO_OLD),
            Some(known) if time == known.time && !goes_on(&known) => return Err(TOO_OLD),
            _ => {}
        }
        match known.filter(goes_on) {
            Some(known) if time == known.time => {
                counter.total = known.value.clone();
                counter.start = known.start;
            }
            Some(known) if start == 0 || start <= known.time => {
                if start != 0 && start < known.time - LATE_MAX {
                    return Err(TWO_SENDERS);
                }
                counter.total = known.value.clone();
                counter.start = known.start;
                add(&mut counter.total, &delta.value)?;
            }
            // It begins anew, and a zero shows that it does, however large the first value is.
            _ if start != 0 && start + 1 < time => out.push(Sample {
                time: start + 1,
                start,
                value: zero(&delta.value),
            }),
            _ => {}
        }
        out.push(counter.sample());
        Ok(counter)
    }

    /// Counts a delta. What is to be stored is added to `out`; a repeated delta stores the total again.
    ///
    /// # Errors
    /// When it does not count; nothing has changed then.
    pub(crate) fn take(&mut self, delta: &Sample, out: &mut Vec<Sample>) -> Result<(), Refusal> {
        check(delta)?;
        if !is_same_kind(&self.total, &delta.value) {
            return Err(OTHER_KIND);
        }
        let (start, time) = (delta.start, delta.time);
        let (_, newest_end) = self.newest;
        if time > newest_end {
            if start != 0 && start < newest_end {
                return Err(TWO_SENDERS);
            }
            add(&mut self.total, &delta.value)?;
            if start > newest_end {
                self.gaps.push((newest_end, start));
                if self.gaps.len() > GAPS_MAX {
                    let (_, end) = self.gaps.remove(0);
                    self.counted_from = end;
                }
            }
            self.newest = (start, time);
            self.newest_mark = mark(&delta.value);
            self.stored = time.max(self.stored + 1);
        } else if (start, time) == self.newest {
            if mark(&delta.value) != self.newest_mark {
                return Err(TWO_SENDERS);
            }
        } else if start == 0 || start < self.counted_from {
            return Err(TOO_OLD);
        } else if let Some(gap) = self.gap_around(start, time) {
            add(&mut self.total, &delta.value)?;
            self.fill(gap, start, time);
            self.stored += 1;
        } else if self.gaps.iter().any(|gap| start < gap.1 && gap.0 < time) {
            return Err(TWO_SENDERS);
        }
        out.push(self.sample());
        Ok(())
    }

    /// Memory beside the value itself, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let histogram = match &self.total {
            SampleValue::Float(_) => 0,
            SampleValue::Histogram(histogram) => histogram.bytes(),
        };
        histogram + self.gaps.capacity() * size_of::<(Millis, Millis)>()
    }

    fn sample(&self) -> Sample {
        Sample {
            time: self.stored,
            start: self.start,
            value: self.total.clone(),
        }
    }

    fn gap_around(&self, start: Millis, time: Millis) -> Option<usize> {
        let mut gaps = self.gaps.iter();
        gaps.position(|gap| gap.0 <= start && time <= gap.1 && start < time)
    }

    /// Takes an interval out of the gap that it lies in.
    fn fill(&mut self, gap: usize, start: Millis, time: Millis) {
        let (from, to) = self.gaps.remove(gap);
        let left = [(from, start), (time, to)];
        let left = left.into_iter().filter(|(from, to)| from < to);
        self.gaps.splice(gap..gap, left);
        if self.gaps.len() > GAPS_MAX {
            let (_, end) = self.gaps.remove(0);
            self.counted_from = end;
        }
    }
}

fn check(delta: &Sample) -> Result<(), Refusal> {
    if delta.start > delta.time {
        return Err(ENDS_BEFORE_IT_BEGINS);
    }
    let sum = match &delta.value {
        SampleValue::Float(value) => *value,
        SampleValue::Histogram(histogram) => histogram.sum,
    };
    match sum.is_finite() {
        true => Ok(()),
        // One such value would stay in the total for good.
        false => Err(NOT_FINITE),
    }
}

fn is_same_kind(one: &SampleValue, other: &SampleValue) -> bool {
    match (one, other) {
        (SampleValue::Float(one), SampleValue::Float(_)) => one.is_finite(),
        (SampleValue::Histogram(one), SampleValue::Histogram(other)) => {
            one.sum.is_finite() && one.is_custom() == other.is_custom()
        }
        _ => false,
    }
}

/// Tells deltas of the same interval apart.
fn mark(value: &SampleValue) -> u64 {
    match value {
        SampleValue::Float(value) => value.to_bits(),
        SampleValue::Histogram(histogram) => {
            histogram.sum.to_bits().rotate_left(1) ^ histogram.count.to_bits()
        }
    }
}

fn add(total: &mut SampleValue, delta: &SampleValue) -> Result<(), Refusal> {
    match (total, delta) {
        (SampleValue::Float(total), SampleValue::Float(delta)) => *total += delta,
        (SampleValue::Histogram(total), SampleValue::Histogram(delta)) => {
            let total = Arc::make_mut(total);
            total.add(delta).map_err(|_| OTHER_KIND)?;
            // What readers do with it may compact it: the same total has the same form always.
            total.compact();
            let count = |h: &Histogram| h.positive.len() + h.negative.len();
            while count(total) > BUCKETS_INGESTED_MAX && total.schema > SCHEMA_MIN {
                total.reduce_schema(total.schema - 1);
            }
        }
        _ => return Err(OTHER_KIND),
    }
    Ok(())
}

fn zero(like: &SampleValue) -> SampleValue {
    match like {
        SampleValue::Float(_) => SampleValue::Float(0.0),
        SampleValue::Histogram(histogram) => SampleValue::Histogram(Arc::new(Histogram {
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive: Buckets::default(),
            negative: Buckets::default(),
            ..Histogram::clone(histogram)
        })),
    }
}

#[cfg(test)]
mod tests;
