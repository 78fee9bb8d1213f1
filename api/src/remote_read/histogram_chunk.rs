//! Chunks of native histograms.
//!
//! ```text
//! data     samples u16 BE | flags u8 | layout | first | rest
//! flags    the highest two bits, about the first sample: 00 unknown, 01 no reset, 10 a reset, 11 gauges
//! layout   zero threshold | schema varbit_int | positive spans | negative spans | (schema -53) bounds
//!   zero threshold  00 for 0 | k + 244 for 2^k, k from -243 to 10 | ff + 64 bits
//!   spans           how many varbit_uint | each: length varbit_uint, offset varbit_int
//!   bounds          how many varbit_uint | each: thousandths + 1 varbit_uint, or a zero and 64 bits
//! counts   the number of all, the zero bucket; behind the sum: positive buckets, negative ones
//! HISTOGRAM (2): counts are integers, those of buckets as differences from the bucket before
//!   first   time varbit_int | number and zero bucket varbit_uint | sum 64 bits | buckets varbit_int
//!   rest    as first; differences of differences varbit_int, of the second sample differences; sum varbit_xor
//! FLOAT_HISTOGRAM (3)
//!   first   time varbit_int | counts and sum 64 bits each
//!   rest    time as above | counts and sum varbit_xor, each with a window of its own
//! ```
//! All samples have one layout. Readers take every sample behind the first for one without a reset, so a reset begins a
//! chunk, as does a change of the layout; and a stale marker, which has no buckets, is alone in a chunk.
//!
//! Source: `tsdb/docs/format/chunks.md` of Prometheus, and which histograms its `tsdb/chunkenc` puts into one chunk. A
//! bucket that appears begins a chunk here, where Prometheus rewrites those in front of it: what is read is what was
//! stored.

use super::bits::{Bits, Window};
use trefoil_model::{Histogram, Millis, ResetHint, histogram::Buckets};
use trefoil_query_promql::is_stale;

/// A chunk that is longer takes no further sample, so that a frame is not much longer than it should be.
const CHUNK_BYTES: usize = 64 << 10;
/// The largest bound in thousandths that has the short form.
const THOUSANDTHS_MAX: f64 = 33_554_430.0;
/// A zero threshold that follows as 64 bits.
const THRESHOLD_ODD: u64 = 255;

/// A chunk in the making.
pub(super) struct HistogramChunk<'a> {
    bits: Bits,
    samples: u16,
    last: &'a Histogram,
    time: Difference,
    sum: Changes,
    counts: Counts,
}

/// What is known of the counts of the last sample, in the order of the format.
enum Counts {
    Whole(Vec<Difference>),
    Fractional(Vec<Changes>),
}

/// An integer of the last sample, and how much more it was than in the sample before.
#[derive(Default)]
struct Difference {
    last: i64,
    delta: i64,
}

impl Difference {
    fn of_first(last: i64) -> Self {
        Self { last, delta: 0 }
    }

    /// The difference of differences by which the next sample has this number.
    fn next(&mut self, number: i64) -> i64 {
        let delta = number.wrapping_sub(self.last);
        let change = delta.wrapping_sub(self.delta);
        (self.last, self.delta) = (number, delta);
        change
    }
}

/// A number of the last sample, and where its changes stand.
#[derive(Default)]
struct Changes {
    last: u64,
    window: Window,
}

impl Changes {
    fn of_first(number: f64) -> Self {
        Self {
            last: number.to_bits(),
            window: Window::default(),
        }
    }

    fn write(&mut self, out: &mut Bits, number: f64) {
        self.window.write(out, self.last ^ number.to_bits());
        self.last = number.to_bits();
    }
}

impl<'a> HistogramChunk<'a> {
    /// A chunk of one sample.
    pub(super) fn begin(time: Millis, first: &'a Histogram) -> Self {
        let mut bits = Bits::default();
        // The number of samples is known at the end.
        bits.write(0, 16);
        bits.write(flags(first), 8);
        let stale = Histogram {
            sum: first.sum,
            ..Histogram::default()
        };
        let content = if is_stale(first.sum) { &stale } else { first };
        write_layout(&mut bits, content);
        bits.write_signed(time);
        let counts = match content.has_whole_counts() {
            true => Counts::begin_whole(&mut bits, content),
            false => Counts::begin_fractional(&mut bits, content),
        };
        Self {
            bits,
            samples: 1,
            last: first,
            time: Difference::of_first(time),
            sum: Changes::of_first(first.sum),
            counts,
        }
    }

    /// Whether a histogram can be the next sample.
    pub(super) fn takes(&self, next: &Histogram) -> bool {
        let (last, gauge) = (self.last, ResetHint::Gauge);
        let is_whole = matches!(self.counts, Counts::Whole(_));
        self.bits.bytes.len() < CHUNK_BYTES
            && self.samples < u16::MAX
            && ![last, next].iter().any(|one| is_stale(one.sum))
            && has_layout_of(next, last)
            && next.has_whole_counts() == is_whole
            && match last.reset_hint == gauge {
                true => next.reset_hint == gauge,
                false => next.continues(last),
            }
    }

