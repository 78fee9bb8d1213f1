//! The values of a series' aggregates as bytes, without loss. How many buckets there are, and how many samples each has, is known
//! from the shape; buckets without samples have no values.
//!
//! ```text
//! values   = kind u8 | rest
//!   0 none      no bucket has samples
//!   1 constant  decimals u8 | zigzag varint mantissa: every sample has this value
//!   2 decimal   decimals u8 | flags u8 | firsts | lasts | ranges, with flag 1 | sums | corrections, with flag 2
//!               | dropped, with flag 4
//!   3 columns   first, last, smallest, largest, sum, dropped: each varint length and a column of values
//! firsts   = zigzag varint per bucket: behind the last value of the bucket before (the first: behind 0)
//! lasts    = zigzag varint per bucket with two samples or more: behind its first value
//! ranges   = per bucket with three or more: varint, the smallest below the lesser of first and last; varint, the largest above
//!            the greater. Without the flag both are 0
//! sums     = zigzag varint per bucket with three or more: behind floor(samples * (first + last) / 2). With fewer: 0
//! corrections = zigzag varint per bucket: bits of the sum behind those of its mantissa's value
//! dropped  = a column of values up to the end. Without the flag all are 0
//! ```
//! Firsts, lasts, ranges and sums are of mantissas, as in `value`. A counter's smallest and largest values are its ends, its sum is
//! near the middle, and its last value is near the next first one: most varints are short.

use crate::block::Cursor;
use crate::body::{unzigzag, zigzag};
use crate::value::{DECIMALS_MAX, MANTISSA_MAX, POWERS, ValueEncoder, decode_values, mantissa};
use trefoil_model::{Aggregate, write_varint};

const KIND_NONE: u8 = 0;
const KIND_CONSTANT: u8 = 1;
const KIND_DECIMAL: u8 = 2;
const KIND_COLUMNS: u8 = 3;

const FLAG_RANGES: u8 = 1;
const FLAG_CORRECTIONS: u8 = 2;
const FLAG_DROPPED: u8 = 4;

/// Appends the values of a series' buckets, at least one byte.
pub(super) fn encode(all: &[Aggregate], encoder: &mut ValueEncoder, out: &mut Vec<u8>) {
    let rows: Vec<Aggregate> = all.iter().filter(|row| row.count > 0).copied().collect();
    if rows.is_empty() {
        return out.push(KIND_NONE);
    }
    let Some(decimals) = decimals_of(&rows) else {
        return encode_columns(&rows, encoder, out);
    };
    if let Some(mantissa) = constant(&rows, decimals) {
        out.extend_from_slice(&[KIND_CONSTANT, decimals]);
        return write_varint(out, zigzag(mantissa));
    }
    let mantissas = rows.iter().map(|row| Mantissas::of(row, decimals));
    let mantissas: Option<Vec<Mantissas>> = mantissas.collect();
    match mantissas {
        Some(mantissas) => encode_decimal(&rows, decimals, &mantissas, encoder, out),
        None => encode_columns(&rows, encoder, out),
    }
}

/// The fewest decimals that give first, last, smallest and largest values exactly.
fn decimals_of(rows: &[Aggregate]) -> Option<u8> {
    let values = rows
        .iter()
        .flat_map(|row| [row.first, row.last, row.min, row.max]);
    let mut decimals = 0;
    for value in values.clone() {
        decimals = (decimals..=DECIMALS_MAX).find(|more| mantissa(value, *more).is_some())?;
    }
    // More decimals can be too many for a large value in front.
    let mut values = values;
    let fit = values.all(|value| mantissa(value, decimals).is_some());
    fit.then_some(decimals)
}

/// The mantissa of the value of all samples, if it is one.
fn constant(rows: &[Aggregate], decimals: u8) -> Option<i64> {
    let value = rows[0].first;
    let is_constant = |row: &Aggregate| {
        let all = [row.first, row.last, row.min, row.max];
        let sum = value * row.count as f64;
        all.iter().all(|one| one.to_bits() == value.to_bits())
            && row.sum.to_bits() == sum.to_bits()
            && row.dropped.to_bits() == 0
    };
    let mantissa = mantissa(value, decimals)?;
    rows.iter().all(is_constant).then_some(mantissa)
}

