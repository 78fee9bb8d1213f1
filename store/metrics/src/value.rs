//! Float values as bits: which of two wins, and columns of them coded without loss.
//!
//! ```text
//! column   = kind u8 | rest                      the number of values is known from the timestamps
//!   0 constant  bits u64 LE
//!   1 delta     decimals u8 | exceptions | zigzag varint per value: mantissa behind the previous one
//!   2 delta2    decimals u8 | exceptions | zigzag varint per value: difference behind the previous difference
//!                                                (the first and second: behind 0)
//!   3 xor       control u8 per value | bytes: the bits xor the previous value's (the first: xor 0);
//!               control = leading zero bytes << 4 | bytes kept, trailing zero bytes dropped
//! exceptions = varint count | per exception: varint positions behind the previous one | bits u64 LE
//! ```
//! A mantissa m with d decimals stands for `m / 10^d`; both are exact integers in a double, so the
//! division gives the same bits on every machine. NaN, infinities and -0 are exceptions, with the
//! previous mantissa in their place; any other value that is not decimal makes the column `xor`.
//!
//! Blocks of newer versions have `packed` columns in place of kinds 1 to 3.

use crate::body::{unzigzag, zigzag};
use crate::packed::{Bits, KIND_CHOSEN, KIND_PACKED, Packer, unpack};
use crate::rows::read_short;
pub use trefoil_model::STALE_MARKER_BITS;
use trefoil_model::{read_varint, write_varint};

/// The bits of the value of a sample that is a native histogram, which stands beside it. Where none stands there, they
/// are a number as any other.
pub const HISTOGRAM_BITS: u64 = 0x7ff0_0000_0000_0004;

const KIND_CONSTANT: u8 = 0;
const KIND_DELTA: u8 = 1;
const KIND_DELTA2: u8 = 2;
const KIND_XOR: u8 = 3;

/// More decimals than a double can carry are noise.
pub(crate) const DECIMALS_MAX: u8 = 15;

/// Largest integer up to which doubles are dense.
pub(crate) const MANTISSA_MAX: f64 = 9_007_199_254_740_992.0;

pub(crate) const POWERS: [f64; DECIMALS_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Of two values for one series and timestamp, the one that stays: numbers beat NaN beats stale marker,
/// then the larger wins; between equal numbers and between NaNs the bits decide. A maximum over a total
/// order, so the arrival order does not matter.
#[must_use]
pub fn prefer(a: f64, b: f64) -> f64 {
    if preference(b) > preference(a) { b } else { a }
}

/// The order of [`prefer`].
pub(crate) fn preference(value: f64) -> (u8, u64) {
    let bits = value.to_bits();
    if bits == STALE_MARKER_BITS {
        (0, 0)
    } else if value.is_nan() {
        (1, bits)
    } else {
        // Flips negative numbers so that unsigned order is numeric order.
        let flip = ((bits as i64 >> 63) as u64) | 1 << 63;
        (2, bits ^ flip)
    }
}

/// Codes columns of values; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct ValueEncoder {
    mantissas: Vec<i64>,
    exceptions: Vec<(usize, u64)>,
    delta: Vec<u8>,
    delta2: Vec<u8>,
    packer: Packer,
}

/// Where coded columns go.
#[derive(Debug)]
pub(crate) struct Coded<'a> {
    pub(crate) content: &'a mut Vec<u8>,
    /// The section of bits of packed columns; without it there are none.
    pub(crate) bits: Option<&'a mut Vec<u8>>,
}

impl ValueEncoder {
    /// Appends the coded column of `values`, which has at least one, and is not packed.
    pub(crate) fn encode(&mut self, values: &[f64], content: &mut Vec<u8>) {
        let bits = None;
        self.encode_to(values, &mut Coded { content, bits });
    }

