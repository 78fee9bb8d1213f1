//! One series whose samples are sums of deltas.
//!
//! ```text
//! newest          delta                     is
//! ---|              |------|                the begin of a new counter: 0 behind its start, then its value
//! ---|------|                               added
//! ---|  |---|---    |---|   (older)         refused, unless it is one of the last: then it was counted
//! ```
//! What a delta comes to depends on the newest total and on the sample in front of it, so that two holders that know the same make
//! the same samples. No total is made before a majority has the one that it goes on from, the deltas of one request apart: what a
//! holder has written and no other one has seen is therefore the last thing of a series, or of a request that is sent again as a whole.
//!
//! Of two samples of one time the store keeps the greater. That decides well whenever a delta was taken for a begin by one holder
//! and added by another: the sum stays, and the zero of the begin is *covered* by the total before it, see [`Counter::take`].
//!
//! It decides badly for who has gone on from the smaller one. A total is therefore gone on from only if no greater one of its time
//! can come to light. That is so for all but the *first* of a counter, which is known by the zero in front of it: another holder may
//! have added it to a total that was not seen where the counter began. The holder that began a counter where nothing was knows that
//! nobody has done so before, and stores the first before it goes on; who reads a first back begins anew with what adjoins it.
//! Because others may do that, what goes on from a first is always covered, up to what is stored with it. A first that is zero needs no
//! cover: it is the zero of what goes on from it, which is a first again.
//!
//! Pure: deltas come in, samples go out.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use trefoil_api::remote_write::{Sample, SampleValue};
use trefoil_model::{
    Histogram, Millis,
    histogram::{BUCKETS_INGESTED_MAX, Buckets, SCHEMA_MIN},
};
use trefoil_query_promql::STALE_MARKER_BITS;

/// Deltas that are known again when they are repeated, at least. Behind them a repeated delta is refused, though it was counted.
const RECENT: usize = 8;
/// The same for a series of which requests have more deltas than that, at most: 8 KiB.
const RECENT_MAX: usize = 1024;

/// How far in front of a delta's end its zero is at most, in milliseconds: the usual look-back. The first delta of a series may
/// begin when its process did, days ago; nobody looks for its zero there.
pub(crate) const ZERO_BEFORE_MAX: Millis = 300_000;

/// Why a delta does not count, in words.
pub(crate) type Refusal = &'static str;

const TWO_SENDERS: Refusal =
    "overlaps another delta of its series; two senders have the same labels";
const TOO_OLD: Refusal =
    "is older than the total of its series; it was counted already, or comes too late";
const NOT_FINITE: Refusal = "is no finite number";
const NEGATIVE: Refusal = "is negative; the total of its series would fall";
const ENDS_BEFORE_IT_BEGINS: Refusal = "ends before it begins";
const OTHER_BOUNDS: Refusal = "cannot be added to the total of its series";

/// A counter that is made of deltas.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    /// The newest total, or the stale marker of a pause; its start is that of the counter.
    newest: Option<Sample>,
    /// Whether the sample in front of it is a zero, as that of a begin is.
    is_first: bool,
    /// Whether a greater one of its time may come to light.
    is_loose: bool,
    /// Whether what is unstored goes on from a first.
    is_behind_first: bool,
    /// The samples up to the newest that a majority may not have, ascending.
    unstored: Vec<Sample>,
    /// Digests of the deltas that were counted last; 0 where there are none.
    recent: [u64; RECENT],
    /// Those in front of them, newest first, `earlier_max` at most; without memory unless requests have many of a series.
    earlier: VecDeque<u64>,
    earlier_max: usize,
    /// What was read back, while deltas are counted again of which it is the sum.
    repeated: Option<Repeated>,
}

/// Deltas that a holder counted before.
#[derive(Clone, Debug)]
struct Repeated {
    /// Where the first of them begins. Each of them began anew.
    begin: Millis,
    stored: Stored,
}

/// The newest samples of a series, as they were read back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// Those in front of the newest that are to be written again with it, ascending: at least the zero of a begin, unless an older
    /// program was asked.
    before: Vec<Sample>,
    newest: Sample,
}

/// Times that change what is stored of a delta.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// What ends before this may have been tried by another holder.
    pub(crate) doubtful_until: Millis,
}

