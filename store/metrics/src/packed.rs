//! Columns of floats as small numbers of differing length: of each the number of its bits stands in a column of bytes, which
//! compresses well, and the bits themselves, which are noise that no compressor makes shorter, stand apart and are not compressed.
//!
//! ```text
//! packed   = kind u8 (5 values, 6 deltas, 7 differences of deltas) | scale u8 | exceptions, as in `value`
//!            | zigzag varint base | kind 7: zigzag varint first quotient | varint divisor | class u8 per number
//! quotient = (mantissa - first mantissa) / divisor, of every value
//! number   of kind 5, per value: quotient - the smallest quotient; the base is the mantissa of that one
//!          of kind 6, per value but the first, whose mantissa is the base: zigzag of the quotient behind the previous one
//!          of kind 7, per value but the first two: zigzag of that difference behind the previous one
//! class    = how many bits the number has, 0 to 64
//! bits     = per number its bits below the highest one, from the lowest bit of the first byte on; filled up to a byte
//! ```
//! What a mantissa stands for is said by the [`Scale`]. Differences go round at 64 bits.

use crate::body::{unzigzag, zigzag};
use crate::value::{
    DECIMALS_MAX, MANTISSA_MAX, POWERS, apply_exceptions, is_exception, mantissa, skip_exceptions,
    write_exceptions,
};
use std::ops::RangeInclusive;
use trefoil_model::{read_varint, write_varint};

pub(crate) const KIND_PACKED: u8 = 5;
const KIND_DELTA: u8 = 6;
pub(crate) const KIND_PACKED_DELTA2: u8 = 7;

/// Bytes that must be readable behind a section of bits, so that each number is read at once.
pub(crate) const BITS_PADDING: usize = 16;

/// `10^-d` as a program has it that multiplies by a unit: not the same as a division by `10^d`.
const FRACTIONS: [f64; DECIMALS_MAX as usize + 1] = [
    1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14,
    1e-15,
];

/// What a mantissa `m` stands for. All are exact: the value comes back with the same bits on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// `m / 10^d`: decimals.
    Divided(u8),
    /// `m * 10^-d`, rounded once more than the decimal: what exporters make of milliseconds.
    Multiplied(u8),
    /// `m / 1000 / 1000`: what exporters make of microseconds.
    DividedTwice,
    /// The place of the value in the order of all floats.
    Ordered,
}

impl Scale {
    const MULTIPLIED: u8 = 16;
    const DIVIDED_TWICE: u8 = 32;
    const ORDERED: u8 = 33;

    fn byte(self) -> u8 {
        match self {
            Self::Divided(decimals) => decimals,
            Self::Multiplied(decimals) => Self::MULTIPLIED + decimals,
            Self::DividedTwice => Self::DIVIDED_TWICE,
            Self::Ordered => Self::ORDERED,
        }
    }

    fn read(byte: u8) -> Option<Self> {
        match byte {
            0..=DECIMALS_MAX => Some(Self::Divided(byte)),
            Self::MULTIPLIED..Self::DIVIDED_TWICE => {
                Some(Self::Multiplied(byte - Self::MULTIPLIED))
            }
            Self::DIVIDED_TWICE => Some(Self::DividedTwice),
            Self::ORDERED => Some(Self::Ordered),
            _ => None,
        }
    }

    /// The mantissa that stands for exactly this value, if there is one.
    #[inline]
    fn mantissa(self, value: f64) -> Option<i64> {
        let (power, unscale): (f64, fn(i64, u8) -> f64) = match self {
            Self::Divided(decimals) => return mantissa(value, decimals),
            Self::Multiplied(decimals) => (POWERS[usize::from(decimals)], multiplied),
            Self::DividedTwice => (1e6, |mantissa, _| divided_twice(mantissa)),
            Self::Ordered => return Some(ordered(value)),
        };
        let scaled = value * power;
        if scaled.is_nan() || scaled.abs() > MANTISSA_MAX {
            return None;
        }
        let mantissa = scaled.round() as i64;
        let decimals = match self {
            Self::Multiplied(decimals) => decimals,
            _ => 0,
        };
        (unscale(mantissa, decimals).to_bits() == value.to_bits()).then_some(mantissa)
    }
}