    /// Appends the coded column of `values`, which has at least one.
    pub(crate) fn encode_to(&mut self, values: &[f64], coded: &mut Coded<'_>) {
        let out = &mut *coded.content;
        let first = values[0].to_bits();
        if values.iter().all(|value| value.to_bits() == first) {
            out.push(KIND_CONSTANT);
            out.extend_from_slice(&first.to_le_bytes());
        } else if let Some(bits) = &mut coded.bits {
            self.packer.pack(values, out, bits);
        } else if let Some(decimals) = self.find_mantissas(values) {
            self.write_mantissas(decimals, out);
        } else {
            write_xor(values, out);
        }
    }

    /// Fills `mantissas` and `exceptions` with the fewest decimals that give all values exactly.
    fn find_mantissas(&mut self, values: &[f64]) -> Option<u8> {
        let mut decimals = 0;
        while !self.try_decimals(values, &mut decimals)? {}
        // Many exceptions cost less as runs of xor than as positions and bits.
        (self.exceptions.len() * 2 <= values.len()).then_some(decimals)
    }

    /// `Some(false)`: the values need more decimals, which are set; `None`: no number of decimals will do.
    fn try_decimals(&mut self, values: &[f64], decimals: &mut u8) -> Option<bool> {
        self.mantissas.clear();
        self.exceptions.clear();
        let mut previous = 0;
        for (position, &value) in values.iter().enumerate() {
            match mantissa(value, *decimals) {
                Some(mantissa) => previous = mantissa,
                None if is_exception(value) => self.exceptions.push((position, value.to_bits())),
                None => {
                    let mut more = *decimals + 1..=DECIMALS_MAX;
                    *decimals = more.find(|more| mantissa(value, *more).is_some())?;
                    return Some(false);
                }
            }
            self.mantissas.push(previous);
        }
        Some(true)
    }

    fn write_mantissas(&mut self, decimals: u8, out: &mut Vec<u8>) {
        self.delta.clear();
        self.delta2.clear();
        let (mut previous, mut previous_delta) = (0i64, 0i64);
        for (index, &mantissa) in self.mantissas.iter().enumerate() {
            let delta = mantissa - previous;
            write_varint(&mut self.delta, zigzag(delta));
            write_varint(&mut self.delta2, zigzag(delta - previous_delta));
            previous = mantissa;
            // The first difference is the value itself and says nothing of the next one.
            previous_delta = if index == 0 { 0 } else { delta };
        }
        let second = self.delta2.len() < self.delta.len();
        out.push(if second { KIND_DELTA2 } else { KIND_DELTA });
        out.push(decimals);
        write_exceptions(&self.exceptions, out);
        out.extend_from_slice(if second { &self.delta2 } else { &self.delta });
    }
}

/// Writes the positions and bits of values that have no mantissa.
pub(crate) fn write_exceptions(exceptions: &[(usize, u64)], out: &mut Vec<u8>) {
    write_varint(out, exceptions.len() as u64);
    let mut next = 0;
    for &(position, bits) in exceptions {
        write_varint(out, (position - next) as u64);
        out.extend_from_slice(&bits.to_le_bytes());
        next = position;
    }
}

/// Goes behind exceptions, which [`apply_exceptions`] takes.
pub(crate) fn skip_exceptions<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let start = *at;
    for _ in 0..read_varint(bytes, at)? {
        read_varint(bytes, at)?;
        *at += 8;
    }
    bytes.get(start..*at)
}

/// Puts exceptions in their places; `None` when one has no place.
pub(crate) fn apply_exceptions(exceptions: &[u8], values: &mut [f64]) -> Option<()> {
    let (mut at, mut position) = (0, 0usize);
    for _ in 0..read_varint(exceptions, &mut at)? {
        let gap = usize::try_from(read_varint(exceptions, &mut at)?).ok()?;
        position = position.checked_add(gap)?;
        let bits = u64::from_le_bytes(*exceptions.get(at..)?.first_chunk()?);
        at += 8;
        *values.get_mut(position)? = f64::from_bits(bits);
    }
    Some(())
}

/// Whether a value has no mantissa of a decimal whatever its size.
pub(crate) fn is_exception(value: f64) -> bool {
    !value.is_finite() || value.to_bits() == (-0.0f64).to_bits()
}