impl Counter {
    /// The counter that goes on from what is stored, of which it is not known whether a majority has it. The delta that ends
    /// there was counted, if it is one of these, which ascend by time.
    pub(crate) fn read_back(stored: Stored, deltas: &[Sample]) -> Self {
        let time = stored.newest.time;
        let (mut begin, mut last) = (Millis::MAX, None::<&Sample>);
        for delta in deltas.iter().filter(|delta| delta.time <= time) {
            if check(delta).is_err() {
                last = None;
                continue;
            }
            if last.is_none_or(|last| last.time != start_of(delta)) {
                begin = start_of(delta);
            }
            last = Some(delta);
        }
        let last = last.filter(|last| last.time == time);
        if last.is_some_and(|last| mark(&last.value) == mark(&stored.newest.value)) {
            // It began with it, and what of the request is in front of it may not be stored either: it is made again.
            return Self {
                repeated: Some(Repeated { begin, stored }),
                ..Self::default()
            };
        }
        let mut counter = Self::default();
        if let Some(delta) = last.filter(|last| is_same_kind(&stored.newest.value, &last.value)) {
            counter.note(digest(delta));
        }
        counter.go_on_from(stored);
        counter
    }

    /// Goes on from what was read back, which is written again.
    fn go_on_from(&mut self, stored: Stored) {
        let Stored { before, newest } = stored;
        self.is_first = !is_pause(&newest.value)
            && (before.last()).is_some_and(|before| is_zero(&before.value));
        self.is_loose = self.is_first;
        let known = self.newest.as_ref().map(|known| known.time);
        self.unstored.reserve_exact(before.len() + 1);
        let before = before
            .into_iter()
            .filter(|one| known.is_none_or(|known| known < one.time));
        self.unstored.extend(before);
        self.unstored.push(newest.clone());
        self.newest = Some(newest);
    }

    /// Counts a delta. What is to be stored of it is added to what is unstored, and nothing of one that was counted.
    ///
    /// Where the store may come to hold the zero of a begin that another holder took the delta for, and could tell nobody of, the
    /// total before is written once more, at the time of that zero: it is the greater.
    ///
    /// # Errors
    /// When it does not count; nothing has changed then.
    pub(crate) fn take(&mut self, delta: &Sample, bounds: Bounds) -> Result<(), Refusal> {
        let digest = digest(delta);
        // What ends behind the newest total was not counted.
        let may_repeat = (self.newest.as_ref()).is_some_and(|newest| delta.time <= newest.time);
        if may_repeat && (self.recent.contains(&digest) || self.earlier.contains(&digest)) {
            return Ok(());
        }
        check(delta)?;
        if let (None, Some(repeated)) = (&self.newest, &self.repeated)
            && start_of(delta) < repeated.begin
        {
            return Err(TOO_OLD);
        }
        match &self.newest {
            Some(newest) if delta.time < newest.time => return Err(TOO_OLD),
            Some(newest) if delta.time == newest.time => return Err(TWO_SENDERS),
            Some(newest) if !is_pause(&delta.value) && start_of(delta) < newest.time => {
                return Err(TWO_SENDERS);
            }
            _ => {}
        }
        let (is_doubtful, is_repeated) =
            (delta.time < bounds.doubtful_until, self.repeated.is_some());
        let (total, is_first, is_loose) = match &self.newest {
            _ if is_pause(&delta.value) => (delta.clone(), false, false),
            Some(newest) if self.goes_on(newest, delta) => {
                let total = Sample {
                    time: delta.time,
                    start: newest.start,
                    value: sum(&newest.value, &delta.value)?,
                };
                self.is_behind_first |= self.is_first;
                if is_doubtful || self.is_behind_first {
                    self.unstored.extend(cover(newest, delta));
                }
                (total, is_zero(&newest.value), false)
            }
            newest => {
                self.unstored.extend(zero(delta, newest.as_ref()));
                let adjoins = |newest: &Sample| newest.time == start_of(delta);
                let is_behind = self.is_loose && newest.as_ref().is_some_and(adjoins);
                let is_loose = is_repeated || is_behind && is_doubtful;
                (delta.clone(), true, is_loose)
            }
        };
        self.repeated
            .take_if(|repeated| repeated.stored.newest.time <= total.time);
        self.unstored.push(total.clone());
        (self.is_first, self.is_loose) = (is_first, is_loose);
        self.newest = Some(total);
        self.note(digest);
        Ok(())
    }

    /// No more deltas come of the request that the counter was read back for: what was not counted again of it counts as it was
    /// read back, as far as the counter is not empty.
    pub(crate) fn settle(&mut self) {
        if let Some(repeated) = self.repeated.take_if(|_| self.newest.is_some()) {
            self.go_on_from(repeated.stored);
        }
    }

