//! Pieces of metrics blocks.

use crate::Target;
use std::{path::Path, sync::Arc};
use trefoil_model::{
    DeletionVersion, Histogram, Labels, ShardId, ShardSet, TenantId, histogram::Buckets,
};
use trefoil_store_blocks::{Manifest, ManifestOptions};
use trefoil_store_metrics::{
    BodyWriter, MetricMetadata, MetricType, MetricsEngine, MetricsOptions, SampleRef,
    read_block_piece,
};
use trefoil_store_pages::SimulatedDisk;

pub(crate) const BLOCKS: Target = Target {
    name: "blocks",
    run: |bytes| {
        let _malformed = read_block_piece(bytes);
    },
    seeds: || {
        let seeds: Vec<Vec<u8>> = [false, true].into_iter().flat_map(pieces).collect();
        for seed in &seeds {
            read_block_piece(seed).expect("what was written");
        }
        seeds
    },
};

/// Of a block with floats, histograms, start timestamps and metadata.
fn pieces(is_packed: bool) -> Vec<Vec<u8>> {
    let (disk, folder) = (Arc::new(SimulatedDisk::new(1)), Path::new("blocks"));
    let opened = Manifest::open(disk, folder, ManifestOptions::default());
    let (manifest, _) = opened.expect("an empty disk");
    let engine = MetricsEngine::open(Arc::new(manifest), MetricsOptions::default());
    let engine = engine.expect("memory for a compressor");
    if is_packed {
        engine.pack_blocks();
    }
    let shards = ShardSet::all(8);
    let applied = engine.apply(1, TenantId(1), DeletionVersion(0), &body(), &shards);
    applied.expect("a sound body");
    engine.flush(1, None).expect("an empty disk");
    engine.block_pieces().expect("a sound block")
}

fn body() -> Vec<u8> {
    let mut writer = BodyWriter::new().expect("memory for a compressor");
    let histogram = |count: u32| Histogram {
        count: f64::from(count),
        sum: 1.5,
        positive: Buckets::from_spans(&[(1, 2)], vec![1.0, f64::from(count) - 1.0])
            .expect("two buckets"),
        ..Histogram::default()
    };
    for series in 0..5u32 {
        let text = series.to_string();
        let labels = Labels::from_pairs([("__name__", "m"), ("instance", &text), ("job", "j")]);
        let histograms: Vec<Arc<Histogram>> = (2..12).map(|n| Arc::new(histogram(n))).collect();
        let samples = (0..10u32).map(|i| SampleRef {
            time: i64::from(i) * 15_000,
            value: match series {
                0 => f64::from(i * i) * 4_096.0,
                1 => f64::from(i % 3) / 3.0,
                2 => f64::from(i * 1_003) * 0.001,
                _ => f64::from(i) / 10.0,
            },
            histogram: (series == 3).then(|| &histograms[i as usize]),
            start: if series == 4 { 1_000 } else { 0 },
        });
        let shard = ShardId((series % 8) as u16);
        writer
            .add_samples(shard, labels.canonical(), samples)
            .expect("few samples");
    }
    let entry = MetricMetadata {
        metric: "m".into(),
        metric_type: MetricType::Counter,
        help: "what it is".into(),
        unit: String::new(),
    };
    let added = writer.add_metadata(ShardId(1), &entry);
    added.expect("one entry");
    writer.finish().expect("a small body")
}
