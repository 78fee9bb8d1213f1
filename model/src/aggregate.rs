//! Aggregates: what is kept of a series' samples in a bucket, a slice of time whose length is a [`Resolution`].
//!
//! A bucket with the end `e` covers `(e - resolution, e]`, left-open as PromQL's ranges are: a range that ends at a multiple of the
//! resolution and is a multiple of it long is made of whole buckets, and what functions say of it is the same as over the samples.
//! Aggregates of neighbouring times can be joined, so that a bucket may be stored in two parts.

use crate::{Millis, add_compensated};

/// The bits of the value that marks a series as ended: the NaN that is Prometheus' stale marker. Other NaNs are ordinary values.
pub const STALE_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The length of buckets. Divides the length of the smallest window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// 5 min.
    FiveMinutes,
    /// 1 h.
    OneHour,
}

impl Resolution {
    /// All, ascending.
    pub const ALL: [Self; 2] = [Self::FiveMinutes, Self::OneHour];

    /// The length in milliseconds.
    #[must_use]
    pub const fn millis(self) -> Millis {
        match self {
            Self::FiveMinutes => 5 * 60 * 1000,
            Self::OneHour => 60 * 60 * 1000,
        }
    }

    /// The end of the bucket that a time is in; `None` at the end of time.
    #[must_use]
    pub fn bucket_end(self, time: Millis) -> Option<Millis> {
        let behind = time.checked_add(self.millis() - 1)?;
        Some(behind - behind.rem_euclid(self.millis()))
    }
}

/// What a series' samples in one bucket come to. Stale markers are no samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aggregate {
    /// The last millisecond of the bucket, a multiple of its resolution.
    pub end: Millis,
    /// How many samples there are. 0: only a stale marker, and what is said of samples below has no meaning.
    pub count: u64,
    /// Time of the first sample.
    pub first_time: Millis,
    /// Time of the last sample.
    pub last_time: Millis,
    /// Value of the first sample.
    pub first: f64,
    /// Value of the last sample.
    pub last: f64,
    /// The smallest value; NaN only when all are.
    pub min: f64,
    /// The largest value; NaN only when all are.
    pub max: f64,
    /// The sum, rounded once.
    pub sum: f64,
    /// Sum of the values in front of a smaller one. A counter grew by `last - first + dropped`, resets counted.
    pub dropped: f64,
    /// A stale marker stands behind the last sample.
    pub ends_stale: bool,
}

impl Aggregate {
    fn empty(end: Millis) -> Self {
        Self {
            end,
            count: 0,
            first_time: end,
            last_time: end,
            first: 0.0,
            last: 0.0,
            min: 0.0,
            max: 0.0,
            sum: 0.0,
            dropped: 0.0,
            ends_stale: false,
        }
    }

    /// Adds what comes behind, which may be of the same bucket or of a later one. The end is that of the later one.
    pub fn join(&mut self, behind: &Self) {
        if behind.count == 0 {
            self.end = behind.end;
            self.ends_stale |= behind.ends_stale;
            return;
        }
        if self.count == 0 {
            *self = *behind;
            return;
        }
        self.dropped += self.lost_before(behind) + behind.dropped;
        self.end = behind.end;
        self.count += behind.count;
        self.last_time = behind.last_time;
        self.last = behind.last;
        keep(&mut self.min, behind.min, |new, kept| new < kept);
        keep(&mut self.max, behind.max, |new, kept| new > kept);
        self.sum += behind.sum;
        self.ends_stale = behind.ends_stale;
    }

    /// What a counter loses from view by a reset between this aggregate and the next; both have samples.
    #[must_use]
    pub fn lost_before(&self, behind: &Self) -> f64 {
        match behind.first < self.last {
            true => self.last,
            false => 0.0,
        }
    }

    fn add(&mut self, lost: &mut f64, time: Millis, value: f64) {
        self.ends_stale = value.to_bits() == STALE_MARKER_BITS;
        if self.ends_stale {
            return;
        }
        if self.count == 0 {
            (self.first_time, self.first) = (time, value);
            (self.min, self.max) = (value, value);
        } else {
            if value < self.last {
                self.dropped += self.last;
            }
            keep(&mut self.min, value, |new, kept| new < kept);
            keep(&mut self.max, value, |new, kept| new > kept);
        }
        self.count += 1;
        (self.last_time, self.last) = (time, value);
        add_compensated(&mut self.sum, lost, value);
    }
}

/// A number beats NaN.
fn keep(kept: &mut f64, new: f64, better: impl Fn(f64, f64) -> bool) {
    if better(new, *kept) || kept.is_nan() {
        *kept = new;
    }
}

/// Appends the aggregates of samples, which ascend in time, one for each bucket that has a sample or a stale marker, in order of
/// time. What is in `into` is not looked at.
pub fn aggregate(
    samples: impl IntoIterator<Item = (Millis, f64)>,
    resolution: Resolution,
    into: &mut Vec<Aggregate>,
) {
    let mut open: Option<(Aggregate, f64)> = None;
    for (time, value) in samples {
        if open.as_ref().is_none_or(|(bucket, _)| time > bucket.end) {
            into.extend(open.take().map(close));
            let Some(end) = resolution.bucket_end(time) else {
                return;
            };
            open = Some((Aggregate::empty(end), 0.0));
        }
        if let Some((bucket, lost)) = &mut open {
            bucket.add(lost, time, value);
        }
    }
    into.extend(open.map(close));
}

fn close((mut bucket, lost): (Aggregate, f64)) -> Aggregate {
    bucket.sum += lost;
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[(Millis, f64)], resolution: Resolution) -> Vec<Aggregate> {
        let mut found = Vec::new();
        aggregate(samples.iter().copied(), resolution, &mut found);
        found
    }

    #[test]
    fn buckets_are_left_open() {
        let end = |time| Resolution::FiveMinutes.bucket_end(time);
        assert_eq!(end(0), Some(0));
        assert_eq!(end(1), Some(300_000));
        assert_eq!(end(300_000), Some(300_000));
        assert_eq!(end(-1), Some(0));
        assert_eq!(end(Millis::MAX), None);
    }

    #[test]
    fn resets_and_markers_are_kept() {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        let samples = [
            (300_000, 5.0),
            (310_000, 9.0),
            (320_000, 2.0),
            (330_000, stale),
            (340_000, 3.0),
            (610_000, stale),
        ];
        let found = of(&samples, Resolution::FiveMinutes);
        let [before, inside, stale_only] = found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((before.end, before.count, before.last), (300_000, 1, 5.0));
        assert_eq!((inside.count, inside.sum, inside.dropped), (3, 14.0, 9.0));
        assert_eq!((inside.min, inside.max, inside.first), (2.0, 9.0, 9.0));
        assert_eq!((inside.first_time, inside.last_time), (310_000, 340_000));
        assert!(!inside.ends_stale);
        assert_eq!((stale_only.count, stale_only.ends_stale), (0, true));
    }

    #[test]
    fn joined_parts_are_the_whole() {
        let value = |at: i64| f64::from(u32::try_from(at * 7 % 13).unwrap_or(0));
        let samples: Vec<_> = (0..200).map(|at| (at * 15_000, value(at))).collect();
        let whole = of(&samples, Resolution::OneHour);
        for cut in 1..200 {
            let mut parts = of(&samples[..cut], Resolution::OneHour);
            for part in of(&samples[cut..], Resolution::OneHour) {
                match parts.last_mut() {
                    Some(last) if last.end == part.end => last.join(&part),
                    _ => parts.push(part),
                }
            }
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }
}
