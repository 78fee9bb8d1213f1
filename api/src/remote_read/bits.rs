//! Numbers as bits, from the highest of each byte on: the forms in which chunks hold them.
//!
//! ```text
//! varbit_xor   0 when equal to the one before | 10 + the meaningful bits, where those of the window before suffice
//!              | 11 + leading zeros (5 bits) + length (6 bits, 64 is 0) + meaningful bits
//! varbit_int   0 for 0 | 10 + 3 bits | 110 + 6 | 1110 + 9 | 11110 + 12 | 111110 + 18 | 1111110 + 25 | 11111110 + 56
//!              | 11111111 + 64; n bits hold -2^(n-1) + 1 to 2^(n-1)
//! varbit_uint  the same lengths; n bits hold up to 2^n - 1
//! ```
//! Source: `tsdb/docs/format/chunks.md` of Prometheus.

/// The lengths of `varbit_int` and `varbit_uint` below 64 bits.
const VARBIT_LENGTHS: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];

/// Where the meaningful bits of the last value stood that said so.
#[derive(Default)]
pub(super) struct Window {
    leading: u32,
    trailing: u32,
    is_known: bool,
}

impl Window {
    /// Appends the XOR of a number with the one before.
    pub(super) fn write(&mut self, out: &mut Bits, xor: u64) {
        if xor == 0 {
            out.write(0, 1);
            return;
        }
        // Five bits say how many.
        let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        if self.is_known && leading >= self.leading && trailing >= self.trailing {
            out.write(0b10, 2);
        } else {
            out.write(0b11, 2);
            out.write(u64::from(leading), 5);
            // 64 does not fit, and 0 would be no value at all.
            out.write(u64::from(64 - leading - trailing), 6);
            *self = Self {
                leading,
                trailing,
                is_known: true,
            };
        }
        out.write(xor >> self.trailing, 64 - self.leading - self.trailing);
    }
}

/// Bytes that are filled bit by bit.
#[derive(Default)]
pub(super) struct Bits {
    pub(super) bytes: Vec<u8>,
    /// Bits of the last byte that are not used.
    free: u32,
}

impl Bits {
    /// Appends the lowest bits of a number, the highest of them first.
    pub(super) fn write(&mut self, number: u64, length: u32) {
        let mut left = length;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = left.min(self.free);
            left -= taken;
            self.free -= taken;
            let piece = (number >> left) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (piece as u8) << self.free;
            }
        }
    }

    /// Appends a number in the form `varbit_int`: small ones are short.
    pub(super) fn write_signed(&mut self, number: i64) {
        let fits = |bits: u32| (-(1i64 << (bits - 1)) + 1..=1 << (bits - 1)).contains(&number);
        self.write_class(number as u64, fits);
    }

    /// Appends a number in the form `varbit_uint`, which has the same lengths.
    pub(super) fn write_unsigned(&mut self, number: u64) {
        self.write_class(number, |bits| number >> bits == 0);
    }

    /// Appends a one for each length that is too short, a zero, and the number in the length that fits; only a zero for 0.
    fn write_class(&mut self, number: u64, fits: impl Fn(u32) -> bool) {
        if number == 0 {
            self.write(0, 1);
            return;
        }
        match (1..).zip(VARBIT_LENGTHS).find(|(_, bits)| fits(*bits)) {
            Some((ones, bits)) => {
                self.write((1 << (ones + 1)) - 2, ones + 1);
                self.write(number, bits);
            }
            None => {
                self.write(0xff, 8);
                self.write(number, 64);
            }
        }
    }
}
