//! Making requests of remote write 1.0: for the demo, the scraper and tests.

use trefoil_model::{Labels, Millis, write_varint};

/// Encodes series into a compressed body. Labels are written in the order in which [`Labels`] has
/// them, which is the order that receivers demand. Send it with `Content-Type:
/// application/x-protobuf`, `Content-Encoding: snappy` and
/// `X-Prometheus-Remote-Write-Version: 0.1.0`.
pub fn encode<'a>(series: impl IntoIterator<Item = (&'a Labels, &'a [(Millis, f64)])>) -> Vec<u8> {
    let mut body = Vec::new();
    let mut message = Vec::new();
    let mut inner = Vec::new();
    for (labels, samples) in series {
        message.clear();
        for (name, value) in labels {
            inner.clear();
            write_bytes(&mut inner, 1, name.as_bytes());
            write_bytes(&mut inner, 2, value.as_bytes());
            write_bytes(&mut message, 1, &inner);
        }
        for (timestamp, value) in samples {
            inner.clear();
            inner.push(1 << 3 | 1);
            inner.extend_from_slice(&value.to_le_bytes());
            inner.push(2 << 3);
            write_varint(&mut inner, *timestamp as u64);
            write_bytes(&mut message, 2, &inner);
        }
        write_bytes(&mut body, 1, &message);
    }
    // Fails only for more than 4 GiB, which no receiver takes; an empty body is refused by all.
    snap::raw::Encoder::new()
        .compress_vec(&body)
        .unwrap_or_default()
}

fn write_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
