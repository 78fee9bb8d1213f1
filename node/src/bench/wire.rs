//! Writes `prometheus.WriteRequest` (remote write 1.0) piece by piece into one reused buffer.
//!
//! ```text
//! WriteRequest  repeated TimeSeries = 1
//! TimeSeries    repeated Label = 1, repeated Sample = 2
//! Label         string name = 1, string value = 2
//! Sample        double value = 1, int64 timestamp = 2 (ms)
//! ```
//! The labels of a series never change, so they are encoded once and copied. That is why this is not
//! the general encoder: making the load must cost far less than taking it.

/// Appends the fields of a label message, with its own tag and length.
pub(super) fn write_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let length = 2
        + varint_length(name.len() as u64)
        + name.len()
        + varint_length(value.len() as u64)
        + value.len();
    out.push(0x0a);
    write_varint(out, length as u64);
    for (tag, text) in [(0x0a, name), (0x12, value)] {
        out.push(tag);
        write_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Appends one time series with one sample; `labels` are the pieces of its encoded labels, in order.
pub(super) fn write_series(out: &mut Vec<u8>, labels: [&[u8]; 3], value: f64, timestamp: i64) {
    // A negative int64 is its 64-bit two's complement, ten bytes long.
    let time = timestamp as u64;
    let sample_length = 9 + 1 + varint_length(time);
    let labels_length: usize = labels.iter().map(|piece| piece.len()).sum();
    out.push(0x0a);
    write_varint(out, (labels_length + 2 + sample_length) as u64);
    for piece in labels {
        out.extend_from_slice(piece);
    }
    out.push(0x12);
    out.push(sample_length as u8);
    out.push(0x09);
    out.extend_from_slice(&value.to_le_bytes());
    out.push(0x10);
    write_varint(out, time);
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_length(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_series() {
        let mut labels = Vec::new();
        write_label(&mut labels, "__name__", "up");
        let mut out = Vec::new();
        write_series(&mut out, [&labels, &[], &[]], 1.0, 300);
        let mut expected = b"\x0a\x1e\x0a\x0e\x0a\x08__name__\x12\x02up\x12\x0c\x09".to_vec();
        expected.extend_from_slice(&1.0f64.to_le_bytes());
        expected.extend_from_slice(&[0x10, 0xac, 0x02]);
        assert_eq!(out, expected);
    }

    #[test]
    fn lengths_of_varints() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out.len(), varint_length(value), "{value}");
        }
    }
}