/// A bucket's values as integers.
struct Mantissas {
    first: i64,
    last: i64,
    below: i64,
    above: i64,
    sum: i64,
    /// The sum's bits behind those of its mantissa's value.
    correction: i64,
}

impl Mantissas {
    fn of(row: &Aggregate, decimals: u8) -> Option<Self> {
        let exact = |value| mantissa(value, decimals);
        let (first, last) = (exact(row.first)?, exact(row.last)?);
        let scaled = row.sum * POWERS[usize::from(decimals)];
        if scaled.is_nan() || scaled.abs() > MANTISSA_MAX {
            return None;
        }
        let sum = match row.count {
            1 => first,
            2 => first + last,
            _ => scaled.round() as i64,
        };
        let near = value_of(sum, decimals).to_bits() as i64;
        Some(Self {
            first,
            last,
            below: first.min(last) - exact(row.min)?,
            above: exact(row.max)? - first.max(last),
            sum,
            correction: (row.sum.to_bits() as i64).wrapping_sub(near),
        })
    }
}

fn value_of(mantissa: i64, decimals: u8) -> f64 {
    mantissa as f64 / POWERS[usize::from(decimals)]
}

/// What the sum is near to: exact for one sample and for two.
fn middle(count: u64, first: i64, last: i64) -> i64 {
    let doubled = i128::from(count) * (i128::from(first) + i128::from(last));
    doubled.div_euclid(2) as i64
}

fn encode_decimal(
    rows: &[Aggregate],
    decimals: u8,
    all: &[Mantissas],
    encoder: &mut ValueEncoder,
    out: &mut Vec<u8>,
) {
    let has_ranges = all.iter().any(|row| row.below != 0 || row.above != 0);
    let has_corrections = all.iter().any(|row| row.correction != 0);
    let has_dropped = rows.iter().any(|row| row.dropped.to_bits() != 0);
    let flags = [
        (has_ranges, FLAG_RANGES),
        (has_corrections, FLAG_CORRECTIONS),
        (has_dropped, FLAG_DROPPED),
    ];
    let flags = flags.iter().filter(|(has, _)| *has).map(|(_, flag)| flag);
    out.extend_from_slice(&[KIND_DECIMAL, decimals, flags.sum()]);
    let mut before = 0i64;
    for row in all {
        write_varint(out, zigzag(row.first.wrapping_sub(before)));
        before = row.last;
    }
    let with = |samples: u64| {
        let pairs = rows.iter().zip(all);
        pairs.filter(move |(row, _)| row.count >= samples)
    };
    for (_, row) in with(2) {
        write_varint(out, zigzag(row.last.wrapping_sub(row.first)));
    }
    if has_ranges {
        for (_, row) in with(3) {
            write_varint(out, row.below as u64);
            write_varint(out, row.above as u64);
        }
    }
    for (row, own) in with(3) {
        let near = middle(row.count, own.first, own.last);
        write_varint(out, zigzag(own.sum.wrapping_sub(near)));
    }
    if has_corrections {
        for row in all {
            write_varint(out, zigzag(row.correction));
        }
    }
    if has_dropped {
        let dropped: Vec<f64> = rows.iter().map(|row| row.dropped).collect();
        encoder.encode(&dropped, out);
    }
}

fn encode_columns(rows: &[Aggregate], encoder: &mut ValueEncoder, out: &mut Vec<u8>) {
    out.push(KIND_COLUMNS);
    let mut coded = Vec::new();
    for column in COLUMNS {
        let values: Vec<f64> = rows.iter().map(|row| *column(&mut row.clone())).collect();
        coded.clear();
        encoder.encode(&values, &mut coded);
        write_varint(out, coded.len() as u64);
        out.extend_from_slice(&coded);
    }
}

/// A value of an aggregate.
type Field = fn(&mut Aggregate) -> &mut f64;

/// The columns of [`KIND_COLUMNS`], in their order.
const COLUMNS: [Field; 6] = [
    |row| &mut row.first,
    |row| &mut row.last,
    |row| &mut row.min,
    |row| &mut row.max,
    |row| &mut row.sum,
    |row| &mut row.dropped,
];