fn multiplied(mantissa: i64, decimals: u8) -> f64 {
    mantissa as f64 * FRACTIONS[usize::from(decimals)]
}

fn divided_twice(mantissa: i64) -> f64 {
    mantissa as f64 / 1e3 / 1e3
}

/// The bits of a float as a number that grows with it.
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

fn from_ordered(number: i64) -> f64 {
    let bits = if number < 0 {
        number ^ i64::MAX
    } else {
        number
    };
    f64::from_bits(bits as u64)
}

/// Decimals, as bytes of scales.
const DECIMALS: RangeInclusive<u8> = 0..=DECIMALS_MAX;
/// Up to so many a column is taken for what it looks like: nanoseconds in seconds.
const DECIMALS_USUAL: u8 = 9;
/// What is tried beside decimals.
const FAMILIES: [RangeInclusive<u8>; 3] = [
    Scale::MULTIPLIED + 1..=Scale::DIVIDED_TWICE - 1,
    Scale::DIVIDED_TWICE..=Scale::DIVIDED_TWICE,
    Scale::ORDERED..=Scale::ORDERED,
];

/// How a column can be packed.
#[derive(Clone, Copy, Debug)]
struct Form {
    scale: Scale,
    divisor: u64,
    kind: u8,
    /// What the classes of all numbers add up to.
    bits: u64,
}

/// Packs columns; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    mantissas: Vec<i64>,
    exceptions: Vec<(usize, u64)>,
    /// Of each mantissa behind the first one, by the divisor.
    quotients: Vec<i64>,
    numbers: Vec<u64>,
}

impl Packer {
    /// Appends the packed column of `values`, which has at least one, to `content`, and its bits to `bits`.
    pub(crate) fn pack(&mut self, values: &[f64], content: &mut Vec<u8>, bits: &mut Vec<u8>) {
        let form = self.find_form(values);
        content.extend_from_slice(&[form.kind, form.scale.byte()]);
        write_exceptions(&self.exceptions, content);
        let base = match form.kind {
            KIND_PACKED => self.smallest().wrapping_mul(form.divisor as i64),
            _ => 0,
        };
        write_varint(content, zigzag(self.mantissas[0].wrapping_add(base)));
        if form.kind == KIND_PACKED_DELTA2 {
            write_varint(content, zigzag(self.quotients[1]));
        }
        write_varint(content, form.divisor);
        self.number(form.kind);
        content.extend(self.numbers.iter().map(|number| class(*number) as u8));
        write_bits(&self.numbers, bits);
    }

    /// Fills `mantissas` and `exceptions` for the form that has the fewest bits, of those that were tried.
    fn find_form(&mut self, values: &[f64]) -> Form {
        let decimal = self.first_fitting(values, DECIMALS);
        if let Some(form) = decimal
            && form.scale.byte() <= DECIMALS_USUAL
        {
            return form;
        }
        // So many decimals are noise: nearly every float can be had with them.
        let others = FAMILIES.map(|family| self.first_fitting(values, family));
        let forms = others.into_iter().chain([decimal]).flatten();
        let scale = match forms.min_by_key(|form| form.bits) {
            Some(best) => best.scale,
            None => Scale::Ordered,
        };
        let exceptions = values.iter().filter(|value| is_exception(**value));
        let is_exception = match exceptions.count() * 2 > values.len() {
            true => |_| false,
            false => is_exception,
        };
        let tried = self.try_scale(values, scale, is_exception);
        assert!(tried.is_ok(), "it was tried before, or gives every float");
        self.form(scale)
    }

