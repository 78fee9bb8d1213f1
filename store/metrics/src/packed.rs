//! Columns of floats as small numbers. One below 128 is a byte, and of a larger one a byte says how many bits it has: these bytes
//! compress well. The bits of large numbers are mostly noise; they stand apart and are not in the way.
//!
//! ```text
//! packed   = kind u8 (5 values, 6 deltas, 7 differences of deltas) | scale u8 | exceptions, as in `value`
//!            | zigzag varint base | kind 7: zigzag varint first quotient | varint divisor | head u8 per number
//!          | kind u8 (8) | varint values, 1 to 64 | bits u64 LE per value | place u8 among these per sample
//! quotient = (mantissa - first mantissa) / divisor, of every value
//! number   of kind 5, per value: quotient - the smallest quotient; the base is the mantissa of that one
//!          of kind 6, per value but the first, whose mantissa is the base: zigzag of the quotient behind the previous one
//!          of kind 7, per value but the first two: zigzag of that difference behind the previous one
//! head     = the number, below 128; else 121 + how many bits it has below the highest one, of which there are at least 7
//! bits     = per number from 128 on: its bits below the highest one, from the lowest bit of the first byte on; filled up to a byte
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
const KIND_DELTA2: u8 = 7;
pub(crate) const KIND_CHOSEN: u8 = 8;

/// Numbers from this one on have bits apart.
const SMALL: u8 = 128;
/// What a head is beyond the number of bits that it announces.
const HEAD_BITS: u8 = 121;
/// The largest head: 63 bits below the highest one.
const HEAD_MAX: u8 = HEAD_BITS + 63;

