//! Deltas of one series that end in the same millisecond: what a node adds up has one total for each millisecond.
//!
//! Points tell time in nanoseconds, so they can be told apart here, and only here. Those that follow each other become one delta of
//! all their intervals, the same whenever the request is sent again. What is left of a series and time, because it overlaps, is for
//! the node to refuse; a point that comes twice is rejected here, because there it would look like one that is repeated.

use super::translate::Imported;
use crate::{
    ApiError, WriteLimits,
    remote_write::{Sample, SampleValue, WriteRequest},
};
use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use trefoil_model::{Histogram, Labels, histogram::BUCKETS_INGESTED_MAX};

/// Of which point a delta is, and its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interval {
    /// The point's number in its request.
    pub(super) point: u64,
    /// Nanoseconds since 1970; 0 when the point does not say.
    pub(super) start: u64,
    /// Nanoseconds since 1970.
    pub(super) end: u64,
}

/// A delta of a series.
struct Delta<'a> {
    canonical: &'a [u8],
    sample: Sample,
    interval: Interval,
}

/// Samples of points that came twice, and the labels of the first of them.
#[derive(Debug, Default)]
pub(super) struct Twice {
    pub(super) samples: u64,
    pub(super) first: Labels,
}

/// Adds deltas of a series that end in the same millisecond, one behind the other.
///
/// # Errors
/// Those of `grow`, which is asked for the bytes of a copy if there are any; nothing has changed then.
pub(super) fn add_up(
    out: &mut Imported,
    limits: &WriteLimits,
    grow: &mut dyn FnMut(usize) -> Result<(), ApiError>,
) -> Result<Twice, ApiError> {
    let mut twice = Twice::default();
    if !may_share_times(&out.deltas) {
        return Ok(twice);
    }
    grow(out.capacity_bytes() + out.deltas.capacity_bytes())?;
    // The tenant's limits were asked about each delta; what they come to together is not refused behind their back.
    let limits = &WriteLimits {
        native_buckets_max: 0,
        ..*limits
    };
    let mut added = WriteRequest::default();
    let mut deltas = deltas_of(out).into_iter().peekable();
    while let Some(mut delta) = deltas.next() {
        while let Some(next) = deltas.peek() {
            if delta.comes_twice_in(next) {
                twice.add(next);
            } else if !delta.add(next) {
                break;
            }
            deltas.next();
        }
        let labels = Labels::from_canonical(delta.canonical).unwrap_or_default();
        let mut pairs: Vec<(&str, &str)> = labels.iter().collect();
        added.push_samples(&mut pairs, [delta.sample], limits)?;
    }
    drop(deltas);
    added.take_refusals_of(&mut out.deltas);
    out.deltas = added;
    out.intervals.clear();
    Ok(twice)
}

/// Whether two deltas may be of the same series and time: seldom if they are not.
fn may_share_times(deltas: &WriteRequest) -> bool {
    let mut seen = HashSet::with_capacity(deltas.series_count());
    let mut all = deltas.series().flat_map(|series| {
        let times = series.samples().iter();
        times.map(move |(time, _)| {
            let mut hasher = DefaultHasher::new();
            (series.canonical(), time).hash(&mut hasher);
            hasher.finish()
        })
    });
    !all.all(|one| seen.insert(one))
}

/// The deltas in the order of series, milliseconds and ends.
fn deltas_of(out: &Imported) -> Vec<Delta<'_>> {
    let samples = out.deltas.series().flat_map(|series| {
        let samples = series.whole_samples();
        samples.map(move |sample| (series.canonical(), sample))
    });
    let mut deltas: Vec<Delta<'_>> = samples
        .zip(&out.intervals)
        .map(|((canonical, sample), interval)| Delta {
            canonical,
            sample,
            interval: *interval,
        })
        .collect();
    deltas.sort_by_key(|delta| (delta.canonical, delta.sample.time, delta.interval.end));
    // A bucket that is told twice in one point.
    deltas.dedup_by(|next, one| {
        one.canonical == next.canonical
            && one.interval == next.interval
            && one.sample == next.sample
    });
    deltas
}

impl Delta<'_> {
    fn ends_with(&self, other: &Self) -> bool {
        self.canonical == other.canonical
            && self.sample.time == other.sample.time
            && self.interval.point != other.interval.point
    }

    fn comes_twice_in(&self, other: &Self) -> bool {
        self.ends_with(other)
            && (self.interval.start, self.interval.end)
                == (other.interval.start, other.interval.end)
            && self.sample == other.sample
    }

    /// Adds one that begins where this one ends, or later. Whether it did.
    fn add(&mut self, next: &Self) -> bool {
        let follows = next.interval.end > self.interval.end
            && (next.interval.start == 0 || next.interval.start >= self.interval.end);
        if !self.ends_with(next) || !follows {
            return false;
        }
        let Some(sum) = sum(&self.sample.value, &next.sample.value) else {
            return false;
        };
        self.sample.value = sum;
        self.interval.end = next.interval.end;
        self.interval.point = next.interval.point;
        true
    }
}

impl Twice {
    fn add(&mut self, delta: &Delta<'_>) {
        if self.samples == 0 {
            self.first = Labels::from_canonical(delta.canonical).unwrap_or_default();
        }
        self.samples += 1;
    }
}

/// What two deltas come to; nothing if one is a marker, or they cannot be added.
fn sum(one: &SampleValue, other: &SampleValue) -> Option<SampleValue> {
    match (one, other) {
        (SampleValue::Float(one), SampleValue::Float(other)) => {
            let sum = one + other;
            sum.is_finite().then_some(SampleValue::Float(sum))
        }
        (SampleValue::Histogram(one), SampleValue::Histogram(other)) => {
            let mut sum = Histogram::clone(one);
            sum.add(other).ok()?;
            sum.compact();
            let buckets = sum.positive.len() + sum.negative.len();
            let fits = buckets <= BUCKETS_INGESTED_MAX && sum.sum.is_finite();
            fits.then(|| SampleValue::Histogram(Arc::new(sum)))
        }
        _ => None,
    }
}
