//! Native histograms and start timestamps through body, head, flush, merge, export and a restart, against a plain model,
//! on replicas that got the same in different orders.

use super::*;
use crate::block::BlockVersion;
use crate::columns::{Column, SampleRef};
use crate::histogram::{pack, tests::random_histogram};
use rand::seq::SliceRandom;
use trefoil_model::{Histogram, ResetHint, histogram::Buckets};

const TENANT: TenantId = TenantId(1);

/// What a sample is to the bit: value, packed histogram, start.
type Bits = (u64, Vec<u8>, Millis);

type Found = BTreeMap<Labels, BTreeMap<Millis, Bits>>;

fn bits(sample: SampleRef<'_>) -> Bits {
    let mut packed = Vec::new();
    if let Some(histogram) = sample.histogram {
        pack(histogram, &mut packed);
    }
    (sample.value.to_bits(), packed, sample.start)
}

fn random_column(random: &mut StdRng, histograms: &[Arc<Histogram>]) -> Column {
    let mut column = Column::default();
    for _ in 0..random.random_range(1..8) {
        let window = random.random_range(0..2) * WINDOW_MILLIS;
        let time = START + window + random.random_range(0..12) * 15_000;
        column.push(time, f64::from(random.random_range(0..3u32)));
        if random.random_bool(0.6) {
            let chosen = random.random_range(0..histograms.len());
            column.set_last_histogram(Arc::clone(&histograms[chosen]));
        }
        if random.random_bool(0.4) {
            column.set_last_start(START - random.random_range(0..3));
        }
    }
    column
}

fn found(engine: &MetricsEngine) -> Found {
    let mut found = Found::new();
    let each = |series: SeriesSamples<'_>| {
        let labels = Labels::from_canonical(series.canonical).unwrap();
        let samples = series.samples().iter();
        found.insert(labels, samples.map(|s| (s.time, bits(s))).collect());
        ControlFlow::Continue(())
    };
    let shards = ShardSet::all(SHARDS);
    let view = engine.view();
    view.select(TENANT, &[], all(), &shards, each).unwrap();
    found
}

fn digests(engine: &MetricsEngine) -> BTreeMap<crate::DigestKey, crate::Digest> {
    let shards = ShardSet::all(SHARDS);
    let view = engine.view();
    view.digests(Some(TENANT), all(), &shards, 7, 2).unwrap()
}

fn apply(engine: &MetricsEngine, position: u64, body: &[u8]) {
    let shards = ShardSet::all(SHARDS);
    engine
        .apply(position, TENANT, DeletionVersion(0), body, &shards)
        .unwrap();
}

/// Applies all bodies, in any order and some twice, with flushes and merges in between.
fn replica(random: &mut StdRng, bodies: &[Vec<u8>]) -> (Arc<SimulatedDisk>, MetricsEngine) {
    let disk = Arc::new(SimulatedDisk::new(random.random()));
    let engine = open(&disk);
    let mut order: Vec<&Vec<u8>> = bodies.iter().chain(bodies.iter().take(3)).collect();
    order.shuffle(random);
    for (position, body) in (1..).zip(order) {
        apply(&engine, position, body);
        if random.random_bool(0.3) {
            engine.flush(position, None).unwrap();
        }
        if random.random_bool(0.3) {
            engine.merge_once(START + 3 * WINDOW_MILLIS).unwrap();
        }
    }
    (disk, engine)
}

