//! Recovery speed: scanning and copying a 64 MiB page file, and sealing pages in memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use trefoil_store_pages::{FileHeader, PageWriter, RealDisk, RecordGroup, copy_to_fresh};

const FILE_BYTES: u64 = 64 << 20;
const RECORD_BYTES: usize = 8 << 10;

fn header(number: u64) -> FileHeader {
    FileHeader {
        purpose: *b"test",
        lineage: 1,
        number,
        base: 0,
        note: Vec::new(),
    }
}

fn recover(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("make directory");
    let path = root.path().join("file");
    let mut writer = PageWriter::create(&RealDisk, &path, header(1), FILE_BYTES).expect("create");
    while writer.used_bytes() < FILE_BYTES - (1 << 20) {
        let mut group = RecordGroup::new(writer.end());
        for _ in 0..64 {
            group.push(&[&[7; RECORD_BYTES]]);
        }
        writer.append(&mut group).expect("append");
    }
    let reader = writer.reader();
    let mut group = criterion.benchmark_group("pages");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(FILE_BYTES));
    group.bench_function("scan 64 MiB", |bencher| {
        bencher
            .iter(|| reader.scan(&mut |_, bytes| assert!(black_box(bytes).len() == RECORD_BYTES)));
    });
    group.bench_function("copy 64 MiB to a fresh file", |bencher| {
        let to = root.path().join("copy");
        bencher.iter(|| {
            let copied = copy_to_fresh(
                &RealDisk,
                &reader,
                &to,
                header(2),
                FILE_BYTES,
                &mut |_, _| {},
            );
            copied.expect("copy").1.records
        });
    });
    group.finish();
}

criterion_group!(benches, recover);
criterion_main!(benches);