/// The mantissa that stands for exactly this value, if there is one.
#[inline]
pub(crate) fn mantissa(value: f64, decimals: u8) -> Option<i64> {
    let power = POWERS[usize::from(decimals)];
    let scaled = value * power;
    if scaled.is_nan() || scaled.abs() > MANTISSA_MAX {
        return None;
    }
    // Rounds half away from zero; unlike `f64::round` this is no call. The check below is what counts.
    let mantissa = (scaled + 0.5f64.copysign(scaled)) as i64;
    let back = if decimals == 0 {
        mantissa as f64
    } else {
        mantissa as f64 / power
    };
    // Compares bits: 0 would lose the sign of -0.
    (back.to_bits() == value.to_bits()).then_some(mantissa)
}

fn write_xor(values: &[f64], out: &mut Vec<u8>) {
    out.push(KIND_XOR);
    let xors = |values: &[f64], mut each: Box<dyn FnMut(u64) + '_>| {
        let mut previous = 0;
        for value in values {
            each(value.to_bits() ^ previous);
            previous = value.to_bits();
        }
    };
    xors(values, Box::new(|xor| out.push(control_of(xor))));
    xors(
        values,
        Box::new(|xor| {
            let control = control_of(xor);
            let (leading, kept) = (usize::from(control >> 4), usize::from(control & 15));
            out.extend_from_slice(&xor.to_be_bytes()[leading..leading + kept]);
        }),
    );
}

fn control_of(xor: u64) -> u8 {
    if xor == 0 {
        return 0;
    }
    let leading = xor.leading_zeros() / 8;
    let kept = 8 - leading - xor.trailing_zeros() / 8;
    (leading << 4 | kept) as u8
}

/// The value of a column that has the same everywhere.
pub(crate) fn constant(bytes: &[u8]) -> Option<f64> {
    match bytes.split_first()? {
        (&KIND_CONSTANT, bits) => Some(f64::from_bits(u64::from_le_bytes(bits.try_into().ok()?))),
        _ => None,
    }
}

/// Appends `count` values of a column that is not packed to `out`; `None` when `bytes` is not exactly such a column.
pub(crate) fn decode_values(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    decode_coded(bytes, count, None, out)
}

/// Appends `count` values of a coded column to `out`; `None` when `bytes` is not exactly such a column. With `bits`, of which it
/// takes its part, it is packed or constant, without them never packed.
pub(crate) fn decode_coded(
    bytes: &[u8],
    count: usize,
    bits: Option<&mut Bits<'_>>,
    out: &mut Vec<f64>,
) -> Option<()> {
    let (&kind, rest) = bytes.split_first()?;
    match (kind, bits) {
        (KIND_CONSTANT, _) => {
            out.resize(out.len() + count, constant(bytes)?);
            Some(())
        }
        (KIND_DELTA, None) => decode_mantissas(rest, count, out, false),
        (KIND_DELTA2, None) => decode_mantissas(rest, count, out, true),
        (KIND_XOR, None) => decode_xor(rest, count, out),
        (KIND_PACKED..=KIND_CHOSEN, Some(bits)) => unpack((kind, rest), count, bits, out),
        _ => None,
    }
}

fn decode_mantissas(bytes: &[u8], count: usize, out: &mut Vec<f64>, second: bool) -> Option<()> {
    let power = *POWERS.get(usize::from(*bytes.first()?))?;
    let mut at = 1;
    let exceptions = skip_exceptions(bytes, &mut at)?;
    // Every value takes a byte at least: a count that lies costs no memory.
    if bytes.len().checked_sub(at)? < count {
        return None;
    }
    let start = out.len();
    out.reserve(count);
    let (mut mantissa, mut delta) = (0i64, 0i64);
    for index in 0..count {
        let step = unzigzag(read_short(bytes, &mut at)?);
        delta = if second && index > 1 {
            delta.wrapping_add(step)
        } else {
            step
        };
        mantissa = mantissa.wrapping_add(delta);
        out.push(mantissa as f64 / power);
    }
    if at != bytes.len() {
        return None;
    }
    apply_exceptions(exceptions, &mut out[start..])
}

