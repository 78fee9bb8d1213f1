//! What the body codec costs per sample: requests of 2,000 series, 10 labels and one sample each.

mod scrape;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scrape::Scraper;
use std::hint::black_box;
use trefoil_model::ShardSet;
use trefoil_store_metrics::{BodyReader, BodyWriter};

fn encode(writer: &mut BodyWriter, series: &[scrape::Series], times: &[i64]) -> Vec<u8> {
    for one in series {
        let sample = [(times[one.target], one.value)];
        writer
            .add_series(one.shard, one.labels.canonical(), sample)
            .expect("a small body");
    }
    writer.finish().expect("a small body")
}

fn bodies(criterion: &mut Criterion) {
    let mut scraper = Scraper::new(4, 1);
    let times = scraper.scrape();
    let series = &scraper.series[..2_000];
    let mut writer = BodyWriter::new().expect("memory");
    let mut reader = BodyReader::new().expect("memory");
    let body = encode(&mut writer, series, &times);
    eprintln!(
        "body: {:.2} bytes per sample",
        body.len() as f64 / series.len() as f64
    );
    let all = ShardSet::all(256);
    let mut group = criterion.benchmark_group("body");
    group.throughput(Throughput::Elements(series.len() as u64));
    group.bench_function("encode", |b| b.iter(|| encode(&mut writer, series, &times)));
    group.bench_function("decode", |b| {
        b.iter(|| {
            let mut open = reader.open(&body).expect("sound");
            let mut sum = 0;
            while let Some(one) = open.next_series(&all).expect("sound") {
                sum += one.canonical.len();
                one.samples.for_each(|s| _ = black_box(s));
            }
            sum
        });
    });
    group.finish();
}

criterion_group!(benches, bodies);
criterion_main!(benches);
