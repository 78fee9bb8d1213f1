//! What a commit and a view cost when the node has thousands of blocks.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use trefoil_model::{ShardSet, Signal, TimeRange, WINDOW_MILLIS};
use trefoil_store_blocks::{BlockMeta, Manifest, ManifestEdit, ManifestOptions};
use trefoil_store_pages::RealDisk;

const BLOCKS: i64 = 5000;

fn block(manifest: &Manifest, window: i64) -> BlockMeta {
    BlockMeta {
        id: manifest.reserve_block(),
        signal: Signal::Metrics,
        window: TimeRange {
            start: window * WINDOW_MILLIS,
            end: (window + 1) * WINDOW_MILLIS,
        },
        level: 0,
        tenants: Vec::new(),
        shards: ShardSet::all(256),
        time_min: window * WINDOW_MILLIS,
        time_max: window * WINDOW_MILLIS,
        items: 1,
        files: Vec::new(),
        note: Vec::new(),
    }
}

fn commit(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("make directory");
    let opened = Manifest::open(Arc::new(RealDisk), root.path(), ManifestOptions::default());
    let (manifest, _) = opened.expect("open manifest");
    let add = (0..BLOCKS).map(|window| block(&manifest, window)).collect();
    let edit = ManifestEdit {
        add,
        ..ManifestEdit::default()
    };
    manifest.commit(edit).expect("commit");
    criterion.bench_function("replace one of 5000 blocks", |bencher| {
        bencher.iter(|| {
            let view = manifest.pin();
            let first = view.all_blocks().next().expect("there are blocks").meta;
            let edit = ManifestEdit {
                add: vec![block(&manifest, 0)],
                remove: vec![first.id],
                basis: Some(view.version()),
                ..ManifestEdit::default()
            };
            manifest.commit(edit).expect("commit").version()
        });
    });
    criterion.bench_function("blocks of a day among 5000", |bencher| {
        let view = manifest.pin();
        let day = TimeRange {
            start: 100 * WINDOW_MILLIS,
            end: 112 * WINDOW_MILLIS,
        };
        bencher.iter(|| black_box(view.blocks(Signal::Metrics, day).count()));
    });
}

criterion_group!(benches, commit);
criterion_main!(benches);