    /// Whether a delta is added to a total. Where there is no room for a zero it has to be.
    fn goes_on(&self, newest: &Sample, delta: &Sample) -> bool {
        let is_solid = !self.is_loose && (!self.is_first || self.unstored.is_empty());
        let adjoins = start_of(delta) == newest.time && is_solid;
        (adjoins || zero(delta, Some(newest)).is_none())
            && is_same_kind(&newest.value, &delta.value)
    }

    /// A request with so many deltas is to be counted: as many are known again when it is repeated. What was needed for earlier
    /// requests is given up over some thirty of them.
    pub(crate) fn expect(&mut self, deltas: usize) {
        let wanted = deltas.min(RECENT_MAX).saturating_sub(RECENT);
        self.earlier_max = wanted.max(self.earlier_max * 7 / 8);
        self.earlier.truncate(self.earlier_max);
        self.earlier.shrink_to(self.earlier_max * 2);
    }

    /// When the newest total stands, if there is one.
    pub(crate) fn newest_at(&self) -> Option<Millis> {
        let repeated = self
            .repeated
            .as_ref()
            .map(|repeated| &repeated.stored.newest);
        let newest = self.newest.iter().chain(repeated);
        newest.map(|total| total.time).max()
    }

    /// Whether nothing was counted, nor read back as what it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// The samples that a majority may not have, ascending.
    pub(crate) fn unstored(&self) -> &[Sample] {
        &self.unstored
    }

    /// Samples that a deletion erases need not be stored.
    pub(crate) fn drop_unstored(&mut self, mut erases: impl FnMut(Millis) -> bool) {
        self.unstored.retain(|sample| !erases(sample.time));
    }

    /// A majority has everything.
    pub(crate) fn stored(&mut self) {
        self.unstored = Vec::new();
        self.is_behind_first = false;
    }

    /// Memory beside the value itself, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let repeated = self.repeated.iter().map(|repeated| repeated.stored.bytes());
        let samples = self.newest.iter().chain(&self.unstored);
        samples.map(value_bytes).sum::<usize>()
            + repeated.sum::<usize>()
            + self.unstored.capacity() * size_of::<Sample>()
            + self.earlier.capacity() * size_of::<u64>()
    }

    fn note(&mut self, digest: u64) {
        self.recent.rotate_right(1);
        let earlier = std::mem::replace(&mut self.recent[0], digest);
        if self.earlier_max > 0 && earlier != 0 {
            self.earlier.truncate(self.earlier_max - 1);
            self.earlier.push_front(earlier);
        }
    }
}

impl Stored {
    /// What is kept of the newest samples of a series, which ascend. `None` of none.
    pub(crate) fn of(mut samples: Vec<Sample>) -> Option<Self> {
        let newest = samples.pop()?;
        let mut stored = Self {
            before: samples,
            newest,
        };
        stored.cut(stored.written_again());
        Some(stored)
    }

    /// When the newest sample stands.
    pub(crate) fn time(&self) -> Millis {
        self.newest.time
    }

    /// Keeps no more in front of the newest than its zero or cover, for where memory is short. Those further in front may be lost with
    /// a replica then, if only a minority has them.
    pub(crate) fn shorten(&mut self) {
        self.cut(self.before.len().saturating_sub(1));
    }

    /// Drops so many of the samples in front, the first ones.
    fn cut(&mut self, count: usize) {
        self.before.drain(..count);
        self.before.shrink_to_fit();
    }

    /// From which of the samples in front on all are to be written again with the newest. A total stays right only together with its
    /// cover, and a cover, which has the value of the sample in front of it, only with the total that it comes from; a zero comes from
    /// nothing. In front of that a majority has everything, or it says nothing of the newest total.
    fn written_again(&self) -> usize {
        let before = &self.before;
        let (mut first, mut total) = (before.len(), &self.newest);
        while let Some(cover) = first.checked_sub(1) {
            if is_zero(&before[cover].value) {
                return cover;
            }
            match cover.checked_sub(1) {
                Some(base) if may_cover(&before[base], &before[cover], total) => {
                    (first, total) = (base, &before[base]);
                }
                Some(_) => return first,
                None => return cover,
            }
        }
        first
    }

    /// Memory beside the values themselves, bytes.
    pub(crate) fn bytes(&self) -> usize {
        let values = self.before.iter().chain([&self.newest]).map(value_bytes);
        self.before.capacity() * size_of::<Sample>() + values.sum::<usize>()
    }
}