#[test]
fn replicas_agree_whatever_the_order_and_the_layout() {
    for seed in 0..25 {
        let mut random = StdRng::seed_from_u64(seed);
        let histograms: Vec<_> = (0..4)
            .map(|_| Arc::new(random_histogram(&mut random)))
            .collect();
        let mut model: BTreeMap<Labels, Column> = BTreeMap::new();
        let mut bodies = Vec::new();
        for _ in 0..random.random_range(1..12) {
            let mut writer = BodyWriter::new().unwrap();
            for _ in 0..random.random_range(1..6) {
                let labels = series_labels(random.random_range(0..8));
                let column = random_column(&mut random, &histograms);
                model
                    .entry(labels.clone())
                    .or_default()
                    .extend(column.slice());
                let shard = shard_of_series(&labels);
                writer
                    .add_samples(shard, labels.canonical(), column.slice().iter())
                    .unwrap();
            }
            bodies.push(writer.finish().unwrap());
        }
        let expected: Found = model
            .into_iter()
            .map(|(labels, mut column)| {
                column.normalize();
                let samples = column.slice().iter();
                (labels, samples.map(|s| (s.time, bits(s))).collect())
            })
            .collect();
        let (disk, one) = replica(&mut random, &bodies);
        let (_, other) = replica(&mut random, &bodies);
        assert_eq!(found(&one), expected, "seed {seed}");
        assert_eq!(found(&other), expected, "seed {seed}");
        assert_eq!(digests(&one), digests(&other), "seed {seed}");

        let copy = open(&Arc::new(SimulatedDisk::new(0)));
        let samples_max = random.random_range(1..40);
        let view = Arc::new(one.view());
        let shards = ShardSet::all(SHARDS);
        let mut export = view.export(&shards, all(), samples_max, None).unwrap();
        let mut position = 0;
        while let Some(part) = export.next_body().unwrap() {
            position += 1;
            apply(&copy, position, &part.body);
        }
        assert_eq!(digests(&copy), digests(&one), "seed {seed}");

        one.flush(one.applied_position(), None).unwrap();
        while one.merge_once(START + 3 * WINDOW_MILLIS).unwrap().is_some() {}
        assert_eq!(digests(&one), digests(&other), "seed {seed}");
        drop((view, export, one));
        assert_eq!(found(&open(&disk)), expected, "seed {seed}");
    }
}

fn block_versions(engine: &MetricsEngine) -> Vec<BlockVersion> {
    let blocks = engine.blocks().into_iter();
    let readers = blocks.map(|block| engine.readers.get(&block.meta).unwrap());
    readers.map(|reader| reader.version()).collect()
}

#[test]
fn only_blocks_with_histograms_or_starts_are_mixed() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let engine = open(&disk);
    let labels = series_labels(1);
    let mut writer = BodyWriter::new().unwrap();
    let mut column = Column::default();
    for (position, is_plain) in [(1, true), (2, false)] {
        column.push(START + position as Millis, 1.0);
        if !is_plain {
            column.set_last_start(START);
        }
        writer
            .add_samples(ShardId(1), labels.canonical(), column.slice().iter())
            .unwrap();
        let body = writer.finish().unwrap();
        assert_eq!(body[0], 1 + u8::from(!is_plain), "so are bodies");
        apply(&engine, position, &body);
        engine.flush(position, None).unwrap();
        let expected = BlockVersion::new(is_plain, false);
        assert_eq!(block_versions(&engine).last(), Some(&expected));
    }
    engine.pack_blocks();
    engine.merge_once(START + 3 * WINDOW_MILLIS).unwrap();
    assert_eq!(block_versions(&engine), [BlockVersion::new(false, true)]);
}

#[test]
fn a_histogram_weighs_more_than_a_number() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let mut column = Column::default();
    column.push(START, 1.0);
    let labels = series_labels(1);
    let mut writer = BodyWriter::new().unwrap();
    let mut weight = |position, column: &Column| {
        writer
            .add_samples(ShardId(1), labels.canonical(), column.slice().iter())
            .unwrap();
        apply(&engine, position, &writer.finish().unwrap());
        engine.head_size().1
    };
    assert_eq!(weight(1, &column), 1);
    column.set_last_histogram(Arc::default());
    assert!(weight(2, &column) > 4);
}