    /// Appends a sample that the chunk takes.
    pub(super) fn push(&mut self, time: Millis, next: &'a Histogram) {
        self.bits.write_signed(self.time.next(time));
        let (bits, sum) = (&mut self.bits, &mut self.sum);
        match &mut self.counts {
            Counts::Whole(counts) => {
                let mut all = whole_counts(next).zip(counts);
                for (number, count) in all.by_ref().take(2) {
                    bits.write_signed(count.next(number));
                }
                sum.write(bits, next.sum);
                all.for_each(|(number, count)| bits.write_signed(count.next(number)));
            }
            Counts::Fractional(counts) => {
                let mut all = fractional_counts(next).zip(counts);
                for (number, count) in all.by_ref().take(2) {
                    count.write(bits, number);
                }
                sum.write(bits, next.sum);
                all.for_each(|(number, count)| count.write(bits, number));
            }
        }
        self.samples += 1;
        self.last = next;
    }

    /// The number by which the wire names the kind of the chunk.
    pub(super) fn encoding(&self) -> u64 {
        match self.counts {
            Counts::Whole(_) => 2,
            Counts::Fractional(_) => 3,
        }
    }

    /// The data of the chunk.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bits.bytes[..2].copy_from_slice(&self.samples.to_be_bytes());
        self.bits.bytes
    }
}

impl Counts {
    fn begin_whole(bits: &mut Bits, first: &Histogram) -> Self {
        let mut all = whole_counts(first);
        for number in all.by_ref().take(2) {
            bits.write_unsigned(number as u64);
        }
        bits.write(first.sum.to_bits(), 64);
        all.for_each(|number| bits.write_signed(number));
        Self::Whole(whole_counts(first).map(Difference::of_first).collect())
    }

    fn begin_fractional(bits: &mut Bits, first: &Histogram) -> Self {
        let mut all = fractional_counts(first);
        for number in all.by_ref().take(2) {
            bits.write(number.to_bits(), 64);
        }
        bits.write(first.sum.to_bits(), 64);
        all.for_each(|number| bits.write(number.to_bits(), 64));
        Self::Fractional(fractional_counts(first).map(Changes::of_first).collect())
    }
}

/// The counts in the order of the format: all, the zero bucket, the other buckets.
fn fractional_counts(histogram: &Histogram) -> impl Iterator<Item = f64> + '_ {
    let sides = [&histogram.positive, &histogram.negative];
    let buckets = sides.into_iter().flat_map(|side| side.counts()).copied();
    [histogram.count, histogram.zero_count]
        .into_iter()
        .chain(buckets)
}

/// The same as integers, those of buckets as differences from the bucket before.
fn whole_counts(histogram: &Histogram) -> impl Iterator<Item = i64> + '_ {
    let sides = [&histogram.positive, &histogram.negative];
    let ends = [histogram.count, histogram.zero_count];
    let ends = ends.into_iter().map(|count| count as i64);
    ends.chain(sides.into_iter().flat_map(Buckets::deltas))
}

fn has_layout_of(histogram: &Histogram, other: &Histogram) -> bool {
    histogram.schema == other.schema
        && histogram.zero_threshold.to_bits() == other.zero_threshold.to_bits()
        && histogram.custom_bounds == other.custom_bounds
        && histogram.positive.indexes() == other.positive.indexes()
        && histogram.negative.indexes() == other.negative.indexes()
}

fn flags(first: &Histogram) -> u64 {
    match first.reset_hint {
        ResetHint::Unknown => 0,
        ResetHint::NotReset => 0b01 << 6,
        ResetHint::Reset => 0b10 << 6,
        ResetHint::Gauge => 0b11 << 6,
    }
}

fn write_layout(out: &mut Bits, histogram: &Histogram) {
    write_threshold(out, histogram.zero_threshold);
    out.write_signed(i64::from(histogram.schema));
    for side in [&histogram.positive, &histogram.negative] {
        let spans = side.spans();
        out.write_unsigned(spans.len() as u64);
        for (offset, length) in spans {
            out.write_unsigned(u64::from(length));
            out.write_signed(i64::from(offset));
        }
    }
    if histogram.is_custom() {
        out.write_unsigned(histogram.custom_bounds.len() as u64);
        for bound in histogram.custom_bounds.iter() {
            write_bound(out, *bound);
        }
    }
}

fn write_threshold(out: &mut Bits, threshold: f64) {
    let bits = threshold.to_bits();
    // A power of two has no fraction, and its exponent stands above that with 1,023 more.
    let (fraction, exponent) = (bits << 12, (bits >> 52) as i64 - 1023);
    match fraction {
        0 if threshold == 0.0 => out.write(0, 8),
        0 if (-243..=10).contains(&exponent) => out.write((exponent + 244) as u64, 8),
        _ => {
            out.write(THRESHOLD_ODD, 8);
            out.write(bits, 64);
        }
    }
}

fn write_bound(out: &mut Bits, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    let is_short = (0.0..=THOUSANDTHS_MAX).contains(&thousandths)
        && (thousandths / 1000.0).to_bits() == bound.to_bits();
    if is_short {
        out.write_unsigned(thousandths as u64 + 1);
    } else {
        out.write(0, 1);
        out.write(bound.to_bits(), 64);
    }
}

#[cfg(test)]
mod tests;
