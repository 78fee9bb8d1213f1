//! Append and group commit: records per second on the disk of this machine, and what a byte costs
//! when the disk costs nothing.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::{Condvar, Mutex};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use trefoil_store_journal::{CommitMode, DurableEvent, Journal, JournalOptions, OnDurable};
use trefoil_store_pages::RealDisk;

const PARCEL_BYTES: usize = 16 << 10;

fn open(dir: &Path, mode: CommitMode, on_durable: OnDurable) -> Journal {
    let options = JournalOptions {
        mode,
        ..JournalOptions::default()
    };
    let opened = Journal::open(Arc::new(RealDisk), dir, options, on_durable);
    opened.expect("open journal").0
}

/// One parcel at a time, each waited for: the latency of one commit.
fn one_by_one(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("make directory");
    let journal = open(root.path(), CommitMode::Manual, Arc::new(|_| {}));
    let parcel = vec![7; PARCEL_BYTES];
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Bytes(PARCEL_BYTES as u64));
    group.bench_function("append and commit 16 KiB", |bencher| {
        bencher.iter(|| {
            journal.append(&[&parcel]).expect("append");
            journal.commit_now().expect("commit");
            journal.trim(journal.durable_end()).expect("trim");
        });
    });
    group.finish();
}

/// A thousand parcels, waited for together: what group commit makes of it.
fn in_groups(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("make directory");
    let state = Arc::new((Mutex::new(0u64), Condvar::new()));
    let sink = state.clone();
    let on_durable: OnDurable = Arc::new(move |event| {
        if let DurableEvent::Advanced { end } = event {
            *sink.0.lock() = end;
            sink.1.notify_all();
        }
    });
    let journal = open(root.path(), CommitMode::Thread, on_durable);
    let mut group = criterion.benchmark_group("journal");
    for size in [1 << 10, PARCEL_BYTES] {
        let parcel = vec![7; size];
        group.throughput(Throughput::Elements(1000));
        group.bench_function(format!("1000 records of {size} bytes"), |bencher| {
            bencher.iter_batched(
                || journal.trim(journal.durable_end()).expect("trim"),
                |()| {
                    let mut end = 0;
                    for _ in 0..1000 {
                        let mut durable = state.0.lock();
                        loop {
                            if let Ok(record) = journal.append(&[&parcel]) {
                                end = record.end;
                                break;
                            }
                            state.1.wait(&mut durable);
                        }
                    }
                    let mut durable = state.0.lock();
                    while *durable < end {
                        state.1.wait(&mut durable);
                    }
                    black_box(end)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    let statistics = journal.statistics();
    println!(
        "groups {}, records per group {:.1}, mean commit {:?}, longest {:?}",
        statistics.groups,
        statistics.records as f64 / statistics.groups as f64,
        statistics.commit_time / statistics.groups as u32,
        statistics.commit_time_max,
    );
}

criterion_group!(benches, one_by_one, in_groups);
criterion_main!(benches);
