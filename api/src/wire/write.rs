//! Writing protobuf fields.

use trefoil_model::{histogram::Buckets, write_varint};

/// Appends a length-delimited field.
pub(crate) fn write_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    write_varint(out, u64::from(field << 3 | 2));
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a number; 0 is what an absent field means.
pub(crate) fn write_number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        write_varint(out, u64::from(field << 3));
        write_varint(out, number);
    }
}

/// Appends a float; 0 is what an absent field means.
pub(crate) fn write_double(out: &mut Vec<u8>, field: u32, value: f64) {
    if value.to_bits() != 0 {
        write_varint(out, u64::from(field << 3 | 1));
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A number as protobuf's `sint` types have it.
pub(crate) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// Appends packed doubles; none is what an absent field means.
pub(crate) fn write_doubles(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    if !values.is_empty() {
        write_varint(out, u64::from(field << 3 | 2));
        write_varint(out, values.len() as u64 * 8);
        values
            .iter()
            .for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}

/// Appends packed numbers of a `sint` type; none is what an absent field means.
pub(crate) fn write_signed(out: &mut Vec<u8>, field: u32, numbers: impl Iterator<Item = i64>) {
    let mut packed = Vec::new();
    numbers.for_each(|number| write_varint(&mut packed, zigzag(number)));
    if !packed.is_empty() {
        write_bytes(out, field, &packed);
    }
}

/// Appends runs of buckets as `BucketSpan{sint32 offset=1, uint32 length=2}`.
pub(crate) fn write_spans(out: &mut Vec<u8>, field: u32, spans: &[(i32, u32)]) {
    let mut span = Vec::new();
    for (offset, length) in spans {
        span.clear();
        write_number(&mut span, 1, zigzag(i64::from(*offset)));
        write_number(&mut span, 2, u64::from(*length));
        write_bytes(out, field, &span);
    }
}

/// Appends the buckets of one side of a native histogram: spans, and counts as differences if they are whole.
pub(crate) fn write_buckets(
    out: &mut Vec<u8>,
    buckets: &Buckets,
    is_whole: bool,
    [spans, deltas, counts]: [u32; 3],
) {
    write_spans(out, spans, &buckets.spans());
    match is_whole {
        true => write_signed(out, deltas, buckets.deltas()),
        false => write_doubles(out, counts, buckets.counts()),
    }
}