    /// Fills `mantissas` and `exceptions` with the first scale of a family that gives all values exactly, if there is one.
    fn first_fitting(&mut self, values: &[f64], family: RangeInclusive<u8>) -> Option<Form> {
        let mut scales = family.filter_map(Scale::read);
        let mut scale = scales.next()?;
        while let Err(value) = self.try_scale(values, scale, is_exception) {
            scale = scales.find(|scale| scale.mantissa(value).is_some())?;
        }
        (self.exceptions.len() * 2 <= values.len()).then(|| self.form(scale))
    }

    /// # Errors
    /// The first value that the scale does not give.
    fn try_scale(
        &mut self,
        values: &[f64],
        scale: Scale,
        is_exception: fn(f64) -> bool,
    ) -> Result<(), f64> {
        self.mantissas.clear();
        self.exceptions.clear();
        let mut previous = None;
        for (position, &value) in values.iter().enumerate() {
            if is_exception(value) {
                self.exceptions.push((position, value.to_bits()));
                self.mantissas.extend(previous);
                continue;
            }
            let mantissa = scale.mantissa(value).ok_or(value)?;
            // Exceptions before the first number repeat it.
            self.mantissas.resize(position, mantissa);
            self.mantissas.push(mantissa);
            previous = Some(mantissa);
        }
        self.mantissas.resize(values.len(), 0);
        Ok(())
    }

    fn smallest(&self) -> i64 {
        self.quotients.iter().copied().min().unwrap_or(0)
    }

    /// What all differences between mantissas can be divided by.
    fn divisor(&self, scale: Scale) -> u64 {
        let differences = self
            .mantissas
            .windows(2)
            .map(|two| two[1].wrapping_sub(two[0]));
        if scale == Scale::Ordered {
            // Differences may have gone round: powers of two divide them all the same.
            let any = differences.fold(0, |any, difference| any | difference);
            return if any == 0 {
                1
            } else {
                1 << any.trailing_zeros()
            };
        }
        let mut divisor = 0;
        for difference in differences {
            divisor = greatest_common_divisor(divisor, difference.unsigned_abs());
            if divisor == 1 {
                break;
            }
        }
        divisor.max(1)
    }

    /// Fills `quotients` for `mantissas`, and says with which kind their numbers have the fewest bits.
    fn form(&mut self, scale: Scale) -> Form {
        let divisor = self.divisor(scale);
        self.divide(divisor);
        let smallest = self.smallest();
        let bits = |number: u64| u64::from(class(number));
        let (mut previous, mut previous_delta) = (0i64, 0i64);
        let (mut values, mut deltas, mut deltas2) = (0, 0, 0);
        for &quotient in &self.quotients {
            let delta = quotient.wrapping_sub(previous);
            values += bits(quotient.wrapping_sub(smallest) as u64);
            deltas += bits(zigzag(delta));
            deltas2 += bits(zigzag(delta.wrapping_sub(previous_delta)));
            (previous, previous_delta) = (quotient, delta);
        }
        let (kind, bits) = if self.quotients.len() > 2 && deltas2 < deltas.min(values) {
            (KIND_PACKED_DELTA2, deltas2)
        } else if values < deltas {
            (KIND_PACKED, values)
        } else {
            (KIND_DELTA, deltas)
        };
        Form {
            scale,
            divisor,
            kind,
            bits,
        }
    }

    fn divide(&mut self, divisor: u64) {
        let first = self.mantissas[0];
        let behind = self.mantissas.iter().map(|m| m.wrapping_sub(first));
        self.quotients.clear();
        match divisor {
            1 => self.quotients.extend(behind),
            _ if divisor.is_power_of_two() => {
                let shift = divisor.trailing_zeros();
                self.quotients.extend(behind.map(|behind| behind >> shift));
            }
            // Only mantissas of decimals have others, and differences of those are below 2^54.
            _ => {
                let quotients = behind.map(|behind| behind / divisor as i64);
                self.quotients.extend(quotients);
            }
        }
    }