/// Memory of a sample's value beside it, bytes.
fn value_bytes(sample: &Sample) -> usize {
    match &sample.value {
        SampleValue::Float(_) => 0,
        SampleValue::Histogram(histogram) => histogram.bytes(),
    }
}

/// Where a delta begins. One that does not say it counts for itself, as if it had happened all at its time.
pub(crate) fn start_of(delta: &Sample) -> Millis {
    match delta.start {
        0 => delta.time,
        start => start,
    }
}

/// The zero of the counter that begins with a delta, if there is room for one behind the newest sample: 1 ms behind the start,
/// where the sender's last total may stand. Two holders put it at the same place, whenever they do.
fn zero(delta: &Sample, newest: Option<&Sample>) -> Option<Sample> {
    let earliest = delta.time - ZERO_BEFORE_MAX;
    let time = (start_of(delta) + 1).max(earliest).min(delta.time - 1);
    let has_room = newest.is_none_or(|newest| newest.time < time);
    has_room.then(|| Sample {
        time,
        start: delta.start,
        value: zero_like(&delta.value),
    })
}

/// What covers the zero of a begin with a delta that goes on from a total. A total that is zero has none: where it stands right in front,
/// it is the zero of what goes on from it, which is the same total as that of a begin.
fn cover(newest: &Sample, delta: &Sample) -> Option<Sample> {
    let time = zero(delta, Some(newest))?.time;
    let is_needed = !is_zero(&newest.value) || time > newest.time + 1;
    is_needed.then(|| Sample {
        time,
        ..newest.clone()
    })
}

/// Whether a sample between two others stands where the cover of the later one does, if that goes on from the earlier one. Totals of a
/// counter that is idle have the same value as well.
fn may_cover(base: &Sample, cover: &Sample, total: &Sample) -> bool {
    let time = (base.time + 1).max(total.time - ZERO_BEFORE_MAX);
    cover.time == time && mark(&base.value) == mark(&cover.value)
}

fn check(delta: &Sample) -> Result<(), Refusal> {
    if delta.start > delta.time {
        return Err(ENDS_BEFORE_IT_BEGINS);
    }
    let sum = match &delta.value {
        _ if is_pause(&delta.value) => 0.0,
        // Of an older program: the greater of two totals would not be the one that has counted more.
        SampleValue::Float(value) if *value < 0.0 => return Err(NEGATIVE),
        SampleValue::Float(value) => *value,
        SampleValue::Histogram(histogram) => histogram.sum,
    };
    match sum.is_finite() {
        true => Ok(()),
        // One such value would stay in the total for good.
        false => Err(NOT_FINITE),
    }
}

/// Whether a series pauses here.
fn is_pause(value: &SampleValue) -> bool {
    matches!(value, SampleValue::Float(value) if value.to_bits() == STALE_MARKER_BITS)
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

/// Whether a total is zero.
fn is_zero(value: &SampleValue) -> bool {
    match value {
        SampleValue::Float(value) => *value == 0.0,
        SampleValue::Histogram(histogram) => histogram.count == 0.0,
    }
}

/// Tells deltas apart.
fn digest(delta: &Sample) -> u64 {
    let mut hasher = DefaultHasher::new();
    (delta.start, delta.time, mark(&delta.value)).hash(&mut hasher);
    hasher.finish()
}

/// Tells values of deltas of the same interval apart.
fn mark(value: &SampleValue) -> (u64, u64) {
    match value {
        SampleValue::Float(value) => (value.to_bits(), 0),
        SampleValue::Histogram(histogram) => (histogram.sum.to_bits(), histogram.count.to_bits()),
    }
}

fn sum(total: &SampleValue, delta: &SampleValue) -> Result<SampleValue, Refusal> {
    match (total, delta) {
        (SampleValue::Float(total), SampleValue::Float(delta)) => {
            Ok(SampleValue::Float(total + delta))
        }
        (SampleValue::Histogram(total), SampleValue::Histogram(delta)) => {
            let mut total = Histogram::clone(total);
            total.add(delta).map_err(|_| OTHER_BOUNDS)?;
            // What readers do with it may compact it: the same total has the same form always.
            total.compact();
            let count = |h: &Histogram| h.positive.len() + h.negative.len();
            while count(&total) > BUCKETS_INGESTED_MAX && total.schema > SCHEMA_MIN {
                total.reduce_schema(total.schema - 1);
            }
            Ok(SampleValue::Histogram(Arc::new(total)))
        }
        _ => Err(OTHER_BOUNDS),
    }
}

fn zero_like(value: &SampleValue) -> SampleValue {
    match value {
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