/// A column of fewer values than this that would have large numbers names its values once.
const CHOSEN_MAX: usize = 64;
/// From so many bits per number on it is looked for columns of few values.
const CHOSEN_BITS: u64 = 16;

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
        if form.bits > CHOSEN_BITS * values.len() as u64 && self.choose_values(values) {
            self.write_chosen(values, content);
            return;
        }
        content.extend_from_slice(&[form.kind, form.scale.byte()]);
        write_exceptions(&self.exceptions, content);
        let base = match form.kind {
            KIND_PACKED => self.smallest().wrapping_mul(form.divisor as i64),
            _ => 0,
        };
        write_varint(content, zigzag(self.mantissas[0].wrapping_add(base)));
        if form.kind == KIND_DELTA2 {
            write_varint(content, zigzag(self.quotients[1]));
        }
        write_varint(content, form.divisor);
        self.number(form.kind);
        content.extend(self.numbers.iter().map(|number| head(*number)));
        write_bits(&self.numbers, bits);
    }

    /// Fills `numbers` with the bits of all values that there are; `false` when there are too many to name them.
    fn choose_values(&mut self, values: &[f64]) -> bool {
        self.numbers.clear();
        for value in values {
            let bits = value.to_bits();
            if self.numbers.contains(&bits) {
                continue;
            }
            if self.numbers.len() == CHOSEN_MAX.min(values.len() / 4) {
                return false;
            }
            self.numbers.push(bits);
        }
        true
    }

    fn write_chosen(&self, values: &[f64], content: &mut Vec<u8>) {
        content.push(KIND_CHOSEN);
        write_varint(content, self.numbers.len() as u64);
        for bits in &self.numbers {
            content.extend_from_slice(&bits.to_le_bytes());
        }
        content.extend(values.iter().map(|value| {
            let place = self
                .numbers
                .iter()
                .position(|bits| *bits == value.to_bits());
            place.expect("all values were named") as u8
        }));
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
            (KIND_DELTA2, deltas2)
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

#[inline]
fn head(number: u64) -> u8 {
    if number < u64::from(SMALL) {
        number as u8
    } else {
        HEAD_BITS + class(number) as u8 - 1
    }
}

/// How many bits of a number stand apart.
#[inline]
fn bits_apart(head: u8) -> u32 {
    if head < SMALL {
        0
    } else {
        u32::from(head - HEAD_BITS)
    }
}

fn write_bits(numbers: &[u64], out: &mut Vec<u8>) {
    let (mut open, mut filled) = (0u64, 0);
    for &number in numbers {
        let below = bits_apart(head(number));
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

    /// The bytes from the beginning of the bits of these numbers on; `None` when there are not enough.
    fn take(&mut self, heads: &[u8]) -> Option<&'a [u8]> {
        let length: u64 = heads.iter().map(|head| u64::from(bits_apart(*head))).sum();
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

/// Appends what `each` makes of every number with these heads; without bits when all are `small`.
#[inline]
fn read_numbers(
    (heads, bytes, small): (&[u8], &[u8], bool),
    out: &mut Vec<f64>,
    mut each: impl FnMut(u64) -> i64,
) {
    if small {
        let numbers = heads.iter().map(|head| u64::from(*head));
        out.extend(numbers.map(|number| f64::from_bits(each(number) as u64)));
        return;
    }
    let mut at = 0usize;
    out.extend(heads.iter().map(|&head| {
        if head < SMALL {
            return f64::from_bits(each(u64::from(head)) as u64);
        }
        let below = bits_apart(head);
        let (byte, shift) = (at / 8, at % 8);
        at += below as usize;
        let rest = if below <= 56 {
            let eight = bytes[byte..].first_chunk().expect("padding");
            u64::from_le_bytes(*eight) >> shift
        } else {
            let sixteen = bytes[byte..].first_chunk().expect("padding");
            (u128::from_le_bytes(*sixteen) >> shift) as u64
        };
        let number = (rest & ((1 << below) - 1)) | 1 << below;
        f64::from_bits(each(number) as u64)
    }));
}

fn read_chosen(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    let mut at = 0;
    let values = usize::try_from(read_varint(bytes, &mut at)?).ok()?;
    let named = bytes.get(at..at.checked_add(values.checked_mul(8)?)?)?;
    let places = &bytes[at + named.len()..];
    if values > CHOSEN_MAX || places.len() != count {
        return None;
    }
    let (named, _) = named.as_chunks();
    out.reserve(count);
    for place in places {
        let bits = named.get(usize::from(*place))?;
        out.push(f64::from_bits(u64::from_le_bytes(*bits)));
    }
    Some(())
}

/// Appends `count` values of a packed column, whose kind is given and whose other bytes are `bytes`, to `out`; `None` when it is not
/// exactly such a column.
pub(crate) fn unpack(
    (kind, bytes): (u8, &[u8]),
    count: usize,
    bits: &mut Bits<'_>,
    out: &mut Vec<f64>,
) -> Option<()> {
    if kind == KIND_CHOSEN {
        return read_chosen(bytes, count, out);
    }
    let scale = Scale::read(*bytes.first()?)?;
    let mut at = 1;
    let exceptions = skip_exceptions(bytes, &mut at)?;
    let mut mantissa = unzigzag(read_varint(bytes, &mut at)?);
    let mut delta = match kind {
        KIND_DELTA2 => unzigzag(read_varint(bytes, &mut at)?),
        _ => 0,
    };
    let divisor = read_varint(bytes, &mut at)? as i64;
    let heads = &bytes[at..];
    let left_out = usize::from(kind - KIND_PACKED);
    // Every number has its head: a count that lies costs no memory.
    let largest = heads.iter().fold(0, |largest, head| (*head).max(largest));
    if count.checked_sub(left_out)? != heads.len() || largest > HEAD_MAX {
        return None;
    }
    let numbers = match largest < SMALL {
        true => (heads, &[][..], true),
        false => (heads, bits.take(heads)?, false),
    };
    let start = out.len();
    out.reserve(count);
    let as_bits = |mantissa: i64| f64::from_bits(mantissa as u64);
    match kind {
        KIND_PACKED => read_numbers(numbers, out, |number| {
            mantissa.wrapping_add((number as i64).wrapping_mul(divisor))
        }),
        KIND_DELTA => {
            out.push(as_bits(mantissa));
            read_numbers(numbers, out, |number| {
                mantissa = mantissa.wrapping_add(unzigzag(number).wrapping_mul(divisor));
                mantissa
            });
        }
        _ => {
            out.push(as_bits(mantissa));
            mantissa = mantissa.wrapping_add(delta.wrapping_mul(divisor));
            out.push(as_bits(mantissa));
            read_numbers(numbers, out, |number| {
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
        assert_eq!(kind_of(&[0.1, 0.2, 0.3, 0.4, 0.6]), KIND_DELTA2);
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
        assert_eq!(bits.len(), BITS_PADDING);
        assert_eq!(&content[content.len() - 4..], [0, 3, 1, 0]);
    }

    #[test]
    fn few_values_that_are_no_small_numbers_are_named_once() {
        let third = |i: u32| f64::from(i % 4) / 3.0;
        let values: Vec<f64> = (0..40).map(third).collect();
        let (content, bits) = pack(&values);
        assert_eq!((content[0], content.len()), (KIND_CHOSEN, 2 + 4 * 8 + 40));
        assert_eq!(unpack_all(&content, &bits, 40), Some(bits_of(&values)));
        let many: Vec<f64> = (0..40).map(|i| f64::from(i % 11) / 7.0).collect();
        assert_ne!(pack(&many).0[0], KIND_CHOSEN);
    }

    #[test]
    fn golden_bytes() {
        let (content, bits) = pack(&[1.0, 2.0, 300.0, 1.0]);
        // The smallest is 1; of 299 the lowest 8 bits are apart.
        assert_eq!(content, [5, 0, 0, 2, 1, 0, 1, 121 + 8, 0]);
        assert_eq!(bits[..bits.len() - BITS_PADDING], [43]);
        for (values, golden) in golden_columns() {
            let (content, bits) = pack(&values);
            let bits = &bits[..bits.len() - BITS_PADDING];
            let hex =
                |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
            assert_eq!(format!("{} {}", hex(&content), hex(bits)), golden);
        }
    }

    /// Columns of all kinds and families of scales.
    fn golden_columns() -> Vec<(Vec<f64>, &'static str)> {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        vec![
            (
                vec![stale, 10.5, 1_010.5, 990.25, 10_990.25],
                "06020100020000000000f07fb4101900858089 401f02c401",
            ),
            (
                vec![0.1, 300.1, 601.1, 1_202.7, 1_803.9],
                "07010002b817020a8403 be03",
            ),
            (
                (0..9)
                    .map(|i| f64::from(1_236_569 + i * i * 1_003) * 0.001)
                    .collect(),
                "071300b2f9960102eb0704040404040404 ",
            ),
            (
                (0..9u64)
                    .map(|i| (3_971_865_848 + 1_000_003 * i + i * i * 79) as f64 / 1e3 / 1e3)
                    .collect(),
                "072000f0f3eecb1d92853d0280808080808080 1e8fc7e3f17800",
            ),
            (
                vec![1.0 / 3.0, -1e300, f64::MAX, 5e-324, -0.0],
                "062101040000000000000080aad5aad5aad5aad57f02b7b1b700 0e35aa226ec6f2c198e2ffddf00676fffffffffffffb0f",
            ),
            (
                vec![1.0 / 3.0; 4]
                    .into_iter()
                    .chain([2.0 / 3.0; 4])
                    .collect(),
                "062100aad5aad5aad5aad57f808080808080800800000002000000 ",
            ),
        ]
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
            content[0] = random.random_range(KIND_PACKED..=KIND_CHOSEN);
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
