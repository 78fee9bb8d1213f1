//! What decoding a write request costs per series: snappy, protobuf and all checks.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{collections::HashMap, hint::black_box};
use trefoil_api::{
    WriteLimits,
    remote_write::{Decoder, WriteRequest, encode},
};
use trefoil_model::{Labels, write_varint};

/// Ten labels for each series, as a scrape of many like targets gives them.
fn labels(series: usize) -> Vec<Labels> {
    (0..series)
        .map(|i| {
            let (instance, path, code) = (i / 500, i % 50, i % 7);
            Labels::from_pairs([
                ("__name__", "http_request_duration_seconds_bucket"),
                ("cluster", "prod-eu-west-1"),
                ("code", &(200 + code).to_string()),
                ("handler", &format!("/api/v1/resource/{path}")),
                (
                    "instance",
                    &format!("10.0.{}.{}:9100", instance / 250, instance % 250),
                ),
                ("job", "integrations/kubernetes/pods"),
                ("le", &(i % 12).to_string()),
                ("method", "GET"),
                ("namespace", "production"),
                ("pod", &format!("frontend-7d9c5b8f6-{i:05}")),
            ])
        })
        .collect()
}

fn samples(series: usize) -> Vec<[(i64, f64); 1]> {
    let sample = |i| [(1_700_000_000_000, i as f64 * 1.25)];
    (0..series).map(sample).collect()
}

/// Series with one sample each in remote write 1.0.
fn body(series: usize) -> Vec<u8> {
    let (labels, samples) = (labels(series), samples(series));
    encode(labels.iter().zip(&samples).map(|(l, s)| (l, &s[..])))
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The same in remote write 2.0.
fn body_with_symbols(series: usize) -> Vec<u8> {
    let labels = labels(series);
    let mut numbers: HashMap<&str, u64> = HashMap::from([("", 0)]);
    let (mut symbols, mut body) = (vec![""], Vec::new());
    for (labels, [(time, value)]) in labels.iter().zip(samples(series)) {
        let mut references = Vec::new();
        for text in labels.iter().flat_map(|(name, value)| [name, value]) {
            let number = *numbers.entry(text).or_insert_with(|| {
                symbols.push(text);
                symbols.len() as u64 - 1
            });
            write_varint(&mut references, number);
        }
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        write_varint(&mut sample, time as u64);
        let mut message = Vec::new();
        field(&mut message, 1, &references);
        field(&mut message, 2, &sample);
        field(&mut body, 5, &message);
    }
    for symbol in symbols {
        field(&mut body, 4, symbol.as_bytes());
    }
    snap::raw::Encoder::new()
        .compress_vec(&body)
        .unwrap_or_default()
}

fn decode(criterion: &mut Criterion) {
    let limits = WriteLimits::default();
    let mut group = criterion.benchmark_group("remote write decode");
    for series in [2_000, 10_000] {
        let compressed = body(series);
        let length = snap::raw::decompress_len(&compressed).unwrap_or_default();
        println!(
            "{series} series: {} bytes compressed, {length} decompressed",
            compressed.len()
        );
        group.throughput(Throughput::Elements(series as u64));
        group.bench_function(format!("{series} series of 10 labels"), |bencher| {
            let (mut decoder, mut request) = (Decoder::default(), WriteRequest::default());
            bencher.iter(|| {
                let outcome = decoder.decode(black_box(&compressed), &limits, &mut request);
                assert!(outcome.is_ok() && request.series_count() == series);
            });
        });
        let with_symbols = body_with_symbols(series);
        println!(
            "{series} series in 2.0: {} bytes compressed",
            with_symbols.len()
        );
        group.bench_function(format!("{series} series of 10 labels, 2.0"), |bencher| {
            let (mut decoder, mut request) = (Decoder::default(), WriteRequest::default());
            bencher.iter(|| {
                let body = black_box(&with_symbols);
                let outcome = decoder.decode_symbols(body, &limits, &mut request, &mut |_| Ok(()));
                assert!(outcome.is_ok() && request.series_count() == series);
            });
        });
        group.bench_function(format!("{series} series, snappy alone"), |bencher| {
            let mut out = vec![0; length];
            bencher.iter(|| snap::raw::Decoder::new().decompress(black_box(&compressed), &mut out));
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