/// Many buckets whose counts alternate from one sample to the next, which is dear in a block.
fn large_histogram(buckets: u32) -> Arc<Histogram> {
    let counts = vec![1.0; buckets as usize];
    Arc::new(Histogram {
        count: f64::from(buckets),
        positive: Buckets::from_spans(&[(0, buckets)], counts).unwrap(),
        ..Histogram::default()
    })
}

#[test]
fn a_series_too_large_for_one_block_is_flushed_read_and_not_merged() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let engine = open(&disk);
    let histogram = large_histogram(2_048);
    let large = series_labels(1);
    let small = series_labels(2);
    let mut writer = BodyWriter::new().unwrap();
    for round in 0..10i64 {
        let mut column = Column::default();
        for at in 0..100 {
            column.push(START + round * 100 + at, 0.0);
            column.set_last_histogram(Arc::clone(&histogram));
        }
        let all = column.slice();
        writer
            .add_samples(ShardId(1), large.canonical(), all.iter())
            .unwrap();
        let plain = [(START + round, 1.0)];
        writer
            .add_series(ShardId(2), small.canonical(), plain)
            .unwrap();
        apply(&engine, round as u64 + 1, &writer.finish().unwrap());
    }
    let outcome = engine.flush(10, None).unwrap();
    assert_eq!(outcome.samples, 1_010);
    assert!(outcome.blocks > 1);
    let blocks = engine.blocks().len();
    while engine
        .merge_once(START + 3 * WINDOW_MILLIS)
        .unwrap()
        .is_some()
    {}
    assert_eq!(engine.blocks().len(), blocks, "merging gave up");
    let found = found(&engine);
    assert_eq!((found[&large].len(), found[&small].len()), (1_000, 10));
}

#[test]
fn plain_series_beside_others_stay_plain_in_blocks() {
    let mut column = Column::default();
    column.push(1, 1.0);
    column.push(2, 2.0);
    column.set_last_start(1);
    column.push(3, 0.0);
    column.set_last_histogram(Arc::default());
    let all = column.slice();
    let plain = [(0, 1), (1, 2), (2, 3), (0, 3)].map(|(from, to)| all.cut(from, to).is_plain());
    assert_eq!(plain, [true, false, false, false]);
}

#[test]
fn start_timestamps_weigh_what_they_take() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let mut column = Column::default();
    column.push(START, 1.0);
    column.set_last_start(START);
    let mut writer = BodyWriter::new().unwrap();
    writer
        .add_samples(
            ShardId(1),
            series_labels(1).canonical(),
            column.slice().iter(),
        )
        .unwrap();
    apply(&engine, 1, &writer.finish().unwrap());
    assert!(engine.head_size().1 > 1_000, "a chunk of 64 KiB");
}

#[test]
fn a_malformed_histogram_takes_no_other_sample_with_it() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let bad = Arc::new(Histogram {
        schema: 99,
        ..Histogram::default()
    });
    let mut column = Column::default();
    for time in 0..3 {
        column.push(START + time, 1.0);
    }
    column.set_last_histogram(bad);
    column.push(START + 3, 1.0);
    let mut writer = BodyWriter::new().unwrap();
    for number in [1, 2] {
        let labels = series_labels(number);
        let samples = column.slice();
        writer
            .add_samples(ShardId(1), labels.canonical(), samples.iter())
            .unwrap();
    }
    let body = writer.finish().unwrap();
    let shards = ShardSet::all(SHARDS);
    let applied = engine
        .apply(1, TENANT, DeletionVersion(0), &body, &shards)
        .unwrap();
    assert_eq!((applied.samples, applied.samples_malformed), (6, 2));
    let counts: Vec<usize> = found(&engine).into_values().map(|s| s.len()).collect();
    assert_eq!(counts, [3, 3]);
}

