//! What decoding a write request costs per series: snappy, protobuf and all checks.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use trefoil_api::{
    WriteLimits,
    remote_write::{Decoder, WriteRequest, encode},
};
use trefoil_model::Labels;

/// Series of ten labels with one sample each, as a scrape of many like targets gives them.
fn body(series: usize) -> Vec<u8> {
    let labels: Vec<Labels> = (0..series)
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
        .collect();
    let samples: Vec<[(i64, f64); 1]> = (0..series)
        .map(|i| [(1_700_000_000_000, i as f64 * 1.25)])
        .collect();
    encode(labels.iter().zip(&samples).map(|(l, s)| (l, &s[..])))
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
        group.bench_function(format!("{series} series, snappy alone"), |bencher| {
            let mut out = vec![0; length];
            bencher.iter(|| snap::raw::Decoder::new().decompress(black_box(&compressed), &mut out));
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