fn decode_xor(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    let (controls, mut rest) = bytes.split_at_checked(count)?;
    out.reserve(count);
    let mut bits = 0u64;
    for control in controls {
        let (leading, kept) = (usize::from(control >> 4), usize::from(control & 15));
        let mut eight = [0u8; 8];
        let (bytes, behind) = rest.split_at_checked(kept)?;
        eight
            .get_mut(leading..leading + kept)?
            .copy_from_slice(bytes);
        rest = behind;
        bits ^= u64::from_be_bytes(eight);
        out.push(f64::from_bits(bits));
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn encode(values: &[f64]) -> Vec<u8> {
        let mut out = Vec::new();
        ValueEncoder::default().encode(values, &mut out);
        out
    }

    fn check(values: &[f64], kind: u8) {
        let bytes = encode(values);
        assert_eq!(bytes[0], kind, "{values:?}");
        let mut back = Vec::new();
        decode_values(&bytes, values.len(), &mut back).expect("what was written");
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
    }

    #[test]
    fn every_kind_is_exact() {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        check(&[f64::NAN; 3], KIND_CONSTANT);
        check(&[5.0, 5.0, -3.0, -3.0], KIND_DELTA);
        check(
            &[1e15, 1e15 + 100.0, 1e15 + 200.0, 1e15 + 300.0],
            KIND_DELTA2,
        );
        check(&[0.1, 0.25, 12.125, 9.0], KIND_DELTA);
        check(&[1.5, 2.5, -0.0, stale, 2.5, f64::INFINITY], KIND_DELTA);
        check(&[1.0 / 3.0, 2.0 / 3.0], KIND_XOR);
        check(&[f64::MIN_POSITIVE, 0.0, 5e-324, f64::MAX], KIND_XOR);
        check(&[1e300, 1.0], KIND_XOR);
        check(
            &[9_007_199_254_740_992.0, -9_007_199_254_740_992.0],
            KIND_DELTA,
        );
    }

    #[test]
    fn random_columns_are_exact() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..5_000 {
            let decimals = random.random_range(0..17);
            let values: Vec<f64> = (0..random.random_range(1..30))
                .map(|_| match random.random_range(0..20) {
                    0 => f64::from_bits(random.random()),
                    1 => f64::from_bits(STALE_MARKER_BITS),
                    _ => f64::from(random.random_range(-9_999..9_999)) / 10f64.powi(decimals),
                })
                .collect();
            let kind = encode(&values)[0];
            check(&values, kind);
        }
    }

    #[test]
    fn hostile_columns_give_none_or_the_right_count() {
        let mut random = StdRng::seed_from_u64(2);
        for _ in 0..20_000 {
            let mut bytes = encode(&[1.0, 2.0, f64::NAN, 4.5, 1.0]);
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
            let count = random.random_range(0..10);
            let mut out = Vec::new();
            if decode_values(&bytes, count, &mut out).is_some() {
                assert_eq!(out.len(), count);
            }
        }
    }

    #[test]
    fn packed_columns_have_bits_and_others_none() {
        let (packed, plain) = ([5, 0, 0, 0, 1, 0], [KIND_DELTA, 0, 0, 0]);
        let padding = [0; crate::packed::BITS_PADDING];
        for (bytes, is_packed) in [(&packed[..], true), (&plain, false)] {
            let mut bits = Bits::new(&padding, 0, 0);
            let with_bits = decode_coded(bytes, 1, Some(&mut bits), &mut Vec::new());
            assert_eq!(with_bits.is_some(), is_packed);
            let without = decode_values(bytes, 1, &mut Vec::new());
            assert_eq!(without.is_some(), !is_packed);
        }
    }

    #[test]
    fn the_preferred_value_does_not_depend_on_order() {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        let ordered = [
            stale,
            f64::NAN,
            f64::NEG_INFINITY,
            -1.0,
            -0.0,
            0.0,
            1.0,
            f64::INFINITY,
        ];
        for (low, &a) in ordered.iter().enumerate() {
            for &b in &ordered[low..] {
                assert_eq!(prefer(a, b).to_bits(), b.to_bits());
                assert_eq!(prefer(b, a).to_bits(), b.to_bits());
            }
        }
    }
}