#[test]
fn histograms_of_many_series_are_exported_whole() {
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let histogram = large_histogram(2_048);
    let mut writer = BodyWriter::new().unwrap();
    for number in 0..40 {
        let labels = series_labels(number);
        let mut column = Column::default();
        for at in 0..40 {
            column.push(START + at, 0.0);
            column.set_last_histogram(Arc::clone(&histogram));
        }
        writer
            .add_samples(
                shard_of_series(&labels),
                labels.canonical(),
                column.slice().iter(),
            )
            .unwrap();
    }
    apply(&engine, 1, &writer.finish().unwrap());
    let copy = open(&Arc::new(SimulatedDisk::new(2)));
    let shards = ShardSet::all(SHARDS);
    // In memory they are more than an export reads at once.
    let mut export = Arc::new(engine.view())
        .export(&shards, all(), 1 << 20, None)
        .unwrap();
    for position in 1.. {
        let Some(part) = export.next_body().unwrap() else {
            break;
        };
        apply(&copy, position, &part.body);
    }
    assert_eq!(digests(&copy), digests(&engine));
    engine.flush(1, None).unwrap();
    assert_eq!(found(&engine), found(&copy));
}

/// The hints of the histograms that an evaluation sees from a time on.
fn hints_from(engine: &MetricsEngine, start: Millis) -> Vec<(Millis, ResetHint)> {
    let range = TimeRange { start, ..all() };
    let shards = ShardSet::all(SHARDS);
    let view = engine.view();
    let mut cursor = view
        .cursor_in_block_order(TENANT, &[], range, &shards)
        .unwrap();
    let mut hints = Vec::new();
    while let Some(series) = cursor.next_series().unwrap() {
        let of_series = series.samples().iter();
        hints.extend(of_series.filter_map(|s| Some((s.time, s.histogram?.reset_hint))));
    }
    hints
}

#[test]
fn evaluations_are_told_what_continues_and_nobody_else_is() {
    use ResetHint::{NotReset, Unknown};
    let engine = open(&Arc::new(SimulatedDisk::new(1)));
    let labels = series_labels(1);
    let mut writer = BodyWriter::new().unwrap();
    let minute = |at: Millis| START + at * 60_000;
    let mut write = |position, times: &[Millis]| {
        let mut column = Column::default();
        for at in times {
            // The counter begins anew at the fourth minute; the tenth is far behind.
            let count = if *at < 4 { 10 + at } else { *at } as f64;
            column.push(minute(*at), 0.0);
            column.set_last_histogram(Arc::new(Histogram {
                count,
                zero_count: count,
                ..Histogram::default()
            }));
        }
        let shard = shard_of_series(&labels);
        let samples = column.slice().iter();
        writer
            .add_samples(shard, labels.canonical(), samples)
            .unwrap();
        apply(&engine, position, &writer.finish().unwrap());
    };
    // What comes first is in a block that ends before the range, what comes late in the head.
    write(1, &[0, 1, 2, 4]);
    engine.flush(1, None).unwrap();
    write(2, &[3, 5, 11]);
    let all_hints = [
        (minute(0), Unknown),
        (minute(1), NotReset),
        (minute(2), NotReset),
        (minute(3), NotReset),
        (minute(4), Unknown),
        (minute(5), NotReset),
        // Nothing is within five minutes in front of it, wherever the range begins.
        (minute(11), Unknown),
    ];
    for from in 0..7 {
        let (start, expected) = (all_hints[from].0, &all_hints[from..]);
        assert_eq!(hints_from(&engine, start), expected, "from {from}");
    }
    engine.flush(2, None).unwrap();
    while engine.merge_once(Millis::MAX).unwrap().is_some() {}
    assert_eq!(hints_from(&engine, minute(1)), all_hints[1..]);
    // Owners compare and copy what came in.
    let mut stored = found(&engine).into_values().flatten();
    let mut unknown = Vec::new();
    pack(
        &Histogram {
            count: 11.0,
            zero_count: 11.0,
            ..Histogram::default()
        },
        &mut unknown,
    );
    let bits = stored.find(|(time, _)| *time == minute(1));
    assert_eq!(bits.map(|(_, bits)| bits.1), Some(unknown));
}