    /// Fills `numbers` for a kind.
    fn number(&mut self, kind: u8) {
        self.numbers.clear();
        let deltas = self.quotients.windows(2);
        let mut deltas = deltas.map(|two| two[1].wrapping_sub(two[0]));
        match kind {
            KIND_PACKED => {
                let smallest = self.smallest();
                let behind = |quotient: &i64| quotient.wrapping_sub(smallest) as u64;
                self.numbers.extend(self.quotients.iter().map(behind));
            }
            KIND_DELTA => self.numbers.extend(deltas.map(zigzag)),
            _ => {
                let mut previous = deltas.next().unwrap_or(0);
                self.numbers.extend(deltas.map(|delta| {
                    let step = delta.wrapping_sub(previous);
                    previous = delta;
                    zigzag(step)
                }));
            }
        }
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// How many bits a number has.
#[inline]
fn class(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

fn write_bits(numbers: &[u64], out: &mut Vec<u8>) {
    let (mut open, mut filled) = (0u64, 0);
    for &number in numbers {
        let below = class(number).saturating_sub(1);
        let rest = number & ((1 << below) - 1);
        open |= rest << filled;
        filled += below;
        if filled >= u64::BITS {
            out.extend_from_slice(&open.to_le_bytes());
            filled -= u64::BITS;
            // What had no room; at most 63 bits were added, so some were there before.
            open = rest >> (below - filled);
        }
    }
    out.extend_from_slice(&open.to_le_bytes()[..filled.div_ceil(8) as usize]);
}

/// A section of bits, taken column by column.
#[derive(Debug, Default)]
pub(crate) struct Bits<'a> {
    /// With the padding behind `end`.
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Bits<'a> {
    /// The section `start..end` of `bytes`, which has [`BITS_PADDING`] more bytes.
    ///
    /// # Panics
    /// When it has not.
    pub(crate) fn new(bytes: &'a [u8], start: usize, end: usize) -> Self {
        assert!(start <= end && end + BITS_PADDING <= bytes.len());
        Self {
            bytes,
            at: start,
            end,
        }
    }

    /// Whether all were taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// The bytes from the beginning of numbers of these classes on; `None` when there are not enough.
    fn take(&mut self, classes: &[u8]) -> Option<&'a [u8]> {
        let below = |class: &u8| u64::from(class.saturating_sub(1));
        let length: u64 = classes.iter().map(below).sum();
        let next = self
            .at
            .checked_add(usize::try_from(length.div_ceil(8)).ok()?)?;
        if next > self.end {
            return None;
        }
        let bytes = &self.bytes[self.at..];
        self.at = next;
        Some(bytes)
    }
}

/// Calls `each` for every number of these classes.
#[inline]
fn read_bits(classes: &[u8], bytes: &[u8], out: &mut Vec<f64>, mut each: impl FnMut(u64) -> i64) {
    let mut at = 0usize;
    out.extend(classes.iter().map(|&class| {
        let below = u32::from(class.saturating_sub(1));
        let (byte, shift) = (at / 8, at % 8);
        at += below as usize;
        let rest = if below <= 56 {
            let eight = bytes[byte..].first_chunk().expect("padding");
            u64::from_le_bytes(*eight) >> shift
        } else {
            let sixteen = bytes[byte..].first_chunk().expect("padding");
            (u128::from_le_bytes(*sixteen) >> shift) as u64
        };
        let number = (rest & ((1 << below) - 1)) | u64::from(class != 0) << below;
        f64::from_bits(each(number) as u64)
    }));
}

/// Appends `count` values of a packed column, whose kind is given and whose other bytes are `bytes`, to `out`; `None` when it is not
/// exactly such a column.
pub(crate) fn unpack(
    (kind, bytes): (u8, &[u8]),
    count: usize,
    bits: &mut Bits<'_>,
    out: &mut Vec<f64>,
) -> Option<()> {
    let scale = Scale::read(*bytes.first()?)?;
    let mut at = 1;
    let exceptions = skip_exceptions(bytes, &mut at)?;
    let mut mantissa = unzigzag(read_varint(bytes, &mut at)?);
    let mut delta = match kind {
        KIND_PACKED_DELTA2 => unzigzag(read_varint(bytes, &mut at)?),
        _ => 0,
    };
    let divisor = read_varint(bytes, &mut at)? as i64;
    let classes = &bytes[at..];
    let left_out = usize::from(kind - KIND_PACKED);
    // Every number has its class: a count that lies costs no memory.
    if count.checked_sub(left_out)? != classes.len() || classes.iter().any(|c| *c > 64) {
        return None;
    }
    let section = bits.take(classes)?;
    let start = out.len();
    out.reserve(count);
    let as_bits = |mantissa: i64| f64::from_bits(mantissa as u64);
    match kind {
        KIND_PACKED => read_bits(classes, section, out, |number| {
            mantissa.wrapping_add((number as i64).wrapping_mul(divisor))
        }),
        KIND_DELTA => {
            out.push(as_bits(mantissa));
            read_bits(classes, section, out, |number| {
                mantissa = mantissa.wrapping_add(unzigzag(number).wrapping_mul(divisor));
                mantissa
            });
        }
        _ => {
            out.push(as_bits(mantissa));
            mantissa = mantissa.wrapping_add(delta.wrapping_mul(divisor));
            out.push(as_bits(mantissa));
            read_bits(classes, section, out, |number| {
                delta = delta.wrapping_add(unzigzag(number));
                mantissa = mantissa.wrapping_add(delta.wrapping_mul(divisor));
                mantissa
            });
        }
    }
    unscale(scale, &mut out[start..]);
    apply_exceptions(exceptions, &mut out[start..])
}

/// Puts values where their mantissas' bits are.
fn unscale(scale: Scale, values: &mut [f64]) {
    fn each(values: &mut [f64], value: impl Fn(i64) -> f64) {
        for place in values {
            *place = value(place.to_bits() as i64);
        }
    }
    match scale {
        Scale::Divided(0) => each(values, |mantissa| mantissa as f64),
        Scale::Divided(decimals) => {
            let power = POWERS[usize::from(decimals)];
            each(values, |mantissa| mantissa as f64 / power);
        }
        Scale::Multiplied(decimals) => each(values, |mantissa| multiplied(mantissa, decimals)),
        Scale::DividedTwice => each(values, divided_twice),
        Scale::Ordered => each(values, from_ordered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::STALE_MARKER_BITS;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// The column with its kind, and its bits with the padding.
    fn pack(values: &[f64]) -> (Vec<u8>, Vec<u8>) {
        let (mut content, mut bits) = (Vec::new(), Vec::new());
        Packer::default().pack(values, &mut content, &mut bits);
        bits.extend([0; BITS_PADDING]);
        (content, bits)
    }

    fn unpack_all(content: &[u8], bits: &[u8], count: usize) -> Option<Vec<u64>> {
        let mut section = Bits::new(bits, 0, bits.len() - BITS_PADDING);
        let mut out = vec![7.0];
        unpack((content[0], &content[1..]), count, &mut section, &mut out)?;
        assert_eq!(out.len(), count + 1, "behind what was there");
        section.is_empty().then(|| bits_of(&out[1..]))
    }

    fn bits_of(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// Packs and unpacks, and says with which kind and scale.
    #[track_caller]
    fn form_of(values: &[f64]) -> (u8, Scale) {
        let (content, bits) = pack(values);
        let back = unpack_all(&content, &bits, values.len()).expect("what was written");
        assert_eq!(back, bits_of(values));
        (content[0], Scale::read(content[1]).expect("a scale"))
    }

    #[test]
    fn every_kind_is_exact() {
        let kind_of = |values: &[f64]| form_of(values).0;
        assert_eq!(kind_of(&[5.0]), KIND_DELTA);
        assert_eq!(kind_of(&[5.0, 5.0, -3.0, -3.0]), KIND_DELTA);
        assert_eq!(kind_of(&[7.0, 1.0, 6.0, 2.0, 7.0]), KIND_PACKED);
        assert_eq!(kind_of(&[0.1, 0.2, 0.3, 0.4, 0.6]), KIND_PACKED_DELTA2);
    }

    #[test]
    fn every_scale_is_exact() {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        let scale_of = |values: &[f64]| form_of(values).1;
        assert_eq!(scale_of(&[0.5, 12.125, 9.0]), Scale::Divided(3));
        let some = [stale, 1.5, 2.5, -0.0, 1.5, f64::INFINITY];
        assert_eq!(scale_of(&some), Scale::Divided(1));
        let whole = [9_007_199_254_740_992.0, -9_007_199_254_740_992.0];
        assert_eq!(scale_of(&whole), Scale::Divided(0));
        let milliseconds = (0..60).map(|i| 1_234_567 + 1_003 * i + i * i % 13 * 17);
        let seconds: Vec<f64> = milliseconds.map(|m| f64::from(m) * 0.001).collect();
        assert_eq!(scale_of(&seconds), Scale::Multiplied(3));
        let microseconds = (0..60u64).map(|i| 3_971_865_848 + 1_000_003 * i + i * i % 13 * 7_919);
        let seconds: Vec<f64> = microseconds.map(|m| m as f64 / 1000.0 / 1000.0).collect();
        assert_eq!(scale_of(&seconds), Scale::DividedTwice);
        for values in [
            &[1.0 / 3.0, 2.0 / 3.0][..],
            &[f64::MIN_POSITIVE, 0.0, 5e-324, f64::MAX],
            &[-f64::MAX, f64::MAX, -1e300, 1.0 / 3.0, -1.0 / 3.0],
            &[f64::NAN, stale, f64::NEG_INFINITY, -0.0, 1.0],
        ] {
            assert_eq!(scale_of(values), Scale::Ordered);
        }
    }

    #[test]
    fn what_all_numbers_are_multiples_of_costs_nothing() {
        let pages = |count: u64| (count * 4_096) as f64;
        let (content, bits) = pack(&[pages(700), pages(703), pages(701), pages(700)]);
        assert_eq!(bits.len() - BITS_PADDING, 1, "of 2 bits one each is left");
        assert_eq!(&content[content.len() - 4..], [0, 2, 1, 0]);
    }

    #[test]
    fn random_columns_are_exact() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let decimals = random.random_range(0..17);
            let width = random.random_range(1..40);
            let step = i64::from(random.random_range(1..5_000u32));
            let way = random.random_range(0..4);
            let mut last = random.random_range(-1 << width..1i64 << width);
            let values: Vec<f64> = (0..random.random_range(1..70))
                .map(|_| {
                    last += random.random_range(-3..4) * step;
                    match (random.random_range(0..20), way) {
                        (0, _) => f64::from_bits(STALE_MARKER_BITS),
                        (1, 0) => f64::from_bits(random.random()),
                        (_, 1) => last as f64 * FRACTIONS[decimals.min(15) as usize],
                        (_, 2) => last as f64 / 1e3 / 1e3,
                        (_, _) => last as f64 / 10f64.powi(decimals),
                    }
                })
                .collect();
            let (content, bits) = pack(&values);
            let back = unpack_all(&content, &bits, values.len()).expect("what was written");
            assert_eq!(back, bits_of(&values));
        }
    }

    #[test]
    fn hostile_columns_give_none_or_the_right_count() {
        let mut random = StdRng::seed_from_u64(2);
        let values = [1.0, 2.0, f64::NAN, 4.5, 1.0, 1e9, -7.25];
        for _ in 0..50_000 {
            let (mut content, mut bits) = pack(&values[..random.random_range(1..=7)]);
            for _ in 0..random.random_range(1..3) {
                let at = random.random_range(1..content.len());
                content[at] = random.random();
            }
            content[0] = random.random_range(KIND_PACKED..=KIND_PACKED_DELTA2);
            if random.random_bool(0.2) && bits.len() > BITS_PADDING {
                bits.pop();
            }
            let count = random.random_range(0..10);
            if let Some(back) = unpack_all(&content, &bits, count) {
                assert_eq!(back.len(), count);
            }
        }
    }
}