/// Fills in the values of buckets whose times and counts are known; `None` when `bytes` is not exactly their values.
pub(super) fn decode(bytes: &[u8], rows: &mut [Aggregate]) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    let [kind] = cursor.array()?;
    let sampled = rows.iter().filter(|row| row.count > 0).count();
    match kind {
        KIND_NONE if sampled == 0 => {}
        KIND_CONSTANT => {
            let decimals = read_decimals(&mut cursor)?;
            let value = value_of(unzigzag(cursor.varint()?), decimals);
            for row in rows.iter_mut().filter(|row| row.count > 0) {
                (row.first, row.last, row.min, row.max) = (value, value, value, value);
                row.sum = value * row.count as f64;
            }
        }
        KIND_DECIMAL => decode_decimal(&mut cursor, rows)?,
        KIND_COLUMNS => {
            let mut values = Vec::new();
            for column in COLUMNS {
                values.clear();
                decode_values(cursor.text()?, sampled, &mut values)?;
                let rows = rows.iter_mut().filter(|row| row.count > 0);
                for (row, value) in rows.zip(&values) {
                    *column(row) = *value;
                }
            }
        }
        _ => return None,
    }
    cursor.is_at_end().then_some(())
}

fn read_decimals(cursor: &mut Cursor<'_>) -> Option<u8> {
    let [decimals] = cursor.array()?;
    (decimals <= DECIMALS_MAX).then_some(decimals)
}

fn decode_decimal(cursor: &mut Cursor<'_>, rows: &mut [Aggregate]) -> Option<()> {
    let decimals = read_decimals(cursor)?;
    let [flags] = cursor.array()?;
    let mut rows: Vec<&mut Aggregate> = rows.iter_mut().filter(|row| row.count > 0).collect();
    let steps: Option<Vec<i64>> = rows.iter().map(|_| cursor.varint().map(unzigzag)).collect();
    let ends = read_ends(cursor, &rows, &steps?)?;
    for (at, row) in rows.iter_mut().enumerate() {
        let (first, last) = ends[at];
        let (mut below, mut above) = (0, 0);
        if flags & FLAG_RANGES != 0 && row.count >= 3 {
            (below, above) = (cursor.varint()? as i64, cursor.varint()? as i64);
        }
        (row.first, row.last) = (value_of(first, decimals), value_of(last, decimals));
        row.min = value_of(first.min(last).wrapping_sub(below), decimals);
        row.max = value_of(first.max(last).wrapping_add(above), decimals);
    }
    for (at, row) in rows.iter_mut().enumerate() {
        let mut sum = middle(row.count, ends[at].0, ends[at].1);
        if row.count >= 3 {
            sum = sum.wrapping_add(unzigzag(cursor.varint()?));
        }
        row.sum = value_of(sum, decimals);
    }
    if flags & FLAG_CORRECTIONS != 0 {
        for row in &mut rows {
            let bits = row.sum.to_bits() as i64;
            let corrected = bits.wrapping_add(unzigzag(cursor.varint()?));
            row.sum = f64::from_bits(corrected as u64);
        }
    }
    if flags & FLAG_DROPPED != 0 {
        let mut dropped = Vec::with_capacity(rows.len());
        decode_values(cursor.rest(), rows.len(), &mut dropped)?;
        for (row, dropped) in rows.iter_mut().zip(dropped) {
            row.dropped = dropped;
        }
    }
    Some(())
}

/// First and last values, from the steps of the first ones.
fn read_ends(
    cursor: &mut Cursor<'_>,
    rows: &[&mut Aggregate],
    steps: &[i64],
) -> Option<Vec<(i64, i64)>> {
    let mut before = 0i64;
    let ends = rows.iter().zip(steps).map(|(row, step)| {
        let first = before.wrapping_add(*step);
        let more = match row.count {
            1 => 0,
            _ => unzigzag(cursor.varint()?),
        };
        before = first.wrapping_add(more);
        Some((first, before))
    });
    ends.collect()
}
